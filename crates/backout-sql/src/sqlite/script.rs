//! Writes a script for `sqlite3` that takes back steps, in one transaction that stops at the first thing that is not as
//! the steps left it. What only the tool can take back is said instead. Changes nothing.
//!

use std::collections::BTreeSet;
use std::io::{self, Write};

use backout_model::target::{Images, TargetError};

use super::counters::Counters;
use super::ddl_event::{DdlEvent, Kind};
use super::script_rows::{Batch, guard, text};
use super::stream::{Block, Damage, Event, Reader, Record, RowImages, StreamError};
use super::token::quote;
use super::value::Cell;
use super::{Sqlite, schema};

/// The guard speaks by the name of its constraint, which the client prints.
const GUARD: &str = "CREATE TEMP TABLE backout_guard (what TEXT, wanted INTEGER, found INTEGER,
    CONSTRAINT \"something is no longer as the deployment left it: nothing was changed\" CHECK (found IS wanted));";

impl Sqlite {
    pub(super) fn script_of_undo(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        out: &mut dyn Write,
    ) -> Result<Vec<String>, TargetError> {
        let mut steps: Vec<Box<dyn Images>> = steps.collect();
        let mut script = Script { out, not: Vec::new(), keys: BTreeSet::new(), last: Vec::new() };
        let mut tables = BTreeSet::new();
        for images in &mut steps {
            let reader = Reader::open(&mut **images).map_err(|source| self.damaged(source))?;
            tables.extend(reader.index.tables.iter().map(|table| table.name.clone()));
            for event in reader.index.events.iter().filter_map(Event::ddl) {
                script.not.extend(event.not_in_script());
            }
        }
        if !script.not.is_empty() {
            return Ok(script.not);
        }
        let writing = |source| TargetError::failed(format!("cannot write the script for {}", self.label), source);
        self.begin(&tables, &mut script)?;
        for images in &mut steps {
            let mut reader = Reader::open(&mut **images).map_err(|source| self.damaged(source))?;
            script.step(&mut reader).map_err(|trouble| match trouble {
                Trouble::Write(source) => writing(source),
                Trouble::Stream(source) => self.damaged(source),
            })?;
        }
        script.end().map_err(writing)?;
        Ok(script.not)
    }

    /// What stands before the first step: triggers must not fire while rows go back, and foreign keys are looked at last.
    fn begin(&self, tables: &BTreeSet<String>, script: &mut Script<'_>) -> Result<(), TargetError> {
        let failed = |error: rusqlite::Error| {
            TargetError::failed(format!("cannot read the schema of {} for the script", self.label), error)
        };
        let writing = |source| TargetError::failed(format!("cannot write the script for {}", self.label), source);
        let objects = schema::all(&self.conn).map_err(failed)?;
        let out = &mut *script.out;
        writeln!(out, ".bail on\nPRAGMA foreign_keys = OFF;\nBEGIN IMMEDIATE;\n{GUARD}").map_err(writing)?;
        let dangling = "(SELECT count(*) FROM pragma_foreign_key_check)";
        writeln!(out, "CREATE TEMP TABLE backout_dangling AS SELECT {dangling} AS rows;").map_err(writing)?;
        for table in tables {
            let triggers: Vec<_> = objects.iter().filter(|row| row.kind == "trigger" && row.table == *table).collect();
            let those = format!("FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = {}", text(table));
            guard(out, &format!("triggers of {table}"), triggers.len() as u64, &format!("(SELECT count(*) {those})"))
                .map_err(writing)?;
            for row in triggers {
                let sql = row.sql.clone().unwrap_or_default();
                let same = format!("(SELECT count(*) {those} AND name = {} AND sql = {})", text(&row.name), text(&sql));
                guard(out, &format!("trigger {}", row.name), 1, &same).map_err(writing)?;
                writeln!(out, "DROP TRIGGER main.{};", quote(&row.name)).map_err(writing)?;
                script.last.push((row.name.clone(), sql));
            }
            script.keys.extend(self.unique(table).map_err(failed)?);
        }
        Ok(())
    }

    /// The columns of a table on which rows exclude each other.
    fn unique(&self, table: &str) -> rusqlite::Result<Vec<(String, String)>> {
        let mut found = self.conn.prepare(
            "SELECT i.name FROM pragma_index_list(?1, 'main') AS l, pragma_index_info(l.name, 'main') AS i
             WHERE l.\"unique\" AND i.name IS NOT NULL",
        )?;
        let columns = found.query_map([table], |row| Ok((table.to_owned(), row.get(0)?)))?;
        columns.collect()
    }
}

