//! The state of databases and roots as text, a line a thing, so that two states can be compared whatever their size. What the
//! tool keeps in a database (names that begin with `backout`) is left out.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backout_model::backup::BackupError;
use backout_model::target::Finding;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::dump::{DatabaseSource, lines};
use crate::keeper::RootSource;
use crate::ledger::Ledger;
use crate::node::xattrs;
use crate::walk::{Entry, Walk};

/// What is printed, and what of the roots is left out because it is a database.
pub struct Printed<'a> {
    pub databases: &'a [DatabaseSource],
    pub roots: &'a [RootSource],
    /// A private directory to work in.
    pub private: &'a Path,
}

impl Printed<'_> {
    /// Writes a file for each database and root into `to`, which is there and empty.
    pub fn write(&self, to: &Path) -> Result<(), BackupError> {
        for database in self.databases {
            database.print(&to.join(format!("database {}", database.name)), self.private)?;
        }
        for root in self.roots {
            let file = to.join(format!("root {}", root.name));
            let failed = |error| BackupError::failed(format!("cannot read the root {}", root.name), error);
            self.root(root, &file).map_err(failed)?;
        }
        Ok(())
    }

    fn root(&self, root: &RootSource, file: &Path) -> io::Result<()> {
        let ledger = Ledger::new(None);
        let without = crate::keeper::databases_in(&root.path, self.databases);
        let mut out = BufWriter::new(File::create(file)?);
        let mut groups = HashMap::new();
        for entry in Walk::new(&root.name, &root.path, without, Arc::clone(&ledger)) {
            line(&mut out, entry, &mut groups)?;
        }
        out.flush()?;
        match ledger.failures().into_iter().next() {
            Some(failure) => Err(io::Error::other(failure)),
            None => Ok(()),
        }
    }

    /// What two prints do not have in common: for each database and root the first line that differs.
    pub fn differences(&self, before: &Path, after: &Path) -> Result<Vec<Finding>, BackupError> {
        let databases = self.databases.iter().map(|database| format!("database {}", database.name));
        let mut found = Vec::new();
        for target in databases.chain(self.roots.iter().map(|root| format!("root {}", root.name))) {
            let first =
                lines::first_difference(&before.join(&target), &after.join(&target), &|line| Some(line.to_owned()))?;
            found.extend(first.map(|what| Finding { target, what, grave: true }));
        }
        Ok(found)
    }
}

/// One entry of a root. `groups`: which hard links belong together, by the first of each.
fn line(out: &mut impl Write, entry: Entry, groups: &mut HashMap<(u64, u64), PathBuf>) -> io::Result<()> {
    let Entry { path, node, file } = entry;
    let meta = &node.meta;
    write!(
        out,
        "{:?} {} mode {:o} owner {}:{} mtime {}",
        path,
        serde_json::to_string(&node.node_type).map_err(io::Error::other)?,
        meta.mode.unwrap_or(0),
        meta.uid.unwrap_or(0),
        meta.gid.unwrap_or(0),
        meta.mtime.as_ref().map_or(0, |time| time.as_nanosecond()),
    )?;
    for (name, value) in xattrs(&node) {
        write!(out, " {}={}", String::from_utf8_lossy(&name), STANDARD.encode(value))?;
    }
    if meta.links > 1 {
        let first = groups.entry((meta.device_id, meta.inode)).or_insert_with(|| path.clone());
        write!(out, " same as {first:?}")?;
    }
    if let Some(file) = file {
        let mut hasher = blake3::Hasher::new();
        let mut file = file.open()?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            hasher.update(&buffer[..length]);
        }
        write!(out, " {} bytes {}", meta.size, hasher.finalize().to_hex())?;
    }
    writeln!(out)
}
