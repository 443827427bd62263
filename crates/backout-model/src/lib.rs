//! The vocabulary of backout: ids, states, conflicts, and the traits by which the engine drives a target.
//!
//! No I/O, no clock, no threads. Every other crate speaks in these terms and none of them is known here.

pub mod backup;
pub mod conflict;
pub mod entry;
pub mod fault;
pub mod id;
pub mod review;
pub mod sieve;
pub mod stamp;
pub mod state;
pub mod target;
pub mod words;
