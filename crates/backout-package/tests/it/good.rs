//! What is well written is read as the contract says.

use std::time::Duration;

use backout_package::check::CheckKind;
use backout_package::package::Package;
use backout_package::site::Site;
use backout_package::step::{OnFailure, RunUndo, SqlUndo, StepKind};

use crate::fixture::{Dir, manifest, site};

const FULL: &str = r#"
package: winter-catalogue
version: 1.10
description: New catalogue and its pages
requires: [autumn-catalogue]
before:
  - name: schema is 41
    sql: SELECT value FROM settings WHERE name = 'schema'
    database: main
    equals: 041
steps:
  - sql: ./sql/a.sql
    database: main
  - sql: sql/a.sql
    undo: sql/a.undo.sql
  - sql: sql/a.sql
    undo: none
    because: it only counts
  - files: docroot
    root: web
    exact: true
  - delete: [old/page.php, ./old//theme/]
    root: web
    missing: ok
  - run: [bin/run, 0x10, 1.10, "true", yes, ~x]
    undo: [systemctl, reload, shop]
    timeout: 1h30m
  - run: [mail, "all@example.org"]
    undo: none
    because: a mail is out when it is out
  - package: content
    retries: {attempts: 3, wait: 10s, backoff: 2}
    on-failure: continue
  - package: more/media
finally:
  - run: [cache, rebuild]
    timeout: 500ms
after:
  - sql: |
      SELECT count(*)
      FROM product
    equals: 0
  - file: index.php
    root: web
    sha256: E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855
    within: 30s
  - file: gone.php
    exists: false
  - file: there.php
  - run: [php, -l, "{root.web}/index.php"]
"#;

fn full() -> Dir {
    let dir = manifest(FULL);
    dir.write("content/package.yaml", "package: content\nversion: '2'\nsteps:\n  - sql: x.sql\n  - files: tree\n");
    dir.write("content/x.sql", "");
    dir.write("content/tree/", "");
    dir.write(
        "more/media/package.yaml",
        "package: media\nversion: 3\natomic: false\nrequires: [content]\nsteps:\n  - delete: [a]\n",
    );
    dir
}

#[test]
fn every_key_of_a_package_is_read() {
    let dir = full();
    let package = Package::load(&dir.path()).unwrap();
    assert_eq!((package.name.as_str(), package.version.as_str()), ("winter-catalogue", "1.10"));
    assert_eq!(package.requires, ["autumn-catalogue"]);
    assert!(package.atomic);
    assert_eq!(package.before[0].name, "schema is 41");
    let expected = CheckKind::Sql {
        query: "SELECT value FROM settings WHERE name = 'schema'".into(),
        database: Some("main".into()),
        equals: "041".into(),
    };
    assert_eq!(package.before[0].kind, expected);

    let lines: Vec<u32> = package.steps.iter().map(|s| s.line).collect();
    assert_eq!(lines, [12, 14, 16, 19, 22, 25, 28, 31, 34]);
    let StepKind::Sql(sql) = &package.steps[0].kind else { panic!("sql") };
    assert_eq!((sql.shown.as_str(), &sql.path), ("sql/a.sql", &dir.path().join("sql/a.sql")));
    assert_eq!(sql.undo, SqlUndo::Captured);
    let StepKind::Sql(sql) = &package.steps[1].kind else { panic!("sql") };
    let script = SqlUndo::Script { path: dir.path().join("sql/a.undo.sql"), shown: "sql/a.undo.sql".into() };
    assert_eq!(sql.undo, script);
    let StepKind::Sql(sql) = &package.steps[2].kind else { panic!("sql") };
    assert_eq!(sql.undo, SqlUndo::Never { because: "it only counts".into() });
    let StepKind::Files(files) = &package.steps[3].kind else { panic!("files") };
    assert_eq!((&files.source, files.exact, files.root.as_deref()), (&dir.path().join("docroot"), true, Some("web")));
    let StepKind::Delete(delete) = &package.steps[4].kind else { panic!("delete") };
    assert_eq!((delete.paths.as_slice(), delete.missing_ok), (&["old/page.php".into(), "old/theme/".into()][..], true));
    let StepKind::Run(run) = &package.steps[5].kind else { panic!("run") };
    assert_eq!(run.command.argv, ["bin/run", "0x10", "1.10", "true", "yes", "~x"]);
    assert_eq!(run.command.timeout, Some(Duration::from_secs(5400)));
    assert_eq!(run.undo, RunUndo::Command(vec!["systemctl".into(), "reload".into(), "shop".into()]));
    let StepKind::Run(run) = &package.steps[6].kind else { panic!("run") };
    assert_eq!(run.undo, RunUndo::Never { because: "a mail is out when it is out".into() });

    let children: Vec<_> = package.children().collect();
    assert_eq!(children.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["content", "media"]);
    assert_eq!((children[0].retries.attempts, children[0].retries.wait), (3, Duration::from_secs(10)));
    assert_eq!((children[0].retries.backoff, children[0].on_failure), (2.0, OnFailure::Continue));
    assert_eq!((children[1].retries.attempts, children[1].on_failure), (1, OnFailure::Fail));
    assert!(!children[1].package.atomic);
    assert_eq!(children[1].package.file, dir.path().join("more/media/package.yaml"));
    let StepKind::Sql(sql) = &children[0].package.steps[0].kind else { panic!("sql") };
    assert_eq!((sql.shown.as_str(), &sql.path), ("content/x.sql", &dir.path().join("content/x.sql")));

    assert_eq!((package.finally[0].line, package.finally[0].timeout), (36, Some(Duration::from_millis(500))));
    let names: Vec<_> = package.after.iter().map(|c| c.name.as_str()).collect();
    let derived = [
        "SELECT count(*) FROM product",
        "file index.php",
        "file gone.php",
        "file there.php",
        "php -l {root.web}/index.php",
    ];
    assert_eq!(names, derived);
    assert_eq!(package.after[1].within, Some(Duration::from_secs(30)));
    let CheckKind::File { exists, sha256, .. } = &package.after[1].kind else { panic!("file") };
    assert_eq!((*exists, sha256.as_deref().map(|s| &s[..4])), (None, Some("e3b0")));
    let CheckKind::File { exists, .. } = &package.after[3].kind else { panic!("file") };
    assert_eq!(*exists, Some(true));
}

#[test]
fn a_version_stays_as_written() {
    for (written, read) in [
        ("2026.11", "2026.11"),
        ("1.10", "1.10"),
        ("0x10", "0x10"),
        ("1e3", "1e3"),
        ("'1'", "1"),
        ("007", "007"),
        ("2026-11-01", "2026-11-01"),
    ] {
        let dir = manifest(&format!("package: p\nversion: {written}\nsteps: [{{sql: sql/a.sql}}]\n"));
        assert_eq!(Package::load(&dir.path()).unwrap().version, read, "{written}");
    }
}

#[test]
fn anchors_and_keys_without_values_are_fine() {
    let text = "package: p\nversion: 1\ndescription:\nrequires:\nbefore:\nfinally:\nsteps:\n  - run: &c [true]\n    undo: *c\n";
    let package = Package::load(&manifest(text).path()).unwrap();
    let StepKind::Run(run) = &package.steps[0].kind else { panic!("run") };
    assert_eq!(run.undo, RunUndo::Command(vec!["true".into()]));
    assert!(package.finally.is_empty() && package.description.is_none());
}

#[test]
fn the_digest_sees_content_modes_names_and_links_but_no_times() {
    let digest = |change: &dyn Fn(&Dir)| {
        let dir = full();
        change(&dir);
        Package::load(&dir.path()).unwrap().digest().unwrap()
    };
    let plain = digest(&|_| ());
    assert_eq!(plain, digest(&|d| d.write("sql/a.sql", "SELECT 1;")));
    let link = |target: &'static str| {
        move |d: &Dir| std::os::unix::fs::symlink(target, d.path().join("docroot/link")).unwrap()
    };
    let others = [
        digest(&|d| d.write("sql/a.sql", "SELECT 9;")),
        digest(&|d| d.mode("sql/a.sql", 0o600)),
        digest(&|d| d.write("docroot/new", "")),
        digest(&|d| d.write("docroot/empty/", "")),
        digest(&link("a")),
        digest(&link("b")),
    ];
    for (i, one) in others.iter().enumerate() {
        assert_ne!(*one, plain, "{i}");
        assert!(others[i + 1..].iter().all(|two| two != one), "{i}");
    }
}

