//! Reads a statement's tokens word by word, as far as its head goes.

use std::iter::Peekable;

use super::head::Name;
use super::token::{Token, Tokens, each_token};

/// The tokens of a statement, read from its beginning.
#[derive(Clone)]
pub struct Reader<'a>(Peekable<Tokens<'a>>);

/// Reads a statement from its first token.
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

    pub fn next_if(&mut self, wanted: impl FnOnce(&Token<'a>) -> bool) -> Option<Token<'a>> {
        self.0.next_if(wanted)
    }

    /// True at the end of the statement.
    pub fn ends(&mut self) -> bool {
        self.peek().is_none_or(|token| token.is_sign(b';'))
    }

    /// A name, perhaps with its schema, and past both.
    pub fn name(&mut self) -> Option<Name> {
        let mut schema = None;
        let mut name = self.0.next()?.name()?;
        while self.takes_sign(b'.') {
            // With a database before it, the last two count.
            schema = Some(std::mem::replace(&mut name, self.0.next()?.name()?));
        }
        Some(Name { schema, name })
    }

    /// One name, or all of a list.
    pub fn names(&mut self, names: &mut Vec<Name>, list: bool) {
        while let Some(name) = self.name() {
            names.push(name);
            // The arguments of a function, which may follow.
            if list && self.peek().is_some_and(|token| token.is_sign(b'(')) {
                self.skip_parentheses();
            }
            if !(list && self.takes_sign(b',')) {
                return;
            }
            self.takes("ONLY");
        }
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
