//! Other sessions that write and lock rows all the time, on a PostgreSQL server: on every table, whatever is being
//! deployed there. What the server acknowledged is counted, and none of it may be lost.
//!
//! They change nothing that the model knows of: a column of one table is theirs alone, and everywhere else they write
//! what is there already.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use backout_testkit::postgres::Database;
use fastrand::Rng;
use postgres::Client;
use postgres::error::SqlState;

/// The table whose column `w` is theirs. Deployments change its other columns.
pub const BUSY: &str = "busy";
pub const BUSY_ROWS: u64 = 12;

/// Between two of their transactions; what is played shall have some of the machine, too.
const PAUSE: Duration = Duration::from_millis(3);

pub struct Noise {
    stop: Vec<Sender<()>>,
    writer: JoinHandle<BTreeMap<i64, i64>>,
    locker: JoinHandle<u64>,
    check: Client,
    hold: Client,
}

impl Noise {
    pub fn on(database: &Database<'_>, seed: u64) -> Self {
        let (stop_writer, writer_stops) = channel();
        let (stop_locker, locker_stops) = channel();
        let (mut one, mut other) = (database.connect(), database.connect());
        Self {
            stop: vec![stop_writer, stop_locker],
            writer: std::thread::spawn(move || write(&mut one, seed, &writer_stops)),
            locker: std::thread::spawn(move || lock(&mut other, seed, &locker_stops)),
            check: database.connect(),
            hold: database.connect(),
        }
    }

    /// Locks all rows of the busy table, as foreign keys that point at them do, until [`Noise::let_go`].
    pub fn hold_on(&mut self) {
        self.hold.batch_execute(&format!("BEGIN; SELECT FROM {BUSY} FOR KEY SHARE")).unwrap();
    }

    pub fn let_go(&mut self) {
        self.hold.batch_execute("COMMIT").unwrap();
    }

    /// Ends them, and holds what they were told was written against what is there.
    pub fn end(mut self) -> Result<Told, String> {
        drop(self.stop);
        let written = self.writer.join().map_err(|_| "the writer failed, see above")?;
        let locked = self.locker.join().map_err(|_| "the locker failed, see above")?;
        let rows = self.check.query(&format!("SELECT id, w FROM {BUSY}"), &[]).unwrap();
        let found: BTreeMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
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

/// Counts up, row by row; what was acknowledged.
fn write(client: &mut Client, seed: u64, stop: &Receiver<()>) -> BTreeMap<i64, i64> {
    let (mut rng, mut written) = (Rng::with_seed(seed), BTreeMap::new());
    while pause(stop) {
        let id = rng.i64(1..=BUSY_ROWS as i64);
        let done = client.execute(&format!("UPDATE {BUSY} SET w = w + 1 WHERE id = $1"), &[&id]);
        match done {
            Ok(1) => *written.entry(id).or_default() += 1,
            // Two that wait for each other: the server ends one of them, and nothing of it is there.
            Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {}
            other => panic!("the application cannot write: {other:?}"),
        }
    }
    written
}

/// Locks a few rows of some table as foreign keys do, or writes them as they are; how often it could.
fn lock(client: &mut Client, seed: u64, stop: &Receiver<()>) -> u64 {
    const TABLES: &str = "SELECT relname::text, (SELECT quote_ident(attname) FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY random() LIMIT 1)
        FROM pg_class AS c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY random() LIMIT 1";
    let (mut rng, mut locked) = (Rng::with_seed(seed + 1), 0);
    client.batch_execute("SET lock_timeout = '200ms'").unwrap();
    while pause(stop) {
        let found = client.query_opt(TABLES, &[]);
        let Ok(Some(row)) = found else { continue };
        let (table, column): (String, Option<String>) = (row.get(0), row.get(1));
        let Some(column) = column else { continue };
        let some = format!("ctid = ANY (ARRAY(SELECT ctid FROM {table} ORDER BY random() LIMIT 3))");
        let act = match rng.u32(0..4) {
            0 => format!("UPDATE {table} SET {column} = {column} WHERE {some}"),
            1 => format!("SELECT FROM {table} WHERE {some} FOR SHARE"),
            _ => format!("SELECT FROM {table} WHERE {some} FOR KEY SHARE"),
        };
        // The table may be gone by now, or somebody holds its rows: then it is another one's turn.
        let done = client.batch_execute(&format!("BEGIN; {act}"));
        if done.is_ok() {
            locked += 1;
            if !pause(stop) {
                break;
            }
        }
        client.batch_execute("COMMIT").unwrap();
    }
    locked
}
