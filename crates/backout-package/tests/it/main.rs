//! The crate from outside: every bad input with its place, bundles from and to disk, snapshots, published files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in what it shares with others")]

mod bad_bundle;
mod bad_package;
mod bad_site;
mod bundle;
mod fixture;
mod good;
mod published;
mod snapshot;
