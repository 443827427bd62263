//! MariaDB's option files (`my.cnf`), as its client reads them: what a URL leaves open of how to get in.
//!
//! Source: MariaDB's documentation, "Configuring MariaDB with Option Files". A file that all may write to is passed over, as the
//! client does; one that cannot be read, too.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The files that hold for everybody, in the order of reading; that of the user comes after them.
const FILES: [&str; 2] = ["/etc/my.cnf", "/etc/mysql/my.cnf"];
/// The groups that hold for every client.
const GROUPS: [&str; 3] = ["client", "client-server", "client-mariadb"];
/// What is taken of them, by the names of a URL's parts.
const OPTIONS: [&str; 9] =
    ["connect-timeout", "host", "password", "port", "socket", "ssl-ca", "ssl-cert", "ssl-key", "user"];
/// Files include others no deeper than that.
const DEEPEST: usize = 10;

/// What the option files say, by the names of a URL's parts; what is said later counts. `home`: the user's directory.
pub fn read(home: Option<OsString>) -> BTreeMap<String, String> {
    let of_user = home.map(|home| Path::new(&home).join(".my.cnf"));
    let mut found = BTreeMap::new();
    for file in FILES.into_iter().map(PathBuf::from).chain(of_user) {
        read_file(&file, 0, &mut found);
    }
    found
}

/// Puts what a URL leaves open into its parts.
pub fn complete(parts: &mut BTreeMap<String, String>, options: &BTreeMap<String, String>) {
    let is_local = |parts: &BTreeMap<String, String>| {
        parts.get("host").is_none_or(|host| host == "localhost") && !parts.contains_key("port")
    };
    let take = |parts: &mut BTreeMap<String, String>, name: &str| {
        if let (false, Some(value)) = (parts.contains_key(name), options.get(name)) {
            parts.insert(name.to_owned(), value.clone());
        }
    };
    for name in ["connect-timeout", "password", "ssl-ca", "ssl-cert", "ssl-key", "ssl-mode", "user"] {
        take(parts, name);
    }
    if !parts.contains_key("socket") {
        take(parts, "host");
    }
    // A port is for TCP, and a socket for this machine: what the one says of where the server is, the other must not turn round.
    if is_local(parts) {
        take(parts, "socket");
    } else if !parts.contains_key("socket") {
        take(parts, "port");
    }
}

fn read_file(file: &Path, depth: usize, found: &mut BTreeMap<String, String>) {
    let may_be_read = fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o002 == 0);
    let Some(text) = may_be_read.then(|| fs::read(file).ok()).flatten() else { return };
    let mut is_ours = false;
    for line in String::from_utf8_lossy(&text).lines().map(str::trim) {
        if let Some(directive) = line.strip_prefix('!') {
            include(directive, file, depth, found);
        } else if let Some(group) = line.strip_prefix('[') {
            is_ours = group.split(']').next().is_some_and(|group| GROUPS.contains(&group.trim()));
        } else if is_ours && !line.is_empty() && !line.starts_with(['#', ';']) {
            option(line, found);
        }
    }
}

fn include(directive: &str, file: &Path, depth: usize, found: &mut BTreeMap<String, String>) {
    let Some((what, path)) = directive.split_once(char::is_whitespace).filter(|_| depth < DEEPEST) else { return };
    let path = file.parent().unwrap_or(Path::new("/")).join(path.trim());
    match what {
        "include" => read_file(&path, depth + 1, found),
        "includedir" => {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
            let mut files: Vec<PathBuf> =
                entries.filter(|path| path.extension().map(OsString::from) == Some("cnf".into())).collect();
            files.sort();
            files.iter().for_each(|file| read_file(file, depth + 1, found));
        }
        _ => {}
    }
}

/// `name`, or `name = value`; `-` and `_` are the same in a name.
fn option(line: &str, found: &mut BTreeMap<String, String>) {
    let (name, value) = line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value.trim())));
    let name = name.trim().replace('_', "-");
    let name = name.strip_prefix("loose-").unwrap_or(&name);
    let is_on = !matches!(value, Some("0" | "off" | "OFF" | "false" | "FALSE"));
    match (name, value) {
        ("ssl-verify-server-cert", _) if is_on => {
            drop(found.insert("ssl-mode".to_owned(), "verify-identity".to_owned()))
        }
        ("skip-ssl", _) if is_on => drop(found.insert("ssl-mode".to_owned(), "disabled".to_owned())),
        ("ssl", _) if !is_on => drop(found.insert("ssl-mode".to_owned(), "disabled".to_owned())),
        (name, Some(value)) if OPTIONS.contains(&name) => drop(found.insert(name.to_owned(), unquoted(value))),
        _ => {}
    }
}

