//! Which application a directory holds, and what a site of it is made of: WordPress by its `wp-config.php`, Drupal 7 to 11 by
//! its `settings.php`. Reads a few files and runs nothing.

mod php;

use std::fs;
use std::path::{Path, PathBuf};

use crate::percent;
use php::{Php, Value};

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
    let constant = |name: &str| php.as_ref().and_then(|php| php.constant(name)).unwrap_or(Value::Unknown);
    let (host, socket) = match constant("DB_HOST") {
        Value::Text(host) => host_and_socket(&host),
        other => (other, None),
    };
    let login = Login {
        scheme: "mariadb",
        user: constant("DB_USER"),
        host,
        port: None,
        socket,
        database: constant("DB_NAME"),
        password: constant("DB_PASSWORD"),
    };
    let (url, variables) = login.url(variable);
    let mut keep: Vec<String> =
        ["wp-content/uploads", "wp-content/cache", "wp-content/upgrade", ".maintenance"].map(str::to_owned).to_vec();
    keep.extend(text(constant("UPLOADS")).and_then(beneath));
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
fn host_and_socket(host: &str) -> (Value, Option<String>) {
    let host = host.strip_prefix("p:").unwrap_or(host);
    match host.split_once(":/") {
        Some((host, socket)) => (Value::Text(host.to_owned()), Some(format!("/{socket}"))),
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
    let part = |name: &str| {
        let path = ["default", "default", name];
        php.as_ref().and_then(|php| php.element("databases", &path)).unwrap_or(Value::Unknown)
    };
    let (url, variables) = match part("driver") {
        Value::Text(driver) if driver == "sqlite" => {
            let file = text(part("database")).map(|file| Path::new(name).join(file));
            (file.map(|file| format!("sqlite:{}", in_url(&file.to_string_lossy()))), Vec::new())
        }
        driver => {
            let is_postgres = driver == Value::Text("pgsql".to_owned());
            let (host, socket) = match part("host") {
                Value::Text(host) if is_postgres && host.starts_with('/') => (Value::Unknown, Some(host)),
                host => (host, text(part("unix_socket"))),
            };
            // Where a socket is named, PHP asks for no port of MariaDB.
            let port = text(part("port")).filter(|_| is_postgres || socket.is_none());
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
    };
    let mut keep: Vec<String> = sites.iter().map(|name| format!("sites/{name}/files")).collect();
    for name in ["file_private_path", "file_public_path"] {
        let path = php.as_ref().and_then(|php| php.element("settings", &[name])).and_then(text).and_then(beneath);
        if let Some(path) = path.filter(|path| !keep.contains(path)) {
            keep.push(path);
        }
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

fn text(value: Value) -> Option<String> {
    match value {
        Value::Text(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// A path, where it lies in the root.
fn beneath(path: String) -> Option<String> {
    (!path.starts_with(['/', '.'])).then(|| path.trim_end_matches('/').to_owned())
}

/// A settings file, with what it includes of files beside it, or by a whole path.
fn settings_of(file: &Path) -> Option<Php> {
    let dir = file.parent()?;
    let included = |path: &str| {
        let whole = path.starts_with('/').then(|| PathBuf::from(path));
        let beside = dir.join(path.trim_start_matches('/'));
        read(&std::iter::once(beside).chain(whole).find(|path| path.is_file())?)
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

/// How the settings reach a server.
struct Login {
    scheme: &'static str,
    user: Value,
    host: Value,
    port: Option<String>,
    socket: Option<String>,
    database: Value,
    password: Value,
}

impl Login {
    /// As a URL, and the variables that it names; none where the settings do not say which database.
    fn url(self, variable: &str) -> (Option<String>, Vec<(String, &'static str)>) {
        let mut variables = Vec::new();
        let mut part = |value: Value, what: &'static str| match value {
            Value::Text(text) => Some(percent::encode_all(&text)),
            Value::Environment(name) => {
                variables.push((name.clone(), what));
                Some(format!("${{{name}}}"))
            }
            Value::Array(_) | Value::Unknown => None,
        };
        let user = part(self.user, "the database's user").unwrap_or_default();
        let host = match self.host {
            // A port may stand behind it, and brackets around it.
            Value::Text(host) => Some(host),
            other => part(other, "the database's host"),
        };
        let database = part(self.database, "the database's name");
        let name = match self.password {
            Value::Environment(name) => name,
            _ => variable.to_owned(),
        };
        let password = if user.is_empty() { String::new() } else { format!(":${{{name}}}") };
        if !password.is_empty() {
            variables.push((name, "the database's password"));
        }
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let socket = self.socket.map(|socket| match self.scheme {
            "postgresql" => format!("?host={}", percent::encode_all(&socket)),
            _ => format!("?socket={}", percent::encode_all(&socket)),
        });
        let at = if user.is_empty() { "" } else { "@" };
        let (host, socket) = (host.unwrap_or_default(), socket.unwrap_or_default());
        match database {
            Some(database) => {
                (Some(format!("{}://{user}{password}{at}{host}{port}/{database}{socket}", self.scheme)), variables)
            }
            None => (None, Vec::new()),
        }
    }
}

/// A path as it stands in a URL.
pub fn in_url(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3F").replace('#', "%23").replace("${", "%24{")
}
