//! Entries: order, chain, transitions, deferral, the derived table, lookups.

use std::ops::ControlFlow;

use backout_journal::{Found, Journal, JournalError, Options};
use backout_model::entry::{Digest, Draft};
use backout_model::id::FramePath;
use backout_model::state::{DeploymentState, Event, FrameState, StepState};
use serde_json::{Value, json};

use crate::support::{Pinned, all, assert_sound, begun, calm, draft, frame, id, open, options, planned, step};

#[test]
fn entries_are_numbered_chained_and_read_back_as_written() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    assert_eq!(journal.append(&begun("a")).unwrap(), 4);
    assert_eq!(journal.append(&[step("a", "content", 7, Event::StepIntended)]).unwrap(), 5);
    let entries = all(journal.reader());
    assert_eq!(entries.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(entries[0].previous, Digest::ZERO);
    for pair in entries.windows(2) {
        assert_eq!(pair[1].previous, pair[0].digest().unwrap());
        assert!(pair[1].time_ms > pair[0].time_ms);
    }
    assert_eq!(entries[0].payload, planned("a", "shop").payload);
    assert_eq!((entries[4].frame.as_str(), entries[4].step), ("content", Some(7)));
    assert_eq!(entries[4].actor, "tester@here");
    assert_sound(journal.reader());
}

#[test]
fn floats_and_large_numbers_of_a_payload_come_back_the_same() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    let mut random = fastrand::Rng::with_seed(7);
    let floats: Vec<f64> = (0..2000).map(|_| f64::from_bits(random.u64(..))).filter(|f| f.is_finite()).collect();
    let payload = json!({"package": "p", "f": floats, "n": [u64::MAX, i64::MIN], "z": {"b": 1, "a": 2}});
    journal.append(&[Draft { payload: payload.clone(), ..draft("a", Event::DeploymentPlanned) }]).unwrap();
    assert_eq!(all(journal.reader())[0].payload, payload);
    assert_sound(journal.reader());
}

#[test]
fn a_payload_that_could_not_be_read_back_is_refused() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    let deep = (0..200).fold(Value::Null, |inner, _| json!([inner]));
    let refused = Draft { payload: json!({"package": "p", "deep": deep}), ..draft("a", Event::DeploymentPlanned) };
    assert!(matches!(journal.append(&[refused]), Err(JournalError::Draft { .. })));
    assert_eq!(journal.reader().last_seq().unwrap(), 0);
    journal.append(&begun("a")).unwrap();
}

#[test]
fn an_illegal_transition_of_any_scope_writes_nothing() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    let illegal = [
        vec![draft("a", Event::DeploymentDone)],
        vec![draft("b", Event::DeploymentChecking)],
        vec![planned("a", "again")],
        vec![frame("a", "", Event::FrameStarted)],
        vec![frame("a", "child", Event::FrameDone)],
        vec![step("a", "", 0, Event::StepApplied)],
        // The first two are legal: none of the three may stay, on disk or in memory.
        vec![
            step("a", "", 0, Event::StepIntended),
            step("a", "", 0, Event::StepApplied),
            step("a", "", 0, Event::StepApplied),
        ],
    ];
    for drafts in illegal {
        let error = journal.append(&drafts).unwrap_err();
        assert!(matches!(error, JournalError::Illegal { .. }), "{error}");
    }
    assert!(matches!(journal.defer(step("a", "", 0, Event::StepApplied)), Err(JournalError::Illegal { .. })));
    assert_eq!(journal.reader().last_seq().unwrap(), 4);
    assert_eq!(journal.last_seq(), 4);
    journal.append(&[step("a", "", 0, Event::StepIntended), step("a", "", 0, Event::StepApplied)]).unwrap();
    assert_sound(journal.reader());
}

