//! What the images keep of one change of the schema, and what it means to the rest of its step. Never changes anything.

use serde::{Deserialize, Serialize};

use super::fallen::Falls;
use super::replay::Direction;
use super::schema::SchemaRow;
use super::split::Statement;
use super::value::Cell;
use super::{classify, ddl_side};

/// All that undo and redo of one schema change need.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DdlEvent {
    pub line: u32,
    pub sql: String,
    pub(super) kind: Kind,
    /// `table product`, for people.
    pub(super) object: String,
    /// Objects that went away, in the order of `sqlite_schema`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) gone: Vec<SchemaRow>,
    /// Objects that came to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) made: Vec<SchemaRow>,
    /// Objects whose text or name changed: before and after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) changed: Vec<(SchemaRow, SchemaRow)>,
    /// Rows of `sqlite_sequence` and of the statistics that went away or changed: before, and for ANALYZE after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) side_before: Vec<ddl_side::SideRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) side_after: Vec<ddl_side::SideRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hold: Option<Hold>,
    /// The values of a dropped column with their keys, where they are few; else they are in the hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) kept: Vec<Vec<Cell>>,
    /// They are held by the primary key's columns; else by rowid, where there is one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) by_key: bool,
    /// The few rows of the dropped table went right before, where the hook saw them: the rows before the event.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) emptied: bool,
    /// How many rows the hold of a dropped table has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rows_held: Option<u64>,
    /// A digest of the rows of the dropped table, where a redo must know whether they are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<u64>,
    /// What went with the column or the table, where a redo must know whether others wrote to it since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) falls: Vec<Falls>,
    /// The tables, in lower case, into which rows of the dropped one may have been copied: the step made them and named it where
    /// it filled them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) into: Vec<String>,
    /// It was found by comparing, and what stands here as its statement need not be what was run: it is done again by its
    /// result, which stands at its place in the schema.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) found: bool,
    /// Whether `legacy_alter_table` was on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) legacy: bool,
}

/// What a statement did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Nothing that lasts: `IF NOT EXISTS` of what exists, a temporary table, REINDEX.
    Nothing,
    Create,
    /// Its rows come by [`super::ddl::fill`].
    CreateAsSelect,
    Drop,
    RenameTable {
        from: String,
        to: String,
    },
    RenameColumn {
        table: String,
    },
    AddColumn {
        table: String,
        column: String,
    },
    DropColumn {
        table: String,
        column: String,
    },
    /// A CHECK or NOT NULL of a table came or went.
    Constraint {
        table: String,
    },
    DeleteAll {
        table: String,
    },
    Analyze,
}

/// A table of the tool's own that keeps what a statement took away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hold {
    pub table: String,
    /// Kind, name in the user's schema, and name under which its b-tree is held; empty where the hold has a form of
    /// its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<(String, String, String)>,
    /// Further tables, where several were set aside together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<String>,
}

impl DdlEvent {
    /// The table whose columns it adds to or takes from.
    pub fn reshaped(&self) -> Option<&str> {
        match &self.kind {
            Kind::AddColumn { table, .. } | Kind::DropColumn { table, .. } => Some(table),
            _ => None,
        }
    }

    /// The table whose columns it adds to, takes from or renames.
    pub fn forms(&self) -> Option<&str> {
        self.renames_column().or_else(|| self.reshaped())
    }

    /// The table of which it renames a column.
    pub fn renames_column(&self) -> Option<&str> {
        match &self.kind {
            Kind::RenameColumn { table } => Some(table),
            _ => None,
        }
    }

    /// The table and the column that it adds or drops.
    pub fn column(&self) -> Option<(&str, &str)> {
        match &self.kind {
            Kind::AddColumn { table, column } | Kind::DropColumn { table, column } => Some((table, column)),
            _ => None,
        }
    }

    /// Whether its undo does without the form that it left, but for the column itself.
    pub fn adds_column(&self) -> bool {
        matches!(self.kind, Kind::AddColumn { .. })
    }

