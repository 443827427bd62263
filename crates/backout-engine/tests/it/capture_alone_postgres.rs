//! Captured commands on PostgreSQL, each on a database of its own: objects of one name, and those that hang together.

use backout_testkit::postgres::Server;
use backout_testkit::site::TestSite;

use crate::capture_postgres::goes_and_comes_on;

/// As commands go and come in [`crate::capture_postgres`], each on a database of its own.
#[track_caller]
fn all_go_and_come_on(all: &[(&str, &str)]) {
    let on = |schema: &str| TestSite::builder().postgres("main", Server::shared(), schema).build();
    let wrong: Vec<String> = all
        .iter()
        .filter_map(|(schema, sql)| Some(format!("{schema}: {sql}:\n{}", goes_and_comes_on(&on(schema), sql).err()?)))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n\n"));
}

#[test]
fn namesakes_of_other_schemas_go_and_come() {
    let two = "CREATE SCHEMA s1; CREATE SCHEMA s2; CREATE TABLE s1.a (id int PRIMARY KEY, v text); CREATE TABLE s2.a (id int PRIMARY KEY, v text);
        CREATE TABLE a (id int PRIMARY KEY); INSERT INTO s1.a VALUES (1, 'one'); INSERT INTO s2.a VALUES (2, 'two'); INSERT INTO a VALUES (3)";
    all_go_and_come_on(&[
        (two, "DROP SCHEMA s1 CASCADE; DROP TABLE a"),
        (two, "DROP TABLE s1.a, s2.a, a"),
        (two, "ALTER TABLE s1.a ALTER id TYPE bigint; ALTER TABLE s2.a ALTER id TYPE bigint"),
        (two, "DROP TABLE s1.a; TRUNCATE a; DROP TABLE a; CREATE TABLE a (x text); INSERT INTO a VALUES ('new')"),
        (
            "CREATE SCHEMA s1; CREATE TABLE s1.x (id int CONSTRAINT pk PRIMARY KEY, v int); CREATE INDEX ai ON s1.x (v);
             CREATE TABLE y (id int CONSTRAINT pk PRIMARY KEY, v int); CREATE INDEX ai ON y (v); INSERT INTO y VALUES (1, 1)",
            "DROP TABLE s1.x; DROP TABLE y",
        ),
        (
            "CREATE SCHEMA s1; CREATE TABLE s1.x (id serial PRIMARY KEY); CREATE SEQUENCE x_id_seq; SELECT setval('x_id_seq', 7)",
            "DROP TABLE s1.x; DROP SEQUENCE x_id_seq",
        ),
        (
            "CREATE SCHEMA s1; CREATE TYPE s1.m AS ENUM ('x'); CREATE TYPE m AS ENUM ('y'); CREATE TABLE s1.a (m s1.m); CREATE TABLE b (m m);
             INSERT INTO s1.a VALUES ('x'); INSERT INTO b VALUES ('y')",
            "DROP TABLE s1.a, b; DROP TYPE s1.m; DROP TYPE m",
        ),
        (
            "CREATE SCHEMA s1; CREATE SCHEMA s2; CREATE TABLE s1.a (id int PRIMARY KEY); CREATE TABLE a (id int PRIMARY KEY, f int REFERENCES s1.a);
             INSERT INTO s1.a VALUES (1); INSERT INTO a VALUES (1, 1)",
            "ALTER TABLE s1.a SET SCHEMA s2; DROP SCHEMA s1; DROP TABLE a",
        ),
    ]);
}

#[test]
fn indexes_of_new_partitions_go_and_come() {
    let base = "CREATE TABLE p (id int, v int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); INSERT INTO p VALUES (1, 1)";
    all_go_and_come_on(&[
        (base, "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); CREATE INDEX ON p (v)"),
        (
            base,
            "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); ALTER TABLE p ADD PRIMARY KEY (id); INSERT INTO p VALUES (11, 1)",
        ),
        (base, "CREATE INDEX ON p (v); ALTER TABLE p DETACH PARTITION p1"),
    ]);
}
