//! Cuts a stream of bytes at the semicolons that end statements; see [`super::split`]. Never looks at what they mean.

use super::split::SplitError;
use super::token::{begins_word, is_space, is_word};

/// A statement as it was cut out, and the line of its first token.
pub struct Cut {
    pub line: u32,
    pub sql: String,
}

/// PostgreSQL's own limit for a message, and so for a statement.
const LONGEST: usize = 0x3fff_ffff;

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
    /// After one `:`, which may begin a variable of psql; before it stood an operand, or not.
    Colon {
        after_operand: bool,
    },
    /// After the `$` that stands at this byte of the statement and may begin a dollar quote.
    Dollar(usize),
    LineComment,
    /// So deep in comments; the byte before may begin or end one.
    BlockComment(u32, u8),
    /// In a string or a quoted name.
    Quote(u8),
    /// In an `E'…'`; after a backslash, or not.
    Escape {
        backslash: bool,
    },
    /// In a dollar quote whose tag stands here in the statement.
    DollarQuote {
        start: usize,
        end: usize,
    },
    /// In a variable of psql, whose colon stands at this byte of the statement.
    Variable(usize),
    /// In a command of psql, which ends with its line.
    Command(usize),
}

/// How an `E'…'` that has just been closed may yet go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reopen {
    #[default]
    No,
    /// A quote right here was a doubled one.
    AtOnce,
    /// Only space followed so far; a quote on another line continues it.
    SameLine,
    NextLine,
}

/// What psql keeps to know the body of a function (`identifiers`, `begin_depth`).
#[derive(Default)]
struct Body {
    /// How many words the statement has so far.
    words: usize,
    /// The first letters of those of the first four that may begin CREATE [OR REPLACE] FUNCTION or PROCEDURE.
    first: [u8; 4],
    depth: u32,
}

#[derive(Default)]
pub struct Cutter {
    lex: Lex,
    statement: Vec<u8>,
    reopen: Reopen,
    body: Body,
    parentheses: u32,
    brackets: u32,
    /// The line read now, from 0; and those where the statement and the open quote or comment began.
    line: u32,
    first: u32,
    opened: u32,
    /// How much of a byte order mark was read; 3 once it is behind us.
    mark: usize,
}

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

impl Cutter {
    /// The line read now, from 1.
    pub fn line(&self) -> u32 {
        self.line.saturating_add(1)
    }

    /// Counts lines that others read.
    pub fn skipped_lines(&mut self, lines: u32) {
        self.line = self.line.saturating_add(lines);
    }

    /// Takes one byte, which may complete a statement.
    pub fn take(&mut self, byte: u8) -> Result<Option<Cut>, SplitError> {
        if self.mark < 3 {
            if byte == BYTE_ORDER_MARK[self.mark] {
                self.mark += 1;
                return Ok(None);
            }
            let partial = self.mark;
            self.mark = 3;
            for left in &BYTE_ORDER_MARK[..partial] {
                self.step(*left)?;
            }
        }
        if self.step(byte)? { self.cut().map(Some) } else { Ok(None) }
    }

