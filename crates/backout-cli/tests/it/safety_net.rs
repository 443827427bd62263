//! What an operator can count on, on each engine: a deployment whose smoke test fails is undone and told; where its undo
//! cannot be done, that is said, and the backup brings the site back.

use std::fs;
use std::process::{Command, Stdio};

use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::http::{Answer, HttpServer};
use backout_testkit::package::{Pkg, run as command, sql_is};
use backout_testkit::site::TestSite;
use backout_testkit::{mariadb, postgres};
use serde_json::Value;

use crate::backup::{package, run, tree, with_backup};
use crate::scene::Ran;

/// Lets somebody be told by a webhook.
fn alerting(site: &TestSite) -> HttpServer {
    let told = HttpServer::start(|_| Answer::new(200, ""));
    let file = site.dir().join("site.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let open = text.trim_end().strip_suffix('}').unwrap();
    fs::write(&file, format!("{open},\"alerts\":[{{\"webhook\":\"{}\"}}]}}", told.url("/"))).unwrap();
    told
}

/// The status and the closing line of the last alert, of `count`.
fn last_told(told: &HttpServer, count: usize) -> (String, String) {
    let asked = told.asked();
    assert_eq!(asked.len(), count, "{asked:?}");
    let alert: Value = serde_json::from_str(&asked.last().unwrap().body).unwrap();
    let text = |key: &str| alert[key].as_str().unwrap().to_owned();
    (text("status"), text("closing"))
}

/// Deploys, and drops the hold on purpose before the smoke test fails.
fn deploy_and_break(site: &TestSite, package: Pkg, break_it: impl FnOnce(&TestSite)) -> Ran {
    let (reached, go) = (site.dir().join("reached"), site.dir().join("go"));
    let wait = format!("touch {}; while [ ! -e {} ]; do sleep 0.01; done", reached.display(), go.display());
    let at = site.write(&package.step(command(&wait, Some("true"))).after(smoke("2")));
    let words = ["deploy", at.to_str().unwrap()];
    let mut tool = Command::new(env!("CARGO_BIN_EXE_backout"));
    let tool = tool.args(words).current_dir(site.dir()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tool = tool.spawn().unwrap();
    while !reached.exists() {
        assert!(tool.try_wait().unwrap().is_none(), "it ended before its command ran");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    break_it(site);
    fs::write(&go, "").unwrap();
    Ran::of(&words, tool.wait_with_output().unwrap())
}

fn smoke(expected: &str) -> Value {
    let mut check = sql_is("SELECT 1", expected);
    check["database"] = "main".into();
    check
}

fn safe(site: &TestSite, package: &Pkg, break_it: impl FnOnce(&TestSite)) {
    with_backup(site);
    let told = alerting(site);
    let before = Fingerprint::of(site);
    let failing = site.write(&package.clone().after(smoke("2")));
    run(site, &["deploy", failing.to_str().unwrap()])
        .exits(1)
        .says("expected 2, got 1")
        .closes("Everything was undone and verified.");
    before.assert_same(&Fingerprint::of(site), "undone");
    let undone = "Everything was undone and verified.".to_owned();
    assert_eq!(last_told(&told, 1), ("failed".to_owned(), undone));

    let broken = deploy_and_break(site, package.clone(), break_it).exits(3);
    let closing = broken.stderr.lines().last().unwrap().to_owned();
    assert!(closing.starts_with("Needs a hand: "), "{broken}");
    assert_eq!(last_told(&told, 2), ("needs-hand".to_owned(), closing));
    assert!(!before.differences(&Fingerprint::of(site)).is_empty(), "{broken}");
    let way_back = "backout restore ";
    assert!(broken.stderr.contains(way_back), "{broken}");
    run(site, &["status"]).exits(0).answers("needs a hand: ").answers("go on with: backout undo").answers(way_back);
    let at = site.write(package);
    run(site, &["deploy", at.to_str().unwrap()]).exits(4).says("needs a hand first");

    let refused = run(site, &["restore"]).exits(2).says("--yes");
    assert!(refused.stderr.contains("winter 1"), "{refused}");
    run(site, &["restore", "--yes"]).exits(0).says("cannot be undone or redone any more");
    before.assert_same(&Fingerprint::of(site), "restored");
    run(site, &["verify", "--backup"]).exits(0).answers("as it was written");
    // The history goes on from here.
    let status = run(site, &["status"]).exits(0).answers("nothing is deployed");
    assert!(!status.stdout.contains("needs a hand"), "{status}");
    run(site, &["deploy", at.to_str().unwrap()]).exits(0);
    run(site, &["undo"]).exits(0);
    before.without_directory_times().assert_same(&Fingerprint::of(site).without_directory_times(), "undone");
}

fn drop_the_hold_of_files(site: &TestSite) {
    let entries = fs::read_dir(site.dir()).unwrap().map(Result::unwrap);
    let mut holds = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".backout-"));
    fs::remove_dir_all(holds.next().expect("no hold of files").path()).unwrap();
}

#[test]
fn on_sqlite_and_files() {
    let script = "CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO product VALUES (1, 'hat');";
    let site = TestSite::builder().database("main", script).root("web", tree()).build();
    let package = package("INSERT INTO product VALUES (2, 'scarf'); ALTER TABLE product ADD COLUMN price REAL;");
    safe(&site, &package, |site| {
        drop_the_hold_of_files(site);
    });
}

#[test]
fn on_postgres() {
    let script = "CREATE SCHEMA extra; CREATE TYPE public.size AS ENUM ('s', 'm'); CREATE DOMAIN public.price AS numeric CHECK (value > 0);
        CREATE TABLE product (id serial PRIMARY KEY, name text, size public.size, price public.price);
        INSERT INTO product (name, size, price) VALUES ('hat', 's', 1.50); CREATE VIEW extra.cheap AS SELECT * FROM product;
        CREATE FUNCTION public.twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2'; CREATE AGGREGATE public.mul(int) (sfunc = int4mul, stype = int);
        CREATE MATERIALIZED VIEW seen AS SELECT 1 AS one; CREATE STATISTICS st ON id, name FROM product; SELECT lo_from_bytea(0, 'large');
        COMMENT ON TABLE product IS 'a\\b';";
    let site = TestSite::builder().postgres("main", postgres::Server::shared(), script).root("web", tree()).build();
    let package = package(
        "CREATE TABLE new (a int); DROP VIEW extra.cheap; ALTER TABLE product DROP COLUMN size; INSERT INTO product (name, price) VALUES ('x', 2);",
    );
    safe(&site, &package, |site| {
        let live = site.postgres("main").unwrap();
        live.psql("DO $$ DECLARE t text; BEGIN FOR t IN SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname LIKE 'backout%' AND tablename NOT LIKE '%marker%' LOOP EXECUTE 'DROP TABLE ' || t || ' CASCADE'; END LOOP; END $$");
        drop_the_hold_of_files(site);
    });
}

#[test]
fn on_mariadb_with_every_bit_of_its_floats() {
    let script = "CREATE TABLE product (id BIGINT UNSIGNED, part VARBINARY(8), f FLOAT, g FLOAT, at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), PRIMARY KEY (id, part));
        INSERT INTO product (id, part, f, g, at) VALUES (18446744073709551615, x'00ff27', 0.1234567, 16777215, '2001-01-01 00:00:00.123456'), (2, 'a''b', 1e-38, NULL, '2001-01-01 00:00:00');
        CREATE TABLE seen (n INT); CREATE SEQUENCE s START 5; CREATE VIEW v AS SELECT id FROM product;
        CREATE TRIGGER tr AFTER UPDATE ON product FOR EACH ROW INSERT INTO seen VALUES (1);
        CREATE FUNCTION twice(a INT) RETURNS INT RETURN a * 2; CREATE TABLE gone (b BIT(9), j JSON, t TEXT); INSERT INTO gone VALUES (b'101', '{}', 'ä\\\\');";
    let site = TestSite::builder().mariadb("main", mariadb::Server::shared(), script).root("web", tree()).build();
    let package = package("CREATE TABLE new (a INT PRIMARY KEY); DROP TABLE gone;");
    safe(&site, &package, |site| {
        let live = site.mariadb("main").unwrap();
        let held = live.script("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'backout%$%$%$%'");
        assert!(!held.is_empty());
        held.lines().for_each(|table| drop(live.script(&format!("DROP TABLE `{table}`"))));
        drop_the_hold_of_files(site);
    });
}
