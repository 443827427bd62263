//! A full, exact copy of a database as it is before a command runs, by which is found afterwards what the command changed:
//! beside each table one of the same shape with its rows and its counter, and a table with all definitions.
//!
//! Others can read while it is made, and wait with what they want to write. Never changes what is copied.

use std::collections::BTreeSet;

use backout_model::fault::{self, Point};
use backout_model::target::{Refusal, Summary, TargetError};
use mysql::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::capture::patiently;
use super::compared_schema::{OneTable, OneText, Other, Schema};
use super::ddl::{Change, definition, renamed};
use super::ddl_shape::Shape;
use super::segment::Detail;
use super::session::{Session, ident, is_lost, is_missing, literal};
use super::table::{ForeignKey, Table};
use super::{Mariadb, examine, marker, own};

/// How often the tables are looked at again where others made or dropped one meanwhile.
const LOOKS: u32 = 5;

/// A table with more rows than this is worth a copy that gets its keys only where it has to take the table's place.
const LARGE: u32 = 10_000;

/// One thing of the copied schema, as a row keeps it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kept {
    Table(Box<OneTable>),
    Text(Box<OneText>),
    Links(Vec<ForeignKey>),
    Collation(String),
}

impl Mariadb {
    /// Refuses where no step could bring back what a command does; else what a copy would take.
    pub(super) fn copy_size(&mut self) -> Result<Summary, TargetError> {
        let schema = self.look().map_err(|source| self.reading(source))?;
        self.may_be_copied(&schema)?;
        let row = self.b.rows(
            "SELECT COUNT(*), IFNULL(SUM(TABLE_ROWS), 0), IFNULL(SUM(DATA_LENGTH + INDEX_LENGTH), 0) FROM information_schema.TABLES
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE' AND TABLE_NAME NOT LIKE 'backout\\_%'",
        );
        let row = row.map_err(|source| self.reading(source))?.pop().unwrap_or_default();
        let number = |at: usize| row.get(at).and_then(|text| text.as_deref()?.parse().ok()).unwrap_or(0);
        Ok(Summary { changes: number(0), rows: number(1), bytes: number(2), ..Summary::default() })
    }

    fn may_be_copied(&mut self, schema: &Schema) -> Result<(), TargetError> {
        let galera = || Other { what: "the database".to_owned(), why: examine::GALERA.to_owned(), drop: String::new() };
        let other = if self.is_galera()? { Some(galera()) } else { schema.others.first().cloned() };
        if let Some(other) = other {
            return Err(self.not_copied(&other.what, &other.why));
        }
        match schema.texts.iter().find(|one| one.broken) {
            None => Ok(()),
            Some(view) => {
                let why = "the server does not find all that it is made of, or the definer of that, so that nothing could bring it back";
                Err(self.not_copied(&format!("view {}", view.name), why))
            }
        }
    }

    fn not_copied(&self, what: &str, why: &str) -> TargetError {
        TargetError::Refused(Refusal {
            place: self.label.clone(),
            what: what.to_owned(),
            why: format!("what a command does to {} cannot be captured: {why}", self.label),
            ways_out: vec!["give the step an undo of its own: `undo: [a command]`".to_owned()],
        })
    }

    /// Has others wait with what they want to write, until the session that is returned goes; and what there is.
    pub(super) fn keep_writers_out(&mut self) -> Result<(Session, Schema), TargetError> {
        let mut looks = 0;
        loop {
            let mut keeper = own(&self.route, &self.label)?;
            let (tables, _) = self.tables_there().map_err(|source| self.reading(source))?;
            let locks: Vec<String> = tables.iter().map(|(name, _)| format!("{} READ", ident(name))).collect();
            let locked = match locks.is_empty() {
                true => Ok(()),
                false => patiently(|| keeper.run(&format!("LOCK TABLES {}", locks.join(", ")))),
            };
            looks += 1;
            match locked {
                Err(error) if is_missing(&error) && looks < LOOKS => continue,
                locked => locked.map_err(|source| self.failed("cannot lock the tables of", source))?,
            }
            let schema = self.look().map_err(|source| self.reading(source))?;
            if looks == LOOKS || schema.tables.keys().eq(tables.iter().map(|(name, _)| name)) {
                return Ok((keeper, schema));
            }
        }
    }

