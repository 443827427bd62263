//! The process group of a command, noted before the command is in it: no crash leaves one that nobody knows of.
//!
//! A keeper leads the group: cat(1), which reads from the tool and so ends with it. As long as the group has a member
//! the kernel gives its number to nobody else; once it has none, nobody can join it any more.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backout_journal::process::{ProcessFacts, boot_id, host, members, session, started};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::{Deserialize, Serialize};

/// How long the end of killed processes is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The size of the note. It is written over in place, so that a full disk keeps no undo command from running.
const NOTE_BYTES: usize = 1024;

/// What is noted of the group.
#[derive(Serialize, Deserialize)]
struct Note {
    /// Its leader, the keeper.
    #[serde(flatten)]
    keeper: ProcessFacts,
    session: u32,
}

/// A group that a command can join. Ends its keeper and clears the note when it is dropped.
pub struct Group {
    keeper: Child,
    leader: Pid,
    session: u32,
    note: PathBuf,
}

impl Group {
    /// Makes the group and notes it.
    pub fn make(note: &Path) -> io::Result<Self> {
        let keeper = Command::new("cat")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| wrapped("cannot start cat(1), which every command is run beside", error))?;
        let leader = pid(keeper.id())?;
        let session = session(keeper.id())?;
        let group = Self { keeper, leader, session, note: note.to_owned() };
        let text = serde_json::to_vec(&Note { keeper: ProcessFacts::of(group.keeper.id())?, session })?;
        write(note, &text).map_err(|error| wrapped(&format!("cannot note it in {}", note.display()), error))?;
        Ok(group)
    }

    /// For [`CommandExt::process_group`].
    pub fn id(&self) -> i32 {
        self.leader.as_raw_nonzero().get()
    }

    /// Kills whatever is in it, and waits until that has ended.
    pub fn kill(&self) -> io::Result<()> {
        kill_all(self.leader, self.session).map(|_| ())
    }

    /// Nothing of the command is to be ended any more: what it left behind on purpose stays.
    pub fn close(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.keeper.kill()?;
        self.keeper.wait()?;
        write(&self.note, &[])
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After `close` there is nothing left to do; on the way of an error that error is the one to report, and a note
        // of a group without members does no harm.
        self.end().ok();
    }
}

/// Ends what is left of the group that a run noted and that outlived it. Returns whether there was something.
pub fn end_orphan(note: &Path) -> io::Result<bool> {
    let text = match std::fs::read(note) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // Zeros are what a power loss leaves of a note; with it went the command.
    if text.iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0) {
        return Ok(false);
    }
    let by_hand = "when no command of an earlier run is at work any more, remove that file";
    let noted: Note = serde_json::from_slice(&text)
        .map_err(|error| io::Error::other(format!("it cannot be understood ({error}); {by_hand}")))?;
    let keeper = &noted.keeper;
    if keeper.host != host() {
        let what = format!("it may still be at work on {}, process group {}; {by_hand}", keeper.host, keeper.pid);
        return Err(io::Error::other(what));
    }
    let found = keeper.boot_id == boot_id()? && end_group(keeper, noted.session)?;
    write(note, &[])?;
    Ok(found)
}

fn end_group(keeper: &ProcessFacts, session: u32) -> io::Result<bool> {
    // A later process could only get the keeper's pid once the whole group was gone.
    if started(keeper.pid)?.is_some_and(|started| started != keeper.started) {
        return Ok(false);
    }
    kill_all(pid(keeper.pid)?, session)
}

/// Kills all processes of a group and waits until they have ended; whether there were others than its keeper.
fn kill_all(leader: Pid, session: u32) -> io::Result<bool> {
    let keeper = leader.as_raw_nonzero().get().unsigned_abs();
    let deadline = Instant::now() + PATIENCE;
    let mut found = false;
    loop {
        let living = members(keeper, session)?;
        // The keeper ends by itself, a little after the tool did.
        found |= living.iter().any(|pid| *pid != keeper);
        if living.is_empty() {
            return Ok(found);
        }
        kill(leader)?;
        for member in &living {
            if !ends_within(pid(*member)?, deadline.saturating_duration_since(Instant::now()))? {
                return Err(io::Error::other(format!("process {member} does not end; end it, then try again")));
            }
        }
    }
}

