//! Databases as targets: one trait, one module an engine, the same file names in each.
//!
//! Never knows the journal, packages or files: images and intents go through the model's `Gate`.

pub mod client;
mod container;
pub mod database;
mod holder;
pub mod mariadb;
mod parents_first;
pub mod postgres;
pub mod recorded;
pub mod shown;
pub mod sqlite;
mod token;
mod verify;
