//! Whether the holder of a lock still lives, and how a site's name becomes part of the names of the tool's own objects.
//!
//! Never says that a process is dead that may be alive.

use crate::database::Holder;

/// What can be said of a holder from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Alive,
    Dead,
    /// It is on another host.
    Unknown,
}

/// Whether `holder` still lives, as seen from `host` booted as `boot_id`.
fn life(holder: &Holder, host: &str, boot_id: &str) -> Life {
    if holder.host != host {
        return Life::Unknown;
    }
    if holder.boot_id != boot_id {
        return Life::Dead;
    }
    match started(holder.pid) {
        Some(ticks) if ticks == holder.started => Life::Alive,
        _ => Life::Dead,
    }
}

/// When the process began, in clock ticks since boot; `None` where there is no such process.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, blanks and parentheses too: count from its end.
    let rest = stat.rsplit_once(')')?.1;
    // A zombie holds nothing any more and can do nothing.
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// [`life`] as this process sees it.
pub fn life_from_here(holder: &Holder) -> Life {
    life(holder, &this_host(), &this_boot())
}

fn this_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn this_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// A site's name as part of a table's name: lowercase letters, digits and `_`. Where something had to be left out, a
/// digest tells sites apart that would otherwise meet.
pub fn sanitised(site: &str) -> String {
    let plain: String =
        site.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' }).collect();
    if plain == site { plain } else { format!("{plain}_{}", &blake3::hash(site.as_bytes()).to_hex()[..8]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Holder {
        let pid = std::process::id();
        Holder {
            site: "shop".to_owned(),
            host: this_host(),
            boot_id: this_boot(),
            pid,
            started: started(pid).unwrap(),
            purpose: "test".to_owned(),
            since_ms: 0,
        }
    }

    #[test]
    fn only_a_process_that_provably_ended_is_dead() {
        let (host, boot) = (this_host(), this_boot());
        assert_eq!(life(&me(), &host, &boot), Life::Alive);
        assert_eq!(life(&Holder { started: 1, ..me() }, &host, &boot), Life::Dead, "the pid is used again");
        assert_eq!(life(&Holder { boot_id: "another".to_owned(), ..me() }, &host, &boot), Life::Dead);
        assert_eq!(life(&Holder { host: "elsewhere".to_owned(), ..me() }, &host, &boot), Life::Unknown);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = Holder { pid: child.id(), ..me() };
        child.wait().unwrap();
        assert_eq!(life(&ended, &host, &boot), Life::Dead);
    }

    #[test]
    fn sites_that_differ_never_share_a_table() {
        assert_eq!(sanitised("shop"), "shop");
        assert_ne!(sanitised("Shop"), sanitised("shop"));
        assert_ne!(sanitised("a-b"), sanitised("a.b"));
        assert!(sanitised("x; DROP TABLE y").bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    }
}
