//! Backups: taken before a deployment and by hand, listed and restored by restic, and the way back where no undo helps.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, delete, files, sql};
use backout_testkit::site::TestSite;
use backout_testkit::tree::{Node, Tree};
use backout_testkit::{mariadb, postgres};

use crate::scene::{Ran, Scene};

const BACKUP: &str = "backup:\n  password-file: password\n  keep: {last: 2}\n";
const PASSWORD: &str = "correct horse";

/// A site with everything that a root can hold, and a package that changes some of it.
pub fn tree() -> Tree {
    Tree::new()
        .file("index.html", "<h1>Autumn</h1>")
        .file("pages/one.html", "one")
        .same("pages/same.html", "index.html")
        .link("pages/link", "../index.html")
        .dir("empty")
        .node("setuid", Node::File { content: b"x".to_vec(), mode: 0o4711 })
        .node("shut", Node::Dir { mode: 0o500 })
}

pub fn package(steps: &str) -> Pkg {
    Pkg::new("winter")
        .step(sql(steps))
        .step(files(Tree::new().file("index.html", "<h1>Winter</h1>").file("new/page.html", "new")))
        .step(delete(["pages/one.html"]))
}

pub fn with_backup(site: &TestSite) {
    let file = site.dir().join("site.yaml");
    let text = fs::read_to_string(&file).unwrap();
    // The testkit writes JSON, which is YAML.
    let text = match text.trim_end().strip_suffix('}') {
        Some(open) => format!("{open},\"backup\":{{\"password-file\":\"password\",\"keep\":{{\"last\":2}}}}}}"),
        None => format!("{text}\n{BACKUP}"),
    };
    fs::write(&file, text).unwrap();
    fs::write(site.dir().join("password"), format!("{PASSWORD}\n")).unwrap();
}

pub fn run(site: &TestSite, words: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backout"));
    let output = command.args(words).current_dir(site.dir()).output().unwrap();
    Ran::of(words, output)
}

pub fn restic(site: &Path, words: &[&str]) -> Ran {
    let mut command = Command::new("restic");
    command.args(["--repo", ".backout/backups", "--password-file", "password", "--no-cache"]).args(words);
    let output = command.current_dir(site).env("HOME", site).output().expect("restic is not there: run script/setup");
    Ran::of(words, output)
}

#[test]
fn restic_lists_and_restores_what_was_backed_up() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{}{BACKUP}", crate::scene::SITE));
    scene.write("password", PASSWORD);
    scene.run(&["backup"]).exits(0).closes("Nothing was changed.");
    let id = {
        scene.run(&["deploy", "winter"]).exits(0);
        scene.latest()
    };
    let site = scene.path("");
    restic(&site, &["snapshots"]).exits(0).answers(&format!("before:{id}"));
    restic(&site, &["check", "--read-data"]).exits(0);
    let before = crate::scene::fingerprint_at(&site);
    scene.run(&["undo"]).exits(0);
    restic(&site, &["restore", "latest", "--target", "by-restic"]).exits(0);
    let copied = scene.path("by-restic");
    fs::rename(copied.join("roots/web"), copied.join("web")).unwrap();
    fs::rename(copied.join("databases/main.sqlite"), copied.join("shop.sqlite")).unwrap();
    assert_eq!(crate::scene::fingerprint_at(&copied), scene.fingerprint());
    assert_ne!(before, scene.fingerprint());
    // By this tool into another place it is the same.
    scene.run(&["restore", "--into", "elsewhere"]).exits(0).closes("The site itself was not touched.");
    let elsewhere = scene.path("elsewhere");
    assert_eq!(elsewhere.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    fs::rename(elsewhere.join("roots/web"), elsewhere.join("web")).unwrap();
    fs::rename(elsewhere.join("databases/main.sqlite"), elsewhere.join("shop.sqlite")).unwrap();
    assert_eq!(crate::scene::fingerprint_at(&elsewhere), scene.fingerprint());
    // A byte that flips is found, and nothing of the site is touched by what it spoils.
    flip_a_byte(&scene.path(".backout/backups/data"));
    scene.run(&["verify", "--backup"]).exits(3).answers("GRAVE");
    scene.refused(&["restore", "--yes"], 4);
    scene.run(&["status"]).exits(0);
}

