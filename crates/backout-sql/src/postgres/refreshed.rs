//! Materialized views that a step filled anew. What a view held lies nowhere else, and no statement writes to a view: a
//! REFRESH is taken back by another one, once all rows of the step are back. Where that does not give what the view held,
//! because it was not fresh, the step is refused.

use std::collections::BTreeSet;

use postgres::Error;

use super::catalog::{self, Kind, Object};
use super::ddl::DdlEvent;
use super::ddl_names::starts_with;
use super::ddl_observe::pinned;
use super::ddl_turn;
use super::prepared::Client;
use super::stream::Event;
use serde::{Deserialize, Serialize};

/// A view that a statement filled anew, and what it held before: see [`content`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refreshed {
    /// By its qualified name at that time.
    pub view: String,
    pub held: Option<String>,
    /// Its number, within the step.
    #[serde(skip)]
    pub oid: u32,
}

/// What a view held once a statement had filled it: see [`content`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Given {
    /// By its qualified name at that time.
    pub view: String,
    pub content: Option<String>,
}

/// What the views hold that a statement just filled.
pub(super) fn given(client: &mut Client, event: &DdlEvent) -> Result<Vec<Given>, Error> {
    let views = views_filled(event).into_iter();
    let content = |view: &str| {
        let content = pinned(client, |client| content(client, view))?;
        Ok(Given { view: view.to_owned(), content })
    };
    views.map(content).collect()
}

/// The views that a statement filled, because it made them or was told to.
fn views_filled(event: &DdlEvent) -> BTreeSet<&str> {
    let fills = |before: Option<&Object>, after: &Object| {
        after.kind == Kind::MaterializedView
            && after.part("empty").is_none()
            && before.is_none_or(|before| before.part("file") != after.part("file"))
    };
    let changes = event.changes.iter().filter_map(|change| Some((change.before.as_ref(), change.after.as_ref()?)));
    let made = changes.filter(|(before, after)| fills(*before, after)).map(|(_, after)| after.id());
    let emptied = |view: &str| {
        let mut after = event.changes.iter().filter_map(|change| change.after.as_ref());
        after.any(|object| object.id() == view && object.part("empty").is_some())
    };
    let told = event.refreshed.iter().map(|one| one.view.as_str()).filter(|view| !emptied(view));
    made.chain(told).collect()
}

/// The view that the statement is about to fill anew. One that is empty is emptied again by its definition.
pub(super) fn before(client: &mut Client, sql: &str, known: &[Object]) -> Result<Vec<Refreshed>, Error> {
    if !starts_with(sql, "REFRESH") {
        return Ok(Vec::new());
    }
    let views = known.iter().filter(|object| object.kind == Kind::MaterializedView && object.part("empty").is_none());
    let mut found = Vec::new();
    for (view, key) in views.filter_map(|view| Some((view.id(), view.key?))) {
        let held = pinned(client, |client| content(client, view))?;
        found.push(Refreshed { view: view.to_owned(), held, oid: key.oid });
    }
    Ok(found)
}

/// All rows of a relation, in whatever order, in short. They read as the session's settings say.
pub(super) fn content(client: &mut Client, relation: &str) -> Result<Option<String>, Error> {
    let sql = format!(
        "SELECT pg_catalog.format('%s %s', pg_catalog.count(*), pg_catalog.sum(pg_catalog.hashtextextended(x::pg_catalog.text, 0)))
         FROM {relation} AS x"
    );
    Ok(catalog::column(client, &sql)?.into_iter().flatten().next())
}

/// What a view was called before the first of these changes; none where one of them made it.
fn origin<'a>(events: &'a [Event], view: &'a str) -> Option<&'a str> {
    let changes = events.iter().rev().filter_map(|event| match event {
        Event::Ddl { event, .. } => Some(event),
        Event::Rows { .. } | Event::Statements { .. } => None,
    });
    changes.into_iter().try_fold(view, |name, event| event.origin(name))
}

