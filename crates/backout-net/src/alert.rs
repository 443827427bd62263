//! Tells people by mail and webhook, and tries again where that may help. Knows nothing of what it tells.

use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{Message as Mail, SmtpTransport, Transport};
use serde_json::{Value, json};

use crate::http::{agent, certificate, in_words};

/// How long one try may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After this time no further try begins: somebody waits at a terminal.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait before each further try.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Where a message goes.
#[derive(Clone)]
pub enum Channel {
    Mail(MailChannel),
    Webhook(Webhook),
}

#[derive(Clone)]
pub struct MailChannel {
    pub to: String,
    /// None: `backout` at the machine's own name.
    pub from: Option<String>,
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    /// User and password.
    pub login: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// From the first byte.
    Wrapped,
    /// By STARTTLS, or nothing is sent.
    Required,
    /// By STARTTLS where it is offered, whatever the certificate.
    IfOffered,
    Never,
}

#[derive(Clone)]
pub struct Webhook {
    /// Whoever knows it may write there.
    pub url: String,
    /// May be shown.
    pub host: String,
    /// Only `{"text": …}`, as Slack and Mattermost take it.
    pub text_only: bool,
}

/// Without a secret.
impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mail(MailChannel { to, host, port, .. }) => write!(f, "mail to {to} by {host}:{port}"),
            Self::Webhook(webhook) => write!(f, "webhook at {}", webhook.host),
        }
    }
}

/// What people are told.
#[derive(Clone, Debug)]
pub struct Message {
    /// One line.
    pub subject: String,
    pub text: String,
    /// The same, field by field.
    pub fields: Value,
}

/// Why nobody was told, and whether another try may help.
struct Failure {
    why: String,
    lasting: bool,
}

/// Sends the message, with two more tries where the first failed for a reason that may pass.
///
/// # Errors
/// Why it could not be sent, in words without a secret.
pub fn send(channel: &Channel, message: &Message) -> Result<(), String> {
    let once = || match channel {
        Channel::Mail(channel) => mail(channel, message),
        Channel::Webhook(webhook) => post(webhook, message),
    };
    let began = Instant::now();
    let mut result = once();
    for wait in WAITS {
        match &result {
            Err(failure) if !failure.lasting && began.elapsed() + wait < PATIENCE => std::thread::sleep(wait),
            _ => break,
        }
        result = once();
    }
    result.map_err(|failure| failure.why)
}

/// Whether somebody listens where messages go; nothing is sent.
///
/// # Errors
/// Why nobody could be reached, in words without a secret.
pub fn reach(channel: &Channel, time: Duration) -> Result<(), String> {
    let (host, port) = match channel {
        Channel::Mail(mail) => (mail.host.clone(), mail.port),
        Channel::Webhook(webhook) => place(&webhook.url).ok_or_else(|| "its URL names no host".to_owned())?,
    };
    let found = (host.as_str(), port).to_socket_addrs().map_err(|error| format!("{host} is not known: {error}"))?;
    let mut why = format!("{host} has no address");
    for address in found {
        match TcpStream::connect_timeout(&address, time) {
            Ok(_) => return Ok(()),
            Err(error) => why = format!("nobody listens at {host}:{port}: {error}"),
        }
    }
    Err(why)
}

/// Host and port of a URL.
fn place(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let default = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (place, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

fn lasting(why: impl ToString) -> Failure {
    Failure { why: why.to_string(), lasting: true }
}

fn mail(channel: &MailChannel, message: &Message) -> Result<(), Failure> {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let from = channel.from.clone().unwrap_or_else(|| format!("backout <backout@{}>", host()));
    let address = |text: &str| text.parse::<Mailbox>().map_err(|error| lasting(format!("`{text}`: {error}")));
    let mail = Mail::builder()
        .from(address(&from)?)
        .to(address(&channel.to)?)
        .subject(&message.subject)
        .message_id(None)
        .header(ContentType::TEXT_PLAIN)
        .body(message.text.clone())
        .map_err(lasting)?;
    let parameters = |any: bool| {
        let parameters = TlsParameters::builder(channel.host.clone()).dangerous_accept_invalid_certs(any);
        parameters.build().map_err(lasting)
    };
    let tls = match channel.tls {
        MailTls::Wrapped => Tls::Wrapper(parameters(false)?),
        MailTls::Required => Tls::Required(parameters(false)?),
        MailTls::IfOffered => Tls::Opportunistic(parameters(true)?),
        MailTls::Never => Tls::None,
    };
    let mut transport =
        SmtpTransport::builder_dangerous(&channel.host).port(channel.port).tls(tls).timeout(Some(TIMEOUT));
    if let Some((user, password)) = &channel.login {
        transport = transport.credentials(Credentials::new(user.clone(), password.clone()));
    }
    match transport.build().send(&mail) {
        Ok(_) => Ok(()),
        Err(error) => {
            // A server may answer with what it was sent.
            let why = match (error.status(), &channel.login) {
                (Some(code), Some(_)) => format!("the server answered {code}"),
                _ if error.is_timeout() || timed_out(&error) => {
                    format!("it did not answer within {} s", TIMEOUT.as_secs())
                }
                _ => certificate(&causes(&error)).map_or_else(|| causes(&error), str::to_owned),
            };
            Err(Failure { why, lasting: error.is_permanent() || error.is_client() || error.is_tls() })
        }
    }
}

fn post(webhook: &Webhook, message: &Message) -> Result<(), Failure> {
    let body = if webhook.text_only {
        json!({ "text": format!("{}\n\n{}", message.subject, message.text) })
    } else {
        message.fields.clone()
    };
    let sent =
        agent(true, TIMEOUT).post(&webhook.url).header("Content-Type", "application/json").send(body.to_string());
    match sent {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => {
            let status = response.status();
            let lasting = !status.is_server_error() && status.as_u16() != 429;
            Err(Failure { why: format!("it answered {status}"), lasting })
        }
        Err(error) => Err(Failure { why: in_words(&error, TIMEOUT), lasting: false }),
    }
}

/// Linux says of a read that took too long that there is nothing to be read now.
fn timed_out(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)) {
            return true;
        }
        next = error.source();
    }
    false
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !words.ends_with(&more) {
            words = format!("{words}: {more}");
        }
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("network error")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_read_that_took_too_long_is_a_time_out() {
        assert!(timed_out(&Outer(io::Error::from_raw_os_error(11))));
        assert!(timed_out(&Outer(io::ErrorKind::TimedOut.into())));
        assert!(!timed_out(&Outer(io::ErrorKind::ConnectionRefused.into())));
    }

    #[test]
    fn the_place_of_a_webhook_is_what_its_url_says() {
        for (url, expected) in [
            ("https://hooks.example/T0/secret", Some(("hooks.example", 443))),
            ("http://user:x@127.0.0.1:8080/a:b@c", Some(("127.0.0.1", 8080))),
            ("http://[::1]/", Some(("::1", 80))),
            ("https://[::1]:8443?x", Some(("::1", 8443))),
            ("http:///x", None),
        ] {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(place(url), expected, "{url}");
        }
    }
}
