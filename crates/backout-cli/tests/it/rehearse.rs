//! Rehearsals: on a copy of the site, of which nothing is left afterwards, and never on the site itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use backout_testkit::http::{Answer, HttpServer};

use crate::scene::{Hold, Ran, SITE, Scene};

const BACKUP: &str = "backup:\n  password-file: password\n  repository: kept\n";

fn scene() -> Scene {
    let scene = Scene::with_good_package();
    scene.write("site.yaml", format!("{SITE}{BACKUP}"));
    scene.write("password", "correct horse");
    scene
}

/// Every file of the site, byte for byte and with its times: database, tree, holds and journal. Not the backup repository.
fn bytes(scene: &Scene) -> BTreeMap<String, String> {
    fn walk(top: &Path, dir: &Path, into: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(top).unwrap().display().to_string();
            // What SQLite shares between processes that read; it holds no content.
            // Whoever reads a journal that nobody has open makes an empty log beside it.
            if name == "kept" || name.ends_with("-shm") || name.ends_with("-wal") && meta.len() == 0 {
                continue;
            }
            let mut what = format!("{:o}", meta.permissions().mode());
            if meta.is_dir() {
                walk(top, &path, into);
            } else {
                let content = fs::read(&path).unwrap();
                what.push_str(&format!(" {}.{} {}", meta.mtime(), meta.mtime_nsec(), content.escape_ascii()));
            }
            into.insert(name, what);
        }
    }
    let mut found = BTreeMap::new();
    walk(&scene.path(""), &scene.path(""), &mut found);
    found
}

/// Rehearses, and proves that nothing was written to the site and that no scratch is left.
#[track_caller]
fn rehearse(scene: &Scene, words: &[&str], status: i32) -> Ran {
    // The directories that the tool works in are there from the first time on.
    for directory in ["backup", "rehearsals"] {
        fs::create_dir_all(scene.path(".backout").join(directory)).unwrap();
    }
    fs::set_permissions(scene.path(".backout"), fs::Permissions::from_mode(0o700)).unwrap();
    let before = bytes(scene);
    let ran = scene.run(words).exits(status);
    let after = bytes(scene);
    for (name, was) in &before {
        assert_eq!(after.get(name), Some(was), "{name}\n{ran}");
    }
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{ran}");
    ran
}

#[test]
fn a_package_is_proven_on_a_copy_and_the_site_is_not_written_to() {
    let scene = scene();
    scene.package("autumn", "steps:\n  - sql: a.sql\n  - files: docroot\n");
    scene.write("autumn/a.sql", "UPDATE product SET price = price + 1; CREATE INDEX i ON product (name);");
    scene.write("autumn/docroot/autumn.html", "leaves");
    scene.run(&["deploy", "autumn"]).exits(0);
    scene.write("winter/package.yaml", format!("{}requires: [autumn]\n", crate::scene::GOOD));
    let ran = rehearse(&scene, &["rehearse", "winter"], 0).closes("The site itself was not touched.");
    let ran = ran.answers("before and after are the same").answers("sql/010.sql:2").answers("(2 rows");
    assert!(!ran.stdout.contains("NOT PROVEN"), "{ran}");
    assert!(ran.stdout.contains("done in ") && ran.stdout.contains("undone in "), "{ran}");
    // No backup of the site is lost to it, and none is added.
    assert_eq!(scene.run(&["backup", "--list"]).exits(0).stdout.lines().count(), 1);
    assert_eq!(scene.run(&["log"]).exits(0).stdout.lines().count(), 1);
    // It holds on the site what it promised.
    let before = scene.fingerprint();
    scene.run(&["deploy", "winter"]).exits(0);
    scene.run(&["undo"]).exits(0);
    assert_eq!(scene.fingerprint(), before);
}

