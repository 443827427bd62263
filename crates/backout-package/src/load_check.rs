//! The entries of `before:` and `after:`, from what is written to what is tested.

use std::time::Duration;

use regex::Regex;
use url::Url;

use crate::check::{Check, CheckKind, HttpCheck};
use crate::error::PackageError;
use crate::field::{Located, Named, Text};
use crate::load::Loader;
use crate::load_step::{one_kind, only_its_options};
use crate::manifest::{CheckFile, TlsFile};
use crate::words::{root_path, shown};
use crate::yaml::Spot;

/// How long an answer is waited for, unless the check says otherwise.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// How many redirects are followed, unless the check says otherwise.
const REDIRECTS: u32 = 10;

/// Settles a list of checks.
pub fn load_checks(loader: &Loader<'_>, checks: &[Located<CheckFile>]) -> Result<Vec<Check>, PackageError> {
    checks.iter().map(|check| load_check(loader, check)).collect()
}

fn load_check(loader: &Loader<'_>, check: &Located<CheckFile>) -> Result<Check, PackageError> {
    let file = &check.value;
    let kinds = [
        ("http", file.http.as_ref().map(|l| l.spot)),
        ("sql", file.sql.as_ref().map(|l| l.spot)),
        ("definition", file.definition.as_ref().map(|l| l.spot)),
        ("file", file.file.as_ref().map(|l| l.spot)),
        ("run", file.run.as_ref().map(|l| l.spot)),
    ];
    let kind = one_kind(loader, "check", check.spot, &kinds)?;
    let first = |named: &Named<Located<Text>>| named.0.first().map(|(name, _)| name.spot);
    let options: [(&str, Option<Spot>, &[&str]); 13] = [
        ("database", file.database.as_ref().map(|l| l.spot), &["sql", "definition"]),
        ("equals", file.equals.as_ref().map(|l| l.spot), &["sql"]),
        ("root", file.root.as_ref().map(|l| l.spot), &["file"]),
        ("exists", file.exists.as_ref().map(|l| l.spot), &["file", "definition"]),
        ("sha256", file.sha256.as_ref().map(|l| l.spot), &["file", "definition"]),
        ("contains", file.contains.as_ref().map(|l| l.spot), &["file", "http"]),
        ("status", file.status.as_ref().map(|l| l.spot), &["http"]),
        ("matches", file.matches.as_ref().map(|l| l.spot), &["http"]),
        ("header", first(&file.header), &["http"]),
        ("json", first(&file.json), &["http"]),
        ("redirects", file.redirects.as_ref().map(|l| l.spot), &["http"]),
        ("tls", file.tls.as_ref().map(|l| l.spot), &["http"]),
        ("timeout", file.timeout.as_ref().map(|l| l.spot), &["run", "http"]),
    ];
    only_its_options(loader, kind, &format!("a check of kind `{kind}`"), &options)?;
    let (derived, kind) = match (&file.http, &file.sql, &file.definition, &file.file, &file.run) {
        (Some(url), ..) => (format!("{} answers", url.value.0), CheckKind::Http(http_check(loader, file, url)?)),
        (_, Some(query), ..) => {
            if query.value.0.trim().is_empty() {
                return Err(loader.wrong(query.spot, "the query is empty"));
            }
            let Some(equals) = &file.equals else {
                return Err(loader.wrong(check.spot, "a check of kind `sql` needs `equals`"));
            };
            let kind = CheckKind::Sql {
                query: query.value.0.clone(),
                database: file.database.as_ref().map(|l| l.value.0.clone()),
                equals: equals.value.0.clone(),
            };
            (query.value.0.split_whitespace().collect::<Vec<_>>().join(" "), kind)
        }
        (_, _, Some(object), ..) => {
            (format!("definition of {}", object.value.0), definition_check(loader, file, object)?)
        }
        (.., Some(path), _) => (format!("file {}", path.value.0), file_check(loader, file, path.spot, &path.value.0)?),
        (.., Some(command)) => {
            loader.program(command.spot, &command.value)?;
            let timeout = loader.positive("timeout", file.timeout.as_ref())?;
            (command.value.0.join(" "), CheckKind::Run { argv: command.value.0.clone(), timeout })
        }
        (None, None, None, None, None) => return Err(loader.wrong(check.spot, "this check tests nothing")),
    };
    let name = match &file.name {
        Some(name) if name.value.0.trim().is_empty() => return Err(loader.wrong(name.spot, "the name is empty")),
        Some(name) => shown(&name.value.0),
        None => shown(&derived),
    };
    Ok(Check { name, line: check.spot.line, kind, within: file.within.as_ref().map(|l| l.value.0) })
}

