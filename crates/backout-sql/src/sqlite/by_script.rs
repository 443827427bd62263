//! Scripts that are not captured: what the images hold of them, and of the undo script that goes with each.

use backout_model::fault::{self, Point};
use backout_model::target::TargetError;
use rusqlite::Connection;

use super::apply::{self, cannot_run};
use super::stream::{Block, Reader, Record};
use super::watch::Watch;

/// Hands on the statements that the images hold of a script that was not captured: its own, or those of its undo script.
pub fn each_kept(
    label: &str,
    reader: &mut Reader<'_>,
    wanted: bool,
    each: &mut dyn FnMut(u32, &str) -> Result<(), TargetError>,
) -> Result<(), TargetError> {
    let damaged =
        |source: super::stream::StreamError| TargetError::Images { target: label.to_owned(), what: source.to_string() };
    let mut block = Block::default();
    let (mut at, end) = reader.extent();
    while at < end {
        let head = reader.head(at).map_err(damaged)?;
        reader.block(&head, &mut block).map_err(damaged)?;
        for number in 0..block.len() {
            match block.record(number).map_err(|source| damaged(source.into()))? {
                Record::Statement { line, sql, undo, .. } if undo == wanted => each(line, sql)?,
                _ => {}
            }
        }
        at = head.end();
    }
    Ok(())
}

/// Runs a statement of a script that is not captured.
pub fn run_kept(conn: &Connection, watch: &Watch, place: &str, sql: &str) -> Result<(), TargetError> {
    fault::point(Point::Statement).map_err(|source| cannot_run(place, sql, source))?;
    watch.over(|| apply::execute(conn, sql)).map_err(|source| cannot_run(place, sql, source))
}
