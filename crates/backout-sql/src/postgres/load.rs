//! One replay under way, and the images of a table's rows as temporary tables.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts, OnConflict};
use backout_model::target::TargetError;

use super::acts::Act;
use super::admit::no_value;
use super::counters::Positions;
use super::ddl::DdlEvent;
use super::fitting::Stranger;
use super::gone::Gone;
use super::session::{Session, ident};
use super::stream::{Column, Damage, Event, Reader, Span, StreamError, Table};
use super::table::{self, list, quoted};
use super::undo::{Direction, Halt};

/// How it is said that there is, or was, none.
pub const NO_ROW: &str = "no such row";

/// How it is said that a later step made it again.
pub const MADE_ANEW: &str = "made anew";

/// One replay under way: what it met and did.
pub struct Replay<'a> {
    pub label: &'a str,
    pub direction: Direction,
    pub on_conflict: OnConflict,
    pub conflicts: Conflicts,
    /// What is as it is to be already; looked for only where an undo is tried.
    pub already: Option<Conflicts>,
    pub notes: Vec<String>,
    /// Rows that were changed.
    pub rows: u64,
    /// Cascades of foreign keys are on.
    pub cascades: bool,
    /// A table that the step made may stand in place of one that it dropped.
    pub replaces: bool,
    /// A row that is gone would come back with the table that was replaced: nothing can keep it away.
    pub unkept: bool,
    /// Tables that the change of the schema at hand made and the same step dropped.
    pub passing: Vec<String>,
    /// What an undo was to take away and others had.
    pub gone: Gone,
    /// Where sequences stood when it began.
    pub began: Positions,
    /// It is tried before the step commits.
    pub proof: bool,
    /// How changes of the schema were undone in that.
    pub acts: Vec<Went>,
    /// The numbers in the images are those of this database.
    pub knows_numbers: bool,
    /// Numbers the temporary tables.
    loads: u32,
}

/// How the undo of one change of the schema went.
pub struct Went {
    /// The change's place among the events.
    pub at: usize,
    pub acts: Vec<Act>,
    /// Tables that were built anew, with what hung on them: see [`super::hung`].
    pub hung: Vec<(String, String)>,
}

/// What a replay met and did up to a point.
pub struct Found {
    conflicts: Conflicts,
    already: Option<Conflicts>,
    notes: usize,
    rows: u64,
    unkept: bool,
    gone: Gone,
}

impl<'a> Replay<'a> {
    pub fn new(label: &'a str, direction: Direction, on_conflict: OnConflict, began: Positions) -> Self {
        Self {
            label,
            direction,
            on_conflict,
            conflicts: Conflicts::default(),
            already: None,
            proof: false,
            acts: Vec::new(),
            knows_numbers: false,
            notes: Vec::new(),
            rows: 0,
            cascades: false,
            replaces: false,
            unkept: false,
            passing: Vec::new(),
            gone: Gone::default(),
            began,
            loads: 0,
        }
    }

    /// The same, which is to look for what is as it is to be already.
    pub fn looking_for_what_is_already(mut self) -> Self {
        self.already = Some(Conflicts::default());
        self
    }

    /// A change of the schema was undone: with the table that came back may have come rows that others deleted since.
    pub fn lack_rows(&mut self, event: &DdlEvent) {
        for object in self.gone.undone(event) {
            let lacking = Conflict {
                target: self.label.to_owned(),
                object,
                key: None,
                column: None,
                kind: ConflictKind::Missing,
                before: String::new(),
                left: "all rows that it wrote".to_owned(),
                now: "others deleted some, which would come back with the table of before".to_owned(),
            };
            // Within one step the rows themselves are told.
            if !self.replaces && !self.conflicts.listed.contains(&lacking) {
                self.conflicts.push(lacking);
                self.unkept = true;
            }
        }
    }

    /// What it met and did so far.
    pub fn found(&self) -> Found {
        Found {
            conflicts: self.conflicts.clone(),
            already: self.already.clone(),
            notes: self.notes.len(),
            rows: self.rows,
            unkept: self.unkept,
            gone: self.gone.clone(),
        }
    }

    /// Forgets what came after that.
    pub fn only(&mut self, found: &Found) {
        self.conflicts = found.conflicts.clone();
        self.already = found.already.clone();
        self.notes.truncate(found.notes);
        self.rows = found.rows;
        self.unkept = found.unkept;
        self.gone = found.gone.clone();
    }

    pub fn overwrites(&self) -> bool {
        self.on_conflict == OnConflict::Overwrite
    }

    /// The table is not what the images are of.
    pub fn definition(&mut self, table: &Table, why: String) {
        let conflict = self.conflict(table, None, ConflictKind::Definition);
        self.conflicts.push(Conflict { now: why, ..conflict });
    }

    /// A materialized view cannot be filled, by what others made of what it reads; nothing can fill it all the same.
    pub fn unfilled(&mut self, view: String, why: String) -> Result<(), TargetError> {
        if self.overwrites() {
            return Err(TargetError::failed(format!("cannot fill {view} of {}", self.label), why));
        }
        self.conflicts.push(Conflict {
            target: self.label.to_owned(),
            object: view,
            key: None,
            column: None,
            kind: ConflictKind::Definition,
            before: String::new(),
            left: String::new(),
            now: format!("its query fails: {why}"),
        });
        Ok(())
    }

