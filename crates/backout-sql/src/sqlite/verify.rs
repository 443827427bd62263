//! Compares images with themselves and with the live database. Changes nothing that stays.

use backout_model::conflict::{Conflicts, OnConflict};
use backout_model::fault::{self, Point};
use backout_model::target::{Finding, Images, TargetError};

use super::Sqlite;
use super::ddl;
use super::marker;
use super::numbering::Numbering;
use super::stream::{Event, Reader, StreamError, Way};
use crate::verify;

impl Sqlite {
    pub(super) fn verify_step(&mut self, images: &mut dyn Images, applied: bool) -> Result<Vec<Finding>, TargetError> {
        let captured = |images: &mut dyn Images| {
            let mut reader = Reader::open(images)?;
            reader.check()?;
            Ok::<_, StreamError>(reader.index.way == Way::Captured)
        };
        let label = self.label.clone();
        verify::step(&label, images, applied, captured, |copy| {
            self.check_undo_steps(&mut std::iter::once(copy), OnConflict::Stop)
        })
    }

    pub(super) fn forget_step(&mut self, images: &mut dyn Images) -> Result<(), TargetError> {
        let reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        let held: Vec<_> = reader
            .index
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Ddl { event, .. } => Some(event),
                Event::Rows { .. } => None,
            })
            .collect();
        if held.is_empty() {
            return Ok(());
        }
        let mut next = self.next_hold()?;
        super::in_transaction(&self.conn, &self.label, |conn| {
            marker::holds(conn, &self.marker, &self.label, self.epoch)?;
            fault::point(Point::Statement).map_err(|source| {
                TargetError::failed(format!("cannot give up what is held in {}", self.label), source)
            })?;
            let mut context = ddl::Context {
                conn,
                prefix: &self.prefix,
                target: &self.label,
                foreign_keys: false,
                next_hold: &mut next,
                already: Conflicts::default(),
                needed: Conflicts::default(),
                stays: false,
            };
            let mut numbering = Numbering::read(conn, &self.marker, &self.label)?;
            held.iter().try_for_each(|event| ddl::forget(&mut context, event))?;
            marker::note(conn, &self.marker, &self.label, &numbering.text(conn, &self.label, true)?)
        })
    }
}
