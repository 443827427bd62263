//! Tables that are altered by making a new one, copying, dropping and renaming: what others write to the new table
//! afterwards is not lost when the old one comes back.

use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::target::TargetError;
use rusqlite::Connection;

use crate::bed::{apply, live, same};
use crate::stage::{Stage, dump};

const BASE: &str = "
CREATE TABLE kind(id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, name varchar(20) NOT NULL UNIQUE, price INT, kind INT REFERENCES kind(id), note TEXT DEFAULT 'n');
CREATE INDEX t_price ON t(price);
CREATE TABLE child(id INTEGER PRIMARY KEY, t INT REFERENCES t(id));
INSERT INTO kind VALUES (1, 'k');
WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 50)
  INSERT INTO t(name, price, kind) SELECT 'n' || i, i * 10, 1 FROM i;
INSERT INTO child SELECT id, id FROM t;
";

/// As Django and SQLite's own documentation do it.
const REBUILD: &str = "
CREATE TABLE \"new__t\" (\"id\" integer NOT NULL PRIMARY KEY AUTOINCREMENT, \"name\" varchar(40) NOT NULL UNIQUE, \"price\" integer NULL, \"kind\" integer NULL REFERENCES \"kind\" (\"id\") DEFERRABLE INITIALLY DEFERRED, \"added\" text DEFAULT 'a');
INSERT INTO \"new__t\" (\"id\", \"name\", \"price\", \"kind\") SELECT \"id\", \"name\", coalesce(\"price\", 0) + (\"id\" = 7), \"kind\" FROM \"t\";
DROP TABLE \"t\";
ALTER TABLE \"new__t\" RENAME TO \"t\";
CREATE INDEX \"t_price\" ON \"t\" (\"price\");
";

/// As older programs do it.
const OTHER_WAY: &str = "
PRAGMA legacy_alter_table = ON;
ALTER TABLE t RENAME TO t_old;
CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, price INT, kind INT, added TEXT DEFAULT 'a');
INSERT INTO t(id, name, price, kind) SELECT id, name, coalesce(price, 0) + (id = 7), kind FROM t_old;
DROP TABLE t_old;
";

