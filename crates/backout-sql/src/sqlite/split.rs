//! Splits a script into its statements as it is read, by the rules of SQLite itself; never runs one.
//!
//! The states and transitions are those of `sqlite3_complete()`: a semicolon ends a statement unless it stands in a
//! string, a quoted name, a comment or the body of a trigger. [`super::classify`] then has SQLite's parser confirm
//! it. Memory is bounded by the longest statement.

use std::io::BufRead;

use super::token::is_word;

/// One statement of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Where its first token stands, from 1.
    pub line: u32,
    /// From its first token to its semicolon, which the last one may lack.
    pub sql: String,
}

/// Why a script cannot be split.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    #[error("cannot read the script")]
    Read(#[from] std::io::Error),
    #[error("line {line}: the statement is not UTF-8")]
    NotUtf8 { line: u32 },
    #[error("line {line}: a NUL byte; the script is not text in UTF-8")]
    Nul { line: u32 },
    #[error("line {line}: `{command}` is a command of the sqlite3 shell, not SQL")]
    ShellCommand { line: u32, command: String },
    #[error("line {line}: {what} is never closed")]
    Open { line: u32, what: &'static str },
    #[error("line {line}: the statement is longer than SQLite takes (1,000,000,000 bytes)")]
    TooLong { line: u32 },
}

/// SQLite's own limit (`SQLITE_MAX_SQL_LENGTH`).
const LONGEST: usize = 1_000_000_000;

/// The statements of a script, one after the other; the first error ends it.
pub fn statements<R: BufRead>(reader: R) -> impl Iterator<Item = Result<Statement, SplitError>> {
    Splitter { reader, cutter: Cutter::default(), ended: false }
}

struct Splitter<R> {
    reader: R,
    cutter: Cutter,
    ended: bool,
}

impl<R: BufRead> Iterator for Splitter<R> {
    type Item = Result<Statement, SplitError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read_on().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

impl<R: BufRead> Splitter<R> {
    fn read_on(&mut self) -> Result<Option<Statement>, SplitError> {
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if chunk.is_empty() {
                return self.cutter.end();
            }
            let mut complete = false;
            let mut used = 0;
            for byte in chunk {
                used += 1;
                if self.cutter.take(*byte)? {
                    complete = true;
                    break;
                }
            }
            self.reader.consume(used);
            if complete {
                return self.cutter.cut().map(Some);
            }
        }
    }
}

/// Where in a token the reading stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lex {
    #[default]
    Plain,
    /// In a bare word that began at this byte of the statement.
    Word(usize),
    /// After one `-` or `/`, which may begin a comment.
    Dash,
    Slash,
    LineComment,
    BlockComment,
    BlockCommentStar,
    Quote(u8),
}

/// The states of `sqlite3_complete()`, by its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Complete {
    #[default]
    Start,
    Normal,
    Explain,
    Create,
    Trigger,
    TriggerSemicolon,
    TriggerEnd,
}

#[derive(Default)]
struct Cutter {
    lex: Lex,
    complete: Complete,
    statement: Vec<u8>,
    /// The line read now, from 0; and those where the statement and the open quote or comment began.
    line: u32,
    first: u32,
    opened: u32,
    /// Whether the line holds nothing but space so far: only there the shell knows commands.
    line_is_blank: Option<bool>,
    /// How much of a byte order mark was read; 3 once it is behind us.
    mark: usize,
}

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

impl Cutter {
    /// Takes one byte; true where it completes a statement.
    fn take(&mut self, byte: u8) -> Result<bool, SplitError> {
        if self.mark < 3 {
            if byte == BYTE_ORDER_MARK[self.mark] {
                self.mark += 1;
                return Ok(false);
            }
            let partial = self.mark;
            self.mark = 3;
            for left in &BYTE_ORDER_MARK[..partial] {
                self.step(*left)?;
            }
        }
        self.step(byte)
    }

