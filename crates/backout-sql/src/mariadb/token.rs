//! The tokens of one MariaDB statement, by the rules of its lexer for words, quotes and comments; never understands
//! grammar.
//!
//! Source of the rules: MariaDB's `sql_lex.cc`, without `ANSI_QUOTES` and `NO_BACKSLASH_ESCAPES`: a script that sets one
//! of these is refused.

use super::for_one;
pub use crate::token::Kind;
use crate::token::{self, Dialect, after, run};

/// MariaDB's rules: `` `x` `` is a name; `'x'` and `"x"` are strings, in which `\` takes the next character as it is.
#[derive(Clone, Copy, Debug)]
pub struct Rules;

pub type Token<'a> = token::Token<'a, Rules>;
pub type Tokens<'a> = token::Tokens<'a, Rules>;

pub fn each_token(sql: &str) -> Tokens<'_> {
    Tokens::of(sql)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

impl Dialect for Rules {
    fn skip_space(bytes: &[u8], mut at: usize) -> usize {
        loop {
            let line = |at| run(bytes, at, |byte| byte != b'\n');
            match (bytes.get(at), bytes.get(at + 1), bytes.get(at + 2)) {
                (Some(space), _, _) if space.is_ascii_whitespace() || *space == 0x0b => at += 1,
                (Some(b'#'), _, _) => at = line(at),
                (Some(b'-'), Some(b'-'), next) if next.is_none_or(|next| *next <= b' ') => at = line(at),
                (Some(b'/'), Some(b'*'), _) => at = after(bytes, at + 2, b"*/"),
                _ => return at,
            }
        }
    }

    fn lex(bytes: &[u8], start: usize, first: u8) -> (Kind, usize) {
        let next = bytes.get(start + 1).copied();
        match (first, next) {
            (b'\'' | b'"', _) => (Kind::Text, string(bytes, start)),
            (b'`', _) => (Kind::Quoted, token::quoted(bytes, start, b'`')),
            (b'b' | b'B' | b'x' | b'X', Some(b'\'')) => (Kind::Literal, string(bytes, start + 1)),
            (b'n' | b'N', Some(b'\'')) => (Kind::Text, string(bytes, start + 1)),
            (b'0'..=b'9', _) => number(bytes, start),
            _ if is_word(first) => (Kind::Word, run(bytes, start, is_word)),
            _ => (Kind::Sign(first), start + 1),
        }
    }

    fn name(kind: Kind, text: &str) -> Option<String> {
        match kind {
            Kind::Word => Some(text.to_owned()),
            Kind::Quoted => Some(text.get(1..)?.strip_suffix('`').unwrap_or_default().replace("``", "`")),
            Kind::Text | Kind::Literal | Kind::Sign(_) => None,
        }
    }
}

/// Past a string whose first quote stands at `start`.
pub fn string(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match *byte {
            b'\\' => at += 2,
            byte if byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A number, or a word that begins with a digit.
fn number(bytes: &[u8], start: usize) -> (Kind, usize) {
    let digits = run(bytes, start, |byte| byte.is_ascii_digit());
    let end = run(bytes, start, is_word);
    let text = &bytes[digits..end];
    let is_number = text.is_empty()
        || (text[0].eq_ignore_ascii_case(&b'e') && text[1..].iter().all(u8::is_ascii_digit))
        || (digits == start + 1 && bytes[start] == b'0' && matches!(text[0], b'x' | b'b'));
    (if is_number { Kind::Literal } else { Kind::Word }, end)
}

/// The statement as this server runs it: what stands in a comment that it executes is bare, all else of the comment is
/// blank, and so are settings for it alone that need not be known. Every byte stays where it is.
///
/// `version` as in `10.11.6` → 101106. Of MySQL's comments MariaDB leaves those from 50700 to 99999 alone.
pub fn bare(sql: &str, version: u32) -> String {
    let bytes = sql.as_bytes();
    let mut out = bytes.to_vec();
    let (mut at, mut open) = (0, 0_u32);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1), bytes.get(at + 2), bytes.get(at + 3)) {
            (b'\'' | b'"', ..) => at = string(bytes, at),
            (b'`', ..) => at = token::quoted(bytes, at, b'`'),
            (b'/', Some(b'*'), Some(b'!'), _) => at = executed(bytes, at, at + 3, false, version, &mut out, &mut open),
            (b'/', Some(b'*'), Some(b'M'), Some(b'!')) => {
                at = executed(bytes, at, at + 4, true, version, &mut out, &mut open);
            }
            (b'*', Some(b'/'), ..) if open > 0 => {
                out[at..at + 2].fill(b' ');
                open -= 1;
                at += 2;
            }
            // A comment that the server reads over must not be read again as what it holds.
            (b'/', Some(b'*'), ..) if open == 0 => at = after(bytes, at + 2, b"*/"),
            (b'#', ..) => at = run(bytes, at, |byte| byte != b'\n'),
            (b'-', Some(b'-'), next, _) if next.is_none_or(|next| *next <= b' ') => {
                at = run(bytes, at, |byte| byte != b'\n');
            }
            _ => at += 1,
        }
    }
    let text = String::from_utf8(out).unwrap_or_default();
    match for_one::begin(&text) {
        Some(begin) => " ".repeat(begin) + &text[begin..],
        None => text,
    }
}

/// Past the head of an executed comment whose version begins at `from`, or past all of it.
fn executed(bytes: &[u8], at: usize, from: usize, own: bool, version: u32, out: &mut [u8], open: &mut u32) -> usize {
    let digits = run(bytes, from, |byte| byte.is_ascii_digit()).min(from + 6);
    let digits = if digits - from >= 5 { digits } else { from };
    let wanted = std::str::from_utf8(&bytes[from..digits]).ok().and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    if wanted <= version && (own || !(50_700..=99_999).contains(&wanted)) {
        out[at..digits].fill(b' ');
        *open += 1;
        return digits;
    }
    let mut end = digits;
    let mut depth = 1;
    while end < bytes.len() && depth > 0 {
        match (bytes[end], bytes.get(end + 1)) {
            (b'/', Some(b'*')) => (depth, end) = (depth + 1, end + 2),
            (b'*', Some(b'/')) => (depth, end) = (depth - 1, end + 2),
            _ => end += 1,
        }
    }
    out[at..end].fill(b' ');
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sql: &str) -> String {
        each_token(&bare(sql, 101_106)).map(|token| token.text.to_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tokens_are_those_of_the_server() {
        for (sql, expected) in [
            ("a--1 -- x\nb#c\n/* d */ e", "a - - 1 b e"),
            (r#"'it\'s' "a""b" `c``d` x'4a' @v @@w"#, r#"'it\'s' "a""b" `c``d` x'4a' @ v @ @ w"#),
            ("1e5 1a .5 0x1F t.2b", "1e5 1a . 5 0x1F t . 2b"),
            ("/*!40101 SET a=1 */", "SET a = 1"),
            ("/*!50701 no */ /*!999999 no */ /*M!100100 yes */ /*M!110000 no /* x */ no */ z", "yes z"),
            ("/*! a */ '/*!b*/' /* c */", "a '/*!b*/'"),
            ("select 1 /* it's */ + 1", "select 1 + 1"),
        ] {
            assert_eq!(words(sql), expected, "{sql}");
        }
        assert_eq!(bare("/*!40101 a */ü", 101_106), "         a   ü");
    }
}
