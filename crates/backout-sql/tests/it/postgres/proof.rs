//! What could be done but never taken back is refused before the step ends, and nothing of it stays.

use std::io::Cursor;

use backout_model::conflict::OnConflict;
use backout_model::target::{Manner, Target, TargetError};
use backout_sql::database::Database;
use backout_testkit::postgres::Server;

use crate::postgres::stage::Stage;
use crate::stage::told;

const SETUP: &str = "CREATE TABLE dup (a int, b text); INSERT INTO dup VALUES (1, 'x'), (1, 'x'), (2, 'y');
    CREATE TABLE item (id int PRIMARY KEY, name text); INSERT INTO item VALUES (1, 'one');
    CREATE TABLE whole (r item, rs item[]); INSERT INTO whole VALUES ((1, 'one'), '{}');
    CREATE TYPE addr AS (street text, no int); CREATE TABLE house (at addr);
    INSERT INTO house VALUES (('a b', 7));
    CREATE TABLE uq (id int PRIMARY KEY, u int); INSERT INTO uq VALUES (1, 10), (2, 20);
    CREATE TABLE log (what text); CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO log SELECT 'count ' || count(*) FROM dup; RETURN NULL; END $$;
    CREATE TABLE slow (a int);
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION late();
    CREATE TABLE part (k int, v text) PARTITION BY LIST (k); ALTER TABLE part ADD PRIMARY KEY (k);
    CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1); INSERT INTO part VALUES (1, 'v');
    CREATE DOMAIN posint AS int CHECK (VALUE > 0); CREATE TABLE odd (a int PRIMARY KEY, o posint);
    INSERT INTO odd VALUES (1, 1), (2, 2); CREATE TABLE lone (a int); INSERT INTO lone VALUES (1), (2);
    CREATE TABLE st (id int PRIMARY KEY, s varchar(9) CHECK (s IN ('a', 'b')), n int); INSERT INTO st VALUES (1, 'a', 1);
    CREATE UNIQUE INDEX st_n ON st (n) WHERE s IN ('a', 'b''(') OR lower(s) NOT IN ('c', 'd');
    CREATE VIEW st_v AS SELECT id FROM st WHERE s NOT IN ('a', 'c');";

/// The script is refused with `why` in the reason, and leaves nothing.
#[track_caller]
fn refused(script: &str, why: &str) {
    let mut stage = Stage::new(SETUP);
    let before = stage.pg_dump();
    match stage.try_apply(script) {
        Err(TargetError::Refused(refusal)) => {
            assert!(refusal.why.contains(why), "{script}: {}", refusal.why);
            assert!(!refusal.ways_out.is_empty());
        }
        Err(error) => panic!("{script}: {}", told(&error)),
        Ok(_) => panic!("{script}: done"),
    }
    assert_eq!(stage.pg_dump(), before, "{script}");
    let images = stage.apply("UPDATE dup SET b = 'z'");
    stage.undo(&images);
    assert_eq!(stage.pg_dump(), before, "{script}, and a step after it");
}

/// The script is done and taken back.
#[track_caller]
fn there_and_back(script: &str) {
    let mut stage = Stage::new(SETUP);
    let before = stage.pg_dump();
    let images = stage.apply(script);
    assert_ne!(stage.pg_dump(), before, "{script} does nothing");
    stage.undo(&images);
    assert_eq!(stage.pg_dump(), before, "{script}");
}

#[test]
fn what_domains_demand_and_partitions_got_goes_back() {
    for script in [
        "ALTER DOMAIN posint ADD CONSTRAINT low CHECK (VALUE < 100) NOT VALID; ALTER DOMAIN posint VALIDATE CONSTRAINT low",
        "ALTER DOMAIN posint DROP CONSTRAINT posint_check; UPDATE odd SET o = -5",
        "UPDATE odd SET o = 1; ALTER DOMAIN posint ADD CHECK (VALUE < 3)",
        "CREATE TABLE np (LIKE part); INSERT INTO np VALUES (2, 'x'); ALTER TABLE part ATTACH PARTITION np FOR VALUES IN (2)",
        "ALTER TABLE part DETACH PARTITION part1; ALTER TABLE part ATTACH PARTITION part1 FOR VALUES IN (1, 2)",
    ] {
        there_and_back(script);
    }
}

