//! The tool's own tables in a database: the marker, one row that says which step was the last to take effect and under
//! which epoch of the lock; and the segments, one row for each part of a step that took effect by itself.
//!
//! The marker moves in the transaction of the last part of a step, so that it never says more than what happened.

use backout_model::target::{TargetError, Ticket};
use mysql::Error;

use super::session::{Session, is_missing, literal};
use crate::database::Holder;
use crate::holder::sanitised;

/// The longest part of a site's name in the names of tables: these may have 64 characters.
const LONGEST: usize = 24;

/// How the tool's own objects are called for one site.
#[derive(Clone, Debug)]
pub struct Names {
    own: String,
}

impl Names {
    pub fn of(site: &str) -> Self {
        let plain = sanitised(site);
        let short = if plain.len() > LONGEST {
            format!("{}_{}", &plain[..LONGEST - 9], &blake3::hash(site.as_bytes()).to_hex()[..8])
        } else {
            plain
        };
        Self { own: format!("backout_{short}") }
    }

    pub fn marker(&self) -> String {
        self.own.clone()
    }

    pub fn segments(&self) -> String {
        self.object("segment")
    }

    /// No site's name holds a `$`: so no two sites meet.
    pub fn object(&self, what: &str) -> String {
        format!("{}${what}", self.own)
    }

    /// A thing that belongs to one part of a step.
    pub fn of_segment(&self, step: u64, number: u32, what: &str) -> String {
        format!("{}${step}${number}${what}", self.own)
    }

    /// A thing that belongs to a copy of the database. No part of a step is called so.
    pub fn of_copy(&self, number: u64, what: &str) -> String {
        format!("{}$c{number}${what}", self.own)
    }

    /// A condition on a name that holds for the tool's own objects of this site alone.
    pub fn condition(&self, column: &str) -> String {
        let (own, open) = (literal(&self.own), literal(&format!("{}$", self.own)));
        format!("({column} = {own} OR LEFT({column}, {}) = {open})", self.own.len() + 1)
    }
}

/// What the marker's row says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marker {
    pub epoch: u64,
    pub seq: u64,
    pub holder: Option<Holder>,
}

/// Makes the tool's own tables where they are missing.
pub fn create(session: &mut Session, names: &Names) -> Result<(), Error> {
    let (marker, segments) = (names.marker(), names.segments());
    session.run(&format!(
        "CREATE TABLE IF NOT EXISTS `{marker}` (id int NOT NULL PRIMARY KEY, epoch bigint unsigned NOT NULL,
         seq bigint unsigned NOT NULL, step bigint unsigned NOT NULL, holder longtext) ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
    ))?;
    session.run(&format!("INSERT IGNORE INTO `{marker}` (id, epoch, seq, step) VALUES (0, 0, 0, 0)"))?;
    session.run(&format!(
        "CREATE TABLE IF NOT EXISTS `{segments}` (step bigint unsigned NOT NULL, number int unsigned NOT NULL,
         ticket bigint unsigned NOT NULL, state varchar(16) NOT NULL, detail longtext NOT NULL, PRIMARY KEY (step, number))
         ENGINE=InnoDB CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
    ))
}

/// What the marker says, and none where this site was never here; `lock` keeps others from changing it until the
/// transaction ends.
pub fn read(session: &mut Session, names: &Names, lock: bool) -> Result<Option<Marker>, Error> {
    let end = if lock { " FOR UPDATE" } else { "" };
    let found = match session.rows(&format!("SELECT epoch, seq, holder FROM `{}` WHERE id = 0{end}", names.marker())) {
        Err(error) if is_missing(&error) => return Ok(None),
        found => found?,
    };
    Ok(found.into_iter().next().map(|row| {
        let number = |at: usize| row[at].as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
        // A holder that does not parse was not written by this tool: it holds nothing.
        let holder = row[2].as_deref().and_then(|text| serde_json::from_str(text).ok());
        Marker { epoch: number(0), seq: number(1), holder }
    }))
}

/// Writes who holds the lock.
pub fn hold(session: &mut Session, names: &Names, epoch: u64, holder: Option<&Holder>) -> Result<(), Error> {
    let text = holder.and_then(|holder| serde_json::to_string(holder).ok());
    let text = text.map_or_else(|| "NULL".to_owned(), |text| literal(&text));
    session.run(&format!("UPDATE `{}` SET epoch = {epoch}, holder = {text} WHERE id = 0", names.marker()))
}

/// A number for the next step, which no step had before.
pub fn next_step(session: &mut Session, names: &Names) -> Result<u64, Error> {
    session.run(&format!("UPDATE `{}` SET step = LAST_INSERT_ID(step + 1) WHERE id = 0", names.marker()))?;
    session.number("SELECT LAST_INSERT_ID()")
}

/// Writes the ticket into the marker of the open transaction; an error where the lock's epoch is no longer ours.
pub fn stamp(session: &mut Session, names: &Names, label: &str, ticket: Ticket) -> Result<(), TargetError> {
    holds(session, names, label, Some(ticket.epoch))?;
    let sql = format!("UPDATE `{}` SET seq = {} WHERE id = 0", names.marker(), ticket.seq);
    session.run(&sql).map_err(|source| TargetError::failed(format!("cannot mark the step in {label}"), source))
}

/// Sets the marker back to an entry of a history that does not know the ones after it.
pub fn set_back(
    session: &mut Session,
    names: &Names,
    label: &str,
    epoch: Option<u64>,
    seq: u64,
) -> Result<(), TargetError> {
    let Some(epoch) = epoch else { return Err(TargetError::LockLost(label.to_owned())) };
    holds(session, names, label, Some(epoch))?;
    let sql = format!("UPDATE `{}` SET seq = LEAST(seq, {seq}) WHERE id = 0 AND epoch = {epoch}", names.marker());
    session.run(&sql).map_err(|source| TargetError::failed(format!("cannot set the marker of {label} back"), source))
}

/// An error where the lock that was taken as `epoch` is no longer ours; without a lock there is none to lose.
pub fn holds(session: &mut Session, names: &Names, label: &str, epoch: Option<u64>) -> Result<(), TargetError> {
    let Some(epoch) = epoch else { return Ok(()) };
    let found = read(session, names, true)
        .map_err(|source| TargetError::failed(format!("cannot read the marker of {label}"), source))?;
    match found.is_some_and(|marker| marker.epoch == epoch) {
        true => Ok(()),
        false => Err(TargetError::LockLost(label.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_never_share_a_name() {
        let (a, b) = (Names::of("shop"), Names::of("shop_1"));
        assert_eq!(a.of_segment(1, 2, "b"), "backout_shop$1$2$b");
        assert_ne!(a.of_segment(1, 2, "b"), b.of_segment(2, 0, "b"));
        let long = Names::of("a-site-with-a-very-long-name-indeed");
        assert!(long.of_segment(9_999_999_999, 99_999, "100b").len() <= 64, "{long:?}");
    }
}
