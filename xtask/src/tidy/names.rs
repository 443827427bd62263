//! The glossary's banned words in public names. It looks at what a reader of the crate sees, not at local names.

use super::Findings;

/// Words that the glossary replaces, as they stand between underscores or capitals. A database's own `rollback` and
/// `transaction` are allowed.
const BANNED: &[&str] =
    &["migration", "migrations", "manager", "util", "utils", "helper", "helpers", "revert", "abort"];

/// What a public item is introduced by.
const KINDS: &[&str] = &["fn", "struct", "enum", "trait", "type", "mod", "const", "static", "union", "macro_rules!"];

/// Looks at the file's own name and at every public name in it.
pub fn check(path: &str, text: &str, findings: &mut Findings) {
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    if let Some(word) = banned(stem) {
        findings.wrong(format!("{path}: `{word}` in a file's name is not in the glossary"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let Some(name) = public_name(line) else { continue };
        if let Some(word) = banned(name) {
            findings.wrong(format!("{path}:{number}: `{word}` in `{name}` is not in the glossary"));
        }
    }
}

/// The name that a line makes public, of an item or of a field.
fn public_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let rest = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) "))?;
    let mut words = rest.split_whitespace().peekable();
    while let Some(word) = words.next() {
        if KINDS.contains(&word) {
            // `const fn` and `unsafe fn` go on to the next word.
            match words.peek() {
                Some(next) if KINDS.contains(next) => continue,
                Some(next) => return Some(identifier(next)),
                None => return None,
            }
        }
        if word.ends_with(':') || word.contains(':') {
            return Some(identifier(word));
        }
        if !matches!(word, "async" | "unsafe" | "extern" | "\"C\"") {
            return None;
        }
    }
    None
}

fn identifier(word: &str) -> &str {
    let end = word.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(word.len());
    &word[..end]
}

/// The first banned word of a name in snake_case or CamelCase.
fn banned(name: &str) -> Option<&'static str> {
    let mut words: Vec<String> = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if c == '_' || c == '-' || (c.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        was_lower = c.is_lowercase() || c.is_ascii_digit();
        if c.is_alphanumeric() {
            words.last_mut()?.extend(c.to_lowercase());
        }
    }
    BANNED.iter().find(|word| words.iter().any(|found| found == **word)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check(path, text, &mut findings);
        findings.wrong
    }

    #[test]
    fn a_banned_word_in_a_public_name_is_wrong() {
        for line in [
            "pub fn run_migration() {}",
            "    pub(crate) struct LockManager;",
            "pub const fn helper() {}",
            "pub mod utils;",
            "    pub abort: bool,",
            "pub async fn revert_all() {}",
        ] {
            assert_eq!(found("a.rs", line).len(), 1, "{line}");
        }
        assert_eq!(found("src/util.rs", "").len(), 1);
    }

    #[test]
    fn other_names_pass() {
        for line in [
            "pub fn undo() {}",
            "fn helper() {}",
            "pub use other::Manager;",
            "pub struct Aborted;",
            "pub fn rollback() {}",
            "// pub fn abort()",
            "pub utility: u8,",
        ] {
            assert!(found("a.rs", line).is_empty(), "{line}");
        }
    }
}
