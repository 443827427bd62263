//! Counters of AUTO_INCREMENT: no transaction takes them back, so they are set where nobody used them since.
//!
//! Setting one is a change of the table's definition, which commits: it comes behind the rows.

use backout_model::target::TargetError;
use mysql::Error;

use super::Mariadb;
use super::capture::patiently;
use super::segment::{Detail, Held, Segment, State};
use super::sequence;
use super::session::{Session, ident, literal};
use super::table;

/// A table with where its counter stood before and after.
pub type Moved = (String, (u64, u64));

/// How a table that goes with a segment under way notes where another's counter stood: numbers that a transaction drew
/// which then did not commit are not given back by the server.
pub fn noted(name: &str, counter: u64) -> String {
    format!(" COMMENT = {}", literal(&format!("counter {counter} of {name}")))
}

impl Mariadb {
    /// Notes counters before a redo whose rows will move them.
    pub(super) fn note_counters(&mut self, segment: &Segment, began: &[(u32, u64)]) -> Result<(), TargetError> {
        for held in segment.held() {
            let Some((_, was)) = began.iter().find(|(at, _)| *at == held.at) else { continue };
            let note = segment.object(&self.names, &format!("{}l", held.at));
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {} (x int) ENGINE=InnoDB{}",
                ident(&note),
                noted(&held.table.name, *was)
            );
            self.b.run(&sql).map_err(|source| self.failed("cannot note the counters of", source))?;
        }
        Ok(())
    }

    /// Sets a counter back that was noted by a table, where the rows allow it; the server sees to that.
    pub(super) fn put_noted_back(&mut self, note: &str) -> Result<(), Error> {
        let sql = format!(
            "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}",
            literal(note)
        );
        let text = self.b.value(&sql)?.unwrap_or_default();
        let Some((was, name)) = text.strip_prefix("counter ").and_then(|text| text.split_once(" of ")) else {
            return Ok(());
        };
        let now = table::counter(&mut self.b, name)?;
        match was.parse::<u64>() {
            Ok(was) if now.is_some_and(|now| now > was) => {
                let sql = format!("ALTER TABLE {} AUTO_INCREMENT = {was}", ident(name));
                patiently(|| self.b.run(&sql))
            }
            _ => Ok(()),
        }
    }

    /// Sets counters back that nobody used since.
    pub(super) fn put_counters_back(
        &mut self,
        counters: &[(String, (u64, u64))],
        notes: &mut Vec<String>,
    ) -> Result<(), TargetError> {
        for (name, (before, after)) in counters {
            let now = table::counter(&mut self.b, name)
                .map_err(|source| self.failed("cannot read the counters of", source))?;
            match now {
                Some(now) if now == *after => {
                    let sql = format!("ALTER TABLE {} AUTO_INCREMENT = {before}", ident(name));
                    patiently(|| self.b.run(&sql))
                        .map_err(|source| self.failed("cannot set a counter back in", source))?;
                }
                Some(now) if now != *before => {
                    notes.push(format!("{}: the counter of {name} was used since and stays at {now}", self.label));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where the counters of a segment's tables stood, or stand behind its own last number: a table that the server opens anew
    /// gives out again what was only set aside, and what of that others had it would not.
    pub(super) fn counters_left(&mut self, segment: &Segment) -> Result<Vec<Moved>, TargetError> {
        let mut all = Vec::new();
        for held in segment.held() {
            let Some((before, after)) = held.counter else { continue };
            let name = &held.table.name;
            let hold = segment.object(&self.names, &format!("{}a", held.at));
            let left = table::counter(&mut self.b, name).and_then(|now| match now {
                Some(now) if before < now && now < after => {
                    Ok((now == last_number(&mut self.b, held, &hold)? + 1).then_some(now))
                }
                _ => Ok(None),
            });
            let left = left.map_err(|source| self.failed("cannot read the counters of", source))?;
            all.push((name.clone(), (before, left.unwrap_or(after))));
        }
        Ok(all)
    }

    /// Counters that segments set down, as emptying a table does, go back before their rows: those would move them. The way
    /// down again of each that went.
    pub(super) fn raise_counters(&mut self, segments: &[Segment]) -> Result<Vec<Moved>, TargetError> {
        let mut raised = Vec::new();
        for (name, (before, after)) in segments.iter().flat_map(counters_of).filter(|(_, (was, is))| is < was) {
            let now = table::counter(&mut self.b, &name);
            if now.map_err(|source| self.failed("cannot read the counters of", source))? == Some(after) {
                self.put_counters_back(&[(name.clone(), (before, after))], &mut Vec::new())?;
                raised.push((name, (after, before)));
            }
        }
        Ok(raised)
    }

    /// Where counters stand that the undo of segments would raise, for [`Mariadb::put_counters_to`].
    pub(super) fn counters_below(&mut self, segments: &[Segment]) -> Result<Vec<(String, u64)>, TargetError> {
        let mut all = Vec::new();
        for (name, _) in segments.iter().flat_map(counters_of).filter(|(_, (was, is))| is < was) {
            let now = table::counter(&mut self.b, &name);
            all.extend(
                now.map_err(|source| self.failed("cannot read the counters of", source))?.map(|now| (name, now)),
            );
        }
        Ok(all)
    }

    /// After rows that were rolled back: the numbers that they had are free again.
    pub(super) fn put_counters_to(&mut self, counters: &[(String, u64)]) -> Result<(), TargetError> {
        for (name, was) in counters {
            let done = table::counter(&mut self.b, name).and_then(|now| match now {
                Some(now) if now > *was => {
                    let sql = format!("ALTER TABLE {} AUTO_INCREMENT = {was}", ident(name));
                    patiently(|| self.b.run(&sql))
                }
                _ => Ok(()),
            });
            done.map_err(|source| self.failed("cannot set a counter back in", source))?;
        }
        Ok(())
    }

    /// In words, the sequences that segments which were taken back drew from, and did nothing else to.
    pub(super) fn still_drawn(&mut self, segments: &[Segment]) -> Result<Vec<String>, TargetError> {
        let (mut drawn, mut changed): (Vec<&(String, String)>, Vec<&str>) = Default::default();
        for segment in segments {
            match &segment.detail {
                Detail::Rows { drawn: own, .. } => drawn.extend(own),
                Detail::Ddl { change, .. } => changed.extend(change.names()),
                Detail::Script => {}
            }
        }
        drawn.retain(|(name, _)| !changed.contains(&name.as_str()));
        if drawn.is_empty() {
            return Ok(Vec::new());
        }
        let now = sequence::all(&mut self.b).map_err(|source| self.reading(source))?;
        let stay = |(name, _): &(String, String)| {
            format!("{}: numbers that were drawn from the sequence {name} stay drawn", self.label)
        };
        Ok(now.iter().filter(|(name, _)| drawn.iter().any(|(one, _)| one == name)).map(stay).collect())
    }

    /// Before a redo brings back rows with numbers of sequences: these are not given out again.
    fn draw_again(&mut self, segment: &Segment) -> Result<(), TargetError> {
        let Detail::Rows { drawn, .. } = &segment.detail else { return Ok(()) };
        for (name, state) in drawn {
            let done = sequence::reach(&mut self.b, name, state);
            done.map_err(|source| self.failed("cannot move a sequence in", source))?;
        }
        Ok(())
    }

    /// The counters of the tables whose rows a segment is about to change again; sequences move as they did.
    pub(super) fn counters_now(&mut self, segment: &Segment) -> Result<Vec<(u32, u64)>, TargetError> {
        self.draw_again(segment)?;
        let mut all = Vec::new();
        for held in segment.held() {
            let now = table::counter(&mut self.b, &held.table.name);
            let now = now.map_err(|source| self.failed("cannot read the counters of", source))?;
            all.extend(now.map(|now| (held.at, now)));
        }
        Ok(all)
    }

    /// After a redo: rows that the tool inserted have moved counters, which are to stand where the script left them.
    pub(super) fn put_counters_forward(
        &mut self,
        segment: &mut Segment,
        began: &[(u32, u64)],
    ) -> Result<(), TargetError> {
        let (names, label) = (self.names.clone(), self.label.clone());
        let failed = |source| TargetError::failed(format!("cannot set a counter in {label}"), source);
        let Detail::Rows { tables, .. } = &mut segment.detail else { return Ok(()) };
        for held in tables {
            let Some((_, was)) = began.iter().find(|(at, _)| *at == held.at) else { continue };
            let name = &held.table.name;
            let wanted = held.counter.filter(|(before, _)| before == was).map_or(*was, |(_, after)| after);
            if table::counter(&mut self.b, name).map_err(failed)? != Some(wanted) {
                let sql = format!("ALTER TABLE {} AUTO_INCREMENT = {wanted}", ident(name));
                patiently(|| self.b.run(&sql)).map_err(failed)?;
            }
            let now = table::counter(&mut self.b, name).map_err(failed)?.unwrap_or(wanted);
            held.counter = (*was != now).then_some((*was, now));
        }
        segment.come_with_detail(&mut self.b, &names, State::Done).map_err(failed)
    }
}

/// The highest number that a segment left in the column that the server numbers; 0 where that is not known.
fn last_number(b: &mut Session, held: &Held, hold: &str) -> Result<u64, Error> {
    if held.table.is_loose() || held.after == 0 {
        return Ok(0);
    }
    let column = b.value(&format!(
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} AND EXTRA LIKE '%auto_increment%'",
        literal(&held.table.name)
    ))?;
    match held.table.columns.iter().position(|one| Some(&one.name) == column.as_ref()) {
        Some(at) => b.number(&format!("SELECT MAX(c{at}) FROM {}", ident(hold))),
        None => Ok(0),
    }
}

/// Where the counters of a segment's tables stood.
pub fn counters_of(segment: &Segment) -> Vec<Moved> {
    segment.held().iter().filter_map(|held| Some((held.table.name.clone(), held.counter?))).collect()
}
