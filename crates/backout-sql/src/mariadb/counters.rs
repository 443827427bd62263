//! Counters of AUTO_INCREMENT: no transaction takes them back, so they are set where nobody used them since.
//!
//! Setting one is a change of the table's definition, which commits: it comes behind the rows.

use backout_model::target::TargetError;

use super::Mariadb;
use super::capture::patiently;
use super::segment::{Detail, Segment, State};
use super::session::ident;
use super::table;

impl Mariadb {
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

    /// The counters of the tables whose rows a segment changes.
    pub(super) fn counters_now(&mut self, segment: &Segment) -> Result<Vec<(u32, u64)>, TargetError> {
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
        let Detail::Rows { tables } = &mut segment.detail else { return Ok(()) };
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

/// Where the counters of a segment's tables stood.
pub fn counters_of(segment: &Segment) -> Vec<(String, (u64, u64))> {
    segment.held().iter().filter_map(|held| Some((held.table.name.clone(), held.counter?))).collect()
}
