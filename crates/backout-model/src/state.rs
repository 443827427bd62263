//! The one table of states and legal transitions. Live run, recovery, `verify` and the documentation all use it.
//!
//! Three scopes: a deployment, a frame (one package's execution inside it), and a step (one act on one target).
//! An entry of the journal names an event; the event moves its scope from one state to the next, or is illegal.

use serde::{Deserialize, Serialize};

/// What happened, as the journal writes it. The first word is the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The deployment exists: its package was read and its plan refused nothing.
    DeploymentPlanned,
    /// The `before:` checks of the root package run.
    DeploymentChecking,
    /// A `before:` check failed: nothing was started.
    DeploymentRefused,
    /// Steps run.
    DeploymentApplying,
    /// All steps are done, the `after:` checks run.
    DeploymentVerifying,
    /// It is to be confirmed in time, or it will be undone.
    DeploymentConfirmDue,
    DeploymentDone,
    /// Confirmed in time: it stays.
    DeploymentConfirmed,
    /// Something failed: what was done is being undone.
    DeploymentFailing,
    /// Everything was undone after a failure: the site is as it was.
    DeploymentFailedClean,
    DeploymentUndoing,
    DeploymentUndone,
    /// Some of it is undone, the rest stays: one child, or what `--on-conflict keep` left.
    DeploymentPartlyUndone,
    /// An undo stopped at a conflict and what it had undone was put back.
    DeploymentPutBack,
    DeploymentRedoing,
    /// A redo failed and what it had redone was undone again.
    DeploymentRedoStopped,
    /// A passed-over child is run again.
    DeploymentRetrying,
    /// The retried child failed again and was undone; the rest stays.
    DeploymentRetryFailed,
    DeploymentNeedsHand,
    /// A database was found set back to before it: whatever is left of it cannot be undone or redone any more.
    DeploymentGivenUp,
    /// What is kept for its undo and redo is given up: neither is offered any more.
    DeploymentPruned,

    FrameStarted,
    FrameDone,
    FrameFailing,
    /// Everything the frame did is undone after its failure; its parent hears of it now.
    FrameFailed,
    /// The frame failed and its parent goes on without it.
    FramePassedOver,
    FrameUndone,

    /// Announced: images are durable, nothing live has changed yet.
    StepIntended,
    StepApplied,
    /// Recovery found that an announced step had not taken effect, or took back what part of it had.
    StepDiscarded,
    StepUndoIntended,
    StepUndone,
    /// Its own undo kept failing, and the operator chose to go on without: what it did stays.
    StepKept,

    /// Maintenance mode is being entered; it must be left again, also after a crash.
    MaintenanceEntering,
    MaintenanceLeft,
    /// The `finally:` commands of a frame ran.
    FinallyRan,
    /// A full backup was taken before anything changes.
    BackupTaken,
    /// The lock was taken: a new epoch begins.
    LockTaken,
    /// Somebody asked for a full backup, and it was taken.
    SiteBackedUp,
    /// The site is being set back to a backup; until the next one it may be anything in between.
    SiteRestoring,
    SiteRestored,
    /// A restore that had begun took nothing back: the site is as it was before.
    SiteNotRestored,
    /// The images of an earlier entry were given up on purpose: that step cannot be undone or redone any more.
    ImagesDropped,
    /// Stands for an entry of a journal that is lost, where this one was made again from records.
    EntryLost,
}

/// What an event speaks of, and so which of the tables below judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Deployment,
    Frame,
    Step,
    /// A note within a deployment that exists: it moves no state.
    Note,
    /// The site as a whole: it belongs to no deployment.
    Site,
}

/// The state of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentState {
    Planned,
    Checking,
    Refused,
    Applying,
    Verifying,
    Done,
    Failing,
    FailedClean,
    Undoing,
    Undone,
    PartlyUndone,
    Redoing,
    Retrying,
    NeedsHand,
    GivenUp,
}

