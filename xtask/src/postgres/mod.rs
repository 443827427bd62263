//! What the chores need of PostgreSQL: the plain client, a normalised dump, and rows to fill tables with. It shares no
//! code with the engine that it judges.

pub mod dump;
pub mod fill;
pub mod subject;

/// A name as SQL quotes it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
