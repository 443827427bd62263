//! What hangs on the objects that a change of the schema is about: foreign keys of other tables, and views, triggers, routines
//! and events whose text names them. What others hung there since would be left pointing at nothing, or at the hold.
//!
//! A foreign key follows a table that gets another name. Where a table goes into the hold or comes from there, those of other
//! tables stay with the name instead, as they do where the server itself drops and makes it.

use std::collections::BTreeSet;
use std::iter;

use backout_model::target::TargetError;
use mysql::Error;
use serde::{Deserialize, Serialize};

use super::Mariadb;
use super::capture::patiently;
use super::ddl::{Change, definition, net_names};
use super::ddl_links;
use super::ddl_shape::Shape;
use super::ddl_text::{self, Kind};
use super::modes;
use super::quiet;
use super::replay::{Direction, Replay};
use super::segment::{Detail, Segment};
use super::sequence;
use super::session::{Session, ident, literal};
use super::table::{self, There};
use super::token::each_token;

/// A foreign key of another table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub child: String,
    pub name: String,
    /// As the server writes it.
    pub line: String,
}

impl Link {
    fn known(&self) -> String {
        format!("the foreign key {} of {}", self.name, self.child)
    }
}

/// What hangs on the objects of one change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hung {
    /// What did before it already; objects with the digest of their text.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub known: BTreeSet<String>,
    /// Foreign keys that are to stay with the names that move.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
}

/// What kind of object, its name, of a trigger its table, and its text.
const NAMERS_VIEWS: &str =
    "SELECT 'view' AS word, TABLE_NAME AS name, NULL AS at, VIEW_DEFINITION AS text, '' AS mode FROM information_schema.VIEWS
     WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE 'backout\\_%'";
const NAMERS_TRIGGERS: &str =
    "SELECT 'trigger', TRIGGER_NAME, EVENT_OBJECT_TABLE, ACTION_STATEMENT, SQL_MODE FROM information_schema.TRIGGERS
     WHERE TRIGGER_SCHEMA = DATABASE() AND TRIGGER_NAME NOT LIKE 'backout\\_%'";
const NAMERS_ROUTINES: &str =
    "SELECT LOWER(ROUTINE_TYPE), ROUTINE_NAME, NULL, ROUTINE_DEFINITION, SQL_MODE FROM information_schema.ROUTINES
     WHERE ROUTINE_SCHEMA = DATABASE()";
const NAMERS_EVENTS: &str =
    "SELECT 'event', EVENT_NAME, NULL, EVENT_DEFINITION, SQL_MODE FROM information_schema.EVENTS
     WHERE EVENT_SCHEMA = DATABASE()";

/// An object that is more than its name, as far as it may name others.
struct Namer {
    word: String,
    name: String,
    /// Of a trigger, its table.
    table: Option<String>,
    text: String,
    digest: String,
    /// It is read in another way than texts are here: whatever stands in it may be a name.
    otherwise: bool,
}

impl Namer {
    fn shown(&self) -> String {
        format!("the {} {}", self.word, self.name)
    }

    fn known(&self) -> String {
        format!("{} {}", self.shown(), self.digest)
    }

    fn names(&self, going: &Going) -> bool {
        let says = |names: &[String], own: Option<&String>| {
            let is = |word: &str| names.iter().any(|name| name.eq_ignore_ascii_case(word));
            let stands = || {
                let text = self.text.to_lowercase();
                names.iter().any(|name| text.contains(&name.to_lowercase()))
            };
            own.is_some_and(|own| is(own))
                || self.otherwise && stands()
                || each_token(&self.text).any(|token| token.name().is_some_and(|name| is(&name)))
        };
        let own = self.table.as_ref().filter(|_| going.on_it);
        says(&going.names, own) && going.columns.as_ref().is_none_or(|columns| says(columns, None))
    }
}

/// Names that a replay takes away; `columns`: only with these.
#[derive(Default)]
struct Going {
    names: Vec<String>,
    columns: Option<Vec<String>>,
    /// A trigger names the table that it is on.
    on_it: bool,
}

