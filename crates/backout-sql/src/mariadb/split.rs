//! Splits a script into its statements as it is read, by the rules of the `mariadb` client; never runs one.
//!
//! The delimiter ends a statement unless it stands in a string, a quoted name or a comment. As in the client
//! (`client/mysql.cc`, `add_line`), a comment that the server executes is no comment here. Memory is bounded by the
//! longest statement.

use std::io::BufRead;

/// One statement of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Where its first token stands, from 1.
    pub line: u32,
    /// From its first token to before its delimiter.
    pub sql: String,
}

/// Why a script cannot be split.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    #[error("cannot read the script")]
    Read(#[from] std::io::Error),
    #[error("line {line}: the statement is not UTF-8; convert the script")]
    NotUtf8 { line: u32 },
    #[error("line {line}: a NUL byte; the script is not text in UTF-8")]
    Nul { line: u32 },
    #[error("line {line}: `{command}` is a command of the mariadb client, not SQL; leave it out")]
    ClientCommand { line: u32, command: String },
    #[error("line {line}: DELIMITER must be followed by a delimiter, which cannot hold a backslash")]
    Delimiter { line: u32 },
    #[error("line {line}: {what} is never closed")]
    Open { line: u32, what: &'static str },
}

/// In what the reading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Nothing,
    Quotes(u8),
    Comment,
    /// A comment that the server executes.
    Executed,
}

/// A script, read statement by statement; the first error ends it.
pub struct Script<R> {
    reader: R,
    delimiter: Vec<u8>,
    line: u32,
    /// What is read of the statement, from its first token on.
    text: Vec<u8>,
    begins: u32,
    inside: Inside,
    opened: u32,
    /// What is left of the line.
    rest: Vec<u8>,
    ended: bool,
}

