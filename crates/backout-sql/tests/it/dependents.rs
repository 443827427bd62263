//! What others hung on the objects of a deployment since: an undo or redo takes it along, or lists it as a conflict and
//! changes nothing. Never may it leave a view, trigger, index or foreign key that no longer works.

use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::target::TargetError;
use rusqlite::Connection;

use crate::bed::{apply, holds, live, same, unusable};
use crate::stage::{Images, Stage, dump, told};

const BASE: &str = r#"
CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b INT DEFAULT 3);
CREATE INDEX t_b ON t(b);
INSERT INTO t(a) VALUES ('one'), ('two'), ('three');
CREATE TABLE u(id INTEGER PRIMARY KEY, x TEXT);
CREATE TABLE two(one, two);
CREATE VIEW over_t AS SELECT * FROM t;
CREATE TRIGGER t_ai AFTER INSERT ON t BEGIN INSERT INTO two VALUES (new.id, new.a); END;
INSERT INTO u(x) VALUES ('x');
"#;

const ADD: &str = "ALTER TABLE t ADD COLUMN c TEXT";
const RENAME: &str = "ALTER TABLE t RENAME TO tt";
const RENAME_COLUMN: &str = "ALTER TABLE t RENAME COLUMN a TO aa";
const REBUILD: &str =
    "PRAGMA legacy_alter_table = ON; CREATE TABLE n(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b INT DEFAULT 3, c TEXT);
    INSERT INTO n(id, a, b) SELECT id, a, b FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t;
    CREATE INDEX t_b ON t(b); CREATE TRIGGER t_ai AFTER INSERT ON t BEGIN INSERT INTO two VALUES (new.id, new.a); END";
const SWAP: &str = "ALTER TABLE t RENAME TO swap; ALTER TABLE u RENAME TO t; ALTER TABLE swap RENAME TO u";

