//! File roots as targets: stage, place, keep, put back.
//!
//! Never knows the journal, packages or databases: images and intents go through the model's `Gate`.
//!
//! The way of a step: `overlay` and `delete` compare the work with the root and name every difference (`item`);
//! `plan` shows them, `stage` makes each new file complete in the `hold` and writes the `manifest`; after the
//! announcement `place` carries the files to where they belong (`carry`). `decide` and `turn` are undo and redo,
//! `judge` settles each path, `inspect` answers what can be asked without changing anything.
//!
//! What a deployment leaves alone, by decision: the modes and owners of directories that exist already; times of
//! files as a reason for a difference; extended attributes of others than `user.` in a package.

mod act;
mod ahead;
mod beneath;
mod captured;
mod carry;
mod compare;
mod condition;
mod copy;
mod decide;
mod delete;
mod draft;
mod elsewhere;
mod error;
mod examine;
mod followed;
mod gone;
mod hold;
mod holding;
mod image;
mod inspect;
mod item;
mod judge;
mod keep;
mod kept;
pub mod local;
mod lock;
mod look;
mod manifest;
mod overlay;
mod path;
mod place;
mod plan;
mod remove;
mod rights;
pub mod root;
mod stage;
mod turn;
mod xattr;
