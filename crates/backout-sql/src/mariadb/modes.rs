//! Modes and character sets in which a text is read in another way than it is read here.

/// Modes under which quotes mean something else.
const QUOTING: [&str; 9] = [
    "ANSI",
    "ANSI_QUOTES",
    "NO_BACKSLASH_ESCAPES",
    "ORACLE",
    "MSSQL",
    "DB2",
    "MAXDB",
    "POSTGRESQL",
    "EMPTY_STRING_IS_NULL",
];
/// Character sets in which the second byte of a character may be a quote or a backslash, or that are wider than one byte.
pub const CHARSETS: [&str; 9] = ["big5", "gbk", "sjis", "cp932", "gb2312", "gb18030", "ucs2", "utf16", "utf32"];

/// The first of a list of modes under which quotes mean something else.
pub fn quoting(modes: &str) -> Option<&'static str> {
    QUOTING.into_iter().find(|mode| modes.split(',').any(|part| part.trim() == *mode))
}

/// Why the body of an object that was stored under these modes, and in this character set, is read in another way.
pub fn stored_otherwise(modes: Option<&str>, charset: Option<&str>) -> Option<String> {
    let charset = charset.filter(|charset| CHARSETS.contains(charset));
    let split = charset.map(|charset| format!("it was stored in {charset}, which cannot be split"));
    let mode = quoting(modes.unwrap_or_default()).map(|mode| {
        format!("it was stored under the mode {mode}, in which its body is read in another way: make it again without that mode")
    });
    mode.or(split)
}
