//! What steps that failed drew from sequences: no transaction takes that back, and it is nobody else's use of them.
//!
//! The server tells a session the last number that it drew and nobody who drew those before it. So only one that was drawn alone
//! is known for the step's own; several count as others' use. Known to the process alone that ran them: with a session that
//! died went what it drew.

use std::collections::BTreeMap;

use super::counters::{self, Positions};
use super::session::Session;
use super::stream::{Position, Sequence};

/// Where such a step found a sequence and where it left it, by the sequence's number.
#[derive(Debug, Default)]
pub struct FailedDraws(BTreeMap<u32, (Position, Position)>);

impl FailedDraws {
    /// A step failed that began `before`: ends its transaction and asks the session what it drew, which it must not have
    /// forgotten yet. Never fails for it: what cannot be asked counts as others'.
    pub fn learn(&mut self, a: &mut Session, before: &Positions) {
        drop(self.ask(a, before));
    }

    fn ask(&mut self, a: &mut Session, before: &Positions) -> Result<(), postgres::Error> {
        a.roll_back()?;
        a.client.went_back();
        a.stay_neutral()?;
        for (name, (oid, now)) in counters::positions(a, "")? {
            let found = before.get(&name).filter(|(known, at)| *known == oid && *at != now).map(|(_, at)| *at);
            let Some(found) = found.filter(|_| now.called) else { continue };
            // The session knows the last number that it drew, and the server where it cached the next ones: nobody drew since.
            // It began to draw in this step; so where no more was drawn than at one time, nobody else drew.
            let is_own = a.value(&format!(
                "SELECT ({now}::numeric - currval({oid}::regclass)) / seqincrement BETWEEN 0 AND seqcache - 1
                     AND {now}::numeric - {found} = seqincrement::numeric * (seqcache - {uncalled})
                 FROM pg_sequence WHERE seqrelid = {oid}",
                now = now.value,
                found = found.value,
                uncalled = i32::from(!found.called),
            ));
            // An error: it drew nothing.
            if !matches!(is_own, Ok(Some(is_own)) if is_own == "t") {
                continue;
            }
            let first = self.0.get(&oid).filter(|(_, left)| *left == found).map_or(found, |(first, _)| *first);
            self.0.insert(oid, (first, now));
        }
        Ok(())
    }

    /// The sequences of a step, each left where failed steps left it after it, if nobody used it since: `now` they stand.
    pub fn beyond(&self, now: &Positions, sequences: &[Sequence]) -> Vec<Sequence> {
        let beyond = |one: &Sequence| {
            let (oid, now) = now.get(&(one.schema.clone(), one.name.clone()))?;
            let (found, left) = self.0.get(oid)?;
            (left == now && (*found == one.after || *found == one.before)).then_some(*now)
        };
        let left = |one: &Sequence| Sequence { after: beyond(one).unwrap_or(one.after), ..one.clone() };
        sequences.iter().map(left).collect()
    }
}