/// The state of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrameState {
    Started,
    Done,
    Failing,
    Failed,
    PassedOver,
    Undone,
}

/// The state of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Announced and not known to be applied: in doubt after a crash.
    Intended,
    Applied,
    Discarded,
    /// Its undo was announced and is not known to be complete: in doubt after a crash.
    UndoIntended,
    Undone,
}

impl Event {
    /// Every one of them, in the order of their definition.
    pub const ALL: &'static [Event] = &[
        Event::DeploymentPlanned,
        Event::DeploymentChecking,
        Event::DeploymentRefused,
        Event::DeploymentApplying,
        Event::DeploymentVerifying,
        Event::DeploymentConfirmDue,
        Event::DeploymentDone,
        Event::DeploymentConfirmed,
        Event::DeploymentFailing,
        Event::DeploymentFailedClean,
        Event::DeploymentUndoing,
        Event::DeploymentUndone,
        Event::DeploymentPartlyUndone,
        Event::DeploymentPutBack,
        Event::DeploymentRedoing,
        Event::DeploymentRedoStopped,
        Event::DeploymentRetrying,
        Event::DeploymentRetryFailed,
        Event::DeploymentNeedsHand,
        Event::DeploymentGivenUp,
        Event::DeploymentPruned,
        Event::FrameStarted,
        Event::FrameDone,
        Event::FrameFailing,
        Event::FrameFailed,
        Event::FramePassedOver,
        Event::FrameUndone,
        Event::StepIntended,
        Event::StepApplied,
        Event::StepDiscarded,
        Event::StepUndoIntended,
        Event::StepUndone,
        Event::StepKept,
        Event::MaintenanceEntering,
        Event::MaintenanceLeft,
        Event::FinallyRan,
        Event::BackupTaken,
        Event::LockTaken,
        Event::SiteBackedUp,
        Event::SiteRestoring,
        Event::SiteRestored,
        Event::SiteNotRestored,
        Event::ImagesDropped,
        Event::EntryLost,
    ];

    pub fn scope(self) -> Scope {
        match self {
            Event::DeploymentPlanned
            | Event::DeploymentChecking
            | Event::DeploymentRefused
            | Event::DeploymentApplying
            | Event::DeploymentVerifying
            | Event::DeploymentConfirmDue
            | Event::DeploymentDone
            | Event::DeploymentConfirmed
            | Event::DeploymentFailing
            | Event::DeploymentFailedClean
            | Event::DeploymentUndoing
            | Event::DeploymentUndone
            | Event::DeploymentPartlyUndone
            | Event::DeploymentPutBack
            | Event::DeploymentRedoing
            | Event::DeploymentRedoStopped
            | Event::DeploymentRetrying
            | Event::DeploymentRetryFailed
            | Event::DeploymentNeedsHand
            | Event::DeploymentGivenUp
            | Event::DeploymentPruned => Scope::Deployment,
            Event::FrameStarted
            | Event::FrameDone
            | Event::FrameFailing
            | Event::FrameFailed
            | Event::FramePassedOver
            | Event::FrameUndone => Scope::Frame,
            Event::StepIntended
            | Event::StepApplied
            | Event::StepDiscarded
            | Event::StepUndoIntended
            | Event::StepUndone
            | Event::StepKept => Scope::Step,
            Event::MaintenanceEntering
            | Event::MaintenanceLeft
            | Event::FinallyRan
            | Event::BackupTaken
            | Event::ImagesDropped => Scope::Note,
            Event::LockTaken
            | Event::EntryLost
            | Event::SiteBackedUp
            | Event::SiteRestoring
            | Event::SiteRestored
            | Event::SiteNotRestored => Scope::Site,
        }
    }
}

impl FrameState {
    /// Every one of them, in the order of their definition.
    pub const ALL: &'static [FrameState] = &[
        FrameState::Started,
        FrameState::Done,
        FrameState::Failing,
        FrameState::Failed,
        FrameState::PassedOver,
        FrameState::Undone,
    ];
}

