//! What a command did, found by comparing the database with the copy of before, and written as the images of a step like
//! any other: objects that went and came, and rows. So its undo, redo, conflicts and descriptions are those of scripts.
//!
//! The changes themselves are on the site already; what this transaction adds is the marker, and the tables of before that
//! the command dropped, moved aside. Its undo is tried before it commits, and what that leaves is held against the copy.
//! Never changes a row of the user's.

use std::collections::{BTreeMap, BTreeSet};

use backout_model::fault::{self, Point};
use backout_model::target::{Gate, Refusal, Report, Snapshot, Summary, TargetError};
use serde_json::Value;

use super::apply::sealed;
use super::capture_error::CaptureError;
use super::catalog::{Kind, Object};
use super::compared_events::{self, Parts};
use super::compared_held::{self, HoldError};
use super::compared_rows::Pair;
use super::compared_schema::{self, Dependence, Differences, Grain, OTHERS};
use super::ddl_hold::Moved;
use super::ddl_keep::{Kept, What};
use super::ddl_turn::TurnError;
use super::gone::Gone;
use super::schema::{self, Images, LOCK_PAUSE, Tools};
use super::session::{Session, ident};
use super::snapshot::{Before, Copied, Other, Stood};
use super::stream::{Event, Index, Sequence, Unsealed, Writer};
use super::{Postgres, counters, ddl_hold, marker, rebuild, table, who_wrote};

/// How often the tables are asked for, two seconds each, before others are let write no more.
pub(super) const LOCK_TRIES: u32 = 30;

/// Has B read one and the same state from now on.
pub(super) const ONE_STATE: &str =
    "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL work_mem = '64MB'";

/// What came of writing images.
pub(super) enum Imaged {
    Done {
        unsealed: Box<Unsealed>,
        /// The schema differs, too: the undo is to be tried.
        alters: bool,
        /// The tables that it is about, by the numbers that they had before.
        touched: BTreeSet<u32>,
    },
    /// What was found cannot be told in this grain.
    TooFine(TargetError),
}

/// What a look at the database found.
struct Seen<'b> {
    now: Vec<Object>,
    depend: Dependence,
    found: Differences,
    pairs: Vec<Pair<'b>>,
}

impl Seen<'_> {
    /// A table of an extension that is no more: no object of the user's tells of it.
    fn gone_with_its_extension<'b>(&self, before: &'b Before) -> Option<&'b str> {
        let is_there = |oid: u32| self.pairs.iter().any(|pair| pair.oid == oid);
        let is_users = |oid: u32| before.objects.iter().any(|table| is_table(table, oid));
        let gone = before.tables.iter().find(|copy| copy.rows > 0 && !is_there(copy.oid) && !is_users(copy.oid));
        gone.map(|copy| copy.table.as_str())
    }
}

/// Where a comparison ended.
enum Compared {
    Done(Summary),
    /// What it found cannot be told in this grain.
    TooFine(TargetError),
}

impl Postgres {
    /// See [`backout_model::target::Target::compare`].
    pub(super) fn compare_with(
        &mut self,
        snapshot: &Snapshot,
        shown: &str,
        gate: &mut dyn Gate,
    ) -> Result<Report, TargetError> {
        self.ready()?;
        let grain = if self.coarse.as_ref() == Some(&snapshot.note) { Grain::Coarse } else { Grain::Fine };
        let done = self.compare_and_seal(&snapshot.note, grain, shown, gate);
        self.after_step();
        // Whoever asks again gets it in the other grain.
        self.coarse = None;
        match done? {
            Compared::Done(summary) => Ok(Report { summary, ..Report::default() }),
            Compared::TooFine(error) => {
                self.coarse = (grain == Grain::Fine).then(|| snapshot.note.clone());
                Err(error)
            }
        }
    }

