//! Where a rehearsal is played, from the `scratch:` of a site's file. Never makes any of it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ::url::Url;

use crate::error::PackageError;
use crate::field::{Located, Named, Text};
use crate::places;
use crate::site::{DatabaseConfig, DatabaseUrl, Reader, RootConfig};
use crate::site_file::{RootPlaceFile, ScratchFile};
use crate::url;
use crate::words::shown;

/// What a rehearsal may use beside what it makes itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// Databases that are filled instead of ones made on the live one's server.
    pub databases: Vec<DatabaseConfig>,
    /// Where the copies of roots are laid, by the names of the roots. Absolute, apart from every root.
    pub roots: Vec<(String, PathBuf)>,
    /// What commands find in their environment besides. None: no command may run.
    pub environment: Option<Vec<(String, OsString)>>,
    /// Directories that are laid over the copies of roots, by the names of the roots.
    pub files: Vec<(String, PathBuf)>,
    /// Scheme, host and port of what serves the scratch. None: no check by HTTP may run.
    pub url: Option<String>,
}

impl Scratch {
    /// The URL of a check with the scratch in the place of the live site; none where nothing serves the scratch.
    pub fn url_for(&self, live: &str) -> Option<String> {
        let base = Url::parse(self.url.as_deref()?).ok()?;
        let mut url = Url::parse(live).ok()?;
        url.set_scheme(base.scheme()).ok()?;
        url.set_host(base.host_str()).ok()?;
        url.set_port(base.port()).ok()?;
        Some(url.into())
    }
}

