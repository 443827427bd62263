//! The binary is killed, for real (SIGKILL), at every point of the fault seam that a deployment, an undo and a redo
//! pass. After `resume` the site is exactly as before or exactly as after, and goes on working.
//!
//! `BACKOUT_POINT=N` plays one point only; `BACKOUT_KEEP=1` leaves the sites and says where they are.

use std::path::Path;
use std::process::{Command, Output};

use backout_testkit::every;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::postgres::{Server, Setup};
use backout_testkit::site::{Builder, TestSite};
use backout_testkit::stage::{Act, Cast, Stage};

/// Runs the binary on the site; syncs are counted, not issued: no power is lost here.
fn backout(site: &TestSite, words: &[&str], fault: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backout"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", site.dir()).current_dir(site.dir());
    command.env("BACKOUT_FAULT", format!("nosync{fault}")).args(words).output().unwrap()
}

fn words(act: Act, at: &Path) -> Vec<String> {
    match act {
        Act::Deploy => vec!["deploy".to_owned(), at.display().to_string()],
        Act::Undo => vec!["undo".to_owned()],
        Act::Redo => vec!["redo".to_owned()],
    }
}

fn play(act: Act, stage: &Stage, fault: &str) -> Output {
    let at = stage.site.write(&stage.cast.package());
    let words = words(act, &at);
    backout(&stage.site, &words.iter().map(String::as_str).collect::<Vec<_>>(), fault)
}

fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().replace('\n', "\n    ");
    format!("{}\n    {}\n    {}", output.status, text(&output.stdout), text(&output.stderr))
}

fn kill_at(cast: Cast, act: Act, n: usize, twin: &Fingerprint) -> Result<(), String> {
    let stage = act.stage(cast);
    let died = play(act, &stage, &format!(",crash:{n}"));
    if died.status.code().is_some() {
        return Err(format!("it was not killed: {}", shown(&died)));
    }
    let resumed = backout(&stage.site, &["resume"], "");
    if !matches!(resumed.status.code(), Some(0 | 1)) {
        return Err(format!("resume: {}", shown(&resumed)));
    }
    let state = stage.state(twin).map_err(|what| format!("{what}\n  resume said: {}", shown(&resumed)))?;
    stage.goes_on(state, twin)
}

/// How many points the act passes.
fn count(cast: Cast, act: Act) -> usize {
    let stage = act.stage(cast);
    let list = stage.site.dir().join("points");
    let done = play(act, &stage, &format!(",count:{}", list.display()));
    assert_eq!(done.status.code(), Some(0), "{}", shown(&done));
    std::fs::read_to_string(list).unwrap().lines().count()
}

fn at_every_point(cast: Cast, act: Act) {
    let (count, twin) = (count(cast, act), Act::twin(cast));
    eprintln!("{act:?}: {count} points");
    let points: Vec<usize> = (1..=count).collect();
    every::point(&format!("{act:?} killed"), &points, cast.stride(), || (), |(), n| kill_at(cast, act, n, &twin));
}

#[test]
fn a_deployment_that_is_killed_anywhere() {
    at_every_point(Cast::Sqlite, Act::Deploy);
}

#[test]
fn an_undo_that_is_killed_anywhere() {
    at_every_point(Cast::Sqlite, Act::Undo);
}

#[test]
fn a_redo_that_is_killed_anywhere() {
    at_every_point(Cast::Sqlite, Act::Redo);
}

fn postgres() -> Cast {
    Cast::Postgres(Box::leak(Box::new(Server::with(&Setup::default()))))
}

#[test]
fn a_deployment_on_postgres_that_is_killed_anywhere() {
    at_every_point(postgres(), Act::Deploy);
}

#[test]
fn an_undo_on_postgres_that_is_killed_anywhere() {
    at_every_point(postgres(), Act::Undo);
}

#[test]
fn a_redo_on_postgres_that_is_killed_anywhere() {
    at_every_point(postgres(), Act::Redo);
}

fn mariadb() -> Cast {
    Cast::Mariadb(backout_testkit::mariadb::Server::shared())
}

#[test]
fn a_deployment_on_mariadb_that_is_killed_anywhere() {
    at_every_point(mariadb(), Act::Deploy);
}

#[test]
fn an_undo_on_mariadb_that_is_killed_anywhere() {
    at_every_point(mariadb(), Act::Undo);
}

#[test]
fn a_redo_on_mariadb_that_is_killed_anywhere() {
    at_every_point(mariadb(), Act::Redo);
}

