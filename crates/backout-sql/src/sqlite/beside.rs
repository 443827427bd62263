//! The undo of ADD COLUMN and DROP COLUMN beside what others made of the rest of the table's definition. Reads only.

use backout_model::target::TargetError;
use rusqlite::Connection;

use super::ddl::{Context, execute};
use super::ddl_event::DdlEvent;
use super::schema::{self, SchemaRow, Shape};
use super::token::{Kind, tokens};

/// Whether a table has the column that was added to it as it was, though others changed its definition elsewhere.
pub fn is_there(context: &Context<'_>, event: &DdlEvent, table: &str, column: &str) -> Result<bool, TargetError> {
    let Some((_, left)) = own(event) else { return Ok(false) };
    let look = || -> rusqlite::Result<bool> {
        let Some(now) = altered(context.conn, left, table)? else { return Ok(false) };
        let left = shape_of(left)?;
        let now = schema::shape(context.conn, &now.name)?;
        Ok(now.column(column).is_some() && now.column(column) == left.column(column))
    };
    look().map_err(|error| context.cannot(&format!("read the form of {table}"), error))
}

/// Whether a column is as it was before the step, or away as it was, though others changed its table elsewhere.
pub fn is_as_before(context: &Context<'_>, event: &DdlEvent, table: &str, column: &str) -> Result<bool, TargetError> {
    let Some((before, _)) = own(event) else { return Ok(false) };
    let look = || -> rusqlite::Result<bool> {
        let Some(now) = altered(context.conn, before, table)? else { return Ok(false) };
        Ok(schema::shape(context.conn, &now.name)?.column(column) == shape_of(before)?.column(column))
    };
    look().map_err(|error| context.cannot(&format!("read the form of {table}"), error))
}

/// The event of DROP COLUMN as if it had found the table with the columns that others added since: its undo puts the
/// column back between them. None where they changed anything else of it.
pub fn with_columns_of_others(
    context: &Context<'_>,
    event: &DdlEvent,
    table: &str,
    column: &str,
) -> Result<Option<DdlEvent>, TargetError> {
    let Some((before, left)) = own(event) else { return Ok(None) };
    let look = || -> rusqlite::Result<Option<DdlEvent>> {
        let Some(now) = altered(context.conn, left, table)? else { return Ok(None) };
        for (_, left) in event.changed.iter().filter(|(_, left)| left.kind != "table") {
            if !schema::object(context.conn, &left.kind, &left.name)?.is_some_and(|now| now.is_same(left)) {
                return Ok(None);
            }
        }
        let text = |row: &SchemaRow| row.sql.clone().unwrap_or_default();
        let Some(merged) = with_column(&text(&now), &text(before), column) else { return Ok(None) };
        let merged = SchemaRow { sql: Some(merged), ..now.clone() };
        let (was, left_then, is) = (shape_of(before)?, shape_of(left)?, schema::shape(context.conn, &now.name)?);
        let Ok(will_be) = shape_of(&merged) else { return Ok(None) };
        // Nothing but columns came, and nothing but the one comes back.
        let all_there = left_then.columns.iter().all(|column| is.column(&column.name) == Some(column));
        let mut expected = will_be.clone();
        expected.columns.retain(|one| !one.name.eq_ignore_ascii_case(column));
        let fits = expected.columns == is.columns && will_be.column(column) == was.column(column);
        if !all_there || is.column(column).is_some() || !fits {
            return Ok(None);
        }
        let mut event = event.clone();
        for pair in event.changed.iter_mut().filter(|(_, left)| left.kind == "table") {
            *pair = (merged.clone(), now.clone());
        }
        Ok(Some(event))
    };
    look().map_err(|error| context.cannot(&format!("read the form of {table}"), error))
}

/// The table itself, before and after.
fn own(event: &DdlEvent) -> Option<&(SchemaRow, SchemaRow)> {
    event.changed.iter().find(|(_, left)| left.kind == "table")
}

/// The table as it is now, where it is another than was left.
fn altered(conn: &Connection, left: &SchemaRow, table: &str) -> rusqlite::Result<Option<SchemaRow>> {
    let now = schema::object(conn, "table", table)?;
    Ok(now.filter(|now| !now.is_same(left) && now.name == left.name && now.rootpage > 0))
}

/// The shape that a text makes.
fn shape_of(row: &SchemaRow) -> rusqlite::Result<Shape> {
    let alone = Connection::open_in_memory()?;
    execute(&alone, row.sql.as_deref().unwrap_or_default())?;
    schema::shape(&alone, &row.name)
}

/// A column or constraint in the text of a table: the name of the column, and where it stands between its separators.
struct Item {
    column: Option<String>,
    start: usize,
    end: usize,
}

fn items(sql: &str) -> Option<Vec<Item>> {
    const CONSTRAINTS: [&str; 5] = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"];
    let all = tokens(sql);
    let open = all.iter().position(|token| token.is_sign(b'('))?;
    let (mut items, mut depth) = (Vec::new(), 1);
    let mut first = open + 1;
    for (at, token) in all.iter().enumerate().skip(first) {
        match token.kind {
            Kind::Sign(b'(') => depth += 1,
            Kind::Sign(b')') => depth -= 1,
            _ => {}
        }
        if depth == 0 || depth == 1 && token.is_sign(b',') {
            let head = all.get(first).filter(|_| first < at)?;
            let is_column = !CONSTRAINTS.iter().any(|word| head.is(word));
            let column = head.name().filter(|_| is_column);
            items.push(Item { column, start: all[first - 1].end, end: token.start });
            first = at + 1;
        }
        if depth == 0 {
            return Some(items);
        }
    }
    None
}

/// The text `now` with a column of the `old` one behind the column that it stood behind there.
fn with_column(now: &str, old: &str, column: &str) -> Option<String> {
    let (there, was) = (items(now)?, items(old)?);
    let is = |item: &Item, name: &str| item.column.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name));
    let at = was.iter().position(|item| is(item, column))?;
    let text = &old[was[at].start..was[at].end];
    let mut before = was[..at].iter().rev().filter_map(|item| item.column.as_deref());
    let behind = before.find_map(|name| there.iter().find(|item| is(item, name)));
    Some(match behind {
        Some(item) => format!("{},{text}{}", &now[..item.end], &now[item.end..]),
        None => {
            let start = there.first()?.start;
            format!("{}{text},{}", &now[..start], &now[start..])
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_goes_back_between_those_of_others() {
        let old = "CREATE TABLE t (id INTEGER PRIMARY KEY, a DEFAULT (f(1, 2)), c CHECK (c IN (1, 2)), UNIQUE (a))";
        for (now, column, expected) in [
            ("CREATE TABLE t (id, a, e)", "c", Some("CREATE TABLE t (id, a, c CHECK (c IN (1, 2)), e)")),
            ("CREATE TABLE t (a, UNIQUE (a))", "id", Some("CREATE TABLE t (id INTEGER PRIMARY KEY,a, UNIQUE (a))")),
            ("CREATE TABLE t (\"ID\")", "A", Some("CREATE TABLE t (\"ID\", a DEFAULT (f(1, 2)))")),
            ("CREATE TABLE t (id)", "z", None),
        ] {
            assert_eq!(with_column(now, old, column).as_deref(), expected, "{now}");
        }
    }
}
