//! ALTER TABLE, CREATE INDEX and DROP INDEX: the way back is found and tried on an empty table of the same shape, the
//! values that the change may lose are kept, and the table is locked while that and the change happen.
//!
//! Never alters a table whose way back did not lead to the same text on the empty one.

use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_model::fault::{self, Point};
use backout_model::target::{TargetError, Ticket};
use backout_model::words;
use mysql::Error;
use serde::{Deserialize, Serialize};

use super::Mariadb;
use super::apply::cannot_run;
use super::capture::patiently;
use super::classify::No;
use super::ddl::{Change, Prepared, definition, renamed};
use super::ddl_again::{forget_given, give_again};
use super::ddl_fit::{is_unfit, list_filled, list_homeless, list_unfit, newcomers};
use super::ddl_kept::{
    Holds, Kept, dropped_and_added, fill, kept, list_changed, lost_keys, make_holds, note_changed, refill, renames,
};
use super::ddl_links;
use super::ddl_shape::{Shape, clauses};
use super::emptied::{has_rows, lost, partitions, unlisted};
use super::head::Head;
use super::marker;
use super::moment;
use super::quiet;
use super::replay::Replay;
use super::segment::{Detail, Segment, State};
use super::session::ident;
use super::split::Statement;
use super::table::{self, Table, There};
use super::token::bare;

/// A table that was altered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Altered {
    pub name: String,
    pub before: String,
    pub after: String,
    /// The clauses that lead back; empty where the definition did not change.
    pub inverse: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
    /// Where the counter stood after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter_after: Option<u64>,
    /// Partitions that go, which must have no rows by then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
    /// Foreign keys came or went.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub links: bool,
}

impl Altered {
    /// Its undo brings rules back that rows must fulfil.
    pub fn brings_checks(&self) -> bool {
        let checks = |text: &str| text.matches("CHECK (").count();
        checks(&self.before) > checks(&self.after) || Shape::of(&self.before).checks != Shape::of(&self.after).checks
    }

    /// Its undo gives columns another type.
    pub fn retypes(&self) -> bool {
        ["MODIFY COLUMN", "CHANGE COLUMN"].iter().any(|words| self.inverse.contains(words))
    }

    pub fn words(&self) -> String {
        let values = self.kept.as_ref().filter(|kept| kept.brings());
        let kept = values.map(|kept| {
            let names: Vec<&str> =
                kept.before.columns.iter().skip(kept.before.key.len()).map(|column| column.name.as_str()).collect();
            format!(", with the values of {}", names.join(", "))
        });
        format!("puts back the definition of {}{}", self.name, kept.unwrap_or_default())
    }
}

impl Mariadb {
    pub(super) fn holds_of(&self, segment: &Segment) -> Holds {
        Holds::named(|what| segment.object(&self.names, what))
    }