/// In the middle of the largest pack.
fn flip_a_byte(data: &Path) {
    let folders = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let packs = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let largest = packs.max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&largest).unwrap();
    fs::write(&largest, bytes).unwrap();
}

#[test]
fn a_backup_that_fails_stops_the_deployment_before_anything_changed() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{}{BACKUP}", crate::scene::SITE));
    scene.refused(&["deploy", "winter"], 4).says("password-file");
    scene.write("password", PASSWORD);
    scene.run(&["deploy", "winter", "--no-backup"]).exits(0);
    scene.run(&["undo"]).exits(0);
    scene.run(&["backup"]).exits(0);
    // A disk that is not mounted looks like a repository that was never made.
    fs::rename(scene.path(".backout/backups"), scene.path("elsewhere")).unwrap();
    scene.refused(&["deploy", "winter"], 4).says("is its disk mounted?");
    fs::rename(scene.path("elsewhere"), scene.path(".backout/backups")).unwrap();
    scene.write("password", "another");
    scene.refused(&["deploy", "winter"], 4).says("wrong");
    scene.write("password", PASSWORD);
    // The rights of a file that cannot be read do not keep the superuser out; a directory that is none does.
    fs::remove_dir_all(scene.path(".backout/backups/index")).unwrap();
    fs::remove_dir_all(scene.path(".backout/backups/data")).unwrap();
    scene.write(".backout/backups/data", "in the way");
    scene.refused(&["deploy", "winter"], 4);
}

#[test]
fn part_of_a_site_is_restored_and_older_deployments_stay_undoable() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{}{BACKUP}", crate::scene::SITE));
    scene.write("password", PASSWORD);
    let untouched = scene.fingerprint();
    scene.run(&["deploy", "winter"]).exits(0);
    let first = scene.latest();
    let deployed = scene.fingerprint();
    scene.package("spring", "steps:\n  - sql: s.sql\n");
    scene.write("spring/s.sql", "DELETE FROM product");
    scene.run(&["deploy", "spring"]).exits(0);
    let second = scene.latest();
    scene.write("web/index.html", "by somebody");
    // Of the database alone: the file stays as somebody wrote it.
    scene.run(&["restore", "--database", "main", "--yes"]).exits(0).says(&second);
    assert_eq!(scene.read("web/index.html"), "by somebody");
    scene.run(&["restore", &second, "--root", "web", "--yes"]).exits(0);
    assert_eq!(scene.fingerprint(), deployed);
    scene.run(&["restore", "--root", "nowhere", "--yes"]).exits(2).says("holds no root");
    scene.run(&["undo", &second]).exits(4);
    scene.run(&["verify"]).exits(0);
    scene.run(&["undo", &first]).exits(0);
    let times = |print: &std::collections::BTreeMap<String, String>| print.clone();
    assert_eq!(times(&scene.fingerprint()), times(&untouched));
}

#[test]
fn nothing_is_restored_while_a_site_is_recorded() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{}{BACKUP}", crate::scene::SITE));
    scene.write("password", PASSWORD);
    scene.run(&["backup"]).exits(0);
    scene.run(&["capture", "start"]).exits(0);
    scene.refused(&["restore", "--yes"], 4).says("is being recorded since");
    scene.run(&["restore", "--into", "elsewhere"]).exits(0);
    scene.run(&["capture", "stop", "--abandon"]).exits(0);
    scene.run(&["restore", "--yes"]).exits(0);
}

