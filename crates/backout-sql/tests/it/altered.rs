//! Tables that a step altered or rebuilt, and that others altered or wrote to since: what has no place any more when the
//! old form comes back is told, value by value, and everything else stays.

use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_model::target::{Summary, TargetError};

use crate::bed::{apply, list, live, same};
use crate::stage::{Images, Stage, dump};

const BASE: &str =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a, c); INSERT INTO t VALUES (1, 'a1', 'c1'), (2, 'a2', 'c2');";
const REBUILD: &str =
    "CREATE TABLE t_n(id INTEGER PRIMARY KEY, a, c, nw DEFAULT 1); INSERT INTO t_n(id, a, c) SELECT id, a, c FROM t;
    DROP TABLE t; ALTER TABLE t_n RENAME TO t;";
/// As older programs do it.
const OTHER_WAY: &str = "ALTER TABLE t RENAME TO t_o; CREATE TABLE t(id INTEGER PRIMARY KEY, a, c, nw DEFAULT 1);
    INSERT INTO t(id, a, c) SELECT id, a, c FROM t_o; DROP TABLE t_o;";
const WITHOUT_C: &str = "CREATE TABLE t_n(id INTEGER PRIMARY KEY, a); INSERT INTO t_n SELECT id, a FROM t;
    DROP TABLE t; ALTER TABLE t_n RENAME TO t;";

fn begin(script: &str, theirs: &str) -> (Stage, Images) {
    let mut stage = live("", BASE);
    let images = apply(&mut stage, script, script);
    stage.other().execute_batch(theirs).unwrap();
    (stage, images)
}

fn rows(stage: &Stage) -> Vec<String> {
    list(&stage.other(), "SELECT id || ' ' || coalesce(a, '-') || ' ' || coalesce(c, '-') FROM t ORDER BY id")
}

/// Object, key and column of what is listed, and what is there now.
fn told(listed: &[Conflict]) -> Vec<String> {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    listed.iter().map(|one| format!("{} {} {}: {}", one.object, text(&one.key), text(&one.column), one.now)).collect()
}

#[test]
fn what_others_wrote_stays_though_they_altered_the_table() {
    let theirs =
        "ALTER TABLE t ADD COLUMN oc; INSERT INTO t(id, a, c) VALUES (7, 'O', 'O'); UPDATE t SET a = 'O' WHERE id = 1;
        INSERT INTO t(id, oc) VALUES (8, 'x'); UPDATE t SET oc = 'y' WHERE id = 2";
    for script in [REBUILD, OTHER_WAY] {
        let (mut stage, images) = begin(script, theirs);
        let now = dump(&stage.other());
        let conflicts = stage.conflicts(&images);
        same(&dump(&stage.other()), &now, script);
        let report = stage.try_undo(&images, OnConflict::Overwrite).unwrap();
        assert_eq!(rows(&stage), ["1 O c1", "2 a2 c2", "7 O O", "8 - -"], "{script}");
        assert_eq!(list(&stage.other(), "SELECT sql FROM sqlite_schema WHERE name = 't'").len(), 1);
        let found = told(&report.conflicts.listed);
        assert!(found.contains(&"t id=2 oc: 'y'".to_owned()), "{script}: {found:?}");
        assert!(found.contains(&"t id=8 oc: 'x'".to_owned()), "{script}: {found:?}");
        assert!(found.iter().any(|one| one.starts_with("table t  : CREATE TABLE")), "{script}: {found:?}");
        assert_eq!((found.len(), report.conflicts.total), (3, 3), "{script}: {found:?}");
        let mut all = told(&conflicts.listed);
        let (mut stopped, mut found) = (std::mem::take(&mut all), found);
        stopped.sort();
        found.sort();
        assert_eq!(stopped, found, "{script}");
        // Kept, all of it stays.
        let (mut stage, images) = begin(script, theirs);
        let report = stage.try_undo(&images, OnConflict::Keep).unwrap();
        assert!(!report.conflicts.is_empty());
        let there = list(&stage.other(), "SELECT id || coalesce(a, '-') || coalesce(oc, '-') FROM t ORDER BY id");
        assert_eq!(there, ["1O-", "2a2y", "7O-", "8-x"], "{script}");
    }
}

#[test]
fn a_row_without_a_key_goes_over_like_the_others() {
    let mut stage = live("", "CREATE TABLE t(id TEXT PRIMARY KEY, a, c); INSERT INTO t VALUES ('1', 1, 1)");
    let script = REBUILD.replace("INTEGER PRIMARY", "TEXT PRIMARY");
    let images = apply(&mut stage, &script, &script);
    stage.other().execute_batch("INSERT INTO t(id, a) VALUES (NULL, 'O'), ('k', 'K'), (NULL, 'P')").unwrap();
    let report = stage.undo(&images);
    assert!(report.conflicts.is_empty());
    assert_eq!(list(&stage.other(), "SELECT coalesce(id, '-') || a FROM t ORDER BY a"), ["11", "kK", "-O", "-P"]);
}