    /// See [`backout_model::target::Target::snapshot`]: the number of the copy. `listens`: others may be at work meanwhile.
    pub(super) fn copy_all(&mut self, listens: bool) -> Result<Value, TargetError> {
        self.ready()?;
        let mut number = None;
        let done = self.own_session().and_then(|()| self.copied(&mut number, listens));
        self.after_step();
        if done.is_err() && number.is_some() {
            // Nobody else knows of it. Where this fails, whoever takes the lock next does it, or the engine's own sweep.
            drop(self.copies_dropped(number));
        }
        done
    }

    fn copied(&mut self, taken: &mut Option<u64>, listens: bool) -> Result<Value, TargetError> {
        let act = format!("cannot copy {}", self.label);
        let failed = |source: Error| TargetError::failed(act.clone(), source);
        let struck = |source: std::io::Error| TargetError::failed(act.clone(), source);
        fault::point(Point::Stage).map_err(struck)?;
        let (names, label, epoch) = (self.names.clone(), self.label.clone(), self.epoch);
        marker::holds(self.a()?, &names, &label, epoch)?;
        let number = marker::next_step(self.a()?, &names).map_err(failed)?;
        *taken = Some(number);
        let armed = listens.then(|| self.arm(number)).transpose().map_err(failed)?;
        fault::point(Point::Statement).map_err(struck)?;
        let (keeper, schema) = self.keep_writers_out()?;
        self.may_be_copied(&schema)?;
        let all = names.of_copy(number, "all");
        let made = format!(
            "CREATE TABLE {} (number int unsigned NOT NULL PRIMARY KEY, item longtext NOT NULL) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
            ident(&all)
        );
        self.a()?.run(&made).map_err(failed)?;
        let mut kept = vec![Kept::Collation(schema.collation), Kept::Links(schema.links)];
        kept.extend(schema.texts.into_iter().map(|text| Kept::Text(Box::new(text))));
        for (at, mut one) in schema.tables.into_values().enumerate() {
            fault::point(Point::Statement).map_err(struck)?;
            one.copy = names.of_copy(number, &format!("t{at}"));
            if !made_bare(self.a()?, &one).map_err(failed)? {
                let why = "a table like it would not be the same, so that nothing could bring it back";
                return Err(self.not_copied(&format!("table {}", one.table.name), why));
            }
            fill(self.a()?, &one, &one.table.name, &one.copy).map_err(failed)?;
            if let Some(Ok(logs)) = &armed {
                let is_logged = |table: &Table| table.name == one.table.name && table.columns == one.table.columns;
                one.log =
                    logs.iter().find(|(table, _)| is_logged(table)).map(|(_, log)| log.clone()).unwrap_or_default();
            }
            kept.push(Kept::Table(Box::new(one)));
        }
        if let Some(Ok(_)) = &armed {
            // Whoever connected while the copy was made was there before the command, too.
            let newest = own(&self.route, &self.label)?;
            self.listen(number, &newest).map_err(failed)?;
        }
        drop(keeper);
        fault::point(Point::Commit).map_err(struck)?;
        self.begin()?;
        let a = self.a()?;
        for (at, one) in kept.iter().enumerate() {
            let item = serde_json::to_string(one).unwrap_or_default();
            let sql = format!("INSERT INTO {} VALUES ({at}, {})", ident(&all), literal(&item));
            a.run(&sql).map_err(failed)?;
        }
        a.run("COMMIT").map_err(failed)?;
        fault::point(Point::Committed).map_err(struck)?;
        Ok(match armed {
            None => json!({ "copy": number }),
            Some(Ok(_)) => json!({ "copy": number, "listens": true }),
            Some(Err(why)) => json!({ "copy": number, "deaf": why }),
        })
    }

