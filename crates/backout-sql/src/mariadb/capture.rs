//! What a segment's statements do to rows, caught by triggers that act for the deployer's session alone.
//!
//! A trigger keeps the row as it was and the key as it is then. At the end the net effect is taken: for each key that was
//! touched its first image, and what stands there now, read again, because a trigger does not see what the server sets
//! by itself. Rows that a foreign key changes fire no trigger: those of the tables that may follow are kept by a trigger
//! on the table that they follow, before it changes.

use std::collections::BTreeSet;
use std::time::Duration;

use backout_model::target::TargetError;
use mysql::Error;

use super::asking::Asking;
use super::counters;
use super::loose;
use super::marker::Names;
use super::segment::Held;
use super::session::{Session, ident, is_lock_timeout, literal};
use super::table::{self, ForeignKey, Side, Table};
use super::written::{Plan, triggers_of};

/// How often a lock on a table's definition is sought, and how long is waited in between. The server itself waits for a
/// second each time: whoever waits for it holds every later statement on the table up.
const TRIES: u32 = 30;
const BETWEEN: Duration = Duration::from_millis(200);

/// The variable that is set while the deployer's own statements run.
const ARMED: &str = "@backout_capture";

/// Why rows cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It can never be, as things are.
    #[error("{0}")]
    Uncapturable(String),
    #[error(transparent)]
    Server(#[from] Error),
}

/// The capture of one segment.
pub struct Capture {
    names: Names,
    step: u64,
    number: u32,
    tables: Vec<(Table, Option<u64>)>,
    copied: BTreeSet<String>,
    triggers: Vec<(String, String)>,
    /// Where its rows are known without triggers of the tool's own.
    asking: Option<Asking>,
}

/// Runs what needs a table's definition for itself, again and again where others are in the way.
pub fn patiently<T>(mut work: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut tries = 0;
    loop {
        match work() {
            Err(error) if is_lock_timeout(&error) && tries < TRIES => {
                tries += 1;
                // Lets those pass that queued behind it.
                std::thread::sleep(BETWEEN);
            }
            other => return other,
        }
    }
}

impl Capture {
    /// Makes the holds and arms the triggers. Nothing is captured before [`Capture::begin`].
    pub fn arm(
        b: &mut Session,
        names: &Names,
        (step, number): (u64, u32),
        plan: Plan,
        asking: Option<Asking>,
    ) -> Result<Self, CaptureError> {
        let Plan { tables, mut paths, written, copied, triggers, .. } = plan;
        paths.retain(|(_, path)| path.last().is_some_and(|link| !copied.contains(&link.child)));
        let mut capture = Self { names: names.clone(), step, number, tables: Vec::new(), copied, triggers, asking };
        for table in tables.values() {
            let counter = table::counter(b, &table.name)?;
            let at = capture.tables.len();
            capture.tables.push((table.clone(), counter));
            capture.make_holds(b, at)?;
        }
        if capture.asking.is_some() {
            return Ok(capture);
        }
        for at in 0..capture.tables.len() {
            let name = &capture.tables[at].0.name;
            if written.contains(name) && !capture.copied.contains(name) {
                capture.make_triggers(b, at)?;
            }
        }
        for name in &written {
            let paths: Vec<&Vec<ForeignKey>> =
                paths.iter().filter(|(from, _)| from == name).map(|(_, path)| path).collect();
            if !paths.is_empty() {
                capture.make_followers(b, name, &paths)?;
            }
        }
        Ok(capture)
    }

    fn object(&self, at: usize, what: &str) -> String {
        self.names.of_segment(self.step, self.number, &format!("{at}{what}"))
    }

