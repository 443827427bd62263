//! Objects of which others swapped the names since: what has the name now is not what was deployed to.

use backout_model::conflict::OnConflict;
use backout_model::target::TargetError;
use backout_sql::database::Database;
use backout_testkit::postgres::Server;

use super::stage::Stage;
use crate::stage::told;

const SETUP: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'fine');
    CREATE TABLE t (k int PRIMARY KEY, a int, b int, m mood, d mood DEFAULT 'ok');
    INSERT INTO t VALUES (1, 1, 1, 'sad', 'ok'), (2, 2, 2, 'ok', 'ok'), (3, 3, 3, 'fine', 'ok');
    CREATE TABLE loose (a int, b int); INSERT INTO loose VALUES (1, 1), (2, 2);
    CREATE VIEW v AS SELECT a, b FROM t; CREATE VIEW sad AS SELECT k FROM t WHERE m = 'sad';
    CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 2';
    CREATE TABLE filled (k int DEFAULT f());
    CREATE SEQUENCE s; CREATE SEQUENCE z; SELECT setval('s', 5), setval('z', 5);
    CREATE SCHEMA one CREATE TABLE x (k int PRIMARY KEY); CREATE SCHEMA two CREATE TABLE x (k int PRIMARY KEY);
    INSERT INTO one.x VALUES (1); INSERT INTO two.x VALUES (1);
    CREATE TYPE feel AS ENUM ('sad', 'ok', 'fine');
    CREATE MATERIALIZED VIEW seen AS SELECT a FROM t; CREATE INDEX by_a ON t (a);
    CREATE PROCEDURE p(r t) LANGUAGE sql AS 'SELECT 1'; CREATE POLICY mine ON t USING (a > 0);
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION noted();
    CREATE RULE ru AS ON DELETE TO loose DO INSTEAD NOTHING; CREATE TYPE pair AS (a feel);
    CREATE TABLE whole (k int) PARTITION BY LIST (k); CREATE TABLE part PARTITION OF whole FOR VALUES IN (1);";

/// What others do: a copy takes a table's place, and others take each other's.
const TABLE: &str = "CREATE TABLE copy (LIKE t INCLUDING ALL); INSERT INTO copy SELECT * FROM t;
    ALTER TABLE t RENAME TO old; ALTER TABLE copy RENAME TO t";
const LOOSE: &str =
    "CREATE TABLE copy AS SELECT * FROM loose; ALTER TABLE loose RENAME TO old; ALTER TABLE copy RENAME TO loose";
const COLUMNS: &str = "ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME x TO b";
const LABELS: &str = "ALTER TYPE mood RENAME VALUE 'sad' TO 'x'; ALTER TYPE mood RENAME VALUE 'ok' TO 'sad';
    ALTER TYPE mood RENAME VALUE 'x' TO 'ok'";
const SCHEMAS: &str = "ALTER SCHEMA one RENAME TO x; ALTER SCHEMA two RENAME TO one; ALTER SCHEMA x RENAME TO two";
const FUNCTIONS: &str =
    "ALTER FUNCTION f() RENAME TO x; ALTER FUNCTION g() RENAME TO f; ALTER FUNCTION x() RENAME TO g";
