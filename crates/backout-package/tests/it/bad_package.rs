//! Every way to write a package wrong: the error has file, line, column and the way out.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use backout_package::package::Package;

use crate::fixture::{Dice, Dir, load_error, manifest, package, told};

/// Steps from line 4 on, and what is said about them.
#[test]
fn bad_steps_are_shown_at_their_place() {
    for (steps, expected) in [
        // Keys.
        ("  - sqll: sql/a.sql\n", "4:5: unknown key `sqll`; did you mean `sql`? [known here: `sql`, `files`, "),
        ("  - sql: sql/a.sql\n    data_base: main\n", "5:5: unknown key `data_base`; did you mean `database`?"),
        ("  - package: x\n    retries: {attempt: 3}\n", "5:15: unknown key `attempt`; did you mean `attempts`?"),
        ("  - sql: sql/a.sql\n    sql: sql/a.sql\n", "5:5: the key `sql` is given twice, first on line 4"),
        ("  - run: [x]\n    capture: some\n", "5:14: unknown value `some`"),
        (
            "  - run: [x]\n    capture: {databases: []}\n",
            "5:14: `capture` names nothing: neither a database nor a root",
        ),
        ("  - run: [x]\n    capture: {root: [web]}\n", "5:15: unknown key `root`; did you mean `roots`?"),
        ("  - run: [x]\n    capture: {roots: [web, web]}\n", "5:28: `web` is named twice"),
        ("  - run: [x]\n    capture: all\n    undo: [y]\n", "6:11: `undo` and `capture` on one step"),
        ("  - run: [x]\n    capture: all\n    because: y\n", "6:14: `because` goes with `undo: none` only"),
        ("  - sql: sql/a.sql\n    capture: all\n", "5:14: a `sql` step has no `capture`; it belongs to `run`"),
        ("  - wrong\n", "4:5: expected a mapping with keys such as `sql`, `files`"),
        // Kinds.
        ("  - database: main\n", "4:5: this step does nothing: one of `sql`, `files`, `delete`, `run`, `package`"),
        ("  - sql: sql/a.sql\n    files: docroot\n", "5:12: this step has two kinds, `sql` and `files`"),
        (
            "  - run: [x]\n    undo: none\n    because: y\n    sql: sql/a.sql\n",
            "7:10: this step has two kinds, `sql` and `run`",
        ),
        // Options of another kind.
        ("  - sql: sql/a.sql\n    root: web\n", "5:11: a `sql` step has no `root`; it belongs to `files` and `delete`"),
        ("  - files: docroot\n    missing: ok\n", "5:14: a `files` step has no `missing`; it belongs to `delete`"),
        ("  - files: docroot\n    undo: none\n", "5:11: a `files` step has no `undo`; it belongs to `sql` and `run`"),
        ("  - sql: sql/a.sql\n    timeout: 5m\n", "5:14: a `sql` step has no `timeout`; it belongs to `run`"),
        (
            "  - sql: sql/a.sql\n    on-failure: fail\n",
            "5:17: a `sql` step has no `on-failure`; it belongs to `package`",
        ),
        // sql.
        ("  - sql: sql/b.sql\n", "4:10: there is no `sql/b.sql` in the package"),
        ("  - sql: sql\n", "4:10: `sql` is a directory; a file is wanted here"),
        ("  - sql: ../a.sql\n", "4:10: `../a.sql` leads outside with `..`"),
        ("  - sql: /etc/passwd\n", "4:10: `/etc/passwd` is an absolute path"),
        ("  - sql: ''\n", "4:10: the path is empty"),
        ("  - sql: \"a\\0b\"\n", "4:10: a path can't hold a NUL character"),
        ("  - sql: [sql/a.sql]\n", "4:10: expected text, found a list"),
        ("  - sql: sql/a.sql\n    undo: sql/none.sql\n", "5:11: there is no `sql/none.sql` in the package"),
        ("  - sql: sql/a.sql\n    undo: [x]\n", "5:11: an `sql` step is undone by a script"),
        ("  - sql: sql/a.sql\n    undo: none\n", "5:11: `undo: none` needs a `because: …` beside it"),
        ("  - sql: sql/a.sql\n    undo: none\n    because: ' '\n", "6:14: `because` is empty"),
        ("  - sql: sql/a.sql\n    because: x\n", "5:14: `because` goes with `undo: none` only"),
        // files.
        (
            "  - files: docroot/index.php\n",
            "4:12: `docroot/index.php` is not a directory [put the file into a directory",
        ),
        ("  - files: nowhere\n", "4:12: there is no `nowhere` in the package"),
        ("  - files: .\n", "4:12: names the package itself"),
        ("  - files: docroot\n    exact: yes\n", "5:12: expected true or false, found `yes`"),
        ("  - files: docroot\n    exact: \"true\"\n", "5:12: expected true or false, found a single value"),
        // delete.
        ("  - delete: []\n", "4:13: `delete` names no paths"),
        ("  - delete: old.php\n", "4:13: expected a list, found a single value"),
        ("  - delete: [a, ../b]\n", "4:17: `../b` leads outside with `..`"),
        ("  - delete: [/a]\n", "4:14: `/a` is an absolute path"),
        ("  - delete: [./]\n", "4:14: `./` names the root itself"),
        ("  - delete: [a, b, a/]\n", "4:20: `a/` is deleted twice"),
        ("  - delete: [a]\n    missing: okay\n", "5:14: unknown value `okay`; did you mean `ok`?"),
        // run.
        (
            "  - run: [x]\n",
            "4:5: this `run` step says nothing of its undo [add `capture: all`, which takes back whatever it does to databases and files, `undo: [a command]`, \
                or `undo: none` with `because: …` and deploy with --accept-irreversible]",
        ),
        ("  - run: [x]\n    undo: x.sh\n", "5:11: the undo of a `run` step is a command as a list, or `none`"),
        ("  - run: [x]\n    because: y\n", "5:14: `because` goes with `undo: none` only"),
        (
            "  - run: ls -l\n",
            "4:10: a command is a list of words, found a single text [commands run without a shell: [ls, -l]",
        ),
        ("  - run: []\n", "4:10: names no program"),
        ("  - run: [\"\"]\n", "4:10: names no program"),
        ("  - run: [\"a\\0\"]\n", "4:10: a command's argument can't hold a NUL"),
        ("  - run: [x, [y]]\n", "4:14: expected text, found a list"),
        ("  - run: [./bin/none]\n    undo: [x]\n", "4:10: there is no `./bin/none` in the package"),
        ("  - run: [bin/plain]\n    undo: [x]\n", "4:10: `bin/plain` is not executable [chmod +x bin/plain]"),
        ("  - run: [x]\n    undo: [bin/none]\n", "5:11: there is no `bin/none` in the package"),
        ("  - run: [../x]\n    undo: [x]\n", "4:10: `../x` leads outside with `..`"),
        (
            "  - run: [x]\n    undo: [x]\n    timeout: 5\n",
            "6:14: `5` is not a duration: a unit must come after each number",
        ),
        ("  - run: [x]\n    undo: [x]\n    timeout: 5 m\n", "6:14: `5 m` is not a duration"),
        ("  - run: [x]\n    undo: [x]\n    timeout: 0s\n", "6:14: `timeout` must be longer than nothing"),
        // package.
        ("  - package: nowhere\n", "4:14: there is no `nowhere` in the package"),
        ("  - package: docroot\n", "4:14: `docroot` is not a package: it holds no package.yaml"),
        ("  - package: sql/a.sql\n", "4:14: `sql/a.sql` is not a directory; a package is one"),
        ("  - package: ..\n", "4:14: `..` leads outside with `..`"),
        ("  - package: /srv/p\n", "4:14: `/srv/p` is an absolute path"),
        ("  - package: .\n", "4:14: `.` is the package itself: a cycle among packages"),
    ] {
        let error = load_error(&package(steps));
        assert!(error.starts_with(&format!("package.yaml:{expected}")), "{steps}\n  {error}\n  {expected}");
    }
}

