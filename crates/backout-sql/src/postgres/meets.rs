//! Which conflicts are about what a step changed: told from its images alone; never touches the database.
//!
//! A row is known by its key as people are shown it, so what two values have in common when they are shown may be one
//! row: then the answer is yes, as wherever the images cannot tell.

use backout_model::conflict::{Conflict, ConflictKind};
use backout_model::target::{Images, TargetError};

use super::Postgres;
use super::catalog::{Kind, Object};
use super::ddl::{Change, DdlEvent};
use super::ddl_keep::What;
use super::ddl_undo::AS_IT_WAS;
use super::load::NO_ROW;
use super::stream::{Event, Reader, StreamError, Table};
use super::table::{plain, shown};
use super::terms::{CUT, MORE, ROW_COLUMNS, is_plain};

/// What a conflict is about, as far as images can be asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About<'c> {
    /// A row, by its key as people are shown it.
    Row(&'c str),
    /// Any row of the table.
    Rows,
    /// The values of a column that others wrote.
    Values(&'c str),
    /// The form of a table.
    Form,
    /// A column that an undo takes away.
    Column(&'c str),
    /// An object of the schema by its name.
    Object,
    /// An object of the schema, or whatever hangs on it.
    Hangers,
}

/// A conflict, and what the images are asked for it.
struct Asked<'c> {
    conflict: &'c Conflict,
    /// The table that it is about, as it is shown; none where it is about no table.
    table: Option<String>,
    about: About<'c>,
    is_met: bool,
}

impl<'c> Asked<'c> {
    fn new(conflict: &'c Conflict) -> Self {
        let (table, about) = what(conflict);
        Self { conflict, table, about, is_met: false }
    }

    fn is_of(&self, table: &str) -> bool {
        self.table.as_deref() == Some(table)
    }

    /// Whether a change of the schema is about it.
    fn is_of_schema(&self, event: &DdlEvent) -> bool {
        // Rows and values that went, where no change names their columns.
        let kept = event.kept.iter().filter(|kept| self.is_of(&plain(&kept.table))).any(|kept| match &kept.what {
            What::Values { columns, .. } => columns.iter().any(|column| self.asks_for(&column.name)),
            What::Rows { .. } | What::Position { .. } => true,
        });
        kept || event.changes.iter().any(|change| self.is_of_change(change))
    }

    /// Whether it is about the values of that column, quoted or not.
    fn asks_for(&self, column: &str) -> bool {
        let column = plain(column);
        match self.about {
            About::Row(_) => self.conflict.column.as_deref().is_none_or(|own| own == column),
            About::Values(own) | About::Column(own) => own == column,
            About::Rows | About::Form => true,
            About::Object | About::Hangers => false,
        }
    }

    fn is_of_change(&self, change: &Change) -> bool {
        let both = || [&change.before, &change.after].into_iter().flatten();
        let named = both().any(|object| object.shown() == self.conflict.object);
        match self.about {
            About::Hangers => return true,
            About::Object if named => return true,
            _ => {}
        }
        both().any(|object| match object.kind {
            Kind::Table if self.is_of(&plain(object.id())) => is_another(change),
            // What a table that lists it as its own holds is not known column by column.
            _ if !self.is_of(&plain(object.of())) => false,
            Kind::Column => self.is_of_column(change, object),
            // It neither holds nor changes a row, but may forbid one, and hangs on columns.
            Kind::Index | Kind::Constraint => match self.about {
                About::Rows | About::Column(_) => true,
                About::Form => change.after.is_none(),
                _ => false,
            },
            _ => false,
        })
    }

    fn is_of_column(&self, change: &Change, column: &Object) -> bool {
        let adds = change.before.is_none();
        match self.about {
            // Who adds a column leaves those that are there alone.
            About::Form | About::Column(_) if adds => false,
            About::Form => is_another(change) || alters(change),
            About::Column(_) => true,
            _ => self.asks_for(column.text("name")),
        }
    }
}

/// The table, or none, and what of it.
fn what(conflict: &Conflict) -> (Option<String>, About<'_>) {
    let object = conflict.object.as_str();
    if let Some(key) = &conflict.key {
        // Which other row stands in the way is not known, nor which one others can no longer tell from it.
        let is_one =
            !matches!(conflict.kind, ConflictKind::Constraint | ConflictKind::ForeignKey | ConflictKind::NotFound);
        return (Some(object.to_owned()), if is_one { About::Row(key) } else { About::Rows });
    }
    let told_apart = !conflict.left.is_empty() || conflict.now == AS_IT_WAS;
    let by_name = match conflict.kind {
        ConflictKind::Definition if !told_apart => About::Hangers,
        _ => About::Object,
    };
    match object.split_once(' ') {
        Some(("table", id)) if conflict.kind != ConflictKind::Definition => (Some(plain(id)), About::Rows),
        Some(("table", id)) => (Some(plain(id)), by_name),
        Some(("column", rest)) => {
            let (column, of) = rest.split_once(" of ").unwrap_or((rest, ""));
            let values = conflict.kind == ConflictKind::Changed && !column.starts_with('"');
            (Some(plain(of)), if values { About::Values(column) } else { by_name })
        }
        Some((kind, rest)) if KINDS.contains(&kind) => (rest.rsplit_once(" of ").map(|(_, of)| plain(of)), by_name),
        // What could not be done, in words, or a table with such a name.
        Some(_) if conflict.kind == ConflictKind::Definition => (Some(object.to_owned()), About::Hangers),
        _ => match (&conflict.column, conflict.kind) {
            (Some(column), ConflictKind::RequiredBy) => (Some(object.to_owned()), About::Column(column)),
            (None, ConflictKind::RequiredBy | ConflictKind::Definition) => (Some(object.to_owned()), About::Form),
            _ => (Some(object.to_owned()), About::Rows),
        },
    }
}

/// The first words of what [`Object::shown`] says of what is neither table nor column.
const KINDS: [&str; 20] = [
    "schema",
    "extension",
    "type",
    "attribute",
    "domain",
    "sequence",
    "function",
    "procedure",
    "aggregate",
    "index",
    "constraint",
    "view",
    "materialized",
    "statistics",
    "rule",
    "trigger",
    "policy",
    "publication",
    "published",
    "default",
];

/// True where something came, went or got another name.
pub(super) fn is_another(change: &Change) -> bool {
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => before.id() != after.id(),
        _ => true,
    }
}

