//! A snapshot that is read: its manifest, its dumps, its roots laid into a directory.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use backout_model::backup::BackupError;
use backout_model::target::Finding;
use rustic_core::repofile::{Node, SnapshotFile};
use rustic_core::{
    CheckOptions, CheckResults, IndexedFullStatus, LocalDestination, LsOptions, OpenStatus, Repository, RestoreOptions,
    RusticError,
};

use crate::compare::{self, Difference};
use crate::manifest::{DatabaseNote, Manifest, SITE_JSON};
use crate::mend;
use crate::repository::said;
use crate::source::{DATABASES, ROOTS, SPARSE};

/// The most differences that are told.
const TOLD: usize = 20;

/// What helps where a backup cannot be read.
pub const DAMAGED: &str = "`backout verify --backup` tells what else is damaged; restore an earlier backup";

/// A file that keeps why it could not be written: the library tells that at length, and as its own.
struct Noting<'f> {
    file: &'f mut File,
    error: Option<io::Error>,
}

impl Write for Noting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| {
            let kind = error.kind();
            self.error = Some(error);
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One snapshot, and the repository with its index.
pub struct Fetched {
    pub repository: Repository<IndexedFullStatus>,
    snapshot: SnapshotFile,
}

impl Fetched {
    pub fn new(repository: Repository<OpenStatus>, snapshot: SnapshotFile) -> Result<Self, BackupError> {
        let repository = repository.to_indexed().map_err(|error| said("cannot read the backup", &error))?;
        Ok(Self { repository, snapshot })
    }

    pub fn manifest(&self) -> Result<Manifest, BackupError> {
        let mut text = Vec::new();
        self.file(&Path::new("/").join(SITE_JSON), &mut text)?;
        Manifest::parse(&text)
    }