    pub(super) fn prepare_alter(
        &mut self,
        step: u64,
        number: u32,
        statement: &Statement,
        place: &str,
        head: &Head,
        there: &There,
    ) -> Result<Prepared, TargetError> {
        let refused = |why: String| TargetError::from(No::undo(why).at(place, &statement.sql).refusal);
        match there {
            There::Table(engine) if ["InnoDB", "MyISAM", "Aria"].iter().any(|one| engine.eq_ignore_ascii_case(one)) => {
            }
            There::Table(engine) => return Err(refused(format!("altering a table of {engine} is not handled yet"))),
            _ => return Err(refused("it is no table".to_owned())),
        }
        let name = head.names.first().map(|name| name.name.clone()).unwrap_or_default();
        let clone = self.names.of_segment(step, number, "c");
        let reading =
            |label: &str, source: Error| TargetError::failed(format!("cannot read the schema of {label}"), source);
        let label = self.label.clone();
        let before = definition(&mut self.b, &name).map_err(|source| reading(&label, source))?.unwrap_or_default();
        let made = patiently(|| self.b.run(&format!("CREATE TABLE {} LIKE {}", ident(&clone), ident(&name))));
        made.map_err(|source| self.failed("cannot try a change in", source))?;
        let (start, _) = self.looked_at(&clone, &name)?;
        let shape = Shape::of(&before);
        let text = self.under_another_name(statement, head, &clone)?;
        let for_clone = ddl_links::for_clone(&text, ddl_links::rest_of(head, &clone), &shape, &format!("{clone}$"));
        if Shape::of(&start) != shape.without_links() {
            return Err(refused(format!("an empty table like {name} would not be the same")));
        }
        if let Some(text) = &for_clone.text {
            self.a()?.run(text).map_err(|source| cannot_run(place, &statement.sql, source))?;
        }
        let (end, _) = self.looked_at(&clone, &name)?;
        let tidied = ddl_links::tidy_clone(&mut self.b, &clone, &Shape::of(&end), &for_clone.names);
        tidied.map_err(|source| refused(format!("what it makes of foreign keys could not be tried: {source}")))?;
        let (end, table_after) = self.looked_at(&clone, &name)?;
        let (from, to) = (Shape::of(&end), Shape::of(&start));
        if let Some(key) = ddl_links::gone_unsaid(&statement.sql, &from, &to) {
            return Err(refused(format!(
                "the server would drop {key} with it, which it made by itself for a foreign key, and that cannot be made again as it was: drop it by name in the same statement"
            )));
        }
        if let Some(value) = unlisted(&statement.sql, &to.parts, &from.parts) {
            return Err(refused(format!(
                "rows with the value {value}, which no partition takes any more, would go without a word: write PARTITION BY LIST, where the server looks for them"
            )));
        }
        let named = quiet::names_gone(&mut self.b, &name, [&to, &from]).map_err(|source| reading(&label, source))?;
        named.map_or(Ok(()), |why| Err(refused(why)))?;
        let text = bare(&statement.sql, self.version);
        let names = renames(&text);
        if let Some(column) = dropped_and_added(&text, &from, &to, &names) {
            let why = "and adds it again, so that its values would be gone without a word: do that in two statements";
            return Err(refused(format!("it drops the column {column} {why}")));
        }
        let inverse = clauses(&from, &to, &names).join(", ");
        if inverse.contains("nextval(") {
            return Err(refused("its undo would draw numbers from a sequence for the rows that are there".to_owned()));
        }
        if !inverse.is_empty() {
            let tried = self.b.run(&format!("ALTER TABLE {} {inverse}", ident(&clone)));
            tried.map_err(|source| refused(format!("the way back could not be found: {source}")))?;
            let (again, _) = self.looked_at(&clone, &name)?;
            if again != start {
                return Err(refused("the way back does not lead to the same definition".to_owned()));
            }
        }
        self.b
            .run(&format!("DROP TABLE {}", ident(&clone)))
            .map_err(|source| self.failed("cannot tidy up in", source))?;
        let table = Table::find(&mut self.b, &name).map_err(|source| reading(&label, source))?;
        let kept = kept(&table, &table_after, &from, &to, &names).map_err(refused)?;
        if kept.as_ref().is_some_and(Kept::brings)
            && let Some(why) = quiet::why_not(&mut self.b, &name).map_err(|source| reading(&label, source))?
        {
            return Err(refused(format!("it may lose values, and {why}")));
        }
        let counter = table::counter(&mut self.b, &name).map_err(|source| reading(&label, source))?;
        let (after, counter_after, links) = (String::new(), None, for_clone.links);
        let lost = lost(&text, head.rest).map(|(_, named)| named).unwrap_or_default();
        let gone = partitions(&mut self.b, &name, &lost).map_err(|source| reading(&label, source))?;
        let altered = Altered { name, before, after, inverse, kept, counter, counter_after, gone, links };
        Ok(Prepared { change: Some(Change::Altered(Box::new(altered))), by_names: false })
    }

    /// The definition of the empty table under the name of the full one, and its columns.
    fn looked_at(&mut self, clone: &str, name: &str) -> Result<(String, Table), TargetError> {
        let found = definition(&mut self.b, clone).and_then(|text| Ok((text, Table::find(&mut self.b, clone)?)));
        let (text, table) = found.map_err(|source| self.failed("cannot read the schema of", source))?;
        Ok((renamed(&text.unwrap_or_default(), clone, name), table))
    }

