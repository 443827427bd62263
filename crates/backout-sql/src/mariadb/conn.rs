//! Where the server is and how to get in: a socket or TCP, with TLS or without. Never shows a password.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use mysql::{ClientIdentity, Conn, DriverError, Opts, OptsBuilder, SslOpts};

/// Why a URL or what it leads to cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnError {
    #[error("neither the URL nor the environment says which user connects")]
    User,
    /// Its value may be a secret.
    #[error("the value of `{name}` is not understood")]
    Value { name: &'static str },
    #[error("`ssl-mode` needs `ssl-ca`: a file with the certificate that the server's is signed by")]
    Authority,
    #[error("`ssl-cert` and `ssl-key` go together")]
    Identity,
    #[error(transparent)]
    Server(#[from] mysql::Error),
}

/// Where the server's socket is by default: MariaDB's own place in Debian, then in others.
const SOCKETS: [&str; 2] = ["/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock"];

/// Everything that is needed to connect, any number of times.
#[derive(Clone)]
pub struct Route {
    options: OptsBuilder,
    /// TLS where the server has it, as the client does by default; nothing is checked then.
    preferred: bool,
}

impl Route {
    /// `params`: as `site.yaml` has them, see the URL's own text.
    pub fn of(params: &BTreeMap<String, String>) -> Result<Self, ConnError> {
        let get = |name: &str| params.get(name).cloned();
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let user = get("user").or_else(|| env("USER")).or_else(|| env("LOGNAME")).ok_or(ConnError::User)?;
        let timeout = match get("connect-timeout") {
            None => 20,
            Some(text) => text.parse().map_err(|_| ConnError::Value { name: "connect-timeout" })?,
        };
        let mut options = OptsBuilder::new()
            .user(Some(user))
            .pass(get("password"))
            .db_name(get("dbname"))
            .tcp_connect_timeout(Some(Duration::from_secs(timeout)))
            .tcp_keepalive_time_ms(Some(30_000))
            .prefer_socket(false)
            .stmt_cache_size(0_usize);
        let host = get("host").filter(|host| host != "localhost" || params.contains_key("port"));
        let socket = get("socket").or_else(|| env("MYSQL_UNIX_PORT").filter(|_| host.is_none()));
        let mode = get("ssl-mode");
        if let (Some(socket), None) = (&socket, &host) {
            options = options.socket(Some(socket.clone()));
        } else if let Some(host) = host {
            let port = match get("port") {
                None => 3306,
                Some(text) => text.parse().map_err(|_| ConnError::Value { name: "port" })?,
            };
            options = options.ip_or_hostname(Some(host)).tcp_port(port);
        } else {
            let found = SOCKETS.iter().find(|path| PathBuf::from(path).exists()).unwrap_or(&SOCKETS[0]);
            options = options.socket(Some((*found).to_owned()));
            return Ok(Self { options, preferred: false });
        }
        let by_socket = socket.is_some();
        let ssl = ssl(params, mode.as_deref(), by_socket)?;
        let preferred = mode.is_none() && ssl.is_some();
        Ok(Self { options: options.ssl_opts(ssl), preferred })
    }

    /// In words, what nobody warrants of the way there; none by a socket. `cipher`: that of a session, empty where it has none.
    pub fn unguarded(&self, cipher: &str) -> Option<&'static str> {
        let opts = Opts::from(self.options.clone());
        if opts.get_socket().is_some() {
            return None;
        }
        match opts.get_ssl_opts() {
            _ if cipher.is_empty() => Some("the connection is not encrypted: `ssl-mode=required` takes no other"),
            Some(ssl) if ssl.accept_invalid_certs() => Some(
                "the connection is encrypted, but nobody looks at the server's certificate: `ssl-ca` names who signs it",
            ),
            Some(ssl) if ssl.skip_domain_validation() => Some(
                "the connection is encrypted, but nobody looks for which host the server's certificate is: `ssl-mode=verify-identity` does",
            ),
            _ => None,
        }
    }

    pub fn connect(&self) -> Result<Conn, ConnError> {
        match Conn::new(self.options.clone()) {
            Err(mysql::Error::DriverError(DriverError::TlsNotSupported)) if self.preferred => {
                Ok(Conn::new(self.options.clone().ssl_opts(None))?)
            }
            other => Ok(other?),
        }
    }
}

