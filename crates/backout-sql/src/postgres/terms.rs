//! Conditions and texts of rows as SQL: what is the same row, what is the same value, and how a person reads them.

use super::session::{ident, literal};
use super::stream::Table;

/// The condition that two values of a column are identical, NULLs too.
pub fn same(table: &Table, column: usize, one: &str, other: &str) -> String {
    let column = &table.columns[column];
    let (x, y) = (format!("{one}.{}", ident(&column.name)), format!("{other}.{}", ident(&column.name)));
    if column.exact {
        return format!("{x} IS NOT DISTINCT FROM {y}");
    }
    // Two images of one value may differ in what no text shows, like an array's unused bitmap of NULLs.
    format!(
        "(ROW({x})::record *= ROW({y})::record OR num_nulls({x}) = num_nulls({y}) AND format('%s', {x}) = format('%s', {y}) COLLATE \"C\")"
    )
}

pub fn all_same(table: &Table, columns: &[usize], one: &str, other: &str) -> String {
    if columns.is_empty() {
        return "true".to_owned();
    }
    columns.iter().map(|at| same(table, *at, one, other)).collect::<Vec<_>>().join(" AND ")
}

/// The condition that two rows have the same key.
pub fn keyed(table: &Table, one: &str, other: &str) -> String {
    let parts: Vec<String> = table
        .key
        .iter()
        .map(|key| {
            let name = ident(&table.columns[key.column].name);
            format!("{one}.{name} {} {other}.{name}", key.equals)
        })
        .collect();
    parts.join(" AND ")
}

/// A digest of a row's key, as an expression: the same one for equal keys.
pub fn key_digest(table: &Table, alias: &str) -> String {
    let parts: Vec<String> = table
        .key
        .iter()
        .map(|key| {
            let column = &table.columns[key.column];
            let value = format!("{alias}.{}", ident(&column.name));
            if column.kind.starts_with("numeric") { format!("trim_scale({value})") } else { value }
        })
        .collect();
    let form = vec!["%L"; parts.len()].join(",");
    format!("hashtextextended(format('{form}', {}), 0)", parts.join(", "))
}

/// So many letters of a value are shown.
pub const CUT: usize = 60;
/// What is left out: the server may keep its text in an encoding that knows no more than ASCII.
pub const MORE: &str = "...";
/// So many columns of a row without a key.
pub const ROW_COLUMNS: usize = 4;

/// True for the types whose values are shown without quotes.
pub fn is_plain(kind: &str) -> bool {
    const PLAIN: [&str; 7] = ["smallint", "integer", "bigint", "real", "double precision", "boolean", "oid"];
    PLAIN.contains(&kind) || kind.starts_with("numeric")
}

/// A value as a person reads it, as an expression: text in quotes, long ones cut.
pub fn shown(table: &Table, column: usize, alias: &str) -> String {
    let column = &table.columns[column];
    let value = format!("{alias}.{}", ident(&column.name));
    let text = format!(
        "CASE WHEN length(format('%s', {value})) > {CUT} THEN left(format('%s', {value}), {CUT}) || '{MORE}' ELSE format('%s', {value}) END"
    );
    let text = if is_plain(&column.kind) { text } else { format!("'''' || {text} || ''''") };
    format!("CASE WHEN num_nulls({value}) = 1 THEN 'NULL' ELSE {text} END")
}

/// A whole row as a person reads it.
pub fn shown_row(table: &Table, alias: &str) -> String {
    if table.columns.is_empty() {
        return "'()'".to_owned();
    }
    let named =
        |at: usize| format!("{} || {}", literal(&format!("{}=", table.columns[at].name)), shown(table, at, alias));
    let mut parts: Vec<String> = (0..table.columns.len().min(ROW_COLUMNS)).map(named).collect();
    if table.columns.len() > ROW_COLUMNS {
        parts.push(format!("'{MORE}'"));
    }
    format!("'(' || concat_ws(', ', {}) || ')'", parts.join(", "))
}

/// The key of a row as a person reads it.
pub fn shown_key(table: &Table, alias: &str) -> String {
    let parts: Vec<String> = table
        .key
        .iter()
        .map(|key| {
            let name = &table.columns[key.column].name;
            format!("{} || {}", literal(&format!("{name}=")), shown(table, key.column, alias))
        })
        .collect();
    if parts.is_empty() { shown_row(table, alias) } else { format!("concat_ws(', ', {})", parts.join(", ")) }
}
