//! Names every change of a step and what takes it back. Reads the images alone, never the database.

use backout_model::target::{Described, Images, TargetError};
use backout_model::words;

use super::Sqlite;
use super::stream::{Block, Event, Op, Reader, Record, Way};

/// Rows of one table that one statement changed in one way.
struct Tally {
    op: Op,
    table: u32,
    rows: u64,
}

impl Sqlite {
    pub(super) fn describe_step(
        &mut self,
        images: &mut dyn Images,
        each: &mut dyn FnMut(Described),
    ) -> Result<(), TargetError> {
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        let shown = reader.index.shown.clone();
        let events = reader.index.events.clone();
        for event in &events {
            match event {
                Event::Ddl { line, sql, event } => each(Described {
                    change: sql.clone(),
                    place: place(&shown, *line),
                    undo: event.words(),
                    rows: 0,
                    bytes: 0,
                }),
                Event::Rows { start, end, .. } => self.describe_rows(&mut reader, *start, *end, each)?,
            }
        }
        Ok(())
    }

    fn describe_rows(
        &self,
        reader: &mut Reader<'_>,
        start: u64,
        end: u64,
        each: &mut dyn FnMut(Described),
    ) -> Result<(), TargetError> {
        let shown = reader.index.shown.clone();
        let mut tallies: Vec<Tally> = Vec::new();
        let mut bytes = 0;
        let mut block = Block::default();
        let mut at = start;
        while at < end {
            let head = reader.head(at).map_err(|source| self.damaged(source))?;
            reader.block(&head, &mut block).map_err(|source| self.damaged(source))?;
            for number in 0..block.len() {
                match block.record(number).map_err(|source| self.damaged(source.into()))? {
                    Record::Row(row) => {
                        bytes += row.length() as u64;
                        match tallies.iter_mut().find(|tally| tally.op == row.op && tally.table == row.table) {
                            Some(tally) => tally.rows += 1,
                            None => tallies.push(Tally { op: row.op, table: row.table, rows: 1 }),
                        }
                    }
                    Record::Statement { undo: true, .. } => {}
                    Record::Statement { line, rows, sql, undo: false } => {
                        // Without a text they are the rows of the change of the schema before.
                        if !sql.is_empty() {
                            each(Described {
                                change: sql.to_owned(),
                                place: place(&shown, line),
                                undo: words(reader, &tallies),
                                rows,
                                bytes,
                            });
                        }
                        tallies.clear();
                        bytes = 0;
                    }
                }
            }
            at = head.end();
        }
        Ok(())
    }
}

/// What was found by comparing stands on no line.
fn place(shown: &str, line: u32) -> String {
    if line == 0 { shown.to_owned() } else { format!("{shown}:{line}") }
}

/// What takes rows back, in words, the last one first.
fn words(reader: &Reader<'_>, tallies: &[Tally]) -> String {
    match &reader.index.way {
        Way::Captured => {}
        Way::ByScript { shown } => return format!("by {shown}"),
        Way::Never { because } => return format!("none, because: {because}"),
    }
    let mut parts: Vec<String> = tallies
        .iter()
        .rev()
        .map(|tally| {
            let table = reader.table(tally.table).map_or("?", |table| table.name.as_str());
            let rows = words::count(tally.rows, "row");
            match tally.op {
                Op::Insert => format!("DELETE of {rows} in {table}"),
                Op::Update => format!("UPDATE of {rows} in {table} to what they were"),
                Op::Delete => format!("INSERT of {rows} into {table}"),
            }
        })
        .collect();
    if parts.is_empty() {
        parts.push("nothing to take back".to_owned());
    }
    parts.join(", ")
}
