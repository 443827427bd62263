//! Commands whose changes are captured: whatever they did to database and files goes back exactly, and comes again.

use backout_engine::outcome::{Outcome, Status};
use backout_model::conflict::OnConflict;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, captured, captured_sql, files};
use backout_testkit::site::TestSite;
use backout_testkit::tree::Tree;

use crate::scene::shop;

/// Deploys, undoes, redoes and undoes again, and compares each time.
#[track_caller]
fn goes_and_comes(site: &TestSite, name: &str, package: &Pkg) {
    let before = Fingerprint::of(site);
    let done = site.deploy(package);
    assert_eq!(done.status(), Status::Done, "{name}: {done:?}");
    let after = Fingerprint::of(site);
    assert!(!before.differences(&after).is_empty(), "{name}: it did something");
    let done = site.undo(None);
    assert_eq!(done.status(), Status::Done, "{name}: {done:?}");
    before.assert_same(&Fingerprint::of(site), &format!("{name}: undone"));
    let done = site.redo();
    assert_eq!(done.status(), Status::Done, "{name}: {done:?}");
    after.assert_same(&Fingerprint::of(site), &format!("{name}: redone"));
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(site), &format!("{name}: undone at last"));
    assert!(site.grave().is_empty(), "{name}: {:?}", site.grave());
}

#[test]
fn rows_go_back_and_come_again() {
    let site = shop();
    site.execute("CREATE TABLE log (what, n); INSERT INTO log VALUES ('a', 1), ('a', 1), ('b', 2.5), (x'00ff', NULL)");
    for sql in [
        "UPDATE product SET price = price + 1; INSERT INTO product VALUES (9, 'glove', 5, 1); DELETE FROM product WHERE id = 2",
        "INSERT INTO orders (product, amount) VALUES (1, 7); DELETE FROM orders WHERE id = 1",
        "UPDATE settings SET value = upper(value); DELETE FROM settings WHERE name = 'theme'; INSERT INTO settings VALUES ('new', 'x')",
        "DELETE FROM log WHERE rowid = 1; UPDATE log SET n = 2 WHERE what = 'b'; INSERT INTO log VALUES ('c', 1e300)",
        "DELETE FROM log; DELETE FROM orders; PRAGMA user_version = 7",
        "UPDATE product SET id = id + 100",
    ] {
        goes_and_comes(&site, sql, &Pkg::new("p").step(captured_sql(sql)));
    }
}

#[test]
fn definitions_go_back_and_come_again() {
    let site = shop();
    site.execute(
        "CREATE TABLE tag (name TEXT, UNIQUE (name)); INSERT INTO tag VALUES ('a'), ('b');
         CREATE INDEX tags ON tag (name DESC); CREATE VIEW dear AS SELECT * FROM product WHERE price > 50;
         CREATE TRIGGER told AFTER INSERT ON tag BEGIN UPDATE settings SET value = new.name WHERE name = 'theme'; END;
         CREATE TABLE big (id INTEGER PRIMARY KEY, text TEXT, n INTEGER GENERATED ALWAYS AS (length(text)) STORED);
         WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 3000)
         INSERT INTO big (id, text) SELECT i, hex(randomblob(20)) FROM c;
         CREATE VIRTUAL TABLE words USING fts5(text); INSERT INTO words VALUES ('one two'), ('three');
         ANALYZE;",
    );
    for sql in [
        "CREATE TABLE made (id INTEGER PRIMARY KEY AUTOINCREMENT, t UNIQUE); INSERT INTO made (t) VALUES (1), ('x'); CREATE INDEX mi ON made (t)",
        "DROP TABLE tag; DROP VIEW dear",
        "DROP TABLE big; DROP TABLE orders",
        "ALTER TABLE product ADD COLUMN colour TEXT DEFAULT 'red'; UPDATE product SET colour = 'blue' WHERE id = 2",
        "ALTER TABLE big RENAME COLUMN text TO words; ALTER TABLE tag RENAME TO label",
        "ALTER TABLE product DROP COLUMN stock; DROP INDEX tags; CREATE INDEX tags ON tag (name)",
        "DROP VIEW dear; CREATE VIEW dear AS SELECT id FROM product; DROP TRIGGER told; DELETE FROM tag",
        "CREATE TABLE new_tag (name TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID; INSERT INTO new_tag SELECT name, 0 FROM tag;
         DROP TABLE tag; ALTER TABLE new_tag RENAME TO tag",
        "CREATE VIRTUAL TABLE more USING fts5(a, b); INSERT INTO more VALUES ('x y', 'z'); DELETE FROM words WHERE text = 'three'",
        "DROP TABLE words; CREATE VIRTUAL TABLE words USING fts5(text, other); INSERT INTO words VALUES ('a', 'b')",
    ] {
        goes_and_comes(&site, sql, &Pkg::new("p").step(captured_sql(sql)));
    }
}

