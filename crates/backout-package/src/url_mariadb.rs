//! The URL of a MariaDB database: `mariadb://USER:PASSWORD@HOST:PORT/DATABASE?socket=PATH`; what it leaves open comes from
//! option files, or is left to whoever connects.

use std::collections::BTreeMap;
use std::path::Path;

use crate::nearest::nearest;
use crate::option_files;
use crate::percent;
use crate::secret::Secret;
use crate::url::{Environment, UrlError, filled, write_login, write_rest};
use crate::url_postgres::{host_and_port, part};

/// What a URL says of a server and how to reach it: options by the names that the `mariadb` client has for them, and
/// `dbname`.
#[derive(Clone, PartialEq, Eq)]
pub struct MariadbUrl(BTreeMap<String, String>);

/// What may stand behind the `?`.
const PARAMETERS: [&str; 7] = ["connect-timeout", "socket", "ssl-ca", "ssl-cert", "ssl-key", "ssl-mode", "user"];
/// Those that name files. They are relative to `site.yaml`, as all paths in it.
const FILES: [&str; 4] = ["socket", "ssl-ca", "ssl-cert", "ssl-key"];

/// Reads what follows the scheme and its colon.
pub fn parse(rest: &str, base: &Path, environment: Environment<'_>) -> Result<MariadbUrl, UrlError> {
    let example = || Some("write mariadb://USER@HOST/DATABASE".to_owned());
    let Some(rest) = rest.strip_prefix("//") else {
        return Err(("a MariaDB URL has `//` after its scheme".to_owned(), example()));
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
    let (login, host) = authority.split_once('@').unwrap_or(("", authority));
    if host.contains('@') {
        let hint = "in the password write %40 for `@` and %2F for `/`, or take it from a variable: ${NAME}";
        return Err(("a MariaDB URL has one `@`".to_owned(), Some(hint.to_owned())));
    }
    if host.contains(',') {
        return Err(("a MariaDB URL names one host".to_owned(), None));
    }
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    put("user", user)?;
    put("password", password)?;
    let (host, port) = host_and_port(host)?;
    put("host", host)?;
    put("port", port)?;
    let (database, query) = rest.split_once('?').unwrap_or((rest, ""));
    put("dbname", database.strip_prefix('/').unwrap_or(database))?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(("each parameter of a MariaDB URL is NAME=VALUE".to_owned(), None));
        };
        if !PARAMETERS.contains(&name) {
            let hint = nearest(name, &PARAMETERS).map(|near| format!("did you mean `{near}`?"));
            return Err((format!("`{}` is no parameter of a MariaDB URL", crate::words::shown(name)), hint));
        }
        put(name, value)?;
    }
    if !found.contains_key("dbname") {
        return Err(("a MariaDB URL names its database".to_owned(), example()));
    }
    for name in FILES {
        if let Some(path) = found.get_mut(name) {
            *path = base.join(&*path).to_string_lossy().into_owned();
        }
    }
    option_files::complete(&mut found, &option_files::read(environment("HOME")));
    Ok(MariadbUrl(found))
}

impl MariadbUrl {
    /// A URL by its options.
    pub fn of(parameters: BTreeMap<String, String>) -> Self {
        Self(parameters)
    }

    /// The options by name, the password among them.
    pub fn parameters(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    pub fn with_password(&self) -> Secret {
        Secret::new(self.written(true))
    }

    pub fn without_password(&self) -> String {
        self.written(false)
    }

    fn written(&self, all: bool) -> String {
        let mut rest: BTreeMap<&str, &str> =
            self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut out = "mariadb://".to_owned();
        let password = rest.remove("password").filter(|_| all);
        let user = rest.remove("user");
        write_login(&mut out, user, password);
        if let Some(host) = rest.remove("host") {
            let v6 = host.contains(':');
            out.push_str(&if v6 { format!("[{host}]") } else { percent::encode_all(host) });
        }
        if let Some(port) = rest.remove("port") {
            out.push(':');
            out.push_str(&percent::encode_all(port));
        }
        write_rest(&mut out, rest);
        out
    }
}

impl std::fmt::Debug for MariadbUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.without_password())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn read(text: &str) -> Result<MariadbUrl, String> {
        let environment = |name: &str| match name {
            "PASSWORD" => Some(OsString::from("p@ss/w:o?r&d%20#ü'")),
            _ => None,
        };
        parse(text.split_once(':').unwrap().1, Path::new("/etc/shop"), &environment).map_err(|(what, _)| what)
    }

    #[test]
    fn urls_say_where_the_server_is() {
        for (text, expected) in [
            (
                "mysql://shop:${PASSWORD}@127.0.0.1/shop",
                "dbname=shop host=127.0.0.1 password=p@ss/w:o?r&d%20#ü' user=shop",
            ),
            ("mariadb://[::1]:3307/d", "dbname=d host=::1 port=3307"),
            ("mariadb:///d?socket=run/m.sock&user=joe", "dbname=d socket=/etc/shop/run/m.sock user=joe"),
            (
                "mysql://h/d%20e?ssl-mode=verify-ca&ssl-ca=ca.pem",
                "dbname=d e host=h ssl-ca=/etc/shop/ca.pem ssl-mode=verify-ca",
            ),
        ] {
            let url = read(text).unwrap();
            let found = url.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
            assert_eq!(found, expected, "{text}");
            assert_eq!(read(url.with_password().expose()).unwrap().0, url.0, "{text}");
            assert!(!url.without_password().contains("p%40ss"), "{text}");
        }
        assert_eq!(read("mysql://a:hunter2@h:1/d").unwrap().without_password(), "mariadb://a@h:1/d");
    }

    #[test]
    fn bad_urls_are_told_without_being_shown() {
        for (text, why) in [
            ("mysql:joe:hunter2@h/d", "has `//` after its scheme"),
            ("mysql://joe:hunter2@x@h/d", "has one `@`"),
            ("mysql://joe:hunter2@h,i/d", "names one host"),
            ("mysql://joe:hunter2@h", "names its database"),
            ("mysql://joe:${NONE}@h/d", "the environment has no `NONE`"),
            ("mysql://h/d?hunter2", "NAME=VALUE"),
            ("mysql://h/d?sslmode=x", "`sslmode` is no parameter"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }
}