#[test]
fn a_draft_that_lacks_what_its_event_needs_is_refused() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    let site = |event, payload| Draft { deployment: None, frame: FramePath::root(), step: None, event, payload };
    let bad = [
        site(Event::StepIntended, Value::Null),
        site(Event::MaintenanceLeft, Value::Null),
        site(Event::LockTaken, Value::Null),
        site(Event::LockTaken, json!({"epoch": "7"})),
        draft("a", Event::LockTaken),
        draft("a", Event::StepIntended),
        step("a", "", 0, Event::FrameDone),
        step("a", "", 0, Event::ImagesDropped),
        Draft { payload: json!({"version": "1"}), ..draft("b", Event::DeploymentPlanned) },
    ];
    for draft in bad {
        let error = journal.append(std::slice::from_ref(&draft)).unwrap_err();
        assert!(matches!(error, JournalError::Draft { .. }), "{draft:?}: {error}");
    }
    assert_eq!(journal.reader().last_seq().unwrap(), 4);
    assert_sound(journal.reader());
}

#[test]
fn states_of_frames_and_steps_survive_reopening() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    journal.append(&[frame("a", "c", Event::FrameStarted), step("a", "c", 2, Event::StepIntended)]).unwrap();
    drop(journal);
    let mut journal = open(state.path());
    assert!(matches!(journal.append(&[step("a", "c", 2, Event::StepIntended)]), Err(JournalError::Illegal { .. })));
    journal.append(&[step("a", "c", 2, Event::StepApplied)]).unwrap();
    let states = journal.states(&id("a")).unwrap().clone();
    assert_eq!(states.deployment, Some(DeploymentState::Applying));
    assert_eq!(states.frames[&FramePath::parse("c")], FrameState::Started);
    assert_eq!(states.steps[&(FramePath::parse("c"), 2)], StepState::Applied);
    assert_eq!(journal.reader().states(&id("a")).unwrap(), states);
}

#[test]
fn what_is_deferred_has_its_place_at_once_and_is_durable_with_the_next_append() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    journal.defer(step("a", "", 0, Event::StepIntended)).unwrap();
    journal.defer(step("a", "", 0, Event::StepApplied)).unwrap();
    assert_eq!((journal.last_seq(), journal.reader().last_seq().unwrap()), (6, 4));
    assert_eq!(journal.append(&[step("a", "", 1, Event::StepIntended)]).unwrap(), 7);
    assert_eq!(journal.reader().last_seq().unwrap(), 7);
    journal.defer(step("a", "", 1, Event::StepApplied)).unwrap();
    journal.flush().unwrap();
    assert_eq!(journal.reader().last_seq().unwrap(), 8);
    // A refused append leaves what was deferred before it deferred.
    journal.defer(step("a", "", 2, Event::StepIntended)).unwrap();
    assert!(journal.append(&[draft("a", Event::DeploymentDone)]).is_err());
    assert_eq!(journal.reader().last_seq().unwrap(), 8);
    assert_eq!(journal.append(&[]).unwrap(), 9);
    assert_eq!(journal.reader().last_seq().unwrap(), 9);
    assert_sound(journal.reader());
}

#[test]
fn many_deferred_entries_do_not_pile_up_in_memory() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    for number in 0..5000 {
        journal.defer(step("a", "", number, Event::StepIntended)).unwrap();
    }
    assert!(journal.reader().last_seq().unwrap() >= 4000);
    journal.flush().unwrap();
    assert_eq!(journal.reader().last_seq().unwrap(), 5004);
    assert_sound(journal.reader());
}

#[test]
fn time_never_goes_back() {
    calm();
    let state = tempfile::tempdir().unwrap();
    Journal::open(state.path(), options().clock(Box::new(Pinned(5000)))).unwrap().append(&begun("a")).unwrap();
    let mut journal = Journal::open(state.path(), options().clock(Box::new(Pinned(10)))).unwrap();
    journal.append(&[step("a", "", 0, Event::StepIntended)]).unwrap();
    assert!(all(journal.reader()).iter().all(|entry| entry.time_ms == 5000));
}

