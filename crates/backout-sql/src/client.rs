//! How scripts are framed for each engine's own client (`sqlite3`, `psql`, `mariadb`): a script stops at its first error.

use std::io::{self, Write};

/// What a script begins with.
pub fn begin(engine: &str, out: &mut dyn Write) -> io::Result<()> {
    match engine {
        "sqlite" => writeln!(out, ".bail on"),
        "postgres" => writeln!(out, "\\set ON_ERROR_STOP on"),
        // The client stops by itself where it is not told otherwise.
        _ => Ok(()),
    }
}

/// Begins the statements of one step.
pub fn begin_step(engine: &str, shown: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n-- {}", one_line(shown))?;
    match engine {
        // There every change of the schema commits by itself.
        "mariadb" => Ok(()),
        _ => writeln!(out, "BEGIN;"),
    }
}

pub fn end_step(engine: &str, out: &mut dyn Write) -> io::Result<()> {
    match engine {
        "mariadb" => Ok(()),
        _ => writeln!(out, "COMMIT;"),
    }
}

/// One statement, behind the place where it stood.
pub fn statement(engine: &str, sql: &str, place: &str, out: &mut dyn Write) -> io::Result<()> {
    let sql = sql.trim().trim_end_matches(';');
    if sql.is_empty() {
        return Ok(());
    }
    writeln!(out, "-- {}", one_line(place))?;
    // The client of MariaDB sends what stands before the delimiter: a body with statements of its own needs another.
    if engine == "mariadb" && sql.contains(';') {
        return writeln!(out, "DELIMITER $$backout$$\n{sql}\n$$backout$$\nDELIMITER ;");
    }
    writeln!(out, "{sql};")
}

/// A script that does nothing but fail.
pub fn refuse(engine: &str, out: &mut dyn Write) -> io::Result<()> {
    begin(engine, out)?;
    let (open, close) = if engine == "mariadb" { ('`', '`') } else { ('"', '"') };
    writeln!(out, "SELECT * FROM {open}no script: backout undo --record{close};")
}

/// For a comment that ends with its line.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_with_statements_is_one_statement_for_each_client() {
        let written = |engine: &str, sql: &str| {
            let mut out = Vec::new();
            statement(engine, sql, "a.sql:1", &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written("sqlite", "SELECT 1;\n"), "-- a.sql:1\nSELECT 1;\n");
        assert_eq!(written("mariadb", "SELECT 1"), "-- a.sql:1\nSELECT 1;\n");
        let body = "CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW BEGIN SET @a = 1; END";
        assert!(written("mariadb", body).contains("\n$$backout$$\nDELIMITER ;\n"));
    }
}