/// A table may have no columns at all, and rows all the same.
#[test]
fn a_table_that_is_left_without_columns() {
    for script in [
        "CREATE TABLE bare (a int PRIMARY KEY); INSERT INTO bare VALUES (1); ALTER TABLE bare DROP COLUMN a",
        "INSERT INTO lone VALUES (3); ALTER TABLE lone DROP COLUMN a; INSERT INTO lone DEFAULT VALUES",
        "ALTER TABLE lone DROP COLUMN a; DELETE FROM lone",
    ] {
        there_and_back(script);
    }
}

/// PostgreSQL writes a list down in a way that it does not write down again when it is read.
#[test]
fn lists_of_values_come_back_to_the_letter() {
    for script in [
        "DROP INDEX st_n",
        "DROP VIEW st_v",
        "CREATE OR REPLACE VIEW st_v AS SELECT id FROM st",
        "ALTER TABLE st DROP COLUMN s CASCADE",
        "ALTER TABLE st DROP CONSTRAINT st_s_check",
        "DROP VIEW st_v; ALTER TABLE st ALTER s TYPE text",
        "DROP VIEW st_v; ALTER TABLE st ALTER s TYPE varchar(99)",
    ] {
        there_and_back(script);
    }
}

/// What rows got with a column is not what others wrote, however a cast to text would show it.
#[test]
fn a_column_with_a_default_of_any_type() {
    for script in [
        "ALTER TABLE st ADD b boolean DEFAULT false NOT NULL; ALTER TABLE st ALTER b DROP DEFAULT",
        "ALTER TABLE st ADD b boolean DEFAULT true, ADD c char(5) DEFAULT 'a', ADD i inet DEFAULT '10.0.0.1'",
        "ALTER TABLE st ADD n1 int DEFAULT 1, ADD t timestamptz DEFAULT '2020-01-01', ADD a int[] DEFAULT '{1}'",
        "ALTER TABLE st ADD b boolean; ALTER TABLE st ALTER b TYPE boolean, ALTER b SET DEFAULT false",
        "ALTER TABLE st ADD b boolean DEFAULT false, ALTER n TYPE bigint",
    ] {
        there_and_back(script);
    }
}

#[test]
fn a_column_that_goes_and_comes_in_one_statement() {
    let why = "adds another of the same name";
    refused("ALTER TABLE dup DROP COLUMN a, ADD COLUMN a int", why);
    refused("ALTER TABLE dup DROP COLUMN a, ADD COLUMN a text DEFAULT 'q'", why);
    there_and_back("ALTER TABLE dup DROP COLUMN a; ALTER TABLE dup ADD COLUMN a int");
}

#[test]
fn attributes_of_a_type_whose_values_stand_in_rows() {
    let why = "holds values of type";
    refused("ALTER TYPE addr DROP ATTRIBUTE no", why);
    refused("ALTER TYPE addr ADD ATTRIBUTE zip text", why);
    there_and_back("CREATE TYPE free AS (a int); ALTER TYPE free ADD ATTRIBUTE b int");
}

#[test]
fn an_aggregate_that_a_block_makes() {
    let make = "CREATE AGGREGATE mysum(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')";
    there_and_back(&format!("DO $$ BEGIN {make}; END $$"));
}

/// The second session cannot read such rows before the step has ended.
#[test]
fn rows_of_a_type_that_the_step_altered() {
    let why = "which this step altered";
    refused("ALTER TABLE item ADD COLUMN more int; UPDATE whole SET r = ROW(2, 'two', 3)", why);
    refused("ALTER TABLE item RENAME COLUMN name TO title; DELETE FROM whole", why);
    there_and_back("ALTER TABLE item RENAME COLUMN name TO title; UPDATE dup SET b = 'z'");
}