/// As MediaWiki's updater does with most of its tables: the same ones stand in another order then.
#[test]
fn what_is_made_again_alike_goes_back_to_its_place() {
    let site = shop();
    site.execute(
        "CREATE TABLE one (a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE); CREATE TABLE gap (x); CREATE INDEX one_b ON one (b DESC);
         CREATE TABLE two (a, b); CREATE TABLE three (a PRIMARY KEY, b); CREATE INDEX two_b ON two (b); CREATE INDEX three_b ON three (b);
         CREATE TABLE four (a, b); CREATE VIRTUAL TABLE four_found USING fts4 (title);
         CREATE TABLE five (a PRIMARY KEY, b) WITHOUT ROWID; CREATE TABLE six (a UNIQUE, b); DROP TABLE gap;
         CREATE VIRTUAL TABLE found USING fts3 (title, body); INSERT INTO one (b) VALUES ('a'), ('b'); INSERT INTO two SELECT * FROM one; INSERT INTO three SELECT * FROM one;
         INSERT INTO five SELECT * FROM one; INSERT INTO six SELECT * FROM one;
         INSERT INTO found VALUES ('one', 'two words'), ('two', 'more'); INSERT INTO four_found VALUES ('four');",
    );
    let again = |name: &str, text: &str| {
        format!(
            "CREATE TEMP TABLE passing AS SELECT * FROM {name}; DROP TABLE {name}; CREATE TABLE {name} {text};
             INSERT INTO {name} SELECT * FROM passing; DROP TABLE passing;"
        )
    };
    let one = again("one", "(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE)") + "CREATE INDEX one_b ON one (b DESC);";
    let two = again("two", "(a, b)") + "CREATE INDEX two_b ON two (b);";
    let six = again("six", "(a UNIQUE, b)");
    let found = "DROP TABLE found; CREATE VIRTUAL TABLE found USING fts3 (title, body); INSERT INTO found VALUES ('one', 'two words'), ('three', '');
         DROP TABLE four_found; CREATE VIRTUAL TABLE four_found USING fts4 (title, words); INSERT INTO four_found VALUES ('four', '5');";
    for sql in [
        one.clone(),
        format!("{two}{six}"),
        format!("{six}{one}{two}"),
        format!("{one}{six}CREATE TABLE seven (a); {two}DROP TABLE three;"),
        found.to_owned(),
        format!("{two}{found}{six}{one}INSERT INTO six VALUES (7, 8);"),
    ] {
        goes_and_comes(&site, &sql, &Pkg::new("p").step(captured_sql(&sql)));
    }
}

/// What others wrote to a full-text table that a command made again alike has no other one to go over to.
#[test]
fn a_full_text_table_that_is_made_again_alike_keeps_what_others_write() {
    for module in ["fts5", "fts4", "fts3"] {
        let site = shop();
        site.execute(&format!(
            "CREATE VIRTUAL TABLE found USING {module} (title); INSERT INTO found VALUES ('one'), ('two'); CREATE TABLE behind (x)"
        ));
        let sql = format!(
            "DROP TABLE found; CREATE VIRTUAL TABLE found USING {module} (title); INSERT INTO found VALUES ('one'), ('two')"
        );
        let done = site.deploy(&Pkg::new("p").step(captured_sql(&(sql + "; INSERT INTO behind VALUES (1)"))));
        assert_eq!(done.status(), Status::Done, "{done:?}");
        let told = format!("{done:?}");
        assert!(told.contains("gave found another place in the schema, which it keeps"), "{told}");
        site.execute("INSERT INTO found VALUES ('theirs')");
        site.undo(None).expect(Status::Done);
        assert_eq!(site.value("SELECT group_concat(title) FROM found"), "one,two,theirs", "{module}");
        assert_eq!(site.value("SELECT title FROM found WHERE found MATCH 'theirs'"), "theirs", "{module}");
        assert_eq!(site.value("SELECT count(*) FROM behind"), "0", "{module}");
    }
}

