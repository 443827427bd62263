//! What others changed since: merged by column where it can be, else a conflict with a way out of each kind.

use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::target::{Target, TargetError};
use backout_sql::database::{Database, Holder};
use backout_testkit::postgres::Server;

use crate::postgres::rows::PLAIN;
use crate::postgres::stage::Stage;
use crate::rows::boxed;
use crate::stage::told;

#[test]
fn columns_of_others_keep_their_values() {
    let mut stage = Stage::new(PLAIN);
    let images = stage.apply("UPDATE t SET a = 'ours' WHERE id IN (1, 2); INSERT INTO t VALUES (8, 1, 1, 1);");
    stage.others("UPDATE t SET b = 'theirs' WHERE id = 1; INSERT INTO t VALUES (9, 9, 9, 9)");
    let report = stage.undo(&images);
    assert!(report.conflicts.is_empty());
    assert_eq!(stage.ask("SELECT a || b FROM t WHERE id = 1"), "1theirs");
    assert_eq!(stage.ask("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t"), "-5 1 2 3 4 9");
}

struct Case {
    change: &'static str,
    others: &'static str,
    kind: ConflictKind,
    key: &'static str,
    keep: &'static str,
    overwrite: &'static str,
}

const CASES: &[Case] = &[
    Case {
        change: "UPDATE t SET a = 'ours' WHERE id = 1;",
        others: "UPDATE t SET a = 'theirs', b = 'b' WHERE id = 1",
        kind: ConflictKind::Changed,
        key: "id=1",
        keep: "SELECT a = 'theirs' AND b = 'b' FROM t WHERE id = 1",
        overwrite: "SELECT a = '1' AND b = 'b' FROM t WHERE id = 1",
    },
    Case {
        change: "UPDATE t SET a = 'ours', c = 9 WHERE id = 1;",
        others: "UPDATE t SET a = 'theirs' WHERE id = 1",
        kind: ConflictKind::Changed,
        key: "id=1",
        keep: "SELECT a = 'theirs' AND c = 1 FROM t WHERE id = 1",
        overwrite: "SELECT a = '1' AND c = 1 FROM t WHERE id = 1",
    },
    Case {
        change: "UPDATE t SET a = 'ours' WHERE id = 1;",
        others: "DELETE FROM t WHERE id = 1",
        kind: ConflictKind::Missing,
        key: "id=1",
        keep: "SELECT count(*) = 0 FROM t WHERE id = 1",
        overwrite: "SELECT a = '1' AND b = 'one' FROM t WHERE id = 1",
    },
    Case {
        change: "INSERT INTO t VALUES (7, 'ours', 'x', 1);",
        others: "UPDATE t SET b = 'theirs' WHERE id = 7",
        kind: ConflictKind::Changed,
        key: "id=7",
        keep: "SELECT b = 'theirs' FROM t WHERE id = 7",
        overwrite: "SELECT count(*) = 0 FROM t WHERE id = 7",
    },
    Case {
        change: "DELETE FROM t WHERE id = 3;",
        others: "INSERT INTO t VALUES (3, 'theirs', 'y', 2)",
        kind: ConflictKind::Appeared,
        key: "id=3",
        keep: "SELECT a = 'theirs' FROM t WHERE id = 3",
        overwrite: "SELECT a = E'\\\\tab\\t\\n' AND b = 'thr''ee' FROM t WHERE id = 3",
    },
    Case {
        change: "DELETE FROM u WHERE id = 1;",
        others: "INSERT INTO u VALUES (2, 'k')",
        kind: ConflictKind::Constraint,
        key: "id=1",
        keep: "SELECT count(*) = 1 FROM u WHERE id = 2",
        overwrite: "SELECT count(*) = 1 AND min(id) = 1 FROM u",
    },
    Case {
        change: "UPDATE u SET k = 'ours' WHERE id = 1;",
        others: "INSERT INTO u VALUES (2, 'k')",
        kind: ConflictKind::Constraint,
        key: "id=1",
        keep: "SELECT k = 'ours' FROM u WHERE id = 1",
        overwrite: "SELECT count(*) = 1 AND min(k) = 'k' FROM u",
    },
    Case {
        change: "UPDATE t SET a = 2 WHERE id = 1; UPDATE t SET a = 3 WHERE id = 1;",
        others: "UPDATE t SET a = 2 WHERE id = 1",
        kind: ConflictKind::Changed,
        key: "id=1",
        keep: "SELECT a = '2' FROM t WHERE id = 1",
        overwrite: "SELECT a = '1' FROM t WHERE id = 1",
    },
    Case {
        change: "INSERT INTO p VALUES (5);",
        others: "INSERT INTO c VALUES (10, 5)",
        kind: ConflictKind::ForeignKey,
        key: "id=10",
        keep: "SELECT count(*) = 3 FROM p JOIN c ON c.p = p.id",
        overwrite: "SELECT count(*) = 3 FROM p JOIN c ON c.p = p.id",
    },
    Case {
        change: "DELETE FROM c; INSERT INTO c VALUES (20, 1);",
        others: "DELETE FROM c; DELETE FROM p WHERE id = 2",
        kind: ConflictKind::ForeignKey,
        key: "id=2",
        keep: "SELECT count(*) = 1 AND min(id) = 1 FROM c",
        overwrite: "SELECT count(*) = 1 AND min(id) = 1 FROM c",
    },
    Case {
        change: "UPDATE w SET v = 'ours' WHERE k = 'a';",
        others: "UPDATE w SET v = 'theirs' WHERE k = 'a'",
        kind: ConflictKind::Changed,
        key: "k='a'",
        keep: "SELECT v = 'theirs' FROM w WHERE k = 'a'",
        overwrite: "SELECT v IS NULL FROM w WHERE k = 'a'",
    },
    Case {
        change: "UPDATE l SET b = 'ours' WHERE a = 2;",
        others: "UPDATE l SET b = 'theirs' WHERE a = 2",
        kind: ConflictKind::Missing,
        key: "(a=2, b='ours')",
        keep: "SELECT string_agg(a || b, ' ' ORDER BY a) = '1x 2theirs 3z' FROM l",
        overwrite: "SELECT count(*) = 1 FROM l WHERE a = 2 AND b = 'y'",
    },
];

