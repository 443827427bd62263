//! Every way to write a site wrong: the error has file, line, column and the way out.

use std::os::unix::fs::symlink;

use backout_package::site::Site;

use crate::fixture::{Dir, site, told};

fn error(dir: &Dir) -> String {
    let error = site(dir).expect_err("refused");
    assert!(error.is_usage());
    let text = told(&dir.path(), &error);
    assert!(!text.contains("hunter2"), "{text}");
    text
}

#[test]
fn bad_sites_are_shown_at_their_place() {
    let db = "databases: {main: {url: sqlite:x.db}}";
    for (text, expected) in [
        (format!("site: shop\nscratch: {{root: {{}}}}\n{db}\n"), "2:11: unknown key `root`; did you mean `roots`?"),
        (format!("site: shop\nscratch: {{files: {{web: x}}}}\n{db}\n"), "2:19: the site has no root `web`"),
        (
            format!("site: shop\nscratch: {{databases: {{main: {{url: sqlite:y}}}}}}\n{db}\n"),
            "2:35: the scratch of an SQLite database is always a copy",
        ),
        (
            "site: shop\nscratch: {databases: {main: {url: 'mysql://u:hunter2@h/d'}}}\ndatabases: {main: {url: 'postgres://u@h/d'}}\n".to_owned(),
            "2:35: the database `main` of the site is of another engine",
        ),
        (
            "site: shop\nscratch: {databases: {main: {url: 'postgres://u:hunter2@h/d'}}}\ndatabases: {main: {url: 'postgres://v@h/d'}}\n".to_owned(),
            "2:35: this is the database `main`, and a rehearsal overwrites",
        ),
        (
            "site: shop\nscratch: {roots: {web: {path: web/x}}}\nroots: {web: {path: web}}\n".to_owned(),
            "2:31: a rehearsal empties its scratch",
        ),
        (format!("site: shop\nscratch: {{environment: {{A-B: x}}}}\n{db}\n"), "2:25: `A-B` is not the name of a variable"),
        (format!("site: shop\nscratch: {{url: 'http://h/page'}}\n{db}\n"), "2:16: this is scheme, host and port alone"),
        (format!("site: shop\nbackup:\n  repository: /x\n{db}\n"), "3:3: the key `password-file` is missing"),
        (format!("site: shop\nbackup: {{password-file: p, keep: {{}}}}\n{db}\n"), "2:34: `keep` has at least one of"),
        (
            format!("site: shop\nbackup: {{repository: r, password-file: r/p}}\n{db}\n"),
            "2:40: the password lies in the repository that it opens",
        ),
        (
            "site: shop\nbackup: {repository: web/r, password-file: p}\nroots: {web: {path: web}}\n".to_owned(),
            "2:22: the backup repository lies in the root `web`",
        ),
        (
            "site: shop\nbackup: {password-file: web/p}\nroots: {web: {path: web}}\n".to_owned(),
            "2:25: the backup's password lies in the root `web`",
        ),
        (format!("site: shop\nretention: {{}}\n{db}\n"), "2:12: a retention has `keep`, `days` or both"),
        (format!("site: shop\nalerts:\n  - email: a@b\n{db}\n"), "3:12: a mail needs a server that takes it"),
        (
            format!("site: shop\nalerts:\n  - email: ops\n    smtp: smtp://h\n{db}\n"),
            "3:12: `ops` is not a mail address",
        ),
        (
            format!("site: shop\nalerts:\n  - email: a@b\n    smtp: h:25\n{db}\n"),
            "4:11: this is not the URL of a mail server",
        ),
        (format!("site: shop\nalerts:\n  - webhook: h\n{db}\n"), "3:14: this is not the URL of a webhook"),
        (
            format!("site: shop\nalerts:\n  - webhook: http://h/\n    smtp: x\n{db}\n"),
            "4:11: `smtp` and `from` belong to `email`",
        ),
        (
            format!("site: shop\nalerts:\n  - webhook: http://h/\n    email: a@b\n{db}\n"),
            "3:5: an alert has exactly one of",
        ),
        (format!("site: shop\nalerts:\n  - {{}}\n{db}\n"), "3:5: an alert has exactly one of"),
        (format!("site: shop\ntrust: {{}}\n{db}\n"), "2:8: the key `keys` is missing"),
        (format!("site: shop\nscratch: 1\n{db}\n"), "2:10: expected a mapping"),
        ("site: shop\ndatabse: {}\n".into(), "2:1: unknown key `databse`; did you mean `databases`?"),
        ("site: shop\nroots: {web: {paths: x}}\n".into(), "2:15: unknown key `paths`; did you mean `path`?"),
        ("site: shop\nroots: {web: {}}\n".into(), "2:14: the key `path` is missing"),
        ("site: shop\nroots: {web: www}\n".into(), "2:14: expected a mapping with keys such as `path`, `keep`"),
        ("site: shop\n".into(), "1:1: the site has neither a database nor a root"),
        ("site: shop\nroots:\ndatabases: {}\n".into(), "1:1: the site has neither a database nor a root"),
        (format!("{db}\n"), "1:1: the key `site` is missing"),
        (format!("site: Shop\n{db}\n"), "1:7: `Shop` can't be the name of a site: lowercase letters"),
        (format!("site: a/b\n{db}\n"), "1:7: `a/b` can't be the name of a site"),
        (format!("site: ''\n{db}\n"), "1:7: the name of the site is empty"),
        ("site: s\ndatabases: {Main: {url: sqlite:x}}\n".into(), "2:13: `Main` can't be the name of a database"),
        ("site: s\nroots: {a.b: {path: x}}\n".into(), "2:9: `a.b` can't be the name of a root"),
        ("site: s\nroots: {a: {path: x}, a: {path: y}}\n".into(), "2:23: the key `a` is given twice, first on line 2"),
        (
            "site: s\nroots: {a-b: {path: x}, a_b: {path: y}}\n".into(),
            "2:25: `a-b` and `a_b` are the same name to a command's environment",
        ),
        (
            "site: s\ndatabases: {a: {url: sqlite:x}, b: {url: sqlite:./x}}\n".into(),
            "2:42: the databases `a` and `b` are the same file",
        ),
        (
            "site: s\ndatabases:\n  a: {url: \"postgres://u:${SECRET}@x@h/d\"}\n".into(),
            "3:12: a PostgreSQL URL has one `@` [in the password write %40 for `@`",
        ),
        (
            "site: s\ndatabases:\n  a: {url: \"mysql://u:hunter2@h\"}\n".into(),
            "3:12: a MariaDB URL names its database [write mariadb://USER@HOST/DATABASE]",
        ),
        (
            "site: s\ndatabases:\n  a: {url: \"mariadb://u:hunter2@h/d?sslmode=x\"}\n".into(),
            "3:12: `sslmode` is no parameter of a MariaDB URL [did you mean `ssl-mode`?]",
        ),
        ("site: s\ndatabases:\n  a: {url: \"u:hunter2@h/d\"}\n".into(), "3:12: unknown kind of database `u:`"),
        (
            "site: s\ndatabases:\n  a: {url: x.db}\n".into(),
            "3:12: this is not a database URL [write sqlite:PATH, postgresql://USER@HOST/DATABASE or mariadb://USER@HOST/DATABASE]",
        ),
        (
            "site: s\ndatabases:\n  a: {url: \"sqlite:${MISSING}/x\"}\n".into(),
            "3:12: the environment has no `MISSING` [set it: MISSING=… backout …]",
        ),
        ("site: s\nroots: {a: {path: ''}}\n".into(), "2:19: this is not a path"),
        ("site: s\nroots: {a: {path: ~/www}}\n".into(), "2:19: `~` is not filled in here; write the whole path"),
        ("site: s\nroots: {a: {path: site.yaml}}\n".into(), "2:19: the root `a` is not a directory"),
        ("site: s\nroots: {a: {path: x, keep: [../y]}}\n".into(), "2:29: `../y` leads outside with `..`"),
        ("site: s\nroots: {a: {path: x, keep: [/y]}}\n".into(), "2:29: `/y` is an absolute path"),
        ("site: s\nroots: {a: {path: x}, b: {path: x/y}}\n".into(), "2:33: the roots `a` and `b` lie one in the other"),
        ("site: s\nroots: {a: {path: x/y}, b: {path: x}}\n".into(), "2:35: the roots `a` and `b` lie one in the other"),
        (
            "site: s\nroots: {a: {path: x}, b: {path: y/../x/}}\n".into(),
            "2:33: the roots `a` and `b` lie one in the other",
        ),
        (
            "site: s\nroots: {a: {path: x}}\nstate: x/state\n".into(),
            "3:8: the state directory x/state lies in the root `a`, where it could be served [give a `state:` outside",
        ),
        ("site: s\nroots: {a: {path: .}}\n".into(), "1:1: the state directory .backout lies in the root `a`"),
        ("site: s\nroots: {a: {path: x}}\nstate: .\n".into(), "3:8: the root `a` lies in the state directory"),
        (
            "site: s\nroots: {a: {path: link}, b: {path: real/in}}\n".into(),
            "2:36: the roots `a` and `b` lie one in the other",
        ),
        (
            "site: s\nroots: {a: {path: real/in}}\nstate: link/in/state\n".into(),
            "3:8: the state directory link/in/state lies in the root",
        ),
        (
            "site: s\nroots: {a: {path: link/in}}\nstate: real/in/state\n".into(),
            "3:8: the state directory real/in/state lies in the root",
        ),
        (format!("site: s\n{db}\nstate: site.yaml\n"), "3:8: the state directory site.yaml is not a directory"),
        (format!("site: s\n{db}\nmaintenance: {{enter: [x]}}\n"), "3:14: the key `leave` is missing"),
        (format!("site: s\n{db}\nmaintenance: {{enter: [x], leave: y}}\n"), "3:34: a command is a list of words"),
        (format!("site: s\n{db}\nmaintenance: [x]\n"), "3:14: expected a mapping with keys such as `enter`, `leave`"),
        ("- site\n".into(), "1:1: expected a mapping with keys such as `site`"),
    ] {
        let dir = Dir::with(&[("site.yaml", &text), ("real/in/", "")]);
        symlink("real", dir.path().join("link")).unwrap();
        let error = error(&dir);
        assert!(error.starts_with(&format!("site.yaml:{expected}")), "{text}\n  {error}\n  {expected}");
    }
}

#[test]
fn a_site_that_is_no_file_is_told_apart() {
    let dir = Dir::new();
    assert_eq!(error(&dir), "site.yaml: there is no such file");
    let found = Site::find(&dir.path()).expect_err("none");
    assert!(found.to_string().ends_with("there is no site.yaml here or above"), "{found}");
    let dir = Dir::with(&[("site.yaml/", "")]);
    assert_eq!(error(&dir), "site.yaml: is a directory, not a file");
    let dir = Dir::with(&[("site.yaml", "")]);
    assert_eq!(error(&dir), "site.yaml: is empty");
}
