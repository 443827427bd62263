//! Runs a database's own client tools: no shell, no password among the words, what they say on stderr kept.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use backout_model::backup::BackupError;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::ledger::Ledger;

/// How often a tool that runs is looked at.
const GLANCE: Duration = Duration::from_millis(20);
/// The most that is told of what a tool said, in characters, and what is read of it, in bytes: a password that stands where
/// the telling ends is found whole.
const SAID: usize = 2000;
const READ: u64 = 64 * 1024;

/// One run of a tool.
pub struct Tool<'a> {
    pub name: &'a str,
    pub words: Vec<OsString>,
    /// Beside the caller's own environment.
    pub environment: Vec<(&'a str, OsString)>,
    pub input: Option<&'a Path>,
    /// Made anew.
    pub output: &'a Path,
}

impl Tool<'_> {
    /// Runs it to its end; an error where it fails, with what it said.
    pub fn run(self, ledger: Option<&Ledger>) -> Result<(), BackupError> {
        let name = self.name;
        let failed = |error: std::io::Error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let error = BackupError::failed(format!("cannot run {name}"), error);
            if missing { error.hint(format!("install {name}, the database's own client tool")) } else { error }
        };
        let mut said = tempfile::tempfile().map_err(failed)?;
        let output = File::create(self.output)
            .map_err(|error| BackupError::failed(format!("cannot write {}", self.output.display()), error))?;
        let input = match self.input {
            Some(path) => Stdio::from(
                File::open(path)
                    .map_err(|error| BackupError::failed(format!("cannot read {}", path.display()), error))?,
            ),
            None => Stdio::null(),
        };
        // All that it is given beside the caller's own environment are passwords.
        let secrets: Vec<String> = self
            .environment
            .iter()
            .map(|(_, value)| value.to_string_lossy().into_owned())
            .filter(|secret| !secret.is_empty())
            .collect();
        let mut child = Command::new(name)
            .args(&self.words)
            .envs(self.environment)
            .stdin(input)
            .stdout(output)
            .stderr(said.try_clone().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        // So that whoever comes after a crash can end it: it goes on by itself, and what it does is not wanted any more.
        let note = self.output.with_extension(RUNNING);
        note_process(&note, child.id()).map_err(failed)?;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                break status;
            }
            if ledger.is_some_and(Ledger::is_stopped) {
                child.kill().map_err(failed)?;
                child.wait().map_err(failed)?;
                std::fs::remove_file(&note).map_err(failed)?;
                return Err(BackupError::new(format!("{name} was stopped by the operator")));
            }
            std::thread::sleep(GLANCE);
        };
        std::fs::remove_file(&note).map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        let mut said_bytes = Vec::new();
        said.rewind().and_then(|()| (&mut said).take(READ).read_to_end(&mut said_bytes)).map_err(failed)?;
        let mut text = String::from_utf8_lossy(&said_bytes).into_owned();
        for secret in &secrets {
            text = text.replace(secret, "…");
        }
        let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SAID).collect();
        Err(BackupError::failed(format!("{name} failed ({status})"), text))
    }
}

/// How a note ends that a tool is running.
const RUNNING: &str = "running";

fn note_process(note: &Path, pid: u32) -> std::io::Result<()> {
    let started = started(pid)?.unwrap_or_default();
    std::fs::write(note, format!("{pid} {started}"))
}

/// Ends the tools that a process which is dead had started and noted in `directory`, and waits until they are gone.
pub fn end_orphans(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != RUNNING) {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let Some((pid, noted)) = text.split_once(' ') else { continue };
        let Some((pid, raw)) = pid.parse::<u32>().ok().zip(pid.parse().ok().and_then(Pid::from_raw)) else { continue };
        // Another process may have the number by now.
        while started(pid)?.is_some_and(|started| started == noted) {
            match kill_process(raw, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
            std::thread::sleep(GLANCE);
        }
    }
    Ok(())
}

/// When a process started, as the kernel counts; none where there is none, or nothing but its exit status is left.
fn started(pid: u32) -> std::io::Result<Option<String>> {
    let stat = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
        Err(error) => return Err(error),
    };
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    Ok(fields.get(19).filter(|_| fields.first() != Some(&"Z")).map(|&started| started.to_owned()))
}

/// What `NAME --version` says, on one line; none where the tool is not there.
pub fn version(name: &str) -> Option<String> {
    let output = Command::new(name).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}