/// Waits until a process has ended, whatever signals come meanwhile; false where the time was over before.
pub fn ends_within(pid: Pid, time: Duration) -> io::Result<bool> {
    let watched = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(watched) => watched,
        Err(Errno::SRCH) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    let began = Instant::now();
    loop {
        let left = time.saturating_sub(began.elapsed());
        let limit =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&watched, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub fn pid(number: u32) -> io::Result<Pid> {
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other(format!("{number} is no process id")))
}

fn kill(group: Pid) -> io::Result<()> {
    match kill_process_group(group, Signal::KILL) {
        // Nobody is left in it.
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes the note over; nothing: no command runs.
fn write(note: &Path, text: &[u8]) -> io::Result<()> {
    let mut padded = text.to_vec();
    padded.resize(NOTE_BYTES.max(text.len()), b' ');
    File::options().write(true).create(true).truncate(false).mode(0o600).open(note)?.write_all_at(&padded, 0)
}

fn wrapped(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group with one member, its keeper gone, as a crash leaves it.
    fn crashed(note: &Path) -> Child {
        let mut group = Group::make(note).unwrap();
        let member = Command::new("sleep").arg("600").process_group(group.id()).spawn().unwrap();
        group.keeper.kill().unwrap();
        group.keeper.wait().unwrap();
        std::mem::forget(group);
        member
    }

    fn change(note: &Path, key: &str, value: serde_json::Value) {
        let mut text: serde_json::Value = serde_json::from_slice(&std::fs::read(note).unwrap()).unwrap();
        text[key] = value;
        std::fs::write(note, text.to_string()).unwrap();
    }

    #[test]
    fn a_group_is_ended_also_where_its_leader_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let note = directory.path().join("running");
        assert!(!end_orphan(&note).unwrap());
        let mut member = crashed(&note);
        assert!(end_orphan(&note).unwrap());
        assert!(!member.wait().unwrap().success());
        assert!(!end_orphan(&note).unwrap(), "it was cleared");
    }

    #[test]
    fn what_the_note_does_not_mean_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let note = directory.path().join("running");
        let mut member = crashed(&note);
        let as_noted = std::fs::read(&note).unwrap();
        change(&note, "boot_id", "an earlier boot".into());
        assert!(!end_orphan(&note).unwrap());
        std::fs::write(&note, &as_noted).unwrap();
        change(&note, "session", 1.into());
        assert!(!end_orphan(&note).unwrap());
        std::fs::write(&note, &as_noted).unwrap();
        change(&note, "host", "elsewhere".into());
        assert!(end_orphan(&note).unwrap_err().to_string().contains("on elsewhere"));
        // A process that got the keeper's number: the group of before is gone.
        std::fs::write(&note, &as_noted).unwrap();
        change(&note, "pid", std::process::id().into());
        // This process may have begun in the same hundredth of a second as the keeper.
        change(&note, "started", 1.into());
        assert!(!end_orphan(&note).unwrap());
        assert!(member.try_wait().unwrap().is_none(), "it was not touched");
        member.kill().unwrap();
        member.wait().unwrap();
    }

    #[test]
    fn a_note_that_cannot_be_understood_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let note = directory.path().join("running");
        std::fs::write(&note, "4711 12\n").unwrap();
        assert!(end_orphan(&note).unwrap_err().to_string().contains("remove that file"));
        std::fs::write(&note, [0; 16]).unwrap();
        assert!(!end_orphan(&note).unwrap());
    }

    #[test]
    fn nobody_joins_a_group_that_was_ended() {
        let directory = tempfile::tempdir().unwrap();
        let group = Group::make(&directory.path().join("running")).unwrap();
        let id = group.id();
        group.close().unwrap();
        assert!(Command::new("true").process_group(id).spawn().is_err());
    }
}
