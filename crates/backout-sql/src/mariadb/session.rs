//! One session with the server: one statement at a time, as text, and what a failure means.
//!
//! Never builds on a setting of the script's: what the tool itself does goes between [`Session::neutral`] and
//! [`Session::restore`].

use mysql::prelude::Queryable as _;
use mysql::{Conn, Error, Row as Found, Value};

/// One row of an answer, as text.
pub type Row = Vec<Option<String>>;

/// What the tool's own statements run under: nothing of a value is checked, rounded or left out, and no key is enforced
/// that the tool does not look at itself.
const NEUTRAL: [(&str, &str); 14] = [
    ("sql_mode", "'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION'"),
    ("foreign_key_checks", "0"),
    ("check_constraint_checks", "0"),
    ("unique_checks", "1"),
    ("character_set_client", "utf8mb4"),
    ("character_set_results", "utf8mb4"),
    ("collation_connection", "utf8mb4_bin"),
    ("sql_select_limit", "18446744073709551615"),
    ("sql_safe_updates", "0"),
    ("sql_quote_show_create", "1"),
    ("max_statement_time", "0"),
    ("group_concat_max_len", "1048576"),
    ("sql_auto_is_null", "0"),
    ("time_zone", "'+00:00'"),
];

/// What of a script's settings a change of the schema may depend on, and the values that it gives rows: kept with it, for a
/// redo. Those that are words, and those that are numbers.
const KEPT_WORDS: [&str; 7] = [
    "sql_mode",
    "character_set_client",
    "collation_connection",
    "time_zone",
    "default_storage_engine",
    "lc_time_names",
    "old_mode",
];
const KEPT_NUMBERS: [&str; 8] = [
    "foreign_key_checks",
    "check_constraint_checks",
    "unique_checks",
    "auto_increment_increment",
    "auto_increment_offset",
    "div_precision_increment",
    "default_week_format",
    "innodb_strict_mode",
];

/// A session of its own with the server.
pub struct Session {
    pub conn: Conn,
}

impl Session {
    /// Those of the tool's own settings that a script for `mariadb` runs under.
    pub fn of_scripts() -> impl Iterator<Item = (&'static str, &'static str)> {
        NEUTRAL.iter().copied()
    }

    /// A session as the plain client begins one.
    pub fn new(conn: Conn) -> Result<Self, Error> {
        let mut session = Self { conn };
        session.run("SET autocommit = 1")?;
        session.run("SET NAMES utf8mb4")?;
        // A COMMIT that began the next transaction would keep locks, one that let go of the session would end it.
        session.run("SET completion_type = NO_CHAIN")?;
        // A metadata lock that is waited for holds everybody else up.
        session.run("SET lock_wait_timeout = 5")?;
        // Only later versions know it; there a row that others changed after our snapshot would be an error.
        drop(session.run("SET innodb_snapshot_isolation = OFF"));
        Ok(session)
    }

    pub fn run(&mut self, sql: &str) -> Result<(), Error> {
        self.conn.query_drop(sql)
    }

    /// Runs one statement; how many rows it says it touched.
    pub fn count(&mut self, sql: &str) -> Result<u64, Error> {
        let mut result = self.conn.query_iter(sql)?;
        let affected = result.affected_rows();
        while let Some(rows) = result.iter() {
            for row in rows {
                row?;
            }
        }
        Ok(affected)
    }

