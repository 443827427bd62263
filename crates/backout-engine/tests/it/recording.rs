//! What happens on a site between a start and a stop, as a package: deployed on another copy of the site it comes to the same
//! databases and trees, and goes back there; on the site itself it goes back, too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use backout_engine::error::EngineError;
use backout_engine::outcome::{Outcome, Status};
use backout_engine::recording::{self, Stop};
use backout_model::conflict::OnConflict;
use backout_testkit::every;
use backout_testkit::faults::{Fault, play};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::observer::Recorder;
use backout_testkit::site::{Done, TestSite};

use crate::scene::{self, shop};

pub fn start(site: &TestSite) -> Done {
    site.command("capture", Recorder::default(), recording::start)
}

pub fn stop_with(site: &TestSite, stop: &Stop) -> Done {
    site.command("capture", Recorder::default(), |session| recording::stop(session, stop))
}

/// Makes the package `carried` of what was recorded.
pub fn stop(site: &TestSite, leave_out: &[&str]) -> (PathBuf, Done) {
    let at = site.dir().join("carried");
    let leave_out = leave_out.iter().map(|one| (*one).to_owned()).collect();
    (at.clone(), stop_with(site, &Stop { package: Some(at), leave_out, abandon: false }))
}

/// Triggers are made anew behind everything else: the places of objects in SQLite's schema are left out.
fn without_order(mut fingerprint: Fingerprint) -> Fingerprint {
    for lines in fingerprint.parts.values_mut() {
        let (placed, mut rest): (Vec<_>, BTreeMap<_, _>) = {
            let (placed, rest): (Vec<_>, Vec<_>) =
                std::mem::take(lines).into_iter().partition(|(name, _)| name.starts_with("schema "));
            (placed, rest.into_iter().collect())
        };
        rest.extend(placed.into_iter().map(|(_, line)| (format!("schema {line}"), line)));
        *lines = rest;
    }
    fingerprint
}

/// Records what `act` does on one of two copies of a site, deploys it on the other, and takes both back.
pub fn carried(name: &str, build: &dyn Fn() -> TestSite, act: &dyn Fn(&TestSite)) -> Result<(), String> {
    let (staging, other) = (build(), build());
    let of = |site: &TestSite| without_order(Fingerprint::of(site).without_directory_times());
    let (on_staging, before) = (of(&staging), of(&other));
    let done = |what: &str, done: Done| match done.status() {
        Status::Done => Ok(done.result.unwrap()),
        _ => Err(format!("{name}: {what}: {done:?}")),
    };
    let same = |what: &str, wanted: &Fingerprint, found: &Fingerprint| match wanted.differences(found) {
        found if found.is_empty() => Ok(()),
        found => Err(format!("{name}: {what}:\n  {}", found.join("\n  "))),
    };
    done("started", start(&staging))?;
    act(&staging);
    let (package, stopped) = stop(&staging, &[]);
    done("stopped", stopped)?;
    let read = |file: &str| std::fs::read_to_string(package.join(file)).unwrap_or_default();
    let told = |error: String| format!("{error}\n{}\n{}", read("package.yaml"), read("sql/main.sql"));
    let after = of(&staging);
    done("deployed", other.deploy_from(&package, Recorder::default())).map_err(told)?;
    same("deployed", &after, &of(&other)).map_err(told)?;
    done("undone elsewhere", other.undo(None)).map_err(told)?;
    same("undone elsewhere", &before, &of(&other)).map_err(told)?;
    done("undone here", staging.undo(None))?;
    same("undone here", &on_staging, &of(&staging))?;
    let grave: Vec<_> = [&staging, &other].into_iter().flat_map(TestSite::grave).collect();
    if grave.is_empty() { Ok(()) } else { Err(format!("{name}: {grave:?}")) }
}

#[track_caller]
pub fn all_carried(build: &dyn Fn() -> TestSite, scripts: &[&str]) {
    let wrong: Vec<String> =
        scripts.iter().filter_map(|sql| carried(sql, build, &|site: &TestSite| run(site, sql)).err()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), scripts.len(), wrong.join("\n\n"));
}

pub fn run(site: &TestSite, sql: &str) {
    use backout_testkit::mariadb::Queryable as _;
    match (site.postgres("main"), site.mariadb("main")) {
        (Some(database), _) => database.connect().batch_execute(sql).unwrap(),
        (None, Some(database)) => database.connect().query_drop(sql).unwrap(),
        (None, None) => site.execute(sql),
    }
}

pub fn web(site: &TestSite, script: &str) {
    let status = std::process::Command::new("sh").args(["-ec", script]).current_dir(site.root("web")).status();
    assert!(status.unwrap().success(), "{script}");
}

