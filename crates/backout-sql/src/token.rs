//! The tokens of one SQL statement, by the rules of a dialect; never understands grammar.

use std::marker::PhantomData;

/// What differs from engine to engine. Positions are in bytes; text that is cut off ends what is open.
pub trait Dialect: Clone + Copy {
    /// Past space and comments.
    fn skip_space(bytes: &[u8], at: usize) -> usize;
    /// The token that begins with `first` at `start`, and where it ends: at an ASCII character or the end of the text.
    fn lex(bytes: &[u8], start: usize, first: u8) -> (Kind, usize);
    /// The name that a token spells; none where it cannot be one.
    fn name(kind: Kind, text: &str) -> Option<String>;
}

/// What a token is, as far as this tool needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bare word: keyword or identifier.
    Word,
    /// A quoted name.
    Quoted,
    /// A string.
    Text,
    /// A number, a string of bits or bytes, a parameter.
    Literal,
    /// One character of anything else.
    Sign(u8),
}

/// A token and where it stands in the text, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a, D> {
    pub kind: Kind,
    pub text: &'a str,
    pub start: usize,
    pub end: usize,
    dialect: PhantomData<D>,
}

impl<D: Dialect> Token<'_, D> {
    /// True for this bare word, whatever its case.
    pub fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    pub fn is_sign(&self, sign: u8) -> bool {
        self.kind == Kind::Sign(sign)
    }

    /// The name that the token spells, as the engine reads it; none where it cannot be one.
    pub fn name(&self) -> Option<String> {
        D::name(self.kind, self.text)
    }
}

/// The tokens of a text one after the other, comments and space left out.
#[derive(Clone)]
pub struct Tokens<'a, D> {
    sql: &'a str,
    at: usize,
    dialect: PhantomData<D>,
}

impl<'a, D> Tokens<'a, D> {
    pub fn of(sql: &'a str) -> Self {
        Self { sql, at: 0, dialect: PhantomData }
    }
}

impl<'a, D: Dialect> Iterator for Tokens<'a, D> {
    type Item = Token<'a, D>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.sql.as_bytes();
        self.at = D::skip_space(bytes, self.at);
        let start = self.at;
        let (kind, end) = D::lex(bytes, start, *bytes.get(start)?);
        self.at = end;
        // Never cuts a character in two: see where a token may end.
        let text = self.sql.get(start..end)?;
        Some(Token { kind, text, start, end, dialect: PhantomData })
    }
}

/// Past the bytes from `from` on that belong.
pub fn run(bytes: &[u8], from: usize, belongs: impl Fn(u8) -> bool) -> usize {
    bytes[from..].iter().position(|byte| !belongs(*byte)).map_or(bytes.len(), |length| from + length)
}

/// Past the next `end`, or the end of the text.
pub fn after(bytes: &[u8], from: usize, end: &[u8]) -> usize {
    let found = bytes[from..].windows(end.len()).position(|window| window == end);
    found.map_or(bytes.len(), |length| from + length + end.len())
}

/// Past a quoted piece whose first quote stands at `start`, a doubled quote being one inside.
pub fn quoted(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    loop {
        at = after(bytes, at, &[quote]);
        if bytes.get(at) != Some(&quote) {
            return at;
        }
        at += 1;
    }
}
