//! Statements of the rarer kinds on PostgreSQL, deployed as a step: undone to the same dump and done again, or refused
//! by name with nothing changed.

use backout_model::target::TargetError;
use backout_testkit::postgres::{Database, Server};

use crate::postgres::stage::Stage;
use crate::postgres_bed::{difference, dump};
use crate::postgres_ddl::{BASE, ROLES};
use crate::stage::told;

const MORE: &str = "
CREATE FUNCTION app.plus(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 + $2';
CREATE AGGREGATE app.total(int) (SFUNC = app.plus, STYPE = int, INITCOND = '0');
CREATE FUNCTION app.far(bigint, int) RETURNS bigint LANGUAGE sql AS 'SELECT $1 + $2';
CREATE FUNCTION app.longer(text, text) RETURNS text LANGUAGE sql AS 'SELECT CASE WHEN length($1) > length($2) THEN $1 ELSE $2 END';
CREATE AGGREGATE app.longest(text) (SFUNC = app.longer, STYPE = text, COMBINEFUNC = app.longer, INITCOND = 'it''s', PARALLEL = RESTRICTED,
    SSPACE = 100, SORTOP = >);
CREATE AGGREGATE app.many(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0', MSFUNC = int8inc, MINVFUNC = int8dec, MSTYPE = int8, MINITCOND = '0');
COMMENT ON AGGREGATE app.many(*) IS 'how many'; GRANT EXECUTE ON FUNCTION app.many() TO reader;
CREATE AGGREGATE app.nearest(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal,
    FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
CREATE VIEW totalled AS SELECT app.total(id) AS t, app.many(*) AS n FROM item;
CREATE OPERATOR app.=== (FUNCTION = app.plus, LEFTARG = int, RIGHTARG = int);
CREATE CAST (pair AS text) WITH INOUT;
CREATE COLLATION app.coll (LOCALE = 'C'); CREATE COLLATION app.said (LOCALE = 'C'); COMMENT ON COLLATION app.said IS 'said';
CREATE TEXT SEARCH DICTIONARY app.dict (TEMPLATE = simple);
CREATE TABLE moods(m mood PRIMARY KEY DEFAULT 'ok', all_of mood[] DEFAULT '{ok,sad}', note text CHECK (note <> '' OR m = 'sad'));
INSERT INTO moods VALUES ('sad', '{sad,NULL}', ''), ('ok', NULL, 'x'); GRANT SELECT (m) ON moods TO reader;
CREATE TABLE mooded(m mood REFERENCES moods, n int); INSERT INTO mooded VALUES ('ok', 1);
CREATE INDEX moods_sad ON moods(note) WHERE m = 'sad'; CREATE INDEX moods_all ON moods USING gin(all_of);
CREATE FUNCTION of_mood(m mood, other mood DEFAULT 'sad') RETURNS mood[] LANGUAGE sql IMMUTABLE AS $$ SELECT ARRAY[m, other] $$;
GRANT EXECUTE ON FUNCTION of_mood(mood, mood) TO reader; COMMENT ON FUNCTION of_mood(mood, mood) IS 'both';
CREATE TABLE uses(a int DEFAULT cardinality(of_mood('ok')), b mood[] DEFAULT of_mood('sad')); INSERT INTO uses VALUES (1);
CREATE VIEW moody AS SELECT m, of_mood(m) AS both FROM moods WHERE m > 'sad'; GRANT SELECT ON moody TO reader;
CREATE MATERIALIZED VIEW counted AS SELECT m, count(*) AS n FROM moods GROUP BY m; CREATE UNIQUE INDEX counted_m ON counted(m);
CREATE POLICY moody_ones ON moods USING (m = 'ok');
CREATE TRIGGER mooded_noted BEFORE UPDATE OF m ON mooded FOR EACH ROW WHEN (NEW.m = 'sad') EXECUTE FUNCTION noted();
CREATE TABLE felt_at(at int NOT NULL, m mood DEFAULT 'sad') PARTITION BY RANGE (at);
CREATE TABLE felt_1 PARTITION OF felt_at FOR VALUES FROM (0) TO (9); ALTER TABLE felt_1 ALTER m SET DEFAULT 'ok';
CREATE INDEX felt_m ON felt_at(m); INSERT INTO felt_at VALUES (1, 'sad'), (2, 'ok');
GRANT USAGE ON TYPE mood TO reader WITH GRANT OPTION;
CREATE TYPE stage AS ENUM ('one', 'two'); CREATE DOMAIN open_stage AS stage CHECK (VALUE <> 'two');
CREATE TYPE size AS ENUM ('s', 'm'); CREATE TABLE sized(s size) PARTITION BY LIST (s);
CREATE EXTENSION pg_trgm; COMMENT ON FUNCTION similarity(text, text) IS 'how alike';
CREATE TABLE puppy(age int) INHERITS (dog); INSERT INTO puppy VALUES ('bo', 4, 'yip', 1);
CREATE TABLE cat(name text, legs int DEFAULT 3, meow text); INSERT INTO cat VALUES ('tom', 4, 'm');
INSERT INTO animal VALUES ('eel', 0);
CREATE TABLE m3(at date NOT NULL, v int); INSERT INTO m3 VALUES ('2023-03-03', 3);
";

const UNDONE: &[&str] = &[
    // Trees of tables.
    "INSERT INTO animal VALUES ('cow'); UPDATE animal SET legs = legs + 1; UPDATE dog SET bark = 'w'; DELETE FROM animal WHERE name = 'rex'",
    "ALTER TABLE cat INHERIT animal; INSERT INTO animal VALUES ('x'); UPDATE animal SET legs = 9",
    "ALTER TABLE cat INHERIT animal; ALTER TABLE animal ADD COLUMN fur text DEFAULT 'red'; UPDATE animal SET fur = 'blue'",
    "ALTER TABLE animal ADD COLUMN bark text",
    "ALTER TABLE puppy ADD COLUMN fur text; INSERT INTO puppy VALUES ('a', 1, 'b', 2, 'c'); ALTER TABLE animal ADD COLUMN fur text",
    "ALTER TABLE animal RENAME COLUMN legs TO feet; ALTER TABLE animal ALTER feet SET DEFAULT 5, ALTER name SET NOT NULL",
    "ALTER TABLE puppy ADD CONSTRAINT few CHECK (legs >= 0); ALTER TABLE animal ADD CONSTRAINT few CHECK (legs >= 0)",
    "CREATE TABLE kid(legs int) INHERITS (puppy); INSERT INTO kid VALUES ('x', 1, 'y', 2); UPDATE animal SET name = 'z'",
    "CREATE TABLE both_of(legs int DEFAULT 1, x int) INHERITS (animal, cat)",
    "DROP TABLE animal CASCADE",
    "TRUNCATE ONLY animal",
    "DROP TABLE cat; ALTER TABLE animal RENAME TO cat; ALTER TABLE cat SET SCHEMA app",
    "ALTER TABLE measured ATTACH PARTITION m3 FOR VALUES FROM ('2023-01-01') TO ('2024-01-01'); UPDATE measured SET at = '2024-06-06'",
    // Rows that a foreign key finds in a table which the step made.
    "CREATE TABLE pp (id int PRIMARY KEY); INSERT INTO pp SELECT generate_series(1, 3); ALTER TABLE child ADD FOREIGN KEY (up) REFERENCES pp",
    "CREATE TABLE pp (id int); INSERT INTO pp VALUES (1), (2); ALTER TABLE pp ADD PRIMARY KEY (id);
     ALTER TABLE child ADD COLUMN q int DEFAULT 2 REFERENCES pp; CREATE TABLE qq AS SELECT 1 AS a",
    "CREATE TABLE pp AS SELECT 1 AS id UNION SELECT 2; ALTER TABLE pp ADD PRIMARY KEY (id);
     ALTER TABLE child ADD FOREIGN KEY (up) REFERENCES pp; INSERT INTO pp VALUES (5); UPDATE child SET up = 2",
    "INSERT INTO above VALUES (7), (8); ALTER TABLE item ADD COLUMN q int DEFAULT 7 REFERENCES above",
    // Names, owners, comments.
    "COMMENT ON CONSTRAINT is_positive ON DOMAIN positive IS 'c'; COMMENT ON PROCEDURE nothing() IS 'c';
     COMMENT ON MATERIALIZED VIEW totals IS 'c'; COMMENT ON STATISTICS item_stats IS 'c'; COMMENT ON COLUMN pair.a IS 'c'",
    "ALTER MATERIALIZED VIEW totals RENAME TO sums; ALTER MATERIALIZED VIEW sums OWNER TO writer",
    "ALTER DOMAIN positive RENAME CONSTRAINT is_positive TO pos; ALTER DOMAIN positive OWNER TO writer; ALTER DOMAIN positive RENAME TO plus",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader; GRANT CREATE ON SCHEMA public TO reader",
    "ALTER SCHEMA public OWNER TO writer; ALTER SCHEMA public RENAME TO pub2",
    "CREATE SCHEMA s2 CREATE TABLE a (x int PRIMARY KEY) CREATE VIEW b AS SELECT x FROM a",
    "CREATE OR REPLACE TRIGGER item_noted AFTER UPDATE ON item FOR EACH ROW EXECUTE FUNCTION noted();
     CREATE OR REPLACE RULE no_delete AS ON DELETE TO cheap DO INSTEAD SELECT 1",
    "CREATE TABLE typed OF pair (PRIMARY KEY (a)); ALTER TABLE typed NOT OF",
    "ALTER TABLE item ALTER twice DROP EXPRESSION; ALTER SEQUENCE counter AS smallint MAXVALUE 1000",
    "ALTER TABLE child DISABLE TRIGGER ALL; INSERT INTO child VALUES (9, 1); ALTER TABLE child ENABLE TRIGGER ALL",
    "ALTER TYPE span OWNER TO writer; ALTER TYPE span RENAME TO spans",
    "ALTER TYPE span SET SCHEMA app; DROP TYPE app.span",
    // Aggregates.
    "CREATE AGGREGATE agg(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0'); COMMENT ON AGGREGATE agg(int) IS 'all'; DROP AGGREGATE app.nearest(float8 ORDER BY anyelement)",
    "DROP VIEW totalled; DROP AGGREGATE app.total(int); DROP ROUTINE app.longest(text); DROP AGGREGATE app.many(*)",
    "GRANT EXECUTE ON FUNCTION app.total(int) TO reader; COMMENT ON AGGREGATE app.many(*) IS NULL; ALTER AGGREGATE app.many(*) OWNER TO writer",
    "DO $$ BEGIN ALTER AGGREGATE app.many(*) RENAME TO c2; ALTER AGGREGATE app.total(int) SET SCHEMA public; END $$",
    "CREATE OR REPLACE AGGREGATE app.total(int) (SFUNC = app.plus, STYPE = int, INITCOND = '7', PARALLEL = SAFE)",
    "DROP VIEW totalled; DROP AGGREGATE app.total(int);
     CREATE AGGREGATE app.total(int) (SFUNC = app.far, STYPE = bigint)",
    "ALTER FUNCTION app.far(bigint, int) RENAME TO farther",
    "DROP AGGREGATE app.total(int) CASCADE",
    // Labels of an enum.
    "ALTER TYPE mood ADD VALUE 'new'",
    "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'it''s, new' BEFORE 'ok'; ALTER TYPE mood ADD VALUE 'last'; ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
    "DO $$ BEGIN ALTER TYPE mood ADD VALUE 'first' BEFORE 'sad'; COMMENT ON TYPE mood IS 'felt'; CREATE TABLE felt(m mood); END $$",
    "INSERT INTO item(note, m) VALUES ('q', 'sad'); ALTER TYPE mood ADD VALUE 'new'; UPDATE item SET m = 'ok' WHERE note = 'q'; UPDATE moods SET note = 'z' WHERE m = 'ok'",
    // What is said of an identity column's sequence.
    "COMMENT ON SEQUENCE item_code_seq IS 'x'; GRANT USAGE ON SEQUENCE item_code_seq TO reader WITH GRANT OPTION",
    "GRANT ALL ON SEQUENCE item_code_seq TO reader; ALTER TABLE item ALTER code DROP IDENTITY",
    "DROP ROUTINE twice(int); ALTER FUNCTION app.plus(int, int) RENAME TO add",
];

const REFUSED: &[(&str, &str)] = &[
    ("DROP FUNCTION app.plus(int, int) CASCADE", "pg_operator"),
    ("DROP SCHEMA app CASCADE", "pg_collation"),
    ("DROP EXTENSION pg_trgm", "pg_amop"),
    ("ALTER EXTENSION pg_trgm UPDATE", "extension"),
    ("COMMENT ON EXTENSION pg_trgm IS 'x'", "extension"),
    ("DO $$ BEGIN ALTER EXTENSION pg_trgm SET SCHEMA app; END $$", "extension"),
    // What a type is a part of cannot change places with it.
    ("DO $$ BEGIN ALTER TYPE stage ADD VALUE 'new'; END $$", "a label cannot be taken out"),
    ("ALTER TYPE size ADD VALUE 'new'", "partitions"),
    ("ALTER TABLE puppy NO INHERIT dog", "parent's"),
    ("ALTER TABLE animal DROP COLUMN legs", "inherits"),
    ("ALTER TABLE ONLY animal DROP COLUMN legs", "parent's"),
    ("ALTER TABLE dog DROP COLUMN bark", "inherits"),
    ("ALTER TABLE animal ALTER legs TYPE bigint", "inherits"),
    ("DROP TABLE puppy", "inherits"),
    ("DO $$ BEGIN DROP OPERATOR app.=== (int, int); END $$", "pg_operator"),
    ("DO $$ BEGIN DROP CAST (pair AS text); END $$", "cast"),
    ("DO $$ BEGIN ALTER TEXT SEARCH DICTIONARY app.dict RENAME TO d2; END $$", "pg_ts_dict"),
    ("DO $$ BEGIN GRANT TEMP ON DATABASE {database} TO reader; END $$", "pg_database"),
    ("DO $$ BEGIN COMMENT ON DATABASE {database} IS 'x'; END $$", "pg_shdescription"),
    ("DO $$ BEGIN CLUSTER item USING item_code; END $$", "rewrites"),
    // A comment is kept with its object.
    ("DO $$ BEGIN COMMENT ON OPERATOR app.=== (int, int) IS 'x'; END $$", "comment on operator"),
    ("DO $$ BEGIN COMMENT ON CAST (pair AS text) IS 'x'; END $$", "comment on cast"),
    ("DO $$ BEGIN COMMENT ON COLLATION app.said IS NULL; END $$", "comment on collation"),
    ("DO $$ BEGIN COMMENT ON LANGUAGE plpgsql IS 'x'; END $$", "the server itself"),
    ("COMMENT ON TYPE item IS 'x'", "comment on type"),
    ("ALTER TYPE span_multirange RENAME TO sm", "multirange"),
    ("ALTER TYPE span_multirange SET SCHEMA app", "multirange"),
    ("ALTER TABLE item DISABLE TRIGGER ALL", "TRIGGER ALL"),
    ("DO $$ BEGIN ALTER TABLE parent DISABLE TRIGGER ALL; END $$", "TRIGGER ALL"),
    // What the server brought along is in a dump where it is granted to others.
    ("GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO reader", "the server itself"),
    ("REVOKE ALL ON FUNCTION pg_sleep(double precision) FROM PUBLIC", "the server itself"),
    ("GRANT SELECT ON pg_authid TO reader", "the server itself"),
    ("GRANT SELECT (rolpassword) ON pg_authid TO reader", "the server itself"),
    ("GRANT ALL ON SCHEMA pg_catalog TO reader", "the server itself"),
    ("REVOKE ALL ON information_schema.sql_features FROM PUBLIC", "the server itself"),
    ("ALTER FUNCTION pg_catalog.abs(int) COST 7", "the server itself"),
    ("COMMENT ON FUNCTION pg_catalog.abs(int) IS 'x'", "the server itself"),
    ("COMMENT ON COLUMN pg_catalog.pg_class.relname IS 'x'", "the server itself"),
    ("COMMENT ON FUNCTION pg_catalog.abs(int) IS NULL", "the server itself"),
    ("COMMENT ON SCHEMA pg_catalog IS NULL", "the server itself"),
    ("DO $$ BEGIN COMMENT ON LANGUAGE plpgsql IS NULL; END $$", "the server itself"),
    ("GRANT USAGE ON TYPE item TO reader", "row type"),
    ("REVOKE USAGE ON TYPE cheap FROM PUBLIC", "row type"),
    ("DO $$ BEGIN ALTER TABLE item RENAME TO item2; GRANT USAGE ON TYPE item2 TO reader; END $$", "row type"),
    // What an extension brought along is in a dump where it is granted to others.
    ("GRANT EXECUTE ON FUNCTION similarity(text, text) TO reader", "of extension pg_trgm"),
    ("REVOKE EXECUTE ON FUNCTION similarity(text, text) FROM PUBLIC", "of extension pg_trgm"),
    ("ALTER FUNCTION similarity(text, text) COST 9", "of extension pg_trgm"),
    ("ALTER FUNCTION similarity(text, text) RENAME TO alike", "of extension pg_trgm"),
    ("COMMENT ON FUNCTION similarity(text, text) IS 'x'", "of extension pg_trgm"),
    ("COMMENT ON TYPE gtrgm IS 'x'", "of extension pg_trgm"),
    ("DO $$ BEGIN COMMENT ON FUNCTION similarity(text, text) IS NULL; END $$", "of extension pg_trgm"),
];

fn filled(server: &Server) -> Database<'_> {
    server.database_like("ddl_kinds", |database| drop(database.psql(&format!("{ROLES}{BASE}{MORE}"))))
}

fn stage(server: &Server) -> Stage<'_> {
    let live = filled(server);
    let url = live.url();
    Stage::over(live, &url)
}

/// True where the server is too old for a script; said aloud.
fn is_left_out(script: &str) -> bool {
    const FROM_14: [&str; 2] = ["multirange", "OR REPLACE TRIGGER"];
    let version = Server::shared().version();
    let out = version < 14 && FROM_14.iter().any(|words| script.contains(words));
    if out {
        eprintln!("NOT TESTED ON POSTGRESQL {version}: {script}");
    }
    out
}

/// What the definitions, the rows and the sequences are.
fn all(stage: &Stage<'_>) -> String {
    format!("{}\n{}", dump(stage.live.server(), &stage.live), stage.dump().join("\n"))
}

#[test]
fn each_is_undone_to_the_same_dump_and_done_again() {
    let server = Server::shared();
    let mut wrong = Vec::new();
    for script in UNDONE.iter().filter(|script| !is_left_out(script)) {
        let mut stage = stage(server);
        let before = all(&stage);
        let images = stage.apply(script);
        let after = all(&stage);
        assert!(after != before, "{script} does nothing");
        stage.undo(&images);
        let undone = all(&stage);
        let again = stage.redo(&images);
        let redone = all(&stage);
        stage.undo(&again);
        for (what, wanted, found) in
            [("undone", &before, undone), ("done again", &after, redone), ("undone again", &before, all(&stage))]
        {
            if *wanted != found {
                wrong.push(format!("{script}, {what}:\n{}", difference(wanted, &found)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_is_refused_with_the_reason_and_changes_nothing() {
    let mut stage = stage(Server::shared());
    let before = all(&stage);
    for (script, word) in REFUSED.iter().filter(|(script, _)| !is_left_out(script)) {
        let script = script.replace("{database}", &stage.live.name);
        match stage.try_apply(&script) {
            Err(TargetError::Refused(refusal)) => assert!(refusal.why.contains(word), "{script}: {}", refusal.why),
            Err(error) => panic!("{script}: {}", told(&error)),
            Ok(_) => panic!("{script} was not refused"),
        }
        let after = all(&stage);
        assert!(before == after, "{script}:\n{}", difference(&before, &after));
    }
}