#[test]
fn a_lost_site_comes_back_from_the_repository_alone() {
    let scene = Scene::with_good_package();
    scene.write(
        "site.yaml",
        format!("{}{}", crate::scene::SITE, BACKUP.replace("backup:\n", "backup:\n  repository: kept\n")),
    );
    scene.write("password", PASSWORD);
    // What the library that restores leaves out, beside what it does not.
    let sparse = fs::File::create(scene.path("web/sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all_at(b"end", 700_001).unwrap();
    std::os::unix::fs::symlink("index.html", scene.path("web/link")).unwrap();
    fs::hard_link(scene.path("web/link"), scene.path("web/uploads/same")).unwrap();
    fs::write(scene.path("web").join(std::ffi::OsStr::from_bytes(b"n\xff\n\"\\")), "x").unwrap();
    for words in [
        &["mkfifo", "web/pipe"][..],
        &["setfattr", "-n", "user.x", "-v", "1", "web/index.html"],
        &["setfacl", "-m", "u:1:r", "web/uploads"],
    ] {
        assert!(Command::new(words[0]).args(&words[1..]).current_dir(scene.path("")).status().unwrap().success());
    }
    let before = scene.fingerprint();
    fs::set_permissions(scene.path("shop.sqlite"), fs::Permissions::from_mode(0o640)).unwrap();
    scene.run(&["deploy", "winter"]).exits(0);
    for gone in ["web", ".backout"] {
        fs::remove_dir_all(scene.path(gone)).unwrap();
    }
    fs::remove_file(scene.path("shop.sqlite")).unwrap();
    scene.run(&["restore", "--yes"]).exits(0).says("of another history");
    assert_eq!(scene.fingerprint(), before);
    assert_eq!(scene.path("shop.sqlite").metadata().unwrap().mode() & 0o777, 0o640);
    let inode = |path: &str| scene.path(path).symlink_metadata().unwrap().ino();
    assert_eq!(inode("web/link"), inode("web/uploads/same"));
    assert!(scene.path("web/sparse").metadata().unwrap().blocks() * 512 < 1 << 19);
    let list = Command::new("getfacl").args(["-cn", "web/uploads"]).current_dir(scene.path("")).output().unwrap();
    assert!(String::from_utf8_lossy(&list.stdout).contains("user:1:r--"), "{list:?}");
    scene.run(&["deploy", "winter"]).exits(0);
    scene.run(&["undo"]).exits(0);
    assert_eq!(scene.fingerprint(), before);
}

#[test]
fn as_many_backups_stay_as_the_site_says() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{}{BACKUP}", crate::scene::SITE));
    scene.write("password", PASSWORD);
    for _ in 0..4 {
        scene.run(&["backup"]).exits(0);
    }
    let listed = scene.run(&["backup", "--list"]).exits(0);
    assert_eq!(listed.stdout.lines().count(), 2, "{listed}");
    scene.write("site.yaml", format!("{}{}", crate::scene::SITE, BACKUP.replace("last: 2", "last: 1")));
    scene.run(&["prune", "--yes"]).exits(0);
    let listed = scene.run(&["backup", "--list"]).exits(0);
    assert_eq!(listed.stdout.lines().count(), 1, "{listed}");
}

#[test]
fn no_password_lies_where_it_has_no_business() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{}{BACKUP}", crate::scene::SITE));
    scene.write("password", PASSWORD);
    let ran = scene.run(&["deploy", "winter", "-v"]).exits(0);
    assert!(!ran.stdout.contains(PASSWORD) && !ran.stderr.contains(PASSWORD), "{ran}");
    let found = Command::new("grep").args(["-rla", PASSWORD, ".backout"]).current_dir(scene.path("")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

/// Until it is run again, nothing else works on a site that is half one and half the other.
#[cfg(feature = "faults")]
#[test]
fn a_restore_that_is_killed_is_run_again() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{}{BACKUP}", crate::scene::SITE));
    scene.write("password", PASSWORD);
    scene.run(&["deploy", "winter"]).exits(0);
    let faulty = |fault: &str| {
        let words = ["restore", "--yes"];
        Ran::of(&words, scene.command(&words).env("BACKOUT_FAULT", fault).output().unwrap())
    };
    let list = scene.path("points");
    faulty(&format!("count:{}", list.display())).exits(0);
    let (before, points) = (scene.fingerprint(), fs::read_to_string(&list).unwrap());
    let of = |kind: &str| {
        points.lines().enumerate().filter(|(_, line)| line.contains(kind)).map(|(at, _)| at + 1).collect::<Vec<_>>()
    };
    let (exchanges, statements) = (of("Exchange"), of("Statement"));
    let chosen = [exchanges[0], exchanges[exchanges.len() - 1], of("Rename")[0], statements[statements.len() / 2]];
    for point in chosen {
        scene.write("web/more.html", "more");
        scene.sql("UPDATE product SET price = 0");
        let killed = faulty(&format!("crash:{point}"));
        assert_eq!(killed.code, None, "point {point}: {killed}");
        let interrupted = scene.run(&["status"]).exits(0).stdout.contains("a restore was interrupted");
        if interrupted {
            scene.run(&["deploy", "winter"]).exits(4).says("was interrupted: the site is in between");
        }
        assert!(interrupted || point > exchanges[0], "point {point}");
        scene.run(&["restore", "--yes"]).exits(0);
        assert_eq!(scene.fingerprint(), before, "point {point}");
    }
}

/// Every file of the repository (config, keys, index, snapshots, packs of trees and of contents) with a bit flipped at each of
/// many places: `verify --backup` finds it, or all reads the same; a restore refuses it, or brings back the same.
#[test]
fn a_tampered_repository_is_found_out_or_reads_the_same() {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{}{BACKUP}", crate::scene::SITE));
    scene.write("password", PASSWORD);
    // Of more than one piece, which cannot be packed.
    let large: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(2_000_000).collect();
    scene.write("web/large.bin", large);
    scene.run(&["backup"]).exits(0);
    let files = files_below(&scene.path(".backout/backups"));
    let kinds: BTreeSet<String> = files
        .iter()
        .map(|file| file.strip_prefix(scene.path(".backout/backups")).unwrap())
        .map(|file| file.components().next().unwrap().as_os_str().to_string_lossy().into_owned())
        .collect();
    assert_eq!(kinds, ["config", "data", "index", "keys", "snapshots"].map(str::to_owned).into());
    let copied = |ran: &Ran, name: &str| {
        assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("defect"), "{ran}");
        let copy = scene.path(name);
        let print = (ran.code == Some(0)).then(|| {
            fs::rename(copy.join("roots/web"), copy.join("web")).unwrap();
            fs::rename(copy.join("databases/main.sqlite"), copy.join("shop.sqlite")).unwrap();
            crate::scene::fingerprint_at(&copy)
        });
        assert!(print.is_some() || ran.code == Some(4), "{ran}");
        fs::remove_dir_all(copy).ok();
        print
    };
    let before = copied(&scene.run(&["restore", "--into", "copy"]), "copy").expect("a copy");
    let (mut found, mut refused, mut tried) = (0, 0, 0);
    for file in &files {
        let good = fs::read(file).unwrap();
        let mut places: BTreeSet<usize> = [0, good.len() / 2, good.len() - 1].into();
        places.extend((0..self::places()).map(|_| fastrand::usize(..good.len())));
        for at in places {
            let mut bad = good.clone();
            bad[at] ^= 1 << fastrand::u8(..8);
            fs::remove_file(file).unwrap();
            fs::write(file, &bad).unwrap();
            let place = format!("{} byte {at}: {:#x} for {:#x}", file.display(), bad[at], good[at]);
            let checked = scene.run(&["verify", "--backup"]);
            let restored = copied(&scene.run(&["restore", "--into", "copy"]), "copy");
            assert!(!checked.stderr.contains("panicked") && !checked.stderr.contains("defect"), "{place}: {checked}");
            match checked.code {
                Some(3 | 4) => found += 1,
                Some(0) => assert_eq!(restored.as_ref(), Some(&before), "{place}: {checked}"),
                _ => panic!("{place}: {checked}"),
            }
            match restored {
                Some(print) => assert_eq!(print, before, "{place}"),
                None => refused += 1,
            }
            tried += 1;
        }
        fs::remove_file(file).unwrap();
        fs::write(file, &good).unwrap();
    }
    // What a backup that was killed left is nobody's, and takes nothing from those that are there.
    scene.write(&format!(".backout/backups/data/ab/ab{}", "0".repeat(62)), "left");
    scene.run(&["verify", "--backup"]).exits(0).answers("not referenced");
    println!("{tried} bits in {} files: {found} found, {refused} restores refused", files.len());
    assert!(found * 3 >= tried * 2 && refused >= files.len(), "{found} found, {refused} refused of {tried}");
    scene.run(&["verify", "--backup"]).exits(0);
}

