//! Everything that a database says, as lines in order: the server's own text of each object, counters, the order of
//! triggers, grants, and typed rows. A dump of the stock client would lose digits of a FLOAT.

use std::path::PathBuf;

use anyhow::Result;
use mysql::Conn;
use mysql::prelude::Queryable as _;

use super::objects::{self, GRANTS, Kind};
use super::{column, literal, quoted, rows};
use crate::fidelity::dump::{Dump, without_time};

/// Dumps a database into a file. `days`: those on which the judging went on.
pub fn dump(conn: &mut Conn, database: &str, file: PathBuf, days: &[String]) -> Result<Dump> {
    let lines = lines(conn, database)?;
    let unordered = lines.iter().map(|line| without_place_of_key(line));
    let mut timeless: Vec<Vec<u8>> = unordered.map(|line| without_time(line.as_bytes(), days)).collect();
    timeless.sort();
    let mut content: Vec<Vec<u8>> = timeless.iter().map(|line| without_counter(line)).collect();
    content.retain(|line| !line.starts_with(b"counter "));
    Dump::write(file, lines.iter().map(String::as_bytes), timeless.iter(), content.iter())
}

fn lines(conn: &mut Conn, database: &str) -> Result<Vec<String>> {
    conn.query_drop(format!("USE {}", quoted(database)))?;
    conn.query_drop("SET NAMES utf8mb4, sql_mode = '', time_zone = '+00:00'")?;
    let mut lines = Vec::new();
    for object in objects::all(conn, database)? {
        let name = &object.name;
        let word = format!("{:?}", object.kind).to_lowercase();
        let head = if object.place.is_empty() { format!("{word} {name}") } else { format!("{word} {}", object.place) };
        for (at, line) in object.text.lines().enumerate() {
            lines.push(format!("{head} {at:03}: {line}"));
        }
        lines.extend(object.settings.iter().map(|(setting, value)| format!("{head}: {setting} = {value}")));
        match object.kind {
            Kind::Table => table_rows(conn, database, name, &mut lines)?,
            Kind::Sequence => {
                let position = rows(conn, &format!("SELECT * FROM {}", quoted(name)))?;
                lines.extend(position.into_iter().map(|row| format!("counter {name}: {row:?}")));
            }
            _ => {}
        }
    }
    for (table, of) in GRANTS {
        for row in rows(conn, &format!("SELECT * FROM mysql.{table} WHERE {of} = {}", literal(database)))? {
            // The database's own name differs between copies, and the time of a grant is no part of it.
            let said: Vec<String> = row
                .into_iter()
                .flatten()
                .filter(|value| value != database && !value.starts_with("20") && !value.starts_with("0000-"))
                .collect();
            lines.push(format!("grant {table}: {}", said.join(" ")));
        }
    }
    lines.sort();
    Ok(lines)
}

fn table_rows(conn: &mut Conn, database: &str, table: &str, lines: &mut Vec<String>) -> Result<()> {
    let values: Vec<String> = objects::columns(conn, database, table)?
        .iter()
        .map(|(name, kind)| {
            let name = quoted(name);
            let value = match kind.as_str() {
                "float" | "double" => format!("CONCAT(CAST({name} AS DOUBLE))"),
                "bit" => format!("CONCAT({name} + 0)"),
                "enum" | "set" => format!("CONCAT({name} + 0, '/', {name})"),
                // Text is shown where it is plain; a byte that is not shows in hex.
                "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => {
                    format!("IF(HEX({name}) RLIKE '^(2[0-9A-F]|[3-6][0-9A-F]|7[0-9A-E])*$', {name}, CONCAT('x', HEX({name})))")
                }
                "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "geometry" | "point"
                | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
                | "geometrycollection" => format!("HEX({name})"),
                _ => format!("CONCAT({name})"),
            };
            format!("IFNULL({value}, 'NULL')")
        })
        .collect();
    let sql = format!("SELECT CONCAT_WS(' | ', {}) FROM {}", values.join(", "), quoted(table));
    lines.extend(column(conn, &sql)?.into_iter().map(|row| format!("row {table}: {row}")));
    Ok(())
}

/// A line of a table's text that tells of an index, without its place: a copy may have it elsewhere.
fn without_place_of_key(line: &str) -> String {
    let told = line.split_once(": ").map(|(head, text)| (head, text.trim().trim_end_matches(',')));
    match told {
        Some((head, text))
            if head.starts_with("table ") && text.split(" (").next().is_some_and(|w| w.contains("KEY `")) =>
        {
            format!("{}: {text}", head.rsplit_once(' ').map_or(head, |(table, _)| table))
        }
        _ => line.to_owned(),
    }
}

