//! Whether there is room for what is about to be written: asked beforehand, so that a disk which a live site shares is not
//! filled up first, and told with figures. What databases and trees take is estimated; never refuses what it cannot estimate.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backout_model::backup::{BackupError, is_remote};
use backout_model::words::sized;

use crate::dump::{DatabaseSource, Engine};
use crate::fetched::Fetched;
use crate::keeper::{Keeper, RootSource, databases_in};
use crate::manifest::{DatabaseNote, RootNote};

/// A script that a server's dump tool writes becomes about so much smaller in the repository.
const PACKED: u64 = 4;
/// How many bytes `st_blocks` counts in.
const BLOCK: u64 = 512;

/// Something to be written.
#[derive(Clone, Debug)]
pub struct Need {
    /// What it is, as it goes on after `for`: `the dumps of the databases`.
    pub what: String,
    /// Where it is written; it need not be there yet.
    pub place: PathBuf,
    pub bytes: u64,
}

impl Need {
    pub fn new(what: &str, place: &Path, bytes: u64) -> Self {
        Self { what: what.to_owned(), place: place.to_owned(), bytes }
    }
}

/// An error where one of the disks has less room than all that is to be written to it needs. `act`: `the backup`.
pub fn enough(act: &str, needs: &[Need]) -> Result<(), BackupError> {
    let mut seen: BTreeSet<u64> = BTreeSet::new();
    for need in needs {
        let Some((device, free)) = disk(&need.place) else { continue };
        if !seen.insert(device) {
            continue;
        }
        let here: Vec<&Need> = needs
            .iter()
            .filter(|other| other.bytes > 0 && disk(&other.place).is_some_and(|(other, _)| other == device))
            .collect();
        let bytes = here.iter().map(|need| need.bytes).fold(0_u64, u64::saturating_add);
        if bytes > free {
            let parts: Vec<String> =
                here.iter().map(|need| format!("{} for {}", sized(need.bytes), need.what)).collect();
            let what = format!(
                "there is no room for {act} on the disk of {}: it needs about {} ({}), and {} are free",
                need.place.display(),
                sized(bytes),
                parts.join(", "),
                sized(free)
            );
            return Err(BackupError::new(what));
        }
    }
    Ok(())
}

/// Which disk a place is on, and how much of it this user may still fill.
fn disk(place: &Path) -> Option<(u64, u64)> {
    let there = place.ancestors().find(|path| path.exists())?;
    let (meta, room) = (fs::metadata(there).ok()?, rustix::fs::statvfs(there).ok()?);
    // What is kept back for the superuser.
    let blocks = if rustix::process::geteuid().is_root() { room.f_bfree } else { room.f_bavail };
    Some((meta.dev(), blocks.saturating_mul(room.f_frsize)))
}

/// What a directory and all below it take, each hard link once, but for the paths of `without`. What cannot be read counts
/// as nothing: whoever copies it says so.
pub fn size_of(top: &Path, without: &[PathBuf]) -> u64 {
    let mut links = BTreeSet::new();
    below(top, Path::new(""), without, &mut links).unwrap_or(0)
}

fn below(top: &Path, inner: &Path, without: &[PathBuf], links: &mut BTreeSet<(u64, u64)>) -> io::Result<u64> {
    let mut sum = 0_u64;
    for entry in fs::read_dir(top.join(inner))? {
        let entry = entry?;
        let path = inner.join(entry.file_name());
        let Ok(meta) = entry.metadata() else { continue };
        if without.contains(&path) || (meta.nlink() > 1 && !meta.is_dir() && !links.insert((meta.dev(), meta.ino()))) {
            continue;
        }
        sum = sum.saturating_add(meta.blocks().saturating_mul(BLOCK));
        if meta.is_dir() {
            sum = sum.saturating_add(below(top, &path, without, links).unwrap_or(0));
        }
    }
    Ok(sum)
}

impl Keeper {
    /// An error where there is no room for a backup: for the dumps in the state directory and, before the first one, for all
    /// that the repository is to hold. How much a later one adds nobody knows beforehand.
    pub(crate) fn room_to_take(&self, private: &Path) -> Result<(), BackupError> {
        let options = &self.options;
        let dumps = self.sizes(private);
        let mut needs = vec![Need::new("the dumps of the databases", &options.state, dumps)];
        let snapshots = Path::new(&options.repository).join("snapshots");
        let is_first = fs::read_dir(snapshots).map_or(true, |mut entries| entries.next().is_none());
        if is_first && !is_remote(&options.repository) {
            let roots = options.roots.iter().map(|root| self.size_of_root(root)).fold(0, u64::saturating_add);
            needs.push(Need::new(
                "the repository's first backup",
                Path::new(&options.repository),
                roots + dumps / PACKED,
            ));
        }
        let hint = "make room there; another `repository:` in site.yaml, or --no-backup does without";
        enough("the backup", &needs).map_err(|error| error.hint(hint))
    }

