//! Every kind of schema change, over tables with rows: the result is that of the plain client, undo brings back what
//! was, redo brings the first result again.

use std::io::Cursor;

use backout_model::target::Target;

use crate::bed::{apply, holds, live, no_strange_keys, plain, same, seen};
use crate::stage::dump;

pub const BASE: &str = r#"CREATE TABLE p(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE COLLATE NOCASE, x REAL DEFAULT 1.5, CHECK (x > 0 OR p.x IS NULL));
CREATE TABLE c(id INTEGER PRIMARY KEY, p INT REFERENCES p(id) ON DELETE CASCADE, v TEXT NOT NULL DEFAULT 'd', g AS (v || 'g') STORED, gv AS (id+1));
CREATE TABLE w(a TEXT, b INT, z BLOB, PRIMARY KEY(a DESC, b)) WITHOUT ROWID;
CREATE TABLE s(a INTEGER PRIMARY KEY, b ANY, c TEXT UNIQUE) STRICT;
CREATE TABLE n(a, b, c);
CREATE INDEX n_a ON n(a DESC); CREATE UNIQUE INDEX n_b ON n(b) WHERE b IS NOT NULL; CREATE INDEX n_e ON n(lower(c), a COLLATE NOCASE);
CREATE INDEX w_z ON w(z); CREATE INDEX c_g ON c(g, gv);
CREATE VIEW vn AS SELECT a, b FROM n; CREATE VIEW vp AS SELECT id, name FROM p WHERE x > 1;
CREATE TRIGGER tn AFTER INSERT ON n BEGIN UPDATE n SET c = new.a WHERE rowid = new.rowid; END;
CREATE TRIGGER tv INSTEAD OF INSERT ON vn BEGIN INSERT INTO n(a) VALUES (new.a); END;
CREATE TABLE rid(rowid, _rowid_ TEXT);
CREATE TABLE q(id INTEGER PRIMARY KEY AUTOINCREMENT, t TEXT);
WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM i WHERE i < 700) INSERT INTO p(name, x) SELECT 'n' || i, i * 0.25 FROM i;
INSERT INTO c(p, v) SELECT id, 'v' || id FROM p; UPDATE c SET id = id + 5000 WHERE id > 300;
INSERT INTO w SELECT 'w' || (id % 7), id, zeroblob(id % 50) FROM p;
INSERT INTO s SELECT id, CASE id % 4 WHEN 0 THEN NULL WHEN 1 THEN 1.0 WHEN 2 THEN x'00' ELSE 'e' END, name FROM p;
INSERT INTO n SELECT id, CASE WHEN id % 3 = 0 THEN NULL ELSE id END, 'C' || id FROM p; DELETE FROM n WHERE rowid % 5 = 0;
INSERT INTO rid VALUES ('a', 'b'), (1.0, NULL);
INSERT INTO q(t) VALUES ('a'), ('b'), (NULL); DELETE FROM q WHERE id = 3;"#;

const MODES: [&str; 6] = [
    "",
    "PRAGMA auto_vacuum = FULL;",
    "PRAGMA auto_vacuum = INCREMENTAL;",
    "PRAGMA journal_mode = WAL;",
    "PRAGMA encoding = 'UTF-16le';",
    "PRAGMA page_size = 512;",
];
const SESSIONS: [&str; 3] = ["", "PRAGMA legacy_alter_table = ON;", "PRAGMA foreign_keys = ON;"];

