//! The databases as the engine drives them: through the traits alone, compared by an independent dump.

#![allow(clippy::unwrap_used)] // Tests end where something unexpected happens.

mod altered;
mod bed;
mod carry;
mod check;
mod counters;
mod ddl;
mod ddl_conflicts;
mod ddl_random;
mod dependents;
mod encodings;
#[cfg(feature = "faults")]
mod faults;
mod fts;
mod keyless;
mod lock;
mod others;
mod others_judged;
mod others_random;
mod plan;
mod postgres;
mod postgres_bed;
mod postgres_ddl;
mod postgres_ddl_conflicts;
mod postgres_ddl_random;
mod postgres_kinds;
mod rows;
mod rows_random;
mod stage;
mod steps;
mod stream;
