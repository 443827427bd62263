//! Facts about processes by which a lock's holder is known again: host, boot, pid, start time.
//!
//! Never signals a process. All of it comes from `/proc` (proc(5)) and uname(2).

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// Who a process is, so that it can be told from a later one with the same pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    pub host: String,
    /// The kernel's boot id: after a reboot no process of before lives.
    pub boot_id: String,
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub started: u64,
}

/// What can be said from here about a process that was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    Alive,
    Dead,
    /// It ran on another host.
    Unprovable,
}

impl ProcessFacts {
    /// The facts about this process.
    pub fn current() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// The facts about a process that runs on this host.
    pub fn of(pid: u32) -> io::Result<Self> {
        let started = started(pid)?.ok_or_else(|| io::Error::other(format!("/proc does not show process {pid}")))?;
        Ok(Self { host: host(), boot_id: boot_id()?, pid, started })
    }

    /// Whether that process still lives. Processes in other containers of the same host share the boot id and the
    /// host name only where they were given the same one; then a pid of theirs may look dead.
    pub fn liveness(&self) -> io::Result<Liveness> {
        if self.host != host() {
            return Ok(Liveness::Unprovable);
        }
        if self.boot_id != boot_id()? {
            return Ok(Liveness::Dead);
        }
        Ok(if is_alive(self.pid, self.started) { Liveness::Alive } else { Liveness::Dead })
    }
}

/// The name of this host, as uname(2) gives it.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The random id that the kernel drew at this boot (random(4)).
pub fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

/// True where a process with that pid and start time runs on this host. A zombie is dead: it does nothing more.
pub fn is_alive(pid: u32, started_at: u64) -> bool {
    // What cannot be read counts as alive: a lock must never be taken over on a guess.
    match started(pid) {
        Ok(found) => found == Some(started_at),
        Err(_) => true,
    }
}

/// Start time of a process in clock ticks since boot; none where it does not run.
pub fn started(pid: u32) -> io::Result<Option<u64>> {
    Ok(stat(pid)?.map(|stat| stat.started))
}

/// The session of a process that runs on this host. 0: one that began outside this container, whose number the kernel
/// does not show here (pid_namespaces(7)); every process of that session shows the same.
pub fn session(pid: u32) -> io::Result<u32> {
    stat(pid)?.map(|stat| stat.session).ok_or_else(|| io::Error::other(format!("/proc does not show process {pid}")))
}

/// The processes of a group, by their pids, that belong to the session `session`. Zombies do nothing more.
///
/// A kernel gives no new process the number of a group or session that still has members.
pub fn members(group: u32, session: u32) -> io::Result<Vec<u32>> {
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if stat(pid)?.is_some_and(|stat| stat.group == group && stat.session == session) {
            members.push(pid);
        }
    }
    Ok(members)
}

/// What `/proc/PID/stat` says of a living process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    group: u32,
    session: u32,
    started: u64,
}

fn stat(pid: u32) -> io::Result<Option<Stat>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => parse_stat(&stat).ok_or_else(|| io::Error::other(format!("cannot understand /proc/{pid}/stat"))),
        // A process that ends while it is read gives ESRCH.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Outer none: not understood. Inner none: dead. The name (field 2) may hold blanks and brackets, so that fields are
/// counted from the last closing one.
fn parse_stat(stat: &[u8]) -> Option<Option<Stat>> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?;
    // A process that is being reaped has no group and no session any more, whatever its state says.
    if group == "-1" {
        return Some(None);
    }
    let group = group.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let started = fields.nth(15)?.parse().ok()?;
    Some(if matches!(state, "Z" | "X" | "x") { None } else { Some(Stat { group, session, started }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_a_namesake_with_another_start_time_does_not() {
        let me = ProcessFacts::current().unwrap();
        assert_eq!(me.liveness().unwrap(), Liveness::Alive);
        assert!(!is_alive(me.pid, me.started + 1));
        assert_eq!(ProcessFacts { boot_id: "other".into(), ..me.clone() }.liveness().unwrap(), Liveness::Dead);
        assert_eq!(ProcessFacts { host: "other host".into(), ..me }.liveness().unwrap(), Liveness::Unprovable);
    }

    #[test]
    fn a_child_is_dead_once_it_has_ended_even_unreaped() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let born = started(child.id()).unwrap().unwrap();
        assert!(is_alive(child.id(), born));
        drop(child.stdin.take());
        // Unreaped it is a zombie as soon as it has ended: wait for that by its state, not by time.
        while is_alive(child.id(), born) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!is_alive(child.id(), born));
    }

    #[test]
    fn a_group_is_known_by_its_members_also_without_its_leader() {
        use std::os::unix::process::CommandExt;
        let session = session(std::process::id()).unwrap();
        let cat = |group: i32| {
            let mut cat = std::process::Command::new("cat");
            cat.stdin(std::process::Stdio::piped()).process_group(group).spawn().unwrap()
        };
        let mut leader = cat(0);
        let group = leader.id();
        let mut member = cat(group.try_into().unwrap());
        leader.kill().unwrap();
        leader.wait().unwrap();
        assert_eq!(members(group, session).unwrap(), [member.id()]);
        assert!(members(group, session + 1).unwrap().is_empty());
        member.kill().unwrap();
        member.wait().unwrap();
        assert!(members(group, session).unwrap().is_empty());
    }

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = b"7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_stat(stat), Some(Some(Stat { group: 2, session: 3, started: 4242 })));
        assert_eq!(parse_stat(&stat.map(|b| if b == b'S' { b'Z' } else { b })), Some(None));
        assert_eq!(parse_stat(b"7 (a) R 0 -1 -1 0 -1 4228108 0 0 0 0 0 0 0 0 20 0 0 0 4242 0"), Some(None));
        assert_eq!(parse_stat(b"7 (a) S 1"), None);
        assert_eq!(parse_stat(b""), None);
    }
}
