//! Puts a database back as its copy has it, at once: where a command did what no step could take back. What that leaves is
//! held against the copy.
//!
//! Leaves the copies where they are, so that it can be done again.

use backout_model::fault::{self, Point};
use backout_model::target::TargetError;
use mysql::Error;
use serde_json::Value;

use super::Mariadb;
use super::capture::patiently;
use super::compared_events::Tables;
use super::compared_schema::Schema;
use super::ddl_links;
use super::ddl_text::{self, Kind};
use super::marker;
use super::session::ident;
use super::snapshot::copy_table;

impl Mariadb {
    /// See [`backout_model::target::Target::put_back_whole`].
    pub(super) fn put_all_back(&mut self, note: &Value) -> Result<(), TargetError> {
        self.ready()?;
        let done = self.own_session().and_then(|()| self.all_put_back(note));
        self.after_step();
        done
    }

    fn all_put_back(&mut self, note: &Value) -> Result<(), TargetError> {
        let (names, label, epoch) = (self.names.clone(), self.label.clone(), self.epoch);
        let act = format!("cannot put {label} back as it was before the command");
        marker::holds(self.a()?, &names, &label, epoch)?;
        let was = self.before(note)?;
        let failed = |source: Error| TargetError::failed(act.clone(), source);
        let is = self.look().map_err(failed)?;
        fault::point(Point::Statement).map_err(|source| TargetError::failed(act.clone(), source))?;
        let (mut whole, rows) = self.other_rows(&was, &is)?;
        whole.extend(rows);
        self.drop_what_came(&was, &is)
            .and_then(|()| self.make_anew(&was, &is, &Tables::of(&was, &is, &whole)))
            .map_err(failed)?;
        let left = self.look().map_err(failed)?;
        let (whole, rows) = self.other_rows(&was, &left)?;
        match unlike(&was, &left)
            .or_else(|| whole.into_iter().chain(rows).next().map(|name| format!("the rows of {name}")))
        {
            None => Ok(()),
            Some(what) => Err(TargetError::failed(
                act,
                format!(
                    "{what} could not be made as it was; the rows of before are in {}. Make it so by hand, then go on",
                    ident(&names.of_copy(note["copy"].as_u64().unwrap_or(0), "t…"))
                ),
            )),
        }
    }

    fn drop_what_came(&mut self, was: &Schema, is: &Schema) -> Result<(), Error> {
        for other in &is.others {
            patiently(|| self.b.run(&other.drop))?;
        }
        for one in is.texts.iter().filter(|one| was.text(one.kind, &one.name) != Some(&one.text)) {
            ddl_text::put(&mut self.b, one.kind, &one.name, None)?;
        }
        if was.collation != is.collation {
            self.b.run(&format!("ALTER DATABASE COLLATE {}", was.collation))?;
        }
        Ok(())
    }

    fn make_anew(&mut self, was: &Schema, is: &Schema, tables: &Tables<'_>) -> Result<(), Error> {
        for one in tables.made.iter().chain(&tables.gone) {
            patiently(|| self.b.run(&format!("DROP TABLE IF EXISTS {}", ident(&one.table.name))))?;
        }
        for one in &tables.gone {
            copy_table(&mut self.b, one, &one.copy, &one.table.name)?;
        }
        for (name, one) in &was.tables {
            ddl_links::lead(&mut self.b, name, &one.definition)?;
        }
        // The name of a trigger is the whole database's.
        let mut changed = Vec::new();
        for (name, one) in &was.tables {
            let now = self.triggers_with_text(name)?;
            if now != one.triggers {
                now.iter().try_for_each(|(name, _)| ddl_text::put(&mut self.b, Kind::Trigger, name, None))?;
                changed.extend(&one.triggers);
            }
        }
        for (name, text) in changed {
            ddl_text::put(&mut self.b, Kind::Trigger, name, Some(text))?;
        }
        let plain = was.texts.iter().filter(|one| one.kind != Kind::View);
        for one in plain.chain(was.views()) {
            if is.text(one.kind, &one.name) != Some(&one.text) {
                ddl_text::put(&mut self.b, one.kind, &one.name, Some(&one.text))?;
            }
        }
        Ok(())
    }
}

/// The first thing that is not as it was, in words; rows aside.
fn unlike(was: &Schema, is: &Schema) -> Option<String> {
    let other = is.others.first().map(|other| format!("the {}", other.what));
    let tables = was.tables.keys().chain(is.tables.keys()).find(|name| {
        let sides = [was, is].map(|schema| {
            schema.tables.get(*name).map(|one| (&one.definition, &one.engine, one.counter, &one.triggers))
        });
        sides[0] != sides[1]
    });
    let text =
        was.texts.iter().chain(&is.texts).find(|one| was.text(one.kind, &one.name) != is.text(one.kind, &one.name));
    let collation = (was.collation != is.collation).then(|| "the collation of the database".to_owned());
    other
        .or_else(|| tables.map(|name| format!("the table {name}")))
        .or_else(|| text.map(|one| format!("the {} {}", one.kind.word().to_lowercase(), one.name)))
        .or(collation)
}
