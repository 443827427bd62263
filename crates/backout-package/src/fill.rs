//! Placeholders in the arguments of commands: `{root.web}`, `{database.main}`. Knows their form, not their values.

use std::ffi::OsString;

/// A placeholder that names nothing on this site.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{{{kind}.{name}}}` names no {kind} of this site")]
pub struct UnknownPlaceholder {
    /// `root` or `database`.
    pub kind: String,
    pub name: String,
}

/// Puts in what `lookup(kind, name)` gives for every `{kind.name}` in `text`, where kind is `root` or `database` and
/// the name is made of lowercase letters, digits, `-` and `_`. Any other brace stays as it is, so JSON, awk programs and
/// shell text pass unharmed. What is put in is not looked at again.
pub fn fill(text: &str, lookup: &dyn Fn(&str, &str) -> Option<OsString>) -> Result<OsString, UnknownPlaceholder> {
    let mut out = OsString::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        out.push(before);
        match placeholder(from) {
            Some((kind, name, length)) => {
                let value = lookup(kind, name)
                    .ok_or_else(|| UnknownPlaceholder { kind: kind.to_owned(), name: name.to_owned() })?;
                out.push(value);
                rest = &from[length..];
            }
            None => {
                out.push("{");
                rest = &from[1..];
            }
        }
    }
    out.push(rest);
    Ok(out)
}

/// The placeholders in `text`, each as kind and name, for a look before anything runs.
pub fn placeholders(text: &str) -> Vec<(&str, &str)> {
    text.match_indices('{').filter_map(|(at, _)| placeholder(&text[at..])).map(|(kind, name, _)| (kind, name)).collect()
}

/// The placeholder that `text` begins with: its kind, its name, its length in bytes with both braces.
fn placeholder(text: &str) -> Option<(&str, &str, usize)> {
    let inner = text.strip_prefix('{')?;
    let (inner, _) = inner.split_once('}')?;
    let (kind, name) = inner.split_once('.')?;
    let known = matches!(kind, "root" | "database");
    let named = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    (known && named).then_some((kind, name, inner.len() + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(kind: &str, name: &str) -> Option<OsString> {
        match (kind, name) {
            ("root", "web") => Some("/srv/{root.web}".into()),
            ("database", "main") => Some("/srv/main.sqlite".into()),
            _ => None,
        }
    }

    #[test]
    fn placeholders_are_filled_once_and_other_braces_stay() {
        let fill = |text: &str| fill(text, &site).map(|filled| filled.into_string().unwrap());
        assert_eq!(
            fill("{root.web}/index.php:{database.main}").as_deref(),
            Ok("/srv/{root.web}/index.php:/srv/main.sqlite")
        );
        for text in [
            "{}",
            "{",
            "{print $1}",
            r#"{"root.web": {"a": 1}}"#,
            "${HOME}",
            "{root.}",
            "{user.web}",
            "ä{ö}",
            "{root.web",
        ] {
            assert_eq!(fill(text).as_deref(), Ok(text));
        }
        assert_eq!(fill("{{root.web}}").as_deref(), Ok("{/srv/{root.web}}"));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_says_it() {
        let error = fill("x{root.wb}", &site).unwrap_err();
        assert_eq!(error.to_string(), "`{root.wb}` names no root of this site");
        assert_eq!(placeholders("a{root.wb}{x}{database.main}"), [("root", "wb"), ("database", "main")]);
    }
}
