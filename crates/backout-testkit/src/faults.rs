//! Played crashes and failing calls at the points of the fault seam, for this thread only.
//!
//! Points are numbered from 1 in the order in which a run passes them; the same run passes the same points.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use backout_model::fault::{self, Faults, Point};

/// What happens at the chosen point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing ever: the points are counted.
    None,
    /// The process is dead from the point on: every later one fails too, so that no clean-up can have an effect.
    CrashAt(usize),
    /// The one call fails as on a full disk.
    NoSpaceAt(usize),
    /// The one call fails as on a broken disk.
    BrokenAt(usize),
}

impl Fault {
    /// Where it strikes.
    pub fn point(self) -> Option<usize> {
        match self {
            Fault::None => None,
            Fault::CrashAt(n) | Fault::NoSpaceAt(n) | Fault::BrokenAt(n) => Some(n),
        }
    }
}

struct Script {
    /// Done at a point, before the tool does its own there.
    act: Option<(usize, Box<dyn FnOnce() + Send>)>,
    fault: Fault,
    syncs: bool,
    seen: Arc<Mutex<Vec<Point>>>,
}

impl Faults for Script {
    fn at(&mut self, point: Point) -> io::Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(point);
        let now = seen.len();
        if self.act.as_ref().is_some_and(|(at, _)| *at == now)
            && let Some((_, act)) = self.act.take()
        {
            drop(seen);
            act();
        }
        match self.fault {
            Fault::CrashAt(n) if now >= n => {
                Err(io::Error::other(format!("the process is dead since point {n} (now {now}, {point:?})")))
            }
            Fault::NoSpaceAt(n) if now == n => {
                Err(io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()))
            }
            Fault::BrokenAt(n) if now == n => Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())),
            _ => Ok(()),
        }
    }

    fn syncs_issued(&self) -> bool {
        self.syncs
    }
}

/// A fault that is being played on this thread; ends when it is dropped.
#[must_use = "the fault is played only while this lives"]
pub struct Playing {
    fault: Fault,
    seen: Arc<Mutex<Vec<Point>>>,
    before: Option<Box<dyn Faults>>,
}

/// Plays a fault on this thread until the result is dropped. `syncs`: whether syncs are issued at all.
pub fn play(fault: Fault, syncs: bool) -> Playing {
    playing(fault, syncs, None)
}

/// Lets something happen around the tool at a point; the tool itself goes on. Syncs are not issued.
pub fn play_act(at: usize, act: impl FnOnce() + Send + 'static) -> Playing {
    playing(Fault::None, false, Some((at, Box::new(act))))
}

fn playing(fault: Fault, syncs: bool, act: Option<(usize, Box<dyn FnOnce() + Send>)>) -> Playing {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let before = fault::set_local(Some(Box::new(Script { act, fault, syncs, seen: Arc::clone(&seen) })));
    Playing { fault, seen, before }
}

impl Playing {
    /// The points passed so far.
    pub fn seen(&self) -> Vec<Point> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True where the fault has struck.
    pub fn struck(&self) -> bool {
        self.fault.point().is_some_and(|n| self.seen.lock().unwrap_or_else(PoisonError::into_inner).len() >= n)
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        fault::set_local(self.before.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Vec<bool> {
        (0..3).map(|_| fault::point(Point::Sync).is_ok()).collect()
    }

    #[test]
    fn the_dead_do_nothing_more_and_a_fault_strikes_once() {
        for (fault, expected) in [
            (Fault::None, [true, true, true]),
            (Fault::CrashAt(2), [true, false, false]),
            (Fault::NoSpaceAt(2), [true, false, true]),
            (Fault::BrokenAt(4), [true, true, true]),
        ] {
            let playing = play(fault, false);
            assert_eq!(three(), expected, "{fault:?}");
            assert_eq!(playing.struck(), expected.contains(&false));
            assert!(!fault::syncs_issued());
        }
        assert_eq!(three(), [true, true, true]);
        assert!(fault::syncs_issued());
    }
}