const CASES: &[&str] = &[
    r#"CREATE TABLE y(a, b UNIQUE); CREATE INDEX y_i ON y(a); CREATE VIEW yv AS SELECT * FROM y; CREATE TRIGGER yt AFTER INSERT ON y BEGIN SELECT 1; END;"#,
    r#"CREATE TABLE IF NOT EXISTS n(z); CREATE TEMP TABLE n(z); DROP TABLE n; DROP TABLE IF EXISTS nix; DROP VIEW IF EXISTS nix;"#,
    r#"CREATE TABLE y AS SELECT * FROM p; CREATE TABLE y2 AS SELECT id AS rowid, x AS oid, name FROM p; CREATE TABLE y3 AS SELECT 1 a WHERE 0; CREATE INDEX y_n ON y(name)"#,
    r#"DROP TABLE n"#,
    r#"DROP TABLE w"#,
    r#"DROP TABLE s"#,
    r#"DROP TABLE q"#,
    r#"DROP TABLE rid"#,
    r#"DROP TABLE c"#,
    r#"DROP TABLE c; DROP TABLE p; CREATE TABLE p(q); DROP VIEW vp; CREATE INDEX pq ON p(q)"#,
    r#"DROP TABLE q; CREATE TABLE q(id INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE q;"#,
    r#"DROP INDEX n_a; DROP INDEX n_b; DROP INDEX n_e; DROP INDEX w_z; DROP INDEX c_g"#,
    r#"DROP VIEW vn"#,
    r#"DROP TRIGGER tn; DROP TRIGGER tv; DROP VIEW vp"#,
    r#"ALTER TABLE n RENAME TO m"#,
    r#"ALTER TABLE c RENAME TO cc"#,
    r#"ALTER TABLE q RENAME TO qq; ALTER TABLE qq RENAME TO "q q""#,
    r#"ALTER TABLE w RENAME TO ww; ALTER TABLE s RENAME TO ss;"#,
    r#"DROP TRIGGER tv; ALTER TABLE n RENAME COLUMN a TO aa; ALTER TABLE n RENAME COLUMN c TO "c c""#,
    r#"ALTER TABLE c RENAME COLUMN v TO vv; ALTER TABLE p RENAME id TO pid; ALTER TABLE w RENAME a TO aaa"#,
    r#"ALTER TABLE n ADD COLUMN d; ALTER TABLE n ADD COLUMN e INT DEFAULT -5; ALTER TABLE p ADD COLUMN f TEXT NOT NULL DEFAULT 'x' CHECK (f <> ''); ALTER TABLE w ADD h INT DEFAULT 3.0; ALTER TABLE s ADD i ANY; ALTER TABLE c ADD j AS (id * 2);"#,
    r#"ALTER TABLE c ADD COLUMN pp INT REFERENCES p(id)"#,
    r#"ALTER TABLE q ADD j REAL DEFAULT 1; ALTER TABLE q ADD k DEFAULT true; ALTER TABLE q ADD l DEFAULT "dq"; ALTER TABLE q ADD m DEFAULT word"#,
    r#"DROP VIEW vp; CREATE TABLE pp(id INTEGER PRIMARY KEY AUTOINCREMENT, x INT DEFAULT 7, y CHECK (y > 0), z AS (y+1)); ALTER TABLE pp DROP COLUMN x; ALTER TABLE pp DROP COLUMN z; ALTER TABLE pp DROP COLUMN y"#,
    r#"DROP VIEW vp; ALTER TABLE q DROP COLUMN t; ALTER TABLE w ADD k TEXT DEFAULT 'k'; ALTER TABLE w DROP COLUMN k"#,
    r#"DROP INDEX w_z; ALTER TABLE w DROP COLUMN z"#,
    r#"ALTER TABLE s DROP COLUMN b"#,
    r#"DROP INDEX c_g; ALTER TABLE c DROP COLUMN gv; ALTER TABLE c DROP COLUMN g; ALTER TABLE c DROP COLUMN v"#,
    r#"DROP TRIGGER tn; DROP INDEX n_e; ALTER TABLE n DROP COLUMN c"#,
    r#"ANALYZE"#,
    r#"ANALYZE; DROP TABLE n; ANALYZE; DROP INDEX w_z"#,
    r#"ANALYZE; DROP TABLE sqlite_stat1; ANALYZE p"#,
    r#"REINDEX; REINDEX n"#,
    r#"DELETE FROM w"#,
    r#"DELETE FROM s; DELETE FROM n; DROP TABLE n"#,
    r#"DELETE FROM c; DROP TABLE c; DELETE FROM p"#,
    r#"DELETE FROM n; ALTER TABLE n RENAME TO nn; CREATE INDEX nni ON nn(c); DROP TABLE nn"#,
    r#"DROP VIEW vn; CREATE TABLE new_n(a TEXT, b INT NOT NULL DEFAULT 0, c); DROP TABLE n; ALTER TABLE new_n RENAME TO n; CREATE INDEX n_a ON n(a);"#,
    r#"ALTER TABLE p ADD CHECK (id < 100000); ALTER TABLE p ALTER name SET NOT NULL; ALTER TABLE p ALTER name DROP NOT NULL; ALTER TABLE p ADD CONSTRAINT cc CHECK (id > 0); ALTER TABLE p DROP CONSTRAINT cc"#,
    // Rows and schema changes, mixed.
    "INSERT INTO n(a) VALUES ('x'); ALTER TABLE n ADD COLUMN d DEFAULT 5; UPDATE n SET d = rowid; DELETE FROM n WHERE d % 2; DROP INDEX n_e;",
    "CREATE TABLE y(id INTEGER PRIMARY KEY AUTOINCREMENT, v UNIQUE); INSERT INTO y(v) SELECT name FROM p; DELETE FROM p; UPDATE y SET v = v || '-' || id; DROP TABLE y",
    "UPDATE w SET z = NULL; ALTER TABLE w RENAME TO ww; INSERT INTO ww VALUES ('new', 1, x'ff'); DROP TABLE ww; CREATE TABLE w(a)",
    "DROP VIEW vp; CREATE TABLE np(id INTEGER PRIMARY KEY, name TEXT, x REAL, extra DEFAULT 'e'); INSERT INTO np(id, name, x) SELECT id, upper(name), x FROM p; DROP TABLE p; ALTER TABLE np RENAME TO p; CREATE UNIQUE INDEX p_name ON p(name)",
    "CREATE TABLE y AS SELECT id, name FROM p; DELETE FROM y WHERE id > 3; UPDATE y SET name = 'z'; ALTER TABLE y ADD COLUMN q; DROP TABLE y",
    "DELETE FROM s; INSERT INTO s VALUES (1, 'new', 'new'); INSERT INTO s VALUES (700, 2, 'more'); DELETE FROM s; INSERT INTO s(b) VALUES (9)",
    "DELETE FROM n; INSERT INTO s(b) VALUES (changes()); DELETE FROM q; INSERT INTO s(b) VALUES (changes())",
    "ALTER TABLE c ADD COLUMN k; UPDATE c SET k = v; ALTER TABLE c RENAME COLUMN k TO kk; UPDATE c SET kk = id WHERE kk LIKE '%7'; ALTER TABLE c DROP COLUMN kk",
    "CREATE TEMP TABLE t1(a); INSERT INTO t1 SELECT id FROM p WHERE id < 4; CREATE TABLE y AS SELECT a * 2 AS b FROM t1; INSERT INTO n(a) SELECT a FROM t1; DROP TABLE t1",
];

