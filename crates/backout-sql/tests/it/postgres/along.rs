//! What PostgreSQL would take along, unasked, with what an undo takes away: a conflict, and it stays.

use backout_model::conflict::OnConflict;
use backout_model::target::TargetError;

use crate::postgres::stage::Stage;
use crate::stage::told;

const SETUP: &str = "CREATE TABLE t (a int, u int); INSERT INTO t VALUES (1, 1);
    CREATE TABLE p (a int PRIMARY KEY, b text) PARTITION BY RANGE (a);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (5); INSERT INTO p VALUES (1, 'x');
    CREATE TABLE old (a int); INSERT INTO old VALUES (1), (2);
    CREATE TABLE top (a int); CREATE TABLE kid (k int) INHERITS (top); INSERT INTO kid VALUES (1, 1);
    CREATE TABLE own (a int, c int) INHERITS (top); INSERT INTO own VALUES (1, 7);
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';";

/// What is deployed, and what others do then.
const TAKEN: &[(&str, &str)] = &[
    ("ALTER TABLE p ADD c int", "UPDATE p SET c = 5"),
    ("ALTER TABLE p ADD c int DEFAULT 4", "INSERT INTO p VALUES (2, 'y', 9)"),
    (
        "ALTER TABLE p ADD c int",
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (5) TO (9); INSERT INTO p VALUES (6, 'z', 1)",
    ),
    ("ALTER TABLE top ADD c int", "UPDATE kid SET c = 5"),
    (
        "CREATE TABLE n (a int) PARTITION BY RANGE (a)",
        "CREATE TABLE n1 PARTITION OF n FOR VALUES FROM (0) TO (5); INSERT INTO n VALUES (1)",
    ),
    ("CREATE TABLE n (a int) PARTITION BY RANGE (a)", "ALTER TABLE n ATTACH PARTITION old FOR VALUES FROM (0) TO (5)"),
    (
        "CREATE TABLE n (a int) PARTITION BY RANGE (a); CREATE TABLE n1 PARTITION OF n FOR VALUES FROM (0) TO (5)",
        "CREATE TABLE n2 PARTITION OF n FOR VALUES FROM (5) TO (9); INSERT INTO n VALUES (6)",
    ),
    (
        "CREATE TABLE n (a int) PARTITION BY RANGE (a); CREATE TABLE n1 PARTITION OF n FOR VALUES FROM (0) TO (5) PARTITION BY RANGE (a)",
        "CREATE TABLE n2 PARTITION OF n1 FOR VALUES FROM (0) TO (2); INSERT INTO n VALUES (1)",
    ),
    ("ALTER TABLE t ADD c int", "CREATE INDEX theirs ON t (a, c)"),
    ("ALTER TABLE t ADD c int", "CREATE INDEX theirs ON t ((c + u))"),
    ("ALTER TABLE t ADD c int", "CREATE INDEX theirs ON t (a) WHERE c IS NULL"),
    ("ALTER TABLE t ADD c int", "ALTER TABLE t ADD UNIQUE (a, c)"),
    ("ALTER TABLE t ADD c int", "ALTER TABLE t ADD CHECK (c > 0 OR a <> 0)"),
    ("ALTER TABLE p ADD c int", "ALTER TABLE p ADD CHECK (c > 0 OR a <> 0)"),
    ("ALTER TABLE t ADD c int", "ALTER TABLE t ADD FOREIGN KEY (c) REFERENCES p"),
    ("ALTER TABLE t ADD c int", "CREATE STATISTICS theirs ON a, c FROM t"),
    ("ALTER TABLE t ADD c int", "CREATE SEQUENCE theirs OWNED BY t.c"),
    (
        "CREATE VIEW v AS SELECT * FROM t",
        "CREATE TRIGGER theirs INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION noted()",
    ),
    ("CREATE VIEW v AS SELECT * FROM t", "CREATE RULE theirs AS ON DELETE TO v DO INSTEAD NOTHING"),
    ("CREATE MATERIALIZED VIEW m AS SELECT * FROM t", "CREATE INDEX theirs ON m (a)"),
    ("CREATE DOMAIN d AS int", "ALTER DOMAIN d ADD CONSTRAINT theirs CHECK (VALUE > 0)"),
    ("CREATE SCHEMA ns", "ALTER DEFAULT PRIVILEGES IN SCHEMA ns GRANT SELECT ON TABLES TO PUBLIC"),
    ("CREATE PUBLICATION pub FOR TABLE t", "ALTER PUBLICATION pub ADD TABLE old"),
];

