//! Which PRAGMAs a script may use, and how; never runs one.
//!
//! A pragma that outlives its connection changes the database file in ways that no row or definition shows, so it is
//! refused unless it asks for what is already so.

use rusqlite::Connection;

use super::token::{Token, quote, tokens};

/// A PRAGMA as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pragma {
    /// In lower case.
    pub name: String,
    /// What stands after `=` or in parentheses, without quotes.
    pub value: Option<String>,
}

/// What a PRAGMA means for capturing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers and changes nothing.
    Read,
    /// Holds for the connection and is put back after the step.
    Setting,
    /// Stored in the header of the file; captured: `user_version`, `application_id`.
    Counter,
    /// May run ANALYZE.
    Optimize,
    /// Has no effect on the result, so it isn't run: the tool keeps its own sync and cache settings.
    Ignored,
    /// Refused where it must be taken back, with the reason.
    Lasting(&'static str),
    /// Refused in any step, with the reason.
    Impossible(&'static str),
}

/// Settings that rule how statements work, and what each is in a new connection. All but the first work inside a
/// transaction, too.
const SETTINGS: [(&str, bool); 13] = [
    ("foreign_keys", false),
    ("defer_foreign_keys", false),
    ("ignore_check_constraints", false),
    ("legacy_alter_table", false),
    ("recursive_triggers", false),
    ("case_sensitive_like", false),
    ("reverse_unordered_selects", false),
    ("automatic_index", true),
    ("trusted_schema", true),
    ("full_column_names", false),
    ("short_column_names", true),
    ("count_changes", false),
    ("empty_result_callbacks", false),
];

/// Makes the settings what they are in a new connection of the tool.
pub fn reset(conn: &Connection) -> rusqlite::Result<()> {
    let all: Vec<String> = SETTINGS.iter().map(|(name, on)| format!("PRAGMA {name} = {on};")).collect();
    conn.execute_batch(&format!("{} PRAGMA writable_schema = RESET;", all.concat()))
}

/// Settings of speed, durability or memory: the tool's own stay.
const IGNORED: [&str; 21] = [
    "synchronous",
    "fullfsync",
    "checkpoint_fullfsync",
    "busy_timeout",
    "cache_size",
    "cache_spill",
    "cell_size_check",
    "mmap_size",
    "temp_store",
    "threads",
    "analysis_limit",
    "read_uncommitted",
    "soft_heap_limit",
    "hard_heap_limit",
    "shrink_memory",
    "wal_autocheckpoint",
    "journal_size_limit",
    "locking_mode",
    "vdbe_trace",
    "parser_trace",
    "vdbe_listing",
];

/// What the file keeps: only what is already so may be asked for.
const KEPT_IN_FILE: [&str; 7] =
    ["journal_mode", "page_size", "auto_vacuum", "encoding", "secure_delete", "default_cache_size", "max_page_count"];

/// Those that take an argument and only read.
const READS_WITH_ARGUMENT: [&str; 10] = [
    "table_info",
    "table_xinfo",
    "table_list",
    "index_info",
    "index_xinfo",
    "index_list",
    "foreign_key_list",
    "foreign_key_check",
    "integrity_check",
    "quick_check",
];

/// The parts of a PRAGMA statement; none where it is something else.
pub fn parse(sql: &str) -> Option<Pragma> {
    let all = tokens(sql);
    let mut rest = all.as_slice();
    let mut next = || -> Option<Token<'_>> {
        let (first, others) = rest.split_first()?;
        rest = others;
        Some(*first)
    };
    if !next()?.is("PRAGMA") {
        return None;
    }
    let mut name = next()?.name()?;
    let mut after = next();
    if after.is_some_and(|token| token.is_sign(b'.')) {
        name = next()?.name()?;
        after = next();
    }
    let value = match after {
        Some(sign) if sign.is_sign(b'=') || sign.is_sign(b'(') => {
            let first = next()?;
            if first.is_sign(b'-') || first.is_sign(b'+') {
                next().map(|number| format!("{}{}", first.text, number.text))
            } else {
                Some(first.name().unwrap_or_else(|| first.text.to_owned()))
            }
        }
        _ => None,
    };
    Some(Pragma { name: name.to_ascii_lowercase(), value })
}

