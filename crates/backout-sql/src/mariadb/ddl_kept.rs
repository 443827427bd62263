//! The values that an ALTER may lose: which they are, how they are kept, and how they come back.

use std::ops::Range;

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use mysql::Error;
use serde::{Deserialize, Serialize};

use super::ddl_alter::Altered;
use super::ddl_fit::is_given;
use super::ddl_shape::Shape;
use super::reader::reader;
use super::replay::Replay;
use super::session::{Session, ident};
use super::table::{Column, Compared, Side, Table};

/// Columns whose values are kept, behind those of the key: as they were, and as the change left them where it did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    pub before: Table,
    pub after: Table,
    /// How many columns of after, right behind the key, are new ones to which the server gave values that nobody else can tell.
    #[serde(default, skip_serializing_if = "is_none")]
    pub given: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

impl Kept {
    /// Its undo brings values.
    pub fn brings(&self) -> bool {
        self.before.columns.len() > self.before.key.len()
    }

    /// What has no room in the definition of before was looked for.
    pub fn listed(&self) -> bool {
        self.brings() || self.given == 0
    }

    /// Rows are found by the same key, and get values in the same columns.
    pub fn gives_as(&self, other: &Self) -> bool {
        let of = |kept: &Self| -> Vec<(String, String)> {
            let columns = kept.after.columns.iter().take(kept.after.key.len() + kept.given);
            columns.map(|column| (column.name.clone(), column.kind.clone())).collect()
        };
        self.given == other.given && of(self) == of(other)
    }

    /// The columns that are new.
    pub fn given(&self) -> impl Iterator<Item = &str> {
        self.after.columns.iter().skip(self.after.key.len()).take(self.given).map(|column| column.name.as_str())
    }
}

/// The names of the holds of a kept table: before, after, the keys that stay as they are, and what a redo gives again.
pub struct Holds {
    pub before: String,
    pub after: String,
    pub skipped: String,
    pub given: String,
}

impl Holds {
    pub fn named(name: impl Fn(&str) -> String) -> Self {
        let [before, after, skipped, given] = ["0b", "0a", "0x", "0g"].map(name);
        Self { before, after, skipped, given }
    }

    /// Those that an alteration has, as LOCK TABLES takes them.
    pub fn locked(&self, kept: &Kept) -> String {
        let given = (kept.given > 0).then_some(&self.given);
        [&self.before, &self.after, &self.skipped]
            .into_iter()
            .chain(given)
            .map(|hold| format!("`{hold}` WRITE, "))
            .collect()
    }
}

/// Columns that a statement gives other names, old and new.
pub fn renames(sql: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut rest = reader(sql);
    while let Some(token) = rest.next() {
        if token.is("CHANGE") {
            rest.takes("COLUMN");
            rest.takes("IF EXISTS");
            if let (Some(old), Some(new)) =
                (rest.next().and_then(|one| one.name()), rest.next().and_then(|one| one.name()))
            {
                all.push((old, new));
            }
        } else if token.is("RENAME") && rest.takes("COLUMN") {
            rest.takes("IF EXISTS");
            let old = rest.next().and_then(|one| one.name());
            rest.takes("TO");
            if let (Some(old), Some(new)) = (old, rest.next().and_then(|one| one.name())) {
                all.push((old, new));
            }
        }
    }
    all.retain(|(old, new)| old != new);
    all
}

/// A column that a statement drops and adds again. The server lets it pass, and no definition tells that its values are gone.
pub fn dropped_and_added(sql: &str, from: &Shape, to: &Shape, names: &[(String, String)]) -> Option<String> {
    let has = |shape: &Shape, name: &str| shape.columns.iter().any(|(one, _)| one.eq_ignore_ascii_case(name));
    let mut rest = reader(sql);
    while let Some(token) = rest.next() {
        if !token.is("DROP") {
            continue;
        }
        let said = rest.takes("COLUMN");
        rest.takes("IF EXISTS");
        let Some(next) = rest.peek() else { break };
        let other =
            ["KEY", "INDEX", "PRIMARY", "FOREIGN", "CONSTRAINT", "CHECK", "PARTITION", "DEFAULT", "SYSTEM", "PERIOD"];
        if !said && other.iter().any(|word| next.is(word)) {
            continue;
        }
        let Some(name) = next.name() else { continue };
        if has(from, &name) && has(to, &name) && !names.iter().any(|(_, new)| new.eq_ignore_ascii_case(&name)) {
            return Some(name);
        }
    }
    None
}

