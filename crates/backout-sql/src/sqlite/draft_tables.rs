//! How a table came from its old definition to the new one: by the statements of ALTER where these come to the same text,
//! else by a new table that takes the old one's rows and name. Tries all of it on a copy; never on the user's database.

use backout_model::review::{Concern, Review};
use rusqlite::Connection;

use super::counters::Counters;
use super::draft::{DraftError, Objects, refuse};
use super::schema::{self, SchemaRow};
use super::stream::Affinity;
use super::token::{quote, tokens};
use super::value::Cell;

/// What brings a table to another definition.
pub(super) struct Altered {
    pub statements: Vec<String>,
    /// Its indexes and triggers went on the way.
    pub is_anew: bool,
}

/// Brings a table of `conn`, which is a copy of before, to the definition `new`; how.
pub(super) fn altered(
    conn: &Connection,
    old: &SchemaRow,
    new: &SchemaRow,
    review: &mut Review,
) -> Result<Altered, DraftError> {
    for candidate in [renamed_columns, renamed_to_quoted, other_columns] {
        conn.execute_batch("SAVEPOINT attempt")?;
        let found = candidate(conn, old, new)?;
        let is_it = found.is_some() && text_of(conn, &new.name)? == new.sql;
        conn.execute_batch(if is_it { "RELEASE attempt" } else { "ROLLBACK TO attempt; RELEASE attempt" })?;
        if let (Some(statements), true) = (found, is_it) {
            return Ok(Altered { statements, is_anew: false });
        }
    }
    let statements = anew(conn, old, new, review)?;
    for sql in &statements {
        conn.execute_batch(sql)
            .map_err(|error| refuse(old.shown(), format!("its rows have no place in the new definition: {error}")))?;
    }
    Ok(Altered { statements, is_anew: true })
}

fn text_of(conn: &Connection, table: &str) -> Result<Option<String>, DraftError> {
    Ok(schema::object(conn, "table", table)?.and_then(|row| row.sql))
}

/// The columns of a table that hold values of their own, and whether they are computed.
fn columns(conn: &Connection, table: &str) -> Result<Vec<(String, bool)>, DraftError> {
    let mut found = conn.prepare(&format!("PRAGMA main.table_xinfo({})", quote(table)))?;
    let columns = found.query_map([], |row| Ok((row.get("name")?, row.get::<_, i64>("hidden")? != 0)))?;
    Ok(columns.collect::<Result<_, _>>()?)
}

/// The columns of a definition, which is none of `conn`.
fn columns_of(definition: &SchemaRow) -> Result<Vec<(String, bool)>, DraftError> {
    let empty = Connection::open_in_memory()?;
    empty.execute_batch(definition.sql.as_deref().unwrap_or_default())?;
    columns(&empty, &definition.name)
}

/// As many columns as before, some with another name, which is written as it is. None where a statement fails.
fn renamed_columns(conn: &Connection, old: &SchemaRow, new: &SchemaRow) -> Result<Option<Vec<String>>, DraftError> {
    let is_bare = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.starts_with(|first: char| !first.is_ascii_digit())
    };
    renamed(conn, old, new, &|name| if is_bare(name) { name.to_owned() } else { quote(name) })
}

/// The same with the new names in quotes, which are part of the text then.
fn renamed_to_quoted(conn: &Connection, old: &SchemaRow, new: &SchemaRow) -> Result<Option<Vec<String>>, DraftError> {
    renamed(conn, old, new, &quote)
}

fn renamed(
    conn: &Connection,
    old: &SchemaRow,
    new: &SchemaRow,
    written: &dyn Fn(&str) -> String,
) -> Result<Option<Vec<String>>, DraftError> {
    let (was, is) = (columns(conn, &old.name)?, columns_of(new)?);
    let pairs: Vec<_> = was.iter().zip(&is).filter(|((one, _), (other, _))| one != other).collect();
    if was.len() != is.len() || pairs.is_empty() {
        return Ok(None);
    }
    let rename = |((one, _), (other, _)): (&(String, bool), &(String, bool))| {
        format!("ALTER TABLE {} RENAME COLUMN {} TO {}", quote(&old.name), quote(one), written(other))
    };
    run(conn, pairs.into_iter().map(rename).collect())
}

