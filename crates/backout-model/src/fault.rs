//! The fault seam: the points at which a crash or a failing call can be played.
//!
//! Every durable act of the tool (a journal write, a sync, a statement, a commit, a rename, an exchange, a link)
//! passes [`point`] first. Without the feature `faults` that is nothing at all; with it, a test counts the
//! points, stops dead at the N-th, or makes it fail once. A release build never has the feature.

use std::io;

/// What is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    JournalWrite,
    ImagesWrite,
    Sync,
    DirSync,
    Statement,
    Commit,
    /// A commit that has just succeeded and that nobody has been told of yet.
    Committed,
    Stage,
    Exchange,
    Rename,
    Link,
    Unlink,
    MakeDir,
    RemoveDir,
    SetMetadata,
    Command,
}

#[cfg(not(feature = "faults"))]
mod seam {
    use super::{Point, io};

    /// Passes; see the module's text.
    #[inline(always)]
    pub fn point(_at: Point) -> io::Result<()> {
        Ok(())
    }

    /// False: nothing is played.
    #[inline(always)]
    pub fn is_played() -> bool {
        false
    }

    /// True: syncs are issued.
    #[inline(always)]
    pub fn syncs_issued() -> bool {
        true
    }
}

#[cfg(feature = "faults")]
mod seam {
    use super::{Point, io};
    use std::cell::RefCell;
    use std::sync::Mutex;

    /// Decides what happens at a point. Set once a run by the test.
    pub trait Faults: Send {
        fn at(&mut self, point: Point) -> io::Result<()>;
        fn syncs_issued(&self) -> bool {
            true
        }
    }

    /// For all threads of the process (the crash suite, one run a process).
    static GLOBAL: Mutex<Option<Box<dyn Faults>>> = Mutex::new(None);

    thread_local! {
        /// For this thread only (the property suite, many runs side by side); goes before the global one.
        static LOCAL: RefCell<Option<Box<dyn Faults>>> = const { RefCell::new(None) };
    }

    pub fn set_global(faults: Option<Box<dyn Faults>>) {
        *GLOBAL.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = faults;
    }

    /// Sets this thread's faults and returns those that were set.
    pub fn set_local(faults: Option<Box<dyn Faults>>) -> Option<Box<dyn Faults>> {
        LOCAL.with(|slot| slot.replace(faults))
    }

    pub fn point(at: Point) -> io::Result<()> {
        let local = LOCAL.with(|slot| slot.borrow_mut().as_mut().map(|faults| faults.at(at)));
        if let Some(answer) = local {
            return answer;
        }
        match GLOBAL.lock().unwrap_or_else(std::sync::PoisonError::into_inner).as_mut() {
            Some(faults) => faults.at(at),
            None => Ok(()),
        }
    }

    /// True where somebody counts the points of this thread, which are to come in one order.
    pub fn is_played() -> bool {
        LOCAL.with(|slot| slot.borrow().is_some())
            || GLOBAL.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_some()
    }

    pub fn syncs_issued() -> bool {
        let local = LOCAL.with(|slot| slot.borrow().as_ref().map(|faults| faults.syncs_issued()));
        if let Some(answer) = local {
            return answer;
        }
        match GLOBAL.lock().unwrap_or_else(std::sync::PoisonError::into_inner).as_ref() {
            Some(faults) => faults.syncs_issued(),
            None => true,
        }
    }
}

pub use seam::*;
