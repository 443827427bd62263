//! Splits a script into its statements as it is read, by the rules of PostgreSQL's lexer and of psql; never runs one.
//!
//! A semicolon ends a statement unless it stands in a string, a quoted name, a comment, in parentheses, or in the body
//! of a function written as `BEGIN ATOMIC … END` (psql's heuristic for that, word by word: `psqlscan.l`). The data that
//! follow `COPY … FROM STDIN` stream. Memory is bounded by the longest statement.
//!
//! Where psql and the server disagree the server is right: psql takes the second line of an `E'…'` string that is
//! continued on a new line for a plain string, the server does not.

use std::io::{BufRead, ErrorKind};

use super::lex::{Cut, Cutter};
use super::token::{Token, each_token};

/// One statement of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Where its first token stands, from 1.
    pub line: u32,
    /// From its first token to its semicolon, which the last one may lack.
    pub sql: String,
    /// Whether rows for it follow in the script: `COPY … FROM STDIN`. See [`Script::next_data`].
    pub has_data: bool,
}

/// Why a script cannot be split.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    #[error("cannot read the script")]
    Read(#[from] std::io::Error),
    #[error("line {line}: the statement is not UTF-8; convert the script, and leave `SET client_encoding` out of it")]
    NotUtf8 { line: u32 },
    #[error("line {line}: a NUL byte; the script is not text in UTF-8")]
    Nul { line: u32 },
    #[error(
        "line {line}: `{command}` is a command of psql, not SQL; leave it out, or run psql itself with a `run` step"
    )]
    PsqlCommand { line: u32, command: String },
    #[error("line {line}: `{variable}` is a variable of psql; write its value into the script")]
    PsqlVariable { line: u32, variable: String },
    #[error("line {line}: {what} is never closed")]
    Open { line: u32, what: &'static str },
    #[error("line {line}: data of COPY in binary cannot stand in a script; write them as text or CSV")]
    BinaryData { line: u32 },
    #[error("line {line}: after COPY … FROM STDIN the data begin on the next line; put what follows behind them")]
    BeforeData { line: u32 },
    #[error("line {line}: the statement is longer than PostgreSQL takes (1,073,741,823 bytes)")]
    TooLong { line: u32 },
}

/// A script, read statement by statement.
pub struct Script<R> {
    reader: R,
    cutter: Cutter,
    data: Data,
    ended: bool,
}

/// Where in the data of a COPY the reading stands.
#[derive(Debug, Default, PartialEq, Eq)]
enum Data {
    /// In none.
    #[default]
    No,
    /// At the start of a line, of which this much was read that could be the end's.
    Line(Vec<u8>),
    /// Within a line.
    Within,
}

/// The line that ends the data, with both ends a line may have.
const END: [&[u8]; 2] = [b"\\.\n", b"\\.\r\n"];

