//! A column that was widened gets its old type back: what others wrote meanwhile and has no room there is a conflict, and is
//! never cut, rounded or bounded unsaid.

use backout_engine::outcome::Status;
use backout_model::conflict::OnConflict;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;
use backout_testkit::{mariadb, postgres};

/// The old type, the new one, a value that both hold, and one that only the new one holds.
const POSTGRES: &[(&str, &str, &str, &str)] = &[
    ("varchar(5)", "text", "'short'", "'far too long'"),
    ("varchar(5)", "varchar(20)", "'short'", "'far too long'"),
    ("char(3)", "text", "'abc'", "'abcdef'"),
    ("integer", "bigint", "7", "99999999999"),
    ("integer", "numeric(12,0)", "7", "99999999999"),
    ("numeric(6,2)", "numeric(12,4)", "1.25", "1.2345"),
    ("real", "double precision", "0.5", "0.123456789012"),
    ("integer", "text", "'7'", "'007'"),
    ("integer", "text", "'7'", "'seven'"),
    ("date", "timestamp", "'2026-01-02'", "'2026-01-02 03:04'"),
    ("timestamp(0)", "timestamp", "'2026-01-02 03:04:05'", "'2026-01-02 03:04:05.6'"),
    ("boolean", "text", "'true'", "'yes'"),
    ("bit varying(3)", "bit varying", "B'101'", "B'10101'"),
];

const MARIADB: &[(&str, &str, &str, &str)] = &[
    ("varchar(5)", "text", "'short'", "'far too long'"),
    ("varchar(5) NOT NULL", "varchar(5) NULL", "'short'", "NULL"),
    ("varchar(5) CHARACTER SET latin1", "varchar(5) CHARACTER SET utf8mb4", "'größ'", "'€あ'"),
    ("int", "bigint", "7", "99999999999"),
    ("tinyint unsigned", "int", "7", "-1"),
    ("decimal(6,2)", "decimal(12,4)", "1.25", "1.2345"),
    ("float", "double", "0.5", "0.123456789012"),
    ("double", "decimal(30,4)", "0.5", "12345678901234567890.1234"),
    ("double", "bigint", "7", "9007199254740993"),
    ("float", "decimal(10,2)", "19.99", "12345678.91"),
    ("time NULL", "datetime NULL", "NULL", "CONCAT(CURRENT_DATE, ' 11:00:00')"),
    ("int", "varchar(20)", "'7'", "'seven'"),
    ("date", "datetime", "'2026-01-02'", "'2026-01-02 03:04'"),
    ("datetime", "datetime(6)", "'2026-01-02 03:04:05'", "'2026-01-02 03:04:05.6'"),
    ("enum('a','b')", "enum('a','b','c')", "'b'", "'c'"),
    ("varbinary(3)", "varbinary(9)", "x'0001'", "x'000102030405'"),
];

/// What others do with a value: a row of theirs, and one that was there.
fn writes(value: &str) -> [String; 2] {
    [format!("INSERT INTO t VALUES (9, {value})"), format!("UPDATE t SET v = {value} WHERE id = 2")]
}

fn play(site: &TestSite, alter: &str, holds: bool, write: &str, run: &dyn Fn(&str) -> String, what: &str) {
    site.deploy(&Pkg::new("p").step(sql(alter))).expect(Status::Done);
    run(write);
    let rows = || run("SELECT id, v FROM t ORDER BY id");
    let written = rows();
    if holds && write.starts_with("INSERT") {
        site.undo(None).expect(Status::Done);
        assert_eq!(run("SELECT count(*) FROM t").trim(), "4", "{what}");
        return;
    }
    if holds {
        return;
    }
    let refused = site.undo(None);
    assert_eq!(refused.status(), Status::Refused, "{what}: {refused:?}");
    assert_eq!(rows(), written, "{what}: refused");
    let kept = site.undo_on(None, OnConflict::Keep);
    assert_eq!(rows(), written, "{what}: kept: {kept:?}");
    assert!(matches!(kept.status(), Status::Partly | Status::Done), "{what}: {kept:?}");
}

