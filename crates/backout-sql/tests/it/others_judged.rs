//! What must hold after an undo or redo, whatever others did meanwhile: nothing of theirs is lost untold, and all that
//! could be used can be used.

use std::collections::HashSet;

use backout_model::conflict::OnConflict;
use backout_model::target::{Report, TargetError};
use rusqlite::Connection;

use crate::bed::{list, same, unusable};
use crate::ddl_random::quoted;
use crate::stage::{Stage, dump, told};

/// What others do, and what takes it away again wherever it is by then.
#[derive(Default)]
pub struct Theirs {
    pub sql: Vec<String>,
    pub back: Vec<String>,
    /// Objects that must be there as long as nobody takes them away.
    pub objects: Vec<String>,
    /// Nothing takes some of it away exactly.
    pub lasting: bool,
}

pub fn text(name: &str) -> String {
    format!("'{}'", name.replace('\'', "''"))
}

pub fn tables(conn: &Connection) -> Vec<String> {
    list(
        conn,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE 'backout%'",
    )
}

pub fn columns(conn: &Connection, table: &str) -> Vec<String> {
    list(conn, &format!("SELECT name FROM pragma_table_info({})", text(table)))
}

/// What can't be used, by its name; a trigger that can't stops every UPDATE of its table, also of new columns.
pub fn complaints(conn: &Connection) -> Vec<String> {
    let named = |one: &String| {
        let name = one.split(": ").next().unwrap_or_default();
        name.strip_prefix("update ")
            .and_then(|update| update.rsplit_once('.'))
            .map_or(name, |(table, _)| table)
            .to_owned()
    };
    unusable(conn).iter().map(named).collect()
}

