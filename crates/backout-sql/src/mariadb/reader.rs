//! Reads a statement's tokens word by word, as far as its head goes.

use std::iter::Peekable;

use super::token::{Token, Tokens, each_token};

/// A name as it stands in a statement, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub database: Option<String>,
    pub name: String,
    pub start: usize,
    pub end: usize,
}

/// The tokens of a statement, read from its beginning.
#[derive(Clone)]
pub struct Reader<'a>(Peekable<Tokens<'a>>);

/// Reads a bare statement from its first token.
pub fn reader(sql: &str) -> Reader<'_> {
    Reader(each_token(sql).peekable())
}

impl<'a> Reader<'a> {
    pub fn peek(&mut self) -> Option<Token<'a>> {
        self.0.peek().copied()
    }

    /// Reads these words, where they come next; else nothing.
    pub fn takes(&mut self, words: &str) -> bool {
        let mut ahead = self.0.clone();
        let all = words.split(' ').all(|word| ahead.next().is_some_and(|token| token.is(word)));
        if all {
            self.0 = ahead;
        }
        all
    }

    pub fn takes_sign(&mut self, sign: u8) -> bool {
        self.0.next_if(|token| token.is_sign(sign)).is_some()
    }

    /// True at the end of the statement.
    pub fn ends(&mut self) -> bool {
        self.peek().is_none()
    }

    /// A name, perhaps with its database, and past both.
    pub fn name(&mut self) -> Option<Name> {
        let first = self.0.next()?;
        let name = first.name()?;
        if !self.takes_sign(b'.') {
            return Some(Name { database: None, name, start: first.start, end: first.end });
        }
        let second = self.0.next()?;
        Some(Name { database: Some(name), name: second.name()?, start: first.start, end: second.end })
    }

    /// A list of names.
    pub fn names(&mut self) -> Option<Vec<Name>> {
        let mut names = vec![self.name()?];
        while self.takes_sign(b',') {
            names.push(self.name()?);
        }
        Some(names)
    }

    /// Past a parenthesis that opens here and all that it holds.
    pub fn skip_parentheses(&mut self) {
        let mut depth = 0_u32;
        while let Some(token) = self.peek() {
            if token.is_sign(b'(') {
                depth += 1;
            } else if token.is_sign(b')') {
                depth = depth.saturating_sub(1);
            }
            if depth == 0 && !token.is_sign(b')') {
                return;
            }
            self.0.next();
            if depth == 0 {
                return;
            }
        }
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.0.next()
    }
}
