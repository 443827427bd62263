//! Rehearsals of databases on servers: in a database and under an account of their own, of which nothing is left.

use std::fs;
use std::process::{Command, Stdio};

use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::Queryable as _;
use backout_testkit::package::{Pkg, files, run as command, sql};
use backout_testkit::site::TestSite;
use backout_testkit::tree::Tree;
use backout_testkit::{mariadb, postgres};

use crate::backup::{run, with_backup};

pub const POSTGRES: &str = "CREATE SCHEMA extra; CREATE DOMAIN public.price AS numeric CHECK (value > 0);
    CREATE TABLE product (id serial PRIMARY KEY, name text, size text, price public.price);
    INSERT INTO product (name, size, price) VALUES ('hat', 's', 1.50), ('shoe', 'm', 2); CREATE VIEW extra.cheap AS SELECT * FROM product;
    CREATE FUNCTION public.twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2'; GRANT SELECT ON product TO PUBLIC;";
pub const MARIADB: &str = "CREATE TABLE product (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20), size VARCHAR(9), price FLOAT);
    INSERT INTO product (name, size, price) VALUES ('hat', 's', 0.1234567), ('shoe', 'm', 16777215); CREATE VIEW cheap AS SELECT id FROM product;
    CREATE FUNCTION twice(a INT) RETURNS INT RETURN a * 2; CREATE TABLE gone (t TEXT, id INT PRIMARY KEY); INSERT INTO gone VALUES ('x', 1);";

/// Servers of their own: what other rehearsals make is not left over.
pub fn own_postgres() -> &'static postgres::Server {
    Box::leak(Box::new(postgres::Server::fresh()))
}

pub fn own_mariadb() -> &'static mariadb::Server {
    Box::leak(Box::new(mariadb::Server::fresh()))
}

fn tree() -> Tree {
    Tree::new().file("index.html", "<h1>Autumn</h1>").dir("empty")
}

fn package(steps: &str) -> Pkg {
    Pkg::new("winter").step(sql(steps)).step(files(Tree::new().file("index.html", "<h1>Winter</h1>")))
}

/// What of rehearsals is on the server that the site's database is on.
pub fn left(site: &TestSite) -> String {
    match (site.postgres("main"), site.mariadb("main")) {
        (Some(live), _) => live.psql(
            "SELECT datname FROM pg_database WHERE datname LIKE 'backout_rehearsal%' UNION ALL SELECT rolname FROM pg_roles WHERE rolname LIKE 'backout_rehearsal%'",
        ),
        (None, Some(live)) => live.script(
            "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 'backout_rehearsal%' UNION ALL SELECT User FROM mysql.user WHERE User LIKE 'backout_rehearsal%'",
        ),
        (None, None) => String::new(),
    }
}

/// Rehearses; the live rows are locked against writers meanwhile, and are what they were in every respect.
fn rehearsed(site: &TestSite, package: &Pkg, proven: &[&str]) {
    with_backup(site);
    let at = site.write(package);
    let before = Fingerprint::of(site);
    let versions = |site: &TestSite| {
        site.postgres("main").map(|live| live.psql("SELECT xmin, ctid, product FROM product ORDER BY id"))
    };
    let rows = versions(site);
    let mut locked = site.postgres("main").map(|live| live.connect());
    if let Some(session) = &mut locked {
        session.batch_execute("BEGIN; LOCK TABLE product IN SHARE MODE").unwrap();
    }
    let mut held = site.mariadb("main").map(|live| live.connect());
    if let Some(session) = &mut held {
        session.query_drop("LOCK TABLES product READ").unwrap();
    }
    let mut ran = run(site, &["rehearse", at.to_str().unwrap()]).exits(0);
    for text in proven {
        ran = ran.answers(text);
    }
    assert!(!ran.stdout.contains("NOT PROVEN"), "{ran}");
    drop((locked, held));
    assert_eq!(versions(site), rows, "{ran}");
    before.assert_same(&Fingerprint::of(site), "rehearsed");
    assert_eq!(left(site), "", "{ran}");
    assert_eq!(fs::read_dir(site.state().join("rehearsals")).unwrap().count(), 0);
    assert!(!site.state().join("journal.db").exists(), "{ran}");
    // What is promised there holds here.
    run(site, &["deploy", at.to_str().unwrap()]).exits(0);
    run(site, &["undo"]).exits(0);
    before.assert_same(&Fingerprint::of(site), "undone");
}

#[test]
fn a_package_on_postgres_is_proven_in_a_database_of_its_own() {
    let site = TestSite::builder().postgres("main", own_postgres(), POSTGRES).root("web", tree()).build();
    let script = "CREATE TABLE new (a int); DROP VIEW extra.cheap; ALTER TABLE product DROP COLUMN size;
        UPDATE product SET price = price * 2; INSERT INTO product (name, price) VALUES ('x', 2);";
    // Measured, of what each statement took that the ones before it had not.
    let measured = [
        "7 changes proven",
        "locks: ACCESS EXCLUSIVE on extra.cheap",
        "locks: ACCESS EXCLUSIVE on product",
        "locks: ROW EXCLUSIVE on product",
        "; took ",
    ];
    rehearsed(&site, &package(script), &measured);
}

