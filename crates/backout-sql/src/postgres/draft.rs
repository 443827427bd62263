//! What happened to a database since a copy of it was made, as a script that does the same to another copy.
//!
//! It is found out by doing it: in one transaction, which is taken back, what happened is undone, then done again from the
//! definitions, and the statements that this takes are the script. What that leaves must be what is there now: objects part
//! by part, rows by count and digest. What cannot be written so is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};

use backout_model::review::{Concern, Review};
use backout_model::target::{Snapshot, TargetError};

use super::acts::Act;
use super::catalog::{Kind, Object, users_trigger};
use super::compared::Imaged;
use super::compared_events::{Parts, added, first_difference, is_of_one};
use super::compared_proof::Scratch;
use super::compared_rows::Pair;
use super::compared_schema::{self, Differences, Grain};
use super::ddl::DdlEvent;
use super::ddl_make;
use super::ddl_observe::pinned;
use super::ddl_turn::{self, Reach, TurnError};
use super::draft_rows::{PostgresRows, Way, literal_of, shape_of, write};
use super::session::ident;
use super::snapshot::Before;
use super::{Postgres, ddl_attributes, definition, marker, refreshed, split, table};
use crate::parents_first::parents_first;
use crate::recorded::{Condition, Drafted, Drafting, Rows};

/// Why no draft came about.
enum Halt {
    /// Perhaps it can be told otherwise.
    TooFine(TargetError),
    Error(TargetError),
}

impl From<TargetError> for Halt {
    fn from(error: TargetError) -> Self {
        Self::Error(error)
    }
}

/// The script in the order in which it is to run.
#[derive(Default)]
struct Statements {
    first: Vec<String>,
    last: Vec<String>,
}

impl Postgres {
    /// See [`crate::database::Database::draft`].
    pub(super) fn draft_since(
        &mut self,
        snapshot: &Snapshot,
        drafting: &mut Drafting<'_>,
    ) -> Result<Drafted, TargetError> {
        self.ready()?;
        let noted = drafting.review.clone();
        for grain in [Grain::Fine, Grain::Coarse] {
            let done = self.drafted(snapshot, grain, drafting);
            self.after_step();
            match done {
                Ok(drafted) => return Ok(drafted),
                Err(Halt::TooFine(_)) if grain == Grain::Fine => *drafting.review = noted.clone(),
                Err(Halt::TooFine(error) | Halt::Error(error)) => return Err(error),
            }
        }
        Err(TargetError::failed(format!("cannot write down what happened to {}", self.label), "no way was found"))
    }

