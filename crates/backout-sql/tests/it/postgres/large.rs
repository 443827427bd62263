//! A few rows of a large table, which are read by their keys: undone like any others, also where the keys do not tell all.

use crate::postgres::stage::Stage;

/// Two tables of more than a thousand blocks each, with a key of one column and of two.
const LARGE: &str = "CREATE TABLE big (id int PRIMARY KEY, n int, pad text);
    ALTER TABLE big ALTER pad SET STORAGE PLAIN;
    INSERT INTO big SELECT g, 0, repeat('x', 3000) FROM generate_series(1, 2500) AS g;
    CREATE SCHEMA app; CREATE TABLE app.\"Two\" (name text, at bigint, n int, pad text, PRIMARY KEY (name, at));
    ALTER TABLE app.\"Two\" ALTER pad SET STORAGE PLAIN;
    INSERT INTO app.\"Two\" SELECT E'it''s \\\\ ' || g % 9, g, 0, repeat('y', 3000) FROM generate_series(1, 2500) AS g;
    CREATE TABLE app.big (code text PRIMARY KEY, n int); INSERT INTO app.big VALUES ('a', 1), ('b', 2);
    CREATE TABLE kid (id int PRIMARY KEY, up int REFERENCES big ON DELETE CASCADE ON UPDATE CASCADE);
    INSERT INTO kid VALUES (1, 1), (2, 2);
    ANALYZE;";

const CHANGES: [&str; 17] = [
    "UPDATE big SET n = 1 WHERE id = 7",
    "UPDATE big SET n = 1 WHERE id = -1; ALTER TABLE big RENAME COLUMN id TO nr; UPDATE big SET n = 2 WHERE nr = 7",
    "ALTER TABLE big ADD x int; UPDATE big SET x = 1 WHERE id = 5; ALTER TABLE big RENAME COLUMN id TO nr; UPDATE big SET x = 2 WHERE nr = 6",
    "UPDATE big SET n = 1 WHERE id = -1; DO $$ BEGIN PERFORM set_config('search_path', 'app', false); END $$; UPDATE big SET n = 2 WHERE code = 'a'",
    "DELETE FROM kid RETURNING id; DELETE FROM big WHERE id = 21 RETURNING n",
    "UPDATE public.big SET n = app.big.n FROM app.big WHERE public.big.id = app.big.n",
    "UPDATE big AS b SET n = 2 FROM kid WHERE kid.up = b.id; DELETE FROM big WHERE id IN (9, 10)",
    "INSERT INTO big VALUES (5000, 1, 'new'), (5001, 2, NULL); INSERT INTO big SELECT 6000 + id, n, 'few' FROM big WHERE id < 4",
    "UPDATE app.\"Two\" SET n = n + 1 WHERE name = E'it''s \\\\ 3' AND at < 100; DELETE FROM app.\"Two\" t WHERE t.at = 5",
    "UPDATE big SET n = 3 WHERE id = 8; UPDATE big SET n = 4 WHERE id = 8; INSERT INTO big VALUES (8, 9, 'up') ON CONFLICT (id) DO UPDATE SET n = 5",
    "UPDATE big SET id = id + 10000 WHERE id < 5",
    "DELETE FROM big WHERE id = 1; INSERT INTO big VALUES (1, 1, 'again')",
    "UPDATE big SET n = 6 WHERE id = 11; SET search_path = app; UPDATE big SET n = 7 WHERE code = 'a'; UPDATE public.big SET n = 8 WHERE id = 12",
    "UPDATE big SET n = 9 WHERE id = 13; ALTER TABLE big ADD COLUMN more int; UPDATE big SET more = 1 WHERE id = 14; DELETE FROM big WHERE id = 15",
    "UPDATE big SET n = 1 WHERE id < 2000; DELETE FROM big WHERE id = 2001",
    "DO $$ BEGIN UPDATE big SET n = 2 WHERE id = 16; BEGIN UPDATE big SET n = 3 WHERE id = 17; PERFORM 1 / 0; EXCEPTION WHEN OTHERS THEN NULL; END; END $$;
     UPDATE big SET n = 4 WHERE id = 18",
    "ALTER TABLE big DROP CONSTRAINT big_pkey CASCADE; UPDATE big SET n = 2 WHERE id = 19; UPDATE app.\"Two\" SET n = 2 WHERE at = 20",
];

#[test]
fn a_few_rows_of_a_large_table() {
    let mut stage = Stage::new(LARGE);
    for change in CHANGES {
        // Others hold a lock on rows that are changed, too: they are no less the step's.
        let mut other = stage.other();
        let mut locks = other.transaction().unwrap();
        locks.batch_execute("SELECT FROM big WHERE id BETWEEN 6 AND 20 FOR KEY SHARE").unwrap();
        let exclusive =
            ["ALTER", "app.big", "DELETE", "ON CONFLICT", "id + 10000"].iter().any(|word| change.contains(word));
        if exclusive {
            locks.rollback().unwrap();
        }
        stage.there_and_back(change);
    }
}

/// What the role may not read, it may change; a trigger sees the statement as it was written.
#[test]
fn a_statement_is_left_as_it_is_where_that_could_be_seen() {
    let mut stage = Stage::new(LARGE);
    stage.others(
        "CREATE TABLE seen (what text); CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO seen VALUES (current_query()); RETURN NULL; END $$;
         CREATE TRIGGER see AFTER UPDATE ON app.\"Two\" FOR EACH STATEMENT EXECUTE FUNCTION see();
         DROP ROLE IF EXISTS large_writer; CREATE ROLE large_writer; GRANT USAGE ON SCHEMA app TO large_writer;
         GRANT UPDATE, DELETE ON big TO large_writer",
    );
    let before = stage.dump();
    let images = stage.apply(
        "UPDATE app.\"Two\" SET n = 5 WHERE at = 1;
         SET ROLE large_writer; UPDATE big SET n = 1; RESET ROLE; DELETE FROM big WHERE id = 30",
    );
    assert_eq!(stage.ask("SELECT string_agg(what, ';') FROM seen"), "UPDATE app.\"Two\" SET n = 5 WHERE at = 1;");
    stage.undo(&images);
    assert_eq!(stage.dump(), before);
    stage.others("DROP OWNED BY large_writer; DROP ROLE large_writer");
}