impl StepState {
    /// Every one of them, in the order of their definition.
    pub const ALL: &'static [StepState] =
        &[StepState::Intended, StepState::Applied, StepState::Discarded, StepState::UndoIntended, StepState::Undone];
}

impl DeploymentState {
    /// Every one of them, in the order of their definition.
    pub const ALL: &'static [DeploymentState] = &[
        DeploymentState::Planned,
        DeploymentState::Checking,
        DeploymentState::Refused,
        DeploymentState::Applying,
        DeploymentState::Verifying,
        DeploymentState::Done,
        DeploymentState::Failing,
        DeploymentState::FailedClean,
        DeploymentState::Undoing,
        DeploymentState::Undone,
        DeploymentState::PartlyUndone,
        DeploymentState::Redoing,
        DeploymentState::Retrying,
        DeploymentState::NeedsHand,
        DeploymentState::GivenUp,
    ];

    /// True where the process that wrote this state must still be at work: found after a crash, it has to be resumed.
    pub fn is_underway(self) -> bool {
        use DeploymentState as S;
        match self {
            S::Planned
            | S::Checking
            | S::Applying
            | S::Verifying
            | S::Failing
            | S::Undoing
            | S::Redoing
            | S::Retrying => true,
            S::Refused | S::Done | S::FailedClean | S::Undone | S::PartlyUndone | S::NeedsHand | S::GivenUp => false,
        }
    }

    /// True where changes of the deployment are on the site.
    pub fn is_on_site(self) -> bool {
        use DeploymentState as S;
        match self {
            S::Done | S::PartlyUndone | S::NeedsHand => true,
            S::Planned
            | S::Checking
            | S::Applying
            | S::Verifying
            | S::Failing
            | S::Undoing
            | S::Redoing
            | S::Retrying
            | S::Refused
            | S::FailedClean
            | S::Undone
            | S::GivenUp => false,
        }
    }
}

/// The state of a deployment after `event`; `None` where the event is illegal there.
/// `from` is `None` before the deployment's first entry. Events of other scopes leave it as it is.
pub fn deployment(from: Option<DeploymentState>, event: Event) -> Option<DeploymentState> {
    use DeploymentState as S;
    match event {
        Event::DeploymentPlanned => match from {
            None => Some(S::Planned),
            Some(_) => None,
        },
        Event::DeploymentChecking => only(from, &[S::Planned], S::Checking),
        Event::DeploymentRefused => only(from, &[S::Planned, S::Checking], S::Refused),
        Event::DeploymentApplying => only(from, &[S::Checking], S::Applying),
        Event::DeploymentVerifying => only(from, &[S::Applying], S::Verifying),
        Event::DeploymentConfirmDue => only(from, &[S::Verifying], S::Verifying),
        Event::DeploymentConfirmed => match from {
            Some(S::Done | S::PartlyUndone) => from,
            _ => None,
        },
        Event::DeploymentDone => only(from, &[S::Verifying, S::Redoing, S::Retrying], S::Done),
        // One that was to be confirmed fails where that does not come.
        Event::DeploymentFailing => {
            only(from, &[S::Applying, S::Verifying, S::NeedsHand, S::Done, S::PartlyUndone], S::Failing)
        }
        Event::DeploymentFailedClean => only(from, &[S::Failing], S::FailedClean),
        Event::DeploymentUndoing => only(from, &[S::Done, S::PartlyUndone, S::NeedsHand], S::Undoing),
        Event::DeploymentUndone => only(from, &[S::Undoing], S::Undone),
        Event::DeploymentPartlyUndone => only(from, &[S::Undoing, S::Redoing, S::Retrying], S::PartlyUndone),
        Event::DeploymentPutBack => only(from, &[S::Undoing], S::Done),
        Event::DeploymentRedoing => only(from, &[S::Undone, S::PartlyUndone, S::NeedsHand], S::Redoing),
        Event::DeploymentRedoStopped => only(from, &[S::Redoing], S::Undone),
        Event::DeploymentRetrying => only(from, &[S::Done, S::PartlyUndone], S::Retrying),
        Event::DeploymentRetryFailed => only(from, &[S::Retrying], S::Done),
        Event::DeploymentNeedsHand => only(
            from,
            &[S::Applying, S::Verifying, S::Failing, S::Undoing, S::Redoing, S::Retrying, S::NeedsHand],
            S::NeedsHand,
        ),
        Event::DeploymentPruned => match from {
            Some(S::Done | S::PartlyUndone | S::Undone | S::FailedClean | S::GivenUp) => from,
            _ => None,
        },
        Event::DeploymentGivenUp => match from {
            None | Some(S::Refused | S::GivenUp) => None,
            Some(_) => Some(S::GivenUp),
        },
        Event::FrameStarted
        | Event::FrameDone
        | Event::FrameFailing
        | Event::FrameFailed
        | Event::FramePassedOver
        | Event::FrameUndone
        | Event::StepIntended
        | Event::StepApplied
        | Event::StepDiscarded
        | Event::StepUndoIntended
        | Event::StepUndone
        | Event::StepKept
        | Event::MaintenanceEntering
        | Event::MaintenanceLeft
        | Event::FinallyRan
        | Event::BackupTaken
        | Event::ImagesDropped => from,
        Event::LockTaken
        | Event::EntryLost
        | Event::SiteBackedUp
        | Event::SiteRestoring
        | Event::SiteRestored
        | Event::SiteNotRestored => None,
    }
}