#[test]
fn each_kind_of_conflict_and_each_way_out() {
    let setup = format!(
        "{PLAIN} CREATE TABLE u (id integer PRIMARY KEY, k text UNIQUE); INSERT INTO u VALUES (1, 'k');
         CREATE TABLE p (id integer PRIMARY KEY); INSERT INTO p VALUES (1), (2);
         CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p); INSERT INTO c VALUES (1, 1), (2, 2);
         CREATE TABLE w (k text PRIMARY KEY, v text); INSERT INTO w VALUES ('a', NULL);
         CREATE TABLE l (a int, b text); INSERT INTO l VALUES (1, 'x'), (2, 'y'), (3, 'z');"
    );
    for case in CASES {
        for on_conflict in [OnConflict::Stop, OnConflict::Keep, OnConflict::Overwrite] {
            let mut stage = Stage::new(&setup);
            let images = stage.apply(case.change);
            stage.others(case.others);
            let then = stage.dump();
            let check = stage
                .database
                .check_undo(&mut std::iter::once(boxed(&images)), on_conflict)
                .unwrap_or_else(|error| panic!("{}: {}", case.change, told(&error)));
            assert_eq!(stage.dump(), then, "check_undo changed something");
            assert!(!check.conflicts.is_empty(), "{} {}", case.change, case.others);
            assert_eq!(check.conflicts.listed[0].kind, case.kind, "{} {}", case.change, case.others);
            if on_conflict == OnConflict::Stop {
                let conflicts = stage.conflicts(&images);
                assert_eq!(conflicts.listed.len(), 1, "{conflicts:?}");
                assert_eq!(conflicts.listed[0].key.as_deref(), Some(case.key));
                assert_eq!(stage.dump(), then, "a conflict must change nothing");
                continue;
            }
            let report = stage.try_undo(&images, on_conflict).unwrap_or_else(|error| panic!("{}", told(&error)));
            assert_eq!(report.conflicts.total, 1, "{:?}", report.conflicts);
            let ask = if on_conflict == OnConflict::Keep { case.keep } else { case.overwrite };
            assert_eq!(stage.ask(ask), "t", "{on_conflict:?} of {}: {ask}: {:#?}", case.change, stage.dump());
        }
    }
}

#[test]
fn what_others_made_as_undo_would_is_no_conflict() {
    let mut stage = Stage::new(PLAIN);
    let before = stage.dump();
    for (change, others) in [
        ("UPDATE t SET a = 2 WHERE id = 1;", "UPDATE t SET a = 1 WHERE id = 1"),
        ("DELETE FROM t WHERE id = 2;", "INSERT INTO t VALUES (2, NULL, '', 2.5)"),
        ("INSERT INTO t VALUES (7, 1, 1, 1);", "DELETE FROM t WHERE id = 7"),
    ] {
        let images = stage.apply(change);
        stage.others(others);
        assert!(stage.undo(&images).conflicts.is_empty());
        assert_eq!(stage.dump(), before);
    }
}