impl<R: BufRead> Script<R> {
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            delimiter: b";".to_vec(),
            line: 0,
            text: Vec::new(),
            begins: 0,
            inside: Inside::Nothing,
            opened: 0,
            rest: Vec::new(),
            ended: false,
        }
    }

    fn read_on(&mut self) -> Result<Option<Statement>, SplitError> {
        loop {
            if self.rest.is_empty() {
                if self.reader.read_until(b'\n', &mut self.rest)? == 0 {
                    return self.end();
                }
                self.line += 1;
                if self.line == 1 && self.rest.starts_with(b"\xef\xbb\xbf") {
                    self.rest.drain(..3);
                }
                if self.rest.contains(&0) {
                    return Err(SplitError::Nul { line: self.line });
                }
                if self.text.is_empty() && self.inside == Inside::Nothing && self.takes_delimiter()? {
                    self.rest.clear();
                    continue;
                }
            }
            let line = std::mem::take(&mut self.rest);
            if let Some(used) = self.take(&line)? {
                self.rest = line[used..].to_vec();
                if let Some(statement) = self.cut()? {
                    return Ok(Some(statement));
                }
            }
        }
    }

    /// Reads a line `DELIMITER x`, which only the client knows.
    fn takes_delimiter(&mut self) -> Result<bool, SplitError> {
        let line = self.rest.trim_ascii();
        let Some(word) = line.get(..9).filter(|word| word.eq_ignore_ascii_case(b"delimiter")) else { return Ok(false) };
        if line.get(word.len()).is_some_and(|next| !next.is_ascii_whitespace()) {
            return Ok(false);
        }
        let wanted = line[word.len()..].trim_ascii_start();
        let end = wanted.iter().position(u8::is_ascii_whitespace).unwrap_or(wanted.len());
        let wanted = &wanted[..end];
        if wanted.is_empty() || wanted.contains(&b'\\') {
            return Err(SplitError::Delimiter { line: self.line });
        }
        self.delimiter = wanted.to_vec();
        Ok(true)
    }

    /// Takes the bytes of a line up to its end or behind a delimiter; where that ends, if it does.
    fn take(&mut self, line: &[u8]) -> Result<Option<usize>, SplitError> {
        let mut at = 0;
        while at < line.len() {
            let rest = &line[at..];
            let open = matches!(self.inside, Inside::Nothing | Inside::Executed);
            if open && rest.starts_with(&self.delimiter) {
                return Ok(Some(at + self.delimiter.len()));
            }
            let is_dash = rest.starts_with(b"--") && rest.get(2).is_none_or(|next| *next <= b' ');
            if open && (rest[0] == b'#' || is_dash) {
                if !self.text.is_empty() {
                    self.text.extend_from_slice(rest);
                }
                return Ok(None);
            }
            let used = self.take_one(rest)?;
            at += used;
        }
        Ok(None)
    }

    /// Takes one token, or one byte of it.
    fn take_one(&mut self, rest: &[u8]) -> Result<usize, SplitError> {
        let mut used = 1;
        let mut kept = true;
        match self.inside {
            Inside::Quotes(quote) => match rest[0] {
                b'\\' if quote != b'`' && rest.len() > 1 => used = 2,
                byte if byte == quote => self.inside = Inside::Nothing,
                _ => {}
            },
            Inside::Comment => {
                kept = !self.text.is_empty();
                if rest.starts_with(b"*/") {
                    (self.inside, used) = (Inside::Nothing, 2);
                }
            }
            Inside::Nothing | Inside::Executed => match rest[0] {
                quote @ (b'\'' | b'"' | b'`') => self.open(Inside::Quotes(quote)),
                b'/' if rest.starts_with(b"/*!") || rest.starts_with(b"/*M!") => {
                    self.open(Inside::Executed);
                    used = 3;
                }
                b'/' if rest.starts_with(b"/*") => {
                    self.open(Inside::Comment);
                    used = 2;
                    kept = !self.text.is_empty();
                }
                b'*' if rest.starts_with(b"*/") => (self.inside, used) = (Inside::Nothing, 2),
                b'\\' => {
                    let command = String::from_utf8_lossy(&rest[..rest.len().min(2)]).into_owned();
                    return Err(SplitError::ClientCommand { line: self.line, command });
                }
                space if self.text.is_empty() && space.is_ascii_whitespace() => kept = false,
                _ => {}
            },
        }
        if kept {
            if self.text.is_empty() {
                self.begins = self.line;
            }
            self.text.extend_from_slice(&rest[..used]);
        }
        Ok(used)
    }

    fn open(&mut self, what: Inside) {
        self.inside = what;
        self.opened = self.line;
    }

    /// The statement that was read; none where it is empty.
    fn cut(&mut self) -> Result<Option<Statement>, SplitError> {
        self.inside = Inside::Nothing;
        let text = std::mem::take(&mut self.text);
        let sql = String::from_utf8(text).map_err(|_| SplitError::NotUtf8 { line: self.begins })?;
        let sql = sql.trim_end().to_owned();
        Ok((!sql.is_empty()).then_some(Statement { line: self.begins, sql }))
    }

    fn end(&mut self) -> Result<Option<Statement>, SplitError> {
        let what = match self.inside {
            Inside::Nothing => return self.cut(),
            Inside::Quotes(_) => "a quote",
            Inside::Comment | Inside::Executed => "a comment",
        };
        Err(SplitError::Open { line: self.opened, what })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn split(script: &str) -> Result<Vec<String>, String> {
        let all: Result<Vec<Statement>, SplitError> = Script::new(script.as_bytes()).collect();
        Ok(all.map_err(|error| error.to_string())?.iter().map(|one| format!("{} {}", one.line, one.sql)).collect())
    }

    #[test]
    fn statements_end_where_the_client_ends_them() {
        for (script, expected) in [
            ("a;b;\nc", vec!["1 a", "1 b", "2 c"]),
            ("  -- x;\n# y;\n/* z; */ a /* b; */ c;", vec!["3 a /* b; */ c"]),
            ("'a;\\';' \"b;\"\";\" `c;\\`;d", vec!["1 'a;\\';' \"b;\"\";\" `c;\\`", "1 d"]),
            ("delimiter //\na;b//\nDELIMITER ;\nc;", vec!["2 a;b", "4 c"]),
            ("DELIMITER $$\na$$b$$", vec!["2 a", "2 b"]),
            ("/*!40101 SET a=1 */;\n/*M!100100 b */;", vec!["1 /*!40101 SET a=1 */", "2 /*M!100100 b */"]),
            ("a --b\n;a-- b;\nc;", vec!["1 a --b", "2 a-- b;\nc"]),
            ("\u{feff}a;;", vec!["1 a"]),
            ("a\ndelimiter;b", vec!["1 a\ndelimiter", "2 b"]),
        ] {
            assert_eq!(split(script).unwrap(), expected, "{script}");
        }
        for (script, why) in [
            ("a\\G", "`\\G` is a command of the mariadb client"),
            ("'a", "a quote is never closed"),
            ("a;\n/* b", "line 2: a comment is never closed"),
            ("delimiter\n", "must be followed"),
            ("a\0;", "NUL"),
        ] {
            let error = split(script).unwrap_err();
            assert!(error.contains(why), "{script}: {error}");
        }
    }
}
