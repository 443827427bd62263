//! What names and relative paths may look like, in both files.

/// The longest name, so that file names made of two of them fit everywhere.
const MAX_NAME: usize = 64;

/// A package's name or version: letters, digits and `.`, `_`, `-`, `+`, `~`, beginning with a letter or digit.
pub fn check_name(what: &str, text: &str) -> Result<(), String> {
    let odd = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '~')));
    if text.is_empty() {
        return Err(format!("the {what} is empty"));
    }
    if let Some(odd) = odd {
        return Err(format!(
            "the {what} `{}` holds {odd:?}: letters, digits, `.`, `_`, `-`, `+`, `~` only",
            shown(text)
        ));
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!("the {what} `{text}` must begin with a letter or a digit"));
    }
    if text.len() > MAX_NAME {
        return Err(format!("the {what} is longer than {MAX_NAME} characters"));
    }
    Ok(())
}

/// The name of a site, a database or a root: lowercase letters, digits, `-`, `_`, beginning with a letter or digit.
pub fn check_word(what: &str, text: &str) -> Result<(), String> {
    let fine = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if text.is_empty() {
        return Err(format!("the name of the {what} is empty"));
    }
    if !fine || text.starts_with(['-', '_']) {
        return Err(format!(
            "`{}` can't be the name of a {what}: lowercase letters, digits, `-` and `_`, a letter or digit first",
            shown(text)
        ));
    }
    if text.len() > MAX_NAME {
        return Err(format!("the name of the {what} is longer than {MAX_NAME} characters"));
    }
    Ok(())
}

/// A path relative to a root, tidied: no `.`, no doubled `/`; a trailing `/` stays. Refuses what would leave the root.
pub fn root_path(text: &str) -> Result<String, String> {
    let parts = relative(text)?;
    let slash = if text.ends_with('/') { "/" } else { "" };
    match parts.join("/") {
        path if path.is_empty() => Err(format!("`{}` names the root itself", shown(text))),
        path => Ok(path + slash),
    }
}

/// The elements of a relative path without `.`; refuses an absolute path, `..`, and NUL.
pub fn relative(text: &str) -> Result<Vec<&str>, String> {
    if text.is_empty() {
        return Err("the path is empty".to_owned());
    }
    if text.contains('\0') {
        return Err("a path can't hold a NUL character".to_owned());
    }
    if text.starts_with('/') {
        return Err(format!("`{}` is an absolute path; it must be relative", shown(text)));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(format!("`{}` leads outside with `..`", shown(text)));
    }
    Ok(parts)
}

/// Text from a file as a message may show it: on one line, without control characters, not endless.
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "winter-catalogue", "2026.11.1", "1.0~rc1+b2", "A_b"] {
            assert_eq!(check_name("name", good), Ok(()), "{good}");
        }
        for bad in ["", "a/b", "..", ".a", "-a", "a b", "ä", "a\u{1b}", &"x".repeat(65)] {
            assert!(check_name("name", bad).is_err(), "{bad}");
        }
        for bad in ["", "Shop", "a.b", "a/b", "-a", "_a", "a b", &"x".repeat(65)] {
            assert!(check_word("site", bad).is_err(), "{bad}");
        }
        assert_eq!(check_word("site", "shop-2_b"), Ok(()));
    }

    #[test]
    fn paths_stay_beneath_the_root() {
        assert_eq!(root_path("./a//b/./c/").as_deref(), Ok("a/b/c/"));
        assert_eq!(root_path("a..b").as_deref(), Ok("a..b"));
        for bad in ["", ".", "./", "/a", "..", "a/../b", "a/..", "a\0"] {
            assert!(root_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_message_shows_text_on_one_line() {
        assert_eq!(shown("a\n\u{1b}[31mb"), "a\\n\\u{1b}[31mb");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), 81);
    }
}
