//! Seeking the conflicts of an undo beforehand: it finds what the undo itself would, and keeps nobody from writing.

use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backout_model::conflict::{Conflicts, OnConflict};
use backout_model::target::{Images, Target};
use rusqlite::{Connection, ErrorCode};

use crate::stage::Stage;

fn check(stage: &mut Stage, images: &[u8]) -> Conflicts {
    let boxed: Box<dyn Images> = Box::new(Cursor::new(images.to_vec()));
    stage.database.check_undo(&mut std::iter::once(boxed), OnConflict::Stop).unwrap().conflicts
}

/// How often an application writes.
const PACE: Duration = Duration::from_millis(1);

/// Ends the writer also where the check beside it panics.
struct Ends<'d>(&'d AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// An application that writes at its pace and never waits for others.
struct Writer {
    conn: Connection,
    /// How often it got through, and how long it was kept out at most.
    writes: u64,
    longest: Duration,
}

impl Writer {
    fn new(stage: &Stage) -> Self {
        let conn = stage.other();
        conn.busy_timeout(Duration::ZERO).unwrap();
        Self { conn, writes: 0, longest: Duration::ZERO }
    }

    fn write_until(&mut self, done: &AtomicBool) {
        let mut kept_out: Option<Instant> = None;
        while !done.load(Ordering::Acquire) {
            match self.conn.execute("UPDATE visits SET n = n + 1", []) {
                Ok(_) => {
                    self.writes += 1;
                    kept_out = None;
                    std::thread::park_timeout(PACE);
                }
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                    let since = *kept_out.get_or_insert_with(Instant::now);
                    self.longest = self.longest.max(since.elapsed());
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A check with a writer beside: what it found, and how long it took.
fn watched(stage: &mut Stage, images: &[u8], writer: &mut Writer) -> (Conflicts, Duration) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_until(&done));
        let _ends = Ends(&done);
        let start = Instant::now();
        let conflicts = check(stage, images);
        (conflicts, start.elapsed())
    })
}

#[test]
fn a_long_check_keeps_no_writer_out_for_long() {
    for mode in ["delete", "wal"] {
        let mut stage = Stage::new(&format!(
            "PRAGMA journal_mode = {mode}; CREATE TABLE visits (n); INSERT INTO visits VALUES (0);
             CREATE TABLE t (id INTEGER PRIMARY KEY, a, b TEXT); CREATE INDEX i ON t (b);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150000)
             INSERT INTO t SELECT i, i % 7, 'text number ' || i FROM n;
             CREATE TABLE loose (a, b); INSERT INTO loose VALUES (1, 1), (2, 2);"
        ));
        let images = stage
            .apply("UPDATE t SET a = a + 1, b = b || '!'; DELETE FROM t WHERE id % 3 = 0; UPDATE loose SET a = 0;");
        // The second is no conflict as long as nobody vacuumed or changed the schema.
        let theirs = "UPDATE t SET a = 'theirs' WHERE id = 40001; UPDATE loose SET b = 5 WHERE b = 1;";
        stage.other().execute_batch(theirs).unwrap();
        let before = stage.dump().len();
        let mut writer = Writer::new(&stage);
        let (conflicts, took) = watched(&mut stage, &images, &mut writer);
        assert_eq!(conflicts.total, 1, "{mode}: {conflicts:?}");
        assert_eq!(conflicts.listed[0].now, "'theirs'");
        eprintln!("{mode}: check {took:?}, {} writes meanwhile, kept out for {:?}", writer.writes, writer.longest);
        assert!(writer.writes > 0 && writer.longest < took / 2, "{mode}: {:?} of {took:?}", writer.longest);
        assert_eq!(stage.dump().len(), before);
        assert_eq!(stage.conflicts(&images).listed, conflicts.listed);
    }
}
