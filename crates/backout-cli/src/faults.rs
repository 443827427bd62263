//! For the crash suite: `BACKOUT_FAULT` makes this process die, or one durable act of it fail, at the N-th point.
//!
//! Compiled only with the feature `faults`; a release build knows nothing of it. Words, joined by commas:
//! `crash:N` (SIGKILL to itself), `enospc:N` and `eio:N` (that act fails once), `count:FILE` (each point is written
//! there, one a line, when the process ends), `panic:N` (a defect is played), `nosync` (syncs are counted but not issued).

use std::fs::File;
use std::io::{self, BufWriter, Write};

use backout_model::fault::{self, Faults, Point};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

use crate::ui::or_nobody_hears;

/// Ends the playing of faults, and writes what was counted, when it is dropped.
pub struct Playing;

impl Drop for Playing {
    fn drop(&mut self) {
        fault::set_global(None);
    }
}

/// Sets up what the environment asks for. A text that is not understood ends the process: a test must not pass
/// because its fault was never played.
pub fn from_environment() -> Option<Playing> {
    let text = std::env::var("BACKOUT_FAULT").ok()?;
    match Plan::parse(&text) {
        Ok(plan) => {
            fault::set_global(Some(Box::new(plan)));
            Some(Playing)
        }
        Err(what) => {
            or_nobody_hears(writeln!(io::stderr(), "error: BACKOUT_FAULT={text}: {what}"));
            std::process::exit(2);
        }
    }
}

struct Plan {
    seen: u64,
    crash_at: Option<u64>,
    panic_at: Option<u64>,
    /// The number of the point and what its act fails with.
    fail_at: Option<(u64, Errno)>,
    count: Option<BufWriter<File>>,
    syncs: bool,
}

impl Plan {
    fn parse(text: &str) -> Result<Self, String> {
        let mut plan = Self { seen: 0, crash_at: None, panic_at: None, fail_at: None, count: None, syncs: true };
        for word in text.split(',') {
            let (kind, value) = word.split_once(':').unwrap_or((word, ""));
            let number = || value.parse::<u64>().map_err(|error| format!("`{value}`: {error}"));
            match kind {
                "crash" => plan.crash_at = Some(number()?),
                "enospc" => plan.fail_at = Some((number()?, Errno::NOSPC)),
                "eio" => plan.fail_at = Some((number()?, Errno::IO)),
                "count" => {
                    let file = File::create(value).map_err(|error| format!("{value}: {error}"))?;
                    plan.count = Some(BufWriter::new(file));
                }
                "panic" => plan.panic_at = Some(number()?),
                "nosync" => plan.syncs = false,
                _ => return Err(format!("`{kind}` is not known")),
            }
        }
        Ok(plan)
    }
}

impl Faults for Plan {
    fn at(&mut self, point: Point) -> io::Result<()> {
        self.seen += 1;
        if let Some(count) = &mut self.count {
            writeln!(count, "{} {point:?}", self.seen)?;
        }
        if self.crash_at == Some(self.seen) {
            // Nothing may run after this: no destructor, no flush.
            kill_process(getpid(), Signal::KILL)?;
        }
        assert_ne!(self.panic_at, Some(self.seen), "the defect that was asked for");
        match self.fail_at {
            Some((at, errno)) if at == self.seen => Err(errno.into()),
            _ => Ok(()),
        }
    }

    fn syncs_issued(&self) -> bool {
        self.syncs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_point_fails_once() {
        let mut plan = Plan::parse("enospc:2,nosync").unwrap();
        assert!(plan.at(Point::Sync).is_ok());
        assert_eq!(plan.at(Point::Rename).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(plan.at(Point::Rename).is_ok());
        assert!(!plan.syncs_issued());
        assert!(Plan::parse("crash").is_err());
        assert!(Plan::parse("explode:3").is_err());
    }
}