fn full() -> TestSite {
    let site = shop();
    site.execute(
        "CREATE TABLE log (what, n); INSERT INTO log VALUES ('a', 1), ('a', 1), ('b', 2.5), (x'00ff', NULL);
         CREATE TABLE tag (name TEXT, UNIQUE (name)); INSERT INTO tag VALUES ('a'), ('b');
         CREATE INDEX tags ON tag (name DESC); CREATE VIEW dear AS SELECT * FROM product WHERE price > 50;
         CREATE TRIGGER told AFTER INSERT ON tag BEGIN UPDATE settings SET value = new.name WHERE name = 'theme'; END;
         CREATE TABLE big (id INTEGER PRIMARY KEY, text TEXT, n INTEGER GENERATED ALWAYS AS (length(text)) STORED);
         INSERT INTO big (id, text) VALUES (1, 'one'), (2, 'two');
         CREATE TABLE page (id INTEGER PRIMARY KEY, text); INSERT INTO page VALUES (1, 'old words');
         CREATE VIRTUAL TABLE words USING fts5(text, content='page', content_rowid='id');
         INSERT INTO words (words) VALUES ('rebuild');
         CREATE TRIGGER found AFTER INSERT ON page BEGIN INSERT INTO words (rowid, text) VALUES (new.id, new.text); END;",
    );
    site
}

#[test]
fn rows_are_carried_over() {
    all_carried(
        &full,
        &[
            "UPDATE product SET price = price + 1, stock = NULL; INSERT INTO product VALUES (9, 'it''s \"a\" glove;\nand more -- no', 5, 1); DELETE FROM product WHERE id = 3",
            "INSERT INTO orders (product, amount) VALUES (1, 7), (2, 8); DELETE FROM orders WHERE id > 2; INSERT INTO orders (product, amount) VALUES (3, 1)",
            "UPDATE settings SET value = upper(value); DELETE FROM settings WHERE name = 'theme'; INSERT INTO settings VALUES ('new', '{\"a\": [1, null]}')",
            "DELETE FROM log WHERE rowid = 1; UPDATE log SET n = 0.1 + 0.2 WHERE what = 'b'; INSERT INTO log VALUES ('c', 1e300), (x'', -9223372036854775808), ('a' || char(0) || 'b', 1e-320)",
            "UPDATE big SET text = 'three' WHERE id = 2; INSERT INTO big (id, text) VALUES (7, 'seven'); PRAGMA user_version = 9; PRAGMA application_id = 5",
            "UPDATE big SET id = id + 100",
            "INSERT INTO tag VALUES ('winter')",
            "UPDATE tag SET name = 'c' WHERE name = 'a'; INSERT INTO tag VALUES ('a')",
        ],
    );
}

#[test]
fn a_database_with_a_log_of_its_own_is_recorded() {
    let in_wal = || {
        let site = full();
        site.execute("PRAGMA journal_mode = WAL");
        site
    };
    all_carried(&in_wal, &["UPDATE product SET price = price + 1; INSERT INTO tag VALUES ('c')"]);
}

#[test]
fn definitions_are_carried_over() {
    all_carried(
        &full,
        &[
            "CREATE TABLE made (id INTEGER PRIMARY KEY AUTOINCREMENT, t UNIQUE); INSERT INTO made (t) VALUES (1), ('x'); CREATE INDEX mi ON made (t)",
            "DROP TABLE big; DROP VIEW dear; DROP INDEX tags",
            "ALTER TABLE product ADD COLUMN colour TEXT DEFAULT 'red, or (so)'; ALTER TABLE product ADD COLUMN size INT CHECK (size IN (1, 2)); UPDATE product SET colour = 'blue' WHERE id = 2",
            "ALTER TABLE big RENAME COLUMN text TO words; ALTER TABLE orders RENAME COLUMN amount TO quantity; UPDATE orders SET quantity = 5",
            "ALTER TABLE orders DROP COLUMN amount; DROP INDEX tags; CREATE INDEX tags ON tag (name)",
            "DROP VIEW dear; CREATE VIEW dear AS SELECT id FROM product; DROP TRIGGER told; CREATE TRIGGER other AFTER DELETE ON tag BEGIN SELECT 1; END; DELETE FROM tag",
            "CREATE TABLE \"new_log\" (what TEXT, n INTEGER NOT NULL DEFAULT 0, more); INSERT INTO new_log SELECT what, coalesce(n, 0), 1 FROM log; DROP TABLE log; ALTER TABLE new_log RENAME TO log",
            "CREATE VIRTUAL TABLE more USING fts5(name, content='tag', content_rowid='rowid'); INSERT INTO more (more) VALUES ('rebuild')",
            "CREATE VIRTUAL TABLE more USING fts5(name, content='tag', content_rowid='rowid')",
        ],
    );
}

#[test]
fn a_full_text_table_finds_what_it_found_there() {
    let (site, other) = (full(), full());
    start(&site).expect(Status::Done);
    site.execute("INSERT INTO page VALUES (2, 'new words'); INSERT INTO page VALUES (3, 'newer words')");
    let (package, done) = stop(&site, &[]);
    done.expect(Status::Done);
    let before = Fingerprint::of(&other);
    other.deploy_from(&package, Recorder::default()).expect(Status::Done);
    for word in ["old", "new", "words", "newer"] {
        let found = format!("SELECT group_concat(rowid) FROM words WHERE words MATCH '{word}'");
        assert_eq!(site.value(&found), other.value(&found), "{word}");
    }
    other.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&other), "undone");
}

