//! Writes a script for `mariadb` that takes back steps which changed rows: one transaction that stops at the first row
//! that is not as the steps left it. Changes nothing.
//!
//! Images of rows stay in the database (see [`super::segment`]), and so the script reads them there. Changes of the schema
//! commit by themselves and so have no place in a transaction: for those the script says that only the tool takes them back.

use std::fmt::Write as _;
use std::io::{self, Write};

use backout_model::target::{Images, TargetError};
use mysql::Error;

use super::Mariadb;
use super::segment::{self, Detail, Held, Segment, State};
use super::session::{Session, ident, literal};
use super::stream::Reader;
use super::table::{self, ForeignKey, Side, There};

const X: Side<'static> = Side::Live("x");
/// What the steps left, and what was before.
const F: Side<'static> = Side::Held("f");
const T: Side<'static> = Side::Held("t");

impl Mariadb {
    pub(super) fn script_of_undo(
        &mut self,
        steps: &mut dyn Iterator<Item = Box<dyn Images>>,
        out: &mut dyn Write,
    ) -> Result<Vec<String>, TargetError> {
        let label = self.label.clone();
        let reading =
            |source: Error| TargetError::failed(format!("cannot read the holds of {label} for the script"), source);
        let writing = |source: io::Error| TargetError::failed("cannot write the script", source);
        let (mut segments, mut not) = (Vec::new(), Vec::new());
        for mut images in steps {
            let reader = Reader::open(&mut *images).map_err(|source| self.damaged(source))?;
            let (step, shown) = (reader.index.step, reader.index.shown.clone());
            let mut of_step = segment::read(&mut self.b, &self.names, &self.label, step)?;
            of_step.retain(|segment| segment.state == State::Done);
            of_step.reverse();
            segments.extend(of_step.into_iter().map(|segment| (shown.clone(), segment)));
        }
        let keys = table::foreign_keys(&mut self.b).map_err(reading)?;
        let mut tables: Vec<&str> = Vec::new();
        for (shown, segment) in &segments {
            not.extend(not_in_script(shown, segment, &mut self.b).map_err(reading)?);
            tables.extend(segment.held().iter().map(|held| held.table.name.as_str()));
        }
        if !not.is_empty() {
            return Ok(not);
        }
        tables.sort_unstable();
        tables.dedup();
        begin(&tables, &mut self.b, out).map_err(|error| match error {
            Trouble::Read(source) => reading(source),
            Trouble::Write(source) => writing(source),
        })?;
        let (mut last, mut counters) = (String::new(), Vec::new());
        for (shown, segment) in &segments {
            for held in segment.held().iter().rev() {
                let hold = |what: &str| segment.object(&self.names, &format!("{}{what}", held.at));
                let body = rows(held, &hold("a"), &hold("b"));
                writeln!(out, "\n-- {}\n{body}", shown.replace(['\n', '\r'], " ")).map_err(writing)?;
                pointing(&mut last, held, &hold("a"), &keys);
                counters.extend(held.counter.map(|(was, left)| counter(&held.table.name, was, left)));
            }
        }
        write!(out, "\n{last}").map_err(writing)?;
        // A counter is no part of any transaction.
        writeln!(out, "COMMIT\n$$backout$$\n{}DELIMITER ;", counters.concat()).map_err(writing)?;
        Ok(not)
    }
}

enum Trouble {
    Read(Error),
    Write(io::Error),
}

/// Why no script can take a segment back.
fn not_in_script(shown: &str, segment: &Segment, session: &mut Session) -> Result<Vec<String>, Error> {
    let mut not = Vec::new();
    match &segment.detail {
        Detail::Rows { tables, .. } => {
            for held in tables {
                let name = &held.table.name;
                let triggers = table::triggers(session, name)?;
                if held.table.key.is_empty() {
                    not.push(format!("{shown}: table {name} has no primary key"));
                } else if !triggers.is_empty() {
                    let triggers = triggers.join(", ");
                    not.push(format!(
                        "{shown}: table {name} has triggers, which would act on rows that go back: {triggers}"
                    ));
                }
            }
        }
        Detail::Ddl { line, change, .. } => not.push(format!("{shown}:{line}: {}", change.words())),
        Detail::Script => not.push(format!("{shown}: what it did was not captured")),
    }
    Ok(not)
}

fn begin(tables: &[&str], session: &mut Session, out: &mut dyn Write) -> Result<(), Trouble> {
    for name in tables {
        match table::there(session, name).map_err(Trouble::Read)? {
            There::Table(engine) if engine == "InnoDB" => {}
            There::Table(engine) => writeln!(
                out,
                "-- Table {name} is kept by {engine}, which knows no transactions: where the script stops, what it has\n\
                 -- taken back there until then stays taken back."
            )
            .map_err(Trouble::Write)?,
            There::Nothing | There::View | There::Other(_) => {}
        }
    }
    let settings: Vec<String> =
        Session::of_scripts().map(|(name, value)| format!("SET SESSION {name} = {value};")).collect();
    let names: Vec<String> = tables.iter().map(|name| literal(name)).collect();
    let names = if names.is_empty() { "NULL".to_owned() } else { names.join(", ") };
    let stop = signal("a table has a trigger, which would act on rows that go back");
    writeln!(
        out,
        "{}\nSET SESSION autocommit = 0;\nSTART TRANSACTION;\nDELIMITER $$backout$$
BEGIN NOT ATOMIC
  IF (SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() AND EVENT_OBJECT_TABLE IN ({names})) > 0
  THEN {stop}; END IF;
END
$$backout$$",
        settings.join("\n")
    )
    .map_err(Trouble::Write)
}

