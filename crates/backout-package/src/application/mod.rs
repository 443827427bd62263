//! Which application a directory holds, and what a site of it is made of: WordPress by its `wp-config.php`, Drupal 7 to 11 by
//! its `settings.php`. Reads a few files and runs nothing.

mod php;

use std::fs;
use std::path::{Path, PathBuf};

use crate::percent;
use php::{Included, Php, Value};

/// No settings file is longer; of a longer one only so much is read.
const LONGEST: usize = 1024 * 1024;

/// An application that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// `WordPress 6.1.1`.
    pub name: String,
    /// The directory that the web server serves, as it was named.
    pub root: String,
    /// The file that says where its database is, as far as one was found.
    pub settings: Option<PathBuf>,
    /// The database as a URL; its password, and what the settings take from the environment, as `${NAME}`. None where the
    /// settings do not say it.
    pub url: Option<String>,
    /// The variables that the URL names, with what each is.
    pub variables: Vec<(String, &'static str)>,
    /// Paths in the root that deployments leave alone.
    pub keep: Vec<String>,
    pub kind: Kind,
}

/// What kind of application it is, and so which commands it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    WordPress,
    /// With its major version.
    Drupal(u32),
}

/// The application that lies in the directory `name` of `dir`, if there is one. `variable`: what the password's variable is
/// called where the settings name none.
pub fn detect(dir: &Path, name: &str, variable: &str) -> Option<Application> {
    let root = dir.join(name);
    wordpress(&root, name, variable).or_else(|| drupal(&root, name, variable))
}

fn wordpress(root: &Path, name: &str, variable: &str) -> Option<Application> {
    let version = read(&root.join("wp-includes/version.php"))?;
    let version = match Php::read(&version).element("wp_version", &[]) {
        Some(Value::Text(version)) => format!(" {version}"),
        _ => String::new(),
    };
    // It may lie above, where no other WordPress does.
    let above = root.join("..");
    let beside = (!above.join("wp-settings.php").exists()).then(|| above.join("wp-config.php"));
    let settings = std::iter::once(root.join("wp-config.php")).chain(beside).find(|file| file.is_file());
    let php = settings.as_deref().and_then(settings_of);
    let constant = |name: &str| php.as_ref().and_then(|php| php.constant(name));
    let (host, socket) = match constant("DB_HOST") {
        Some(Value::Text(host)) => host_and_socket(&host),
        // WordPress has no other one where it is not said.
        other => (other.unwrap_or(Value::Unknown), None),
    };
    let login = Login {
        scheme: "mariadb",
        user: constant("DB_USER"),
        host: Some(host),
        port: None,
        socket,
        database: constant("DB_NAME"),
        password: constant("DB_PASSWORD"),
    };
    let (url, variables) = login.url(variable);
    let mut keep: Vec<String> =
        ["wp-content/uploads", "wp-content/cache", "wp-content/upgrade", ".maintenance"].map(str::to_owned).to_vec();
    keep_too(&mut keep, constant("UPLOADS"));
    Some(Application {
        name: format!("WordPress{version}"),
        root: name.to_owned(),
        settings,
        url,
        variables,
        keep,
        kind: Kind::WordPress,
    })
}

/// `localhost`, `db:3307`, `localhost:/run/mysqld/mysqld.sock`, `[::1]:3306`, `p:db`: what WordPress takes for a host.
fn host_and_socket(host: &str) -> (Value, Option<Value>) {
    let host = host.strip_prefix("p:").unwrap_or(host);
    match host.split_once(":/") {
        Some((host, socket)) => (Value::Text(host.to_owned()), Some(Value::Text(format!("/{socket}")))),
        None => (Value::Text(host.to_owned()), None),
    }
}

fn drupal(root: &Path, name: &str, variable: &str) -> Option<Application> {
    let now = read(&root.join("core/lib/Drupal.php")).and_then(|source| {
        let (_, rest) = source.split_once("const VERSION = '")?;
        Some(rest.split_once('\'')?.0.to_owned())
    });
    let seven = || {
        let php = Php::read(&read(&root.join("includes/bootstrap.inc"))?);
        let found = php.constant("VERSION")?;
        match found {
            Value::Text(version) if root.join("modules/system").is_dir() => Some(version),
            _ => None,
        }
    };
    let version = now.or_else(seven)?;
    let major: u32 = version.split('.').next()?.parse().ok().filter(|major| (7..=11).contains(major))?;
    let sites = sites(root);
    let of_site =
        |name: &String| Some(root.join("sites").join(name).join("settings.php")).filter(|file| file.is_file());
    let settings = sites.iter().find_map(of_site);
    let php = settings.as_deref().and_then(settings_of);
    let part = |name: &str| php.as_ref().and_then(|php| php.element("databases", &["default", "default", name]));
    let is_said = |value: &Option<Value>| value.as_ref().is_some_and(|value| *value != Value::Text(String::new()));
    let (url, variables) = match part("driver") {
        Some(Value::Text(driver)) if driver == "sqlite" => {
            let file = text(part("database")).map(|file| Path::new(name).join(file));
            (file.map(|file| format!("sqlite:{}", in_url(&file.to_string_lossy()))), Vec::new())
        }
        driver @ (None | Some(Value::Text(_))) => {
            let is_postgres = driver == Some(Value::Text("pgsql".to_owned()));
            let (host, socket) = match part("host") {
                Some(Value::Text(host)) if is_postgres && host.starts_with('/') => (None, Some(Value::Text(host))),
                host => (host, part("unix_socket")),
            };
            // Where a socket is named, PHP asks for no port of MariaDB.
            let port = part("port").filter(|_| is_postgres || !is_said(&socket));
            let login = Login {
                scheme: if is_postgres { "postgresql" } else { "mariadb" },
                user: part("username"),
                host,
                port,
                socket,
                database: part("database"),
                password: part("password"),
            };
            login.url(variable)
        }
        Some(_) => (None, Vec::new()),
    };
    let mut keep: Vec<String> = sites.iter().map(|name| format!("sites/{name}/files")).collect();
    for name in ["file_private_path", "file_public_path"] {
        keep_too(&mut keep, php.as_ref().and_then(|php| php.element("settings", &[name])));
    }
    Some(Application {
        name: format!("Drupal {version}"),
        root: name.to_owned(),
        settings,
        url,
        variables,
        keep,
        kind: Kind::Drupal(major),
    })
}

