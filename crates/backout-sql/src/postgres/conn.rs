//! Where the server is and how to get in, by the rules that libpq's users know: parameters, service file, environment,
//! password file; then TLS.
//!
//! Never shows a password.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::config::{ChannelBinding, SslMode, TargetSessionAttrs};
use postgres::{Client, Config, NoTls};

use super::tls;

/// Why a URL or what it leads to cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnError {
    #[error("neither the URL nor the environment says which user connects")]
    User,
    /// Its value may be a secret.
    #[error("the parameter `{name}` is unknown, or its value is not understood")]
    Value { name: String },
    #[error("the service {name} stands in none of {looked_in}")]
    Service { name: String, looked_in: String },
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error(transparent)]
    Server(#[from] postgres::Error),
}

/// Everything that is needed to connect, any number of times.
#[derive(Clone)]
pub struct Route {
    config: Config,
    /// `None` where the server is reached without TLS in any case.
    tls: Option<tls::Wanted>,
}

/// libpq's parameters by name.
pub type Params = BTreeMap<String, String>;

/// libpq's environment variables and the parameters that they stand for.
const ENVIRONMENT: [(&str, &str); 19] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSERVICE", "service"),
    ("PGOPTIONS", "options"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
];

impl Route {
    /// Takes what the parameters leave open from the service file, the environment and the password file.
    pub fn of(params: &Params) -> Result<Self, ConnError> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::with(params, &env)
    }

    fn with(params: &Params, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConnError> {
        let mut params = params.clone();
        let mut fallback = Params::new();
        for (variable, name) in ENVIRONMENT {
            if let Some(value) = env(variable) {
                fallback.insert(name.to_owned(), value);
            }
        }
        if let Some(service) = params.remove("service").or_else(|| fallback.remove("service")) {
            for (name, value) in service_of(&service, env)? {
                params.entry(name).or_insert(value);
            }
        }
        for (name, value) in fallback {
            params.entry(name).or_insert(value);
        }
        if !params.contains_key("user") {
            let user = env("USER").or_else(|| env("LOGNAME")).ok_or(ConnError::User)?;
            params.insert("user".to_owned(), user);
        }
        let user = params["user"].clone();
        params.entry("dbname".to_owned()).or_insert(user);
        if !params.contains_key("host") && !params.contains_key("hostaddr") {
            let socket = ["/var/run/postgresql", "/tmp"].into_iter().find(|path| Path::new(path).is_dir());
            params.insert("host".to_owned(), socket.unwrap_or("localhost").to_owned());
        }
        if !params.contains_key("password") {
            let file = params.get("passfile").map(PathBuf::from);
            let file = file.or_else(|| env("HOME").map(|home| Path::new(&home).join(".pgpass")));
            if let Some(password) = file.and_then(|file| password_of(&file, &params)) {
                params.insert("password".to_owned(), password);
            }
        }
        Ok(Self { config: config_of(&params)?, tls: tls::Wanted::of(&params, env)? })
    }

    pub fn connect(&self) -> Result<Client, ConnError> {
        match &self.tls {
            None => Ok(self.config.connect(NoTls)?),
            Some(wanted) => Ok(self.config.connect(wanted.connector()?)?),
        }
    }
}

/// The parameters of a service: the user's own file first, then the system's.
fn service_of(service: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Params, ConnError> {
    let own = env("PGSERVICEFILE")
        .map(PathBuf::from)
        .or_else(|| env("HOME").map(|home| Path::new(&home).join(".pg_service.conf")));
    let system = env("PGSYSCONFDIR").unwrap_or_else(|| "/etc/postgresql-common".to_owned());
    let files: Vec<PathBuf> = own.into_iter().chain([Path::new(&system).join("pg_service.conf")]).collect();
    for file in &files {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(ConnError::Read { path: file.display().to_string(), source }),
        };
        let mut params = Params::new();
        let mut found = false;
        let mut inside = false;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                inside = name == service;
                found |= inside;
            } else if let (true, Some((name, value))) = (inside, line.split_once('=')) {
                params.insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
        if found {
            return Ok(params);
        }
    }
    let looked_in = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(ConnError::Service { name: service.to_owned(), looked_in })
}

/// The first line of the password file that fits; as libpq, nothing where others may read it.
fn password_of(file: &Path, params: &Params) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(file).ok()?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o077 != 0 {
        return None;
    }
    let host = params.get("host").map_or("localhost", String::as_str);
    let host = if host.starts_with('/') { "localhost" } else { host };
    let port = params.get("port").map_or("5432", String::as_str);
    let wanted = [host, port, &params["dbname"], &params["user"]];
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields_of(line);
        let fits =
            fields.len() == 5 && fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then(|| fields[4].clone())
    })
}

