//! Labels that a step added to an enum: taken out again unless somebody uses them.

use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::target::TargetError;

use super::stage::Stage;
use crate::stage::told;

const SETUP: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE day (at int PRIMARY KEY, m mood NOT NULL DEFAULT 'ok', also mood[]);
    INSERT INTO day VALUES (1, 'sad', '{ok}'), (2, 'ok', NULL)";
const ADDED: &str = "ALTER TYPE mood ADD VALUE 'new' AFTER 'sad'";
const LABELS: &str =
    "SELECT string_agg(enumlabel, ' ' ORDER BY enumsortorder) FROM pg_enum JOIN pg_type t ON t.oid = enumtypid
    WHERE typname = 'mood'";

#[test]
fn a_label_in_use_is_a_conflict_that_names_where() {
    for (others, object, rows) in [
        ("INSERT INTO day VALUES (3, 'new'), (4, 'new')", "column m of public.day", "2 rows"),
        ("UPDATE day SET also = '{{ok,new},{sad,NULL}}' WHERE at = 1", "column also of public.day", "1 row"),
    ] {
        let mut stage = Stage::new(SETUP);
        let added = stage.apply(ADDED);
        stage.others(others);
        let before = stage.dump();
        let conflicts = stage.conflicts(&added);
        let first = &conflicts.listed[0];
        assert_eq!((conflicts.total, first.kind, first.object.as_str()), (1, ConflictKind::Changed, object));
        assert!(first.now.contains(rows) && first.now.contains("'new'"), "{first}");
        let overwritten = told(&stage.try_undo(&added, OnConflict::Overwrite).unwrap_err());
        assert!(overwritten.contains(object) && overwritten.contains(rows), "{overwritten}");
        let kept = stage.try_undo(&added, OnConflict::Keep).unwrap();
        assert_eq!(kept.conflicts.total, 1);
        assert_eq!((stage.ask(LABELS).as_str(), stage.dump()), ("sad new ok", before));
    }
}

#[test]
fn a_label_that_a_definition_uses_is_a_conflict() {
    for others in [
        "ALTER TABLE day ALTER m SET DEFAULT 'new'",
        "CREATE VIEW newer AS SELECT * FROM day WHERE m = 'new'",
        "CREATE DOMAIN felt AS mood",
        "CREATE TYPE both_of AS (a mood, b int)",
        "CREATE TABLE part (m mood) PARTITION BY LIST (m)",
        "ALTER TABLE day ADD COLUMN low boolean GENERATED ALWAYS AS (m < 'ok') STORED",
        "CREATE TABLE days (d day)",
        "CREATE MATERIALIZED VIEW days AS SELECT m FROM day; DELETE FROM day WHERE at = 1",
    ] {
        let mut stage = Stage::new(SETUP);
        let added = stage.apply(ADDED);
        stage.others(others);
        let before = stage.pg_dump();
        let conflicts = stage.conflicts(&added);
        assert_eq!(conflicts.listed[0].kind, ConflictKind::Definition, "{others}: {conflicts:?}");
        assert_eq!(stage.pg_dump(), before, "{others}");
    }
}

#[test]
fn what_others_added_and_hung_on_the_type_stays() {
    let mut stage = Stage::new(SETUP);
    let added = stage.apply(ADDED);
    stage.others(
        "ALTER TYPE mood ADD VALUE 'theirs' BEFORE 'new'; ALTER TYPE mood RENAME VALUE 'ok' TO 'fine';
         CREATE TABLE more (m mood UNIQUE DEFAULT 'fine'); CREATE VIEW seen AS SELECT m FROM more WHERE m > 'sad'",
    );
    stage.others("INSERT INTO more VALUES ('theirs'), (DEFAULT)");
    let before = (stage.pg_dump(), stage.dump());
    stage.undo(&added);
    assert_eq!(stage.ask(LABELS), "sad theirs fine");
    let without: Vec<String> = before.0.into_iter().filter(|line| line.trim() != "'new',").collect();
    assert_eq!((stage.pg_dump(), stage.dump()), (without, before.1));
}