    pub fn conflict(&self, table: &Table, key: Option<String>, kind: ConflictKind) -> Conflict {
        Conflict {
            target: self.label.to_owned(),
            object: table::shown(table),
            key,
            column: None,
            kind,
            before: String::new(),
            left: String::new(),
            now: String::new(),
        }
    }
}

/// The two images of rows of one table, in temporary tables.
pub struct Loaded {
    /// What is expected, and what is wanted.
    pub from: String,
    pub to: String,
    pub expected: u64,
    pub wanted: u64,
    pub table: Table,
    /// Columns that the table has beside.
    pub strangers: Vec<Stranger>,
}

impl Loaded {
    /// The condition that others wrote into none of their own columns of a row `x`; empty where there are none.
    pub fn untouched(&self) -> String {
        let own = self.strangers.iter().filter_map(|stranger| stranger.written.as_deref());
        own.map(|written| format!(" AND NOT ({written})")).collect()
    }

    /// The table with all its columns.
    pub fn whole(&self) -> Table {
        let mut table = self.table.clone();
        table.columns.extend(self.strangers.iter().map(|stranger| stranger.column.clone()));
        table
    }

    /// The statement that takes columns out which are not `there`; `None` where all are. The key has to be.
    pub fn without(&mut self, there: &dyn Fn(&Column) -> bool) -> Option<String> {
        let (stay, go): (Vec<Column>, Vec<Column>) =
            self.table.columns.iter().cloned().partition(|column| there(column));
        for key in &mut self.table.key {
            let name = &self.table.columns[key.column].name;
            key.column = stay.iter().position(|column| column.name == *name)?;
        }
        self.table.columns = stay;
        let drops: Vec<String> = go.iter().map(|column| format!("DROP COLUMN {}", ident(&column.name))).collect();
        let alter = |name: &str| format!("ALTER TABLE {name} {}", drops.join(", "));
        (!drops.is_empty()).then(|| format!("{}; {}", alter(&self.from), alter(&self.to)))
    }
}

/// Puts the images of a table's rows into temporary tables of the same columns; why they do not fit these, else.
pub fn load(
    a: &mut Session,
    reader: &mut Reader<'_>,
    replay: &mut Replay<'_>,
    table: &Table,
    from: Span,
    to: Span,
) -> Result<Result<Loaded, String>, Halt> {
    replay.loads += 1;
    let name = |side: &str| format!("pg_temp.backout_{side}{}", replay.loads);
    let loaded = Loaded {
        from: name("from"),
        to: name("to"),
        expected: from.records,
        wanted: to.records,
        table: table.clone(),
        strangers: Vec::new(),
    };
    let failed = |source| TargetError::failed(format!("cannot set a savepoint in {}", replay.label), source);
    a.run("SAVEPOINT backout_load").map_err(failed)?;
    for (name, span) in [(&loaded.from, from), (&loaded.to, to)] {
        match fill(a, reader, replay.label, table, name, span) {
            Err(Halt::Error(error)) if !a.client.is_closed() => {
                let Some(why) = no_value(&error) else { return Err(error.into()) };
                a.run("ROLLBACK TO backout_load; RELEASE backout_load").map_err(failed)?;
                return Ok(Err(format!("rows as they were are none of it any more: {why}")));
            }
            done => done?,
        }
    }
    a.run("RELEASE backout_load").map_err(failed)?;
    Ok(Ok(loaded))
}

fn fill(
    a: &mut Session,
    reader: &mut Reader<'_>,
    label: &str,
    table: &Table,
    name: &str,
    span: Span,
) -> Result<(), Halt> {
    use std::io::Write as _;
    let failed = |source: postgres::Error| {
        Halt::Error(TargetError::failed(format!("cannot read images of {} into {label}", table::shown(table)), source))
    };
    let columns = list(table, "");
    a.run(&format!(
        "CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {columns} FROM ONLY {} WITH NO DATA",
        name.trim_start_matches("pg_temp."),
        quoted(table)
    ))
    .map_err(failed)?;
    if span.records == 0 {
        return Ok(());
    }
    let mut into = a.client.copy_in(&format!("COPY {name} {} FROM STDIN", table::bracketed(table))).map_err(failed)?;
    let mut chunk = Vec::with_capacity(1 << 16);
    let written = |source: std::io::Error| {
        Halt::Error(TargetError::failed(format!("cannot read images of {} into {label}", table::shown(table)), source))
    };
    reader.rows(span, &mut |line| -> Result<(), Halt> {
        chunk.extend_from_slice(line);
        chunk.push(b'\n');
        if chunk.len() >= 1 << 15 {
            into.write_all(&chunk).map_err(written)?;
            chunk.clear();
        }
        Ok(())
    })?;
    into.write_all(&chunk).map_err(written)?;
    let copied = into.finish().map_err(failed)?;
    if copied != span.records {
        return Err(StreamError::from(Damage("an image is no row of its table")).into());
    }
    a.run(&format!("ANALYZE {name}")).map_err(failed)
}

/// The tables that a change made and one of those after it, which are undone already, dropped: the last of them first.
pub(super) fn made_and_dropped(event: &DdlEvent, undone: &[Event]) -> Vec<String> {
    let is_dropped = |made: &&str| {
        let later = undone.iter().rev().filter_map(|event| match event {
            Event::Ddl { event, .. } => Some(event),
            Event::Rows { .. } | Event::Statements { .. } => None,
        });
        later.into_iter().try_fold(*made, |name, event| event.course(name)).is_none()
    };
    event.made().filter(is_dropped).map(str::to_owned).collect()
}