/// A line of a table's text without its counter.
fn without_counter(line: &[u8]) -> Vec<u8> {
    const WORD: &[u8] = b" AUTO_INCREMENT=";
    let Some(at) = line.windows(WORD.len()).position(|part| part == WORD) else { return line.to_vec() };
    let digits = line[at + WORD.len()..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    [&line[..at], &line[at + WORD.len() + digits..]].concat()
}

#[cfg(test)]
mod tests {
    use backout_servers::mariadb::Server;

    use super::super::copy;
    use super::*;
    use crate::fidelity::dump::Alike;

    const BASE: &str = "SET sql_mode = '';
        CREATE TABLE p(id int PRIMARY KEY); INSERT INTO p VALUES (1);
        CREATE TABLE a(x int AUTO_INCREMENT PRIMARY KEY, y text, f float, e enum('', 'b'), b bit(3), g point, d date, p int,
          n int AS (length(y)) STORED, FOREIGN KEY (p) REFERENCES p (id));
        INSERT INTO a (y, f, e, b, g, d, p) VALUES ('one', 16777216, '', b'101', ST_GeomFromText('POINT(1 2)'), '0000-00-00', 1), ('ü', 0.1, 'z', 0, NULL, NULL, NULL);
        CREATE TABLE k(x int, y varchar(9)); INSERT INTO k VALUES (1, 'a'), (1, 'a');
        CREATE SEQUENCE s; SELECT NEXTVAL(s); CREATE VIEW v AS SELECT * FROM w; CREATE VIEW w AS SELECT 1 AS one;
        CREATE TRIGGER r1 BEFORE UPDATE ON a FOR EACH ROW SET @r = 1; CREATE TRIGGER r2 BEFORE UPDATE ON a FOR EACH ROW SET @r = 2;
        CREATE FUNCTION f() RETURNS int RETURN 1; CREATE PROCEDURE q() SELECT 1; CREATE EVENT t ON SCHEDULE EVERY 1 DAY DO SET @t = 1;
        CREATE USER IF NOT EXISTS bob; GRANT SELECT ON a TO bob; GRANT EXECUTE ON PROCEDURE q TO bob;";

    fn base() -> String {
        // The view that stands on a later one cannot be made first.
        BASE.replace(
            "CREATE VIEW v AS SELECT * FROM w; CREATE VIEW w AS SELECT 1 AS one;",
            "CREATE VIEW w AS SELECT 1 AS one; CREATE VIEW v AS SELECT * FROM w;",
        )
    }

    #[test]
    fn a_copy_is_the_same_and_every_difference_shows() -> Result<()> {
        let server = Server::shared();
        let dir = tempfile::tempdir()?;
        let one = server.database();
        one.script(&base());
        let mut conn = one.connect();
        let copy_name = format!("{}-copy", one.name);
        let before = dump(&mut conn, &one.name, dir.path().join("one"), &[])?;
        for change in [
            "UPDATE a SET f = 16777218 WHERE x = 1",
            "UPDATE a SET e = 0 WHERE x = 1",
            "UPDATE a SET y = 'ONE' WHERE x = 1",
            "UPDATE a SET b = 4 WHERE x = 1",
            "UPDATE a SET d = NULL WHERE x = 1",
            "UPDATE a SET g = NULL WHERE x = 1",
            "DELETE FROM k LIMIT 1",
            "ALTER TABLE a AUTO_INCREMENT = 9",
            "ALTER TABLE a MODIFY y text AFTER f",
            "CREATE OR REPLACE VIEW v AS SELECT 1 AS two",
            "SELECT NEXTVAL(s)",
            "DROP TRIGGER r1; CREATE TRIGGER r1 BEFORE UPDATE ON a FOR EACH ROW SET @r = 1",
            "SET sql_mode = 'ANSI'; CREATE OR REPLACE FUNCTION f() RETURNS int RETURN 1",
            "CREATE OR REPLACE PROCEDURE q() SELECT 2",
            "ALTER EVENT t DISABLE",
            "REVOKE EXECUTE ON PROCEDURE q FROM bob",
            "REVOKE SELECT ON a FROM bob",
        ] {
            copy::copy(&mut conn, &one.name, &copy_name)?;
            let copied = dump(&mut conn, &copy_name, dir.path().join("copied"), &[])?;
            assert_eq!(before.differences(&copied)?, Vec::<String>::new());
            assert!(before.same(&copied, Alike::Exactly));
            let mut command = server.client("mariadb");
            command
                .arg(&copy_name)
                .arg("-e")
                .arg(format!("SET sql_mode = ''; CREATE TABLE backout_x (x int); {change}"));
            assert!(command.stdout(std::process::Stdio::null()).status()?.success(), "{change}");
            let changed = dump(&mut conn, &copy_name, dir.path().join("changed"), &[])?;
            assert!(!before.same(&changed, Alike::Exactly), "{change}");
            let counts_only = change.contains("AUTO_INCREMENT") || change.contains("NEXTVAL");
            assert_eq!(before.same(&changed, Alike::InContent), counts_only, "{change}");
        }
        conn.query_drop(format!("DROP DATABASE {}", quoted(&copy_name)))?;
        Ok(())
    }
}