/// True where a column has another type.
fn alters(change: &Change) -> bool {
    let kind = |object: &Option<Object>| object.as_ref().map(|object| object.text("type").to_owned());
    kind(&change.before) != kind(&change.after)
}

impl Postgres {
    /// See [`backout_model::target::Target::meets`].
    pub(super) fn meets_step(&self, images: &mut dyn Images, conflicts: &[Conflict]) -> Result<Vec<bool>, TargetError> {
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        let mut asked: Vec<Asked<'_>> = conflicts.iter().map(Asked::new).collect();
        for event in reader.index.events.clone() {
            match event {
                Event::Statements { .. } => {}
                Event::Ddl { event, .. } => {
                    for one in asked.iter_mut().filter(|one| !one.is_met) {
                        one.is_met = one.is_of_schema(&event);
                    }
                }
                Event::Rows { table, before, after } => {
                    let table = reader.index.tables[table as usize].clone();
                    let mut rows = Rows::new(&table, &mut asked);
                    if rows.all.is_empty() {
                        continue;
                    }
                    for (side, images) in [before, after].into_iter().enumerate() {
                        let mut line = |line: &[u8]| {
                            rows.line(line, side);
                            Ok(())
                        };
                        reader.rows::<StreamError>(images, &mut line).map_err(|source| self.damaged(source))?;
                    }
                    rows.end();
                }
            }
        }
        Ok(asked.into_iter().map(|one| one.is_met).collect())
    }
}

/// The rows of a table that a step changed, and who asks for them.
struct Rows<'a, 'c> {
    table: &'a Table,
    form: Form<'a>,
    all: Vec<OfRow<'a, 'c>>,
}

/// One who asks, and the images of the row that it is about: before and after.
struct OfRow<'a, 'c> {
    conflict: &'c Conflict,
    is_met: &'a mut bool,
    key: &'c str,
    found: [Option<Vec<u8>>; 2],
}

