//! A site as the engine sees it: which databases and roots, where the state lies. Never connects to any of them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use backout_model::backup::{Keep, is_remote};

use crate::alert::{self, Alert, WebhookFormat};
use crate::decode::decode;
use crate::error::{PackageError, Place};
use crate::field::{Located, Text};
use crate::places;
use crate::scratch::Scratch;
use crate::secret::Secret;
use crate::site_file::{AlertFile, BackupFile, KeepFile, RetentionFile, SiteFile, TrustFile, WebhookFormatFile};
use crate::url::{self, Environment};
use crate::url_mariadb::MariadbUrl;
use crate::url_postgres::PostgresUrl;
use crate::words::{check_word, root_path, shown};
use crate::yaml::{self, Spot};

/// The name of a site's file.
pub const SITE_FILE: &str = "site.yaml";
/// Where the state lies beside it, unless the file says otherwise.
const STATE: &str = ".backout";
/// Where backups go in the state directory, unless the file says otherwise.
const BACKUPS: &str = "backups";

/// Where packages are deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Absolute.
    pub file: PathBuf,
    /// Lowercase letters, digits, `-`, `_`.
    pub name: String,
    /// In the order of the file; names are unique.
    pub databases: Vec<DatabaseConfig>,
    /// In the order of the file; names are unique, no root lies inside another.
    pub roots: Vec<RootConfig>,
    /// Absolute, outside every root. Need not exist yet.
    pub state: PathBuf,
    pub maintenance: Option<Maintenance>,
    pub backup: Option<BackupConfig>,
    /// In the order of the file; see [`Site::can_alert`].
    pub alerts: Vec<Alert>,
    /// What keeps somebody from being told.
    pub lacking: Option<Lacking>,
    pub retention: Retention,
    /// Each deployment writes its record at its end.
    pub record: bool,
    pub trust: Option<Trust>,
    pub scratch: Scratch,
}

/// A variable that an alert needs and the environment does not have: a matter for who alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    place: Place,
    what: String,
    hint: Option<String>,
}

/// Where full backups go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupConfig {
    /// An absolute path, or a place on another machine as it is written.
    pub repository: String,
    /// Absolute.
    pub password_file: PathBuf,
    pub keep: Keep,
}

/// Which packages may be deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// One without a signature may not.
    pub require_signature: bool,
    /// Absolute paths of files of public SSH keys.
    pub keys: Vec<PathBuf>,
    /// The file of the private key that signs records.
    pub record_key: Option<PathBuf>,
}

/// Which deployments stay undoable: those that either of the two keeps. Neither: all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The last so many.
    pub keep: Option<u64>,
    /// Those that began within so many days.
    pub days: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseConfig {
    pub name: String,
    pub url: DatabaseUrl,
}

/// Where a database is, by engine.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    Sqlite {
        /// Absolute.
        path: PathBuf,
    },
    Postgres(PostgresUrl),
    Mariadb(MariadbUrl),
}

impl DatabaseUrl {
    /// What a command gets in its environment to reach the database by: for SQLite the path, for others the URL.
    pub fn for_environment(&self) -> OsString {
        match self {
            Self::Sqlite { path } => path.clone().into_os_string(),
            Self::Postgres(url) => url.with_password().expose().into(),
            Self::Mariadb(url) => url.with_password().expose().into(),
        }
    }

    /// The same without a password, to stand in an argument list.
    pub fn for_arguments(&self) -> OsString {
        match self {
            Self::Sqlite { path } => path.clone().into_os_string(),
            Self::Postgres(url) => url.without_password().into(),
            Self::Mariadb(url) => url.without_password().into(),
        }
    }

    /// The URL with its password, where it has one.
    pub fn secret(&self) -> Option<Secret> {
        match self {
            Self::Sqlite { .. } => None,
            Self::Postgres(url) => Some(url.with_password()).filter(|url| url.expose() != self.without_password()),
            Self::Mariadb(url) => Some(url.with_password()).filter(|url| url.expose() != self.without_password()),
        }
    }

    /// To be shown.
    pub fn without_password(&self) -> String {
        self.for_arguments().to_string_lossy().into_owned()
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.without_password())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootConfig {
    pub name: String,
    /// Absolute; as written, symlinks in it are not resolved.
    pub path: PathBuf,
    /// Relative to the root; never touched by a deployment.
    pub keep: Vec<String>,
}

/// The commands that close the site to its users and open it again, run beside `site.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    pub enter: Vec<String>,
    pub leave: Vec<String>,
}

impl Site {
    /// Reads a site's file.
    pub fn load(file: &Path) -> Result<Site, PackageError> {
        Self::load_with(file, &|name| std::env::var_os(name))
    }