fn one(mode: &str, session: &str, case: &str) {
    let what = format!("{mode} {session} {case}");
    let mut stage = live(mode, BASE);
    let other = stage.other();
    let before = dump(&other);
    let client = plain(mode, BASE);
    client
        .execute_batch(&format!("{session} BEGIN; {case}; COMMIT;"))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let expected = seen(&client);

    let images = apply(&mut stage, &format!("{session}\n{case}"), &what);
    same(&seen(&other), &expected, &format!("after the run: {what}"));
    no_strange_keys(&other, &what);
    let after = dump(&other);

    let report = stage.undo(&images);
    same(&dump(&other), &before, &format!("after the undo: {what}"));
    assert!(report.notes.is_empty(), "{what}: {:?}", report.notes);
    assert_eq!(holds(&mut stage), Vec::<String>::new(), "{what}");

    let again = stage.redo(&images);
    if !case.contains("ANALYZE") {
        same(&dump(&other), &after, &format!("after the redo: {what}"));
    }
    same(&seen(&other), &expected, &format!("after the redo: {what}"));
    stage.undo(&again);
    same(&dump(&other), &before, &format!("after the second undo: {what}"));

    let third = stage.redo(&again);
    same(&seen(&other), &expected, &format!("after the second redo: {what}"));
    stage.database.forget(&mut Cursor::new(&third)).unwrap();
    assert_eq!(holds(&mut stage), Vec::<String>::new(), "{what}");
    same(&seen(&other), &expected, &format!("after forgetting: {what}"));
}

fn all(mode: &str, session: &str) {
    for case in CASES {
        // With foreign keys on these delete rows that others need.
        if session.contains("foreign_keys") && ["DROP TABLE p", "DELETE FROM p"].iter().any(|word| case.contains(word))
        {
            continue;
        }
        one(mode, session, case);
    }
}

#[test]
fn plainly() {
    all(MODES[0], SESSIONS[0]);
}

#[test]
fn with_legacy_alter_table() {
    all(MODES[0], SESSIONS[1]);
}

#[test]
fn with_foreign_keys() {
    all(MODES[0], SESSIONS[2]);
}

#[test]
fn with_auto_vacuum_full() {
    all(MODES[1], SESSIONS[0]);
}

#[test]
fn with_auto_vacuum_incremental() {
    all(MODES[2], SESSIONS[1]);
}

#[test]
fn in_wal_mode() {
    all(MODES[3], SESSIONS[2]);
}

#[test]
fn in_utf_16() {
    all(MODES[4], SESSIONS[0]);
}

#[test]
fn with_tiny_pages() {
    all(MODES[5], SESSIONS[0]);
}