/// Its statement goes on on the server: who resumes waits for that, or ends it.
#[test]
fn a_tool_that_is_killed_while_its_statement_runs_on_mariadb() {
    use backout_testkit::mariadb::Queryable as _;
    let base = "CREATE TABLE t (a int PRIMARY KEY, b int) ENGINE=InnoDB; INSERT INTO t VALUES (1, 1), (2, 2);";
    for script in [
        "ALTER TABLE t ADD c int; UPDATE t SET b = SLEEP(1) + 5;",
        "UPDATE t SET b = 7; ALTER TABLE t MODIFY b varchar(9), ADD d int DEFAULT 3; DELETE FROM t WHERE SLEEP(1) = 0;",
        "CREATE TABLE u AS SELECT a, SLEEP(1) AS s FROM t;",
    ] {
        let site = TestSite::builder().mariadb("main", backout_testkit::mariadb::Server::shared(), base).build();
        let before = Fingerprint::of(&site);
        let package = site.write(&Pkg::new("p").step(sql(script)));
        let mut command = Command::new(env!("CARGO_BIN_EXE_backout"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", site.dir())
            .current_dir(site.dir());
        let mut tool = command.args(["deploy", &package.display().to_string()]).spawn().unwrap();
        let database = site.mariadb("main").unwrap();
        let mut watching = database.connect();
        let asleep = "SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND INFO LIKE '%SLEEP(1)%' AND ID <> CONNECTION_ID()";
        while watching.query_first::<u32, _>(asleep).unwrap().is_none() {
            assert!(tool.try_wait().unwrap().is_none(), "{script}");
        }
        tool.kill().unwrap();
        tool.wait().unwrap();
        let resumed = backout(&site, &["resume"], "");
        assert!(matches!(resumed.status.code(), Some(0 | 1)), "{script}: {}", shown(&resumed));
        before.assert_same(&Fingerprint::of(&site), script);
    }
}

/// Of ten ALTERs the fifth is under way as the server dies. The tool finds it again, or died, too, and is resumed.
#[test]
fn a_server_that_is_killed_in_the_fifth_of_ten_alters() {
    use backout_testkit::mariadb::{Queryable as _, Server};
    let server: &'static Server = Box::leak(Box::new(Server::fresh()));
    let base = "CREATE TABLE t (a int PRIMARY KEY, b int, c varchar(9)) ENGINE=InnoDB; INSERT INTO t VALUES (1, 1, 'x'), (2, 2, NULL);
        CREATE TABLE big (id int PRIMARY KEY, v varchar(200)) ENGINE=InnoDB; INSERT INTO big SELECT seq, REPEAT(seq, 30) FROM seq_1_to_200000;";
    let alters = [
        "t ADD d int DEFAULT 7",
        "t DROP COLUMN c",
        "t MODIFY b bigint",
        "t ADD KEY (b)",
        "big ADD w int, ALGORITHM=COPY",
        "t ADD e int",
        "t CHANGE b bee bigint",
        "big ADD x int",
        "t DROP COLUMN d",
        "t COMMENT 'ten'",
    ];
    let script: String = alters.iter().map(|alter| format!("ALTER TABLE {alter}; UPDATE t SET a = a + 0;\n")).collect();
    for tool_dies in [false, true] {
        let site = TestSite::builder().mariadb("main", server, base).build();
        let before = Fingerprint::of(&site);
        let package = site.write(&Pkg::new("p").step(sql(script.clone())));
        let mut command = Command::new(env!("CARGO_BIN_EXE_backout"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", site.dir());
        let mut tool =
            command.current_dir(site.dir()).args(["deploy", &package.display().to_string()]).spawn().unwrap();
        let mut watching = site.mariadb("main").unwrap().connect();
        let fifth = "SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO LIKE 'ALTER TABLE big ADD w%' AND STATE LIKE 'copy%'";
        while watching.query_first::<u32, _>(fifth).unwrap().is_none() {
            assert!(tool.try_wait().unwrap().is_none(), "it ended too early");
        }
        server.kill();
        if tool_dies {
            tool.kill().unwrap();
        }
        server.start();
        let code = tool.wait().unwrap().code();
        if code != Some(1) {
            let resumed = backout(&site, &["resume"], "");
            assert!(matches!(resumed.status.code(), Some(0 | 1)), "{code:?}: {}", shown(&resumed));
        }
        before.assert_same(&Fingerprint::of(&site), &format!("the tool ended with {code:?}"));
        let verified = backout(&site, &["verify"], "");
        assert_eq!(verified.status.code(), Some(0), "{}", shown(&verified));
    }
}

#[test]
fn a_deployment_of_captured_commands_that_is_killed_anywhere() {
    at_every_point(Cast::Captured, Act::Deploy);
}

#[test]
fn a_deployment_of_captured_commands_on_mariadb_that_is_killed_anywhere() {
    at_every_point(Cast::CapturedMariadb(backout_testkit::mariadb::Server::shared()), Act::Deploy);
}

/// A command that changes rows, definitions and files in many small steps, and says how far it is.
const WORK: &str = "echo $$ > \"$BACKOUT_ROOT_WEB/../pid\"; n=0
    while [ $n -lt 40 ]; do n=$((n + 1))
      echo \"CREATE TABLE t$n (id INTEGER PRIMARY KEY, x UNIQUE); INSERT INTO t$n (x) VALUES ($n), ('$n');
            UPDATE product SET price = price + 1; ALTER TABLE product ADD COLUMN c$n DEFAULT $n; DROP TABLE IF EXISTS 't$((n - 3))'\" \
        | sqlite3 \"$BACKOUT_DATABASE_MAIN\" || exit 1
      mkdir \"$BACKOUT_ROOT_WEB/d$n\"; echo $n > \"$BACKOUT_ROOT_WEB/d$n/f\"; echo $n >> \"$BACKOUT_ROOT_WEB/index.php\"
      echo $n > \"$BACKOUT_ROOT_WEB/../far\"
    done";

/// The same on MariaDB.
const WORK_ON_MARIADB: &str = "url=\"$BACKOUT_DATABASE_MAIN\"; base=\"${url%%\\?*}\"; echo $$ > \"$BACKOUT_ROOT_WEB/../pid\"; n=0
    while [ $n -lt 40 ]; do n=$((n + 1))
      echo \"CREATE TABLE t$n (id int AUTO_INCREMENT PRIMARY KEY, x int UNIQUE); INSERT INTO t$n (x) VALUES ($n), (-$n);
            UPDATE product SET price = price + 1; ALTER TABLE product ADD COLUMN c$n int DEFAULT $n; DROP TABLE IF EXISTS \\`t$((n - 3))\\`; DELETE FROM log LIMIT 1\" \
        | mariadb --no-defaults --socket=\"${url#*socket=}\" --user=root \"${base##*/}\" || exit 1
      echo $n >> \"$BACKOUT_ROOT_WEB/index.php\"; echo $n > \"$BACKOUT_ROOT_WEB/../far\"
    done";

const SCHEMA: &str = "CREATE TABLE product (id INTEGER PRIMARY KEY, price INTEGER);
    INSERT INTO product VALUES (1, 10), (2, 20); CREATE TABLE log (x int); INSERT INTO log VALUES (1), (1)";

/// The tool, or the command, is killed once the command is so far; the rest is for `resume`, or for the tool.
fn killed_at_work(site: Builder, work: &str, far: u32, whom: &str) {
    let web = backout_testkit::tree::Tree::new().file("index.php", "<?php").file("a/b.txt", "b");
    let site = site.root("web", web).build();
    let before = Fingerprint::of(&site);
    let package = site.write(&Pkg::new("p").step(backout_testkit::package::captured(work)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_backout"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", site.dir()).current_dir(site.dir());
    let mut tool = command.args(["--quiet", "deploy", &package.display().to_string()]).spawn().unwrap();
    let number = |name: &str| site.text(name).and_then(|text| text.trim().parse::<u32>().ok());
    while number("far").is_none_or(|now| now < far) {
        assert!(tool.try_wait().unwrap().is_none(), "{whom} at {far}: it ended too early");
    }
    if whom == "tool" {
        tool.kill().unwrap();
        tool.wait().unwrap();
        let resumed = backout(&site, &["resume"], "");
        assert_eq!(resumed.status.code(), Some(1), "{whom} at {far}: {}", shown(&resumed));
    } else {
        let pid = number("pid").unwrap().to_string();
        assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        assert_eq!(tool.wait().unwrap().code(), Some(1), "{whom} at {far}");
    }
    before.assert_same(&Fingerprint::of(&site), &format!("{whom} at {far}"));
    let verified = backout(&site, &["verify"], "");
    assert_eq!(verified.status.code(), Some(0), "{whom} at {far}: {}", shown(&verified));
}

/// At so many places, other ones each time.
fn at_some_places(times: u64, mut killed: impl FnMut(u32, &str)) {
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    for n in 0..times {
        let far = u32::try_from((seed / 7 + n * 13) % 37).unwrap() + 1;
        ["tool", "command"].into_iter().for_each(|whom| killed(far, whom));
    }
}

#[test]
fn a_captured_command_or_the_tool_that_is_killed_at_work() {
    at_some_places(3, |far, whom| killed_at_work(TestSite::builder().database("main", SCHEMA), WORK, far, whom));
}

#[test]
fn a_captured_command_on_mariadb_or_the_tool_that_is_killed_at_work() {
    at_some_places(2, |far, whom| {
        let site = TestSite::builder().mariadb("main", backout_testkit::mariadb::Server::shared(), SCHEMA);
        killed_at_work(site, WORK_ON_MARIADB, far, whom);
    });
}