#[test]
fn bad_manifests_are_shown_at_their_place() {
    let steps = "steps: [{sql: sql/a.sql}]\n";
    for (text, expected) in [
        ("package: p\nversion: 1\nstep: []\n".to_owned(), ":3:1: unknown key `step`; did you mean `steps`?"),
        (format!("version: 1\n{steps}"), ":1:1: the key `package` is missing"),
        (format!("package: p\n{steps}"), ":1:1: the key `version` is missing"),
        ("package: p\nversion: 1\n".to_owned(), ":1:1: the key `steps` is missing"),
        ("package: p\nversion: 1\nsteps: []\n".to_owned(), ":3:8: the package is empty: it has no steps"),
        ("package: p\nversion: 1\nsteps:\n".to_owned(), ":3:6: the package is empty: it has no steps"),
        ("package: p\nversion: 1\nsteps: {sql: x}\n".to_owned(), ":3:8: expected a list, found a mapping"),
        (format!("package: a/b\nversion: 1\n{steps}"), ":1:10: the package's name `a/b` holds '/'"),
        (format!("package: ..\nversion: 1\n{steps}"), ":1:10: the package's name `..` must begin with a letter"),
        (
            format!("package: \"a\\e[31m\"\nversion: 1\n{steps}"),
            ":1:10: the package's name `a\\u{1b}[31m` holds '\\u{1b}'",
        ),
        (format!("package: p\nversion: 1/2\n{steps}"), ":2:10: the version `1/2` holds '/'"),
        (format!("package: p\nversion: [1]\n{steps}"), ":2:10: expected text, found a list"),
        (format!("package: p\nversion:\n{steps}"), ":2:8: expected text, found nothing"),
        (format!("package: p\nversion: 1\natomic: no\n{steps}"), ":3:9: expected true or false, found `no`"),
        (format!("package: p\nversion: 1\nrequires: q\n{steps}"), ":3:11: expected a list"),
        (format!("package: p\nversion: 1\nrequires: [a, 'b c']\n{steps}"), ":3:15: the package's name `b c` holds ' '"),
        (format!("package: p\nversion: 1\nrequires: [p]\n{steps}"), ":3:12: `p` can't require `p`"),
        (format!("package: p\nversion: 1\nrequires: [a, a]\n{steps}"), ":3:15: `a` is required twice"),
        (format!("package: p\nversion: 1\nfinally: [{{run: x}}]\n{steps}"), ":3:17: a command is a list of words"),
        (format!("package: p\nversion: 1\nfinally: [{{run: [x], undo: [y]}}]\n{steps}"), ":3:22: unknown key `undo`"),
        (format!("package: p\nversion: 1\n<<: {{}}\n{steps}"), ":3:1: merge keys (`<<`) are not supported"),
        (
            format!("package: p\nversion: 1\n{steps}package: q\n"),
            ":4:1: the key `package` is given twice, first on line 1",
        ),
        (format!("package: p\nversion: 1\n{steps}---\na: 1\n"), ":4:1: holds a second document"),
        ("package: p\n  version: 1\n".to_owned(), ":2:"),
        ("package: [p\n".to_owned(), ":"),
        ("- package: p\n".to_owned(), ":1:1: expected a mapping with keys such as `package`, `version`"),
        ("just words\n".to_owned(), ":1:1: expected a mapping"),
        ("---\n".to_owned(), ":"),
        (String::new(), ": is empty"),
        ("# nothing\n".to_owned(), ": is empty"),
    ] {
        let error = load_error(&manifest(&text));
        assert!(error.starts_with(&format!("package.yaml{expected}")), "{text}\n  {error}\n  {expected}");
    }
}

