//! A site made for judging: one database, a folder of its own, packages written for it, dumps taken of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::Engine;
use super::dump::Dump;
use super::subject::{Plain, Subject};
use crate::backout::{Backout, Outcome};

pub struct Lab {
    pub backout: Backout,
    folder: PathBuf,
    pub subject: Box<dyn Subject>,
    /// Grows when the database was changed behind the tool's back and a fresh site is needed.
    generation: u32,
}

impl Lab {
    /// A fresh site in `folder`, its database made by the plain client from the base scripts.
    pub fn new(backout: Backout, engine: &Engine, folder: PathBuf, base: &[PathBuf]) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let subject = engine.subject(&folder)?;
        let mut lab = Self { backout, folder, subject, generation: 0 };
        lab.write_site()?;
        for script in base {
            let loaded = lab.subject.load(script)?;
            loaded.map_err(|error| anyhow!("{}: {error}", script.display())).context("loading the base")?;
        }
        Ok(lab)
    }

    fn write_site(&self) -> Result<()> {
        let (generation, url) = (self.generation, self.subject.url());
        let text =
            format!("site: fidelity{generation}\ndatabases:\n  main: {{url: \"{url}\"}}\nstate: state{generation}\n");
        fs::write(self.site(), text).context("writing site.yaml")
    }

    pub fn site(&self) -> PathBuf {
        self.folder.join("site.yaml")
    }

    /// A path inside the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a package of `sql` steps; the scripts are copied in.
    pub fn package(&self, name: &str, version: &str, scripts: &[&Path]) -> Result<PathBuf> {
        let dir = self.folder.join(format!("{name}-{version}"));
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let mut text = format!("package: {name}\nversion: \"{version}\"\nsteps:\n");
        for (number, script) in scripts.iter().enumerate() {
            let copy = format!("{number}.sql");
            fs::copy(script, dir.join(&copy)).with_context(|| format!("copying {}", script.display()))?;
            text.push_str(&format!("  - sql: {copy}\n"));
        }
        fs::write(dir.join("package.yaml"), text).context("writing package.yaml")?;
        Ok(dir)
    }

    pub fn deploy(&self, package: &Path) -> Result<Outcome> {
        self.backout.deploy(&self.site(), package)
    }

    pub fn undo(&self) -> Result<Outcome> {
        self.backout.undo(&self.site())
    }

    pub fn redo(&self) -> Result<Outcome> {
        self.backout.redo(&self.site())
    }

    pub fn dump(&mut self, name: &str) -> Result<Dump> {
        let file = self.path(&format!("{name}.dump"));
        self.subject.dump(file)
    }

    /// Lets the plain client change the site's database, to go on where the tool did not.
    pub fn apply_plain(&mut self, script: &Path) -> Result<()> {
        match self.subject.plain(script)? {
            Plain::Done { copy, .. } => self.take(&copy),
            Plain::Failed(_) => Ok(()),
        }
    }

    /// Goes on with a copy as a fresh site: the tool's history does not know how it came about.
    pub fn take(&mut self, copy: &str) -> Result<()> {
        self.subject.take(copy)?;
        self.generation += 1;
        self.write_site()
    }
}