impl Reader<'_> {
    /// `databases` and `roots` are the live ones: a scratch is none of them, nor in one.
    pub(crate) fn scratch(
        &self,
        written: &ScratchFile,
        databases: &[DatabaseConfig],
        roots: &[RootConfig],
        state: &Path,
    ) -> Result<Scratch, PackageError> {
        let names: Vec<&str> = roots.iter().map(|root| root.name.as_str()).collect();
        let environment = written.environment.as_ref().map(|written| self.variables(written)).transpose()?;
        let mut files = Vec::new();
        for (name, path) in &written.files.0 {
            self.known("root", name, &names)?;
            files.push((name.value.clone(), self.path(path)?));
        }
        Ok(Scratch {
            databases: self.scratch_databases(written, databases)?,
            roots: self.scratch_roots(&written.roots, roots, state)?,
            environment,
            files,
            url: written.url.as_ref().map(|url| self.base_url(url)).transpose()?,
        })
    }

    fn known(&self, kind: &str, name: &Located<String>, known: &[&str]) -> Result<(), PackageError> {
        if known.contains(&name.value.as_str()) {
            return Ok(());
        }
        Err(self.wrong(name.spot, format!("the site has no {kind} `{}`", shown(&name.value))))
    }

    fn scratch_databases(
        &self,
        written: &ScratchFile,
        live: &[DatabaseConfig],
    ) -> Result<Vec<DatabaseConfig>, PackageError> {
        let names: Vec<&str> = live.iter().map(|database| database.name.as_str()).collect();
        let mut configs: Vec<DatabaseConfig> = Vec::new();
        for (name, file) in &written.databases.0 {
            self.known("database", name, &names)?;
            let url = url::parse(&file.url.value.0, self.base, self.environment)
                .map_err(|(what, hint)| PackageError::Wrong { place: file.url.spot.in_file(self.file), what, hint })?;
            let is_of = |other: &DatabaseConfig| std::mem::discriminant(&other.url) == std::mem::discriminant(&url);
            if !live.iter().any(|other| other.name == name.value && is_of(other)) {
                let what = format!("the database `{}` of the site is of another engine", name.value);
                return Err(self.wrong(file.url.spot, what));
            }
            if matches!(url, DatabaseUrl::Sqlite { .. }) {
                let what = "the scratch of an SQLite database is always a copy in the state directory";
                return Err(self.wrong(file.url.spot, what));
            }
            if let Some(other) = live.iter().chain(&configs).find(|other| same_place(&other.url, &url)) {
                let what = format!("this is the database `{}`, and a rehearsal overwrites its scratch", other.name);
                return Err(self.wrong(file.url.spot, what));
            }
            configs.push(DatabaseConfig { name: name.value.clone(), url });
        }
        Ok(configs)
    }

    fn scratch_roots(
        &self,
        written: &Named<RootPlaceFile>,
        live: &[RootConfig],
        state: &Path,
    ) -> Result<Vec<(String, PathBuf)>, PackageError> {
        let names: Vec<&str> = live.iter().map(|root| root.name.as_str()).collect();
        let mut found: Vec<(String, PathBuf)> = Vec::new();
        for (name, file) in &written.0 {
            self.known("root", name, &names)?;
            let path = self.path(&file.path)?;
            let real = places::real(&path);
            let mut taken: Vec<PathBuf> = live.iter().map(|root| places::real(&root.path)).collect();
            taken.push(places::real(state));
            taken.extend(found.iter().map(|(_, path)| places::real(path)));
            if let Some(other) = taken.iter().find(|other| real.starts_with(other) || other.starts_with(&real)) {
                let what = format!("a rehearsal empties its scratch, and {} is in use", other.display());
                return Err(self.wrong(file.path.spot, what));
            }
            found.push((name.value.clone(), path));
        }
        Ok(found)
    }

    fn variables(&self, written: &Named<Located<Text>>) -> Result<Vec<(String, OsString)>, PackageError> {
        let mut seen = HashMap::new();
        for (name, value) in &written.0 {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.value.is_empty() || !name.value.chars().all(fits) {
                return Err(self.wrong(name.spot, format!("`{}` is not the name of a variable", shown(&name.value))));
            }
            if name.value.starts_with("BACKOUT_") {
                return Err(self.wrong(name.spot, "`BACKOUT_…` is what the tool itself tells commands"));
            }
            if value.value.0.contains('\0') {
                return Err(self.wrong(value.spot, "a variable can't hold a NUL character"));
            }
            seen.insert(name.value.clone(), OsString::from(&value.value.0));
        }
        let mut all: Vec<_> = seen.into_iter().collect();
        all.sort();
        Ok(all)
    }

    fn base_url(&self, written: &Located<Text>) -> Result<String, PackageError> {
        let text = &written.value.0;
        let bare = Url::parse(text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.path() == "/"
                && url.query().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        });
        match bare {
            Some(_) => Ok(text.clone()),
            None => Err(self.wrong(written.spot, "this is scheme, host and port alone, such as http://127.0.0.1:8080")),
        }
    }
}

/// By other names it may be the same all the same: then what is there keeps it from being taken for a scratch.
fn same_place(one: &DatabaseUrl, other: &DatabaseUrl) -> bool {
    let key = |url: &DatabaseUrl| match url {
        DatabaseUrl::Sqlite { path } => vec![places::real(path).display().to_string()],
        DatabaseUrl::Postgres(url) => ["host", "hostaddr", "port", "service", "dbname"]
            .map(|key| url.parameters().get(key).cloned().unwrap_or_default())
            .to_vec(),
        DatabaseUrl::Mariadb(url) => ["host", "socket", "port", "dbname"]
            .map(|key| url.parameters().get(key).cloned().unwrap_or_default())
            .to_vec(),
    };
    key(one) == key(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_goes_where_the_scratch_is_served() {
        let scratch = Scratch { url: Some("http://127.0.0.1:8080".to_owned()), ..Scratch::default() };
        let url = scratch.url_for("https://shop.example:8443/a%20b?c=d").unwrap();
        assert_eq!(url, "http://127.0.0.1:8080/a%20b?c=d");
        let scratch = Scratch { url: Some("https://scratch.example".to_owned()), ..Scratch::default() };
        assert_eq!(scratch.url_for("http://shop.example:81/").unwrap(), "https://scratch.example/");
        assert_eq!(Scratch::default().url_for("http://shop.example/"), None);
    }
}
