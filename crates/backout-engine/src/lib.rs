//! The engine: plan, deploy, undo, redo, retry, resume, verify, and what the history says.
//!
//! Knows targets only by their traits. Never prints, never parses a command line, never opens a database by itself.

pub mod act;
mod around;
pub mod backup;
pub mod capture;
pub mod check;
pub mod command;
pub mod confirm;
mod copies;
pub mod deploy;
mod describe;
pub mod doctor;
pub mod error;
mod frame;
pub mod fresh;
pub mod from_record;
mod gate;
mod group;
pub mod history;
mod later;
mod lookup;
pub mod marks;
pub mod observer;
pub mod outcome;
pub mod plan;
pub mod prune;
pub mod record;
mod records;
pub mod redo;
mod redoable;
mod refused;
pub mod rehearse;
pub mod report;
mod requires;
pub mod restore;
pub mod restored;
pub mod resume;
pub mod retry;
pub mod scratch;
pub mod session;
mod shared;
mod step;
mod step_view;
pub mod undo;
pub mod verify;
mod when;
