//! Captured commands on PostgreSQL: whatever `psql` did to rows, definitions and counters goes back exactly, and comes again.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, captured_psql};
use backout_testkit::postgres::Server;
use backout_testkit::site::{Done, TestSite};

const SHOP: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'well');
    CREATE TABLE product (id integer PRIMARY KEY, name text UNIQUE, price numeric NOT NULL, mood mood);
    CREATE INDEX by_price ON product (price);
    COMMENT ON COLUMN product.name IS 'as it is said';
    INSERT INTO product VALUES (1, 'coat', 100.50, 'sad'), (2, 'hat', 20, 'well'), (3, 'scarf', 15, NULL);
    CREATE TABLE orders (id serial PRIMARY KEY, product integer REFERENCES product ON DELETE CASCADE, amount integer CHECK (amount > 0));
    INSERT INTO orders (product, amount) VALUES (1, 1), (2, 3), (3, 9);
    CREATE TABLE settings (name varchar(20) PRIMARY KEY, value jsonb);
    INSERT INTO settings VALUES ('schema', '41'), ('theme', '{\"a\": 1.50}');
    CREATE TABLE audit (what text, price double precision, at timestamptz);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO audit VALUES (new.name, new.price); RETURN NULL; END $$;
    CREATE TRIGGER watch AFTER UPDATE ON product FOR EACH ROW EXECUTE FUNCTION watch();
    INSERT INTO audit VALUES ('coat', 90), ('coat', 90), (NULL, 'NaN'), ('hat', 1e-300);
    CREATE TABLE part (id integer, half integer, v text, PRIMARY KEY (id, half)) PARTITION BY LIST (half);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
    CREATE TABLE part_2 PARTITION OF part FOR VALUES IN (2);
    INSERT INTO part VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c');
    CREATE TABLE member (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, login text NOT NULL, mail text, age integer,
        tags text[], mood mood DEFAULT 'well');
    INSERT INTO member (login, mail, age, tags) VALUES ('ann', 'a@x', 30, '{a,b}'), ('bob', 'b@x', 41, NULL);
    CREATE VIEW cheap AS SELECT id, name FROM product WHERE price < 50;
    CREATE VIEW grown AS SELECT login, age FROM member WHERE age > 17;
    CREATE AGGREGATE total (integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '7');
    CREATE AGGREGATE many (*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0');
    CREATE SEQUENCE ticket;
    SELECT setval('ticket', 7);
    CREATE ROLE NOBODY_WRITES;
";

fn shop() -> TestSite {
    let schema = SHOP.replace("CREATE ROLE NOBODY_WRITES;", "");
    TestSite::builder().postgres("main", Server::shared(), &schema).build()
}

/// Deploys each on a site of its own, undoes, redoes and undoes again, and compares each time.
#[track_caller]
fn all_go_and_come(all: &[&str]) {
    let wrong: Vec<String> =
        all.iter().filter_map(|sql| Some(format!("{sql}:\n{}", goes_and_comes(sql).err()?))).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n\n"));
}

fn goes_and_comes(sql: &str) -> Result<(), String> {
    goes_and_comes_on(&shop(), sql)
}

/// Deploys it, undoes, redoes and undoes again, and compares each time.
pub fn goes_and_comes_on(site: &TestSite, sql: &str) -> Result<(), String> {
    let package = Pkg::new("p").step(captured_psql(sql));
    let before = Fingerprint::of(site);
    let same = |what: &str, wanted: &Fingerprint| match wanted.differences(&Fingerprint::of(site)) {
        found if found.is_empty() => Ok(()),
        found => Err(format!("{what}:\n  {}", found.join("\n  "))),
    };
    let done = |what: &str, done: Done| match done.status() {
        Status::Done => Ok(()),
        _ => Err(format!("{what}: {done:?}")),
    };
    done("deployed", site.deploy(&package))?;
    let after = Fingerprint::of(site);
    if before == after || !copies(site).is_empty() {
        return Err(format!("it did nothing, or copies stay: {}", copies(site)));
    }
    done("undone", site.undo(None))?;
    same("undone", &before)?;
    // The second redo is done by what the first has written down.
    for time in 1..3 {
        done("redone", site.redo())?;
        same(&format!("redone, {time}"), &after)?;
        done("undone again", site.undo(None))?;
        same(&format!("undone again, {time}"), &before)?;
    }
    let grave = site.grave();
    if grave.is_empty() { Ok(()) } else { Err(format!("{grave:?}")) }
}

/// The schemas that hold copies.
fn copies(site: &TestSite) -> String {
    value(site, "SELECT coalesce(string_agg(nspname, ' '), '') FROM pg_namespace WHERE nspname ~ '^backout.*_c[0-9]+$'")
}

/// The one value of a query.
fn value(site: &TestSite, query: &str) -> String {
    let row = site.postgres("main").unwrap().connect().query_one(&format!("SELECT ({query})::text"), &[]).unwrap();
    row.get::<_, Option<String>>(0).unwrap_or_else(|| "NULL".to_owned())
}

fn execute(site: &TestSite, script: &str) {
    site.postgres("main").unwrap().connect().batch_execute(script).unwrap();
}

#[test]
fn rows_go_back_and_come_again() {
    all_go_and_come(&[
        "UPDATE product SET price = price + 1; INSERT INTO product VALUES (9, 'glove', 5, 'sad'); DELETE FROM product WHERE id = 2",
        "INSERT INTO orders (product, amount) VALUES (1, 7); DELETE FROM orders WHERE id = 1",
        "INSERT INTO settings VALUES ('schema', '42'), ('new', 'null') ON CONFLICT (name) DO UPDATE SET value = excluded.value; UPDATE settings SET value = '{\"a\": 1.5}' WHERE name = 'theme'",
        "DELETE FROM audit WHERE ctid = (SELECT min(ctid) FROM audit); UPDATE audit SET price = 2 WHERE what = 'hat'; INSERT INTO audit VALUES ('c', '-0')",
        "TRUNCATE audit; DELETE FROM orders; SELECT setval('ticket', 99), nextval('orders_id_seq')",
        "INSERT INTO product VALUES (50, 'x', 1); UPDATE product SET id = id + 100 WHERE id = 50; UPDATE settings SET name = 'other' WHERE name = 'theme'; UPDATE part SET half = 2 WHERE id = 1; DELETE FROM part WHERE id = 3",
        "UPDATE member SET tags = '{x}', mood = 'sad' WHERE login = 'ann'; INSERT INTO member (login) VALUES ('cat')",
    ]);
}

#[test]
fn what_is_made_goes_and_comes_again() {
    all_go_and_come(&[
        "CREATE TABLE made (id serial PRIMARY KEY, t text UNIQUE, p integer REFERENCES product); INSERT INTO made (t, p) VALUES ('a', 1), ('b', 2);
         CREATE INDEX mi ON made (t DESC); COMMENT ON TABLE made IS 'new'",
        "CREATE TABLE ident (id integer GENERATED BY DEFAULT AS IDENTITY (START WITH 5), n integer GENERATED ALWAYS AS (id * 2) STORED); INSERT INTO ident DEFAULT VALUES",
        "CREATE FUNCTION twice(i integer) RETURNS integer LANGUAGE sql AS 'SELECT i * 2'; CREATE VIEW v AS SELECT twice(id) AS t FROM product;
         CREATE MATERIALIZED VIEW mv AS SELECT count(*) AS n FROM orders; CREATE TYPE colour AS ENUM ('red'); CREATE DOMAIN pos AS integer CHECK (VALUE > 0);
         CREATE TABLE t (c colour, p pos); INSERT INTO t VALUES ('red', 1)",
        "CREATE SCHEMA app; CREATE TABLE app.t (id integer PRIMARY KEY); INSERT INTO app.t VALUES (1); CREATE SEQUENCE app.s; SELECT nextval('app.s')",
        "CREATE UNIQUE INDEX ON member (mail); ALTER TABLE member ADD CONSTRAINT grown CHECK (age > 10); CREATE POLICY p ON member USING (true);
         ALTER TABLE member ENABLE ROW LEVEL SECURITY; GRANT SELECT ON member TO PUBLIC",
        "CREATE TABLE base (id integer PRIMARY KEY, v text); CREATE TABLE derived (w text) INHERITS (base); INSERT INTO derived VALUES (1, 'a', 'b');
         CREATE TABLE part_3 PARTITION OF part FOR VALUES IN (3); INSERT INTO part VALUES (9, 3, 'z'); CREATE RULE r AS ON DELETE TO base DO INSTEAD NOTHING",
        "CREATE EXTENSION hstore; CREATE TABLE h (v hstore); INSERT INTO h VALUES ('a=>1'); ALTER TABLE member ADD COLUMN extra hstore; UPDATE member SET extra = 'b=>2'",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; CREATE PUBLICATION pub FOR TABLE member; CREATE TABLE seen (id integer); CREATE STATISTICS st ON id, login FROM member",
        "CREATE TRIGGER w2 AFTER INSERT ON product FOR EACH ROW EXECUTE FUNCTION watch(); INSERT INTO product VALUES (7, 'x', 1)",
    ]);
}

#[test]
fn columns_go_back_and_come_again() {
    all_go_and_come(&[
        "ALTER TABLE member ADD COLUMN colour text; UPDATE member SET colour = 'red' WHERE login = 'ann'; ALTER TABLE member ALTER colour SET DEFAULT 'blue'",
        "ALTER TABLE member ADD COLUMN n integer NOT NULL DEFAULT 7; UPDATE member SET n = 8 WHERE login = 'bob'; ALTER TABLE member ALTER n DROP DEFAULT",
        "ALTER TABLE member ADD COLUMN made timestamptz DEFAULT now(); UPDATE member SET made = '2020-01-01'; ALTER TABLE member ALTER made SET NOT NULL",
        "ALTER TABLE member DROP COLUMN mail",
        "ALTER TABLE member DROP COLUMN tags; UPDATE member SET age = age + 1; DELETE FROM member WHERE login = 'bob'; INSERT INTO member (login) VALUES ('new')",
        "DROP VIEW grown; ALTER TABLE member RENAME COLUMN age TO years; ALTER TABLE member RENAME TO people; UPDATE people SET years = 1",
        "ALTER TABLE settings ALTER name TYPE varchar(40); ALTER TABLE settings ADD CHECK (value IS NOT NULL)",
        "ALTER TABLE orders DROP CONSTRAINT orders_amount_check; ALTER TABLE orders ALTER amount TYPE text USING 'n' || amount",
        "ALTER TABLE member ALTER mail TYPE integer USING length(mail)",
        "ALTER TABLE product ADD COLUMN code serial; UPDATE product SET code = 10 * code",
        "ALTER TABLE audit ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "ALTER TABLE audit DROP COLUMN price",
    ]);
}

#[test]
fn constraints_types_and_the_rest_go_back_and_come_again() {
    all_go_and_come(&[
        "ALTER TABLE product DROP CONSTRAINT product_name_key; UPDATE product SET name = 'same'; CREATE INDEX by_name ON product (name)",
        "ALTER TYPE mood ADD VALUE 'angry'; UPDATE product SET mood = 'angry'",
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
        "ALTER TYPE mood ADD VALUE 'merry' BEFORE 'well'",
        "CREATE AGGREGATE made (integer) (SFUNC = int4pl, STYPE = integer); DROP AGGREGATE total (integer); COMMENT ON AGGREGATE many (*) IS 'x'",
        "CREATE OR REPLACE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; DROP TRIGGER watch ON product",
        "CREATE OR REPLACE VIEW cheap AS SELECT id, name, price FROM product; DROP VIEW grown; CREATE VIEW grown AS SELECT login FROM member",
        "CREATE TYPE pair AS (a integer, b text); ALTER TABLE member ADD COLUMN p pair; UPDATE member SET p = (1, NULL) WHERE login = 'ann'; UPDATE member SET p = (NULL, NULL) WHERE login = 'bob'",
        "ALTER TABLE member ADD COLUMN upper text GENERATED ALWAYS AS (upper(login)) STORED, ADD COLUMN boss integer REFERENCES member; UPDATE member SET boss = 1",
        "ALTER TABLE part ADD COLUMN w text DEFAULT 'w'; UPDATE part SET w = 'x' WHERE id = 1",
        "ALTER TABLE part DROP COLUMN v",
        "CREATE SCHEMA other; ALTER TABLE orders SET SCHEMA other; ALTER TABLE settings RENAME TO options; ALTER TABLE audit RENAME TO settings",
        "REVOKE ALL ON member FROM PUBLIC; ALTER TABLE member DISABLE TRIGGER USER; ALTER TABLE member ALTER login SET STATISTICS 50, ALTER mail SET STORAGE external; CLUSTER product USING by_price",
        "ALTER SEQUENCE ticket INCREMENT BY 5; SELECT nextval('ticket'); ALTER TABLE orders ALTER id DROP DEFAULT; DROP SEQUENCE orders_id_seq",
    ]);
}

#[test]
fn what_is_dropped_comes_back_and_goes_again() {
    all_go_and_come(&[
        "DROP TABLE audit",
        "DROP TABLE orders; DROP VIEW cheap; DROP SEQUENCE ticket",
        "DROP TABLE product CASCADE",
        "DROP TABLE member CASCADE; DROP TABLE product CASCADE; DROP TYPE mood; DROP FUNCTION watch()",
        "DROP TABLE part",
        "CREATE TABLE new_audit (id serial PRIMARY KEY, what text); INSERT INTO new_audit (what) SELECT what FROM audit; DROP TABLE audit; ALTER TABLE new_audit RENAME TO audit",
        "CREATE TABLE p2 (id integer PRIMARY KEY, name text); INSERT INTO p2 SELECT id, name FROM product; DROP TABLE product CASCADE; ALTER TABLE p2 RENAME TO product;
         ALTER TABLE orders ADD FOREIGN KEY (product) REFERENCES product",
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE public.only (id integer)",
        "CREATE TABLE p2 AS TABLE part_1; ALTER TABLE part DETACH PARTITION part_2; DROP TABLE part_1",
    ]);
}

/// What others do after a captured command, and what its undo makes of it.
fn after_others(command: &str, others: &str) -> (TestSite, Done) {
    let site = shop();
    site.deploy(&Pkg::new("p").step(captured_psql(command))).expect(Status::Done);
    execute(&site, others);
    let done = site.undo(None);
    (site, done)
}

#[test]
fn later_changes_of_others_are_merged_by_column() {
    let (site, done) = after_others(
        "UPDATE member SET age = 1; ALTER TABLE member ADD COLUMN colour text; UPDATE member SET colour = 'red'; ALTER TABLE member DROP COLUMN tags",
        "UPDATE member SET mail = 'new' WHERE login = 'ann'; INSERT INTO member (login, age) VALUES ('zoe', 9)",
    );
    done.expect(Status::Done);
    let rows = "SELECT string_agg(concat_ws(' ', login, mail, age, tags), ', ' ORDER BY login) FROM member";
    assert_eq!(value(&site, rows), "ann new 30 {a,b}, bob b@x 41, zoe 9");
    assert_eq!(
        value(
            &site,
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 'member'::regclass AND attnum > 0 AND NOT attisdropped"
        ),
        "6"
    );
}

/// What a dump does not say: the rows of a materialized view. CONCURRENTLY leaves even its file.
#[test]
fn a_view_that_a_command_fills_anew_holds_again_what_it_held() {
    for concurrently in ["", "CONCURRENTLY"] {
        let site = shop();
        execute(
            &site,
            "CREATE MATERIALIZED VIEW mv AS SELECT login, age FROM member; CREATE UNIQUE INDEX ON mv (login)",
        );
        let held = "SELECT string_agg(concat_ws(' ', login, age), ', ' ORDER BY login) FROM mv";
        let before = value(&site, held);
        let command = format!("UPDATE member SET age = 1; REFRESH MATERIALIZED VIEW {concurrently} mv");
        site.deploy(&Pkg::new("p").step(captured_psql(&command))).expect(Status::Done);
        assert_eq!(value(&site, held), "ann 1, bob 1");
        site.undo(None).expect(Status::Done);
        assert_eq!(value(&site, held), before, "{concurrently}");
        site.redo().expect(Status::Done);
        assert_eq!(value(&site, held), "ann 1, bob 1", "{concurrently}");
        site.undo(None).expect(Status::Done);
        assert_eq!(value(&site, held), before, "{concurrently}");
    }
}

/// As Django adds a field: the default is for the rows that are there, and goes.
#[test]
fn a_column_whose_default_went_again_is_dropped_and_what_others_wrote_stays() {
    let (site, done) = after_others(
        "ALTER TABLE member ADD COLUMN n integer DEFAULT 7 NOT NULL; ALTER TABLE member ALTER n DROP DEFAULT",
        "UPDATE member SET mail = 'new' WHERE login = 'ann'",
    );
    done.expect(Status::Done);
    let rows = "SELECT string_agg(concat_ws(' ', login, mail, age), ', ' ORDER BY login) FROM member";
    assert_eq!(value(&site, rows), "ann new 30, bob b@x 41");
}

#[test]
fn later_changes_of_others_to_the_same_are_conflicts() {
    let (site, done) = after_others("UPDATE member SET age = 1", "UPDATE member SET age = 2 WHERE login = 'bob'");
    let outcome = done.expect(Status::Refused);
    assert_eq!(outcome.conflicts.len(), 1, "{outcome:?}");
    assert_eq!(outcome.conflicts[0].column.as_deref(), Some("age"));
    assert_eq!(value(&site, "SELECT sum(age) FROM member"), "3", "nothing was undone");
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert_eq!(value(&site, "SELECT sum(age) FROM member"), "32");
}

/// What is told as a table dropped and made anew holds rows of others, which nothing would bring over.
/// As MediaWiki's updater does on each run: the server makes what hangs on such a column again, under another number.
#[test]
fn keys_that_were_made_again_alike_are_the_same() {
    let sql = "ALTER TABLE settings ALTER name TYPE varchar(20), ALTER value TYPE jsonb;
        DROP TRIGGER watch ON product; CREATE TRIGGER watch AFTER UPDATE ON product FOR EACH ROW EXECUTE FUNCTION watch();
        INSERT INTO settings VALUES ('new', '1'); UPDATE product SET price = 21 WHERE id = 2;";
    all_go_and_come(&[sql]);
    let (site, done) = after_others(
        sql,
        "INSERT INTO settings VALUES ('theirs', '2'); UPDATE settings SET value = '42' WHERE name = 'schema'; UPDATE product SET name = 'cap' WHERE id = 2",
    );
    assert_eq!(done.status(), Status::Done, "{done:?}");
    let settings = "SELECT string_agg(name || '=' || value, ' ' ORDER BY name COLLATE \"C\") FROM settings";
    assert_eq!(value(&site, settings), "schema=42 theirs=2 theme={\"a\": 1.50}");
    assert_eq!(value(&site, "SELECT name || price FROM product WHERE id = 2"), "cap20");
    // One that is another key then is told.
    all_go_and_come(&[
        "ALTER TABLE settings DROP CONSTRAINT settings_pkey, ADD CONSTRAINT settings_pkey UNIQUE (name);
        INSERT INTO settings VALUES ('new', '1')",
    ]);
}

#[test]
fn rows_of_others_in_a_table_that_was_made_anew_are_conflicts() {
    for others in ["INSERT INTO member (login) VALUES ('zoe')", "UPDATE member SET login = 'zoe' WHERE login = 'ann'"] {
        let (site, done) = after_others("ALTER TABLE member ALTER mail TYPE integer USING length(mail)", others);
        let after = Fingerprint::of(&site);
        let outcome = done.expect(Status::Refused);
        assert!(!outcome.conflicts.is_empty(), "{outcome:?}");
        after.assert_same(&Fingerprint::of(&site), "nothing was undone");
    }
}

#[test]
fn what_a_command_did_before_it_failed_is_undone() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let work = "DELETE FROM orders; DROP TABLE settings; ALTER TABLE member DROP COLUMN age CASCADE; CREATE TABLE made (id serial)";
    for end in ["SELECT 1 / 0", "SELECT pg_sleep(600)"] {
        let mut step = captured_psql(&format!("{work}; {end}"));
        if end.contains("sleep") {
            step = step.with("timeout", "2s");
        }
        site.deploy(&Pkg::new("p").step(step)).expect(Status::Failed);
        before.assert_same(&Fingerprint::of(&site), end);
        assert!(copies(&site).is_empty(), "{}", copies(&site));
    }
    assert!(!site.state().join("captures").exists());
}