/// The views that a step filled anew, by their names before it, with what they held then; but for those that it made or
/// found empty.
pub(super) fn of_step(events: &[Event]) -> Vec<Refreshed> {
    let mut found: Vec<Refreshed> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let Event::Ddl { event, .. } = event else { continue };
        for one in &event.refreshed {
            if let Some(view) = origin(&events[..at], &one.view)
                && !found.iter().any(|other| other.view == view)
                && !was_empty(&events[..at], view)
            {
                found.push(Refreshed { view: view.to_owned(), ..one.clone() });
            }
        }
    }
    found
}

/// True where one of these changes filled a view, by its name before them, that held nothing.
fn was_empty(events: &[Event], view: &str) -> bool {
    events.iter().enumerate().any(|(at, event)| {
        let Event::Ddl { event, .. } = event else { return false };
        let mut before = event.changes.iter().filter_map(|change| change.before.as_ref());
        before.any(|object| object.part("empty").is_some() && origin(&events[..at], object.id()) == Some(view))
    })
}

/// A view that holds rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub name: String,
    oid: u32,
    /// Another one each time that it is filled.
    file: String,
}

/// All views that hold rows, those first that others build on; none where the step altered nothing.
pub(super) fn all(client: &mut Client, events: &[Event]) -> Result<Vec<View>, Error> {
    if !events.iter().any(|event| matches!(event, Event::Ddl { event, .. } if event.alters())) {
        return Ok(Vec::new());
    }
    that_hold_rows(client)
}

fn that_hold_rows(client: &mut Client) -> Result<Vec<View>, Error> {
    // A view is younger than those that it reads.
    let sql =
        "SELECT oid, pg_catalog.format('%I.%I', relnamespace::pg_catalog.regnamespace::text, relname), relfilenode
         FROM pg_catalog.pg_class WHERE relkind = 'm' AND relispopulated AND relpersistence <> 't' ORDER BY oid";
    let rows = catalog::rows(client, sql)?.into_iter();
    Ok(rows.map(|row| View { oid: row[0].parse().unwrap_or(0), name: row[1].clone(), file: row[2].clone() }).collect())
}

/// What [`fill`] did.
#[derive(Default)]
pub(super) struct Filled {
    /// The views by their numbers.
    pub views: Vec<u32>,
    /// What is to be told of them.
    pub notes: Vec<String>,
    /// The views that their queries fail to fill, and why.
    pub failed: Vec<(String, String)>,
}

/// Fills views once more when all rows of a step are back: those that the step had filled, and those that were made anew
/// on the way, before what they read was as it is now. `before`: the views as the step had left them. One that others emptied
/// since is theirs. Without `before`, when a step is done again: see [`fill_again`].
pub(super) fn fill(client: &mut Client, events: &[Event], before: Option<&[View]>) -> Result<Filled, Error> {
    let Some(before) = before else { return fill_again(client, events) };
    let mut filled = Filled::default();
    let now = all(client, events)?;
    let of_step = of_step(events);
    let rows_came_later = events.iter().any(|event| matches!(event, Event::Rows { .. }));
    for view in now.iter().filter(|view| !before.iter().any(|old| old.is_same(view)) || is_of(&of_step, view)) {
        let name = &view.name;
        if (is_of(&of_step, view) || rows_came_later) && !filled.one(client, view)? {
            continue;
        }
        if is_of(&of_step, view) || before.iter().any(|old| old.name == *name) {
            filled.notes.push(filled_anew(name));
        }
    }
    Ok(filled)
}