#[test]
fn on_postgres_what_others_wrote_is_not_cut() {
    for (old, new, fits, too_much) in POSTGRES {
        for (holds, value) in [(true, fits), (false, too_much)] {
            for write in writes(value) {
                let base = format!(
                    "CREATE TABLE t (id int PRIMARY KEY, v {old}); INSERT INTO t VALUES (1, NULL), (2, NULL), (3, {fits})"
                );
                let site = TestSite::builder().postgres("main", postgres::Server::shared(), &base).build();
                let alter = format!("ALTER TABLE t ALTER v TYPE {new}");
                let run = |query: &str| site.postgres("main").unwrap().psql(query);
                play(&site, &alter, holds, &write, &run, &format!("{old} to {new}: {write}"));
            }
        }
    }
}

#[test]
fn on_mariadb_what_others_wrote_is_not_cut() {
    for (old, new, fits, too_much) in MARIADB {
        for (holds, value) in [(true, fits), (false, too_much)] {
            for write in writes(value) {
                let base = format!(
                    "CREATE TABLE t (id int PRIMARY KEY, v {old}); INSERT INTO t VALUES (1, {fits}), (2, {fits}), (3, {fits})"
                );
                let site = TestSite::builder().mariadb("main", mariadb::Server::shared(), &base).build();
                let alter = format!("ALTER TABLE t MODIFY v {new}");
                let run = |query: &str| site.mariadb("main").unwrap().script(query);
                play(&site, &alter, holds, &write, &run, &format!("{old} to {new}: {write}"));
            }
        }
    }
}

/// What a step of MariaDB's made or took away, what others did since, and what they would lose by the undo.
#[test]
fn on_mariadb_what_others_made_of_it_is_a_conflict() {
    for (base, script, others, look) in [
        ("", "ALTER TABLE t ADD COLUMN c INT", "UPDATE t SET c = 5 WHERE id = 2", "SELECT c FROM t WHERE id = 2"),
        (
            "",
            "ALTER TABLE t ADD COLUMN c VARCHAR(9) NOT NULL DEFAULT 'it''s', ADD COLUMN d INT NOT NULL",
            "INSERT INTO t VALUES (9, 9, 'it''s', 1)",
            "SELECT d FROM t WHERE id = 9",
        ),
        (
            "ALTER TABLE t ADD CONSTRAINT ck CHECK (v < 10)",
            "ALTER TABLE t DROP CONSTRAINT ck",
            "INSERT INTO t VALUES (9, 50)",
            "SELECT v FROM t WHERE id = 9",
        ),
        (
            "CREATE UNIQUE INDEX u ON t (v)",
            "DROP INDEX u ON t",
            "INSERT INTO t VALUES (9, 1)",
            "SELECT v FROM t WHERE id = 9",
        ),
        (
            "ALTER TABLE t ADD COLUMN b INT; UPDATE t SET b = id",
            "ALTER TABLE t DROP COLUMN b",
            "UPDATE t SET id = 9 WHERE id = 1",
            "SELECT id FROM t WHERE id = 9",
        ),
        ("", "ALTER TABLE t MODIFY id BIGINT", "INSERT INTO t VALUES (5000000000, 1)", "SELECT id FROM t WHERE id > 3"),
    ] {
        let base =
            format!("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3); {base}");
        let site = TestSite::builder().mariadb("main", mariadb::Server::shared(), &base).build();
        site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
        let run = |query: &str| site.mariadb("main").unwrap().script(query);
        run(others);
        let written = run(look);
        assert_ne!(written, "", "{script}");
        let refused = site.undo(None);
        assert_eq!(refused.status(), Status::Refused, "{script}: {refused:?}");
        assert_eq!(run(look), written, "{script}: refused");
        let kept = site.undo_on(None, OnConflict::Keep);
        assert!(matches!(kept.status(), Status::Partly | Status::Done), "{script}: {kept:?}");
        assert_eq!(run(look), written, "{script}: kept");
    }
    // What only the deployment put there goes with it.
    let base = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2)";
    let site = TestSite::builder().mariadb("main", mariadb::Server::shared(), base).build();
    let script = "ALTER TABLE t ADD COLUMN c VARCHAR(9) NOT NULL DEFAULT 'a,b', ADD COLUMN n DATETIME DEFAULT NOW(), ADD COLUMN z TEXT; UPDATE t SET c = 'x', z = 'y'";
    site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
    site.mariadb("main").unwrap().script("INSERT INTO t (id, v) VALUES (9, 9)");
    site.undo(None).expect(Status::Done);
    assert_eq!(site.mariadb("main").unwrap().script("SELECT COUNT(*) FROM t").trim(), "3");
}
