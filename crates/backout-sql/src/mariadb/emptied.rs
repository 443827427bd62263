//! What the server empties at once, emptied row by row: a table on which foreign keys or triggers hang, so that no empty twin
//! can take its place, and partitions. The rows are a segment like any other, and go back like any others.
//!
//! As in the server's own way no trigger of the application acts on them, and nothing follows them by foreign keys.

use std::collections::BTreeSet;

use backout_model::target::{Gate, TargetError};
use mysql::Error;

use super::Mariadb;
use super::apply::{Chain, cannot_run, run_plainly, unarmed};
use super::capture::{self, Capture, patiently};
use super::classify::No;
use super::ddl::{Change, definition};
use super::ddl_hung;
use super::ddl_shape::{Shape, clauses};
use super::head::{Head, Object, Verb};
use super::quiet;
use super::reader::reader;
use super::segment::{Detail, Held, Segment};
use super::session::{Session, ident, literal};
use super::split::Statement;
use super::table::{self, There};
use super::token::each_token;
use super::written;

/// What a statement empties.
pub(super) struct Emptying {
    pub table: String,
    /// Only these; all rows where there are none.
    pub partitions: Vec<String>,
    /// The statement does nothing else.
    pub alone: bool,
}

impl Emptying {
    /// The table, or these partitions of it, as FROM takes it.
    fn place(&self) -> String {
        from(&self.table, &self.partitions)
    }

    /// What takes it back, in words.
    pub fn words(&self) -> String {
        let rest = if self.alone { "" } else { ", and its definition" };
        format!("puts back each row that goes from {}{rest}", self.table)
    }
}

fn from(table: &str, partitions: &[String]) -> String {
    if partitions.is_empty() {
        return ident(table);
    }
    let names: Vec<String> = partitions.iter().map(|name| ident(name)).collect();
    format!("{} PARTITION ({})", ident(table), names.join(", "))
}

/// The partitions whose rows an ALTER TABLE drops, or takes out where the first is true; no names where it is all of them.
pub fn lost(sql: &str, rest: usize) -> Option<(bool, Vec<String>)> {
    let mut words = reader(&sql[rest..]);
    let drops = words.takes("DROP PARTITION");
    if !drops && !words.takes("TRUNCATE PARTITION") {
        return None;
    }
    words.takes("IF EXISTS");
    if !drops && words.takes("ALL") {
        return words.ends().then_some((true, Vec::new()));
    }
    let names = words.names()?.into_iter().map(|name| name.name).collect();
    words.ends().then_some((!drops, names))
}

/// Those of these partitions that a table has, by the names that the server has for them.
pub fn partitions(b: &mut Session, table: &str, named: &[String]) -> Result<Vec<String>, Error> {
    let rows = b.rows(&format!(
        "SELECT DISTINCT PARTITION_NAME FROM information_schema.PARTITIONS
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} AND PARTITION_NAME IS NOT NULL",
        literal(table)
    ))?;
    let all = rows.into_iter().filter_map(|mut row| row[0].take());
    Ok(all.filter(|one| named.iter().any(|name| name.eq_ignore_ascii_case(one))).collect())
}

/// A value that a REORGANIZE leaves no partition for: the server would drop its rows without a word. `from`, `to`: the options
/// of the table.
pub fn unlisted(sql: &str, from: &str, to: &str) -> Option<String> {
    if !each_token(sql).any(|token| token.is("REORGANIZE")) {
        return None;
    }
    // One that takes all others gets none of the rows, where it is not among those that are cut anew.
    listed(from).difference(&listed(to)).next().cloned()
}

