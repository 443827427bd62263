//! Others gave a name that a step's images use to another object, or the object another name: a conflict. What has the name now
//! is nobody's to change.

use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::target::TargetError;

use super::Postgres;
use super::catalog::Object;
use super::counters::Positions;
use super::ddl::DdlEvent;
use super::ddl_undo::{Left, Undo};
use super::load::Replay;
use super::named::{self, Named, Renamed};
use super::prepared::Client;
use super::session::literal;
use super::stream::{Index, Reader, Sequence, Span, StreamError, Table};
use super::undo::Halt;

impl Postgres {
    /// The number of the marker's table: where it is another one than when images were taken, all numbers are others.
    pub(super) fn marker_number(&mut self) -> Result<Option<u32>, TargetError> {
        let Some(place) = &self.place else { return Ok(None) };
        let sql = format!("SELECT pg_catalog.to_regclass({})::pg_catalog.oid", literal(&place.object("marker")));
        let found = self.a.value(&sql).map_err(|source| self.failed("cannot read the schema of", source))?;
        Ok(found.and_then(|oid| oid.parse().ok()))
    }

    /// True where the numbers in images are those of this database.
    pub(super) fn knows_numbers(&mut self, index: &Index) -> Result<bool, TargetError> {
        Ok(index.marker.is_some() && index.marker == self.marker_number()?)
    }

    /// Why images of rows are not of what has the names now; none where they are.
    pub(super) fn namesake(
        &mut self,
        reader: &mut Reader<'_>,
        replay: &Replay<'_>,
        table: &Table,
        spans: [Span; 2],
    ) -> Result<Option<String>, Halt> {
        if !replay.knows_numbers {
            return Ok(None);
        }
        let renamed = named::renamed(&mut self.a.client, &table.names)
            .map_err(|source| self.failed("cannot read the schema of", source))?;
        if let Some(one) = renamed.iter().find(|one| one.was.label().is_none()) {
            return Ok(Some(format!("{} that the deployment knew is called {} now", one.was.shown(), one.now)));
        }
        for one in &renamed {
            let label = one.was.label().unwrap_or_default();
            if holds(reader, spans, label)? {
                return Ok(Some(format!("label {label} of {} is {} now", one.was.shown(), one.now)));
            }
        }
        Ok(None)
    }
}

/// The sequences but for those that others renamed: what has their names now is not put back. `began`: what all were called then.
pub(super) fn left_out(
    began: &Positions,
    sequences: Vec<Sequence>,
    redo: bool,
    label: &str,
    notes: &mut Vec<String>,
) -> Vec<Sequence> {
    let renamed_to = |one: &Sequence| {
        let after = (one.schema.clone(), one.name.clone());
        let name = if redo { one.was.clone().unwrap_or(after) } else { after };
        let now = began.iter().find(|(_, (oid, _))| Some(*oid) == one.oid).map(|(now, _)| now);
        now.filter(|now| **now != name).cloned()
    };
    let mut left = Vec::new();
    for one in sequences {
        match renamed_to(&one) {
            Some((schema, name)) => {
                let was = format!("{}.{}", one.schema, one.name);
                notes.push(format!("{label}: the sequence {was} is called {schema}.{name} now and stays"));
            }
            None => left.push(one),
        }
    }
    left
}

/// What a change is to alter again and others call otherwise now. Under settings that resolve names in `pg_catalog` alone.
pub(super) fn to_redo(client: &mut Client, event: &DdlEvent) -> Result<Vec<Renamed>, postgres::Error> {
    let altered = event.changes.iter().filter_map(|change| Some((change.before.as_ref()?, change.after.as_ref()?)));
    let known = altered.filter_map(|(before, after)| {
        let key = Named::of_recorded(after, &event.left)?.key;
        Some(Named { key, name: named::called(before) })
    });
    named::renamed(client, &known.collect::<Vec<_>>())
}

/// True where rows may hold a label.
fn holds(reader: &mut Reader<'_>, spans: [Span; 2], label: &str) -> Result<bool, StreamError> {
    let text = label.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).map(|text| text.replace("''", "'"));
    // COPY escapes what is not plain.
    let is_plain = |text: &String| !text.bytes().any(|byte| byte < b' ' || matches!(byte, b'\\' | b'"'));
    let Some(text) = text.filter(|text| !text.is_empty() && is_plain(text)) else { return Ok(true) };
    let mut found = false;
    for span in spans {
        reader.rows::<StreamError>(span, &mut |line| {
            found |= line.windows(text.len()).any(|part| part == text.as_bytes());
            Ok(())
        })?;
    }
    Ok(found)
}

impl Undo<'_, '_> {
    /// What the change left, or what its undo names, and others call otherwise. `found`: what has the names of what it left.
    pub(super) fn renamed(&mut self, found: &[Option<Object>]) -> Result<Vec<Renamed>, Left> {
        let DdlEvent { left, needs, .. } = self.event;
        let are_there = left.iter().all(|one| found.iter().flatten().any(|now| now.key == Some(one.key)));
        if !self.context.knows_numbers || are_there && needs.is_empty() {
            return Ok(Vec::new());
        }
        let known: Vec<Named> = left.iter().chain(needs).cloned().collect();
        Ok(named::renamed(self.context.client, &known)?)
    }

    /// Tells that others renamed an object which the change left; false where they did not.
    pub(super) fn tell_renamed(&mut self, renamed: &[Renamed], after: &Object) -> bool {
        let Some(was) = Named::of_recorded(after, &self.event.left) else { return false };
        let Some(one) = renamed.iter().find(|one| one.was == *was) else { return false };
        self.push(&after.shown(), ConflictKind::Definition, String::new(), was.name.clone(), one.words());
        true
    }

    /// Tells the rest of them; an error where they are to be overwritten: what has the name is nobody's.
    pub(super) fn tell_renamed_needs(&mut self, renamed: &[Renamed]) -> Result<(), Left> {
        let left = &self.event.left;
        let mut told: Vec<&Named> = Vec::new();
        for one in renamed.iter().filter(|one| !left.contains(&one.was)) {
            let of = one.was.name.rsplit_once(" of ").map_or("", |(_, of)| of);
            let with_it = renamed.iter().any(|other| other.was.name == of);
            if !with_it && !told.contains(&&one.was) {
                told.push(&one.was);
                self.push(&one.was.shown(), ConflictKind::Definition, String::new(), one.was.name.clone(), one.words());
            }
        }
        if !renamed.is_empty() && self.manner.on_conflict == OnConflict::Overwrite {
            return Err(Left::Target(TargetError::Conflicts(std::mem::take(self.conflicts))));
        }
        Ok(())
    }
}