impl Pragma {
    /// True where the pragma takes effect inside a transaction; `foreign_keys` alone does not.
    pub fn works_inside(&self) -> bool {
        self.name != "foreign_keys"
    }

    /// What it means on this database.
    pub fn kind(&self, conn: &Connection) -> rusqlite::Result<Kind> {
        let name = self.name.as_str();
        Ok(match (name, self.value.as_deref()) {
            ("user_version" | "application_id", Some(_)) => Kind::Counter,
            ("optimize", _) => Kind::Optimize,
            ("incremental_vacuum", _) => {
                Kind::Lasting("it gives pages of the file back, which is no change that can be undone")
            }
            ("wal_checkpoint", _) => Kind::Impossible("it cannot run inside the transaction of a step"),
            ("writable_schema", Some(value)) if is_on(value) => {
                Kind::Lasting("writes to sqlite_schema itself cannot be taken back")
            }
            ("schema_version", Some(_)) => Kind::Lasting("only SQLite may count changes of the schema"),
            ("query_only", Some(value)) if is_on(value) => Kind::Impossible("the step itself has to write"),
            ("data_store_directory" | "temp_store_directory" | "lock_proxy_file", Some(_)) => {
                Kind::Impossible("it changes where the whole process keeps its files")
            }
            ("writable_schema" | "query_only", Some(_)) => Kind::Ignored,
            (_, None) => Kind::Read,
            (_, Some(_)) if READS_WITH_ARGUMENT.contains(&name) => Kind::Read,
            (_, Some(_)) if SETTINGS.iter().any(|(setting, _)| *setting == name) => Kind::Setting,
            (_, Some(_)) if IGNORED.contains(&name) => Kind::Ignored,
            (_, Some(value)) if KEPT_IN_FILE.contains(&name) => {
                const WHY: &str = "it changes how the whole file is kept, which cannot be taken back";
                match name {
                    _ if self.is_so(conn, value)? => Kind::Ignored,
                    // Inside a transaction SQLite would refuse it, or lose what the rollback needs.
                    "journal_mode" => Kind::Impossible(WHY),
                    _ => Kind::Lasting(WHY),
                }
            }
            // SQLite says nothing to a pragma that it does not know, and does nothing.
            (_, Some(_)) => Kind::Ignored,
        })
    }

    fn is_so(&self, conn: &Connection, value: &str) -> rusqlite::Result<bool> {
        let mut statement = conn.prepare(&format!("PRAGMA {}", quote(&self.name)))?;
        let mut rows = statement.query([])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        let now = match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            _ => return Ok(false),
        };
        let wanted = match (self.name.as_str(), value.to_ascii_lowercase().as_str()) {
            ("auto_vacuum", "none") | ("secure_delete", "off" | "false" | "no") => "0".to_owned(),
            ("auto_vacuum", "full") | ("secure_delete", "on" | "true" | "yes") => "1".to_owned(),
            ("auto_vacuum", "incremental") | ("secure_delete", "fast") => "2".to_owned(),
            ("encoding", "utf8") => "utf-8".to_owned(),
            (_, other) => other.to_owned(),
        };
        Ok(now.eq_ignore_ascii_case(&wanted))
    }
}

