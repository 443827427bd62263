//! Runs statements that change the schema, keeps what their undo and redo need, undoes them and runs them again.
//!
//! What a statement did is read from the catalogs, never from its text: a DO block or a function is seen like a plain
//! ALTER. Tables that it drops are moved aside in constant time. Rows that other statements change are captured
//! elsewhere; nothing here ends or begins a transaction.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use backout_model::target::{Refusal, TargetError};

use super::catalog::{self, Kind, Object, Wanted};
use super::ddl_turn::TurnError;
pub use super::drawn::Drawn;
pub use super::event_triggers::EventTriggers;
pub use super::gone::Gone;
use super::prepared::{self, Client};
use super::{
    catalog_changes, ddl_attach, ddl_attributes, ddl_hold, ddl_keep, ddl_labels, ddl_names, ddl_observe, ddl_settings,
    drawn, needs, refreshed,
};

pub use super::ddl_event::{Change, DdlEvent};
pub use super::ddl_keep::Keep;
pub use super::ddl_redo::redo;
pub use super::ddl_undo::undo;

/// One statement of a script.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    pub line: u32,
    pub sql: &'a str,
}

/// What a schema change works on.
pub struct Context<'a> {
    pub client: &'a mut Client,
    /// `backout_<site>`: how the names of the tool's own schemas begin.
    pub prefix: &'a str,
    /// `database main`.
    pub target: &'a str,
    /// The server's major version.
    pub version: u32,
    pub event_triggers: &'a EventTriggers,
    /// The number of the next hold.
    pub next_hold: &'a mut u64,
    pub keep: &'a mut dyn Keep,
    /// Tables that the same step made and dropped: what they hold when that goes back is its own.
    pub passing: &'a [String],
    /// Sequences to put back before a statement runs another time.
    pub drawn: &'a [Drawn],
    /// Where an undo that is tried tells what is as it is to be already.
    pub already: Option<&'a mut Conflicts>,
    /// What an undo was to take away and others had.
    pub gone: &'a mut Gone,
    /// The numbers in the images are those of this database.
    pub knows_numbers: bool,
    /// An undo that is tried before the step commits: it locks and rewrites no table beyond those of the step.
    pub proof: bool,
}

impl Context<'_> {
    /// A conflict about one object of the schema.
    pub(super) fn conflict(&self, object: String, kind: ConflictKind, left: String, now: String) -> Conflict {
        Conflict {
            target: self.target.to_owned(),
            object,
            key: None,
            column: None,
            kind,
            before: String::new(),
            left,
            now,
        }
    }

    /// Tells what is as it is to be already, where somebody asked.
    pub(super) fn already(&mut self, conflict: Conflict) {
        if let Some(already) = &mut self.already {
            already.push(conflict);
        }
    }

    pub(super) fn cannot(&self, act: &str, error: impl Into<TurnError>) -> TargetError {
        TargetError::failed(format!("cannot {act} in {}", self.target), error.into())
    }
}

/// `line 3: ALTER TABLE …`, shortened.
pub(super) fn placed(statement: Statement<'_>) -> String {
    const SHOWN: usize = 80;
    let words: Vec<&str> = statement.sql.split_whitespace().collect();
    let text = words.join(" ");
    let short: String = text.chars().take(SHOWN).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("line {}: {short}{dots}", statement.line)
}

fn refusal(statement: Statement<'_>, why: String) -> TargetError {
    let placed = placed(statement);
    let (place, what) = placed.split_once(": ").unwrap_or((&placed, ""));
    TargetError::Refused(Refusal {
        place: place.to_owned(),
        what: what.to_owned(),
        why,
        ways_out: vec![
            "give the step an undo script of your own (`undo: FILE`)".to_owned(),
            "declare `undo: none` with `because:` and deploy with `--accept-irreversible`".to_owned(),
        ],
    })
}

const SAVEPOINT: &str = "backout_ddl";

/// Runs a statement that may change the schema, as it would run if dropped tables were gone and not held: what only
/// they use can be dropped, too. See `run_once`.
pub fn run(context: &mut Context<'_>, statement: Statement<'_>) -> Result<DdlEvent, TargetError> {
    if !ddl_names::starts_with(statement.sql, "DROP") || *context.next_hold <= 1 {
        return run_once(context, statement);
    }
    let failed = |error: postgres::Error| TargetError::failed(format!("cannot run {}", placed(statement)), error);
    context.client.batch_execute("SAVEPOINT backout_drop").map_err(failed)?;
    let (error, only_held) = match run_once(context, statement) {
        Ok(event) => {
            context.client.batch_execute("RELEASE SAVEPOINT backout_drop").map_err(failed)?;
            return Ok(event);
        }
        Err(error) => {
            let only_held = ddl_hold::keep_only_held(context.prefix, &error);
            (error, only_held)
        }
    };
    if !only_held {
        return Err(error);
    }
    context
        .client
        .batch_execute("ROLLBACK TO SAVEPOINT backout_drop; RELEASE SAVEPOINT backout_drop")
        .map_err(failed)?;
    let cascading = ddl_hold::cascading(statement.sql);
    let event = run_once(context, Statement { sql: &cascading, ..statement })?;
    Ok(DdlEvent { sql: statement.sql.to_owned(), ..event })
}