#[test]
fn scripts_hear_of_every_change_and_get_the_figures() {
    let scene = scene();
    let ran = rehearse(&scene, &["rehearse", "winter", "--json"], 0);
    let lines: Vec<serde_json::Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let changes: Vec<_> = lines.iter().filter(|line| line["event"] == "rehearsed").collect();
    assert!(changes.len() >= 6 && changes.iter().all(|change| change["proven"] == true), "{ran}");
    assert!(changes.iter().all(|change| change["times"]["deploy_ms"].is_u64()), "{ran}");
    // Statements have times of their own, and what they lock was looked at; files are exchanged together.
    let (sql, files): (Vec<serde_json::Value>, Vec<serde_json::Value>) =
        changes.iter().copied().cloned().partition(|change| change["target"].as_str().unwrap().starts_with("database"));
    for change in &sql {
        assert!(change["took_us"].as_u64().is_some_and(|took| took > 0), "{change}");
        assert!(change["locks"].as_str().unwrap().starts_with("the whole database"), "{change}");
        assert!(change.get("locks_unmeasured").is_none(), "{change}");
    }
    assert!(sql.len() == 3 && files.iter().all(|change| change.get("took_us").is_none()), "{ran}");
    let all_us: u64 = sql.iter().filter_map(|change| change["took_us"].as_u64()).sum();
    assert!(all_us / 1000 <= sql[0]["times"]["deploy_ms"].as_u64().unwrap(), "parts of the step: {ran}");
    assert!(!lines.iter().any(|line| line["event"] == "deployment"), "{ran}");
    let result = lines.last().unwrap();
    assert_eq!((&result["proven"], &result["not_proven"]), (&changes.len().into(), &0.into()), "{ran}");
    assert_eq!(result["rows"], 3, "{ran}");
    assert!(result.get("deployment").is_none(), "{ran}");
}

/// By a bundle it is the same as by a directory; and so is what never was deployed to.
#[test]
fn a_bundle_is_rehearsed_too() {
    let scene = scene();
    scene.run(&["pack", "winter"]).exits(0);
    rehearse(&scene, &["rehearse", "winter-2026.11.1.backout.tar.zst"], 0);
}

#[test]
fn what_cannot_be_rehearsed_is_refused_and_leaves_nothing() {
    let scene = scene();
    scene.write("site.yaml", SITE);
    scene.refused(&["rehearse", "winter"], 2).says("has no `backup:`");
    scene.write("site.yaml", format!("{SITE}{BACKUP}"));
    scene.package("lacks", "requires: [autumn]\nsteps:\n  - delete: [old.html]\n");
    rehearse(&scene, &["rehearse", "lacks"], 4).says("requires `autumn`");
    scene.package("bad", "steps:\n  - sql: a.sql\n");
    scene.write("bad/a.sql", "VACUUM INTO 'elsewhere';\n");
    rehearse(&scene, &["rehearse", "bad"], 4).says("a.sql:1").closes("Nothing was changed.");
    scene.package("final", "steps:\n  - run: [\"true\"]\n    undo: none\n    because: it is so\n");
    rehearse(&scene, &["rehearse", "final"], 4).says("--accept-irreversible");
    scene.package("first", "before:\n  - sql: SELECT 1\n    equals: \"2\"\nsteps:\n  - delete: [old.html]\n");
    rehearse(&scene, &["rehearse", "first"], 4).says("expected 2, got 1");
    rehearse(&scene, &["rehearse", "nowhere"], 2);
    scene.write("password", "");
    rehearse(&scene, &["rehearse", "winter"], 4).says("holds no password");
}

