//! A normalised `pg_dump`: two databases are the same when theirs are. Positions of sequences are part of it.
//!
//! What differs without meaning is evened out: the order of rows, the order of grants, the key of `\restrict`. What
//! the tool keeps for itself is left out.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use backout_servers::postgres::Server;

use crate::fidelity::dump::{Dump, without_time};

/// Dumps a database into a file. `since` is when the judging began, as a date: the day of what is written now.
pub fn dump(server: &Server, database: &str, file: PathBuf, days: &[String]) -> Result<Dump> {
    let mut command = server.client("pg_dump");
    command.args(["--dbname", database, "--exclude-schema", "backout*", "--exclude-table", "*.backout*"]);
    let output = command.output().context("running pg_dump")?;
    if !output.status.success() {
        bail!("pg_dump: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let lines = normalised(&output.stdout);
    let timeless: Vec<Vec<u8>> = lines.iter().map(|line| without_time(line, days)).collect();
    let timeless = in_order(timeless.iter().map(Vec::as_slice));
    let content = timeless.iter().filter(|line| !line.starts_with(Dump::POSITION.as_bytes()));
    Dump::write(file, lines.iter(), timeless.iter(), content)
}

/// The lines of a dump that say something, rows and grants in order.
fn normalised(text: &[u8]) -> Vec<Vec<u8>> {
    let said = |line: &&[u8]| !line.is_empty() && !line.starts_with(b"--") && !line.starts_with(b"\\restrict");
    in_order(text.split(|byte| *byte == b'\n').filter(said).filter(|line| !line.starts_with(b"\\unrestrict")))
}

/// Sorts the rows of each COPY, and grants that stand one after the other.
fn in_order<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    // Where the rows or grants that are read now begin.
    let (mut data, mut grants) = (None, None);
    for line in lines {
        let is_grant = data.is_none() && (line.starts_with(b"GRANT ") || line.starts_with(b"REVOKE "));
        if !is_grant && let Some(start) = grants.take() {
            out[start..].sort();
        }
        if line == b"\\."
            && let Some(start) = data.take()
        {
            out[start..].sort();
        }
        out.push(line.to_vec());
        if is_grant {
            grants.get_or_insert(out.len() - 1);
        } else if data.is_none() && line.starts_with(b"COPY ") && line.ends_with(b" FROM stdin;") {
            data = Some(out.len());
        }
    }
    // As a rule they end a dump.
    if let Some(start) = grants {
        out[start..].sort();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fidelity::dump::Alike;

    const BASE: &str = "CREATE TABLE a(x int, y text); INSERT INTO a VALUES (1, 'one'), (2, 'two'), (2, 'two');
        CREATE SEQUENCE q; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
        GRANT SELECT, INSERT ON a TO PUBLIC;";

    fn both(one: &str, other: &str) -> Result<(Dump, Dump)> {
        let server = Server::shared();
        let dir = tempfile::tempdir()?;
        let mut dumps = Vec::new();
        for (name, script) in [("one", one), ("other", other)] {
            let database = server.database();
            database.psql(&format!("{BASE}{script}"));
            let days = ["2026-01-02".to_owned()];
            dumps.push(dump(server, &database.name, dir.path().join(name), &days)?);
        }
        let (other, one) = (dumps.pop().context("other")?, dumps.pop().context("one")?);
        assert_eq!(one.same(&other, Alike::Exactly), one.differences(&other)?.is_empty());
        Ok((one, other))
    }

    #[test]
    fn a_dump_sees_every_difference() -> Result<()> {
        for script in [
            "UPDATE a SET x = 3 WHERE x = 1",
            "DELETE FROM a WHERE ctid = '(0,3)'",
            "SELECT nextval('q')",
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
            "REVOKE INSERT ON a FROM PUBLIC",
            "ALTER TABLE a ALTER x SET NOT NULL",
            "COMMENT ON TABLE a IS 'a'",
            "ALTER TABLE a DROP COLUMN x; ALTER TABLE a ADD COLUMN x int; UPDATE a SET x = length(y) - 2",
        ] {
            let (one, other) = both("", script)?;
            assert!(!one.same(&other, Alike::Exactly), "{script}");
        }
        Ok(())
    }

    #[test]
    fn what_means_nothing_is_evened_out() -> Result<()> {
        let own = "CREATE SCHEMA backout_shop; CREATE TABLE backout_shop.t(a int); CREATE TABLE backout_shop_m(a int);";
        let (one, other) = both("UPDATE a SET x = x WHERE x = 1", own)?;
        assert!(one.same(&other, Alike::Exactly));
        let times = ["2026-01-02 03:04:05.678+00", "2026-01-02 13:14:15+00"]
            .map(|time| format!("CREATE TABLE t AS SELECT '{time}'::timestamptz AS a"));
        let (one, other) = both(&times[0], &times[1])?;
        assert!(!one.same(&other, Alike::Exactly) && one.same(&other, Alike::ButForTime));
        let (one, other) = both("SELECT nextval('q')", "")?;
        assert!(!one.same(&other, Alike::ButForTime) && one.same(&other, Alike::InContent));
        Ok(())
    }
}
