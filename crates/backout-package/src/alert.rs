//! Whom to tell when something went wrong, from the `alerts:` of a site's file. Never tells anybody.

use std::ffi::OsString;

use url::Url;

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
        /// May be shown.
        host: String,
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

/// Reads a webhook's URL, and returns it with its host, for those who may not see the rest. `${NAME}` is put in after
/// the URL is taken apart: in a user's name and password it may hold any character, elsewhere it is put in as it is.
pub fn webhook(text: &str, environment: Environment<'_>) -> Result<(Secret, String), UrlError> {
    let wrong = || ("this is not the URL of a webhook".to_owned(), Some("write https://HOST/PATH".to_owned()));
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (login, host) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, authority),
    };
    // What is written there stays encoded as it is.
    let path = filled(&path.replace('%', "%25"), environment)?.into_string().map_err(|_| wrong())?;
    let mut url = Url::parse(&format!("{scheme}://{host}{path}")).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong());
    }
    if let Some(login) = login {
        let decoded = |written: &str| filled(written, environment)?.into_string().map_err(|_| wrong());
        let (user, password) = login.split_once(':').map_or((login, None), |(user, word)| (user, Some(word)));
        let password = password.map(decoded).transpose()?;
        url.set_username(&decoded(user)?).map_err(|()| wrong())?;
        url.set_password(password.as_deref()).map_err(|()| wrong())?;
    }
    let host = url.host_str().unwrap_or_default().to_owned();
    Ok((Secret::new(url), host))
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
        let read = |text: &str| {
            let read = webhook(text, &environment).map_err(|(what, _)| what);
            read.map(|(url, host)| format!("{} {host}", url.expose()))
        };
        assert_eq!(read("https://h/T0%2F/B0").as_deref(), Ok("https://h/T0%2F/B0 h"));
        assert_eq!(read("https://h:444/${PASSWORD}").as_deref(), Ok("https://h:444/p@ss:w/o%rd? h"));
        assert_eq!(read("https://u:${PASSWORD}@h/x").as_deref(), Ok("https://u:p%40ss%3Aw%2Fo%rd%3F@h/x h"));
        for text in ["h/x", "https://", "https://h:99999/", "https://[::1/x", "ftp://h/", "https://${NONE}@h/"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
