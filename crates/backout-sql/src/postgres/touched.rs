//! What A's transaction may have written to, by its locks and by the server's counters.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::capture_error::{CaptureError, reading};
use super::catalog_changes;
use super::place::Place;
use super::prepared;
use super::session::Session;

/// What the counters of A's transaction say of a table. They never say less than was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub inserts: i64,
    pub updates: i64,
    pub deletes: i64,
}

impl Counts {
    pub fn since(self, before: Counts) -> Counts {
        let moved = |now: i64, then: i64| if now < then { i64::MAX } else { now - then };
        Counts {
            inserts: moved(self.inserts, before.inserts),
            updates: moved(self.updates, before.updates),
            deletes: moved(self.deletes, before.deletes),
        }
    }
}

/// Before which change of the schema a table was last written to.
#[derive(Default)]
pub struct LastWritten(HashMap<u32, (Counts, usize)>);

impl LastWritten {
    /// Where the counters stand before the change of the schema with this number, counted from 0.
    pub fn before(&mut self, change: usize, now: &HashMap<u32, Counts>) {
        for (oid, counts) in now {
            let last = self.0.entry(*oid).or_insert((*counts, change));
            if last.0 != *counts {
                *last = (*counts, change);
            }
        }
    }

    /// The first change of the schema that came after all that was written to the table; none where none did.
    pub fn of(&self, oid: u32, counts: Counts) -> Option<usize> {
        self.0.get(&oid).filter(|last| last.0 == counts).map(|last| last.1)
    }
}

/// A relation that A's transaction may have written to.
pub struct Touched {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub kind: String,
    /// Nobody but A can read it.
    pub exclusive: bool,
    /// Nobody but A can write to it.
    pub strong: bool,
    /// A made it in this transaction.
    pub made: bool,
    pub counts: Counts,
    /// What they were when it was last looked at.
    pub seen: Counts,
}

impl Touched {
    pub fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// Relations on which A holds the lock of a writer, and those of `also`.
pub fn touched(a: &mut Session, place: Option<&Place>, also: &[u32]) -> Result<Vec<Touched>, CaptureError> {
    let also = also.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let own = place.map_or_else(|| "false".to_owned(), Place::is_own);
    let found = a
        .rows(&format!(
            "SELECT c.oid, n.nspname, c.relname,
                 CASE WHEN {own} THEN 'own' WHEN c.relpersistence = 't' THEN 'temporary'
                      WHEN c.oid < 16384 AND n.nspname = 'pg_catalog' THEN 'catalog' ELSE c.relkind::text END,
                 coalesce(l.exclusive, false), coalesce(l.strong, false), pg_stat_get_xact_tuples_inserted(c.oid), pg_stat_get_xact_tuples_updated(c.oid),
                 pg_stat_get_xact_tuples_deleted(c.oid)
             FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
             LEFT JOIN (SELECT relation, bool_or(mode = 'AccessExclusiveLock') AS exclusive,
                     bool_or(mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')) AS strong,
                     bool_or(mode = 'RowExclusiveLock') AS written
                   FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted GROUP BY relation) AS l
             ON l.relation = c.oid
             WHERE (l.written OR l.strong OR c.oid = ANY ('{{{also}}}')) AND c.relkind NOT IN ('i', 'I', 't') ORDER BY n.nspname, c.relname"
        ))
        .map_err(reading("which tables were written to"))?;
    Ok(found
        .into_iter()
        .map(|mut row| {
            let mut text = |at: usize| row[at].take().unwrap_or_default();
            Touched {
                oid: text(0).parse().unwrap_or_default(),
                schema: text(1),
                name: text(2),
                kind: text(3),
                exclusive: text(4) == "t",
                strong: text(5) == "t",
                made: false,
                counts: Counts {
                    inserts: text(6).parse().unwrap_or_default(),
                    updates: text(7).parse().unwrap_or_default(),
                    deletes: text(8).parse().unwrap_or_default(),
                },
                seen: Counts::default(),
            }
        })
        .collect())
}

/// An error for what is written and cannot be captured.
pub fn judge(one: &Touched) -> Result<(), CaptureError> {
    let why = match (one.kind.as_str(), one.name.as_str()) {
        ("r" | "p" | "v" | "S" | "temporary", _) => return Ok(()),
        // Its rows go with it.
        ("m", _) if one.made => return Ok(()),
        // A lock alone is no change.
        _ if one.strong && one.counts == one.seen => return Ok(()),
        ("own", _) if one.counts == one.seen => return Ok(()),
        // The script's own table, made, filled and dropped, which is held: its rows are with it.
        ("own", _) if one.made => return Ok(()),
        ("own", name) => format!("the tool's own table {name} was written to"),
        ("catalog", _) => return Ok(()),
        ("f", _) => format!("rows of the foreign table {} were changed on another server", one.shown()),
        _ => format!("{} was changed, which is no table", one.shown()),
    };
    Err(CaptureError::Uncapturable(why))
}

/// What A's transaction wrote so far, by the server's counters.
#[derive(Default)]
pub struct Written {
    /// How often each catalog was written to, by their names. Statistics are no part of the schema.
    pub catalogs: BTreeMap<String, i64>,
    /// The tables that the server counted changes in.
    pub tables: HashMap<u32, Counts>,
}

/// Asks for both at once: they are one look through all relations.
pub fn written(a: &mut Session) -> Result<Written, CaptureError> {
    let rows = catalog_changes::counted(&mut a.client, prepared::rows).map_err(reading("what was written to"))?;
    let mut written = Written::default();
    for row in rows {
        let number = |at: usize| row[at].parse().unwrap_or_default();
        let counts = Counts { inserts: number(2), updates: number(3), deletes: number(4) };
        match row[1].as_str() {
            "" => drop(written.tables.insert(row[0].parse().unwrap_or_default(), counts)),
            "pg_statistic" | "pg_statistic_ext_data" => {}
            catalog => {
                let all = counts.inserts + counts.updates + counts.deletes;
                written.catalogs.insert(catalog.to_owned(), all);
            }
        }
    }
    Ok(written)
}

/// Notes which relations are A's own: B does not see them.
pub fn note_made(b: &mut Session, all: &mut [Touched]) -> Result<(), CaptureError> {
    if all.is_empty() {
        return Ok(());
    }
    let oids = all.iter().map(|one| one.oid.to_string()).collect::<Vec<_>>().join(", ");
    let rows = b
        .rows(&format!("SELECT oid FROM pg_class WHERE oid = ANY ('{{{oids}}}')"))
        .map_err(reading("which tables were there before"))?;
    let there: HashSet<u32> = rows.iter().filter_map(|row| row[0].as_deref()?.parse().ok()).collect();
    all.iter_mut().for_each(|one| one.made = !there.contains(&one.oid));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_went_back_hide_nothing() {
        let (few, many) = (Counts { inserts: 1, ..Counts::default() }, Counts { inserts: 9, ..Counts::default() });
        assert_eq!(many.since(few).inserts, 8);
        assert!(few.since(many).inserts > 0);
    }
}
