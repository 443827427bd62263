//! The tokens of one SQL statement, by PostgreSQL's rules for words, quotes and comments; never understands grammar.
//!
//! Source of the rules: PostgreSQL's `scan.l` with `standard_conforming_strings` on.

pub use crate::token::Kind;
use crate::token::{self, Dialect, after, quoted, run};

/// PostgreSQL's rules: `"x"` and `U&"x"` are names; `'x'`, `E'x'`, `U&'x'` and `$$x$$` strings.
#[derive(Clone, Copy, Debug)]
pub struct Rules;

pub type Token<'a> = token::Token<'a, Rules>;
pub type Tokens<'a> = token::Tokens<'a, Rules>;

/// The tokens of a text one after the other, comments and space left out.
pub fn each_token(sql: &str) -> Tokens<'_> {
    Tokens::of(sql)
}

impl Token<'_> {
    /// The value of a plain or dollar-quoted string; none for one with escapes, and for what is no string.
    pub fn value(&self) -> Option<String> {
        if self.kind != Kind::Text {
            return None;
        }
        if let Some(plain) = self.text.strip_prefix('\'') {
            let one = plain.strip_suffix('\'').unwrap_or_default();
            return Some(one.replace("''", "'"));
        }
        let tag = self.text.get(..dollar_tag(self.text.as_bytes(), 0)?)?;
        self.text.get(tag.len()..)?.strip_suffix(tag).map(str::to_owned)
    }
}

/// Bytes that a word may begin with: all beyond ASCII count as letters.
pub fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// Bytes that a word may go on with.
pub fn is_word(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

pub fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

impl Dialect for Rules {
    fn skip_space(bytes: &[u8], mut at: usize) -> usize {
        loop {
            match (bytes.get(at), bytes.get(at + 1)) {
                (Some(space), _) if is_space(*space) => at += 1,
                (Some(b'-'), Some(b'-')) => at = run(bytes, at, |byte| byte != b'\n' && byte != b'\r'),
                (Some(b'/'), Some(b'*')) => {
                    let mut depth = 0_u32;
                    while at < bytes.len() {
                        match (bytes[at], bytes.get(at + 1)) {
                            (b'/', Some(b'*')) => (at, depth) = (at + 2, depth + 1),
                            (b'*', Some(b'/')) => (at, depth) = (at + 2, depth - 1),
                            _ => at += 1,
                        }
                        if depth == 0 {
                            break;
                        }
                    }
                }
                _ => return at,
            }
        }
    }

    fn lex(bytes: &[u8], start: usize, first: u8) -> (Kind, usize) {
        let next = |ahead: usize| bytes.get(start + ahead).copied();
        match (first, next(1), next(2)) {
            (b'\'', _, _) => (Kind::Text, quoted(bytes, start, b'\'')),
            (b'"', _, _) => (Kind::Quoted, quoted(bytes, start, b'"')),
            (b'e' | b'E', Some(b'\''), _) => (Kind::Text, escaped(bytes, start + 1)),
            (b'n' | b'N', Some(b'\''), _) => (Kind::Text, quoted(bytes, start + 1, b'\'')),
            (b'b' | b'B' | b'x' | b'X', Some(b'\''), _) => (Kind::Literal, quoted(bytes, start + 1, b'\'')),
            (b'u' | b'U', Some(b'&'), Some(b'\'')) => (Kind::Text, quoted(bytes, start + 2, b'\'')),
            (b'u' | b'U', Some(b'&'), Some(b'"')) => (Kind::Quoted, quoted(bytes, start + 2, b'"')),
            (b'$', Some(digit), _) if digit.is_ascii_digit() => {
                (Kind::Literal, run(bytes, start + 1, |byte| byte.is_ascii_digit()))
            }
            (b'$', _, _) => match dollar_tag(bytes, start) {
                Some(body) => (Kind::Text, after(bytes, body, &bytes[start..body])),
                None => (Kind::Sign(b'$'), start + 1),
            },
            (b'0'..=b'9', _, _) => (Kind::Literal, number(bytes, start)),
            (b'.', Some(digit), _) if digit.is_ascii_digit() => (Kind::Literal, number(bytes, start)),
            _ if begins_word(first) => (Kind::Word, run(bytes, start, is_word)),
            _ => (Kind::Sign(first), start + 1),
        }
    }

    /// As the server folds it. A name with Unicode escapes (`U&"…"`) is none that this tool reads: whoever needs it must
    /// refuse.
    fn name(kind: Kind, text: &str) -> Option<String> {
        match kind {
            Kind::Word => Some(text.to_ascii_lowercase()),
            Kind::Quoted if text.starts_with('"') => {
                Some(text[1..].strip_suffix('"').unwrap_or_default().replace("\"\"", "\""))
            }
            Kind::Quoted | Kind::Text | Kind::Literal | Kind::Sign(_) => None,
        }
    }
}

/// Past an `E'…'` whose quote stands at `start`, with what continues it on further lines.
fn escaped(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            None => return bytes.len(),
            Some(b'\\') => at = (at + 2).min(bytes.len()),
            Some(b'\'') if bytes.get(at + 1) == Some(&b'\'') => at += 2,
            Some(b'\'') => {
                let end = at + 1;
                let next = Rules::skip_space(bytes, end);
                let between = &bytes[end..next];
                let continues = bytes.get(next) == Some(&b'\'')
                    && between.iter().any(|byte| matches!(byte, b'\n' | b'\r'))
                    && !between.windows(2).any(|pair| pair == b"/*");
                if !continues {
                    return end;
                }
                at = next + 1;
            }
            Some(_) => at += 1,
        }
    }
}