/// The values that the partitions of a list take, as the server writes them; `DEFAULT`: all others.
fn listed(options: &str) -> BTreeSet<String> {
    let mut words = reader(options);
    let mut all = BTreeSet::new();
    while words.peek().is_some() {
        if words.takes("PARTITION") {
            words.next();
            if words.takes("DEFAULT") {
                all.insert("DEFAULT".to_owned());
            }
        } else if words.takes("VALUES IN") {
            words.next();
            let (mut depth, mut value) = (0_u32, String::new());
            for token in words.by_ref() {
                let ends = depth == 0 && token.is_sign(b')');
                if ends || depth == 0 && token.is_sign(b',') {
                    all.insert(std::mem::take(&mut value));
                } else {
                    value += token.text;
                }
                if ends {
                    break;
                }
                depth = depth + u32::from(token.is_sign(b'(')) - u32::from(token.is_sign(b')'));
            }
        } else {
            words.next();
        }
    }
    all
}

/// True where one of these partitions has a row.
pub fn has_rows(a: &mut Session, table: &str, partitions: &[String]) -> Result<bool, Error> {
    Ok(a.value(&format!("SELECT 1 FROM {} LIMIT 1", from(table, partitions)))?.is_some())
}

impl Mariadb {
    /// What a bare statement empties that has to be emptied row by row; none where it is another one.
    pub(super) fn emptying(&mut self, sql: &str, head: &Head) -> Result<Option<Emptying>, TargetError> {
        let here = |one: &Option<String>| one.as_ref().is_none_or(|one| *one == self.database);
        let Some(name) = head.names.first().filter(|name| here(&name.database)) else { return Ok(None) };
        let table = name.name.clone();
        let found = match (head.verb, head.object) {
            (Verb::Truncate, _) => self
                .hangs_on(&table)
                .map(|hangs| hangs.then(|| Emptying { table: table.clone(), partitions: Vec::new(), alone: true })),
            (Verb::Alter, Object::Table) => match lost(sql, head.rest) {
                Some((alone, named)) => partitions(&mut self.b, &table, &named).map(|partitions| {
                    // The server says of one that is not there that it is not.
                    let all = partitions.len() == named.len() && alone;
                    let some = !partitions.is_empty() && !alone;
                    (all || some).then_some(Emptying { table, partitions, alone })
                }),
                None => Ok(None),
            },
            _ => Ok(None),
        };
        found.map_err(|source| self.reading(source))
    }

    /// True where foreign keys or triggers hang on a table, so that it cannot change places with another one.
    fn hangs_on(&mut self, name: &str) -> Result<bool, Error> {
        if !matches!(table::there(&mut self.b, name)?, There::Table(_)) {
            return Ok(false);
        }
        let links = table::foreign_keys(&mut self.b)?;
        Ok(links.iter().any(|link| link.parent == name || link.child == name)
            || !table::triggers(&mut self.b, name)?.is_empty())
    }

    /// Where partitions go again, into which others may have written: what leaves their rows in the ones that stay, or fails.
    pub(super) fn without_loss(&mut self, segment: &Segment, name: &str) -> Result<Option<String>, TargetError> {
        let Detail::Ddl { change, .. } = &segment.detail else { return Ok(None) };
        let Change::Altered(was) = &**change else { return Ok(None) };
        if was.gone.is_empty() {
            return Ok(None);
        }
        let found = definition(&mut self.b, name).and_then(|now| Ok((now, table::counter(&mut self.b, name)?)));
        let (now, counter) = found.map_err(|source| self.failed("cannot read the schema of", source))?;
        let (now, before) = (Shape::of(&now.unwrap_or_default()), Shape::of(&was.before));
        if now.parts != before.parts {
            let why = format!("others changed since how it is partitioned: {} then, {} now", before.parts, now.parts);
            return Err(TargetError::failed(format!("cannot do {} again", was.name), why));
        }
        // All else stays as it is now.
        let again = Shape { parts: Shape::of(&was.after).parts, ..now.clone() };
        let counter = was.counter_after.filter(|_| counter == was.counter);
        let mut all = Vec::from_iter(counter.map(|counter| format!("AUTO_INCREMENT = {counter}")));
        all.extend(clauses(&now, &again, &[]));
        Ok(Some(format!("ALTER TABLE {} {}", ident(name), all.join(", "))))
    }