impl Going {
    /// What the undo of a change takes away. `columns`: of a view, those that only the new one has.
    fn of(change: &Change, columns: Option<Vec<String>>) -> Self {
        let (names, columns, on_it) = match change {
            Change::Made { name, .. } => (vec![name.clone()], None, false),
            Change::Swapped { name, .. } => (vec![name.clone()], Some(columns.unwrap_or_default()), true),
            Change::Renamed { pairs, .. } => (net_names(pairs).1, None, false),
            Change::Altered(altered) => {
                let (before, after) = (Shape::of(&altered.before), Shape::of(&altered.after));
                let going =
                    after.columns.into_iter().map(|(name, _)| name).filter(|name| before.column(name).is_none());
                (vec![altered.name.clone()], Some(going.collect()), true)
            }
            Change::Told(told) => match (told.kind, &told.before) {
                (Kind::View, _) | (Kind::Function | Kind::Procedure, None) => (vec![told.name.clone()], None, false),
                _ => (Vec::new(), None, false),
            },
            Change::Dropped { .. } | Change::Relinked { .. } => (Vec::new(), None, false),
        };
        Self { names, columns, on_it }
    }

    fn is_nothing(&self) -> bool {
        self.names.is_empty() || self.columns.as_ref().is_some_and(Vec::is_empty)
    }
}

/// The tables and views whose names a change moves into the hold or out of it.
fn held_names(change: &Change) -> Vec<&str> {
    match change {
        Change::Made { name, .. } | Change::Swapped { name, .. } => vec![name],
        Change::Dropped { gone } => gone.iter().map(|one| one.name.as_str()).collect(),
        Change::Renamed { .. } | Change::Altered(_) | Change::Relinked { .. } | Change::Told(_) => Vec::new(),
    }
}

/// All objects that may name others, but for the tool's own. `held`: how the body of a trigger begins that is held still.
fn namers(b: &mut Session, held: &str) -> Result<Vec<Namer>, Error> {
    let rows = b.rows(&format!(
        "{NAMERS_VIEWS} UNION ALL {NAMERS_TRIGGERS} UNION ALL {NAMERS_ROUTINES} UNION ALL {NAMERS_EVENTS}"
    ))?;
    let one = |row: Vec<Option<String>>| {
        let [word, name, table, text, modes] = <[_; 5]>::try_from(row).ok()?;
        let text = text.unwrap_or_default();
        let text = quiet::plain(&text, held).unwrap_or(text);
        let digest = blake3::hash(text.trim_end().as_bytes()).to_hex()[..16].to_owned();
        let otherwise = modes::stored_otherwise(modes.as_deref(), None).is_some();
        Some(Namer { word: word?, name: name?, table, text, digest, otherwise })
    };
    Ok(rows.into_iter().filter_map(one).collect())
}

/// The foreign keys of other tables that point at these.
fn links_at(b: &mut Session, parents: &[&str]) -> Result<Vec<Link>, Error> {
    if parents.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = parents.iter().map(|parent| literal(parent)).collect();
    let names = names.join(", ");
    let rows = b.rows(&format!(
        "SELECT DISTINCT TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE()
         AND REFERENCED_TABLE_NAME IN ({names}) AND TABLE_NAME NOT IN ({names}) ORDER BY 1"
    ))?;
    let children = rows.into_iter().filter_map(|mut row| row[0].take());
    let mut all = Vec::new();
    for child in children {
        for (name, line) in Shape::of(&definition(b, &child)?.unwrap_or_default()).links {
            if ddl_links::link(&line).is_some_and(|(_, parent, _)| parents.contains(&parent.as_str())) {
                all.push(Link { child: child.clone(), name, line });
            }
        }
    }
    Ok(all)
}

/// In words, the foreign keys of tables of other databases that point at these, as far as the user may see them. None can stay
/// with a name that moves.
fn links_elsewhere(b: &mut Session, parents: &[&str]) -> Result<Vec<String>, Error> {
    if parents.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = parents.iter().map(|parent| literal(parent)).collect();
    let rows = b.rows(&format!(
        "SELECT CONCAT('the foreign key ', CONSTRAINT_NAME, ' of ', CONSTRAINT_SCHEMA, '.', TABLE_NAME)
         FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE UNIQUE_CONSTRAINT_SCHEMA = DATABASE()
         AND CONSTRAINT_SCHEMA <> DATABASE() AND REFERENCED_TABLE_NAME IN ({}) ORDER BY 1",
        names.join(", ")
    ))?;
    Ok(rows.into_iter().filter_map(|mut row| row[0].take()).collect())
}