/// Where the body of a dollar-quoted string begins, whose first `$` stands at `start`.
fn dollar_tag(bytes: &[u8], start: usize) -> Option<usize> {
    let first = *bytes.get(start + 1)?;
    let end = if begins_word(first) { run(bytes, start + 1, |byte| is_word(byte) && byte != b'$') } else { start + 1 };
    (bytes.get(start) == Some(&b'$') && bytes.get(end) == Some(&b'$')).then_some(end + 1)
}

fn number(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        let hexadecimal = bytes[start] == b'0' && matches!(bytes.get(start + 1), Some(b'x' | b'X'));
        let sign = matches!(byte, b'+' | b'-') && at > start && matches!(bytes[at - 1], b'e' | b'E') && !hexadecimal;
        if !(byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'.' || sign) {
            break;
        }
        at += 1;
    }
    at.max(start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        each_token(sql).map(|token| token.text).collect()
    }

    #[test]
    fn comments_nest_and_fall_away() {
        assert_eq!(texts("a -- b\n/* c /* d */ e */ f/**/g --"), ["a", "f", "g"]);
        assert_eq!(texts("a -- b\rc"), ["a", "c"]);
        assert_eq!(texts("a /* never /* closed */"), ["a"]);
        assert_eq!(texts("-1 - 2 / 3"), ["-", "1", "-", "2", "/", "3"]);
    }

    #[test]
    fn strings_of_every_kind_hold_together() {
        for text in
            ["'it''s'", r"E'it\'s'", "e'a'\n 'b\\';'", "E'a' -- c\n'b'", "U&'\\0061'", "$$;'$$", "$a$ $$ $b$ $a$"]
        {
            assert_eq!(texts(&format!("{text} z")), [text, "z"], "{text}");
        }
        assert_eq!(texts("E'a' 'b'"), ["E'a'", "'b'"]);
        assert_eq!(texts("E'a' /*\n*/ 'b'"), ["E'a'", "'b'"]);
        assert_eq!(texts("a$b$ c"), ["a$b$", "c"]);
        assert_eq!(texts("$1+$12"), ["$1", "+", "$12"]);
        assert_eq!(texts("tE'\\'"), ["tE", "'\\'"]);
        let values: Vec<_> = each_token("'it''s' $x$a'b$x$ $$$$ E'q' w").map(|token| token.value()).collect();
        assert_eq!(values, [Some("it's".to_owned()), Some("a'b".to_owned()), Some(String::new()), None, None]);
    }

    #[test]
    fn names_fold_unless_quoted() {
        let names: Vec<_> = each_token(r#"Foo "Foo" "a""b" Über U&"\0061" 'x' 1"#).map(|token| token.name()).collect();
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(names, [some("foo"), some("Foo"), some("a\"b"), some("Über"), None, None, None]);
    }

    #[test]
    fn numbers_are_one_token() {
        assert_eq!(texts("1.5e-3+.5 0x1F-1 1_000"), ["1.5e-3", "+", ".5", "0x1F", "-", "1", "1_000"]);
    }

    #[test]
    fn what_is_cut_off_is_no_panic() {
        for sql in [
            "'", "\"", "x'", "E'", "E'\\", "'a''", "/*", "--", "\"ü", "1e", "é'", "$", "$a", "$$", "$é$ü", "U&", "u&\"",
        ] {
            for token in each_token(sql) {
                let _both = (token.name(), token.value());
            }
        }
    }
}
