//! Writes a script for `mariadb` that takes steps back and stops at the first thing that is not as the steps left it.
//! Changes nothing.
//!
//! Images of rows stay in the database (see [`super::segment`]), and so the script reads them there. Rows alone go back in one
//! transaction. Changes of the schema commit by themselves: the script looks beforehand at all that can be looked at then, and
//! notes how far it has come where the tool does, so that this can go on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;

use backout_model::target::{Images, TargetError};
use mysql::Error;

use super::Mariadb;
use super::ddl::Change;
use super::ddl_hung;
use super::loose;
use super::script_ddl::{self, Back, Triggers};
use super::segment::{self, Detail, Held, Segment, State};
use super::session::{Session, ident, literal};
use super::stream::Reader;
use super::table::{self, ForeignKey, Side, Table, There};

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
        let (mut segments, mut not) = (Vec::new(), Vec::new());
        for mut images in steps {
            let reader = Reader::open(&mut *images).map_err(|source| self.damaged(source))?;
            let (step, shown) = (reader.index.step, reader.index.shown.clone());
            let mut of_step = segment::read(&mut self.b, &self.names, &self.label, step)?;
            of_step.retain(|segment| segment.state == State::Done);
            of_step.reverse();
            segments.extend(of_step.into_iter().map(|segment| (shown.clone(), segment)));
        }
        let mut writing = Writing {
            keys: table::foreign_keys(&mut self.b).map_err(reading)?,
            triggers: Triggers::read(&mut self.b).map_err(reading)?,
            segments: self.names.segments(),
            alters: false,
            touched: BTreeSet::new(),
            altered: BTreeSet::new(),
            left: BTreeMap::new(),
            first: String::new(),
            body: String::new(),
            pointing: String::new(),
            counters: Vec::new(),
        };
        let alters = |(_, segment): &(String, Segment)| matches!(segment.detail, Detail::Ddl { .. });
        writing.alters = segments.iter().any(alters);
        for (shown, segment) in &segments {
            not.extend(self.write_segment(shown, segment, &mut writing).map_err(reading)?);
        }
        if !not.is_empty() {
            return Ok(not);
        }
        writing.commit();
        let names: Vec<&str> = writing.touched.iter().map(String::as_str).collect();
        let engines = engines(&names, &mut self.b).map_err(reading)?;
        let settings: Vec<String> =
            Session::of_scripts().map(|(name, value)| format!("SET SESSION {name} = {value};\n")).collect();
        let Writing { first, body, .. } = writing;
        let first = if first.is_empty() { first } else { block(&first) };
        write!(
            out,
            "{engines}{}SET SESSION autocommit = 0;\nDELIMITER $$backout$$\n{first}{body}DELIMITER ;\n",
            settings.concat()
        )
        .map_err(|source| TargetError::failed("cannot write the script", source))?;
        Ok(not)
    }

    /// Adds what takes a segment back; or says why nothing can.
    fn write_segment(&mut self, shown: &str, segment: &Segment, writing: &mut Writing) -> Result<Vec<String>, Error> {
        let mut not = Vec::new();
        match &segment.detail {
            Detail::Rows { tables, .. } => {
                writing.heading(shown);
                for held in tables.iter().rev() {
                    let name = &held.table.name;
                    let mut triggers = table::triggers(&mut self.b, name)?;
                    triggers.extend(writing.triggers.back_on(name).map(str::to_owned));
                    if !triggers.is_empty() {
                        let triggers = triggers.join(", ");
                        not.push(format!(
                            "{shown}: table {name} has triggers, which would act on rows that go back: {triggers}"
                        ));
                    }
                    let hold = |what: &str| segment.object(&self.names, &format!("{}{what}", held.at));
                    let (left, was) = (hold("a"), hold("b"));
                    let stop = signal("a table has a trigger, which would act on rows that go back");
                    writing.first += &format!(
                        "  IF EXISTS (SELECT 1 FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() AND EVENT_OBJECT_TABLE = {}) THEN {stop}; END IF;\n",
                        literal(name)
                    );
                    if !writing.touched.contains(name) && !writing.left.contains_key(name) {
                        if self.still_there(&held.table)?.len() < held.table.columns.len() {
                            not.push(format!("{shown}: table {name} is no longer as the deployment left it"));
                        }
                        let stop = signal(&format!("{} is no longer as the deployment left it", short(name)));
                        let differs = script_ddl::differs(&mut self.b, name)?;
                        writing.first += &format!("  IF {differs} THEN {stop}; END IF;\n");
                    }
                    let end = if writing.alters { GOES_ON } else { NOTHING };
                    if writing.alters && !writing.left.contains_key(name) {
                        let columns = self.still_there(&held.table)?;
                        writing.first += &looks(held, &left, &was, &columns, NOTHING);
                    }
                    writing.body += &rows(held, &left, &was, end);
                    writing.left.entry(name.clone()).or_default().push((held.table.clone(), left.clone(), was));
                    if let Some(key) = pointing(&mut writing.pointing, held, &left, &writing.keys) {
                        not.push(format!("{shown}: foreign key {key} points at columns that have other names by then"));
                    }
                    if held.counter.is_some_and(|(was, left)| left < was) {
                        not.push(format!(
                            "{shown}: the counter of table {name} began anew, and rows that come back would move it: only `backout undo` takes that back"
                        ));
                    }
                    writing.counters.extend(held.counter.map(|(was, left)| script_ddl::counter(name, was, left)));
                }
                writing.comes(segment, "undone");
                writing.touched.extend(tables.iter().map(|held| held.table.name.clone()));
            }
            Detail::Ddl { line, change, hung, .. } => {
                let place = format!("{shown}:{line}");
                writing.commit();
                let untouched = change.names().all(|name| !writing.touched.contains(name));
                let held = self.begin_of_held();
                if untouched && let Some(why) = script_ddl::not_as_left(&mut self.b, &self.names, change, &held)? {
                    not.push(format!("{place}: {why}"));
                }
                let (hold, passed) = (segment.object(&self.names, "t0"), &writing.touched);
                for what in ddl_hung::strangers(&mut self.b, change, hung, (&hold, &held), true, passed)? {
                    let named: Vec<&str> = change.names().collect();
                    not.push(format!("{place}: {what} needs {} now", named.join(", ")));
                }
                for name in change.names().filter(|name| !writing.touched.contains(*name)) {
                    let stop = signal(&format!("{} is no longer as the deployment left it", short(name)));
                    writing.first +=
                        &format!("  IF {} THEN {stop}; END IF;\n", script_ddl::differs(&mut self.b, name)?);
                }
                if let Change::Made { name, .. } = &**change
                    && !untouched
                    && !writing.altered.contains(name)
                {
                    writing.first += &strangers(name, writing.left.get(name).map_or(&[], Vec::as_slice));
                }
                match script_ddl::back(&mut self.b, &self.names, segment, change, untouched, &mut writing.triggers)? {
                    Err(why) => not.push(format!("{place}: {why}")),
                    Ok(mut back) => {
                        // Beforehand alone: on the way objects come back that name it, too.
                        if let Some(newer) = ddl_hung::newer(&mut self.b, change, &held)? {
                            let named = change.names().last().unwrap_or_default();
                            let stop = signal(&format!("others hung something on {}", short(named)));
                            writing.first += &format!("  IF {newer} THEN {stop}; END IF;\n");
                        }
                        back.statements.extend(ddl_hung::mended(&mut self.b, change, hung)?);
                        writing.change(&place, segment, &back, untouched);
                    }
                }
                writing.touched.extend(change.names().map(str::to_owned));
                writing.altered.extend(change.names().map(str::to_owned));
                script_ddl::lead_back(&mut writing.keys, change);
            }
            Detail::Script => not.push(format!("{shown}: what it did was not captured")),
        }
        Ok(not)
    }
}