/// Runs a statement that may change the schema and captures what its undo needs. After an error the transaction may
/// hold a part of it and must be rolled back.
fn run_once(context: &mut Context<'_>, statement: Statement<'_>) -> Result<DdlEvent, TargetError> {
    let failed = |error: postgres::Error| TargetError::failed(format!("cannot run {}", placed(statement)), error);
    let version = context.version;
    // What stands in the text was looked at before anything ran.
    let hidden = !ddl_names::is_ddl(statement.sql);
    context.client.went_back();
    let members = if hidden { catalog_changes::members(context.client).map_err(failed)? } else { None };
    let (names, question) = ddl_settings::question(version);
    let (mark, values) = catalog_changes::mark_and_ask(context.client, SAVEPOINT, &question).map_err(failed)?;
    let mut event = DdlEvent {
        line: statement.line,
        sql: statement.sql.to_owned(),
        settings: names.into_iter().map(str::to_owned).zip(values).collect(),
        ..DdlEvent::default()
    };
    // What the text names is likely what changes: to know it beforehand saves a second run.
    let named = ddl_names::named(context.client, statement.sql).map_err(failed)?;
    let known =
        if named.is_empty() { Vec::new() } else { catalog::read(context.client, &named, version).map_err(failed)? };
    let mut needs = needs::before(context.client, &known).map_err(failed)?;
    event.refreshed = refreshed::before(context.client, statement.sql, &known).map_err(failed)?;
    prepared::unpin(context.client).map_err(failed)?;
    let written_before = context.event_triggers.written(context.client).map_err(failed)?;
    drawn::put_back(context.client, context.drawn).map_err(failed)?;
    context.client.batch_execute(statement.sql).map_err(failed)?;
    let written = context.event_triggers.written(context.client).map_err(failed)?;
    let touched = catalog_changes::since(context.client, &mark).map_err(failed)?;
    if hidden && members != catalog_changes::members(context.client).map_err(failed)? {
        return Err(refusal(statement, "it changes what belongs to an extension, from within".to_owned()));
    }
    if touched.is_nothing() {
        prepared::unpin(context.client).map_err(failed)?;
        return Ok(event);
    }
    let is_known = |key: catalog::Key| known.iter().any(|object| object.key == Some(key));
    let one_run = touched.only_makes_beyond(is_known);
    let seen = ddl_observe::see(context.client, touched, version).map_err(failed)?;
    check_known(statement, &seen)?;
    let made: Vec<&Object> = seen.after.iter().filter(|object| object.key.is_some_and(|key| !is_known(key))).collect();
    if let Some(why) = context.event_triggers.objection(&written_before, &written, &made, false) {
        return Err(refusal(statement, why));
    }
    if one_run {
        let written = |object: &Object| object.key.is_some_and(|key| seen.touched.written.contains(&key));
        let before: Vec<Object> = known.iter().filter(|object| written(object)).cloned().collect();
        let files = ddl_keep::rewritten(&known, &seen.after);
        let changes = ddl_observe::differences(before, seen.after.clone());
        if !ddl_keep::destroys(&changes, &files, statement.sql) {
            check_handled(context, statement, &changes)?;
            // The savepoint goes with the one around it.
            event.changes = changes;
            event.given = refreshed::given(context.client, &event).map_err(failed)?;
            event.note_names(context.client, needs).map_err(failed)?;
            prepared::unpin(context.client).map_err(failed)?;
            return Ok(event);
        }
    }
    context.client.batch_execute(&format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}")).map_err(failed)?;
    context.client.went_back();
    let before = ddl_observe::before(context.client, &seen, version).map_err(failed)?;
    if let Some(what) = before.unhandled.first() {
        return Err(refusal(statement, format!("{what} cannot be brought back")));
    }
    let files = ddl_keep::rewritten(&before.objects, &seen.after);
    if ddl_names::starts_with(statement.sql, "TRUNCATE") {
        event.emptied = files.iter().filter_map(|table| Some(table.key?.oid)).collect();
    }
    let all = before.objects.clone();
    needs = needs::before(context.client, &all).map_err(failed)?;
    let whole: Vec<Object> =
        before.objects.into_iter().filter(|object| object.key.is_none_or(|key| !before.less.contains(&key))).collect();
    let changes = ddl_observe::differences(whole, seen.after);
    check_handled(context, statement, &changes)?;
    for change in &changes {
        let (Some(table), after) = (&change.before, &change.after) else { continue };
        let leaves = after.as_ref().is_none_or(|after| after.part("partition of").is_none());
        if table.kind == Kind::Table
            && leaves
            && let Some(why) = ddl_attach::objection(context.client, table).map_err(failed)?
        {
            return Err(refusal(statement, why));
        }
    }
    let keeping = ddl_keep::keep_before(context, statement, &changes, &files)
        .map_err(|error| ddl_keep::explained(error, |why| refusal(statement, why)))?;
    if ddl_hold::any(&changes) {
        if !ddl_names::starts_with(statement.sql, "DROP") {
            return Err(refusal(statement, "it drops a table or sequence from within another statement".into()));
        }
        if let Some(why) = context.event_triggers.objection(&written_before, &written, &[], true) {
            return Err(refusal(statement, why));
        }
        ddl_hold::drop_aside(context, changes, &mut event).map_err(|error| match error {
            TurnError::Stuck { what, why } => refusal(statement, format!("{what}: {why}")),
            other => TargetError::failed(format!("cannot run {}", placed(statement)), other),
        })?;
    } else {
        // Where the rest of this fails, all of the transaction goes back.
        let mark = catalog_changes::mark(context.client, SAVEPOINT).map_err(failed)?;
        drawn::put_back(context.client, context.drawn).map_err(failed)?;
        context.client.batch_execute(statement.sql).map_err(failed)?;
        let touched = catalog_changes::since(context.client, &mark).map_err(failed)?;
        let keys = touched.written.iter().copied().chain(all.iter().filter_map(|object| object.key)).collect();
        let again = catalog::read(context.client, &Wanted::of(keys), version).map_err(failed)?;
        prepared::unpin(context.client).map_err(failed)?;
        event.changes = ddl_observe::differences(all, again);
        let outline = ddl_observe::outline(&changes);
        if !ddl_observe::outline(&event.changes).is_superset(&outline) {
            return Err(refusal(statement, "run twice it does not do the same".into()));
        }
        context.client.batch_execute(&format!("RELEASE SAVEPOINT {SAVEPOINT}")).map_err(failed)?;
    }
    event.kept = ddl_keep::keep_after(context, keeping)?;
    event.given = refreshed::given(context.client, &event).map_err(failed)?;
    event.note_names(context.client, needs).map_err(failed)?;
    context.client.batch_execute(&format!("RELEASE SAVEPOINT {SAVEPOINT}")).map_err(failed)?;
    Ok(event)
}

