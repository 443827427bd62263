//! Compares images with themselves and with the live database. Changes nothing that stays.

use backout_model::conflict::OnConflict;
use backout_model::fault::{self, Point};
use backout_model::target::{Finding, Images, TargetError};

use super::Postgres;
use super::marker;
use super::session::ident;
use super::stream::{Event, Reader, StreamError, Way};
use crate::verify;

impl Postgres {
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
        let mut held: Vec<String> = Vec::new();
        for event in &reader.index.events {
            if let Event::Ddl { event, .. } = event {
                held.extend(event.holds().map(str::to_owned));
            }
        }
        if held.is_empty() {
            return Ok(());
        }
        self.ready()?;
        let done = self.forget_held(&held);
        self.after_step();
        done
    }

    fn forget_held(&mut self, held: &[String]) -> Result<(), TargetError> {
        let label = self.label.clone();
        let act = format!("cannot give up what is held in {label}");
        self.begin()?;
        marker::holds(&mut self.a, self.place.as_ref(), &label, self.epoch)?;
        fault::point(Point::Statement).map_err(|source| TargetError::failed(act.clone(), source))?;
        let names: Vec<String> = held.iter().map(|hold| ident(hold)).collect();
        self.a
            .run(&format!("DROP SCHEMA IF EXISTS {} CASCADE; COMMIT", names.join(", ")))
            .map_err(|source| TargetError::failed(act, source))
    }
}
