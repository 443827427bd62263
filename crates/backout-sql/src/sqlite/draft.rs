//! What happened to a database since a copy of it was made, as a script that does the same to another copy. It is written
//! from two copies, before and after, and then proven: run on a third, it must come to the one of after. What cannot be
//! written so is refused by name.
//!
//! Never changes the database, and needs nothing of it once it is copied.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::Path;

use backout_model::review::Concern;
use backout_model::target::{Refusal, TargetError};
use rusqlite::Connection;

use super::capture::read_table;
use super::classify::is_ours;
use super::compared_rows::{Sink, compare};
use super::counters::{self, Counters};
use super::definition::definition;
use super::draft_proof::{differs, prove};
use super::draft_rows::{Doomed, SqliteRows, shape_of, values_of};
use super::draft_tables::{self, altered};
use super::schema::{self, SchemaRow};
use super::stream::{self, Block, Event, Index, Op, Reader, Record, RowImages};
use super::token::{quote, tokens};
use super::writer::Writer;
use super::{Sqlite, snapshot};
use crate::parents_first::parents_first;
use crate::recorded::{Condition, Drafted, Drafting, Rows};

/// The copy of after, as statements name it.
pub(super) const AFTER: &str = "backout_after";

/// The objects of a schema that are the user's and have a text, by kind and name.
pub(super) type Objects = BTreeMap<(String, String), SchemaRow>;