fn list(conn: &Connection, sql: &str) -> Vec<String> {
    let mut select = conn.prepare(sql).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn kinds(stage: &mut Stage, images: &crate::stage::Images) -> Vec<(ConflictKind, Option<String>, Option<String>)> {
    let conflicts = stage.conflicts(images);
    conflicts.listed.into_iter().map(|one| (one.kind, one.key, one.column)).collect()
}

#[test]
fn nobody_wrote_and_all_is_as_before() {
    for script in [REBUILD, OTHER_WAY] {
        let mut stage = live("", BASE);
        let before = dump(&stage.other());
        let images = apply(&mut stage, script, script);
        let after = dump(&stage.other());
        stage.undo(&images);
        same(&dump(&stage.other()), &before, script);
        let again = stage.redo(&images);
        same(&dump(&stage.other()), &after, script);
        stage.undo(&again);
        same(&dump(&stage.other()), &before, script);
    }
}

#[test]
fn what_others_wrote_goes_over_to_the_old_table() {
    for script in [REBUILD, OTHER_WAY] {
        let mut stage = live("", BASE);
        let before = dump(&stage.other());
        let images = apply(&mut stage, script, script);
        stage
            .other()
            .execute_batch(
                "UPDATE t SET name = 'theirs' WHERE id = 3; UPDATE t SET price = 1, kind = NULL WHERE id = 4;
                 DELETE FROM t WHERE id = 5; INSERT INTO t(id, name, price) VALUES (100, 'new', 5);
                 UPDATE t SET name = 'seven' WHERE id = 7; INSERT INTO child VALUES (100, 100)",
            )
            .unwrap();
        let report = stage.undo(&images);
        assert!(report.conflicts.is_empty(), "{:?}", report.conflicts);
        let client = stage.other();
        let rows = list(
            &client,
            "SELECT id || ' ' || name || ' ' || price || ' ' || coalesce(kind, '-') || ' ' || note FROM t WHERE id IN (3, 4, 5, 7, 100)",
        );
        assert_eq!(rows, ["3 theirs 30 1 n", "4 n4 1 - n", "7 seven 70 1 n", "100 new 5 - n"]);
        // Without their changes it is what it was: nothing else moved.
        client
            .execute_batch(
                "UPDATE t SET name = 'n3' WHERE id = 3; UPDATE t SET price = 40, kind = 1 WHERE id = 4; DELETE FROM t WHERE id = 100;
                 INSERT INTO t(id, name, price, kind) VALUES (5, 'n5', 50, 1); UPDATE t SET name = 'n7' WHERE id = 7;
                 DELETE FROM child WHERE id = 100; UPDATE sqlite_sequence SET seq = 50",
            )
            .unwrap();
        same(&dump(&client), &before, script);
    }
}

#[test]
fn both_changed_the_same_value() {
    let mut stage = live("", BASE);
    let images = apply(&mut stage, REBUILD, "");
    // The deployment made 71 of 70; the new column has no place in the old table.
    stage
        .other()
        .execute_batch("UPDATE t SET price = 99 WHERE id = 7; UPDATE t SET added = 'x' WHERE id = 8; INSERT INTO t(id, name, added) VALUES (60, 'sixty', 'y')")
        .unwrap();
    let after = dump(&stage.other());
    let found = kinds(&mut stage, &images);
    let key = |id: u32| Some(format!("id={id}"));
    let column = |name: &str| Some(name.to_owned());
    assert_eq!(
        found,
        [
            (ConflictKind::Changed, key(8), column("added")),
            (ConflictKind::Changed, key(7), column("price")),
            (ConflictKind::Changed, key(60), column("added"))
        ]
    );
    same(&dump(&stage.other()), &after, "a conflict changes nothing");
    let mut kept = live("", BASE);
    for (stage, manner, price) in [(&mut stage, OnConflict::Overwrite, 70), (&mut kept, OnConflict::Keep, 99)] {
        let images = if manner == OnConflict::Keep {
            let images = apply(stage, REBUILD, "");
            stage
                .other()
                .execute_batch("UPDATE t SET price = 99 WHERE id = 7; INSERT INTO t(id, name) VALUES (60, 'sixty')")
                .unwrap();
            images
        } else {
            images.clone()
        };
        let report = stage.try_undo(&images, manner).unwrap();
        assert!(!report.conflicts.is_empty());
        let now: i64 = stage.other().query_row("SELECT price FROM t WHERE id = 7", [], |row| row.get(0)).unwrap();
        assert_eq!(now, price, "{manner:?}");
        let sixty: String =
            stage.other().query_row("SELECT name || note FROM t WHERE id = 60", [], |row| row.get(0)).unwrap();
        assert_eq!(sixty, "sixtyn");
    }
}

#[test]
fn twice_rebuilt_in_one_step() {
    let mut stage = live("", BASE);
    let before = dump(&stage.other());
    let second = "CREATE TABLE new__t(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, price REAL, kind INT);
        INSERT INTO new__t SELECT id, name, price, kind FROM t; DROP TABLE t; ALTER TABLE new__t RENAME TO t;
        UPDATE t SET price = price + 0.5 WHERE id < 10;";
    let images = apply(&mut stage, &format!("{REBUILD}{second}"), "");
    stage
        .other()
        .execute_batch("UPDATE t SET name = 'theirs' WHERE id = 3; DELETE FROM t WHERE id = 20; INSERT INTO t(name, price) VALUES ('new', 2)")
        .unwrap();
    let report = stage.undo(&images);
    assert!(report.conflicts.is_empty());
    let client = stage.other();
    assert_eq!(list(&client, "SELECT id || name || price FROM t WHERE id IN (3, 20, 51)"), ["3theirs30", "51new2"]);
    client
        .execute_batch(
            "UPDATE t SET name = 'n3' WHERE id = 3; DELETE FROM t WHERE id = 51; UPDATE sqlite_sequence SET seq = 50;
             INSERT INTO t(id, name, price, kind) VALUES (20, 'n20', 200, 1)",
        )
        .unwrap();
    same(&dump(&client), &before, "");
}

#[test]
fn a_redo_copies_the_rows_of_now() {
    let mut stage = live("", BASE);
    let images = apply(&mut stage, REBUILD, "");
    stage.undo(&images);
    stage
        .other()
        .execute_batch("UPDATE t SET name = 'theirs' WHERE id = 3; INSERT INTO t(id, name) VALUES (70, 'late')")
        .unwrap();
    let before = dump(&stage.other());
    let again = stage.redo(&images);
    let rows = list(&stage.other(), "SELECT id || name || price FROM t WHERE id IN (3, 7, 70)");
    assert_eq!(rows, ["3theirs30", "7n771", "70late0"]);
    stage.undo(&again);
    same(&dump(&stage.other()), &before, "");
}

#[test]
fn without_a_key_what_others_changed_is_a_conflict() {
    let mut stage = live("", "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 2), (3, 4)");
    let script =
        "CREATE TABLE n(a, b, c); INSERT INTO n(a, b) SELECT a, b FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t";
    let images = apply(&mut stage, script, "");
    for theirs in ["DELETE FROM t WHERE a = 1", "UPDATE t SET b = 9 WHERE a = 3"] {
        stage.other().execute_batch(theirs).unwrap();
        assert!(!kinds(&mut stage, &images).is_empty(), "{theirs}");
        let before = list(&stage.other(), "SELECT a || b FROM t");
        let kept = stage.try_undo(&images, OnConflict::Keep).unwrap();
        assert!(!kept.conflicts.is_empty(), "{theirs}");
        assert_eq!(list(&stage.other(), "SELECT a || b FROM t"), before, "{theirs}");
        stage = live("", "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 2), (3, 4)");
        apply(&mut stage, script, "");
    }
}

/// A table with so many rows that it is held, and one with so few that they are deleted before it goes.
fn sized(rows: u32) -> String {
    format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, price INT); CREATE TABLE log(what);
         WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < {rows})
           INSERT INTO t SELECT i, 'n' || i, i FROM i;"
    )
}

