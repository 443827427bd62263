//! Which seeds a random test plays. The same ones each time, so that a commit passes or fails by what it holds and not
//! by chance; new ones where somebody looks for what nobody has seen yet.

use std::ops::Range;

/// The seeds to play: `usual` many from 1 on.
///
/// `BACKOUT_SEED=N` repeats that one, `BACKOUT_SEED=fresh` begins anywhere, `BACKOUT_RUNS=N` says how many.
///
/// # Panics
/// Where one of the two holds something else.
#[must_use]
pub fn seeds(usual: u64) -> Range<u64> {
    let seed = std::env::var("BACKOUT_SEED").ok();
    let runs = std::env::var("BACKOUT_RUNS").ok();
    let number = |name: &str, text: &str| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number"));
    let (first, otherwise) = match seed.as_deref() {
        None => (1, usual),
        Some("fresh") => (fastrand::u64(1..1 << 40), usual),
        Some(text) => (number("BACKOUT_SEED", text), 1),
    };
    let runs = runs.map_or(otherwise, |text| number("BACKOUT_RUNS", &text));
    let seeds = first..first + runs;
    eprintln!("BACKOUT_SEED={first} BACKOUT_RUNS={runs} plays these again");
    seeds
}
