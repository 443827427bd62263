//! Who wrote what while a command ran: what sessions wrote that were connected before it began ([`super::listening`]) is done
//! again on the copy of before. What differs from there is the command's.
//!
//! A session that began later may be the command's: nothing tells, so it counts as that. Where a log does not say all, the
//! table is not told apart. Never changes what is the user's.

use std::collections::{BTreeMap, BTreeSet};

use backout_model::target::{Gate, Others, Report, TargetError};
use backout_model::words;
use mysql::Error;
use serde_json::Value;

use super::capture::forget_unchanged;
use super::compared_schema::{OneTable, Schema};
use super::ddl_shape::Shape;
use super::listening::{Beside, TRIGGERS};
use super::reader::reader;
use super::segment::{Detail, Held, Segment, State};
use super::session::{Session, ident, is_missing, is_taken, literal};
use super::table::{ForeignKey, Side, Table, counter};
use super::{Mariadb, marker};

/// How many keys of rows are named to people.
const KEYS_NAMED: u64 = 3;
/// How many acts are read at once.
const ACTS_READ: u32 = 1000;

/// Of a table to which nobody wrote it need not be said.
const CHANGED: &str = "columns of it changed meanwhile";
const GONE: &str = "the tool's own tables are gone";

const F: Side<'static> = Side::Live("f");
const L: Side<'static> = Side::Held("l");

/// What others did to one table, as far as it is in its log.
#[derive(Default)]
struct Acts {
    /// Not done on the copy yet.
    waiting: u64,
    came: bool,
    went: bool,
    /// The columns that got another value.
    changed: BTreeSet<String>,
}

impl Acts {
    fn is_none(&self) -> bool {
        !self.came && !self.went && self.changed.is_empty()
    }
}

/// What can be told.
enum Telling {
    /// All that changed counts as the command's anyhow: nobody listened, or nobody else wrote.
    Nobody,
    /// Why nothing can be told apart, in words.
    Not(String),
    /// Of each table that others wrote to, or may have: what, or why nothing, in words.
    Of(BTreeMap<String, Result<Acts, String>>),
}

impl Mariadb {
    /// What can be told of each table. Others cannot write meanwhile.
    fn telling(&mut self, note: &Value, was: &Schema, is: &Schema) -> Result<Telling, Error> {
        match self.telling_by_logs(note, was, is) {
            Err(error) if is_missing(&error) => Ok(Telling::Not(GONE.to_owned())),
            telling => telling,
        }
    }

    fn telling_by_logs(&mut self, note: &Value, was: &Schema, is: &Schema) -> Result<Telling, Error> {
        let Some(copy) = note["copy"].as_u64().filter(|_| note["listens"] == true) else {
            let why = note["deaf"].as_str().map(str::to_owned);
            return Ok(why.map_or(Telling::Nobody, Telling::Not));
        };
        let beside = Beside::of(&self.names, copy);
        let known = self.b.value(&format!("SELECT MAX(id) FROM `{}`", beside.known))?;
        let known = known.and_then(|known| known.parse::<u64>().ok());
        let newest = self.a.as_ref().map_or(0, |a| u64::from(a.conn.connection_id()));
        // It counts to four milliards, and begins anew.
        if known.is_none_or(|known| known >= newest) {
            return Ok(Telling::Not("the server was started again meanwhile".to_owned()));
        }
        let lost = self.b.rows(&format!("SELECT DISTINCT at FROM `{}`", beside.lost))?;
        let lost: BTreeSet<String> = lost
            .into_iter()
            .filter_map(|mut row| Some(self.names.of_copy(copy, &format!("l{}", row[0].take()?))))
            .collect();
        let listening = self.listening(copy)?;
        let mut wrote = !lost.is_empty();
        let mut all = BTreeMap::new();
        let mut along = BTreeSet::new();
        for (name, one) in &was.tables {
            let (acts, now) = (self.acts(one)?, is.tables.get(name));
            let why = why_not_told(one, now, &listening, &lost);
            if !acts.is_none() {
                wrote = true;
            } else if why.is_none_or(|why| why == CHANGED) && !lost.contains(&one.log) {
                continue;
            }
            let told = why.map_or(Ok(acts), |why| Err(why.to_owned()));
            along.extend(taken_along(name, told.as_ref().ok(), was, is));
            all.insert(name.clone(), told);
        }
        along.extend(taken_along_from_elsewhere(was, is));
        for name in along.into_iter().filter(|name| was.tables.contains_key(name)) {
            let told = all.entry(name).or_insert_with(|| Ok(Acts::default()));
            if told.is_ok() {
                *told = Err("foreign keys may have taken rows along, which no trigger sees".to_owned());
            }
        }
        if !wrote {
            return Ok(if all.is_empty() { Telling::Nobody } else { Telling::Of(all) });
        }
        Ok(match counter(&mut self.b, &beside.later)? {
            None => Telling::Not(GONE.to_owned()),
            Some(0 | 1) => {
                Telling::Not("no session that began while the command ran was seen writing to a table".to_owned())
            }
            Some(_) => Telling::Of(all),
        })
    }