#[test]
fn what_fails_there_does_not_begin_here() {
    let scene = scene();
    let manifest =
        format!("{}  - name: four\n    sql: SELECT count(*) FROM product\n    equals: \"4\"\n", crate::scene::GOOD);
    scene.write("winter/package.yaml", &manifest);
    let closing = "The rehearsal failed; the site itself was not touched.";
    rehearse(&scene, &["rehearse", "winter"], 1).says("expected 4, got 3").says("as before").closes(closing);
    rehearse(&scene, &["deploy", "winter", "--rehearse"], 4).says("expected 4, got 3").closes("Nothing was changed.");
    // An undo that the package brings along, and that does not take it back.
    scene.package("sloppy", "steps:\n  - sql: a.sql\n    undo: a.undo.sql\n");
    scene.write("sloppy/a.sql", "UPDATE product SET price = 1;");
    scene.write("sloppy/a.undo.sql", "UPDATE product SET price = 2;");
    let ran = rehearse(&scene, &["rehearse", "sloppy"], 1).says("database main is not as it was").closes(closing);
    assert!(ran.stdout.contains("NOT PROVEN"), "{ran}");
    // What nothing takes back is told, and is no failure.
    scene.package("final", "steps:\n  - sql: a.sql\n    undo: none\n    because: it is so\n");
    scene.write("final/a.sql", "UPDATE product SET price = 1;");
    let ran = rehearse(&scene, &["rehearse", "final", "--accept-irreversible"], 5);
    ran.answers("nothing takes it back: it is so");
}

#[test]
fn a_deployment_begins_where_its_rehearsal_came_through() {
    let scene = scene();
    scene.run(&["deploy", "winter", "--rehearse"]).exits(0).says("rehearsed: ");
    assert_eq!(scene.run(&["log"]).exits(0).stdout.lines().count(), 1);
    assert_eq!(scene.read("web/index.html"), "<h1>Winter</h1>");
    assert_eq!(fs::read_dir(scene.path(".backout/rehearsals")).unwrap().count(), 0);
}

const REACHING: &str = "package: reaching\nversion: 1\nsteps:\n  - sql: a.sql\n  - run: [sh, -c, \"echo $GREETING > $BACKOUT_ROOT_WEB/greeting; sqlite3 $BACKOUT_DATABASE_MAIN 'UPDATE product SET price = 7'\"]\n    capture: all\n  - run: [sh, -c, \"echo $BACKOUT_ROOT_WEB >> SEEN\"]\n    undo: [\"true\"]\nfinally:\n  - run: [sh, -c, \"echo finally >> SEEN\"]\nafter:\n  - http: URL/page?x=1\n    contains: hello\n  - run: [test, -f, \"{root.web}/greeting\"]\n";

fn reaching(scene: &Scene, url: &str) {
    let seen = scene.path("seen").display().to_string();
    scene.write("reaching/package.yaml", REACHING.replace("SEEN", &seen).replace("URL", url));
    scene.write("reaching/a.sql", "INSERT INTO product VALUES (9, 'sledge', 1);");
}

#[test]
fn what_may_reach_the_live_site_runs_only_as_the_site_allows() {
    let scene = scene();
    let live = HttpServer::start(|_| Answer::new(200, "hello"));
    reaching(&scene, live.url("").trim_end_matches('/'));
    let ran = rehearse(&scene, &["rehearse", "reaching"], 5).answers("1 change proven, 5 not");
    assert!(ran.stdout.contains("names no `environment:`") && ran.stdout.contains("names no `url:`"), "{ran}");
    assert!(!scene.path("seen").exists(), "{ran}");
    assert_eq!(live.asked().len(), 0, "{ran}");

    let there = HttpServer::start(|asked| Answer::new(200, if asked.path == "/page?x=1" { "hello" } else { "no" }));
    let scratch =
        format!("scratch:\n  environment: {{GREETING: good day}}\n  files: {{web: over}}\n  url: {}\n", there.url(""));
    scene.write("site.yaml", format!("{SITE}{BACKUP}{scratch}"));
    scene.write("over/settings.php", "scratch");
    let ran = scene.run(&["rehearse", "reaching"]).exits(0);
    let seen = scene.read("seen");
    assert!(seen.contains(".backout/rehearsals/") && seen.contains("finally"), "{seen}");
    assert_eq!((live.asked().len(), there.asked().len()), (0, 1), "{ran}");
    assert!(!scene.path("web/greeting").exists() && !scene.path("web/settings.php").exists(), "{ran}");
    fs::remove_file(scene.path("seen")).unwrap();
}

