//! Connections that break, backends that are killed, servers that go: a step is done or it is not, and the marker knows.

use std::io::Cursor;

use backout_model::target::{Gate, Summary, TargetError};
use backout_model::target::{Probe, Target, Ticket};
use backout_sql::database::{Database, LockError, ScriptUndo};
use backout_testkit::postgres::Server;

use crate::postgres::rows::PLAIN;
use crate::postgres::stage::{Stage, open};
use crate::stage::{TestGate, me, told};

/// Does something when the step is announced: everything is done, nothing is committed.
struct AtAnnounce<'a> {
    inner: TestGate,
    act: &'a mut dyn FnMut(),
}

impl Gate for AtAnnounce<'_> {
    fn images(&mut self) -> Box<dyn std::io::Write + Send> {
        self.inner.images()
    }

    fn written(&mut self) -> std::io::Result<Box<dyn backout_model::target::Images>> {
        Gate::written(&mut self.inner)
    }

    fn announce(&mut self, summary: &Summary) -> Result<Ticket, TargetError> {
        let ticket = self.inner.announce(summary)?;
        (self.act)();
        Ok(ticket)
    }

    fn progress(&mut self, _: u64, _: Option<u64>) {}
}

const KILL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'backout' AND datname = current_database()";

#[test]
fn a_killed_backend_leaves_nothing_and_the_next_step_goes_on() {
    let mut stage = Stage::new(PLAIN);
    let before = stage.dump();
    let script = stage.script("UPDATE t SET a = 'x';", ScriptUndo::Captured);
    let mut other = stage.other();
    let inner = stage.gate();
    let mut act = || other.batch_execute(KILL).unwrap();
    let mut gate = AtAnnounce { inner, act: &mut act };
    let error = stage.database.apply(&script, &mut gate).unwrap_err();
    assert!(!matches!(error, TargetError::LockLost(_)), "{}", told(&error));
    assert_eq!(stage.dump(), before);
    let ticket = Ticket { seq: stage.seq, epoch: stage.epoch };
    assert_eq!(stage.database.probe(ticket, &mut Cursor::new(gate.inner.written())).unwrap(), Probe::NotApplied);
    let images = stage.apply("UPDATE t SET a = 'y';");
    stage.others(KILL);
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
}

/// A commit whose answer is lost: the server committed, or it did not.
#[test]
fn a_commit_whose_answer_is_lost_is_decided_by_the_marker() {
    // A deferred trigger holds the commit up until we have cut the connection.
    let mut stage = Stage::new(&format!(
        "{PLAIN} CREATE TABLE held (i int);
         CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF new.seq > 0 THEN PERFORM pg_advisory_xact_lock(77); END IF; RETURN NULL; END $$;"
    ));
    stage.others(
        "CREATE CONSTRAINT TRIGGER hold AFTER UPDATE ON backout_shop.marker DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION hold()",
    );
    for killed in [true, false] {
        let before = stage.dump();
        let script = stage.script("UPDATE t SET a = a || 'x';", ScriptUndo::Captured);
        let mut gate = stage.gate();
        let mut holder = stage.other();
        holder.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(77)").unwrap();
        let mut killer = stage.other();
        let done = std::thread::scope(|scope| {
            let helper = scope.spawn(move || {
                // The commit waits for the trigger.
                let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted";
                while crate::postgres::stage::one(&mut killer, waits) != "1" {
                    std::thread::yield_now();
                }
                if killed {
                    killer.batch_execute(KILL).unwrap();
                }
                holder.batch_execute("COMMIT").unwrap();
            });
            let done = stage.database.apply(&script, &mut gate);
            helper.join().unwrap();
            done
        });
        assert_eq!(done.is_err(), killed, "{done:?}");
        assert_eq!(stage.dump() == before, killed);
        let ticket = Ticket { seq: stage.seq, epoch: stage.epoch };
        let found = stage.database.probe(ticket, &mut Cursor::new(gate.written())).unwrap();
        assert_eq!(found, if killed { Probe::NotApplied } else { Probe::Applied });
    }
}

