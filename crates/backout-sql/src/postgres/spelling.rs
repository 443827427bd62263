//! Definitions that say the same in two ways. PostgreSQL writes `x IN ('a', 'b')` of a varchar down as an array that is
//! cast as a whole; read back and written down again it casts each element. That is the one form that does not come back
//! to the letter (`ruleutils.c` prints the tree as it was parsed), so it is made from the list.

use std::borrow::Cow;

/// True where two definitions say the same.
pub fn is_same(one: Option<&str>, other: Option<&str>) -> bool {
    one == other || matches!((one, other), (Some(one), Some(other)) if spelled(one) == spelled(other))
}

/// The definition with `(ARRAY[a, b])::t[]` as `ARRAY[(a)::t, (b)::t]`.
pub(super) fn spelled(text: &str) -> Cow<'_, str> {
    const OPENS: &str = "(ARRAY[";
    let mut done = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(OPENS) {
        let inner = at + OPENS.len();
        let Some((elements, end)) = elements(&rest[inner..]) else { break };
        let after = &rest[inner + end..];
        let Some((kind, tail)) = after.strip_prefix(")::").and_then(|cast| cast.split_once("[]")) else {
            done += &rest[..inner];
            rest = &rest[inner..];
            continue;
        };
        let cast: Vec<String> = elements.iter().map(|element| format!("({element})::{kind}")).collect();
        done += &format!("{}ARRAY[{}]", &rest[..at], cast.join(", "));
        rest = tail;
    }
    if done.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(done + rest) }
}

/// The definition with `(x)::text = ANY ((ARRAY[a, b])::text[])` as `(x) IN (a, b)`, which alone is written down so again.
pub fn to_come_back(text: &str) -> Cow<'_, str> {
    let mut done = String::new();
    let mut rest = text;
    while let Some((at, end, word)) = next_list(rest) {
        let inner = &rest[at + end..];
        let list = elements(inner).and_then(|(_, end)| Some((end, inner[end..].strip_prefix(")::text[])")?)));
        let left = rest[..at].strip_suffix("::text").filter(|left| left.ends_with(')') && opening(left).is_some());
        match (list, left) {
            (Some((close, tail)), Some(left)) => {
                done += &format!("{left} {word} ({})", &inner[..close - 1]);
                rest = tail;
            }
            _ => {
                done += &rest[..at + end];
                rest = inner;
            }
        }
    }
    if done.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(done + rest) }
}

/// Where a comparison with an array that is cast as a whole begins, how long its head is, and what it says.
fn next_list(text: &str) -> Option<(usize, usize, &'static str)> {
    const HEADS: [(&str, &str); 2] = [(" = ANY ((ARRAY[", "IN"), (" <> ALL ((ARRAY[", "NOT IN")];
    HEADS.iter().filter_map(|(head, word)| Some((text.find(head)?, head.len(), *word))).min()
}

/// Where the bracket stands that belongs to the last one.
fn opening(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_u32, None);
    for (at, byte) in text.bytes().enumerate().rev() {
        match (byte, quote) {
            (b'\'' | b'"', None) => quote = Some(byte),
            (_, Some(open)) => quote = Some(open).filter(|open| *open != byte),
            (b')', None) => depth += 1,
            (b'(', None) if depth == 1 => return Some(at),
            (b'(', None) => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// The elements of an array up to its bracket, and where the text goes on behind that.
fn elements(text: &str) -> Option<(Vec<&str>, usize)> {
    let (mut found, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0_u32, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\'' => quoted = !quoted,
            _ if quoted => {}
            b'(' | b'[' => depth += 1,
            b']' if depth == 0 => {
                found.push(text[start..at].trim());
                return Some((found, at + 1));
            }
            b')' | b']' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_cast_as_a_whole_or_by_element() {
        let whole =
            "CHECK (((s)::text = ANY ((ARRAY['a, ]'::character varying, 'it''s'::character varying])::text[])))";
        let each =
            "CHECK (((s)::text = ANY (ARRAY[('a, ]'::character varying)::text, ('it''s'::character varying)::text])))";
        assert!(is_same(Some(whole), Some(each)));
        assert!(is_same(
            Some("n = ANY ((ARRAY[1, 2])::numeric[])"),
            Some("n = ANY (ARRAY[(1)::numeric, (2)::numeric])")
        ));
        assert!(!is_same(Some(whole), Some(&each.replace("it''s", "its"))));
        assert!(!is_same(Some(whole), None) && is_same(None, None));
    }

    #[test]
    fn what_is_made_anew_is_written_down_the_same_again() {
        let whole = "WHERE (a AND ((f(s, ')'))::text = ANY ((ARRAY['a, ]'::character varying, 'it''s'::x])::text[])) OR ((t)::text <> ALL ((ARRAY['b'::y, 'c'::y])::text[])))";
        let list =
            "WHERE (a AND ((f(s, ')')) IN ('a, ]'::character varying, 'it''s'::x)) OR ((t) NOT IN ('b'::y, 'c'::y)))";
        assert_eq!(to_come_back(whole), list);
        for text in [
            "(s = ANY ((ARRAY['a'::x])::text[]))",
            "((s)::text = ANY (ARRAY[('a'::x)::text]))",
            "((n)::numeric = ANY ((ARRAY[1, 2])::numeric[]))",
            "((s)::text = ANY ((ARRAY['a",
        ] {
            assert_eq!(to_come_back(text), text);
        }
    }

    #[test]
    fn what_is_no_such_array_stays() {
        for text in ["", "(ARRAY[", "(ARRAY[1, 2]) x", "(ARRAY['", "f(ARRAY[1, (ARRAY[2])])", "(ARRAY[1)])::int[]"] {
            assert_eq!(spelled(text), text);
        }
    }
}
