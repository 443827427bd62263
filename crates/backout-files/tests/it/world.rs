//! A root, a package and a gate to try things with, and an exact fingerprint of a tree.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use backout_files::local::{LocalRoot, Options, Pretence};
use backout_files::root::{Root, Work};
use backout_model::conflict::OnConflict;
use backout_model::fault::{self, Faults, Point};
use backout_model::target::{Gate, Images, Manner, Report, Summary, Target, TargetError, Ticket};

pub const STOP: Manner = Manner { on_conflict: OnConflict::Stop, in_doubt: false };
pub const IN_DOUBT: Manner = Manner { on_conflict: OnConflict::Stop, in_doubt: true };

/// A gate that keeps what was announced in memory.
#[derive(Default)]
pub struct TestGate {
    pub writing: Arc<Mutex<Vec<u8>>>,
    /// What was durable at the announcement; none before it.
    pub announced: Option<Vec<u8>>,
    pub summary: Summary,
    /// Runs right after the announcement: somebody else at work.
    pub meanwhile: Option<Box<dyn FnMut() + Send>>,
}

struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Gate for TestGate {
    fn images(&mut self) -> Box<dyn Write + Send> {
        assert!(self.writing.lock().unwrap().is_empty(), "images are opened once");
        Box::new(Shared(self.writing.clone()))
    }

    fn written(&mut self) -> io::Result<Box<dyn backout_model::target::Images>> {
        Ok(Box::new(io::Cursor::new(self.writing.lock().unwrap().clone())))
    }

    fn announce(&mut self, summary: &Summary) -> Result<Ticket, TargetError> {
        assert!(self.announced.is_none(), "announced twice");
        fault::point(Point::JournalWrite).map_err(|error| TargetError::failed("cannot announce", error))?;
        self.announced = Some(self.writing.lock().unwrap().clone());
        self.summary = summary.clone();
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile();
        }
        Ok(Ticket { seq: 1, epoch: 1 })
    }

    fn progress(&mut self, _done: u64, _of: Option<u64>) {}
}

/// A place with a root, packages, and what lies beside.
pub struct World {
    pub dir: tempfile::TempDir,
    elsewhere: Option<tempfile::TempDir>,
    pub pretence: Pretence,
    pub keep: Vec<String>,
}

impl World {
    /// On the disk that temporary files are on.
    pub fn on_disk() -> Self {
        Self::at(&std::env::temp_dir(), Pretence::default())
    }

    /// In memory, which makes thousands of worlds cheap.
    pub fn in_memory() -> Self {
        Self::at(memory(), Pretence::default())
    }

    pub fn at(base: &Path, pretence: Pretence) -> Self {
        let dir = tempfile::Builder::new().prefix("world-").tempdir_in(base).unwrap();
        let elsewhere = pretence.away.then(|| tempfile::tempdir().unwrap());
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("package")).unwrap();
        Self { dir, elsewhere, pretence, keep: Vec::new() }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn package(&self) -> PathBuf {
        self.dir.path().join("package")
    }

    pub fn options(&self) -> Options {
        Options {
            site: "shop".to_owned(),
            name: "web".to_owned(),
            path: self.root(),
            keep: self.keep.clone(),
            hold: self.elsewhere.as_ref().map(|dir| dir.path().join("holds")),
            databases: Vec::new(),
        }
    }

    pub fn open(&self) -> LocalRoot {
        LocalRoot::open_pretending(self.options(), self.pretence).unwrap()
    }

    pub fn hold(&self) -> PathBuf {
        self.open().hold_path().to_owned()
    }

    pub fn overlay(&self) -> Work {
        Work::Overlay { source: self.package(), exact: false }
    }

    pub fn exact(&self) -> Work {
        Work::Overlay { source: self.package(), exact: true }
    }

    /// Applies and hands back the images.
    pub fn apply(&self, work: &Work) -> (Vec<u8>, Report) {
        let mut gate = TestGate::default();
        let report = self.open().apply(work, &mut gate).unwrap();
        (gate.announced.unwrap(), report)
    }

    pub fn undo(&self, images: &[u8], manner: Manner) -> Result<Report, TargetError> {
        self.open().undo(&mut Cursor::new(images.to_vec()), manner, &mut TestGate::default())
    }

    /// Does it again and hands back the new images.
    pub fn redo(&self, images: &[u8], manner: Manner) -> Result<(Vec<u8>, Report), TargetError> {
        let mut gate = TestGate::default();
        let report = self.open().redo(&mut Cursor::new(images.to_vec()), manner, &mut gate)?;
        Ok((gate.announced.unwrap(), report))
    }

    pub fn fingerprint(&self) -> BTreeMap<String, String> {
        fingerprint(&self.root(), !self.pretence.away)
    }

    /// The names in the hold.
    pub fn held(&self) -> Vec<String> {
        match fs::read_dir(self.hold()) {
            Ok(entries) => entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect(),
            Err(_) => Vec::new(),
        }
    }
}

