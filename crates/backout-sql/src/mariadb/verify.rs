//! Compares images and holds with the live database. Changes nothing that stays.

use backout_model::conflict::OnConflict;
use backout_model::target::{Finding, Images, TargetError};

use super::Mariadb;
use super::stream::{Kept, Reader, StreamError, Way};
use crate::verify;

impl Mariadb {
    pub(super) fn verify_step(&mut self, images: &mut dyn Images, applied: bool) -> Result<Vec<Finding>, TargetError> {
        let captured = |images: &mut dyn Images| {
            let mut reader = Reader::open(images)?;
            reader.statements::<StreamError>(false, &mut |Kept { .. }| Ok(()))?;
            Ok::<_, StreamError>(reader.index.way == Way::Captured)
        };
        let label = self.label.clone();
        verify::step(&label, images, applied, captured, |copy| {
            self.check_undo_steps(&mut std::iter::once(copy), OnConflict::Stop)
        })
    }

    pub(super) fn forget_step(&mut self, images: &mut dyn Images) -> Result<(), TargetError> {
        let step = Reader::open(images).map_err(|source| self.damaged(source))?.index.step;
        self.ready()?;
        let label = self.label.clone();
        super::marker::holds(&mut self.b, &self.names, &label, self.epoch)?;
        let done = self.drop_step(step);
        self.after_step();
        done.map_err(|source| self.failed("cannot give up what is held in", source))
    }
}