    /// Alters the table; its row is written right before. `after` of what is done again: as it was left at first.
    pub(super) fn perform_alter(
        &mut self,
        segment: &mut Segment,
        altered: &Altered,
        ticket: Ticket,
        place: &str,
        sql: &str,
    ) -> Result<(), TargetError> {
        let (names, label, holds) = (self.names.clone(), self.label.clone(), self.holds_of(segment));
        let keeping = |source: Error| TargetError::failed(format!("cannot keep what {label} would lose"), source);
        let again = segment.state != State::Intended;
        segment.state = State::Intended;
        let mut no = None;
        let given = altered.kept.as_ref().filter(|kept| again && kept.given > 0);
        if given.is_some() {
            self.hold_triggers(&[&altered.name])?;
        }
        if let Some(kept) = &altered.kept {
            make_holds(&mut self.b, kept, &holds).map_err(keeping)?;
            self.lock_table(&altered.name, Some((kept, &holds))).map_err(keeping)?;
            let lost = self.a()?.aside(|a| {
                fill(a, &kept.before, &holds.before)?;
                lost_keys(a, kept, &holds.before)
            });
            let lost = lost.map_err(keeping)?;
            let why = format!("{} would be lost on the way to the new type and back", words::count(lost, "key"));
            no = (lost > 0).then(|| No::undo(why).at(place, sql).refusal.into());
        } else if !altered.gone.is_empty() {
            self.lock_table(&altered.name, None).map_err(keeping)?;
            let full = self.a()?.aside(|a| has_rows(a, &altered.name, &altered.gone));
            let why = "others wrote to a partition of it that goes";
            no = full.map_err(keeping)?.then(|| cannot_run(place, sql, why));
        }
        if let Some(no) = no {
            self.a()?.run("UNLOCK TABLES").map_err(keeping)?;
            return if again { Err(no) } else { self.sweep_segment(segment.step, segment.number).and(Err(no)) };
        }
        let written = self.a()?.aside(|a| segment.rewrite(a, &names, ticket));
        written.map_err(keeping)?;
        fault::point(Point::Statement).map_err(|source| cannot_run(place, sql, source))?;
        let pinned = match &segment.detail {
            // What it gives rows of a table with a key is kept.
            Detail::Ddl { settings, .. } if !again => moment::pinned(sql, &bare(sql, self.version), settings),
            _ => None,
        };
        let a = self.a()?;
        if let Err(source) = patiently(|| a.run(pinned.as_deref().unwrap_or(sql))) {
            let a = self.a()?;
            if a.run("UNLOCK TABLES").is_ok() {
                self.settle_failed_alter(segment, again)?;
            }
            return Err(cannot_run(place, sql, source));
        }
        fault::point(Point::Committed).map_err(|source| cannot_run(place, sql, source))?;
        let name = altered.name.clone();
        let after = self.a()?.aside(|a| -> Result<_, Error> {
            given.map_or(Ok(()), |kept| give_again(a, kept, &holds))?;
            ddl_links::order_keys(a, &name, &altered.after)?;
            if let Some(kept) = &altered.kept {
                fill(a, &kept.after, &holds.after)?;
            }
            Ok((definition(a, &name)?.unwrap_or_default(), table::counter(a, &name)?))
        });
        let (after, counter_after) = after.map_err(keeping)?;
        if let Detail::Ddl { change, .. } = &mut segment.detail
            && let Change::Altered(altered) = &mut **change
        {
            altered.after = after;
            altered.counter_after = counter_after;
        }
        segment.state = State::Done;
        let written = self.a()?.aside(|a| {
            segment.rewrite(a, &names, ticket)?;
            if given.is_some() { forget_given(a, &holds) } else { Ok(()) }
        });
        written.map_err(keeping)?;
        self.a()?.run("UNLOCK TABLES").map_err(keeping)
    }

    fn settle_failed_alter(&mut self, segment: &mut Segment, again: bool) -> Result<(), TargetError> {
        if again { self.settle_change(segment) } else { self.settle_failed(segment) }
    }

    /// Locks a table with its holds, so that nobody writes between what is kept and the change.
    fn lock_table(&mut self, name: &str, kept: Option<(&Kept, &Holds)>) -> Result<(), Error> {
        let holds = kept.map(|(kept, holds)| holds.locked(kept)).unwrap_or_default();
        let sql = format!("LOCK TABLES {} WRITE, {holds}`{}` WRITE", ident(name), self.names.segments());
        match self.a.as_mut() {
            Some(a) => patiently(|| a.run(&sql)),
            None => Ok(()),
        }
    }

    /// Whether a table whose alteration, or its undo, is open has its new definition; completes an undo.
    pub(super) fn settle_alter(&mut self, segment: &Segment, altered: &Altered) -> Result<bool, TargetError> {
        let now = definition(&mut self.b, &altered.name)
            .map_err(|source| self.failed("cannot read the schema of", source))?
            .unwrap_or_default();
        let undoing = segment.state == State::Undoing;
        let is_before = Shape::of(&now) == Shape::of(&altered.before);
        if is_before && (undoing || altered.links || !altered.inverse.is_empty()) {
            if undoing {
                self.refill(segment, altered)?;
            }
            return Ok(false);
        }
        // What it is after an alteration that was broken off is known by what it was on the empty table only; it is not
        // what it was before, and nobody else alters a table that is locked.
        if let Some(kept) = altered.kept.as_ref().filter(|_| !undoing) {
            self.settle_given(kept, &self.holds_of(segment), &altered.name)?;
        }
        Ok(true)
    }