/// What has to be kept of a table's values; `from` is its shape afterwards, `to` that of before.
pub fn kept(
    before: &Table,
    after: &Table,
    from: &Shape,
    to: &Shape,
    names: &[(String, String)],
) -> Result<Option<Kept>, String> {
    let now_of = |name: &str| names.iter().find(|(old, _)| old == name).map_or(name.to_owned(), |(_, new)| new.clone());
    let kind_after = |name: &str| after.columns.iter().find(|column| column.name == name).map(|column| &column.kind);
    let loses = |at: &usize| {
        let own = &before.columns[*at];
        let now = now_of(&own.name);
        from.column(&now) != to.column(&own.name) || kind_after(&now) != Some(&own.kind)
    };
    let lossy: Vec<usize> = (0..before.columns.len()).filter(loses).collect();
    let is_new = |name: &str| to.column(name).is_none() && !names.iter().any(|(_, new)| new == name);
    let given = from.columns.iter().filter(|(name, text)| is_new(name) && is_given(text));
    let given: Vec<&Column> =
        given.filter_map(|(name, _)| after.columns.iter().find(|column| column.name == *name)).collect();
    if lossy.is_empty() && given.is_empty() {
        return Ok(None);
    }
    let key: Vec<&str> = before.key.iter().map(|at| before.columns[*at].name.as_str()).collect();
    let key_after: Vec<&str> = after.key.iter().map(|at| after.columns[*at].name.as_str()).collect();
    if key.is_empty() || key.iter().map(|name| now_of(name)).collect::<Vec<_>>() != key_after {
        if lossy.is_empty() {
            return Ok(None);
        }
        return Err("it may lose values, and without a primary key that stays they could not be told apart".to_owned());
    }
    let at_after = |name: &str| after.columns.iter().position(|column| column.name == name);
    let (mut columns, mut columns_after) = (Vec::new(), Vec::new());
    for at in before.key.iter().copied() {
        let own = &before.columns[at];
        let other = &after.columns[at_after(&now_of(&own.name)).ok_or("its key is changed")?];
        let whole = |kind: &str| kind.split('(').next().is_some_and(|word| word.ends_with("int"));
        let handled = whole(&own.kind) && whole(&other.kind) || is_text(own) && is_text(other);
        if own.kind != other.kind && !handled {
            let why = "it changes the type of the primary key, which is handled from one whole number or text to another only";
            return Err(why.to_owned());
        }
        columns.push(own.clone());
        columns_after.push(other.clone());
    }
    let keys: Vec<usize> = (0..columns.len()).collect();
    columns_after.extend(given.iter().copied().cloned());
    for at in lossy.into_iter().filter(|at| !before.is_key(*at)) {
        let own = &before.columns[at];
        if let Some(other) = at_after(&now_of(&own.name)) {
            columns_after.push(after.columns[other].clone());
        }
        columns.push(own.clone());
    }
    if columns.len() == keys.len() && given.is_empty() && !columns.iter().any(is_text) {
        // The key alone, as another whole number: the way back brings it back.
        return Ok(None);
    }
    let table = |columns| Table { name: before.name.clone(), columns, key: keys.clone() };
    Ok(Some(Kept { before: table(columns), after: table(columns_after), given: given.len() }))
}

/// Makes the holds of a table anew, empty.
pub fn make_holds(b: &mut Session, kept: &Kept, holds: &Holds) -> Result<(), Error> {
    let Holds { before, after, skipped, given } = holds;
    b.run(&format!("DROP TABLE IF EXISTS `{before}`, `{after}`, `{skipped}`"))?;
    if kept.given > 0 {
        // What is in it is to be given again still.
        b.run(&format!("CREATE TABLE IF NOT EXISTS `{given}` {}", kept.after.hold()))?;
    }
    b.run(&format!("CREATE TABLE `{before}` {}", kept.before.hold()))?;
    b.run(&format!("CREATE TABLE `{after}` {}", kept.after.hold()))?;
    let keys = Table { columns: kept.before.columns[..kept.before.key.len()].to_vec(), ..kept.before.clone() };
    b.run(&format!("CREATE TABLE `{skipped}` {}", keys.hold()))
}

fn is_text(column: &Column) -> bool {
    column.compared == Compared::Bytes && !column.binary
}

/// How many keys, which the hold of before has, would come back as others from what they become; whole numbers do not. The
/// server itself turns them, in a table of the session's own.
pub fn lost_keys(a: &mut Session, kept: &Kept, hold: &str) -> Result<u64, Error> {
    const TURNED: &str = "`backout_turned`";
    let (before, after) = (&kept.before, &kept.after);
    let turned = before.key.iter().filter(|at| before.columns[**at].kind != after.columns[**at].kind);
    let turned: Vec<usize> = turned.copied().filter(|at| is_text(&before.columns[*at])).collect();
    if turned.is_empty() {
        return Ok(0);
    }
    let each = |what: &dyn Fn(usize) -> String| turned.iter().map(|at| what(*at)).collect::<Vec<_>>();
    let columns = each(&|at| {
        let (was, now) = (&before.columns[at].kind, &after.columns[at].kind);
        format!("k{at} {was} NULL, n{at} {now} NULL, r{at} {was} NULL")
    });
    a.run(&format!("CREATE TEMPORARY TABLE {TURNED} ({})", columns.join(", ")))?;
    let (into, from) = (each(&|at| format!("k{at}, n{at}")), each(&|at| format!("c{at}, c{at}")));
    a.run(&format!("INSERT IGNORE INTO {TURNED} ({}) SELECT {} FROM `{hold}`", into.join(", "), from.join(", ")))?;
    a.run(&format!("UPDATE IGNORE {TURNED} SET {}", each(&|at| format!("r{at} = n{at}")).join(", ")))?;
    let same = each(&|at| format!("BINARY r{at} <=> BINARY k{at}"));
    let lost = a.number(&format!("SELECT COUNT(*) FROM {TURNED} WHERE NOT ({})", same.join(" AND ")))?;
    a.run(&format!("DROP TEMPORARY TABLE {TURNED}"))?;
    Ok(lost)
}