/// What nobody knows how to bring back, the command has not done.
#[test]
fn a_command_that_makes_what_is_not_handled_fails_and_all_of_it_goes() {
    for odd in [
        "CREATE COLLATION german (provider = libc, locale = 'C')",
        "CREATE TEXT SEARCH CONFIGURATION mine (COPY = english)",
        "CREATE CAST (mood AS integer) WITH INOUT",
        "CREATE FUNCTION f(mood, mood) RETURNS boolean LANGUAGE sql AS 'SELECT true'; CREATE OPERATOR === (LEFTARG = mood, RIGHTARG = mood, FUNCTION = f)",
        "SELECT lo_from_bytea(0, 'large')",
    ] {
        let site = shop();
        let before = Fingerprint::of(&site);
        let done = site
            .deploy(&Pkg::new("p").step(captured_psql(&format!("DROP TABLE audit; {odd}; UPDATE member SET age = 1"))));
        let outcome = done.expect(Status::Failed);
        assert!(outcome.causes.join(" ").contains("nothing could bring the old state back"), "{outcome:?}");
        before.assert_same(&Fingerprint::of(&site), odd);
    }
}

/// All that is in a schema is called by its name, which has to be the old one before anything can be put back. Where both are
/// there afterwards it can.
#[test]
fn a_command_that_renames_schemas_fails_and_all_of_it_goes() {
    let made = "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t (id int PRIMARY KEY, m text); CREATE TABLE b.t (LIKE a.t INCLUDING ALL);
        INSERT INTO a.t VALUES (1, 'a1'), (2, 'a2'); INSERT INTO b.t VALUES (1, 'b1')";
    for names in [
        "ALTER SCHEMA a RENAME TO c; UPDATE c.t SET m = 'x'",
        "ALTER SCHEMA a RENAME TO c; CREATE SCHEMA a; CREATE TABLE a.t (z int); INSERT INTO a.t VALUES (5); DROP TABLE audit",
    ] {
        let site = shop();
        execute(&site, made);
        let before = Fingerprint::of(&site);
        let outcome = site.deploy(&Pkg::new("p").step(captured_psql(names))).expect(Status::Failed);
        assert!(format!("{outcome:?}").contains("is refused"), "{outcome:?}");
        before.assert_same(&Fingerprint::of(&site), names);
        assert_eq!(copies(&site), "", "{names}");
    }
    let site = shop();
    execute(&site, made);
    let swapped = "ALTER SCHEMA a RENAME TO c; ALTER SCHEMA b RENAME TO a; ALTER SCHEMA c RENAME TO b; DELETE FROM a.t; UPDATE b.t SET m = 'x'";
    goes_and_comes_on(&site, swapped).unwrap();
}