const SWAPPED: &[(&str, &str)] = &[
    ("UPDATE t SET a = a + 10", TABLE),
    ("DELETE FROM t WHERE k = 2", TABLE),
    ("UPDATE loose SET a = a + 10", LOOSE),
    ("UPDATE t SET a = 7, b = 7", COLUMNS),
    ("DELETE FROM t WHERE k = 1", LABELS),
    ("UPDATE t SET m = 'fine' WHERE k = 1", LABELS),
    ("DELETE FROM one.x", SCHEMAS),
    ("ALTER TABLE t ADD c int", TABLE),
    ("ALTER TABLE t DROP b CASCADE", TABLE),
    ("ALTER TABLE t ALTER a SET DEFAULT 3", TABLE),
    ("ALTER TABLE t ALTER a SET DEFAULT 3; ALTER TABLE t ALTER b SET DEFAULT 3", COLUMNS),
    (
        "ALTER TABLE t ALTER b SET NOT NULL",
        "ALTER TABLE t ALTER a SET NOT NULL; ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME x TO b",
    ),
    ("TRUNCATE t", TABLE),
    ("TRUNCATE t", LABELS),
    ("ALTER TABLE t DROP m CASCADE", LABELS),
    ("ALTER TABLE t ALTER d DROP DEFAULT", LABELS),
    ("DROP VIEW v", TABLE),
    ("DROP VIEW v", COLUMNS),
    ("DROP VIEW sad", LABELS),
    ("CREATE OR REPLACE VIEW v AS SELECT a, 1 AS b FROM t", COLUMNS),
    ("CREATE TABLE n (k int)", "CREATE TABLE copy (k int); ALTER TABLE n RENAME TO old; ALTER TABLE copy RENAME TO n"),
    (
        "CREATE VIEW n AS SELECT 1 AS k",
        "CREATE VIEW copy AS SELECT 1 AS k; ALTER VIEW n RENAME TO old; ALTER VIEW copy RENAME TO n",
    ),
    ("CREATE TABLE n (k int)", "ALTER TABLE n RENAME TO kept"),
    (
        "ALTER TYPE mood ADD VALUE 'new'",
        "ALTER TYPE mood RENAME VALUE 'new' TO 'x'; ALTER TYPE mood RENAME VALUE 'sad' TO 'new'; ALTER TYPE mood RENAME VALUE 'x' TO 'sad'",
    ),
    (
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'low'",
        "ALTER TYPE mood RENAME VALUE 'low' TO 'x'; ALTER TYPE mood RENAME VALUE 'ok' TO 'low'; ALTER TYPE mood RENAME VALUE 'x' TO 'ok'",
    ),
    (
        "ALTER FUNCTION f() COST 7",
        "ALTER FUNCTION g() COST 7; ALTER FUNCTION f() RENAME TO x; ALTER FUNCTION g() RENAME TO f; ALTER FUNCTION x() RENAME TO g",
    ),
    ("ALTER TABLE filled ALTER k DROP DEFAULT", FUNCTIONS),
    ("ALTER TABLE filled DROP k", FUNCTIONS),
    (
        "SELECT setval('s', 50)",
        "SELECT setval('z', 50); ALTER SEQUENCE s RENAME TO x; ALTER SEQUENCE z RENAME TO s; ALTER SEQUENCE x RENAME TO z",
    ),
    (
        "ALTER SEQUENCE s INCREMENT 3",
        "ALTER SEQUENCE z INCREMENT 3; ALTER SEQUENCE s RENAME TO x; ALTER SEQUENCE z RENAME TO s; ALTER SEQUENCE x RENAME TO z",
    ),
    (
        "COMMENT ON TYPE mood IS 'felt'",
        "COMMENT ON TYPE feel IS 'felt'; ALTER TYPE mood RENAME TO x; ALTER TYPE feel RENAME TO mood; ALTER TYPE x RENAME TO feel",
    ),
    ("DROP VIEW sad", "ALTER TYPE mood RENAME TO x; ALTER TYPE feel RENAME TO mood; ALTER TYPE x RENAME TO feel"),
    ("DROP TABLE one.x", SCHEMAS),
    (
        "COMMENT ON SCHEMA one IS 'ours'",
        "COMMENT ON SCHEMA two IS 'ours'; ALTER SCHEMA one RENAME TO x; ALTER SCHEMA two RENAME TO one; ALTER SCHEMA x RENAME TO two",
    ),
    (
        "ALTER TABLE t ADD CONSTRAINT u CHECK (a > 0)",
        "ALTER TABLE t ADD CONSTRAINT w CHECK (a > 0); ALTER TABLE t RENAME CONSTRAINT u TO x; ALTER TABLE t RENAME CONSTRAINT w TO u",
    ),
];

fn all(stage: &Stage<'_>) -> String {
    format!("{}\n{}", stage.pg_dump().join("\n"), stage.dump().join("\n"))
}

