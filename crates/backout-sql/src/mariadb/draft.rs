//! What happened to a database since a copy of it was made, as a script that does the same to another copy. Nobody writes to
//! the tables while it is written.
//!
//! A table that was altered is altered on a copy of the copy first: it must come to the definition that it has now, and its
//! rows are compared from there. What has no such way is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use backout_model::review::{Concern, Review};
use backout_model::target::{Refusal, TargetError};
use mysql::Error;
use serde_json::Value;

use super::compared_events::Tables;
use super::compared_links::{in_order, of_one_that_stays};
use super::compared_rows;
use super::compared_schema::{OneTable, Schema};
use super::ddl::{definition, renamed};
use super::ddl_shape::{Shape, clauses};
use super::ddl_text::{Kind, Text};
use super::draft_rows::{MariaRows, Way, doomed, shape_of, write};
use super::session::{Session, ident};
use super::snapshot::copy_table;
use super::table::{self, ForeignKey, Table};
use super::{Mariadb, definition, marker};
use crate::parents_first::parents_first;
use crate::recorded::{Condition, Drafted, Drafting, Rows};

/// What the statements are written for.
const SETTINGS: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', character_set_client = 'utf8mb4'";

/// Why no draft came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum DraftError {
    #[error("{what} cannot be recorded: {why}")]
    Refused { what: String, why: String },
    #[error(transparent)]
    Server(#[from] Error),
    #[error(transparent)]
    Write(#[from] io::Error),
}

fn refuse(what: impl Into<String>, why: impl Into<String>) -> DraftError {
    DraftError::Refused { what: what.into(), why: why.into() }
}

impl Mariadb {
    /// See [`crate::database::Database::draft`].
    pub(super) fn draft_since(&mut self, note: &Value, drafting: &mut Drafting<'_>) -> Result<Drafted, TargetError> {
        self.ready()?;
        let done = self.own_session().and_then(|()| self.drafted(note, drafting));
        self.after_step();
        done
    }

    fn drafted(&mut self, note: &Value, drafting: &mut Drafting<'_>) -> Result<Drafted, TargetError> {
        let (names, label, epoch) = (self.names.clone(), self.label.clone(), self.epoch);
        marker::holds(self.a()?, &names, &label, epoch)?;
        let mut was = self.before(note)?;
        let (keeper, mut is) = self.keep_writers_out()?;
        for schema in [&mut was, &mut is] {
            leave(schema, drafting.leave_out);
        }
        self.may_be_told(&was, &is, "the recording")?;
        let number = note["copy"].as_u64().unwrap_or(0);
        let scratch = |at: usize| names.of_copy(number, &format!("d{at}"));
        let mut drafted = Drafted::default();
        let mut draft =
            Draft { a: self.a()?, was: &was, is: &is, scratch: &scratch, scratches: 0, asked: BTreeSet::new() };
        let done = draft.write(drafting, &mut drafted);
        let asked = draft.asked;
        drafted.definitions =
            asked.into_iter().map(|object| (object.clone(), definition::definition(&was, &object))).collect();
        let scratches = was.tables.len();
        for at in 0..scratches {
            let dropped = self.a()?.run(&format!("DROP TABLE IF EXISTS {}", ident(&scratch(at))));
            dropped.map_err(|source| self.failed("cannot drop a copy in", source))?;
        }
        drop(keeper);
        match done {
            Ok(()) => Ok(drafted),
            Err(DraftError::Refused { what, why }) => Err(TargetError::Refused(Refusal {
                place: label,
                what,
                why,
                ways_out: vec![
                    "leave it out with `--leave-out`, and add to the package by hand what it needs".to_owned(),
                ],
            })),
            Err(other) => Err(TargetError::failed(format!("cannot write down what happened to {label}"), other)),
        }
    }
}

/// Takes out of a schema what the reviewer leaves out.
fn leave(schema: &mut Schema, leave_out: &dyn Fn(&str) -> bool) {
    schema.tables.retain(|name, _| !leave_out(name));
    schema.texts.retain(|text| !leave_out(&text.name));
}

/// A table whose rows are compared: with what, and as what it is now.
struct Pair<'s> {
    table: &'s Table,
    new: &'s OneTable,
    /// The name of what it was, with the columns of now; none where it is new.
    old: Option<String>,
}

struct Draft<'d> {
    a: &'d mut Session,
    was: &'d Schema,
    is: &'d Schema,
    /// The name of a table for trying.
    scratch: &'d dyn Fn(usize) -> String,
    scratches: usize,
    /// What the script drops, alters or makes, as `table product`.
    asked: BTreeSet<String>,
}