impl Mariadb {
    /// The columns of a held table by which its rows can be compared with those of now; none where they are not known again.
    fn still_there(&mut self, table: &Table) -> Result<Vec<usize>, Error> {
        if !matches!(table::there(&mut self.b, &table.name)?, There::Table(_)) {
            return Ok(Vec::new());
        }
        let now = Table::find(&mut self.b, &table.name)?;
        let is_there = |at: &usize| {
            let own = &table.columns[*at];
            now.columns.iter().any(|column| column.name == own.name && column.kind == own.kind)
        };
        let found: Vec<usize> = (0..table.columns.len()).filter(is_there).collect();
        let known = match table.is_loose() {
            true => found.len() == table.columns.len(),
            false => table.key.iter().all(|at| found.contains(at)),
        };
        Ok(if known { found } else { Vec::new() })
    }
}

/// How a stop ends.
const NOTHING: &str = ": nothing was changed";
const GOES_ON: &str = ": what was taken back so far stays; `backout undo` goes on";

/// A table of a part, with its two holds: what it left, and what was.
type Changed = (Table, String, String);

/// A script that is being written.
struct Writing {
    /// The foreign keys that are there at the place that the script has come to.
    keys: Vec<ForeignKey>,
    triggers: Triggers,
    /// The tool's table of how far each part has come.
    segments: String,
    /// It changes the schema.
    alters: bool,
    /// What was changed since the script began.
    touched: BTreeSet<String>,
    /// The same, by a change of the schema.
    altered: BTreeSet<String>,
    /// Of tables whose rows the parts so far changed, where what they left is held, and what was.
    left: BTreeMap<String, Vec<Changed>>,
    /// What is looked at before anything changes, in one block.
    first: String,
    body: String,
    /// Looked at before the transaction at hand ends.
    pointing: String,
    /// What follows it.
    counters: Vec<String>,
}