#[test]
fn rows_that_could_not_come_back_beside_a_constraint() {
    refused(
        "ALTER TABLE dup ADD CONSTRAINT nv CHECK (a < 2) NOT VALID; DELETE FROM dup WHERE a = 2;
         ALTER TABLE dup VALIDATE CONSTRAINT nv",
        "its undo was tried and fails",
    );
    there_and_back("DELETE FROM dup WHERE a = 2; ALTER TABLE dup ADD CONSTRAINT v CHECK (a < 2)");
}

#[test]
fn a_table_whose_rows_are_values_elsewhere() {
    let why = "its undo was tried and fails";
    refused("ALTER TABLE item DROP COLUMN name CASCADE", why);
    refused("DROP TABLE whole; DROP TABLE item", why);
}

#[test]
fn a_partition_that_leaves_and_comes_again() {
    let script = "ALTER TABLE part DETACH PARTITION part1; UPDATE part1 SET v = 'w';
         ALTER TABLE part ATTACH PARTITION part1 FOR VALUES IN (1)";
    if Server::shared().version() < 14 {
        return refused(script, "keeps readers away");
    }
    there_and_back(script);
}

#[test]
fn values_that_change_under_the_same_type() {
    let why = "under the type that it has";
    refused("ALTER TABLE uq ALTER u TYPE int USING u + 1", why);
    refused("ALTER TABLE uq ALTER u TYPE bigint USING u + 1, ALTER id TYPE int USING id + 5", why);
    there_and_back("ALTER TABLE uq ALTER u TYPE bigint USING u + 1");
}

#[test]
fn writes_that_nobody_counts() {
    refused(
        "DO $$ BEGIN SET LOCAL track_counts = off; DELETE FROM dup; SET LOCAL track_counts = on; END $$",
        "without track_counts",
    );
    let mut stage = Stage::new(SETUP);
    stage.others(
        "CREATE FUNCTION unseen() RETURNS void LANGUAGE plpgsql SET track_counts = off AS $$ BEGIN DELETE FROM dup; END $$",
    );
    let before = stage.pg_dump();
    match stage.try_apply("SELECT unseen()") {
        Err(TargetError::Refused(refusal)) => assert!(refusal.why.contains("unseen()"), "{}", refusal.why),
        other => panic!("{:?}", other.map(|(_, report)| report)),
    }
    assert_eq!(stage.pg_dump(), before);
}

#[test]
fn a_trigger_that_waits_for_the_end_of_the_step() {
    refused(
        "INSERT INTO slow VALUES (1); UPDATE uq SET u = -u; ALTER TABLE uq ADD COLUMN q int; INSERT INTO dup VALUES (9, 'z')",
        "waits for the end",
    );
    there_and_back("INSERT INTO slow VALUES (1); INSERT INTO dup VALUES (9, 'z')");
}

#[test]
fn another_user_of_the_session() {
    refused("SET SESSION AUTHORIZATION nobody; CREATE TABLE mine (a int)", "SET ROLE does");
}

/// A sequence that starts anew and is used by somebody: what comes back must not be given once more.
#[test]
fn a_sequence_is_not_left_behind_the_rows_that_come_back() {
    let mut stage =
        Stage::new("CREATE TABLE t (id serial PRIMARY KEY, a int); INSERT INTO t (a) VALUES (1), (2), (3);");
    let images = stage.apply("TRUNCATE t RESTART IDENTITY");
    stage.others("SELECT nextval('t_id_seq')");
    stage.undo(&images);
    stage.others("INSERT INTO t (a) VALUES (4)");
    assert_eq!(stage.ask("SELECT max(id) FROM t"), "4");
}

/// Emptied once more, a table would lose what others wrote since: that is theirs to decide.
#[test]
fn a_redo_of_truncate_finds_rows_of_others() {
    let mut stage = Stage::new(SETUP);
    let images = stage.apply("TRUNCATE dup");
    stage.undo(&images);
    let again = stage.redo(&images);
    stage.undo(&again);
    stage.others("INSERT INTO dup VALUES (5, 'n')");
    match stage.try_redo(&again, OnConflict::Stop) {
        Err(TargetError::Conflicts(conflicts)) => assert_eq!(conflicts.total, 1),
        other => panic!("{:?}", other.map(|_| ())),
    }
    assert_eq!(stage.ask("SELECT count(*) FROM dup"), "4");
}