/// The fields of a line of the password file: parted by colons, `\` takes the next character as it is.
fn fields_of(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(one) = chars.next() {
        let last = fields.len() - 1;
        match one {
            '\\' => fields[last].extend(chars.next()),
            ':' if fields.len() < 5 => fields.push(String::new()),
            _ => fields[last].push(one),
        }
    }
    fields
}

fn config_of(params: &Params) -> Result<Config, ConnError> {
    let mut config = Config::new();
    config.application_name("backout").connect_timeout(Duration::from_secs(20));
    for (name, value) in params {
        set(&mut config, name, value).ok_or_else(|| ConnError::Value { name: name.clone() })?;
    }
    Ok(config)
}

/// Sets one parameter; `None` where name or value is not understood.
fn set(config: &mut Config, name: &str, value: &str) -> Option<()> {
    match name {
        "user" => config.user(value),
        "password" => config.password(value),
        "dbname" => config.dbname(value),
        "options" => config.options(value),
        "application_name" => config.application_name(value),
        "host" => value.split(',').fold(config, |config, host| config.host(host)),
        "hostaddr" => {
            for address in value.split(',') {
                config.hostaddr(address.parse().ok()?);
            }
            config
        }
        "port" => {
            for port in value.split(',') {
                config.port(if port.is_empty() { 5432 } else { port.parse().ok()? });
            }
            config
        }
        "connect_timeout" => {
            let seconds: u64 = value.parse().ok()?;
            config.connect_timeout(Duration::from_secs(if seconds == 0 { 86_400 } else { seconds.max(2) }))
        }
        "sslmode" => config.ssl_mode(match value {
            "disable" => SslMode::Disable,
            "allow" | "prefer" => SslMode::Prefer,
            "require" | "verify-ca" | "verify-full" => SslMode::Require,
            _ => return None,
        }),
        "channel_binding" => config.channel_binding(match value {
            "disable" => ChannelBinding::Disable,
            "prefer" => ChannelBinding::Prefer,
            "require" => ChannelBinding::Require,
            _ => return None,
        }),
        "target_session_attrs" => config.target_session_attrs(match value {
            "any" => TargetSessionAttrs::Any,
            "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
            _ => return None,
        }),
        "keepalives" => config.keepalives(value != "0"),
        "tcp_user_timeout" => config.tcp_user_timeout(Duration::from_millis(value.parse().ok()?)),
        "keepalives_idle" => config.keepalives_idle(Duration::from_secs(value.parse().ok()?)),
        // Read elsewhere, or without a meaning here.
        "passfile"
        | "sslrootcert"
        | "sslcert"
        | "sslkey"
        | "sslcrl"
        | "sslcompression"
        | "client_encoding"
        | "fallback_application_name"
        | "ssl_min_protocol_version"
        | "ssl_max_protocol_version"
        | "krbsrvname" => config,
        // What comes unencrypted by that way is not what was asked for.
        "gssencmode" if matches!(value, "disable" | "prefer") => config,
        _ => return None,
    };
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    fn way(given: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Route, ConnError> {
        let env = params(env);
        Route::with(&params(given), &|name| env.get(name).cloned())
    }

    #[test]
    fn a_list_of_hosts_has_a_list_of_ports() {
        let way = way(&[("host", "a,b"), ("port", "5433,"), ("user", "me"), ("sslmode", "disable")], &[]).unwrap();
        assert_eq!(way.config.get_ports(), [5433, 5432]);
        assert_eq!(way.config.get_hosts().len(), 2);
        assert!(matches!(self::way(&[], &[]), Err(ConnError::User)));
    }

    #[test]
    fn what_is_left_open_comes_from_service_environment_and_password_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let services = folder.path().join("services");
        std::fs::write(&services, "# x\n[other]\nhost=no\n[shop]\nhost = db1\nport=77\n").unwrap();
        let passwords = folder.path().join("pgpass");
        std::fs::write(&passwords, "*:1:*:*:no\ndb1:77:shop:me:it\\:is\n").unwrap();
        std::fs::set_permissions(&passwords, std::fs::Permissions::from_mode(0o600)).unwrap();
        let env = [
            ("PGSERVICEFILE", services.to_str().unwrap()),
            ("PGSERVICE", "shop"),
            ("PGPASSFILE", passwords.to_str().unwrap()),
            ("PGPORT", "1"),
            ("PGSSLMODE", "disable"),
        ];
        let here = [("user", "me"), ("dbname", "shop")];
        let found = way(&here, &env).unwrap();
        assert_eq!(found.config.get_ports(), [77]);
        assert_eq!(found.config.get_password(), Some(&b"it:is"[..]));
        std::fs::set_permissions(&passwords, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(way(&here, &env).unwrap().config.get_password(), None);
        assert!(matches!(way(&[("user", "me"), ("service", "nowhere")], &env), Err(ConnError::Service { .. })));
        let error = way(&[("user", "me"), ("port", "hunter2")], &[]).err().unwrap();
        assert!(matches!(error, ConnError::Value { .. }) && !error.to_string().contains("hunter2"));
    }
}