/// Values that a row of a dropped or left-out column had, and whose row is gone: whoever changed its key is told.
#[test]
fn values_whose_row_has_another_key_now_are_told() {
    for script in [WITHOUT_C, "ALTER TABLE t DROP COLUMN c"] {
        let (mut stage, images) = begin(script, "UPDATE t SET id = 9 WHERE id = 1");
        let now = dump(&stage.other());
        let conflicts = stage.conflicts(&images);
        same(&dump(&stage.other()), &now, script);
        for manner in [OnConflict::Keep, OnConflict::Overwrite] {
            let (mut stage, images) = begin(script, "UPDATE t SET id = 9 WHERE id = 1");
            let report = stage.try_undo(&images, manner).unwrap();
            assert_eq!(rows(&stage), ["2 a2 c2", "9 a1 -"], "{script}");
            assert_eq!(report.conflicts, conflicts, "{script}");
            assert_eq!(conflicts.total, 1, "{script}: {conflicts:?}");
            let one = &conflicts.listed[0];
            assert_eq!((one.object.as_str(), one.key.as_deref(), one.before.as_str()), ("t", Some("id=1"), "'c1'"));
        }
        // Nor do others' rows that came without one of another going mean anything, or a row that had no value.
        let (mut stage, images) = begin(script, "INSERT INTO t (id) VALUES (7)");
        assert!(stage.undo(&images).conflicts.is_empty(), "{script}");
        let mut stage = live("", &format!("{BASE} INSERT INTO t VALUES (3, 'a3', NULL)"));
        let images = apply(&mut stage, script, script);
        stage.other().execute_batch("DELETE FROM t WHERE id = 1").unwrap();
        assert!(stage.undo(&images).conflicts.is_empty(), "{script}");
        // A row that is gone is gone.
        let (mut stage, images) = begin(script, "DELETE FROM t WHERE id = 1");
        let report = stage.undo(&images);
        assert!(report.notes.is_empty() && report.conflicts.is_empty(), "{script}: {report:?}");
        assert_eq!(rows(&stage), ["2 a2 c2"], "{script}");
    }
}

/// What a later step's undo could not do without: columns, the key, the table, or what a row had.
#[test]
fn what_a_later_undo_needs_is_told_by_a_check() {
    let stage = |script: &str, theirs: &str| {
        let mut stage = live(
            "",
            &format!("{BASE} CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w VALUES (1, 'w1');"),
        );
        let images = apply(&mut stage, script, script);
        stage.other().execute_batch(theirs).unwrap();
        (stage, images)
    };
    for (script, theirs, needed) in [
        ("ALTER TABLE t ADD COLUMN d DEFAULT 7", "", vec!["t  d: "]),
        ("ALTER TABLE t RENAME COLUMN c TO cc", "", vec!["t  cc: ", "t  : "]),
        (REBUILD, "", vec!["t  nw: "]),
        (OTHER_WAY, "", vec!["t  nw: "]),
        (WITHOUT_C, "DELETE FROM t WHERE id = 1", vec!["t  c: "]),
        (WITHOUT_C, "DELETE FROM t WHERE id = 9", vec![]),
        ("ALTER TABLE t DROP COLUMN c", "DELETE FROM t WHERE id = 1", vec!["t  c: "]),
        ("ALTER TABLE t DROP COLUMN c", "", vec![]),
        ("ALTER TABLE t RENAME TO tt", "", vec!["tt  : "]),
        ("CREATE TABLE u(a)", "", vec!["u  : "]),
        ("UPDATE t SET a = 1", "", vec![]),
        ("UPDATE t SET id = 9 WHERE id = 1", "", vec!["t  : "]),
        ("UPDATE t SET id = id + 10; UPDATE t SET a = 'x'", "UPDATE t SET a = 'O'", vec!["t  : "]),
        ("UPDATE w SET k = 9 WHERE k = 1", "", vec!["w  : "]),
        ("DELETE FROM w; INSERT INTO w VALUES (9, 'w9')", "", vec![]),
        ("CREATE INDEX i ON t(a)", "", vec![]),
    ] {
        let (mut stage, images) = stage(script, theirs);
        let report = stage.check(&images, OnConflict::Overwrite).unwrap();
        let is_needed = |one: &Conflict| one.kind == ConflictKind::RequiredBy && !one.object.starts_with(Summary::MADE);
        let found = report.already.listed.into_iter().filter(is_needed);
        // Of a table's form a step needs only what changed that, too.
        let (of_form, found): (Vec<_>, Vec<_>) = found.partition(|one| one.object.starts_with("table "));
        let changes_form = script.contains("TABLE");
        assert_eq!(!of_form.is_empty(), changes_form, "{script}: {of_form:?}");
        assert_eq!(told(&found), needed, "{script} {theirs}");
    }
}

