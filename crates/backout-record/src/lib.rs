//! Records: the archive of all that one deployment did, as a tar (zstd) that `tar`, `sha256sum` and `ssh-keygen` read.
//!
//! This crate knows the archive alone: its members, checksums and seal. It never opens a database, a root or a
//! journal, and never trusts what it reads. The format is told in `docs/record.md`.

pub mod error;
pub mod extract;
pub mod head;
pub mod member;
pub mod reader;
pub mod writer;

mod pax;
mod sums;