fn text(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::Text(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// Adds a directory of the application's to those that deployments leave alone, where it lies in the root.
fn keep_too(keep: &mut Vec<String>, value: Option<Value>) {
    let path = text(value).map(|path| path.trim_end_matches('/').to_owned()).unwrap_or_default();
    let is_plain = path.split('/').all(|part| !["", ".", ".."].contains(&part));
    if is_plain && !keep.contains(&path) {
        keep.push(path);
    }
}

/// A settings file, with what it includes of files beside it, or by a whole path.
fn settings_of(file: &Path) -> Option<Php> {
    let dir = file.parent()?;
    let included = |path: &str| {
        // WordPress itself, which says nothing of its database.
        if path.trim_start_matches('/') == "wp-settings.php" {
            return Included::Nothing;
        }
        let beside = dir.join(path.trim_start_matches('/'));
        let whole = path.starts_with('/').then(|| PathBuf::from(path));
        match std::iter::once(beside).chain(whole).find(|path| path.is_file()) {
            Some(file) => read(&file).map_or(Included::Unseen, Included::Source),
            None => Included::Nothing,
        }
    };
    Some(Php::read(&read(file)?).with_included(&included))
}

/// The directories of sites, `default` first.
fn sites(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("sites")).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok());
    let mut sites: Vec<String> = names.filter(|name| name != "all" && name != "simpletest").collect();
    sites.sort_by_key(|name| (name != "default", name.clone()));
    if sites.is_empty() { vec!["default".to_owned()] } else { sites }
}

fn read(file: &Path) -> Option<String> {
    let bytes = fs::read(file).ok()?;
    Some(String::from_utf8_lossy(bytes.get(..LONGEST).unwrap_or(&bytes)).into_owned())
}

/// How the settings reach a server; what they do not say is none.
struct Login {
    scheme: &'static str,
    user: Option<Value>,
    host: Option<Value>,
    port: Option<Value>,
    socket: Option<Value>,
    database: Option<Value>,
    password: Option<Value>,
}

impl Login {
    /// As a URL, and the variables that it names; none where the settings do not say which database, or how to get there.
    fn url(self, variable: &str) -> (Option<String>, Vec<(String, &'static str)>) {
        let mut variables = Vec::new();
        match self.written(variable, &mut variables) {
            Some(url) => (Some(url), variables),
            None => (None, Vec::new()),
        }
    }

    fn written(self, variable: &str, variables: &mut Vec<(String, &'static str)>) -> Option<String> {
        // None where it is said, and not understood; empty where it is not said.
        let mut part = |value: Option<Value>, what: &'static str, written: fn(&str) -> String| match value {
            None => Some(String::new()),
            Some(Value::Text(text)) => Some(written(&text)),
            Some(Value::Environment(name)) => {
                variables.push((name.clone(), what));
                Some(format!("${{{name}}}"))
            }
            Some(Value::Array(_) | Value::Unknown) => None,
        };
        let user = part(self.user, "the database's user", percent::encode_all)?;
        // A port may stand behind it, and brackets around it.
        let host = part(self.host, "the database's host", str::to_owned)?;
        let port = part(self.port, "the database's port", str::to_owned)?;
        let socket = part(self.socket, "the database's socket", percent::encode_all)?;
        let database = part(self.database, "the database's name", percent::encode_all)?;
        let mut password = String::new();
        if !user.is_empty() {
            let name = match self.password {
                Some(Value::Environment(name)) => name,
                _ => variable.to_owned(),
            };
            password = format!(":${{{name}}}@");
            variables.push((name, "the database's password"));
        }
        let port = if port.is_empty() { port } else { format!(":{port}") };
        let socket = match (socket.as_str(), self.scheme) {
            ("", _) => socket,
            (_, "postgresql") => format!("?host={socket}"),
            _ => format!("?socket={socket}"),
        };
        (!database.is_empty()).then(|| format!("{}://{user}{password}{host}{port}/{database}{socket}", self.scheme))
    }
}

/// A path as it stands in a URL.
pub fn in_url(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3F").replace('#', "%23").replace("${", "%24{")
}