    fn step(&mut self, byte: u8) -> Result<bool, SplitError> {
        if byte == 0 {
            return Err(SplitError::Nul { line: self.line + 1 });
        }
        let done = match self.lex {
            Lex::Plain | Lex::Word(_) | Lex::Dash | Lex::Slash => self.plain(byte)?,
            Lex::LineComment => {
                if byte == b'\n' {
                    self.lex = Lex::Plain;
                }
                self.keep(byte);
                false
            }
            Lex::BlockComment | Lex::BlockCommentStar => {
                self.lex = match (self.lex, byte) {
                    (Lex::BlockCommentStar, b'/') => Lex::Plain,
                    (_, b'*') => Lex::BlockCommentStar,
                    _ => Lex::BlockComment,
                };
                self.keep(byte);
                false
            }
            Lex::Quote(end) => {
                if byte == end {
                    // A doubled quote reads as two strings side by side, which comes to the same.
                    self.lex = Lex::Plain;
                }
                self.keep(byte);
                false
            }
        };
        if byte == b'\n' {
            self.line = self.line.saturating_add(1);
            self.line_is_blank = None;
        } else if !byte.is_ascii_whitespace() {
            self.line_is_blank = Some(false);
        }
        if self.statement.len() > LONGEST {
            return Err(SplitError::TooLong { line: self.first + 1 });
        }
        Ok(done)
    }

    /// Keeps a byte of the statement; space and comments before the first token are none of it.
    fn keep(&mut self, byte: u8) {
        if !self.statement.is_empty() {
            self.statement.push(byte);
        }
    }

    /// Keeps a byte of a token, which may be the first.
    fn token(&mut self, byte: u8) {
        if self.statement.is_empty() {
            self.first = self.line;
        }
        self.statement.push(byte);
    }

    fn plain(&mut self, byte: u8) -> Result<bool, SplitError> {
        match (self.lex, byte) {
            (Lex::Word(_), _) if is_word(byte) => {
                self.statement.push(byte);
                return Ok(false);
            }
            (Lex::Word(start), _) => {
                self.complete = self.complete.word(&self.statement[start..]);
                self.lex = Lex::Plain;
            }
            (Lex::Dash, b'-') | (Lex::Slash, b'*') => {
                self.opened = self.line;
                // The sign before was not kept if no statement has begun.
                self.keep(byte);
                self.lex = if byte == b'-' { Lex::LineComment } else { Lex::BlockComment };
                return Ok(false);
            }
            (Lex::Dash | Lex::Slash, _) => {
                if self.statement.is_empty() {
                    self.token(if self.lex == Lex::Dash { b'-' } else { b'/' });
                }
                self.complete = self.complete.other();
                self.lex = Lex::Plain;
            }
            _ => {}
        }
        match byte {
            b'-' | b'/' => {
                self.lex = if byte == b'-' { Lex::Dash } else { Lex::Slash };
                self.keep(byte);
            }
            b'\'' | b'"' | b'`' | b'[' => {
                self.token(byte);
                self.opened = self.line;
                self.lex = Lex::Quote(if byte == b'[' { b']' } else { byte });
                self.complete = self.complete.other();
            }
            b';' => {
                self.complete = self.complete.semicolon();
                let ends = self.complete == Complete::Start;
                if ends && self.statement.is_empty() {
                    return Ok(false);
                }
                self.token(byte);
                return Ok(ends);
            }
            _ if byte.is_ascii_whitespace() || byte == 0x0b => self.keep(byte),
            _ if is_word(byte) => {
                self.lex = Lex::Word(self.statement.len());
                self.token(byte);
            }
            b'.' if self.statement.is_empty() && self.line_is_blank.is_none() => {
                self.token(byte);
                self.complete = Complete::Normal;
            }
            _ => {
                self.token(byte);
                self.complete = self.complete.other();
            }
        }
        Ok(false)
    }