    fn drafted(&mut self, snapshot: &Snapshot, grain: Grain, drafting: &mut Drafting<'_>) -> Result<Drafted, Halt> {
        let label = self.label.clone();
        let act = || format!("cannot write down what happened to {label}");
        let server = |source: postgres::Error| Halt::Error(TargetError::failed(act(), source));
        let struck = |source: io::Error| Halt::Error(TargetError::failed(act(), source));
        self.begin()?;
        marker::holds(&mut self.a, self.place.as_ref(), &self.label, self.epoch)?;
        let before = self.before(&snapshot.note)?;
        self.others_are_as(&before, "the recording")?;
        let version = self.a.version;
        let now = compared_schema::all(&mut self.a.client, version).map_err(server)?;
        self.keep_writers_out(&now)?;
        let now = compared_schema::all_with_content(&mut self.a.client, version).map_err(server)?;
        let wanted = |objects: &[Object]| -> Vec<Object> {
            let is_left = |id: &str| !id.is_empty() && (drafting.leave_out)(&table::plain(id));
            let kept = |object: &&Object| !is_left(object.id()) && !is_left(object.of());
            objects.iter().filter(kept).cloned().collect()
        };
        let (olds, news) = (wanted(&before.objects), wanted(&now));
        let found = Differences::plain(&olds, &news);
        self.b.run("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").map_err(server)?;
        let mut drafted = Drafted::default();
        let mut asked = definition::changed(&found, &before.objects, &now);
        for what in definition::unasked(&found) {
            drafting.review.note(Concern::Unchecked, &what, String::new);
        }
        let mut rows = tempfile::tempfile_in(&snapshot.directory).map_err(struck)?;
        let mut aside = tempfile::tempfile_in(&snapshot.directory).map_err(struck)?;
        let (silent, digests) = {
            let mut own = Drafting {
                out: &mut rows,
                review: drafting.review,
                leave_out: drafting.leave_out,
                leave_out_row: drafting.leave_out_row,
                aside: &mut aside,
                places: drafting.places,
            };
            self.write_rows(&before, &found, &news, &mut own, &mut drafted)?
        };
        let is_silent = |object: &&Object| {
            let is_it = |(of, name, _): &(String, String, String)| {
                table::plain(of) == table::plain(object.of()) && table::plain(name) == table::plain(object.text("name"))
            };
            object.kind == Kind::Trigger && silent.iter().any(is_it)
        };
        asked.extend(news.iter().filter(is_silent).map(Object::shown));
        drafted.definitions = asked
            .into_iter()
            .map(|object| {
                let was = definition::definition(&before.objects, &object);
                (object, was)
            })
            .collect();
        let sequences = self.sequences_of(&before, &found, &news).map_err(server)?;
        self.b.run("ROLLBACK").map_err(server)?;
        for object in found.gone.iter().filter(|object| object.kind == Kind::Table) {
            let copy = before.tables.iter().find(|copy| object.key.is_some_and(|key| key.oid == copy.oid));
            if let Some(copy) = copy {
                drafted.conditions.push(Condition {
                    name: format!("{} has as many rows as it had", object.id()),
                    sql: format!("SELECT count(*) FROM ONLY {}", object.id()),
                    equals: copy.rows.to_string(),
                });
            }
            // Each of those that are known has conditions of its own; any other would go along unasked.
            let is_part = |other: &&Object| other.part("partition of") == Some(object.id());
            let parts = before.objects.iter().filter(is_part).count();
            if object.part("partition key").is_some() {
                drafted.conditions.push(Condition {
                    name: format!("{} has as many partitions as it had", object.id()),
                    sql: format!(
                        "SELECT count(*) FROM pg_catalog.pg_inherits WHERE inhparent = {}::pg_catalog.regclass",
                        literal_of(object.id())
                    ),
                    equals: parts.to_string(),
                });
            }
        }
        for object in &found.gone {
            let is_part = found.gone.iter().any(|whole| whole.of().is_empty() && whole.id() == object.of());
            if matches!(object.kind, Kind::Table | Kind::Column) && !is_part {
                drafting.review.note(Concern::Goes, &object.shown(), String::new);
            }
        }
        self.go_back(&before, snapshot, grain)?;
        let Parts { gone, types, made, behind } = Parts::of(&found);
        let mut statements = Statements::default();
        for event in [&gone, &types, &made] {
            statements.first.extend(self.turned(event)?);
        }
        statements
            .first
            .extend(silent.iter().map(|(table, name, _)| format!("ALTER TABLE {table} DISABLE TRIGGER {name}")));
        for sql in &statements.first[statements.first.len() - silent.len()..] {
            self.a.run(sql).map_err(server)?;
        }
        rows.seek(SeekFrom::Start(0)).map_err(struck)?;
        aside.seek(SeekFrom::Start(0)).map_err(struck)?;
        for script in [rows.try_clone().map_err(struck)?, aside] {
            self.run_rows(script)?;
        }
        let loud: Vec<String> =
            silent.iter().map(|(table, name, how)| format!("ALTER TABLE {table} ENABLE {how}TRIGGER {name}")).collect();
        for sql in &loud {
            self.a.run(sql).map_err(server)?;
        }
        statements.last.extend(loud);
        statements.last.extend(self.turned(&behind)?);
        let after = compared_schema::all(&mut self.a.client, version).map_err(server)?;
        if let Some(what) = first_difference(&news, &wanted(&after)) {
            return Err(Halt::Error(self.unwritable("its objects", format!("done again they differ: {what}"))));
        }
        for (name, digest) in &digests {
            if self.a.value(&digest_of(name)).map_err(server)? != *digest {
                return Err(Halt::Error(
                    self.unwritable(&format!("table {name}"), "done again its rows differ".to_owned()),
                ));
            }
        }
        statements.last.extend(sequences);
        statements.last.extend(self.refills(&before, &news, drafting.review).map_err(server)?);
        rows.seek(SeekFrom::Start(0)).map_err(struck)?;
        for sql in &statements.first {
            writeln!(drafting.out, "{};", sql.trim_end().trim_end_matches(';')).map_err(struck)?;
        }
        io::copy(&mut rows, drafting.out).map_err(struck)?;
        for sql in &statements.last {
            writeln!(drafting.out, "{};", sql.trim_end().trim_end_matches(';')).map_err(struck)?;
        }
        drafted.statements += (statements.first.len() + statements.last.len()) as u64;
        Ok(drafted)
    }

