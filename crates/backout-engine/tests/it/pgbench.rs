//! The server's own benchmark runs on the tables that are being deployed to: not one of its transactions is lost, fails,
//! or counts twice. Its foreign keys lock the rows that the deployments change.

use std::process::Stdio;

use backout_engine::outcome::Status;
use backout_testkit::package::{Pkg, sql};
use backout_testkit::postgres::Server;
use backout_testkit::site::{Done, TestSite};

const CLIENTS: u64 = 4;
/// Of each client.
const TRANSACTIONS: u64 = 1500;

/// A step a table, so that no lock is held while another is waited for.
fn package() -> Pkg {
    Pkg::new("fillers")
        .step(sql("UPDATE pgbench_accounts SET filler = 'winter' WHERE aid % 20 = 0;"))
        .step(sql("UPDATE pgbench_tellers SET filler = 'winter';"))
        .step(sql("UPDATE pgbench_branches SET filler = 'winter';"))
}

/// An undo looks for conflicts in all tables at once. Where it and a transaction of the benchmark wait for each other, or
/// one waits for long, the tool has changed nothing, says so, and is told again.
fn done(command: impl Fn() -> Done) {
    for _ in 0..50 {
        let done = command();
        if done.status() == Status::Done {
            return;
        }
        let waited = ["deadlock detected", "lock timeout"].iter().any(|why| done.words().contains(why));
        assert!(done.status() == Status::Refused && waited, "{done:?}");
    }
    panic!("nothing but waiting");
}

#[test]
fn pgbench_loses_nothing() {
    let server = Server::shared();
    let site = TestSite::builder().postgres("main", server, "").build();
    let database = site.postgres("main").unwrap();
    let made = server.client("pgbench").args(["-i", "-q", "--foreign-keys", &database.name]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let fillers = "SELECT md5(string_agg(f, ',' ORDER BY f)) FROM (
        SELECT 'a' || aid || coalesce(filler, '-') AS f FROM pgbench_accounts
        UNION ALL SELECT 't' || tid || coalesce(filler, '-') FROM pgbench_tellers
        UNION ALL SELECT 'b' || bid || coalesce(filler, '-') FROM pgbench_branches) AS s";
    let before = database.psql(fillers);
    let (clients, transactions) = (CLIENTS.to_string(), TRANSACTIONS.to_string());
    let mut pgbench = server
        .client("pgbench")
        .args([
            "--no-vacuum",
            "--max-tries",
            "100",
            "--client",
            &clients,
            "--transactions",
            &transactions,
            &database.name,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut rounds = 0;
    while rounds < 3 || pgbench.try_wait().unwrap().is_none() {
        done(|| site.deploy(&package()));
        done(|| site.undo(None));
        rounds += 1;
    }
    let output = pgbench.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{rounds} rounds meanwhile");
    let all = CLIENTS * TRANSACTIONS;
    assert!(said.contains(&format!("processed: {all}/{all}")), "{said}");
    assert_eq!(database.psql("SELECT count(*) FROM pgbench_history"), format!("{all}\n"));
    let sums = "SELECT count(DISTINCT s) FROM (SELECT sum(abalance) AS s FROM pgbench_accounts
        UNION ALL SELECT sum(tbalance) FROM pgbench_tellers UNION ALL SELECT sum(bbalance) FROM pgbench_branches
        UNION ALL SELECT sum(delta) FROM pgbench_history) AS sums";
    assert_eq!(database.psql(sums), "1\n", "the balances do not agree with the history");
    assert_eq!(database.psql(fillers), before, "the fillers are not as they were");
}
