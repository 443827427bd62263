//! What the random test of others' objects has found, in its shortest form.

use backout_model::conflict::OnConflict;
use backout_model::target::TargetError;

use crate::bed::{apply, holds, list, live, same, unusable};
use crate::stage::{dump, told};

/// A view, trigger or table is judged by what it was before the step, not by what it was when it was dropped.
#[test]
fn what_never_worked_alone_is_no_conflict() {
    let setup =
        "CREATE TABLE t(a); CREATE TABLE u(b); CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE late SET a = 1; END;
        CREATE VIEW v AS SELECT a FROM late; CREATE TABLE k(x REFERENCES late(a))";
    let script = "CREATE TABLE late(a PRIMARY KEY); DROP TABLE t; DROP VIEW v; DROP TABLE k";
    let mut stage = live("", setup);
    let before = dump(&stage.other());
    let images = apply(&mut stage, script, script);
    stage.undo(&images);
    same(&dump(&stage.other()), &before, script);
}

/// Nor what worked for the time of the step only, since the step made what it needs, or SQLite rewrote it on the way.
#[test]
fn what_works_only_while_deployed_is_no_conflict() {
    for (setup, script) in [
        (
            "CREATE TABLE t(d); CREATE VIEW v AS SELECT \"x\" FROM late",
            "CREATE TABLE late(a); ALTER TABLE t RENAME COLUMN d TO x",
        ),
        (
            "CREATE TABLE t(d); CREATE TABLE u(b); CREATE VIEW v AS SELECT \"x\" FROM u",
            "ALTER TABLE t RENAME COLUMN d TO x",
        ),
    ] {
        let mut stage = live("", setup);
        let before = dump(&stage.other());
        let images = apply(&mut stage, script, script);
        let applied = dump(&stage.other());
        for _ in 0..2 {
            stage.undo(&images);
            same(&dump(&stage.other()), &before, script);
            stage.redo(&images);
            same(&dump(&stage.other()), &applied, script);
        }
    }
}

/// The script, what others do since, and which object would come back in vain, or stands in the way.
const IN_VAIN: &[(&str, &str, &str)] = &[
    ("DROP TABLE t; DROP VIEW v", "CREATE TABLE t(others)", "table t"),
    ("DROP VIEW v", "ALTER TABLE t RENAME TO x", "view v"),
    ("DROP TRIGGER r", "DROP TABLE u", "trigger r"),
    ("DROP TABLE k", "ALTER TABLE p RENAME TO x", "table k"),
    (
        "CREATE TABLE n AS SELECT * FROM k; DROP TABLE k; ALTER TABLE n RENAME TO k",
        "ALTER TABLE p RENAME TO x",
        "table k",
    ),
    ("ALTER TABLE k RENAME TO n; CREATE TABLE k(x); DROP TABLE n", "ALTER TABLE p RENAME TO x", "table k"),
    ("ALTER TABLE l DROP COLUMN p", "ALTER TABLE p RENAME TO x", "table l"),
];

#[test]
fn what_would_come_back_in_vain_is_a_conflict() {
    let setup =
        "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE k(x REFERENCES p); CREATE TABLE l(a, p REFERENCES p);
        CREATE TABLE t(a); CREATE TABLE u(b); CREATE VIEW v AS SELECT a FROM t;
        CREATE TRIGGER r AFTER INSERT ON p BEGIN DELETE FROM u; END";
    for (script, theirs, object) in IN_VAIN {
        let what = format!("{script}; -- theirs: {theirs}");
        let mut stage = live("PRAGMA legacy_alter_table = ON;", setup);
        let images = apply(&mut stage, script, script);
        stage.other().execute_batch(theirs).unwrap();
        let now = dump(&stage.other());
        let conflicts = stage.conflicts(&images);
        same(&dump(&stage.other()), &now, &what);
        assert!(conflicts.listed.iter().any(|one| one.object == *object), "{what}: {conflicts:?}");
        stage.try_undo(&images, OnConflict::Keep).unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        assert_eq!(unusable(&stage.other()), Vec::<String>::new(), "{what}");
    }
}

