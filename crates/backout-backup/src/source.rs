//! What a backup reads, in the order of the snapshot's tree: `databases/`, `roots/`, `site.json`, `sparse`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustic_core::{ErrorKind, ReadSource, ReadSourceEntry, ReadSourceOpen, RusticError, RusticResult};

use crate::ledger::Ledger;
use crate::manifest::SITE_JSON;
use crate::node::node;
use crate::walk::{Unopened, Walk, Whole};

/// The directory of the dumps in a snapshot.
pub const DATABASES: &str = "databases";
/// The directory of the roots in a snapshot.
pub const ROOTS: &str = "roots";

/// The list of files with holes in a snapshot that has any: each name below [`ROOTS`], ended by a NUL.
pub const SPARSE: &str = "sparse";

/// What one snapshot is made of.
pub struct Source {
    /// Holds `databases/` and `site.json`.
    pub scratch: PathBuf,
    /// Name, directory, and paths in it that are left out; sorted by name.
    pub roots: Vec<(String, PathBuf, Vec<PathBuf>)>,
    pub ledger: Arc<Ledger>,
}

/// What an entry's content is read from.
#[derive(Debug)]
pub enum Open {
    InRoot(Unopened),
    Own(PathBuf, Arc<Ledger>),
}

/// An open file of either kind.
#[derive(Debug)]
pub enum Opened {
    InRoot(Whole),
    Own(File),
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::InRoot(file) => file.read(buffer),
            Self::Own(file) => file.read(buffer),
        }
    }
}

impl ReadSourceOpen for Open {
    type Reader = Opened;

    fn open(self) -> RusticResult<Opened> {
        let opened = match self {
            Self::InRoot(file) => file.open().map(Opened::InRoot),
            Self::Own(path, ledger) => {
                File::open(&path).map(Opened::Own).inspect_err(|e| ledger.fail(format!("{}: {e}", path.display())))
            }
        };
        opened.map_err(|error| RusticError::with_source(ErrorKind::InputOutput, "cannot open a file", error))
    }
}

impl ReadSource for Source {
    type Open = Open;
    type Iter = Box<dyn Iterator<Item = RusticResult<ReadSourceEntry<Open>>> + Send>;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Self::Iter {
        let ledger = &self.ledger;
        let dumps = own(self.scratch.join(DATABASES), PathBuf::from("/").join(DATABASES), ledger);
        let mut roots: Vec<Box<dyn Iterator<Item = _> + Send>> = Vec::new();
        let above = directory(&self.scratch, ROOTS, ledger);
        for (name, top, without) in &self.roots {
            let base = PathBuf::from("/").join(ROOTS).join(name);
            let name = name.clone();
            roots.push(Box::new(Walk::new(&name, top, without.clone(), Arc::clone(ledger)).map(move |entry| {
                let is_top = entry.path.as_os_str().is_empty();
                let mut node = entry.node;
                if is_top {
                    node.name.clone_from(&name);
                }
                let path = if is_top { base.clone() } else { base.join(&entry.path) };
                ReadSourceEntry { path, node, open: entry.file.map(Open::InRoot) }
            })));
        }
        let note = file(&self.scratch.join(SITE_JSON), &PathBuf::from("/").join(SITE_JSON), ledger);
        let (scratch, last) = (self.scratch.join(SPARSE), Arc::clone(ledger));
        // Known when the roots were walked.
        let sparse = std::iter::once_with(move || sparse(&scratch, &last)).flatten();
        Box::new(dumps.chain(above).chain(roots.into_iter().flatten()).chain(note).chain(sparse).map(Ok))
    }
}

/// The dumps, below a directory that is the tool's own.
fn own(top: PathBuf, base: PathBuf, ledger: &Arc<Ledger>) -> Box<dyn Iterator<Item = ReadSourceEntry<Open>> + Send> {
    let mut names: Vec<_> = match std::fs::read_dir(&top) {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect(),
        Err(error) => {
            ledger.fail(format!("cannot list {}: {error}", top.display()));
            Vec::new()
        }
    };
    names.sort_unstable();
    let above = directory(top.parent().unwrap_or(Path::new("/")), DATABASES, ledger);
    let ledger = Arc::clone(ledger);
    Box::new(
        above
            .into_iter()
            .chain(names.into_iter().filter_map(move |name| file(&top.join(&name), &base.join(&name), &ledger))),
    )
}

fn directory(scratch: &Path, name: &str, ledger: &Arc<Ledger>) -> Option<ReadSourceEntry<Open>> {
    let made = rustix::fs::stat(scratch)
        .map_err(io::Error::from)
        .and_then(|stat| node(OsStr::new(name), &stat, None, &Vec::new()));
    match made {
        Ok(node) => Some(ReadSourceEntry { path: PathBuf::from("/").join(name), node, open: None }),
        Err(error) => {
            ledger.fail(format!("cannot read {}: {error}", scratch.display()));
            None
        }
    }
}

fn file(from: &Path, to: &Path, ledger: &Arc<Ledger>) -> Option<ReadSourceEntry<Open>> {
    let name = to.file_name().unwrap_or_default();
    let made = rustix::fs::lstat(from).map_err(io::Error::from).and_then(|stat| node(name, &stat, None, &Vec::new()));
    match made {
        Ok(node) => {
            ledger.count();
            Some(ReadSourceEntry {
                path: to.to_owned(),
                node,
                open: Some(Open::Own(from.to_owned(), Arc::clone(ledger))),
            })
        }
        Err(error) => {
            ledger.fail(format!("cannot read {}: {error}", from.display()));
            None
        }
    }
}

fn sparse(scratch: &Path, ledger: &Arc<Ledger>) -> Option<ReadSourceEntry<Open>> {
    let list = ledger.sparse();
    if list.is_empty() {
        return None;
    }
    if let Err(error) = std::fs::write(scratch, list) {
        ledger.fail(format!("cannot write {}: {error}", scratch.display()));
        return None;
    }
    file(scratch, &PathBuf::from("/").join(SPARSE), ledger)
}