/// Why no draft came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum DraftError {
    #[error("{what} cannot be recorded: {why}")]
    Refused { what: String, why: String },
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Stream(#[from] stream::StreamError),
    #[error(transparent)]
    Damage(#[from] stream::Damage),
    #[error(transparent)]
    Capture(#[from] super::capture::CaptureError),
}

pub(super) fn refuse(what: impl Into<String>, why: impl Into<String>) -> DraftError {
    DraftError::Refused { what: what.into(), why: why.into() }
}

impl Sqlite {
    /// See [`crate::database::Database::draft`].
    pub(super) fn draft_since(
        &mut self,
        directory: &Path,
        drafting: &mut Drafting<'_>,
    ) -> Result<Drafted, TargetError> {
        self.reconnect()?;
        let scratch = tempfile::Builder::new().prefix("draft").tempdir_in(directory);
        let scratch = scratch.map_err(|source| self.undrafted(source.into()))?;
        let drafted = self.draft_in(directory, scratch.path(), drafting);
        drafted.map_err(|error| self.undrafted(error))
    }

    fn undrafted(&self, error: DraftError) -> TargetError {
        match error {
            DraftError::Target(error) => error,
            DraftError::Refused { what, why } => TargetError::Refused(Refusal {
                place: self.label.clone(),
                what,
                why,
                ways_out: vec![
                    "leave it out with `--leave-out`, and add to the package by hand what it needs".to_owned(),
                ],
            }),
            other => TargetError::failed(format!("cannot write down what happened to {}", self.label), other),
        }
    }

    fn draft_in(
        &mut self,
        directory: &Path,
        scratch: &Path,
        drafting: &mut Drafting<'_>,
    ) -> Result<Drafted, DraftError> {
        let (after, work) = (scratch.join("after.sqlite"), scratch.join("work.sqlite"));
        self.conn.execute_batch("BEGIN")?;
        let copied = snapshot::copy(&self.conn, &after);
        super::roll_back(&self.conn, &self.label)?;
        copied?;
        let before = snapshot::open(directory)?;
        std::fs::copy(snapshot::copy_in(directory), &work)?;
        // A copy of a database in WAL mode is in it, too, and leaves it only while nobody else has it open.
        let now = self.private(&after)?;
        let conn = self.private(&work)?;
        conn.execute(&format!("ATTACH ?1 AS {AFTER}"), [after.to_string_lossy()])?;
        let (mut script, mut aside) = (tempfile::tempfile_in(scratch)?, tempfile::tempfile_in(scratch)?);
        let mut draft = Draft {
            conn: &conn,
            now: &now,
            olds: objects(&before, drafting.leave_out)?,
            news: objects(&now, drafting.leave_out)?,
            counters: (counters::read(&before, &self.label)?, counters::read(&now, &self.label)?),
            asked: BTreeSet::new(),
            drafted: Drafted::default(),
        };
        let mut own = Drafting {
            out: &mut script,
            review: drafting.review,
            leave_out: drafting.leave_out,
            leave_out_row: drafting.leave_out_row,
            aside: &mut aside,
            places: drafting.places,
        };
        draft.write(scratch, &mut own)?;
        let Draft { news, asked, mut drafted, counters, .. } = draft;
        for object in asked {
            let was = definition(&before, &object)?;
            drafted.definitions.insert(object, was);
        }
        conn.close().map_err(|(_, error)| error)?;
        script.seek(SeekFrom::Start(0))?;
        std::fs::copy(snapshot::copy_in(directory), &work)?;
        let proof = self.private(&work)?;
        proof.execute(&format!("ATTACH ?1 AS {AFTER}"), [after.to_string_lossy()])?;
        aside.seek(SeekFrom::Start(0))?;
        let scripts = [script.try_clone()?, aside];
        prove(&self.label, &proof, scripts, &news, &counters.1, drafting.leave_out)?;
        script.seek(SeekFrom::Start(0))?;
        io::copy(&mut script, drafting.out)?;
        Ok(drafted)
    }

    /// Opens a copy, with what the database's own connection knows of functions and collations.
    fn private(&self, path: &Path) -> Result<Connection, DraftError> {
        let conn = super::connect(path, false, &self.label)?;
        conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;")?;
        Ok(conn)
    }
}

/// The user's objects of a database; what the reviewer leaves out is none of them.
pub(super) fn objects(conn: &Connection, leave_out: &dyn Fn(&str) -> bool) -> Result<Objects, DraftError> {
    let shadows: HashSet<String> = conn
        .prepare("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut found = Objects::new();
    for row in schema::all(conn)? {
        let is_users = row.sql.is_some() && !row.name.starts_with("sqlite_") && !is_ours(&row.name);
        if !is_users || is_ours(&row.table) || shadows.contains(&row.table) {
            continue;
        }
        if leave_out(&row.name) || leave_out(&row.table) {
            continue;
        }
        if row.is_raw {
            return Err(refuse(row.shown(), "its definition is no UTF-8"));
        }
        found.insert((row.kind.clone(), row.name.to_ascii_lowercase()), row);
    }
    Ok(found)
}

pub(super) fn is_virtual(row: &SchemaRow) -> bool {
    row.kind == "table" && row.rootpage == 0
}

/// One draft under way.
struct Draft<'d> {
    /// A copy of before, to which the changes of the schema come one after the other; the copy of after is attached.
    conn: &'d Connection,
    /// The copy of after by a connection of its own.
    now: &'d Connection,
    olds: Objects,
    news: Objects,
    counters: (Counters, Counters),
    /// What the script drops, alters or makes, as `table product`.
    asked: BTreeSet<String>,
    drafted: Drafted,
}

/// Rows of one table that differ, among the images.
struct Changed {
    table: stream::Table,
    start: u64,
    end: u64,
}

impl Draft<'_> {
    fn write(&mut self, scratch: &Path, drafting: &mut Drafting<'_>) -> Result<(), DraftError> {
        let of_kind = |objects: &Objects, kind: &str| -> Vec<SchemaRow> {
            let mut rows: Vec<SchemaRow> = objects.values().filter(|row| row.kind == kind).cloned().collect();
            rows.sort_by_key(|row| row.rowid);
            rows
        };
        // Out of the way of the changes to tables, on the copy alone.
        for kind in ["trigger", "view"] {
            for row in of_kind(&objects(self.conn, &|_| false)?, kind) {
                self.conn.execute_batch(&format!("DROP {} {}", kind.to_uppercase(), quote(&row.name)))?;
            }
        }
        for row in of_kind(&self.olds, "index") {
            let key = (row.kind.clone(), row.name.to_ascii_lowercase());
            if self.news.get(&key).is_none_or(|new| new.sql != row.sql) {
                self.conn.execute_batch(&format!("DROP INDEX {}", quote(&row.name)))?;
            }
        }
        let (mut tables, mut doomed): (Vec<String>, Vec<Doomed>) = (Vec::new(), Vec::new());
        let mut built_anew = BTreeSet::new();
        for old in of_kind(&self.olds, "table") {
            match self.news.get(&(old.kind.clone(), old.name.to_ascii_lowercase())) {
                Some(new) if new.sql == old.sql => {}
                Some(new) if is_virtual(new) || is_virtual(&old) => {
                    return Err(refuse(old.shown(), "a virtual table was altered"));
                }
                Some(new) => {
                    self.asked.insert(old.shown());
                    let done = altered(self.conn, &old, new, drafting.review)?;
                    if done.is_anew {
                        built_anew.insert(old.name.to_ascii_lowercase());
                    }
                    draft_tables::lost(self.conn, AFTER, &old, new, drafting.review)?;
                    tables.extend(done.statements);
                }
                None => {
                    self.asked.insert(old.shown());
                    match is_virtual(&old) {
                        true => drafting.review.note(Concern::Goes, &old.shown(), String::new),
                        false => doomed.push(Doomed::of(self.conn, &old.name, &draft_tables::names_of(&old)?)?),
                    }
                    let sql = format!("DROP TABLE {}", quote(&old.name));
                    self.conn.execute_batch(&sql)?;
                    tables.push(sql);
                }
            }
        }
        let mut refilled = Vec::new();
        for new in of_kind(&self.news, "table") {
            let is_new = !self.olds.contains_key(&(new.kind.clone(), new.name.to_ascii_lowercase()));
            if is_virtual(&new) {
                refilled.extend(self.virtual_table(&new, is_new)?);
            }
            if is_new {
                let sql = new.sql.clone().unwrap_or_default();
                self.conn.execute_batch(&sql)?;
                tables.push(sql);
            }
        }
        let (mut images, changed) = self.rows(scratch, &of_kind(&self.news, "table"))?;
        let touched: BTreeSet<String> = changed.iter().map(|one| one.table.name.to_ascii_lowercase()).collect();
        let old_same = |row: &SchemaRow| {
            let key = (row.kind.clone(), row.name.to_ascii_lowercase());
            self.news.get(&key).is_some_and(|new| new.sql == row.sql && new.table == row.table)
        };
        let of = |row: &SchemaRow| row.table.to_ascii_lowercase();
        let has_table = |row: &SchemaRow| self.news.contains_key(&("table".to_owned(), of(row)));
        let is_gone = |row: &SchemaRow| {
            row.kind != "view" && !has_table(row) && self.olds.contains_key(&("table".to_owned(), of(row)))
        };
        // A trigger must not do again what it did here; what hangs on a table that is built anew goes with it.
        let goes = |row: &SchemaRow| {
            let with_table = built_anew.contains(&of(row)) || is_gone(row);
            (!old_same(row) || row.kind == "trigger" && touched.contains(&of(row))) && !with_table
        };
        let comes = |row: &SchemaRow| {
            let old = self.olds.get(&(row.kind.clone(), row.name.to_ascii_lowercase()));
            old.is_none_or(|old| goes(old) || built_anew.contains(&of(row)) || old.sql != row.sql)
        };
        let (mut away, mut back, mut asked) = (Vec::new(), Vec::new(), BTreeSet::new());
        for kind in ["trigger", "view", "index"] {
            for row in of_kind(&self.olds, kind).iter().filter(|row| goes(row)) {
                away.push(format!("DROP {} {}", kind.to_uppercase(), quote(&row.name)));
                asked.insert(row.shown());
            }
        }
        for kind in ["index", "view", "trigger"] {
            let made = of_kind(&self.news, kind);
            back.extend(made.iter().filter(|row| comes(row)).filter_map(|row| row.sql.clone()));
        }
        asked.extend(self.news.iter().filter(|(key, _)| !self.olds.contains_key(key)).map(|(_, row)| row.shown()));
        self.asked.extend(asked);
        let numbers = draft_tables::numbers(&self.counters, &self.news);
        let mut drafted = std::mem::take(&mut self.drafted);
        let mut rows = Rows::new(drafting, &mut drafted, SqliteRows);
        for one in &doomed {
            rows.table_goes(&one.shape.shown, &one.shape.name, one.all);
            one.first.iter().try_for_each(|row| rows.doomed(&one.shape, row))?;
        }
        for sql in away.iter().chain(&tables) {
            rows.statement(sql)?;
        }
        self.write_rows(&mut images, &changed, &mut rows)?;
        for sql in refilled.iter().chain(&back).chain(&numbers) {
            rows.statement(sql)?;
        }
        rows.end()?;
        for row in of_kind(&self.news, "table").iter().filter(|row| !is_virtual(row)) {
            drafted.after.extend(self.points_at_what_is_there(&row.name, &touched)?);
        }
        self.drafted = drafted;
        Ok(())
    }

    /// No more rows of a table point at nothing than here, where it or what it points at changed.
    fn points_at_what_is_there(&self, name: &str, touched: &BTreeSet<String>) -> Result<Option<Condition>, DraftError> {
        let parents = "SELECT lower(\"table\") FROM pragma_foreign_key_list(?1)";
        let mut parents = self.now.prepare(parents)?;
        let parents: Vec<String> = parents.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let is_touched = touched.contains(&name.to_ascii_lowercase());
        if parents.is_empty() || !is_touched && !parents.iter().any(|parent| touched.contains(parent)) {
            return Ok(None);
        }
        let sql = format!("SELECT count(*) FROM pragma_foreign_key_check({})", super::script_rows::text(name));
        let found: i64 = self.now.query_row(&sql, [], |row| row.get(0))?;
        Ok(Some(Condition { name: format!("rows of {name} point at rows"), sql, equals: found.to_string() }))
    }

    /// What fills a virtual table again, where what it is kept in differs.
    fn virtual_table(&self, new: &SchemaRow, is_new: bool) -> Result<Option<String>, DraftError> {
        let sql = new.sql.as_deref().unwrap_or_default();
        let module = schema::module_of(sql).unwrap_or_default().to_ascii_lowercase();
        // One that keeps no text of its own is filled from what it was made of.
        let mut words = tokens(sql).into_iter().skip_while(|token| !token.is("content"));
        let content = words.next().and_then(|_| {
            let mut rest = words.by_ref().skip_while(|token| token.is_sign(b'='));
            rest.next().and_then(|token| token.name())
        });
        if !is_new && !self.differs_within(&new.name)? {
            return Ok(None);
        }
        let name = quote(&new.name);
        // One that nobody filled yet is made and stays so.
        if is_new && module.starts_with("fts") && self.is_unfilled(&new.name)? {
            return Ok(None);
        }
        match (module.as_str(), content) {
            ("fts5" | "fts4", Some(table)) if !table.is_empty() => {
                Ok(Some(format!("INSERT INTO {name} ({name}) VALUES ('rebuild')")))
            }
            _ if is_new && !self.holds(&new.name)? => Ok(None),
            _ => Err(refuse(new.shown(), "what a virtual table holds changed")),
        }
    }

    /// True for a full-text table that knows no document.
    fn is_unfilled(&self, name: &str) -> Result<bool, DraftError> {
        let sizes = format!("{name}_docsize");
        let there = schema::object(self.now, "table", &sizes)?.is_some();
        Ok(there && !self.holds(&sizes)?)
    }

    fn holds(&self, name: &str) -> Result<bool, DraftError> {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", quote(name));
        Ok(self.now.query_row(&sql, [], |row| row.get(0))?)
    }

    /// True where the tables that a virtual one is kept in hold something else than before.
    fn differs_within(&self, name: &str) -> Result<bool, DraftError> {
        let mut shadows = self.now.prepare(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'
             AND substr(name, 1, length(?1) + 1) = ?1 || '_' COLLATE NOCASE",
        )?;
        let names: Vec<String> = shadows.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for shadow in names {
            if differs(self.conn, &shadow)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the rows that differ as images, table by table.
    fn rows(&self, scratch: &Path, tables: &[SchemaRow]) -> Result<(File, Vec<Changed>), DraftError> {
        let file = tempfile::tempfile_in(scratch)?;
        let mut writer = Writer::new(Box::new(file.try_clone()?))?;
        let (mut changed, mut index) = (Vec::new(), Index::default());
        for row in tables.iter().filter(|row| !is_virtual(row)) {
            let (table, _) = read_table(self.conn, &row.name)?;
            let start = writer.boundary()?;
            let number = u32::try_from(changed.len()).unwrap_or(u32::MAX);
            let mut told = |_| ();
            let mut sink = Sink::new(&mut writer, number, &mut told);
            compare(self.conn, &table, Some("main"), Some(AFTER), &mut sink)?;
            let found = sink.found.all();
            let end = writer.boundary()?;
            if found > 0 {
                index.tables.push(table.clone());
                index.events.push(Event::Rows { start, end, rows: found });
                changed.push(Changed { table, start, end });
            }
        }
        writer.finish(&index)?;
        Ok((file, changed))
    }

    /// Rows that go, what was changed, rows that come. Foreign keys are not enforced meanwhile, and looked at afterwards.
    fn write_rows(
        &self,
        images: &mut File,
        changed: &[Changed],
        rows: &mut Rows<'_, '_, SqliteRows>,
    ) -> Result<(), DraftError> {
        let names: Vec<String> = changed.iter().map(|one| one.table.name.to_ascii_lowercase()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut points = Vec::new();
        for name in &names {
            let mut keys = self.now.prepare("SELECT lower(\"table\") FROM pragma_foreign_key_list(?1)")?;
            for parent in keys.query_map([name], |row| row.get::<_, String>(0))? {
                points.push(((*name).to_owned(), parent?));
            }
        }
        let order = parents_first(&names, &points);
        let mut reader = Reader::open(images)?;
        for at in order.iter().rev() {
            self.write_some(&mut reader, &changed[*at], Op::Delete, rows)?;
        }
        for op in [Op::Update, Op::Insert] {
            for at in &order {
                self.write_some(&mut reader, &changed[*at], op, rows)?;
            }
        }
        Ok(())
    }

    fn write_some(
        &self,
        reader: &mut Reader<'_>,
        changed: &Changed,
        op: Op,
        rows: &mut Rows<'_, '_, SqliteRows>,
    ) -> Result<(), DraftError> {
        let table = &changed.table;
        let old = self.olds.get(&("table".to_owned(), table.name.to_ascii_lowercase()));
        let old = old.map(draft_tables::names_of).transpose()?;
        let shape = shape_of(self.now, table, old.as_deref())?;
        let mut block = Block::default();
        let mut at = changed.start;
        while at < changed.end {
            let head = reader.head(at)?;
            at = head.end();
            if head.only().is_some_and(|(only, _)| only != op) {
                continue;
            }
            reader.block(&head, &mut block)?;
            for number in 0..block.len() {
                let Record::Row(row) = block.record(number)? else { continue };
                if row.op != op {
                    continue;
                }
                let mut images = RowImages::default();
                row.images(table.columns.len(), &mut images)?;
                let before = || values_of(self.conn, table, images.rowid, &images.before);
                let after = || values_of(self.conn, table, images.new_rowid, &images.after);
                match op {
                    Op::Delete => rows.delete(&shape, &before()?)?,
                    Op::Insert => rows.insert(&shape, &after()?)?,
                    Op::Update => rows.update(&shape, &before()?, &after()?)?,
                }
            }
        }
        rows.pause()?;
        Ok(())
    }
}
