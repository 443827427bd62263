//! Tells the people named under `alerts:` what a run came to where that needs their eyes. A mail that cannot be sent is
//! a warning: it never hides what it was to tell.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use backout_engine::outcome::{Outcome, Status};
use backout_model::backup::Examined;
use backout_model::target::Finding;
use backout_net::alert::{self, Channel, MailChannel, MailTls, Message, Webhook};
use backout_package::alert::{Alert, SmtpTls, WebhookFormat};
use backout_package::site::Site;
use jiff::Timestamp;
use serde_json::json;

use crate::error::CliError;
use crate::signals::Stop;
use crate::ui::{JSON_VERSION, Ui};
use crate::words;

/// How often is looked whether the operator wants to wait no longer.
const GLANCE: Duration = Duration::from_millis(100);
/// How long `doctor` waits for a server.
const REACH: Duration = Duration::from_secs(3);
/// How many lines of a list a mail has.
const LINES: usize = 20;
/// How long a line may get.
const WIDTH: usize = 500;

/// Who is to be told of what happens on a site.
pub struct Alerts {
    site: String,
    to: Vec<Alert>,
    /// What is to be told besides the end of the run itself: of which run, and what it came to.
    also: RefCell<Vec<(String, Outcome)>>,
    /// Why somebody cannot be told.
    lacking: Option<String>,
}

impl Alerts {
    pub fn of(site: &Site) -> Self {
        let lacking = site.can_alert().err().map(|error| error.to_string());
        Self { site: site.name.clone(), to: site.alerts.clone(), also: RefCell::default(), lacking }
    }

    /// Keeps what another run came to, to be told once nobody is kept waiting.
    pub fn also(&self, purpose: &str, outcome: &Outcome) {
        self.also.borrow_mut().push((purpose.to_owned(), outcome.clone()));
    }

    pub fn tell_also(&self, ui: &Ui) {
        for (purpose, outcome) in self.also.take() {
            self.tell(ui, &purpose, &outcome);
        }
    }

    /// Tells of `outcome`, the end of `purpose` (`deploy winter 1.0`), where it is one to be told.
    pub fn tell(&self, ui: &Ui, purpose: &str, outcome: &Outcome) {
        if self.to.is_empty() || !is_told(outcome) {
            return;
        }
        let message = message(&self.site, purpose, outcome);
        let (tell, told) = mpsc::channel();
        let mut waiting = BTreeMap::new();
        for (number, alert) in self.to.iter().enumerate() {
            let channel = channel(alert);
            ui.note(format!("telling by {channel}"));
            waiting.insert(number, channel.to_string());
            let (tell, message) = (tell.clone(), message.clone());
            // What is still under way when the process ends goes with it.
            thread::spawn(move || tell.send((number, alert::send(&channel, &message))).ok());
        }
        // What came before may have been stopped; only who asks from now on does not want to wait for this.
        let stop = Stop::listen();
        while !waiting.is_empty() {
            match told.recv_timeout(GLANCE) {
                Ok((number, sent)) => {
                    let channel = waiting.remove(&number).unwrap_or_default();
                    if let Err(why) = sent {
                        ui.warning(format!("nobody was told by {channel}: {why}"));
                    }
                }
                Err(_) if stop.as_ref().is_ok_and(Stop::asked) => {
                    let left = std::mem::take(&mut waiting).into_values();
                    left.for_each(|channel| {
                        ui.warning(format!("nobody was told by {channel}: stopped by the operator"))
                    });
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Whom `doctor` would have told, and whether somebody listens there.
    pub fn examine(&self) -> Examined {
        let mut all = Examined::default();
        let finding = |what: String| Finding { target: "alerts".to_owned(), what, grave: false };
        if self.to.is_empty() && self.lacking.is_none() {
            let nobody = "nobody is told when something goes wrong: site.yaml has no `alerts:`";
            all.lacking.push(finding(nobody.to_owned()));
        }
        for channel in self.to.iter().map(channel) {
            match alert::reach(&channel, REACH) {
                Ok(()) => all.findings.push(finding(format!("{channel} can be reached"))),
                Err(why) => {
                    let what = format!("{channel} cannot be reached, so nobody would be told: {why}");
                    all.lacking.push(finding(what));
                }
            }
        }
        if let Some(why) = &self.lacking {
            let what = format!("nobody could be told, so nothing that may have to be told would begin: {why}");
            all.findings.push(Finding { grave: true, ..finding(what) });
        }
        all
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
        Alert::Webhook { url, host, format } => Channel::Webhook(Webhook {
            url: url.expose().to_owned(),
            host: host.clone(),
            text_only: *format == WebhookFormat::Text,
        }),
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

/// Where others had changed the same, without keys and values of rows: those are people's data, and a mail goes through many
/// hands.
fn places(outcome: &Outcome) -> Vec<String> {
    let mut places: BTreeMap<String, u64> = BTreeMap::new();
    for conflict in &outcome.conflicts {
        *places.entry(conflict.place()).or_default() += 1;
    }
    let mut lines: Vec<String> = places
        .into_iter()
        .map(|(place, conflicts)| format!("conflict: {place} ({})", words::count(conflicts, "time")))
        .collect();
    let more = outcome.conflicts_total.saturating_sub(outcome.conflicts.len() as u64);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    if !lines.is_empty() {
        lines.push("What was there and what is there now, `backout status` shows.".to_owned());
    }
    lines
}

fn text(site: &str, purpose: &str, outcome: &Outcome, now: Timestamp) -> String {
    let time = now.strftime("%Y-%m-%d %H:%M UTC");
    let mut happened = outcome.causes.clone();
    happened.extend(outcome.left_out.iter().map(|left| format!("{} was left out: {}", left.what, left.why)));
    let mut state = vec![outcome.closing.clone()];
    state.extend(outcome.notes.iter().cloned());
    state.extend(places(outcome));
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
    let mut text = format!("On the site {site}, {purpose} ended at {time}.\n");
    for (title, lines) in [("What happened", happened), ("The state of the site", state), ("What to do", next)] {
        text.push_str(&format!("\n{title}:\n"));
        lines.iter().take(LINES).for_each(|line| text.push_str(&format!("  {}\n", words::within(line, WIDTH))));
        if lines.len() > LINES {
            text.push_str(&format!("  … and {} more\n", lines.len() - LINES));
        }
    }
    text
}
