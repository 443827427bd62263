//! Rows that others made since a table was altered, and that its old definition has no room for: the server would cut, round
//! and bound their values without a word.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use backout_model::words;
use mysql::Error;

use super::ddl_alter::Altered;
use super::ddl_kept::{Holds, Kept, renames};
use super::ddl_shape::Shape;
use super::replay::Replay;
use super::session::{Session, ident};
use super::table::{Column, Compared, Side};
use super::token::{each_token, string};

/// A table that is the session's own.
const FIT: &str = "`backout_fit`";

/// The condition on a row of the live table that the alteration did not leave: others made it.
pub fn is_new(kept: &Kept, holds: &Holds) -> String {
    let (live, hold) = (ident(&kept.after.name), ident(&holds.after));
    let same = kept.after.keyed(Side::Live(&live), Side::Held(&hold));
    format!("NOT EXISTS (SELECT 1 FROM {hold} WHERE {same})")
}

/// How many rows others made.
pub fn newcomers(a: &mut Session, kept: &Kept, holds: &Holds) -> Result<u64, Error> {
    a.number(&format!("SELECT COUNT(*) FROM {} WHERE {}", ident(&kept.after.name), is_new(kept, holds)))
}

/// What a column of before is called now; `names`: those that the way back changes, from new to old.
fn name_now<'n>(names: &'n [(String, String)], before: &'n str) -> &'n str {
    names.iter().find(|(_, old)| old == before).map_or(before, |(new, _)| new)
}

/// Lists the rows of others, where there are `theirs`, whose values would be other ones under the old definition.
pub fn list_unfit(
    a: &mut Session,
    altered: &Altered,
    kept: &Kept,
    holds: &Holds,
    theirs: u64,
    replay: &mut Replay<'_>,
) -> Result<(), Error> {
    let (before, after) = (&kept.before, &kept.after);
    let (live, names) = (ident(&after.name), renames(&altered.inverse));
    let pairs: Vec<(usize, &Column)> = (0..before.columns.len())
        .filter_map(|at| {
            let now = name_now(&names, &before.columns[at].name);
            after.columns.iter().find(|column| column.name == now).map(|column| (at, column))
        })
        .collect();
    let retyped = |(at, now): &(usize, &Column)| before.columns[*at].kind != now.kind;
    if theirs == 0 || !pairs.iter().any(retyped) {
        return Ok(());
    }
    // There, and back again: a comparison of two types would cut and round as the way itself does.
    let held: Vec<String> = pairs.iter().map(|(at, _)| format!("c{at}")).collect();
    let mut back: Vec<String> = pairs.iter().map(|(at, now)| format!("n{at} {} NULL", now.kind)).collect();
    let keyed = || pairs.iter().filter(|(at, _)| before.key.contains(at));
    // By which each row is sought.
    back.extend(keyed().take(1).map(|(at, now)| {
        let is_long = ["text", "blob"].iter().any(|word| now.kind.contains(word));
        format!("KEY (n{at}{})", if is_long { "(100)" } else { "" })
    }));
    let values: Vec<String> = pairs.iter().map(|(_, now)| format!("{live}.{}", ident(&now.name))).collect();
    a.run(&format!("DROP TEMPORARY TABLE IF EXISTS {FIT}"))?;
    // In one statement: any but CREATE and DROP TEMPORARY TABLE would commit what was taken back so far.
    let columns = before.hold().replacen('(', &format!("({}, ", back.join(", ")), 1);
    a.run(&format!("CREATE TEMPORARY TABLE {FIT} {columns}"))?;
    a.run(&format!(
        "INSERT IGNORE INTO {FIT} ({}) SELECT {} FROM {live} WHERE {}",
        held.join(", "),
        values.join(", "),
        is_new(kept, holds)
    ))?;
    let returns: Vec<String> = pairs.iter().map(|(at, _)| format!("n{at} = c{at}")).collect();
    a.run(&format!("UPDATE IGNORE {FIT} SET {}", returns.join(", ")))?;
    let same = |(at, now): &(usize, &Column)| {
        let (own, live) = (format!("{FIT}.n{at}"), format!("{live}.{}", ident(&now.name)));
        let is_time = |column: &Column| column.kind.starts_with("time") && !column.kind.starts_with("timestamp");
        if is_time(&before.columns[*at]) != is_time(now) {
            // The day of today would be lent to it.
            return format!("{live} IS NULL");
        }
        match now.compared {
            Compared::Bytes => format!("BINARY {own} <=> BINARY {live}"),
            Compared::Number => format!("{own} + 0 <=> {live} + 0"),
            Compared::Float | Compared::Plain => format!("{own} <=> {live}"),
        }
    };
    let all_same: Vec<String> = pairs.iter().map(same).collect();
    let keyed: Vec<String> = keyed().map(|(at, now)| format!("{FIT}.n{at} = {live}.{}", ident(&now.name))).collect();
    let first = before.key.first().copied().unwrap_or_default();
    let from = format!(
        "{live} LEFT JOIN {FIT} ON {} WHERE {} AND ({FIT}.n{first} IS NULL OR NOT ({}))",
        keyed.join(" AND "),
        is_new(kept, holds),
        all_same.join(" AND ")
    );
    let total = a.number(&format!("SELECT COUNT(*) FROM {from}"))?;
    let start = replay.conflicts.total;
    let x = Side::Live(&live);
    let columns = format!("{}, {}", after.shown_key(x), after.shown_row(x));
    for row in a.rows(&format!("SELECT {columns} FROM {from} LIMIT {}", Conflicts::KEPT))? {
        let conflict = replay.conflict(&after.name, row[0].clone(), ConflictKind::Constraint);
        let now = format!("{} does not fit the definition of before", row[1].clone().unwrap_or_default());
        replay.conflicts.push(Conflict { now, ..conflict });
    }
    if total > 0 {
        replay.conflicts.total = start + total;
    }
    a.run(&format!("DROP TEMPORARY TABLE {FIT}"))
}