#[test]
fn a_table_made_filled_and_dropped_in_one_step() {
    there_and_back(
        "CREATE TABLE w (a int); INSERT INTO w SELECT a FROM dup; ALTER TABLE w RENAME TO x;
         UPDATE dup SET b = 'w' FROM x WHERE x.a = dup.a; DROP TABLE x",
    );
    there_and_back(
        "CREATE TABLE uq_new (id int PRIMARY KEY, u int); INSERT INTO uq_new SELECT * FROM uq; DROP TABLE uq;
         ALTER TABLE uq_new RENAME TO uq; DROP TABLE uq",
    );
}

/// What could not be overwritten is not said to be undone.
#[test]
fn overwrite_ends_in_an_error_where_it_is_not_done() {
    let mut stage = Stage::new(SETUP);
    let images = stage.apply("ALTER TABLE uq DROP COLUMN u");
    stage.others("CREATE TABLE users_of (r uq)");
    let then = stage.pg_dump();
    let error = stage.try_undo(&images, OnConflict::Overwrite).unwrap_err();
    assert!(told(&error).contains("hangs on it"), "{}", told(&error));
    assert_eq!(stage.pg_dump(), then);
    assert_eq!(stage.conflicts(&images).total, 1);
}

/// What PostgreSQL writes down in another way once it has read it back is the same all the same.
#[test]
fn lists_of_varchar_come_back_in_another_spelling() {
    let mut stage = Stage::new(
        "CREATE TABLE state (s varchar(9), CONSTRAINT known CHECK (s IN ('a', 'b'))); INSERT INTO state VALUES ('a');
         CREATE UNIQUE INDEX one ON state (s) WHERE s IN ('a', 'b');",
    );
    let images = stage.apply("ALTER TABLE state DROP CONSTRAINT known; DROP INDEX one;");
    stage.undo(&images);
    assert!(stage.other().batch_execute("INSERT INTO state VALUES ('a')").is_err(), "the index is back");
    assert!(stage.other().batch_execute("INSERT INTO state VALUES ('c')").is_err(), "the constraint is back");
    let again = stage.redo(&images);
    stage.undo(&again);
}

/// Each finds its place again, whichever others are there.
#[test]
fn columns_dropped_one_after_the_other_come_back_in_any_order() {
    let setup =
        "CREATE TABLE wide (gone int, id int PRIMARY KEY, a int, b text NOT NULL DEFAULT 'b', c int, d text, e int);
        ALTER TABLE wide DROP COLUMN gone; INSERT INTO wide VALUES (1, 1, 'x', 3, 'y', 5);";
    let drops = ["ALTER TABLE wide DROP COLUMN a", "ALTER TABLE wide DROP COLUMN d", "ALTER TABLE wide DROP COLUMN c"];
    for order in [[0, 1, 2], [1, 2, 0]] {
        let mut stage = Stage::new(setup);
        let before = stage.pg_dump();
        let images: Vec<_> = drops.iter().map(|drop| stage.apply(drop)).collect();
        for (at, one) in order.iter().enumerate() {
            if at == 1 {
                // A table that is built anew for another reason keeps the room, too.
                let retyped = stage.apply("ALTER TABLE wide ALTER e TYPE bigint USING e + 1");
                stage.undo(&retyped);
            }
            stage.undo(&images[*one]);
        }
        assert_eq!(stage.pg_dump(), before, "{order:?}");
    }
}

