//! The settings that a statement ran under and that decide what its text says and makes: asked with the statement, and in
//! force again for its redo.

use postgres::Error;

use super::catalog::{self, literal};
use super::prepared::Client;

/// All of them, in the order in which they are set. Each is one that every role may set.
const SETTINGS: [&str; 24] = [
    "role",
    "search_path",
    "default_tablespace",
    "default_table_access_method",
    "default_toast_compression",
    "check_function_bodies",
    "row_security",
    // How its literals are read.
    "TimeZone",
    "timezone_abbreviations",
    "DateStyle",
    "IntervalStyle",
    "backslash_quote",
    "standard_conforming_strings",
    "array_nulls",
    "transform_null_equals",
    "xmloption",
    "default_text_search_config",
    // What values are as text, where it makes text of them.
    "extra_float_digits",
    "bytea_output",
    "xmlbinary",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "quote_all_identifiers",
];

/// Their names, and the question for their values.
pub fn question(version: u32) -> (Vec<&'static str>, String) {
    let is_known = |name: &&&str| version >= 14 || **name != "default_toast_compression";
    let names: Vec<&str> = SETTINGS.iter().filter(is_known).copied().collect();
    let question = ask(names.iter().copied());
    (names, question)
}

/// Puts the settings in force for the transaction; gives those that were. Of an earlier version's record there are fewer.
pub fn put_in_force(client: &mut Client, settings: &[(String, String)]) -> Result<Vec<(String, String)>, Error> {
    if settings.is_empty() {
        return Ok(Vec::new());
    }
    let names = || settings.iter().map(|(name, _)| name.as_str());
    let set = |(name, value): &(String, String)| {
        format!("pg_catalog.set_config({}, {}, true)", literal(name), literal(value))
    };
    let set: Vec<String> = settings.iter().map(set).collect();
    let before = catalog::rows(client, &format!("{}; SELECT {}", ask(names()), set.join(", ")))?;
    // The second row is of what was set.
    Ok(names().map(str::to_owned).zip(before.into_iter().next().unwrap_or_default()).collect())
}

fn ask<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let list: Vec<String> = names.map(|name| format!("pg_catalog.current_setting({})", literal(name))).collect();
    format!("SELECT {}", list.join(", "))
}
