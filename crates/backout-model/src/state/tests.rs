//! Tests of the table of states.

use super::*;

#[test]
fn a_deployment_that_fails_ends_as_it_began() {
    let way = [
        Event::DeploymentPlanned,
        Event::DeploymentChecking,
        Event::DeploymentApplying,
        Event::StepIntended,
        Event::DeploymentFailing,
        Event::DeploymentFailedClean,
    ];
    let end = way.iter().fold(None, |state, event| {
        let next = deployment(state, *event);
        assert!(next.is_some(), "{event:?} from {state:?}");
        next
    });
    assert_eq!(end, Some(DeploymentState::FailedClean));
}

#[test]
fn each_list_of_all_is_complete_and_without_doubles() {
    // The discriminant of the last one counts the others: a new one that is left out of the list shows here.
    fn distinct<T: Copy + std::hash::Hash + Eq>(all: &[T]) -> usize {
        all.iter().copied().collect::<std::collections::HashSet<_>>().len()
    }
    assert_eq!(distinct(Event::ALL), Event::EntryLost as usize + 1);
    assert_eq!(distinct(DeploymentState::ALL), DeploymentState::GivenUp as usize + 1);
    assert_eq!(distinct(FrameState::ALL), FrameState::Undone as usize + 1);
    assert_eq!(distinct(StepState::ALL), StepState::Undone as usize + 1);
}

#[test]
fn an_event_moves_only_its_own_scope() {
    for event in Event::ALL.iter().copied() {
        let frame_moves = FrameState::ALL.iter().any(|s| frame(Some(*s), event).is_some());
        let step_moves = StepState::ALL.iter().any(|s| step(Some(*s), event).is_some());
        let next = |s: &DeploymentState| deployment(Some(*s), event);
        let states = DeploymentState::ALL;
        // What is legal in some states only is of this scope, too, though it may leave them as they are.
        let somewhere = states.iter().any(|s| next(s).is_some()) && states.iter().any(|s| next(s).is_none());
        let deployment_moves = somewhere || deployment(None, event).is_some();
        assert_eq!(frame_moves, event.scope() == Scope::Frame, "{event:?}");
        assert_eq!(step_moves, event.scope() == Scope::Step, "{event:?}");
        assert_eq!(deployment_moves, event.scope() == Scope::Deployment, "{event:?}");
    }
}

#[test]
fn nothing_follows_a_clean_failure() {
    for event in
        [Event::DeploymentUndoing, Event::DeploymentApplying, Event::DeploymentDone, Event::DeploymentNeedsHand]
    {
        assert_eq!(deployment(Some(DeploymentState::FailedClean), event), None, "{event:?}");
    }
}

#[test]
fn every_state_underway_can_come_to_need_a_hand_once_changes_began() {
    use DeploymentState as S;
    for state in [S::Applying, S::Verifying, S::Failing, S::Undoing, S::Redoing, S::Retrying] {
        assert!(state.is_underway());
        assert_eq!(deployment(Some(state), Event::DeploymentNeedsHand), Some(S::NeedsHand));
    }
}

#[test]
fn a_step_is_announced_before_it_is_applied_or_undone() {
    assert_eq!(step(None, Event::StepApplied), None);
    assert_eq!(step(Some(StepState::Applied), Event::StepUndone), None);
    assert_eq!(step(Some(StepState::UndoIntended), Event::StepUndone), Some(StepState::Undone));
}
