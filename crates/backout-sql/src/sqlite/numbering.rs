//! Whether the rows of a table are numbered as they were: a row without a key is known by its rowid alone, and VACUUM
//! or whoever makes the table anew gives that to another row.
//!
//! What others do to the schema is seen by its version alone, so it makes all rowids doubtful. What the tool itself
//! does is known table by table, and its undo brings the old numbers back.

use std::collections::BTreeMap;

use backout_model::target::TargetError;
use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};

use super::ddl_event::{DdlEvent, Kind};
use super::schema::SchemaRow;
use super::stream::{Event, Table};

/// How the rows of a database are numbered: what the marker keeps from one transaction of the tool to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbering {
    /// Begins anew when somebody else has changed the schema or run VACUUM.
    era: Era,
    /// Of the tables that the tool filled or made anew in this era, by name in lower case: a number that no other
    /// filling has.
    tables: BTreeMap<String, u64>,
    /// The number that was given last.
    last: u64,
    /// `PRAGMA schema_version`, which VACUUM and every change of the schema raise.
    version: i64,
}

/// The marker's epoch and number when it began: no two transactions that commit find the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Era(i64, i64);

/// How a step found and left the rows of its tables numbered; part of its images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    era: Era,
    tables: BTreeMap<String, (u64, u64)>,
}

/// The tables whose rows are still numbered as the images say, while a step is replayed.
#[derive(Clone, Debug, Default)]
pub struct Known {
    same_era: bool,
    tables: BTreeMap<String, bool>,
}