    /// The triggers that log for one copy, each with its table.
    fn listening(&mut self, copy: u64) -> Result<BTreeSet<[String; 2]>, Error> {
        let begin = self.names.of_copy(copy, "l");
        let found = self.b.rows(&format!(
            "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()
             AND LEFT(TRIGGER_NAME, {}) = {}",
            begin.len(),
            literal(&begin)
        ))?;
        Ok(found.into_iter().filter_map(|mut row| Some([row[0].take()?, row[1].take()?])).collect())
    }

    fn acts(&mut self, one: &OneTable) -> Result<Acts, Error> {
        let mut acts = Acts::default();
        if one.log.is_empty() || one.table.is_loose() || !one.is_transactional() {
            return Ok(acts);
        }
        let sql = format!("SELECT op, IFNULL(changed, ''), SUM(done = 0) FROM `{}` GROUP BY op, changed", one.log);
        for row in self.b.rows(&sql)? {
            let text = |at: usize| row[at].as_deref().unwrap_or_default();
            acts.waiting += text(2).parse().unwrap_or(0);
            acts.came |= text(0) == "I";
            acts.went |= text(0) == "D";
            acts.changed.extend(changed(&one.table, text(1)).map(|at| one.table.columns[at].name.clone()));
        }
        Ok(acts)
    }

    /// Does on the copies what others did, so that it is none of what will differ from them. What stays, in words.
    pub(super) fn without_others(
        &mut self,
        note: &Value,
        was: &mut Schema,
        is: &Schema,
    ) -> Result<Vec<String>, TargetError> {
        let telling = self.telling(note, was, is).map_err(|source| self.uncompared(source))?;
        let Telling::Of(told) = telling else { return Ok(Vec::new()) };
        let names = self.names.clone();
        let step = marker::next_step(self.a()?, &names).map_err(|source| self.uncompared(source))?;
        let done = self.redone_on_copies(step, (was, is), &told).and_then(|found| {
            self.a()?.run("COMMIT").map_err(|source| self.uncompared(source))?;
            Ok(found)
        });
        // What they hold is no step's.
        let swept = self.sweep_step(step);
        let found = done?;
        swept?;
        for (name, acts) in &told {
            if let (Ok(acts), Some(one), Some(now)) = (acts, was.tables.get_mut(name), is.tables.get(name))
                && acts.came
                && !found.untold.contains(name)
                && one.counter < now.counter
            {
                // Who drew the last number nobody knows, and one that is given twice does harm.
                one.counter = now.counter;
            }
        }
        let stays = |note: &String| format!("{}, written by others while the command ended: {note}", self.label);
        Ok(found.notes.iter().filter(|_| !found.held.is_empty()).map(stays).collect())
    }

    /// See [`backout_model::target::Target::compare_others`].
    pub(super) fn others_of(&mut self, note: &Value, shown: &str, gate: &mut dyn Gate) -> Result<Others, TargetError> {
        self.ready()?;
        let done = self.own_session().and_then(|()| self.others_and_seal(note, shown, gate));
        self.after_step();
        done
    }