#[test]
fn every_key_of_a_site_is_read() {
    let dir = Dir::with(&[(
        "shop/site.yaml",
        "site: shop\ndatabases:\n  main: {url: \"sqlite:data/${SECRET}.db\"}\n  log: {url: sqlite:/var/log.db}\n\
         roots:\n  web:\n    path: ../www\n    keep: [sites/default/files, ./up//loads/]\n  cdn: {path: /srv/cdn}\n\
         state: ../state\nmaintenance: {enter: [touch, flag], leave: [rm, flag]}\n",
    )]);
    let file = dir.path().join("shop/site.yaml");
    let site = Site::load_with(&file, &|name| (name == "SECRET").then(|| "a%20b".into())).unwrap();
    assert_eq!((site.name.as_str(), &site.file), ("shop", &file));
    let databases: Vec<_> = site.databases.iter().map(|d| (d.name.as_str(), d.url.without_password())).collect();
    let main = dir.path().join("shop/data/a%20b.db").display().to_string();
    assert_eq!(databases, [("main", main), ("log", "/var/log.db".to_owned())]);
    assert_eq!(site.roots[0].path, dir.path().join("shop/../www"));
    assert_eq!(site.roots[0].keep, ["sites/default/files", "up/loads/"]);
    assert_eq!(site.roots[1].name, "cdn");
    assert_eq!(site.state, dir.path().join("shop/../state"));
    assert_eq!(site.maintenance.unwrap().leave, ["rm", "flag"]);
}

#[test]
fn the_state_lies_beside_the_site_unless_it_says_otherwise() {
    let dir = Dir::with(&[("site.yaml", "site: shop\nroots: {web: {path: web}}\n"), ("web/deep/", "")]);
    let loaded = site(&dir).unwrap();
    assert_eq!(loaded.state, dir.path().join(".backout"));
    assert_eq!(Site::find(&dir.path().join("web/deep")).unwrap(), dir.path().join("site.yaml"));
}

#[test]
fn a_secret_is_in_no_debug_text() {
    let dir = Dir::with(&[(
        "site.yaml",
        "site: shop\ndatabases: {main: {url: \"postgresql://u:xyz@h/d\"}, file: {url: \"sqlite:x\"}}\n",
    )]);
    let loaded = site(&dir).unwrap();
    let secret = loaded.databases[0].url.secret().unwrap();
    assert!(secret.expose().contains("xyz"));
    assert!(!format!("{secret:?}{secret}{loaded:?}").contains("xyz"));
    assert!(loaded.databases[1].url.secret().is_none());
}
