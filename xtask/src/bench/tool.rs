//! What every engine's measurements do with the tool: write packages, make its commands, put both sides side by side.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::measure::peak_memory;
use super::report::{Report, Row, Target};
use crate::backout::Backout;

/// What an undo of anything may cost.
pub const UNDO: Target = Target::Ratio(2.5);

pub struct Tool<'a> {
    pub backout: &'a Backout,
    pub scratch: &'a Path,
}

impl Tool<'_> {
    /// A package of one `sql` step a script.
    pub fn package(&self, name: &str, scripts: &[String]) -> Result<PathBuf> {
        let dir = self.scratch.join(format!("package-{name}"));
        fs::create_dir_all(&dir)?;
        let mut manifest = format!("package: {name}\nversion: \"1\"\nsteps:\n");
        for (number, script) in scripts.iter().enumerate() {
            fs::write(dir.join(format!("{number:03}.sql")), script)?;
            manifest.push_str(&format!("  - sql: {number:03}.sql\n"));
        }
        fs::write(dir.join("package.yaml"), manifest)?;
        Ok(dir)
    }

    pub fn deploy(&self, site: &Path, package: &Path) -> Command {
        self.backout.command(site, &[OsStr::new("deploy"), package.as_os_str()])
    }

    pub fn undo(&self, site: &Path) -> Command {
        self.backout.command(site, &[OsStr::new("undo")])
    }

    /// The largest memory of a deployment and of its undo.
    pub fn memory(&self, name: &str, site: &Path, package: &Path, target: Target, report: &mut Report) -> Result<()> {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let deploy = peak_memory(&mut self.deploy(site, package))?;
        report.add(&Row::alone(name, mib(deploy), target));
        let undo = peak_memory(&mut self.undo(site))?;
        report.add(&Row::alone(&format!("{name}, undo"), mib(undo), target));
        Ok(())
    }
}

/// What was measured of one workload: the baseline's times, and those of deploying and undoing.
pub struct Sides {
    pub base: Vec<Duration>,
    pub ours: Vec<(Duration, Duration)>,
}

impl Sides {
    pub fn report(self, name: &str, against: &str, targets: (Target, Target), report: &mut Report) {
        let (deploys, undos): (Vec<_>, Vec<_>) = self.ours.into_iter().unzip();
        report.add(&Row::runs(name, against, &self.base, &deploys, targets.0));
        report.add(&Row::runs(&format!("undo of {name}"), "the same, forward", &self.base, &undos, targets.1));
    }
}
