//! The durable log of one site: entries, images, the lock of the state directory, the facts about processes.
//!
//! Only entries are the truth; the table of deployments is derived from them in the same transaction. This crate
//! never looks into images or payloads, never changes or erases an entry, and never waits for another deployer.
//! The bytes, the crash cases and the assumptions are told in `docs/journal.md`.

pub mod clock;
pub mod error;
pub mod images;
pub mod journal;
pub mod layout;
pub mod lock;
pub mod process;
pub mod reader;
pub mod rebuild;
mod reserve;
pub mod row;
mod schema;
mod stage;
pub mod states;
mod stored;
mod verify;
mod write;

pub use clock::{Clock, SystemClock};
pub use error::JournalError;
pub use images::{ImagesWriter, Written};
pub use journal::{Journal, Options};
pub use lock::HolderNote;
pub use reader::{Found, Reader};
pub use rebuild::Rebuilding;
pub use row::DeploymentRow;
pub use states::States;
pub use verify::Checked;