#[test]
fn bad_checks_are_shown_at_their_place() {
    for (check, expected) in [
        ("http: shop.example", "3:11: this is not a URL such as https://shop.example/page"),
        ("http: http://shop.example:87745/", "3:11: this is not a URL such as https://shop.example/page: invalid port"),
        ("http: https://x\n    header: {a b: c}", "4:14: `a b` is not the name of a header"),
        ("http: ftp://shop.example/", "3:11: this is not a URL such as"),
        (
            "http: https://joe:hunter2@shop.example/",
            "3:11: a package is kept as it is, so its URLs can't hold a password",
        ),
        ("http: https://x/a b", "3:11: a URL holds no spaces"),
        ("http: https://x\n    status: ok", "4:13: a status is a number of three digits such as 200"),
        ("http: https://x\n    status: 2000", "4:13: a status is a number of three digits such as 200"),
        ("http: https://x\n    matches: '(a'", "4:14: this is not a regular expression: unclosed group"),
        ("http: https://x\n    json: {name: a}", "4:12: `name` is not a JSON pointer such as /items/0/name"),
        ("http: https://x\n    tls: none", "4:10: "),
        ("http: https://x\n    equals: 1", "4:13: a check of kind `http` has no `equals`; it belongs to `sql`"),
        ("run: [x]\n    status: 200", "4:13: a check of kind `run` has no `status`; it belongs to `http`"),
        ("name: x", "3:5: this check does nothing: one of `http`, `sql`, `definition`, `file`, `run` must be given"),
        ("sql: SELECT 1\n    run: [x]", "4:10: this check has two kinds, `sql` and `run`"),
        ("sql: SELECT 1", "3:5: a check of kind `sql` needs `equals`"),
        ("sql: ' '\n    equals: 1", "3:10: the query is empty"),
        ("sql: SELECT 1\n    equals: [1]", "4:13: expected text, found a list"),
        (
            "sql: SELECT 1\n    equals: 1\n    root: web",
            "5:11: a check of kind `sql` has no `root`; it belongs to `file`",
        ),
        ("run: [x]\n    equals: 1", "4:13: a check of kind `run` has no `equals`; it belongs to `sql`"),
        ("file: ../x", "3:11: `../x` leads outside with `..`"),
        ("file: /x", "3:11: `/x` is an absolute path"),
        ("file: x\n    sha256: abc", "4:13: a SHA-256 has 64 hex digits"),
        ("file: x\n    exists: false\n    contains: y", "5:15: what must not exist has no content to test"),
        ("definition: product", "3:17: this is not a kind and a name such as `table product`"),
        (
            "definition: table product\n    root: web",
            "4:11: a check of kind `definition` has no `root`; it belongs to `file`",
        ),
        ("file: x\n    contain: y", "4:5: unknown key `contain`; did you mean `contains`?"),
        ("run: [x]\n    within: soon", "4:13: `soon` is not a duration"),
        ("run: [x]\n    within: 0.5s", "4:13: `0.5s` is not a duration"),
        ("run: [./bin/none]", "3:10: there is no `./bin/none` in the package"),
        ("name: ''\n    run: [x]", "3:11: the name is empty"),
    ] {
        for list in ["before", "after"] {
            let text = format!("package: p\n{list}:\n  - {check}\nversion: 1\nsteps: [{{sql: sql/a.sql}}]\n");
            let error = load_error(&manifest(&text));
            assert!(error.starts_with(&format!("package.yaml:{expected}")), "{check}\n  {error}\n  {expected}");
        }
    }
}