    fn others_and_seal(&mut self, note: &Value, shown: &str, gate: &mut dyn Gate) -> Result<Others, TargetError> {
        let (names, label, epoch) = (self.names.clone(), self.label.clone(), self.epoch);
        marker::holds(self.a()?, &names, &label, epoch)?;
        let was = self.before(note)?;
        let (_keeper, is) = self.keep_writers_out()?;
        let told = match self.telling(note, &was, &is).map_err(|source| self.uncompared(source))? {
            Telling::Nobody => return Ok(Others::Nobody),
            Telling::Not(why) => return Ok(Others::Untold { why }),
            Telling::Of(told) => told,
        };
        let step = marker::next_step(self.a()?, &names).map_err(|source| self.uncompared(source))?;
        let done = self.redone_on_copies(step, (&was, &is), &told).and_then(|found| {
            let Found { held, notes, .. } = found;
            if held.is_empty() {
                self.a()?.run("COMMIT").map_err(|source| self.uncompared(source))?;
                return Ok(Others::Wrote { report: Box::new(Report { notes, ..Report::default() }), announced: false });
            }
            // They may point at rows that the command made.
            let detail = Detail::Rows { tables: held, unchecked: true, drawn: Vec::new() };
            let segment = Segment { step, number: 0, state: State::Done, detail };
            let report = self.sealed(step, &[segment], shown, gate)?;
            Ok(Others::Wrote { report: Box::new(Report { notes, ..report }), announced: true })
        });
        // Of one that was announced the holds stay that its segment names.
        let announced = matches!(&done, Ok(Others::Wrote { announced: true, .. }));
        if !announced {
            self.sweep_step(step)?;
        }
        done
    }

    /// Does on the copies what others did, in a transaction that is left open: with what that changed in the holds of a step.
    fn redone_on_copies(
        &mut self,
        step: u64,
        (was, is): (&Schema, &Schema),
        told: &BTreeMap<String, Result<Acts, String>>,
    ) -> Result<Found, TargetError> {
        let names = self.names.clone();
        let uncompared = self.cannot_compare();
        let failed = |source: Error| TargetError::failed(uncompared.clone(), source);
        let mut found = Found::default();
        let mut all = Vec::new();
        for (name, told) in told {
            match (told, was.tables.get(name)) {
                (Err(why), _) => found.notes.push(format!("{name}: not told apart, for {why}")),
                (Ok(acts), Some(one)) if acts.waiting > 0 => {
                    let at = u32::try_from(all.len()).unwrap_or(u32::MAX);
                    let holds = ["b", "a"].map(|side| names.of_segment(step, 0, &format!("{at}{side}")));
                    for hold in &holds {
                        self.b.run(&format!("CREATE TABLE `{hold}` {}", one.table.hold())).map_err(failed)?;
                    }
                    all.push((one, at, holds));
                }
                (Ok(_), _) => {}
            }
        }
        self.begin()?;
        for (one, at, [before, after]) in all {
            let a = self.a()?;
            a.run("SAVEPOINT backout_copy").map_err(failed)?;
            let stays = is.tables.contains_key(&one.table.name);
            let why = match done_again(a, one, stays, &before, &after) {
                Err(error) if is_taken(&error) => "what others wrote takes a value that a row of before has",
                done => match done.map_err(failed)? {
                    false => "others changed rows to which the command may have given another key",
                    true => "",
                },
            };
            if !why.is_empty() {
                a.run("ROLLBACK TO SAVEPOINT backout_copy").map_err(failed)?;
                found.notes.push(format!("{}: not told apart, for {why}", one.table.name));
                found.untold.insert(one.table.name.clone());
                continue;
            }
            let table = one.table.clone();
            let [held_before, held_after] = [&before, &after].map(|hold| table.rows_held(a, hold));
            let (held_before, held_after) = (held_before.map_err(failed)?, held_after.map_err(failed)?);
            if held_before + held_after > 0 {
                let what = named(a, one, [&before, &after], held_before.max(held_after)).map_err(failed)?;
                found.notes.push(format!("{}: {what}", table.name));
                found.held.push(Held { table, at, before: held_before, after: held_after, counter: None });
            }
        }
        Ok(found)
    }
}

/// What others did, as what a segment holds, and in words.
#[derive(Default)]
struct Found {
    held: Vec<Held>,
    notes: Vec<String>,
    /// The tables that turned out not to be told apart.
    untold: BTreeSet<String>,
}