#[test]
fn what_others_hung_on_the_new_table_goes_over_to_the_old_one() {
    let theirs = "CREATE INDEX i ON t(c); CREATE UNIQUE INDEX u ON t(a, id) WHERE a IS NOT NULL;
        CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT new.c; END";
    let of_theirs = |stage: &Stage| list(&stage.other(), "SELECT sql FROM sqlite_schema WHERE name IN ('i', 'u', 'r')");
    for script in [REBUILD, OTHER_WAY] {
        let (mut stage, images) = begin(script, theirs);
        let before = of_theirs(&stage);
        let report = stage.undo(&images);
        assert!(report.conflicts.is_empty(), "{script}: {:?}", report.conflicts);
        assert_eq!(of_theirs(&stage), before, "{script}");
        stage.other().execute_batch("INSERT INTO t VALUES (3, 'a3', 'c3')").unwrap();
        dump(&stage.other());
        // What needs the new column is in the way, and is called by its name.
        let (mut stage, images) = begin(script, "CREATE INDEX on_new ON t(nw)");
        let conflicts = stage.conflicts(&images);
        assert_eq!(conflicts.total, 1, "{script}: {conflicts:?}");
        assert!(conflicts.listed[0].now.starts_with("CREATE INDEX on_new ON t(nw); "), "{conflicts:?}");
        stage.try_undo(&images, OnConflict::Keep).unwrap();
        assert_eq!(list(&stage.other(), "SELECT name FROM sqlite_schema WHERE name = 'on_new'"), ["on_new"]);
    }
}

const FAMILY: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, n); CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p ON UPDATE CASCADE);
    CREATE TABLE j(p REFERENCES p, x, PRIMARY KEY (p, x)) WITHOUT ROWID; INSERT INTO p VALUES (1, 'a'); INSERT INTO c VALUES (1, 1)";

/// Where the newer values are kept, no row points at nothing afterwards, and what stays for that is listed.
#[test]
fn the_parent_of_a_row_of_others_stays() {
    for script in [
        "PRAGMA foreign_keys = ON; UPDATE p SET id = 11",
        "INSERT INTO p VALUES (11, 'z')",
        "INSERT INTO p VALUES (10, 'z'); UPDATE p SET id = 11, n = 'y' WHERE id = 10; INSERT INTO c VALUES (5, 11)",
        "CREATE TABLE p_n(id INTEGER PRIMARY KEY, n, o); INSERT INTO p_n(id, n) SELECT id, n FROM p; INSERT INTO p_n(id) VALUES (11); DROP TABLE p; ALTER TABLE p_n RENAME TO p",
    ] {
        for theirs in
            ["INSERT INTO c VALUES (9, 11)", "INSERT INTO j VALUES (11, 'o')", "INSERT INTO c VALUES (9, '11')"]
        {
            let what = format!("{script}; {theirs}");
            let mut stage = live("", FAMILY);
            let images = apply(&mut stage, script, script);
            stage.other().execute_batch(theirs).unwrap();
            let dangling = |stage: &Stage| list(&stage.other(), "SELECT \"table\" FROM pragma_foreign_key_check");
            assert_eq!(dangling(&stage), Vec::<String>::new(), "{what}");
            let now = dump(&stage.other());
            match stage.try_undo(&images, OnConflict::Stop) {
                Err(TargetError::Conflicts(_)) => same(&dump(&stage.other()), &now, &what),
                // A rebuilt table's own row goes over like that of others.
                other => panic!("{what}: {other:?}"),
            }
            let report = stage.try_undo(&images, OnConflict::Keep).unwrap();
            assert_eq!(dangling(&stage), Vec::<String>::new(), "{what}");
            let of_key = report.conflicts.listed.iter().filter(|one| one.kind == ConflictKind::ForeignKey).count();
            assert!(of_key > 0, "{what}: {:?}", report.conflicts);
            assert_eq!(list(&stage.other(), "SELECT id || '' FROM p WHERE id = 11"), ["11"], "{what}");
        }
    }
}

/// A child whose parent others took away does not come back alone.
#[test]
fn a_child_does_not_come_back_without_its_parent() {
    let mut stage = live("", FAMILY);
    let images = apply(&mut stage, "DELETE FROM c; UPDATE p SET n = 'b'", "");
    stage.other().execute_batch("DELETE FROM p").unwrap();
    stage.conflicts(&images);
    let report = stage.try_undo(&images, OnConflict::Keep).unwrap();
    assert!(report.conflicts.listed.iter().any(|one| one.kind == ConflictKind::ForeignKey), "{:?}", report.conflicts);
    assert_eq!(list(&stage.other(), "SELECT \"table\" FROM pragma_foreign_key_check"), Vec::<String>::new());
}

/// A redo speaks of what was before the deployment, and of what that left, as an undo does.
#[test]
fn a_conflict_of_a_redo_says_what_the_deployment_left() {
    let (mut stage, images) = begin("UPDATE t SET a = 'x' WHERE id = 1", "");
    stage.undo(&images);
    stage.other().execute_batch("UPDATE t SET a = 'O'").unwrap();
    match stage.try_redo(&images, OnConflict::Stop) {
        Err(TargetError::Conflicts(conflicts)) => {
            let one = &conflicts.listed[0];
            assert_eq!([&one.before, &one.left, &one.now], ["'a1'", "'x'", "'O'"]);
        }
        other => panic!("no conflict: {:?}", other.map(drop)),
    }
}
