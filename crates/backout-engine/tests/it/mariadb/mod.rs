//! MariaDB as the engine drives it, on private servers of the tests' own.

mod conflicts;
mod ddl;
mod objects;
mod rows;
mod server;