/// Why a change cannot be made: a foreign key of another database would follow a table into the hold.
pub fn why_not(b: &mut Session, change: &Change) -> Result<Option<String>, Error> {
    let mut names: Vec<&str> = held_names(change);
    if let Change::Renamed { .. } = change {
        names.extend(change.names());
    }
    let found = links_elsewhere(b, &names)?.into_iter().next();
    Ok(found.map(|link| format!("{link} of another database points at what it is about")))
}

/// Those of other databases that the undo of a change cannot leave as they are, whatever becomes of conflicts.
pub fn immovable(b: &mut Session, change: &Change, hung: &Hung) -> Result<Vec<String>, Error> {
    let names = match change {
        Change::Altered(altered) => vec![altered.name.as_str()],
        Change::Made { name, .. } | Change::Swapped { name, .. } => vec![name.as_str()],
        _ => Vec::new(),
    };
    let mut found = links_elsewhere(b, &names)?;
    found.retain(|link| !hung.known.contains(link));
    Ok(found)
}

/// Those that pointed at names which tables have by a change.
fn links_with_new_names(b: &mut Session, change: &Change, known: &BTreeSet<String>) -> Result<Vec<Link>, Error> {
    let Change::Renamed { pairs, .. } = change else { return Ok(Vec::new()) };
    let new = net_names(pairs).1;
    let mut links = links_at(b, &new.iter().map(String::as_str).collect::<Vec<_>>())?;
    links.retain(|link| known.contains(&link.known()));
    Ok(links)
}

/// What hangs on what a change is about, before it happens. The names that columns will have are not known yet: so it is all
/// that names their table.
pub fn before(b: &mut Session, change: &Change, held: &str) -> Result<Hung, Error> {
    let mut going = Going::of(change, None);
    going.columns = None;
    let mut hung = Hung::default();
    if !going.names.is_empty() {
        hung.known = namers(b, held)?.iter().filter(|one| one.names(&going)).map(Namer::known).collect();
    }
    let mut parents = held_names(change);
    if let Change::Altered(altered) = change {
        parents.push(&altered.name);
    }
    let mut links = links_at(b, &parents)?;
    if let Change::Renamed { pairs, .. } = change {
        let new = net_names(pairs).1;
        links.extend(links_at(b, &new.iter().map(String::as_str).collect::<Vec<_>>())?);
    }
    hung.known.extend(links.iter().map(Link::known));
    if let Change::Altered(_) = change {
        hung.known.extend(links_elsewhere(b, &parents)?);
    }
    if !matches!(change, Change::Altered(_)) {
        hung.links = links;
    }
    // One that comes in the place of another, or under a name that was missed.
    let coming = match change {
        Change::Made { name, .. } => vec![name.clone()],
        Change::Renamed { pairs, .. } => net_names(pairs).1,
        _ => Vec::new(),
    };
    for name in coming {
        hung.known.extend(sequence::defaults(b, &name)?.into_iter().map(|(_, shown)| shown));
    }
    Ok(hung)
}

/// In words, what hangs on what the replay of a change takes away, and did not before the change. `passed`: names of what the
/// same act takes away before it; `names`: those of the hold, and see [`namers`].
pub fn strangers(
    b: &mut Session,
    change: &Change,
    hung: &Hung,
    names: (&str, &str),
    undo: bool,
    passed: &BTreeSet<String>,
) -> Result<Vec<String>, Error> {
    let (hold, held) = names;
    let mut all = Vec::new();
    if undo {
        let columns = match change {
            Change::Swapped { name, .. } => {
                let (now, was) = (columns(b, name)?, columns(b, hold)?);
                Some(now.into_iter().filter(|column| !was.contains(column)).collect())
            }
            _ => None,
        };
        let going = Going::of(change, columns);
        if !going.is_nothing() {
            let new =
                |one: &&Namer| one.names(&going) && !hung.known.contains(&one.known()) && !passed.contains(&one.name);
            all.extend(namers(b, held)?.iter().filter(new).map(Namer::shown));
        }
    }
    let sequences: Vec<String> = match change {
        Change::Made { name, definition, .. } if sequence::is_one(definition) => vec![name.clone()],
        Change::Renamed { pairs, .. } => net_names(pairs).1,
        _ => Vec::new(),
    };
    for name in sequences.iter().filter(|_| undo) {
        if table::there(b, name)? != There::Sequence {
            continue;
        }
        let drawing = sequence::defaults(b, name)?;
        let new = |(table, shown): &(String, String)| !passed.contains(table) && !hung.known.contains(shown);
        all.extend(drawing.into_iter().filter(new).map(|(_, shown)| shown));
    }
    let parents = match change {
        Change::Made { name, .. } if undo => vec![name.as_str()],
        Change::Altered(altered) if undo => vec![altered.name.as_str()],
        Change::Dropped { .. } | Change::Swapped { .. } if !undo => held_names(change),
        _ => Vec::new(),
    };
    if undo {
        all.extend(immovable(b, change, hung)?);
    } else {
        all.extend(links_elsewhere(b, &parents)?);
    }
    let links = links_at(b, &parents)?;
    let new = |link: &&Link| !hung.known.contains(&link.known()) && !passed.contains(&link.child);
    let stays = |link: &&Link| match change {
        Change::Altered(altered) => bears(&Shape::of(&altered.before), &Shape::of(&altered.after), link),
        _ => false,
    };
    all.extend(links.iter().filter(new).filter(|link| !stays(link)).map(Link::known));
    Ok(all)
}

