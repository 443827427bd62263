//! A small shop to deploy to, runs of the binary on it, and fingerprints of what it holds.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rusqlite::Connection;
use rusqlite::types::Value;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A site with the database `main` and the root `web`, alone in a temporary directory.
pub struct Scene {
    dir: tempfile::TempDir,
}

pub const SITE: &str = "site: shop\ndatabases:\n  main: {url: \"sqlite:shop.sqlite\"}\nroots:\n  web:\n    path: web\n    keep: [uploads]\n";

/// The script and the files of the package that most tests deploy.
pub const GOOD: &str = "package: winter\nversion: 2026.11.1\nsteps:\n  - sql: sql/010.sql\n  - files: docroot\n  - delete: [old.html]\nafter:\n  - name: three products\n    sql: SELECT count(*) FROM product\n    equals: \"3\"\n";
pub const GOOD_SQL: &str = "INSERT INTO product VALUES (3, 'scarf', 1900);\nUPDATE product SET price = price - 100 WHERE id < 3;\nALTER TABLE product ADD COLUMN stock INTEGER;\n";

impl Scene {
    pub fn new() -> Self {
        let scene = Self { dir: tempfile::tempdir().unwrap() };
        scene.write("site.yaml", SITE);
        scene.write("web/index.html", "<h1>Autumn</h1>");
        scene.write("web/old.html", "old");
        scene.write("web/uploads/hat.txt", "a customer's");
        scene
            .database()
            .execute_batch(
                "CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER);
                 INSERT INTO product VALUES (1, 'hat', 2500), (2, 'gloves', 3000);",
            )
            .unwrap();
        scene
    }

    /// With the package `winter` beside it, which deploys.
    pub fn with_good_package() -> Self {
        let scene = Self::new();
        scene.good_package("winter");
        scene
    }

    pub fn good_package(&self, name: &str) {
        self.write(&format!("{name}/package.yaml"), GOOD);
        self.write(&format!("{name}/sql/010.sql"), GOOD_SQL);
        self.write(&format!("{name}/docroot/index.html"), "<h1>Winter</h1>");
        self.write(&format!("{name}/docroot/pages/snow.html"), "snow");
    }

    /// A package that is its manifest and nothing else.
    pub fn package(&self, name: &str, steps: &str) {
        self.write(&format!("{name}/package.yaml"), format!("package: {name}\nversion: 1\n{steps}"));
    }

    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap()
    }

    pub fn database(&self) -> Connection {
        Connection::open(self.path("shop.sqlite")).unwrap()
    }

    pub fn sql(&self, script: &str) {
        self.database().execute_batch(script).unwrap();
    }

    /// The first value that a query gives.
    pub fn value(&self, query: &str) -> Value {
        self.database().query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// The binary in the scene's directory, with nothing of the caller's environment but the way to its programs.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backout"));
        command
            .args(words)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Ran {
        Ran::of(words, self.command(words).output().unwrap())
    }

    pub fn spawn(&self, words: &[&str]) -> Child {
        self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs the binary, which must refuse, and proves that nothing of the site changed.
    pub fn refused(&self, words: &[&str], status: i32) -> Ran {
        let before = self.fingerprint();
        let ran = self.run(words).exits(status).closes("Nothing was changed.");
        assert_eq!(self.fingerprint(), before, "{ran}");
        ran
    }

    /// The id of the latest deployment.
    pub fn latest(&self) -> String {
        let ran = self.run(&["log", "-n", "1"]).exits(0);
        ran.stdout.split_whitespace().next().unwrap().to_owned()
    }

    /// Everything that the database and the root hold, but for what the tool itself keeps.
    pub fn fingerprint(&self) -> BTreeMap<String, String> {
        fingerprint_at(self.dir.path())
    }
}

/// The fingerprint of a copy of the site.
pub fn fingerprint_at(site: &Path) -> BTreeMap<String, String> {
    let mut print = BTreeMap::new();
    tree(&site.join("web"), &site.join("web"), &mut print);
    let file = site.join("shop.sqlite");
    if fs::read(&file).is_ok_and(|content| content.starts_with(b"SQLite format 3\0")) {
        tables(&Connection::open(&file).unwrap(), &mut print);
    }
    print
}

fn tables(database: &Connection, print: &mut BTreeMap<String, String>) {
    let mut statement = database
        .prepare("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'backout%' AND name NOT LIKE 'sqlite_autoindex_backout%'")
        .unwrap();
    let found = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<String>>(2)?)))
        .unwrap();
    for (kind, name, sql) in found.map(Result::unwrap) {
        if kind == "table" {
            let mut rows = Vec::new();
            let mut statement = database.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
            let width = statement.column_count();
            let mut found = statement.query([]).unwrap();
            while let Some(row) = found.next().unwrap() {
                let values: Vec<Value> = (0..width).map(|column| row.get(column).unwrap()).collect();
                rows.push(format!("{values:?}"));
            }
            print.insert(format!("rows of {name}"), rows.join("\n"));
        }
        print.insert(format!("{kind} {name}"), sql.unwrap_or_default());
    }
}