impl<R: BufRead> Script<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, cutter: Cutter::default(), data: Data::No, ended: false }
    }

    /// The next statement, past the data of the one before; the first error ends the script.
    fn read_on(&mut self) -> Result<Option<Statement>, SplitError> {
        while self.next_data()?.is_some() {}
        loop {
            let chunk = fill(&mut self.reader)?;
            let mut cut = None;
            let mut used = 0;
            if chunk.is_empty() {
                cut = self.cutter.end()?;
                if cut.is_none() {
                    return Ok(None);
                }
            }
            for byte in chunk {
                used += 1;
                cut = self.cutter.take(*byte)?;
                if cut.is_some() {
                    break;
                }
            }
            self.reader.consume(used);
            if let Some(Cut { line, sql }) = cut {
                let has_data = takes_data(&sql, line)?;
                if has_data {
                    self.rest_of_line()?;
                    self.data = Data::Line(Vec::new());
                }
                return Ok(Some(Statement { line, sql, has_data }));
            }
        }
    }

    /// Between the semicolon of a COPY and its data nothing but space may stand.
    fn rest_of_line(&mut self) -> Result<(), SplitError> {
        loop {
            let Some(byte) = fill(&mut self.reader)?.first().copied() else { return Ok(()) };
            if !byte.is_ascii_whitespace() {
                return Err(SplitError::BeforeData { line: self.cutter.line() });
            }
            self.reader.consume(1);
            if byte == b'\n' {
                self.cutter.skipped_lines(1);
                return Ok(());
            }
        }
    }

    /// The next part of the data of the statement that was handed out last; `None` at their end.
    ///
    /// The parts together are what stands between the statement's line and the line `\.`, byte by byte.
    ///
    /// # Errors
    /// Where the script cannot be read, or ends within the data.
    pub fn next_data(&mut self) -> Result<Option<Vec<u8>>, SplitError> {
        loop {
            let mut held = match &mut self.data {
                Data::No => return Ok(None),
                Data::Line(held) => Some(std::mem::take(held)),
                Data::Within => None,
            };
            let chunk = fill(&mut self.reader)?;
            if chunk.is_empty() {
                if !held.is_some_and(|held| held.starts_with(b"\\.")) {
                    return Err(SplitError::Open { line: self.cutter.line(), what: "COPY's data, by a line `\\.`," });
                }
                self.data = Data::No;
                return Ok(None);
            }
            if let Some(line) = &mut held {
                let mut used = 0;
                let mut decided = false;
                for byte in chunk {
                    line.push(*byte);
                    if !END.iter().any(|end| end.starts_with(line)) {
                        line.pop();
                        decided = true;
                        break;
                    }
                    used += 1;
                    if END.contains(&line.as_slice()) {
                        self.reader.consume(used);
                        self.cutter.skipped_lines(1);
                        self.data = Data::No;
                        return Ok(None);
                    }
                }
                let line = std::mem::take(line);
                if !decided || !line.is_empty() {
                    self.reader.consume(used);
                    if !decided {
                        self.data = Data::Line(line);
                        continue;
                    }
                    self.data = Data::Within;
                    return Ok(Some(line));
                }
            }
            let (length, lines, at_line) = until_possible_end(chunk);
            let part = chunk[..length].to_vec();
            self.reader.consume(length);
            self.cutter.skipped_lines(lines);
            self.data = if at_line { Data::Line(Vec::new()) } else { Data::Within };
            return Ok(Some(part));
        }
    }
}