#[test]
fn rows_of_others_that_would_point_at_nothing_fail_it() {
    for (build, others) in [
        (&shop as &dyn Fn() -> TestSite, "INSERT INTO orders (product, amount) VALUES (3, 5)"),
        (&on_mariadb, "INSERT INTO orders (product, amount) VALUES (4, 5)"),
    ] {
        let (site, other) = (build(), build());
        start(&site).expect(Status::Done);
        let last = if site.mariadb("main").is_some() { "4" } else { "3" };
        run(&site, &format!("DELETE FROM product WHERE id = {last}"));
        let (package, done) = stop(&site, &[]);
        done.expect(Status::Done);
        run(&other, others);
        let before = Fingerprint::of(&other);
        other.deploy_from(&package, Recorder::default()).expect(Status::Failed);
        before.assert_same(&Fingerprint::of(&other), "failed");
    }
}

#[test]
fn rows_are_left_out_by_what_they_begin_with() {
    for build in [&shop as &dyn Fn() -> TestSite, &on_mariadb, &on_postgres] {
        let (site, other) = (build(), build());
        let table = "CREATE TABLE options (name varchar(20) PRIMARY KEY, value varchar(9)); INSERT INTO options VALUES ('_transient_a', '1'), ('b', '1'), ('_transient_c', '1')";
        run(&site, table);
        run(&other, table);
        start(&site).expect(Status::Done);
        run(
            &site,
            "UPDATE options SET value = '2'; DELETE FROM options WHERE name = '_transient_c'; INSERT INTO options VALUES ('_transient_d', '1'), ('e', '1')",
        );
        let (package, done) = stop(&site, &["main.options=_transient_"]);
        done.expect(Status::Done);
        run(
            &other,
            "UPDATE options SET value = '7' WHERE name = '_transient_a'; DELETE FROM options WHERE name = '_transient_c'",
        );
        other.deploy_from(&package, Recorder::default()).expect(Status::Done);
        let script = std::fs::read_to_string(package.join("sql/main.sql")).unwrap();
        assert!(script.contains("'e'") && script.contains("'b'") && !script.contains("transient"), "{script}");
    }
}

