//! What the tests of schema changes need beyond the stage: a second database under the plain client, and comparisons
//! that name the first difference.

use backout_sql::database::Database;
use rusqlite::Connection;

use crate::stage::{self, Images, Stage, dump};

/// A live database made by `mode` (PRAGMAs) and `setup`.
pub fn live(mode: &str, setup: &str) -> Stage {
    Stage::made_by(|conn| build(conn, mode, setup))
}

/// Another of the same form, for the plain client.
pub fn plain(mode: &str, setup: &str) -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    build(&conn, mode, setup);
    conn
}

fn build(conn: &Connection, mode: &str, setup: &str) {
    conn.execute_batch(mode).unwrap();
    // Else `"x"` is a string as long as there is no such column, and something else once there is one.
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DQS_DDL, false).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF; BEGIN").unwrap();
    conn.execute_batch(setup).unwrap();
    conn.execute_batch("COMMIT").unwrap();
}

/// Everything that a user sees, for comparing with what the plain client makes: ANALYZE writes its rows in the order
/// of a hash table, so that of the statistics says nothing.
pub fn seen(conn: &Connection) -> Vec<String> {
    let (mut statistics, mut lines): (Vec<_>, Vec<_>) =
        dump(conn).into_iter().partition(|line| line.starts_with("sqlite_stat"));
    for line in &mut statistics {
        let words: Vec<&str> = line.split(' ').collect();
        *line = [&words[..1], &words[2..]].concat().join(" ");
    }
    statistics.sort();
    lines.append(&mut statistics);
    lines
}

/// Fails with the first line that differs.
#[track_caller]
pub fn same(found: &[String], expected: &[String], what: &str) {
    let end = String::from("(the end)");
    for at in 0..found.len().max(expected.len()) {
        let (found, expected) = (found.get(at).unwrap_or(&end), expected.get(at).unwrap_or(&end));
        assert!(found == expected, "{what}\n found    {found}\n expected {expected}");
    }
}

/// The tool's own tables must not make a foreign key of the user's look broken.
#[track_caller]
pub fn no_strange_keys(conn: &Connection, what: &str) {
    let mut check = conn.prepare("PRAGMA foreign_key_check").unwrap();
    let tables: Vec<String> = check.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(tables.iter().all(|table| !table.starts_with("backout")), "{what}");
}

/// The names of what the tool keeps beside its marker.
pub fn holds(stage: &mut Stage) -> Vec<String> {
    let mut names = stage.database.own_objects().unwrap();
    names.retain(|name| name != "backout_shop");
    names
}

/// Applies, or says what went wrong.
#[track_caller]
pub fn apply(stage: &mut Stage, sql: &str, what: &str) -> Images {
    match stage.try_apply(sql) {
        Ok((images, _)) => images,
        Err(error) => panic!("{what}: {}", stage::told(&error)),
    }
}

pub fn list(conn: &Connection, sql: &str) -> Vec<String> {
    let mut select = conn.prepare(sql).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// What of the schema can't be used, in SQLite's words: every view is read, every table and view with a trigger is
/// written to, every foreign key has a parent. A quoted name that means nothing is no string here.
pub fn unusable(conn: &Connection) -> Vec<String> {
    use rusqlite::config::DbConfig;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false).unwrap();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false).unwrap();
    let fires = conn.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER).unwrap();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).unwrap();
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let text = |name: &str| name.replace('\'', "''");
    let mut wrong = Vec::new();
    let mut check = |what: String, sql: &str| {
        if let Err(error) = conn.prepare(sql) {
            wrong.push(format!("{what}: {error}"));
        }
    };
    for view in list(conn, "SELECT name FROM sqlite_schema WHERE type = 'view'") {
        check(format!("view {view}"), &format!("SELECT * FROM {}", quote(&view)));
    }
    let written = "SELECT tbl_name FROM sqlite_schema WHERE type = 'trigger' AND upper(sql) LIKE '%INSTEAD OF INSERT%'";
    for view in list(conn, written) {
        check(format!("insert {view}"), &format!("INSERT INTO {} DEFAULT VALUES", quote(&view)));
    }
    let tables =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE 'backout%'";
    for table in list(conn, tables) {
        let (name, text) = (quote(&table), text(&table));
        for column in list(conn, &format!("SELECT name FROM pragma_table_xinfo('{text}') WHERE hidden = 0")) {
            check(format!("update {table}.{column}"), &format!("UPDATE {name} SET {} = 1", quote(&column)));
        }
        check(format!("insert {table}"), &format!("INSERT INTO {name} DEFAULT VALUES"));
        check(format!("delete {table}"), &format!("DELETE FROM {name}"));
        check(format!("keys of {table}"), &format!("PRAGMA foreign_key_check({name})"));
        for parent in list(conn, &format!("SELECT \"table\" FROM pragma_foreign_key_list('{text}')")) {
            check(format!("parent of {table}"), &format!("SELECT 1 FROM {}", quote(&parent)));
        }
    }
    // An index on what is no column any more is one on a string.
    let indexes =
        "SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name NOT LIKE 'backout%'";
    for index in list(conn, indexes) {
        let (start, rest) = index.split_once("INDEX ").unwrap();
        let on = rest.to_uppercase().find(" ON ").unwrap();
        check(index.clone(), &format!("{start}INDEX name_of_a_check{}", &rest[on..]));
    }
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, fires).unwrap();
    wrong
}