const THEIRS: [&str; 3] = [
    "UPDATE t SET name = 'theirs' WHERE id = 3",
    "INSERT INTO t VALUES (9000, 'late', 1)",
    "DELETE FROM t WHERE id = 5",
];

/// What cannot simply run once more: it would have another result, or change more than the new table.
#[test]
fn a_redo_of_a_copy_that_cannot_run_again_does_not_lose_what_others_wrote() {
    const SWAP: &str = "; DROP TABLE t; ALTER TABLE n RENAME TO t";
    for script in [
        format!("CREATE TABLE n(id INTEGER PRIMARY KEY, name, price, r); INSERT INTO n SELECT id, name, price, random() FROM t{SWAP}"),
        format!("CREATE TABLE n AS SELECT * FROM t{SWAP}"),
        format!("CREATE TABLE n(id INTEGER PRIMARY KEY, name, price); INSERT INTO n SELECT * FROM t; INSERT INTO log VALUES ('copied'){SWAP}"),
        format!("CREATE TABLE n(id INTEGER PRIMARY KEY, name, price); CREATE TRIGGER r AFTER INSERT ON n BEGIN INSERT INTO log VALUES (new.id); END; INSERT INTO n SELECT * FROM t{SWAP}"),
        format!("CREATE TABLE n(id INTEGER PRIMARY KEY, name, price); CREATE TRIGGER r AFTER INSERT ON n BEGIN UPDATE n SET price = 0 WHERE id = new.id; END; INSERT INTO n SELECT * FROM t{SWAP}"),
        "ALTER TABLE t RENAME TO old; CREATE TABLE t(id INTEGER PRIMARY KEY, name, price, r); INSERT INTO t SELECT id, name, price, random() FROM old; DROP TABLE old".to_owned(),
    ] {
        for (rows, theirs) in [20, 900].into_iter().flat_map(|rows| THEIRS.map(|theirs| (rows, theirs))) {
            let what = format!("{rows} {script}\n-- theirs\n{theirs}");
            let mut stage = live("", &sized(rows));
            let images = apply(&mut stage, &script, &what);
            let after = dump(&stage.other());
            stage.undo(&images);
            // Nobody wrote: the very same result, whatever would come out of the statement now.
            let again = stage.redo(&images);
            same(&dump(&stage.other()), &after, &what);
            stage.undo(&again);
            stage.other().execute_batch(theirs).unwrap();
            let now = dump(&stage.other());
            for images in [&images, &again] {
                match stage.try_redo(images, OnConflict::Stop) {
                    Err(TargetError::Conflicts(conflicts)) => {
                        let found: Vec<_> =
                            conflicts.listed.iter().map(|one| (one.kind, one.object.as_str())).collect();
                        assert_eq!(found, [(ConflictKind::Changed, "table t")], "{what}");
                    }
                    other => panic!("no conflict: {what}: {:?}", other.map(drop)),
                }
                same(&dump(&stage.other()), &now, &what);
            }
            let (kept, report) = stage.try_redo(&again, OnConflict::Keep).unwrap();
            assert!(!report.conflicts.is_empty(), "{what}");
            let client = stage.other();
            let rows = |conn: &Connection| list(conn, "SELECT id || name || price FROM t ORDER BY 1");
            let theirs_now = rows(&client);
            stage.try_undo(&kept, OnConflict::Keep).unwrap();
            assert_eq!(rows(&client), theirs_now, "{what}");
            let before: Vec<String> = now.iter().filter(|line| line.starts_with("t: ")).cloned().collect();
            let after: Vec<String> = dump(&client).into_iter().filter(|line| line.starts_with("t: ")).collect();
            same(&after, &before, &what);
        }
    }
}

