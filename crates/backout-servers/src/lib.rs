//! Private database servers for tests and chores, made from what is installed.
//!
//! Uses nothing of the tool, so that what judges the tool may use it. It panics freely, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod binaries;
mod keeper;
pub mod mariadb;
pub mod pgbouncer;
pub mod postgres;
