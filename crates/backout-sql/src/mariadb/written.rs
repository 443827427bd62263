//! Which tables a segment of rows may write to: those that its statements name, those that triggers and routines write to
//! on their behalf, and those whose rows follow by foreign keys. Reads only.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Error;

use super::capture::CaptureError;
use super::quiet;
use super::run::{Bodies, Run};
use super::sequence;
use super::session::{Session, literal};
use super::table::{self, ForeignKey, Table, There};

/// Room for a number or a digest of each of a table's columns.
const SMALLEST_PACKET: u64 = 1 << 19;

/// The tables that a run of statements may write to, with those that triggers and routines write to on its behalf, and those
/// whose rows follow by foreign keys.
pub fn tables(b: &mut Session, database: &str, run: &Run, bodies: &Bodies) -> Result<Plan, CaptureError> {
    let mut run = run.clone();
    if run.all {
        (run.deletes, run.updates) = (true, true);
    }
    run.reach(database, bodies)?;
    let mut written = BTreeSet::new();
    for (qualifier, name) in &run.names {
        match qualifier.as_deref() {
            Some(other) if other != database => {
                let sql = format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}", literal(other));
                if b.value(&sql)?.is_some() {
                    let why = format!("it may write to {other}.{name}, and only the site's own database is captured");
                    return Err(CaptureError::Uncapturable(why));
                }
                // An alias with a column.
                continue;
            }
            _ => {}
        }
        match table::there(b, name)? {
            // What is written through a view is written to the tables that its definition names.
            There::Nothing | There::View | There::Sequence => {}
            There::Table(engine) if engine.eq_ignore_ascii_case("InnoDB") => drop(written.insert(name.clone())),
            There::Table(engine) => return Err(of_engine(name, &engine)),
            There::Other(kind) => return Err(of_kind(name, &kind)),
        }
    }
    let links = if written.is_empty() { Vec::new() } else { table::foreign_keys(b)? };
    // All databases are looked through for that.
    let may_follow = (run.deletes || run.updates) && (run.all || !written.is_empty());
    let elsewhere = if may_follow { table::foreign_keys_across(b)? } else { Vec::new() };
    let mut plan = Plan { elsewhere, unchecks: run.says("foreign_key_checks"), ..Plan::default() };
    for name in &written {
        plan.add(b, name, &links, &run)?;
        plan.follow(b, name, &links, &run)?;
    }
    if run.all {
        let links = table::foreign_keys(b)?;
        for name in table::all(b)?.into_iter().filter(|name| !written.contains(name)) {
            // One that cannot be captured is left out: a statement that would write to it is refused when it is known.
            let mut more = plan.clone();
            match more.add(b, &name, &links, &run).and_then(|()| more.follow(b, &name, &links, &run)) {
                Ok(()) => plan = more,
                Err(CaptureError::Uncapturable(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    plan.triggers = triggers_of(b, plan.tables.keys())?;
    Ok(plan)
}

/// The same for a table that is emptied, where nothing acts on its behalf and nothing follows; `whole`: all of its rows go.
pub fn alone(b: &mut Session, name: &str, whole: bool) -> Result<Plan, CaptureError> {
    let mut plan = Plan::default();
    if let There::Table(engine) = table::there(b, name)?
        && !engine.eq_ignore_ascii_case("InnoDB")
    {
        return Err(of_engine(name, &engine));
    }
    plan.add(b, name, &[], &Run::default())?;
    if whole {
        match plan.copy_whole(b, name, &[]) {
            // Row by row, then.
            Err(CaptureError::Uncapturable(_)) => plan.copied.clear(),
            done => done?,
        }
    }
    plan.triggers = triggers_of(b, plan.tables.keys())?;
    Ok(plan)
}

fn of_engine(name: &str, engine: &str) -> CaptureError {
    let why = format!("the table {name} is of the engine {engine}, whose changes no transaction takes back");
    CaptureError::Uncapturable(why)
}

fn of_elsewhere(link: &ForeignKey) -> CaptureError {
    let why = format!(
        "rows of {} of another database would follow by the foreign key {}, and only the site's own database is captured",
        link.child_ident(),
        link.name
    );
    CaptureError::Uncapturable(why)
}

fn of_kind(name: &str, kind: &str) -> CaptureError {
    CaptureError::Uncapturable(format!("{name} is a {kind} table, which is not handled yet"))
}

/// The sequences that a run of statements may draw from, and where they stand: it says their names, or those of tables whose
/// defaults draw from them. What draws from others meanwhile is not the run.
pub fn drawn_from(
    b: &mut Session,
    database: &str,
    mut run: Run,
    bodies: &Bodies,
) -> Result<Vec<(String, String)>, CaptureError> {
    let mut all = sequence::all(b)?;
    if all.is_empty() || run.all {
        return Ok(all);
    }
    run.reach(database, bodies)?;
    let mut reached = BTreeSet::new();
    for (name, _) in &all {
        if run.says(name) || sequence::defaults(b, name)?.iter().any(|(table, _)| run.says(table)) {
            reached.insert(name.clone());
        }
    }
    all.retain(|(name, _)| reached.contains(name));
    Ok(all)
}

/// The application's triggers on tables, with their bodies.
pub fn triggers_of<'t>(
    session: &mut Session,
    tables: impl Iterator<Item = &'t String>,
) -> Result<Vec<(String, String)>, Error> {
    let mut all = Vec::new();
    for name in tables {
        let rows = session.rows(&format!(
            "SELECT TRIGGER_NAME, ACTION_STATEMENT FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()
             AND EVENT_OBJECT_TABLE = {} AND TRIGGER_NAME NOT LIKE 'backout\\_%' ORDER BY 1",
            literal(name)
        ))?;
        all.extend(rows.into_iter().filter_map(|mut row| Some((row[0].take()?, row[1].take()?))));
    }
    Ok(all)
}

/// What a segment may write to.
#[derive(Clone, Default)]
pub struct Plan {
    pub tables: BTreeMap<String, Table>,
    /// For each written table, the ways along foreign keys to tables that may follow it.
    pub paths: Vec<(String, Vec<ForeignKey>)>,
    pub written: BTreeSet<String>,
    /// Tables that are copied before and read again afterwards: what happens to their rows nobody can tell row by row.
    pub copied: BTreeSet<String>,
    pub triggers: Vec<(String, String)>,
    /// Foreign keys between a table of the database and one of another.
    elsewhere: Vec<ForeignKey>,
    /// A body that is run says how foreign keys are checked.
    pub unchecks: bool,
}

impl Plan {
    fn add(&mut self, b: &mut Session, name: &str, links: &[ForeignKey], run: &Run) -> Result<(), CaptureError> {
        self.written.insert(name.to_owned());
        self.look(b, name)?;
        // A trigger also sees a change that fails and is passed over by IGNORE, and a new time in a row that stays as it is;
        // without a key the row cannot be read again.
        let ignores = run.updates && run.says("ignore");
        let seems = |table: &Table| ignores || table.columns.iter().any(|column| column.moves);
        let found = self.tables.get(name);
        if found.is_some_and(|table| table.is_loose() && seems(table)) {
            self.copy_whole(b, name, links)?;
        }
        Ok(())
    }

    fn look(&mut self, b: &mut Session, name: &str) -> Result<(), CaptureError> {
        if self.tables.contains_key(name) {
            return Ok(());
        }
        if let There::Other(kind) = table::there(b, name)? {
            return Err(of_kind(name, &kind));
        }
        let found = Table::find(b, name)?;
        if found.columns.is_empty() {
            let why = format!("all columns of the table {name} are computed: its rows cannot be told apart");
            return Err(CaptureError::Uncapturable(why));
        }
        // Where a row's values are joined for its digest, they must fit.
        if found.is_loose() && b.number("SELECT @@max_allowed_packet")? < SMALLEST_PACKET {
            let why = format!(
                "the table {name} has no primary key, and max_allowed_packet is too small to tell its rows apart"
            );
            return Err(CaptureError::Uncapturable(why));
        }
        if let Some(why) = quiet::why_not(b, name)? {
            return Err(CaptureError::Uncapturable(why));
        }
        self.tables.insert(name.to_owned(), found);
        Ok(())
    }

    /// Seeks the tables whose rows follow those of `name` when these are changed or deleted.
    fn follow(&mut self, b: &mut Session, name: &str, links: &[ForeignKey], run: &Run) -> Result<(), CaptureError> {
        let follows = |link: &&ForeignKey| link.follows_deletes() || link.follows_updates();
        // A column may also move by itself, or be computed from one that is set.
        let own = self.tables.get(name).cloned();
        let moves =
            |column: &String| own.iter().all(|table| table.columns.iter().all(|one| one.name != *column || one.moves));
        let may_follow = |link: &&ForeignKey| {
            let may_change = run.may_set(&link.referenced) || link.referenced.iter().any(moves);
            let by_update = run.updates && link.follows_updates() && may_change;
            link.points_at(name) && (by_update || run.deletes && link.follows_deletes())
        };
        if let Some(link) = self.elsewhere.iter().find(may_follow) {
            return Err(of_elsewhere(link));
        }
        let mut open: Vec<Vec<ForeignKey>> = links.iter().filter(may_follow).map(|link| vec![link.clone()]).collect();
        while let Some(path) = open.pop() {
            let Some(last) = path.last() else { continue };
            let is_circle = last.child == name || path.iter().filter(|link| link.child == last.child).count() > 1;
            self.look_at_follower(b, &last.child)?;
            let child = &self.tables[&last.child];
            let in_key = |column: &String| child.key.iter().any(|at| child.columns[*at].name == *column);
            // Nothing tells what became of a row that has no key.
            if is_circle || child.is_loose() || last.follows_updates() && last.columns.iter().any(in_key) {
                self.copy_whole(b, &last.child, links)?;
                continue;
            }
            for link in links.iter().filter(|link| link.parent == last.child).filter(follows) {
                open.push(path.iter().cloned().chain([link.clone()]).collect());
            }
            self.paths.push((name.to_owned(), path));
        }
        Ok(())
    }

    /// A table is copied, and all that follows it.
    fn copy_whole(&mut self, b: &mut Session, name: &str, links: &[ForeignKey]) -> Result<(), CaptureError> {
        if !self.copied.insert(name.to_owned()) {
            return Ok(());
        }
        let isolation = b.value("SELECT @@GLOBAL.tx_isolation")?.unwrap_or_default();
        if !matches!(isolation.as_str(), "REPEATABLE-READ" | "SERIALIZABLE") {
            let why = format!(
                "rows of {name} follow by foreign keys in a way for which it has to be copied first, and under the isolation {isolation} others could write to it meanwhile"
            );
            return Err(CaptureError::Uncapturable(why));
        }
        self.look(b, name)?;
        for link in links.iter().filter(|link| link.parent == name) {
            if link.follows_deletes() || link.follows_updates() {
                self.look_at_follower(b, &link.child)?;
                self.copy_whole(b, &link.child, links)?;
            }
        }
        Ok(())
    }

    fn look_at_follower(&mut self, b: &mut Session, name: &str) -> Result<(), CaptureError> {
        let further = |link: &&ForeignKey| link.points_at(name) && (link.follows_deletes() || link.follows_updates());
        match self.elsewhere.iter().find(further) {
            Some(link) => Err(of_elsewhere(link)),
            None => self.look(b, name),
        }
    }
}