fn check_known(statement: Statement<'_>, seen: &ddl_observe::Seen) -> Result<(), TargetError> {
    let extension = seen.after.iter().any(|object| object.kind == Kind::Extension);
    if let Some(what) = seen.touched.unhandled.first().filter(|_| !extension) {
        return Err(refusal(statement, format!("{what} is not handled yet")));
    }
    match seen.touched.unknown.first() {
        Some(catalog) if catalog.starts_with("pg_largeobject") => {
            Err(refusal(statement, "it changes large objects, which are not captured".to_owned()))
        }
        Some(catalog) if !extension => {
            Err(refusal(statement, format!("it writes {catalog}, whose objects are not handled yet")))
        }
        _ => Ok(()),
    }
}

/// What could not go back once it is done is refused while it can be taken back as a whole.
fn check_handled(context: &mut Context<'_>, statement: Statement<'_>, changes: &[Change]) -> Result<(), TargetError> {
    let in_use = ddl_attributes::in_use(context.client, changes);
    if let Some(why) = in_use.map_err(|error| context.cannot("read the catalogs", error))? {
        return Err(refusal(statement, why));
    }
    for change in changes {
        if let (Some(before), Some(after)) = (&change.before, &change.after)
            && ddl_labels::grew(before, after)
            && let Some(why) = ddl_labels::obstacle(context.client, after)
                .map_err(|error| context.cannot("read the catalogs", error))?
        {
            let why = format!("a label cannot be taken out of {} again: {why}", before.shown());
            return Err(refusal(statement, why));
        }
        let why = match (&change.before, &change.after) {
            (Some(before), None) if before.kind == Kind::Extension => "an extension's objects cannot be brought back",
            // Two columns of one name: the values of the first are gone, and its place.
            (Some(before), Some(after)) if ddl_observe::is_another_column(before, after) => {
                "it drops a column and adds another of the same name; do that by two statements"
            }
            (Some(before), Some(_)) if before.kind == Kind::Extension => "an extension's old version cannot come back",
            (Some(before), Some(after))
                if before.part("from parent").is_some() && after.part("from parent").is_none() =>
            {
                "a column that was a parent's becomes the table's own for good"
            }
            (Some(before), Some(after))
                if before.kind == Kind::MaterializedView
                    && before.part("file") != after.part("file")
                    && before.part("empty").is_none()
                    && !["ALTER", "REFRESH"].iter().any(|verb| ddl_names::starts_with(statement.sql, verb)) =>
            {
                "the rows that a materialized view held cannot be brought back; a command of `finally:` refreshes it after an undo, too"
            }
            _ => continue,
        };
        return Err(refusal(statement, why.to_owned()));
    }
    Ok(())
}
