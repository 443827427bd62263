//! MariaDB as the engine drives it, on private servers of the tests' own.

mod again;
mod asked;
mod conflicts;
pub mod ddl;
mod dependents;
mod emptied;
mod letters;
mod loose;
pub mod objects;
pub mod rows;
mod sequences;
mod server;
pub mod strange;
mod untouched;
