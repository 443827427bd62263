//! The file roots from outside: what a deployment, its undo and its redo leave of real trees.

// A test that meets an error has failed, also in the functions around the tests.
#![allow(clippy::unwrap_used)]

mod captured;
mod conflict;
mod crash;
mod exact;
mod hostile;
mod inspect;
mod mounted;
mod random;
mod speed;
mod stack;
mod world;