    pub(super) fn look_at_alter(
        &mut self,
        segment: &Segment,
        altered: &Altered,
        replay: &mut Replay<'_>,
    ) -> Result<(), TargetError> {
        let reading =
            |label: &str, source: Error| TargetError::failed(format!("cannot read the schema of {label}"), source);
        let label = self.label.clone();
        let Some(now) = definition(&mut self.b, &altered.name).map_err(|source| reading(&label, source))? else {
            replay.definition(&altered.name, "there is no such table");
            return Ok(());
        };
        if !altered.after.is_empty() && Shape::of(&now) != Shape::of(&altered.after) {
            replay.definition(&altered.name, now);
            return Ok(());
        }
        if altered.links {
            let (now, before) = (Shape::of(&now), Shape::of(&altered.before));
            let found = ddl_links::orphans(self.a()?, &altered.name, &now, &before);
            for (link, count) in found.map_err(|source| reading(&label, source))? {
                let conflict = replay.conflict(&altered.name, None, ConflictKind::ForeignKey);
                let now = format!("{count} of its rows point at nothing by {link}, which comes back");
                replay.conflicts.push(Conflict { now, ..conflict });
            }
        }
        list_filled(self.a()?, altered, replay).map_err(|source| reading(&label, source))?;
        let Some(kept) = &altered.kept else { return Ok(()) };
        if kept.brings()
            && let Some(why) = quiet::why_not(&mut self.b, &altered.name).map_err(|source| reading(&label, source))?
        {
            replay.definition(&altered.name, why);
            return Ok(());
        }
        let holds = self.holds_of(segment);
        // In the act's session: what it has taken back so far may not be committed.
        let a = self.a()?;
        list_changed(a, kept, &holds, replay)
            .and_then(|()| newcomers(a, kept, &holds))
            .and_then(|theirs| {
                list_unfit(a, altered, kept, &holds, theirs, replay)?;
                list_homeless(a, kept, &holds, theirs, replay)
            })
            .map_err(|source| reading(&label, source))
    }

    pub(super) fn undo_alter(
        &mut self,
        segment: &mut Segment,
        altered: &Altered,
        replay: &mut Replay<'_>,
    ) -> Result<(), TargetError> {
        let (names, label, holds) = (self.names.clone(), self.label.clone(), self.holds_of(segment));
        let failed = |source: Error| TargetError::failed(format!("cannot alter {} in {label}", altered.name), source);
        let overwrites = replay.on_conflict == OnConflict::Overwrite;
        // Without kept values nobody can tell whose rows there are.
        let mut theirs = 1;
        marker::holds(&mut self.b, &names, &label, self.epoch)?;
        if let Some(kept) = &altered.kept {
            if kept.brings() {
                self.hold_triggers(&[&altered.name])?;
            }
            self.lock_table(&altered.name, Some((kept, &holds))).map_err(failed)?;
            note_changed(self.a()?, kept, &holds, overwrites).map_err(failed)?;
            let count = self.a()?.number(&format!("SELECT COUNT(*) FROM `{}`", holds.skipped)).map_err(failed)?;
            if count > 0 && replay.on_conflict == OnConflict::Stop {
                // Somebody was faster than the lock.
                list_changed(self.a()?, kept, &holds, replay).map_err(failed)?;
                return self.a()?.run("UNLOCK TABLES").map_err(failed);
            }
            let came = newcomers(self.a()?, kept, &holds).map_err(failed)?;
            if kept.listed() {
                theirs = came;
            }
            if came > 0 && kept.given > 0 {
                let rows = words::count(came, "row");
                let columns = kept.given().collect::<Vec<_>>().join(", ");
                replay.notes.push(format!("{label}: {rows} of others in {} lost what was in {columns}", altered.name));
            }
            let found = replay.conflicts.total;
            if !overwrites {
                list_unfit(self.a()?, altered, kept, &holds, theirs, replay).map_err(failed)?;
            }
            if replay.conflicts.total > found {
                return self.leave_altered(segment, replay);
            }
        }
        segment.come(self.a()?, &names, State::Undoing).map_err(failed)?;
        fault::point(Point::Statement)
            .map_err(|source| TargetError::failed(format!("cannot alter {} in {label}", altered.name), source))?;
        let mut inverse = Vec::from_iter((!altered.inverse.is_empty()).then(|| altered.inverse.clone()));
        if altered.links {
            let now = self.a()?.aside(|a| definition(a, &altered.name)).map_err(failed)?.unwrap_or_default();
            inverse.extend(ddl_links::clauses(&Shape::of(&now), &Shape::of(&altered.before)));
        }
        if !inverse.is_empty() {
            let strict =
                altered.retypes() && theirs > 0 && !(overwrites && altered.kept.as_ref().is_some_and(Kept::listed));
            let mut done = self.alter((&altered.name, &inverse), strict, altered.brings_checks() && theirs > 0)?;
            if theirs == 0 && done.as_ref().is_err_and(is_unfit) {
                // What the alteration made of the rows that were there may fit in no other way.
                done = self.alter((&altered.name, &inverse), false, false)?;
            }
            if let Err(source) = done {
                if is_unfit(&source) && !overwrites {
                    replay.definition(
                        &altered.name,
                        format!("rows of others do not fit its definition of before: {source}"),
                    );
                    return self.leave_altered(segment, replay);
                }
                self.a()?.run("UNLOCK TABLES").map_err(failed)?;
                segment.come(&mut self.b, &names, State::Done).map_err(failed)?;
                if replay.conflicts.is_empty() && !is_unfit(&source) {
                    return Err(failed(source));
                }
                // What others made of it stands in the way, and nothing can take its place.
                replay.definition(&altered.name, source.to_string());
                return Err(TargetError::Conflicts(std::mem::take(&mut replay.conflicts)));
            }
        }
        if altered.links {
            // An index that the server had made for a foreign key goes behind the others when the key comes again.
            let led = self.a()?.aside(|a| ddl_links::lead(a, &altered.name, &altered.before));
            led.map_err(failed)?;
        }
        fault::point(Point::Committed)
            .map_err(|source| TargetError::failed(format!("cannot alter {} in {label}", altered.name), source))?;
        if let Some(kept) = &altered.kept {
            refill(self.a()?, altered, kept, &holds).map_err(failed)?;
        }
        segment.come(self.a()?, &names, State::Undone).map_err(failed)?;
        self.a()?.run("UNLOCK TABLES").map_err(failed)?;
        self.raise_counter(altered)
    }

