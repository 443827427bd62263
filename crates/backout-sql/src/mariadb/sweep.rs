//! Takes away what an act that died left of the tool's own: triggers at once, holds that no segment needs.
//!
//! Never drops the hold of a segment that took effect.

use std::collections::BTreeSet;

use backout_model::target::TargetError;
use mysql::Error;

use super::Mariadb;
use super::capture::{drop_triggers, patiently};
use super::session::ident;
use super::table::{self, There};

impl Mariadb {
    /// All that acts of before left, of this site. Only with the lock and its name in hand: nobody else is at work.
    pub(super) fn sweep(&mut self) -> Result<(), TargetError> {
        self.swept(None).map_err(|source| self.failed("cannot tidy up in", source))
    }

    /// What is left of one segment.
    pub(super) fn sweep_segment(&mut self, step: u64, number: u32) -> Result<(), TargetError> {
        self.swept(Some((step, number))).map_err(|source| self.failed("cannot tidy up in", source))
    }

    /// What is left of a step.
    pub(super) fn sweep_step(&mut self, step: u64) -> Result<(), TargetError> {
        let objects = self.segment_objects().map_err(|source| self.failed("cannot tidy up in", source))?;
        let numbers: BTreeSet<u32> = objects.iter().filter(|one| one.1 == step).map(|one| one.2).collect();
        numbers.into_iter().try_for_each(|number| self.sweep_segment(step, number))
    }

    fn swept(&mut self, only: Option<(u64, u32)>) -> Result<(), Error> {
        drop_triggers(&mut self.b, &self.names, only)?;
        if only.is_none() {
            self.release_triggers()?;
            self.sweep_copies()?;
        }
        for (name, step, number, what) in self.segment_objects()? {
            if only.is_some_and(|only| only != (step, number)) {
                continue;
            }
            let kind = what.trim_start_matches(|c: char| c.is_ascii_digit());
            let passing = matches!(kind, "l" | "k" | "c");
            let state =
                format!("SELECT state FROM `{}` WHERE step = {step} AND number = {number}", self.names.segments());
            let state = self.b.value(&state)?;
            if kind == "l" && state.as_deref().is_none_or(|state| state == "undone") {
                self.put_noted_back(&name)?;
            }
            if passing || state.is_none() {
                self.drop_object(&name)?;
            }
        }
        Ok(())
    }

    /// Drops a table or a view of the tool's own.
    fn drop_object(&mut self, name: &str) -> Result<(), Error> {
        let kind = match table::there(&mut self.b, name)? {
            There::View => "VIEW",
            There::Sequence => "SEQUENCE",
            _ => "TABLE",
        };
        let sql = format!("DROP {kind} IF EXISTS {}", ident(name));
        patiently(|| self.b.run(&sql))
    }

    /// Drops all holds of a step, and forgets its segments.
    pub(super) fn drop_step(&mut self, step: u64) -> Result<(), Error> {
        for (name, of, _, _) in self.segment_objects()? {
            if of == step {
                self.drop_object(&name)?;
            }
        }
        for name in self.held_copies(Some(step))? {
            self.drop_object(&name)?;
        }
        self.b.run(&format!("DELETE FROM `{}` WHERE step = {step}", self.names.segments()))
    }

    /// The tables that belong to segments: name, step, number of the segment, and what it is.
    fn segment_objects(&mut self) -> Result<Vec<(String, u64, u32, String)>, Error> {
        let rows = self.b.rows(&format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND {}",
            self.names.condition("TABLE_NAME")
        ))?;
        let parsed = rows.into_iter().filter_map(|mut row| {
            let name = row[0].take()?;
            let mut parts = name.split('$').skip(1);
            let (step, number) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let what = parts.next()?.to_owned();
            Some((name, step, number, what))
        });
        Ok(parsed.collect())
    }

    /// See [`crate::database::Database::own_objects`].
    pub(super) fn own_names(&mut self) -> Result<Vec<String>, TargetError> {
        let tables = format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND {}",
            self.names.condition("TABLE_NAME")
        );
        let triggers = format!(
            "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() AND {}",
            self.names.condition("TRIGGER_NAME")
        );
        let rows = self.b.rows(&format!("{tables} UNION ALL {triggers} ORDER BY 1"));
        let rows = rows.map_err(|source| self.failed("cannot read the schema of", source))?;
        Ok(rows.into_iter().filter_map(|mut row| row[0].take()).collect())
    }
}
