//! Turns a set of objects from what they are into what they shall be: drops, renames, makes, then sets part after part
//! until a fresh reading shows what was wanted. Undo and redo are the same turn in the two directions.
//!
//! Order follows from the kinds; what still fails because something else must go or come first is tried again after
//! the others. Never drops what it was not told to.

use std::collections::{HashMap, HashSet};

use postgres::Error;
use postgres::error::SqlState;

use super::catalog::{self, Key, Kind, Object, Wanted};
use super::ddl_alter::{self, Setter};
use super::prepared::Client;
use super::{ddl_attach, ddl_make, ddl_rename};

/// One object as it is and as it shall be.
#[derive(Clone, Debug)]
pub(super) struct Pair<'a> {
    pub from: Option<&'a Object>,
    pub to: Option<&'a Object>,
}

/// Why a turn did not come to its end; the caller rolls back to before it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum TurnError {
    #[error("PostgreSQL refuses")]
    Server(#[from] Error),
    /// A statement fails whatever is done first.
    #[error("{what}: {why}")]
    Stuck { what: String, why: String },
    /// After all statements the object still is another.
    #[error("{object} is not what it should be: {what}")]
    Differs { object: String, what: String },
}

/// One statement to be tried.
#[derive(Clone, Debug)]
pub(super) struct Act {
    pub sql: String,
    pub shown: String,
    /// What is gone already is well: it went, or got its new name, along with something else.
    pub drops: bool,
}

/// Errors that no other order of the statements would mend.
pub(super) fn is_fatal(error: &Error) -> bool {
    match error.code() {
        None => true,
        Some(code) => [
            &SqlState::LOCK_NOT_AVAILABLE,
            &SqlState::QUERY_CANCELED,
            &SqlState::T_R_DEADLOCK_DETECTED,
            &SqlState::ADMIN_SHUTDOWN,
            &SqlState::CRASH_SHUTDOWN,
            &SqlState::DISK_FULL,
        ]
        .contains(&code),
    }
}

fn is_gone(error: &Error) -> bool {
    error.code().is_some_and(|code| {
        [
            &SqlState::UNDEFINED_TABLE,
            &SqlState::UNDEFINED_COLUMN,
            &SqlState::UNDEFINED_OBJECT,
            &SqlState::UNDEFINED_FUNCTION,
            &SqlState::INVALID_SCHEMA_NAME,
        ]
        .contains(&code)
    })
}

/// The server's words with their detail, on one line.
pub(super) fn reason(error: &Error) -> String {
    match error.as_db_error() {
        Some(error) => match error.detail() {
            Some(detail) => format!("{} ({})", error.message(), detail.lines().collect::<Vec<_>>().join("; ")),
            None => error.message().to_owned(),
        },
        None => error.to_string(),
    }
}

/// Runs statements; after an error nothing of them stays.
pub(super) fn attempt(client: &mut Client, sql: &str) -> Result<(), Error> {
    // By itself: a text that does not parse runs not even its first statement.
    client.batch_execute("SAVEPOINT backout_act")?;
    let Err(error) = client.batch_execute(&format!("{sql}; RELEASE SAVEPOINT backout_act")) else { return Ok(()) };
    if !client.is_closed() {
        client.batch_execute("ROLLBACK TO SAVEPOINT backout_act; RELEASE SAVEPOINT backout_act")?;
    }
    Err(error)
}

/// Runs statements in an order in which all of them succeed, near the given one.
pub(super) fn run(client: &mut Client, mut acts: Vec<Act>) -> Result<(), TurnError> {
    acts.retain(|act| !act.sql.is_empty());
    if acts.len() > 1 {
        let all: Vec<&str> = acts.iter().map(|act| act.sql.as_str()).collect();
        match attempt(client, &all.join(";\n")) {
            Ok(()) => return Ok(()),
            Err(error) if is_fatal(&error) => return Err(error.into()),
            Err(_) => {}
        }
    }
    while !acts.is_empty() {
        let mut failed = Vec::new();
        let mut last = None;
        let before = acts.len();
        for act in acts {
            match attempt(client, &act.sql) {
                Ok(()) => {}
                Err(error) if act.drops && is_gone(&error) => {}
                Err(error) if is_fatal(&error) => return Err(error.into()),
                Err(error) => {
                    last.get_or_insert_with(|| (act.shown.clone(), reason(&error)));
                    failed.push(act);
                }
            }
        }
        if failed.len() == before
            && let Some((what, why)) = last
        {
            return Err(TurnError::Stuck { what, why });
        }
        acts = failed;
    }
    Ok(())
}

