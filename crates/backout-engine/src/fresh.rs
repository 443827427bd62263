//! A site that nothing was ever deployed to: what is refused there leaves no trace, neither a state directory nor a
//! marker in a database. So the question is answered before a session makes them. Changes nothing.

use backout_journal::Reader;
use backout_package::package::Package;
use backout_package::site::Site;

use crate::error::EngineError;
use crate::lookup::{find, split, top};
use crate::marks::{AHEAD_HINT, ahead};
use crate::session::Targets;

/// True where the journal has no entry and nobody is at work. An error where a database knows better: then the journal
/// is lost.
pub fn is_fresh(targets: &mut Targets, reader: &Reader) -> Result<bool, EngineError> {
    if reader.last_seq()? > 0 || reader.holder().is_some() {
        return Ok(false);
    }
    match ahead(targets, 0)?.into_iter().next() {
        Some(finding) => Err(EngineError::not_now(format!("{}: {}", finding.target, finding.what), AHEAD_HINT)),
        None => Ok(true),
    }
}

/// Whether there is what `undo` is asked to undo.
pub fn undo(reader: &Reader, what: Option<&str>) -> Result<(), EngineError> {
    crate::undo::chosen(reader, what).map(drop)
}

/// Whether there is anything to redo.
pub fn redo(reader: &Reader) -> Result<(), EngineError> {
    top(reader).map(drop)
}

/// Whether there is the deployment that `retry` names.
pub fn retry(reader: &Reader, what: &str) -> Result<(), EngineError> {
    find(reader, split(what).0).map(drop)
}

/// Whether the package may be deployed, as far as that is known beforehand.
pub fn deploy(
    site: &Site,
    targets: &mut Targets,
    reader: &Reader,
    package: &Package,
    accept_irreversible: bool,
) -> Result<(), EngineError> {
    crate::deploy::requirements(reader, package)?;
    crate::deploy::plannable(site, targets, package, accept_irreversible)
}