    /// Reads back what a snapshot kept; its rows stay where they are.
    pub(super) fn before(&mut self, note: &Value) -> Result<Schema, TargetError> {
        let act = format!("cannot read the copy of {} of before", self.label);
        let all = self.names.of_copy(note["copy"].as_u64().unwrap_or(0), "all");
        let rows = match self.b.rows(&format!("SELECT item FROM {} ORDER BY number", ident(&all))) {
            Err(error) if is_missing(&error) => {
                return Err(TargetError::failed(
                    format!("cannot tell what a command changed in {}", self.label),
                    "the copy of before is gone: it lay in tables of the tool's own",
                ));
            }
            rows => rows.map_err(|source| TargetError::failed(act.clone(), source))?,
        };
        let mut schema = Schema::default();
        for mut row in rows {
            let item = row[0].take().unwrap_or_default();
            match serde_json::from_str(&item).map_err(|source| TargetError::failed(act.clone(), source))? {
                Kept::Table(one) => drop(schema.tables.insert(one.table.name.clone(), *one)),
                Kept::Links(links) => schema.links = links,
                Kept::Text(one) => schema.texts.push(*one),
                Kept::Collation(collation) => schema.collation = collation,
            }
        }
        Ok(schema)
    }

    /// See [`backout_model::target::Target::give_up`].
    pub(super) fn drop_copies(&mut self, note: &Value) -> Result<(), TargetError> {
        self.ready()?;
        fault::point(Point::Statement)
            .map_err(|source| TargetError::failed(format!("cannot drop a copy in {}", self.label), source))?;
        let done = self.copies_dropped(note["copy"].as_u64());
        self.after_step();
        done.map_err(|source| self.failed("cannot drop a copy in", source))
    }

    /// Drops one copy, or all. A table that a segment holds as one that went is that segment's.
    fn copies_dropped(&mut self, number: Option<u64>) -> Result<(), Error> {
        self.disarm(number)?;
        let held = self.held_copies(None)?;
        for (of, name) in self.copied_tables()? {
            if number.is_none_or(|number| number == of) && !held.contains(&name) {
                patiently(|| self.b.run(&format!("DROP TABLE IF EXISTS {}", ident(&name))))?;
            }
        }
        Ok(())
    }

    /// Drops what is left of copies that were never whole, or are not any more.
    pub(super) fn sweep_copies(&mut self) -> Result<(), Error> {
        let numbers: BTreeSet<u64> = self.copied_tables()?.into_iter().map(|(number, _)| number).collect();
        for number in numbers {
            let all = ident(&self.names.of_copy(number, "all"));
            let whole = match self.b.value(&format!("SELECT 1 FROM {all} LIMIT 1")) {
                Err(error) if is_missing(&error) => false,
                found => found?.is_some(),
            };
            if !whole {
                self.copies_dropped(Some(number))?;
            }
        }
        Ok(())
    }

    /// The tables of copies, with the numbers of these; first the one that says that a copy is whole.
    fn copied_tables(&mut self) -> Result<Vec<(u64, String)>, Error> {
        let begin = self.names.object("c");
        let found = self.b.rows(&format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND LEFT(TABLE_NAME, {}) = {} ORDER BY 1",
            begin.len(),
            literal(&begin)
        ))?;
        let tables = found.into_iter().filter_map(|mut row| {
            let name = row[0].take()?;
            let number = name.strip_prefix(&begin)?.split('$').next()?.parse().ok()?;
            Some((number, name))
        });
        Ok(tables.collect())
    }

    /// The copies that the segments of a step hold, or those of all steps.
    pub(super) fn held_copies(&mut self, step: Option<u64>) -> Result<Vec<String>, Error> {
        let of = step.map(|step| format!(" AND step = {step}")).unwrap_or_default();
        let sql = format!("SELECT detail FROM `{}` WHERE INSTR(detail, '\"held\":') > 0{of}", self.names.segments());
        let mut all = Vec::new();
        for mut row in self.b.rows(&sql)? {
            let detail = row[0].take().unwrap_or_default();
            if let Ok(Detail::Ddl { change, .. }) = serde_json::from_str(&detail)
                && let Change::Dropped { gone } = *change
            {
                all.extend(gone.into_iter().filter_map(|one| one.held));
            }
        }
        Ok(all)
    }
}

