//! The parts of a step. MariaDB commits before and after each change of the schema, so a step is a chain of segments,
//! each of which takes effect by itself: the rows that its statements change between two such commits, or one change of
//! the schema. A row of the tool's own table says of each what it did and how far it, or its undo, has come.
//!
//! The row of a segment of rows is written in the transaction that changes them. That of a change of the schema is
//! written before it, with what the definition was and will be, so that it can be told afterwards whether it happened.

use backout_model::target::{TargetError, Ticket};
use mysql::Error;
use serde::{Deserialize, Serialize};

use super::ddl::Change;
use super::ddl_hung::Hung;
use super::marker::Names;
use super::session::{Session, is_missing, literal};
use super::table::Table;

/// How far a segment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A change of the schema that may have happened.
    Intended,
    Done,
    /// Its undo may have happened.
    Undoing,
    Undone,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Intended => "intended",
            State::Done => "done",
            State::Undoing => "undoing",
            State::Undone => "undone",
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "intended" => State::Intended,
            "done" => State::Done,
            "undoing" => State::Undoing,
            _ => State::Undone,
        }
    }
}

/// A table whose rows a segment changed, with where its counter stood before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub table: Table,
    /// Numbers the holds within the segment.
    pub at: u32,
    /// Rows in the two holds.
    pub before: u64,
    pub after: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<(u64, u64)>,
}

/// What a segment did.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Detail {
    Rows {
        tables: Vec<Held>,
        /// Foreign keys were not checked, at least for a while: rows may point at nothing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unchecked: bool,
        /// Sequences that were drawn from meanwhile, and where they stood then.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        drawn: Vec<(String, String)>,
    },
    Ddl {
        line: u32,
        sql: String,
        /// The settings of the script that it ran under.
        settings: String,
        change: Box<Change>,
        #[serde(default)]
        hung: Hung,
    },
    /// A script that nobody captures: how much of it ran is not known.
    Script,
}

/// One part of a step, as the database has it.
#[derive(Clone, Debug)]
pub struct Segment {
    pub step: u64,
    pub number: u32,
    pub state: State,
    pub detail: Detail,
}

impl Segment {
    /// The tables whose rows it changed.
    pub fn held(&self) -> &[Held] {
        match &self.detail {
            Detail::Rows { tables, .. } => tables,
            Detail::Ddl { .. } | Detail::Script => &[],
        }
    }

    /// What it holds of one table.
    pub fn held_mut(&mut self, name: &str) -> Option<&mut Held> {
        match &mut self.detail {
            Detail::Rows { tables, .. } => tables.iter_mut().find(|held| held.table.name == name),
            Detail::Ddl { .. } | Detail::Script => None,
        }
    }

    /// Writes a new segment's row.
    pub fn write(&self, session: &mut Session, names: &Names, ticket: Ticket) -> Result<(), Error> {
        // What is held here is never more than names and definitions.
        let detail = serde_json::to_string(&self.detail).unwrap_or_default();
        session.run(&format!(
            "INSERT INTO `{}` (step, number, ticket, state, detail) VALUES ({}, {}, {}, '{}', {})",
            names.segments(),
            self.step,
            self.number,
            ticket.seq,
            self.state.word(),
            literal(&detail)
        ))
    }

    /// Writes its row as it is now, new or not.
    pub fn rewrite(&self, session: &mut Session, names: &Names, ticket: Ticket) -> Result<(), Error> {
        let detail = serde_json::to_string(&self.detail).unwrap_or_default();
        session.run(&format!(
            "REPLACE INTO `{}` (step, number, ticket, state, detail) VALUES ({}, {}, {}, '{}', {})",
            names.segments(),
            self.step,
            self.number,
            ticket.seq,
            self.state.word(),
            literal(&detail)
        ))
    }

    /// Writes how far it has come, and what was learned of it.
    pub fn come_with_detail(&mut self, session: &mut Session, names: &Names, state: State) -> Result<(), Error> {
        let detail = serde_json::to_string(&self.detail).unwrap_or_default();
        session.run(&format!(
            "UPDATE `{}` SET detail = {} WHERE step = {} AND number = {}",
            names.segments(),
            literal(&detail),
            self.step,
            self.number
        ))?;
        self.come(session, names, state)
    }

    /// Takes its row away: it never happened.
    pub fn erase(&self, session: &mut Session, names: &Names) -> Result<(), Error> {
        session.run(&format!(
            "DELETE FROM `{}` WHERE step = {} AND number = {}",
            names.segments(),
            self.step,
            self.number
        ))
    }

    /// Writes how far it has come.
    pub fn come(&mut self, session: &mut Session, names: &Names, state: State) -> Result<(), Error> {
        session.run(&format!(
            "UPDATE `{}` SET state = '{}' WHERE step = {} AND number = {}",
            names.segments(),
            state.word(),
            self.step,
            self.number
        ))?;
        self.state = state;
        Ok(())
    }

    /// Writes that it was done again, under another ticket.
    pub fn redone(&mut self, session: &mut Session, names: &Names, ticket: Ticket) -> Result<(), Error> {
        self.come(session, names, State::Done)?;
        session.run(&format!(
            "UPDATE `{}` SET ticket = {} WHERE step = {} AND number = {}",
            names.segments(),
            ticket.seq,
            self.step,
            self.number
        ))
    }

    /// True where the database says that it has come as far as this does.
    pub fn is_so(&self, session: &mut Session, names: &Names) -> Result<bool, Error> {
        let sql =
            format!("SELECT state FROM `{}` WHERE step = {} AND number = {}", names.segments(), self.step, self.number);
        Ok(session.value(&sql)?.as_deref() == Some(self.state.word()))
    }

    /// A thing of this segment.
    pub fn object(&self, names: &Names, what: &str) -> String {
        names.of_segment(self.step, self.number, what)
    }
}

/// The segments of a step, in their order.
pub fn read(session: &mut Session, names: &Names, label: &str, step: u64) -> Result<Vec<Segment>, TargetError> {
    let sql = format!("SELECT number, state, detail FROM `{}` WHERE step = {step} ORDER BY number", names.segments());
    let rows = match session.rows(&sql) {
        Err(error) if is_missing(&error) => Vec::new(),
        rows => rows.map_err(|source| TargetError::failed(format!("cannot read the segments in {label}"), source))?,
    };
    rows.into_iter()
        .map(|row| {
            let text = |at: usize| row[at].as_deref().unwrap_or_default();
            let detail = serde_json::from_str(text(2)).map_err(|source| TargetError::Images {
                target: label.to_owned(),
                what: format!("a segment does not parse: {source}"),
            })?;
            Ok(Segment { step, number: text(0).parse().unwrap_or(0), state: State::of(text(1)), detail })
        })
        .collect()
}

/// The ticket under which the segments of a step were announced; none where there are none.
pub fn ticket(session: &mut Session, names: &Names, step: u64) -> Result<Option<u64>, Error> {
    match session.value(&format!("SELECT MAX(ticket) FROM `{}` WHERE step = {step}", names.segments())) {
        Err(error) if is_missing(&error) => Ok(None),
        found => Ok(found?.and_then(|text| text.parse().ok())),
    }
}
