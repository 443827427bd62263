//! Tells the people named under `alerts:` what a run came to where that needs their eyes. A mail that cannot be sent is
//! a warning: it never hides what it was to tell.

use backout_engine::outcome::{Outcome, Status};
use backout_net::alert::{self, Channel, MailChannel, MailTls, Message, Webhook};
use backout_package::alert::{Alert, SmtpTls, WebhookFormat};
use backout_package::site::Site;
use jiff::Timestamp;
use serde_json::json;

use crate::error::CliError;
use crate::ui::{JSON_VERSION, Ui};
use crate::words;

/// How many lines of a list a mail has.
const LINES: usize = 20;
/// How long a line may get.
const WIDTH: usize = 500;

/// Who is to be told of what happens on a site.
pub struct Alerts {
    site: String,
    to: Vec<Alert>,
}

impl Alerts {
    pub fn of(site: &Site) -> Self {
        Self { site: site.name.clone(), to: site.alerts.clone() }
    }

    /// Tells of `outcome`, the end of `purpose` (`deploy winter 1.0`), where it is one to be told.
    pub fn tell(&self, ui: &Ui, purpose: &str, outcome: &Outcome) {
        if self.to.is_empty() || !is_told(outcome) {
            return;
        }
        let message = message(&self.site, purpose, outcome);
        for alert in &self.to {
            let channel = channel(alert);
            if let Err(why) = alert::send(&channel, &message) {
                ui.warning(format!("nobody was told by {channel}: {why}"));
            }
        }
    }

    /// The same of a run that ended with an error; what it had begun is settled by the next one.
    pub fn tell_error(&self, ui: &Ui, purpose: &str, error: &CliError) {
        let mut outcome = Outcome::new(error.status(), error.closing());
        outcome.causes = error.causes();
        outcome.hints = error.hints();
        self.tell(ui, purpose, &outcome);
    }
}

/// What fails and is undone, what needs a hand, and children that were passed over.
fn is_told(outcome: &Outcome) -> bool {
    match outcome.status {
        Status::Failed | Status::NeedsHand => true,
        Status::Partly => !outcome.left_out.is_empty(),
        Status::Done | Status::Usage | Status::Refused => false,
    }
}

fn channel(alert: &Alert) -> Channel {
    match alert {
        Alert::Mail { to, from, smtp } => Channel::Mail(MailChannel {
            to: to.clone(),
            from: from.clone(),
            host: smtp.host.clone(),
            port: smtp.port,
            tls: match smtp.tls {
                SmtpTls::Wrapped => MailTls::Wrapped,
                SmtpTls::Required => MailTls::Required,
                SmtpTls::IfOffered => MailTls::IfOffered,
                SmtpTls::Never => MailTls::Never,
            },
            login: smtp.login.as_ref().map(|(user, password)| (user.clone(), password.expose().to_owned())),
        }),
        Alert::Webhook { url, format } => {
            Channel::Webhook(Webhook { url: url.expose().to_owned(), text_only: *format == WebhookFormat::Text })
        }
    }
}

fn message(site: &str, purpose: &str, outcome: &Outcome) -> Message {
    let what = match outcome.status {
        Status::Failed => "failed, the site is as it was before",
        Status::NeedsHand => "needs a hand",
        Status::Partly | Status::Done | Status::Usage | Status::Refused => "was done in part",
    };
    let now = Timestamp::now();
    let subject = format!("[{site}] {purpose}: {what}");
    let text = text(site, purpose, outcome, now);
    let fields = json!({
        "v": JSON_VERSION,
        "event": "alert",
        "site": site,
        "command": purpose,
        "status": outcome.status,
        "exit": outcome.status.code(),
        "deployment": outcome.deployment,
        "causes": outcome.causes,
        "left_out": outcome.left_out,
        "conflicts_total": outcome.conflicts_total,
        "notes": outcome.notes,
        "closing": outcome.closing,
        "hints": outcome.hints,
        "time_ms": now.as_millisecond(),
        "subject": subject,
        "text": text,
    });
    Message { subject, text, fields }
}

fn text(site: &str, purpose: &str, outcome: &Outcome, now: Timestamp) -> String {
    let time = now.strftime("%Y-%m-%d %H:%M UTC");
    let mut happened = outcome.causes.clone();
    happened.extend(outcome.left_out.iter().map(|left| format!("{} was left out: {}", left.what, left.why)));
    let mut state = vec![outcome.closing.clone()];
    state.extend(outcome.notes.iter().cloned());
    state.extend(outcome.conflicts.iter().map(ToString::to_string));
    let mut next = outcome.hints.clone();
    match outcome.status {
        Status::Failed => next.insert(0, "Nothing is urgent: the site works as it did before.".to_owned()),
        Status::NeedsHand => next.push("backout status  shows where the site stands".to_owned()),
        Status::Partly | Status::Done | Status::Usage | Status::Refused => {
            next.push("What was applied stays; what was left out can be tried again.".to_owned());
        }
    }
    if let Some(id) = &outcome.deployment {
        next.push(format!("backout show {id}  tells it step by step"));
    }
    let mut text = format!("`backout {purpose}` on the site {site} ended at {time}.\n");
    for (title, lines) in [("What happened", happened), ("The state of the site", state), ("What to do", next)] {
        text.push_str(&format!("\n{title}:\n"));
        lines.iter().take(LINES).for_each(|line| text.push_str(&format!("  {}\n", words::within(line, WIDTH))));
        if lines.len() > LINES {
            text.push_str(&format!("  … and {} more\n", lines.len() - LINES));
        }
    }
    text
}
