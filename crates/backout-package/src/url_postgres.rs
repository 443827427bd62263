//! The URL of a PostgreSQL database, by the rules of libpq; what it leaves open is left to whoever connects.

use std::collections::BTreeMap;
use std::path::Path;

use crate::nearest::nearest;
use crate::secret::Secret;
use crate::url::{Environment, UrlError, filled, write_login, write_rest};

/// What a URL says of a server and how to reach it: libpq's parameters by name, decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(BTreeMap<String, String>);

/// The parameters of libpq 18, but for those that only programs set.
const PARAMETERS: [&str; 37] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "options",
    "passfile",
    "password",
    "port",
    "require_auth",
    "requirepeer",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
];
/// Those that name files. They are relative to `site.yaml`, as all paths in it.
const FILES: [&str; 6] = ["passfile", "sslcert", "sslcrl", "sslcrldir", "sslkey", "sslrootcert"];
/// Those that nobody may see.
const HIDDEN: [&str; 2] = ["password", "sslpassword"];

/// Reads what follows the scheme and its colon.
pub fn parse(rest: &str, base: &Path, environment: Environment<'_>) -> Result<PostgresUrl, UrlError> {
    let Some(rest) = rest.strip_prefix("//") else {
        let hint = "write postgresql://USER@HOST/DATABASE".to_owned();
        return Err(("a PostgreSQL URL has `//` after its scheme".to_owned(), Some(hint)));
    };
    let mut found = BTreeMap::new();
    let mut put = |name: &str, written: &str| -> Result<(), UrlError> {
        let value = filled(written, environment)?
            .into_string()
            .map_err(|_| (format!("the {} is not UTF-8", part(name)), None))?;
        if value.contains('\0') {
            return Err((format!("the {} can't hold a NUL character", part(name)), None));
        }
        if !value.is_empty() {
            found.insert(name.to_owned(), value);
        }
        Ok(())
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    // As libpq, the first `@` ends the user and password. More of them is what a password that is not encoded has.
    let (login, hosts) = authority.split_once('@').unwrap_or(("", authority));
    if hosts.contains('@') {
        let hint = "in the password write %40 for `@` and %2F for `/`, or take it from a variable: ${NAME}";
        return Err(("a PostgreSQL URL has one `@`".to_owned(), Some(hint.to_owned())));
    }
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    put("user", user)?;
    put("password", password)?;
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = host_and_port(host)?;
        names.push(name);
        ports.push(port);
    }
    if names.iter().any(|name| !name.is_empty()) {
        put("host", &names.join(","))?;
    }
    if ports.iter().any(|port| !port.is_empty()) {
        put("port", &ports.join(","))?;
    }
    let (database, query) = rest.split_once('?').unwrap_or((rest, ""));
    put("dbname", database.strip_prefix('/').unwrap_or(database))?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(("each parameter of a PostgreSQL URL is NAME=VALUE".to_owned(), None));
        };
        match name {
            // As libpq for the sake of JDBC's URLs.
            "ssl" if value == "true" => put("sslmode", "require")?,
            "user" => put(name, value)?,
            _ if PARAMETERS.contains(&name) => put(name, value)?,
            _ => {
                let known: Vec<String> = PARAMETERS.iter().map(|known| known.replace('_', "-")).collect();
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                let hint = nearest(name, &known).map(|near| format!("did you mean `{}`?", near.replace('-', "_")));
                return Err((format!("`{}` is no parameter of a PostgreSQL URL", crate::words::shown(name)), hint));
            }
        }
    }
    for name in FILES {
        if let Some(path) = found.get_mut(name).filter(|path| *path != "system") {
            *path = base.join(&*path).to_string_lossy().into_owned();
        }
    }
    Ok(PostgresUrl(found))
}

