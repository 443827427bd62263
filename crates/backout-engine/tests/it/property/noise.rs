//! Other sessions that write and lock rows all the time, on a server: on every table, whatever is being
//! deployed there. What the server acknowledged is counted, and none of it may be lost.
//!
//! They change nothing that the model knows of: a column of one table is theirs alone, and everywhere else they write
//! what is there already.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use backout_testkit::site::TestSite;
use fastrand::Rng;

use super::dialect::Dialect;
use super::live::{Live, Refused};
use super::world::Value;

/// The table whose column `w` is theirs. Deployments change its other columns.
pub const BUSY: &str = "busy";
pub const BUSY_ROWS: u64 = 12;

/// Between two of their transactions; what is played shall have some of the machine, too.
const PAUSE: Duration = Duration::from_millis(3);

pub struct Noise {
    stop: Vec<Sender<()>>,
    writer: JoinHandle<BTreeMap<i64, i64>>,
    locker: JoinHandle<u64>,
    check: Live,
    hold: Live,
}

impl Noise {
    /// On the site's database, which is a server's.
    pub fn on(site: &TestSite, seed: u64) -> Self {
        let (stop_writer, writer_stops) = channel();
        let (stop_locker, locker_stops) = channel();
        let (mut one, mut other) = (Live::of(site), Live::of(site));
        Self {
            stop: vec![stop_writer, stop_locker],
            writer: std::thread::spawn(move || write(&mut one, seed, &writer_stops)),
            locker: std::thread::spawn(move || lock(&mut other, seed, &locker_stops)),
            check: Live::of(site),
            hold: Live::of(site),
        }
    }

    /// PostgreSQL: locks all rows of the busy table, as foreign keys that point at them do, until [`Noise::let_go`].
    pub fn hold_on(&mut self) {
        self.hold.execute(&format!("BEGIN; SELECT FROM {BUSY} FOR KEY SHARE"));
    }

    pub fn let_go(&mut self) {
        self.hold.execute("COMMIT");
    }

    /// Ends them, and holds what they were told was written against what is there.
    pub fn end(mut self) -> Result<Told, String> {
        drop(self.stop);
        let written = self.writer.join().map_err(|_| "the writer failed, see above")?;
        let locked = self.locker.join().map_err(|_| "the locker failed, see above")?;
        let rows = self.check.rows(&format!("SELECT id, w FROM {BUSY}"));
        let found: BTreeMap<i64, i64> = rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
        let wrong: Vec<String> = found
            .iter()
            .filter(|(id, count)| written.get(id).copied().unwrap_or(0) != **count)
            .map(|(id, count)| {
                format!("row {id}: {} writes were acknowledged, {count} are there", written.get(id).unwrap_or(&0))
            })
            .collect();
        if !wrong.is_empty() || found.len() as u64 != BUSY_ROWS {
            return Err(format!("others' writes are lost, of {} rows: {}", found.len(), wrong.join("; ")));
        }
        Ok(Told { written: written.values().sum::<i64>() as u64, locked })
    }
}

/// How much of it there was.
#[derive(Debug, Default)]
pub struct Told {
    pub written: u64,
    pub locked: u64,
}

/// False once it is time to end.
fn pause(stop: &Receiver<()>) -> bool {
    stop.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout)
}

fn number(value: &Value) -> i64 {
    let Value::Integer(number) = value else { panic!("{value:?} is no number") };
    *number
}

/// Counts up, row by row; what was acknowledged.
fn write(live: &mut Live, seed: u64, stop: &Receiver<()>) -> BTreeMap<i64, i64> {
    let (mut rng, mut written) = (Rng::with_seed(seed), BTreeMap::new());
    while pause(stop) {
        let id = rng.i64(1..=BUSY_ROWS as i64);
        match live.run(&format!("UPDATE {BUSY} SET w = w + 1 WHERE id = {id}")) {
            Ok(()) => *written.entry(id).or_default() += 1,
            // Two that wait for each other: the server ends one of them, and nothing of it is there.
            Err(Refused::Contended) => {}
            Err(why) => panic!("the application cannot write: {why:?}"),
        }
    }
    written
}

/// Locks a few rows of some table as foreign keys do, or writes them as they are; how often it could.
fn lock(live: &mut Live, seed: u64, stop: &Receiver<()>) -> u64 {
    let (mut rng, mut locked) = (Rng::with_seed(seed + 1), 0);
    let (patience, tables) = match live.dialect() {
        Dialect::Mariadb => (
            "SET lock_wait_timeout = 1, innodb_lock_wait_timeout = 1",
            "SELECT t.TABLE_NAME, c.COLUMN_NAME FROM information_schema.TABLES AS t JOIN information_schema.COLUMNS AS c
             USING (TABLE_SCHEMA, TABLE_NAME) WHERE TABLE_SCHEMA = DATABASE() AND t.TABLE_NAME NOT LIKE 'backout%'
             ORDER BY RAND() LIMIT 1",
        ),
        _ => (
            "SET lock_timeout = '200ms'",
            "SELECT relname::text, quote_ident(attname) FROM pg_attribute AS a JOIN pg_class AS c ON attrelid = c.oid
             WHERE attnum > 0 AND NOT attisdropped AND relkind = 'r' AND relnamespace = 'public'::regnamespace
             ORDER BY random() LIMIT 1",
        ),
    };
    live.execute(patience);
    while pause(stop) {
        let found = live.rows(tables).pop();
        let Some([Value::Text(table), Value::Text(column)]) = found.as_deref() else { continue };
        let act = match (live.dialect(), rng.u32(0..4)) {
            (Dialect::Mariadb, 0) => format!("UPDATE {table} SET {column} = {column} ORDER BY RAND() LIMIT 3"),
            (Dialect::Mariadb, _) => format!("SELECT 1 FROM {table} ORDER BY RAND() LIMIT 3 LOCK IN SHARE MODE"),
            (_, how) => {
                let some = format!("ctid = ANY (ARRAY(SELECT ctid FROM {table} ORDER BY random() LIMIT 3))");
                match how {
                    0 => format!("UPDATE {table} SET {column} = {column} WHERE {some}"),
                    1 => format!("SELECT FROM {table} WHERE {some} FOR SHARE"),
                    _ => format!("SELECT FROM {table} WHERE {some} FOR KEY SHARE"),
                }
            }
        };
        // The table may be gone by now, or somebody holds its rows: then it is another one's turn.
        let done = live.run("BEGIN").and_then(|()| live.run(&act));
        if done.is_ok() {
            locked += 1;
            if !pause(stop) {
                break;
            }
        }
        live.execute("COMMIT");
    }
    locked
}