fn columns(b: &mut Session, name: &str) -> Result<Vec<String>, Error> {
    Ok(table::Table::find(b, name)?.columns.into_iter().map(|column| column.name).collect())
}

/// True where a table of the one shape can be pointed at as one of the other can.
fn bears(before: &Shape, after: &Shape, link: &Link) -> bool {
    let Some((_, _, referenced)) = ddl_links::link(&link.line) else { return false };
    let same = referenced.iter().all(|name| before.column(name).is_some() && before.column(name) == after.column(name));
    let columns: Vec<String> = referenced.iter().map(|name| ident(name)).collect();
    let columns = format!("({}", columns.join(","));
    let leads =
        |line: &str| line.split_once(&columns).is_some_and(|(_, rest)| rest.starts_with(',') || rest.starts_with(')'));
    same && before.keys.iter().any(|(_, line)| leads(line))
}

/// What a script for `mariadb` is to stop at: objects that name what the undo of a change takes away, beyond those that do now.
pub fn newer(b: &mut Session, change: &Change, held: &str) -> Result<Option<String>, Error> {
    let mut going = Going::of(change, Some(vec![String::new()]));
    if going.is_nothing() {
        return Ok(None);
    }
    going.columns = None;
    let now: Vec<String> =
        namers(b, held)?.iter().filter(|one| one.names(&going)).map(|one| literal(&one.shown())).collect();
    let now = if now.is_empty() { "''".to_owned() } else { now.join(", ") };
    let names = going
        .names
        .iter()
        .map(|name| format!("text REGEXP {}", literal(&format!("(?i)(^|[^0-9a-z_$])\\Q{name}\\E([^0-9a-z_$]|$)"))));
    let names: Vec<String> = names.collect();
    Ok(Some(format!(
        "EXISTS (SELECT 1 FROM ({NAMERS_VIEWS} UNION ALL {NAMERS_TRIGGERS} UNION ALL {NAMERS_ROUTINES} UNION ALL {NAMERS_EVENTS}) AS n
       WHERE ({}) AND CONCAT('the ', word, ' ', name) NOT IN ({now}))",
        names.join(" OR ")
    )))
}

/// The statements by which the undo of a change has foreign keys of other tables stay with the names that move.
pub fn mended(b: &mut Session, change: &Change, hung: &Hung) -> Result<Vec<String>, Error> {
    let links = match change {
        Change::Renamed { .. } => links_with_new_names(b, change, &hung.known)?,
        Change::Made { .. } | Change::Swapped { .. } => {
            let mut links = links_at(b, &held_names(change))?;
            links.retain(|link| hung.known.contains(&link.known()));
            links
        }
        _ => Vec::new(),
    };
    let mut all = Vec::new();
    for link in links {
        let child = ident(&link.child);
        let definition = definition(b, &link.child)?.unwrap_or_default();
        let by_copy = definition.contains(" STORED").then(|| ddl_links::BY_COPY.to_owned());
        let said_again = ddl_links::said_again(&Shape::of(&definition));
        let add = iter::once(format!("ADD {}", link.line)).chain(said_again).chain(by_copy);
        all.push(format!("ALTER TABLE {child} DROP FOREIGN KEY IF EXISTS {}", ident(&link.name)));
        all.push(format!("ALTER TABLE {child} {}", add.collect::<Vec<_>>().join(", ")));
    }
    Ok(all)
}

