//! The entries of `before:` and `after:`, from what is written to what is tested.

use crate::check::{Check, CheckKind};
use crate::error::PackageError;
use crate::field::Located;
use crate::load::Loader;
use crate::load_step::{one_kind, only_its_options};
use crate::manifest::CheckFile;
use crate::words::{root_path, shown};
use crate::yaml::Spot;

/// Settles a list of checks.
pub fn load_checks(loader: &Loader<'_>, checks: &[Located<CheckFile>]) -> Result<Vec<Check>, PackageError> {
    checks.iter().map(|check| load_check(loader, check)).collect()
}

fn load_check(loader: &Loader<'_>, check: &Located<CheckFile>) -> Result<Check, PackageError> {
    let file = &check.value;
    let kinds = [
        ("sql", file.sql.as_ref().map(|l| l.spot)),
        ("file", file.file.as_ref().map(|l| l.spot)),
        ("run", file.run.as_ref().map(|l| l.spot)),
    ];
    let kind = one_kind(loader, "check", check.spot, &kinds)?;
    let options: [(&str, Option<Spot>, &[&str]); 7] = [
        ("database", file.database.as_ref().map(|l| l.spot), &["sql"]),
        ("equals", file.equals.as_ref().map(|l| l.spot), &["sql"]),
        ("root", file.root.as_ref().map(|l| l.spot), &["file"]),
        ("exists", file.exists.as_ref().map(|l| l.spot), &["file"]),
        ("sha256", file.sha256.as_ref().map(|l| l.spot), &["file"]),
        ("contains", file.contains.as_ref().map(|l| l.spot), &["file"]),
        ("timeout", file.timeout.as_ref().map(|l| l.spot), &["run"]),
    ];
    only_its_options(loader, kind, &format!("a check of kind `{kind}`"), &options)?;
    let (derived, kind) = match (&file.sql, &file.file, &file.run) {
        (Some(query), _, _) => {
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
        (_, Some(path), _) => (format!("file {}", path.value.0), file_check(loader, file, path.spot, &path.value.0)?),
        (_, _, Some(command)) => {
            loader.program(command.spot, &command.value)?;
            let timeout = loader.positive("timeout", file.timeout.as_ref())?;
            (command.value.0.join(" "), CheckKind::Run { argv: command.value.0.clone(), timeout })
        }
        (None, None, None) => return Err(loader.wrong(check.spot, "this check tests nothing")),
    };
    let name = match &file.name {
        Some(name) if name.value.0.trim().is_empty() => return Err(loader.wrong(name.spot, "the name is empty")),
        Some(name) => shown(&name.value.0),
        None => shown(&derived),
    };
    Ok(Check { name, line: check.spot.line, kind, within: file.within.as_ref().map(|l| l.value.0) })
}

fn file_check(loader: &Loader<'_>, file: &CheckFile, spot: Spot, path: &str) -> Result<CheckKind, PackageError> {
    let path = root_path(path).map_err(|e| loader.wrong(spot, e))?;
    let exists = file.exists.as_ref().map(|l| l.value);
    if exists == Some(false)
        && let Some(other) = file.sha256.as_ref().or(file.contains.as_ref())
    {
        return Err(loader.wrong(other.spot, "a file that must not exist has no content to test"));
    }
    let sha256 = match &file.sha256 {
        Some(digest) if digest.value.0.len() == 64 && digest.value.0.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Some(digest.value.0.to_ascii_lowercase())
        }
        Some(digest) => return Err(loader.wrong(digest.spot, "a SHA-256 has 64 hex digits")),
        None => None,
    };
    let contains = file.contains.as_ref().map(|l| l.value.0.clone());
    let exists = exists.or_else(|| (sha256.is_none() && contains.is_none()).then_some(true));
    Ok(CheckKind::File { path, root: file.root.as_ref().map(|l| l.value.0.clone()), exists, sha256, contains })
}