/// A name that serves for a while serves several tables: the rows of one are not passed over for another's.
#[test]
fn no_row_goes_for_a_name_that_served_twice() {
    let setup = "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 2), (3, 4)";
    let rebuild = "CREATE TABLE w(id INTEGER PRIMARY KEY, c); INSERT INTO w(id) SELECT id FROM p; DROP TABLE p; ALTER TABLE w RENAME TO p";
    let script = format!(
        "ALTER TABLE t RENAME TO w; CREATE TABLE t(a, b); INSERT INTO t SELECT a, b FROM w; DROP TABLE w; {rebuild}"
    );
    let mut stage = live("", setup);
    let images = apply(&mut stage, &script, &script);
    stage.other().execute_batch("CREATE TRIGGER r AFTER INSERT ON p BEGIN UPDATE p SET c = 1; END").unwrap();
    assert!(!stage.conflicts(&images).is_empty());
    stage.try_undo(&images, OnConflict::Keep).unwrap();
    assert_eq!(list(&stage.other(), "SELECT a || b FROM t ORDER BY a"), ["12", "34"]);
    assert_eq!(unusable(&stage.other()), Vec::<String>::new());
}

/// Others gave a column's name to another: no old value goes into that. Where the tool itself moved columns, it knows.
#[test]
fn a_column_that_took_a_name_is_not_taken_for_the_old_one() {
    let setup = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 'a1', 'b1'), (2, 'a2', 'b2')";
    let rebuilt = "CREATE TABLE n(id INTEGER PRIMARY KEY, b, a); INSERT INTO n SELECT id, b, a FROM t; DROP TABLE t;
        ALTER TABLE n RENAME TO t";
    for (theirs, is_same) in [
        ("ALTER TABLE t RENAME a TO q; ALTER TABLE t ADD COLUMN a", false),
        ("ALTER TABLE t RENAME b TO q; ALTER TABLE t ADD COLUMN b", false),
        ("ALTER TABLE t RENAME a TO z; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME z TO b", false),
        (rebuilt, false),
        ("ALTER TABLE t ADD COLUMN q", true),
        ("ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD COLUMN b", true),
        ("CREATE INDEX i ON t(a)", true),
    ] {
        let mut stage = live("", setup);
        let images = apply(&mut stage, "DELETE FROM t WHERE id = 1", theirs);
        stage.other().execute_batch(theirs).unwrap();
        if !is_same {
            let conflicts = stage.conflicts(&images);
            let is_told = conflicts.listed.iter().any(|one| one.now.contains("in another order"));
            assert!(is_told, "{theirs}: {conflicts:?}");
        }
        stage.try_undo(&images, if is_same { OnConflict::Stop } else { OnConflict::Keep }).unwrap();
        let left = list(&stage.other(), "SELECT count(*) || '' FROM t");
        assert_eq!(left, [if is_same { "2" } else { "1" }], "{theirs}");
    }
    let mut stage = live("", setup);
    let images = apply(&mut stage, "DELETE FROM t WHERE id = 1", "the rows");
    let moved = apply(&mut stage, rebuilt, "the columns");
    stage.try_undo(&images, OnConflict::Stop).unwrap();
    stage.try_undo(&moved, OnConflict::Stop).unwrap();
    assert_eq!(list(&stage.other(), "SELECT id || a || b FROM t ORDER BY id"), ["1a1b1", "2a2b2"]);
}

/// What others put in the place of a dropped table goes once, whatever kind it is of.
#[test]
fn a_view_in_a_tables_place_gives_way() {
    let mut stage = live("", "CREATE TABLE t(a); CREATE TABLE x(q); INSERT INTO x VALUES (7)");
    let images = apply(&mut stage, "DROP TABLE x", "");
    stage.other().execute_batch("CREATE VIEW x AS SELECT a FROM t").unwrap();
    assert!(stage.conflicts(&images).listed.iter().any(|one| one.object == "table x"));
    stage.try_undo(&images, OnConflict::Overwrite).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(list(&stage.other(), "SELECT q || '' FROM x"), ["7"]);
}