    /// The files of a database, into a private directory.
    pub fn dumps(&self, database: &DatabaseNote, to: &Path) -> Result<(), BackupError> {
        let failed = |error| BackupError::failed(format!("cannot fetch the database {}", database.name), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(failed)?;
        for file in &database.files {
            let path = Path::new("/").join(DATABASES).join(&file.name);
            let mut out = BufWriter::new(File::create(to.join(&file.name)).map_err(failed)?);
            self.file(&path, &mut out)?;
            out.flush().map_err(failed)?;
        }
        Ok(())
    }

    fn file(&self, path: &Path, out: &mut impl Write) -> Result<(), BackupError> {
        let node = self.node(path)?;
        self.repository
            .dump(&node, out)
            .map_err(|error| said(&format!("cannot read {} of the backup", path.display()), &error).hint(DAMAGED))
    }

    fn node(&self, path: &Path) -> Result<Node, BackupError> {
        self.repository
            .node_from_snapshot_and_path(&self.snapshot, &path.to_string_lossy())
            .map_err(|error| said(&format!("cannot read {} of the backup", path.display()), &error).hint(DAMAGED))
    }

    /// The directory of a root.
    pub fn root(&self, name: &str) -> Result<Node, BackupError> {
        self.node(&Path::new("/").join(ROOTS).join(name))
    }

    /// What the files below a directory take.
    pub fn size(&self, node: &Node) -> Result<u64, BackupError> {
        let failed = |error: Box<RusticError>| said("cannot list the backup", &error);
        let mut sum = 0_u64;
        for entry in self.repository.ls(node, &LsOptions::default()).map_err(failed)? {
            sum = sum.saturating_add(entry.map_err(failed)?.1.meta.size);
        }
        Ok(sum)
    }

    /// The files of a root that had holes.
    fn sparse(&self, root: &str) -> Result<Vec<PathBuf>, BackupError> {
        let top =
            self.repository.get_tree(&self.snapshot.tree).map_err(|error| said("cannot read the backup", &error))?;
        if !top.nodes.iter().any(|node| *node.name() == *SPARSE) {
            return Ok(Vec::new());
        }
        let mut list = Vec::new();
        self.file(&Path::new("/").join(SPARSE), &mut list)?;
        let all = list.split(|byte| *byte == 0).map(|name| Path::new(OsStr::from_bytes(name)));
        Ok(all.filter_map(|path| path.strip_prefix(root).ok()).map(Path::to_owned).collect())
    }

    /// Restores a root into an empty directory, mends what the library leaves out, and tells what is still different.
    pub fn fill(&self, node: &Node, to: &Path, root: &str) -> Result<Vec<String>, BackupError> {
        let failed = |error: Box<RusticError>| said(&format!("cannot restore the root {root}"), &error);
        let to_text = to.to_str().ok_or_else(|| BackupError::new(format!("{} is not UTF-8", to.display())))?;
        self.write(node, to).map_err(|error| {
            let what = format!("cannot restore the root {root}: {}", error.what);
            BackupError { what, ..error }
        })?;
        let entries = self.repository.ls(node, &LsOptions::default()).map_err(failed)?;
        let destination = LocalDestination::new(to_text, true, false).map_err(failed)?;
        let options = RestoreOptions::default().numeric_id(true);
        let plan = self.repository.prepare_restore(&options, entries.clone(), &destination, false).map_err(failed)?;
        self.repository.restore(plan, &options, entries, &destination).map_err(failed)?;
        mend::links(&self.repository, node, to)?;
        for path in self.sparse(root)? {
            mend::holes(&to.join(&path))
                .map_err(|error| BackupError::failed(format!("cannot dig holes into {}", path.display()), error))?;
        }
        let (mut told, mut count) = (Vec::new(), 0_usize);
        compare::metadata(&self.repository, node, to, &mut |difference: Difference| {
            count += 1;
            if told.len() < TOLD {
                told.push(difference.to_string());
            }
        })?;
        if count > told.len() {
            told.push(format!("and {} more in the root {root}", count - told.len()));
        }
        Ok(told)
    }

    /// Lays out directories and the contents of files, with the times by which the library knows that they are done. It would
    /// write them, too, and end the process where it cannot read what it is to write, or the disk is full.
    fn write(&self, node: &Node, to: &Path) -> Result<(), BackupError> {
        let mut linked = HashSet::new();
        compare::walk(&self.repository, node, |path, node| {
            let failed = |error: io::Error| BackupError::failed(format!("cannot write {}", path.display()), error);
            if !path.components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(BackupError::new(format!("{} is no name of a file", path.display())));
            }
            let here = to.join(&path);
            if node.is_dir() {
                return fs::DirBuilder::new().mode(0o700).create(&here).map_err(failed);
            }
            let (meta, several) = (&node.meta, node.meta.links > 1 && node.meta.device_id != 0 && node.meta.inode != 0);
            // Of a file of several names the library links the others to the one that comes first.
            if !node.is_file() || several && !linked.insert((meta.device_id, meta.inode)) {
                return Ok(());
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&here).map_err(failed)?;
            let mut out = Noting { file: &mut file, error: None };
            let written = self.repository.dump(node, &mut out);
            if let Some(error) = out.error {
                return Err(failed(error));
            }
            written.map_err(|error| said(&format!("cannot read {}", path.display()), &error).hint(DAMAGED))?;
            match node.meta.mtime.map(SystemTime::from) {
                Some(time) => file.set_modified(time).map_err(failed),
                None => Ok(()),
            }
        })
    }

    /// What is wrong with the bytes that the snapshot needs, by their own digests. What is only left over, by a backup that
    /// did not come to its end, is not grave.
    pub fn damage(&self) -> Result<Vec<Finding>, BackupError> {
        let options = CheckOptions::default().read_data(true);
        let checked = self
            .repository
            .check_with_trees(options, vec![self.snapshot.tree])
            .map_err(|error| said("cannot check the repository", &error))?;
        let told = checked.0.into_iter().map(|(level, error)| {
            let what = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            let grave = CheckResults(vec![(level, error)]).is_ok().is_err();
            Finding { target: "backup".to_owned(), what, grave }
        });
        Ok(told.take(TOLD).collect())
    }
}
