//! Random chains of schema changes on PostgreSQL, undone to the same dump. Which ones: `backout_testkit::seeds`.

use std::time::{Duration, Instant};

use backout_model::conflict::OnConflict;
use backout_model::target::TargetError;
use backout_testkit::postgres::{Database, Server};
use backout_testkit::seeds::seeds;
use fastrand::Rng;

use crate::postgres_bed::{Deployer, difference, dump, told};
use crate::postgres_ddl::{BASE, ROLES};

const TABLES: [&str; 6] = ["item", "parent", "nokey", "app.setting", "t1", "t2"];
const COLUMNS: [&str; 9] = ["id", "note", "amount", "a", "b", "c", "name", "k", "d"];
const TYPES: [&str; 6] = ["int", "text", "numeric(10,2)", "date", "mood", "int[]"];
const NAMES: [&str; 5] = ["x1", "x2", "t1", "t2", "\"Odd \"\"name\""];

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

fn statement(rng: &mut Rng) -> String {
    let table = pick(rng, &TABLES);
    let column = pick(rng, &COLUMNS);
    let kind = pick(rng, &TYPES);
    let name = pick(rng, &NAMES);
    let cascade = if rng.bool() { " CASCADE" } else { "" };
    match rng.u8(..30) {
        0 => format!("CREATE TABLE {name}(a {kind}, b serial, c text DEFAULT 'x', PRIMARY KEY (b))"),
        1 => format!("CREATE TABLE {name}(a int REFERENCES {table}, b text UNIQUE, d {kind} NOT NULL)"),
        2 | 3 => format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"),
        4 => format!("ALTER TABLE {table} ADD COLUMN {column} text NOT NULL DEFAULT 'new'"),
        5..=7 => format!("ALTER TABLE {table} DROP COLUMN {column}{cascade}"),
        8 => format!("ALTER TABLE {table} RENAME COLUMN {column} TO {}", pick(rng, &COLUMNS)),
        9 => format!("ALTER TABLE {table} RENAME TO {name}"),
        10 => format!("ALTER TABLE {table} SET SCHEMA {}", pick(rng, &["app", "public"])),
        11 => format!("ALTER TABLE {table} ALTER {column} SET DEFAULT NULL"),
        12 => format!("ALTER TABLE {table} ALTER {column} {} NOT NULL", pick(rng, &["SET", "DROP"])),
        13 => format!("ALTER TABLE {table} ALTER {column} TYPE text"),
        14 => format!("ALTER TABLE {table} ALTER {column} TYPE numeric USING length({column}::text)"),
        15 => format!("ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({column} IS NOT NULL) NOT VALID"),
        16 => format!(
            "ALTER TABLE {table} DROP CONSTRAINT {}{cascade}",
            pick(rng, &["item_pkey", "one", "parent_pkey", "x1", "setting_pkey"])
        ),
        17 => format!("CREATE INDEX {name} ON {table}({column})"),
        18 => format!("CREATE UNIQUE INDEX ON {table}(({column} || 'x'))"),
        19 => format!("DROP INDEX {}", pick(rng, &["item_amount", "item_code", "item_lower", "x1"])),
        20 => format!("CREATE OR REPLACE VIEW {} AS SELECT {column}, 1 AS one FROM {table}", pick(rng, &["v1", "v2"])),
        21 => format!("CREATE OR REPLACE VIEW v3 AS SELECT * FROM {}", pick(rng, &["v1", "v2", "cheap", "t1"])),
        22 => format!("DROP VIEW {}{cascade}", pick(rng, &["cheap", "v1", "v2", "cheaper"])),
        23 | 24 => format!("DROP TABLE {table}{cascade}"),
        25 => format!(
            "DROP {}{cascade}",
            pick(rng, &["TYPE mood", "FUNCTION noted()", "FUNCTION twice(int)", "SCHEMA app", "SEQUENCE counter"])
        ),
        26 => format!("COMMENT ON COLUMN {table}.{column} IS 'said'"),
        27 => format!("GRANT {} ON {table} TO reader, writer", pick(rng, &["ALL", "SELECT", "UPDATE"])),
        28 => format!("REVOKE ALL ON {table} FROM {}", pick(rng, &["reader", "postgres", "writer"])),
        _ => format!("TRUNCATE {table}{cascade}"),
    }
}

/// Statements that PostgreSQL takes one after the other, found out by a session that rolls back.
fn chain(rng: &mut Rng, database: &Database<'_>) -> Vec<String> {
    let mut client = database.connect();
    client.batch_execute("BEGIN").unwrap();
    let mut script = Vec::new();
    for _ in 0..rng.usize(5..40) {
        let sql = statement(rng);
        client.batch_execute("SAVEPOINT s").unwrap();
        match client.batch_execute(&sql) {
            Ok(()) => script.push(sql),
            Err(_) => client.batch_execute("ROLLBACK TO s").unwrap(),
        }
    }
    client.batch_execute("ROLLBACK").unwrap();
    script
}

#[test]
fn random_chains_are_undone_to_the_same_dump() {
    let seeds = seeds(12);
    let server = Server::shared();
    let mut done = 0;
    let mut refused = 0;
    let mut took = Duration::ZERO;
    let mut plain_took = Duration::ZERO;
    for seed in seeds.clone() {
        let mut rng = Rng::with_seed(seed);
        let fill = |database: &Database<'_>| drop(database.psql(&format!("{ROLES}{BASE}")));
        let database = server.database_like("ddl", fill);
        let plain = server.database_like("ddl", fill);
        let script = chain(&mut rng, &plain);
        let before = dump(server, &database);
        let mut deployer = Deployer::on(&database);
        let shown = || format!("seed {seed}:\n{}", script.join(";\n"));
        // What is refused is left out, so that the rest of the chain is tried.
        let mut events = Vec::new();
        let mut taken: Vec<&str> = Vec::new();
        for sql in &script {
            let start = Instant::now();
            match deployer.run(&[sql]) {
                Ok(event) => {
                    took += start.elapsed();
                    events.extend(event);
                    taken.push(sql);
                    done += 1;
                }
                Err(TargetError::Refused(_)) => refused += 1,
                // What it needs was refused.
                Err(_) if taken.len() < script.len() && refused > 0 => {}
                Err(error) => panic!("{}\n{sql}: {}", shown(), told(&error)),
            }
        }
        let start = Instant::now();
        let mut client = plain.connect();
        for sql in &taken {
            client.batch_execute(&format!("BEGIN; {sql}; COMMIT")).unwrap();
        }
        plain_took += start.elapsed();
        let (wanted, found) = (dump(server, &plain), dump(server, &database));
        assert!(wanted == found, "{}\ndone otherwise:\n{}", shown(), difference(&wanted, &found));
        let (conflicts, _) = deployer
            .undo(&events, OnConflict::Stop)
            .unwrap_or_else(|error| panic!("{}\ntaken {taken:#?}\nundo: {}", shown(), told(&error)));
        assert!(conflicts.is_empty(), "{}\ntaken {taken:#?}\n{conflicts:#?}", shown());
        let after = dump(server, &database);
        assert!(before == after, "{}\ntaken {taken:#?}\nundone:\n{}", shown(), difference(&before, &after));
    }
    eprintln!("{done} statements, {refused} refused; {took:?} against {plain_took:?}");
    assert!(done > 5 * seeds.end.saturating_sub(seeds.start), "too few statements: {done}");
}