/// Makes a table like another with its rows and its counter, but for foreign keys and triggers.
pub(super) fn copy_table(a: &mut Session, one: &OneTable, from: &str, to: &str) -> Result<(), Error> {
    a.run(&like(from, to))?;
    fill(a, one, from, to)?;
    complete(a, one, to)
}

fn like(from: &str, to: &str) -> String {
    format!("CREATE TABLE {} LIKE {}", ident(to), ident(from))
}

/// Fills a copy of a table.
fn fill(a: &mut Session, one: &OneTable, from: &str, to: &str) -> Result<(), Error> {
    let columns = one.table.live("");
    if !columns.is_empty() {
        a.run(&format!("INSERT INTO {} ({columns}) SELECT {columns} FROM {}", ident(to), ident(from)))?;
    }
    count_on(a, one, to)
}

fn count_on(a: &mut Session, one: &OneTable, copy: &str) -> Result<(), Error> {
    let Some(counter) = one.counter else { return Ok(()) };
    a.run(&format!("ALTER TABLE {} AUTO_INCREMENT = {counter}", ident(copy)))
}

/// Makes the empty copy of a table. Of a large one it lacks the keys that rows are not told apart by and that keep none out,
/// where the server makes them again as they were: much of its time goes into them. False where a table like it is not the
/// same.
fn made_bare(a: &mut Session, one: &OneTable) -> Result<bool, Error> {
    let (like, copy) = (like(&one.table.name, &one.copy), ident(&one.copy));
    a.run(&like)?;
    if !is_complete(a, one, &one.copy)? {
        return Ok(false);
    }
    let keys = Shape::of(&one.definition).keys;
    // InnoDB had its errors in making keys of other kinds again.
    let drops: Vec<String> =
        keys.iter().filter(|(_, line)| line.starts_with("KEY ")).map(|(head, _)| format!("DROP {head}")).collect();
    let is_large = format!("SELECT 1 FROM {} LIMIT 1 OFFSET {LARGE}", ident(&one.table.name));
    if one.engine != "InnoDB" || drops.is_empty() || a.value(&is_large)?.is_none() {
        return Ok(true);
    }
    let drop = format!("ALTER TABLE {copy} {}", drops.join(", "));
    let tried = a.run(&drop).and_then(|()| complete(a, one, &one.copy)).and_then(|()| a.run(&drop));
    match tried {
        Err(error) if is_lost(&error) => return Err(error),
        Err(_) => {
            a.run(&format!("DROP TABLE {copy}"))?;
            a.run(&like)?;
        }
        Ok(()) => {}
    }
    Ok(true)
}

fn is_complete(a: &mut Session, one: &OneTable, copy: &str) -> Result<bool, Error> {
    Ok(shape(a, one, copy)? == Shape::of(&one.definition).without_links())
}

/// A copy's shape under the name of the table that was copied.
fn shape(a: &mut Session, one: &OneTable, copy: &str) -> Result<Shape, Error> {
    Ok(Shape::of(&renamed(&definition(a, copy)?.unwrap_or_default(), copy, &one.table.name)))
}

/// Gives a copy the keys that it lacks, so that it can take the place of the table.
pub(super) fn complete(a: &mut Session, one: &OneTable, copy: &str) -> Result<(), Error> {
    let has = shape(a, one, copy)?.keys;
    let lacks = Shape::of(&one.definition).keys.into_iter().filter(|key| !has.contains(key));
    let adds: Vec<String> = lacks.map(|(_, line)| format!("ADD {line}")).collect();
    if adds.is_empty() {
        return Ok(());
    }
    a.run(&format!("ALTER TABLE {} {}", ident(copy), adds.join(", ")))?;
    count_on(a, one, copy)?;
    if is_complete(a, one, copy)? {
        return Ok(());
    }
    Err(Error::MySqlError(mysql::MySqlError {
        state: "HY000".to_owned(),
        code: 1105,
        message: format!("the keys of the copy of {} could not be made as they were", one.table.name),
    }))
}