    fn compare_and_seal(
        &mut self,
        note: &Value,
        grain: Grain,
        shown: &str,
        gate: &mut dyn Gate,
    ) -> Result<Compared, TargetError> {
        self.begin()?;
        marker::holds(&mut self.a, self.place.as_ref(), &self.label, self.epoch)?;
        let mut before = self.before(note)?;
        self.without_others(&mut before)?;
        self.others_are_as(&before, shown)?;
        let (mut unsealed, alters, touched) = match self.images_of(&before, grain, shown, gate)? {
            Imaged::Done { unsealed, alters, touched } => (unsealed, alters, touched),
            Imaged::TooFine(error) => return Ok(Compared::TooFine(error)),
        };
        if alters && let Some(why) = self.try_undo_exactly(&before, &touched, &mut unsealed, gate)? {
            return Ok(Compared::TooFine(self.unprovable(shown, why)));
        }
        let summary = sealed(*unsealed).map_err(|source| TargetError::failed(uncompared(&self.label), source))?;
        self.seal(&summary, gate)?;
        Ok(Compared::Done(summary))
    }

    pub(super) fn unprovable(&self, shown: &str, why: String) -> TargetError {
        TargetError::Refused(Refusal {
            place: shown.to_owned(),
            what: format!("what it did to {}", self.label),
            why,
            ways_out: vec!["give the step an undo of its own: `undo: [a command]`".to_owned()],
        })
    }

    /// Refuses where the command changed what nobody here knows how to bring back.
    pub(super) fn others_are_as(&mut self, before: &Before, shown: &str) -> Result<(), TargetError> {
        match self.other_than(before)? {
            None => Ok(()),
            Some(what) => {
                let why = format!("it changed {what}, of which nothing could bring the old state back");
                Err(self.unprovable(shown, why))
            }
        }
    }

    /// The first thing that is not handled and is not as it was.
    pub(super) fn other_than(&mut self, before: &Before) -> Result<Option<String>, TargetError> {
        let now = self.others()?;
        // An extension that came or went is an object of its own.
        let whole = |what: &str, all: &[Other]| {
            !what.starts_with("what belongs to extension ") || all.iter().any(|other| other.what == what)
        };
        let gone = before.others.iter().find(|other| !now.contains(other) && whole(&other.what, &now));
        let came = now.iter().find(|other| !before.others.contains(other) && whole(&other.what, &before.others));
        Ok(gone.or(came).map(|other| other.what.clone()))
    }

    /// What is there of what is not handled.
    pub(super) fn others(&mut self) -> Result<Vec<Other>, TargetError> {
        let found = self.a.rows(OTHERS).map_err(|source| self.failed("cannot read the catalogs of", source))?;
        Ok(found.into_iter().map(Other::of).collect())
    }

    /// Writes the images.
    pub(super) fn images_of(
        &mut self,
        before: &Before,
        grain: Grain,
        shown: &str,
        gate: &mut dyn Gate,
    ) -> Result<Imaged, TargetError> {
        let label = self.label.clone();
        let captured = |source: CaptureError| TargetError::failed(uncompared(&label), source);
        let mut seen = self.look(before, grain)?;
        if let Some(name) = seen.gone_with_its_extension(before) {
            let why = format!("table {name} of an extension went, with rows that the extension does not bring back");
            return Ok(Imaged::TooFine(self.unprovable(shown, why)));
        }
        let writer = Writer::new(gate.images());
        let mut writer = writer.map_err(|source| captured(source.into()))?;
        let mut index = Index { shown: shown.to_owned(), marker: self.marker_number()?, ..Index::default() };
        let mut parts = Parts::of(&seen.found);
        parts.gone.kept.extend(positions(&seen.found, before));
        let mut touched: BTreeSet<u32> = seen.found.anew.clone();
        let mut rows = Vec::new();
        for pair in &mut seen.pairs {
            fault::point(Point::Statement).map_err(|source| TargetError::failed(uncompared(&label), source))?;
            if let Some(kept) = keep_lost(&mut self.b, &mut writer, pair, before, &mut index).map_err(captured)? {
                parts.gone.kept.push(kept);
                touched.insert(pair.oid);
            }
            let number = u32::try_from(index.tables.len()).unwrap_or(u32::MAX);
            let (old, new) = pair.write(&mut self.b, &mut writer, number).map_err(captured)?;
            if old.records + new.records > 0 {
                index.rows += old.records.max(new.records);
                index.tables.push(pair.table.clone());
                rows.push(Event::Rows { table: number, before: old, after: new });
                touched.insert(pair.oid);
            }
            gate.progress(index.rows, None);
        }
        index.sequences = self.sequences(before, &seen.found).map_err(|source| self.uncompared(source))?;
        self.b.run("ROLLBACK").map_err(|source| self.uncompared(source))?;
        match self.hold_gone(before, &seen)? {
            Ok(moved) => parts.gone.moved = moved,
            Err(why) => return Ok(Imaged::TooFine(self.unprovable(shown, why))),
        }
        let dropped = seen.found.gone.iter().filter(|object| object.kind == Kind::Table);
        touched.extend(dropped.filter_map(|table| Some(table.key?.oid)));
        parts.into_events(&mut index, rows);
        rebuild::note_all(&mut self.a, &mut index).map_err(|source| self.uncompared(source))?;
        let alters = index.events.iter().any(|event| matches!(event, Event::Ddl { .. }));
        Ok(Imaged::Done { unsealed: Box::new(Unsealed { writer, index }), alters, touched })
    }