/// Has foreign keys say what they are to, where the table that they point at went into the hold or a step of that was broken
/// off. Can be done again.
fn mend(b: &mut Session, links: &[Link]) -> Result<(), Error> {
    for link in links {
        let Some(now) = definition(b, &link.child)? else { continue };
        let shape = Shape::of(&now);
        let own = shape.links.iter().find(|(name, _)| *name == link.name);
        if own.is_some_and(|(_, line)| *line == link.line) {
            continue;
        }
        let child = ident(&link.child);
        patiently(|| b.run(&format!("LOCK TABLES {child} WRITE")))?;
        let dropped = match own {
            Some(_) => b.run(&format!("ALTER TABLE {child} DROP FOREIGN KEY {}", ident(&link.name))),
            None => Ok(()),
        };
        let add: Vec<String> = iter::once(format!("ADD {}", link.line)).chain(ddl_links::said_again(&shape)).collect();
        let made = dropped.and_then(|()| ddl_links::alter(b, &link.child, &add));
        let made = made.and_then(|()| ddl_links::lead_keys(b, &link.child, &shape));
        b.run("UNLOCK TABLES")?;
        made?;
    }
    Ok(())
}

impl Mariadb {
    /// What others hung on what a replay would take away is a conflict.
    pub(super) fn look_at_hung(
        &mut self,
        segment: &Segment,
        change: &Change,
        replay: &mut Replay<'_>,
    ) -> Result<(), TargetError> {
        let Detail::Ddl { hung, .. } = &segment.detail else { return Ok(()) };
        let (hold, held) = (segment.object(&self.names, "t0"), self.begin_of_held());
        let undo = replay.direction == Direction::Undo;
        let found = strangers(&mut self.b, change, hung, (&hold, &held), undo, &replay.passed);
        let named = change.names().last().unwrap_or_default().to_owned();
        for what in found.map_err(|source| self.reading(source))? {
            replay.definition(&named, format!("{what} needs it now"));
        }
        Ok(())
    }

    /// What is to stay with the names that move, written down right before they do. `overwrites`: what others hung there goes.
    pub(super) fn note_links(
        &mut self,
        segment: &mut Segment,
        change: &Change,
        undo: bool,
        overwrites: bool,
    ) -> Result<(), TargetError> {
        let failed = |label: &str, source| TargetError::failed(format!("cannot change the schema of {label}"), source);
        let label = self.label.clone();
        let Detail::Ddl { hung, .. } = &mut segment.detail else { return Ok(()) };
        let names = match change {
            Change::Altered(altered) => vec![altered.name.as_str()],
            _ => held_names(change),
        };
        let goes = match change {
            Change::Dropped { .. } => !undo,
            Change::Made { .. } => undo,
            _ => true,
        };
        if overwrites && goes {
            for link in links_at(&mut self.b, &names).map_err(|source| failed(&label, source))? {
                let stays = match change {
                    Change::Swapped { .. } => true,
                    Change::Altered(altered) => bears(&Shape::of(&altered.before), &Shape::of(&altered.after), &link),
                    _ => hung.known.contains(&link.known()),
                };
                if !stays {
                    let sql = format!("ALTER TABLE {} DROP FOREIGN KEY {}", ident(&link.child), ident(&link.name));
                    patiently(|| self.b.run(&sql)).map_err(|source| failed(&label, source))?;
                }
            }
            for name in names.iter().filter(|_| !matches!(change, Change::Altered(_))) {
                let found = quiet::names_in_order(&mut self.b, name).map_err(|source| failed(&label, source))?;
                for trigger in found {
                    let done = ddl_text::put(&mut self.b, Kind::Trigger, &trigger, None);
                    done.map_err(|source| failed(&label, source))?;
                }
            }
        }
        hung.links = match change {
            Change::Renamed { .. } if !undo => return Ok(()),
            Change::Altered(_) => return Ok(()),
            // One that pointed at the name before there was such a table; any other one follows its table.
            Change::Renamed { .. } => links_with_new_names(&mut self.b, change, &hung.known),
            _ => links_at(&mut self.b, &names),
        }
        .map_err(|source| failed(&label, source))?;
        Ok(())
    }

    /// Has the foreign keys of other tables stay with the names that moved.
    pub(super) fn mend_links(&mut self, segment: &Segment) -> Result<(), TargetError> {
        let Detail::Ddl { hung, .. } = &segment.detail else { return Ok(()) };
        let done = mend(&mut self.b, &hung.links);
        done.map_err(|source| self.failed("cannot keep foreign keys by their names in", source))
    }
}
