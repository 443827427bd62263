//! A snapshot stands by itself: what happens to the package afterwards does not matter.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use backout_package::package::Package;
use backout_package::snapshot::{Snapshot, altered, snapshot};
use backout_package::step::{SqlUndo, StepKind};

use crate::fixture::{Dir, package};

fn rich() -> Dir {
    let dir = package(
        "  - sql: sql/a.sql\n    undo: sql/a.undo.sql\n  - files: docroot\n  - sql: docroot/in/x.sql\n  - run: [bin/run]\n    undo: [docroot/tool]\n  - package: content\n  - package: docroot/nested\n",
    );
    dir.write("docroot/in/x.sql", "SELECT 3;");
    dir.write("docroot/in/large", "left out");
    dir.write("docroot/tool", "#!/bin/sh\n");
    dir.mode("docroot/tool", 0o755);
    dir.write("content/package.yaml", "package: content\nversion: 2\nsteps:\n  - files: tree\n");
    dir.write("content/tree/x", "left out");
    dir.write(
        "docroot/nested/package.yaml",
        "package: nested\nversion: 2\nsteps:\n  - run: [sh, helper.sh]\n    undo: none\n    because: x\n",
    );
    dir.write("docroot/nested/helper.sh", "kept");
    symlink("a.sql", dir.path().join("sql/link")).unwrap();
    dir
}

#[test]
fn a_snapshot_holds_all_but_the_files_to_be_laid_over() {
    let (dir, state) = (rich(), Dir::new());
    let package = Package::load(&dir.path()).unwrap();
    let into = state.path().join("snapshot");
    let Snapshot { package: copy, digest } = snapshot(&package, &into).unwrap();

    assert!(copy.dir.starts_with(&into));
    assert_eq!((&copy.name, &copy.version, &copy.file), (&package.name, &package.version, &package.file));
    assert_eq!(copy.steps.len(), package.steps.len());
    for path in ["sql/a.sql", "sql/link", "bin/run", "docroot/in/x.sql", "docroot/tool", "docroot/nested/helper.sh"] {
        assert!(copy.dir.join(path).exists(), "{path}");
    }
    for path in ["docroot/index.php", "docroot/in/large", "content/tree"] {
        assert!(!copy.dir.join(path).exists(), "{path}");
    }
    assert!(copy.dir.join("sql/link").is_symlink());
    let mode = |base: &std::path::Path| fs::metadata(base.join("bin/run")).unwrap().mode();
    assert_eq!(mode(&copy.dir), mode(&dir.path()));
    assert_eq!(fs::metadata(&into).unwrap().mode() & 0o777, 0o700);

    let StepKind::Files(files) = &copy.steps[1].kind else { panic!("files") };
    assert_eq!(files.source, dir.path().join("docroot"));
    let StepKind::Files(files) = &copy.children().next().unwrap().package.steps[0].kind else { panic!("files") };
    assert_eq!(files.source, dir.path().join("content/tree"));

    // Removed, and still whole.
    fs::remove_dir_all(dir.path()).unwrap();
    let StepKind::Sql(sql) = &copy.steps[0].kind else { panic!("sql") };
    let SqlUndo::Script { path, .. } = &sql.undo else { panic!("script") };
    assert_eq!(fs::read_to_string(&sql.path).unwrap() + &fs::read_to_string(path).unwrap(), "SELECT 1;SELECT 2;");
    assert_eq!(altered(&into, &digest).unwrap(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_snapshot_of_a_snapshot_is_one() {
    let (dir, state) = (rich(), Dir::new());
    let first = snapshot(&Package::load(&dir.path()).unwrap(), &state.path().join("a")).unwrap().package;
    let second = snapshot(&first, &state.path().join("b")).unwrap().package;
    assert_eq!(first.children().count(), second.children().count());
    assert!(second.dir.join("docroot/in/x.sql").exists());
}

#[test]
fn an_altered_snapshot_is_an_error() {
    let (dir, state) = (rich(), Dir::new());
    let package = Package::load(&dir.path()).unwrap();
    let into = state.path().join("a");
    let digest = snapshot(&package, &into).unwrap().digest;
    assert!(snapshot(&package, &into).is_err());
    let file = |path: &str| into.join("package").join(path);
    let found = || altered(&into, &digest).unwrap();
    // What a command leaves beside is no matter.
    fs::write(file("beside"), "").unwrap();
    assert!(found().is_empty());
    for path in ["sql/a.sql", "docroot/nested/helper.sh", "package.yaml"] {
        let was = fs::read(file(path)).unwrap();
        fs::write(file(path), "altered").unwrap();
        assert_eq!(found(), [file(path)]);
        fs::remove_file(file(path)).unwrap();
        assert_eq!(found(), [file(path)]);
        fs::write(file(path), was).unwrap();
        assert!(found().is_empty());
    }
    fs::remove_file(file("sql/link")).unwrap();
    symlink("b.sql", file("sql/link")).unwrap();
    assert_eq!(found(), [file("sql/link")]);
    fs::write(into.join("snapshot.json"), r#"{"format": 1, "file": "x", "sources": {}}"#).unwrap();
    assert!(altered(&into, &digest).unwrap_err().to_string().contains("not what was written"));
    assert!(altered(&state.path().join("none"), &digest).is_err());
}