#[test]
fn a_redo_runs_all_statements_on_the_new_table_again() {
    for copy in [
        "INSERT INTO n SELECT * FROM t; UPDATE n SET price = price + 1 WHERE id < 10; DELETE FROM n WHERE id = 7",
        "INSERT OR IGNORE INTO main.n SELECT * FROM t; UPDATE OR REPLACE n SET price = price + 1 WHERE id < 10; DELETE FROM \"n\" WHERE id = 7",
        "INSERT INTO n SELECT * FROM t WHERE id > 100000; INSERT INTO n SELECT * FROM t WHERE id <> 7; UPDATE n SET price = price + 1 WHERE id < 10",
    ] {
        let script = format!(
            "CREATE TABLE n(id INTEGER PRIMARY KEY, name UNIQUE, price INT CHECK (price < 1000)); {copy}; DROP TABLE t; ALTER TABLE n RENAME TO t"
        );
        let mut stage = live("", &sized(20));
        let images = apply(&mut stage, &script, &script);
        let after = dump(&stage.other());
        stage.undo(&images);
        let again = stage.redo(&images);
        same(&dump(&stage.other()), &after, &script);
        stage.undo(&again);
        stage
            .other()
            .execute_batch("UPDATE t SET name = 'theirs' WHERE id = 3; INSERT INTO t VALUES (9000, 'late', 1); DELETE FROM t WHERE id = 5")
            .unwrap();
        let before = dump(&stage.other());
        let again = stage.redo(&again);
        let rows = list(&stage.other(), "SELECT id || name || price FROM t WHERE id IN (3, 4, 5, 7, 9000) ORDER BY id");
        assert_eq!(rows, ["3theirs4", "4n45", "9000late1"], "{script}");
        stage.undo(&again);
        same(&dump(&stage.other()), &before, &script);
        // A row of theirs that the new table does not admit.
        for theirs in [
            "INSERT INTO t VALUES (9001, 'late', 1)",
            "DELETE FROM t WHERE id = 9001; INSERT INTO t VALUES (9001, 'dear', 5000)",
        ] {
            if copy.contains("IGNORE") {
                continue;
            }
            stage.other().execute_batch(theirs).unwrap();
            let before = dump(&stage.other());
            match stage.try_redo(&again, OnConflict::Stop) {
                Err(TargetError::Conflicts(conflicts)) => {
                    assert!(conflicts.listed.iter().any(|one| one.kind == ConflictKind::Constraint), "{conflicts:?}");
                }
                other => panic!("no conflict: {script}: {:?}", other.map(drop)),
            }
            same(&dump(&stage.other()), &before, &script);
            stage.try_redo(&again, OnConflict::Keep).unwrap();
            let before: Vec<String> = before.into_iter().filter(|line| line.starts_with("t: ")).collect();
            let after: Vec<String> = dump(&stage.other()).into_iter().filter(|line| line.starts_with("t: ")).collect();
            same(&after, &before, &script);
        }
    }
}