    fn make_holds(&self, b: &mut Session, at: usize) -> Result<(), Error> {
        let table = &self.tables[at].0;
        for side in ["b", "a"] {
            b.run(&format!("CREATE TABLE `{}` {}", self.object(at, side), table.hold()))?;
        }
        let note = self.tables[at].1.map(|counter| counters::noted(&table.name, counter)).unwrap_or_default();
        if table.is_loose() {
            return b.run(&format!("CREATE TABLE `{}` {}{note}", self.object(at, "l"), loose::log(table)));
        }
        let key: Vec<String> = table.key.iter().map(|at| format!("k{at} {} NULL", table.columns[*at].kind)).collect();
        b.run(&format!(
            "CREATE TABLE `{}` (seq bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, op char(1) NOT NULL, {}, {}) ENGINE=InnoDB{note}",
            self.object(at, "l"),
            table.logged(),
            key.join(", "),
        ))?;
        let keys: Vec<String> =
            table.key.iter().map(|at| format!("c{at} {} NOT NULL", table.columns[*at].kind)).collect();
        let names: Vec<String> = table.key.iter().map(|at| format!("c{at}")).collect();
        b.run(&format!(
            "CREATE TABLE `{}` ({}, seq bigint unsigned NOT NULL, PRIMARY KEY ({})) ENGINE=InnoDB",
            self.object(at, "k"),
            keys.join(", "),
            names.join(", ")
        ))
    }

    /// The triggers that keep the rows of one table. They run under the settings under which they were made: those of
    /// the tool, which take every value as it is.
    fn make_triggers(&self, b: &mut Session, at: usize) -> Result<(), Error> {
        let table = &self.tables[at].0;
        let log = self.object(at, "l");
        let insertions = if table.is_loose() { loose::insertions(table, &log) } else { insertions(table, &log) };
        for (what, event, insertion) in insertions {
            let sql = format!(
                "CREATE TRIGGER `{}` AFTER {event} ON {} FOR EACH ROW IF {} THEN {insertion}; END IF",
                self.object(at, what),
                ident(&table.name),
                self.armed(),
            );
            patiently(|| b.run(&sql))?;
        }
        Ok(())
    }

    fn armed(&self) -> String {
        format!("{ARMED} <=> '{}/{}'", self.step, self.number)
    }

    fn place(&self, name: &str) -> usize {
        self.tables.iter().position(|(table, _)| table.name == name).unwrap_or_default()
    }

    /// The triggers that keep what follows the rows of one table, before these change.
    fn make_followers(&self, b: &mut Session, name: &str, paths: &[&Vec<ForeignKey>]) -> Result<(), Error> {
        for (what, event) in [("e", "DELETE"), ("v", "UPDATE")] {
            let mut body = String::new();
            for path in paths {
                let first = &path[0];
                let follows = if event == "DELETE" { first.follows_deletes() } else { first.follows_updates() };
                if follows {
                    let insert = self.keep_followers(path);
                    let changed: Vec<String> = first
                        .referenced
                        .iter()
                        .map(|name| format!("BINARY OLD.{0} <=> BINARY NEW.{0}", ident(name)))
                        .collect();
                    body += &match event {
                        "DELETE" => insert,
                        _ => format!("IF NOT ({}) THEN {insert} END IF; ", changed.join(" AND ")),
                    };
                }
            }
            if body.is_empty() {
                continue;
            }
            let sql = format!(
                "CREATE TRIGGER `{}` BEFORE {event} ON {} FOR EACH ROW IF {} THEN {body} END IF",
                self.object(self.place(name), what),
                ident(name),
                self.armed()
            );
            patiently(|| b.run(&sql))?;
        }
        Ok(())
    }

    /// The statement that keeps the rows at the end of a way along foreign keys.
    fn keep_followers(&self, path: &[ForeignKey]) -> String {
        let on = |link: &ForeignKey, child: &str, parent: &str| {
            let pairs = link.columns.iter().zip(&link.referenced);
            pairs
                .map(|(own, other)| format!("{child}.{} = {parent}.{}", ident(own), ident(other)))
                .collect::<Vec<_>>()
                .join(" AND ")
        };
        let last = path.len() - 1;
        let at = self.place(&path[last].child);
        let table = &self.tables[at].0;
        let mut from = format!("{} AS f0", ident(&path[0].child));
        for (step, link) in path.iter().enumerate().skip(1) {
            from += &format!(
                " JOIN {} AS f{step} ON {}",
                ident(&link.child),
                on(link, &format!("f{step}"), &format!("f{}", step - 1))
            );
        }
        let key: Vec<String> = table.key.iter().map(|at| format!("k{at}")).collect();
        let live_key: Vec<String> =
            table.key.iter().map(|at| format!("f{last}.{}", ident(&table.columns[*at].name))).collect();
        format!(
            "INSERT INTO `{}` (op, {}, {}) SELECT 'U', {}, {} FROM {from} WHERE {} LOCK IN SHARE MODE; ",
            self.object(at, "l"),
            table.held(""),
            key.join(", "),
            table.live(&format!("f{last}.")),
            live_key.join(", "),
            on(&path[0], "f0", "OLD")
        )
    }