#[test]
fn what_others_gave_the_name_is_not_taken_for_it() {
    let mut wrong = Vec::new();
    for (script, theirs) in SWAPPED {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply(script);
        stage.others(theirs);
        let before = all(&stage);
        let is_sequence = script.starts_with("SELECT setval");
        for on_conflict in [OnConflict::Stop, OnConflict::Overwrite, OnConflict::Keep] {
            let tried = stage.try_undo(&images, on_conflict);
            let as_it_should = match (&tried, on_conflict) {
                // Where a sequence stands is told by a note.
                (Ok(report), _) if is_sequence => !report.notes.is_empty(),
                (Err(TargetError::Conflicts(found)), OnConflict::Stop) => !found.is_empty(),
                (Ok(report), OnConflict::Keep) => !report.conflicts.is_empty(),
                (tried, OnConflict::Overwrite) => tried.is_err(),
                _ => false,
            };
            if !as_it_should {
                let told = tried.map_or_else(|error| told(&error), |report| format!("{:?}", report.conflicts.listed));
                wrong.push(format!("{script}; {theirs}: {on_conflict:?} {told}"));
            }
            if all(&stage) != before {
                wrong.push(format!("{script}; {theirs}: {on_conflict:?} changed something"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every object of a site that was dumped and restored has another number, and often one that another object had.
#[test]
fn a_site_that_was_restored_is_undone_like_the_old_one() {
    let script =
        "UPDATE t SET a = a + 10, m = 'ok'; ALTER TABLE t ADD c int; DROP VIEW v; ALTER TYPE mood ADD VALUE 'new';
        CREATE TABLE n (k int PRIMARY KEY); INSERT INTO n VALUES (1); TRUNCATE loose; SELECT setval('s', 50)";
    let [old, new] = [Server::fresh(), Server::fresh()];
    let mut stage = Stage::on(&old, SETUP);
    let before = all(&stage);
    let images = stage.apply(script);
    Database::unlock(&mut stage.database).unwrap();
    let dumped = old.client("pg_dump").args(["-d", &stage.live.name]).output().unwrap();
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dump.sql");
    // What a newer pg_dump sets first, an older server does not know.
    let dumped = String::from_utf8(dumped.stdout).unwrap().replace("SET transaction_timeout = 0;\n", "");
    std::fs::write(&file, dumped).unwrap();
    let restored = new.database();
    let psql = new.client("psql").args(["-q", "-v", "ON_ERROR_STOP=1", "-d", &restored.name, "-f"]).arg(&file).output();
    let psql = psql.unwrap();
    assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
    let url = restored.url();
    let mut other = Stage::over(restored, &url);
    other.seq = stage.seq;
    other.undo(&images);
    // A restore fills it from what is there then.
    other.others("REFRESH MATERIALIZED VIEW seen");
    assert_eq!(all(&other), before);
}

/// Where numbers mean nothing, what has no name any more is a conflict all the same.
#[test]
fn what_others_renamed_on_a_restored_site_is_a_conflict() {
    let restored = "CREATE TABLE backout_shop.other (LIKE backout_shop.marker INCLUDING ALL);
        INSERT INTO backout_shop.other SELECT * FROM backout_shop.marker; DROP TABLE backout_shop.marker;
        ALTER TABLE backout_shop.other RENAME TO marker;";
    let (felt, low) = ("ALTER TYPE mood RENAME TO felt", "ALTER TYPE mood RENAME VALUE 'sad' TO 'low'");
    for (script, theirs) in [
        ("UPDATE t SET m = 'fine' WHERE k = 1", felt),
        ("UPDATE t SET m = 'fine' WHERE k = 1", low),
        ("DELETE FROM t WHERE k = 1", low),
        ("TRUNCATE t", low),
        ("ALTER TABLE t DROP m CASCADE", felt),
        ("ALTER TABLE t DROP m CASCADE", low),
        ("DROP VIEW sad", low),
        ("ALTER TABLE t ALTER d DROP DEFAULT", "ALTER TYPE mood RENAME VALUE 'ok' TO 'low'"),
    ] {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply(script);
        stage.others(&format!("{restored} {theirs}"));
        let before = all(&stage);
        let stopped = stage.try_undo(&images, OnConflict::Stop).unwrap_err();
        assert!(matches!(stopped, TargetError::Conflicts(_)), "{script}; {theirs}: {}", told(&stopped));
        stage.try_undo(&images, OnConflict::Overwrite).unwrap_err();
        let kept = stage.try_undo(&images, OnConflict::Keep);
        let kept = kept.unwrap_or_else(|error| panic!("{script}; {theirs}: {}", told(&error)));
        assert!(!kept.conflicts.is_empty() && all(&stage) == before, "{script}; {theirs}");
    }
}

#[test]
fn a_redo_works_on_nothing_else_either() {
    for (script, theirs) in [
        ("UPDATE t SET a = a + 10", TABLE),
        ("UPDATE t SET a = 7, b = 7", COLUMNS),
        ("ALTER TABLE t ALTER a SET DEFAULT 3", TABLE),
        ("ALTER TABLE t ALTER a SET DEFAULT 3", COLUMNS),
        ("ALTER FUNCTION f() COST 7", FUNCTIONS),
        ("COMMENT ON SCHEMA one IS 'ours'", SCHEMAS),
    ] {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply(script);
        stage.undo(&images);
        stage.others(theirs);
        let before = all(&stage);
        for on_conflict in [OnConflict::Stop, OnConflict::Overwrite] {
            let redone = stage.try_redo(&images, on_conflict);
            assert!(redone.is_err() && all(&stage) == before, "{script}; {theirs}: {on_conflict:?}");
        }
    }
}

#[test]
fn what_a_block_renames_it_may_drop_things_of() {
    for block in [
        "DROP VIEW v; ALTER TABLE t RENAME TO zz",
        "ALTER TABLE t RENAME a TO z; DROP VIEW v",
        "DROP VIEW sad; ALTER TYPE mood RENAME TO felt",
        "ALTER FUNCTION f() RENAME TO z; ALTER TABLE filled ALTER k DROP DEFAULT",
    ] {
        let mut stage = Stage::new(SETUP);
        let before = all(&stage);
        let images = stage.apply(&format!("DO $$ BEGIN {block}; END $$"));
        stage.undo(&images);
        assert_eq!(all(&stage), before, "{block}");
    }
}
