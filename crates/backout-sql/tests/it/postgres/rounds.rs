//! Rows, schema and counters changed by one script: done as psql does it, undone to the same dump, done again.

use backout_model::target::TargetError;
use backout_testkit::postgres::Server;

use crate::postgres::stage::Stage;
use crate::stage::told;

const BASE: &str = "
    CREATE TABLE shelf (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
    CREATE TABLE book (id serial PRIMARY KEY, shelf int REFERENCES shelf, title text);
    INSERT INTO shelf (name) VALUES ('a'), ('b'), ('c');
    INSERT INTO book (shelf, title) SELECT 1 + n % 3, 'book ' || n FROM generate_series(1, 9) AS n;
    CREATE TABLE loose (a int, b text); INSERT INTO loose VALUES (1, 'a'), (1, 'a'), (2, 'b');
    CREATE PUBLICATION all_of_it FOR ALL TABLES;
    CREATE MATERIALIZED VIEW empty AS SELECT name FROM shelf WITH NO DATA;";

const SCRIPTS: &[&str] = &[
    "TRUNCATE shelf, book RESTART IDENTITY; INSERT INTO shelf (name) VALUES ('new');",
    "TRUNCATE book RESTART IDENTITY;",
    "TRUNCATE shelf CASCADE;",
    "ALTER TABLE shelf ALTER id RESTART WITH 100; INSERT INTO shelf (name) VALUES ('x');",
    "ALTER TABLE shelf ALTER id RESTART WITH 100; INSERT INTO shelf (name) VALUES ('x'); ALTER TABLE shelf ALTER id DROP IDENTITY;",
    "ALTER SEQUENCE book_id_seq RESTART WITH 50; ALTER TABLE book ALTER id DROP DEFAULT; DROP SEQUENCE book_id_seq;",
    "SELECT setval('book_id_seq', 700); DROP TABLE book;",
    "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN few AS int CHECK (VALUE > 0); CREATE TYPE pair AS (a int, b few);
     CREATE TABLE odd (m mood, n few, p pair, l mood[]); INSERT INTO odd VALUES ('ok', 5, '(1,2)', '{sad}'), (NULL, 1, NULL, '{}');",
    "CREATE TYPE mood AS ENUM ('sad', 'ok'); ALTER TABLE book ADD COLUMN m mood DEFAULT 'ok'; UPDATE book SET m = 'sad' WHERE id < 4;",
    "CREATE MATERIALIZED VIEW held AS SELECT shelf, count(*) AS n FROM book GROUP BY 1; CREATE UNIQUE INDEX ON held (shelf);
     CREATE MATERIALIZED VIEW later AS SELECT 1 AS a WITH NO DATA;",
    "REFRESH MATERIALIZED VIEW empty;",
    "CREATE SEQUENCE mine INCREMENT 3 START 7; SELECT nextval('mine'), nextval('mine'); SELECT setval('book_id_seq', 90);",
    "CREATE TABLE page (id serial PRIMARY KEY, no int GENERATED ALWAYS AS IDENTITY); INSERT INTO page (id) VALUES (DEFAULT), (DEFAULT);",
    "CREATE PUBLICATION news FOR ALL TABLES; CREATE TABLE picked AS SELECT id, title FROM book;",
    "INSERT INTO loose VALUES (4, 'd'), (4, 'd');",
    "CREATE TABLE base (a int); CREATE TABLE derived (b int) INHERITS (base); INSERT INTO derived VALUES (1, 2);",
    "UPDATE book SET title = upper(title); REFRESH MATERIALIZED VIEW empty; DELETE FROM book WHERE id = 1;",
    "SET session_replication_role = replica; DELETE FROM shelf WHERE id = 2;",
    // What the tool prepared goes with what the script did.
    "CREATE TABLE kept (a int PRIMARY KEY); PREPARE mine AS SELECT 1; DEALLOCATE ALL; ALTER TABLE kept ADD b int;
     DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$; ALTER TABLE kept ADD c int; PREPARE mine AS SELECT 2;",
];

#[test]
fn a_script_is_done_undone_and_done_again() {
    let server = Server::shared();
    for script in SCRIPTS {
        let mut stage = Stage::on(server, BASE);
        let plain = server.database();
        plain.psql(BASE);
        let before = (stage.dump(), stage.pg_dump());
        let images = stage.try_apply(script).unwrap_or_else(|error| panic!("{script}: {}", told(&error))).0;
        let after = (stage.dump(), stage.pg_dump());
        plain.psql(&format!("BEGIN; {script} COMMIT;"));
        assert_eq!(after.0, crate::postgres::stage::dump(&mut plain.connect()), "{script}");
        stage.undo(&images);
        assert_eq!((stage.dump(), stage.pg_dump()), before, "{script}");
        let again = stage.redo(&images);
        assert_eq!((stage.dump(), stage.pg_dump()), after, "{script}");
        stage.undo(&again);
        assert_eq!((stage.dump(), stage.pg_dump()), before, "{script}");
    }
}

#[test]
fn what_only_its_run_shows_to_be_beyond_undo_is_refused_and_leaves_nothing() {
    let mut stage = Stage::new(&format!(
        "{BASE} CREATE FUNCTION kept() RETURNS oid LANGUAGE sql AS 'SELECT lo_create(0)';
         CREATE MATERIALIZED VIEW held AS SELECT count(*) FROM book;
         CREATE MATERIALIZED VIEW keyed AS SELECT id FROM book; CREATE UNIQUE INDEX ON keyed (id); DELETE FROM book WHERE id = 9;"
    ));
    let before = (stage.dump(), stage.pg_dump());
    for (script, word) in [
        ("SELECT kept();", "large objects"),
        ("DO $$ BEGIN PERFORM lo_create(0); END $$;", "large objects"),
        ("DO $$ BEGIN PERFORM lo_from_bytea(0, 'x'); CREATE TABLE t (a int); END $$;", "large objects"),
        ("SELECT setval('book_id_seq', 500); SELECT kept();", "large objects"),
        ("DELETE FROM book; REFRESH MATERIALIZED VIEW held;", "materialized view"),
        ("DO $$ BEGIN ALTER EXTENSION plpgsql ADD TABLE book; END $$;", "extension"),
        ("DO $$ BEGIN ALTER INDEX book_pkey DEPENDS ON EXTENSION plpgsql; END $$;", "extension"),
        ("DO $$ BEGIN CREATE TABLE t (a int); ALTER EXTENSION plpgsql ADD TABLE book; END $$;", "extension"),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY keyed;", "held other rows"),
        ("DO $$ BEGIN REFRESH MATERIALIZED VIEW held; END $$;", "materialized view"),
    ] {
        match stage.try_apply(script) {
            Err(TargetError::Refused(refusal)) => assert!(refusal.why.contains(word), "{script}: {}", refusal.why),
            other => panic!("{script}: {other:?}"),
        }
        assert_eq!((stage.dump(), stage.pg_dump()), before, "{script}");
    }
}

#[test]
fn what_would_go_with_an_extension_would_after_an_undo_too() {
    let mut stage = Stage::new(&format!(
        "{BASE} CREATE INDEX titles ON book (title); ALTER INDEX titles DEPENDS ON EXTENSION plpgsql;
         ALTER TABLE shelf ADD CONSTRAINT names UNIQUE (name); ALTER INDEX names DEPENDS ON EXTENSION plpgsql;
         CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';
         ALTER FUNCTION twice DEPENDS ON EXTENSION plpgsql;
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER seen AFTER INSERT ON book FOR EACH ROW EXECUTE FUNCTION see();
         ALTER TRIGGER seen ON book DEPENDS ON EXTENSION plpgsql;
         CREATE PROCEDURE act() LANGUAGE sql AS 'SELECT 1'; ALTER PROCEDURE act DEPENDS ON EXTENSION plpgsql;
         ALTER MATERIALIZED VIEW empty DEPENDS ON EXTENSION plpgsql;"
    ));
    let before = (stage.dump(), stage.pg_dump());
    let leaning = before.1.iter().filter(|line| line.contains(" DEPENDS ON EXTENSION plpgsql;")).count();
    assert_eq!(leaning, 6, "{:#?}", before.1);
    for script in [
        "DROP INDEX titles",
        "DROP FUNCTION twice",
        "DROP PROCEDURE act",
        "DROP TRIGGER seen ON book",
        "DROP MATERIALIZED VIEW empty",
        "DROP TABLE book",
        "ALTER TABLE shelf DROP CONSTRAINT names",
        "CREATE OR REPLACE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT n + n'",
        "ALTER TABLE book ALTER title TYPE varchar(20)",
        "ALTER TABLE book ALTER title TYPE bytea USING convert_to(title, 'UTF8')",
        "ALTER TABLE book DROP COLUMN title",
    ] {
        let images = stage.try_apply(script).unwrap_or_else(|error| panic!("{script}: {}", told(&error))).0;
        let after = (stage.dump(), stage.pg_dump());
        stage.undo(&images);
        assert_eq!((stage.dump(), stage.pg_dump()), before, "{script}");
        let again = stage.redo(&images);
        assert_eq!((stage.dump(), stage.pg_dump()), after, "{script}");
        stage.undo(&again);
        assert_eq!((stage.dump(), stage.pg_dump()), before, "{script}");
    }
}