impl<'a, 'c> Rows<'a, 'c> {
    fn new(table: &'a Table, asked: &'a mut [Asked<'c>]) -> Self {
        let (name, form) = (shown(table), Form::of(table));
        let has = |column: &str| table.columns.iter().any(|one| one.name == column);
        let mut all = Vec::new();
        for one in asked.iter_mut().filter(|one| !one.is_met && one.is_of(&name)) {
            let conflict = one.conflict;
            match one.about {
                About::Object | About::Hangers | About::Form => {}
                About::Rows => one.is_met = true,
                About::Column(column) | About::Values(column) if !has(column) => {}
                // Its rows go back by all their columns.
                About::Column(_) | About::Values(_) => one.is_met = true,
                About::Row(key) if !form.can_tell(key) => one.is_met = true,
                About::Row(key) => all.push(OfRow { conflict, is_met: &mut one.is_met, key, found: [None, None] }),
            }
        }
        Self { table, form, all }
    }

    /// Takes in a row as it was before (`side` 0) or after.
    fn line(&mut self, line: &[u8], side: usize) {
        let key = self.form.key(line);
        for one in self.all.iter_mut().filter(|one| !*one.is_met && one.key == key) {
            if is_whole(one.conflict) || one.found[side].is_some() {
                // It is about the row as a whole, or another one is shown alike.
                *one.is_met = true;
            } else {
                one.found[side] = Some(line.to_vec());
            }
        }
    }

    /// All rows were taken in.
    fn end(self) {
        for OfRow { conflict, is_met, found, .. } in self.all.into_iter().filter(|one| !*one.is_met) {
            *is_met = match (found, conflict.column.as_deref()) {
                ([None, None], _) => false,
                ([Some(before), Some(after)], Some(column)) => {
                    let at = self.table.columns.iter().position(|one| one.name == column);
                    at.is_some_and(|at| field(&before, at) != field(&after, at))
                }
                // It came, went, or got another key.
                _ => true,
            };
        }
    }
}

/// True where a conflict is about all of a row.
fn is_whole(conflict: &Conflict) -> bool {
    conflict.kind != ConflictKind::Changed || conflict.before == NO_ROW || conflict.column.is_none()
}

/// How the rows of a table are shown: what [`super::terms::shown_key`] has the server write.
pub(super) struct Form<'a> {
    table: &'a Table,
    /// The columns by their places.
    columns: Vec<usize>,
}

impl<'a> Form<'a> {
    pub(super) fn of(table: &'a Table) -> Self {
        let columns = match table.key.as_slice() {
            [] => (0..table.columns.len().min(ROW_COLUMNS)).collect(),
            key => key.iter().map(|key| key.column).collect(),
        };
        Self { table, columns }
    }

    /// True where rows of this table that are shown otherwise are other rows than the one that is shown like that: values
    /// that are the same are shown in one way, and the columns are the same ones.
    fn can_tell(&self, key: &str) -> bool {
        let mut rest = if self.table.key.is_empty() { key.strip_prefix('(').unwrap_or_default() } else { key };
        let are_there = self.columns.iter().all(|at| {
            let column = &self.table.columns[*at];
            let quote = if is_plain(&column.kind) { "" } else { "'" };
            let begin = format!("{}={quote}", column.name);
            let found = rest.find(&begin).filter(|found| *found == 0 || rest[..*found].ends_with(", "));
            let Some(after) = found.map(|found| &rest[found + begin.len()..]) else { return false };
            rest = after;
            !(quote.is_empty() && after.starts_with('\''))
        });
        let is_exact = |at: &usize| self.table.columns[*at].exact;
        // Of a row without a key all of it is looked at.
        are_there && self.columns.iter().all(is_exact) && (!self.table.key.is_empty() || self.is_whole())
    }

    /// True where all columns are shown.
    fn is_whole(&self) -> bool {
        self.columns.len() == self.table.columns.len()
    }

    /// The key of a row, as it is shown.
    pub(super) fn key(&self, line: &[u8]) -> String {
        let shown = |at: &usize| {
            let column = &self.table.columns[*at];
            format!("{}={}", column.name, shown_value(field(line, *at), &column.kind))
        };
        let mut parts: Vec<String> = self.columns.iter().map(shown).collect();
        if !self.table.key.is_empty() {
            return parts.join(", ");
        }
        if !self.is_whole() {
            parts.push(MORE.to_owned());
        }
        format!("({})", parts.join(", "))
    }
}

/// A value as [`super::terms::shown`] has the server write it.
fn shown_value(field: &[u8], kind: &str) -> String {
    if field == b"\\N" {
        return "NULL".to_owned();
    }
    let bytes = unescaped(field);
    let text = String::from_utf8_lossy(&bytes);
    let text = match text.char_indices().nth(CUT) {
        Some((end, _)) => format!("{}{MORE}", &text[..end]),
        None => text.into_owned(),
    };
    if is_plain(kind) { text } else { format!("'{text}'") }
}

/// One field of a line of COPY text, as it stands there.
pub(super) fn field(line: &[u8], at: usize) -> &[u8] {
    line.split(|byte| *byte == b'\t').nth(at).unwrap_or_default()
}

/// The text of a field that is not NULL.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        text.push(match (*byte, byte) {
            (b'\\', _) => match bytes.next() {
                Some(b'b') => 0x08,
                Some(b'f') => 0x0c,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'v') => 0x0b,
                Some(other) => *other,
                None => b'\\',
            },
            (other, _) => other,
        });
    }
    text
}