fn ssl(params: &BTreeMap<String, String>, mode: Option<&str>, by_socket: bool) -> Result<Option<SslOpts>, ConnError> {
    let file = |name: &str| params.get(name).map(PathBuf::from);
    let mut opts = SslOpts::default();
    opts = match (file("ssl-cert"), file("ssl-key")) {
        (Some(cert), Some(key)) => opts.with_client_identity(Some(ClientIdentity::new(cert, key))),
        (None, None) => opts,
        _ => return Err(ConnError::Identity),
    };
    let authority = file("ssl-ca");
    let checked = authority.is_some();
    if let Some(authority) = authority {
        opts = opts.with_root_cert_path(Some(authority));
    }
    match mode.map(str::to_ascii_lowercase).as_deref() {
        Some("disabled") => Ok(None),
        None if by_socket && !checked => Ok(None),
        None if !checked => Ok(Some(opts.with_danger_accept_invalid_certs(true))),
        Some("preferred" | "required") if !checked => Ok(Some(opts.with_danger_accept_invalid_certs(true))),
        Some("verify-ca") if !checked => Err(ConnError::Authority),
        Some("required" | "preferred" | "verify-ca") => Ok(Some(opts.with_danger_skip_domain_validation(true))),
        None | Some("verify-identity") => Ok(Some(opts)),
        Some(_) => Err(ConnError::Value { name: "ssl-mode" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(pairs: &[(&str, &str)]) -> Result<Route, ConnError> {
        Route::of(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn parameters_say_how_to_get_there() {
        let opts = |pairs: &[(&str, &str)]| mysql::Opts::from(way(pairs).unwrap().options);
        let base = [("user", "joe"), ("dbname", "d")];
        let with = |more: &[(&'static str, &'static str)]| [&base[..], more].concat();
        let by_socket = opts(&with(&[("host", "localhost"), ("socket", "/s")]));
        assert_eq!((by_socket.get_socket(), by_socket.get_ssl_opts().is_some()), (Some("/s"), false));
        let by_tcp = opts(&with(&[("host", "127.0.0.1"), ("port", "7")]));
        assert_eq!((by_tcp.get_socket(), by_tcp.get_tcp_port()), (None, 7));
        assert!(by_tcp.get_ssl_opts().unwrap().accept_invalid_certs());
        let said = |more: &[(&'static str, &'static str)], cipher| way(&with(more)).unwrap().unguarded(cipher);
        for (more, cipher, found) in [
            (&[("host", "localhost"), ("socket", "/s")][..], "", None),
            (&[("host", "h")], "", Some("is not encrypted")),
            (&[("host", "h")], "AES", Some("nobody looks at the server's certificate")),
            (&[("host", "h"), ("ssl-ca", "/ca"), ("ssl-mode", "required")], "AES", Some("for which host")),
            (&[("host", "h"), ("ssl-ca", "/ca")], "AES", None),
        ] {
            let said = said(more, cipher);
            assert!(
                said.is_some() == found.is_some() && said.unwrap_or("").contains(found.unwrap_or("")),
                "{more:?}: {said:?}"
            );
        }
        let checked = opts(&with(&[("host", "h"), ("ssl-ca", "/ca"), ("ssl-mode", "verify-identity")]));
        assert!(!checked.get_ssl_opts().unwrap().accept_invalid_certs());
        assert!(matches!(way(&with(&[("host", "h"), ("ssl-mode", "verify-ca")])), Err(ConnError::Authority)));
        let error = way(&with(&[("host", "h"), ("port", "hunter2")])).err().unwrap();
        assert!(!error.to_string().contains("hunter2"));
    }
}