#[test]
fn equal_is_not_the_same() {
    const NOCASE: &str = "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    let has_icu = Server::shared().database().connect().batch_execute(NOCASE).is_ok();
    if !has_icu {
        eprintln!("this server was built without ICU: no text is equal to another one in it");
    }
    let (made, nocase) = if has_icu { (NOCASE, "COLLATE nocase") } else { ("SELECT 1", "") };
    let mut stage = Stage::new(&format!(
        "{made};
         CREATE TABLE t (id int PRIMARY KEY, n numeric, f float8, j json, b jsonb, c text {nocase});
         INSERT INTO t VALUES (1, 1, 1, '1', '1', 'o');"
    ));
    for (change, others) in [
        ("UPDATE t SET n = 1.5;", "UPDATE t SET n = 1.50"),
        ("UPDATE t SET f = 0;", "UPDATE t SET f = '-0'"),
        ("UPDATE t SET j = '{}';", "UPDATE t SET j = '{ }'"),
        ("UPDATE t SET b = '1.5';", "UPDATE t SET b = '1.50'"),
        ("UPDATE t SET c = 'x';", "UPDATE t SET c = 'X'"),
    ] {
        let images = stage.apply(change);
        stage.others(others);
        assert_eq!(stage.conflicts(&images).total, 1, "{others}");
        stage.try_undo(&images, OnConflict::Overwrite).unwrap();
    }
    // And what is the same stays so, whatever its bytes.
    let mut stage = Stage::new("CREATE TABLE t (id int PRIMARY KEY, a int[]); INSERT INTO t VALUES (1, '{1}');");
    let images = stage.apply("UPDATE t SET a = '{1,NULL,2}';");
    stage.others("UPDATE t SET a = '{1,NULL,2,3}'; UPDATE t SET a = a[1:3]");
    stage.undo(&images);
}

#[test]
fn a_unique_value_that_moves_round_goes_back_around_a_conflict() {
    let mut stage = Stage::new(
        "CREATE TABLE t (id int PRIMARY KEY, u text UNIQUE, n int); INSERT INTO t VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 0);",
    );
    let images = stage.apply(
        "UPDATE t SET u = 'x' WHERE id = 1; UPDATE t SET u = 'a' WHERE id = 2; UPDATE t SET u = 'b' WHERE id = 3;
         UPDATE t SET u = 'c' WHERE id = 1; UPDATE t SET n = 1;",
    );
    stage.others("UPDATE t SET n = 9 WHERE id = 2");
    assert_eq!(stage.conflicts(&images).total, 1);
    stage.try_undo(&images, OnConflict::Keep).unwrap();
    assert_eq!(stage.ask("SELECT string_agg(id || u || n, ' ' ORDER BY id) FROM t"), "1a0 2b9 3c0");
}

#[test]
fn overwriting_keeps_what_it_destroys() {
    let mut stage = Stage::new(PLAIN);
    let images = stage.apply("UPDATE t SET a = 'ours' WHERE id = 1;");
    stage.others("UPDATE t SET a = 'precious' WHERE id = 1");
    let mut gate = stage.gate();
    let manner = backout_model::target::Manner { on_conflict: OnConflict::Overwrite, in_doubt: false };
    stage.database.undo(&mut std::io::Cursor::new(&images), manner, &mut gate).unwrap();
    let kept = gate.written();
    stage.undo(&kept);
    assert_eq!(stage.ask("SELECT a FROM t WHERE id = 1"), "precious");
}

#[test]
fn a_table_that_others_took_away_or_changed_is_a_conflict() {
    for others in ["DROP TABLE t", "ALTER TABLE t DROP COLUMN a", "ALTER TABLE t RENAME TO s"] {
        let mut stage = Stage::new(PLAIN);
        let images = stage.apply("UPDATE t SET a = 'ours';");
        stage.others(others);
        let conflicts = stage.conflicts(&images);
        assert_eq!((conflicts.total, conflicts.listed[0].kind), (1, ConflictKind::Definition), "{others}");
    }
    let mut stage = Stage::new(PLAIN);
    let images = stage.apply("UPDATE t SET a = 'ours'; DELETE FROM t WHERE id = 2;");
    stage.others("ALTER TABLE t ADD COLUMN extra text DEFAULT 'e'");
    stage.undo(&images);
}