/// Fills views once more when all rows of a redone step are there: its statements filled them before these came. What
/// is not as the first run of the statement left it is told.
fn fill_again(client: &mut Client, events: &[Event]) -> Result<Filled, Error> {
    let mut filled = Filled::default();
    let given: Vec<(usize, Given)> = events
        .iter()
        .enumerate()
        .filter_map(|(at, event)| match event {
            Event::Ddl { event, .. } => Some(given_by(event).into_iter().map(move |one| (at, one))),
            Event::Rows { .. } | Event::Statements { .. } => None,
        })
        .flatten()
        .collect();
    if given.is_empty() {
        return Ok(filled);
    }
    let rows_came_later = events.iter().any(|event| matches!(event, Event::Rows { .. }));
    for view in that_hold_rows(client)? {
        let is_it = |(at, one): &&(usize, Given)| origin(&events[at + 1..], &view.name) == Some(one.view.as_str());
        let Some((_, last)) = given.iter().rfind(is_it) else { continue };
        let is_as_given = |client: &mut Client| {
            let now = pinned(client, |client| content(client, &view.name))?;
            Ok::<bool, Error>(now == last.content)
        };
        if is_as_given(client)? || rows_came_later && !filled.one(client, &view)? {
            continue;
        }
        if !is_as_given(client)? {
            filled.notes.push(filled_anew(&view.name));
        }
    }
    Ok(filled)
}

/// What a change of the schema gave to views. Of images that do not say what, no more than to which.
fn given_by(event: &DdlEvent) -> Vec<Given> {
    if !event.given.is_empty() {
        return event.given.clone();
    }
    let views = views_filled(event).into_iter();
    views.map(|view| Given { view: view.to_owned(), content: None }).collect()
}

impl Filled {
    /// Fills one; false where its query fails.
    fn one(&mut self, client: &mut Client, view: &View) -> Result<bool, Error> {
        self.views.push(view.oid);
        match ddl_turn::attempt(client, &format!("REFRESH MATERIALIZED VIEW {}", view.name)) {
            Ok(()) => Ok(true),
            // What may pass is no reason to leave it as it is.
            Err(error) if client.is_closed() || ddl_turn::is_fatal(&error) => Err(error),
            Err(error) => {
                self.failed.push((format!("materialized view {}", view.name), ddl_turn::reason(&error)));
                Ok(false)
            }
        }
    }
}

fn filled_anew(view: &str) -> String {
    format!("materialized view {view} was filled anew, with what its query gives now")
}

fn is_of(step: &[Refreshed], view: &View) -> bool {
    step.iter().any(|one| one.view == view.name)
}

impl View {
    fn is_same(&self, other: &Self) -> bool {
        self.oid == other.oid && self.file == other.file
    }
}

/// A view by its name after the step, and what it holds when the step is undone and made it anew on the way.
pub(super) struct Anew {
    name: String,
    holds: Option<String>,
}

/// What the undo of a step made of the views: why one that the step had filled is not what it was, else those that it made
/// anew, for [`is_what_it_was`]. `before`: as in [`fill`].
pub(super) fn undone(
    client: &mut Client,
    events: &[Event],
    before: &[View],
) -> Result<Result<Vec<Anew>, String>, Error> {
    let of_step = of_step(events);
    for one in &of_step {
        if pinned(client, |client| content(client, &one.view))? != one.held {
            return Ok(Err(stale(&one.view)));
        }
    }
    let mut anew = Vec::new();
    let now = all(client, events)?;
    for old in before {
        let Some(name) = origin(events, &old.name) else { continue };
        let found = now.iter().find(|view| view.name == name && !view.is_same(old));
        if let Some(view) = found.filter(|view| !of_step.iter().any(|one| one.view == view.name)) {
            let holds = pinned(client, |client| content(client, &view.name))?;
            anew.push(Anew { name: old.name.clone(), holds });
        }
    }
    Ok(Ok(anew))
}

/// Why a view that an undo made anew is not what it was, once that undo is taken back.
pub(super) fn is_what_it_was(client: &mut Client, anew: &[Anew]) -> Result<Option<String>, Error> {
    for one in anew {
        if pinned(client, |client| content(client, &one.name))? != one.holds {
            return Ok(Some(stale(&one.name)));
        }
    }
    Ok(None)
}

fn stale(view: &str) -> String {
    let why = "held other rows than its query gave before the step, and they cannot be brought back";
    format!("materialized view {view} {why}; refresh it by a step before")
}