/// A file system in memory; `/dev/shm` is one on every Linux, else this fails loudly.
pub fn memory() -> &'static Path {
    let path = Path::new("/dev/shm");
    assert!(path.is_dir(), "/dev/shm is missing: these tests need a file system in memory");
    path
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn boxed(images: &[u8]) -> Box<dyn Images> {
    Box::new(Cursor::new(images.to_vec()))
}

/// Writes a file with the directories it needs.
pub fn write(dir: &Path, path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

pub fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let stamp = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = rustix::fs::Timestamps { last_access: stamp, last_modification: stamp };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

/// An access list with one named user (acl(5), version 2 of the kernel's encoding).
pub fn access_list(user: u32, rights: u16) -> Vec<u8> {
    let entry =
        |tag: u16, rights: u16, id: u32| [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat();
    let none = u32::MAX;
    let parts = [entry(1, 6, none), entry(2, rights, user), entry(4, 4, none), entry(16, 6, none), entry(32, 0, none)];
    [&2_u32.to_le_bytes()[..], &parts.concat()].concat()
}

/// A tree with something of everything. Where the tests run as root, of owners and capabilities, too.
pub fn furnish(root: &Path) {
    write(root, "index.php", "<?php old index");
    write(root, "same.txt", "the same in both");
    write(root, "css/site.css", "body { color: black }");
    write(root, "css/print.css", "@media print {}");
    write(root, "old/page.php", "goes");
    write(root, "old/deep/er/page.php", "goes, too");
    mode(&write(root, "bin/tool", "#!/bin/sh\necho old\n"), 0o4755);
    mode(&write(root, "read-only.txt", "old, read only"), 0o444);
    fs::create_dir(root.join("empty")).unwrap();
    fs::create_dir_all(root.join("uploads/2026")).unwrap();
    write(root, "uploads/2026/photo.jpg", "a visitor's photo");
    symlink("css/site.css", root.join("style")).unwrap();
    symlink("nowhere/at all", root.join("dangling")).unwrap();
    write(root, "twins/one", "two names, one file");
    fs::hard_link(root.join("twins/one"), root.join("twins/two")).unwrap();
    write(root, std::ffi::OsString::from_vec(b"caf\xe9\\\n.txt".to_vec()), "a name that is no UTF-8");
    let mut sparse = fs::File::create(root.join("sparse.img")).unwrap();
    sparse.seek(SeekFrom::Start(3 << 20)).unwrap();
    sparse.write_all(b"data behind a hole").unwrap();
    sparse.set_len(5 << 20).unwrap();
    set_attribute(&root.join("css/site.css"), "user.colour", b"black");
    set_attribute(&root.join("css/print.css"), "system.posix_acl_access", &access_list(1234, 6));
    if is_root() {
        std::os::unix::fs::chown(root.join("index.php"), Some(33), Some(33)).unwrap();
        std::os::unix::fs::lchown(root.join("style"), Some(33), Some(34)).unwrap();
        std::os::unix::fs::chown(root.join("css"), Some(35), Some(36)).unwrap();
    }
    let mut paths: Vec<PathBuf> = fingerprint(root, false).into_keys().map(|path| unescaped(root, &path)).collect();
    paths.reverse();
    for (i, path) in paths.iter().enumerate() {
        set_time(path, 1_700_000_000 + i as i64, 123_456_789 + i as i64);
    }
}

/// A package that changes, adds and leaves something of everything.
pub fn pack(package: &Path) {
    write(package, "index.php", "<?php new index, longer");
    write(package, "same.txt", "the same in both");
    write(package, "css/site.css", "body { color: white }");
    write(package, "css/print.css", "@media print { nav { display: none } }");
    mode(&write(package, "bin/tool", "#!/bin/sh\necho new\n"), 0o4755);
    mode(&write(package, "read-only.txt", "new, read only"), 0o444);
    write(package, "new/page.php", "new");
    write(package, "new/deep/er/page.php", "new, too");
    fs::create_dir_all(package.join("new/empty")).unwrap();
    fs::create_dir(package.join("uploads")).unwrap();
    symlink("css/print.css", package.join("style")).unwrap();
    symlink("../outside", package.join("new/link")).unwrap();
    write(package, "new/pair-a", "a pair");
    fs::hard_link(package.join("new/pair-a"), package.join("new/pair-b")).unwrap();
    write(package, "twins/one", "one name now");
    write(package, std::ffi::OsString::from_vec(b"caf\xe9\\\n.txt".to_vec()), "changed all the same");
    let mut sparse = fs::File::create(package.join("sparse.img")).unwrap();
    sparse.seek(SeekFrom::Start(2 << 20)).unwrap();
    sparse.write_all(b"data elsewhere").unwrap();
    sparse.set_len(4 << 20).unwrap();
    set_attribute(&package.join("index.php"), "user.origin", b"package");
    mode(&package.join("new/deep"), 0o750);
    let mut paths: Vec<PathBuf> =
        fingerprint(package, false).into_keys().map(|path| unescaped(package, &path)).collect();
    paths.reverse();
    for (i, path) in paths.iter().enumerate() {
        set_time(path, 1_800_000_000 + i as i64, 987_654_321 - i as i64);
    }
}

fn unescaped(root: &Path, shown: &str) -> PathBuf {
    if shown == "." {
        return root.to_owned();
    }
    // Keys are paths in hex behind a readable form: `readable|hex`.
    let (_, hex) = shown.rsplit_once('|').unwrap();
    let digits = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
    root.join(std::ffi::OsString::from_vec(digits.collect()))
}

/// Everything about every path beneath a root: type, mode, owner, group, time, content, holes, attributes, access
/// lists, link targets, and (`links`) which names are one file and how many names it has in all.
pub fn fingerprint(root: &Path, links: bool) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    look(root, root, links, &mut inodes, &mut all);
    all
}

fn look(root: &Path, path: &Path, links: bool, inodes: &mut BTreeMap<u64, String>, all: &mut BTreeMap<String, String>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let relative = path.strip_prefix(root).unwrap();
    let key = if relative.as_os_str().is_empty() {
        ".".to_owned()
    } else {
        let hex: String = relative.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}|{hex}", relative.to_string_lossy().escape_default())
    };
    let mut text = format!(
        "mode {:o} owner {}:{} time {}.{:09} ",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    if meta.is_symlink() {
        write!(text, "-> {:?}", fs::read_link(path).unwrap().as_os_str().as_bytes()).unwrap();
    } else {
        let mut names = vec![0; 4096];
        let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
        let mut names: Vec<&[u8]> = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        for name in names {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            write!(text, "{}={:?} ", String::from_utf8_lossy(name), &value[..length]).unwrap();
        }
    }
    if meta.is_file() {
        let mut content = Vec::new();
        let mut file = fs::File::open(path).unwrap();
        file.read_to_end(&mut content).unwrap();
        write!(text, "size {} {} extents {:?} ", content.len(), blake3::hash(&content).to_hex(), extents(&file))
            .unwrap();
    }
    if links && !meta.is_dir() {
        let first = inodes.entry(meta.ino()).or_insert_with(|| key.clone());
        write!(text, "links {} first {first}", meta.nlink()).unwrap();
    }
    all.insert(key, text);
    if meta.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for name in names {
            look(root, &name, links, inodes, all);
        }
    }
}