    /// Hands the complete statement out.
    fn cut(&mut self) -> Result<Statement, SplitError> {
        let line = self.first + 1;
        let bytes = std::mem::take(&mut self.statement);
        self.complete = Complete::Start;
        let sql = String::from_utf8(bytes).map_err(|_| SplitError::NotUtf8 { line })?;
        if let Some(rest) = sql.strip_prefix('.')
            && rest.starts_with(|letter: char| letter.is_ascii_alphabetic())
        {
            let command: String = sql.lines().next().unwrap_or_default().chars().take(40).collect();
            return Err(SplitError::ShellCommand { line, command });
        }
        Ok(Statement { line, sql })
    }

    /// The end of the script: what is left is the last statement.
    fn end(&mut self) -> Result<Option<Statement>, SplitError> {
        let what = match self.lex {
            Lex::Quote(b'\'') => Some("a string"),
            Lex::Quote(_) => Some("a quoted name"),
            Lex::BlockComment | Lex::BlockCommentStar if !self.statement.is_empty() => Some("a comment"),
            _ => None,
        };
        if let Some(what) = what {
            return Err(SplitError::Open { line: self.opened + 1, what });
        }
        if self.statement.is_empty() && matches!(self.lex, Lex::Dash | Lex::Slash) {
            self.token(if self.lex == Lex::Dash { b'-' } else { b'/' });
        }
        while self.statement.last().is_some_and(u8::is_ascii_whitespace) {
            self.statement.pop();
        }
        if self.statement.is_empty() { Ok(None) } else { self.cut().map(Some) }
    }
}

impl Complete {
    fn word(self, word: &[u8]) -> Self {
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        match self {
            Complete::Start if is("EXPLAIN") => Complete::Explain,
            Complete::Start | Complete::Explain if is("CREATE") => Complete::Create,
            Complete::Explain if is("QUERY") || is("PLAN") => Complete::Explain,
            Complete::Create if is("TEMP") || is("TEMPORARY") => Complete::Create,
            Complete::Create if is("TRIGGER") => Complete::Trigger,
            Complete::TriggerSemicolon if is("END") => Complete::TriggerEnd,
            _ => self.other(),
        }
    }

    fn other(self) -> Self {
        match self {
            Complete::Trigger | Complete::TriggerSemicolon | Complete::TriggerEnd => Complete::Trigger,
            Complete::Start | Complete::Normal | Complete::Explain | Complete::Create => Complete::Normal,
        }
    }