    fn step(&mut self, byte: u8) -> Result<bool, SplitError> {
        if byte == 0 {
            return Err(SplitError::Nul { line: self.line() });
        }
        let done = match self.lex {
            Lex::LineComment => {
                if matches!(byte, b'\n' | b'\r') {
                    self.lex = Lex::Plain;
                    self.next_line();
                }
                self.keep(byte);
                false
            }
            Lex::BlockComment(depth, before) => {
                self.lex = match (before, byte) {
                    (b'/', b'*') => Lex::BlockComment(depth.saturating_add(1), 0),
                    (b'*', b'/') if depth == 1 => Lex::Plain,
                    (b'*', b'/') => Lex::BlockComment(depth - 1, 0),
                    _ => Lex::BlockComment(depth, byte),
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
            Lex::Escape { backslash } => {
                self.lex = match byte {
                    b'\'' if !backslash => {
                        self.reopen = Reopen::AtOnce;
                        Lex::Plain
                    }
                    _ => Lex::Escape { backslash: byte == b'\\' && !backslash },
                };
                self.keep(byte);
                false
            }
            Lex::DollarQuote { start, end } => {
                self.keep(byte);
                let text = &self.statement;
                // The end must not overlap the beginning: `$$$` opens, and does not close.
                if byte == b'$' && text.len() >= end + (end - start) && text.ends_with(&text[start..end]) {
                    self.lex = Lex::Plain;
                }
                false
            }
            Lex::Variable(start) => {
                if matches!(byte, b'\n' | b';') {
                    return Err(self.variable(start));
                }
                self.statement.push(byte);
                let quote = self.statement[start + 1];
                let ends = if is_word(quote) { !is_word(byte) } else { byte == quote || byte == b'}' };
                if ends {
                    return Err(self.variable(start));
                }
                false
            }
            Lex::Command(start) => {
                if byte == b'\n' {
                    self.command(start)?;
                } else {
                    self.statement.push(byte);
                }
                false
            }
            Lex::Plain | Lex::Word(_) | Lex::Dash | Lex::Slash | Lex::Colon { .. } | Lex::Dollar(_) => {
                self.plain(byte)?
            }
        };
        if byte == b'\n' {
            self.line = self.line.saturating_add(1);
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

    fn next_line(&mut self) {
        if self.reopen != Reopen::No {
            self.reopen = Reopen::NextLine;
        }
    }

    fn plain(&mut self, byte: u8) -> Result<bool, SplitError> {
        match (self.lex, byte) {
            (Lex::Word(_), _) if is_word(byte) => {
                self.statement.push(byte);
                return Ok(false);
            }
            (Lex::Word(start), _) => {
                let word = &self.statement[start..];
                if byte == b'\'' && word.eq_ignore_ascii_case(b"e") {
                    self.opened = self.line;
                    self.lex = Lex::Escape { backslash: false };
                    self.token(byte);
                    return Ok(false);
                }
                self.body.word(word, self.parentheses);
                self.lex = Lex::Plain;
            }
            (Lex::Dash, b'-') | (Lex::Slash, b'*') => {
                self.opened = self.line;
                // The sign before was not kept if no statement has begun.
                self.keep(byte);
                self.lex = if byte == b'-' { Lex::LineComment } else { Lex::BlockComment(1, 0) };
                if byte == b'*' {
                    self.reopen = Reopen::No;
                }
                return Ok(false);
            }
            (Lex::Dash | Lex::Slash, _) => {
                if self.statement.is_empty() {
                    self.token(if self.lex == Lex::Dash { b'-' } else { b'/' });
                }
                self.reopen = Reopen::No;
                self.lex = Lex::Plain;
            }
            (Lex::Colon { .. }, b':' | b'=') => {
                self.token(byte);
                self.lex = Lex::Plain;
                return Ok(false);
            }
            (Lex::Colon { after_operand }, _) => {
                // `a[1:n]` and `json_object('a':b)` are SQL, and so they stay with psql, which knows no such variable.
                let named = is_word(byte) && byte != b'$' && !byte.is_ascii_digit() || matches!(byte, b'\'' | b'"');
                if byte == b'{' || named && !after_operand && self.brackets == 0 {
                    self.lex = Lex::Variable(self.statement.len() - 1);
                    self.token(byte);
                    return Ok(false);
                }
                self.lex = Lex::Plain;
            }
            (Lex::Dollar(start), _) => {
                let tag = &self.statement[start + 1..];
                let belongs = if tag.is_empty() { begins_word(byte) } else { is_word(byte) };
                if byte == b'$' {
                    self.token(byte);
                    self.opened = self.line;
                    self.lex = Lex::DollarQuote { start, end: self.statement.len() };
                    return Ok(false);
                }
                if belongs {
                    self.token(byte);
                    return Ok(false);
                }
                self.lex = Lex::Plain;
            }
            _ => {}
        }
        self.fresh(byte)
    }

    /// The first byte of a token, or what stands between tokens.
    fn fresh(&mut self, byte: u8) -> Result<bool, SplitError> {
        let reopen = std::mem::take(&mut self.reopen);
        match byte {
            b'-' | b'/' => {
                // A comment to the end of the line keeps a string open for what continues it; else it is no comment.
                self.reopen = if byte == b'-' && reopen != Reopen::No { reopen.max_space() } else { Reopen::No };
                self.lex = if byte == b'-' { Lex::Dash } else { Lex::Slash };
                self.keep(byte);
            }
            b'\'' => {
                self.token(byte);
                self.opened = self.line;
                self.lex = match reopen {
                    Reopen::AtOnce | Reopen::NextLine => Lex::Escape { backslash: false },
                    Reopen::No | Reopen::SameLine => Lex::Quote(b'\''),
                };
            }
            b'"' => {
                self.token(byte);
                self.opened = self.line;
                self.lex = Lex::Quote(b'"');
            }
            b'$' => {
                self.lex = Lex::Dollar(self.statement.len());
                self.token(byte);
            }
            b'\\' => {
                self.lex = Lex::Command(self.statement.len());
                self.token(byte);
            }
            b':' => {
                let operand = |last: &u8| is_word(*last) || matches!(last, b'\'' | b'"' | b')' | b']');
                self.lex = Lex::Colon { after_operand: self.statement.last().is_some_and(operand) };
                self.token(byte);
            }
            b';' => {
                let ends = self.parentheses == 0 && self.body.depth == 0;
                if ends && self.statement.is_empty() {
                    return Ok(false);
                }
                self.token(byte);
                return Ok(ends);
            }
            b'(' => {
                self.parentheses = self.parentheses.saturating_add(1);
                self.token(byte);
            }
            b')' => {
                self.parentheses = self.parentheses.saturating_sub(1);
                self.token(byte);
            }
            b'[' => {
                self.brackets = self.brackets.saturating_add(1);
                self.token(byte);
            }
            b']' => {
                self.brackets = self.brackets.saturating_sub(1);
                self.token(byte);
            }
            _ if is_space(byte) => {
                self.keep(byte);
                self.reopen = reopen.max_space();
                if matches!(byte, b'\n' | b'\r') {
                    self.next_line();
                }
            }
            _ if begins_word(byte) => {
                self.lex = Lex::Word(self.statement.len());
                self.token(byte);
            }
            _ => self.token(byte),
        }
        Ok(false)
    }

    /// A command of psql, read to the end of its line. Those two only guard what `pg_dump` wrote.
    fn command(&mut self, start: usize) -> Result<(), SplitError> {
        let text = String::from_utf8_lossy(&self.statement[start..]).trim_end().to_owned();
        let name = text.split_whitespace().next().unwrap_or_default();
        if start > 0 || !matches!(name, r"\restrict" | r"\unrestrict") {
            // Without what follows it, which may be a password.
            let end = text[1..].find(|letter: char| !letter.is_alphanumeric()).map_or(text.len(), |at| at.max(1) + 1);
            let command = text.get(..end).unwrap_or(&text).to_owned();
            return Err(SplitError::PsqlCommand { line: self.line(), command });
        }
        self.statement.clear();
        self.lex = Lex::Plain;
        Ok(())
    }

    fn variable(&self, start: usize) -> SplitError {
        let text = String::from_utf8_lossy(&self.statement[start..]);
        let ends = |letter: char| letter.is_whitespace() || matches!(letter, ')' | ',' | ';');
        let variable = text.split(ends).next().unwrap_or_default().to_owned();
        SplitError::PsqlVariable { line: self.line(), variable }
    }

    /// Hands the complete statement out.
    fn cut(&mut self) -> Result<Cut, SplitError> {
        let line = self.first.saturating_add(1);
        let bytes = std::mem::take(&mut self.statement);
        (self.body, self.parentheses, self.brackets) = (Body::default(), 0, 0);
        let sql = String::from_utf8(bytes).map_err(|_| SplitError::NotUtf8 { line })?;
        Ok(Cut { line, sql })
    }

    /// The end of the script: what is left is the last statement.
    pub fn end(&mut self) -> Result<Option<Cut>, SplitError> {
        match self.lex {
            Lex::Command(start) => self.command(start)?,
            Lex::Variable(start) => return Err(self.variable(start)),
            _ => {}
        }
        let what = match self.lex {
            Lex::Quote(b'\'') | Lex::Escape { .. } => Some("a string"),
            Lex::Quote(_) => Some("a quoted name"),
            Lex::DollarQuote { .. } => Some("a dollar-quoted string"),
            Lex::BlockComment(..) => Some("a comment"),
            _ => None,
        };
        if let Some(what) = what {
            return Err(SplitError::Open { line: self.opened + 1, what });
        }
        if self.statement.is_empty() && matches!(self.lex, Lex::Dash | Lex::Slash) {
            self.token(if self.lex == Lex::Dash { b'-' } else { b'/' });
        }
        self.lex = Lex::Plain;
        while self.statement.last().is_some_and(|byte| is_space(*byte)) {
            self.statement.pop();
        }
        if self.statement.is_empty() { Ok(None) } else { self.cut().map(Some) }
    }
}

impl Reopen {
    /// After space on the same line.
    fn max_space(self) -> Self {
        match self {
            Reopen::AtOnce => Reopen::SameLine,
            Reopen::No | Reopen::SameLine | Reopen::NextLine => self,
        }
    }
}

impl Body {
    fn word(&mut self, word: &[u8], parentheses: u32) {
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        if let Some(first) = self.first.get_mut(self.words)
            && ["create", "function", "procedure", "or", "replace"].into_iter().any(is)
        {
            *first = word[0].to_ascii_lowercase();
        }
        self.words = self.words.saturating_add(1);
        let is_routine = matches!(self.first, [b'c', b'f' | b'p', _, _] | [b'c', b'o', b'r', b'f' | b'p']);
        if !is_routine || parentheses > 0 {
            return;
        }
        if is("begin") || is("case") && self.depth > 0 {
            self.depth += 1;
        } else if is("end") {
            self.depth = self.depth.saturating_sub(1);
        }
    }
}
