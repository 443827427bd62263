//! Judges every point of a run, or each so manieth, on as many threads as there are processors.
//!
//! `BACKOUT_POINT=N` judges one point only, `BACKOUT_EVERY=N` each N-th, and so 1 every one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// After so many failures the rest says nothing new.
const ENOUGH: usize = 5;

/// Panics with what is wrong at which points, of which it usually plays each `stride`-th. Each thread has a place of its
/// own, which `make` makes for it.
pub fn point<T>(
    what: &str,
    points: &[usize],
    stride: usize,
    make: impl Fn() -> T + Sync,
    judge: impl Fn(&T, usize) -> Result<(), String> + Sync,
) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<usize>().expect("a number"));
    let stride = number("BACKOUT_EVERY").unwrap_or(stride).max(1);
    let points: Vec<usize> = match number("BACKOUT_POINT") {
        Some(only) => points.iter().copied().filter(|point| *point == only).collect(),
        None => points.iter().copied().step_by(stride).collect(),
    };
    eprintln!("{what}: {} points are played, each {stride}. of them", points.len());
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || {
        let mut place = None;
        while let Some(n) = points.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
            if failures.lock().unwrap().len() >= ENOUGH {
                return;
            }
            let place = place.get_or_insert_with(&make);
            let judged = catch_unwind(AssertUnwindSafe(|| judge(place, n)));
            if let Err(why) = judged.unwrap_or_else(|_| Err("it panicked, see above".to_owned())) {
                failures.lock().unwrap().push(format!("{what} at {n}; again: BACKOUT_POINT={n}\n  {why}"));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} points:\n{}", failures.len(), points.len(), failures.join("\n"));
}
