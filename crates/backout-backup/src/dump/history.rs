//! What a dump of MariaDB keeps of the history of system-versioned tables: all of it, or nothing, which is said.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use backout_model::backup::BackupError;

use super::listed;
use super::mariadb::{Access, DUMP};

/// The server's version, and each table with a history, and whether that is told by numbers of transactions.
const TABLES: &str = "SELECT VERSION(), '', 0 UNION ALL SELECT '', t.TABLE_NAME, EXISTS (SELECT 1 FROM information_schema.COLUMNS c \
     WHERE c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME AND c.GENERATION_EXPRESSION = 'ROW START' AND c.DATA_TYPE = 'bigint') \
     FROM information_schema.TABLES t WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_TYPE = 'SYSTEM VERSIONED'";
/// The word by which the tool keeps it, and the version of the server that takes it back.
pub const WORD: &str = "--dump-history";
const SINCE: (u32, u32) = (10, 11);

/// What becomes of the history in a dump.
#[derive(Debug, PartialEq, Eq)]
pub enum History {
    /// There is none.
    None,
    Kept,
    /// What is to be said of that.
    Lost(String),
}

impl History {
    pub fn of(access: &Access, private: &Path) -> Result<Self, BackupError> {
        let said = private.join("history");
        access.query(TABLES, &said)?;
        let text =
            fs::read_to_string(&said).map_err(|error| BackupError::failed("cannot read what a query gave", error))?;
        Ok(Self::judged(&text, has_word))
    }

    fn judged(said: &str, has_word: impl FnOnce() -> bool) -> Self {
        let mut rows = said.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let server = rows.next().and_then(|row| row.first().map(|version| (*version).to_owned())).unwrap_or_default();
        let tables: Vec<(String, bool)> =
            rows.filter_map(|row| Some(((*row.get(1)?).to_owned(), row.get(2) == Some(&"1")))).collect();
        if tables.is_empty() {
            return Self::None;
        }
        let numbered: Vec<String> =
            tables.iter().filter(|(_, by_number)| *by_number).map(|(name, _)| name.clone()).collect();
        let why = if !numbered.is_empty() {
            format!("{DUMP} cannot tell it where it is by numbers of transactions ({})", listed(&numbered))
        } else if number(&server) < Some(SINCE) {
            format!("the server ({server}) takes none back before {}.{}", SINCE.0, SINCE.1)
        } else if !has_word() {
            format!("this {DUMP} knows no {WORD}, as those since {}.{} do", SINCE.0, SINCE.1)
        } else {
            return Self::Kept;
        };
        let names: Vec<String> = tables.into_iter().map(|(name, _)| name).collect();
        Self::Lost(format!("the history of the tables with SYSTEM VERSIONING ({}) is not in it: {why}", listed(&names)))
    }
}

fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Its version may be written in many ways, what it takes in one.
fn has_word() -> bool {
    let output = Command::new(DUMP).args(["--no-defaults", "--help"]).stdin(Stdio::null()).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(WORD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_kept_where_server_and_tool_can_or_its_loss_is_said() {
        let server = |version: &str, rows: &str| format!("{version}\t\t0\n{rows}");
        assert_eq!(History::judged(&server("10.6.1-MariaDB", ""), || true), History::None);
        assert_eq!(History::judged(&server("10.11.19-MariaDB-0", "\th\t0\n"), || true), History::Kept);
        assert_eq!(History::judged(&server("11.4.2-MariaDB", "\th\t0\n"), || true), History::Kept);
        for (version, rows, word, expected) in [
            ("10.6.18-MariaDB", "\th\t0\n", true, "the server (10.6.18-MariaDB)"),
            ("10.11.1-MariaDB", "\th\t0\n", false, "knows no --dump-history"),
            ("10.11.1-MariaDB", "\th\t0\n\tg\t1\n", true, "numbers of transactions (g)"),
        ] {
            let History::Lost(said) = History::judged(&server(version, rows), || word) else { panic!("{version}") };
            assert!(said.contains(expected) && said.contains("(h"), "{said}");
        }
    }
}