/// Fills a hold with the live table's columns.
pub fn fill(a: &mut Session, table: &Table, hold: &str) -> Result<(), Error> {
    a.run(&format!("INSERT INTO `{hold}` ({}) SELECT {} FROM {}", table.held(""), table.live(""), ident(&table.name)))
}

/// The rows whose kept values others changed since: those of the live table that are not what the change left.
pub fn changed(kept: &Kept, holds: &Holds) -> String {
    let (live, hold) = (ident(&kept.after.name), ident(&holds.after));
    let (x, f) = (Side::Live(&live), Side::Held(&hold));
    format!("{hold} JOIN {live} ON {} WHERE NOT ({})", kept.after.keyed(x, f), kept.after.all_same(x, f))
}

pub fn note_changed(a: &mut Session, kept: &Kept, holds: &Holds, overwrites: bool) -> Result<(), Error> {
    a.run(&format!("DELETE FROM `{}`", holds.skipped))?;
    if overwrites || kept.after.columns.len() == kept.after.key.len() {
        return Ok(());
    }
    let key: Vec<String> = kept.after.key.iter().map(|at| format!("c{at}")).collect();
    let from: Vec<String> = kept.after.key.iter().map(|at| format!("`{}`.c{at}", holds.after)).collect();
    a.run(&format!(
        "INSERT INTO `{}` ({}) SELECT {} FROM {}",
        holds.skipped,
        key.join(", "),
        from.join(", "),
        changed(kept, holds)
    ))
}

pub fn list_changed(a: &mut Session, kept: &Kept, holds: &Holds, replay: &mut Replay<'_>) -> Result<(), Error> {
    if kept.after.columns.len() == kept.after.key.len() {
        return Ok(());
    }
    let from = changed(kept, holds);
    let total = a.number(&format!("SELECT COUNT(*) FROM {from}"))?;
    let start = replay.conflicts.total;
    let (live, hold) = (ident(&kept.after.name), ident(&holds.after));
    let (x, f) = (Side::Live(&live), Side::Held(&hold));
    let (table, name) = (&kept.after, kept.after.name.clone());
    let columns = format!("{}, {}, {}", table.shown_key(f), table.shown_row(f), table.shown_row(x));
    for row in a.rows(&format!("SELECT {columns} FROM {from} LIMIT {}", Conflicts::KEPT))? {
        let text = |at: usize| row[at].clone().unwrap_or_default();
        let conflict = replay.conflict(&name, row[0].clone(), ConflictKind::Changed);
        replay.conflicts.push(Conflict { before: "as it was".to_owned(), left: text(1), now: text(2), ..conflict });
    }
    replay.conflicts.total = start + total;
    Ok(())
}

/// Brings kept values back, but for rows that stay as others made them. Can be done again.
pub fn refill(a: &mut Session, altered: &Altered, kept: &Kept, holds: &Holds) -> Result<(), Error> {
    let now = Table::find(a, &altered.name)?;
    let moving = now.columns.iter().filter(|column| column.moves).map(|column| column.name.as_str());
    refilled(moving, kept, holds).map_or(Ok(()), |sql| a.run(&sql))
}

/// The statement for that, where there is more than the key; `moving` columns change by themselves unless they are set.
pub fn refilled<'n>(moving: impl Iterator<Item = &'n str>, kept: &Kept, holds: &Holds) -> Option<String> {
    let table = &kept.before;
    if !kept.brings() {
        return None;
    }
    let (hold, skipped) = (ident(&holds.before), ident(&holds.skipped));
    let stays = table.keyed(Side::Held(&hold), Side::Held(&skipped));
    let set = set_from(table, &holds.before, table.key.len()..table.columns.len(), moving);
    Some(format!("{set} WHERE NOT EXISTS (SELECT 1 FROM {skipped} WHERE {stays})"))
}

/// Sets these columns of the live table to what a hold has; `moving` ones stay where they are not among them.
pub fn set_from<'n>(table: &Table, hold: &str, columns: Range<usize>, moving: impl Iterator<Item = &'n str>) -> String {
    let (live, hold) = (ident(&table.name), ident(hold));
    let (x, t) = (Side::Live(&live), Side::Held(&hold));
    let is_set = |name: &str| table.columns[columns.clone()].iter().any(|one| one.name == name);
    let stay = moving.filter(|name| !is_set(name)).map(|name| format!("{live}.{0} = {live}.{0}", ident(name)));
    let set = columns.clone().map(|at| format!("{} = {}", x.column(table, at), t.column(table, at)));
    let set: Vec<String> = set.chain(stay).collect();
    format!("UPDATE {live} JOIN {hold} ON {} SET {}", table.keyed(x, t), set.join(", "))
}
