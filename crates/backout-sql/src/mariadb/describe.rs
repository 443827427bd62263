//! Names every change of a step and what takes it back: its statements from the images, its rows from the segments.

use std::io;

use backout_model::target::{Described, Images, TargetError};
use backout_model::words;

use super::Mariadb;
use super::segment::{self, Detail};
use super::stream::{Kept, Reader, Way};
use super::undo::Halt;

impl Mariadb {
    pub(super) fn statements_of_step(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(&str, &str) -> io::Result<()>,
    ) -> Result<(), TargetError> {
        let mut outcome = Ok(());
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        let shown = reader.index.shown.clone();
        let all = reader.statements::<Halt>(false, &mut |Kept { line, text }| {
            if outcome.is_ok() {
                outcome = each(&format!("{shown}:{line}"), &text);
            }
            Ok(())
        });
        all.map_err(|halt| self.halted(halt))?;
        outcome.map_err(|source| TargetError::failed(format!("cannot write the script for {}", self.label), source))
    }

    pub(super) fn describe_step(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(Described),
    ) -> Result<(), TargetError> {
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        let index = reader.index.clone();
        let segments = segment::read(&mut self.b, &self.names, &self.label, index.step)?;
        let undo = match &index.way {
            Way::Captured => "with the changes below".to_owned(),
            Way::ByScript { shown } => format!("by {shown}"),
            Way::Never { because } => format!("none, because: {because}"),
        };
        let all = reader.statements::<Halt>(false, &mut |Kept { line, text }| {
            let place = format!("{}:{line}", index.shown);
            each(Described { change: text, place, undo: undo.clone(), rows: 0, bytes: 0 });
            Ok(())
        });
        all.map_err(|halt| self.halted(halt))?;
        for segment in segments {
            match segment.detail {
                Detail::Rows { tables, .. } => {
                    for held in tables {
                        let name = &held.table.name;
                        let rows = |number: u64| words::count(number, "row");
                        let undo = match (held.before, held.after) {
                            (0, left) => format!("DELETE of {} in {name}", rows(left)),
                            (was, 0) => format!("INSERT of {} into {name}", rows(was)),
                            (was, left) => {
                                format!(
                                    "{} of {name} back to what they were, where there are {} now",
                                    rows(was),
                                    rows(left)
                                )
                            }
                        };
                        each(Described {
                            change: format!("rows of {name}"),
                            place: index.shown.clone(),
                            undo,
                            rows: held.before.max(held.after),
                            bytes: 0,
                        });
                    }
                }
                Detail::Ddl { line, sql, change, .. } => each(Described {
                    change: sql,
                    // What a command did stands in no line.
                    place: if line == 0 { index.shown.clone() } else { format!("{}:{line}", index.shown) },
                    undo: change.words(),
                    rows: 0,
                    bytes: 0,
                }),
                Detail::Script => {}
            }
        }
        Ok(())
    }
}