#[test]
fn a_package_on_mariadb_is_proven_in_a_database_of_its_own() {
    let server = Box::leak(Box::new(mariadb::Server::with(&["--plugin-load-add=metadata_lock_info"])));
    let site = TestSite::builder().mariadb("main", server, MARIADB).root("web", tree()).build();
    let script = "CREATE TABLE new (a INT PRIMARY KEY); DROP TABLE gone; UPDATE product SET price = price * 2;
        ALTER TABLE product ADD COLUMN stock INT; INSERT INTO product (name, price) VALUES ('x', 2);";
    let measured = ["11 changes proven", "locks: mdl_shared_write on product", "; took "];
    rehearsed(&site, &package(script), &measured);
}

/// Locks are what `plan` says where the server shows them to nobody.
#[test]
fn locks_that_cannot_be_measured_are_planned_and_said_to_be() {
    let site = TestSite::builder().mariadb("main", own_mariadb(), MARIADB).root("web", tree()).build();
    with_backup(&site);
    let script = "UPDATE product SET price = price * 2; ALTER TABLE product ADD COLUMN stock INT;";
    let at = site.write(&package(script));
    run(&site, &["rehearse", at.to_str().unwrap()])
        .exits(0)
        .answers("locks (planned: the server has no METADATA_LOCK_INFO): ")
        .answers(
            "locks (planned: a change of the schema gives its locks back as it commits): the definition of product",
        );
}

/// The account has no rights on the live database, so a script that names that fails there and not here.
#[test]
fn a_script_that_names_the_live_database_does_not_reach_it() {
    let site = TestSite::builder().mariadb("main", own_mariadb(), MARIADB).root("web", tree()).build();
    with_backup(&site);
    let before = Fingerprint::of(&site);
    let live = site.mariadb("main").unwrap().name.clone();
    let at = site.write(&Pkg::new("p").step(sql(format!("UPDATE {live}.product SET price = 9;"))));
    let ran = run(&site, &["rehearse", at.to_str().unwrap()]);
    assert!(matches!(ran.code, Some(1 | 4)), "{ran}");
    before.assert_same(&Fingerprint::of(&site), "rehearsed");
    assert_eq!(left(&site), "");
}

/// Killed in the middle: the next command drops the database and the account.
fn killed(site: &TestSite) {
    with_backup(site);
    let file = site.dir().join("site.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let open = text.trim_end().strip_suffix('}').unwrap();
    fs::write(&file, format!("{open},\"scratch\":{{\"environment\":{{}}}}}}")).unwrap();
    let before = Fingerprint::of(site);
    let reached = site.dir().join("reached");
    let wait = format!("touch {}; exec sleep 600", reached.display());
    let at = site.write(&Pkg::new("p").step(sql("UPDATE product SET price = 9;")).step(command(&wait, Some("true"))));
    let mut tool = Command::new(env!("CARGO_BIN_EXE_backout"))
        .args(["rehearse", at.to_str().unwrap()])
        .current_dir(site.dir())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !reached.exists() {
        assert!(tool.try_wait().unwrap().is_none(), "it ended before its command ran");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(left(site).lines().collect::<std::collections::BTreeSet<_>>().len(), 1);
    tool.kill().unwrap();
    tool.wait().unwrap();
    run(site, &["resume"]).exits(0).says("rehearsal that was interrupted");
    assert_eq!(left(site), "");
    before.assert_same(&Fingerprint::of(site), "killed");
}

#[test]
fn what_a_killed_rehearsal_made_on_postgres_goes_with_the_next_command() {
    killed(&TestSite::builder().postgres("main", own_postgres(), POSTGRES).root("web", tree()).build());
}

#[test]
fn what_a_killed_rehearsal_made_on_mariadb_goes_with_the_next_command() {
    killed(&TestSite::builder().mariadb("main", own_mariadb(), MARIADB).root("web", tree()).build());
}

/// Databases that the operator names are filled and emptied again, and are never overwritten.
fn in_named_ones(site: &TestSite, url: &str, touch: impl Fn(&str), script: &str) {
    with_backup(site);
    let file = site.dir().join("site.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let open = text.trim_end().strip_suffix('}').unwrap();
    fs::write(&file, format!("{open},\"scratch\":{{\"databases\":{{\"main\":{{\"url\":\"{url}\"}}}}}}}}")).unwrap();
    let at = site.write(&package(script));
    run(site, &["rehearse", at.to_str().unwrap()]).exits(0);
    touch("CREATE TABLE mine (a INT)");
    run(site, &["rehearse", at.to_str().unwrap()]).exits(4).says("is not empty");
    touch("INSERT INTO mine VALUES (1)");
    assert_eq!(left(site), "");
}

#[test]
fn databases_that_the_site_names_for_it_are_filled_and_emptied() {
    let server = own_postgres();
    let scratch = server.database();
    let site = TestSite::builder().postgres("main", server, POSTGRES).root("web", tree()).build();
    let touch = |script: &str| drop(scratch.psql(script));
    in_named_ones(&site, &scratch.url(), touch, "UPDATE product SET name = 'y'; DROP VIEW extra.cheap;");
    let server = own_mariadb();
    let scratch = server.database();
    let site = TestSite::builder().mariadb("main", server, MARIADB).root("web", tree()).build();
    let touch = |script: &str| drop(scratch.script(script));
    in_named_ones(&site, &scratch.url(), touch, "UPDATE product SET name = 'y'; DROP TABLE gone;");
}
