//! Where the binaries of PostgreSQL are, and as whom its server runs. Never installs anything: what is missing fails.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// PostgreSQL as it is installed.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    folder: PathBuf,
    /// The major version.
    pub version: u32,
    pub account: Account,
}

/// As whom the server runs.
#[derive(Clone, Debug)]
pub(crate) enum Account {
    /// Who runs the tests.
    Own,
    /// Another user, because no server should run as root.
    Other { uid: u32, gid: u32 },
}

impl Binaries {
    /// Those in `$BACKOUT_POSTGRES`, in `$PATH`, or the newest in Debian's place.
    pub fn find() -> Binaries {
        let folder = find("postgres").unwrap_or_else(|| {
            panic!("PostgreSQL is not installed: run script/setup, or set BACKOUT_POSTGRES to its folder `bin`")
        });
        let account = Account::find("postgres");
        // `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`, `postgres (PostgreSQL) 18beta1`
        let output = Command::new(folder.join("postgres")).arg("--version").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let number = said.split_ascii_whitespace().nth(2).unwrap_or_default();
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        let version = digits.parse().unwrap_or_else(|_| panic!("postgres --version says {said:?}"));
        Binaries { folder, version, account }
    }

    /// A program of the server, run as the account that may.
    pub fn command(&self, program: &str) -> Command {
        self.run(self.folder.join(program))
    }

    /// Any program, run as the account that may.
    pub fn run(&self, program: PathBuf) -> Command {
        self.account.run(program)
    }

    /// A client program: beside the server, else wherever there is one. A packaged server may come without.
    pub fn client(&self, program: &str) -> PathBuf {
        let beside = self.folder.join(program);
        if beside.exists() {
            return beside;
        }
        find(program).unwrap_or_else(|| panic!("{program} is not installed: run script/setup")).join(program)
    }
}

impl Account {
    /// `name`: the user that the server is packaged with.
    pub fn find(name: &str) -> Account {
        if !rustix::process::geteuid().is_root() {
            return Account::Own;
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap();
        let ids = |name: &str| {
            let mut fields =
                users.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(name))?;
            Some((fields.nth(2)?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        let (uid, gid) = ids(name).or_else(|| ids("nobody")).expect("a user who is not root, at least `nobody`");
        Account::Other { uid, gid }
    }
}

impl Account {
    /// A program, run as this account.
    pub fn run(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").current_dir("/");
        if let Account::Other { uid, gid } = *self {
            command.gid(gid).uid(uid);
        }
        command
    }

    /// Gives a folder to it.
    pub fn own(&self, folder: &Path) {
        if let Account::Other { uid, gid } = *self {
            std::os::unix::fs::chown(folder, Some(uid), Some(gid)).unwrap();
        }
    }
}

/// The folder that holds the program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let named = std::env::var_os("BACKOUT_POSTGRES").map(PathBuf::from);
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    named.into_iter().chain(std::env::split_paths(&path)).chain(debian()).find(|folder| folder.join(program).is_file())
}

/// Debian's folders, the newest version first.
fn debian() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, folder): (u32, PathBuf)| folder).collect()
}
