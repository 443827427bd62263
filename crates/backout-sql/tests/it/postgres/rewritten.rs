//! Rows that could not be written again as they were: a step that changes them is refused, with what stands in the way.

use backout_model::target::TargetError;
use backout_sql::postgres::Postgres;
use backout_testkit::postgres::Server;
use backout_testkit::site::{postgres_options, postgres_url};

use crate::postgres::stage::Stage;
use crate::stage::told;

/// Functions that name another one without its schema, in everything that the server runs when a row is written.
const SETUP: &str = "
    CREATE FUNCTION norm(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
    CREATE FUNCTION ok(text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN norm($1) LIKE '%@%'; END $$;
    CREATE FUNCTION fine(text) RETURNS bool LANGUAGE plpgsql IMMUTABLE SET search_path = public AS
        $$ BEGIN RETURN norm($1) LIKE '%@%'; END $$;
    CREATE FUNCTION soft(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RETURN norm($1); EXCEPTION WHEN undefined_function THEN RETURN 'ERR'; END $$;
    CREATE FUNCTION times(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
    CREATE TABLE checked (id int PRIMARY KEY, m text CHECK (ok(m)), z int); INSERT INTO checked VALUES (1, 'A@x'), (2, 'B@x');
    CREATE TABLE well (id int PRIMARY KEY, m text CHECK (fine(m)), z int); INSERT INTO well VALUES (1, 'A@x'), (2, 'B@x');
    CREATE TABLE indexed (id int PRIMARY KEY, m text); CREATE INDEX ON indexed (norm(m)) WHERE ok(m);
    INSERT INTO indexed VALUES (1, 'A@x');
    CREATE TABLE computed (id int PRIMARY KEY, m text, g text GENERATED ALWAYS AS (soft(m)) STORED, z int);
    INSERT INTO computed VALUES (1, 'A');
    CREATE TABLE old (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (times(a)) STORED, z int);
    INSERT INTO old VALUES (1, 1), (2, 2); CREATE OR REPLACE FUNCTION times(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 3';
    INSERT INTO old VALUES (3, 3);
    CREATE TABLE unproven (id int PRIMARY KEY, v int); INSERT INTO unproven VALUES (1, -5), (2, 5);
    ALTER TABLE unproven ADD CONSTRAINT low CHECK (v > 0) NOT VALID;
    CREATE DOMAIN mail AS text CHECK (ok(VALUE)); CREATE TABLE domained (id int PRIMARY KEY, m mail);
    INSERT INTO domained VALUES (1, 'A@x');
    CREATE TABLE split (id int, m text) PARTITION BY LIST (soft(m)); CREATE TABLE split_a PARTITION OF split FOR VALUES IN ('a@x');
    INSERT INTO split VALUES (1, 'A@x');";

/// Refused for `why`, and nothing of it stays.
#[track_caller]
fn refused(stage: &mut Stage<'_>, script: &str, why: &str) {
    let before = stage.pg_dump();
    match stage.try_apply(script) {
        Err(TargetError::Refused(refusal)) => assert!(refusal.why.contains(why), "{script}: {}", refusal.why),
        Err(error) => panic!("{script}: {}", told(&error)),
        Ok(_) => panic!("{script}: done"),
    }
    assert_eq!(stage.pg_dump(), before, "{script}");
}

#[test]
fn what_could_not_be_written_again_is_refused() {
    let mut stage = Stage::new(SETUP);
    for (script, why) in [
        ("UPDATE checked SET m = 'C@x' WHERE id = 1", "the constraint checked_m_check does not take rows back"),
        ("UPDATE checked SET m = 'C@x'", "the constraint checked_m_check does not take rows back"),
        ("DELETE FROM checked", "norm(text) does not exist"),
        ("TRUNCATE checked", "norm(text) does not exist"),
        ("ALTER TABLE checked DROP COLUMN z", "norm(text) does not exist"),
        ("UPDATE indexed SET id = 5", "the index indexed_norm_idx does not take rows back"),
        ("UPDATE computed SET m = 'b'", "the computed column g does not take a row back"),
        ("DELETE FROM old WHERE id < 3", "the computed column g does not take a row back"),
        ("ALTER TABLE old DROP COLUMN z", "the computed column g does not take a row back"),
        ("TRUNCATE old", "the computed column g does not take a row back"),
        ("UPDATE unproven SET v = 7 WHERE id = 1", "the constraint low does not take a row back"),
        ("DELETE FROM domained", "the type public.mail does not take rows back"),
        ("DELETE FROM split", "the partition bound within public.split does not take a row back"),
    ] {
        refused(&mut stage, script, why);
    }
}

#[test]
fn what_can_goes_there_and_back() {
    let mut stage = Stage::new(SETUP);
    for script in [
        "UPDATE well SET m = 'C@x'",
        "DELETE FROM well",
        "ALTER TABLE well DROP COLUMN z",
        "UPDATE old SET a = 4 WHERE id = 3",
        "UPDATE unproven SET v = 7 WHERE id = 2",
    ] {
        stage.there_and_back(script);
    }
}

/// A row is compared beside its image, and a row has no more columns than that.
#[test]
fn a_table_of_very_many_columns_is_refused() {
    let columns: Vec<String> = (0..840).map(|number| format!("c{number} int")).collect();
    let mut stage =
        Stage::new(&format!("CREATE TABLE wide ({}); INSERT INTO wide (c0) VALUES (1)", columns.join(", ")));
    refused(&mut stage, "UPDATE wide SET c500 = 0", "more than 800 columns");
}

#[test]
fn strings_that_mean_something_else_are_refused_at_the_door() {
    let live = Server::shared().database();
    let set = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = off', current_database()); END $$";
    live.connect().batch_execute(set).unwrap();
    let options = postgres_options("shop".to_owned(), "main".to_owned(), &postgres_url(&live.url()));
    let Err(error) = Postgres::open(&options) else { panic!("it was opened") };
    assert!(told(&error).contains("standard_conforming_strings is off"), "{}", told(&error));
}

#[test]
fn what_is_refused_at_the_end_of_a_step_names_its_statement() {
    let mut stage = Stage::new(&format!(
        "{SETUP} CREATE FUNCTION reach() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM checked; RETURN NULL; END';
         CREATE TRIGGER reaches AFTER DELETE ON well FOR EACH STATEMENT EXECUTE FUNCTION reach();"
    ));
    for (script, place, what) in [
        (
            "UPDATE well SET m = 'D@x';\n\nDELETE FROM \"checked\"\nWHERE id = 1;",
            ":3",
            "DELETE FROM \"checked\" WHERE id = 1",
        ),
        (
            "SELECT 1;\nALTER TABLE old ADD CONSTRAINT nv CHECK (id < 2) NOT VALID; DELETE FROM old WHERE id = 3;
         UPDATE old SET id = 1 WHERE false",
            "script.sql",
            "the step as a whole",
        ),
        ("SELECT 1;\nDELETE FROM well", "script.sql", "the script"),
    ] {
        match stage.try_apply(script) {
            Err(TargetError::Refused(refusal)) => {
                assert!(refusal.place.ends_with(place), "{script}: {}", refusal.place);
                assert!(refusal.what.starts_with(what), "{script}: {}", refusal.what);
                assert!(!refusal.ways_out.is_empty(), "{script}");
            }
            other => panic!("{script}: {other:?}"),
        }
    }
}
