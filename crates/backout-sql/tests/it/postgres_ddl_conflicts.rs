//! What others changed in PostgreSQL's schema since, and each way out of it.

use backout_model::conflict::ConflictKind::{self, Appeared, Changed, Definition, Missing, NotEmpty};
use backout_model::conflict::OnConflict;
use backout_testkit::postgres::{Database, Server};

use crate::postgres_bed::{Deployer, difference, dump, told};

const BASE: &str = "
CREATE TABLE t(id int PRIMARY KEY, a text, b int DEFAULT 3, c numeric);
CREATE INDEX t_a ON t(a);
CREATE VIEW v AS SELECT id, a FROM t;
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TABLE u(id int PRIMARY KEY, t int REFERENCES t);
CREATE PUBLICATION pub FOR TABLE t, u;
INSERT INTO t VALUES (1, 'one', 1, 1.5), (2, 'two', 2, 2.5), (3, 'three', 3, 3.5);
INSERT INTO u VALUES (1, 1);
";

struct Case {
    script: &'static str,
    theirs: &'static str,
    kinds: &'static [ConflictKind],
    /// What `keep` and `overwrite` leave, asked by a query.
    query: &'static str,
    kept: &'static str,
    overwritten: &'static str,
}

const COLUMNS: &str = "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute \
                       WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped";

const CASES: &[Case] = &[
    Case {
        script: "ALTER PUBLICATION pub DROP TABLE u",
        theirs: "ALTER PUBLICATION pub ADD TABLE u",
        kinds: &[Appeared],
        query: "SELECT count(*) FROM pg_publication_tables",
        kept: "2",
        overwritten: "2",
    },
    Case {
        script: "CREATE TABLE n(a int)",
        theirs: "INSERT INTO n VALUES (1), (2)",
        kinds: &[NotEmpty],
        query: "SELECT to_regclass('n')",
        kept: "n",
        overwritten: "",
    },
    Case {
        script: "CREATE TABLE n(a int)",
        theirs: "ALTER TABLE n ADD COLUMN b int",
        kinds: &[Definition],
        query: "SELECT to_regclass('n')",
        kept: "n",
        overwritten: "",
    },
    Case {
        script: "CREATE TABLE n(a int)",
        theirs: "CREATE INDEX n_a ON n(a)",
        kinds: &[Definition],
        query: "SELECT to_regclass('n_a')",
        kept: "n_a",
        overwritten: "",
    },
    Case {
        script: "CREATE TABLE n(a int)",
        theirs: "CREATE VIEW nv AS SELECT * FROM n",
        kinds: &[Definition],
        query: "SELECT to_regclass('nv')",
        kept: "nv",
        overwritten: "",
    },
    Case {
        script: "CREATE VIEW w AS SELECT a FROM t",
        theirs: "CREATE OR REPLACE VIEW w AS SELECT a FROM t WHERE b > 1",
        kinds: &[Definition],
        query: "SELECT to_regclass('w')",
        kept: "w",
        overwritten: "",
    },
    Case {
        script: "DROP TABLE u",
        theirs: "CREATE TABLE u(other int); INSERT INTO u VALUES (1)",
        kinds: &[Appeared],
        query: "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'u'::regclass AND attnum > 0",
        kept: "other",
        overwritten: "id,t",
    },
    Case {
        script: "ALTER TABLE t ADD COLUMN d int DEFAULT 5",
        theirs: "UPDATE t SET d = 6 WHERE id = 2; INSERT INTO t VALUES (4, 'more')",
        kinds: &[Changed],
        query: COLUMNS,
        kept: "id,a,b,c,d",
        overwritten: "id,a,b,c",
    },
    Case {
        script: "ALTER TABLE t ADD COLUMN d int",
        theirs: "CREATE VIEW dv AS SELECT d FROM t",
        kinds: &[Definition],
        query: COLUMNS,
        kept: "id,a,b,c,d",
        overwritten: "id,a,b,c",
    },
    Case {
        script: "ALTER TABLE t ALTER b SET DEFAULT 4",
        theirs: "ALTER TABLE t ALTER b SET DEFAULT 5",
        kinds: &[Definition],
        query: "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 't'::regclass",
        kept: "5",
        overwritten: "3",
    },
    Case {
        script: "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        theirs: "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 3'",
        kinds: &[Definition],
        query: "SELECT f()",
        kept: "3",
        overwritten: "1",
    },
    Case {
        script: "CREATE OR REPLACE VIEW v AS SELECT id, a, b FROM t",
        theirs: "DROP VIEW v",
        kinds: &[Missing],
        query: "SELECT to_regclass('v')",
        kept: "",
        overwritten: "",
    },
    Case {
        script: "COMMENT ON TABLE t IS 'ours'",
        theirs: "COMMENT ON TABLE t IS 'theirs'",
        kinds: &[Definition],
        query: "SELECT obj_description('t'::regclass)",
        kept: "theirs",
        overwritten: "",
    },
    Case {
        script: "TRUNCATE u",
        theirs: "INSERT INTO u VALUES (1, 2), (7, 3)",
        kinds: &[Appeared],
        query: "SELECT string_agg(id || ':' || t, ',' ORDER BY id) FROM u",
        kept: "1:2,7:3",
        overwritten: "1:1,7:3",
    },
];