    /// The statements that fill materialized views as they were filled here. One that its query does not fill so, once all is
    /// done again, is for the reviewer.
    fn refills(
        &mut self,
        before: &Before,
        news: &[Object],
        review: &mut Review,
    ) -> Result<Vec<String>, postgres::Error> {
        let mut statements = Vec::new();
        for view in news.iter().filter(|object| object.kind == Kind::MaterializedView) {
            let was = before.objects.iter().find(|was| was.key == view.key);
            let wanted = view.part("content");
            if wanted.is_none() || was.is_some_and(|was| was.part("content") == wanted) {
                continue;
            }
            let sql = format!("REFRESH MATERIALIZED VIEW {}", view.id());
            self.a.run(&sql)?;
            if refreshed::content(&mut self.a.client, view.id())?.as_deref() == wanted {
                statements.push(sql);
            } else {
                let why = || {
                    "its query gives other rows now than it holds here: REFRESH it there where that is meant".to_owned()
                };
                review.note(Concern::Refilled, &view.shown(), why);
            }
        }
        Ok(statements)
    }

    fn unwritable(&self, what: &str, why: String) -> TargetError {
        TargetError::Refused(backout_model::target::Refusal {
            place: self.label.clone(),
            what: what.to_owned(),
            why,
            ways_out: vec!["leave it out with `--leave-out`, and add to the package by hand what it needs".to_owned()],
        })
    }

    /// Undoes in the open transaction what happened; sequences stand outside of it and stay.
    fn go_back(&mut self, before: &Before, snapshot: &Snapshot, grain: Grain) -> Result<(), Halt> {
        let mut scratch = Scratch { path: snapshot.directory.join("draft-images") };
        let (mut unsealed, touched) = match self.images_of(before, grain, "the recording", &mut scratch)? {
            Imaged::Done { unsealed, touched, .. } => (unsealed, touched),
            Imaged::TooFine(error) => return Err(Halt::TooFine(error)),
        };
        unsealed.index.sequences.clear();
        let why =
            self.try_undo(&mut unsealed, &mut scratch, false, false, &mut |this| this.unlike(before, &touched))?;
        match why {
            None => Ok(()),
            Some(why) => Err(Halt::TooFine(self.unprovable("the recording", why))),
        }
    }

    /// Does a change of the schema again; the statements that it takes.
    fn turned(&mut self, event: &DdlEvent) -> Result<Vec<String>, Halt> {
        let pairs: Vec<ddl_turn::Pair<'_>> = event
            .changes
            .iter()
            .map(|change| ddl_turn::Pair { from: change.before.as_ref(), to: change.after.as_ref() })
            .collect();
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let in_use = ddl_attributes::in_use(&mut self.a.client, &event.changes);
        if let Some(why) = in_use.map_err(|source| self.failed("cannot read the schema of", source))? {
            return Err(self.unwritable("a change of the schema", why).into());
        }
        let version = self.a.version;
        let done: Result<Vec<Act>, TurnError> = pinned(&mut self.a.client, |client| {
            client.take_down();
            let turned = ddl_turn::turn(client, version, &pairs, &|_| None, &|_| None, Reach::Whole);
            let acts = client.taken_down(true);
            turned.map(|()| acts)
        });
        let acts = done.map_err(|error| self.unwritable("a change of the schema", error.to_string()))?;
        Ok(acts
            .into_iter()
            .filter_map(|act| match act {
                Act::Sql(sql) => Some(sql.replace(ddl_make::HEARD, "")),
                Act::Rows { .. } => None,
            })
            .collect())
    }