#[test]
fn several_steps_are_checked_as_one() {
    let mut stage = Stage::new(PLAIN);
    let before = stage.dump();
    let first = stage.apply("UPDATE t SET a = 'first' WHERE id = 1;");
    let second = stage.apply("UPDATE t SET a = 'second' WHERE id = 1;");
    let after = stage.dump();
    let report = stage.database.check_undo(&mut [boxed(&second), boxed(&first)].into_iter(), OnConflict::Stop).unwrap();
    assert!(report.conflicts.is_empty());
    let alone = stage.database.check_undo(&mut std::iter::once(boxed(&first)), OnConflict::Stop).unwrap();
    assert_eq!(alone.conflicts.total, 1);
    assert_eq!(stage.dump(), after);
    stage.undo(&second);
    stage.undo(&first);
    assert_eq!(stage.dump(), before);
}

#[test]
fn who_lost_the_lock_cannot_commit() {
    let mut stage = Stage::new(PLAIN);
    let images = stage.apply("UPDATE t SET a = 2");
    let applied = stage.dump();
    let holder = stage.database.holder().unwrap().unwrap();
    let mut second = crate::postgres::stage::open(&stage.live.url());
    let other = Holder { purpose: "another".to_owned(), ..holder.clone() };
    assert!(!second.break_lock(&other).unwrap(), "only from the one that was named");
    assert!(second.break_lock(&holder).unwrap());
    assert!(matches!(stage.try_apply("DELETE FROM t"), Err(TargetError::LockLost(_))));
    assert!(matches!(stage.try_undo(&images, OnConflict::Stop), Err(TargetError::LockLost(_))));
    assert_eq!(stage.dump(), applied);
}

/// Foreign keys that point at a row lock it like this, for as long as their transaction lasts.
#[test]
fn locks_of_foreign_keys_do_not_hold_an_undo_up() {
    let mut stage = Stage::new(PLAIN);
    let images = stage.apply("UPDATE t SET a = 'ours';");
    stage.others("UPDATE t SET a = 'theirs' WHERE id = 1");
    let mut holder = stage.other();
    holder.batch_execute("BEGIN; SELECT FROM t FOR KEY SHARE").unwrap();
    let report = stage.try_undo(&images, OnConflict::Keep).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(report.conflicts.total, 1);
    assert_eq!(stage.ask("SELECT a FROM t WHERE id = 1"), "theirs");
    holder.batch_execute("COMMIT").unwrap();
}

#[test]
fn a_column_cannot_come_back_where_its_rows_are_not_known_again() {
    for since in ["ALTER TABLE loose DROP COLUMN c", "DROP TABLE loose"] {
        let mut stage =
            Stage::new("CREATE TABLE loose (a int, b text, c text); INSERT INTO loose VALUES (1, 'b', 'c')");
        let images = stage.apply("ALTER TABLE loose DROP COLUMN b;");
        stage.others(since);
        let before = stage.dump();
        let conflicts = stage.conflicts(&images);
        assert!(conflicts.total > 0, "{since}: {conflicts:?}");
        assert_eq!(stage.dump(), before);
    }
}

const REBUILD: &str = "CREATE TABLE t_new (id int PRIMARY KEY, a text, n int DEFAULT 1);
    INSERT INTO t_new (id, a) SELECT id, a FROM t; DROP TABLE t; ALTER TABLE t_new RENAME TO t;";

