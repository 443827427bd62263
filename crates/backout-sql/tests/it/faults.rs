//! Every act on the database fails once, and stops dead once: what is left is exactly before or exactly after, and
//! the marker says which. Only with the feature `faults`.

use std::io::{self, Cursor};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use backout_model::conflict::OnConflict;
use backout_model::fault::{self, Faults, Point};
use backout_model::target::{Manner, Probe, Target, TargetError, Ticket};
use backout_sql::database::{Database, ScriptUndo};

use crate::stage::{Images, Stage, open, told};

/// Fails at the N-th point; and at all that follow where the process is dead.
struct At {
    left: Arc<AtomicI64>,
    dead: bool,
}

impl Faults for At {
    fn at(&mut self, _point: Point) -> io::Result<()> {
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        if left == 0 || (self.dead && left < 0) { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
    }

    fn syncs_issued(&self) -> bool {
        false
    }
}

const SETUP: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a UNIQUE, b TEXT);
    INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y'), (3, NULL);
    CREATE TABLE gone (k PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO gone VALUES ('a', 1), ('b', 2);
    CREATE INDEX gone_v ON gone (v);";
const CHANGE: &str = "UPDATE t SET b = 'new'; INSERT INTO t (a) VALUES (9);
    ALTER TABLE t ADD COLUMN c DEFAULT 5; UPDATE t SET c = id; DELETE FROM t WHERE id = 2;
    CREATE TABLE made (x); INSERT INTO made VALUES (1); DROP TABLE gone; PRAGMA user_version = 3;";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Apply,
    Undo,
    Redo,
}

fn perform(stage: &mut Stage, act: Act, images: &Images) -> Result<(), TargetError> {
    let mut gate = stage.gate();
    let manner = Manner { on_conflict: OnConflict::Stop, in_doubt: false };
    let mut images = Cursor::new(images);
    match act {
        Act::Apply => {
            let script = stage.script(CHANGE, ScriptUndo::Captured);
            stage.database.apply(&script, &mut gate).map(drop)
        }
        Act::Undo => stage.database.undo(&mut images, manner, &mut gate).map(drop),
        Act::Redo => stage.database.redo(&mut images, manner, &mut gate).map(drop),
    }
}

#[test]
fn whatever_fails_the_database_is_before_or_after() {
    for act in [Act::Apply, Act::Undo, Act::Redo] {
        for dead in [false, true] {
            let mut points = 0;
            for number in 0.. {
                let mut stage = Stage::new(SETUP);
                let images = if act == Act::Apply { Images::new() } else { stage.apply(CHANGE) };
                if act == Act::Redo {
                    stage.undo(&images);
                }
                let before = stage.dump();
                let left = Arc::new(AtomicI64::new(number));
                fault::set_local(Some(Box::new(At { left: Arc::clone(&left), dead })));
                let done = perform(&mut stage, act, &images);
                fault::set_local(None);
                let what = format!("{act:?}, point {number}, dead: {dead}");
                if left.load(Ordering::Relaxed) >= 0 {
                    assert!(done.is_ok(), "{what}: {done:?}");
                    points = number;
                    break;
                }
                let Err(error) = done else { panic!("{what}: the failure was swallowed") };
                let ticket = Ticket { seq: stage.seq, epoch: stage.epoch };
                let probed = if dead {
                    open(stage.path()).probe(ticket, &mut Cursor::new(&images)).unwrap()
                } else {
                    stage.database.probe(ticket, &mut Cursor::new(&images)).unwrap()
                };
                let now = stage.dump();
                match probed {
                    Probe::Applied => assert_ne!(now, before, "{what}: {}", told(&error)),
                    _ => assert_eq!(now, before, "{what}: {}", told(&error)),
                }
                if !dead && probed != Probe::Applied {
                    perform(&mut stage, act, &images).unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
                    assert_ne!(stage.dump(), before);
                }
            }
            assert!(points > 3, "{act:?} passed only {points} points");
        }
    }
}