    /// From here on what the session does is captured.
    pub fn begin(&self, a: &mut Session) -> Result<(), Error> {
        // Each row and each gap is locked: until the end nobody else can change a table that is copied.
        a.aside(|a| {
            self.tables.iter().enumerate().try_for_each(|(at, (table, _))| match self.copied.contains(&table.name) {
                true if table.is_loose() => loose::put_away(a, table, &self.object(at, "b")),
                true => a.run(&self.copy(at, table, "b", " FOR UPDATE")),
                false => Ok(()),
            })
        })?;
        a.run(&format!("SET {ARMED} = '{}/{}'", self.step, self.number))
    }

    /// Right before a statement that changes rows; see [`Asking::ask`].
    pub fn ask(&mut self, a: &mut Session) -> Result<(), CaptureError> {
        let Some(mut asking) = self.asking.take() else { return Ok(()) };
        let done = asking.ask(a, |name| self.object(self.place(name), "b"));
        self.asking = Some(asking);
        done
    }

    /// Right behind it; see [`Asking::told`].
    pub fn told(&mut self, a: &mut Session) -> Result<(), CaptureError> {
        self.asking.as_mut().map_or(Ok(()), |asking| asking.told(a))
    }

    /// True where all that a plan names is watched, and copied where it has to be.
    pub fn covers(&self, plan: &Plan) -> bool {
        let watched = |name: &String| self.tables.iter().any(|(table, _)| table.name == *name);
        plan.tables.keys().all(watched) && plan.copied.iter().all(|name| self.copied.contains(name))
    }