/// What must be there, and what it must be: from `exists` and `sha256`, the latter in lowercase.
fn presence(loader: &Loader<'_>, file: &CheckFile) -> Result<(Option<bool>, Option<String>), PackageError> {
    let exists = file.exists.as_ref().map(|l| l.value);
    if exists == Some(false)
        && let Some(other) = file.sha256.as_ref().or(file.contains.as_ref())
    {
        return Err(loader.wrong(other.spot, "what must not exist has no content to test"));
    }
    let sha256 = match &file.sha256 {
        Some(digest) if digest.value.0.len() == 64 && digest.value.0.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Some(digest.value.0.to_ascii_lowercase())
        }
        Some(digest) => return Err(loader.wrong(digest.spot, "a SHA-256 has 64 hex digits")),
        None => None,
    };
    let exists = exists.or_else(|| (sha256.is_none() && file.contains.is_none()).then_some(true));
    Ok((exists, sha256))
}

fn definition_check(loader: &Loader<'_>, file: &CheckFile, object: &Located<Text>) -> Result<CheckKind, PackageError> {
    let named = object.value.0.split_once(' ').filter(|(kind, name)| !kind.is_empty() && !name.trim().is_empty());
    if named.is_none() {
        return Err(loader.wrong(object.spot, "this is not a kind and a name such as `table product`"));
    }
    let (exists, sha256) = presence(loader, file)?;
    let database = file.database.as_ref().map(|l| l.value.0.clone());
    Ok(CheckKind::Definition { object: object.value.0.clone(), database, exists, sha256 })
}

fn file_check(loader: &Loader<'_>, file: &CheckFile, spot: Spot, path: &str) -> Result<CheckKind, PackageError> {
    let path = root_path(path).map_err(|e| loader.wrong(spot, e))?;
    let (exists, sha256) = presence(loader, file)?;
    let contains = file.contains.as_ref().map(|l| l.value.0.clone());
    Ok(CheckKind::File { path, root: file.root.as_ref().map(|l| l.value.0.clone()), exists, sha256, contains })
}

fn http_check(loader: &Loader<'_>, file: &CheckFile, url: &Located<Text>) -> Result<HttpCheck, PackageError> {
    let text = url.value.0.as_str();
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(loader.wrong(url.spot, "a URL holds no spaces; write %20"));
    }
    match Url::parse(text) {
        Ok(parsed) if !matches!(parsed.scheme(), "http" | "https") => {
            return Err(loader.wrong(url.spot, "this is not a URL such as https://shop.example/page"));
        }
        Ok(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            return Err(loader.wrong(url.spot, "a package is kept as it is, so its URLs can't hold a password"));
        }
        Ok(_) => {}
        Err(error) => {
            let what = format!("this is not a URL such as https://shop.example/page: {error}");
            return Err(loader.wrong(url.spot, what));
        }
    }
    let status = match &file.status {
        Some(status) => match status.value.0.parse::<u16>() {
            Ok(number @ 100..600) => Some(number),
            _ => return Err(loader.wrong(status.spot, "a status is a number of three digits such as 200")),
        },
        None => None,
    };
    if let Some(pattern) = &file.matches
        && let Err(error) = Regex::new(&pattern.value.0)
    {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        return Err(loader.wrong(pattern.spot, format!("this is not a regular expression: {why}")));
    }
    for (name, _) in &file.header.0 {
        let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.value.is_empty() || !name.value.chars().all(fits) {
            return Err(loader.wrong(name.spot, format!("`{}` is not the name of a header", shown(&name.value))));
        }
    }
    for (pointer, _) in &file.json.0 {
        if !pointer.value.is_empty() && !pointer.value.starts_with('/') {
            let what = format!("`{}` is not a JSON pointer such as /items/0/name", shown(&pointer.value));
            return Err(loader.wrong(pointer.spot, what));
        }
    }
    let redirects = file.redirects.as_ref().map(|l| l.value);
    let is_redirect = status.is_some_and(|status| (300..400).contains(&status));
    let pairs = |named: &Named<Located<Text>>| {
        named.0.iter().map(|(name, value)| (name.value.clone(), value.value.0.clone())).collect()
    };
    Ok(HttpCheck {
        url: text.to_owned(),
        status,
        contains: file.contains.as_ref().map(|l| l.value.0.clone()),
        matches: file.matches.as_ref().map(|l| l.value.0.clone()),
        header: pairs(&file.header),
        json: pairs(&file.json),
        redirects: redirects.unwrap_or(if is_redirect { 0 } else { REDIRECTS }),
        verified: file.tls.as_ref().is_none_or(|l| l.value == TlsFile::Verified),
        timeout: loader.positive("timeout", file.timeout.as_ref())?.unwrap_or(HTTP_TIMEOUT),
    })
}
