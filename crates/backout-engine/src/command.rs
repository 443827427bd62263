//! Runs the commands of packages and sites: without a shell, in a directory, with a timeout and captured output.
//!
//! Output goes to a file, not a pipe: a daemon that a command leaves behind cannot keep the tool waiting.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::group::{Group, ends_within, pid};

/// How much of a command's output is kept: so many bytes of its start and of its end.
pub const OUTPUT_KEPT: usize = 16 * 1024;

/// How much an error tells of output that is not all text: so many characters of its start and of its end.
const BINARY_TOLD: usize = 1024;

/// What a command needs to run.
pub struct Invocation<'a> {
    pub argv: &'a [OsString],
    pub directory: &'a Path,
    /// Added to the caller's environment.
    pub environment: &'a [(String, OsString)],
    pub timeout: Option<Duration>,
    /// Where it is noted while it runs, so that a later run can end what a crash left behind.
    pub running: &'a Path,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Ended {
    /// The exit code; none where a signal or the timeout ended it.
    pub code: Option<i32>,
    pub timed_out: bool,
    /// stdout and stderr as they came, shortened in the middle.
    pub output: String,
    pub took_ms: u64,
}

impl Ended {
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// `exit status 3`, `ended by a signal`, `took longer than its timeout`.
    pub fn words(&self) -> String {
        match self.code {
            _ if self.timed_out => "took longer than its timeout and was ended".to_owned(),
            Some(code) => format!("exit status {code}"),
            None => "was ended by a signal".to_owned(),
        }
    }
}

/// A command that could not be started or watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {command}")]
pub struct CommandError {
    pub command: String,
    /// Whether it had begun: what it did is then unknown. If not, it did nothing.
    pub began: bool,
    #[source]
    pub source: std::io::Error,
}

/// A command as people read it.
pub fn shown(argv: &[OsString]) -> String {
    argv.join(OsStr::new(" ")).to_string_lossy().into_owned()
}

