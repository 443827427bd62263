//! The journal from outside: history, images, locks, damage, crashes, speed, and the page that tells of it.

// The helpers beside the tests are tests' code, too; clippy.toml only knows functions marked as such.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod crash;
mod damage;
mod faults;
mod golden;
mod history;
mod images;
mod opening;
mod page;
mod rebuild;
mod space;
mod speed;
mod support;
