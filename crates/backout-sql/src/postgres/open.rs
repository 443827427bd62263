//! Opens sessions of the tool's own.

use backout_model::target::TargetError;

use super::conn::Route;
use super::session::Session;

/// A session under the tool's own settings.
pub(super) fn session(route: &Route, label: &str) -> Result<Session, TargetError> {
    set_up(client(route, label)?, label)
}

/// A connection as the server gives it.
pub(super) fn client(route: &Route, label: &str) -> Result<postgres::Client, TargetError> {
    route.connect().map_err(|source| TargetError::failed(format!("cannot connect to {label}"), source))
}

/// Puts the tool's own settings in force.
pub(super) fn set_up(client: postgres::Client, label: &str) -> Result<Session, TargetError> {
    let ready = |client| -> Result<Session, postgres::Error> {
        let mut session = Session::new(client)?;
        session.stay_neutral()?;
        Ok(session)
    };
    let session = ready(client).map_err(|source| TargetError::failed(format!("cannot set up {label}"), source))?;
    if session.has_standard_strings() {
        return Ok(session);
    }
    let why = "standard_conforming_strings is off there, so that strings in scripts and definitions mean something else; \
               set it for the account: ALTER ROLE … SET standard_conforming_strings = on";
    Err(TargetError::failed(format!("cannot use {label}"), why))
}
