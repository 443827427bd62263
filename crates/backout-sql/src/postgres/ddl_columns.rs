//! The columns of a table that is built anew: those that come back in their old places, and room for those that do not.
//!
//! A column's number says where it stands among all that the table ever had. The new table keeps the numbers, those of
//! columns that stay dropped included: another undo may bring these back later.

use super::catalog::{Kind, Object};
use super::ddl::Change;
use super::ddl_keep::Kept;

/// The name of a column that only takes up its number, without the number.
const ROOM: &str = "backout_room";

/// The objects as they shall be: kept columns in their old places and types.
pub(super) fn with_old_columns(hanging: &[Object], kept: &Kept, changes: &[Change]) -> Vec<Object> {
    let table = kept.table.as_str();
    let is_it = |object: &&Object| object.kind == Kind::Table && object.id() == table;
    let is_part = hanging.iter().find(is_it).is_some_and(|table| table.part("partition of").is_some());
    let mut columns: Vec<Object> =
        hanging.iter().filter(|object| object.kind == Kind::Column && object.of() == table).cloned().collect();
    columns.sort_by_key(|column| position(column).unwrap_or(usize::MAX));
    let mut old: Vec<(&Object, Option<&Object>)> = changes
        .iter()
        .filter_map(|change| {
            let before = change.before.as_ref().filter(|object| object.kind == Kind::Column && object.of() == table)?;
            Some((before, change.after.as_ref()))
        })
        .collect();
    old.sort_by_key(|(column, _)| position(column).unwrap_or(usize::MAX));
    for (before, after) in old {
        if let Some(after) = after {
            let now = columns.iter_mut().find(|column| column.text("name") == before.text("name"));
            if let Some(now) = now {
                // A name that PostgreSQL gave NOT NULL anew cannot be taken from it in a partition.
                let renamed = (before.part("not null as") != after.part("not null as")).then_some("not null as");
                let parts = ["type", "collation", "generated", "virtual", "default", "storage"];
                for part in parts.into_iter().chain(renamed) {
                    match before.part(part) {
                        Some(value) => now.parts.insert(part.to_owned(), value.to_owned()),
                        None => now.parts.remove(part),
                    };
                }
            }
        } else {
            let mut column = before.clone();
            let own = number(before).filter(|own| !columns.iter().any(|column| number(column) == Some(*own)));
            let at = match own {
                Some(own) => columns.iter().position(|column| number(column).is_some_and(|other| other > own)),
                // In a table that somebody else built anew since its number says nothing.
                None => {
                    column.parts.remove("number");
                    position(before).map(|position| position.saturating_sub(1))
                }
            };
            let at = at.unwrap_or(columns.len());
            // The sequence that it counts by may have gone with it and comes later.
            column.parts.remove("default");
            if !is_part {
                // It was one of a whole that others took the table out of.
                column.parts.remove("inherited");
            }
            columns.insert(at.min(columns.len()), column);
        }
    }
    for (at, column) in (1..).zip(&mut columns) {
        column.parts.insert("position".to_owned(), format!("{at}"));
        // Read by number only while the old table was there.
        column.key = None;
    }
    let rest = hanging.iter().filter(|object| object.kind != Kind::Column || object.of() != table);
    let mut wanted: Vec<Object> = rest.map(|object| in_old_words(object, changes)).chain(columns).collect();
    wanted.sort_by_key(|object| object.kind);
    wanted
}

/// What hangs on a table by the words of before: where a column has another type they do not say the same.
fn in_old_words(object: &Object, changes: &[Change]) -> Object {
    let is_it = |other: &Object| {
        let same = |part: &str| object.part(part) == other.part(part);
        object.kind == other.kind && ["id", "of", "name"].iter().all(|part| same(part)) && object.is_same(other)
    };
    let found = changes.iter().find(|change| change.after.as_ref().is_some_and(is_it));
    let words = found.and_then(|change| change.before.as_ref()?.part("definition"));
    let mut object = object.clone();
    if let Some(words) = words {
        object.parts.insert("definition".to_owned(), words.to_owned());
    }
    object
}

/// Columns that take up the numbers of those that stay dropped, to be dropped once the table is made; none where the numbers
/// say nothing.
pub(super) fn room(wanted: &mut [Object], table: &str) -> Vec<Object> {
    let columns = || wanted.iter().filter(|object| object.kind == Kind::Column && object.of() == table);
    let mut numbers: Vec<(usize, usize)> = Vec::new();
    for column in columns() {
        let (Some(position), Some(number)) = (position(column), number(column)) else { return Vec::new() };
        numbers.push((position, number));
    }
    numbers.sort_unstable();
    let last = numbers.last().map_or(0, |(_, number)| *number);
    if !numbers.is_sorted_by(|(_, one), (_, other)| one < other) || last == numbers.len() {
        return Vec::new();
    }
    for column in wanted.iter_mut().filter(|object| object.kind == Kind::Column && object.of() == table) {
        let number = column.text("number").to_owned();
        column.parts.insert("position".to_owned(), number);
    }
    let is_free = |number: &usize| !numbers.iter().any(|(_, taken)| taken == number);
    let parts = |number: usize| {
        let part = |name: &str, value: String| (name.to_owned(), value);
        let names = [part("name", format!("{ROOM}_{number}")), part("of", table.to_owned())];
        names.into_iter().chain([part("type", "boolean".to_owned()), part("position", number.to_string())]).collect()
    };
    let column = |number: usize| Object { kind: Kind::Column, parts: parts(number), key: None };
    (1..last).filter(is_free).map(column).collect()
}

fn position(column: &Object) -> Option<usize> {
    column.part("position")?.parse().ok()
}

fn number(column: &Object) -> Option<usize> {
    column.part("number")?.parse().ok()
}