#[test]
fn what_a_domain_demands_comes_behind_the_rows_that_satisfy_it() {
    let site = shop();
    execute(
        &site,
        "CREATE DOMAIN few AS integer; CREATE TABLE box (id int PRIMARY KEY, n few); INSERT INTO box VALUES (1, -1), (2, 2)",
    );
    let before = Fingerprint::of(&site);
    let command = "UPDATE box SET n = 1 WHERE n < 0; ALTER DOMAIN few ADD CONSTRAINT positive CHECK (VALUE > 0)";
    site.deploy(&Pkg::new("p").step(captured_psql(command))).expect(Status::Done);
    let after = Fingerprint::of(&site);
    for turn in ["undo", "redo", "undo"] {
        let (done, wanted) = match turn {
            "undo" => (site.undo(None), &before),
            _ => (site.redo(), &after),
        };
        done.expect(Status::Done);
        wanted.assert_same(&Fingerprint::of(&site), turn);
    }
}

/// Where that was there before, the site is not told to be as it was.
#[test]
fn a_command_that_drops_what_is_not_handled_needs_a_hand() {
    let site = shop();
    execute(&site, "CREATE COLLATION german (provider = libc, locale = 'C')");
    let before = Fingerprint::of(&site);
    let done = site.deploy(&Pkg::new("p").step(captured_psql("DROP COLLATION german; UPDATE member SET age = 1")));
    let id = done.id();
    let outcome = done.expect(Status::NeedsHand);
    assert!(format!("{outcome:?}").contains("collation public.german"), "{outcome:?}");
    assert_eq!(value(&site, "SELECT sum(age) FROM member"), "71", "all else was put back");
    assert_eq!(copies(&site), "backout_shop_c1");
    let still = site.undo(Some(&id));
    assert_eq!(still.status(), Status::NeedsHand, "{still:?}");
    execute(&site, "CREATE COLLATION german (provider = libc, locale = 'C')");
    assert_eq!(site.resume().result.unwrap().unwrap().status, Status::Done);
    before.assert_same(&Fingerprint::of(&site), "by hand");
    assert_eq!(copies(&site), "");
}

