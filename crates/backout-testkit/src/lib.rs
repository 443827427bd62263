//! What the suites share: sites to deploy to, packages to deploy, exact fingerprints, played crashes and faults.
//!
//! A dev-dependency only. It panics freely, as tests do, and never judges: what is right the tests say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod database;
mod done;
pub mod every;
#[cfg(feature = "faults")]
pub mod faults;
pub mod files;
pub mod fingerprint;
pub mod http;
pub mod mariadb_dump;
pub mod observer;
pub mod package;
pub mod postgres_dump;
pub mod proxy;
pub mod seeds;
pub mod site;
#[cfg(feature = "faults")]
pub mod stage;
pub mod surroundings;
pub mod tree;

pub use backout_servers::{mariadb, pgbouncer, postgres};
