//! What the images hold of one change of the schema, and what can be asked of it.

use serde::{Deserialize, Serialize};

use super::acts::Act;
use super::catalog::{Kind, Object};
use super::ddl_hold::Moved;
use super::ddl_keep::Kept;
use super::ddl_labels;
use super::named::Named;
use super::refreshed::{Given, Refreshed};
use super::table::plain;

/// One object as it was before a statement and as the statement left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Object>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Object>,
}

/// All that undo and redo of one schema change need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DdlEvent {
    pub line: u32,
    pub sql: String,
    /// The script's settings that the statement ran under, for redo: see [`super::ddl_settings`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) settings: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<Change>,
    /// Relations that were moved aside with their rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) moved: Vec<Moved>,
    /// Values and rows in the images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) kept: Vec<Kept>,
    /// What the names of what it left meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) left: Vec<Named>,
    /// What the names meant that its undo uses: see [`super::needs`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) needs: Vec<Named>,
    /// No statement of it is known: it was found by comparison with what was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) found: bool,
    /// How its undo went when it was tried; empty where it was not, or cannot be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) acts: Vec<Act>,
    /// Tables that its undo builds anew, with the digests of all that hung on them before that: see [`super::hung`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) hung: Vec<(String, String)>,
    /// Views that it filled anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) refreshed: Vec<Refreshed>,
    /// What the views held then that it filled or made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) given: Vec<Given>,
    /// Tables that it emptied, by their numbers, within the step.
    #[serde(skip)]
    pub(super) emptied: Vec<u32>,
}

impl DdlEvent {
    /// Says its undo in words.
    pub fn words(&self) -> String {
        if let Some(one) = self.refreshed.first() {
            return format!("fill materialized view {} anew once the rows are back", one.view);
        }
        let first = |change: &&Change| change.before.as_ref().or(change.after.as_ref()).map(Object::shown);
        let of_their_own = |change: &&Change| {
            change.before.as_ref().or(change.after.as_ref()).is_some_and(|object| object.of().is_empty())
        };
        let Some(shown) = self.changes.iter().find(of_their_own).or(self.changes.first()).as_ref().and_then(first)
        else {
            return match self.kept.first() {
                Some(kept) => format!("put back the rows of table {}", kept.table),
                None => "nothing to undo".to_owned(),
            };
        };
        let more = self.changes.iter().filter(of_their_own).count().saturating_sub(1);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        if self.changes.iter().all(|change| change.before.is_none()) {
            format!("DROP of {shown}{more}")
        } else if !self.moved.is_empty() {
            format!("bring back {shown}{more} with the rows, which are held")
        } else if self.changes.iter().all(|change| change.after.is_none()) {
            format!("bring back {shown}{more}")
        } else if self.adds_labels() {
            format!("take labels out of {shown}{more}, by a new type in all tables that use it, which are written anew")
        } else {
            format!("put back the definition of {shown}{more}")
        }
    }

    /// It took away or altered what was there.
    pub fn alters(&self) -> bool {
        self.destroys() || !self.refreshed.is_empty() || self.changes.iter().any(|change| change.before.is_some())
    }

    /// An enum got labels, which its undo takes out.
    pub(super) fn adds_labels(&self) -> bool {
        let altered = self.changes.iter().filter_map(|change| Some((change.before.as_ref()?, change.after.as_ref()?)));
        altered.into_iter().any(|(before, after)| ddl_labels::grew(before, after))
    }

    /// It changed what rows must satisfy.
    pub fn constrains(&self) -> bool {
        let kinds = |kind: Kind| matches!(kind, Kind::Constraint | Kind::Domain);
        self.changes.iter().filter_map(|change| change.after.as_ref()).any(|object| kinds(object.kind))
    }

    /// The tables at which foreign keys point that it made, by their plain names.
    pub fn points_at(&self) -> impl Iterator<Item = String> {
        let made = self.changes.iter().filter(|change| change.before.is_none());
        made.filter_map(|change| Some(plain(change.after.as_ref()?.part("references")?)))
    }

    /// What becomes of a table: its name afterwards, none where it was dropped and is held.
    pub fn course<'a>(&'a self, table: &'a str) -> Option<&'a str> {
        let is_it = |object: &Object| object.kind == Kind::Table && object.id() == table;
        match self.changes.iter().find(|change| change.before.as_ref().is_some_and(is_it)) {
            None => Some(table),
            Some(change) => change.after.as_ref().map(Object::id),
        }
    }

    /// What a view was called before it; none where it was made.
    pub fn origin<'a>(&'a self, view: &'a str) -> Option<&'a str> {
        let is_it = |object: &Object| object.kind == Kind::MaterializedView && object.id() == view;
        match self.changes.iter().find(|change| change.after.as_ref().is_some_and(is_it)) {
            None => Some(view),
            Some(change) => change.before.as_ref().map(Object::id),
        }
    }

    /// Rows, values or relations went and are kept.
    pub fn destroys(&self) -> bool {
        !self.kept.is_empty() || !self.moved.is_empty()
    }

    /// The schemas that hold relations for this event.
    pub fn holds(&self) -> impl Iterator<Item = &str> {
        let mut holds: Vec<&str> = self.moved.iter().map(|moved| moved.hold.as_str()).collect();
        holds.sort_unstable();
        holds.dedup();
        holds.into_iter()
    }

    /// Materialized views that it filled, and tables that it emptied, within the step.
    pub fn filled(&self) -> Vec<u32> {
        let views = self.changes.iter().filter_map(|change| change.after.as_ref());
        let views = views.filter(|view| view.kind == Kind::MaterializedView).filter_map(|view| Some(view.key?.oid));
        let refreshed = self.refreshed.iter().map(|view| view.oid);
        views.chain(refreshed).chain(self.emptied.iter().copied()).collect()
    }

    /// True where it changed types, or a schema in which they may be.
    pub fn alters_types(&self) -> bool {
        self.changes.iter().filter_map(|change| change.before.as_ref()).any(|object| object.kind.is_of_types())
    }

    /// True where it made types of which values may be.
    pub fn makes_types(&self) -> bool {
        let is_type = |kind: Kind| {
            matches!(kind, Kind::Extension | Kind::Enum | Kind::Composite | Kind::Domain | Kind::Range | Kind::Table)
        };
        let made = self.changes.iter().filter(|change| change.before.is_none());
        made.filter_map(|change| change.after.as_ref()).any(|object| is_type(object.kind))
    }

    /// What it was about: tables by their plain names, what belongs to none as people are shown it.
    pub fn about(&self) -> impl Iterator<Item = String> {
        let objects = self.changes.iter().flat_map(|change| [&change.before, &change.after]).flatten();
        let changed = objects.map(|object| match (object.kind, object.of()) {
            (Kind::Table, _) => plain(object.id()),
            (_, "") => object.shown(),
            (_, of) => plain(of),
        });
        changed.chain(self.kept.iter().map(|kept| plain(&kept.table)))
    }

    /// The domains that it altered, and the enums whose labels, by their qualified names.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        let objects = self.changes.iter().flat_map(|change| [&change.before, &change.after]).flatten();
        objects.filter_map(|object| match object.kind {
            Kind::Domain | Kind::Enum => Some(object.id()),
            Kind::Constraint if object.part("on domain").is_some() => Some(object.of()),
            _ => None,
        })
    }

    /// The tables that it made, by their qualified names.
    pub fn made(&self) -> impl Iterator<Item = &str> {
        self.changes
            .iter()
            .filter(|change| change.before.is_none())
            .filter_map(|change| change.after.as_ref().filter(|object| object.kind == Kind::Table).map(Object::id))
    }
}
