//! Changes of the schema.

use backout_model::target::{Gate, TargetError};
use serde::{Deserialize, Serialize};

use super::Mariadb;
use super::apply::Chain;
use super::classify::No;
use super::head::Head;
use super::replay::Replay;
use super::segment::Segment;
use super::split::Statement;
use super::undo::Act;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Change {
    Nothing,
}

impl Change {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }
    pub fn words(&self) -> String {
        String::new()
    }
}

impl Chain<'_> {
    pub(super) fn schema_change(
        &mut self,
        statement: &Statement,
        place: &str,
        _head: &Head,
        _gate: &mut dyn Gate,
    ) -> Result<(), TargetError> {
        Err(No::undo("not yet").at(place, &statement.sql).refusal.into())
    }
}

impl Mariadb {
    pub(super) fn settle_change(&mut self, _segment: &mut Segment) -> Result<(), TargetError> {
        Ok(())
    }
    pub(super) fn replay_change(&mut self, _segment: &mut Segment, _act: &mut Act<'_, '_>) -> Result<(), TargetError> {
        Ok(())
    }
    pub(super) fn look_at_change(
        &mut self,
        _segment: &Segment,
        _change: &Change,
        _replay: &mut Replay<'_>,
    ) -> Result<(), TargetError> {
        Ok(())
    }
}