    /// An error where there is no room for a rehearsal's copy of the site: its roots go to `roots`, all else below `scratch`.
    /// What is made on a database's own server is the server's to say.
    pub fn room_to_lay_out<'a>(
        &self,
        roots: impl Iterator<Item = (&'a str, &'a Path)>,
        scratch: &Path,
        private: &Path,
    ) -> Result<(), BackupError> {
        let mut needs = Vec::new();
        for (name, to) in roots {
            let size =
                self.options.roots.iter().find(|root| root.name == name).map_or(0, |root| self.size_of_root(root));
            needs.push(Need::new(&format!("the copy of the root {name}"), to, size));
        }
        for database in &self.options.databases {
            let (label, size) = (database.label(), database.size(private).unwrap_or(0));
            // A file and its copy while it is fetched; and of each engine what it says before and afterwards, to be compared.
            needs.push(Need::new(
                &format!("the copy of the {label}, and what it says before and after"),
                scratch,
                size * 3,
            ));
        }
        let hint = "make room there; `scratch:` in site.yaml may name another place for a root";
        enough("the copy of the site", &needs).map_err(|error| error.hint(hint))
    }

    /// An error where there is no room to put these parts of a backup back, or below `into`. A server's own disk is the
    /// server's to say.
    pub(crate) fn room_to_restore(
        &self,
        act: &str,
        fetched: &Fetched,
        databases: &[&DatabaseNote],
        roots: &[&RootNote],
        into: Option<&Path>,
    ) -> Result<(), BackupError> {
        let mut needs = Vec::new();
        for database in databases {
            let size = database.files.iter().map(|file| file.size).fold(0, u64::saturating_add);
            needs.push(Need::new(
                &format!("the dump of the database {}", database.name),
                into.unwrap_or(&self.options.state),
                size,
            ));
            let live = self.options.databases.iter().find(|live| live.name == database.name).map(|live| &live.engine);
            if let (None, Some(Engine::Sqlite { path })) = (into, live) {
                let now = fs::metadata(path).map_or(0, |meta| meta.len());
                // What it grows by, and its journal: the old pages, or the new ones.
                let more = size.saturating_sub(now) + size.max(now);
                needs.push(Need::new(&format!("the database {} and its journal", database.name), path, more));
            }
        }
        for root in roots {
            let live = self.options.roots.iter().find(|live| live.name == root.name).map(|live| live.path.as_path());
            let Some(to) = into.or(live) else { continue };
            // A damaged tree is told by whoever fetches it.
            let size = fetched.root(&root.name).and_then(|node| fetched.size(&node)).unwrap_or(0);
            needs.push(Need::new(&format!("a second copy of the root {}", root.name), to, size));
        }
        let hint = "make room there; --database and --root restore a part, --into puts it elsewhere";
        enough(act, &needs).map_err(|error| error.hint(hint))
    }

    fn sizes(&self, private: &Path) -> u64 {
        let sizes = self.options.databases.iter().filter_map(|database| database.size(private));
        sizes.fold(0, u64::saturating_add)
    }

    fn size_of_root(&self, root: &RootSource) -> u64 {
        size_of(&root.path, &databases_in(&root.path, &self.options.databases))
    }
}

impl DatabaseSource {
    /// About how many bytes a dump of it takes; none where that cannot be told now.
    pub(crate) fn size(&self, private: &Path) -> Option<u64> {
        match &self.engine {
            Engine::Sqlite { path } => {
                let mut log = path.clone().into_os_string();
                log.push("-wal");
                Some(fs::metadata(path).ok()?.len() + fs::metadata(log).map_or(0, |meta| meta.len()))
            }
            Engine::Postgres { parameters } => crate::dump::postgres::size(parameters, private).ok(),
            Engine::Mariadb { parameters } => crate::dump::mariadb::size(parameters, private).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_more_than_is_free_is_refused_with_figures() {
        let place = tempfile::tempdir().unwrap();
        let (one, other) = (place.path().join("not/yet/there"), place.path().to_owned());
        enough("it", &[Need::new("a", &one, 1), Need::new("b", &other, 1)]).unwrap();
        let (_, free) = disk(&one).unwrap();
        // Together they do not fit, and neither is too large by itself.
        let needs = [Need::new("a", &one, free / 2), Need::new("none", &one, 0), Need::new("b", &other, free)];
        let error = enough("the act", &needs).unwrap_err().to_string();
        assert!(error.starts_with("there is no room for the act on the disk of "), "{error}");
        assert!(error.contains(" for a, ") && error.contains(" for b), and ") && !error.contains("none"), "{error}");
    }

    #[test]
    fn a_tree_takes_what_its_files_take() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path();
        fs::create_dir(top.join("in")).unwrap();
        fs::write(top.join("in/a"), vec![1; 100_000]).unwrap();
        let one = size_of(top, &[]);
        assert!((100_000..130_000).contains(&one), "{one}");
        fs::hard_link(top.join("in/a"), top.join("b")).unwrap();
        assert_eq!(size_of(top, &[]), one, "a hard link");
        fs::write(top.join("in/c"), vec![1; 50_000]).unwrap();
        assert_eq!(size_of(top, &[PathBuf::from("in/c")]), one, "what is left out");
        // A hole takes no room.
        fs::File::create(top.join("in/d")).unwrap().set_len(1 << 30).unwrap();
        assert!(size_of(top, &[]) < 250_000);
    }
}
