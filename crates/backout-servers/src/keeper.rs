//! What keeps a private server in its temporary folder and takes both away, whatever the server.
//!
//! Never touches a server that it was not given.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of the server that an earlier process started, if it is still there, and a hold on it.
pub fn join(pointer: &Path) -> Option<(PathBuf, File)> {
    let folder = PathBuf::from(fs::read_to_string(pointer).ok()?);
    let user = File::open(folder.join("users")).ok()?;
    // Locked means that its keeper is about to stop it.
    user.try_lock_shared().ok()?;
    let (held, named) = (user.metadata().ok()?, fs::metadata(folder.join("users")).ok()?);
    ((held.dev(), held.ino()) == (named.dev(), named.ino())).then_some((folder, user))
}

/// Where the processes of a test run find the shared server: the build's folder.
pub fn shared_place() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let target = exe.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.map_or_else(std::env::temp_dir, Path::to_owned).join("testkit")
}

/// Starts the keeper of a folder: once nobody holds `users` any more it stops the server and removes the folder.
///
/// `pid_file` in the folder `data` names the server's process, which works there; `signal` ends it. The file given back
/// is the caller's own hold on the server.
pub fn keep(folder: &Path, pid_file: &str, signal: &str) -> File {
    let user = File::create(folder.join("users")).unwrap();
    user.lock_shared().unwrap();
    const STOP: &str = r#"
        read -r pid rest <"$1/data/$2"
        if [ -n "$pid" ] && [ "/proc/$pid/cwd" -ef "$1/data" ]; then
            kill -"$3" "$pid"
            tail --pid="$pid" -s 0.1 -f /dev/null
        fi
        rm -rf "$1" || rm -rf "$1"
    "#;
    // In the background of a shell that ends at once, so that it is nobody's child and outlives this process.
    let start = r#"flock --exclusive "$1/users" sh -c "$2" sh "$1" "$3" "$4" &"#;
    let mut keeper = Command::new("sh");
    keeper.args(["-c", start, "sh"]).arg(folder).args([STOP, pid_file, signal]).current_dir("/").process_group(0);
    keeper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(keeper.status().unwrap().success());
    user
}

pub fn run(command: &mut Command) {
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks again and again until it is so; None where it is not in time.
pub fn wait_until(mut so: impl FnMut() -> bool) -> Option<()> {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(())
}

pub fn someone_works_in(folder: &Path) -> bool {
    let works = |entry: io::Result<fs::DirEntry>| {
        entry.and_then(|entry| fs::read_link(entry.path().join("cwd"))).is_ok_and(|cwd| cwd == folder)
    };
    fs::read_dir("/proc").unwrap().any(works)
}
