//! Rules on the text of a file: its header, its length, what must not stand in it. One line at a time.

use super::Findings;

/// From here on a file is asked whether two would be better.
const LONG: usize = 300;
/// From here on it must be split.
const TOO_LONG: usize = 500;

/// Paths of somebody's machine and addresses of package registries: neither belongs into what others check out.
/// Each is written in two halves, so that this file does not find itself.
const FOREIGN: &[[&str; 2]] = &[
    ["/wo", "rk/"],
    ["/ro", "ot/"],
    ["/ho", "me/"],
    ["/Us", "ers/"],
    ["/opt/", "wheels"],
    ["crates", ".io"],
    ["py", "pi.org"],
    ["python", "hosted.org"],
    ["registry.", "npmjs.org"],
    ["proxy.", "golang.org"],
    ["deb.", "debian.org"],
];

/// Marks of unfinished work, in two halves for the same reason.
const UNFINISHED: &[[&str; 2]] = &[["to", "do!("], ["unimpl", "emented!("], ["FIX", "ME"], ["XX", "X:"]];

/// Looks at one file.
pub fn check(path: &str, text: &str, findings: &mut Findings) {
    let rust = path.ends_with(".rs");
    if rust {
        if !text.starts_with("//!") {
            findings.wrong(format!("{path}:1: does not open with `//!`"));
        }
        let count = text.lines().count();
        // A test file is a list: it is as long as what it lists.
        if count > TOO_LONG && !path.contains("/tests/") {
            findings.wrong(format!("{path}: {count} lines, more than {TOO_LONG}"));
        } else if count > LONG {
            findings.remark(format!("{path}: {count} lines, more than {LONG}"));
        }
    }
    for (number, line) in (1..).zip(text.lines()) {
        // The lock file names the registry by its standard address.
        if path != "Cargo.lock" {
            for foreign in FOREIGN.iter().map(|halves| halves.concat()).filter(|foreign| line.contains(foreign)) {
                findings.wrong(format!("{path}:{number}: a machine's path or a registry's host: {foreign}"));
            }
            if let Some(at) = scratch_path(line) {
                findings.wrong(format!("{path}:{number}: a machine's path: {at}"));
            }
        }
        if rust {
            for mark in UNFINISHED.iter().map(|halves| halves.concat()).filter(|mark| line.contains(mark)) {
                findings.wrong(format!("{path}:{number}: unfinished: {mark}"));
            }
        }
    }
}

/// A path inside the temp folder by its fixed name: a test asks for a fresh folder instead.
fn scratch_path(line: &str) -> Option<&str> {
    let folder = ["/t", "mp/"].concat();
    let at = line.find(&folder)?;
    let before = line[..at].chars().next_back();
    // `target/…` and `$DIR/…` are not that folder.
    if before.is_some_and(|c| c.is_alphanumeric() || "}_-.*/".contains(c)) {
        return None;
    }
    let rest = &line[at..];
    rest[folder.len()..].starts_with(|c: char| c.is_ascii_lowercase()).then(|| rest.split_whitespace().next())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Findings {
        let mut findings = Findings::default();
        check(path, text, &mut findings);
        findings
    }

    #[test]
    fn a_file_opens_by_saying_what_it_is_for() {
        assert!(found("a.rs", "//! For this.\nfn a() {}\n").wrong.is_empty());
        assert!(found("a.rs", "fn a() {}\n").wrong[0].contains("does not open"));
        assert!(found("a.toml", "[package]\n").wrong.is_empty());
    }

    #[test]
    fn a_long_file_is_remarked_on_and_a_longer_one_is_wrong() {
        let lines = |count: usize| format!("//! For this.\n{}", "//\n".repeat(count - 1));
        assert!(found("a.rs", &lines(300)).remarks.is_empty());
        assert_eq!(found("a.rs", &lines(301)).remarks.len(), 1);
        assert!(found("a.rs", &lines(500)).wrong.is_empty());
        assert_eq!(found("a.rs", &lines(501)).wrong.len(), 1);
        assert!(found("crates/a/tests/it/list.rs", &lines(501)).wrong.is_empty());
    }

    #[test]
    fn machine_paths_and_registry_hosts_are_wrong_everywhere_but_in_the_lock_file() {
        for foreign in FOREIGN {
            let line = format!("see {}x\n", foreign.concat());
            assert_eq!(found("docs/a.md", &line).wrong.len(), 1, "{line}");
            assert!(found("Cargo.lock", &line).wrong.is_empty());
        }
        let scratch = ["/t", "mp/shop"].concat();
        assert_eq!(found("docs/a.md", &format!("cd {scratch}\n")).wrong.len(), 1);
        assert!(found("docs/a.md", &format!("cd target{scratch}\n")).wrong.is_empty());
    }

    #[test]
    fn unfinished_work_is_wrong() {
        for mark in UNFINISHED {
            assert_eq!(found("a.rs", &format!("//! A.\n{})\n", mark.concat())).wrong.len(), 1);
        }
    }
}