    /// Sets a counter back that an emptied table begins anew with; no rows of others are in its way, or it stays above them.
    fn begin_counter_anew(&mut self, segment: &mut Segment, name: &str, wanted: u64) -> Result<(), TargetError> {
        let names = self.names.clone();
        let failed = |label: &str, source| TargetError::failed(format!("cannot set a counter back in {label}"), source);
        let sql = format!("ALTER TABLE {} AUTO_INCREMENT = {wanted}", ident(name));
        patiently(|| self.b.run(&sql)).map_err(|source| failed(&self.label, source))?;
        let now = table::counter(&mut self.b, name).map_err(|source| failed(&self.label, source))?;
        let Some(held) = segment.held_mut(name) else { return Ok(()) };
        if let (Some((_, after)), Some(now)) = (&mut held.counter, now)
            && *after != now
        {
            *after = now;
            let state = segment.state;
            segment.come_with_detail(&mut self.b, &names, state).map_err(|source| failed(&self.label, source))?;
        }
        Ok(())
    }
}

impl Chain<'_> {
    /// Empties a table, or partitions of it, as a segment of rows.
    pub(super) fn emptied(
        &mut self,
        statement: &Statement,
        place: &str,
        emptying: &Emptying,
        gate: &mut dyn Gate,
    ) -> Result<(), TargetError> {
        let done = self.empty(statement, place, emptying, gate);
        if done.is_err() {
            self.give_up(true);
        }
        let released = self.database.let_triggers_go();
        done.and(released)
    }

    fn empty(
        &mut self,
        statement: &Statement,
        place: &str,
        emptying: &Emptying,
        gate: &mut dyn Gate,
    ) -> Result<(), TargetError> {
        let (table, step, number) = (&emptying.table, self.step, self.number);
        let itself = self.may_be_emptied(statement, place, emptying)?;
        self.database.hold_triggers(&[table])?;
        let database = &mut *self.database;
        let plan = written::alone(&mut database.b, table, emptying.partitions.is_empty());
        let armed = plan.and_then(|plan| Capture::arm(&mut database.b, &database.names, (step, number), plan, None));
        let mut capture = armed.map_err(|error| unarmed(&database.label, place, statement, error))?;
        database.begin()?;
        let label = database.label.clone();
        let failed = |source| capture::uncaptured(&label, source);
        let a = database.a()?;
        capture.begin(a).and_then(|()| quiet::be_quiet(a)).map_err(failed)?;
        a.neutral().map_err(failed)?;
        if !self.unchecked && !itself {
            // Where another database points here unseen, it is for the server to say.
            a.run("SET foreign_key_checks = 1").map_err(failed)?;
        }
        run_plainly(a, place, &format!("DELETE FROM {}", emptying.place()))?;
        let first = first_number(a, table).map_err(failed)?;
        a.restore().and_then(|()| quiet::be_heard(a)).map_err(failed)?;
        let mut held = self.net(&mut capture)?;
        let anew = first.filter(|_| emptying.alone).and_then(|first| Some((capture.counter(table)?, first)));
        if let Some((before, first)) = anew.filter(|(before, first)| before != first) {
            match held.iter_mut().find(|one| one.table.name == *table) {
                Some(one) => one.counter = Some((before, first)),
                None => held.extend(capture.untouched(table, (before, first))),
            }
        }
        let segment = self.commit_rows(held, Vec::new(), false, gate)?;
        let held: Vec<Held> = segment.iter().flat_map(|segment| segment.held().to_vec()).collect();
        self.disarm(&capture, &held)?;
        match (segment, held.iter().find_map(|one| one.counter)) {
            (Some(mut segment), Some((_, first))) => self.database.begin_counter_anew(&mut segment, table, first),
            _ => Ok(()),
        }
    }

    /// Refuses as the server does, where foreign keys of others are checked that point there. Whether one points from it to
    /// itself.
    fn may_be_emptied(&mut self, statement: &Statement, place: &str, emptying: &Emptying) -> Result<bool, TargetError> {
        let database = &mut *self.database;
        let name = &emptying.table;
        let checks = database.a()?.value("SELECT @@foreign_key_checks");
        self.unchecked = checks.map_err(|source| database.reading(source))?.as_deref() == Some("0");
        let links = table::foreign_keys(&mut database.b).map_err(|source| database.reading(source))?;
        let other = links.iter().find(|link| link.parent == *name && link.child != *name);
        if let Some(link) = other.filter(|_| !self.unchecked) {
            let why = format!("the foreign key {} of {} points at {name}", link.name, link.child);
            return Err(cannot_run(place, &statement.sql, why));
        }
        let change = Change::Swapped { name: name.clone(), before: String::new(), after: String::new() };
        if let Some(why) = ddl_hung::why_not(&mut database.b, &change).map_err(|source| database.reading(source))? {
            return Err(No::undo(why).at(place, &statement.sql).refusal.into());
        }
        Ok(links.iter().any(|link| link.parent == *name && link.child == *name))
    }
}