#[test]
fn vacuum_goes_back_and_comes_again() {
    let site = shop();
    site.execute(
        "CREATE TABLE log (what); INSERT INTO log VALUES ('a'), ('b'), ('c'); DELETE FROM log WHERE what = 'a';
         CREATE INDEX dear ON product (price); CREATE VIEW names AS SELECT name FROM product;
         CREATE TABLE tag (name TEXT UNIQUE); CREATE TABLE gone (x); CREATE TABLE last (x); ANALYZE;",
    );
    for sql in [
        "DELETE FROM product WHERE id = 1; ANALYZE; VACUUM",
        "DROP VIEW names; CREATE VIEW names AS SELECT name FROM product; VACUUM",
        "DROP TABLE gone; CREATE TABLE other (y UNIQUE); VACUUM",
        "ANALYZE; DELETE FROM sqlite_stat1 WHERE tbl = 'log'; REINDEX",
    ] {
        goes_and_comes(&site, sql, &Pkg::new("p").step(captured_sql(sql)));
    }
}

#[test]
fn files_go_back_and_come_again() {
    let site = shop();
    for script in [
        "echo new > made.txt; mkdir -p a/b; echo x > a/b/c; ln -s made.txt a/link",
        "echo more >> index.php",
        "printf '<?php // AUTUMN' > index.php; touch -d '2001-01-01' theme/style.css",
        "rm -r theme; rm current",
        "rm current; mkdir current; echo x > current/y; rm -r theme; echo was a directory > theme",
        "chmod 640 index.php; chmod 500 theme; ln index.php hard; mkfifo pipe",
        "touch theme/x; rm theme/x; mv theme/old.css theme/older.css",
        "rm index.php; ln -s nowhere index.php; setfattr -n user.note -v hello theme",
    ] {
        let step = captured(&format!("cd \"$BACKOUT_ROOT_WEB\" && {{ {script}; }}"));
        goes_and_comes(&site, script, &Pkg::new("p").step(step));
    }
}

/// What others do after a captured command, and what its undo makes of it.
fn after_others(command: &str, others: &str) -> (TestSite, Outcome) {
    let site = shop();
    site.deploy(&Pkg::new("p").step(captured_sql(command))).expect(Status::Done);
    site.execute(others);
    let done = site.undo(None);
    let outcome = done.result.unwrap();
    (site, outcome)
}

#[test]
fn later_changes_of_others_are_merged_by_column() {
    let (site, outcome) = after_others(
        "UPDATE product SET price = 1",
        "UPDATE product SET stock = 77 WHERE id = 1; INSERT INTO product VALUES (8, 'x', 1, 1)",
    );
    assert_eq!(outcome.status, Status::Done, "{outcome:?}");
    assert_eq!(site.value("SELECT price || ' ' || stock FROM product WHERE id = 1"), "100 77");
    assert_eq!(site.value("SELECT name FROM product WHERE id = 8"), "x");
}

#[test]
fn later_changes_of_others_to_the_same_are_conflicts() {
    let (site, outcome) = after_others("UPDATE product SET price = 1", "UPDATE product SET price = 2 WHERE id = 3");
    assert_eq!(outcome.status, Status::Refused);
    assert_eq!(outcome.conflicts.len(), 1, "{outcome:?}");
    assert_eq!(outcome.conflicts[0].column.as_deref(), Some("price"));
    assert_eq!(site.value("SELECT sum(price) FROM product"), "4", "nothing was undone");
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert_eq!(site.value("SELECT group_concat(price) FROM product"), "100,20,2");
}

#[test]
fn rows_of_others_go_over_to_a_table_that_comes_back() {
    for command in [
        "ALTER TABLE product ADD COLUMN colour TEXT DEFAULT 'red'; UPDATE product SET price = price + 1",
        "CREATE TABLE new (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER, stock INTEGER, size);
         INSERT INTO new SELECT *, 0 FROM product; DROP TABLE product; ALTER TABLE new RENAME TO product",
    ] {
        let (site, outcome) = after_others(
            command,
            "UPDATE product SET stock = 77 WHERE id = 1; INSERT INTO product (id, name, price) VALUES (8, 'x', 1); DELETE FROM product WHERE id = 3",
        );
        assert_eq!(outcome.status, Status::Done, "{outcome:?}");
        let rows = "SELECT group_concat(id || name || price || coalesce(stock, '-')) FROM product";
        assert_eq!(site.value(rows), "1coat10077,2hat209,8x1-");
        assert_eq!(site.value("SELECT count(*) FROM pragma_table_info('product')"), "4");
    }
}