#[test]
fn a_server_that_restarts_is_found_again() {
    let server = Server::fresh();
    let mut stage = Stage::on(&server, PLAIN);
    let before = stage.dump();
    let images = stage.apply("UPDATE t SET a = 'x';");
    let applied = stage.dump();
    server.kill();
    server.start();
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
    server.stop();
    server.start();
    let again = stage.redo(&images);
    assert_eq!(stage.dump(), applied);
    stage.undo(&again);
}

#[test]
fn one_deployer_at_a_time_and_the_dead_are_taken_over() {
    let mut stage = Stage::new(PLAIN);
    let mut second = open(&stage.live.url());
    match second.lock(&me(), 1) {
        Err(LockError::Held { holder, unprovable: false }) => assert_eq!(holder.pid, std::process::id()),
        other => panic!("{other:?}"),
    }
    for (change, taken) in [("pid", true), ("boot", true), ("host", false)] {
        let mut holder = me();
        match change {
            "pid" => holder.started += 1,
            "boot" => holder.boot_id = "another".to_owned(),
            _ => holder.host = "elsewhere".to_owned(),
        }
        let now = second.holder().unwrap().unwrap();
        assert!(second.break_lock(&now).unwrap());
        let mut dead = open(&stage.live.url());
        dead.lock(&holder, 1).unwrap();
        match (stage.database.lock(&me(), 1), taken) {
            // Its session still has the advisory lock, and is ended.
            (Ok(epoch), true) => stage.epoch = epoch,
            (Err(LockError::Held { unprovable: true, .. }), false) => {}
            (other, _) => panic!("{change}: {other:?}"),
        }
    }
    let now = second.holder().unwrap().unwrap();
    assert!(second.break_lock(&now).unwrap());
    stage.epoch = stage.database.lock(&me(), 40).unwrap();
    assert!(stage.epoch >= 40);
    let images = stage.apply("UPDATE t SET a = 1;");
    stage.undo(&images);
    assert_eq!(stage.database.own_objects().unwrap(), ["backout_shop.marker"]);
    stage.database.unlock().unwrap();
    assert!(second.holder().unwrap().is_none());
    second.lock(&me(), 1).unwrap();
}

#[test]
fn writers_are_not_kept_waiting_and_none_of_their_writes_is_lost() {
    let mut stage = Stage::new(
        "CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 0, b int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 2000);",
    );
    let stop = std::sync::atomic::AtomicBool::new(false);
    let clients: Vec<_> = (0..2).map(|_| stage.other()).collect();
    let written: u64 = std::thread::scope(|scope| {
        let stop = &stop;
        let writers: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(at, mut client)| {
                scope.spawn(move || {
                    let (mut rng, mut written) = (fastrand::Rng::with_seed(at as u64), 0);
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let id = rng.u32(1001..=2000);
                        client.batch_execute(&format!("UPDATE t SET b = b + 1 WHERE id = {id}")).unwrap();
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        for _ in 0..10 {
            let images = stage.apply("UPDATE t SET a = a + 1;");
            stage.undo(&images);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert_eq!(stage.ask("SELECT sum(b) FROM t"), written.to_string());
    assert_eq!(stage.ask("SELECT count(*) FROM t WHERE a <> 0"), "0");
}

#[test]
fn the_marker_is_read_and_set_back_only_by_who_has_the_lock() {
    let mut stage = Stage::new(PLAIN);
    let images = stage.apply("UPDATE t SET a = 1;");
    let mark = stage.database.last_mark().unwrap().unwrap();
    assert!(mark.seq > 0 && mark.epoch == stage.epoch);
    let mut second = open(&stage.live.url());
    assert!(matches!(second.set_mark(0), Err(TargetError::LockLost(_))));
    stage.database.set_mark(mark.seq + 1).unwrap();
    assert_eq!(second.last_mark().unwrap().unwrap().seq, mark.seq, "never forwards");
    stage.database.set_mark(0).unwrap();
    assert_eq!(second.last_mark().unwrap().unwrap().seq, 0);
    stage.undo(&images);
    assert!(second.last_mark().unwrap().unwrap().seq > mark.seq);
}