    /// The table of which it took all rows at once.
    pub fn emptied_at_once(&self) -> Option<&str> {
        match &self.kind {
            Kind::DeleteAll { table } => Some(table),
            _ => None,
        }
    }

    pub(super) fn new(statement: &Statement, kind: Kind, object: String) -> Self {
        Self {
            line: statement.line,
            sql: statement.sql.clone(),
            kind,
            object,
            gone: Vec::new(),
            made: Vec::new(),
            changed: Vec::new(),
            side_before: Vec::new(),
            side_after: Vec::new(),
            hold: None,
            kept: Vec::new(),
            by_key: false,
            emptied: false,
            rows_held: None,
            digest: None,
            falls: Vec::new(),
            into: Vec::new(),
            found: false,
            legacy: false,
        }
    }

    /// The objects that it made, changed or took away, as they were and as they became.
    pub fn rows(&self) -> impl Iterator<Item = &SchemaRow> {
        let changed = self.changed.iter().flat_map(|(before, after)| [before, after]);
        // Those of a table that was emptied are as before.
        let changed = changed.filter(|_| !matches!(self.kind, Kind::DeleteAll { .. }));
        self.gone.iter().chain(&self.made).chain(changed)
    }

    /// The objects whose text or name changed: as they ought to be found now, and as they ought to become.
    pub fn pairs(&self, direction: Direction) -> Vec<(&SchemaRow, &SchemaRow)> {
        let pairs = self.changed.iter().map(|(before, after)| match direction {
            Direction::Undo => (after, before),
            Direction::Redo => (before, after),
        });
        pairs.collect()
    }

    /// The objects that an undo or redo of it brings.
    pub fn brought(&self, direction: Direction) -> &[SchemaRow] {
        match direction {
            Direction::Undo => &self.gone,
            Direction::Redo => &self.made,
        }
    }

    /// The objects that an undo or redo of it takes away.
    pub fn taken(&self, direction: Direction) -> &[SchemaRow] {
        match direction {
            Direction::Undo => &self.made,
            Direction::Redo => &self.gone,
        }
    }

    /// Says its undo in words.
    pub fn words(&self) -> String {
        match &self.kind {
            Kind::Nothing => "nothing to undo".to_owned(),
            Kind::Create | Kind::CreateAsSelect => format!("DROP of {}", self.object),
            Kind::Drop if self.hold.is_some() => format!("bring back {} with its rows, which are held", self.object),
            Kind::Drop => format!("bring back {}", self.object),
            Kind::RenameTable { from, to } => format!("name table {to} {from} again"),
            Kind::RenameColumn { table } => format!("give the column of table {table} its old name again"),
            Kind::AddColumn { table, column } => format!("take column {column} out of table {table}"),
            Kind::DropColumn { table, column } => {
                format!("put column {column} back into table {table} with its values")
            }
            Kind::Constraint { table } => format!("put the constraints of table {table} back"),
            Kind::DeleteAll { table } => format!("put all rows of table {table} back, which are held"),
            Kind::Analyze => "put the statistics back".to_owned(),
        }
    }

    /// How many rows went with the table that it dropped, unseen by the hook.
    pub fn rows_held(&self) -> u64 {
        self.rows_held.unwrap_or(0)
    }

    pub fn digest(&self) -> Option<u64> {
        self.digest
    }

    /// Notes what the rows of the table were that it dropped.
    pub fn of_rows(self, digest: Option<u64>) -> Self {
        Self { digest, ..self }
    }

    pub fn into(&self) -> impl Iterator<Item = String> {
        self.into.iter().cloned()
    }

    /// Notes into which tables the rows of the dropped one may have been copied.
    pub fn copied_into(self, tables: &[String]) -> Self {
        Self { into: tables.iter().map(|table| table.to_ascii_lowercase()).collect(), ..self }
    }