/// What a change of the schema means for the numbers of rows.
pub enum Renumbers<'a> {
    No,
    /// The name stands for other rows than before.
    Anew(&'a str),
    /// As `Anew`; but undone, the old rows are there again as they were.
    Aside(&'a str),
    Renames {
        from: &'a str,
        to: &'a str,
    },
}

impl Numbering {
    /// At the beginning of a transaction, before it changes anything. `marker`: its table.
    pub fn read(conn: &Connection, marker: &str, label: &str) -> Result<Self, TargetError> {
        let failed = |source| TargetError::failed(format!("cannot read the marker of {label}"), source);
        let version = version(conn, label)?;
        let kept: Option<(Era, Option<String>)> = conn
            .query_row("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1", [marker], |_| Ok(()))
            .optional()
            .and_then(|there| match there {
                None => Ok(None),
                Some(()) => conn
                    .query_row(&format!("SELECT epoch, seq, numbering FROM main.{marker} WHERE id = 0"), [], |row| {
                        Ok((Era(row.get(0)?, row.get(1)?), row.get(2)?))
                    })
                    .optional(),
            })
            .map_err(failed)?;
        let (now, text) = kept.unwrap_or_default();
        // What does not parse was not written by this tool: nothing is known then.
        let kept: Option<Self> = text.and_then(|text| serde_json::from_str(&text).ok());
        Ok(kept.filter(|kept| kept.version == version).unwrap_or(Self {
            era: now,
            tables: BTreeMap::new(),
            last: 0,
            version,
        }))
    }

    /// For the marker, at the end of the transaction. `seen`: all that it did to the schema was told to [`Self::renew`].
    pub fn text(&mut self, conn: &Connection, label: &str, seen: bool) -> Result<String, TargetError> {
        let version = version(conn, label)?;
        if seen {
            self.version = version;
        }
        serde_json::to_string(self)
            .map_err(|source| TargetError::failed(format!("cannot mark the step in {label}"), source))
    }

    /// After a change of the schema.
    pub fn renew(&mut self, what: &Renumbers<'_>) {
        for name in what.names() {
            self.last += 1;
            self.tables.insert(name.to_ascii_lowercase(), self.last);
        }
    }

    /// After the undo of a change of the schema; `clean`: nothing was in its way, and all is as the step found it.
    pub fn bring_back(&mut self, what: &Renumbers<'_>, numbered: &Numbered, clean: bool) {
        if !clean || numbered.era != self.era {
            return self.renew(what);
        }
        for name in what.names() {
            let name = name.to_ascii_lowercase();
            let found = numbered.tables.get(&name).map_or(0, |(found, _)| *found);
            self.set(name, found);
        }
    }

    /// After a redo that brought all rows back by their images: each has the rowid that it had after the first time.
    pub fn bring_again(&mut self, numbered: &Numbered) {
        if numbered.era == self.era {
            for (name, (_, left)) in numbered.tables.iter().filter(|(_, (found, left))| found != left) {
                self.set(name.clone(), *left);
            }
        }
    }

    fn set(&mut self, name: String, number: u64) {
        if number == 0 {
            self.tables.remove(&name);
        } else {
            self.tables.insert(name, number);
        }
    }

    fn of(&self, name: &str) -> u64 {
        self.tables.get(name).copied().unwrap_or(0)
    }
}

fn version(conn: &Connection, label: &str) -> Result<i64, TargetError> {
    conn.query_row("PRAGMA main.schema_version", [], |row| row.get(0))
        .map_err(|source| TargetError::failed(format!("cannot read {label}"), source))
}

impl Numbered {
    /// What a step made of the numbers, which it found as `found` and left as `left`.
    pub fn between(found: &Numbering, left: &Numbering) -> Self {
        let names = found.tables.keys().chain(left.tables.keys());
        let tables = names.map(|name| (name.clone(), (found.of(name), left.of(name)))).collect();
        Self { era: left.era, tables }
    }

    /// Leaves out the tables whose rows the step did not touch.
    pub fn keep_only(&mut self, tables: &[Table], events: &[Event]) {
        self.tables.retain(|name, (found, left)| {
            let has_it = |event: &Event| match event {
                Event::Ddl { event, .. } => event.touches(name),
                Event::Rows { .. } => false,
            };
            let is_it = |table: &Table| table.name.eq_ignore_ascii_case(name);
            found != left || tables.iter().any(is_it) || events.iter().any(has_it)
        });
    }

    /// What an undo can rely on, given how rows are numbered now.
    pub fn known_to_undo(&self, now: &Numbering) -> Known {
        self.known(now, |(_, left)| left)
    }

    /// What a redo can rely on.
    pub fn known_to_redo(&self, now: &Numbering) -> Known {
        self.known(now, |(found, _)| found)
    }

    fn known(&self, now: &Numbering, then: impl Fn((u64, u64)) -> u64) -> Known {
        let names = self.tables.keys().chain(now.tables.keys());
        let same = |name: &String| self.tables.get(name).copied().map_or(0, &then) == now.of(name);
        // Images of before this was kept have no era.
        let same_era = self.era == now.era && self.era != Era::default();
        Known { same_era, tables: names.map(|name| (name.clone(), same(name))).collect() }
    }
}

impl Known {
    /// True where a rowid of the images names the row that has it now.
    pub fn holds(&self, table: &str) -> bool {
        self.same_era && self.tables.get(&table.to_ascii_lowercase()).copied().unwrap_or(true)
    }

    /// True where nobody but the tool has changed the schema since.
    pub fn is_own_schema(&self) -> bool {
        self.same_era
    }

    /// After a change of the schema was undone cleanly.
    pub fn undone(&mut self, what: &Renumbers<'_>) {
        match what {
            Renumbers::No | Renumbers::Anew(_) => {}
            Renumbers::Aside(table) => drop(self.tables.insert(table.to_ascii_lowercase(), true)),
            Renumbers::Renames { from, to } => {
                let holds = self.tables.get(&to.to_ascii_lowercase()).copied().unwrap_or(true);
                self.tables.insert(from.to_ascii_lowercase(), holds);
            }
        }
    }

    /// After a change of the schema was done again: what it filled may be numbered otherwise than the first time.
    pub fn redone(&mut self, what: &Renumbers<'_>) {
        self.tables.extend(what.names().map(|name| (name.to_ascii_lowercase(), false)));
    }
}

impl DdlEvent {
    /// Whether it keeps values of the table's rows.
    fn touches(&self, name: &str) -> bool {
        matches!(&self.kind, Kind::DropColumn { table, .. } if table.eq_ignore_ascii_case(name))
    }

    /// What it means for rows that are known by their rowids.
    pub fn renumbers(&self) -> Renumbers<'_> {
        let table = |rows: &'_ [SchemaRow]| rows.iter().position(|row| row.kind == "table");
        match &self.kind {
            Kind::Create | Kind::CreateAsSelect => {
                table(&self.made).map_or(Renumbers::No, |at| Renumbers::Anew(&self.made[at].name))
            }
            Kind::Drop => table(&self.gone).map_or(Renumbers::No, |at| Renumbers::Aside(&self.gone[at].name)),
            Kind::DeleteAll { table } => Renumbers::Aside(table),
            Kind::RenameTable { from, to } => Renumbers::Renames { from, to },
            Kind::Nothing
            | Kind::RenameColumn { .. }
            | Kind::AddColumn { .. }
            | Kind::DropColumn { .. }
            | Kind::Constraint { .. }
            | Kind::Analyze => Renumbers::No,
        }
    }
}

impl<'a> Renumbers<'a> {
    fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (one, other) = match *self {
            Self::No => (None, None),
            Self::Anew(table) | Self::Aside(table) => (Some(table), None),
            Self::Renames { from, to } => (Some(from), Some(to)),
        };
        one.into_iter().chain(other)
    }
}