#[test]
fn files_are_carried_over() {
    for script in [
        "echo new > made.txt; mkdir -p a/b empty; echo x > a/b/c; ln -s made.txt a/link; chmod 640 made.txt; chmod 750 a/b",
        "printf '<?php // AUTUMN' > index.php; chmod 600 theme/style.css; rm theme/old.css",
        "rm -r theme; rm current; ln -s uploads current",
        "rm current; mkdir current; echo x > current/y; rm -r theme; echo was a directory > theme",
        "rm index.php; ln -s nowhere index.php; mv theme/old.css 'theme/älter : [x].css'",
        "printf 'a\\377b' > bin; head -c 300000 /dev/urandom > \"$(printf 'x\\377y')\"",
    ] {
        carried(script, &shop, &|site| web(site, script)).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn what_a_reviewer_must_look_at_is_told() {
    let site = shop();
    site.execute("CREATE TABLE sessions (id INTEGER PRIMARY KEY, data TEXT); CREATE TABLE log (what)");
    start(&site).expect(Status::Done);
    let root = site.root("web").display().to_string();
    site.execute(&format!(
        "INSERT INTO settings VALUES ('url', 'https://staging.example/x'), ('root', '{root}/a'), ('list', 'a:1:{{i:0;i:1;}}');
         INSERT INTO settings VALUES ('pass', '$2y$10$abcdefghij');
         INSERT INTO sessions VALUES (1, 'x'); INSERT INTO log VALUES ('x'); DELETE FROM orders; DROP TABLE product"
    ));
    web(&site, "chmod 700 theme; rm -r theme/old.css; touch theme/x");
    let (package, done) = stop(&site, &["main.sessions", "web:theme/x"]);
    let outcome = done.expect(Status::Done);
    let page = std::fs::read_to_string(package.join("REVIEW.md")).unwrap();
    for wanted in [
        "## Left out",
        "- main.sessions",
        "table product: 3 rows here",
        "- table log: 1",
        "- https://staging.example: settings.value",
        "settings.value",
        "theme: mode 0700 here",
    ] {
        assert!(page.contains(wanted), "{wanted}:\n{page}");
    }
    assert!(page.contains(&format!("- {root}: settings.value")), "{page}");
    let secret = page.split("## Secrets").nth(1).unwrap().split("##").next().unwrap();
    assert!(secret.contains("- settings.value") && !page.contains("abcdefghij"), "{page}");
    assert!(outcome.notes.iter().any(|note| note == "Secrets: settings.value"), "{outcome:?}");
    let script = std::fs::read_to_string(package.join("sql/main.sql")).unwrap();
    assert!(!script.contains("sessions"), "{script}");
}

#[test]
fn a_site_that_is_not_as_it_was_is_refused() {
    let (site, other) = (shop(), shop());
    start(&site).expect(Status::Done);
    site.execute("UPDATE product SET price = 7 WHERE id = 1; INSERT INTO orders VALUES (9, 1, 1)");
    web(&site, "echo more >> index.php; echo x > new.txt");
    let (package, done) = stop(&site, &[]);
    done.expect(Status::Done);
    for (break_it, mend) in [
        ("UPDATE product SET price = 8 WHERE id = 1", "UPDATE product SET price = 100 WHERE id = 1"),
        ("DELETE FROM orders; DELETE FROM product WHERE id = 1", "INSERT INTO product VALUES (1, 'coat', 100, 5)"),
        ("INSERT INTO orders VALUES (9, 2, 2)", "DELETE FROM orders"),
    ] {
        other.execute(break_it);
        let before = Fingerprint::of(&other);
        other.deploy_from(&package, Recorder::default()).expect(Status::Refused);
        before.assert_same(&Fingerprint::of(&other), break_it);
        other.execute(mend);
    }
    std::fs::write(other.root("web").join("new.txt"), "others").unwrap();
    other.deploy_from(&package, Recorder::default()).expect(Status::Refused);
    std::fs::remove_file(other.root("web").join("new.txt")).unwrap();
    other.deploy_from(&package, Recorder::default()).expect(Status::Done);
}

pub fn refused(done: Done) -> String {
    match done.result {
        Err(error) if error.status() == Status::Refused => error.causes().join(": "),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn nothing_else_goes_on_while_a_site_is_recorded() {
    let site = shop();
    assert!(refused(stop_with(&site, &Stop::default())).contains("nothing is being recorded"));
    site.deploy(&scene::winter()).expect(Status::Done);
    start(&site).expect(Status::Done);
    let being_recorded = "is being recorded since";
    assert!(refused(start(&site)).contains(being_recorded));
    let resumed = site.resume();
    assert!(matches!(&resumed.result, Err(EngineError::NotNow { what, .. }) if what.contains(being_recorded)));
    // The tool asks that first of whatever it is told to do.
    let status = backout_engine::report::status(&site.config(), &site.journal(), 0).unwrap();
    assert!(status.recording && !status.interrupted && status.underway.is_some(), "{status:?}");
    site.execute("UPDATE product SET price = 1");
    // One that is given up leaves what happened, and nothing that a later one could take for its own.
    stop_with(&site, &Stop { abandon: true, ..Stop::default() }).expect(Status::Done);
    assert!(!site.state().join("captures").exists());
    assert_eq!(site.value("SELECT sum(price) FROM product"), "4");
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
}

#[test]
fn without_a_package_it_is_an_entry_of_the_history() {
    let site = shop();
    let before = Fingerprint::of(&site);
    start(&site).expect(Status::Done);
    site.execute("UPDATE product SET price = 1; CREATE TABLE more (a)");
    web(&site, "echo x > new.txt");
    let outcome: Outcome = stop_with(&site, &Stop::default()).expect(Status::Done);
    assert!(outcome.closing.contains("backout undo"), "{outcome:?}");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    site.redo().expect(Status::Done);
    assert_eq!(site.value("SELECT sum(price) FROM product"), "3");
}

#[test]
fn what_cannot_be_written_is_refused_and_the_recording_goes_on() {
    let site = shop();
    site.execute(
        "CREATE VIRTUAL TABLE words USING fts5(text); INSERT INTO words VALUES ('one two'); CREATE TABLE other (id INTEGER PRIMARY KEY, a)",
    );
    start(&site).expect(Status::Done);
    site.execute("INSERT INTO words VALUES ('three'); UPDATE product SET price = 1");
    site.execute("DROP TABLE other; CREATE TABLE other (z)");
    web(&site, "mkfifo pipe");
    let (_, done) = stop(&site, &[]);
    assert!(refused(done).contains("none of its columns"));
    site.execute("DROP TABLE other; CREATE TABLE other (id INTEGER PRIMARY KEY, a)");
    let (package, done) = stop(&site, &[]);
    assert!(refused(done).contains("words"));
    let (_, done) = stop(&site, &["words"]);
    assert!(refused(done).contains("pipe"));
    assert!(
        !package.exists()
            && std::fs::read_dir(site.dir())
                .unwrap()
                .flatten()
                .all(|entry| { !entry.file_name().to_string_lossy().contains("recorded") })
    );
    web(&site, "rm pipe");
    stop(&site, &["words"]).1.expect(Status::Done);
    assert!(package.join("package.yaml").exists());
}

/// Rows of every type, triggers, keys in a circle, and a table whose rows nothing tells apart.
const MARIADB: &str = "
    CREATE TABLE product (id int AUTO_INCREMENT PRIMARY KEY, name varchar(40) UNIQUE, price decimal(9,2) NOT NULL DEFAULT 1) ENGINE=InnoDB;
    INSERT INTO product VALUES (1, 'coat', 100.50), (2, 'hat', 20), (3, 'scarf', 15), (4, 'boot', 70);
    CREATE TABLE orders (id int AUTO_INCREMENT PRIMARY KEY, product int, amount int CHECK (amount > 0),
        CONSTRAINT ordered FOREIGN KEY (product) REFERENCES product (id) ON DELETE CASCADE) ENGINE=InnoDB;
    INSERT INTO orders (product, amount) VALUES (1, 1), (2, 3), (3, 9);
    CREATE TABLE of_all (id varchar(9) CHARACTER SET latin1 PRIMARY KEY, b varbinary(20), f float, d double, bits bit(9), j json, day date, at timestamp NULL,
        long_text longtext, e enum('a', 'it''s'), s set('x', 'y'), big bigint unsigned, t time(3), y year, n int GENERATED ALWAYS AS (length(b)) STORED) ENGINE=InnoDB;
    INSERT INTO of_all (id, b, f, d, bits, j, day, at, long_text, e, s, big, t, y) VALUES
        ('a', x'00ff27', 0.1, 0.1, 5, '{\"a\": 1}', '0000-00-00', '2026-01-01 00:00:00', 'old', 'a', 'x,y', 18446744073709551615, '-11:00:00.5', 2026);
    CREATE TABLE audit (id int AUTO_INCREMENT PRIMARY KEY, what text) ENGINE=InnoDB;
    CREATE TRIGGER watch AFTER UPDATE ON product FOR EACH ROW INSERT INTO audit (what) VALUES (NEW.name);
    CREATE VIEW cheap AS SELECT id, name FROM product WHERE price < 50;
    CREATE FUNCTION twice(i int) RETURNS int DETERMINISTIC RETURN i * 2;";

pub fn on_mariadb() -> TestSite {
    TestSite::builder().mariadb("main", backout_testkit::mariadb::Server::shared(), MARIADB).build()
}

#[test]
fn rows_are_carried_over_on_mariadb() {
    all_carried(&on_mariadb, &[
        "UPDATE product SET price = price + 1; INSERT INTO product (name, price) VALUES ('it''s a \"glove\"\\\\n;\n-- no', 5); DELETE FROM product WHERE id = 2",
        "INSERT INTO orders (product, amount) VALUES (1, 7), (2, 8); DELETE FROM orders WHERE id > 4; INSERT INTO orders (product, amount) VALUES (3, 1)",
        "INSERT INTO of_all (id, b, f, d, bits, j, day, at, long_text, e, s, big, t, y) VALUES
            ('\u{e4}', NULL, 1e-40, 0.1e0 + 0.2e0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
            ('c', '', 16777217, -0e0, 0, '[1, null]', '2026-02-28', '1970-01-02 00:00:01', 'a\\0b\\Z', 'it''s', '', 0, '838:59:59', 1901)",
        "UPDATE of_all SET b = x'', f = -1.5, d = 1e300, bits = 256, j = '{}', day = '2026-01-02', at = NULL, long_text = repeat('lang ', 9000), e = 'it''s', s = '', big = 1",
        "UPDATE product SET id = 50 WHERE id = 4; UPDATE orders SET product = 50 WHERE product = 1; DELETE FROM product WHERE id = 1",
        "DELETE FROM product",
        "INSERT INTO audit (id, what) VALUES (0, 'x'), (90, 'y')",
    ]);
}

#[test]
fn definitions_are_carried_over_on_mariadb() {
    all_carried(
        &on_mariadb,
        &[
            "CREATE TABLE made (id int AUTO_INCREMENT PRIMARY KEY, t varchar(9), KEY (t), CONSTRAINT up FOREIGN KEY (id) REFERENCES product (id)) ENGINE=InnoDB; INSERT INTO made VALUES (1, 'x')",
            "CREATE TABLE a (id int PRIMARY KEY, b int) ENGINE=InnoDB; CREATE TABLE b (id int PRIMARY KEY, a int, CONSTRAINT to_a FOREIGN KEY (a) REFERENCES a (id)) ENGINE=InnoDB; ALTER TABLE a ADD CONSTRAINT to_b FOREIGN KEY (b) REFERENCES b (id); INSERT INTO a VALUES (1, NULL); INSERT INTO b VALUES (1, 1)",
            "DROP TABLE of_all, orders; DROP VIEW cheap; DROP FUNCTION twice",
            "ALTER TABLE product ADD COLUMN colour varchar(9) NOT NULL DEFAULT 'red' AFTER name, ADD KEY (colour); UPDATE product SET colour = 'blue' WHERE id = 2",
            "ALTER TABLE orders CHANGE amount quantity int, DROP FOREIGN KEY ordered; UPDATE orders SET quantity = 5",
            "ALTER TABLE orders DROP COLUMN amount; ALTER TABLE product MODIFY price decimal(12,3), MODIFY name varchar(80) CHARACTER SET utf8mb4; UPDATE product SET price = 1.125",
            "DROP TRIGGER watch; CREATE TRIGGER other BEFORE INSERT ON product FOR EACH ROW BEGIN SET NEW.price = 1; SET NEW.name = 'x'; END",
            "CREATE OR REPLACE VIEW cheap AS SELECT id FROM product; DROP FUNCTION twice; CREATE PROCEDURE two() BEGIN SELECT 1; SELECT 2; END",
        ],
    );
}

/// A value in hex, or a text full of quotes, that is longer than the server makes one: it must not come as NULL.
#[test]
fn values_that_fill_a_packet_are_carried_over_or_refused_on_mariadb() {
    let server: &'static backout_testkit::mariadb::Server =
        Box::leak(Box::new(backout_testkit::mariadb::Server::with(&["--max-allowed-packet=1M"])));
    let base = "CREATE TABLE a (id int PRIMARY KEY, b longblob, t longtext, v int) ENGINE=InnoDB;
        INSERT INTO a VALUES (1, REPEAT(x'27', 900000), REPEAT('''', 900000), 1), (2, REPEAT('b', 300000), REPEAT('t', 300000), 2), (3, 'b', 't', 3);";
    let build = || TestSite::builder().mariadb("main", server, base).build();
    all_carried(
        &build,
        &[
            "UPDATE a SET v = v + 4",
            "DELETE FROM a WHERE id < 3",
            "UPDATE a SET b = 'short', t = NULL; UPDATE a SET t = REPEAT('x', 700000) WHERE id = 2",
            "UPDATE a SET b = CONCAT(LEFT(b, 299999), 'x'), t = CONCAT(LEFT(t, 299999), 'x') WHERE id = 2",
            "UPDATE a SET b = REPEAT('x', 400000) WHERE id = 1; INSERT INTO a VALUES (4, REPEAT(x'27', 450000), 'a', 4), (5, '', REPEAT('''', 450000), 5)",
            "DROP TABLE a",
            "ALTER TABLE a DROP COLUMN b; UPDATE a SET v = 9",
        ],
    );
    for act in [
        "INSERT INTO a VALUES (7, REPEAT(x'27', 600000), NULL, NULL)",
        "INSERT INTO a VALUES (7, NULL, REPEAT('''', 600000), NULL)",
        "INSERT INTO a VALUES (7, REPEAT('x', 300000), REPEAT('x', 500000), NULL)",
        "UPDATE a SET id = 7 WHERE id = 1",
        "UPDATE a SET id = 7, b = REPEAT('x', 600000) WHERE id = 3",
    ] {
        let site = build();
        start(&site).expect(Status::Done);
        run(&site, act);
        let told = refused(stop(&site, &[]).1);
        assert!(
            told.contains("table a, the row id=7") && told.contains("max_allowed_packet is 1048576"),
            "{act}: {told}"
        );
    }
}

const POSTGRES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text);
    CREATE TABLE product (id serial PRIMARY KEY, name text UNIQUE, price numeric(9,2) NOT NULL DEFAULT 1);
    INSERT INTO product (name, price) VALUES ('coat', 100.50), ('hat', 20), ('scarf', 15), ('boot', 70);
    CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, product int CONSTRAINT ordered REFERENCES product ON DELETE CASCADE, amount int CHECK (amount > 0));
    INSERT INTO orders (product, amount) VALUES (1, 1), (2, 3), (3, 9);
    CREATE TABLE of_all (id text PRIMARY KEY, b bytea, f real, d double precision, j json, jb jsonb, day date, at timestamptz, m mood, p pair, l text[], u uuid, ok boolean,
        iv interval, where_it_is point, n int GENERATED ALWAYS AS (length(id)) STORED);
    INSERT INTO of_all (id, b, f, d, j, jb, day, at, m, p, l, ok) VALUES ('a', '\\x00ff27', 0.1, 0.1, '{\"a\":  1}', '{\"a\": 1}', '2026-01-01', '2026-01-01 00:00Z', 'sad', '(1,x)', '{a,NULL}', true);
    CREATE TABLE audit (what text); INSERT INTO audit VALUES ('a'), ('a'), (NULL);
    CREATE FUNCTION watched() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (NEW.name); RETURN NEW; END $$;
    CREATE TRIGGER watch AFTER UPDATE ON product FOR EACH ROW EXECUTE FUNCTION watched();
    CREATE VIEW cheap AS SELECT id, name FROM product WHERE price < 50; CREATE INDEX dear ON product (price DESC);";

fn on_postgres() -> TestSite {
    TestSite::builder().postgres("main", backout_testkit::postgres::Server::shared(), POSTGRES).build()
}

#[test]
fn rows_are_carried_over_on_postgres() {
    all_carried(&on_postgres, &[
        "UPDATE product SET price = price + 1; INSERT INTO product (name, price) VALUES (E'it''s a \"glove\"\\\\n;\n-- no', 5); DELETE FROM product WHERE id = 2",
        "INSERT INTO orders (product, amount) VALUES (1, 7), (2, 8); DELETE FROM orders WHERE id > 4; INSERT INTO orders (product, amount) VALUES (3, 1)",
        "INSERT INTO of_all (id, b, f, d, j, jb, day, at, m, p, l, u, ok, iv, where_it_is) VALUES
            ('\u{e4}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
            ('c', '', 1e-40, 0.1 + 0.2::float8, '[1,  null]', '[]', 'infinity', '-infinity', 'ok', '(,\"a\tb\")', '{}', '00000000-0000-0000-0000-000000000001', false, '1 mon -3 days', '(1,2)'),
            ('d', NULL, 'NaN', '-0', 'null', 'null', '0044-03-15 BC', '2026-06-01 12:00:00.123456+02', NULL, NULL, '{{1,2},{3,4}}', NULL, NULL, NULL, NULL)",
        "UPDATE of_all SET b = '', f = -1.5, d = 1e300, j = '{}', jb = NULL, day = NULL, m = 'ok', p = NULL, l = NULL, ok = false, where_it_is = '(0,0)'",
        "INSERT INTO product VALUES (50, 'new', 1); UPDATE orders SET product = 50 WHERE product = 1; DELETE FROM product WHERE id = 1",
        "DELETE FROM product",
        "DELETE FROM audit WHERE ctid = (SELECT min(ctid) FROM audit); INSERT INTO audit VALUES ('b'), ('b')",
    ]);
}

#[test]
fn definitions_are_carried_over_on_postgres() {
    all_carried(
        &on_postgres,
        &[
            "CREATE TABLE made (id serial PRIMARY KEY, t varchar(9) UNIQUE, up int REFERENCES product); INSERT INTO made (t, up) VALUES ('x', 1); CREATE INDEX mi ON made (up)",
            "CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a); ALTER TABLE a ADD CONSTRAINT to_b FOREIGN KEY (b) REFERENCES b DEFERRABLE; INSERT INTO a VALUES (1, NULL); INSERT INTO b VALUES (1, 1)",
            "DROP TABLE of_all, orders; DROP VIEW cheap; DROP INDEX dear",
            "ALTER TABLE product ADD COLUMN colour text NOT NULL DEFAULT 'red'; ALTER TABLE product ADD COLUMN size int; UPDATE product SET colour = 'blue', size = 3 WHERE id = 2; CREATE INDEX ON product (size)",
            "ALTER TABLE orders RENAME COLUMN amount TO quantity; ALTER TABLE orders DROP CONSTRAINT ordered; UPDATE orders SET quantity = 5; ALTER TABLE audit RENAME TO watched_by",
            "DROP VIEW cheap; ALTER TABLE orders DROP COLUMN amount; ALTER TABLE product ALTER COLUMN price TYPE numeric(12,3), ALTER COLUMN name SET NOT NULL; UPDATE product SET price = 1.125",
            "DROP TRIGGER watch ON product; CREATE TRIGGER other BEFORE DELETE ON product FOR EACH ROW EXECUTE FUNCTION watched()",
            "CREATE OR REPLACE VIEW cheap AS SELECT id, name FROM product WHERE price < 10; CREATE SCHEMA more; CREATE TYPE more.kind AS ENUM ('a'); CREATE TABLE more.t (k more.kind); INSERT INTO more.t VALUES ('a')",
        ],
    );
}

/// Strikes each point of `act` dead on a site of its own; `judge` says what must be there then.
fn at_each_point(
    what: &str,
    prepare: &(dyn Fn() -> TestSite + Sync),
    act: &(dyn Fn(&TestSite) -> Done + Sync),
    judge: &(dyn Fn(&TestSite) -> Result<(), String> + Sync),
) {
    let counted = {
        let site = prepare();
        let playing = play(Fault::None, false);
        act(&site).expect(Status::Done);
        playing.seen().len()
    };
    let points: Vec<usize> = (1..=counted).collect();
    assert!(counted > 2, "{what}: {counted} points");
    every::point(
        what,
        &points,
        3,
        || (),
        |(), n| {
            let site = prepare();
            let playing = play(Fault::CrashAt(n), false);
            drop(act(&site));
            assert!(playing.struck());
            drop(playing);
            site.bury_the_dead();
            judge(&site)
        },
    );
}

fn some(site: &TestSite) {
    site.execute("UPDATE product SET price = price + 1; CREATE TABLE more (a); INSERT INTO more VALUES (1)");
    web(site, "echo more >> index.php; touch -d 2026-01-01 index.php; rm theme/old.css");
}

#[test]
fn a_start_that_dies_anywhere_leaves_a_recording_or_nothing() {
    at_each_point("the start of a recording", &shop, &start, &|site| {
        let before = Fingerprint::of(site);
        let goes_on = recording::under_way(&site.journal()).unwrap().is_some();
        if !goes_on {
            // What was interrupted is settled, as every command does first.
            site.resume().result.map_err(|error| format!("resume: {error:?}"))?;
            start(site).expect(Status::Done);
        }
        some(site);
        let (package, done) = stop(site, &[]);
        done.expect(Status::Done);
        assert!(package.exists());
        site.undo(None).expect(Status::Done);
        let left = before.differences(&Fingerprint::of(site));
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    });
}

#[test]
fn a_stop_that_dies_anywhere_goes_on() {
    let before = Fingerprint::of(&shop()).without_directory_times();
    let recorded = || {
        let site = shop();
        start(&site).expect(Status::Done);
        some(&site);
        site
    };
    let after = Fingerprint::of(&recorded()).without_directory_times();
    let same = |what: &str, wanted: &Fingerprint, site: &TestSite| {
        let found = wanted.differences(&Fingerprint::of(site).without_directory_times());
        if found.is_empty() { Ok(()) } else { Err(format!("{what}:\n{}", found.join("\n"))) }
    };
    at_each_point("the stop of a recording", &recorded, &|site| stop(site, &[]).1, &|site| {
        same("after the stop died", &after, site)?;
        if recording::under_way(&site.journal()).unwrap().is_some() {
            stop_with(site, &Stop::default()).expect(Status::Done);
        } else {
            site.resume().result.map_err(|error| format!("resume: {error:?}"))?;
        }
        same("stopped", &after, site)?;
        site.undo(None).expect(Status::Done);
        same("undone", &before, site)?;
        if site.state().join("captures").exists() { Err("copies were left".to_owned()) } else { Ok(()) }
    });
}

/// What the tool keeps of a recording beside the data, and where packages are written.
fn left_of_recording(site: &TestSite) -> Vec<String> {
    use backout_testkit::mariadb::Queryable as _;
    let mut left: Vec<String> = match (site.postgres("main"), site.mariadb("main")) {
        (Some(database), _) => {
            let sql = "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^backout.*_c[0-9]+$'";
            database.connect().query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
        }
        (None, Some(database)) => {
            let sql = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'backout%$c%'";
            database.connect().query(sql).unwrap()
        }
        (None, None) => Vec::new(),
    };
    let names = |at: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(at).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    left.extend(names(site.dir()).into_iter().filter(|name| name.starts_with(".backout-recorded-")));
    left.extend(names(&site.state()).into_iter().filter(|name| name == "captures" || name.starts_with("recording")));
    left
}

/// On the servers: a start or a stop that dies anywhere leaves a recording that can be stopped with a package elsewhere,
/// without one, or given up, or none; and then nothing of it is left.
fn a_recording_outlives_deaths_on(build: &(dyn Fn() -> TestSite + Sync)) {
    let some =
        "UPDATE product SET price = price + 1; CREATE TABLE more (a int PRIMARY KEY); INSERT INTO more VALUES (1)";
    let elsewhere = |site: &TestSite| {
        let at = site.dir().join("second");
        std::fs::create_dir_all(&at).unwrap();
        stop_with(site, &Stop { package: Some(at.join("package")), ..Stop::default() })
    };
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let ended = |site: &TestSite| -> Result<(), String> {
        let before = Fingerprint::of(site);
        let way = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 3;
        if recording::under_way(&site.journal()).unwrap().is_some() {
            let done = match way {
                0 => stop_with(site, &Stop { abandon: true, ..Stop::default() }),
                1 => stop_with(site, &Stop::default()),
                _ => elsewhere(site),
            };
            match &done.result {
                Ok(outcome) if outcome.status == Status::Done => {}
                // All that is left then is to end it without a package.
                Err(error)
                    if ["no package can be made any more", "nothing happened on the site"]
                        .iter()
                        .any(|why| way == 2 && error.causes().join(": ").contains(why)) =>
                {
                    stop_with(site, &Stop::default()).expect(Status::Done);
                }
                _ => return Err(format!("way {way}: {done:?}")),
            }
        }
        site.resume().result.map_err(|error| format!("resume: {error:?}"))?;
        let differs = before.differences(&Fingerprint::of(site));
        let left = left_of_recording(site);
        let grave: Vec<_> = site.grave();
        if differs.is_empty() && left.is_empty() && grave.is_empty() {
            Ok(())
        } else {
            Err(format!("way {way}: left {left:?}, found {grave:?}, changed {differs:?}"))
        }
    };
    at_each_point("the start of a recording on a server", build, &start, &ended);
    let recorded = || {
        let site = build();
        start(&site).expect(Status::Done);
        run(&site, some);
        site
    };
    at_each_point("the stop of a recording on a server", &recorded, &|site| stop(site, &[]).1, &ended);
    at_each_point(
        "the end of a recording on a server",
        &recorded,
        &|site| stop_with(site, &Stop { abandon: true, ..Stop::default() }),
        &ended,
    );
}

#[test]
fn a_recording_outlives_deaths_on_postgres() {
    let base = "CREATE TABLE product (id int PRIMARY KEY, price int); INSERT INTO product VALUES (1, 1), (2, 2)";
    a_recording_outlives_deaths_on(&|| {
        TestSite::builder().postgres("main", backout_testkit::postgres::Server::shared(), base).build()
    });
}

#[test]
fn a_recording_outlives_deaths_on_mariadb() {
    let base = "CREATE TABLE product (id int PRIMARY KEY, price int); INSERT INTO product VALUES (1, 1), (2, 2)";
    a_recording_outlives_deaths_on(&|| {
        TestSite::builder().mariadb("main", backout_testkit::mariadb::Server::shared(), base).build()
    });
}