    fn semicolon(self) -> Self {
        match self {
            Complete::Trigger | Complete::TriggerSemicolon => Complete::TriggerSemicolon,
            Complete::Start | Complete::Normal | Complete::Explain | Complete::Create | Complete::TriggerEnd => {
                Complete::Start
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn split(script: &str) -> Vec<(u32, String)> {
        // A tiny buffer, so that every boundary falls between two reads somewhere.
        let tiny = BufReader::with_capacity(1, script.as_bytes());
        let whole: Vec<_> = statements(script.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(statements(tiny).map(Result::unwrap).collect::<Vec<_>>(), whole);
        whole.into_iter().map(|statement| (statement.line, statement.sql)).collect()
    }

    fn sql(script: &str) -> Vec<String> {
        split(script).into_iter().map(|(_, sql)| sql).collect()
    }

    #[test]
    fn a_semicolon_ends_a_statement_only_outside_of_quotes_and_comments() {
        let one =
            ["SELECT ';';", "SELECT \";\";", "SELECT [;];", "SELECT `;`;", "SELECT 1 -- ;\n;", "SELECT /* ; */ 1;"];
        for script in one {
            assert_eq!(sql(script), [script]);
        }
        assert_eq!(sql("SELECT 'it''s;';SELECT 2"), ["SELECT 'it''s;';", "SELECT 2"]);
        assert_eq!(sql("SELECT 1--2\n;"), ["SELECT 1--2\n;"]);
        assert_eq!(sql("SELECT 1-2/3;"), ["SELECT 1-2/3;"]);
    }

    #[test]
    fn lines_count_from_the_first_token() {
        let script = "\u{feff}-- a\n\n/* b\n; */ SELECT\n1;;\n ; INSERT INTO t\n VALUES('\n');\n\n-- end;\n";
        assert_eq!(split(script), [(4, "SELECT\n1;".to_owned()), (6, "INSERT INTO t\n VALUES('\n');".to_owned())]);
    }

    #[test]
    fn a_trigger_is_one_statement() {
        let trigger = "CREATE TEMP TRIGGER a AFTER INSERT ON t BEGIN UPDATE t SET x = CASE WHEN 1 THEN 2 END; \
                       SELECT 'END;'; /* END; */ DELETE FROM t; end /* x */ ;";
        assert_eq!(sql(&format!("{trigger} SELECT 1;")), [trigger, "SELECT 1;"]);
        assert_eq!(sql("CREATE TABLE trigger(a); SELECT 1;").len(), 2);
        assert_eq!(sql("CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; END").len(), 1);
    }

    #[test]
    fn sqlite_itself_reads_each_as_one_statement() {
        const STATEMENTS: [&str; 8] = [
            "SELECT 'it''s; -- no' || \"a;\" || [b;] || `c;` FROM (SELECT 1 \"a;\", 2 [b;], 3 `c;`)",
            "SELECT 1 - -1, 4/2 /* ; */, x'3b', ';'",
            "INSERT INTO t VALUES (1, 'a\nb;\n'), (2, NULL)",
            "CREATE TRIGGER IF NOT EXISTS r AFTER INSERT ON t BEGIN SELECT CASE WHEN 1 THEN 2 END; DELETE FROM t; END",
            "create temporary trigger q before delete on t begin select ';end;'; end",
            "EXPLAIN QUERY PLAN SELECT 1",
            "CREATE TABLE IF NOT EXISTS trigger_end(\"end;\" TEXT DEFAULT ';')",
            "SELECT 1 -- ; the end\n",
        ];
        const BETWEEN: [&str; 6] = [";", ";;", " ; \n", ";-- a;b\n", "; /* ;'\" */ ", ";\r\n\t"];
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t(a, b)").unwrap();
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            let mut script = String::new();
            let chosen: Vec<&str> = (0..rng.usize(1..9)).map(|_| STATEMENTS[rng.usize(..8)]).collect();
            for sql in &chosen {
                script += sql;
                script += BETWEEN[rng.usize(..6)];
            }
            let found = sql(&script);
            assert_eq!(found.len(), chosen.len(), "{script}");
            for (found, chosen) in found.iter().zip(&chosen) {
                assert!(found.starts_with(chosen.trim_end()), "{script}");
                // More than one statement is an error here.
                conn.prepare(found).unwrap();
            }
        }
    }

    #[test]
    fn nothing_comes_of_nothing() {
        for empty in ["", ";", " ;;\n; ", "-- a", "/* a */", "/* a", "\u{feff}"] {
            assert_eq!(sql(empty), Vec::<String>::new(), "{empty}");
        }
    }

    #[test]
    fn what_is_no_sql_is_an_error_with_its_line() {
        let error = |script: &[u8]| statements(script).find_map(Result::err).map(|error| error.to_string());
        assert_eq!(error(b"SELECT 1;\nSELECT '\n\n"), Some("line 2: a string is never closed".into()));
        assert_eq!(error(b"SELECT 1;\nSELECT \"x\n\n"), Some("line 2: a quoted name is never closed".into()));
        assert_eq!(error(b"SELECT 1;\nSELECT '\xff';"), Some("line 2: the statement is not UTF-8".into()));
        assert!(error(b"S\0E\0").is_some_and(|text| text.starts_with("line 1: a NUL byte")));
        assert!(error(b"SELECT 1;\n.read x.sql\n").is_some_and(|text| text.contains("`.read x.sql`")));
        assert_eq!(error(b"SELECT\n.5;\nSELECT 1 /* x"), Some("line 3: a comment is never closed".into()));
    }

    #[test]
    fn after_an_error_nothing_more_comes() {
        let mut all = statements(&b"SELECT '\xff'; SELECT 1;"[..]);
        assert!(all.next().is_some_and(|first| first.is_err()));
        assert!(all.next().is_none());
    }
}