    /// What differs. From then on B reads one and the same state; where the schema differs, nobody writes meanwhile.
    fn look<'b>(&mut self, before: &'b Before, grain: Grain) -> Result<Seen<'b>, TargetError> {
        let label = self.label.clone();
        let reading = |source| TargetError::failed(uncompared(&label), source);
        let version = self.a.version;
        let mut now = compared_schema::all_with_content(&mut self.a.client, version).map_err(reading)?;
        let mut depend = Dependence::default();
        let mut whole = BTreeSet::new();
        if !Differences::find(&before.objects, &now, grain, &whole, &depend).is_nothing() {
            self.keep_writers_out(&now)?;
            now = compared_schema::all_with_content(&mut self.a.client, version).map_err(reading)?;
            depend = Dependence::read(&mut self.a.client).map_err(reading)?;
        }
        self.b.run(ONE_STATE).map_err(reading)?;
        self.is_told_so(before)?;
        loop {
            let found = Differences::find(&before.objects, &now, grain, &whole, &depend);
            let pairs = self.pairs(before, &found).map_err(reading)?;
            let unkeyed = self.without_key(&pairs, &found, &[&before.objects, &now]).map_err(reading)?;
            if unkeyed.is_subset(&whole) {
                return Ok(Seen { now, depend, found, pairs });
            }
            whole.extend(unkeyed);
        }
    }

    /// Moves aside what the command dropped; or why that cannot be.
    fn hold_gone(&mut self, before: &Before, seen: &Seen<'_>) -> Result<Result<Vec<Moved>, String>, TargetError> {
        let label = self.label.clone();
        let version = self.a.version;
        let mut next_hold = self.next_hold()?;
        let mut tools = Tools {
            own: &self.own,
            label: &label,
            version,
            event_triggers: &self.event_triggers,
            next_hold: &mut next_hold,
            passing: &[],
            drawn: &[],
            already: None,
            proof: false,
            knows_numbers: true,
            gone: &mut Gone::default(),
        };
        let mut images = Images { capture: None, reader: None, label: &label };
        let mut context = schema::context(&mut self.a, &mut tools, &mut images);
        let moved = match compared_held::hold(&mut context, &seen.found.gone, &seen.now, &seen.depend, before) {
            Ok(moved) => moved,
            Err(HoldError::Target(error)) => return Err(error),
            Err(HoldError::Turn(TurnError::Server(source))) => return Err(self.uncompared(source)),
            Err(HoldError::Turn(error)) => return Ok(Err(format!("what it dropped cannot be made again: {error}"))),
        };
        if moved.is_empty() {
            return Ok(Ok(moved));
        }
        let after = compared_schema::all(&mut self.a.client, version).map_err(|source| self.uncompared(source))?;
        Ok(match compared_events::first_difference(&seen.now, &after) {
            Some(what) => Err(format!("what it dropped cannot be held: {what}")),
            None => Ok(moved),
        })
    }

    fn uncompared(&self, source: postgres::Error) -> TargetError {
        TargetError::failed(uncompared(&self.label), source)
    }

    /// Has others wait with what they want to write: what is compared in two steps must not move between them.
    pub(super) fn keep_writers_out(&mut self, now: &[Object]) -> Result<(), TargetError> {
        let tables: Vec<&str> = now.iter().filter(|object| object.kind == Kind::Table).map(Object::id).collect();
        if tables.is_empty() {
            return Ok(());
        }
        let lock =
            format!("SAVEPOINT backout_lock; LOCK TABLE {} IN SHARE MODE; RELEASE backout_lock", tables.join(", "));
        let mut tries = 0;
        loop {
            match self.a.run(&lock) {
                Ok(()) => return Ok(()),
                Err(error) if tries < LOCK_TRIES && super::session::is_lock_timeout(&error) => {
                    tries += 1;
                    let back = self.a.run("ROLLBACK TO backout_lock; RELEASE backout_lock");
                    back.map_err(|source| self.failed("cannot lock the tables of", source))?;
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(source) => return Err(self.failed("cannot lock the tables of", source)),
            }
        }
    }

    /// Every table of now beside its copy; one that came since, or is told as made anew, beside none.
    fn pairs<'b>(&mut self, before: &'b Before, found: &Differences) -> Result<Vec<Pair<'b>>, postgres::Error> {
        let mut pairs = Vec::new();
        let written = who_wrote::written(&mut self.b, before)?;
        for copy in before.tables.iter().filter(|copy| !found.anew.contains(&copy.oid)) {
            let added = compared_events::added(found, copy.oid);
            let pair = Pair::of(&mut self.b, copy.oid, Some(copy), added)?;
            // What nobody else wrote to is just as it was copied, which takes half the time to read.
            let bare = |pair: Pair<'b>| match written.contains(&copy.oid) {
                true => pair,
                false => Pair { rows: copy.bare(&before.schema), ..pair },
            };
            pairs.extend(pair.map(bare));
        }
        let made =
            found.made.iter().filter(|object| object.kind == Kind::Table && object.part("partition key").is_none());
        for table in made.filter_map(|table| table.key) {
            pairs.extend(Pair::of(&mut self.b, table.oid, None, BTreeMap::new())?);
        }
        Ok(pairs)
    }

    /// Tables whose parts changed and whose rows nothing tells apart, before and now.
    fn without_key(
        &mut self,
        pairs: &[Pair<'_>],
        found: &Differences,
        all: &[&[Object]],
    ) -> Result<BTreeSet<u32>, postgres::Error> {
        let mut without = BTreeSet::new();
        for pair in pairs.iter().filter(|pair| pair.copy.is_some()) {
            let lost = !pair.lost().is_empty();
            let names: Vec<&str> = all
                .iter()
                .flat_map(|all| all.iter())
                .filter(|table| is_table(table, pair.oid))
                .map(Object::id)
                .collect();
            let of_it = |object: &Object| {
                matches!(object.kind, Kind::Index | Kind::Constraint | Kind::Column) && names.contains(&object.of())
            };
            let changed = lost || found.made.iter().chain(&found.gone).any(of_it);
            if changed && (lost || !pair.table.key.is_empty()) && !pair.is_key_of_old(&mut self.b)? {
                without.insert(pair.oid);
            }
        }
        Ok(without)
    }

    /// What became of sequences.
    fn sequences(&mut self, before: &Before, found: &Differences) -> Result<Vec<Sequence>, postgres::Error> {
        let now = counters::positions(&mut self.b, &format!("AND {}", compared_schema::USERS_RELATIONS))?;
        let old: BTreeMap<u32, &Stood> = before.sequences.iter().map(|stood| (stood.oid, stood)).collect();
        let names = found.made.iter().filter_map(|object| match object.kind {
            Kind::Sequence => Some(object.id()),
            _ => object.part("sequence"),
        });
        let made: BTreeSet<String> = names.map(table::plain).collect();
        // Who moved one nobody can tell where others were at work, and a number that is given twice does harm.
        let stays = matches!(before.told, Some(Ok(_))) && who_wrote::others_wrote(&mut self.b, before)?;
        let mut all = Vec::new();
        for ((schema, name), (oid, at)) in &now {
            let shown = if schema == "public" { name.clone() } else { format!("{schema}.{name}") };
            let stood = old.get(oid).filter(|_| !made.contains(&shown));
            if stood.is_some_and(|stood| stays || stood.at == *at) {
                continue;
            }
            let was = stood.map(|stood| (stood.schema.clone(), stood.name.clone()));
            all.push(Sequence {
                schema: schema.clone(),
                name: name.clone(),
                before: stood.map_or(*at, |stood| stood.at),
                after: *at,
                made: stood.is_none(),
                gone: false,
                was: was.filter(|(old_schema, old_name)| old_schema != schema || old_name != name),
                oid: Some(*oid),
            });
        }
        let left: BTreeSet<u32> = now.values().map(|(oid, _)| *oid).collect();
        let went = |stood: &&Stood| !left.contains(&stood.oid) && !stood.schema.starts_with("backout");
        all.extend(before.sequences.iter().filter(went).map(|stood| Sequence {
            schema: stood.schema.clone(),
            name: stood.name.clone(),
            before: stood.at,
            after: stood.at,
            made: false,
            gone: true,
            was: None,
            oid: None,
        }));
        Ok(all)
    }
}