/// A statement that found nothing to do in another table does not run again on what others put there.
#[test]
fn a_redo_runs_nothing_again_on_other_tables() {
    let script = "CREATE TABLE n(id INTEGER PRIMARY KEY, name, price); INSERT INTO n SELECT * FROM t;
        INSERT INTO log SELECT what || '!' FROM log; UPDATE log SET what = 'seen'; DROP TABLE t; ALTER TABLE n RENAME TO t";
    let mut stage = live("", &sized(20));
    let images = apply(&mut stage, script, script);
    stage.undo(&images);
    stage.other().execute_batch("INSERT INTO log VALUES ('theirs')").unwrap();
    stage.redo(&images);
    assert_eq!(list(&stage.other(), "SELECT what FROM log"), ["theirs"]);
}

/// Each is in the other's way until both have moved.
#[test]
fn unique_values_that_others_moved_round_are_carried_over() {
    let tables = [
        "(k TEXT PRIMARY KEY, u REAL UNIQUE, v)",
        "(k TEXT PRIMARY KEY, u REAL UNIQUE, v) WITHOUT ROWID",
        "(k INTEGER PRIMARY KEY, u UNIQUE, v, g AS (u + 1) UNIQUE)",
        "(rowid, k, u UNIQUE, v CHECK (v <> 'z'), oid, PRIMARY KEY (k))",
    ];
    for table in tables {
        for on_conflict in [OnConflict::Stop, OnConflict::Keep, OnConflict::Overwrite] {
            let what = format!("{table} {on_conflict:?}");
            let rows =
                "INSERT INTO t (k, u, v) VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c'), (4, 40, 'd'), (5, NULL, 'e')";
            let mut stage = live("", &format!("CREATE TABLE t {table}; {rows}"));
            let script = format!(
                "CREATE TABLE n {table}; INSERT INTO n (k, u, v) SELECT k, u, v FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t"
            );
            let images = apply(&mut stage, &script, &what);
            let theirs = "UPDATE t SET u = 0 WHERE k = 1; UPDATE t SET u = 10, v = 'B' WHERE k = 2; UPDATE t SET u = 20 WHERE k = 3;
                UPDATE t SET u = 30 WHERE k = 1; UPDATE t SET u = 41 WHERE k = 4; UPDATE t SET u = 40 WHERE k = 5;
                INSERT INTO t (k, u, v) VALUES (6, 60, 'f')";
            stage.other().execute_batch(theirs).unwrap();
            let all = "SELECT k || ' ' || u || ' ' || v FROM t ORDER BY k";
            let before = list(&stage.other(), all);
            let report = stage.try_undo(&images, on_conflict).unwrap();
            assert!(report.conflicts.is_empty(), "{what}: {:?}", report.conflicts);
            assert_eq!(list(&stage.other(), all), before, "{what}");
        }
    }
}