/// Kept values whose row is gone while others have rows, `theirs`, that were not there: it may be among them, under another key.
pub fn list_homeless(
    a: &mut Session,
    kept: &Kept,
    holds: &Holds,
    theirs: u64,
    replay: &mut Replay<'_>,
) -> Result<(), Error> {
    if theirs == 0 || !kept.brings() {
        return Ok(());
    }
    let (live, hold) = (ident(&kept.after.name), ident(&holds.after));
    let same = kept.after.keyed(Side::Live(&live), Side::Held(&hold));
    let gone =
        a.number(&format!("SELECT COUNT(*) FROM {hold} WHERE NOT EXISTS (SELECT 1 FROM {live} WHERE {same})"))?;
    if gone > 0 {
        let conflict = replay.conflict(&kept.after.name, None, ConflictKind::Missing);
        let left = format!("the values of {gone} of its rows");
        let now = "no row with that key; others have rows with keys that were not there".to_owned();
        replay.conflicts.push(Conflict { left, now, ..conflict });
    }
    Ok(())
}

/// Values that others wrote into columns that go.
pub fn list_filled(a: &mut Session, altered: &Altered, replay: &mut Replay<'_>) -> Result<(), Error> {
    for condition in filled(altered) {
        let rows = a.number(&format!("SELECT COUNT(*) FROM {} WHERE {condition}", ident(&altered.name)))?;
        if rows > 0 {
            let conflict = replay.conflict(&altered.name, None, ConflictKind::Changed);
            let now = format!("another value in {}", words::count(rows, "row"));
            let left = "what each row got in a new column".to_owned();
            replay.conflicts.push(Conflict { left, now, ..conflict });
        }
    }
    Ok(())
}

/// Conditions on rows that have another value than they got, for each column that goes. What each row computes for itself
/// is no matter.
pub fn filled(altered: &Altered) -> Vec<String> {
    let conditions = |(name, text): &(String, String)| not_as_added(&ident(name), text);
    added(altered).iter().filter_map(conditions).collect()
}

/// The columns that came, each with its definition.
pub fn added(altered: &Altered) -> Vec<(String, String)> {
    let (before, after) = (Shape::of(&altered.before), Shape::of(&altered.after));
    let names = renames(&altered.inverse);
    let is_new = |name: &str| before.column(name).is_none() && !names.iter().any(|(new, _)| new == name);
    after.columns.into_iter().filter(|(name, _)| is_new(name)).collect()
}

/// True where what the server gave rows for a new column cannot be told from its definition, and is not computed from the rest.
pub fn is_given(definition: &str) -> bool {
    !is_computed(definition) && not_as_added("", definition).is_none()
}

/// Words of a comment are none of the definition's.
fn is_computed(definition: &str) -> bool {
    let tokens: Vec<_> = each_token(definition).collect();
    tokens.iter().any(|token| token.is("AUTO_INCREMENT"))
        || tokens.windows(2).any(|pair| pair[0].is("AS") && pair[1].is_sign(b'('))
}

/// The default of a column and what follows it; none where it has none.
pub fn default_of(definition: &str) -> Option<&str> {
    let word = each_token(definition).find(|token| token.is("DEFAULT"))?;
    Some(definition[word.start + "DEFAULT".len()..].trim_start())
}

/// Rows whose value is not the one that they got with the column; none where each computes its own.
fn not_as_added(name: &str, definition: &str) -> Option<String> {
    if is_computed(definition) {
        return None;
    }
    let Some(default) = default_of(definition) else {
        // NOT NULL without a default: what the server calls the zero of the type.
        let text = definition.to_ascii_lowercase();
        let zero = ["int", "decimal", "float", "double", "bit", "year"].iter().any(|word| text.contains(word));
        let texts = ["char", "text", "blob", "binary"].iter().any(|word| text.contains(word));
        return match (text.contains("not null"), zero, texts) {
            (false, ..) => Some(format!("{name} IS NOT NULL")),
            (true, true, false) => Some(format!("{name} <> 0")),
            (true, _, true) => Some(format!("{name} <> ''")),
            (true, ..) => None,
        };
    };
    let literal = match default.starts_with('\'') {
        // A quote in it is doubled, or of a text behind a backslash.
        true => default[..string(default.as_bytes(), 0)].to_owned(),
        false => default.split([' ', ',']).next().unwrap_or_default().to_owned(),
    };
    let is_constant = literal.starts_with('\'')
        || literal.eq_ignore_ascii_case("null")
        || literal.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'e' | b'+'));
    is_constant.then(|| format!("NOT ({name} <=> {literal})"))
}

/// True where the server says that a value does not fit, or breaks a rule that comes back.
pub fn is_unfit(error: &Error) -> bool {
    matches!(error, Error::MySqlError(error)
        if matches!(error.code, 1062 | 1138 | 1264 | 1265 | 1292 | 1366 | 1406 | 1526 | 1591 | 4025))
}