/// The number that a counter begins anew with, behind the rows that are left; none where the table has no counter.
fn first_number(a: &mut Session, table: &str) -> Result<Option<u64>, Error> {
    let column = a.value(&format!(
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}
         AND EXTRA LIKE '%auto\\_increment%'",
        literal(table)
    ))?;
    let Some(column) = column else { return Ok(None) };
    let sql =
        format!("SELECT CAST(GREATEST(IFNULL(MAX({}), 0), 0) + 1 AS UNSIGNED) FROM {}", ident(&column), ident(table));
    a.number(&sql).map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::head::head;
    use super::*;

    #[test]
    fn values_that_no_partition_takes_any_more_are_told() {
        let options =
            |parts: &str| format!("ENGINE=InnoDB COMMENT='VALUES IN (9)'  PARTITION BY LIST (`id`) ({parts})");
        let of = |from: &str, to: &str| {
            unlisted("ALTER TABLE t REORGANIZE PARTITION a INTO (…)", &options(from), &options(to))
        };
        let one =
            "PARTITION `a` VALUES IN (1,(2,'x,y')) ENGINE = InnoDB, PARTITION `b` VALUES IN (NULL) ENGINE = InnoDB";
        assert_eq!(of(one, one), None);
        assert_eq!(of(one, "PARTITION `a` VALUES IN (NULL,3,1)"), Some("(2,'x,y')".to_owned()));
        let other = format!("{one}, PARTITION `c` DEFAULT ENGINE = InnoDB");
        assert_eq!((of(one, &other), of(&other, &other)), (None, None));
        assert_eq!(of(&other, "PARTITION `a` VALUES IN (1), PARTITION `c` DEFAULT"), Some("(2,'x,y')".to_owned()));
        assert_eq!(of("PARTITION `c` DEFAULT", one), Some("DEFAULT".to_owned()));
        assert_eq!(unlisted("ALTER TABLE t DROP PARTITION a", &options(one), &options("")), None);
    }

    #[test]
    fn partitions_that_lose_their_rows_are_told() {
        for (sql, found) in [
            ("ALTER TABLE t DROP PARTITION p0, `P 1`", Some((false, "p0 P 1"))),
            ("ALTER TABLE t DROP PARTITION IF EXISTS p0", Some((false, "p0"))),
            ("ALTER TABLE t TRUNCATE PARTITION p0", Some((true, "p0"))),
            ("ALTER TABLE t TRUNCATE PARTITION ALL", Some((true, ""))),
            ("ALTER TABLE t ADD PARTITION (PARTITION p0 VALUES IN (1))", None),
            ("ALTER TABLE t DROP COLUMN a", None),
        ] {
            let lost = lost(sql, head(sql).unwrap().rest);
            let shown = lost.map(|(alone, names)| (alone, names.join(" ")));
            assert_eq!(shown.as_ref().map(|(alone, names)| (*alone, names.as_str())), found, "{sql}");
        }
    }
}
