//! The counters of AUTOINCREMENT tables through renames, rebuilds and swaps, with rows that others insert meanwhile:
//! a counter never goes back behind what others used, and no row of `sqlite_sequence` stays that belongs to no table.

use backout_model::conflict::OnConflict;
use rusqlite::Connection;

use crate::bed::{apply, live, same};
use crate::stage::{Stage, dump};

const BASE: &str = "
CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
CREATE TABLE other(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
INSERT INTO a(v) VALUES ('one'), ('two'), ('three'); DELETE FROM a WHERE id = 3;
INSERT INTO b(id, v) VALUES (70, 'b');
INSERT INTO other(v) VALUES ('o');
";

/// Each with what others do afterwards, as undone and as redone.
struct Case {
    script: &'static str,
    /// Written to what the script left.
    theirs: &'static str,
    /// The counters that an undo leaves, by name.
    undone: &'static str,
    /// Written to what the undo left.
    then: &'static str,
    redone: &'static str,
    undone_again: &'static str,
}

const CASES: &[Case] = &[
    Case {
        script: "ALTER TABLE a RENAME TO z",
        theirs: "INSERT INTO z(v) VALUES ('x'), ('y')",
        undone: "a=5 b=70 other=1",
        then: "INSERT INTO a(v) VALUES ('w')",
        redone: "b=70 other=1 z=6",
        undone_again: "a=6 b=70 other=1",
    },
    // Used up and deleted again: the number does not come twice.
    Case {
        script: "ALTER TABLE a RENAME TO z",
        theirs: "INSERT INTO z(v) VALUES ('x'); DELETE FROM z WHERE v = 'x'",
        undone: "a=4 b=70 other=1",
        then: "",
        redone: "b=70 other=1 z=4",
        undone_again: "a=4 b=70 other=1",
    },
    Case {
        script: "ALTER TABLE a RENAME TO y; ALTER TABLE y RENAME TO z; INSERT INTO z(v) VALUES ('ours')",
        theirs: "INSERT INTO z(v) VALUES ('x')",
        undone: "a=5 b=70 other=1",
        then: "INSERT INTO a(v) VALUES ('w')",
        redone: "b=70 other=1 z=6",
        undone_again: "a=6 b=70 other=1",
    },
    // The names swap; only one of the tables is used.
    Case {
        script: "ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b",
        theirs: "INSERT INTO b(v) VALUES ('x')",
        undone: "a=4 b=70 other=1",
        then: "INSERT INTO b(v) VALUES ('w')",
        redone: "a=71 b=4 other=1",
        undone_again: "a=4 b=71 other=1",
    },
    Case {
        script: "ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b",
        theirs: "",
        undone: "a=3 b=70 other=1",
        then: "",
        redone: "a=70 b=3 other=1",
        undone_again: "a=3 b=70 other=1",
    },
    Case {
        script: "CREATE TABLE n(id INTEGER PRIMARY KEY AUTOINCREMENT, v, w); INSERT INTO n(id, v) SELECT id, v FROM a;
                 DROP TABLE a; ALTER TABLE n RENAME TO a",
        theirs: "INSERT INTO a(v) VALUES ('x'), ('y'); DELETE FROM a WHERE v = 'y'",
        undone: "a=4 b=70 other=1",
        then: "INSERT INTO a(v) VALUES ('w')",
        redone: "a=5 b=70 other=1",
        undone_again: "a=5 b=70 other=1",
    },
    Case {
        script: "CREATE TABLE n(id INTEGER PRIMARY KEY AUTOINCREMENT, v, w); INSERT INTO n(id, v) SELECT id, v FROM a;
                 DROP TABLE a; ALTER TABLE n RENAME TO a",
        theirs: "",
        undone: "a=3 b=70 other=1",
        then: "",
        redone: "a=2 b=70 other=1",
        undone_again: "a=3 b=70 other=1",
    },
    // The new one counts no longer, or did not before.
    Case {
        script: "CREATE TABLE n(id INTEGER PRIMARY KEY, v); INSERT INTO n SELECT id, v FROM a; DROP TABLE a; ALTER TABLE n RENAME TO a",
        theirs: "INSERT INTO a(v) VALUES ('x'), ('y')",
        undone: "a=4 b=70 other=1",
        then: "INSERT INTO a(v) VALUES ('w')",
        redone: "b=70 other=1",
        undone_again: "a=5 b=70 other=1",
    },
    Case {
        script: "CREATE TABLE n(id INTEGER PRIMARY KEY, v); INSERT INTO n SELECT id, v FROM a; DROP TABLE a; ALTER TABLE n RENAME TO a;
                 CREATE TABLE m(id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO m SELECT id, v FROM a; DROP TABLE a; ALTER TABLE m RENAME TO a",
        theirs: "INSERT INTO a(v) VALUES ('x')",
        undone: "a=3 b=70 other=1",
        then: "",
        redone: "a=3 b=70 other=1",
        undone_again: "a=3 b=70 other=1",
    },
    // A table of others' on the name that became free.
    Case {
        script: "ALTER TABLE a RENAME TO z; DROP TABLE b",
        theirs: "INSERT INTO z(v) VALUES ('x'); INSERT INTO other(v) VALUES ('o')",
        undone: "a=4 b=70 other=2",
        then: "INSERT INTO other(v) VALUES ('o')",
        redone: "other=3 z=4",
        undone_again: "a=4 b=70 other=3",
    },
];

fn counters(conn: &Connection) -> String {
    conn.query_row(
        "SELECT coalesce(group_concat(name || '=' || seq, ' '), '') FROM (SELECT name, seq FROM sqlite_sequence ORDER BY name)",
        [],
        |row| row.get(0),
    )
    .unwrap()
}

#[test]
fn a_counter_goes_with_its_table() {
    for case in CASES {
        let what = format!("{}\n-- theirs\n{}", case.script, case.theirs);
        let mut stage = live("", BASE);
        let before = dump(&stage.other());
        let images = apply(&mut stage, case.script, &what);
        stage.other().execute_batch(case.theirs).unwrap();
        stage.undo(&images);
        assert_eq!(counters(&stage.other()), case.undone, "after the undo: {what}");
        if case.theirs.is_empty() {
            same(&dump(&stage.other()), &before, &what);
        }
        stage.other().execute_batch(case.then).unwrap();
        let again = stage.redo(&images);
        assert_eq!(counters(&stage.other()), case.redone, "after the redo: {what}\n-- then\n{}", case.then);
        stage.undo(&again);
        assert_eq!(
            counters(&stage.other()),
            case.undone_again,
            "after the second undo: {what}\n-- then\n{}",
            case.then
        );
    }
}

fn kept_or_overwritten(script: &str, theirs: &str, manner: OnConflict) -> (Stage, String) {
    let mut stage = live("", BASE);
    let images = apply(&mut stage, script, script);
    stage.other().execute_batch(theirs).unwrap();
    assert!(!stage.conflicts(&images).is_empty(), "{script} {theirs}");
    stage.try_undo(&images, manner).unwrap();
    let found = counters(&stage.other());
    (stage, found)
}

#[test]
fn where_others_have_the_name_the_counter_is_that_of_whoever_has_the_table() {
    let theirs = "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, mine); INSERT INTO a(id) VALUES (900)";
    let (_, found) = kept_or_overwritten("DROP TABLE a", theirs, OnConflict::Keep);
    assert_eq!(found, "a=900 b=70 other=1");
    let (_, found) = kept_or_overwritten("DROP TABLE a", theirs, OnConflict::Overwrite);
    assert_eq!(found, "a=3 b=70 other=1");
    // The table of the deployment stays, and with it its counter.
    let script = "CREATE TABLE n(id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO n(v) VALUES ('ours')";
    let (_, found) = kept_or_overwritten(script, "UPDATE n SET v = 'theirs'", OnConflict::Keep);
    assert_eq!(found, "a=3 b=70 n=1 other=1");
    let script = "ALTER TABLE a RENAME TO z; INSERT INTO z(v) VALUES ('ours')";
    let (_, found) =
        kept_or_overwritten(script, "CREATE TABLE a(mine); INSERT INTO z(v) VALUES ('x')", OnConflict::Keep);
    assert_eq!(found, "b=70 other=1 z=5");
}

#[test]
fn whatever_stands_in_the_table_of_counters_comes_back_to_the_byte() {
    let odd = "INSERT INTO sqlite_sequence VALUES (NULL, 1), (x'00ff', 2), (CAST(x'61ff' AS TEXT), 3), (CAST(x'61fe' AS TEXT), 'many'),
               ('nobody', CAST(x'ff' AS TEXT)), ('nobody', 1.5), ('nobody', NULL), (7, x'07')";
    for script in [
        "DELETE FROM sqlite_sequence",
        "UPDATE sqlite_sequence SET seq = 5, name = 'all'",
        "DELETE FROM sqlite_sequence WHERE typeof(name) <> 'text'; INSERT INTO a(v) VALUES ('x'); ALTER TABLE a RENAME TO nobody",
        "DROP TABLE a; DROP TABLE b; DROP TABLE other",
    ] {
        let mut stage = live("", &format!("{BASE}{odd}"));
        let before = dump(&stage.other());
        let images = apply(&mut stage, script, script);
        let after = dump(&stage.other());
        assert_ne!(before, after, "{script}");
        stage.undo(&images);
        same(&dump(&stage.other()), &before, script);
        let again = stage.redo(&images);
        same(&dump(&stage.other()), &after, script);
        stage.undo(&again);
        same(&dump(&stage.other()), &before, script);
    }
}

/// The rows of `sqlite_sequence` keep their order where they can; what others count takes places, too.
#[test]
fn counters_of_others_are_in_nobodys_way() {
    let setup = "CREATE TABLE a(id INTEGER PRIMARY KEY); CREATE TABLE b(id INTEGER PRIMARY KEY); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1);
        CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO c VALUES (7); DROP TABLE c";
    let script = "CREATE TABLE n(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO n SELECT id FROM a; DROP TABLE a; ALTER TABLE n RENAME TO a;
        CREATE TABLE n(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO n SELECT id FROM b; DROP TABLE b; ALTER TABLE n RENAME TO b";
    let mut stage = live("", setup);
    let images = apply(&mut stage, script, script);
    stage.undo(&images);
    stage
        .other()
        .execute_batch("CREATE TABLE d(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO d VALUES (3)")
        .unwrap();
    let again = stage.redo(&images);
    assert_eq!(counters(&stage.other()), "a=1 b=1 d=3");
    stage.undo(&again);
    assert_eq!(counters(&stage.other()), "d=3");
}