/// What others did elsewhere meanwhile, and it is no conflict: script, theirs, and what must hold afterwards.
const SURVIVE: &[(&str, &str, &str, &str)] = &[
    ("DROP TABLE u", "INSERT INTO t VALUES (9, 'nine')", "SELECT count(*) FROM t WHERE id = 9", "1"),
    (
        "ALTER TABLE t DROP COLUMN b",
        "INSERT INTO t VALUES (9, 'nine', 9)",
        "SELECT string_agg(id || a || coalesce(b::text, '-') || coalesce(c::text, '-'), ' ' ORDER BY id) FROM t",
        "1one11.5 2two22.5 3three33.5 9nine39",
    ),
    (
        "ALTER TABLE t DROP COLUMN b",
        "CREATE INDEX t_c ON t(c); CREATE VIEW cv AS SELECT c FROM t; COMMENT ON TABLE t IS 'theirs'",
        "SELECT to_regclass('t_c') || '|' || to_regclass('cv') || '|' || obj_description('t'::regclass)",
        "t_c|cv|theirs",
    ),
    (
        "ALTER TABLE t ALTER c TYPE int",
        "UPDATE t SET c = 7 WHERE id = 2; INSERT INTO t VALUES (9, 'nine', 9, 9)",
        "SELECT string_agg(id || ':' || c, ' ' ORDER BY id) FROM t",
        "1:1.5 2:7 3:3.5 9:9",
    ),
    (
        "ALTER TABLE t ALTER b SET DEFAULT 4",
        "ALTER TABLE t ALTER b SET NOT NULL; COMMENT ON COLUMN t.b IS 'theirs'",
        "SELECT attnotnull || col_description(attrelid, attnum) || pg_get_expr(adbin, adrelid) FROM pg_attribute JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = 't'::regclass",
        "truetheirs3",
    ),
    ("GRANT SELECT ON t TO PUBLIC", "CREATE INDEX t_b ON t(b)", "SELECT to_regclass('t_b')", "t_b"),
    (
        "GRANT SELECT, UPDATE ON t TO PUBLIC",
        "GRANT INSERT ON t TO PUBLIC; REVOKE UPDATE ON t FROM PUBLIC; GRANT SELECT ON t TO pg_monitor",
        GRANTED,
        "pg_monitor:SELECT PUBLIC:INSERT",
    ),
    (
        "GRANT SELECT (t) ON u TO PUBLIC",
        "GRANT UPDATE (t) ON u TO pg_monitor",
        "SELECT string_agg(a.grantee::regrole || ':' || a.privilege_type, ' ') FROM pg_attribute b CROSS JOIN aclexplode(attacl) a
             WHERE b.attrelid = 'u'::regclass",
        "pg_monitor:UPDATE",
    ),
    (
        "REVOKE DELETE ON t FROM CURRENT_USER",
        "GRANT INSERT ON t TO PUBLIC",
        "SELECT string_agg(a.privilege_type, ' ' ORDER BY a.privilege_type) FROM pg_class c CROSS JOIN aclexplode(relacl) a
             WHERE c.oid = 't'::regclass AND a.privilege_type IN ('DELETE', 'INSERT')",
        "DELETE INSERT INSERT",
    ),
    (
        "ALTER TABLE t RENAME TO tt",
        "CREATE INDEX tt_b ON tt(b); CREATE VIEW ttv AS SELECT b FROM tt",
        "SELECT to_regclass('tt_b') || '|' || replace(pg_get_viewdef('ttv'), 't.b', 'b')",
        "tt_b| SELECT b\n   FROM t;",
    ),
    (
        "TRUNCATE u",
        "INSERT INTO u VALUES (7, 3)",
        "SELECT string_agg(id || ':' || t, ',' ORDER BY id) FROM u",
        "1:1,7:3",
    ),
];