/// SQLite's reading of a switch (`sqlite3GetBoolean`): a number that is not 0, or one of three words.
pub fn is_on(value: &str) -> bool {
    if value.starts_with(|first: char| first.is_ascii_digit()) {
        return value.chars().take_while(char::is_ascii_digit).any(|digit| digit != '0');
    }
    ["on", "yes", "true"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(sql: &str) -> Kind {
        let conn = Connection::open_in_memory().unwrap();
        parse(sql).unwrap().kind(&conn).unwrap()
    }

    #[test]
    fn a_pragma_is_read_in_all_its_spellings() {
        for sql in
            ["PRAGMA foreign_keys=OFF;", "pragma main.Foreign_Keys ( 'OFF' )", "/* a */ PRAGMA \"foreign_keys\" = OFF"]
        {
            assert_eq!(parse(sql), Some(Pragma { name: "foreign_keys".into(), value: Some("OFF".into()) }), "{sql}");
        }
        assert_eq!(parse("PRAGMA cache_size = -200").unwrap().value.as_deref(), Some("-200"));
        assert_eq!(parse("PRAGMA user_version").unwrap().value, None);
        assert_eq!(parse("SELECT 1"), None);
        assert_eq!(parse("PRAGMA"), None);
    }

    #[test]
    fn a_switch_is_read_as_sqlite_reads_it() {
        let conn = Connection::open_in_memory().unwrap();
        for value in ["1", "ON", "Yes", "true", "7", "0", "00", "off", "no", "false", "-1", "maybe", "1x", "full"] {
            conn.execute_batch(&format!("PRAGMA recursive_triggers = OFF; PRAGMA recursive_triggers = '{value}'"))
                .unwrap();
            let on: bool = conn.query_row("PRAGMA recursive_triggers", [], |row| row.get(0)).unwrap();
            assert_eq!(is_on(value), on, "{value}");
        }
    }

    #[test]
    fn the_settings_go_back_to_what_they_are_in_a_new_connection() {
        let ask = |conn: &Connection| {
            SETTINGS.map(|(name, _)| conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, bool>(0)).ok())
        };
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        let fresh = ask(&conn);
        for (name, on) in SETTINGS {
            conn.execute_batch(&format!("PRAGMA {name} = {}", !on)).unwrap();
        }
        assert_ne!(ask(&conn), fresh);
        reset(&conn).unwrap();
        assert_eq!(ask(&conn), fresh);
    }

    #[test]
    fn only_what_lasts_is_refused() {
        assert_eq!(kind("PRAGMA foreign_keys=1"), Kind::Setting);
        assert_eq!(kind("PRAGMA user_version=7"), Kind::Counter);
        assert_eq!(kind("PRAGMA user_version"), Kind::Read);
        assert_eq!(kind("PRAGMA table_info(t)"), Kind::Read);
        assert_eq!(kind("PRAGMA synchronous=OFF"), Kind::Ignored);
        assert_eq!(kind("PRAGMA writable_schema=OFF"), Kind::Ignored);
        assert_eq!(kind("PRAGMA journal_mode=MEMORY"), Kind::Ignored);
        assert_eq!(kind("PRAGMA encoding='UTF-8'"), Kind::Ignored);
        for sql in [
            "PRAGMA journal_mode=WAL",
            "PRAGMA writable_schema=1",
            "PRAGMA page_size=512",
            "PRAGMA incremental_vacuum",
            "PRAGMA auto_vacuum=full",
            "PRAGMA schema_version=9",
        ] {
            assert!(matches!(kind(sql), Kind::Lasting(_) | Kind::Impossible(_)), "{sql}");
        }
    }

    #[test]
    fn every_pragma_of_this_sqlite_has_been_thought_of() {
        let conn = Connection::open_in_memory().unwrap();
        let mut all = conn.prepare("SELECT name FROM pragma_pragma_list").unwrap();
        let names: Vec<String> = all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert!(names.len() > 50);
        let answers_only = [
            "collation_list",
            "compile_options",
            "data_version",
            "database_list",
            "freelist_count",
            "function_list",
            "module_list",
            "page_count",
            "pragma_list",
            "stats",
            "lock_status",
            "sql_trace",
        ];
        for name in names {
            let settings = SETTINGS.map(|(setting, _)| setting);
            let known = [&settings[..], &IGNORED, &KEPT_IN_FILE, &READS_WITH_ARGUMENT, &answers_only].concat();
            let special = [
                "user_version",
                "application_id",
                "optimize",
                "incremental_vacuum",
                "wal_checkpoint",
                "writable_schema",
                "schema_version",
                "query_only",
                "data_store_directory",
                "temp_store_directory",
                "lock_proxy_file",
            ];
            assert!(known.contains(&name.as_str()) || special.contains(&name.as_str()), "{name}");
        }
    }
}
