//! What a later deployment's undo needs by its name, and what the undo of an earlier one would take from it, on PostgreSQL.

use backout_engine::outcome::Status;
use backout_model::conflict::{Conflict, ConflictKind, OnConflict};
use backout_testkit::package::{Pkg, sql};
use backout_testkit::postgres::Server;
use backout_testkit::postgres_dump;
use backout_testkit::site::TestSite;

const SETUP: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN code AS int;
    CREATE TABLE t (k int PRIMARY KEY, a int, m mood, c code); INSERT INTO t VALUES (1, 1, 'sad', 1);
    CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE SCHEMA s; CREATE TABLE s.x (k int PRIMARY KEY);
    CREATE VIEW on_a AS SELECT a FROM t; CREATE VIEW on_m AS SELECT m FROM t WHERE m = 'sad'; CREATE VIEW on_f AS SELECT f();
    CREATE VIEW on_x AS SELECT k FROM s.x; CREATE VIEW on_c AS SELECT c FROM t;
    CREATE TABLE child (k int REFERENCES t, d int DEFAULT f(), m mood DEFAULT 'ok');
    CREATE TABLE s.gone (k int); CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION noted();
    CREATE FUNCTION of_row(r t) RETURNS int LANGUAGE sql AS 'SELECT 1';";

/// What is deployed first, and then.
const PAIRS: &[(&str, &str)] = &[
    ("ALTER TABLE t RENAME TO u", "DROP VIEW on_a"),
    ("ALTER TABLE t RENAME a TO b", "DROP VIEW on_a"),
    ("ALTER TABLE t SET SCHEMA s", "DROP VIEW on_a"),
    ("ALTER TABLE t RENAME TO u", "ALTER TABLE child DROP CONSTRAINT child_k_fkey"),
    ("ALTER TABLE t RENAME TO u", "DROP TRIGGER tr ON u"),
    ("ALTER TABLE t RENAME TO u", "DROP FUNCTION of_row(u)"),
    ("ALTER TABLE t RENAME TO u", "CREATE OR REPLACE VIEW on_a AS SELECT 1 AS a"),
    ("ALTER TABLE t RENAME a TO b", "CREATE OR REPLACE VIEW on_a AS SELECT a.b + 1 AS a FROM t a"),
    ("ALTER TYPE mood RENAME TO felt", "DROP VIEW on_m"),
    ("ALTER TYPE mood RENAME TO felt", "ALTER TABLE child DROP m"),
    ("ALTER TYPE mood RENAME TO felt", "ALTER TABLE child ALTER m DROP DEFAULT"),
    ("ALTER TYPE mood SET SCHEMA s", "ALTER TABLE child DROP m"),
    ("ALTER TYPE mood RENAME TO felt", "DROP TABLE child"),
    ("ALTER TYPE mood RENAME VALUE 'sad' TO 'low'", "DROP VIEW on_m"),
    ("ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'", "ALTER TABLE child DROP m"),
    ("ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'", "ALTER TABLE child ALTER m DROP DEFAULT"),
    ("ALTER TYPE mood RENAME VALUE 'sad' TO 'low'", "TRUNCATE t, child"),
    ("ALTER DOMAIN code RENAME TO coded", "ALTER TABLE t DROP c CASCADE"),
    ("ALTER FUNCTION f() RENAME TO g", "DROP VIEW on_f"),
    ("ALTER FUNCTION f() RENAME TO g", "ALTER TABLE child ALTER d DROP DEFAULT"),
    ("ALTER FUNCTION f() SET SCHEMA s", "ALTER TABLE child DROP d"),
    ("ALTER FUNCTION noted() RENAME TO noticed", "DROP TRIGGER tr ON t"),
    ("ALTER SCHEMA s RENAME TO r", "DROP VIEW on_x"),
    ("ALTER SCHEMA s RENAME TO r", "DROP TABLE r.gone"),
    ("CREATE TABLE n (k int); CREATE VIEW on_n AS SELECT k FROM n", "DROP VIEW on_n"),
    ("CREATE FUNCTION n() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE VIEW on_n AS SELECT n()", "DROP VIEW on_n"),
    ("CREATE SCHEMA n; CREATE TABLE n.x (k int)", "DROP TABLE n.x"),
    ("ALTER TABLE t ADD n int; CREATE VIEW on_n AS SELECT n FROM t", "DROP VIEW on_n"),
    ("ALTER TABLE t ADD n int UNIQUE; ALTER TABLE child ADD n int REFERENCES t (n)", "ALTER TABLE child DROP n"),
];

#[test]
fn what_a_later_undo_names_is_required_by_it() {
    let mut wrong = Vec::new();
    for (first, then) in PAIRS {
        let site = TestSite::builder().postgres("main", Server::shared(), SETUP).build();
        let database = site.postgres("main").unwrap();
        let before = postgres_dump::read(database);
        let earlier = site.deploy(&Pkg::new("one").step(sql(*first))).id();
        let later = site.deploy(&Pkg::new("two").step(sql(*then))).id();
        let deployed = postgres_dump::read(database);
        for manner in [OnConflict::Stop, OnConflict::Keep] {
            let outcome = site.undo_on(Some(&earlier), manner).result.unwrap();
            let is_it = |one: &Conflict| one.kind == ConflictKind::RequiredBy && one.now.contains(&later);
            // What both made and dropped is a conflict of its own.
            let is_told =
                outcome.conflicts.iter().any(is_it) || manner == OnConflict::Stop && !outcome.conflicts.is_empty();
            if outcome.status != Status::Refused || !is_told {
                wrong.push(format!("{first}; {then}: {manner:?} {:?} {:?}", outcome.status, outcome.conflicts));
            }
        }
        if !wrong.is_empty() {
            continue;
        }
        assert!(postgres_dump::read(database) == deployed, "{first}; {then}: the refused undo changed something");
        site.undo(None).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        assert_eq!(postgres_dump::read(database), before, "{first}; {then}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What has nothing to do with the other is undone in any order.
#[test]
fn what_a_later_undo_does_not_name_is_not_required() {
    for (first, then) in [
        ("ALTER TABLE t RENAME TO u", "DROP VIEW on_x"),
        ("ALTER TABLE t RENAME a TO b", "DROP VIEW on_m"),
        ("ALTER TYPE mood RENAME TO felt", "ALTER TABLE t ALTER a SET DEFAULT 3"),
        ("ALTER TABLE t RENAME TO u", "ALTER TABLE child ALTER m DROP DEFAULT"),
        ("ALTER FUNCTION f() RENAME TO g", "ALTER TABLE child ALTER m DROP DEFAULT"),
        ("CREATE TABLE n (k int)", "DROP VIEW on_a"),
    ] {
        let site = TestSite::builder().postgres("main", Server::shared(), SETUP).build();
        let database = site.postgres("main").unwrap();
        let before = postgres_dump::read(database);
        let earlier = site.deploy(&Pkg::new("one").step(sql(first))).id();
        site.deploy(&Pkg::new("two").step(sql(then))).id();
        site.undo(Some(&earlier)).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        assert_eq!(postgres_dump::read(database), before, "{first}; {then}");
    }
}
