//! Real runs of the binary: every command, every exit status, every bad input of the contract.
//!
//! Hermetic: no environment but what a run is given, a home of its own, nothing outside a temporary directory.

#![allow(clippy::unwrap_used)]

mod alerts;
mod another_user;
mod backup;
mod backup_rights;
mod backup_tools;
mod bad_bundle;
mod bad_input;
mod bad_site;
mod bundle;
mod capture;
mod checks;
mod commands;
mod confirm;
mod crash;
mod diff;
mod exit_status;
mod full_disk;
mod help;
mod json;
#[cfg(feature = "faults")]
mod kept_copy;
mod kill;
mod lock;
mod non_utf8;
mod option_files;
mod output;
mod print;
mod prune;
mod record;
mod record_client;
mod record_schema;
mod record_servers;
mod rehearse;
mod rehearse_servers;
mod safety_net;
mod scene;
mod secrets;
mod sign;
mod start;
mod terminal;
mod undo;
mod untouched;