fn child(name: &str, requires: &str) -> String {
    format!("package: {name}\nversion: 1\nrequires: [{requires}]\nsteps: [{{delete: [x]}}]\n")
}

#[test]
fn bad_children_are_shown_at_their_place() {
    let with = |steps: &str, children: &[(&str, &str)]| {
        let dir = package(steps);
        for (path, text) in children {
            dir.write(&format!("{path}/package.yaml"), text);
        }
        load_error(&dir)
    };
    let (a, b) = (child("a", ""), child("b", ""));
    for (retries, expected) in [
        ("{attempts: 0}", "5:25: `attempts` counts all tries, the first one too: at least 1"),
        ("{attempts: -1}", "5:25: expected a whole number, found `-1`"),
        ("{attempts: '3'}", "5:25: expected a whole number, found `3`"),
        ("{attempts: many}", "5:25: expected a whole number, found `many`"),
        ("{wait: 1s}", "5:14: the key `attempts` is missing"),
        ("{attempts: 2, wait: 3}", "5:34: `3` is not a duration"),
        ("{attempts: 2, backoff: 0.5}", "5:37: `backoff` must be a number from 1 to 100"),
        ("{attempts: 2, backoff: NaN}", "5:37: `backoff` must be a number from 1 to 100"),
        ("{attempts: 2, backoff: 1e300}", "5:37: `backoff` must be a number from 1 to 100"),
        ("{attempts: 2, backoff: double}", "5:37: expected a number, found `double`"),
        ("3", "5:14: expected a mapping with keys such as `attempts`, `wait`, `backoff`"),
    ] {
        let error = with(&format!("  - package: a\n    retries: {retries}\n"), &[("a", &a)]);
        assert!(error.starts_with(&format!("package.yaml:{expected}")), "{retries}\n  {error}\n  {expected}");
    }

    let error = with("  - package: a\n    on-failure: ignore\n", &[("a", &a)]);
    assert!(error.starts_with("package.yaml:5:17: unknown value `ignore` [known here: `fail`, `continue`]"), "{error}");
    let error = with("  - package: a\n  - package: a\n", &[("a", &a)]);
    assert_eq!(error, "package.yaml:5:5: a second child in a directory called `a`, after the one on line 4");
    let error = with("  - package: a\n  - package: x/a\n", &[("a", &a), ("x/a", &b)]);
    assert_eq!(error, "package.yaml:5:5: a second child in a directory called `a`, after the one on line 4");
    let error = with("  - package: a\n  - package: b\n", &[("a", &a), ("b", &a)]);
    assert_eq!(error, "package.yaml:5:5: a second child package named `a`, after the one on line 4");
    let error = with("  - package: 'a b'\n", &[("a b", &a)]);
    assert!(error.starts_with("package.yaml:4:14: the child's directory `a b` holds ' '"), "{error}");

    // What a child gets wrong is shown in the child's own file.
    let error = with("  - package: a\n", &[("a", "package: a\nversion: 1\nsteps: [{sql: ../sql/a.sql}]\n")]);
    assert_eq!(error, "a/package.yaml:3:15: `../sql/a.sql` leads outside with `..`");

    let (a, b) = (child("a", "b"), child("b", "a"));
    let error = with("  - package: a\n  - package: b\n", &[("a", &a), ("b", &b)]);
    assert_eq!(error, "package.yaml:4:5: a cycle among children: a → b → a");
    let (a, b, c) = (child("a", "c"), child("b", "a"), child("c", "b"));
    let error = with("  - package: a\n  - package: b\n  - package: c\n", &[("a", &a), ("b", &b), ("c", &c)]);
    assert_eq!(error, "package.yaml:4:5: a cycle among children: a → c → b → a");
    let error = with("  - package: a\n  - package: b\n", &[("a", &child("a", "b")), ("b", &child("b", ""))]);
    assert!(error.starts_with("package.yaml:4:5: the child `a` requires `b`, which comes after it [move"), "{error}");
    let error = with("  - package: a\n", &[("a", &child("a", "p"))]);
    assert_eq!(error, "a/package.yaml:3:12: `a` can't require `p`, which is not deployed before it ends: a cycle");
    let dir = manifest("package: p\nversion: 1\nrequires: [a]\nsteps: [{package: a}]\n");
    dir.write("a/package.yaml", &child("a", ""));
    assert_eq!(load_error(&dir), "package.yaml:3:12: `p` can't require its own child `a`: a cycle");
}

