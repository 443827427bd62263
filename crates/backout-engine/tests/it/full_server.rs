//! The disk of a PostgreSQL server is full, sooner or later in a deployment and in an undo: what the command says is so,
//! and with room again all goes on.
//!
//! The database lies in a tablespace on a small file system in memory. Where none may be mounted, that is said aloud.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use backout_engine::outcome::Status;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::postgres::Server;
use backout_testkit::site::{Done, TestSite};

use crate::crash::server;

const SETUP: &str = "CREATE TABLE bulk (id int PRIMARY KEY, a text, b int);
    INSERT INTO bulk SELECT i, repeat('x', 100), i FROM generate_series(1, 8000) AS i;
    CREATE TABLE gone (a text); INSERT INTO gone SELECT repeat('y', 100) FROM generate_series(1, 2000);";

/// A file system of a few megabytes; unmounted when it is dropped.
struct Small {
    at: PathBuf,
}

impl Small {
    fn mount() -> Option<Self> {
        let at = tempfile::Builder::new().prefix("backout-small-").tempdir_in("/tmp").unwrap().keep();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m,mode=0755", "none"]).arg(&at).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self { at });
        }
        eprintln!("NOT PLAYED: the disk of the server is full: no file system can be mounted here: {mounted:?}");
        fs::remove_dir(&at).unwrap();
        None
    }

    /// A folder on it that the server may use.
    fn folder(&self, server: &Server) -> PathBuf {
        let folder = self.at.join("space");
        fs::create_dir(&folder).unwrap();
        let owner = fs::metadata(server.data()).unwrap();
        chown(&folder, Some(owner.uid()), Some(owner.gid())).unwrap();
        folder
    }

    /// Takes all but so many KiB.
    fn fill(&self, left_kib: u64) {
        let free = rustix::fs::statvfs(&self.at).unwrap();
        let all = free.f_bavail * free.f_frsize / 1024;
        fs::write(self.filler(), vec![0; usize::try_from(all.saturating_sub(left_kib) * 1024).unwrap()]).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("--lazy").arg(&self.at).status().unwrap();
        assert!(gone.success());
        fs::remove_dir(&self.at).unwrap();
    }
}

fn package() -> Pkg {
    Pkg::new("winter")
        .step(sql("CREATE INDEX bulk_b ON bulk (b); ALTER TABLE bulk ADD COLUMN c int DEFAULT 1;"))
        .step(sql("UPDATE bulk SET a = repeat('z', 120); DELETE FROM bulk WHERE b % 7 = 0;"))
        .step(sql("ALTER TABLE bulk ALTER b TYPE bigint; DROP TABLE gone;"))
}

/// The site is as the command said.
#[track_caller]
fn is_so(site: &TestSite, done: &Done, before: &Fingerprint, after: Option<&Fingerprint>, left_kib: u64) {
    let expected = match (done.status(), after) {
        (Status::Failed | Status::Refused, _) => before,
        (Status::Done, Some(after)) => after,
        (Status::Done, None) => return,
        (other, _) => panic!("{left_kib} KiB left: {other:?}: {done:?}"),
    };
    expected.assert_same(&Fingerprint::of(site), &format!("{left_kib} KiB left: {done:?}"));
}

#[test]
fn a_server_whose_disk_is_full() {
    let Some(small) = Small::mount() else { return };
    let server = server();
    let space: &Path = &small.folder(server);
    let mut client = server.connect("postgres");
    client.batch_execute(&format!("CREATE TABLESPACE small LOCATION '{}'", space.display())).unwrap();
    let site = TestSite::builder().postgres("main", server, SETUP).build();
    let database = site.postgres("main").unwrap();
    client.batch_execute(&format!("ALTER DATABASE {} SET TABLESPACE small", database.name)).unwrap();
    let before = Fingerprint::of(&site);
    let (mut failed, mut undos_failed) = (0, 0);
    for left_kib in [0, 100, 500, 1000, 2000, 3000, 4000, 6000, 9000] {
        small.fill(left_kib);
        let done = site.deploy(&package());
        small.make_room();
        if done.status() == Status::NeedsHand {
            // The way back wants room, too. With room, the command that is named goes it.
            site.undo(None).expect(Status::Done);
            before.assert_same(&Fingerprint::of(&site), &format!("{left_kib} KiB left: {done:?}"));
        } else {
            is_so(&site, &done, &before, None, left_kib);
        }
        if done.status() != Status::Done {
            failed += 1;
            site.deploy(&package()).expect(Status::Done);
        }
        let after = Fingerprint::of(&site);
        database.psql("VACUUM FULL bulk");
        small.fill(left_kib);
        let undone = site.undo(None);
        small.make_room();
        is_so(&site, &undone, &after, Some(&before), left_kib);
        if undone.status() != Status::Done {
            undos_failed += 1;
            site.undo(None).expect(Status::Done);
        }
        before.assert_same(&Fingerprint::of(&site), "undone");
        database.psql("VACUUM FULL bulk");
        assert!(site.grave().is_empty());
    }
    println!("the disk was too small for {failed} deployments and {undos_failed} undos");
    assert!(failed > 2 && undos_failed > 2, "{failed}, {undos_failed}");
    // The file system can go only after what is on it.
    drop(site);
    client.batch_execute("DROP TABLESPACE small").unwrap();
}