impl<R: BufRead> Iterator for Script<R> {
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

/// What is read next; empty at the end.
fn fill<R: BufRead>(reader: &mut R) -> Result<&[u8], SplitError> {
    loop {
        match reader.fill_buf() {
            // Asked anew, because a borrow that is returned cannot be let go on the other way.
            Ok(_) => return Ok(reader.fill_buf()?),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// How much of the data surely is none of their end: so many bytes with so many lines, and whether a line begins there.
fn until_possible_end(chunk: &[u8]) -> (usize, u32, bool) {
    let (mut at, mut lines) = (0, 0);
    while let Some(length) = chunk[at..].iter().position(|byte| *byte == b'\n') {
        at += length + 1;
        lines += 1;
        if matches!(chunk[at..], [] | [b'\\'] | [b'\\', b'.', ..]) {
            return (at, lines, true);
        }
    }
    (chunk.len(), lines, false)
}

/// True for `COPY … FROM STDIN`.
fn takes_data(sql: &str, line: u32) -> Result<bool, SplitError> {
    let mut tokens = each_token(sql);
    if !tokens.next().is_some_and(|token| token.is("COPY")) {
        return Ok(false);
    }
    let (mut depth, mut stdin, mut binary) = (0_u32, false, false);
    let mut before: Option<Token<'_>> = None;
    for token in tokens {
        if token.is_sign(b'(') {
            depth += 1;
        } else if token.is_sign(b')') {
            depth = depth.saturating_sub(1);
        }
        stdin |= depth == 0 && token.is("STDIN") && before.is_some_and(|before| before.is("FROM"));
        let is_format = before.is_some_and(|before| before.is("FORMAT"));
        // `COPY BINARY t`, `WITH BINARY`, `(FORMAT "binary")`
        let named = || token.name().or_else(|| token.value()).is_some_and(|name| name.eq_ignore_ascii_case("binary"));
        binary |= depth == 0 && (stdin || before.is_none()) && token.is("BINARY") || is_format && named();
        before = Some(token);
    }
    if stdin && binary {
        return Err(SplitError::BinaryData { line });
    }
    Ok(stdin)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::BufReader;

    pub type Part = (u32, String, Option<Vec<u8>>);

    fn read<R: BufRead>(reader: R) -> Result<Vec<Part>, SplitError> {
        let mut script = Script::new(reader);
        let mut parts = Vec::new();
        while let Some(statement) = script.next() {
            let Statement { line, sql, has_data } = statement?;
            let mut data = Vec::new();
            while let Some(part) = script.next_data()? {
                data.extend(part);
            }
            parts.push((line, sql, has_data.then_some(data)));
        }
        Ok(parts)
    }

    pub fn parts(script: &str) -> Vec<Part> {
        let whole = read(script.as_bytes()).unwrap();
        // Tiny buffers, so that every boundary falls between two reads somewhere.
        for capacity in 1..4 {
            assert_eq!(read(BufReader::with_capacity(capacity, script.as_bytes())).unwrap(), whole, "{capacity}");
        }
        let without_data: Vec<_> = Script::new(script.as_bytes()).map(|one| one.unwrap().sql).collect();
        assert_eq!(without_data, whole.iter().map(|(_, sql, _)| sql.clone()).collect::<Vec<_>>());
        whole
    }

    pub fn sql(script: &str) -> Vec<String> {
        parts(script).into_iter().map(|(_, sql, _)| sql).collect()
    }

    fn error(script: &[u8]) -> String {
        read(script).unwrap_err().to_string()
    }

    /// Each is one statement for PostgreSQL, and without effect where it can be.
    pub const STATEMENTS: [&str; 26] = [
        "SELECT ';', 'it''s; -- no', \"a;\" FROM (SELECT 1 AS \"a;\") AS \"b\"\"; \"",
        r"SELECT E'it\'s; \\', e'a'';', E''",
        "SELECT E'a'\n  'b\\';' , 'c'\n'd;'",
        "SELECT E'a' -- ; '\n -- more\n 'b\\';'",
        r"SELECT '\', U&'\0061;\\', N'\'",
        "SELECT b'01', x'3b', B'', 1E1, 1e-1, .5",
        "SELECT $$;'$$, $a$ $b$; $$ $a, $a$, $ä$;$ä$, $$$$",
        "SELECT 1 - -1, 4/2 /* ; */, 1 -- ; the end\n",
        "SELECT /* a /* b; */ ; '*/ 1",
        "SELECT 2*/**/3, 2 <-- ;\n 3",
        "SELECT a$b$ FROM (SELECT 1 AS a$b$) x",
        "CREATE OR REPLACE FUNCTION k(int, int) RETURNS int BEGIN ATOMIC SELECT $1+$2; END",
        "DEALLOCATE ALL",
        "SELECT (ARRAY[1,2,3])[1:2], '1'::text::int",
        "CREATE OR REPLACE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM s WHERE a::text = ';'; DELETE FROM s;)",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
        "create or replace procedure pg_temp.p() begin atomic delete from s; insert into s values (1); end",
        "CREATE OR REPLACE FUNCTION g(a int DEFAULT (1)) RETURNS int LANGUAGE plpgsql AS $begin$ BEGIN RETURN 1; END; $begin$",
        "DO $do$ BEGIN PERFORM 1; END $do$",
        "CREATE OR REPLACE FUNCTION h(\"begin\" int) RETURNS int LANGUAGE sql AS 'SELECT 1; SELECT 2;'",
        "BEGIN",
        "COMMIT",
        "INSERT INTO t VALUES (1), (2)",
        "SELECT 'ünï;' AS \"ö;\"",
        "SELECT CASE WHEN true THEN ';' END",
        "WITH x AS (INSERT INTO s VALUES (3) RETURNING *) SELECT * FROM x",
    ];
    pub const BETWEEN: [&str; 7] = [";", "; ;", " ; \n", ";-- a;b\n", "; /* ;'\" /* ; */ */ ", ";\r\n\t", "\n;\n"];

    #[test]
    fn a_semicolon_ends_a_statement_only_outside_of_quotes_and_bodies() {
        for statement in STATEMENTS {
            let end = if statement.ends_with('\n') { "" } else { "\n" };
            let script = format!("{statement}{end};");
            assert_eq!(sql(&script), [script.as_str()], "{statement}");
            assert_eq!(sql(&format!("{script}SELECT 1;")), [script.as_str(), "SELECT 1;"], "{statement}");
            assert_eq!(sql(statement), [statement.trim_end()], "{statement}");
        }
        assert_eq!(sql("SELECT 1--2\n;"), ["SELECT 1--2\n;"]);
        assert_eq!(sql("SELECT 'a' 'b';"), ["SELECT 'a' 'b';"]);
        assert_eq!(sql("SELECT $1a;SELECT $b"), ["SELECT $1a;", "SELECT $b"]);
        assert_eq!(sql("CREATE TABLE begin(a int); SELECT 1"), ["CREATE TABLE begin(a int);", "SELECT 1"]);
        assert_eq!(sql("-; /"), ["-;", "/"]);
        assert_eq!(sql(" ;; -- nothing\n/* at all; */"), [""; 0]);
    }

    #[test]
    fn lines_count_from_the_first_token() {
        let script = "\u{feff}-- a\r\n\n/* b\n; */ SELECT\n1;;\n ; INSERT INTO t\n VALUES('\n');\n\n-- end;\n";
        let lines: Vec<_> = parts(script).into_iter().map(|(line, sql, _)| (line, sql)).collect();
        assert_eq!(lines, [(4, "SELECT\n1;".to_owned()), (6, "INSERT INTO t\n VALUES('\n');".to_owned())]);
    }

    #[test]
    fn data_of_copy_are_no_sql() {
        let data = "1\t;'\n\\N\t\\\\.\n\\\n.\n\\.x\n \\.\n\\..\n\n2\t$$\n";
        for (copy, end) in [
            ("COPY t FROM STDIN;", "\\.\n"),
            ("copy \"t\" (a, \"from\") from stdin with (format csv, delimiter ';') ;", "\\.\r\n"),
            ("COPY t FROM /* ; */ stdin WHERE a > 1; \t\r", "\\.\n"),
        ] {
            let script = format!("{copy}\n{data}{end}SELECT 1;\n");
            let copy = copy.trim_end();
            let expected = [(1, copy.to_owned(), Some(data.as_bytes().to_vec())), (12, "SELECT 1;".to_owned(), None)];
            assert_eq!(parts(&script), expected);
        }
        assert_eq!(parts("COPY t FROM STDIN;\n\\."), [(1, "COPY t FROM STDIN;".to_owned(), Some(Vec::new()))]);
        assert_eq!(parts("COPY t FROM STDIN;\na\r\n\\.\r")[0].2, Some(b"a\r\n".to_vec()));
        let bytes = b"COPY t FROM STDIN;\n\xff\0\n\\.\nSELECT 1";
        assert_eq!(read(&bytes[..]).unwrap()[0].2, Some(b"\xff\0\n".to_vec()));
        for none in [
            "COPY t TO STDOUT;",
            "COPY (SELECT 1 FROM stdin) TO STDOUT;",
            "COPY t FROM '/stdin';",
            "SELECT 1 FROM stdin;",
        ] {
            assert_eq!(parts(none), [(1, none.to_owned(), None)]);
        }
    }

    #[test]
    fn data_that_never_end_or_cannot_be_read_are_refused() {
        assert_eq!(error(b"COPY t FROM STDIN;\n1\n2"), "line 3: COPY's data, by a line `\\.`, is never closed");
        assert_eq!(error(b"\nCOPY t FROM STDIN; SELECT 1;\n\\.\n"), SplitError::BeforeData { line: 2 }.to_string());
        for binary in ["COPY BINARY t FROM STDIN", "COPY t FROM STDIN (FORMAT \"binary\")", "COPY t FROM STDIN BINARY"]
        {
            assert!(error(format!("{binary};\n").as_bytes()).starts_with("line 1: data of COPY in binary"), "{binary}");
        }
        assert_eq!(sql("COPY \"binary\" FROM STDIN;\n\\.\n").len(), 1);
    }

    #[test]
    fn what_is_of_psql_is_named_and_refused() {
        for (script, command) in [
            ("SELECT 1;\n\\connect \"user=a password=b\"\n", "\\connect"),
            ("\n\\! rm x", "\\!"),
            ("\n  \\d+ t\n", "\\d"),
            ("SELECT 1\n\\gexec\n", "\\gexec"),
            ("SELECT 1\n + (2 \\; 3);", "\\;"),
            ("\n\\copy t FROM 'x'", "\\copy"),
            ("\n\\.\n", "\\."),
            ("SELECT 1\n\\restrict abc\n", "\\restrict"),
        ] {
            let expected = format!("line 2: `{command}` is a command of psql, not SQL");
            assert!(error(script.as_bytes()).starts_with(&expected), "{script}: {}", error(script.as_bytes()));
        }
        assert_eq!(sql("\\restrict a'b;\nSELECT 1;\n\\unrestrict a'b;"), ["SELECT 1;"]);
        for (script, variable) in [
            ("SELECT :name;", ":name"),
            ("SELECT (:'na me');", ":'na"),
            ("SELECT a FROM :\"t\";", ":\"t\""),
            ("SELECT a=:b,c", ":b"),
            ("SELECT :{?a};", ":{?a}"),
            ("SELECT :a", ":a"),
        ] {
            let expected = format!("line 1: `{variable}` is a variable of psql; write its value into the script");
            assert_eq!(error(script.as_bytes()), expected, "{script}");
        }
        for script in ["SELECT a[1:n], a[:n], a[n:]", "SELECT json_object('a':b)", "SELECT 1::int, f(a := b), ': :x'"] {
            assert_eq!(sql(script), [script]);
        }
    }

    #[test]
    fn what_is_not_closed_or_no_text_says_where() {
        for (script, expected) in [
            ("SELECT 1;\n 'a\n", "line 2: a string is never closed"),
            ("SELECT E'a\\'", "line 1: a string is never closed"),
            ("SELECT \"a", "line 1: a quoted name is never closed"),
            ("SELECT\n$a$ $$ ", "line 2: a dollar-quoted string is never closed"),
            ("SELECT 1; /* /* */ ", "line 1: a comment is never closed"),
            ("SELECT 1\0;", "line 1: a NUL byte; the script is not text in UTF-8"),
        ] {
            assert_eq!(error(script.as_bytes()), expected, "{script}");
        }
        assert!(error(b"SELECT 1;\nSELECT 'a\xe4';").starts_with("line 2: the statement is not UTF-8; convert"));
        let mut script = Script::new(&b"SELECT '\xff'; SELECT 1;"[..]);
        assert!(matches!(script.next(), Some(Err(SplitError::NotUtf8 { line: 1 }))));
        assert!(script.next().is_none(), "the first error ends it");
    }

    /// The tokens alone: psql of different versions passes comments on or not.
    pub fn bare(sql: &str) -> String {
        each_token(sql).filter(|token| !token.is_sign(b';')).map(|token| token.text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn random_statements_come_out_as_they_went_in() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            let mut script = String::new();
            let chosen: Vec<&str> = (0..rng.usize(1..9)).map(|_| STATEMENTS[rng.usize(..STATEMENTS.len())]).collect();
            for statement in &chosen {
                script.push_str(statement);
                script.push_str(BETWEEN[rng.usize(..BETWEEN.len())]);
            }
            let split: Vec<String> = sql(&script).iter().map(|sql| bare(sql)).collect();
            assert_eq!(split, chosen.iter().map(|sql| bare(sql)).collect::<Vec<_>>(), "{script}");
        }
    }
}
