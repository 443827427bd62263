//! Everything a PostgreSQL database says, as named lines: what `pg_dump` writes, evened out, with the positions of
//! sequences; and what the tool keeps in it.
//!
//! Knows nothing of the code under test. What the tool keeps (schemas that begin with `backout`) is left out.

use std::collections::BTreeMap;

use backout_servers::postgres::Database;

use crate::database::Lines;

/// The site that all tests of the testkit deploy to.
const OWN: &str = "backout_shop";

/// Reads a database that nobody is changing.
pub fn read(database: &Database<'_>) -> Lines {
    let mut command = database.server().client("pg_dump");
    command.args(["--exclude-schema", "backout*", "--dbname", &database.name]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
    lines(&String::from_utf8(output.stdout).unwrap())
}

/// Each line by the statement that it stands in, with its place there. Rows and grants have none: their order says nothing.
fn lines(text: &str) -> Lines {
    let mut lines = Lines::new();
    let mut count: BTreeMap<String, u32> = BTreeMap::new();
    let (mut statement, mut place, mut data) = (String::new(), 0, false);
    for line in text.lines() {
        if !data && (line.is_empty() || line.starts_with("--")) {
            statement.clear();
            continue;
        }
        // The key of these is another one each time.
        if !data && (line.starts_with("\\restrict") || line.starts_with("\\unrestrict")) {
            continue;
        }
        if statement.is_empty() {
            (statement, place) = (line.to_owned(), 0);
        }
        let is_grant = line.starts_with("GRANT ") || line.starts_with("REVOKE ");
        let name = if statement == line { line.to_owned() } else { format!("{statement} … {line}") };
        let times = count.entry(name.clone()).or_default();
        *times += 1;
        let name = if *times > 1 { format!("{name} #{times}") } else { name };
        lines.insert(name, if data || is_grant { "there".to_owned() } else { format!("line {place}") });
        place += 1;
        match line {
            "\\." => data = false,
            _ if !data && line.starts_with("COPY ") && line.ends_with(" FROM stdin;") => data = true,
            _ => {}
        }
    }
    lines
}

/// Names that begin with `backout` and are in nobody's way: schemas, and objects elsewhere.
pub fn own_objects(database: &Database<'_>) -> Vec<String> {
    let found = database.psql(
        "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'backout%'
         UNION ALL
         SELECT nspname || '.' || relname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace
         WHERE (relname LIKE 'backout%' OR nspname LIKE 'backout%') AND nspname NOT LIKE 'pg_t%' AND relkind <> 'i'
         ORDER BY 1",
    );
    found.lines().map(str::to_owned).collect()
}

/// What holds locks in the database though the tool has ended: its sessions that are in a transaction, advisory locks,
/// prepared transactions. Waits for sessions that are on their way out.
pub fn left_behind(database: &Database<'_>) -> Vec<String> {
    // A server ends the session of a client that went when it next looks.
    const ASK: &str = "SELECT format('session %s (%s): %s', pid, state, left(query, 80)) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'backout' AND xact_start IS NOT NULL
         UNION ALL
         SELECT format('lock %s %s of %s', locktype, mode, pid) FROM pg_locks AS l
             WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND granted
         UNION ALL SELECT format('prepared %s', gid) FROM pg_prepared_xacts WHERE database = current_database()";
    let mut client = database.connect();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        let found: Vec<String> = client.query(ASK, &[]).unwrap().iter().map(|row| row.get(0)).collect();
        if found.is_empty() || std::time::Instant::now() > deadline {
            return found;
        }
        std::thread::yield_now();
    }
}

/// See [`crate::site::TestSite::bury_the_dead`].
pub fn bury_the_dead(database: &Database<'_>) {
    let mut client = database.connect();
    let there = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&format!("{OWN}.marker")]).unwrap();
    if there.get(0) {
        let buried = format!(
            "UPDATE {OWN}.marker SET holder = jsonb_set(holder::jsonb, '{{boot_id}}', '\"an earlier boot\"')::text
             WHERE holder IS NOT NULL"
        );
        client.batch_execute(&buried).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backout_servers::postgres::Server;

    const BASE: &str = "CREATE TABLE a(x int, y text); INSERT INTO a VALUES (1, 'one'), (2, 'two'), (2, 'two');
        CREATE SEQUENCE q; CREATE VIEW v AS SELECT x, y FROM a;";

    #[test]
    fn every_difference_of_a_database_shows() {
        let server = Server::shared();
        for change in [
            "UPDATE a SET x = 3 WHERE x = 1",
            "DELETE FROM a WHERE ctid = '(0,3)'",
            "SELECT nextval('q')",
            "DROP VIEW v; CREATE VIEW v AS SELECT y, x FROM a",
            "COMMENT ON TABLE a IS 'a'",
            "DROP VIEW v; ALTER TABLE a DROP COLUMN x; ALTER TABLE a ADD COLUMN x int",
            "GRANT SELECT ON a TO PUBLIC",
        ] {
            let database = server.database();
            database.psql(BASE);
            let before = read(&database);
            database.psql("UPDATE a SET x = x WHERE x = 1; CREATE SCHEMA backout_shop; CREATE TABLE backout_shop.t ()");
            assert_eq!(before, read(&database), "nothing that says anything");
            database.psql(change);
            assert_ne!(before, read(&database), "{change}");
            assert_eq!(own_objects(&database), ["backout_shop", "backout_shop.t"]);
        }
    }
}
