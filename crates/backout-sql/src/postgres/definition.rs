//! What an object is, as a text by which two databases are compared: its parts as the server renders them. Reads only.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use backout_model::target::TargetError;

use super::catalog::{Kind, Object};
use super::compared_schema::{self, Differences};
use super::session::literal;
use super::{Postgres, spelling};

/// What belongs to one site: roles are others elsewhere.
const OWN: [&str; 3] = ["owner", "acl", "sequence acl"];

/// Those that share one space of names.
const RELATIONS: [Kind; 6] =
    [Kind::Table, Kind::Index, Kind::View, Kind::MaterializedView, Kind::Sequence, Kind::Composite];

/// How objects are named beside [`Kind::words`].
const ROUTINES: [&str; 3] = ["function", "procedure", "aggregate"];

const KINDS: [Kind; 18] = [
    Kind::Schema,
    Kind::Extension,
    Kind::Enum,
    Kind::Domain,
    Kind::Sequence,
    Kind::Table,
    Kind::Column,
    Kind::Index,
    Kind::Constraint,
    Kind::View,
    Kind::MaterializedView,
    Kind::Statistics,
    Kind::Rule,
    Kind::Trigger,
    Kind::Policy,
    Kind::Publication,
    Kind::Attribute,
    Kind::DefaultPrivileges,
];

impl Postgres {
    /// See [`crate::database::Database::definition`].
    pub(super) fn definition_now(&mut self, object: &str) -> Result<Option<String>, TargetError> {
        let act = format!("cannot ask for {object} in {}", self.label);
        let begins = |word: &&str| object.strip_prefix(word).is_some_and(|rest| rest.starts_with(' '));
        if !KINDS.iter().map(|kind| kind.words()).chain(ROUTINES).any(|word| begins(&word)) {
            let why =
                "PostgreSQL has no such kind of object; write `table public.product`, `function public.f(integer)`";
            return Err(TargetError::failed(act, why));
        }
        self.ready()?;
        let found = self
            .a
            .run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .and_then(|()| compared_schema::all(&mut self.a.client, self.a.version));
        self.after_step();
        let objects = found.map_err(|source| TargetError::failed(act.clone(), source))?;
        let found = definition(&objects, object);
        if found.is_none() {
            self.own_name(object, &act)?;
        }
        Ok(found)
    }

    /// Refuses a relation's or routine's name that nothing is called by as it stands, but that may mean one.
    fn own_name(&mut self, object: &str, act: &str) -> Result<(), TargetError> {
        let of_kind = |word: &str| object.strip_prefix(word).and_then(|rest| rest.strip_prefix(' '));
        let relation = RELATIONS.iter().filter(|kind| **kind != Kind::Composite).find_map(|kind| of_kind(kind.words()));
        let routine = ROUTINES.iter().find_map(|word| of_kind(word));
        let Some(name) = relation.or(routine) else { return Ok(()) };
        let failed = |why: String| TargetError::failed(act.to_owned(), why);
        if !name.contains('.') || routine.is_some() && !name.ends_with(')') {
            return Err(failed(
                "its whole name is asked for: `table public.product`, `function public.f(integer)`".into(),
            ));
        }
        let to = if routine.is_some() { "regprocedure" } else { "regclass" };
        let sql = format!("SELECT pg_catalog.to_{to}({})", literal(name));
        match self.a.value(&sql).map_err(|source| TargetError::failed(act.to_owned(), source))? {
            Some(other) if other != name => {
                Err(failed(format!("PostgreSQL calls it {other}: write its name like that")))
            }
            _ => Ok(()),
        }
    }
}

/// The text of one of these objects, given as [`Object::shown`] has it, with all that belongs to it.
pub(super) fn definition(objects: &[Object], object: &str) -> Option<String> {
    let has_name = |one: &&Object| {
        let of_kind = |kind: &Kind| object.strip_prefix(kind.words()).and_then(|rest| rest.strip_prefix(' '));
        RELATIONS.contains(&one.kind) && RELATIONS.iter().filter_map(of_kind).any(|name| name == one.id())
    };
    let exactly = objects.iter().find(|one| one.shown() == object);
    let found = exactly.or_else(|| objects.iter().find(has_name))?;
    let mut parts: Vec<&Object> = objects.iter().filter(|one| found.has(one)).collect();
    parts.sort_by_key(|one| (one.kind, one.id(), one.text("name")));
    let mut text = String::new();
    for one in [found].into_iter().chain(parts) {
        let name = if one.of().is_empty() || one.kind == Kind::Index { one.id() } else { one.text("name") };
        writeln!(text, "{} {name}", one.kind.words()).ok();
        for (part, value) in one.compared().filter(|(part, _)| !OWN.contains(part)) {
            writeln!(text, "  {part}: {}", spelling::spelled(value)).ok();
        }
    }
    Some(text)
}

impl Object {
    fn has(&self, other: &Object) -> bool {
        let is_listed = matches!(other.kind, Kind::PublishedTable | Kind::PublishedSchema);
        self.of().is_empty()
            && !matches!(self.kind, Kind::Schema | Kind::Function | Kind::Extension)
            && (self.kind == Kind::Publication) == is_listed
            && other.of() == self.id()
    }
}

/// What changes that were found are about, as [`Object::shown`] has it: the objects, and of parts what they belong to.
pub(super) fn changed(found: &Differences, before: &[Object], now: &[Object]) -> BTreeSet<String> {
    let whole = |object: &Object, all: &[Object]| {
        let is_own = object.of().is_empty() || matches!(object.kind, Kind::Index | Kind::Trigger);
        let owner = all.iter().find(|one| !is_own && one.has(object));
        owner.unwrap_or(object).shown()
    };
    let altered = found.altered.iter().flat_map(|change| {
        let was = change.before.iter().map(|object| whole(object, before));
        was.chain(change.after.iter().map(|object| whole(object, now)))
    });
    let gone = found.gone.iter().map(|object| whole(object, before));
    gone.chain(found.made.iter().map(|object| whole(object, now))).chain(altered).collect()
}

/// The parts of changes that no condition is about, with what they belong to.
pub(super) fn unasked(found: &Differences) -> impl Iterator<Item = String> {
    found.altered.iter().filter_map(|change| {
        let (was, is) = (change.before.as_ref()?, change.after.as_ref()?);
        let own = OWN.into_iter().find(|part| was.part(part) != is.part(part))?;
        Some(format!("{} of {}", if own == "owner" { "the owner" } else { "the privileges" }, was.shown()))
    })
}
