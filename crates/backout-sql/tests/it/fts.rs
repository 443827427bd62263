//! Full-text tables: their shadow tables come back byte by byte where nobody else wrote, and by content where somebody
//! did.

use crate::bed::{apply, live, plain, same, seen};
use crate::stage::dump;

const BASE: &str = "
CREATE TABLE doc(id INTEGER PRIMARY KEY, title TEXT, body TEXT);
CREATE VIRTUAL TABLE f USING fts5(title, body, tokenize = 'porter ascii', prefix = '2');
CREATE VIRTUAL TABLE x USING fts5(title, body, content = 'doc', content_rowid = 'id');
CREATE TRIGGER doc_i AFTER INSERT ON doc BEGIN
  INSERT INTO x(rowid, title, body) VALUES (new.id, new.title, new.body);
END;
CREATE TRIGGER doc_d AFTER DELETE ON doc BEGIN
  INSERT INTO x(x, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
END;
CREATE TRIGGER doc_u AFTER UPDATE ON doc BEGIN
  INSERT INTO x(x, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
  INSERT INTO x(rowid, title, body) VALUES (new.id, new.title, new.body);
END;
WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 300)
  INSERT INTO doc(title, body) SELECT 'title ' || i, 'word' || (i % 17) || ' text running ' || i FROM i;
INSERT INTO f(rowid, title, body) SELECT id, title, body FROM doc;
";

const CASES: &[&str] = &[
    "INSERT INTO f(title, body) VALUES ('new', 'quite new words');",
    "UPDATE f SET body = 'changed ' || rowid WHERE rowid % 3 = 0; DELETE FROM f WHERE rowid % 5 = 0;",
    "UPDATE doc SET body = 'changed ' || id WHERE id % 3 = 0; DELETE FROM doc WHERE id % 5 = 0; INSERT INTO doc(title) VALUES ('z');",
    "DELETE FROM f;",
    "INSERT INTO f(f) VALUES ('optimize'); INSERT INTO f(f, rank) VALUES ('merge', 100); INSERT INTO x(x) VALUES ('rebuild');",
    "INSERT INTO f(f, rank) VALUES ('pgsz', 64); INSERT INTO f(title) VALUES ('small page');",
    "CREATE VIRTUAL TABLE g USING fts5(a, b UNINDEXED); INSERT INTO g SELECT title, body FROM doc; DELETE FROM g WHERE rowid < 10;",
    "DROP TABLE f;",
    "INSERT INTO f(title) VALUES ('late'); DROP TABLE f; CREATE TABLE f(a); INSERT INTO f VALUES (1);",
    "DROP TABLE x; DROP TRIGGER doc_i; DROP TRIGGER doc_d; DROP TRIGGER doc_u; UPDATE doc SET title = 'q';",
    "ALTER TABLE f RENAME TO ff; INSERT INTO ff(title) VALUES ('renamed');",
    "CREATE VIRTUAL TABLE g USING fts5(a, content=''); INSERT INTO g(rowid, a) VALUES (1, 'contentless');",
    "CREATE VIRTUAL TABLE g USING fts5(a); INSERT INTO g VALUES ('x'); ALTER TABLE g RENAME TO h; DROP TABLE h;",
];

fn finds(conn: &rusqlite::Connection) -> Vec<String> {
    let mut found = Vec::new();
    for table in ["f", "ff", "x", "g"] {
        let is_virtual: bool = conn
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1 AND sql LIKE 'CREATE VIRTUAL%')",
                [table],
                |row| row.get(0),
            )
            .unwrap();
        if !is_virtual {
            continue;
        }
        conn.execute_batch(&format!("INSERT INTO {table}({table}) VALUES ('integrity-check')")).unwrap();
        for word in ["word3", "changed", "run*", "new", "title", "small", "contentless"] {
            let mut select =
                conn.prepare(&format!("SELECT rowid FROM {table} WHERE {table} MATCH ?1 ORDER BY rowid")).unwrap();
            let rows: Vec<i64> = select.query_map([word], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            found.push(format!("{table} {word} {rows:?}"));
        }
    }
    found
}

