//! The tokens of one SQL statement, by SQLite's rules for words, quotes and comments; never understands grammar.
//!
//! Source of the rules: SQLite's `tokenize.c`.

pub use crate::token::Kind;
use crate::token::{self, Dialect, Tokens, after, quoted, run};

/// SQLite's rules: `"x"`, `[x]` and `` `x` `` are names, and so is `'x'` where only that makes sense.
#[derive(Clone, Copy, Debug)]
pub struct Rules;

pub type Token<'a> = token::Token<'a, Rules>;

/// The tokens of a text, comments and space left out.
pub fn tokens(sql: &str) -> Vec<Token<'_>> {
    each_token(sql).collect()
}

/// The tokens one after the other, for those who need only the first few.
pub fn each_token(sql: &str) -> Tokens<'_, Rules> {
    Tokens::of(sql)
}

/// Bytes that words are made of (`IdChar` in SQLite): all beyond ASCII count.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

impl Dialect for Rules {
    fn skip_space(bytes: &[u8], mut at: usize) -> usize {
        loop {
            match (bytes.get(at), bytes.get(at + 1)) {
                (Some(space), _) if space.is_ascii_whitespace() || *space == 0x0b => at += 1,
                (Some(b'-'), Some(b'-')) => at = run(bytes, at, |byte| byte != b'\n'),
                (Some(b'/'), Some(b'*')) => {
                    at += 2;
                    while at < bytes.len() && !(bytes[at] == b'*' && bytes.get(at + 1) == Some(&b'/')) {
                        at += 1;
                    }
                    at = (at + 2).min(bytes.len());
                }
                _ => return at,
            }
        }
    }

    fn lex(bytes: &[u8], start: usize, first: u8) -> (Kind, usize) {
        match first {
            b'\'' => (Kind::Text, quoted(bytes, start, b'\'')),
            b'"' | b'`' => (Kind::Quoted, quoted(bytes, start, first)),
            b'[' => (Kind::Quoted, after(bytes, start + 1, b"]")),
            b'x' | b'X' if bytes.get(start + 1) == Some(&b'\'') => (Kind::Literal, after(bytes, start + 2, b"'")),
            b'0'..=b'9' => (Kind::Literal, number(bytes, start)),
            b'.' if bytes.get(start + 1).is_some_and(u8::is_ascii_digit) => (Kind::Literal, number(bytes, start)),
            b'?' | b':' | b'@' | b'#' => (Kind::Literal, run(bytes, start + 1, is_word)),
            _ if is_word(first) => (Kind::Word, run(bytes, start, is_word)),
            _ => (Kind::Sign(first), start + 1),
        }
    }

    fn name(kind: Kind, text: &str) -> Option<String> {
        let inner = || text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
        match kind {
            Kind::Word => Some(text.to_owned()),
            Kind::Quoted if text.starts_with('[') => Some(inner().to_owned()),
            Kind::Quoted | Kind::Text => {
                let quote = &text[..1];
                Some(inner().replace(&quote.repeat(2), quote))
            }
            Kind::Literal | Kind::Sign(_) => None,
        }
    }
}

fn number(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        let exponent_sign = matches!(byte, b'+' | b'-')
            && matches!(bytes[at - 1], b'e' | b'E')
            && !(bytes[start] == b'0' && matches!(bytes.get(start + 1), Some(b'x' | b'X')));
        if !(is_word(*byte) || *byte == b'.' || exponent_sign && at > start) {
            break;
        }
        at += 1;
    }
    at
}

/// `"name"`, with quotes inside doubled.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        tokens(sql).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_space_fall_away() {
        assert_eq!(texts("a -- b\n/* c */ d/**/e --"), ["a", "d", "e"]);
        assert_eq!(texts("a /* never closed"), ["a"]);
        assert_eq!(texts("-1 - 2 / 3"), ["-", "1", "-", "2", "/", "3"]);
    }

    #[test]
    fn quotes_hold_together() {
        assert_eq!(
            texts("'it''s' \"a\"\"b\" [c]d `e``f` x'00'"),
            ["'it''s'", "\"a\"\"b\"", "[c]", "d", "`e``f`", "x'00'"]
        );
        let names: Vec<_> = tokens("'it''s' \"a\"\"b\" [c c] `e``f` Ünder").iter().map(Token::name).collect();
        assert_eq!(names, ["it's", "a\"b", "c c", "e`f", "Ünder"].map(|name| Some(name.to_owned())));
    }

    #[test]
    fn numbers_and_parameters_are_one_token() {
        assert_eq!(texts("1.5e-3+.5 0x1F-1 ?1 :a @b"), ["1.5e-3", "+", ".5", "0x1F", "-", "1", "?1", ":a", "@b"]);
    }

    #[test]
    fn what_is_cut_off_is_no_panic() {
        for sql in ["'", "\"", "[", "x'", "'a''", "/*", "--", "\"ü", "1e", "é'"] {
            let _count = tokens(sql).len();
        }
    }
}