#[test]
fn several_steps_are_undone_in_any_order_and_done_again_at_their_places() {
    let mut stage = Stage::new(SETUP);
    let before = stage.pg_dump();
    let first = stage.apply("ALTER TYPE mood ADD VALUE 'a' BEFORE 'sad'; ALTER TYPE mood ADD VALUE 'b'");
    let second = stage.apply("ALTER TYPE mood ADD VALUE 'c' BEFORE 'ok'; ALTER TYPE mood ADD VALUE IF NOT EXISTS 'a'");
    assert_eq!(stage.ask(LABELS), "a sad c ok b");
    stage.undo(&second);
    assert_eq!(stage.ask(LABELS), "a sad ok b");
    let second = stage.redo(&second);
    assert_eq!(stage.ask(LABELS), "a sad c ok b");
    stage.undo(&first);
    assert_eq!(stage.ask(LABELS), "sad c ok");
    stage.undo(&second);
    assert_eq!(stage.pg_dump(), before);
}

#[test]
fn the_proof_of_it_waits_for_nobody() {
    let mut stage = Stage::new(SETUP);
    let mut reader = stage.other();
    reader.batch_execute("BEGIN; SELECT FROM day").unwrap();
    let file = "SELECT pg_relation_filenode('day')";
    let before = stage.ask(file);
    stage.apply(
        "ALTER TYPE mood ADD VALUE 'new'; COMMENT ON TYPE mood IS 'felt'; ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'",
    );
    assert_eq!(stage.ask(file), before);
    reader.batch_execute("COMMIT").unwrap();
}

#[test]
fn many_enums_of_one_statement_lose_their_labels_again() {
    let types: String = (0..9)
        .map(|at| format!("CREATE TYPE e{at} AS ENUM ('a'); CREATE TABLE t{at} (e e{at} DEFAULT 'a');"))
        .collect();
    let mut stage = Stage::new(&types);
    let before = stage.pg_dump();
    let adds = "DO $$ BEGIN FOR n IN 0..8 LOOP EXECUTE format('ALTER TYPE e%s ADD VALUE %L', n, 'b'); END LOOP; END $$";
    let images = stage.apply(adds);
    assert_ne!(stage.pg_dump(), before);
    stage.undo(&images);
    assert_eq!(stage.pg_dump(), before);
}

/// A type or a label that others renamed: what hangs on it stays as it is.
#[test]
fn what_others_renamed_is_a_conflict_and_stays() {
    let felt = "ALTER TYPE mood RENAME TO felt";
    let renamed = "ALTER TYPE mood RENAME VALUE 'new' TO 'newer'";
    let sad = "ALTER TYPE mood RENAME VALUE 'sad' TO 'low'";
    for (script, others) in [
        (ADDED, felt),
        (ADDED, renamed),
        (ADDED, "CREATE SCHEMA z; ALTER TYPE mood SET SCHEMA z"),
        ("UPDATE day SET m = 'ok'", felt),
        ("UPDATE day SET m = 'ok'", sad),
        ("DELETE FROM day WHERE at = 1", sad),
        ("TRUNCATE day", felt),
        ("TRUNCATE day", sad),
        ("ALTER TABLE day DROP m", felt),
        ("ALTER TABLE day DROP m", sad),
        ("ALTER TABLE day ALTER m DROP DEFAULT", "ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'"),
        ("ALTER TYPE mood RENAME VALUE 'sad' TO 'new'", renamed),
        ("ALTER TYPE mood RENAME VALUE 'sad' TO 'new'", felt),
    ] {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply(script);
        stage.others(others);
        let before = (stage.pg_dump(), stage.dump());
        let stopped = stage.try_undo(&images, OnConflict::Stop).unwrap_err();
        assert!(matches!(stopped, TargetError::Conflicts(_)), "{script}; {others}: {}", told(&stopped));
        let overwritten = told(&stage.try_undo(&images, OnConflict::Overwrite).unwrap_err());
        assert!(!overwritten.contains("invalid input value"), "{script}; {others}: {overwritten}");
        let kept = stage.try_undo(&images, OnConflict::Keep);
        let kept = kept.unwrap_or_else(|error| panic!("{script}; {others}: {}", told(&error)));
        assert!(!kept.conflicts.is_empty(), "{script}; {others}");
        assert_eq!((stage.pg_dump(), stage.dump()), before, "{script}; {others}");
    }
}
