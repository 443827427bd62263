//! What is left to others while a script runs: how fast another program's transactions on other tables are done, beside
//! the engine's own client and beside the tool. It judges nothing.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::measure::{alternate, median, timed};
use super::report::{Report, Row, Target};

/// What must be left.
const LEFT: Target = Target::AtLeast(0.9);

/// A program that others' work is played by, and how many transactions of it the server has seen.
pub struct Others<'a> {
    pub program: Command,
    pub done: Box<dyn FnMut() -> Result<f64> + 'a>,
}

/// Both sides in turns, each of which says how long a transaction of others takes.
pub fn compare(
    name: &str,
    against: &str,
    runs: usize,
    plain: impl FnMut() -> Result<Duration>,
    ours: impl FnMut() -> Result<Duration>,
    report: &mut Report,
) -> Result<()> {
    let (base, ours) = alternate(runs, plain, ours)?;
    // As durations of a transaction, which have a median like any others.
    let a_second = |times: Vec<Duration>| 1.0 / median(times).as_secs_f64();
    report.add(&Row {
        baseline: against.to_owned(),
        base: Some(a_second(base)),
        ..Row::alone(name, a_second(ours), LEFT)
    });
    Ok(())
}

/// How long one transaction of others takes on average while the command runs.
pub fn throughput(mut others: Others<'_>, command: &mut Command) -> Result<Duration> {
    let program = &mut others.program;
    let mut at_work = program
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("running {program:?}: is it installed? script/setup does it"))?;
    let mut measured = || {
        // Not before it is at work.
        let first = (others.done)()?;
        while (others.done)()? == first {
            if let Some(status) = at_work.try_wait().context("waiting")? {
                bail!("{program:?} ended: {status}");
            }
        }
        let (start, before) = (Instant::now(), (others.done)()?);
        timed(command)?;
        let (took, count) = (start.elapsed(), (others.done)()? - before);
        Ok(took.div_f64(count.max(1.0)))
    };
    let measured = measured();
    at_work.kill().context("ending what others do")?;
    at_work.wait().context("ending what others do")?;
    measured
}
