//! Clocks and meters: how long a process takes from its start, how much memory it takes at its peak, on what kind of
//! disk. It runs what it is given and judges nothing.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a command takes from process start to end. A command that fails is an error with what it said.
pub fn timed(command: &mut Command) -> Result<Duration> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let took = start.elapsed();
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(took)
}

/// The largest resident memory of a command, in bytes.
///
/// The kernel's own high-water mark is read while the command runs (man 5 proc, VmHWM), so what it allocates in its
/// very last moment may be missed.
pub fn peak_memory(command: &mut Command) -> Result<u64> {
    const PAUSE: Duration = Duration::from_millis(1);
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().with_context(|| format!("running {command:?}"))?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting")? {
            break status;
        }
        let text = std::fs::read_to_string(&status_file).unwrap_or_default();
        peak = peak.max(high_water(&text).unwrap_or(0));
        std::thread::sleep(PAUSE);
    };
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(peak)
}

/// `VmHWM:     1234 kB`, in bytes.
fn high_water(status: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Writes out all that waits for the disk, so that it does not disturb the next measurement.
pub fn settle(dir: &Path) -> Result<()> {
    let folder = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    rustix::fs::syncfs(folder).context("syncing the file system")
}

/// Whether a folder lies in memory rather than on a disk.
pub fn in_memory(dir: &Path) -> Result<bool> {
    // Magic numbers of tmpfs and ramfs (man 2 statfs).
    const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    let statistics = rustix::fs::statfs(dir).context("asking for the file system")?;
    Ok(IN_MEMORY.contains(&(statistics.f_type as u64)))
}

/// The middle one; of an even number the upper middle one.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Runs two sides in turns: once each to warm up, then `runs` times, the first one changing.
pub fn alternate<A, B>(
    runs: usize,
    mut one: impl FnMut() -> Result<A>,
    mut other: impl FnMut() -> Result<B>,
) -> Result<(Vec<A>, Vec<B>)> {
    one().context("warming up the baseline")?;
    other().context("warming up")?;
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for run in 0..runs.max(1) {
        if run % 2 == 0 {
            ones.push(one()?);
            others.push(other()?);
        } else {
            others.push(other()?);
            ones.push(one()?);
        }
    }
    Ok((ones, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_not_moved_by_one_that_is_far_off() {
        let times = [9, 1, 2, 1000, 3].map(Duration::from_millis).to_vec();
        assert_eq!(median(times), Duration::from_millis(3));
    }

    #[test]
    fn peak_memory_is_the_high_water_mark() -> Result<()> {
        assert_eq!(high_water("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n"), Some(2048 * 1024));
        let script = "x = bytearray(64 << 20); import time; time.sleep(0.2)";
        let peak = peak_memory(Command::new("python3").args(["-c", script]))?;
        assert!(peak > 64 << 20, "{peak}");
        Ok(())
    }

    #[test]
    fn both_sides_run_as_often_and_take_turns() -> Result<()> {
        let order = std::cell::RefCell::new(String::new());
        let side = |name: char| {
            let order = &order;
            move || -> Result<()> {
                order.borrow_mut().push(name);
                Ok(())
            }
        };
        let (ones, others) = alternate(3, side('a'), side('b'))?;
        assert_eq!((ones.len(), others.len(), order.into_inner().as_str()), (3, 3, "ababbaab"));
        Ok(())
    }

    #[test]
    fn a_command_that_fails_is_no_measurement() {
        assert!(timed(&mut Command::new("false")).is_err());
        assert!(peak_memory(&mut Command::new("false")).is_err());
    }
}
