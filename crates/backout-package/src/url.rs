//! Where a database is, from the URL in `site.yaml`. Never shows a URL in an error: it may hold a password.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::percent;
use crate::site::DatabaseUrl;
use crate::url_mariadb;
use crate::url_postgres;
use crate::words::shown;

/// Looks a variable of the environment up.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What is wrong with a URL, and the way out.
pub type UrlError = (String, Option<String>);

/// Reads a URL; relative paths are taken from `base`, which is absolute. `${NAME}` is put in after the parsing, as it
/// stands in the environment.
pub fn parse(text: &str, base: &Path, environment: Environment<'_>) -> Result<DatabaseUrl, UrlError> {
    let example =
        || Some("write sqlite:PATH, postgresql://USER@HOST/DATABASE or mariadb://USER@HOST/DATABASE".to_owned());
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err(("this is not a database URL".to_owned(), example()));
    };
    match scheme {
        "sqlite" => sqlite(rest, base, environment),
        "postgres" | "postgresql" => Ok(DatabaseUrl::Postgres(url_postgres::parse(rest, base, environment)?)),
        "mysql" | "mariadb" => Ok(DatabaseUrl::Mariadb(url_mariadb::parse(rest, base, environment)?)),
        // What stands before the colon may be anything, a password too, unless it looks like a scheme.
        _ if scheme.len() <= 20 && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) => {
            Err((format!("unknown kind of database `{scheme}:`{SPOKEN}"), example()))
        }
        _ => Err((format!("this is not a database URL{SPOKEN}"), example())),
    }
}

const SPOKEN: &str = "; this version speaks to SQLite, PostgreSQL and MariaDB";

fn sqlite(rest: &str, base: &Path, environment: Environment<'_>) -> Result<DatabaseUrl, UrlError> {
    let plain = |what: &str| Err((what.to_owned(), None));
    // `sqlite:///path` is an empty host and a path; `sqlite://path` would make the path's first part a host.
    let rest = match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') || path.starts_with("${") => path,
        Some(_) => {
            let hint = "write sqlite:PATH for a relative path, sqlite:/PATH for an absolute one";
            return Err((
                "an SQLite URL has no host: what follows `//` must be an absolute path".to_owned(),
                Some(hint.to_owned()),
            ));
        }
        None => rest,
    };
    // The name of a variable holds neither.
    if rest.contains(['?', '#']) {
        let what = "an SQLite URL takes no `?` or `#` part";
        return Err((what.to_owned(), Some("in a file's name write %3F for `?` and %23 for `#`".to_owned())));
    }
    let path = filled(rest, environment)?;
    if path.is_empty() {
        return plain("the URL names no file");
    }
    if path.as_bytes().contains(&0) {
        return plain("a path can't hold a NUL character");
    }
    if path.as_bytes() == b":memory:" {
        return plain("a database in memory is gone when the tool ends; name a file");
    }
    Ok(DatabaseUrl::Sqlite { path: base.join(path) })
}

/// Decodes what is written, and puts in what is not.
pub fn filled(text: &str, environment: Environment<'_>) -> Result<OsString, UrlError> {
    let mut out = OsString::new();
    let mut rest = text;
    loop {
        let (literal, variable) = match rest.split_once("${") {
            Some((literal, after)) => (literal, Some(after)),
            None => (rest, None),
        };
        let decoded = percent::decode(literal).ok_or_else(|| {
            ("a `%` must be followed by two hex digits".to_owned(), Some("write %25 for `%`".to_owned()))
        })?;
        out.push(OsStr::from_bytes(&decoded));
        let Some(after) = variable else { return Ok(out) };
        let Some((name, after)) = after.split_once('}') else {
            return Err(("`${` without its `}`".to_owned(), None));
        };
        let fine = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.starts_with(|c: char| c.is_ascii_digit());
        if name.is_empty() || !fine {
            return Err((format!("`${{{}}}` is not the name of a variable", shown(name)), None));
        }
        match environment(name) {
            Some(value) => out.push(OsString::from_vec(value.into_vec())),
            None => {
                return Err((format!("the environment has no `{name}`"), Some(format!("set it: {name}=… backout …"))));
            }
        }
        rest = after;
    }
}

/// `USER:PASSWORD@`, as far as there are any.
pub fn write_login(out: &mut String, user: Option<&str>, password: Option<&str>) {
    if user.is_none() && password.is_none() {
        return;
    }
    out.push_str(&percent::encode_all(user.unwrap_or_default()));
    if let Some(password) = password {
        out.push(':');
        out.push_str(&percent::encode_all(password));
    }
    out.push('@');
}

/// The path, which is the database's name, and all other parameters behind `?`.
pub fn write_rest(out: &mut String, mut rest: BTreeMap<&str, &str>) {
    out.push('/');
    out.push_str(&percent::encode_all(rest.remove("dbname").unwrap_or_default()));
    for (at, (name, value)) in rest.into_iter().enumerate() {
        out.push(if at == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        // A path stays legible.
        out.push_str(&percent::encode_all(value).replace("%2f", "/"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "DIR" => Some(OsString::from("/srv/100%25?#")),
            "EMPTY" => Some(OsString::new()),
            _ => None,
        };
        parse(text, Path::new("/etc/shop"), &environment).map(|url| url.without_password()).map_err(|(what, _)| what)
    }

    #[test]
    fn urls_name_files_and_servers() {
        for (text, expected) in [
            ("sqlite:shop.sqlite", "/etc/shop/shop.sqlite"),
            ("sqlite:../a b.db", "/etc/shop/../a b.db"),
            ("sqlite:/var/x.db", "/var/x.db"),
            ("sqlite:///var/x.db", "/var/x.db"),
            ("sqlite:a%20b%3F.db", "/etc/shop/a b?.db"),
            ("sqlite:${DIR}/x.db", "/srv/100%25?#/x.db"),
            ("postgres://joe:hunter2@h/d", "postgresql://joe@h/d"),
            ("postgresql:///d", "postgresql:///d"),
            ("mysql://joe:hunter2@h/d", "mariadb://joe@h/d"),
        ] {
            assert_eq!(path(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_urls_are_refused_without_being_shown() {
        for (text, why) in [
            ("mysql://u:${NONE}@h/d", "the environment has no `NONE`"),
            ("oracle:x", "unknown kind of database `oracle:`; this version speaks to SQLite, PostgreSQL and MariaDB"),
            ("hunter2hunter2hunter2!:x", "this is not a database URL"),
            ("shop.sqlite", "this is not a database URL"),
            ("sqlite:", "names no file"),
            ("sqlite:${EMPTY}", "names no file"),
            ("sqlite://var/x.db", "has no host"),
            ("sqlite::memory:", "in memory"),
            ("sqlite:a?mode=ro", "takes no `?`"),
            ("sqlite:100%.db", "two hex digits"),
            ("sqlite:${NONE}", "the environment has no `NONE`"),
            ("sqlite:${NONE", "without its `}`"),
            ("sqlite:${a b}", "not the name of a variable"),
            ("sqlite:%00", "NUL"),
        ] {
            let error = path(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }
}