/// Runs a command to its end, whatever signals come meanwhile: a command that is left alone would go on beside its
/// undo. Its whole process group is ended at the timeout, and where it failed: what it started would go on beside its undo.
pub fn run(invocation: &Invocation<'_>) -> Result<Ended, CommandError> {
    let error = |began: bool, source: std::io::Error| CommandError { command: shown(invocation.argv), began, source };
    let cannot = |source| error(false, source);
    let unwatched = |source| error(true, source);
    let [program, arguments @ ..] = invocation.argv else {
        return Err(cannot(std::io::Error::new(std::io::ErrorKind::InvalidInput, "an empty command")));
    };
    let mut output = tempfile::tempfile().map_err(cannot)?;
    let is_path = program.as_encoded_bytes().contains(&b'/');
    // An absolute path stays what it is.
    let program = if is_path { invocation.directory.join(program).into_os_string() } else { program.clone() };
    let group = Group::make(invocation.running).map_err(cannot)?;
    let began = Instant::now();
    let mut child = std::process::Command::new(program)
        .args(arguments)
        .current_dir(invocation.directory)
        .envs(invocation.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(cannot)?)
        .stderr(output.try_clone().map_err(cannot)?)
        .process_group(group.id())
        .spawn()
        .map_err(cannot)?;
    let ended = wait(&mut child, &group, invocation.timeout);
    group.close().map_err(unwatched)?;
    let (status, timed_out) = ended.map_err(unwatched)?;
    Ok(Ended {
        code: if timed_out { None } else { status.code() },
        timed_out,
        output: shortened(&mut output).map_err(unwatched)?,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Waits for the end of a child; at the timeout, and where it cannot be watched, its group is killed first; where it failed,
/// afterwards. Returns whether the time was over. Never returns while the child lives.
fn wait(child: &mut Child, group: &Group, timeout: Option<Duration>) -> std::io::Result<(ExitStatus, bool)> {
    let ended = match timeout {
        Some(timeout) => pid(child.id()).and_then(|pid| ends_within(pid, timeout)),
        None => Ok(true),
    };
    let by_itself = matches!(ended, Ok(true));
    let killed = if by_itself { Ok(()) } else { group.kill() };
    let status = child.wait()?;
    killed?;
    if by_itself && !status.success() {
        group.kill()?;
    }
    Ok((status, !ended?))
}

/// What a command printed as an error tells it: text as it is; where there is more in it, each run of what is not text
/// is one `�`, and of what is left the start and the end.
pub fn told(output: &str) -> String {
    let is_text = |c: char| matches!(c, '\n' | '\r' | '\t' | '\x1b') || !(c.is_control() || c == '\u{fffd}');
    let output = output.trim();
    if output.chars().all(is_text) {
        return output.to_owned();
    }
    let mut text = String::new();
    for c in output.chars() {
        match is_text(c) {
            true => text.push(c),
            false if text.ends_with('\u{fffd}') => {}
            false => text.push('\u{fffd}'),
        }
    }
    let all = text.chars().count();
    if all <= 2 * BINARY_TOLD {
        return text;
    }
    let start: String = text.chars().take(BINARY_TOLD).collect();
    let end: String = text.chars().skip(all - BINARY_TOLD).collect();
    format!("{start}\n… {} characters left out …\n{end}", all - 2 * BINARY_TOLD)
}

fn shortened(output: &mut File) -> std::io::Result<String> {
    let length = output.metadata()?.len();
    let kept = OUTPUT_KEPT as u64;
    output.seek(SeekFrom::Start(0))?;
    if length <= 2 * kept {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes)?;
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    let mut start = vec![0; OUTPUT_KEPT];
    output.read_exact(&mut start)?;
    output.seek(SeekFrom::Start(length - kept))?;
    let mut end = Vec::new();
    output.read_to_end(&mut end)?;
    Ok(format!(
        "{}\n… {} bytes left out …\n{}",
        String::from_utf8_lossy(&start),
        length - 2 * kept,
        String::from_utf8_lossy(&end)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoke(script: &str, timeout: Option<Duration>) -> Ended {
        let argv = ["sh", "-c", script].map(OsString::from);
        let directory = tempfile::tempdir().unwrap();
        run(&Invocation {
            argv: &argv,
            directory: directory.path(),
            environment: &[("GREETING".to_owned(), "hello".into())],
            timeout,
            running: &directory.path().join("running"),
        })
        .expect("sh runs")
    }

    #[test]
    fn a_command_that_cannot_be_noted_is_not_run() {
        let directory = tempfile::tempdir().unwrap();
        let invocation = Invocation {
            argv: &["touch".into(), "ran".into()],
            directory: directory.path(),
            environment: &[],
            timeout: None,
            running: &directory.path().join("nowhere/running"),
        };
        let error = run(&invocation).unwrap_err();
        assert!(error.source.to_string().contains("cannot note"), "{error:?}");
        assert!(!directory.path().join("ran").exists());
    }

    #[test]
    fn a_daemon_that_a_command_leaves_behind_stays_and_is_not_waited_for() {
        let ended = invoke("sleep 600 > /dev/null 2>&1 & echo $!", None);
        let daemon: u32 = ended.output.trim().parse().unwrap();
        assert!(backout_journal::process::started(daemon).unwrap().is_some());
        rustix::process::kill_process(pid(daemon).unwrap(), rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn what_a_command_that_failed_started_does_not_go_on() {
        for end in ["exit 1", "kill -KILL $$"] {
            let ended = invoke(&format!("sleep 600 > /dev/null 2>&1 & echo $!; {end}"), None);
            let at_work: u32 = ended.output.trim().parse().unwrap();
            assert!(!ended.ok());
            assert_eq!(backout_journal::process::started(at_work).unwrap(), None, "{end}");
        }
    }

    #[test]
    fn output_and_status_are_kept() {
        let ended = invoke("echo $GREETING; echo there >&2; exit 3", None);
        assert_eq!((ended.code, ended.output.as_str()), (Some(3), "hello\nthere\n"));
        assert_eq!(ended.words(), "exit status 3");
    }

    #[test]
    fn the_timeout_ends_the_whole_group() {
        let ended = invoke("sleep 600 & wait", Some(Duration::from_millis(50)));
        assert!(ended.timed_out && !ended.ok());
        assert!(ended.took_ms < 60_000);
    }

    #[test]
    fn what_is_not_text_is_told_short() {
        let text = "a line\nand another\t\x1b[1mbold\x1b[0m ü";
        assert_eq!(told(&format!("{text}\n")), text);
        assert_eq!(told("it: \0\0\u{fffd}\u{1}.\0"), "it: \u{fffd}.\u{fffd}");
        let noise = format!("start{}end", "ü\0".repeat(50_000));
        let short = told(&noise);
        assert!(short.starts_with("startü\u{fffd}ü") && short.ends_with("ü\u{fffd}end"), "{short}");
        assert!(short.chars().count() < 3 * BINARY_TOLD && short.contains("characters left out"), "{}", short.len());
    }

    #[test]
    fn long_output_loses_its_middle() {
        let ended = invoke("echo first; head -c 200000 /dev/zero | tr '\\0' x; echo last", None);
        assert!(ended.output.starts_with("first") && ended.output.ends_with("last\n"));
        assert!(ended.output.len() < 3 * OUTPUT_KEPT);
    }
}