/// Where a table stays dropped, so does the one that took its name.
#[test]
fn what_stays_keeps_what_replaces_it() {
    let setup = "CREATE TABLE t(a); INSERT INTO t VALUES (1)";
    let script =
        "CREATE TABLE s(e); ALTER TABLE t RENAME TO w; CREATE TABLE t(a); INSERT INTO t SELECT a FROM w; DROP TABLE w;
        ALTER TABLE s RENAME TO w; CREATE TABLE s(e); INSERT INTO s SELECT e FROM w; DROP TABLE w";
    let mut stage = live("PRAGMA legacy_alter_table = ON;", setup);
    let images = apply(&mut stage, script, script);
    stage.other().execute_batch("INSERT INTO s VALUES ('others')").unwrap();
    stage.try_undo(&images, OnConflict::Keep).unwrap();
    assert_eq!(list(&stage.other(), "SELECT a || '' FROM t"), ["1"]);
    assert_eq!(list(&stage.other(), "SELECT e FROM s"), ["others"]);
}

/// An index of others on a column that goes would be one on a string, with entries of another kind.
#[test]
fn an_index_that_lost_its_column_is_not_written_to() {
    let setup = "CREATE TABLE t(a PRIMARY KEY); INSERT INTO t VALUES (1)";
    let script = "INSERT INTO t VALUES (2), (3); ALTER TABLE t ADD COLUMN c";
    for manner in [OnConflict::Keep, OnConflict::Overwrite] {
        let mut stage = live("", setup);
        let images = apply(&mut stage, script, script);
        stage.other().execute_batch(r#"CREATE INDEX i ON t(1) WHERE ("c" IS NOT NULL)"#).unwrap();
        let conflicts = stage.conflicts(&images);
        assert!(conflicts.listed.iter().all(|one| one.object == "index i"), "{conflicts:?}");
        stage.try_undo(&images, manner).unwrap_or_else(|error| panic!("{}", told(&error)));
        dump(&stage.other());
        assert_eq!(unusable(&stage.other()), Vec::<String>::new());
        assert_eq!(holds(&mut stage), Vec::<String>::new());
    }
}

/// What writes to a table fires its triggers, and needs what they need.
#[test]
fn what_fires_a_trigger_needs_what_that_needs() {
    let setup = "CREATE TABLE t(a); CREATE TABLE u(b); CREATE TRIGGER r AFTER INSERT ON u BEGIN DELETE FROM t; END";
    let mut stage = live("", setup);
    let images = apply(&mut stage, "DROP TABLE t", "");
    stage.undo(&images);
    stage
        .other()
        .execute_batch("CREATE TABLE o(c); CREATE TRIGGER s AFTER INSERT ON o BEGIN INSERT INTO u VALUES (1); END")
        .unwrap();
    match stage.try_redo(&images, OnConflict::Stop) {
        Err(TargetError::Conflicts(conflicts)) => assert_eq!(conflicts.listed[0].object, "trigger s"),
        Err(error) => panic!("{}", told(&error)),
        Ok(_) => panic!("no conflict"),
    }
}

/// The setup, the script, and what others make after its undo, over which a redo can't go: their table stays.
const OVER_TABLES: &[(&str, &str, &str)] = &[
    ("CREATE TABLE u(b)", "CREATE TABLE t(a)", "CREATE TABLE t(others)"),
    (
        "CREATE TABLE t(a PRIMARY KEY); INSERT INTO t VALUES (1)",
        "CREATE TABLE n(a PRIMARY KEY); INSERT INTO n SELECT a FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t",
        "ALTER TABLE t RENAME TO x; INSERT INTO x VALUES ('others')",
    ),
    (
        "CREATE TABLE t(a INTEGER PRIMARY KEY); CREATE TABLE o(a); INSERT INTO o VALUES ('others')",
        "ALTER TABLE t RENAME TO x; CREATE TABLE n(a INTEGER PRIMARY KEY, c); INSERT INTO n(a) SELECT a FROM x; DROP TABLE x; ALTER TABLE n RENAME TO x",
        "ALTER TABLE o RENAME TO x",
    ),
];

#[test]
fn a_redo_over_a_table_of_others_leaves_that() {
    for (setup, script, theirs) in OVER_TABLES {
        let what = format!("{script}; -- theirs: {theirs}");
        let mut stage = live("", setup);
        let images = apply(&mut stage, script, script);
        stage.undo(&images);
        stage.other().execute_batch(theirs).unwrap();
        let rows = |stage: &crate::stage::Stage| {
            dump(&stage.other()).into_iter().filter(|line| line.contains("others")).collect::<Vec<_>>()
        };
        let before = rows(&stage);
        let (_, report) =
            stage.try_redo(&images, OnConflict::Overwrite).unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        assert!(!report.conflicts.is_empty(), "{what}");
        same(&rows(&stage), &before, &what);
    }
}

/// Rows that pointed at nothing before the step do so after its undo, whatever became of their table's keys meanwhile.
#[test]
fn what_pointed_at_nothing_before_is_no_conflict() {
    let setup =
        "CREATE TABLE parent(id INTEGER PRIMARY KEY); CREATE TABLE k(a REFERENCES parent, b REFERENCES parent, c);
        INSERT INTO k VALUES (7, 8, 1), (9, NULL, 2), (NULL, 9, 3)";
    for script in [
        "ALTER TABLE k DROP COLUMN b; INSERT INTO k (c) VALUES (4)",
        "ALTER TABLE k DROP COLUMN a; INSERT INTO k (c) VALUES (4)",
        "ALTER TABLE k ADD COLUMN d REFERENCES parent; INSERT INTO k (c) VALUES (4)",
    ] {
        let mut stage = live("PRAGMA foreign_keys = OFF", setup);
        let before = dump(&stage.other());
        let images = apply(&mut stage, script, script);
        let applied = dump(&stage.other());
        for _ in 0..2 {
            stage.undo(&images);
            same(&dump(&stage.other()), &before, script);
            stage.redo(&images);
            same(&dump(&stage.other()), &applied, script);
        }
    }
}

/// Rows that others wrote to a table that a rebuild replaces: its redo copies them, or says that it can't.
#[test]
fn a_redo_of_a_rebuild_loses_no_row_of_others() {
    let setup = "CREATE TABLE p(id INTEGER PRIMARY KEY, name); INSERT INTO p VALUES (1, 'p1'), (2, 'p2'), (3, 'p3');
        CREATE TABLE k(id INTEGER PRIMARY KEY, p REFERENCES p(id) ON DELETE SET NULL); INSERT INTO k VALUES (1, 1)";
    let swap = "DROP TABLE p; ALTER TABLE n RENAME TO p";
    let new = "CREATE TABLE n(id INTEGER PRIMARY KEY, name)";
    let copied = format!("{new}; INSERT INTO n SELECT id, name FROM p; {swap}");
    let with_keys = format!("PRAGMA foreign_keys = ON; {copied}");
    let literal = format!("{new}; INSERT INTO n VALUES (1, 'p1'), (2, 'p2'); {swap}");
    let hop = format!(
        "CREATE TABLE h(id, name); INSERT INTO h SELECT id, name FROM p; {new}; INSERT INTO n SELECT id, name FROM h; {swap}"
    );
    let empty = format!("{new}; {swap}");
    let wrote = "INSERT INTO p VALUES (9, 'theirs')";
    for (script, theirs, is_copied) in [
        (&copied, wrote, true),
        (&copied, "DELETE FROM p WHERE id = 2", true),
        (&with_keys, wrote, false),
        (&with_keys, "DELETE FROM p WHERE id = 2", false),
        (&with_keys, "UPDATE p SET name = 'theirs' WHERE id = 2", false),
        (&literal, wrote, false),
        (&hop, wrote, false),
        (&empty, wrote, false),
    ] {
        let what = format!("{script}; -- theirs: {theirs}");
        let mut stage = live("", setup);
        let images = apply(&mut stage, script, &what);
        let after = dump(&stage.other());
        stage.undo(&images);
        let again = stage.redo(&images);
        same(&dump(&stage.other()), &after, &what);
        stage.undo(&again);
        stage.other().execute_batch(theirs).unwrap();
        let rows = |stage: &mut crate::stage::Stage| list(&stage.other(), "SELECT id || name FROM p ORDER BY id");
        let now = rows(&mut stage);
        match stage.try_redo(&images, OnConflict::Stop) {
            Ok(_) => assert!(is_copied, "{what}"),
            Err(TargetError::Conflicts(conflicts)) => {
                assert!(
                    !is_copied && conflicts.listed.iter().any(|one| one.object.contains('p')),
                    "{what}: {conflicts:?}"
                );
            }
            Err(error) => panic!("{what}: {}", told(&error)),
        }
        assert_eq!(rows(&mut stage), now, "{what}");
    }
}
