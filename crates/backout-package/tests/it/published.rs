//! What is published stays current: the schemas, the templates, the golden bundle.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use backout_package::bundle;
use backout_package::package::Package;
use backout_package::schema;
use backout_package::site::Site;
use backout_package::template::{NewSite, new_package, site_yaml, sqlite_url};

use crate::fixture::Dir;

/// Of the golden bundle's tree: another digest for the same tree would break every record that names one.
const GOLDEN_DIGEST: &str = "8103884bf8b4f4dcae862bd581b52ad50abfac3d224d24457bb75d232d453828";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Set BACKOUT_WRITE_SCHEMAS to write them anew.
#[test]
fn the_published_schemas_are_those_of_the_types() {
    for (name, schema) in [("package", schema::package_schema()), ("site", schema::site_schema())] {
        let path = repository().join(format!("docs/schema/{name}.schema.json"));
        if std::env::var_os("BACKOUT_WRITE_SCHEMAS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &schema).unwrap();
        }
        let published = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(published, schema, "{} is old: run this test with BACKOUT_WRITE_SCHEMAS=1", path.display());
    }
}

#[test]
fn the_schemas_know_the_keys_and_no_others() {
    let package = schema::package_schema();
    assert!(package.contains("\"on-failure\"") && package.contains("\"additionalProperties\": false"));
}

#[test]
fn a_new_package_loads_also_with_its_comments_taken_away() {
    let dir = Dir::new();
    for file in new_package("winter").unwrap() {
        dir.write(file.path, &file.content);
    }
    let package = Package::load(&dir.path()).unwrap();
    assert_eq!((package.name.as_str(), package.version.as_str()), ("winter", "0.1.0"));

    // Every commented key is right, too: with all of them the package loads where what they name exists.
    let text = fs::read_to_string(dir.path().join("package.yaml")).unwrap();
    let mut all = String::new();
    for line in text.lines() {
        let bare = line.trim_start();
        let indent = &line[..line.len() - bare.len()];
        let key = bare.trim_start_matches("# ").trim_start();
        let is_key = key.starts_with("- ")
            || key
                .split(' ')
                .next()
                .is_some_and(|w| w.ends_with(':') && w.starts_with(|c: char| c.is_ascii_lowercase()));
        match bare.strip_prefix("# ") {
            Some(rest) if is_key => all += &format!("{indent}{rest}\n"),
            Some(_) => {}
            None => all += &format!("{line}\n"),
        }
    }
    dir.write("package.yaml", &all);
    dir.write("docroot/", "");
    dir.write("content/package.yaml", "package: content\nversion: 1\nsteps: [{delete: [x]}]\n");
    let package = Package::load(&dir.path()).unwrap();
    assert_eq!((package.steps.len(), package.before.len(), package.after.len(), package.finally.len()), (5, 1, 3, 1));
    assert!(new_package("a/b").is_err());
}

#[test]
fn a_new_site_loads_whatever_its_paths_hold() {
    for (database, root, state) in [
        (Some("shop.sqlite"), None, None),
        (None, Some("htdocs"), None),
        (Some("a \"b\" #%?${X}.db"), Some("htdocs: \\n#"), Some("../s\nt")),
    ] {
        let new = NewSite {
            name: "shop".into(),
            url: database.map(sqlite_url),
            root: root.map(str::to_owned),
            state: state.map(str::to_owned),
            password_file: state.map(str::to_owned).map(|state| format!("{state}.password")),
            keep: state.map(|_| "a: [\"\n#".to_owned()).into_iter().collect(),
            ..NewSite::default()
        };
        let dir = Dir::with(&[("site/site.yaml", &site_yaml(&new).unwrap())]);
        let site = Site::load(&dir.path().join("site/site.yaml")).unwrap();
        let base = dir.path().join("site");
        let urls: Vec<_> = site.databases.iter().map(|d| d.url.without_password()).collect();
        assert_eq!(urls, database.map(|d| base.join(d).display().to_string()).into_iter().collect::<Vec<_>>());
        assert_eq!(site.roots.first().map(|r| r.path.clone()), root.map(|r| base.join(r)));
        assert_eq!(site.state, base.join(state.unwrap_or(".backout")));
    }
    assert!(site_yaml(&NewSite { name: "Shop".into(), ..NewSite::default() }).is_err());
}

/// What was packed into the golden bundle.
fn golden_package() -> Dir {
    let dir = Dir::with(&[
        (
            "package.yaml",
            "package: golden\nversion: 1.10\nsteps:\n  - sql: a.sql\n  - files: tree\n  - package: content\n    on-failure: continue\n",
        ),
        ("a.sql", "INSERT INTO t VALUES (1);\n"),
        ("tree/page.php", "<?php echo 1;\n"),
        ("tree/empty/", ""),
        ("content/package.yaml", "package: content\nversion: 2\nsteps: [{delete: [old/]}]\n"),
    ]);
    let tree = dir.path().join("tree");
    fs::write(tree.join(OsStr::from_bytes(b"latin\xe9")), "x").unwrap();
    fs::write(tree.join("n".repeat(150)), "long").unwrap();
    symlink("page.php", tree.join("link")).unwrap();
    fs::hard_link(tree.join("page.php"), tree.join("page-again.php")).unwrap();
    dir.mode("tree/page.php", 0o751);
    dir.mode("tree/empty", 0o2770);
    dir.mode("a.sql", 0o644);
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    fs::File::open(tree.join("page.php")).unwrap().set_times(fs::FileTimes::new().set_modified(old)).unwrap();
    dir
}

/// Packed once by the first version and never changed: later versions must still read it. Where the format gets a new
/// version, add a second file; `golden_package` with BACKOUT_WRITE_GOLDEN set made this one.
#[test]
fn the_golden_bundle_is_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let file = golden.join("golden-1.10.backout.tar.zst");
    if std::env::var_os("BACKOUT_WRITE_GOLDEN").is_some() && !file.exists() {
        fs::create_dir_all(&golden).unwrap();
        bundle::pack(&golden_package().path(), &golden).unwrap();
    }
    let dir = Dir::new();
    let into = dir.path().join("into");
    let package = bundle::open(&file, &into).unwrap();
    assert_eq!((package.name.as_str(), package.version.as_str()), ("golden", "1.10"));
    let inspection = bundle::inspect(&file).unwrap();
    assert_eq!(
        (inspection.steps.len(), inspection.children.len(), inspection.files, inspection.bytes),
        (3, 1, 11, 227)
    );
    assert_eq!(inspection.digest, GOLDEN_DIGEST);

    let page = fs::metadata(into.join("tree/page.php")).unwrap();
    assert_eq!((page.mode() & 0o7777, page.nlink(), page.mtime()), (0o751, 2, 1_000_000_000));
    assert_eq!(page.mtime_nsec(), 123_456_789);
    assert_eq!(fs::metadata(into.join("tree/empty")).unwrap().mode() & 0o7777, 0o2770);
    assert_eq!(fs::read_link(into.join("tree/link")).unwrap(), Path::new("page.php"));
    assert_eq!(fs::read(into.join("tree").join("n".repeat(150))).unwrap(), b"long");
    assert_eq!(fs::read(into.join("tree").join(OsStr::from_bytes(b"latin\xe9"))).unwrap(), b"x");
}
