//! A clock and a source of ids that give the same in every run. Never asks the machine for either.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use backout_engine::session::Surroundings;
use backout_journal::Clock;
use backout_model::id::ID_LENGTH;

/// Milliseconds since 1970 UTC at which every test begins: 2026-01-02 03:04:05.
pub const BEGINNING_MS: i64 = 1_767_323_045_000;

/// A clock that goes on by one second whenever it is asked.
#[derive(Clone)]
pub struct Ticking(Arc<AtomicI64>);

impl Default for Ticking {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(BEGINNING_MS)))
    }
}

impl Clock for Ticking {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1000, Ordering::Relaxed)
    }
}

/// Draws ids that differ within a site and are the same from run to run.
#[derive(Clone, Default)]
pub struct Ids(Arc<AtomicU64>);

impl Ids {
    pub fn draw(&self) -> [u8; ID_LENGTH] {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::hash(&count.to_le_bytes());
        let mut bytes = [0; ID_LENGTH];
        bytes.copy_from_slice(&hash.as_bytes()[..ID_LENGTH]);
        bytes
    }
}

/// What a session of a test is given.
pub fn surroundings(clock: &Ticking, ids: &Ids) -> Surroundings {
    let ids = ids.clone();
    Surroundings {
        clock: Box::new(clock.clone()),
        actor: "tester@testkit".to_owned(),
        random: Box::new(move || ids.draw()),
    }
}
