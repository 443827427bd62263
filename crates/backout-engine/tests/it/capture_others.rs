//! What others write to PostgreSQL while a captured command runs is none of its own: it stays when the command is undone, and
//! goes where that is asked for.

use backout_engine::outcome::Status;
use backout_engine::undo::Options;
use backout_model::conflict::OnConflict;
use backout_testkit::faults::{Fault, play};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Kind, Pkg, Step, captured};
use backout_testkit::postgres::Server;
use backout_testkit::site::{Done, TestSite};

const SHOP: &str = "
    CREATE TABLE product (id integer PRIMARY KEY, name text, price numeric(8,2), stock integer, tags text[]);
    INSERT INTO product VALUES (1, 'coat', 100, 5, '{a}'), (2, 'hat', 20, 6, NULL), (3, 'scarf', 15, 7, '{\"x y\",NULL}');
    CREATE TABLE orders (id serial PRIMARY KEY, product integer REFERENCES product, at timestamptz DEFAULT '2020-01-01 00:00+01', mood varchar(9));
    INSERT INTO orders (product) VALUES (1), (2);
    CREATE TABLE line (orders integer, n smallint, what text COLLATE \"C\", PRIMARY KEY (orders, n));
    INSERT INTO line VALUES (1, 1, 'a'), (1, 2, 'b');
    CREATE TABLE part (id integer PRIMARY KEY, v text) PARTITION BY LIST (id);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1, 11);
    CREATE TABLE part_2 PARTITION OF part FOR VALUES IN (2, 12);
    INSERT INTO part VALUES (1, 'a'), (2, 'b');
";

fn shop() -> TestSite {
    TestSite::builder().postgres("main", Server::shared(), SHOP).build()
}

