//! `backout watch`: what `deploy --confirm-within` leaves running. It outlives the deploying process and its terminal,
//! and undoes what is not confirmed in time, or was interrupted.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use backout_engine::confirm::awaiting;
use backout_engine::outcome::{Outcome, Status};
use backout_journal::clock::{Clock, SystemClock};
use backout_journal::{DeploymentRow, Journal};
use backout_package::site::Site;
use rustix::process::{geteuid, setsid};

use super::Context;
use crate::alerts::Alerts;
use crate::boot::SYSTEMD;
use crate::end::End;
use crate::error::CliError;
use crate::signals::Stop;
use crate::words;

/// Watch over a deployment that is to be confirmed, and undo it when its time is over
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A deploying process started it, and holds the other end of its standard input
    #[arg(long, hide = true)]
    for_deploy: bool,
    /// It hangs on nothing of the process that started it any more
    #[arg(long, hide = true)]
    apart: bool,
}

/// Said once it no longer hangs on the terminal.
const READY: &[u8] = b"ready";
/// What the deploying process says where there is nothing to watch over.
const NOTHING: &[u8] = b"nothing";
/// What an alert says was at work.
const PURPOSE: &str = "the wait for a confirm";
/// How long it waits between two looks at the journal, and at most where what it tries is of no avail.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let cannot = |source: io::Error| CliError::io("watch over the deployment", source);
    let site = context.site()?;
    if args.for_deploy {
        return Err(cannot(apart(&site)));
    }
    let mut known = None;
    if args.apart {
        let mut out = io::stdout();
        out.write_all(READY).and_then(|()| out.flush()).map_err(cannot)?;
        // The deploying process ends, whichever way.
        let mut said = Vec::new();
        io::stdin().read_to_end(&mut said).map_err(cannot)?;
        if said == NOTHING {
            return Ok(End::answered(&serde_json::Value::Null));
        }
        known = Seen::as_told(&said);
    } else {
        site.can_alert()?;
        match Seen::of(&site)? {
            Seen { until: Some((name, until)), .. } => context.ui.note(format!(
                "watching over {name}: undone {} unless `backout confirm` comes first",
                words::time(until)
            )),
            Seen { interrupted: true, .. } => context.ui.note("settling what was interrupted"),
            Seen { .. } => context.ui.answer("no deployment is to be confirmed"),
        }
    }
    let stop = Stop::listen().map_err(cannot)?;
    watch(context, &site, &stop, known);
    Ok(End::answered(&serde_json::Value::Null))
}

/// What the journal has to say to a watcher.
struct Seen {
    interrupted: bool,
    /// The deployment that is to be confirmed, and until when.
    until: Option<(String, i64)>,
    /// There is a journal at all.
    is_there: bool,
}

impl Seen {
    /// What the deploying process says of a deployment that waits: until when, and which it is.
    fn told(row: &DeploymentRow, until: i64) -> String {
        format!("{until} {}", name(row))
    }

    /// None where that process died before it could say anything.
    fn as_told(said: &[u8]) -> Option<Self> {
        let (until, name) = std::str::from_utf8(said).ok()?.split_once(' ')?;
        Some(Self { interrupted: false, until: Some((name.to_owned(), until.parse().ok()?)), is_there: true })
    }

    fn of(site: &Site) -> Result<Self, CliError> {
        let reader = Journal::read(&site.state)?;
        Ok(Self {
            interrupted: reader.unfinished()?.is_some(),
            until: awaiting(&reader)?.map(|(row, until)| (name(&row), until)),
            is_there: reader.last_seq()? > 0,
        })
    }
}

fn name(row: &DeploymentRow) -> String {
    format!("{} {} ({})", row.package, row.version, row.id)
}

/// Until nothing is left to watch over, whatever becomes of the site meanwhile: a state directory that is not mounted, or a
/// database that is down, is waited for, and where its time comes before it is back, people are told.
fn watch(context: &Context<'_>, site: &Site, stop: &Stop, known: Option<Seen>) {
    let mut pause = PAUSE;
    let mut last = known;
    let mut told = false;
    while !stop.asked() {
        let failed = match Seen::of(site) {
            // It was there before.
            Ok(Seen { is_there: false, .. }) if last.is_some() => {
                Some(CliError::refused(format!("there is no journal in {} any more", site.state.display()), RESUME))
            }
            Ok(seen) if !seen.interrupted && seen.until.is_none() => return,
            Ok(seen) => {
                let due = seen.interrupted || is_over(&seen);
                last = Some(seen);
                // Somebody else is at work, or a database is down: it is tried until it is done, less and less often.
                let settled = due.then(|| context.resume(site.clone(), PURPOSE)).transpose();
                let done = |status: Status| matches!(status, Status::Done | Status::Failed);
                let avails = |outcome: &Option<Outcome>| outcome.as_ref().is_none_or(|outcome| done(outcome.status));
                if settled.as_ref().is_ok_and(|settled| settled.as_ref().is_none_or(avails)) {
                    pause = PAUSE;
                    std::thread::sleep(pause);
                    continue;
                }
                settled.err()
            }
            Err(error) => Some(error),
        };
        pause = PAUSE_MAX.min(pause * 2);
        if let Some(error) = failed.filter(|error| !told && !error.is_held())
            && let Some(Seen { until: Some((name, until)), .. }) = &last
            && SystemClock.now_ms() >= *until
        {
            let mut outcome = Outcome::new(
                Status::NeedsHand,
                format!(
                    "Needs a hand: {name} was not confirmed {} and cannot be undone yet; it is tried again.",
                    words::time(*until)
                ),
            );
            outcome.causes = error.causes();
            outcome.hints = error.hints();
            outcome.hints.push(RESUME.to_owned());
            Alerts::of(site).tell(context.ui, PURPOSE, &outcome);
            told = true;
        }
        std::thread::sleep(pause);
    }
}

