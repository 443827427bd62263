//! The lock and its epoch: one deployer a site, and none that lost it commits.

use backout_model::target::{Probe, Target, TargetError, Ticket};
use backout_sql::database::{Database, LockError, ScriptUndo};

use crate::stage::{Stage, TestGate, me, open};

#[test]
fn one_deployer_at_a_time() {
    let mut stage = Stage::new("CREATE TABLE t (a)");
    let mut second = open(stage.path());
    match second.lock(&me(), 1) {
        Err(LockError::Held { holder, unprovable: false }) => assert_eq!(holder.pid, std::process::id()),
        other => panic!("{other:?}"),
    }
    assert_eq!(second.holder().unwrap().unwrap().purpose, "test");
    stage.database.unlock().unwrap();
    assert!(second.holder().unwrap().is_none());
    assert_eq!(second.lock(&me(), 1).unwrap(), stage.epoch + 1);
}

#[test]
fn the_epoch_is_at_least_what_the_journal_counts() {
    let mut stage = Stage::new("CREATE TABLE t (a)");
    stage.database.unlock().unwrap();
    assert_eq!(stage.database.lock(&me(), 40).unwrap(), 40);
    stage.database.unlock().unwrap();
    assert_eq!(stage.database.lock(&me(), 7).unwrap(), 41);
}

#[test]
fn the_dead_are_taken_over_and_strangers_are_not() {
    let mut stage = Stage::new("CREATE TABLE t (a)");
    for (change, taken) in [("pid", true), ("boot", true), ("host", false)] {
        let mut holder = me();
        match change {
            "pid" => holder.started += 1,
            "boot" => holder.boot_id = "another".to_owned(),
            _ => holder.host = "elsewhere".to_owned(),
        }
        let now = stage.database.holder().unwrap().unwrap();
        assert!(stage.database.break_lock(&now).unwrap());
        open(stage.path()).lock(&holder, 1).unwrap();
        match (stage.database.lock(&me(), 1), taken) {
            (Ok(_), true) | (Err(LockError::Held { unprovable: true, .. }), false) => {}
            (other, _) => panic!("{change}: {other:?}"),
        }
    }
}

#[test]
fn who_lost_the_lock_cannot_commit() {
    let mut stage = Stage::new("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    let before = stage.dump();
    let images = stage.apply("UPDATE t SET a = 2");
    let applied = stage.dump();
    let holder = stage.database.holder().unwrap().unwrap();
    let other = backout_sql::database::Holder { purpose: "another".to_owned(), ..holder.clone() };
    assert!(!open(stage.path()).break_lock(&other).unwrap(), "only from the one that was named");
    assert!(open(stage.path()).break_lock(&holder).unwrap());
    assert!(matches!(stage.try_apply("DELETE FROM t"), Err(TargetError::LockLost(_))));
    assert_eq!(stage.dump(), applied);
    let undone = stage.try_undo(&images, backout_model::conflict::OnConflict::Stop);
    assert!(matches!(undone, Err(TargetError::LockLost(_))));
    assert_eq!(stage.dump(), applied);
    stage.epoch = stage.database.lock(&me(), 1).unwrap();
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
}

#[test]
fn the_marker_says_what_was_committed() {
    let mut stage = Stage::new("CREATE TABLE t (a)");
    let images = stage.apply("INSERT INTO t VALUES (1)");
    let ticket = Ticket { seq: stage.seq, epoch: stage.epoch };
    let mut probe = |ticket| stage.database.probe(ticket, &mut std::io::Cursor::new(&images)).unwrap();
    assert_eq!(probe(ticket), Probe::Applied);
    assert_eq!(probe(Ticket { seq: ticket.seq + 1, ..ticket }), Probe::NotApplied);
}

#[test]
fn without_an_announcement_nothing_happens() {
    let mut stage = Stage::new("CREATE TABLE t (a)");
    let before = stage.dump();
    let script = stage.script("INSERT INTO t VALUES (1);", ScriptUndo::Captured);
    let mut gate = TestGate::new(Ticket { seq: 1, epoch: stage.epoch });
    gate.refuses = true;
    stage.database.apply(&script, &mut gate).unwrap_err();
    assert_eq!(stage.dump(), before);
}

#[test]
fn what_the_tool_keeps_is_named() {
    let mut stage = Stage::new("CREATE TABLE t (a)");
    assert_eq!(stage.database.own_objects().unwrap(), ["backout_shop"]);
}

#[test]
fn a_marker_of_an_older_form_is_completed() {
    let mut stage = Stage::new(
        "CREATE TABLE t (a); INSERT INTO t VALUES (1);
         CREATE TABLE backout_shop (id INTEGER PRIMARY KEY CHECK (id = 0), epoch INTEGER NOT NULL, seq INTEGER NOT NULL, holder TEXT);
         INSERT INTO backout_shop VALUES (0, 8, 0, NULL);",
    );
    assert_eq!(stage.epoch, 9);
    let before = stage.dump();
    let images = stage.apply("UPDATE t SET a = 2;");
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
}