#[test]
fn a_file_that_others_changed_since_is_a_conflict() {
    let site = shop();
    let step = captured("cd \"$BACKOUT_ROOT_WEB\"; echo more >> index.php; echo x > made.txt; rm theme/old.css");
    site.deploy(&Pkg::new("p").step(step)).expect(Status::Done);
    std::fs::write(site.root("web").join("index.php"), "others").unwrap();
    let outcome = site.undo(None).expect(Status::Refused);
    assert_eq!(outcome.conflicts.len(), 1, "{outcome:?}");
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
    assert_eq!(site.text("web/index.php").as_deref(), Some("others"));
    assert!(site.text("web/made.txt").is_none() && site.text("web/theme/old.css").is_some());
}

/// What was there before cannot come back in the place of a directory in which others have something.
#[test]
fn a_directory_made_of_a_file_that_others_filled_is_a_conflict() {
    for (was, own) in [("echo base > d", ""), ("ln -s elsewhere d", ""), ("echo base > d", "; echo own > d/own")] {
        for (manner, status) in [
            (OnConflict::Stop, Status::Refused),
            (OnConflict::Keep, Status::Partly),
            (OnConflict::Overwrite, Status::Done),
        ] {
            let what = format!("{was}{own} {manner:?}");
            let site = shop();
            site.deploy(&Pkg::new("first").step(captured(&format!("cd \"$BACKOUT_ROOT_WEB\"; {was}"))))
                .expect(Status::Done);
            let before = Fingerprint::of(&site).without_directory_times();
            let step = captured(&format!("cd \"$BACKOUT_ROOT_WEB\"; rm d; mkdir d{own}"));
            site.deploy(&Pkg::new("p").step(step)).expect(Status::Done);
            std::fs::write(site.root("web").join("d/theirs"), "precious").unwrap();
            let outcome = site.undo_on(None, manner).expect(status);
            assert!(outcome.conflicts.iter().any(|one| one.object == "d"), "{what}: {outcome:?}");
            if manner == OnConflict::Overwrite {
                before.assert_same(&Fingerprint::of(&site).without_directory_times(), &what);
            } else {
                assert_eq!(site.text("web/d/theirs").as_deref(), Some("precious"), "{what}");
            }
            if manner == OnConflict::Stop {
                std::fs::remove_file(site.root("web").join("d/theirs")).unwrap();
                site.undo(None).expect(Status::Done);
                before.assert_same(&Fingerprint::of(&site).without_directory_times(), &what);
            }
        }
    }
}

/// The check of an undo sees the files below a directory that only gets its rights back.
#[test]
fn a_directory_that_only_gets_other_rights_keeps_what_is_in_it() {
    let site = shop();
    let before = Fingerprint::of(&site).without_directory_times();
    let tree = || Tree::new().file("theme/old.css", "newer");
    let package = Pkg::new("p")
        .step(files(tree()))
        .step(captured("chmod 700 \"$BACKOUT_ROOT_WEB/theme\""))
        .step(captured("chmod 711 \"$BACKOUT_ROOT_WEB/theme\""));
    site.deploy(&package).expect(Status::Done);
    assert_eq!(site.undo_plan(None, OnConflict::Stop).1.status(), Status::Done);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site).without_directory_times(), "undone");
}

#[test]
fn what_a_command_did_before_it_failed_is_undone() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let work = "echo x >> \"$BACKOUT_ROOT_WEB/index.php\"; sqlite3 \"$BACKOUT_DATABASE_MAIN\" 'DELETE FROM orders; DROP TABLE settings'";
    for (end, timeout, said) in [("exit 3", None, "exit status 3"), ("sleep 600", Some("1s"), "timeout")] {
        let mut step = captured(&format!("{work}; {end}"));
        if let Some(timeout) = timeout {
            step = step.with("timeout", timeout);
        }
        let done = site.deploy(&Pkg::new("p").step(step.clone()));
        assert!(done.result.as_ref().unwrap().causes.join(" ").contains(said), "{done:?}");
        done.expect(Status::Failed);
        before.assert_same(&Fingerprint::of(&site), said);
        // In a plain list only that step goes back, and in a child only the child.
        let list = Pkg::new("list").list().step(captured("echo y > \"$BACKOUT_ROOT_WEB/y\"")).step(step);
        site.deploy(&list).expect(Status::Partly);
        assert_eq!(site.text("web/y").as_deref(), Some("y\n"));
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), said);
    }
    assert!(!site.state().join("captures").exists());
}