/// The old table would bring back what others deleted from the new one.
#[test]
fn a_row_that_others_deleted_from_a_table_built_anew_is_a_conflict() {
    let mut stage = Stage::new("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    let images = stage.apply(REBUILD);
    stage.others("DELETE FROM t WHERE id = 2");
    let conflicts = stage.conflicts(&images);
    assert_eq!((conflicts.total, conflicts.listed[0].kind), (1, ConflictKind::Missing), "{conflicts:?}");
    stage.others("INSERT INTO t VALUES (2, 'b')");
    stage.undo(&images);
}

/// The rows of the new table come back from images: what others wrote to the old one meanwhile would be gone.
#[test]
fn a_table_that_others_wrote_to_is_not_built_anew_from_old_rows() {
    for others in
        ["UPDATE t SET a = 'theirs' WHERE id = 1", "DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (3, 'c')"]
    {
        let mut stage =
            Stage::new("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'a'), (2, 'b')");
        let images = stage.apply(REBUILD);
        let applied = stage.dump();
        stage.undo(&images);
        let images = stage.redo(&images);
        assert_eq!(stage.dump(), applied);
        stage.undo(&images);
        stage.others(others);
        let before = stage.dump();
        match stage.try_redo(&images, OnConflict::Stop) {
            Err(TargetError::Conflicts(conflicts)) => assert_eq!(conflicts.listed[0].object, "table public.t"),
            other => panic!("{others}: {other:?}"),
        }
        assert_eq!(stage.dump(), before);
    }
}

/// Somebody writes the row as it is, and has not committed when it is looked for.
#[test]
fn a_row_without_a_key_that_others_just_touch_is_found_all_the_same() {
    let mut stage = Stage::new("CREATE TABLE loose (a int, b text); INSERT INTO loose VALUES (1, 'b')");
    let images = stage.apply("INSERT INTO loose VALUES (2, 'ours');");
    let mut other = stage.other();
    other.batch_execute("BEGIN; UPDATE loose SET a = a").unwrap();
    let mut watch = stage.other();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                AND datname = current_database()";
            while crate::postgres::stage::one(&mut watch, waits) == "0" {
                std::thread::yield_now();
            }
            other.batch_execute("COMMIT").unwrap();
        });
        stage.undo(&images);
    });
    assert_eq!(stage.ask("SELECT count(*) FROM loose"), "1");
}

#[test]
fn a_row_without_a_key_that_finds_its_value_taken_is_a_conflict() {
    let mut stage =
        Stage::new("CREATE TABLE loose (a int UNIQUE, b text); INSERT INTO loose VALUES (1, 'one'), (2, 'two')");
    let images = stage.apply("UPDATE loose SET a = a + 10;");
    stage.others("UPDATE loose SET a = 2 WHERE a = 11");
    let before = stage.dump();
    let conflicts = stage.conflicts(&images);
    assert!(conflicts.listed.iter().any(|one| one.kind == ConflictKind::Constraint), "{conflicts:?}");
    assert_eq!(stage.dump(), before);
    stage.try_undo(&images, OnConflict::Keep).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(stage.ask("SELECT string_agg(a || b, ' ' ORDER BY a) FROM loose"), "2one 12two");
}

/// They have what a new row had before the column went.
#[test]
fn rows_that_came_since_get_the_default_of_a_column_that_comes_back() {
    let mut stage = Stage::new(
        "CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL DEFAULT 'old', b int NOT NULL); INSERT INTO t VALUES (1, 'x', 7)",
    );
    let images = stage.apply("ALTER TABLE t DROP COLUMN a;");
    stage.others("INSERT INTO t VALUES (2, 8)");
    stage.undo(&images);
    assert_eq!(stage.ask("SELECT string_agg(t::text, ' ' ORDER BY id) FROM t"), "(1,x,7) (2,old,8)");
    stage.others("DELETE FROM t WHERE id = 2");
    let images = stage.apply("ALTER TABLE t DROP COLUMN b;");
    stage.others("INSERT INTO t VALUES (2, 'y')");
    let before = stage.dump();
    let conflicts = stage.conflicts(&images);
    let first = &conflicts.listed[0];
    assert_eq!((first.kind, first.key.as_deref()), (ConflictKind::Constraint, Some("id=2")), "{conflicts:?}");
    assert_eq!(stage.dump(), before);
}

/// A column that is `GENERATED ALWAYS AS IDENTITY` cannot be set by an UPDATE.
#[test]
fn a_parent_row_with_an_identity_stays_for_rows_of_others() {
    let setup =
        "CREATE TABLE par (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text); INSERT INTO par (v) VALUES ('a');
        CREATE TABLE ch (id int PRIMARY KEY, p int REFERENCES par);";
    for (on_conflict, parents) in [(OnConflict::Keep, "2"), (OnConflict::Overwrite, "2")] {
        let mut stage = Stage::new(setup);
        let images = stage.apply("INSERT INTO par (v) VALUES ('new');");
        stage.others("INSERT INTO ch VALUES (1, 2);");
        let report = stage.try_undo(&images, on_conflict);
        let report = report.unwrap_or_else(|error| panic!("{on_conflict:?}: {}", told(&error)));
        assert_eq!(report.conflicts.total, 1, "{on_conflict:?}");
        assert_eq!(stage.ask("SELECT count(*) FROM par"), parents, "{on_conflict:?}");
        assert_eq!(stage.ask("SELECT count(*) FROM ch JOIN par ON par.id = ch.p"), "1", "{on_conflict:?}");
    }
}