/// Why the rows of a table cannot be told apart, in words. `listening`: the triggers that are there; `lost`: the logs that
/// do not say all.
fn why_not_told(
    one: &OneTable,
    now: Option<&OneTable>,
    listening: &BTreeSet<[String; 2]>,
    lost: &BTreeSet<String>,
) -> Option<&'static str> {
    if one.log.is_empty() {
        return Some("it could not be listened to");
    }
    if let Some(now) = now {
        let is_there = |what: &str| listening.contains(&[format!("{}{what}", one.log), one.table.name.clone()]);
        if !TRIGGERS.into_iter().all(is_there) {
            return Some("another table took its place");
        }
        let key = |one: &OneTable| one.table.key.iter().map(|at| one.table.columns[*at].clone()).collect::<Vec<_>>();
        if one.table.columns.iter().any(|column| !now.table.columns.contains(column)) || key(one) != key(now) {
            return Some(CHANGED);
        }
    }
    match lost.contains(&one.log) {
        true if !one.is_transactional() => Some("its engine has no transactions"),
        true if one.table.is_loose() => Some("it has no key"),
        true => Some("a row that somebody else wrote could not be written down"),
        false => None,
    }
}

/// The columns that got another value, by their numbers.
fn changed<'t>(table: &Table, flags: &'t str) -> impl Iterator<Item = usize> + use<'t> {
    let count = table.columns.len();
    flags.bytes().enumerate().filter(move |(at, flag)| *flag == b'1' && *at < count).map(|(at, _)| at)
}

/// The tables of which rows may have changed along with those of another one, this among them; none where none did. Without
/// `acts`, anything may have been done to it.
fn taken_along(name: &str, acts: Option<&Acts>, was: &Schema, is: &Schema) -> BTreeSet<String> {
    let follows = |link: &&ForeignKey| {
        let Some(acts) = acts else { return link.follows_deletes() || link.follows_updates() };
        let keys_changed = acts.went || link.referenced.iter().any(|column| acts.changed.contains(column));
        acts.went && link.follows_deletes() || keys_changed && link.follows_updates()
    };
    let links = was.links.iter().chain(&is.links).filter(|link| link.parent == name);
    let mut all = with_children(links.filter(follows).map(|link| link.child.clone()).collect(), was, is);
    if !all.is_empty() {
        all.insert(name.to_owned());
    }
    all
}

/// The same for the tables of other databases, to which nobody listens.
fn taken_along_from_elsewhere(was: &Schema, is: &Schema) -> BTreeSet<String> {
    let follows = |line: &str| {
        let mut words = reader(line);
        words.find(|token| token.is("REFERENCES")).is_some()
            && words.name().is_some_and(|parent| parent.database.is_some())
            && words.any(|token| token.is("CASCADE") || token.is("SET"))
    };
    let tables = was.tables.iter().chain(&is.tables);
    let children = tables.filter(|(_, one)| Shape::of(&one.definition).links.iter().any(|(_, line)| follows(line)));
    with_children(children.map(|(name, _)| name.clone()).collect(), was, is)
}

/// These tables, and those of which rows may change along with theirs.
fn with_children(mut all: BTreeSet<String>, was: &Schema, is: &Schema) -> BTreeSet<String> {
    loop {
        let follows =
            |link: &&ForeignKey| all.contains(&link.parent) && (link.follows_deletes() || link.follows_updates());
        let links = was.links.iter().chain(&is.links);
        let more: Vec<String> = links.filter(follows).map(|link| link.child.clone()).collect();
        let count = all.len();
        all.extend(more);
        if all.len() == count {
            return all;
        }
    }
}