/// Why a script could not be written.
pub(super) enum Trouble {
    Write(io::Error),
    Stream(StreamError),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<StreamError> for Trouble {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

impl From<Damage> for Trouble {
    fn from(error: Damage) -> Self {
        Self::Stream(error.into())
    }
}

struct Script<'o> {
    out: &'o mut dyn Write,
    not: Vec<String>,
    /// Tables and their columns on which rows exclude each other: those go back one by one.
    keys: BTreeSet<(String, String)>,
    /// Triggers, by name, that are made once all rows are back.
    last: Vec<(String, String)>,
}

impl Script<'_> {
    fn step(&mut self, reader: &mut Reader<'_>) -> Result<(), Trouble> {
        writeln!(self.out, "\n-- {}", reader.index.shown.replace(['\n', '\r'], " "))?;
        for event in reader.index.events.clone().iter().rev() {
            match event {
                Event::Rows { start, end, .. } => self.rows(reader, *start, *end)?,
                Event::Ddl { event, .. } => self.ddl(event)?,
            }
        }
        let (before, after) = (reader.index.before.clone(), reader.index.after.clone());
        self.counters(&before, &after)?;
        Ok(())
    }

    fn rows(&mut self, reader: &mut Reader<'_>, start: u64, end: u64) -> Result<(), Trouble> {
        let tables = reader.index.tables.clone();
        let mut block = Block::default();
        let mut batch = Batch::of(&tables, &self.keys);
        let mut at = end;
        while at > start {
            let head = reader.head_before(at)?;
            reader.block(&head, &mut block)?;
            let mut images = RowImages::default();
            for number in (0..block.len()).rev() {
                if let Record::Row(row) = block.record(number)? {
                    batch.row(&row, &mut images, self.out)?;
                }
            }
            at = head.start;
        }
        batch.write(self.out)?;
        Ok(())
    }

    fn ddl(&mut self, event: &DdlEvent) -> io::Result<()> {
        match &event.kind {
            Kind::Create => {
                for row in event.made.iter().rev().filter(|row| row.sql.is_some()) {
                    let sql = row.sql.as_deref().unwrap_or_default();
                    let name = text(&row.name);
                    // A trigger is put away already, with those of its table.
                    if let Some(at) = self.last.iter().position(|(trigger, _)| *trigger == row.name) {
                        self.last.remove(at);
                        continue;
                    }
                    let same = format!(
                        "(SELECT count(*) FROM main.sqlite_schema WHERE name = {name} AND sql = {})",
                        text(sql)
                    );
                    guard(self.out, &format!("{} {}", row.kind, row.name), 1, &same)?;
                    if row.kind == "table" {
                        let rows = format!("(SELECT count(*) FROM main.{})", quote(&row.name));
                        guard(self.out, &format!("rows of {}", row.name), 0, &rows)?;
                    }
                    writeln!(self.out, "DROP {} main.{};", row.kind.to_uppercase(), quote(&row.name))?;
                }
            }
            Kind::Drop => {
                for row in event.gone.iter().filter(|row| row.sql.is_some()) {
                    let sql = row.sql.clone().unwrap_or_default();
                    match row.kind.as_str() {
                        "trigger" => self.last.push((row.name.clone(), sql)),
                        "table" => {
                            writeln!(self.out, "{sql};")?;
                            if let Some(hold) = &event.hold {
                                let into = format!("INSERT INTO main.{}", quote(&row.name));
                                writeln!(self.out, "{into} SELECT * FROM main.{};", quote(&hold.table))?;
                            }
                        }
                        _ => writeln!(self.out, "{sql};")?,
                    }
                }
            }
            Kind::AddColumn { table, column } => {
                let (table_name, column_name) = (quote(table), quote(column));
                let default = format!(
                    "(SELECT count(*) FROM main.{table_name} WHERE {column_name} IS NOT {})",
                    default_of(&event.sql).unwrap_or_else(|| "NULL".to_owned())
                );
                guard(self.out, &format!("values in the column {column} of {table}"), 0, &default)?;
                writeln!(self.out, "ALTER TABLE main.{table_name} DROP COLUMN {column_name};")?;
            }
            // Nothing to take back, or refused by `not_in_script`.
            _ => {}
        }
        Ok(())
    }

