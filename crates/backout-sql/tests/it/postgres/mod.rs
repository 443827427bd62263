//! PostgreSQL as the engine drives it, on private servers of the tests' own.

mod already;
mod attached;
mod conflicts;
mod dropped;
mod event_triggers;
mod faults;
mod fitting;
mod labels;
mod large;
mod meets;
mod mixed;
mod newest;
mod notify;
mod owner;
mod pooler;
mod proof;
mod put_back;
mod rounds;
mod rows;
mod rows_random;
mod sequences;
pub mod stage;
mod surroundings;
mod trips;
mod values;
mod violations;
mod waiting;
