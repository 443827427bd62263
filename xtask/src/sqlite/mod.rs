//! What the chores need of SQLite: the plain client, a canonical dump, and rows to fill tables with. It shares no
//! code with the engine that it judges.

pub mod checks;
pub mod client;
pub mod dump;
pub mod fill;
pub mod shape;
pub mod subject;
pub mod tame;
pub mod values;

/// A name as SQL quotes it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether the tool keeps this object for itself: everything of its own begins so.
pub fn own(name: &str) -> bool {
    name.to_ascii_lowercase().starts_with("backout")
}

/// Whether the library keeps this table for itself.
pub fn internal(name: &str) -> bool {
    name.to_ascii_lowercase().starts_with("sqlite_")
}