/// Columns went, others came at the end.
fn other_columns(conn: &Connection, old: &SchemaRow, new: &SchemaRow) -> Result<Option<Vec<String>>, DraftError> {
    let (was, is) = (columns(conn, &old.name)?, columns_of(new)?);
    let has = |all: &[(String, bool)], name: &str| all.iter().any(|(other, _)| other == name);
    let name = quote(&old.name);
    let gone: Vec<String> = was
        .iter()
        .filter(|(column, _)| !has(&is, column))
        .map(|(column, _)| format!("ALTER TABLE {name} DROP COLUMN {}", quote(column)))
        .collect();
    let Some(mut statements) = run(conn, gone)? else { return Ok(None) };
    let (Some(text), Some(wanted)) = (text_of(conn, &old.name)?, &new.sql) else { return Ok(None) };
    let came = is.iter().filter(|(column, _)| !has(&was, column)).count();
    // What was put into the text is all the new definitions of columns.
    let prefix = text.bytes().zip(wanted.bytes()).take_while(|(one, other)| one == other).count();
    let suffix = text[prefix..].bytes().rev().zip(wanted[prefix..].bytes().rev());
    let suffix = suffix.take_while(|(one, other)| one == other).count();
    let Some(middle) = wanted.get(prefix..wanted.len() - suffix).filter(|_| prefix + suffix == text.len()) else {
        return Ok(None);
    };
    let Some(parts) = definitions(middle, came) else { return Ok(None) };
    let added = parts.into_iter().map(|part| format!("ALTER TABLE {name} ADD COLUMN {part}")).collect();
    let Some(added) = run(conn, added)? else { return Ok(None) };
    statements.extend(added);
    Ok(Some(statements))
}

/// `, a INT, b TEXT` as definitions of so many columns.
fn definitions(middle: &str, wanted: usize) -> Option<Vec<String>> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for token in tokens(middle) {
        depth += i32::from(token.is_sign(b'(')) - i32::from(token.is_sign(b')'));
        if depth == 0 && token.is_sign(b',') {
            parts.push(middle[start..token.start].trim());
            start = token.end;
        }
    }
    parts.push(middle[start..].trim());
    parts.retain(|part| !part.is_empty());
    (parts.len() == wanted).then(|| parts.into_iter().map(str::to_owned).collect())
}

/// Runs statements one after the other; none where one fails.
fn run(conn: &Connection, statements: Vec<String>) -> Result<Option<Vec<String>>, DraftError> {
    Ok(statements.iter().all(|sql| conn.execute_batch(sql).is_ok()).then_some(statements))
}

/// The text of a table under another name.
pub(super) fn with_name(sql: &str, name: &str) -> Option<String> {
    let all = tokens(sql);
    let named = all.get(2).filter(|_| all[0].is("CREATE"))?;
    Some(format!("{}{}{}", &sql[..named.start], quote(name), &sql[named.end..]))
}

/// By a new table, as SQLite's manual has it ("Making Other Kinds Of Table Schema Changes").
fn anew(conn: &Connection, old: &SchemaRow, new: &SchemaRow, review: &mut Review) -> Result<Vec<String>, DraftError> {
    let free = |name: &String| -> rusqlite::Result<bool> {
        conn.query_row("SELECT NOT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = ?1)", [name], |row| row.get(0))
    };
    let mut made = format!("new__{}", new.name);
    while !free(&made)? {
        made.push('_');
    }
    let text = new.sql.as_deref().and_then(|sql| with_name(sql, &made));
    let Some(text) = text else { return Err(refuse(new.shown(), "its definition is not understood")) };
    let (was, is) = (columns(conn, &old.name)?, columns_of(new)?);
    let (mut into, mut carried) = (Vec::new(), Vec::new());
    for (column, filling) in is.iter().filter(|(_, computed)| !computed).zip(fillings(new)?) {
        let there = was.iter().any(|(other, _)| other.eq_ignore_ascii_case(&column.0));
        let name = quote(&column.0);
        let value = match (there, filling) {
            (true, None) => name.clone(),
            // Rows that were here get their own values behind that; those of others need one.
            (true, Some(filling)) => {
                let what = || format!("NULL elsewhere becomes {filling}");
                review.note(Concern::Unchecked, &format!("column {}.{}", new.name, column.0), what);
                format!("coalesce({name}, {filling})")
            }
            (false, Some(filling)) => filling,
            (false, None) => continue,
        };
        into.push(name);
        carried.push(value);
    }
    let (table, _) = super::capture::read_table(conn, &old.name)?;
    let has_rowid = table.rowid.is_some() && !new.sql.as_deref().is_some_and(is_without_rowid);
    if has_rowid && table.rowid_column.is_none() && !is.iter().any(|(column, _)| column.eq_ignore_ascii_case("rowid")) {
        into.insert(0, "rowid".to_owned());
        carried.insert(0, "rowid".to_owned());
    }
    if into.is_empty() {
        return Err(refuse(new.shown(), "it has the name of another table that went, and none of its columns"));
    }
    let (from, to, into, carried) = (quote(&old.name), quote(&made), into.join(", "), carried.join(", "));
    Ok(vec![
        "PRAGMA legacy_alter_table = ON".to_owned(),
        text,
        format!("INSERT INTO {to} ({into}) SELECT {carried} FROM {from}"),
        format!("DROP TABLE {from}"),
        format!("ALTER TABLE {to} RENAME TO {}", quote(&new.name)),
        "PRAGMA legacy_alter_table = OFF".to_owned(),
    ])
}