/// Who runs statements: the command, or somebody else meanwhile.
enum Who {
    Command(&'static str),
    Other(&'static str),
}

use Who::{Command, Other};

/// A command of which some statements are those of another session: it has no name from the environment.
fn step(acts: &[Who]) -> Step {
    let lines = acts.iter().enumerate().map(|(at, act)| {
        let name = if matches!(act, Other(_)) { "PGAPPNAME=till " } else { "" };
        format!("{name}psql -X -q -v ON_ERROR_STOP=1 \"$BACKOUT_DATABASE_MAIN\" -c \"${at}\" || exit 1\n")
    });
    let mut step = captured(&lines.collect::<String>());
    if let Kind::Run(argv) = &mut step.kind {
        argv.extend(acts.iter().map(|(Command(sql) | Other(sql))| (*sql).to_owned()));
    }
    step
}

fn execute(site: &TestSite, sql: &str) {
    site.postgres("main").unwrap().connect().batch_execute(sql).unwrap();
}

fn value(site: &TestSite, query: &str) -> String {
    let row = site.postgres("main").unwrap().connect().query_one(&format!("SELECT ({query})::text"), &[]).unwrap();
    row.get::<_, Option<String>>(0).unwrap_or_else(|| "NULL".to_owned())
}

/// All rows of the shop's tables.
fn rows(site: &TestSite) -> String {
    let tables = value(
        site,
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
    );
    let all = tables.split(' ').map(|table| {
        value(site, &format!("SELECT string_agg(t::text, E'\\n' ORDER BY t::text) FROM public.{table} t"))
    });
    all.collect::<Vec<_>>().join("\n\n")
}

/// What the tool has left in the database of copies, triggers and functions.
fn left(site: &TestSite) -> String {
    value(
        site,
        "SELECT concat((SELECT string_agg(nspname, ' ') FROM pg_namespace WHERE nspname ~ '^backout.*_c[0-9]+$'),
         (SELECT string_agg(tgname, ' ') FROM pg_trigger WHERE tgname ~ '^backout'))",
    )
}

fn warnings(done: &Done) -> String {
    let said = done.heard.iter().filter_map(|happening| match happening {
        backout_engine::observer::Happening::Warning { text } => Some(text.clone()),
        _ => None,
    });
    said.collect::<Vec<_>>().join("\n")
}

const ALONG: Options = Options { on_conflict: OnConflict::Stop, unattributed: true };

/// Deploys, undoes and redoes; after an undo there is what the others' acts alone would have left, or what `left` gives.
#[track_caller]
fn stays(acts: &[Who], alone: &[&str]) {
    let site = shop();
    let before = rows(&site);
    let twin = shop();
    for sql in alone {
        execute(&twin, sql);
    }
    let wanted = rows(&twin);
    let deployed = site.deploy(&Pkg::new("p").step(step(acts)));
    let said = warnings(&deployed);
    let id = deployed.id();
    deployed.expect(Status::Done);
    assert_eq!(left(&site), "");
    assert!(said.contains("--include-unattributed") && said.contains("till as"), "{said}");
    let after = rows(&site);
    for time in 0..2 {
        let undone = site.undo(None);
        let outcome = undone.expect(Status::Done);
        assert_eq!(rows(&site), wanted, "undone, {time}");
        assert!(outcome.notes.iter().any(|note| note.contains("what others did to database main")), "{outcome:?}");
        site.redo().expect(Status::Done);
        assert_eq!(rows(&site), after, "redone, {time}");
    }
    site.undo_by(Some(&id), ALONG).expect(Status::Done);
    assert_eq!(rows(&site), before, "undone with all");
    site.redo().expect(Status::Done);
    assert_eq!(rows(&site), after, "redone with all");
    site.undo_by(None, ALONG).expect(Status::Done);
    assert_eq!(rows(&site), before, "undone with all, again");
    assert!(site.grave().is_empty(), "{:?}", site.grave());
}

#[test]
fn what_others_write_stays() {
    let insert = "INSERT INTO orders (product, mood) VALUES (3, 'é \\ ''\"')";
    let update = "UPDATE product SET stock = stock - 1, tags = '{\"q,\",b}' WHERE id = 2";
    let delete =
        "DELETE FROM line WHERE n = 2; INSERT INTO line VALUES (7, 1, NULL); UPDATE line SET n = 5 WHERE orders = 7";
    stays(
        &[
            Command("UPDATE product SET name = 'cap' WHERE id = 3; INSERT INTO product VALUES (9, 'glove', 5, 1)"),
            Other(insert),
            Other(update),
            Other(delete),
            Command("INSERT INTO line VALUES (8, 1, 'c'); DELETE FROM line WHERE what = 'a'"),
        ],
        &[insert, update, delete],
    );
}

/// Column by column: each has what the others gave it last, or what it had before.
#[test]
fn a_row_that_both_wrote_goes_back_where_the_command_wrote_it() {
    let first = "UPDATE product SET stock = 1 WHERE id = 1";
    let then =
        "UPDATE product SET stock = stock + 40, price = 3 WHERE id = 1; UPDATE product SET name = 'x' WHERE id = 2";
    stays(
        &[
            Other(first),
            Command("UPDATE product SET price = price * 2, stock = stock + 1, name = name || '!'"),
            Other(then),
            Command("UPDATE product SET name = 'y' WHERE id = 2"),
        ],
        // The command's step between is in what they read: they gave 42.
        &[first, "UPDATE product SET stock = 42, price = 3 WHERE id = 1; UPDATE product SET name = 'x' WHERE id = 2"],
    );
}

/// Somebody put a value into a row that the command made, took away one that it changed, and brought one back that it deleted.
#[test]
fn a_row_of_the_command_in_which_others_had_a_hand_is_theirs() {
    let sql = "UPDATE product SET stock = 77 WHERE id = 50; DELETE FROM line WHERE n = 1; INSERT INTO line VALUES (1, 2, 'new')";
    stays(
        &[
            Command(
                "INSERT INTO product VALUES (50, 'made', 1, 1); UPDATE line SET what = 'z' WHERE n = 1; DELETE FROM line WHERE n = 2",
            ),
            Other(sql),
        ],
        &["INSERT INTO product VALUES (50, 'made', 1, 77); DELETE FROM line; INSERT INTO line VALUES (1, 2, 'new')"],
    );
}

#[test]
fn they_stay_where_the_command_alters_the_table() {
    let before = "INSERT INTO orders (product, mood) VALUES (3, 'a')";
    let after = "INSERT INTO orders (product, mood) VALUES (2, 'b'); UPDATE orders SET mood = 'c' WHERE id = 1";
    stays(
        &[
            Other(before),
            Command(
                "ALTER TABLE orders ADD COLUMN colour text DEFAULT 'red'; ALTER TABLE product RENAME COLUMN name TO title; CREATE TABLE made (id integer)",
            ),
            Other(after),
            Command("UPDATE orders SET colour = 'blue' WHERE id = 2; CREATE INDEX ON orders (colour)"),
        ],
        &[before, after],
    );
}

/// A transaction that is rolled back, one of many statements with savepoints, and one that a trigger of the shop's joins.
#[test]
fn what_a_transaction_of_others_came_to_counts() {
    let sql = "BEGIN; UPDATE product SET stock = 0; ROLLBACK; BEGIN; UPDATE product SET stock = 9 WHERE id = 1; SAVEPOINT a;
        UPDATE product SET stock = 8 WHERE id = 1; ROLLBACK TO a; UPDATE product SET tags = '{}' WHERE id = 1; DELETE FROM line WHERE n = 1;
        INSERT INTO line VALUES (1, 1, 'again'); COMMIT";
    stays(&[Command("UPDATE product SET price = 1"), Other(sql)], &[sql]);
}

/// A statement on the whole is one on its partitions; a row that moves goes from one and comes to another.
#[test]
fn partitions_are_told_apart() {
    let sql = "UPDATE part SET id = 12 WHERE id = 1; INSERT INTO part VALUES (11, 'new')";
    stays(&[Other(sql), Command("UPDATE part SET v = 'z' WHERE id IN (2, 12)")], &[sql]);
}

#[test]
fn numbers_that_others_drew_are_not_given_twice() {
    let site = shop();
    let acts = [Command("INSERT INTO orders (product) VALUES (1)"), Other("INSERT INTO orders (product) VALUES (2)")];
    site.deploy(&Pkg::new("p").step(step(&acts))).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    execute(&site, "INSERT INTO orders (product) VALUES (3)");
    assert_eq!(value(&site, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM orders"), "1 2 4 5");
}

#[test]
fn a_failed_command_takes_nobody_along() {
    let site = shop();
    let insert = "INSERT INTO orders (product) VALUES (3); UPDATE product SET stock = 0";
    let acts =
        [Command("UPDATE product SET price = 1; CREATE TABLE made (id integer)"), Other(insert), Command("fail")];
    let twin = shop();
    execute(&twin, insert);
    site.deploy(&Pkg::new("p").step(step(&acts))).expect(Status::Failed);
    assert_eq!(rows(&site), rows(&twin));
    assert_eq!(left(&site), "");
}

/// Nobody could say whose it is: as ever, and that is said.
#[test]
fn where_no_session_is_recognised_all_counts_as_the_commands() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let done = site.deploy(&Pkg::new("p").step(step(&[Other("UPDATE product SET stock = 0")])));
    let said = warnings(&done);
    done.expect(Status::Done);
    assert!(said.contains("no session of the command was recognised") && said.contains("maintenance:"), "{said}");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

#[test]
fn what_is_not_told_apart_is_named() {
    let site = TestSite::builder()
        .postgres(
            "main",
            Server::shared(),
            &format!("{SHOP}; CREATE TABLE plain (v text); CREATE TABLE gone (id integer PRIMARY KEY)"),
        )
        .build();
    let before = Fingerprint::of(&site);
    let acts = [Command("UPDATE product SET stock = 0"), Other("INSERT INTO plain VALUES ('a'); TRUNCATE gone")];
    let done = site.deploy(&Pkg::new("p").step(step(&acts)));
    let said = warnings(&done);
    done.expect(Status::Done);
    assert!(
        said.contains("plain: not told apart, for it has no key") && said.contains("gone: not told apart"),
        "{said}"
    );
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

#[test]
fn in_the_maintenance_window_all_counts_and_nobody_listens() {
    let site = TestSite::builder().postgres("main", Server::shared(), SHOP).maintenance("true", "true").build();
    let before = Fingerprint::of(&site);
    let looks = Command("CREATE TABLE seen AS SELECT tgname FROM pg_trigger WHERE tgname ~ '^backout'");
    let done = site.deploy(&Pkg::new("p").step(step(&[looks, Other("UPDATE product SET stock = 0")])));
    assert_eq!(warnings(&done), "");
    done.expect(Status::Done);
    assert_eq!(value(&site, "SELECT count(*) FROM seen"), "0");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

/// A trigger of the shop's writes to the same row once more: which came last cannot be told, and nothing is guessed.
#[test]
fn an_order_that_cannot_be_told_is_not_guessed() {
    let trigger = "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN UPDATE product SET price = stock WHERE id = new.id; RETURN NULL; END $$;
        CREATE TRIGGER again AFTER UPDATE OF stock ON product FOR EACH ROW EXECUTE FUNCTION again();";
    let site = TestSite::builder().postgres("main", Server::shared(), &format!("{SHOP}{trigger}")).build();
    let before = Fingerprint::of(&site);
    let acts = [Command("UPDATE product SET name = 'x'"), Other("UPDATE product SET stock = 99 WHERE id = 1")];
    let done = site.deploy(&Pkg::new("p").step(step(&acts)));
    let said = warnings(&done);
    done.expect(Status::Done);
    assert!(said.contains("product: not told apart, for triggers wrote"), "{said}");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

/// It dies while the command is at work, or right after what others did was announced: `resume` takes back the command alone.
#[test]
fn a_run_that_dies_takes_nobody_along() {
    let insert = "INSERT INTO orders (product) VALUES (3); UPDATE product SET stock = 0 WHERE id = 2";
    let twin = shop();
    execute(&twin, insert);
    let wanted = rows(&twin);
    let acts = || [Command("UPDATE product SET price = 1; ALTER TABLE product ADD COLUMN colour text"), Other(insert)];
    let package = || Pkg::new("p").step(step(&acts()));
    let counted = {
        let site = shop();
        let playing = play(Fault::None, false);
        site.deploy(&package()).expect(Status::Done);
        playing.seen().len()
    };
    for n in (1..=counted).step_by(5) {
        let site = shop();
        let before = rows(&site);
        let playing = play(Fault::CrashAt(n), false);
        drop(site.deploy(&package()));
        assert!(playing.struck(), "{n} of {counted}");
        drop(playing);
        site.bury_the_dead();
        site.resume().result.unwrap();
        let now = rows(&site);
        let gone = now == before || now == wanted;
        let stands = value(
            &site,
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 'product'::regclass AND attname = 'colour'",
        ) == "1";
        assert!(gone || stands, "{n} of {counted}: {now}");
        assert_eq!(left(&site), "", "{n} of {counted}");
        if stands {
            site.undo(None).expect(Status::Done);
            assert_eq!(rows(&site), wanted, "{n} of {counted}");
        }
    }
}
