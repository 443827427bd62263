//! The copy of a package that a run works from, so that later edits of the package's directory don't matter.
//!
//! A snapshot is a directory with `snapshot.json` and `package/`. Never copies the directories of `files` steps: they
//! may be large, and what they held is in the images once the step is done. Nor does it link to them: a hard link would
//! change with the package, and clones are not to be had on every file system, so that a command that needs one would
//! fail on some machines only, in the middle of an undo.
//!
//! The snapshot itself is closed to other users. `package/` has the package's mode: a command that runs in it and becomes
//! another user can use it by relative paths, as in the package itself, and nobody else finds a way in.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, File, FileTimes, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use backout_model::fault::{self, Point};
use serde::{Deserialize, Serialize};

use crate::check::CheckKind;
use crate::error::PackageError;
use crate::load::{Loader, own_program};
use crate::package::{MANIFEST, Package};
use crate::percent::{decode_path, encode_path};
use crate::step::{RunUndo, SqlUndo, StepKind};
use crate::tree::{self, Descend, Kind};

/// The version of `snapshot.json`.
const FORMAT: u32 = 1;
const INDEX: &str = "snapshot.json";
const COPY: &str = "package";
/// From this many files on one sync of the file system is cheaper than one each.
const MANY: usize = 8;

/// `snapshot.json`. Paths are percent-encoded where they are not printable ASCII.
#[derive(Serialize, Deserialize)]
struct Index {
    format: u32,
    /// The manifest, as errors show it.
    file: String,
    /// Where each `files` directory was, by the path that people see.
    sources: BTreeMap<String, String>,
    /// What was copied, by its path below `package/`: the BLAKE3 of a file's content, or where a symlink leads.
    #[serde(default)]
    content: BTreeMap<String, String>,
}

/// A copy of a package, and what it is known by again.
pub struct Snapshot {
    pub package: Package,
    /// Of `snapshot.json`, which has those of the files: BLAKE3, hex.
    pub digest: String,
}

/// Copies what a run of `package` needs into the directory `into`, which must be empty or not exist: everything but the
/// directories of `files` steps, with modes, times and symlinks, synced. In the package that comes back `dir` and all
/// scripts lie below `into`; only `FilesStep::source` still points to where it was.
pub fn snapshot(package: &Package, into: &Path) -> Result<Snapshot, PackageError> {
    if into.exists() {
        if fs::read_dir(into).map_err(|e| PackageError::read(into, e))?.next().is_some() {
            return Err(PackageError::unusable(into, "is not empty; a snapshot needs an empty directory"));
        }
    } else {
        act(into, Point::MakeDir, || DirBuilder::new().mode(0o700).create(into))?;
    }
    let mut parts = Parts::default();
    parts.collect(package)?;
    let Copied { mut written, content } = copy(&package.dir, &into.join(COPY), &parts)?;

    let sources = parts.sources.iter().map(|(shown, path)| (shown.clone(), encode_path(path))).collect();
    let index = Index { format: FORMAT, file: encode_path(&package.file), sources, content };
    let path = into.join(INDEX);
    let text = serde_json::to_vec_pretty(&index).map_err(|e| PackageError::write(&path, e.into()))?;
    act(&path, Point::Stage, || File::create(&path)?.write_all(&text))?;
    written.push(path);
    sync(into, &written)?;
    Ok(Snapshot { package: load(into)?, digest: blake3::hash(&text).to_hex().to_string() })
}

/// Checks that a snapshot is what was made then, by its digest; the files of it that have changed since or are gone. What a
/// command has put beside them is no matter.
pub fn altered(into: &Path, digest: &str) -> Result<Vec<PathBuf>, PackageError> {
    let path = into.join(INDEX);
    let text = fs::read(&path).map_err(|e| PackageError::read(&path, e))?;
    if blake3::hash(&text).to_hex().as_str() != digest {
        return Err(PackageError::unusable(&path, "is not what was written then"));
    }
    let mut altered = Vec::new();
    for (name, was) in read(&path, &text)?.content {
        let unnamed = || PackageError::unusable(&path, format!("has no readable path in `{name}`"));
        let file = into.join(COPY).join(decode_path(&name).ok_or_else(unnamed)?);
        if told(&file).ok().as_deref() != Some(was.as_str()) {
            altered.push(file);
        }
    }
    Ok(altered)
}