/// Where a file has data: its holes are part of what is kept.
fn extents(file: &fs::File) -> Vec<(u64, u64)> {
    let size = file.metadata().unwrap().len();
    let (mut at, mut all) = (0, Vec::new());
    while at < size {
        let Ok(data) = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) else { break };
        let hole = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(data)).unwrap();
        all.push((data, hole));
        at = hole;
    }
    all
}

/// Fails with the paths that differ.
#[track_caller]
pub fn assert_same(now: &BTreeMap<String, String>, then: &BTreeMap<String, String>, what: &str) {
    if now == then {
        return;
    }
    let mut text = String::new();
    for path in now.keys().chain(then.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (now, then) = (now.get(path), then.get(path));
        if now != then {
            writeln!(text, "{path}\n  now  {}\n  then {}", shown(now), shown(then)).unwrap();
        }
    }
    panic!("{what}: the trees differ:\n{text}");
}

fn shown(line: Option<&String>) -> &str {
    line.map_or("missing", String::as_str)
}

/// What happens at the fault points of this thread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Everything from this point on fails: the process is dead.
    Crash(usize),
    /// This one point fails with the error.
    Once(usize, i32),
    Nothing,
}

struct Injected {
    fault: Fault,
    seen: Arc<Mutex<Vec<Point>>>,
}

impl Faults for Injected {
    fn at(&mut self, point: Point) -> io::Result<()> {
        let mut seen = self.seen.lock().unwrap();
        let now = seen.len();
        seen.push(point);
        match self.fault {
            Fault::Crash(at) if now >= at => Err(io::Error::other("the process is dead")),
            Fault::Once(at, errno) if now == at => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn syncs_issued(&self) -> bool {
        false
    }
}

/// Runs with a fault and says which points were passed.
pub fn with_fault<T>(fault: Fault, run: impl FnOnce() -> T) -> (T, Vec<Point>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let outer = fault::set_local(Some(Box::new(Injected { fault, seen: seen.clone() })));
    let result = run();
    fault::set_local(outer);
    let seen = seen.lock().unwrap().clone();
    (result, seen)
}

/// From now on this thread counts syncs and issues none: for tests of thousands of worlds.
pub fn without_syncs() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    fault::set_local(Some(Box::new(Injected { fault: Fault::Nothing, seen })));
}