#[test]
fn there_and_back() {
    for mode in ["", "PRAGMA journal_mode = WAL; PRAGMA auto_vacuum = FULL;"] {
        for case in CASES {
            let mut stage = live(mode, BASE);
            let (before, found_before) = (dump(&stage.other()), finds(&stage.other()));
            let client = plain(mode, BASE);
            client.execute_batch(&format!("BEGIN; {case}; COMMIT;")).unwrap_or_else(|error| panic!("{case}: {error}"));
            let images = apply(&mut stage, case, case);
            same(&finds(&stage.other()), &finds(&client), case);
            let after = dump(&stage.other());
            same(&seen(&stage.other()), &seen(&client), &format!("after the run: {case}"));
            stage.undo(&images);
            same(&dump(&stage.other()), &before, &format!("after the undo: {case}"));
            same(&finds(&stage.other()), &found_before, case);
            let again = stage.redo(&images);
            same(&dump(&stage.other()), &after, &format!("after the redo: {case}"));
            same(&finds(&stage.other()), &finds(&client), case);
            stage.undo(&again);
            same(&dump(&stage.other()), &before, &format!("after the second undo: {case}"));
        }
    }
}

/// What the index must find: each row by its own words.
fn rows_of(conn: &rusqlite::Connection, sql: &str) -> Vec<String> {
    let mut select = conn.prepare(sql).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn what_others_wrote_stays_and_is_found() {
    let mut stage = live("", BASE);
    let images = apply(
        &mut stage,
        "UPDATE f SET body = 'deployed' WHERE rowid < 50; DELETE FROM f WHERE rowid = 60; INSERT INTO f(rowid, body) VALUES (900, 'made');
         UPDATE doc SET body = 'deployed' WHERE id < 50;",
        "",
    );
    stage
        .other()
        .execute_batch("INSERT INTO f(rowid, body) VALUES (1000, 'theirs'); UPDATE f SET title = 'theirs' WHERE rowid = 3; INSERT INTO doc(id, body) VALUES (1000, 'theirs')")
        .unwrap();
    let check = |conn: &rusqlite::Connection, deployed: usize| {
        for table in ["f", "x"] {
            conn.execute_batch(&format!("INSERT INTO {table}({table}, rank) VALUES ('integrity-check', 1)")).unwrap();
            let count = rows_of(conn, &format!("SELECT body FROM {table} WHERE {table} MATCH 'deployed'")).len();
            assert_eq!(count, deployed, "{table}");
            assert!(
                rows_of(conn, &format!("SELECT body FROM {table} WHERE {table} MATCH 'theirs'"))
                    .contains(&"theirs".into())
            );
        }
    };
    check(&stage.other(), 49);
    let report = stage.undo(&images);
    assert!(report.conflicts.is_empty());
    check(&stage.other(), 0);
    let other = stage.other();
    assert_eq!(
        rows_of(&other, "SELECT body FROM f WHERE rowid IN (3, 60, 900, 1000) ORDER BY rowid"),
        ["word3 text running 3", "word9 text running 60", "theirs"]
    );
    assert_eq!(rows_of(&other, "SELECT title FROM f WHERE rowid = 3"), ["theirs"]);
    let again = stage.redo(&images);
    check(&stage.other(), 49);
    stage.undo(&again);
    check(&stage.other(), 0);
}

#[test]
fn an_index_without_content_is_a_conflict_once_others_wrote_to_it() {
    let mut stage =
        live("", "CREATE VIRTUAL TABLE g USING fts5(a, content = ''); INSERT INTO g(rowid, a) VALUES (1, 'one')");
    let before = dump(&stage.other());
    let images = apply(&mut stage, "INSERT INTO g(rowid, a) VALUES (2, 'two')", "");
    stage.other().execute_batch("INSERT INTO g(rowid, a) VALUES (3, 'three')").unwrap();
    let conflicts = stage.conflicts(&images);
    assert_eq!(conflicts.total, 1);
    assert_eq!(conflicts.listed[0].object, "g");
    stage.other().execute_batch("INSERT INTO g(g, rowid, a) VALUES ('delete', 3, 'three')").unwrap();
    assert_ne!(dump(&stage.other()), before);
}

#[test]
fn a_full_text_table_with_rows_of_others_is_not_empty() {
    let mut stage = live("", "CREATE TABLE t(a)");
    let images = apply(&mut stage, "CREATE VIRTUAL TABLE g USING fts5(a); INSERT INTO g VALUES ('ours')", "");
    stage.other().execute_batch("INSERT INTO g VALUES ('theirs')").unwrap();
    let conflicts = stage.conflicts(&images);
    assert_eq!(
        conflicts.listed.iter().map(|one| one.kind).collect::<Vec<_>>(),
        [backout_model::conflict::ConflictKind::NotEmpty]
    );
}
