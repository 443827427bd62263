//! Full copies of a site in a repository of restic's format: databases by their own tools, roots with all metadata.
//!
//! What is written can be listed and restored by restic itself. Never writes the journal, and never decides when a
//! backup is taken or restored: that is the engine's, by the trait [`backout_model::backup::Backup`].

mod beside;
mod compare;
pub mod diff;
mod dump;
mod exchange;
mod fetched;
mod keeper;
mod layout;
mod ledger;
mod manifest;
mod mend;
mod node;
mod print;
mod repository;
mod restore;
mod scratch;
mod source;
mod space;
mod tool;
mod walk;
mod xattr;

pub use beside::Beside;
pub use dump::{DatabaseSource, Engine};
pub use keeper::{Keeper, Options, Purpose, RootSource};
pub use layout::Layout;
pub use print::Printed;
pub use scratch::{Abandoned, Scratch};