/// For each column that can be written what stands in it where there is no value, though it must have one.
fn fillings(definition: &SchemaRow) -> Result<Vec<Option<String>>, DraftError> {
    let empty = Connection::open_in_memory()?;
    empty.execute_batch(definition.sql.as_deref().unwrap_or_default())?;
    let mut found = empty.prepare(&format!("PRAGMA main.table_xinfo({})", quote(&definition.name)))?;
    let columns = found.query_map([], |row| {
        let (hidden, key): (i64, i64) = (row.get("hidden")?, row.get("pk")?);
        let (must, default, kind): (bool, Option<String>, String) =
            (row.get("notnull")?, row.get("dflt_value")?, row.get("type")?);
        let is_text = matches!(Affinity::of(&kind), Affinity::Text | Affinity::Blob);
        let filling = default.unwrap_or_else(|| (if is_text { "''" } else { "0" }).to_owned());
        Ok((hidden == 0).then(|| (must && key == 0).then_some(filling)))
    })?;
    Ok(columns.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// The names of the columns of a definition.
pub(super) fn names_of(definition: &SchemaRow) -> Result<Vec<String>, DraftError> {
    Ok(columns_of(definition)?.into_iter().map(|(name, _)| name).collect())
}

fn is_without_rowid(sql: &str) -> bool {
    tokens(sql).windows(2).any(|pair| pair[0].is("WITHOUT") && pair[1].is("ROWID"))
}

/// Notes the columns that go, with what they held.
pub(super) fn lost(
    conn: &Connection,
    after: &str,
    old: &SchemaRow,
    new: &SchemaRow,
    review: &mut Review,
) -> Result<(), DraftError> {
    let was = columns_of(old)?;
    let mut found = conn.prepare(&format!("PRAGMA {after}.table_xinfo({})", quote(&new.name)))?;
    let is: Vec<String> = found.query_map([], |row| row.get("name"))?.collect::<Result<_, _>>()?;
    for (column, _) in was.iter().filter(|(column, _)| !is.contains(column)) {
        review.note(Concern::Goes, &format!("column {}.{column}", old.name), String::new);
    }
    Ok(())
}

/// What counts beside rows: AUTOINCREMENT, and the two numbers of the database itself.
pub(super) fn numbers((before, after): &(Counters, Counters), news: &Objects) -> Vec<String> {
    let mut statements = Vec::new();
    for sequence in &after.sequences {
        let (Cell::Text(name), Cell::Integer(seq)) = (&sequence.name, &sequence.seq) else { continue };
        if before.sequences.iter().any(|was| was.name == sequence.name && was.seq == sequence.seq)
            || !news.contains_key(&("table".to_owned(), name.to_ascii_lowercase()))
        {
            continue;
        }
        let name = super::script_rows::text(name);
        // Never behind what another site gave already.
        statements.push(format!("UPDATE sqlite_sequence SET seq = {seq} WHERE name = {name} AND seq < {seq}"));
        if before.sequences.iter().any(|was| was.name == sequence.name) {
            continue;
        }
        statements.push(format!(
            "INSERT INTO sqlite_sequence (name, seq) SELECT {name}, {seq} WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = {name})"
        ));
    }
    for (name, was, is) in [
        ("user_version", before.user_version, after.user_version),
        ("application_id", before.application_id, after.application_id),
    ] {
        if was != is {
            statements.push(format!("PRAGMA {name} = {is}"));
        }
    }
    statements
}