    pub fn falls(&self) -> &[Falls] {
        &self.falls
    }

    /// Notes what goes with it.
    pub fn with_falls(self, falls: Vec<Falls>) -> Self {
        Self { falls, ..self }
    }

    /// Notes that the table was emptied by [`super::ddl::empty`] before it was dropped.
    pub fn after_emptying(self) -> Self {
        Self { emptied: true, ..self }
    }

    /// True for a table that is made with rows in it.
    pub fn copies(&self) -> bool {
        self.kind == Kind::CreateAsSelect
    }

    pub fn drops(&self) -> bool {
        self.kind == Kind::Drop
    }

    /// The table that it drops.
    pub fn dropped(&self) -> Option<&str> {
        match self.change() {
            Some(Change::Drop(table)) => Some(table),
            _ => None,
        }
    }

    /// The table that was emptied first.
    pub fn emptied(&self) -> Option<&str> {
        self.dropped().filter(|_| self.emptied)
    }

    /// Which table it makes, renames or drops; none for everything else.
    pub fn change(&self) -> Option<Change<'_>> {
        let table = |rows: &'_ [SchemaRow]| rows.iter().position(|row| row.kind == "table");
        match &self.kind {
            Kind::Create | Kind::CreateAsSelect => table(&self.made).map(|at| Change::Create(&self.made[at].name)),
            Kind::RenameTable { from, to } => Some(Change::Rename { from, to }),
            Kind::Drop => table(&self.gone).map(|at| Change::Drop(&self.gone[at].name)),
            _ => None,
        }
    }

    /// The table that ought to be there once the event was undone or done again; none for all but events that make,
    /// rename or drop one.
    pub fn arrival(&self, direction: Direction) -> Option<&SchemaRow> {
        let table = |rows: &'_ [SchemaRow]| rows.iter().position(|row| row.kind == "table");
        match (&self.kind, direction) {
            (Kind::Create | Kind::CreateAsSelect, Direction::Redo) => table(&self.made).map(|at| &self.made[at]),
            (Kind::Drop, Direction::Undo) => table(&self.gone).map(|at| &self.gone[at]),
            (Kind::RenameTable { from, .. }, _) => {
                let own = self.changed.iter().find(|(before, _)| before.kind == "table" && before.name == *from);
                own.map(|(before, after)| if direction == Direction::Undo { before } else { after })
            }
            _ => None,
        }
    }

    /// Whether it has an effect that lasts.
    pub fn lasts(&self) -> bool {
        self.kind != Kind::Nothing
    }

    /// The table whose rows an undo brings back unseen, where they may refer to others.
    pub fn returns(&self) -> Option<&str> {
        let row = match &self.kind {
            Kind::Drop => self.gone.iter().find(|row| row.kind == "table"),
            Kind::DeleteAll { .. } => self.changed.iter().map(|(before, _)| before).find(|row| row.kind == "table"),
            _ => None,
        }?;
        let refers = row.sql.as_deref().is_some_and(|sql| classify::mentions(sql, "references"));
        refers.then_some(row.name.as_str())
    }

    /// The tables of the tool that keep data for this event.
    pub fn holds(&self) -> impl Iterator<Item = &str> {
        // Those of CREATE TABLE AS went where they belong.
        self.hold
            .iter()
            .filter(|_| self.kind != Kind::CreateAsSelect)
            .flat_map(|hold| std::iter::once(&hold.table).chain(&hold.more))
            .map(String::as_str)
    }
}

/// What an event means for the tables of a step.
pub enum Change<'a> {
    Create(&'a str),
    Rename { from: &'a str, to: &'a str },
    Drop(&'a str),
}

impl<'a> Change<'a> {
    /// The name that a table has by it.
    pub fn gives(&self) -> Option<&'a str> {
        match self {
            Self::Create(name) | Self::Rename { to: name, .. } => Some(name),
            Self::Drop(_) => None,
        }
    }
}