impl Draft<'_> {
    fn write(&mut self, drafting: &mut Drafting<'_>, drafted: &mut Drafted) -> Result<(), DraftError> {
        let (was, is) = (self.was, self.is);
        let both: Vec<(&OneTable, &OneTable)> =
            was.tables.iter().filter_map(|(name, old)| Some((old, is.tables.get(name)?))).collect();
        let gone: Vec<&OneTable> = was.tables.values().filter(|old| !is.tables.contains_key(&old.table.name)).collect();
        let made: Vec<&OneTable> = is.tables.values().filter(|new| !was.tables.contains_key(&new.table.name)).collect();
        let names = |all: &[&OneTable]| all.iter().map(|one| one.table.name.clone()).collect::<BTreeSet<_>>();
        let (gone_names, made_names) = (names(&gone), names(&made));
        let links: Vec<_> =
            both.iter().map(|(old, new)| of_one_that_stays(old, new, &gone_names, &made_names)).collect();

        let stay: BTreeSet<&str> =
            Tables::of(was, is, &BTreeSet::new()).stay.iter().map(|(old, _)| old.table.name.as_str()).collect();
        let (mut alters, mut pairs) = (Vec::new(), Vec::new());
        for (old, new) in &both {
            let name = old.table.name.as_str();
            let compared = if stay.contains(name) {
                compared_rows::differ(self.a, old)?.then(|| old.copy.clone())
            } else {
                self.asked.insert(format!("table {name}"));
                let (sql, scratch) = self.altered(old, new, drafting.review)?;
                alters.push(sql);
                Some(scratch)
            };
            if let Some(old) = compared {
                pairs.push(Pair { table: &new.table, new, old: Some(old) });
            }
        }
        for new in &made {
            let rows = self.a.number(&format!("SELECT EXISTS (SELECT 1 FROM {})", ident(&new.table.name)))?;
            if rows > 0 {
                pairs.push(Pair { table: &new.table, new, old: None });
            }
        }
        for pair in &pairs {
            let what = || format!("table {}", pair.table.name);
            if pair.new.engine != "InnoDB" {
                return Err(refuse(what(), format!("its rows changed, and {} knows no transactions", pair.new.engine)));
            }
            if pair.table.key.is_empty() {
                return Err(refuse(what(), "its rows changed, and it has no primary key by which to find them"));
            }
        }
        let touched: BTreeSet<&str> = pairs.iter().map(|pair| pair.table.name.as_str()).collect();

        let alone = gone.iter().chain(&made).map(|one| &one.table.name);
        let linked = links.iter().flat_map(|(goes, comes)| goes.iter().chain(comes)).map(|one| &one.name);
        self.asked.extend(alone.chain(linked).map(|name| format!("table {name}")));
        self.ask_for_texts(&touched);

        let mut rows = Rows::new(
            drafting,
            drafted,
            MariaRows::of(pairs.iter().map(|pair| pair.table).chain(gone.iter().map(|old| &old.table))),
        );
        rows.preamble(SETTINGS);
        self.texts_away(&mut rows, &touched)?;
        for one in links.iter().filter_map(|(goes, _)| goes.as_ref()) {
            rows.statement(&one.sql)?;
        }
        for old in &gone {
            doomed(self.a, old, &mut rows)?;
        }
        if !gone.is_empty() {
            // One at a time the server takes them, so those that point at others come first.
            let (parents_first, _) = in_order(gone.clone());
            let names: Vec<String> = parents_first.iter().rev().map(|(old, _)| ident(&old.table.name)).collect();
            rows.statement(&format!("DROP TABLE {}", names.join(", ")))?;
        }
        for sql in &alters {
            rows.statement(sql)?;
        }
        let (sorted, later) = in_order(made.clone());
        for (_, definition) in &sorted {
            rows.statement(definition)?;
        }
        self.rows(&pairs, &mut rows)?;
        for one in later.iter().chain(links.iter().filter_map(|(_, comes)| comes.as_ref())) {
            rows.statement(&one.sql)?;
        }
        for new in is.tables.values() {
            let before = was.tables.get(&new.table.name).and_then(|old| old.counter);
            let Some(counter) = new.counter.filter(|now| Some(*now) > before) else { continue };
            let name = &new.table.name;
            if !was.tables.contains_key(name) {
                rows.statement(&format!("ALTER TABLE {} AUTO_INCREMENT = {counter}", ident(name)))?;
            } else if self.is_ahead(new, counter)? {
                // No statement sets it without setting it back where it is farther; rows take it along.
                rows.note(
                    Concern::Counted,
                    &format!("counter of table {name}"),
                    &format!("{counter} here, not carried over"),
                );
            }
        }
        self.texts_back(&mut rows, &touched)?;
        rows.end()?;
        Ok(())
    }

    /// The statement that brings a table to its new definition, and the copy on which it was tried.
    fn altered(&mut self, old: &OneTable, new: &OneTable, review: &mut Review) -> Result<(String, String), DraftError> {
        let name = &old.table.name;
        let (from, to) = (Shape::of(&old.definition).without_links(), Shape::of(&new.definition).without_links());
        let column = |shape: &Shape, name: &str| shape.column(name).map(str::to_owned);
        // One that stands where another did, with the same definition, is that under another name.
        let renamed_columns: Vec<(String, String)> = match from.columns.len() == to.columns.len() {
            true => from
                .columns
                .iter()
                .zip(&to.columns)
                .filter(|((was, one), (is, other))| {
                    was != is && one == other && column(&to, was).is_none() && column(&from, is).is_none()
                })
                .map(|((was, _), (is, _))| (is.clone(), was.clone()))
                .collect(),
            false => Vec::new(),
        };
        for (was, _) in &from.columns {
            if column(&to, was).is_none() && !renamed_columns.iter().any(|(_, old)| old == was) {
                review.note(Concern::Goes, &format!("column {name}.{was}"), String::new);
            }
        }
        let mut parts = clauses(&from, &to, &renamed_columns);
        if old.engine != new.engine {
            return Err(refuse(format!("table {name}"), "it is kept by another engine now"));
        }
        parts.retain(|part| !part.is_empty());
        let scratch = (self.scratch)(self.scratches);
        self.scratches += 1;
        copy_table(self.a, old, &old.copy, &scratch)?;
        let parts = parts.join(", ");
        self.a.run(&format!("ALTER TABLE {} {parts}", ident(&scratch))).map_err(|error| {
            refuse(format!("table {name}"), format!("it cannot be brought to its new definition: {error}"))
        })?;
        let came = definition(self.a, &scratch)?.unwrap_or_default();
        if Shape::of(&renamed(&came, &scratch, name)) != to {
            return Err(refuse(format!("table {name}"), "no statement was found that comes to its new definition"));
        }
        Ok((format!("ALTER TABLE {} {parts}", ident(name)), scratch))
    }

    /// The counter stands behind more than the rows that are there.
    fn is_ahead(&mut self, new: &OneTable, counter: u64) -> Result<bool, DraftError> {
        let shape = Shape::of(&new.definition);
        let Some((column, _)) = shape.columns.iter().find(|(_, rest)| rest.contains("AUTO_INCREMENT")) else {
            return Ok(false);
        };
        let sql = format!("SELECT IFNULL(MAX({}), 0) + 1 < {counter} FROM {}", ident(column), ident(&new.table.name));
        Ok(self.a.number(&sql)? > 0)
    }

    /// Rows that go, rows that were changed, rows that come.
    fn rows(&mut self, pairs: &[Pair<'_>], rows: &mut Rows<'_, '_, MariaRows>) -> Result<(), DraftError> {
        let keys = table::foreign_keys(self.a)?;
        let points: Vec<(String, String)> = keys.iter().map(|key| (key.child.clone(), key.parent.clone())).collect();
        let names: Vec<&str> = pairs.iter().map(|pair| pair.table.name.as_str()).collect();
        let order = parents_first(&names, &points);
        let mut shapes = BTreeMap::new();
        for pair in pairs {
            let old = self.was.tables.get(&pair.table.name).map(|old| &old.table);
            shapes.insert(pair.table.name.as_str(), shape_of(pair.table, &pair.new.definition, old));
        }
        // Not enforced meanwhile: then nothing follows that is not among the rows, and what points at nothing is looked for
        // at the end.
        if !pairs.is_empty() {
            rows.statement("SET SESSION foreign_key_checks = 0")?;
        }
        for way in [Way::Gone, Way::Changed, Way::Came] {
            let mut order = order.clone();
            if way == Way::Gone {
                order.reverse();
            }
            for at in order {
                let pair = &pairs[at];
                write(self.a, pair.table, &shapes[pair.table.name.as_str()], pair.old.as_deref(), way, rows)?;
            }
        }
        if !pairs.is_empty() {
            rows.statement("SET SESSION foreign_key_checks = 1")?;
        }
        for key in keys.iter().filter(|key| {
            self.is.tables.contains_key(&key.child)
                && (names.contains(&key.child.as_str()) || names.contains(&key.parent.as_str()))
        }) {
            rows.after(self.points_at_what_is_there(key)?);
        }
        Ok(())
    }

    /// No more rows point at nothing than here.
    fn points_at_what_is_there(&mut self, key: &ForeignKey) -> Result<Condition, DraftError> {
        let pairs = || key.columns.iter().zip(&key.referenced);
        let same: Vec<String> = pairs().map(|(one, other)| format!("c.{} = p.{}", ident(one), ident(other))).collect();
        let set: Vec<String> = key.columns.iter().map(|one| format!("c.{} IS NOT NULL", ident(one))).collect();
        let sql = format!(
            "SELECT COUNT(*) FROM {} AS c WHERE {} AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {})",
            ident(&key.child),
            set.join(" AND "),
            ident(&key.parent),
            same.join(" AND ")
        );
        let equals = self.a.number(&sql)?.to_string();
        Ok(Condition {
            name: format!("rows of {} point at rows of {} ({})", key.child, key.parent, key.name),
            sql,
            equals,
        })
    }

    fn same_text(&self, kind: Kind, name: &str) -> bool {
        self.was.text(kind, name) == self.is.text(kind, name)
    }

    /// Notes the views, routines, events and triggers that go or come.
    fn ask_for_texts(&mut self, touched: &BTreeSet<&str>) {
        let texts = self.was.texts.iter().chain(&self.is.texts);
        let others = texts.filter(|one| !self.same_text(one.kind, &one.name));
        let mut asked: Vec<String> =
            others.map(|one| format!("{} {}", one.kind.word().to_lowercase(), one.name)).collect();
        for one in self.was.tables.values().chain(self.is.tables.values()) {
            let [was, is] =
                [self.was, self.is].map(|schema| schema.tables.get(&one.table.name).map(|one| &one.triggers));
            if was != is || touched.contains(one.table.name.as_str()) {
                asked.extend(one.triggers.iter().map(|(name, _)| format!("trigger {name}")));
            }
        }
        self.asked.extend(asked);
    }

    /// Views, routines, events and triggers that go. A trigger must not do again what it did here.
    fn texts_away(&self, rows: &mut Rows<'_, '_, MariaRows>, touched: &BTreeSet<&str>) -> Result<(), DraftError> {
        for view in self.was.views().into_iter().rev().filter(|view| !self.same_text(Kind::View, &view.name)) {
            rows.statement(&format!("DROP VIEW {}", ident(&view.name)))?;
        }
        for one in self.was.texts.iter().filter(|one| one.kind != Kind::View && !self.same_text(one.kind, &one.name)) {
            rows.statement(&format!("DROP {} {}", one.kind.word(), ident(&one.name)))?;
        }
        for old in self.was.tables.values() {
            let Some(new) = self.is.tables.get(&old.table.name) else { continue };
            if old.triggers != new.triggers || touched.contains(old.table.name.as_str()) {
                for (name, _) in &old.triggers {
                    rows.statement(&format!("DROP TRIGGER {}", ident(name)))?;
                }
            }
        }
        Ok(())
    }

    fn texts_back(&self, rows: &mut Rows<'_, '_, MariaRows>, touched: &BTreeSet<&str>) -> Result<(), DraftError> {
        for one in self.is.texts.iter().filter(|one| one.kind != Kind::View && !self.same_text(one.kind, &one.name)) {
            made(rows, &format!("{} {}", one.kind.word().to_lowercase(), one.name), &one.text)?;
        }
        for new in self.is.tables.values() {
            let old = self.was.tables.get(&new.table.name);
            if old.is_none_or(|old| old.triggers != new.triggers || touched.contains(new.table.name.as_str())) {
                for (name, text) in &new.triggers {
                    made(rows, &format!("trigger {name}"), text)?;
                }
            }
        }
        for view in self.is.views().into_iter().filter(|view| !self.same_text(Kind::View, &view.name)) {
            made(rows, &format!("view {}", view.name), &view.text)?;
        }
        Ok(())
    }
}