    /// Numbers that AUTOINCREMENT gave away, and the two of the database itself.
    fn counters(&mut self, before: &Counters, after: &Counters) -> io::Result<()> {
        for left in &after.sequences {
            let (Cell::Text(name), Cell::Integer(seq)) = (&left.name, &left.seq) else { continue };
            let was = before.sequences.iter().find(|was| was.name == left.name).map(|was| &was.seq);
            let place = format!("WHERE name = {} AND seq IS {seq}", text(name));
            match was {
                Some(was) if *was == left.seq => {}
                Some(Cell::Integer(was)) => writeln!(self.out, "UPDATE main.sqlite_sequence SET seq = {was} {place};")?,
                Some(_) => {}
                None => writeln!(self.out, "DELETE FROM main.sqlite_sequence {place};")?,
            }
        }
        let of_database = [
            ("user_version", before.user_version, after.user_version),
            ("application_id", before.application_id, after.application_id),
        ];
        for (name, was, left) in of_database.into_iter().filter(|(_, was, left)| was != left) {
            writeln!(
                self.out,
                "INSERT INTO temp.backout_guard SELECT '{name}', {left}, {name} FROM pragma_{name};\nPRAGMA main.{name} = {was};"
            )?;
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        writeln!(self.out)?;
        for (_, sql) in std::mem::take(&mut self.last) {
            writeln!(self.out, "{sql};")?;
        }
        writeln!(
            self.out,
            "INSERT INTO temp.backout_guard SELECT 'rows that point at nothing', 1,
    (SELECT count(*) FROM pragma_foreign_key_check) <= (SELECT rows FROM temp.backout_dangling);
COMMIT;"
        )
    }
}

impl DdlEvent {
    /// Why no script can take it back.
    fn not_in_script(&self) -> Option<String> {
        let readable = |rows: &[schema::SchemaRow]| rows.iter().all(|row| !row.is_raw);
        let can = match &self.kind {
            Kind::Nothing | Kind::Analyze | Kind::AddColumn { .. } => true,
            Kind::Create => readable(&self.made) && !self.made.iter().any(is_virtual),
            Kind::Drop => {
                let plain = readable(&self.gone) && !self.gone.iter().any(is_virtual);
                // The values of a hold with a form of its own are for the tool.
                plain && self.hold.as_ref().is_none_or(|hold| hold.more.is_empty() && !hold.objects.is_empty())
            }
            Kind::CreateAsSelect
            | Kind::RenameTable { .. }
            | Kind::RenameColumn { .. }
            | Kind::DropColumn { .. }
            | Kind::Constraint { .. }
            | Kind::DeleteAll { .. } => false,
        };
        (!can).then(|| format!("line {}: {}", self.line, self.words()))
    }
}

fn is_virtual(row: &schema::SchemaRow) -> bool {
    row.sql.as_deref().and_then(schema::module_of).is_some()
}

/// What a column that a statement added holds where nobody wrote to it: the text behind DEFAULT.
fn default_of(sql: &str) -> Option<String> {
    let mut words = sql.char_indices().filter(|(_, c)| c.is_ascii_alphabetic()).map(|(at, _)| at);
    let at = words.find(|at| {
        let before = sql[..*at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let after = sql[*at..].chars().nth(7).is_none_or(|c| !c.is_alphanumeric() && c != '_');
        before && after && sql[*at..].get(..7).is_some_and(|word| word.eq_ignore_ascii_case("default"))
    })?;
    let rest = sql[at + 7..].trim_start();
    let end = match rest.chars().next()? {
        '(' => {
            let mut depth = 0;
            rest.char_indices().find_map(|(at, c)| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                (depth == 0).then_some(at + 1)
            })?
        }
        '\'' => rest[1..].find('\'').map(|at| at + 2)?,
        _ => rest.find(|c: char| c.is_whitespace() || c == ';' || c == ',').unwrap_or(rest.len()),
    };
    Some(rest[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_of_an_added_column_is_found() {
        let of = |sql: &str| default_of(sql);
        assert_eq!(of("ALTER TABLE a ADD COLUMN b INT NOT NULL DEFAULT 7").as_deref(), Some("7"));
        assert_eq!(of("ALTER TABLE a ADD b TEXT default 'x y' NOT NULL").as_deref(), Some("'x y'"));
        assert_eq!(of("ALTER TABLE a ADD b INT DEFAULT (1 + (2)) CHECK (b)").as_deref(), Some("(1 + (2))"));
        assert_eq!(of("ALTER TABLE a ADD default_b INT"), None);
    }
}