/// The script, what others make then, and which objects an undo would break.
const UNDONE: &[(&str, &str, &[&str])] = &[
    (ADD, "CREATE VIEW v AS SELECT c FROM t", &["view v"]),
    (ADD, r#"CREATE VIEW v AS SELECT "c" FROM "t""#, &["view v"]),
    (ADD, "CREATE VIEW v AS SELECT * FROM t; CREATE VIEW w AS SELECT c FROM v", &["view w"]),
    (ADD, "CREATE VIEW v AS SELECT * FROM over_t; CREATE VIEW w AS SELECT c FROM v", &["view w"]),
    (ADD, "CREATE TRIGGER r AFTER INSERT ON t WHEN new.c = 1 BEGIN SELECT 1; END", &["trigger r"]),
    (ADD, "CREATE TRIGGER r AFTER UPDATE OF c ON t BEGIN SELECT 1; END", &["trigger r"]),
    (ADD, r#"CREATE TRIGGER r AFTER DELETE ON u BEGIN UPDATE t SET "c" = 1; END"#, &["trigger r"]),
    (ADD, "CREATE TRIGGER r AFTER INSERT ON u BEGIN INSERT INTO t VALUES (NULL, 1, 2, 3); END", &["trigger r"]),
    (ADD, "CREATE INDEX i ON t(c)", &["index i"]),
    (ADD, r#"CREATE INDEX i ON t("c")"#, &["index i"]),
    (ADD, "CREATE INDEX i ON t(lower(c))", &["index i"]),
    (ADD, r#"CREATE INDEX i ON t(lower("c"))"#, &["index i"]),
    (ADD, r#"CREATE INDEX i ON t(b) WHERE "c" IS NOT NULL"#, &["index i"]),
    (ADD, "CREATE UNIQUE INDEX i ON t(c); CREATE TABLE k(c REFERENCES t(c))", &["index i", "table k"]),
    (RENAME, "CREATE VIEW v AS SELECT a FROM tt", &["view v"]),
    (RENAME, "CREATE VIEW v AS SELECT a FROM tt; CREATE INDEX i ON tt(b)", &["view v"]),
    (RENAME, "CREATE TRIGGER r AFTER INSERT ON u BEGIN DELETE FROM tt; END", &["trigger r"]),
    (RENAME, "CREATE TABLE k(t REFERENCES tt)", &["table k"]),
    (RENAME, "CREATE TABLE k(t REFERENCES tt); INSERT INTO k VALUES (1)", &["table k"]),
    (RENAME_COLUMN, "CREATE VIEW v AS SELECT aa FROM t", &["view v"]),
    (RENAME_COLUMN, r#"CREATE VIEW v AS SELECT "aa" FROM t"#, &["view v"]),
    (RENAME_COLUMN, "CREATE INDEX i ON t(aa)", &["index i"]),
    (RENAME_COLUMN, r#"CREATE INDEX i ON t("aa")"#, &["index i"]),
    (RENAME_COLUMN, r#"CREATE INDEX i ON t(upper("aa"))"#, &["index i"]),
    (RENAME_COLUMN, "CREATE TRIGGER r AFTER UPDATE OF aa ON t BEGIN SELECT new.aa; END", &["trigger r"]),
    (RENAME_COLUMN, "CREATE TABLE k(t REFERENCES t(aa))", &["table k"]),
    ("CREATE TABLE m(a)", "CREATE VIEW v AS SELECT a FROM m", &["view v"]),
    ("CREATE TABLE m(a PRIMARY KEY)", "CREATE TABLE k(m REFERENCES m)", &["table k"]),
    ("CREATE TABLE m(a)", "CREATE TRIGGER r AFTER INSERT ON u BEGIN INSERT INTO m VALUES (1); END", &["trigger r"]),
    (
        "CREATE VIEW m AS SELECT a FROM t",
        "CREATE VIEW v AS SELECT a FROM m; CREATE VIEW w AS SELECT a FROM v",
        &["view v", "view w"],
    ),
    ("CREATE UNIQUE INDEX m ON t(b, a)", "CREATE TABLE k(b, a, FOREIGN KEY (b, a) REFERENCES t(b, a))", &["table k"]),
    ("CREATE INDEX m ON t(b, a)", "CREATE VIEW v AS SELECT a FROM t INDEXED BY m", &["view v"]),
    (
        "ALTER TABLE u DROP COLUMN x",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO u VALUES (new.id); END",
        &["trigger r"],
    ),
    (REBUILD, "CREATE VIEW v AS SELECT c FROM t", &["view v"]),
    (REBUILD, "CREATE TRIGGER r AFTER INSERT ON u BEGIN UPDATE t SET c = 1; END", &["trigger r"]),
    (REBUILD, "CREATE INDEX i ON t(c)", &["index i"]),
    (SWAP, "CREATE VIEW v AS SELECT a, b FROM u", &["view v"]),
];

/// The script, what others make after its undo, and which objects a redo would break.
const REDONE: &[(&str, &str, &[&str])] = &[
    (ADD, "CREATE TRIGGER r AFTER INSERT ON u BEGIN INSERT INTO t VALUES (NULL, 1, 2); END", &["trigger r"]),
    (RENAME, "CREATE VIEW v AS SELECT a FROM t", &["view v"]),
    (RENAME, "CREATE VIEW v AS SELECT a FROM t; CREATE INDEX i ON t(a, b)", &["view v"]),
    (RENAME, "CREATE TABLE k(t REFERENCES t)", &["table k"]),
    (RENAME, "CREATE TRIGGER r AFTER INSERT ON u BEGIN DELETE FROM t; END", &["trigger r"]),
    (RENAME_COLUMN, "CREATE VIEW v AS SELECT a FROM t", &["view v"]),
    (RENAME_COLUMN, r#"CREATE INDEX i ON t("a")"#, &["index i"]),
    (RENAME_COLUMN, "CREATE TABLE k(t REFERENCES t(a))", &["table k"]),
    ("ALTER TABLE u DROP COLUMN x", "CREATE VIEW v AS SELECT x FROM u", &["view v"]),
    ("ALTER TABLE u DROP COLUMN x", "CREATE INDEX i ON u(x)", &["index i"]),
    ("ALTER TABLE u DROP COLUMN x", r#"CREATE INDEX i ON u(lower("x"))"#, &["index i"]),
    ("ALTER TABLE u DROP COLUMN x", "CREATE TRIGGER r AFTER INSERT ON u BEGIN SELECT new.x; END", &["trigger r"]),
    ("DROP TABLE u", "CREATE VIEW v AS SELECT x FROM u", &["view v"]),
    ("DROP TABLE u", "CREATE INDEX i ON u(x)", &["index i"]),
    ("DROP TABLE u", "CREATE TRIGGER r AFTER INSERT ON u BEGIN SELECT 1; END", &["trigger r"]),
    ("DROP TABLE u", "CREATE TABLE k(u REFERENCES u)", &["table k"]),
    ("DROP VIEW over_t", "CREATE VIEW v AS SELECT a FROM over_t", &["view v"]),
    ("DROP VIEW over_t", "CREATE TRIGGER r INSTEAD OF INSERT ON over_t BEGIN SELECT 1; END", &["trigger r"]),
    ("DROP INDEX t_b", "CREATE VIEW v AS SELECT a FROM t INDEXED BY t_b", &["view v"]),
    (REBUILD, "CREATE INDEX i ON t(a, b)", &["index i"]),
    (REBUILD, "CREATE TRIGGER r AFTER INSERT ON u BEGIN INSERT INTO t VALUES (NULL, 1, 2); END", &["trigger r"]),
    (SWAP, "CREATE VIEW v AS SELECT a, b FROM t", &["view v"]),
];

#[track_caller]
fn conflicting(result: Result<impl Sized, TargetError>, objects: &[&str], what: &str) {
    let conflicts = match result {
        Err(TargetError::Conflicts(conflicts)) => conflicts,
        Err(error) => panic!("{what}: {}", told(&error)),
        Ok(_) => panic!("no conflict: {what}"),
    };
    let mut found: Vec<String> = conflicts.listed.iter().map(|one| one.object.clone()).collect();
    found.sort();
    assert_eq!(found, objects, "{what}: {conflicts:?}");
    assert!(conflicts.listed.iter().all(|one| one.kind == ConflictKind::Definition), "{what}: {conflicts:?}");
}

#[track_caller]
fn sound(stage: &mut Stage, what: &str) {
    assert_eq!(unusable(&stage.other()), Vec::<String>::new(), "{what}");
    dump(&stage.other());
    assert_eq!(holds(stage), Vec::<String>::new(), "{what}");
}

fn names(conn: &Connection) -> Vec<String> {
    let mut select = conn.prepare("SELECT type || ' ' || name FROM sqlite_schema ORDER BY 1").unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn what_an_undo_would_break_is_a_conflict() {
    for (script, theirs, objects) in UNDONE {
        let what = format!("{script}\n-- theirs\n{theirs}");
        let begin = || -> (Stage, Images) {
            let mut stage = live("", BASE);
            let images = apply(&mut stage, script, &what);
            stage.other().execute_batch(theirs).unwrap();
            assert_eq!(unusable(&stage.other()), Vec::<String>::new(), "{what}");
            (stage, images)
        };
        let (mut stage, images) = begin();
        let now = dump(&stage.other());
        conflicting(stage.try_undo(&images, OnConflict::Stop), objects, &what);
        same(&dump(&stage.other()), &now, &format!("a conflict changes nothing: {what}"));
        // A check beforehand finds the same.
        let mut steps =
            std::iter::once(Box::new(std::io::Cursor::new(images.clone())) as Box<dyn backout_model::target::Images>);
        let report =
            backout_model::target::Target::check_undo(&mut stage.database, &mut steps, OnConflict::Stop).unwrap();
        assert!(!report.conflicts.is_empty(), "{what}");
        same(&dump(&stage.other()), &now, &format!("a check changes nothing: {what}"));

        let report =
            stage.try_undo(&images, OnConflict::Keep).unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        assert!(!report.conflicts.is_empty(), "{what}");
        sound(&mut stage, &format!("after keep: {what}"));
        for object in *objects {
            assert!(names(&stage.other()).iter().any(|name| name == object), "{object} was kept: {what}");
        }

        let (mut stage, images) = begin();
        let report =
            stage.try_undo(&images, OnConflict::Overwrite).unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        assert!(!report.conflicts.is_empty(), "{what}");
        // A table of others' is not thrown away for a key that points at nothing.
        if !theirs.contains("CREATE TABLE") {
            sound(&mut stage, &format!("after overwrite: {what}"));
        }
    }
}

#[test]
fn what_a_redo_would_break_is_a_conflict() {
    for (script, theirs, objects) in REDONE {
        let what = format!("{script}\n-- theirs, after the undo\n{theirs}");
        let mut stage = live("", BASE);
        let images = apply(&mut stage, script, &what);
        stage.undo(&images);
        stage.other().execute_batch(theirs).unwrap();
        assert_eq!(unusable(&stage.other()), Vec::<String>::new(), "{what}");
        let now = dump(&stage.other());
        conflicting(stage.try_redo(&images, OnConflict::Stop), objects, &what);
        same(&dump(&stage.other()), &now, &format!("a conflict changes nothing: {what}"));
        let (_, report) =
            stage.try_redo(&images, OnConflict::Keep).unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        assert!(!report.conflicts.is_empty(), "{what}");
        assert_eq!(unusable(&stage.other()), Vec::<String>::new(), "{what}");
        for object in *objects {
            assert!(names(&stage.other()).iter().any(|name| name == object), "{object} was kept: {what}");
        }
    }
}

#[test]
fn what_hangs_on_a_renamed_table_goes_along_there_and_back() {
    for theirs in [
        "CREATE INDEX i ON t(a, b)",
        r#"CREATE INDEX i ON t("a") WHERE t.b > 1"#,
        "CREATE TRIGGER r BEFORE DELETE ON t BEGIN UPDATE t SET b = 1 WHERE id = old.id; END",
        "CREATE UNIQUE INDEX i ON t(a, b); CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT count(*) FROM t; END",
    ] {
        for script in [RENAME, "ALTER TABLE t RENAME TO tt; ALTER TABLE tt RENAME TO ttt", SWAP] {
            let what = format!("{script}\n-- theirs\n{theirs}");
            let mut stage = live("", BASE);
            let images = apply(&mut stage, script, &what);
            let applied = dump(&stage.other());
            stage.undo(&images);
            stage.other().execute_batch(theirs).unwrap();
            let before = names(&stage.other());
            let again = stage.redo(&images);
            assert_eq!(unusable(&stage.other()), Vec::<String>::new(), "after the redo: {what}");
            let count = names(&stage.other()).len();
            assert_eq!(count, before.len(), "after the redo: {what}");
            let report = stage.undo(&again);
            assert!(report.conflicts.is_empty(), "{what}");
            assert_eq!(names(&stage.other()), before, "after the second undo: {what}");
            sound(&mut stage, &what);
            // Without what they made all is as if they had made nothing.
            stage.other().execute_batch("DROP INDEX IF EXISTS i; DROP TRIGGER IF EXISTS r").unwrap();
            stage.redo(&again);
            same(&dump(&stage.other()), &applied, &what);
        }
    }
}

#[test]
fn what_was_broken_before_may_be_broken_again() {
    // A view that the deployment heals, one that it breaks for a while, and one that others broke.
    let setup = format!(
        "{BASE} CREATE VIEW sick AS SELECT z FROM t; CREATE VIEW x AS SELECT x FROM u; CREATE VIEW nowhere AS SELECT * FROM not_there"
    );
    for script in [
        "ALTER TABLE t ADD COLUMN z",
        "PRAGMA legacy_alter_table = ON; ALTER TABLE u RENAME TO not_there",
        "DROP TABLE u",
        "DROP TABLE u; CREATE TABLE u(id INTEGER PRIMARY KEY, x, y)",
        "CREATE TABLE not_there(a)",
        "DROP VIEW x; ALTER TABLE u RENAME TO y",
    ] {
        let script = format!("PRAGMA legacy_alter_table = ON; {script}");
        let mut stage = live("", &setup);
        let before = dump(&stage.other());
        let images = apply(&mut stage, &script, &script);
        let after = dump(&stage.other());
        stage.other().execute_batch("CREATE TABLE theirs(a); CREATE VIEW of_theirs AS SELECT * FROM theirs").unwrap();
        stage.undo(&images);
        let again = stage.redo(&images);
        stage.other().execute_batch("DROP VIEW of_theirs; DROP TABLE theirs").unwrap();
        same(&dump(&stage.other()), &after, &script);
        stage.undo(&again);
        same(&dump(&stage.other()), &before, &script);
    }
}

/// Rows of others would go with the table, few or many, be it that they changed one of its own.
#[test]
fn rows_that_others_wrote_into_a_table_that_a_redo_drops_are_a_conflict() {
    let small = "INSERT INTO p VALUES (1, 1), (2, 2); INSERT INTO c VALUES (1), (NULL)";
    let large = "WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 2000) INSERT INTO p SELECT i, i FROM i";
    for (rows, script) in [
        (small, "PRAGMA foreign_keys = ON; DROP TABLE p"),
        (small, "DROP TABLE p"),
        (large, "DROP TABLE p"),
        ("", "DROP TABLE p"),
        (small, "UPDATE p SET n = n + 1; DROP TABLE p"),
    ] {
        let what = format!("{rows}; {script}");
        let setup = format!(
            "CREATE TABLE p(id INTEGER PRIMARY KEY, n); CREATE TABLE c(p REFERENCES p ON DELETE SET NULL); {rows}"
        );
        let mut stage = live("", &setup);
        let images = apply(&mut stage, script, &what);
        let after = dump(&stage.other());
        stage.undo(&images);
        let images = stage.redo(&images);
        same(&dump(&stage.other()), &after, &what);
        stage.undo(&images);
        stage.other().execute_batch("INSERT INTO p VALUES (7000, 7), (7001, 8)").unwrap();
        let before = dump(&stage.other());
        match stage.try_redo(&images, OnConflict::Stop) {
            Err(TargetError::Conflicts(conflicts)) => {
                let of_table = conflicts.listed.iter().filter(|one| one.object == "table p").collect::<Vec<_>>();
                assert!(of_table.len() == 1 && of_table[0].now.starts_with("2 rows"), "{what}: {conflicts:?}");
            }
            other => panic!("{what}: no conflict: {:?}", other.map(drop)),
        }
        same(&dump(&stage.other()), &before, &what);
        let there = |stage: &Stage| names(&stage.other()).contains(&"table p".to_owned());
        stage.try_redo(&images, OnConflict::Keep).unwrap();
        assert!(there(&stage), "{what}");
        if rows == small && !script.contains("UPDATE") {
            let mut stage = live("", &setup);
            let images = apply(&mut stage, script, &what);
            stage.undo(&images);
            stage.other().execute_batch("UPDATE p SET n = 'theirs' WHERE id = 1").unwrap();
            assert!(matches!(stage.try_redo(&images, OnConflict::Stop), Err(TargetError::Conflicts(_))), "{what}");
            // What is gone already is nobody's.
            stage.other().execute_batch("DELETE FROM p").unwrap();
            stage.redo(&images);
            assert!(!there(&stage), "{what}");
        }
    }
}

#[test]
fn a_redo_that_leaves_a_table_leaves_its_rows() {
    let mut stage = live("", BASE);
    let images = apply(&mut stage, "DROP TABLE u", "");
    stage.undo(&images);
    stage.other().execute_batch("ALTER TABLE u ADD COLUMN z").unwrap();
    let before = dump(&stage.other());
    let (_, report) = stage.try_redo(&images, OnConflict::Keep).unwrap();
    assert!(!report.conflicts.is_empty());
    same(&dump(&stage.other()), &before, "");
}