/// Makes what is its text, under the settings that it was made under.
fn made(rows: &mut Rows<'_, '_, MariaRows>, what: &str, text: &Text) -> Result<(), DraftError> {
    if !text.grants().is_empty() {
        rows.note(Concern::Attributes, what, "who may use it");
    }
    if text.sql.contains(" DEFINER=") {
        rows.note(Concern::Attributes, what, "its definer");
    }
    let is_old = |(name, value): (&str, &str)| name == "character_set_client" && !value.starts_with("utf8");
    let of_charset = !text.sql.is_ascii() && text.settings().any(is_old);
    if of_charset {
        rows.note(Concern::Attributes, what, "the character set that it was written in");
    }
    let settings: Vec<String> = text
        .settings()
        .filter(|(name, _)| !of_charset || !matches!(*name, "character_set_client" | "collation_connection"))
        .map(|(name, value)| format!("{name} = {}", super::session::literal(value)))
        .collect();
    let mark = ["$$", "$$backout$$"].into_iter().find(|mark| !text.sql.contains(mark)).unwrap_or("$$$$");
    let set = match settings.is_empty() {
        true => [String::new(), String::new()],
        false => [format!("SET SESSION {};\n", settings.join(", ")), format!("{SETTINGS};\n")],
    };
    rows.block(&format!("{}DELIMITER {mark}\n{}{mark}\nDELIMITER ;\n{}", set[0], text.sql, set[1]))?;
    Ok(())
}