    /// The same with an environment of the caller's.
    pub fn load_with(file: &Path, environment: Environment<'_>) -> Result<Site, PackageError> {
        let node = yaml::read(file, file)?;
        let written: SiteFile = decode(&node, file)?;
        let absolute = fs::canonicalize(file).map_err(|e| PackageError::read(file, e))?;
        let base = absolute.parent().unwrap_or(Path::new("/"));
        let reader = Reader { file, base, environment };
        check_word("site", &written.site.value.0).map_err(|e| reader.wrong(written.site.spot, e))?;
        let databases = reader.databases(&written)?;
        let roots = reader.roots(&written)?;
        if databases.is_empty() && roots.is_empty() {
            return Err(reader.wrong(node.spot, "the site has neither a database nor a root; it needs at least one"));
        }
        let (state, state_spot) = match &written.state {
            Some(state) => (reader.path(state)?, state.spot),
            None => (base.join(STATE), node.spot),
        };
        reader.state_is_apart(&state, state_spot, &roots)?;
        let maintenance = written.maintenance.map(|m| Maintenance { enter: m.enter.0, leave: m.leave.0 });
        let trust = written.trust.as_ref().map(|trust| reader.trust(trust)).transpose()?;
        let retention = reader.retention(written.retention.as_ref())?;
        let backup = written.backup.as_ref().map(|backup| reader.backup(backup, &state, &roots)).transpose()?;
        let scratch = written.scratch.as_ref().map(|scratch| reader.scratch(scratch, &databases, &roots, &state));
        let scratch = scratch.transpose()?.unwrap_or_default();
        let (alerts, lacking) = reader.alerts(&written.alerts)?;
        Ok(Site {
            name: written.site.value.0,
            databases,
            roots,
            state,
            maintenance,
            backup,
            alerts,
            lacking,
            retention,
            record: written.record,
            trust,
            scratch,
            file: absolute,
        })
    }

    /// An error where somebody could not be told. A command that tells nobody works without what that needs.
    pub fn can_alert(&self) -> Result<(), PackageError> {
        match self.lacking.clone() {
            Some(Lacking { place, what, hint }) => Err(PackageError::Wrong { place, what, hint }),
            None => Ok(()),
        }
    }

    /// The `site.yaml` in `start` or the nearest directory above it.
    pub fn find(start: &Path) -> Result<PathBuf, PackageError> {
        let real = fs::canonicalize(start).map_err(|e| PackageError::read(start, e))?;
        let found = real.ancestors().map(|dir| dir.join(SITE_FILE)).find(|file| file.exists());
        found.ok_or_else(|| PackageError::Unusable {
            path: start.to_owned(),
            what: format!("there is no {SITE_FILE} here or above"),
            hint: Some("`backout init` writes one, `--site FILE` names one".to_owned()),
        })
    }
}

/// The name by which a command's environment knows a root or database: `BACKOUT_ROOT_` or `BACKOUT_DATABASE_` and this.
pub fn environment_name(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

/// What is known while a site's file is read.
pub(crate) struct Reader<'a> {
    /// As errors show it.
    pub(crate) file: &'a Path,
    /// What relative paths are relative to.
    pub(crate) base: &'a Path,
    pub(crate) environment: Environment<'a>,
}

