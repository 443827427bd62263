//! Tables that a script builds anew: it makes another, fills it from the old one, drops that and takes its name.
//!
//! What the new one was filled with comes back from images. So what others did to either table while the step was done, or
//! undone, would be lost with it: a conflict.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};

use super::ddl::DdlEvent;
use super::refreshed::content;
use super::session::Session;
use super::stream::{Event, Index};

/// True where the step has made a table.
fn makes(index: &Index) -> bool {
    index.events.iter().any(|event| matches!(event, Event::Ddl { event, .. } if event.made().next().is_some()))
}

/// True where a table that the step made may have taken the place of one that it dropped.
pub fn may_replace(index: &Index) -> bool {
    let drops = |event: &Event| matches!(event, Event::Ddl { event, .. } if !event.moved.is_empty());
    makes(index) && index.events.iter().any(drops)
}

/// Notes what the tables held that were just dropped, where the step may have copied them. `index` has what the step did
/// before. What it made itself and drops again holds nothing of others'.
pub fn note(a: &mut Session, index: &Index, event: &mut DdlEvent) -> Result<(), postgres::Error> {
    if event.moved.is_empty() || !makes(index) {
        return Ok(());
    }
    note_all_but(a, &own(&index.events), event)
}

fn note_all_but(a: &mut Session, own: &[String], event: &mut DdlEvent) -> Result<(), postgres::Error> {
    let settings = a.neutral()?;
    for moved in event.moved.iter_mut().filter(|moved| moved.word == "TABLE" && !own.contains(&moved.id)) {
        moved.content = content(&mut a.client, &moved.held())?;
    }
    a.restore(settings)
}

/// The tables that changes made and that are there still, by their names after the last of them.
fn own(events: &[Event]) -> Vec<String> {
    let mut own: Vec<String> = Vec::new();
    for event in events {
        let Event::Ddl { event, .. } = event else { continue };
        own = own.iter().filter_map(|name| event.course(name).map(str::to_owned)).collect();
        own.extend(event.made().map(str::to_owned));
    }
    own
}

/// The same for all changes of a step whose index is complete.
pub fn note_all(a: &mut Session, index: &mut Index) -> Result<(), postgres::Error> {
    if !makes(index) {
        return Ok(());
    }
    for at in 0..index.events.len() {
        let own = own(&index.events[..at]);
        if let Event::Ddl { event, .. } = &mut index.events[at]
            && !event.moved.is_empty()
        {
            note_all_but(a, &own, event)?;
        }
    }
    Ok(())
}

/// Lists the tables that are to be dropped again and hold something else than they did. Under neutral settings.
pub fn compare(
    a: &mut Session,
    label: &str,
    event: &DdlEvent,
    conflicts: &mut Conflicts,
) -> Result<(), postgres::Error> {
    for moved in event.moved.iter().filter(|moved| moved.content.is_some()) {
        let there = a.value(&format!("SELECT pg_catalog.to_regclass({})", super::session::literal(&moved.id)))?;
        // That it is gone others say.
        if there.is_some() && content(&mut a.client, &moved.id)? != moved.content {
            conflicts.push(Conflict {
                target: label.to_owned(),
                object: format!("table {}", moved.id),
                key: None,
                column: None,
                kind: ConflictKind::Changed,
                before: String::new(),
                left: "the rows that the step copied".to_owned(),
                now: "other rows".to_owned(),
            });
        }
    }
    Ok(())
}