/// What an index tells of a file or symlink.
fn told(file: &Path) -> io::Result<String> {
    if fs::symlink_metadata(file)?.is_symlink() {
        return Ok(leads(&fs::read_link(file)?));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(file)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// How an index tells a symlink.
fn leads(target: &Path) -> String {
    format!("-> {}", encode_path(target))
}

fn read(path: &Path, text: &[u8]) -> Result<Index, PackageError> {
    let damaged = |what: String| PackageError::unusable(path, format!("is damaged: {what}"));
    let index: Index = serde_json::from_slice(text).map_err(|e| damaged(e.to_string()))?;
    match index.format {
        FORMAT => Ok(index),
        other => Err(damaged(format!("it has format {other}, this version reads {FORMAT}"))),
    }
}

/// Reads back what was just written.
fn load(into: &Path) -> Result<Package, PackageError> {
    let path = into.join(INDEX);
    let damaged = |what: String| PackageError::unusable(&path, format!("is damaged: {what}"));
    let text = fs::read(&path).map_err(|e| PackageError::read(&path, e))?;
    let index = read(&path, &text)?;
    let sources: BTreeMap<&str, Option<PathBuf>> =
        index.sources.iter().map(|(shown, path)| (shown.as_str(), decode_path(path))).collect();
    let lookup = |shown: &str| sources.get(shown).cloned().flatten();
    let mut loader = Loader::new(&into.join(COPY), Some(&lookup))?;
    loader.file = decode_path(&index.file).ok_or_else(|| damaged("its manifest has no name".to_owned()))?;
    loader.load()
}

/// What is left out of a package and its children, and what is needed all the same.
#[derive(Default)]
struct Parts {
    /// By the path that people see.
    sources: BTreeMap<String, PathBuf>,
    left_out: HashSet<PathBuf>,
    /// Directories of children: copied even within a directory that is left out.
    children: HashSet<PathBuf>,
    /// Scripts and manifests: copied even within a directory that is left out.
    needed: HashSet<PathBuf>,
}

impl Parts {
    fn collect(&mut self, package: &Package) -> Result<(), PackageError> {
        self.need(&package.dir.join(MANIFEST))?;
        for step in &package.steps {
            match &step.kind {
                StepKind::Sql(sql) => {
                    self.need(&sql.path)?;
                    if let SqlUndo::Script { path, .. } = &sql.undo {
                        self.need(path)?;
                    }
                }
                StepKind::Files(files) => {
                    self.sources.insert(files.shown.clone(), files.source.clone());
                    let real = fs::canonicalize(&files.source).map_err(|e| PackageError::read(&files.source, e))?;
                    self.left_out.insert(real);
                }
                StepKind::Package(child) => {
                    self.children.insert(child.package.dir.clone());
                    self.collect(&child.package)?;
                }
                StepKind::Run(run) => {
                    self.need_program(&package.dir, &run.command.argv)?;
                    if let RunUndo::Command(argv) = &run.undo {
                        self.need_program(&package.dir, argv)?;
                    }
                }
                StepKind::Delete(_) => {}
            }
        }
        for command in &package.finally {
            self.need_program(&package.dir, &command.argv)?;
        }
        for check in package.before.iter().chain(&package.after) {
            if let CheckKind::Run { argv, .. } = &check.kind {
                self.need_program(&package.dir, argv)?;
            }
        }
        Ok(())
    }

    fn need_program(&mut self, dir: &Path, argv: &[String]) -> Result<(), PackageError> {
        match own_program(argv) {
            Some(program) => self.need(&dir.join(program)),
            None => Ok(()),
        }
    }

    /// Both by the name that was given and by what it leads to.
    fn need(&mut self, path: &Path) -> Result<(), PackageError> {
        self.needed.insert(fs::canonicalize(path).map_err(|e| PackageError::read(path, e))?);
        self.needed.insert(path.to_owned());
        Ok(())
    }

    /// True where something below `dir` is needed.
    fn lead_below(&self, dir: &Path) -> bool {
        self.needed.iter().any(|path| path.starts_with(dir))
    }

    /// True where `path` lies in a directory that is left out, and not in a child's within it.
    fn is_left_out(&self, path: &Path) -> bool {
        let innermost = path.ancestors().find(|a| self.left_out.contains(*a) || self.children.contains(*a));
        innermost.is_some_and(|a| self.left_out.contains(a))
    }
}

/// What was copied.
struct Copied {
    /// The files and directories that were made.
    written: Vec<PathBuf>,
    /// See [`Index::content`].
    content: BTreeMap<String, String>,
}

/// Copies the tree.
fn copy(from: &Path, to: &Path, parts: &Parts) -> Result<Copied, PackageError> {
    act(to, Point::MakeDir, || DirBuilder::new().mode(0o700).create(to))?;
    let mut written = vec![to.to_owned()];
    let mode = fs::metadata(from).map_err(|e| PackageError::read(from, e))?.permissions().mode() & 0o7777;
    let mut directories = vec![(to.to_owned(), mode)];
    let mut content = BTreeMap::new();
    tree::walk(from, &mut |entry| {
        let target = to.join(entry.relative);
        let left_out = parts.is_left_out(entry.path);
        match entry.kind {
            Kind::Directory if left_out && !parts.lead_below(entry.path) => return Ok(Descend::No),
            Kind::Directory => {
                act(&target, Point::MakeDir, || DirBuilder::new().mode(0o700).create(&target))?;
                directories.push((target.clone(), entry.mode()));
                written.push(target);
            }
            Kind::File | Kind::Symlink if left_out && !parts.needed.contains(entry.path) => {}
            Kind::Symlink => {
                let link = fs::read_link(entry.path).map_err(|e| PackageError::read(entry.path, e))?;
                act(&target, Point::Link, || std::os::unix::fs::symlink(&link, &target))?;
                content.insert(encode_path(entry.relative), leads(&link));
            }
            Kind::File => {
                let modified = entry.metadata.modified().map_err(|e| PackageError::read(entry.path, e))?;
                let mut hasher = blake3::Hasher::new();
                act(&target, Point::Stage, || {
                    let mut source = File::open(entry.path)?;
                    let mut file = File::create_new(&target)?;
                    io::copy(&mut source, &mut Both { file: &mut file, hasher: &mut hasher })?;
                    file.set_permissions(Permissions::from_mode(entry.mode()))?;
                    file.set_times(FileTimes::new().set_modified(modified))
                })?;
                content.insert(encode_path(entry.relative), hasher.finalize().to_hex().to_string());
                written.push(target);
            }
        }
        Ok(Descend::Yes)
    })?;
    // Last, and the innermost first: a directory may forbid what still had to be put into it.
    for (path, mode) in directories.iter().rev() {
        // The tool itself must be able to remove the copy again.
        act(path, Point::SetMetadata, || fs::set_permissions(path, Permissions::from_mode(mode | 0o700)))?;
    }
    Ok(Copied { written, content })
}

/// Writes to a file and takes the digest of what went into it.
struct Both<'a> {
    file: &'a mut File,
    hasher: &'a mut blake3::Hasher,
}

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Makes all that was written durable.
fn sync(into: &Path, written: &[PathBuf]) -> Result<(), PackageError> {
    let parent = into.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
    if written.len() > MANY {
        return act(into, Point::Sync, || match fault::syncs_issued() {
            true => rustix::fs::syncfs(File::open(into)?).map_err(io::Error::from),
            false => Ok(()),
        });
    }
    for path in written.iter().map(PathBuf::as_path).chain([into, parent]) {
        act(path, Point::Sync, || if fault::syncs_issued() { File::open(path)?.sync_all() } else { Ok(()) })?;
    }
    Ok(())
}

/// Passes the fault seam, acts, and names the path in the error.
fn act<T>(path: &Path, point: Point, act: impl FnOnce() -> io::Result<T>) -> Result<T, PackageError> {
    fault::point(point).and_then(|()| act()).map_err(|e| PackageError::write(path, e))
}
