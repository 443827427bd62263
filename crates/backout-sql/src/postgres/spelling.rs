//! Definitions that say the same in two ways. PostgreSQL writes `x IN ('a', 'b')` of a varchar down as an array that is
//! cast as a whole; read back and written down again it casts each element. That is the one form that does not come back
//! to the letter (`ruleutils.c` prints the tree as it was parsed).

use std::borrow::Cow;

/// True where two definitions say the same.
pub fn is_same(one: Option<&str>, other: Option<&str>) -> bool {
    one == other || matches!((one, other), (Some(one), Some(other)) if spelled(one) == spelled(other))
}

/// The definition with `(ARRAY[a, b])::t[]` as `ARRAY[(a)::t, (b)::t]`.
fn spelled(text: &str) -> Cow<'_, str> {
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
    fn what_is_no_such_array_stays() {
        for text in ["", "(ARRAY[", "(ARRAY[1, 2]) x", "(ARRAY['", "f(ARRAY[1, (ARRAY[2])])", "(ARRAY[1)])::int[]"] {
            assert_eq!(spelled(text), text);
        }
    }
}