#[test]
fn a_copy_is_laid_where_the_site_says_and_goes_from_there() {
    let scene = scene();
    scene.write(
        "site.yaml",
        format!("{SITE}{BACKUP}scratch:\n  roots: {{web: {{path: served}}}}\n  environment: {{}}\n"),
    );
    scene.package("looks", "steps:\n  - files: docroot\n  - run: [sh, -c, \"cat \\\"$BACKOUT_ROOT_WEB/index.html\\\" ../served/index.html > ../seen\"]\n    undo: [\"true\"]\n");
    scene.write("looks/docroot/index.html", "new");
    scene.run(&["rehearse", "looks"]).exits(0);
    assert_eq!(scene.read("seen"), "newnew");
    assert!(!scene.path("served").exists());
    scene.write("served/mine", "not to be lost");
    scene.refused(&["rehearse", "looks"], 4).says("is not empty");
    assert_eq!(scene.read("served/mine"), "not to be lost");
}

/// Killed while a command of it runs: the next command that works on the site ends that, and removes the scratch.
#[test]
fn the_scratch_of_a_rehearsal_that_was_killed_goes_with_the_next_command() {
    for next in [&["resume"][..], &["deploy", "winter"], &["rehearse", "winter"]] {
        let scene = scene();
        scene.write(
            "site.yaml",
            format!("{SITE}{BACKUP}scratch:\n  roots: {{web: {{path: served}}}}\n  environment: {{}}\n"),
        );
        let before = scene.fingerprint();
        let hold = Hold::new(&scene);
        scene.package("slow", &format!("steps:\n  - delete: [old.html]\n{}", hold.step()));
        let mut child = scene.spawn(&["rehearse", "slow"]);
        hold.wait();
        assert!(scene.path("served/index.html").exists());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(scene.fingerprint(), before);
        assert_eq!(fs::read_dir(scene.path(".backout/rehearsals")).unwrap().count(), 1);
        scene.run(next).exits(0).says("rehearsal that was interrupted");
        assert_eq!(fs::read_dir(scene.path(".backout/rehearsals")).unwrap().count(), 0, "{next:?}");
        assert!(!scene.path("served").exists(), "{next:?}");
        let left = fs::read_dir(scene.path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(left.filter(|name| name.contains("-rehearsal-")).count(), 0, "{next:?}");
    }
}

/// Killed at every twentieth durable act, and at none is anything of the site touched.
#[cfg(feature = "faults")]
#[test]
fn a_rehearsal_that_is_killed_anywhere_leaves_the_site_alone() {
    let scene = scene();
    scene.run(&["backup"]).exits(0);
    let faulty = |fault: &str| {
        let words = ["rehearse", "winter"];
        Ran::of(&words, scene.command(&words).env("BACKOUT_FAULT", format!("nosync,{fault}")).output().unwrap())
    };
    let list = scene.path("points");
    faulty(&format!("count:{}", list.display())).exits(0);
    let points = fs::read_to_string(&list).unwrap().lines().count();
    fs::remove_file(&list).unwrap();
    assert!(points > 40, "{points}");
    for point in (1..=points).step_by(20) {
        let before = bytes(&scene);
        let killed = faulty(&format!("crash:{point}"));
        assert_eq!(killed.code, None, "point {point}: {killed}");
        let after = bytes(&scene);
        let differ: Vec<_> = before.iter().filter(|(name, was)| after.get(*name) != Some(was)).collect();
        assert!(differ.is_empty(), "point {point}: {differ:?}");
        scene.run(&["resume"]).exits(0).says("rehearsal that was interrupted");
        assert_eq!(fs::read_dir(scene.path(".backout/rehearsals")).unwrap().count(), 0, "point {point}");
    }
}