/// True for what goes or comes with a relation that is dropped, made or moved as a whole.
fn belongs_to(object: &Object, relations: &[&Object]) -> bool {
    let of = |id: &str| relations.iter().any(|relation| relation.id() == id);
    match object.kind {
        Kind::Column | Kind::Attribute | Kind::Index | Kind::Trigger | Kind::Rule | Kind::Policy | Kind::Constraint => {
            of(object.of())
        }
        Kind::Sequence => object.part("referenced").is_some_and(of),
        _ => false,
    }
}

fn relations<'a>(objects: impl Iterator<Item = &'a Object>) -> Vec<&'a Object> {
    objects
        .filter(|object| {
            matches!(object.kind, Kind::Table | Kind::View | Kind::MaterializedView | Kind::Composite)
                || object.kind == Kind::Domain
        })
        .collect()
}

/// The statements that drop objects, dependents first. `special` gives what is to be done in place of a drop; `Some("")`
/// for nothing.
pub(super) fn drops(objects: &[&Object], special: &dyn Fn(&Object) -> Option<String>) -> Vec<Act> {
    let whole = relations(objects.iter().copied());
    let mut acts = Vec::new();
    for object in objects.iter().rev() {
        let shown = format!("drop {}", object.shown());
        let sql = match special(object) {
            Some(sql) => sql,
            None if belongs_to(object, &whole) && object.part("references").is_none() => continue,
            None if object.is_inherited()
                && matches!(object.kind, Kind::Constraint | Kind::Index | Kind::Column | Kind::Trigger) =>
            {
                continue;
            }
            // A view's columns are what its definition says.
            None if object.kind == Kind::Column && object.part("relation").is_some() => continue,
            None if object.kind == Kind::DefaultPrivileges => ddl_alter::default_privileges(object, false),
            None if object.kind != Kind::Table => ddl_make::drop(object),
            None => match heirs(object, objects) {
                family if family.len() < 2 => ddl_make::drop(object),
                family if !family.last().is_some_and(|last| std::ptr::eq(*last, *object)) => continue,
                // As a step it could keep neither apart from the other.
                family => format!(
                    "DROP TABLE IF EXISTS {}",
                    family.iter().map(|table| table.id()).collect::<Vec<_>>().join(", ")
                ),
            },
        };
        acts.push((object.kind, Act { sql, shown, drops: true }));
    }
    // A foreign key keeps the tables on both its sides.
    acts.sort_by_key(|(kind, _)| *kind != Kind::Constraint);
    acts.into_iter().map(|(_, act)| act).collect()
}

