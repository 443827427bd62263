//! `backout watch`: what `deploy --confirm-within` leaves running. It outlives the deploying process and its terminal,
//! and undoes what is not confirmed in time, or was interrupted.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use backout_engine::confirm::awaiting;
use backout_journal::Journal;
use backout_journal::clock::{Clock, SystemClock};
use backout_package::site::Site;
use rustix::process::{geteuid, setsid};

use super::Context;
use crate::end::End;
use crate::error::CliError;

/// Watch over a deployment that is to be confirmed
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Said once it no longer hangs on the terminal.
const READY: &[u8] = b"ready";
/// How long it waits between two looks at the journal, and at most where what it tries is refused.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// There where systemd runs the machine.
const SYSTEMD: &str = "/run/systemd/system";

/// Waits for the deploying process to end, whichever way: that one holds the other end of the standard input.
pub fn run(context: &Context<'_>, _args: &Args) -> Result<End, CliError> {
    let cannot = |source: io::Error| CliError::io("watch over the deployment", source);
    let site = context.site()?;
    setsid().map_err(|error| cannot(error.into()))?;
    let mut out = io::stdout();
    out.write_all(READY).and_then(|()| out.flush()).map_err(cannot)?;
    io::copy(&mut io::stdin(), &mut io::sink()).map_err(cannot)?;
    let mut pause = PAUSE;
    loop {
        let (interrupted, until) = {
            let reader = Journal::read(&site.state)?;
            (reader.unfinished()?.is_some(), awaiting(&reader)?.map(|(_, until)| until))
        };
        if !interrupted && until.is_none() {
            return Ok(End::answered(&serde_json::Value::Null));
        }
        if interrupted || until.is_some_and(|until| SystemClock.now_ms() >= until) {
            // Somebody else is at work, or a database is down: it is tried until it is done.
            pause = match context.resume(site.clone(), "confirm") {
                Ok(_) => PAUSE,
                Err(_) => PAUSE_MAX.min(pause * 2),
            };
        }
        std::thread::sleep(pause);
    }
}

/// A watcher at work: it goes its own way when this ends.
pub struct Watcher {
    _child: Child,
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
        match heard {
            Ok(()) if said == READY => Ok(Self { _child: child }),
            heard => {
                child.kill().ok();
                child.wait().ok();
                heard.and(Err(io::Error::other("it did not start as it should")))
            }
        }
    }
}

fn cannot_start(source: io::Error) -> CliError {
    CliError::io("start what watches over the deployment", source)
}
