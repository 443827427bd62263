//! Tells people by mail and webhook, and tries again where that may help. Knows nothing of what it tells.

use std::fmt;
use std::time::Duration;

use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{Message as Mail, SmtpTransport, Transport};
use serde_json::{Value, json};

use crate::http::{agent, in_words};

/// How long one try may take.
const TIMEOUT: Duration = Duration::from_secs(15);
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
    pub url: String,
    /// Only `{"text": …}`, as Slack and Mattermost take it.
    pub text_only: bool,
}

/// Without a secret.
impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mail(MailChannel { to, host, port, .. }) => write!(f, "mail to {to} by {host}:{port}"),
            Self::Webhook(webhook) => write!(f, "webhook at {}", webhook.host()),
        }
    }
}

impl Webhook {
    /// Whoever knows the rest may write there.
    fn host(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', '?', '#']).next().unwrap_or_default().rsplit('@').next().unwrap_or_default()
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
    let mut result = once();
    for wait in WAITS {
        match &result {
            Err(failure) if !failure.lasting => std::thread::sleep(wait),
            _ => break,
        }
        result = once();
    }
    result.map_err(|failure| failure.why)
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
            Err(Failure { why: causes(&error), lasting: error.is_permanent() || error.is_client() || error.is_tls() })
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
        agent(true, 0, TIMEOUT).post(&webhook.url).header("Content-Type", "application/json").send(body.to_string());
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