/// What is theirs and loses nothing.
const NOT_TAKEN: &[(&str, &str)] = &[
    ("ALTER TABLE p ADD c int DEFAULT 4", "INSERT INTO p VALUES (2, 'y')"),
    (
        "ALTER TABLE p ADD c int",
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (5) TO (9); INSERT INTO p VALUES (6, 'z')",
    ),
    ("ALTER TABLE top ADD c int", "UPDATE own SET c = 8"),
    ("CREATE INDEX ours ON p (b)", "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (5) TO (9)"),
    (
        "CREATE TABLE n (id serial PRIMARY KEY, g int GENERATED ALWAYS AS IDENTITY, x text UNIQUE CHECK (x <> ''), r int REFERENCES p)",
        "SELECT 1",
    ),
    ("CREATE SCHEMA ns CREATE TABLE a (x int PRIMARY KEY) CREATE VIEW b AS SELECT x FROM a", "SELECT 1"),
    (
        "CREATE DOMAIN d AS int CONSTRAINT ours CHECK (VALUE > 0); CREATE TYPE e AS ENUM ('a'); CREATE TYPE r AS RANGE (subtype = int)",
        "SELECT 1",
    ),
];

#[test]
fn what_would_go_along_is_a_conflict_and_stays() {
    let mut wrong = Vec::new();
    for (script, theirs) in TAKEN {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply(script);
        stage.others(theirs);
        let all = |stage: &Stage<'_>| format!("{}\n{}", stage.pg_dump().join("\n"), stage.dump().join("\n"));
        let before = all(&stage);
        let undone = stage.try_undo(&images, OnConflict::Stop);
        if undone.is_ok() || all(&stage) != before {
            wrong.push(format!("{script}; {theirs}: {}", if undone.is_ok() { "undone" } else { "changed" }));
            continue;
        }
        stage.try_undo(&images, OnConflict::Keep).unwrap_or_else(|error| panic!("{script}; {theirs}: {error}"));
        let kept = all(&stage);
        if kept != before && !script.contains("PARTITION OF n") {
            wrong.push(format!("{script}; {theirs}: not kept"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_goes_by_right_is_none() {
    for (script, theirs) in NOT_TAKEN {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply(script);
        stage.others(theirs);
        let undone = stage.try_undo(&images, OnConflict::Stop);
        assert!(undone.is_ok(), "{script}; {theirs}: {undone:?}");
    }
}

/// A table that gets its old shape back is another one: what others hung on its row type goes over to that.
#[test]
fn what_others_hung_on_a_row_type_goes_over_to_the_table_built_anew() {
    let takes = "CREATE FUNCTION theirs(r t) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'";
    let gives = "CREATE FUNCTION theirs() RETURNS SETOF t LANGUAGE sql AS 'SELECT * FROM t'";
    for theirs in [
        takes.to_owned(),
        format!("{gives}; CREATE VIEW seen AS SELECT a FROM theirs()"),
        format!("{takes}; CREATE VIEW seen AS SELECT theirs(t) FROM t"),
        format!("{takes}; ALTER TABLE t ADD CHECK (theirs(t) > 0)"),
        format!("{takes}; CREATE INDEX by_theirs ON t (theirs(t))"),
    ] {
        for on_conflict in [OnConflict::Stop, OnConflict::Keep] {
            let mut stage = Stage::new(SETUP);
            let images = stage.apply("ALTER TABLE t DROP u");
            stage.others(&theirs);
            let before = stage.pg_dump();
            match stage.try_undo(&images, on_conflict) {
                Ok(report) if report.conflicts.is_empty() => {
                    assert_eq!(stage.ask("SELECT u FROM t"), "1", "{theirs}");
                    assert_eq!(stage.ask("SELECT count(*) FROM pg_proc WHERE proname = 'theirs'"), "1", "{theirs}");
                }
                Ok(report) => {
                    assert_eq!(stage.pg_dump(), before, "{theirs}");
                    assert!(
                        !format!("{:?}", report.conflicts).contains("backout_"),
                        "{theirs}: {:?}",
                        report.conflicts
                    );
                }
                Err(TargetError::Conflicts(found)) if on_conflict == OnConflict::Stop => {
                    assert!(!format!("{found:?}").contains("backout_"), "{theirs}: {found:?}");
                }
                Err(error) => panic!("{theirs}: {on_conflict:?}: {}", told(&error)),
            }
        }
    }
}

/// What is deployed, what others do then, and what of theirs holds values and would be dropped along.
const HELD: &[(&str, &str, &str, &str)] = &[
    (
        "CREATE SCHEMA ns",
        "CREATE TABLE ns.precious (x int); INSERT INTO ns.precious VALUES (5)",
        "table ns.precious",
        "SELECT count(*) FROM ns.precious",
    ),
    ("CREATE SCHEMA ns", "CREATE SEQUENCE ns.q", "sequence ns.q", "SELECT count(*) FROM ns.q"),
    (
        "CREATE DOMAIN d AS int",
        "CREATE TABLE cust (id int PRIMARY KEY, amt d); INSERT INTO cust VALUES (1, 500)",
        "column amt of public.cust",
        "SELECT count(amt) FROM cust",
    ),
    (
        "CREATE TABLE par (id int)",
        "CREATE TABLE ch (x int) INHERITS (par); INSERT INTO ch VALUES (1, 2)",
        "table public.ch",
        "SELECT count(x) FROM ch",
    ),
    (
        "ALTER TABLE t ADD c int",
        "ALTER TABLE t ADD g int GENERATED ALWAYS AS (c * 2) STORED",
        "column g of public.t",
        "SELECT count(coalesce(g, 1)) FROM t",
    ),
    (
        "CREATE TABLE n (a int) PARTITION BY RANGE (a)",
        "CREATE TABLE n1 PARTITION OF n FOR VALUES FROM (0) TO (5); INSERT INTO n VALUES (1)",
        "table public.n1",
        "SELECT count(*) FROM n1",
    ),
];

#[test]
fn what_holds_values_of_others_is_never_overwritten_along() {
    for (deployed, then, named, asked) in HELD {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply(deployed);
        stage.others(then);
        let found = stage.try_undo(&images, OnConflict::Overwrite);
        let Err(TargetError::Conflicts(conflicts)) = found else { panic!("{then}: {found:?}") };
        let one = conflicts.listed.iter().find(|one| one.object == *named);
        assert!(one.is_some_and(|one| one.now.contains("move it away")), "{then}: {conflicts:?}");
        assert_eq!(stage.ask(asked), "1", "{then}");
    }
}

/// What is deployed, what others do then, and what of theirs is listed as overwritten.
const LISTED: &[(&str, &str, &str)] = &[
    ("ALTER TABLE t ADD c int", "CREATE VIEW v AS SELECT c FROM t", "view public.v"),
    ("CREATE TABLE n (a int PRIMARY KEY)", "CREATE VIEW v AS SELECT a FROM n", "view public.v"),
    (
        "CREATE TABLE n (a int PRIMARY KEY)",
        "CREATE VIEW v AS SELECT a FROM n; CREATE VIEW w AS SELECT a FROM v",
        "view public.w",
    ),
    ("CREATE SCHEMA ns", "CREATE VIEW ns.v AS SELECT 1 AS a", "view ns.v"),
    (
        "CREATE TABLE n (a int PRIMARY KEY)",
        "ALTER TABLE t ADD CONSTRAINT theirs FOREIGN KEY (u) REFERENCES n NOT VALID",
        "constraint theirs",
    ),
    (
        "CREATE SEQUENCE q",
        "ALTER TABLE t ALTER u SET DEFAULT nextval('q')",
        "default value for column u of table public.t",
    ),
    (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER theirs AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
        "trigger theirs",
    ),
    (
        "CREATE FUNCTION f() RETURNS bool LANGUAGE sql AS 'SELECT true'",
        "CREATE POLICY theirs ON t USING (f())",
        "policy theirs",
    ),
];

#[test]
fn each_definition_of_others_that_goes_along_is_listed_as_overwritten() {
    for (deployed, then, named) in LISTED {
        let mut stage = Stage::new(SETUP);
        let images = stage.apply(deployed);
        stage.others(then);
        let report = stage.try_undo(&images, OnConflict::Overwrite);
        let report = report.unwrap_or_else(|error| panic!("{then}: {}", told(&error)));
        let times = report.conflicts.listed.iter().filter(|one| one.object.contains(named)).count();
        assert_eq!(times, 1, "{then}: {:?}", report.conflicts);
    }
}