#[test]
fn deployments_are_listed_newest_first_with_what_their_entries_say() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    journal
        .append(&[
            draft("a", Event::DeploymentVerifying),
            draft("a", Event::DeploymentDone),
            draft("a", Event::FinallyRan),
        ])
        .unwrap();
    journal.append(&begun("b")).unwrap();
    let rows = journal.reader().deployments().unwrap();
    assert_eq!(rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>(), [id("b"), id("a")]);
    let a = &rows[1];
    assert_eq!((a.package.as_str(), a.version.as_str(), a.actor.as_str()), ("shop", "1.10", "tester@here"));
    assert_eq!((a.first_seq, a.state_seq, a.last_seq), (1, 6, 7));
    assert!(a.started_ms < a.state_ms && a.state_ms < a.last_ms);
    assert_eq!((a.state, &a.info), (DeploymentState::Done, &json!({"steps": 2})));
    assert_eq!(journal.reader().newest(1).unwrap(), rows[..1]);
    assert_eq!(journal.reader().unfinished().unwrap(), Some(rows[0].clone()));
    assert_eq!(journal.reader().deployment(&id("a")).unwrap(), Some(rows[1].clone()));
    journal.append(&[draft("b", Event::DeploymentVerifying), draft("b", Event::DeploymentDone)]).unwrap();
    assert_eq!(journal.reader().unfinished().unwrap(), None);
    let mut seqs = Vec::new();
    journal
        .reader()
        .entries(&id("b"), &mut |entry| {
            seqs.push(entry.seq);
            if seqs.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seqs, [8, 9, 10]);
}

#[test]
fn a_prefix_finds_one_several_or_none() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    for name in ["abczzzzzzzzz", "abcaaaaaaaaa", "abd000000000", "b00000000000"] {
        journal.append(&[planned(name, "p")]).unwrap();
    }
    let reader = journal.reader();
    let one = |prefix: &str| match reader.find(prefix).unwrap() {
        Found::One(row) => row.id.to_string(),
        other => panic!("{prefix}: {other:?}"),
    };
    assert_eq!(one("b"), "b00000000000");
    assert_eq!(one("abd"), "abd000000000");
    assert_eq!(one("abczzzzzzzzz"), "abczzzzzzzzz");
    match reader.find("abc").unwrap() {
        Found::Many(rows) => assert_eq!(rows.len(), 2),
        other => panic!("{other:?}"),
    }
    for none in ["", "c", "ABC", "%", "abczzzzzzzzzz", "ab'"] {
        assert_eq!(reader.find(none).unwrap(), Found::None, "{none}");
    }
}

#[test]
fn epochs_only_rise() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    assert_eq!(journal.last_epoch(), 0);
    journal.record_epoch(5, json!({"host": "here"})).unwrap();
    for low in [0, 4, 5, u64::MAX] {
        assert!(matches!(journal.record_epoch(low, Value::Null), Err(JournalError::Draft { .. })), "{low}");
    }
    assert!(journal.record_epoch(6, json!([1])).is_err());
    assert_eq!((journal.last_epoch(), journal.reader().last_epoch().unwrap()), (5, 5));
    assert_eq!(all(journal.reader())[0].payload, json!({"epoch": 5, "host": "here"}));
    drop(journal);
    let mut journal = open(state.path());
    assert!(journal.record_epoch(5, Value::Null).is_err());
    journal.record_epoch(9, Value::Null).unwrap();
    assert_eq!(Journal::read(state.path()).unwrap().last_epoch().unwrap(), 9);
    assert_sound(journal.reader());
}

#[test]
fn a_reader_sees_each_append_of_a_writer_and_keeps_its_view_while_it_reads() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    let reader = Journal::read(state.path()).unwrap();
    let mut seen = 0;
    reader
        .all_entries(1, &mut |_| {
            seen += 1;
            journal.append(&[step("a", "", seen, Event::StepIntended)]).unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, 4);
    assert_eq!(reader.last_seq().unwrap(), 8);
    assert_sound(&reader);
}

#[test]
fn a_journal_can_be_moved_to_another_thread() {
    fn movable<T: Send>(_: &T) {}
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(state.path(), Options::new("a@b")).unwrap();
    movable(&journal);
    movable(&journal.images().unwrap());
    movable(&Journal::read(state.path()).unwrap());
}
