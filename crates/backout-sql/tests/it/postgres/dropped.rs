//! Schemas that are dropped with all that is in them: tables wait aside, and what they are made of goes with them.

use crate::postgres::stage::Stage;

const SETUP: &str = "
    CREATE SCHEMA kit;
    CREATE TYPE kit.shade AS ENUM ('dark', 'light');
    COMMENT ON TYPE kit.shade IS 'of a thing';
    CREATE DOMAIN kit.year AS int CONSTRAINT late CHECK (VALUE > 1900) DEFAULT 2000;
    CREATE TYPE kit.pair AS (a int, s kit.shade);
    CREATE TABLE kit.thing (id int PRIMARY KEY, s kit.shade DEFAULT 'dark', y kit.year, p kit.pair, many kit.shade[]);
    CREATE INDEX ON kit.thing (s);
    CREATE VIEW kit.dark AS SELECT id, y FROM kit.thing WHERE s = 'dark'::kit.shade;
    INSERT INTO kit.thing VALUES (1, 'light', 1950, (1, 'dark'), '{dark,light}'), (2, 'dark', NULL, NULL, '{}');
    CREATE TABLE other (id int PRIMARY KEY, s kit.shade);
    INSERT INTO other VALUES (1, 'light');";

#[test]
fn a_schema_goes_with_the_types_that_its_tables_are_of() {
    for change in [
        "DROP SCHEMA kit CASCADE;",
        "DROP TABLE kit.thing CASCADE; DROP SCHEMA kit CASCADE;",
        "DROP SCHEMA kit CASCADE; CREATE SCHEMA kit; CREATE TYPE kit.shade AS ENUM ('x'); CREATE TABLE kit.thing (s kit.shade);",
    ] {
        let mut stage = Stage::new(SETUP);
        let before = (stage.dump(), stage.pg_dump());
        let images = stage.apply(change);
        let applied = (stage.dump(), stage.pg_dump());
        assert!(!applied.1.iter().any(|line| line.contains("kit.dark")), "{change}: {applied:?}");
        stage.undo(&images);
        assert_eq!((stage.dump(), stage.pg_dump()), before, "undo of {change}");
        let again = stage.redo(&images);
        assert_eq!((stage.dump(), stage.pg_dump()), applied, "redo of {change}");
        stage.undo(&again);
        assert_eq!((stage.dump(), stage.pg_dump()), before, "undo after redo of {change}");
    }
}