/// Does on the copy of one table what others did to it, act by act; the rows that they touched as they were and are in it.
/// False where they changed a row that the command may have given another key: then it is to be rolled back. `stays`: the
/// table is there still.
fn done_again(a: &mut Session, one: &OneTable, stays: bool, before: &str, after: &str) -> Result<bool, Error> {
    let (table, log, copy) = (&one.table, &one.log, ident(&one.copy));
    let keys: Vec<String> = table.key.iter().map(|at| format!("c{at}")).collect();
    let hold = |hold: &str| {
        format!(
            "INSERT INTO `{hold}` ({}) SELECT {} FROM (SELECT DISTINCT {} FROM `{log}` WHERE done = 0) AS l STRAIGHT_JOIN {copy} AS f ON {}",
            table.held(""),
            table.live("f."),
            keys.join(", "),
            table.keyed(F, L)
        )
    };
    a.run(&hold(before))?;
    let mut last = "0".to_owned();
    // They changed rows that the copy has not: the command's.
    let mut theirs_too = false;
    loop {
        let read =
            format!("SELECT n, op, changed FROM `{log}` WHERE n > {last} AND done = 0 ORDER BY n LIMIT {ACTS_READ}");
        let acts = a.rows(&read)?;
        if acts.is_empty() {
            break;
        }
        for mut row in acts {
            last = row[0].take().unwrap_or_default();
            let (op, flags) = (row[1].take().unwrap_or_default(), row[2].take().unwrap_or_default());
            let keyed = table.keyed(F, L);
            if op == "U" {
                let set: Vec<String> = changed(table, &flags)
                    .map(|at| format!("{} = {}", F.column(table, at), L.column(table, at)))
                    .chain(unmoved(table, &flags))
                    .collect();
                let there = format!("SELECT 1 FROM `{log}` AS l JOIN {copy} AS f ON {keyed} WHERE l.n = {last}");
                if a.value(&there)?.is_some() {
                    a.run(&format!(
                        "UPDATE `{log}` AS l JOIN {copy} AS f ON {keyed} SET {} WHERE l.n = {last}",
                        set.join(", ")
                    ))?;
                    continue;
                }
                theirs_too = true;
            } else {
                let gone =
                    a.count(&format!("DELETE f FROM `{log}` AS l JOIN {copy} AS f ON {keyed} WHERE l.n = {last}"))?;
                theirs_too |= op == "D" && gone == 0;
            }
            if op != "D" {
                a.run(&format!(
                    "INSERT INTO {copy} ({}) SELECT {} FROM `{log}` AS l WHERE l.n = {last}",
                    table.live(""),
                    table.held("l.")
                ))?;
            }
        }
    }
    if theirs_too && (!stays || lacks_any(a, one)?) {
        return Ok(false);
    }
    a.run(&hold(after))?;
    forget_unchanged(a, table, before, after)?;
    a.run(&format!("UPDATE `{log}` SET done = 1 WHERE done = 0"))?;
    Ok(true)
}

/// True where the copy has a row under a key that the table has not.
fn lacks_any(a: &mut Session, one: &OneTable) -> Result<bool, Error> {
    let (table, x) = (&one.table, Side::Live("x"));
    let found = a.value(&format!(
        "SELECT 1 FROM {} AS f LEFT JOIN {} AS x ON {} WHERE {} IS NULL LIMIT 1",
        ident(&one.copy),
        ident(&table.name),
        table.keyed(F, x),
        x.column(table, table.key[0])
    ))?;
    Ok(found.is_some())
}

/// Columns that would move by themselves stay.
fn unmoved(table: &Table, flags: &str) -> Vec<String> {
    let set: BTreeSet<usize> = changed(table, flags).collect();
    let moves = (0..table.columns.len()).filter(|at| table.columns[*at].moves && !set.contains(at));
    moves.map(|at| format!("{0} = {0}", F.column(table, at))).collect()
}

/// How many rows it is, the first few by their keys, and who wrote to the table.
fn named(a: &mut Session, one: &OneTable, holds: [&str; 2], rows: u64) -> Result<String, Error> {
    let table = &one.table;
    let side = |hold: &str| format!("SELECT {} AS k FROM `{hold}` AS x", table.shown_key(Side::Held("x")));
    let found = a.rows(&format!(
        "SELECT k FROM ({} UNION {}) AS u ORDER BY 1 LIMIT {KEYS_NAMED}",
        side(holds[0]),
        side(holds[1])
    ))?;
    let who = a.rows(&format!("SELECT DISTINCT who FROM `{}` ORDER BY 1 LIMIT {KEYS_NAMED}", one.log))?;
    let list = |rows: Vec<super::session::Row>, by: &str| {
        rows.into_iter().filter_map(|mut row| row[0].take()).collect::<Vec<_>>().join(by)
    };
    let more = if rows > KEYS_NAMED { "; …" } else { "" };
    Ok(format!("{} ({}{more}), by {}", words::count(rows, "row"), list(found, "; "), list(who, ", ")))
}