/// A value without its quotes and what is escaped in it; outside of quotes a comment ends it.
fn unquoted(value: &str) -> String {
    let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let inner = match quote {
        Some(quote) => value.get(1..).and_then(|rest| rest.rfind(quote).map(|end| &rest[..end])).unwrap_or(value),
        None => value.split(" #").next().unwrap_or(value).trim_end(),
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('b') => out.push('\u{8}'),
            Some('s') => out.push(' '),
            Some(c @ ('\\' | '\'' | '"')) => out.push(c),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn home(files: &[(&str, &str)]) -> (tempfile::TempDir, BTreeMap<String, String>) {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = read(Some(home.path().as_os_str().to_owned()));
        (home, found)
    }

    #[test]
    fn groups_quotes_comments_and_includes() {
        let (_home, found) = home(&[
            (
                ".my.cnf",
                "# password = no\n[mysqld]\nport=1\n[client]\nuser = joe   # who\npassword='p#a\\'s \"s'\n; host = no\n\
                 ssl_ca=/ca.pem\nssl-verify-server-cert\n!include more/one\n!includedir more\n",
            ),
            ("more/one", "[client-mariadb]\nconnect_timeout=7\nhost=db.example\n"),
            ("more/b.cnf", "[client]\nport = 3308\n"),
            ("more/a.cnf", "[client]\nport = 3307\nhost=a.example\n"),
            ("more/c.txt", "[client]\nport = 9\n"),
        ]);
        for (name, value) in [
            ("user", "joe"),
            ("password", "p#a's \"s"),
            ("ssl-ca", "/ca.pem"),
            ("ssl-mode", "verify-identity"),
            ("connect-timeout", "7"),
            ("host", "a.example"),
            ("port", "3308"),
        ] {
            assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn a_file_that_all_may_write_to_says_nothing() {
        let (home, found) = home(&[(".my.cnf", "[client]\nuser=nobody-of-this-machine\n")]);
        assert_eq!(found["user"], "nobody-of-this-machine");
        fs::set_permissions(home.path().join(".my.cnf"), fs::Permissions::from_mode(0o666)).unwrap();
        let found = read(Some(home.path().as_os_str().to_owned()));
        assert_ne!(found.get("user").map(String::as_str), Some("nobody-of-this-machine"));
    }

    #[test]
    fn files_that_include_each_other_end() {
        let (_home, found) = home(&[(".my.cnf", "[client]\nuser=a\n!include .my.cnf\n")]);
        assert_eq!(found["user"], "a");
    }

    #[test]
    fn a_url_says_where_and_the_files_the_rest() {
        let options =
            parts(&[("host", "db"), ("port", "3307"), ("socket", "/s"), ("user", "joe"), ("password", "secret")]);
        let completed = |pairs: &[(&str, &str)], options: &BTreeMap<String, String>| {
            let mut parts = parts(pairs);
            complete(&mut parts, options);
            parts.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(completed(&[], &options), "host=db password=secret port=3307 user=joe");
        assert_eq!(completed(&[("host", "x"), ("user", "u")], &options), "host=x password=secret port=3307 user=u");
        assert_eq!(completed(&[("host", "x"), ("port", "1")], &options), "host=x password=secret port=1 user=joe");
        assert_eq!(completed(&[("host", "localhost")], &options), "host=localhost password=secret socket=/s user=joe");
        assert_eq!(completed(&[("socket", "/t")], &options), "password=secret socket=/t user=joe");
        let local = parts(&[("port", "3306"), ("socket", "/s")]);
        assert_eq!(completed(&[("user", "u")], &local), "socket=/s user=u");
        assert_eq!(completed(&[("host", "x"), ("user", "u")], &local), "host=x port=3306 user=u");
    }
}