#[test]
fn a_command_that_leaves_what_no_step_could_take_back_fails_and_all_of_it_goes() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let alike = "DROP TABLE settings; CREATE TABLE odd (rowid, _rowid_, oid); INSERT INTO odd VALUES (1, 2, 3)";
    let done = site.deploy(&Pkg::new("p").step(captured("echo x > \"$BACKOUT_ROOT_WEB/x\"")).step(captured_sql(alike)));
    assert!(done.warnings().iter().any(|warning| warning.contains("put back as it was")), "{done:?}");
    let outcome = done.expect(Status::Failed);
    assert!(outcome.causes.join(" ").contains("cannot be told apart"), "{outcome:?}");
    before.assert_same(&Fingerprint::of(&site), "put back whole");
    site.execute(alike);
    let refused = site.deploy(&Pkg::new("p").step(captured("true")));
    assert_eq!(refused.status(), Status::Refused, "{refused:?}");
    assert!(format!("{:?}", refused.result.err()).contains("table odd"));
}

#[test]
fn a_command_that_takes_everything_away_takes_nothing_of_the_tool() {
    let site = shop();
    // An earlier deployment has a hold in the database.
    site.execute("CREATE TABLE held AS WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000) SELECT i FROM c");
    let original = Fingerprint::of(&site);
    site.deploy(&Pkg::new("first").step(backout_testkit::package::sql("DROP TABLE held"))).expect(Status::Done);
    let before = Fingerprint::of(&site);
    let all = "SELECT 'DROP ' || type || ' \"' || name || '\";' FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'";
    let wipe = captured(&format!(
        "sqlite3 \"$BACKOUT_DATABASE_MAIN\" \"{}\" | sqlite3 \"$BACKOUT_DATABASE_MAIN\"",
        all.replace('"', "\\\"")
    ));
    site.deploy(&Pkg::new("wipe").step(wipe)).expect(Status::Done);
    assert_eq!(site.value("SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'backout%' AND tbl_name NOT LIKE 'backout%' AND name NOT LIKE 'sqlite_%'"), "0");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    site.undo(None).expect(Status::Done);
    original.assert_same(&Fingerprint::of(&site), "the earlier one, too");
}

#[test]
fn what_a_command_did_is_shown_as_changes_of_rows() {
    let site = shop();
    let step = captured(
        "sqlite3 \"$BACKOUT_DATABASE_MAIN\" 'PRAGMA journal_mode = WAL; UPDATE product SET stock = 3; PRAGMA journal_mode = DELETE'",
    );
    site.deploy(&Pkg::new("p").step(step)).expect(Status::Done);
    let config = site.config();
    let mut changes = Vec::new();
    backout_engine::report::show(&mut site.targets(&config).unwrap(), &site.journal(), None, &mut |shown| {
        if let backout_engine::report::Shown::Change { change, .. } = shown {
            changes.push((change.place, change.undo));
        }
    })
    .unwrap();
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert_eq!(changes[1].1, "UPDATE of 3 rows in product to what they were");
}

#[test]
fn what_cannot_be_captured_is_refused_by_name_and_the_files_still_can() {
    let base = "CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE SEQUENCE ticket;";
    let site = TestSite::builder()
        .mariadb("main", backout_testkit::mariadb::Server::shared(), base)
        .root("web", crate::scene::web())
        .build();
    let before = Fingerprint::of(&site);
    let step = captured("echo more >> \"$BACKOUT_ROOT_WEB/index.php\"");
    let refused = site.deploy(&Pkg::new("p").step(step.clone()));
    assert_eq!(refused.status(), Status::Refused, "{refused:?}");
    let told = format!("{:?}", refused.result.err());
    assert!(
        told.contains("sequence ticket") && told.contains("cannot be captured") && told.contains("undo: [a command]"),
        "{told}"
    );
    before.assert_same(&Fingerprint::of(&site), "refused");
    let files = step.with("capture", serde_json::json!({ "roots": ["web"] }));
    goes_and_comes(&site, "files alone", &Pkg::new("p").step(files));
}