#[test]
fn symlinks_must_not_lead_out() {
    let other = Dir::with(&[("x.sql", ""), ("tree/x", ""), ("p/package.yaml", &child("q", ""))]);
    let steps = |step: &str| package(&format!("  - {step}\n"));
    for (step, column) in [("sql: link/x.sql", 10), ("files: link/tree", 12), ("package: link/p", 14)] {
        let dir = steps(step);
        symlink(other.path(), dir.path().join("link")).unwrap();
        let error = load_error(&dir);
        assert!(error.starts_with(&format!("package.yaml:4:{column}: ")), "{error}");
        assert!(error.contains("leaves the package"), "{error}");

        let dir =
            Dir::with(&[("p/package.yaml", ""), ("out/x.sql", ""), ("out/tree/", ""), ("out/p/package.yaml", "")]);
        fs::copy(steps(step).path().join("package.yaml"), dir.path().join("p/package.yaml")).unwrap();
        symlink("../out", dir.path().join("p/link")).unwrap();
        let error = Package::load(&dir.path().join("p")).expect_err("refused").to_string();
        assert!(error.contains("leaves the package by a symlink"), "{error}");
    }
    // A symlink back up is a cycle, and one to a sibling's directory leaves the child.
    let dir = steps("package: self");
    symlink(".", dir.path().join("self")).unwrap();
    assert_eq!(load_error(&dir), "package.yaml:4:14: `self` is the package itself: a cycle among packages");
    let dir = steps("package: a");
    dir.write("a/package.yaml", "package: a\nversion: 1\nsteps: [{package: up}]\n");
    symlink("..", dir.path().join("a/up")).unwrap();
    assert_eq!(load_error(&dir), "a/package.yaml:3:19: `up` leaves the package by a symlink");
    // The manifest itself.
    let dir = Dir::new();
    symlink(other.path().join("p/package.yaml"), dir.path().join("package.yaml")).unwrap();
    assert!(load_error(&dir).contains("leaves the package"), "{}", load_error(&dir));
}