fn tree(root: &Path, dir: &Path, print: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let shown = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let mut what = format!("{:o} {}", meta.permissions().mode(), meta.uid());
        if meta.is_symlink() {
            what.push_str(&format!(" -> {}", fs::read_link(&path).unwrap().display()));
        } else if meta.is_file() {
            let content = fs::read(&path).unwrap();
            what.push_str(&format!(" {}.{} {}", meta.mtime(), meta.mtime_nsec(), content.escape_ascii()));
        } else if meta.is_dir() {
            tree(root, &path, print);
        }
        print.insert(shown, what);
    }
}

/// A run of the binary that is over.
pub struct Ran {
    pub words: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(words: &[&str], output: Output) -> Self {
        Self {
            words: words.join(" "),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("error: this is a defect"), "{self}");
        self
    }

    /// stderr holds this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no `{text}` in stderr\n{self}");
        self
    }

    /// stdout holds this text.
    #[track_caller]
    pub fn answers(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "no `{text}` in stdout\n{self}");
        self
    }

    /// This is the last line on stderr.
    #[track_caller]
    pub fn closes(self, line: &str) -> Self {
        assert_eq!(self.stderr.lines().last(), Some(line), "{self}");
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "backout {}\nexit {:?}\nstdout:\n{}\nstderr:\n{}", self.words, self.code, self.stdout, self.stderr)
    }
}

/// A named pipe by which a command of a package can be held and let go.
pub struct Hold {
    path: PathBuf,
}

impl Hold {
    /// A package's step that says `reached` on one pipe and then waits for the other.
    pub fn new(scene: &Scene) -> Self {
        let path = scene.path("hold");
        for name in [path.with_extension("reached"), path.with_extension("go")] {
            let made = Command::new("mkfifo").arg(&name).status().unwrap();
            assert!(made.success());
        }
        Self { path }
    }

    /// The step in YAML.
    pub fn step(&self) -> String {
        format!("  - run: [sh, -c, \"{}\"]\n    undo: [\"true\"]\n", self.script())
    }

    /// What the step does, as a shell script.
    pub fn script(&self) -> String {
        let path = self.path.display();
        format!("echo reached > {path}.reached; cat {path}.go")
    }

    /// Returns when the step is being run.
    pub fn wait(&self) {
        // Open for both, so that opening does not block; a run that never comes here must fail the test, not hang it.
        let mut pipe = fs::File::options().read(true).write(true).open(self.path.with_extension("reached")).unwrap();
        let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&minute)).unwrap();
        assert_eq!(ready, 1, "the step was never reached");
        let mut said = [0; 8];
        pipe.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"reached\n");
    }

    /// Lets the step end.
    pub fn release(&self) {
        fs::write(self.path.with_extension("go"), "go\n").unwrap();
    }
}
