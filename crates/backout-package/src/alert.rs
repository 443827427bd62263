//! Whom to tell when something went wrong, from the `alerts:` of a site's file. Never tells anybody.

use std::ffi::OsString;

use crate::secret::Secret;
use crate::url::{Environment, UrlError, filled};

/// One way to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alert {
    Mail {
        to: String,
        /// None: `backout` at the machine's own name.
        from: Option<String>,
        smtp: Smtp,
    },
    Webhook {
        /// Whoever knows it may write there.
        url: Secret,
        format: WebhookFormat,
    },
}

/// What a webhook is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFormat {
    /// Everything, field by field.
    Json,
    /// `{"text": …}`, as Slack and Mattermost take it.
    Text,
}

/// A mail server, from `smtp://USER:PASSWORD@HOST:PORT?tls=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    /// User and password.
    pub login: Option<(String, Secret)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// From the first byte: `smtps:`.
    Wrapped,
    /// By STARTTLS, or nothing is sent.
    Required,
    /// By STARTTLS where the server offers it, whatever its certificate.
    IfOffered,
    Never,
}

/// Reads a mail server's URL. What is filled in from the environment may hold any character.
pub fn smtp(text: &str, environment: Environment<'_>) -> Result<Smtp, UrlError> {
    let example = || Some("write smtp://HOST:PORT or smtps://USER:${PASSWORD}@HOST".to_owned());
    let wrong = |what: &str| (what.to_owned(), example());
    let (wrapped, rest) = match text.split_once("://") {
        Some(("smtp", rest)) => (false, rest),
        Some(("smtps", rest)) => (true, rest),
        _ => return Err(wrong("this is not the URL of a mail server")),
    };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let rest = rest.trim_end_matches('/');
    let (login, authority) = match rest.rsplit_once('@') {
        Some((login, authority)) => (Some(login), authority),
        None => (None, rest),
    };
    let text_of = |written: &str| -> Result<String, UrlError> {
        filled(written, environment)?
            .into_string()
            .map_err(|_: OsString| wrong("what the environment holds is not UTF-8"))
    };
    let login = match login {
        Some(login) => {
            let (user, password) = login.split_once(':').ok_or_else(|| wrong("the URL has a user and no password"))?;
            Some((text_of(user)?, Secret::new(text_of(password)?)))
        }
        None => None,
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, Some(port.parse::<u16>().map_err(|_| wrong("the port is not a number"))?))
        }
        _ => (authority, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong("the URL names no host"));
    }
    let tls = match (wrapped, query) {
        (true, None) => SmtpTls::Wrapped,
        (false, Some("tls=required")) => SmtpTls::Required,
        (false, Some("tls=never")) => SmtpTls::Never,
        (false, Some("tls=if-offered")) => SmtpTls::IfOffered,
        // A password is not sent in the clear unless somebody says so.
        (false, None) if login.is_some() => SmtpTls::Required,
        (false, None) => SmtpTls::IfOffered,
        (_, Some(_)) => {
            return Err(wrong(
                "after `?` there may be `tls=required`, `tls=if-offered` or `tls=never`, for smtp: alone",
            ));
        }
    };
    let usual = if wrapped { 465 } else { 25 };
    Ok(Smtp { host: host.to_owned(), port: port.unwrap_or(usual), tls, login })
}

/// Reads a webhook's URL; `${NAME}` is put in as it is.
pub fn webhook(text: &str, environment: Environment<'_>) -> Result<Secret, UrlError> {
    let hint = || Some("write https://HOST/PATH".to_owned());
    // What stands in a URL stays encoded as it is written.
    let escaped = text.replace('%', "%25");
    let url = filled(&escaped, environment)?
        .into_string()
        .map_err(|_| ("what the environment holds is not UTF-8".to_owned(), None))?;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    if rest.is_empty() || rest.starts_with('/') || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(("this is not the URL of a webhook".to_owned(), hint()));
    }
    Ok(Secret::new(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<OsString> {
        (name == "PASSWORD").then(|| "p@ss:w/o%rd?".into())
    }

    #[test]
    fn mail_servers_are_named_by_urls() {
        let read = |text: &str| smtp(text, &environment).map_err(|(what, _)| what);
        let plain = read("smtp://localhost").unwrap();
        assert_eq!(
            (plain.host.as_str(), plain.port, plain.tls, plain.login),
            ("localhost", 25, SmtpTls::IfOffered, None)
        );
        let wrapped = read("smtps://joe%40shop:${PASSWORD}@mail.example:4650/").unwrap();
        assert_eq!((wrapped.host.as_str(), wrapped.port, wrapped.tls), ("mail.example", 4650, SmtpTls::Wrapped));
        assert_eq!(wrapped.login, Some(("joe@shop".to_owned(), Secret::new("p@ss:w/o%rd?"))));
        assert_eq!(read("smtp://joe:x@[::1]:25").unwrap().tls, SmtpTls::Required);
        assert_eq!(read("smtp://joe:x@[::1]").unwrap().host, "::1");
        assert_eq!(read("smtp://joe:x@h?tls=never").unwrap().tls, SmtpTls::Never);
        for (text, why) in [
            ("mail.example", "not the URL of a mail server"),
            ("http://mail.example", "not the URL of a mail server"),
            ("smtp://", "no host"),
            ("smtp://h:x", "port"),
            ("smtp://joe@h", "no password"),
            ("smtp://h?tls=yes", "tls=required"),
            ("smtps://h?tls=never", "for smtp: alone"),
            ("smtp://joe:${NONE}@h", "the environment has no `NONE`"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn webhooks_stay_as_they_are_written() {
        let read =
            |text: &str| webhook(text, &environment).map(|url| url.expose().to_owned()).map_err(|(what, _)| what);
        assert_eq!(read("https://h/T0%2F/B0").as_deref(), Ok("https://h/T0%2F/B0"));
        assert_eq!(read("https://h/${PASSWORD}").as_deref(), Ok("https://h/p@ss:w/o%rd?"));
        for text in ["h/x", "https://", "https:///x", "https://h/a b", "ftp://h/"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