#[test]
fn symlinks_within_the_package_and_in_its_files_are_fine() {
    let dir = package("  - sql: link.sql\n  - files: current\n");
    symlink("sql/a.sql", dir.path().join("link.sql")).unwrap();
    symlink("docroot", dir.path().join("current")).unwrap();
    symlink("/etc/passwd", dir.path().join("docroot/absolute")).unwrap();
    symlink("../../..", dir.path().join("docroot/up")).unwrap();
    symlink("nowhere", dir.path().join("docroot/dangling")).unwrap();
    assert!(Package::load(&dir.path()).is_ok());
}

#[test]
fn nesting_is_bounded() {
    let dir = Dir::new();
    let mut path = String::new();
    for depth in 0..40 {
        dir.write(&format!("{path}package.yaml"), &format!("package: p{depth}\nversion: 1\nsteps: [{{package: c}}]\n"));
        path += "c/";
    }
    let error = load_error(&dir);
    assert!(error.contains("/package.yaml:3:19: packages are nested more than 16 levels deep"), "{error}");
}

#[test]
fn a_file_that_is_no_text_is_told_apart() {
    let dir = Dir::with(&[("package.yaml/", "")]);
    assert_eq!(load_error(&dir), "package.yaml: is a directory, not a file");

    let dir = Dir::new();
    assert_eq!(
        load_error(&dir),
        ".: is not a package: it holds no package.yaml [`backout new NAME` writes one to start from]"
    );

    let dir = Dir::new();
    fs::write(dir.path().join("package.yaml"), b"package: p\nversion: \xff\xfe\n").unwrap();
    assert_eq!(load_error(&dir), "package.yaml:2:10: is not UTF-8 text");
    fs::write(dir.path().join("package.yaml"), b"package: p\nversion: a\0b\n").unwrap();
    assert_eq!(load_error(&dir), "package.yaml:2:11: is not text: it holds a NUL byte");
    fs::write(dir.path().join("package.yaml"), vec![b'#'; (8 << 20) + 1]).unwrap();
    assert_eq!(load_error(&dir), "package.yaml: is larger than 8 MiB");

    let dir = Dir::new();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("package.yaml"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(load_error(&dir), "package.yaml: is not a regular file");

    let dir = Dir::with(&[("file", "")]);
    for (name, what) in
        [("none", "none: there is no such package"), ("file", "file: is neither a package's directory nor a bundle")]
    {
        let error = Package::load(&dir.path().join(name)).expect_err("refused");
        assert_eq!(told(&dir.path(), &error), what);
    }
    assert!(Package::load(Path::new("")).is_err());
}

#[test]
fn a_bomb_of_aliases_is_bounded() {
    let mut bomb = "package: p\nversion: 1\nx0: &x0 [y, y, y, y, y, y, y, y, y, y]\n".to_owned();
    for i in 1..30 {
        bomb += &format!("x{i}: &x{i} [{}]\n", vec![format!("*x{}", i - 1); 10].join(", "));
    }
    let error = load_error(&manifest(&bomb));
    assert!(error.starts_with("package.yaml:") && error.contains("too many values"), "{error}");
}

#[test]
fn a_mangled_manifest_is_an_error_or_a_package_never_a_panic() {
    let text = "package: p\nversion: 1.10\nrequires: [q]\nbefore:\n  - sql: |\n      SELECT 1\n    equals: 1\nsteps:\n\
        \x20 - sql: sql/a.sql\n    undo: none\n    because: \"x\\ty\"\n  - {files: docroot, exact: true}\n  - delete: [&a docroot, c]\n  - files: *a\n\
        \x20 - run: [x, 'y']\n    undo: [z]\n    timeout: 1h30m\nafter:\n  - file: >-\n      x\n    exists: !!bool true\n";
    let dir = manifest(text);
    Package::load(&dir.path()).unwrap();
    let mut dice = Dice(2);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..5_000 {
        let mangled = dice.mangle(text.as_bytes(), b"\n\r\t :-[]{},&*!|>'\"%@`#?~\0\x7f\xff\xc3\xa4ab0");
        fs::write(dir.path().join("package.yaml"), &mangled).unwrap();
        match Package::load(&dir.path()) {
            Ok(_) => good += 1,
            Err(_) => bad += 1,
        }
    }
    assert!(good > 50 && bad > 1000, "{good} {bad}");
}
