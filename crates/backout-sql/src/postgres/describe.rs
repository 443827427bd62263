//! Names every change of a step and what takes it back. Reads the images alone, never the database.

use std::io;

use backout_model::target::{Described, Images, TargetError};
use backout_model::words;

use super::stream::{Event, Kept, Reader, Span, StreamError, Way};
use super::undo::Halt;
use super::{Postgres, table};

impl Postgres {
    /// Images that cannot be read.
    pub(super) fn damaged(&self, source: StreamError) -> TargetError {
        TargetError::Images { target: self.label.clone(), what: source.to_string() }
    }

    pub(super) fn statements_of_step(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(&str, &str) -> io::Result<()>,
    ) -> Result<(), TargetError> {
        let mut outcome = Ok(());
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        let shown = reader.index.shown.clone();
        for event in reader.index.events.clone() {
            match event {
                Event::Statements { span } => reader
                    .statements_of(span, false, &mut |Kept { line, text, .. }| -> Result<(), Halt> {
                        if outcome.is_ok() {
                            outcome = each(&format!("{shown}:{line}"), &text);
                        }
                        Ok(())
                    })
                    .map_err(|halt| self.halted(halt))?,
                Event::Ddl { line, sql, .. } if outcome.is_ok() => outcome = each(&format!("{shown}:{line}"), &sql),
                Event::Ddl { .. } | Event::Rows { .. } => {}
            }
        }
        outcome.map_err(|source| TargetError::failed(format!("cannot write the script for {}", self.label), source))
    }

    pub(super) fn describe_step(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(Described),
    ) -> Result<(), TargetError> {
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        let shown = reader.index.shown.clone();
        let way = reader.index.way.clone();
        for event in reader.index.events.clone() {
            match event {
                // The net effect of statements is known, not which row is whose.
                Event::Statements { span } => reader
                    .statements_of(span, false, &mut |Kept { line, rows, text }| -> Result<(), Halt> {
                        each(Described {
                            change: text,
                            place: format!("{shown}:{line}"),
                            undo: words(&way),
                            rows,
                            bytes: 0,
                        });
                        Ok(())
                    })
                    .map_err(|halt| self.halted(halt))?,
                Event::Rows { table, before, after } => {
                    let table = table::shown(&reader.index.tables[table as usize]);
                    each(Described {
                        change: format!("rows of {table}"),
                        place: shown.clone(),
                        undo: put_back(&table, before, after),
                        rows: before.records.max(after.records),
                        bytes: (before.end - before.start) + (after.end - after.start),
                    });
                }
                Event::Ddl { line, sql, event } => each(Described {
                    change: sql,
                    place: format!("{shown}:{line}"),
                    undo: event.words(),
                    rows: 0,
                    bytes: 0,
                }),
            }
        }
        Ok(())
    }
}

fn words(way: &Way) -> String {
    match way {
        Way::Captured => "with the rows below".to_owned(),
        Way::ByScript { shown } => format!("by {shown}"),
        Way::Never { because } => format!("none, because: {because}"),
    }
}

/// What takes rows back, in words.
fn put_back(table: &str, before: Span, after: Span) -> String {
    let rows = |number: u64| words::count(number, "row");
    match (before.records, after.records) {
        (0, left) => format!("DELETE of {} in {table}", rows(left)),
        (was, 0) => format!("INSERT of {} into {table}", rows(was)),
        (was, left) => format!("{} of {table} back to what they were, where there are {} now", rows(was), rows(left)),
    }
}