/// So many places of each file besides its beginning, its middle and its end.
fn places() -> usize {
    if std::env::var_os("BACKOUT_EVERY").is_some() { 20 } else { 2 }
}

fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// The database's own tools at work on a database.
fn clients(database: &str) -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_client = |pid: &u32| {
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let name = words.split('\0').next().unwrap_or_default();
        let is_tool = ["psql", "mariadb"].iter().any(|tool| name.rsplit('/').next() == Some(tool));
        let here = format!("dbname='{database}'");
        is_tool && words.split('\0').any(|word| word == database || word.contains(&here))
    };
    processes.filter(is_client).collect()
}

/// Killed while the database's own tool fills it: that must not go on beside the restore that is run again.
fn killed_and_run_again(
    site: &TestSite,
    package: &Pkg,
    database: &str,
    is_waiting: impl Fn() -> bool,
    let_go: impl FnOnce(),
) {
    let at = site.write(package);
    let deployed = Fingerprint::of(site);
    let mut tool = Command::new(env!("CARGO_BIN_EXE_backout"));
    let mut tool = tool.args(["restore", "--yes"]).current_dir(site.dir()).spawn().unwrap();
    while !is_waiting() {
        assert!(tool.try_wait().unwrap().is_none(), "it ended before it was killed");
        std::thread::sleep(Duration::from_millis(10));
    }
    let left = clients(database);
    assert!(!left.is_empty());
    run(site, &["deploy", at.to_str().unwrap()]).exits(4).says(&format!("by process {}", tool.id()));
    tool.kill().unwrap();
    tool.wait().unwrap();
    run(site, &["status"]).exits(0).answers("a restore was interrupted");
    // What it started has the database still: nobody waits for that.
    for words in
        [&["deploy", at.to_str().unwrap()][..], &["plan", at.to_str().unwrap()], &["undo"], &["resume"], &["verify"]]
    {
        run(site, words).exits(4).says("was interrupted: the site is in between").says("hint: `backout restore ");
    }
    run(site, &["doctor"]).exits(4).answers("was interrupted: the site is in between; `backout restore ");
    // The tool waits for others still; the restore that comes now ends it first.
    let mut again = Command::new(env!("CARGO_BIN_EXE_backout"));
    let again = again.args(["restore", "--yes"]).current_dir(site.dir()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !clients(database).is_disjoint(&left) {
        assert!(Instant::now() < until, "what the killed restore had started is still at work");
        std::thread::sleep(Duration::from_millis(10));
    }
    let_go();
    let again = again.wait_with_output().unwrap();
    assert_eq!(again.status.code(), Some(0));
    assert!(!deployed.differences(&Fingerprint::of(site)).is_empty());
}

#[test]
fn a_restore_of_postgres_that_is_killed_is_run_again() {
    let script = "CREATE TABLE product (id serial PRIMARY KEY, name text); INSERT INTO product (name) VALUES ('hat');";
    let site = TestSite::builder().postgres("main", postgres::Server::shared(), script).root("web", tree()).build();
    with_backup(&site);
    let before = Fingerprint::of(&site);
    let package = package("INSERT INTO product (name) VALUES ('x'); CREATE TABLE new (a int);");
    run(&site, &["deploy", site.write(&package).to_str().unwrap()]).exits(0);
    let live = site.postgres("main").unwrap();
    let mut locked = live.connect();
    locked.batch_execute("BEGIN; LOCK TABLE product IN SHARE MODE").unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = 'psql'";
    killed_and_run_again(&site, &package, &live.name, || live.psql(waiting).trim() == "1", || drop(locked));
    before.assert_same(&Fingerprint::of(&site), "restored");
}

#[test]
fn a_restore_of_mariadb_that_is_killed_is_run_again() {
    use backout_testkit::mariadb::Queryable as _;
    // Without a key, so that rows which come twice stay twice.
    let script = "CREATE TABLE product (id INT, name TEXT); INSERT INTO product VALUES (1, 'hat'); CREATE TABLE other (a INT PRIMARY KEY);";
    let site = TestSite::builder().mariadb("main", mariadb::Server::shared(), script).root("web", tree()).build();
    with_backup(&site);
    let before = Fingerprint::of(&site);
    let package = package("INSERT INTO other VALUES (1); CREATE TABLE new (a INT PRIMARY KEY);");
    run(&site, &["deploy", site.write(&package).to_str().unwrap()]).exits(0);
    let live = site.mariadb("main").unwrap();
    let mut locked = live.connect();
    locked.query_drop("LOCK TABLES product READ").unwrap();
    let waiting = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND STATE LIKE 'Waiting for table metadata lock'";
    killed_and_run_again(&site, &package, &live.name, || live.script(waiting).trim() == "1", || drop(locked));
    before.assert_same(&Fingerprint::of(&site), "restored");
}