const GRANTED: &str = "SELECT string_agg(concat_ws(':', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, a.privilege_type), ' '
        ORDER BY a.grantee DESC) FROM pg_class c CROSS JOIN aclexplode(relacl) a WHERE c.oid = 't'::regclass AND a.grantee <> c.relowner";

fn filled(server: &Server) -> Database<'_> {
    server.database_like("ddl_conflicts", |database| drop(database.psql(BASE)))
}

fn undone(case: &Case, on_conflict: OnConflict) -> (Vec<ConflictKind>, String, String) {
    let server = Server::shared();
    let database = filled(server);
    let mut deployer = Deployer::on(&database);
    let events = deployer.run(&[case.script]).unwrap_or_else(|error| panic!("{}: {}", case.script, told(&error)));
    database.psql(case.theirs);
    let before = dump(server, &database);
    let (conflicts, _) = deployer
        .undo(&events, on_conflict)
        .unwrap_or_else(|error| panic!("{} / {}: {}", case.script, case.theirs, told(&error)));
    let kinds = conflicts.listed.iter().map(|conflict| conflict.kind).collect();
    let after = dump(server, &database);
    let found = database.psql(case.query).trim_end().to_owned();
    (kinds, found, difference(&before, &after))
}

#[test]
fn each_conflict_and_each_way_out() {
    for case in CASES {
        let what = format!("{} / {}", case.script, case.theirs);
        let (kinds, _, changed) = undone(case, OnConflict::Stop);
        assert_eq!(kinds, case.kinds, "{what}");
        assert_eq!(changed, "", "{what}: stopped, and changed something");
        let (kinds, found, changed) = undone(case, OnConflict::Keep);
        assert_eq!(kinds, case.kinds, "{what}");
        assert_eq!(found, case.kept, "{what}: kept");
        assert_eq!(changed, "", "{what}: kept, and changed something");
        let (_, found, _) = undone(case, OnConflict::Overwrite);
        assert_eq!(found, case.overwritten, "{what}: overwritten");
    }
}

#[test]
fn what_others_made_meanwhile_survives() {
    let server = Server::shared();
    for (script, theirs, query, wanted) in SURVIVE {
        let what = format!("{script} / {theirs}");
        let database = filled(server);
        let mut deployer = Deployer::on(&database);
        let events = deployer.run(&[script]).unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        database.psql(theirs);
        let (conflicts, _) =
            deployer.undo(&events, OnConflict::Stop).unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        assert!(conflicts.is_empty(), "{what}: {conflicts:?}");
        assert_eq!(database.psql(query).trim_end(), *wanted, "{what}");
    }
}