    fn run_rows(&mut self, script: File) -> Result<(), TargetError> {
        for statement in split::Script::new(BufReader::new(script)) {
            let statement = statement.map_err(|error| self.unwritable("the script", error.to_string()))?;
            let done = self.a.run(&statement.sql);
            done.map_err(|error| {
                let what = format!("the statement `{}`", crate::shown::shorten(&statement.sql));
                self.unwritable(&what, ddl_turn::reason(&error))
            })?;
        }
        Ok(())
    }

    /// Writes the rows that differ: those that go where nothing changed points at them, those that come, those that were
    /// changed, and what goes last. The triggers that must be silent meanwhile, and a digest of each table.
    #[allow(clippy::type_complexity)]
    fn write_rows(
        &mut self,
        before: &Before,
        found: &Differences,
        news: &[Object],
        drafting: &mut Drafting<'_>,
        drafted: &mut Drafted,
    ) -> Result<(Vec<(String, String, String)>, Vec<(String, Option<String>)>), Halt> {
        let label = self.label.clone();
        let server = |source: postgres::Error| {
            Halt::Error(TargetError::failed(format!("cannot read what rows of {label} differ"), source))
        };
        let mut pairs = Vec::new();
        for object in news.iter().filter(|object| object.kind == Kind::Table && object.part("partition key").is_none())
        {
            let Some(key) = object.key else { continue };
            let copy = before.tables.iter().find(|copy| copy.oid == key.oid);
            let pair = Pair::of(&mut self.b, key.oid, copy, added(found, key.oid)).map_err(server)?;
            let Some(pair) = pair else { continue };
            if !pair.is_untouched(&mut self.b).map_err(server)? && pair.has_changes(&mut self.b).map_err(server)? {
                pairs.push(pair);
            }
        }
        let points = self.points().map_err(server)?;
        let names: Vec<String> = pairs.iter().map(|pair| table::quoted(&pair.table)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let order = parents_first(&names, &points);
        let (mut silent, mut digests, mut shapes) = (Vec::new(), Vec::new(), Vec::new());
        let made: BTreeSet<(&str, &str)> = found.made.iter().map(|object| (object.of(), object.text("name"))).collect();
        for pair in &pairs {
            let name = table::quoted(&pair.table);
            digests.push((name.clone(), self.b.value(&digest_of(&name)).map_err(server)?));
            shapes.push(shape_of(pair, &before.objects, news));
            let rows = self
                .b
                .rows(&format!(
                    "SELECT tgname, CASE tgenabled WHEN 'A' THEN 'ALWAYS ' WHEN 'R' THEN 'REPLICA ' ELSE '' END FROM pg_catalog.pg_trigger
                     WHERE {users} AND tgenabled <> 'D' AND tgrelid = {oid}
                     UNION ALL SELECT NULL, rulename FROM pg_catalog.pg_rewrite WHERE ev_class = {oid} AND rulename <> '_RETURN'",
                    users = users_trigger("pg_trigger"),
                    oid = pair.oid
                ))
                .map_err(server)?;
            for row in rows {
                let text = |at: usize| row[at].clone().unwrap_or_default();
                if row[0].is_none() {
                    let what = format!("table {name}");
                    return Err(Halt::Error(self.unwritable(&what, format!("the rule {} acts on its rows", text(1)))));
                }
                let id = table::quoted(&pair.table);
                let is_made = made
                    .iter()
                    .any(|(of, trigger)| table::plain(of) == table::plain(&id) && table::plain(trigger) == text(0));
                if !is_made {
                    silent.push((name.clone(), ident(&text(0)), text(1)));
                }
            }
            let along = self.b.rows(&format!(
                "SELECT conrelid::pg_catalog.regclass::text FROM pg_catalog.pg_constraint
                 WHERE contype = 'f' AND confrelid = {} AND confdeltype IN ('c', 'n', 'd')",
                pair.oid
            ));
            for row in along.map_err(server)? {
                let child = row[0].clone().unwrap_or_default();
                let what =
                    format!("rows of {child} elsewhere that point at deleted rows of {}", table::shown(&pair.table));
                drafting.review.note(Concern::Goes, &what, String::new);
            }
        }
        let mut rows = Rows::new(drafting, drafted, PostgresRows::of(&pairs));
        let is_late =
            |name: &str| points.iter().any(|(child, parent)| parent == name && names.contains(&child.as_str()));
        let passes: [(Way, Option<bool>); 4] =
            [(Way::Gone, Some(false)), (Way::Came, None), (Way::Changed, None), (Way::Gone, Some(true))];
        for (way, late) in passes {
            let mut order = order.clone();
            if way == Way::Gone {
                order.reverse();
            }
            for at in order.into_iter().filter(|at| late.is_none_or(|late| late == is_late(names[*at]))) {
                write(&mut self.b, &pairs[at], &shapes[at], way, &mut rows)
                    .map_err(|source| TargetError::failed(format!("cannot write the rows of {}", names[at]), source))?;
            }
        }
        rows.end().map_err(|source| TargetError::failed("cannot write the script", source))?;
        Ok((silent, digests))
    }

    /// What sets sequences where they stand now; one that was there never behind what another site drew already.
    fn sequences_of(
        &mut self,
        before: &Before,
        found: &Differences,
        news: &[Object],
    ) -> Result<Vec<String>, postgres::Error> {
        let now = super::counters::positions(&mut self.b, &format!("AND {}", compared_schema::USERS_RELATIONS))?;
        let old: BTreeMap<u32, _> = before.sequences.iter().map(|stood| (stood.oid, stood.at)).collect();
        let is_it = |object: &Object, id: &str| {
            object.kind == Kind::Sequence && table::plain(object.id()) == table::plain(id)
                || object.part("sequence").is_some_and(|sequence| table::plain(sequence) == table::plain(id))
        };
        let is_any = |objects: &[Object], id: &str| objects.iter().any(|object| is_it(object, id));
        let stands_alone = |object: &Object| object.kind == Kind::Sequence || is_of_one(object, &found.made);
        let is_made = |id: &str| found.made.iter().any(|object| is_it(object, id) && stands_alone(object));
        let mut statements = Vec::new();
        for ((schema, name), (oid, at)) in &now {
            let id = format!("{}.{}", ident(schema), ident(name));
            if old.get(oid) == Some(at) || !is_any(news, &id) {
                continue;
            }
            let name = literal_of(&id);
            let set = format!("SELECT pg_catalog.setval({name}, {}, {})", at.value, at.called);
            let start = format!("SELECT seqstart FROM pg_catalog.pg_sequence WHERE seqrelid = {oid}");
            if !at.called && !old.contains_key(oid) && self.b.value(&start)? == Some(at.value.to_string()) {
                continue;
            }
            if is_made(&id) {
                // The script makes it, so that nobody drew from it; for a new column of a table that is there rows draw.
                statements.push(set);
                continue;
            }
            // By the number that comes next, in the direction in which it counts.
            let next = "last_value + CASE WHEN is_called THEN seqincrement::numeric ELSE 0 END";
            let wanted = format!("{}{}", at.value, if at.called { " + seqincrement::numeric" } else { "" });
            statements.push(format!(
                "{set} FROM {id}, pg_catalog.pg_sequence
                 WHERE seqrelid = {name}::pg_catalog.regclass AND sign(seqincrement) * (({wanted}) - ({next})) > 0",
            ));
        }
        Ok(statements)
    }
}

/// How many rows a table has, and a digest that does not ask for their order.
fn digest_of(name: &str) -> String {
    format!(
        "SELECT pg_catalog.count(*) || ' ' || coalesce(pg_catalog.sum(pg_catalog.hashtextextended(x::pg_catalog.text, 0)::numeric), 0)
         FROM ONLY {name} AS x"
    )
}
