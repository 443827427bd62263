//! `backout watch`: what `deploy --confirm-within` leaves running. It outlives the deploying process and its terminal,
//! and undoes what is not confirmed in time, or was interrupted.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use backout_engine::confirm::awaiting;
use backout_engine::outcome::Status;
use backout_journal::Journal;
use backout_journal::clock::{Clock, SystemClock};
use backout_package::site::Site;
use rustix::process::{geteuid, setsid};

use super::Context;
use crate::end::End;
use crate::error::CliError;
use crate::signals::Stop;

/// Watch over a deployment that is to be confirmed
#[derive(Debug, clap::Args)]
pub struct Args {
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
/// There where systemd runs the machine.
const SYSTEMD: &str = "/run/systemd/system";

/// Waits for the deploying process to end, whichever way: that one holds the other end of the standard input.
pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let cannot = |source: io::Error| CliError::io("watch over the deployment", source);
    let site = context.site()?;
    if !args.apart {
        return Err(cannot(apart(&site)));
    }
    let mut out = io::stdout();
    out.write_all(READY).and_then(|()| out.flush()).map_err(cannot)?;
    let mut said = Vec::new();
    io::stdin().read_to_end(&mut said).map_err(cannot)?;
    if said == NOTHING {
        return Ok(End::answered(&serde_json::Value::Null));
    }
    let stop = Stop::listen().map_err(cannot)?;
    let mut pause = PAUSE;
    while !stop.asked() {
        let (interrupted, until) = {
            let reader = Journal::read(&site.state)?;
            (reader.unfinished()?.is_some(), awaiting(&reader)?.map(|(_, until)| until))
        };
        if !interrupted && until.is_none() {
            break;
        }
        if interrupted || until.is_some_and(|until| SystemClock.now_ms() >= until) {
            // Somebody else is at work, or a database is down: it is tried until it is done, less and less often.
            let settled = context.resume(site.clone(), PURPOSE);
            let done = |status: Status| matches!(status, Status::Done | Status::Failed);
            let avails = settled.is_ok_and(|outcome| outcome.is_none_or(|outcome| done(outcome.status)));
            pause = if avails { PAUSE } else { PAUSE_MAX.min(pause * 2) };
        }
        std::thread::sleep(pause);
    }
    Ok(End::answered(&serde_json::Value::Null))
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
    Command::new(program).arg("--site").arg(&site.file).args(["watch", "--apart"]).current_dir("/").exec()
}

/// A watcher at work.
pub struct Watcher {
    _child: Child,
    /// It goes its own way when this closes.
    tell: ChildStdin,
}

impl Watcher {
    /// Starts one. Where systemd runs the machine it gets a scope of its own, as the end of a login ends what it left.
    pub fn start(site: &Site) -> Result<Self, CliError> {
        let program = std::env::current_exe().map_err(cannot_start)?;
        let words: [OsString; 3] = ["--site".into(), site.file.clone().into(), "watch".into()];
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
            (Ok(()), Some(tell)) if said == READY => Ok(Self { _child: child, tell }),
            (heard, _) => {
                child.kill().ok();
                child.wait().ok();
                heard.and(Err(io::Error::other("it did not start as it should")))
            }
        }
    }

    /// Lets it go. One whose deployment does not wait for anything ends at once.
    pub fn let_go(mut self, site: &Site) -> Result<(), CliError> {
        if awaiting(&Journal::read(&site.state)?)?.is_none() {
            // Where it is gone already nothing has to be told to it.
            self.tell.write_all(NOTHING).ok();
        }
        Ok(())
    }
}

fn cannot_start(source: io::Error) -> CliError {
    CliError::io("start what watches over the deployment", source)
}
