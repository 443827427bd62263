//! Runs a database's own client tools: no shell, no password among the words, what they say on stderr kept.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use backout_model::backup::BackupError;

use crate::ledger::Ledger;

/// How often a tool that runs is looked at.
const GLANCE: Duration = Duration::from_millis(20);
/// The most that is told of what a tool said, in bytes.
const SAID: usize = 2000;

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
        let mut child = Command::new(name)
            .args(&self.words)
            .envs(self.environment)
            .stdin(input)
            .stdout(output)
            .stderr(said.try_clone().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                break status;
            }
            if ledger.is_some_and(Ledger::is_stopped) {
                child.kill().map_err(failed)?;
                child.wait().map_err(failed)?;
                return Err(BackupError::new(format!("{name} was stopped by the operator")));
            }
            std::thread::sleep(GLANCE);
        };
        if status.success() {
            return Ok(());
        }
        let mut text = String::new();
        said.rewind().and_then(|()| (&mut said).take(SAID as u64).read_to_string(&mut text)).map_err(failed)?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Err(BackupError::failed(format!("{name} failed ({status})"), text))
    }
}

/// What `NAME --version` says, on one line; none where the tool is not there.
pub fn version(name: &str) -> Option<String> {
    let output = Command::new(name).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}