impl Reader<'_> {
    pub(crate) fn wrong(&self, spot: Spot, what: impl Into<String>) -> PackageError {
        PackageError::Wrong { place: spot.in_file(self.file), what: what.into(), hint: None }
    }

    pub(crate) fn path(&self, text: &Located<Text>) -> Result<PathBuf, PackageError> {
        let path = &text.value.0;
        if path.is_empty() || path.contains('\0') {
            return Err(self.wrong(text.spot, "this is not a path"));
        }
        if path == "~" || path.starts_with("~/") {
            return Err(self.wrong(text.spot, "`~` is not filled in here; write the whole path"));
        }
        Ok(self.base.join(path))
    }

    fn databases(&self, written: &SiteFile) -> Result<Vec<DatabaseConfig>, PackageError> {
        let mut configs = Vec::new();
        let mut names = HashMap::new();
        let mut places = HashMap::new();
        for (name, file) in &written.databases.0 {
            self.name("database", name, &mut names)?;
            let url = url::parse(&file.url.value.0, self.base, self.environment)
                .map_err(|(what, hint)| PackageError::Wrong { place: file.url.spot.in_file(self.file), what, hint })?;
            let (place, what) = match &url {
                DatabaseUrl::Sqlite { path } => (places::real(path), "the same file"),
                // By other names it may be the same all the same; then the second finds the first one's lock.
                DatabaseUrl::Postgres(url) => (url.without_password().into(), "the same"),
                DatabaseUrl::Mariadb(url) => (url.without_password().into(), "the same"),
            };
            if let Some(other) = places.insert(place, &name.value) {
                let what = format!("the databases `{other}` and `{}` are {what}", name.value);
                return Err(self.wrong(file.url.spot, what));
            }
            configs.push(DatabaseConfig { name: name.value.clone(), url });
        }
        Ok(configs)
    }

    fn roots(&self, written: &SiteFile) -> Result<Vec<RootConfig>, PackageError> {
        let mut configs: Vec<RootConfig> = Vec::new();
        let mut names = HashMap::new();
        for (name, file) in &written.roots.0 {
            self.name("root", name, &mut names)?;
            let path = self.path(&file.path)?;
            if path.exists() && !path.is_dir() {
                return Err(self.wrong(file.path.spot, format!("the root `{}` is not a directory", name.value)));
            }
            let real = places::real(&path);
            for other in &configs {
                let others = places::real(&other.path);
                if real.starts_with(&others) || others.starts_with(&real) {
                    let what = format!("the roots `{}` and `{}` lie one in the other", other.name, name.value);
                    return Err(self.wrong(file.path.spot, what));
                }
            }
            let keep = file.keep.iter().map(|k| root_path(&k.value.0).map_err(|e| self.wrong(k.spot, e)));
            configs.push(RootConfig { name: name.value.clone(), path, keep: keep.collect::<Result<_, _>>()? });
        }
        Ok(configs)
    }

    fn trust(&self, written: &TrustFile) -> Result<Trust, PackageError> {
        let keys = written.keys.iter().map(|key| self.path(key)).collect::<Result<_, _>>()?;
        let record_key = written.record_key.as_ref().map(|key| self.path(key)).transpose()?;
        Ok(Trust { require_signature: written.require_signature, keys, record_key })
    }

    /// A repository must not be served, must not be copied into itself, and must not hold its own key.
    fn backup(
        &self,
        written: &Located<BackupFile>,
        state: &Path,
        roots: &[RootConfig],
    ) -> Result<BackupConfig, PackageError> {
        let BackupFile { repository, password_file, keep } = &written.value;
        let spot = repository.as_ref().map_or(written.spot, |repository| repository.spot);
        let password = self.path(password_file)?;
        let place = match repository {
            Some(text) if is_remote(&text.value.0) => None,
            Some(text) => Some(self.path(text)?),
            None => Some(state.join(BACKUPS)),
        };
        for root in roots {
            let real = places::real(&root.path);
            if places::real(&password).starts_with(&real) {
                let what = format!("the backup's password lies in the root `{}`, where it could be served", root.name);
                return Err(self.wrong(password_file.spot, what));
            }
            if place.as_ref().is_some_and(|place| places::real(place).starts_with(&real)) {
                let what = format!("the backup repository lies in the root `{}`, where it could be served", root.name);
                return Err(self.wrong(spot, what));
            }
            if place.as_ref().is_some_and(|place| real.starts_with(places::real(place))) {
                let what = format!("the root `{}` lies in the backup repository", root.name);
                return Err(self.wrong(spot, what));
            }
        }
        if place.as_ref().is_some_and(|place| places::real(&password).starts_with(places::real(place))) {
            let what = "the password lies in the repository that it opens; keep it elsewhere";
            return Err(self.wrong(password_file.spot, what));
        }
        let keep = match keep {
            None => Keep::default(),
            Some(Located { spot, value }) => {
                let KeepFile { last, hourly, daily, weekly, monthly, yearly } = *value;
                let keep = Keep { last, hourly, daily, weekly, monthly, yearly };
                if keep == Keep::default() {
                    let what = "`keep` has at least one of `last`, `hourly`, `daily`, `weekly`, `monthly`, `yearly`";
                    return Err(self.wrong(*spot, what));
                }
                keep
            }
        };
        let repository = match (place, repository) {
            (Some(place), _) => match place.into_os_string().into_string() {
                Ok(place) => place,
                Err(_) => return Err(self.wrong(spot, "the path of the backup repository is not UTF-8")),
            },
            (None, Some(text)) => text.value.0.clone(),
            (None, None) => return Err(self.wrong(spot, "this is not a repository")),
        };
        Ok(BackupConfig { repository, password_file: password, keep })
    }

    fn retention(&self, written: Option<&Located<RetentionFile>>) -> Result<Retention, PackageError> {
        let Some(Located { spot, value: RetentionFile { keep, days } }) = written else {
            return Ok(Retention::default());
        };
        if keep.is_none() && days.is_none() {
            return Err(self.wrong(*spot, "a retention has `keep`, `days` or both"));
        }
        Ok(Retention { keep: *keep, days: *days })
    }

    /// Those that can be told, and why the first of the others cannot. What is wrong in the file is an error in any case.
    fn alerts(&self, written: &[Located<AlertFile>]) -> Result<(Vec<Alert>, Option<Lacking>), PackageError> {
        let environment = |name: &str| (self.environment)(name).or_else(|| Some(OsString::from("lacking")));
        let as_if_nothing_lacked = Reader { environment: &environment, ..*self };
        let (mut alerts, mut lacking) = (Vec::new(), None);
        for alert in written {
            match self.alert(alert) {
                Ok(alert) => alerts.push(alert),
                Err(error) => {
                    as_if_nothing_lacked.alert(alert)?;
                    let PackageError::Wrong { place, what, hint } = error else { return Err(error) };
                    lacking.get_or_insert(Lacking { place, what, hint });
                }
            }
        }
        Ok((alerts, lacking))
    }

    fn alert(&self, written: &Located<AlertFile>) -> Result<Alert, PackageError> {
        let AlertFile { email, smtp, from, webhook, format } = &written.value;
        let in_file = |spot: Spot| {
            move |(what, hint): url::UrlError| PackageError::Wrong { place: spot.in_file(self.file), what, hint }
        };
        match (email, webhook) {
            (Some(to), None) => {
                if let Some(format) = format {
                    return Err(self.wrong(format.spot, "`format` belongs to `webhook`"));
                }
                let Some(smtp) = smtp else {
                    return Err(self.wrong(to.spot, "a mail needs a server that takes it: `smtp: smtp://localhost:25`"));
                };
                for address in [Some(to), from.as_ref()].into_iter().flatten() {
                    let text = &address.value.0;
                    if !text.contains('@') || text.chars().any(char::is_control) {
                        return Err(self.wrong(address.spot, format!("`{}` is not a mail address", shown(text))));
                    }
                }
                let smtp = alert::smtp(&smtp.value.0, self.environment).map_err(in_file(smtp.spot))?;
                Ok(Alert::Mail { to: to.value.0.clone(), from: from.as_ref().map(|from| from.value.0.clone()), smtp })
            }
            (None, Some(url)) => {
                if let Some(other) = smtp.as_ref().or(from.as_ref()) {
                    return Err(self.wrong(other.spot, "`smtp` and `from` belong to `email`"));
                }
                let format = match format.as_ref().map(|format| format.value) {
                    None | Some(WebhookFormatFile::Json) => WebhookFormat::Json,
                    Some(WebhookFormatFile::Slack | WebhookFormatFile::Mattermost) => WebhookFormat::Text,
                };
                let (url, host) = alert::webhook(&url.value.0, self.environment).map_err(in_file(url.spot))?;
                Ok(Alert::Webhook { url, host, format })
            }
            _ => Err(self.wrong(written.spot, "an alert has exactly one of `email` and `webhook`")),
        }
    }

    /// A name that is well-formed and stays distinct where it becomes part of a variable's name.
    fn name(&self, what: &str, name: &Located<String>, seen: &mut HashMap<String, String>) -> Result<(), PackageError> {
        check_word(what, &name.value).map_err(|e| self.wrong(name.spot, e))?;
        match seen.insert(environment_name(&name.value), name.value.clone()) {
            Some(other) => {
                let what = format!("`{other}` and `{}` are the same name to a command's environment", name.value);
                Err(self.wrong(name.spot, what))
            }
            None => Ok(()),
        }
    }

    /// A web server must not serve what is kept of a site's files, and a deployment must not touch it.
    fn state_is_apart(&self, state: &Path, spot: Spot, roots: &[RootConfig]) -> Result<(), PackageError> {
        let real = places::real(state);
        for root in roots {
            let other = places::real(&root.path);
            let what = if real.starts_with(&other) {
                format!(
                    "the state directory {} lies in the root `{}`, where it could be served",
                    state.display(),
                    root.name
                )
            } else if other.starts_with(&real) {
                format!(
                    "the root `{}` lies in the state directory {}, which nobody else may enter",
                    root.name,
                    state.display()
                )
            } else {
                continue;
            };
            return Err(PackageError::Wrong {
                place: spot.in_file(self.file),
                what,
                hint: Some("give a `state:` outside every root, such as /var/lib/backout/NAME".to_owned()),
            });
        }
        if state.exists() && !state.is_dir() {
            return Err(self.wrong(spot, format!("the state directory {} is not a directory", state.display())));
        }
        Ok(())
    }
}