/// What a redo computes anew it tells; what is the same each time it does not.
#[test]
fn a_redo_tells_what_it_computes_anew() {
    for (change, told) in [
        ("ALTER TABLE uq ADD COLUMN t timestamptz DEFAULT now(), ADD COLUMN c varchar(9) DEFAULT 'c'", "column t of"),
        ("ALTER TABLE dup ADD COLUMN id serial PRIMARY KEY", "column id of"),
        ("ALTER TABLE uq ALTER u TYPE text USING u || md5(random()::text)", "column u of"),
        ("CREATE MATERIALIZED VIEW held AS SELECT random() AS a", "view public.held"),
        (
            "CREATE MATERIALIZED VIEW held AS SELECT random() AS a WITH NO DATA; REFRESH MATERIALIZED VIEW held",
            "view public.held",
        ),
        (
            "CREATE TABLE more (a int); INSERT INTO more VALUES (1); CREATE MATERIALIZED VIEW held AS SELECT a FROM more",
            "",
        ),
        ("CREATE MATERIALIZED VIEW held AS SELECT 1 AS a WITH NO DATA", ""),
        ("ALTER TABLE uq ADD COLUMN c int DEFAULT 7; CREATE TABLE fresh (at timestamptz DEFAULT now())", ""),
    ] {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply(change);
        stage.undo(&images);
        let mut gate = stage.gate();
        let manner = Manner { on_conflict: OnConflict::Stop, in_doubt: false };
        let report = stage.database.redo(&mut Cursor::new(&images), manner, &mut gate).unwrap();
        let notes: Vec<&String> = report.notes.iter().filter(|note| note.contains(" anew")).collect();
        assert_eq!(notes.len(), usize::from(!told.is_empty()), "{change}: {notes:?}");
        assert!(notes.iter().all(|note| note.contains(told)), "{change}: {notes:?}");
    }
}

/// The server would write `"id"` where it wrote `id` when the images were made.
#[test]
fn a_database_that_quotes_all_names() {
    let mut stage = Stage::new(&format!(
        "{SETUP} DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET quote_all_identifiers = on', current_database()); END $$"
    ));
    stage.database.unlock().unwrap();
    stage.database = crate::postgres::stage::open(&stage.live.url());
    stage.epoch = stage.database.lock(&crate::stage::me(), stage.epoch + 1).unwrap();
    let before = stage.pg_dump();
    let images = stage.apply("ALTER TABLE uq DROP COLUMN u; UPDATE uq SET id = id + 10");
    stage.undo(&images);
    assert_eq!(stage.pg_dump(), before);
}

/// What a column was given to rows that were there is as the step left it, whatever its default gives today.
#[test]
fn columns_whose_default_gives_something_else_today() {
    there_and_back("ALTER TABLE uq ADD COLUMN t timestamptz DEFAULT now()");
    there_and_back(
        "ALTER TABLE uq ADD COLUMN t timestamptz DEFAULT CURRENT_TIMESTAMP, ADD COLUMN r float8 DEFAULT random()",
    );
    there_and_back("CREATE DOMAIN em AS text DEFAULT 'x' NOT NULL; ALTER TABLE dup ADD COLUMN em em");
    there_and_back("ALTER TABLE uq ADD COLUMN l int[] DEFAULT '{1,2}', ADD COLUMN q text DEFAULT 'a\"b'");
    let mut stage = Stage::new(SETUP);
    let images = stage.apply("ALTER TABLE uq ADD COLUMN t timestamptz DEFAULT now()");
    stage.others("UPDATE uq SET t = '2001-01-01' WHERE id = 1");
    assert_eq!(stage.conflicts(&images).total, 1);
}

/// Also where a partition has the column in its own right, in another place.
#[test]
fn a_column_of_all_partitions_gets_its_name_back() {
    let mut stage = Stage::new(SETUP);
    stage.others(
        "CREATE TABLE part2 (v text, k int NOT NULL); ALTER TABLE part ATTACH PARTITION part2 FOR VALUES IN (2);
         CREATE INDEX ON part (v)",
    );
    let before = stage.pg_dump();
    let images = stage.apply("ALTER TABLE part RENAME COLUMN v TO vv");
    stage.undo(&images);
    assert_eq!(stage.pg_dump(), before);
}

#[test]
fn a_primary_key_moves_to_another_column_and_back() {
    there_and_back("ALTER TABLE uq DROP CONSTRAINT uq_pkey, ADD PRIMARY KEY (u)");
}
