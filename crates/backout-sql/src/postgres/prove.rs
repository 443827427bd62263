//! Tries the undo of a step that changed the schema before the step is announced, in its own transaction and back to a
//! savepoint. What could not be taken back later is refused now, while all of it still can.

use backout_model::conflict::OnConflict;
use backout_model::target::{Gate, Manner, Refusal, TargetError};

use super::apply::shortened;
use super::classify;
use super::load::Replay;
use super::stream::{Event, Index, Reader, Unsealed};
use super::undo::Direction;
use super::{Postgres, counters, refreshed};
use crate::database::Script;
use crate::verify;

impl Index {
    /// True where something was taken away or altered, or where rows were changed beside what they must satisfy: what
    /// was only made is dropped again, and rows alone go back as they were.
    pub(super) fn is_to_be_proven(&self) -> bool {
        let rows = self.events.iter().any(|event| matches!(event, Event::Rows { .. }));
        self.events.iter().any(|event| match event {
            Event::Ddl { event, .. } => event.alters() || rows && event.constrains(),
            Event::Rows { .. } | Event::Statements { .. } => false,
        })
    }
}

impl Postgres {
    /// Refuses the step where its undo fails.
    pub(super) fn prove(
        &mut self,
        script: &Script,
        unsealed: &mut Unsealed,
        gate: &mut dyn Gate,
    ) -> Result<(), TargetError> {
        let Some(why) = self.try_undo(unsealed, gate, true, true, &mut |_| Ok(None))? else { return Ok(()) };
        // A foreign key that is made again finds both its sides only where the rows of both are on one side of that.
        if unsealed.index.put_rows_earlier() && self.try_undo(unsealed, gate, true, true, &mut |_| Ok(None))?.is_none()
        {
            return Ok(());
        }
        let has_rows = unsealed.index.events.iter().any(|event| matches!(event, Event::Rows { .. }));
        let mut alter = unsealed.index.events.iter().filter_map(|event| match event {
            Event::Ddl { line, sql, event } if event.alters() || event.constrains() => Some((line, sql)),
            _ => None,
        });
        let (place, what) = match (alter.next(), alter.next()) {
            (Some((line, sql)), None) if !has_rows => (format!("{}:{line}", script.shown), shortened(sql)),
            _ => (script.shown.clone(), "the step as a whole".to_owned()),
        };
        Err(TargetError::Refused(Refusal {
            place,
            what,
            why: format!("its undo was tried and fails: {why}"),
            ways_out: vec![
                classify::OWN_UNDO.to_owned(),
                "make it two steps, so that the second begins where the first has ended".to_owned(),
            ],
        }))
    }

    /// Undoes what the gate has images of, in the open transaction, notes how that went, and has somebody `look` at what
    /// that leaves. Why it fails, or what was found; none where all is well. `back`: everything is as it was afterwards, whatever came of it;
    /// else only where something is not well, and sequences are put back, too. `proof`: no table is locked or rewritten beyond
    /// those of the step; labels stay in an enum.
    pub(super) fn try_undo(
        &mut self,
        unsealed: &mut Unsealed,
        gate: &mut dyn Gate,
        back: bool,
        proof: bool,
        look: &mut dyn FnMut(&mut Self) -> Result<Option<String>, TargetError>,
    ) -> Result<Option<String>, TargetError> {
        let unread = |source| TargetError::failed("cannot read back the images of the step", source);
        let end = unsealed.writer.flush().map_err(unread)?;
        let mut images = gate.written().map_err(unread)?;
        let reader = Reader::unfinished(images.as_mut(), unsealed.index.clone(), end);
        let mut reader = reader.map_err(|source| self.damaged(source))?;
        let began = if back {
            // Of a sequence it can be seen without a try, and others need it.
            reader.index.sequences.clear();
            counters::Positions::new()
        } else {
            counters::read(&mut self.a, &self.label)?
        };
        let failed = |this: &Self, source| this.failed("cannot set a savepoint in", source);
        let unread = |this: &Self, source| this.failed("cannot read the materialized views of", source);
        let views =
            refreshed::all(&mut self.a.client, &unsealed.index.events).map_err(|source| unread(self, source))?;
        let mut anew = Vec::new();
        self.a.run("SAVEPOINT backout_proof").map_err(|source| failed(self, source))?;
        let label = self.label.clone();
        let mut replay = Replay::new(&label, Direction::Undo, OnConflict::Stop, began);
        replay.proof = proof;
        let manner = Manner { on_conflict: OnConflict::Stop, in_doubt: false };
        let tried = self.replay(&mut reader, manner, &mut replay, None, &mut |_| {});
        let Replay { conflicts, acts, .. } = replay;
        for went in acts {
            if let Some(Event::Ddl { event, .. }) = unsealed.index.events.get_mut(went.at) {
                (event.acts, event.hung) = (went.acts, went.hung);
            }
        }
        let found = match tried.map_err(|halt| self.halted(halt)) {
            Err(error) if self.a.client.is_closed() => return Err(error),
            Err(error) => Ok(Some(verify::chain(&error))),
            Ok(()) => match conflicts.listed.first() {
                Some(conflict) => Ok(Some(conflict.to_string())),
                None => match refreshed::undone(&mut self.a.client, &unsealed.index.events, &views)
                    .map_err(|source| unread(self, source))?
                {
                    Ok(found) => {
                        anew = found;
                        look(self)
                    }
                    Err(why) => Ok(Some(why)),
                },
            },
        };
        if back || !matches!(found, Ok(None)) {
            self.a.client.went_back();
            self.a
                .run("ROLLBACK TO SAVEPOINT backout_proof; RELEASE SAVEPOINT backout_proof")
                .map_err(|source| failed(self, source))?;
            if matches!(found, Ok(None)) {
                let other = refreshed::is_what_it_was(&mut self.a.client, &anew);
                return other.map_err(|source| unread(self, source));
            }
        }
        found
    }
}