impl Writing {
    fn heading(&mut self, shown: &str) {
        writeln!(self.body, "-- {}", shown.replace(['\n', '\r'], " ")).ok();
    }

    fn run(&mut self, sql: &str) {
        write!(self.body, "{sql}\n$$backout$$\n").ok();
    }

    fn comes(&mut self, segment: &Segment, state: &str) {
        self.run(&format!(
            "UPDATE `{}` SET state = '{state}' WHERE step = {} AND number = {}",
            self.segments, segment.step, segment.number
        ));
    }

    /// Ends the transaction at hand. A counter is no part of any.
    fn commit(&mut self) {
        let pointing = std::mem::take(&mut self.pointing);
        self.body += &pointing;
        self.run("COMMIT");
        for counter in std::mem::take(&mut self.counters) {
            self.run(&counter);
        }
    }

    /// `untouched`: what it is about is now as it will be when it is its turn.
    fn change(&mut self, place: &str, segment: &Segment, back: &Back, untouched: bool) {
        self.heading(place);
        let stops = |end: &str| -> String {
            let one = |(condition, what): &(String, String)| {
                let what = format!("{} is no longer as the deployment left it", short(what));
                format!("  IF {condition} THEN {}; END IF;\n", signal_as(&what, end))
            };
            back.stops.iter().map(one).collect()
        };
        if untouched {
            self.first += &stops(NOTHING);
        }
        if !back.stops.is_empty() {
            self.body += &block(&stops(GOES_ON));
        }
        self.comes(segment, "undoing");
        self.run("COMMIT");
        for sql in &back.statements {
            self.run(sql);
        }
        self.comes(segment, "undone");
        self.run("COMMIT");
    }
}

/// What is to be said of the engines of tables.
fn engines(tables: &[&str], session: &mut Session) -> Result<String, Error> {
    let mut said = String::new();
    for name in tables {
        match table::there(session, name)? {
            There::Table(engine) if engine != "InnoDB" => {
                said += &format!(
                    "-- Table {name} is kept by {engine}, which knows no transactions: where the script stops, what it has\n\
                     -- taken back there until then stays taken back.\n"
                );
            }
            There::Table(_) | There::Nothing | There::View | There::Sequence | There::Other(_) => {}
        }
    }
    Ok(said)
}

/// Statements of a procedure that has no name.
fn block(body: &str) -> String {
    format!("BEGIN NOT ATOMIC\n  DECLARE found, wanted BIGINT;\n{body}END\n$$backout$$\n")
}

fn signal(why: &str) -> String {
    signal_as(why, NOTHING)
}

fn signal_as(why: &str, end: &str) -> String {
    format!("SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = {}", literal(&format!("{why}{end}")))
}

/// Stops where a row is not as it was left in these columns; locks all of them.
fn looks(held: &Held, left: &str, was: &str, columns: &[usize], end: &str) -> String {
    if columns.is_empty() {
        return String::new();
    }
    let table = &held.table;
    let live = ident(&table.name);
    let stop = signal_as(&format!("a row of {} is no longer as the deployment left it", short(&table.name)), end);
    if table.is_loose() && held.after == 0 {
        return String::new();
    }
    if table.is_loose() {
        let count = loose::count(table, left).join(";\n  ");
        let missing = loose::missing(left);
        return format!(
            "  {count};\n  SELECT COUNT(*) INTO found FROM {missing};\n  IF found > 0 THEN {stop}; END IF;\n"
        );
    }
    let same_key = |one: Side<'_>, other: Side<'_>| table.keyed(one, other);
    let only_left = format!("NOT EXISTS (SELECT 1 FROM `{was}` AS t WHERE {})", same_key(T, F));
    let unchanged: Vec<String> =
        columns.iter().map(|at| format!("({} OR {})", table.same(*at, F, T), table.same(*at, X, F))).collect();
    let same: Vec<String> = columns.iter().map(|at| table.same(*at, X, F)).collect();
    let both = format!("`{left}` AS f JOIN `{was}` AS t ON {}", same_key(F, T));
    let look = |from: &str, wanted: &str| {
        format!(
            "  SELECT COUNT(*) INTO found FROM {from} FOR UPDATE;\n  SELECT COUNT(*) INTO wanted FROM {wanted};\n  IF found <> wanted THEN {stop}; END IF;\n"
        )
    };
    let came = look(
        &format!("`{left}` AS f JOIN {live} AS x ON {} WHERE {} AND {only_left}", same_key(X, F), same.join(" AND ")),
        &format!("`{left}` AS f WHERE {only_left}"),
    );
    let stayed =
        look(&format!("{both} JOIN {live} AS x ON {} WHERE {}", same_key(X, F), unchanged.join(" AND ")), &both);
    came + &stayed
}

