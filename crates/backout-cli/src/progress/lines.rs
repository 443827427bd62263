//! Progress where stderr is no terminal: a line every ten seconds, from a thread of its own, because a long
//! statement or command tells nothing while it runs.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Standing;
use crate::ui::Ui;

const EVERY: Duration = Duration::from_secs(10);

pub struct Lines {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// None: nothing is to be shown.
    standing: Option<Standing>,
    ended: bool,
}

impl Lines {
    pub fn new(ui: Ui) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        // Without a thread to be had there are no lines; the work does not need them.
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(move || theirs.tick(&ui)).ok();
        Self { shared, thread }
    }

    /// Changes what is shown.
    pub fn show(&mut self, change: impl FnOnce(&mut Standing)) {
        change(self.shared.lock().standing.get_or_insert_with(Standing::default));
    }

    /// Shows nothing until something changes again.
    pub fn clear(&mut self) {
        self.shared.lock().standing = None;
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            // A panic there has already ended the process.
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self, ui: &Ui) {
        let began = Instant::now();
        let mut state = self.lock();
        let mut next = EVERY;
        while !state.ended {
            let left = next.saturating_sub(began.elapsed());
            if left.is_zero() {
                next += EVERY;
                if let Some(line) = state.standing.as_ref().map(Standing::line).filter(|line| !line.is_empty()) {
                    drop(state);
                    ui.stderr(&format!("{:>4} s  {line}", began.elapsed().as_secs()));
                    state = self.lock();
                }
                continue;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