#[test]
fn a_role_without_rights_is_refused_beforehand() {
    let server = Server::shared();
    let role = format!("small_{}", std::process::id());
    let mut admin = server.connect("postgres");
    drop(admin.batch_execute(&format!("CREATE ROLE {role} LOGIN")));
    let schema = format!(
        "CREATE TABLE own (id integer PRIMARY KEY); ALTER TABLE own OWNER TO {role}; CREATE TABLE others (id integer PRIMARY KEY);
         GRANT ALL ON SCHEMA public TO {role}; DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {role}', current_database()); END $$"
    );
    let site = TestSite::builder().postgres_at("main", server, &schema, |database| database.url_as(&role)).build();
    let before = Fingerprint::of(&site);
    let package = Pkg::new("p").step(captured_psql("INSERT INTO own VALUES (1)"));
    let refused = site.deploy(&package);
    assert_eq!(refused.status(), Status::Refused, "{refused:?}");
    let told = format!("{:?}", refused.result.err());
    assert!(told.contains("table public.others") && told.contains("is no member of that"), "{told}");
    before.assert_same(&Fingerprint::of(&site), "refused");
    execute(&site, &format!("ALTER TABLE others OWNER TO {role}"));
    let before = Fingerprint::of(&site);
    site.deploy(&package).expect(Status::Done);
    assert_eq!(value(&site, "SELECT count(*) FROM own"), "1");
    let altered = Pkg::new("q").step(captured_psql(
        "ALTER TABLE others ADD COLUMN t text; DROP TABLE own; CREATE TABLE third (id serial PRIMARY KEY); INSERT INTO third DEFAULT VALUES",
    ));
    site.deploy(&altered).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone by a role that is no superuser");
}

#[test]
fn what_a_command_did_is_shown_as_changes() {
    let site = shop();
    site.deploy(
        &Pkg::new("p")
            .step(captured_psql("UPDATE member SET age = 1; DROP TABLE audit; CREATE TABLE made (id integer)")),
    )
    .expect(Status::Done);
    let config = site.config();
    let mut changes = Vec::new();
    backout_engine::report::show(&mut site.targets(&config).unwrap(), &site.journal(), None, &mut |shown| {
        if let backout_engine::report::Shown::Change { change, .. } = shown {
            changes.push((change.change, change.undo));
        }
    })
    .unwrap();
    let all = format!("{changes:?}");
    for told in [
        "DROP TABLE IF EXISTS public.audit",
        "bring back table public.audit with the rows",
        "CREATE TABLE public.made",
        "rows of member",
    ] {
        assert!(all.contains(told), "{told}: {changes:#?}");
    }
}