    pub fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        let mut found = Vec::new();
        for row in self.conn.query_iter(sql)? {
            found.push(texts(row?));
        }
        Ok(found)
    }

    /// The first value of the first row.
    pub fn value(&mut self, sql: &str) -> Result<Option<String>, Error> {
        Ok(self.rows(sql)?.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    pub fn number(&mut self, sql: &str) -> Result<u64, Error> {
        Ok(self.value(sql)?.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// From here on the tool's own settings hold, until [`Session::restore`].
    pub fn neutral(&mut self) -> Result<(), Error> {
        let saved: Vec<String> = NEUTRAL.iter().map(|(name, _)| format!("@backout_{name} = @@{name}")).collect();
        self.run(&format!("SET {}", saved.join(", ")))?;
        self.stay_neutral()
    }

    pub fn stay_neutral(&mut self) -> Result<(), Error> {
        let set: Vec<String> = NEUTRAL.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        self.run(&format!("SET {}", set.join(", ")))
    }

    /// Puts the script's settings back.
    pub fn restore(&mut self) -> Result<(), Error> {
        let set: Vec<String> = NEUTRAL.iter().map(|(name, _)| format!("{name} = @backout_{name}")).collect();
        self.run(&format!("SET {}", set.join(", ")))
    }

    /// Does the tool's own work under its own settings.
    pub fn aside<T, E: From<Error>>(&mut self, work: impl FnOnce(&mut Session) -> Result<T, E>) -> Result<T, E> {
        self.neutral()?;
        let done = work(self);
        self.restore()?;
        done
    }

    /// The SET that brings back what a change of the schema depends on, with the moment.
    pub fn settings(&mut self) -> Result<String, Error> {
        let mut numbers = KEPT_NUMBERS.to_vec();
        if !self.keeps_time()? {
            numbers.push("timestamp");
        }
        let names: Vec<String> = KEPT_WORDS.iter().chain(&numbers).map(|name| format!("@@{name}")).collect();
        let row = self.rows(&format!("SELECT {}", names.join(", ")))?.into_iter().next().unwrap_or_default();
        let mut values = row.into_iter().map(Option::unwrap_or_default);
        let mut set: Vec<String> = Vec::new();
        set.extend(KEPT_WORDS.iter().zip(values.by_ref()).map(|(name, value)| format!("{name} = {}", literal(&value))));
        set.extend(numbers.iter().zip(values).map(|(name, value)| format!("{name} = {value}")));
        Ok(format!("SET {}", set.join(", ")))
    }

    /// True where the server does not let everybody say what time it is.
    pub fn keeps_time(&mut self) -> Result<bool, Error> {
        Ok(self.value("SELECT @@secure_timestamp")?.as_deref() != Some("NO"))
    }

    /// Takes back what [`Session::settings`] set beyond the tool's own settings.
    pub fn unset(&mut self) -> Result<(), Error> {
        let own = |name: &&&str| NEUTRAL.iter().all(|(one, _)| one != *name);
        let names = KEPT_WORDS.iter().chain(&KEPT_NUMBERS).filter(own).chain(&["timestamp"]);
        let set: Vec<String> = names.map(|name| format!("{name} = DEFAULT")).collect();
        self.run(&format!("SET {}", set.join(", ")))
    }
}

/// The statements that run one under settings, as SET takes them. The server reads a statement in the character set of its
/// client, which is not that of the tool's text where that is an object's old one: so it goes by way of a variable then.
pub fn under<'s>(settings: impl Iterator<Item = (&'s str, &'s str)>, sql: &str) -> Vec<String> {
    let mut of_old = false;
    let set: Vec<String> = settings
        .map(|(name, value)| {
            of_old |= name == "character_set_client" && !value.starts_with("utf8");
            format!("{name} = {}", literal(value))
        })
        .collect();
    if set.is_empty() {
        return vec![sql.to_owned()];
    }
    let set = format!("SET SESSION {}", set.join(", "));
    if sql.is_ascii() || !of_old {
        return vec![set, sql.to_owned()];
    }
    vec![format!("SET @backout_text = {}", literal(sql)), set, "EXECUTE IMMEDIATE @backout_text".to_owned()]
}

fn texts(row: Found) -> Row {
    row.unwrap()
        .into_iter()
        .map(|value| match value {
            Value::NULL => None,
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            // The text protocol knows nothing else.
            other => Some(other.as_sql(false)),
        })
        .collect()
}

/// A name in quotes.
pub fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A string as SQL writes it, with backslashes as escapes.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn code(error: &Error) -> Option<u16> {
    match error {
        Error::MySqlError(error) => Some(error.code),
        _ => None,
    }
}

/// Somebody else held a lock for longer than we wait: of rows, of a table's definition, or in a circle.
pub fn is_lock_timeout(error: &Error) -> bool {
    matches!(code(error), Some(1205 | 1213))
}

/// A row stands in the way of a unique key.
pub fn is_taken(error: &Error) -> bool {
    matches!(code(error), Some(1062 | 1586))
}

/// The user may not do it: at all, or only with SUPER while the binary log is on.
pub fn is_denied(error: &Error) -> bool {
    matches!(code(error), Some(1044 | 1142 | 1227 | 1370 | 1419))
}

/// A foreign key that writes to a column from which a stored one is computed: without checks the server makes it by a copy alone.
pub fn needs_copy(error: &Error) -> bool {
    code(error) == Some(138)
}

/// The table or view is not there.
pub fn is_missing(error: &Error) -> bool {
    matches!(code(error), Some(1146 | 1051 | 1356))
}

/// The definer of the object is no user.
pub fn is_without_definer(error: &Error) -> bool {
    code(error) == Some(1449)
}

/// The connection is gone: what the last statement came to is not known.
pub fn is_lost(error: &Error) -> bool {
    match code(error) {
        // The server shuts down, or the session was killed.
        Some(code) => matches!(code, 1053 | 1927 | 1152),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_strings_cannot_end_early() {
        assert_eq!(ident("a`b"), "`a``b`");
        assert_eq!(literal("it's \\"), "'it''s \\\\'");
    }
}