/// The rows of one table: looked at, then changed.
fn rows(held: &Held, left: &str, was: &str, end: &str) -> String {
    let table = &held.table;
    let all: Vec<usize> = (0..table.columns.len()).collect();
    let looks = looks(held, left, was, &all, end);
    if table.is_loose() {
        let go = if held.after > 0 { loose::take_away(table, left).to_vec() } else { Vec::new() };
        let come = loose::bring(table, was, &format!("SELECT d, n FROM `{was}`"));
        let changes: String = go.iter().chain([&come]).map(|sql| format!("  {sql};\n")).collect();
        return block(&(looks + &changes));
    }
    let live = ident(&table.name);
    // A column that moves by itself stays where it is set to what it is.
    let sets: Vec<String> = (0..table.columns.len())
        .map(|at| {
            let live = X.column(table, at);
            format!("{live} = IF({}, {live}, {})", table.same(at, F, T), T.column(table, at))
        })
        .collect();
    let changes = format!(
        "  DELETE x FROM {live} AS x JOIN `{left}` AS f ON {} WHERE NOT EXISTS (SELECT 1 FROM `{was}` AS t WHERE {});
  UPDATE {live} AS x JOIN `{left}` AS f ON {} JOIN `{was}` AS t ON {} SET {};
  INSERT INTO {live} ({}) SELECT {} FROM `{was}` AS t WHERE NOT EXISTS (SELECT 1 FROM `{left}` AS f WHERE {});\n",
        table.keyed(X, F),
        table.keyed(T, F),
        table.keyed(X, F),
        table.keyed(F, T),
        sets.join(", "),
        table.live(""),
        table.held("t."),
        table.keyed(F, T),
    );
    block(&(looks + &changes))
}

/// Stops where a table that goes has rows that no part of the steps left there.
fn strangers(name: &str, left: &[Changed]) -> String {
    let live = ident(name);
    let found = match left.first() {
        None => format!("SELECT 1 FROM {live}"),
        Some((table, ..)) if table.is_loose() => {
            let held = left.iter().map(|(_, left, was)| {
                format!(" UNION ALL SELECT d, -n FROM `{left}` UNION ALL SELECT d, n FROM `{was}`")
            });
            format!(
                "SELECT d FROM (SELECT {} AS d, 1 AS n FROM {live} AS x{}) AS u GROUP BY d HAVING SUM(n) > 0",
                table.digest(X),
                held.collect::<String>()
            )
        }
        Some(_) => {
            let none = |(table, hold, _): &Changed| {
                format!("NOT EXISTS (SELECT 1 FROM `{hold}` AS f WHERE {})", table.keyed(X, F))
            };
            format!("SELECT 1 FROM {live} AS x WHERE {}", left.iter().map(none).collect::<Vec<_>>().join(" AND "))
        }
    };
    let stop = signal(&format!("what is in {} is no longer as the deployment left it", short(name)));
    format!("  IF EXISTS ({found}) THEN {stop}; END IF;\n")
}

/// No key is enforced while rows go back: what points at one that went is sought at the end. The name of a key of which that
/// cannot be.
fn pointing(out: &mut String, held: &Held, left: &str, keys: &[ForeignKey]) -> Option<String> {
    let table = &held.table;
    for key in keys.iter().filter(|key| key.parent == table.name) {
        let column = |name: &String| table.columns.iter().position(|column| column.name == *name);
        let Some(referenced) = key.referenced.iter().map(column).collect::<Option<Vec<usize>>>() else {
            return Some(key.name.clone());
        };
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
    None
}

/// A message has room for 128 characters.
fn short(name: &str) -> String {
    name.chars().take(40).collect()
}