fn signal(why: &str) -> String {
    format!("SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = {}", literal(&format!("{why}: nothing was changed")))
}

/// The rows of one table: looked at and locked first, then changed.
fn rows(held: &Held, left: &str, was: &str) -> String {
    let table = &held.table;
    let live = ident(&table.name);
    let same_key = |one: Side<'_>, other: Side<'_>| table.keyed(one, other);
    let only_left = format!("NOT EXISTS (SELECT 1 FROM `{was}` AS t WHERE {})", same_key(T, F));
    let only_was = format!("NOT EXISTS (SELECT 1 FROM `{left}` AS f WHERE {})", same_key(F, T));
    let unchanged: Vec<String> =
        (0..table.columns.len()).map(|at| format!("({} OR {})", table.same(at, F, T), table.same(at, X, F))).collect();
    let both = format!("`{left}` AS f JOIN `{was}` AS t ON {}", same_key(F, T));
    let stop = signal(&format!("a row of {} is no longer as the deployment left it", short(&table.name)));
    let mut body = String::from("BEGIN NOT ATOMIC\n  DECLARE found, wanted BIGINT;\n");
    let mut look = |from: &str, wanted: &str| {
        write!(
            body,
            "  SELECT COUNT(*) INTO found FROM {from} FOR UPDATE;\n  SELECT COUNT(*) INTO wanted FROM {wanted};\n  IF found <> wanted THEN {stop}; END IF;\n"
        )
        .ok();
    };
    look(
        &format!("`{left}` AS f JOIN {live} AS x ON {} WHERE {} AND {only_left}", same_key(X, F), table.all_same(X, F)),
        &format!("`{left}` AS f WHERE {only_left}"),
    );
    look(&format!("{both} JOIN {live} AS x ON {} WHERE {}", same_key(X, F), unchanged.join(" AND ")), &both);
    // A column that moves by itself stays where it is set to what it is.
    let sets: Vec<String> = (0..table.columns.len())
        .map(|at| {
            let live = X.column(table, at);
            format!("{live} = IF({}, {live}, {})", table.same(at, F, T), T.column(table, at))
        })
        .collect();
    write!(
        body,
        "  DELETE x FROM {live} AS x JOIN `{left}` AS f ON {} WHERE {only_left};
  UPDATE {live} AS x JOIN `{left}` AS f ON {} JOIN `{was}` AS t ON {} SET {};
  INSERT INTO {live} ({}) SELECT {} FROM `{was}` AS t WHERE {only_was};
END
$$backout$$",
        same_key(X, F),
        same_key(X, F),
        same_key(F, T),
        sets.join(", "),
        table.live(""),
        table.held("t."),
    )
    .ok();
    body
}

/// No key is enforced while rows go back: what points at one that went is sought at the end.
fn pointing(out: &mut String, held: &Held, left: &str, keys: &[ForeignKey]) {
    let table = &held.table;
    for key in keys.iter().filter(|key| key.parent == table.name) {
        let column = |name: &String| table.columns.iter().position(|column| column.name == *name);
        let Some(referenced) = key.referenced.iter().map(column).collect::<Option<Vec<usize>>>() else { continue };
        let points = |side: Side<'_>| {
            let pairs = key.columns.iter().zip(&referenced);
            let equal = pairs.map(|(name, at)| format!("c.{} = {}", ident(name), side.column(table, *at)));
            equal.collect::<Vec<_>>().join(" AND ")
        };
        let stop = signal(&format!("a row of {} points at one that would go", short(&key.child)));
        write!(
            out,
            "BEGIN NOT ATOMIC
  IF (SELECT COUNT(*) FROM {} AS c JOIN `{left}` AS f ON {} WHERE NOT EXISTS (SELECT 1 FROM {} AS x WHERE {})) > 0
  THEN {stop}; END IF;
END
$$backout$$\n",
            ident(&key.child),
            points(F),
            ident(&table.name),
            points(X),
        )
        .ok();
    }
}

/// Where a counter stood goes back where nobody drew from it since; never below the rows that are there.
fn counter(name: &str, was: u64, left: u64) -> String {
    format!(
        "BEGIN NOT ATOMIC
  IF (SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}) = {left}
  THEN ALTER TABLE {} AUTO_INCREMENT = {was}; END IF;
END
$$backout$$\n",
        literal(name),
        ident(name)
    )
}

/// A message has room for 128 characters.
fn short(name: &str) -> String {
    name.chars().take(40).collect()
}