pub(super) fn uncompared(label: &str) -> String {
    format!("cannot compare {label} with what it was")
}

/// Keeps what columns held that the table has no more.
fn keep_lost(
    b: &mut Session,
    writer: &mut Writer,
    pair: &Pair<'_>,
    before: &Before,
    index: &mut Index,
) -> Result<Option<Kept>, CaptureError> {
    let lost = pair.lost();
    let Some(table) = before.objects.iter().find(|table| is_table(table, pair.oid)).filter(|_| !lost.is_empty()) else {
        return Ok(None);
    };
    let (span, mut what) = pair.keep(b, writer, &lost, &|column| named(column, pair.oid, &before.objects))?;
    if let What::Values { before: block, .. } = &mut what {
        *block = index.kept.len() as u64;
    }
    index.kept.push(span);
    Ok(Some(Kept { table: table.id().to_owned(), what }))
}

pub(super) fn is_table(object: &Object, oid: u32) -> bool {
    object.kind == Kind::Table && object.key.is_some_and(|key| key.oid == oid)
}

/// The name that a column had, in quotes where it needs them.
fn named(column: &Copied, oid: u32, before: &[Object]) -> String {
    let is_it = |object: &&Object| {
        object.kind == Kind::Column && object.key.is_some_and(|key| key.oid == oid && key.sub == column.number)
    };
    before.iter().find(is_it).map(|object| object.text("name").to_owned()).unwrap_or_else(|| ident(&column.name))
}

/// How far sequences had counted that went with a column of a table that stays.
fn positions(found: &Differences, before: &Before) -> Vec<Kept> {
    let table_goes = |table: &str| found.gone.iter().any(|object| object.kind == Kind::Table && object.id() == table);
    let names = found.gone.iter().filter_map(|object| match object.kind {
        Kind::Sequence if !ddl_hold::is_moved(object) && !object.part("referenced").is_some_and(table_goes) => {
            Some(object.id())
        }
        Kind::Column if !table_goes(object.of()) => object.part("sequence"),
        _ => None,
    });
    let stood = names.filter_map(|name| before.sequences.iter().find(|stood| stood.id == name));
    let kept = stood.map(|stood| Kept {
        table: stood.id.clone(),
        what: What::Position { last: stood.at.value, called: stood.at.called },
    });
    kept.collect()
}
