//! The engine over real SQLite databases and file roots: what the contract says, sentence by sentence; then every
//! crash, and random histories against a model.

#![allow(clippy::unwrap_used)] // Tests end where something unexpected happens.
#![allow(clippy::print_stdout)] // The long suites print their seed and what they did.

mod capture;
mod capture_alone_postgres;
mod capture_mariadb;
mod capture_others;
mod capture_others_mariadb;
mod capture_postgres;
mod checks;
mod commands;
mod crash;
mod deploy;
mod full_server;
mod http;
mod irreversible;
mod left;
mod made_again;
mod maintenance;
mod mariadb;
mod narrowed;
mod needed_names;
mod nested;
mod order;
mod order_postgres;
mod pgbench;
mod property;
mod recording;
mod recording_elsewhere;
mod recording_postgres;
mod redo;
mod resume;
mod retry;
mod scene;
mod sequences;
mod server;
mod stopped;
mod succession;
mod undo;
