//! What of the wait for a confirm (`--confirm-within`) this machine does not cover: a reboot, the end of a login.
//!
//! Only looks at files; never asks the service manager.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backout_model::target::Finding;
use backout_package::site::Site;
use rustix::process::geteuid;

use crate::wiring;

/// There where systemd runs the machine.
pub const SYSTEMD: &str = "/run/systemd/system";
/// Where systemd notes the users whose services outlive their logins.
const LINGER: &str = "/var/lib/systemd/linger";
/// Where the units lie that the machine may start, and the jobs of cron.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];
const JOBS: [&str; 4] = ["/etc/crontab", "/etc/cron.d", "/var/spool/cron/crontabs", "/var/spool/cron"];
/// Where the user's guide says how that is mended.
const GUIDE: &str = "docs/commands.md, \"A deployment that must be confirmed\"";

/// What is not covered, a finding each.
pub fn uncovered(site: &Site) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut find = |what: String| found.push(Finding { target: "confirm".to_owned(), what, grave: false });
    if Path::new(SYSTEMD).is_dir() {
        if !is_there("systemd-run") {
            find(format!(
                "systemd-run is not there: the end of a login may end what undoes a deployment that nobody confirms ({GUIDE})"
            ));
        } else if !geteuid().is_root() && !Path::new(LINGER).join(wiring::user()).exists() {
            find(format!(
                "when {0} has logged out, nobody undoes a deployment that was not confirmed: `loginctl enable-linger {0}` ({GUIDE})",
                wiring::user()
            ));
        }
    }
    let units = UNITS.iter().flat_map(|place| enabled(Path::new(place)));
    let jobs = JOBS.iter().flat_map(|place| files(Path::new(place)));
    if !units.chain(jobs).any(|file| fs::read_to_string(file).is_ok_and(|text| resumes(&text, &site.file))) {
        find(format!(
            "after a reboot nobody undoes a deployment that was not confirmed, until the next command: no enabled unit and no @reboot \
             job was found that runs `backout resume --site {}` ({GUIDE})",
            site.file.display()
        ));
    }
    found
}

fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The units that something wants: a link in a directory that is named after what starts them.
fn enabled(place: &Path) -> Vec<PathBuf> {
    let wants = |path: &PathBuf| path.extension().is_some_and(|end| end == "wants" || end == "requires");
    list(place).into_iter().filter(wants).flat_map(|path| list(&path)).collect()
}

/// The file itself, or those in a directory.
fn files(place: &Path) -> Vec<PathBuf> {
    if place.is_file() { vec![place.to_owned()] } else { list(place) }
}

fn list(place: &Path) -> Vec<PathBuf> {
    fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// True where a unit or a table of cron has the site resumed when the machine starts.
fn resumes(text: &str, site: &Path) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let runs = |line: &&str| line.contains("backout") && line.split_whitespace().any(|word| word == "resume");
    let site_text = site.display().to_string();
    // A unit may name the site, or begin in its directory.
    let begins_there = |line: &&str| {
        let there = line.strip_prefix("WorkingDirectory=").map(|place| place.trim_end_matches('/'));
        there.is_some() && there.map(Path::new) == site.parent()
    };
    lines
        .iter()
        .filter(|line| line.starts_with("ExecStart") || line.starts_with("@reboot"))
        .filter(|line| runs(line))
        .any(|line| {
            line.split_whitespace().any(|word| word.trim_matches(['"', '\'']).ends_with(&site_text))
                || !line.contains("--site") && lines.iter().any(begins_there)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_or_a_job_that_resumes_the_site_is_known() {
        let site = Path::new("/srv/shop/site.yaml");
        for (text, expected) in [
            ("[Service]\nExecStart=/usr/local/bin/backout resume --site /srv/shop/site.yaml\n", true),
            ("[Service]\nWorkingDirectory=/srv/shop/\nExecStart=/usr/local/bin/backout resume\n", true),
            ("@reboot root backout resume --site=/srv/shop/site.yaml\n", true),
            ("[Service]\nExecStart=/usr/local/bin/backout resume --site /srv/other/site.yaml\n", false),
            ("[Service]\nExecStart=/usr/local/bin/backout status --site /srv/shop/site.yaml\n", false),
            ("#ExecStart=/usr/local/bin/backout resume --site /srv/shop/site.yaml\n", false),
            ("5 4 * * * root backout resume --site /srv/shop/site.yaml\n", false),
        ] {
            assert_eq!(resumes(text, site), expected, "{text}");
        }
    }

    #[test]
    fn only_a_unit_that_something_wants_counts() {
        let temp = tempfile::tempdir().unwrap();
        let wants = temp.path().join("multi-user.target.wants");
        fs::create_dir(&wants).unwrap();
        fs::write(temp.path().join("idle.service"), "").unwrap();
        fs::write(wants.join("resume.service"), "").unwrap();
        assert_eq!(enabled(temp.path()), [wants.join("resume.service")]);
    }
}