/// Rows with a mark of others, by that.
pub fn marks(conn: &Connection) -> Vec<String> {
    let mut found = Vec::new();
    for table in tables(conn) {
        for column in columns(conn, &table).iter().map(|column| quoted(column)) {
            let marked = format!("FROM {} WHERE typeof({column}) = 'text' AND {column} LIKE 'mark%'", quoted(&table));
            found.append(&mut list(conn, &format!("SELECT {column} {marked}")));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// What could be used before can be used; each counter belongs to a table that counts, and is behind no row of others.
#[track_caller]
fn sound(conn: &Connection, allowed: &[&[String]], what: &str) {
    let new: Vec<String> =
        complaints(conn).into_iter().filter(|one| allowed.iter().all(|known| !known.contains(one))).collect();
    assert!(new.is_empty(), "{what}\n{new:?}\n{:?}", unusable(conn));
    if list(conn, "SELECT name FROM sqlite_schema WHERE name = 'sqlite_sequence'").is_empty() {
        return;
    }
    for name in list(conn, "SELECT name FROM sqlite_sequence") {
        let sql = list(conn, &format!("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = {}", text(&name)));
        assert!(sql.iter().any(|sql| sql.contains("AUTOINCREMENT")), "{what}\na counter of {name}");
        let key = list(conn, &format!("SELECT name FROM pragma_table_info({}) WHERE pk = 1", text(&name)));
        let marked: Vec<String> =
            columns(conn, &name).iter().map(|column| format!("{} LIKE 'mark%'", quoted(column))).collect();
        let behind = list(
            conn,
            &format!(
                "SELECT {key} || '' FROM {} WHERE ({}) AND {key} > (SELECT max(seq) FROM sqlite_sequence WHERE name = {})",
                quoted(&name),
                marked.join(" OR "),
                text(&name),
                key = quoted(&key[0])
            ),
        );
        assert!(behind.is_empty(), "{what}\nthe counter of {name} is behind {behind:?}");
    }
}

/// The table that a complaint about foreign keys is of.
fn table_of(complaint: &str) -> &str {
    complaint.split_once(" of ").map_or(complaint, |(_, table)| table)
}

#[track_caller]
fn all_there(conn: &Connection, theirs: &[&Theirs], what: &str) {
    let there = list(conn, "SELECT type || ' ' || name FROM sqlite_schema");
    let all = theirs.iter().flat_map(|theirs| &theirs.objects);
    let lost: Vec<&String> = all.filter(|object| !there.contains(object)).collect();
    assert!(lost.is_empty(), "{what}\nlost {lost:?}");
}

/// One undo or redo under `stop`, then, where that met conflicts, otherwise; whether it was done without.
#[track_caller]
pub fn go(
    stage: &mut Stage,
    otherwise: OnConflict,
    allowed: &[&[String]],
    theirs: &[&Theirs],
    what: &str,
    work: &mut dyn FnMut(&mut Stage, OnConflict) -> Result<Report, TargetError>,
) -> bool {
    let client = stage.other();
    let now = dump(&client);
    let complaints_now = complaints(&client);
    let mut allowed = allowed.to_vec();
    allowed.push(&complaints_now);
    let marks_now = marks(&client);
    let mut met = Vec::new();
    let mut listed = Vec::new();
    let dangling_now = dangling(&client);
    let done = match work(stage, OnConflict::Stop) {
        Ok(_) => true,
        Err(TargetError::Conflicts(conflicts)) => {
            met.extend(conflicts.listed.iter().map(ToString::to_string));
            same(&dump(&client), &now, &format!("a conflict changes nothing: {what}"));
            match work(stage, otherwise) {
                Ok(report) => listed.extend(report.conflicts.listed.iter().map(ToString::to_string)),
                // What can't be overwritten is refused, with a reason.
                Err(TargetError::Failed { .. } | TargetError::Conflicts(_)) if otherwise == OnConflict::Overwrite => {
                    same(&dump(&client), &now, &format!("a refusal changes nothing: {what}"));
                    return false;
                }
                Err(error) => panic!("{otherwise:?}: {what}: {}", told(&error)),
            }
            false
        }
        Err(error) => panic!("{what}: {}", told(&error)),
    };
    let what = if done { what.to_owned() } else { format!("{what}\n-- {otherwise:?}, for {met:#?}") };
    dump(&client);
    // A foreign key that was of no use may be so under its table's other name, or for another reason.
    let is_of_a_key = |one: &&String| one.starts_with("keys of ") || one.starts_with("parent of ");
    let now = complaints(&client);
    if is_undo(&what) && (done || otherwise == OnConflict::Keep) {
        let new: Vec<String> = dangling(&client).into_iter().filter(|one| !dangling_now.contains(one)).collect();
        let meant = |one: &&String| {
            !dangling_now.iter().any(|now| now.ends_with(" ?")) && !one.ends_with(" ?") && one.starts_with("others")
        };
        let new: Vec<&String> = new.iter().filter(meant).collect();
        assert!(new.is_empty(), "{what}\npoint at nothing: {new:?}");
    }
    if is_undo(&what) {
        let there = marks(&client);
        // Of a table that goes as a whole, and is none that the step made, the rows are counted.
        let counted = |one: &String| one.contains("holds ") || one.contains(", with ") && one.contains("(others");
        let is_told = |mark: &String| listed.iter().any(|one| one.contains(mark.as_str()) || counted(one));
        let lost: Vec<&String> = marks_now.iter().filter(|mark| !there.contains(mark) && !is_told(mark)).collect();
        assert!(lost.is_empty(), "{what}\nlost values of others {lost:?}, told {listed:#?}");
    }
    let of_keys: HashSet<&str> = now.iter().filter(is_of_a_key).map(|one| table_of(one)).collect();
    let known = allowed.iter().flat_map(|known| known.iter());
    let known: HashSet<&str> = known.filter(is_of_a_key).map(|one| table_of(one)).collect();
    let fine = match otherwise {
        _ if done => of_keys.is_subset(&known),
        // Never does a table of others go.
        OnConflict::Overwrite => true,
        _ => of_keys.len() <= known.len(),
    };
    assert!(fine, "{what}\nforeign keys: {now:?}");
    let keys: Vec<String> = now.iter().filter(is_of_a_key).cloned().collect();
    allowed.push(&keys);
    if !done && otherwise == OnConflict::Overwrite && met.iter().any(|one| one.contains("it would not work")) {
        // What would come back in vain comes all the same.
        return false;
    }
    sound(&client, &allowed, &what);
    if !done && otherwise == OnConflict::Overwrite {
        return false;
    }
    all_there(&client, theirs, &what);
    if is_undo(&what) {
        let there = marks(&client);
        let lost: Vec<&String> = marks_now.iter().filter(|mark| !there.contains(mark)).collect();
        assert!(lost.is_empty(), "{what}\nlost rows of others {lost:?}");
    }
    done
}

fn is_undo(what: &str) -> bool {
    what.lines().any(|line| line == "-- undo" || line == "-- undo again")
}

/// Rows that point at nothing.
fn dangling(conn: &Connection) -> Vec<String> {
    let of = |table: &String| {
        let sql = format!(
            "SELECT \"table\" || ' ' || coalesce(rowid, '') || ' ' || parent FROM pragma_foreign_key_check({})",
            text(table)
        );
        let mut select = conn.prepare(&sql).unwrap();
        let found: Result<Vec<String>, _> = select.query_map([], |row| row.get(0)).and_then(Iterator::collect);
        // Of a key that means nothing nobody can say what it points at.
        found.unwrap_or_else(|_| vec![format!("{table} ?")])
    };
    tables(conn).iter().flat_map(of).collect()
}
