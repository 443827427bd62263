//! An observer that remembers what it heard and lets a test act in between: an application that goes on writing, an
//! operator who stops the run.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use backout_engine::observer::{Happening, Observer};

/// What a test does when it hears something; runs between two acts of the engine.
pub type Hook = Box<dyn FnMut(&Happening) + Send>;

#[derive(Default)]
pub struct Recorder {
    pub heard: Vec<Happening>,
    hook: Option<Hook>,
    stop: Arc<AtomicBool>,
}

impl Recorder {
    pub fn with_hook(hook: impl FnMut(&Happening) + Send + 'static) -> Self {
        Self { hook: Some(Box::new(hook)), ..Self::default() }
    }

    /// Set it from a hook to play an operator's Ctrl-C.
    pub fn stopper(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Calls `hook` for everything heard from now on.
    pub fn set_hook(&mut self, hook: impl FnMut(&Happening) + Send + 'static) {
        self.hook = Some(Box::new(hook));
    }
}

impl Observer for Recorder {
    fn heard(&mut self, happening: Happening) {
        if let Some(hook) = &mut self.hook {
            hook(&happening);
        }
        self.heard.push(happening);
    }

    fn stop(&self) -> Option<Arc<AtomicBool>> {
        Some(self.stopper())
    }
}