/// The tables among `objects` that inherit from each other, this one with them, in their order.
fn heirs<'a>(table: &'a Object, objects: &[&'a Object]) -> Vec<&'a Object> {
    let inherits = |heir: &Object, from: &Object| {
        let is_parent = |parents: &str| parents.split('\n').any(|parent| parent == from.id());
        heir.kind == Kind::Table && from.kind == Kind::Table && heir.part("inherits").is_some_and(is_parent)
    };
    let mut family = vec![table];
    let mut at = 0;
    while let Some(one) = family.get(at).copied() {
        at += 1;
        let of_it = |other: &&&Object| inherits(other, one) || inherits(one, other);
        let more =
            objects.iter().filter(of_it).filter(|other| !family.iter().any(|known| std::ptr::eq(*known, **other)));
        let more: Vec<&Object> = more.copied().collect();
        family.extend(more);
    }
    objects.iter().copied().filter(|object| family.iter().any(|one| std::ptr::eq(*one, *object))).collect()
}

/// The statements that make objects, what is needed first.
pub(super) fn makes(objects: &[&Object], special: &dyn Fn(&Object) -> Option<String>) -> Result<Vec<Act>, TurnError> {
    let mut acts = Vec::new();
    let mut later = Vec::new();
    for object in objects {
        let shown = format!("make {}", object.shown());
        let sql = match special(object) {
            Some(sql) => sql,
            None if ddl_make::comes_with(object, objects) => continue,
            None if object.kind == Kind::DefaultPrivileges => ddl_alter::default_privileges(object, true),
            None => ddl_make::create(object, objects).ok_or_else(|| TurnError::Stuck {
                what: shown.clone(),
                why: "it cannot be made from its definition".into(),
            })?,
        };
        let act = Act { sql, shown, drops: false };
        if object.part("references").is_some() { later.push(act) } else { acts.push(act) }
    }
    acts.extend(later);
    Ok(acts)
}

/// Does the whole turn. `special_drop` and `special_make` stand in for the plain statements, as in [`drops`].
pub(super) fn turn(
    client: &mut Client,
    version: u32,
    pairs: &[Pair<'_>],
    special_drop: &dyn Fn(&Object) -> Option<String>,
    special_make: &dyn Fn(&Object) -> Option<String>,
    reach: Reach,
) -> Result<(), TurnError> {
    let mut gone: Vec<&Object> = pairs.iter().filter(|pair| pair.to.is_none()).filter_map(|pair| pair.from).collect();
    gone.sort_by_key(|object| object.kind);
    let mut come: Vec<&Object> = pairs.iter().filter(|pair| pair.from.is_none()).filter_map(|pair| pair.to).collect();
    come.sort_by_key(|object| object.kind);
    let altered: Vec<(&Object, &Object)> = pairs.iter().filter_map(|pair| Some((pair.from?, pair.to?))).collect();
    let granted = granted_columns(client, version, pairs)?;
    let mut acts = drops(&gone, special_drop);
    // A default or a key may have to let go of what is dropped: what can be set before is set before.
    for acts in ddl_rename::all(&altered) {
        run(client, acts)?;
    }
    if let Err(error) = run(client, std::mem::take(&mut acts)) {
        let TurnError::Stuck { .. } = error else { return Err(error) };
        let wanted: Vec<&Object> = altered.iter().map(|(_, to)| *to).collect();
        // Not all of it can succeed yet.
        match converge(client, version, &wanted, Reach::AsFarAsItGoes) {
            Ok(()) | Err(TurnError::Stuck { .. } | TurnError::Differs { .. }) => {}
            Err(error) => return Err(error),
        }
        run(client, drops(&gone, special_drop))?;
    }
    run(client, makes(&come, special_make)?)?;
    let mut wanted: Vec<&Object> = altered.iter().map(|(_, to)| *to).chain(come).chain(&granted).collect();
    wanted.sort_by_key(|object| object.kind);
    converge(client, version, &wanted, reach)?;
    // What a table got as it was attached stays with it when it is detached.
    let detached = |table: &str| {
        altered.iter().any(|(from, to)| {
            let is_part = |object: &Object| object.part("partition of").is_some();
            to.kind == Kind::Table && to.id() == table && is_part(from) && !is_part(to)
        })
    };
    let with_it = |object: &&&Object| {
        matches!(object.kind, Kind::Constraint | Kind::Index) && object.is_inherited() && detached(object.of())
    };
    let left = gone.iter().filter(with_it).map(|object| Act {
        sql: ddl_make::drop(object),
        shown: format!("drop {}", object.shown()),
        drops: true,
    });
    run(client, left.collect())
}

/// The columns with grants of their own, of which nothing else becomes, in tables whose grants are about to change: a
/// REVOKE on a table takes those of its columns along.
fn granted_columns(client: &mut Client, version: u32, pairs: &[Pair<'_>]) -> Result<Vec<Object>, TurnError> {
    let altered = pairs.iter().filter_map(|pair| Some((pair.from?, pair.to?)));
    let regranted = altered.filter(|(from, to)| {
        let has_columns = matches!(from.kind, Kind::Table | Kind::View | Kind::MaterializedView);
        has_columns && from.id() == to.id() && from.part("acl") != to.part("acl")
    });
    let tables: Vec<&Object> = regranted.map(|(from, _)| from).collect();
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let families = catalog::find(client, &tables)?.into_iter().flatten().map(|key| key.oid).collect();
    let mut found = catalog::read(client, &Wanted { families, ..Wanted::default() }, version)?;
    let same = |one: &Object, other: &Object| {
        one.kind == other.kind && one.of() == other.of() && one.text("name") == other.text("name")
    };
    found.retain(|column| {
        let has_grants = column.kind == Kind::Column && column.part("acl").is_some();
        has_grants && !pairs.iter().filter_map(|pair| pair.from).any(|from| same(from, column))
    });
    Ok(found)
}

/// What the objects are now, in the order of `wanted`.
pub(super) fn live(client: &mut Client, version: u32, wanted: &[&Object]) -> Result<Vec<Option<Object>>, Error> {
    let keys = catalog::find(client, wanted)?;
    let reading = Wanted { keys: keys.iter().flatten().copied().collect(), ..Wanted::default() };
    let found: HashMap<Option<Key>, Object> =
        catalog::read(client, &reading, version)?.into_iter().map(|object| (object.key, object)).collect();
    Ok(keys.into_iter().map(|key| key.and_then(|key| found.get(&Some(key)).cloned())).collect())
}

/// How far [`converge`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the wanted state or an error.
    Whole,
    /// The same, but what was made from its definition and differs all the same is not made once more.
    NotAnew,
    /// What cannot be set yet is left.
    AsFarAsItGoes,
}

/// Sets part after part until all objects are what is wanted.
pub(super) fn converge(client: &mut Client, version: u32, wanted: &[&Object], reach: Reach) -> Result<(), TurnError> {
    // Setting one part can move another: an owner's grants follow the owner.
    const ROUNDS: usize = 5;
    let mut differing = None;
    let (mut rounds, mut made) = (0, HashSet::new());
    while rounds < ROUNDS {
        rounds += 1;
        differing = None;
        let found = live(client, version, wanted)?;
        let mut acts = Vec::new();
        let mut anew = None;
        for (object, now) in wanted.iter().zip(found) {
            let Some(now) = now else {
                differing.get_or_insert_with(|| (object.shown(), "it is missing".to_owned()));
                continue;
            };
            for part in ordered(now.differences(object)) {
                let what = format!(
                    "{part} is {} and not {}",
                    now.part(part).unwrap_or("not set"),
                    object.part(part).unwrap_or("unset")
                );
                differing.get_or_insert_with(|| (object.shown(), what));
                let shown = format!("set {part} of {}", object.shown());
                if part == "attached to" {
                    acts.extend(ddl_attach::act(client, &now, object)?);
                }
                if let ("partition of", Some(parent)) = (part, object.part(part)) {
                    ddl_attach::give_way(client, version, &now, parent, wanted)?;
                }
                match ddl_alter::setter(&now, object, part) {
                    Setter::Sql(sql) if part == "definition" => match attempt(client, &sql) {
                        Err(error) if is_fatal(&error) => return Err(error.into()),
                        // Other columns, another result: only a new one can have them.
                        Err(_) => anew = Some((now.clone(), *object)),
                        Ok(()) => {}
                    },
                    Setter::Sql(sql) => acts.push(Act { sql, shown, drops: false }),
                    Setter::Shape => {
                        let sql = ddl_make::retype(&now, object);
                        acts.push(Act { sql, shown, drops: false });
                    }
                    Setter::Follows => {}
                    Setter::Anew => anew = Some((now.clone(), *object)),
                    Setter::Never => {
                        return Err(TurnError::Stuck { what: shown, why: "PostgreSQL has no statement for it".into() });
                    }
                }
            }
        }
        if differing.is_none() {
            return Ok(());
        }
        let mut first = acts.is_empty();
        match run(client, acts) {
            Err(TurnError::Stuck { .. }) if reach == Reach::AsFarAsItGoes => {}
            // It may wait for what is made anew: a column of a key that becomes another.
            Err(TurnError::Stuck { .. }) if anew.is_some() && reach == Reach::Whole => first = true,
            done => done?,
        }
        if let Some((now, object)) = anew
            && reach == Reach::Whole
            && first
        {
            super::ddl_anew::anew(client, version, &now, object)?;
            // One a round: the others wait for theirs.
            rounds -= usize::from(made.insert(object.shown()));
        }
    }
    match differing {
        Some((object, what)) => Err(TurnError::Differs { object, what }),
        None => Ok(()),
    }
}

/// The owner first: grants and rights hang on it. Grants last.
fn ordered(mut parts: Vec<&str>) -> Vec<&str> {
    parts.sort_by_key(|part| match *part {
        "owner" => 0,
        "type" => 1,
        "acl" => 9,
        _ => 5,
    });
    parts
}
