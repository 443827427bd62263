//! Who holds the lock that a statement of ours waits for: seen from another session while it waits, since afterwards nobody knows.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::session::Session;

/// How often the other session looks.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// Does the work; beside what it gives, who stood in its way last, in words.
pub fn watched<T>(b: &mut Session, waiting: Option<&str>, work: impl FnOnce() -> T) -> (T, Option<String>) {
    let Some(waiting) = waiting else { return (work(), None) };
    let sql = format!(
        "SELECT string_agg(format('process %s (%s%s, %s since %s s): %s', s.pid, s.usename, nullif(', ' || s.application_name, ', '),
             coalesce(s.state, 'state unknown'), coalesce(round(extract(epoch FROM clock_timestamp() - s.xact_start))::text, '?'),
             left(regexp_replace(s.query, '\\s+', ' ', 'g'), 80)), '; ')
         FROM unnest(pg_catalog.pg_blocking_pids({waiting})) AS p (pid) JOIN pg_catalog.pg_stat_activity s ON s.pid = p.pid"
    );
    let (ended, wait) = channel::<()>();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let mut seen = None;
            while let Err(RecvTimeoutError::Timeout) = wait.recv_timeout(LOOKS_EVERY) {
                // Where it cannot be asked, the error says what it said before.
                seen = b.value(&sql).ok().flatten().or(seen);
            }
            seen
        });
        let done = work();
        drop(ended);
        (done, watcher.join().ok().flatten())
    })
}