/// The state of a frame after `event`; `None` where the event is illegal there or of another scope.
pub fn frame(from: Option<FrameState>, event: Event) -> Option<FrameState> {
    use FrameState as S;
    match event {
        Event::FrameStarted => match from {
            None | Some(S::Failed | S::PassedOver | S::Undone) => Some(S::Started),
            Some(S::Started | S::Done | S::Failing) => None,
        },
        Event::FrameDone => only(from, &[S::Started], S::Done),
        Event::FrameFailing => only(from, &[S::Started, S::Done], S::Failing),
        Event::FrameFailed => only(from, &[S::Failing], S::Failed),
        Event::FramePassedOver => match from {
            // A child that was never started is passed over when a sibling it requires was.
            None | Some(S::Failed) => Some(S::PassedOver),
            Some(S::Started | S::Done | S::Failing | S::PassedOver | S::Undone) => None,
        },
        Event::FrameUndone => only(from, &[S::Done, S::Started, S::PassedOver], S::Undone),
        _ => None,
    }
}

/// The state of a step after `event`; `None` where the event is illegal there or of another scope.
pub fn step(from: Option<StepState>, event: Event) -> Option<StepState> {
    use StepState as S;
    match event {
        Event::StepIntended => match from {
            None | Some(S::Discarded | S::Undone) => Some(S::Intended),
            Some(S::Intended | S::Applied | S::UndoIntended) => None,
        },
        // An undo that was announced and taken back leaves the step applied.
        Event::StepApplied => only(from, &[S::Intended, S::UndoIntended], S::Applied),
        Event::StepDiscarded => only(from, &[S::Intended], S::Discarded),
        Event::StepUndoIntended => only(from, &[S::Applied, S::Intended, S::UndoIntended], S::UndoIntended),
        Event::StepUndone => only(from, &[S::UndoIntended], S::Undone),
        Event::StepKept => only(from, &[S::Applied, S::UndoIntended], S::Applied),
        _ => None,
    }
}

fn only<S: Copy + PartialEq>(from: Option<S>, allowed: &[S], to: S) -> Option<S> {
    from.filter(|state| allowed.contains(state)).map(|_| to)
}

#[cfg(test)]
mod tests;