    /// Where the counter of a table stood before.
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.tables.iter().find(|(table, _)| table.name == name).and_then(|(_, counter)| *counter)
    }

    /// A table of which only the counter changes.
    pub fn untouched(&self, name: &str, counter: (u64, u64)) -> Option<Held> {
        let at = self.tables.iter().position(|(table, _)| table.name == name)?;
        let table = self.tables[at].0.clone();
        Some(Held { table, at: index(at), before: 0, after: 0, counter: Some(counter) })
    }

    fn copy(&self, at: usize, table: &Table, side: &str, locked: &str) -> String {
        let (hold, live) = (self.object(at, side), ident(&table.name));
        format!("INSERT INTO `{hold}` ({}) SELECT {} FROM {live}{locked}", table.held(""), table.live(""))
    }

    /// A trigger that came, went or changed after the tables were looked at: what it did may have been missed. None can
    /// come before the commit, once a table was touched.
    pub fn changed_trigger(&self, a: &mut Session) -> Result<Option<String>, Error> {
        let now = triggers_of(a, self.tables.iter().map(|(table, _)| &table.name))?;
        let differs = |one: &[(String, String)], other: &[(String, String)]| {
            one.iter().find(|trigger| !other.contains(trigger)).map(|(name, _)| name.clone())
        };
        Ok(differs(&now, &self.triggers).or_else(|| differs(&self.triggers, &now)))
    }

    /// Takes the net effect, in the session's open transaction. `took_back`: the script took some of it back itself, which
    /// leaves counters where they are.
    pub fn finish(&mut self, a: &mut Session, took_back: bool) -> Result<Vec<Held>, CaptureError> {
        if let Some(asking) = &mut self.asking {
            asking.count_what_came(a)?;
        }
        a.run(&format!("SET {ARMED} = NULL"))?;
        let mut all = Vec::new();
        for (at, (table, counter)) in self.tables.iter().enumerate() {
            let now = table::counter(a, &table.name)?;
            let counter = counter.zip(now).filter(|(was, is)| was != is);
            let [log, before, after] = ["l", "b", "a"].map(|what| self.object(at, what));
            if let Some(asking) = &self.asking {
                let Some((before, after)) = asking.net(a, &table.name, &before, &after)? else { continue };
                let counter = counter.filter(|_| before + after > 0 || asking.counts(&table.name));
                if before + after > 0 || counter.is_some() {
                    all.push(Held { table: table.clone(), at: index(at), before, after, counter });
                }
                continue;
            }
            let copied = self.copied.contains(&table.name);
            if !copied && a.value(&format!("SELECT 1 FROM `{log}` LIMIT 1"))?.is_none() {
                if !took_back || counter.is_none() {
                    continue;
                }
            } else if table.is_loose() {
                match copied {
                    true => loose::compare(a, table, [&before, &after])?,
                    false => loose::net_of_log(a, table, &log, [&before, &after])?,
                }
            } else if copied {
                a.run(&self.copy(at, table, "a", ""))?;
                forget_unchanged(a, table, &before, &after)?;
            } else {
                self.net(a, at)?;
            }
            let (before, after) = (table.rows_held(a, &before)?, table.rows_held(a, &after)?);
            // Rows that came and went again may have moved it, too.
            if before + after > 0 || counter.is_some() {
                all.push(Held { table: table.clone(), at: index(at), before, after, counter });
            }
        }
        Ok(all)
    }

    fn net(&self, a: &mut Session, at: usize) -> Result<(), Error> {
        let table = &self.tables[at].0;
        let [log, keys, before, after] = ["l", "k", "b", "a"].map(|what| self.object(at, what));
        let named: Vec<String> = table.key.iter().map(|at| format!("c{at}")).collect();
        let named = named.join(", ");
        let moved: Vec<String> = table.key.iter().map(|at| format!("k{at}")).collect();
        let moved = moved.join(", ");
        // A row that keeps its key has one there already.
        let other: Vec<String> =
            table.key.iter().map(|at| format!("BINARY k{at} <=> BINARY c{at} AND k{at} <=> c{at}")).collect();
        let other = format!("op = 'I' OR op = 'U' AND NOT ({})", other.join(" AND "));
        // A time among them would move by itself.
        let stays: String = table.key.iter().map(|at| format!(", c{at} = `{keys}`.c{at}")).collect();
        for (key, of) in [(&named, "op <> 'I'"), (&moved, other.as_str())] {
            a.run(&format!(
                "INSERT INTO `{keys}` ({named}, seq) SELECT {key}, seq FROM `{log}` WHERE {of} ORDER BY seq
                 ON DUPLICATE KEY UPDATE seq = LEAST(`{keys}`.seq, VALUES(seq)){stays}"
            ))?;
        }
        let same: Vec<String> = table.key.iter().map(|at| format!("l.c{at} = k.c{at}")).collect();
        a.run(&format!(
            "INSERT INTO `{before}` ({}) SELECT {} FROM `{keys}` AS k JOIN `{log}` AS l ON l.seq = k.seq WHERE l.op <> 'I' AND {}",
            table.held(""),
            table.held("l."),
            same.join(" AND ")
        ))?;
        a.run(&format!(
            "INSERT INTO `{after}` ({}) SELECT {} FROM `{keys}` AS k STRAIGHT_JOIN {} AS x ON {}",
            table.held(""),
            table.live("x."),
            ident(&table.name),
            table.keyed(Side::Live("x"), Side::Held("k"))
        ))?;
        forget_unchanged(a, table, &before, &after)
    }

    /// Takes the triggers away; what only the capture needed goes, too.
    pub fn disarm(&self, b: &mut Session) -> Result<(), Error> {
        drop_triggers(b, &self.names, Some((self.step, self.number)))?;
        for at in 0..self.tables.len() {
            b.run(&format!("DROP TABLE IF EXISTS `{}`, `{}`", self.object(at, "l"), self.object(at, "k")))?;
        }
        Ok(())
    }

    /// Drops holds that nobody needs: of tables that the segment left as they were, or of all where it came to nothing.
    pub fn drop_holds(&self, b: &mut Session, needed: &[Held]) -> Result<(), Error> {
        for at in 0..self.tables.len() {
            if !needed.iter().any(|held| held.at as usize == at) {
                b.run(&format!("DROP TABLE IF EXISTS `{}`, `{}`", self.object(at, "b"), self.object(at, "a")))?;
            }
        }
        Ok(())
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// What keeps an inserted, updated and deleted row in the log of a table with a key: as it was, and the key that it has then.
fn insertions(table: &Table, log: &str) -> [(&'static str, &'static str, String); 3] {
    let of = |begin: &str| table.key.iter().map(|at| format!("{begin}{at}")).collect::<Vec<_>>().join(", ");
    let key =
        table.key.iter().map(|at| format!("NEW.{}", ident(&table.columns[*at].name))).collect::<Vec<_>>().join(", ");
    let nothing = vec!["NULL"; table.columns.len()].join(", ");
    let no_key = vec!["NULL"; table.key.len()].join(", ");
    let old = table.live("OLD.");
    let insertion =
        |values: String| format!("INSERT INTO `{log}` (op, {}, {}) VALUES ({values})", table.held(""), of("k"));
    [
        ("i", "INSERT", insertion(format!("'I', {nothing}, {key}"))),
        ("u", "UPDATE", insertion(format!("'U', {old}, {key}"))),
        ("d", "DELETE", insertion(format!("'D', {old}, {no_key}"))),
    ]
}

/// Takes rows that are the same before and after out of both holds.
pub fn forget_unchanged(a: &mut Session, table: &Table, before: &str, after: &str) -> Result<(), Error> {
    let (b, f) = (Side::Held("b"), Side::Held("f"));
    a.run(&format!(
        "DELETE b, f FROM `{before}` AS b JOIN `{after}` AS f ON {} WHERE {}",
        table.keyed(b, f),
        table.all_same(b, f)
    ))
}

/// Puts aside what stands in the table under the keys of its two holds, as the temporary table `aside`.
/// Of a loose table none is under any.
pub fn put_aside(a: &mut Session, table: &Table, before: &str, after: &str, aside: &str) -> Result<(), Error> {
    if table.is_loose() {
        return Ok(());
    }
    let named = table.key.iter().map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
    a.run(&format!("CREATE TEMPORARY TABLE {aside} {}", table.hold()))?;
    a.run(&format!(
        "INSERT INTO {aside} ({}) SELECT {} FROM (SELECT {named} FROM `{before}` UNION SELECT {named} FROM `{after}`) AS k
         STRAIGHT_JOIN {} AS x ON {} FOR UPDATE",
        table.held(""),
        table.live("x."),
        ident(&table.name),
        table.keyed(Side::Live("x"), Side::Held("k"))
    ))
}

/// Fills two holds anew in a redo: with what was put aside before it, and with what it left. Those of a loose table are what
/// it did.
pub fn rehold(a: &mut Session, table: &Table, before: &str, after: &str, aside: &str) -> Result<(), Error> {
    if table.is_loose() {
        return Ok(());
    }
    put_aside(a, table, before, after, "backout_left")?;
    for (hold, from) in [(before, aside), (after, "backout_left")] {
        a.run(&format!("DELETE FROM `{hold}`"))?;
        a.run(&format!("INSERT INTO `{hold}` SELECT * FROM {from}"))?;
        a.run(&format!("DROP TEMPORARY TABLE {from}"))?;
    }
    forget_unchanged(a, table, before, after)
}

/// Drops the tool's triggers: those of one segment, or all that this site ever made but for those beside a copy.
pub fn drop_triggers(b: &mut Session, names: &Names, of: Option<(u64, u32)>) -> Result<(), Error> {
    let condition = match of {
        Some((step, number)) => {
            let begin = names.of_segment(step, number, "");
            format!("LEFT(TRIGGER_NAME, {}) = {}", begin.len(), literal(&begin))
        }
        None => {
            let copies = names.object("c");
            let beside = format!("LEFT(TRIGGER_NAME, {}) = {}", copies.len(), literal(&copies));
            format!("{} AND NOT {beside}", names.condition("TRIGGER_NAME"))
        }
    };
    let found = b.rows(&format!(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() AND {condition}"
    ))?;
    for row in found {
        let name = row[0].clone().unwrap_or_default();
        patiently(|| b.run(&format!("DROP TRIGGER IF EXISTS {}", ident(&name))))?;
    }
    Ok(())
}

/// What cannot be captured is refused; any other failure is the step's.
pub fn uncaptured(label: &str, source: Error) -> TargetError {
    let act = format!("cannot capture what changes in {label}");
    match &source {
        Error::MySqlError(error) if error.code == 1419 => TargetError::failed(
            act,
            "the server lets only a superuser make triggers while its binary log is on: ask for log_bin_trust_function_creators = 1",
        ),
        _ => TargetError::failed(act, source),
    }
}