/// Watches over a deployment that is to be confirmed where nobody does: a reboot, or somebody who ends processes, ended the
/// watcher, too.
pub fn again(context: &Context<'_>, site: &Site) -> Result<(), CliError> {
    let seen = Seen::of(site)?;
    let Some((name, until)) = seen.until.filter(|_| !is_watched(site)) else { return Ok(()) };
    Watcher::start(site)?.let_go(site)?;
    let until = words::time(until);
    context.ui.note(format!("watching over {name} again: undone {until} unless `backout confirm` comes first"));
    Ok(())
}

/// True where a watcher of this user's, or of root's, is at work on the site.
fn is_watched(site: &Site) -> bool {
    let mine = |uid: u32| uid == 0 || uid == geteuid().as_raw();
    let wanted = watching(site);
    let watches = |process: &Path| -> io::Result<bool> {
        let words = fs::read(process.join("cmdline"))?;
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).skip(1).filter(|word| !word.is_empty()).collect();
        Ok(mine(fs::metadata(process)?.uid())
            && words.iter().copied().eq(wanted.iter().map(|word| word.as_encoded_bytes())))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    // One that has ended meanwhile is none.
    processes.into_iter().any(|process| watches(&process.path()).unwrap_or(false))
}

/// The arguments of a watcher that hangs on nothing.
fn watching(site: &Site) -> [OsString; 4] {
    ["--site".into(), site.file.clone().into(), "watch".into(), "--apart".into()]
}

/// What to do where the watcher cannot.
const RESUME: &str = "`backout resume` once that is mended";

fn is_over(seen: &Seen) -> bool {
    seen.until.as_ref().is_some_and(|(_, until)| SystemClock.now_ms() >= *until)
}

/// Begins a session of its own and this program anew, without a file or directory of whoever started it: a lock that
/// waits for them to be closed must not wait for a confirm.
fn apart(site: &Site) -> io::Error {
    if let Err(error) = setsid() {
        return error.into();
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    close_fds::set_fds_cloexec(3, &[]);
    Command::new(program).args(watching(site)).current_dir("/").exec()
}

/// A watcher at work.
pub struct Watcher {
    child: Child,
    /// It goes its own way when this closes.
    tell: ChildStdin,
}

impl Watcher {
    /// Starts one. Where systemd runs the machine it gets a scope of its own, as the end of a login ends what it left.
    pub fn start(site: &Site) -> Result<Self, CliError> {
        let program = std::env::current_exe().map_err(cannot_start)?;
        let words: [OsString; 4] = ["--site".into(), site.file.clone().into(), "watch".into(), "--for-deploy".into()];
        if Path::new(SYSTEMD).is_dir() {
            let mut scope = Command::new("systemd-run");
            scope.args(["--scope", "--quiet", "--collect"]);
            if !geteuid().is_root() {
                scope.arg("--user");
            }
            scope.arg("--").arg(&program).args(&words);
            if let Ok(watcher) = Self::ready(&mut scope) {
                return Ok(watcher);
            }
        }
        Self::ready(Command::new(program).args(words)).map_err(cannot_start)
    }

    fn ready(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut said = vec![0; READY.len()];
        let heard = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?.read_exact(&mut said);
        match (heard, child.stdin.take()) {
            (Ok(()), Some(tell)) if said == READY => Ok(Self { child, tell }),
            (heard, _) => {
                child.kill().ok();
                child.wait().ok();
                heard.and(Err(io::Error::other("it did not start as it should")))
            }
        }
    }

    /// Lets it go. One whose deployment does not wait for anything ends at once; in place of one that died another is started.
    pub fn let_go(mut self, site: &Site) -> Result<(), CliError> {
        let awaited = awaiting(&Journal::read(&site.state)?)?;
        let told =
            awaited.as_ref().map_or_else(|| NOTHING.to_vec(), |(row, until)| Seen::told(row, *until).into_bytes());
        let heard = self.tell.write_all(&told).is_ok() && matches!(self.child.try_wait(), Ok(None));
        if heard || awaited.is_none() {
            return Ok(());
        }
        Self::start(site)?.tell.write_all(&told).map_err(cannot_start)
    }
}

fn cannot_start(source: io::Error) -> CliError {
    CliError::io("start what watches over the deployment", source)
}