/// What moved, and is forbidden in the old table besides, is told for the one value; the others come over.
#[test]
fn a_value_that_moved_and_is_forbidden_is_a_conflict_of_its_own() {
    let mut stage = live(
        "",
        "CREATE TABLE t (k INTEGER PRIMARY KEY, u UNIQUE, v CHECK (v < 100)); INSERT INTO t VALUES (1, 10, 1), (2, 20, 2), (3, 30, 3)",
    );
    let script = "CREATE TABLE n (k INTEGER PRIMARY KEY, u UNIQUE, v); INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t";
    let images = apply(&mut stage, script, script);
    let theirs =
        "UPDATE t SET u = 0 WHERE k = 1; UPDATE t SET u = 10 WHERE k = 2; UPDATE t SET u = 20, v = 500 WHERE k = 1";
    stage.other().execute_batch(theirs).unwrap();
    match stage.try_undo(&images, OnConflict::Stop) {
        Err(TargetError::Conflicts(found)) => {
            let told: Vec<_> = found.listed.iter().map(|one| (one.kind, one.column.as_deref())).collect();
            assert_eq!(told, [(ConflictKind::Constraint, Some("v"))], "{found:?}");
            assert!(found.listed[0].now.starts_with("500, and CHECK"), "{found:?}");
        }
        other => panic!(
            "no conflict: {other:?} {:?}",
            list(&stage.other(), "SELECT k || ' ' || u || ' ' || v FROM t ORDER BY k")
        ),
    }
    stage.try_undo(&images, OnConflict::Overwrite).unwrap();
    assert_eq!(
        list(&stage.other(), "SELECT k || ' ' || u || ' ' || v FROM t ORDER BY k"),
        ["1 20 1", "2 10 2", "3 30 3"]
    );
}

/// Where a newer value is forbidden, an older one may be taken by now: then older ones stay of all that are in each
/// other's way, and there is a way out in every manner.
#[test]
fn a_value_that_is_forbidden_and_whose_place_is_taken() {
    let cases = [
        ("id INTEGER PRIMARY KEY, u TEXT NOT NULL UNIQUE, v", "id INTEGER PRIMARY KEY, u TEXT UNIQUE, v", "NULL"),
        (
            "id INTEGER PRIMARY KEY, u TEXT UNIQUE CHECK (length(u) < 3), v",
            "id INTEGER PRIMARY KEY, u TEXT UNIQUE, v",
            "'long'",
        ),
        ("id INT PRIMARY KEY, u TEXT NOT NULL UNIQUE, v", "id INT PRIMARY KEY, u TEXT UNIQUE, v", "NULL"),
    ];
    for (old, new, forbidden) in cases {
        for on_conflict in [OnConflict::Stop, OnConflict::Keep, OnConflict::Overwrite] {
            let what = format!("{old} {on_conflict:?}");
            let rows = "INSERT INTO t VALUES (1, 'a', CAST(x'ff41' AS TEXT)), (2, 'b', 1), (3, 'c', 1), (4, 'd', 1)";
            let mut stage = live("", &format!("CREATE TABLE t ({old}); {rows}"));
            let script = format!(
                "CREATE TABLE n ({new}); INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t"
            );
            let images = apply(&mut stage, &script, &what);
            let theirs = format!(
                "UPDATE t SET u = {forbidden}, v = 'mine' WHERE id = 2; UPDATE t SET u = 'b' WHERE id = 1;
                 UPDATE t SET u = 'x' WHERE id = 3; UPDATE t SET u = 'c' WHERE id = 4; UPDATE t SET u = 'd' WHERE id = 3"
            );
            stage.other().execute_batch(&theirs).unwrap();
            let before = dump(&stage.other());
            let rows =
                |stage: &Stage| list(&stage.other(), "SELECT id || coalesce(u, 'NULL') || hex(v) FROM t ORDER BY id");
            match (on_conflict, stage.try_undo(&images, on_conflict)) {
                (OnConflict::Stop, Err(TargetError::Conflicts(found))) => {
                    assert!(found.listed.iter().any(|one| one.column.as_deref() == Some("u")), "{what}: {found:?}");
                    same(&dump(&stage.other()), &before, &what);
                }
                (OnConflict::Keep, Ok(report)) => {
                    assert!(!report.conflicts.is_empty(), "{what}");
                    let kept: Vec<String> = before.into_iter().filter(|line| line.starts_with("t: ")).collect();
                    let now: Vec<String> =
                        dump(&stage.other()).into_iter().filter(|line| line.starts_with("t: ")).collect();
                    same(&now, &kept, &what);
                }
                (OnConflict::Overwrite, Ok(report)) => {
                    let told: Vec<_> = report.conflicts.listed.iter().map(|one| one.key.clone().unwrap()).collect();
                    assert_eq!(told, ["id=2", "id=1"], "{what}: {:?}", report.conflicts);
                    assert_eq!(rows(&stage), ["1aFF41", "2b6D696E65", "3d31", "4c31"], "{what}");
                }
                (_, other) => panic!("{what}: {other:?}"),
            }
        }
    }
}

