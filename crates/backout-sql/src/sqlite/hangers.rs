//! Indexes and triggers that others hung on a table which replaced another. When the old one comes back they go over to
//! it, where it has what they need; else they are conflicts, by which they go with the new one.

use backout_model::target::TargetError;
use rusqlite::Connection;

use super::courses::{Pair, Track};
use super::ddl::execute;
use super::ddl_hold::in_main;
use super::ddl_side::{self, SideRow};
use super::dependents::would_not_work;
use super::lessons::all_of;
use super::replay::{Halt, Replay};
use super::schema::{self, SchemaRow};
use super::stream::Event;
use super::token::quote;
use backout_model::conflict::{Conflict, OnConflict};

/// One of them, as it was on the new table under that one's last name.
struct Hanger {
    row: SchemaRow,
    /// The event that made the new table.
    create: usize,
    /// What ANALYZE knows of it, once it was taken off.
    taken_off: Option<Vec<SideRow>>,
}

#[derive(Default)]
pub struct Hangers(Vec<Hanger>);

impl Hangers {
    /// Looks at what hangs there before anything is undone.
    pub fn look(conn: &Connection, label: &str, events: &[Event], track: &Track) -> Result<Self, TargetError> {
        let comes_back = |pair: &&Pair| track.known_as(pair).eq_ignore_ascii_case(track.known_after(pair));
        let mut found = Vec::new();
        for pair in track.pairs.iter().filter(comes_back) {
            let all = schema::of_table(conn, track.known_after(pair)).map_err(|source| failed(label, source))?;
            let is_own = |row: &SchemaRow| {
                events.iter().filter_map(Event::ddl).any(|event| event.rows().any(|own| own.is_same(row)))
            };
            let theirs =
                all.into_iter().filter(|row| row.kind != "table" && row.sql.is_some() && !row.is_raw && !is_own(row));
            found.extend(theirs.map(|row| Hanger { row, create: pair.create, taken_off: None }));
        }
        Ok(Self(found))
    }

    /// Takes them off the new table, which is about to go.
    pub fn take_off(&mut self, conn: &Connection, label: &str, create: usize) -> Result<(), TargetError> {
        for hanger in self.0.iter_mut().filter(|hanger| hanger.create == create) {
            let mut take_off = || -> rusqlite::Result<()> {
                let SchemaRow { kind, name, .. } = &hanger.row;
                if schema::object(conn, kind, name)?.is_some() {
                    hanger.taken_off = Some(ddl_side::of_index(conn, name)?);
                    execute(conn, &format!("DROP {} main.{}", kind.to_uppercase(), quote(name)))?;
                }
                Ok(())
            };
            take_off().map_err(|source| failed(label, source))?;
        }
        Ok(())
    }

    /// Hangs them on the old table, which is back.
    pub fn hang_up(self, replay: &mut Replay<'_>, events: &[Event]) -> Result<(), Halt> {
        let (conn, label) = (replay.conn, replay.label);
        for Hanger { row, create, taken_off } in self.0 {
            let Some(side) = taken_off else { continue };
            let sql = in_main(row.sql.as_deref().unwrap_or_default());
            match execute(conn, &sql) {
                Ok(()) => ddl_side::put_back(conn, &side).map_err(|source| failed(label, source))?,
                Err(error) => {
                    let why = error.to_string();
                    give_up(
                        replay,
                        events,
                        create,
                        would_not_work(label, &row, why.split(" in CREATE").next().unwrap_or(&why)),
                    )?;
                }
            }
            replay.dependents.look_again(conn, label, create)?;
        }
        replay.look_afresh();
        Ok(())
    }
}

/// What the old table has no place for goes, or the new table stays for its sake.
fn give_up(replay: &mut Replay<'_>, events: &[Event], create: usize, conflict: Conflict) -> Result<(), Halt> {
    if replay.guard.on_conflict == OnConflict::Keep {
        let events = replay.track.together(events, create);
        return Err(Halt::Leave { events, conflicts: all_of(std::iter::once(conflict)) });
    }
    replay.guard.conflicts.push(conflict);
    Ok(())
}

fn failed(label: &str, source: rusqlite::Error) -> TargetError {
    TargetError::failed(format!("cannot look at what hangs on the tables of {label}"), source)
}