pub fn host_and_port(host: &str) -> Result<(&str, &str), UrlError> {
    if let Some(inner) = host.strip_prefix('[') {
        let Some((name, after)) = inner.split_once(']') else {
            return Err(("`[` without its `]`".to_owned(), None));
        };
        return Ok((name, after.strip_prefix(':').unwrap_or(after)));
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    if port.contains(':') {
        let hint = Some("write an IPv6 address in brackets: [::1]".to_owned());
        return Err(("a host has at most one `:`, before its port".to_owned(), hint));
    }
    Ok((name, port))
}

/// How a parameter is called in an error.
pub fn part(name: &str) -> &str {
    match name {
        "dbname" => "name of the database",
        "user" => "name of the user",
        name => name,
    }
}

impl PostgresUrl {
    /// A URL by libpq's parameters.
    pub fn of(parameters: BTreeMap<String, String>) -> Self {
        Self(parameters)
    }

    /// libpq's parameters by name, the password among them.
    pub fn parameters(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The whole, as every program that uses libpq takes it.
    pub fn with_password(&self) -> Secret {
        Secret::new(self.written(true))
    }

    pub fn without_password(&self) -> String {
        self.written(false)
    }

    fn written(&self, all: bool) -> String {
        let mut out = "postgresql://".to_owned();
        let mut rest: BTreeMap<&str, &str> =
            self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if !all {
            rest.retain(|name, _| !HIDDEN.contains(name));
        }
        let (user, password) = (rest.remove("user"), rest.remove("password"));
        write_login(&mut out, user, password);
        // A socket's folder and a list of hosts read better among the parameters.
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if let Some(host) = rest.get("host").copied().filter(|host| plain(host)) {
            out.push_str(host);
            rest.remove("host");
            if let Some(port) = rest.get("port").copied().filter(|port| plain(port)) {
                out.push(':');
                out.push_str(port);
                rest.remove("port");
            }
        }
        write_rest(&mut out, rest);
        out
    }
}

impl std::fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.without_password())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn read(text: &str) -> Result<PostgresUrl, String> {
        let environment = |name: &str| match name {
            "PASSWORD" => Some(OsString::from("p@ss/w:o?r&d%20#ü'")),
            "HOST" => Some(OsString::from("a:b")),
            "EMPTY" => Some(OsString::new()),
            _ => None,
        };
        parse(text.split_once(':').unwrap().1, Path::new("/etc/shop"), &environment).map_err(|(what, _)| what)
    }

    fn parameters(text: &str) -> String {
        let url = read(text).unwrap();
        url.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        for (text, expected) in [
            ("postgresql://", ""),
            ("postgres://localhost", "host=localhost"),
            ("postgres://joe@localhost:5433/shop", "dbname=shop host=localhost port=5433 user=joe"),
            ("postgres://joe:hunter%40:2@h/d", "dbname=d host=h password=hunter@:2 user=joe"),
            ("postgres:///d?host=/run/postgresql&user=joe", "dbname=d host=/run/postgresql user=joe"),
            ("postgres://%2Frun%2Fpg/d", "dbname=d host=/run/pg"),
            ("postgres://a:1,b,[::1]:3/d", "dbname=d host=a,b,::1 port=1,,3"),
            (
                "postgres://h?sslmode=verify-full&sslrootcert=ca.pem",
                "host=h sslmode=verify-full sslrootcert=/etc/shop/ca.pem",
            ),
            ("postgres://?service=shop&sslrootcert=system", "service=shop sslrootcert=system"),
            ("postgres://h/d?ssl=true", "dbname=d host=h sslmode=require"),
            ("postgres://h/%C3%BC?options=-c%20a%3Db", "dbname=ü host=h options=-c a=b"),
            ("postgres://joe:${PASSWORD}@${HOST}/${EMPTY}", "host=a:b password=p@ss/w:o?r&d%20#ü' user=joe"),
        ] {
            assert_eq!(parameters(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_hides_the_password() {
        for (text, shown) in [
            ("postgres://joe:${PASSWORD}@h:1/d", "postgresql://joe@h:1/d"),
            ("postgres://h/d?password=hunter2&user=a%20b", "postgresql://a%20b@h/d"),
            ("postgres:///d?host=/run/pg%20x&port=1", "postgresql:///d?host=/run/pg%20x&port=1"),
            (
                "postgres://a:1,b/%2Fd%3F?sslkey=k&sslpassword=hunter2",
                "postgresql:///%2fd%3f?host=a%2cb&port=1%2c&sslkey=/etc/shop/k",
            ),
            ("postgres://", "postgresql:///"),
            ("postgres://:hunter2@h", "postgresql://h/"),
        ] {
            let url = read(text).unwrap();
            assert_eq!(url.without_password(), shown, "{text}");
            assert_eq!(format!("{url:?}"), shown);
            let again = read(url.with_password().expose()).unwrap();
            assert_eq!(again.0, url.0, "{text}");
        }
    }

    #[test]
    fn bad_urls_are_told_without_being_shown() {
        for (text, why) in [
            ("postgres:joe:hunter2@h/d", "has `//` after its scheme"),
            ("postgres://joe:hunter2@x@h/d", "has one `@`"),
            ("postgres://joe:hunter2%zz@h/d", "two hex digits"),
            ("postgres://joe:${NONE}@h/d", "the environment has no `NONE`"),
            ("postgres://joe@[::1/d", "without its `]`"),
            ("postgres://::1/d", "at most one `:`"),
            ("postgres://h/d?hunter2", "NAME=VALUE"),
            ("postgres://h/d?sslmod=require", "`sslmod` is no parameter"),
            ("postgres://h/%ff", "the name of the database is not UTF-8"),
            ("postgres://joe:%00hunter2@h", "the password can't hold a NUL"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
        let (_, hint) = parse("//h/d?ssl-mode=x", Path::new("/"), &|_| None).unwrap_err();
        assert_eq!(hint.as_deref(), Some("did you mean `sslmode`?"));
    }
}