/// SQLite lets several rows have NULL for a key: which is which nobody can say.
#[test]
fn rows_without_a_key_are_not_carried_over_by_it() {
    for key in ["k TEXT PRIMARY KEY, u TEXT", "k INT, u TEXT, PRIMARY KEY (k, u)"] {
        for theirs in [
            "DELETE FROM t WHERE u = 'b'",
            "UPDATE t SET u = 'mine' WHERE u = 'a'",
            "INSERT INTO t VALUES (NULL, 'new', 1), (NULL, 'new2', 1)",
        ] {
            let what = format!("{key}: {theirs}");
            let rows = "INSERT INTO t VALUES (NULL, 'a'), (NULL, 'b'), ('x', 'c')";
            let mut stage = live("", &format!("CREATE TABLE t ({key}); {rows}"));
            let new = key.replace("PRIMARY KEY (", "w INT, PRIMARY KEY (");
            let new = if new == key { format!("{key}, w INT") } else { new };
            let script = format!(
                "CREATE TABLE n ({new}); INSERT INTO n SELECT k, u, NULL FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t"
            );
            let images = apply(&mut stage, &script, &what);
            stage.other().execute_batch(theirs).unwrap();
            let before = dump(&stage.other());
            match stage.try_undo(&images, OnConflict::Stop) {
                Err(TargetError::Conflicts(_)) => same(&dump(&stage.other()), &before, &what),
                other => panic!("{what}: {other:?}"),
            }
        }
    }
}

/// The old column makes a number of a text that others wrote since: what cannot be told from that number is a conflict.
#[test]
fn a_value_that_the_old_column_would_take_for_another_is_a_conflict() {
    let base = "CREATE TABLE p(id INTEGER PRIMARY KEY, zip INT, r REAL); INSERT INTO p VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3);";
    let rebuild = "CREATE TABLE q(id INTEGER PRIMARY KEY, zip TEXT, r); INSERT INTO q SELECT * FROM p;
                   DROP TABLE p; ALTER TABLE q RENAME TO p;";
    for (others, lost) in [
        ("UPDATE p SET zip = '007' WHERE id = 1", Some("zip")),
        ("UPDATE p SET zip = ' 7' WHERE id = 1", Some("zip")),
        ("UPDATE p SET r = 9007199254740993 WHERE id = 1", Some("r")),
        ("INSERT INTO p VALUES (9, '1e2', 1.5)", Some("zip")),
        ("UPDATE p SET r = 8 WHERE id = 1", Some("r")),
        ("UPDATE p SET zip = '-7', r = 8.0 WHERE id = 1", None),
        ("UPDATE p SET zip = 'seven' WHERE id = 1", None),
        ("INSERT INTO p VALUES (9, '12', 12.5)", None),
        ("INSERT INTO p VALUES (9, 'D-7', NULL)", None),
    ] {
        let mut stage = live("", base);
        let before = dump(&stage.other());
        let images = apply(&mut stage, rebuild, others);
        stage.other().execute_batch(others).unwrap();
        let written = dump(&stage.other());
        let Some(lost) = lost else {
            stage.undo(&images);
            stage
                .other()
                .execute_batch("UPDATE p SET zip = 1, r = 1 WHERE id = 1; DELETE FROM p WHERE id = 9")
                .unwrap();
            same(&dump(&stage.other()), &before, others);
            continue;
        };
        let found = kinds(&mut stage, &images);
        let columns: Vec<&str> = found.iter().filter_map(|(_, _, column)| column.as_deref()).collect();
        assert_eq!(columns, [lost], "{others}: {found:?}");
        same(&dump(&stage.other()), &written, "a look changes nothing");
        let report = stage.try_undo(&images, OnConflict::Keep).unwrap();
        assert_eq!(report.conflicts.total, 1, "{others}");
        same(&dump(&stage.other()), &written, others);
    }
}