    /// Alters a table; `strict`: nothing is cut or bounded; `checks`: rules that come back hold for all rows.
    fn alter(
        &mut self,
        (name, clauses): (&str, &[String]),
        strict: bool,
        checks: bool,
    ) -> Result<Result<(), Error>, TargetError> {
        let failed = |source: Error| TargetError::failed("cannot set a session up", source);
        let a = self.a()?;
        if strict {
            a.run("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')").map_err(failed)?;
        }
        if checks {
            a.run("SET SESSION check_constraint_checks = 1").map_err(failed)?;
        }
        let done = patiently(|| ddl_links::alter(a, name, clauses));
        if strict || checks {
            a.stay_neutral().map_err(failed)?;
        }
        Ok(done)
    }

    /// What others made of the table stays, and so does its definition.
    fn leave_altered(&mut self, segment: &mut Segment, replay: &Replay<'_>) -> Result<(), TargetError> {
        let (names, label) = (self.names.clone(), self.label.clone());
        let failed = |source: Error| TargetError::failed(format!("cannot write a segment to {label}"), source);
        self.a()?.run("UNLOCK TABLES").map_err(failed)?;
        let state = if replay.is_stopped() { State::Done } else { State::Undone };
        segment.come(&mut self.b, &names, state).map_err(failed)
    }

    /// Completes an undo that was broken off between the definition and the values.
    fn refill(&mut self, segment: &Segment, altered: &Altered) -> Result<(), TargetError> {
        let holds = self.holds_of(segment);
        if let Some(kept) = &altered.kept {
            if kept.brings() {
                self.hold_triggers(&[&altered.name])?;
            }
            let done = refill(&mut self.b, altered, kept, &holds);
            done.map_err(|source| self.failed("cannot bring values back in", source))?;
        }
        self.raise_counter(altered)
    }

    /// The counter of a column that was away begins anew behind the highest value; one that was set goes back where nobody used it.
    fn raise_counter(&mut self, altered: &Altered) -> Result<(), TargetError> {
        let Some(counter) = altered.counter else { return Ok(()) };
        let now = table::counter(&mut self.b, &altered.name);
        let now = now.map_err(|source| self.failed("cannot read the counters of", source))?;
        let was_set = altered.counter_after.is_some_and(|after| after != counter && now == Some(after));
        if was_set || now.is_some_and(|now| now < counter) {
            let sql = format!("ALTER TABLE {} AUTO_INCREMENT = {counter}", ident(&altered.name));
            patiently(|| self.b.run(&sql)).map_err(|source| self.failed("cannot set a counter back in", source))?;
        }
        Ok(())
    }
}
