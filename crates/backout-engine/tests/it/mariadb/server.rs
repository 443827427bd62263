//! What the server allows: a plain account, another server than MariaDB, a binary log.

use backout_engine::outcome::Status;
use backout_model::target::Target as _;
use backout_sql::mariadb::{Mariadb, Options};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::mariadb::{Database, Queryable as _, Server};
use backout_testkit::package::{Pkg, sql};
use backout_testkit::site::TestSite;

fn options(database: &Database<'_>, user: &str) -> Options {
    let parameters = [
        ("user", user.to_owned()),
        ("dbname", database.name.clone()),
        ("socket", database.server().socket().display().to_string()),
    ];
    let parameters = parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Options { site: "shop".to_owned(), name: "main".to_owned(), parameters }
}

const BASE: &str = "CREATE TABLE t (a int PRIMARY KEY, b int) ENGINE=InnoDB; INSERT INTO t VALUES (1, 1); CREATE VIEW v AS SELECT a FROM t;";

#[test]
fn a_plain_account_is_enough() {
    let server = Server::shared();
    let user = format!("plain{}", std::process::id());
    let site = TestSite::builder().mariadb_as("main", server, BASE, &user).build();
    let name = &site.mariadb("main").unwrap().name;
    site.mariadb("main")
        .unwrap()
        .script(&format!("CREATE USER {user}@localhost; GRANT ALL ON {name}.* TO {user}@localhost"));
    let before = Fingerprint::of(&site);
    let script = "UPDATE t SET b = 2; ALTER TABLE t DROP COLUMN b; DROP VIEW v; TRUNCATE t; DROP TABLE t;";
    site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    site.redo().expect(Status::Done);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone again");
    site.mariadb("main").unwrap().script(&format!("DROP USER {user}@localhost"));
}

#[test]
fn a_server_that_is_another_is_refused_in_plain_words() {
    for (version, why) in [("8.0.36", "the server is MySQL 8.0.36"), ("10.5.20-MariaDB", "MariaDB 10.6 is the oldest")]
    {
        let server = Server::with(&[&format!("--version={version}")]);
        let error = Mariadb::open(&options(&server.database(), "root")).err().expect("it is refused");
        let text = format!("{error:?}");
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn a_binary_log_takes_triggers_away_from_a_plain_account() {
    let server: &'static Server = Box::leak(Box::new(Server::with(&["--log-bin=bin", "--server-id=1"])));
    let site = TestSite::builder().mariadb_as("main", server, BASE, "plain").build();
    let database = site.mariadb("main").unwrap();
    database.script(&format!("CREATE USER plain@localhost; GRANT ALL ON {}.* TO plain@localhost", database.name));
    let before = Fingerprint::of(&site);
    let package = Pkg::new("p").step(sql("CREATE TABLE u (a int PRIMARY KEY) ENGINE=InnoDB; UPDATE t SET b = 2;"));
    let done = site.deploy(&package);
    assert_eq!(done.status(), Status::Refused, "{done:?}");
    assert!(format!("{done:?}").contains("log_bin_trust_function_creators"), "{done:?}");
    before.assert_same(&Fingerprint::of(&site), "refused");
    let mut target = Mariadb::open(&options(database, "plain")).unwrap();
    let findings = target.examine().unwrap();
    assert!(findings.iter().any(|one| one.grave && one.what.contains("may not make triggers")), "{findings:?}");
    database.script("SET GLOBAL log_bin_trust_function_creators = 1");
    site.deploy(&package).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

/// Each right that is missing is told with what it costs, and `plan` refuses what cannot be captured without it.
#[test]
fn rights_that_are_missing_are_told() {
    let server = Server::shared();
    let user = format!("poor{}", std::process::id());
    let site = TestSite::builder().mariadb_as("main", server, BASE, &user).build();
    let database = site.mariadb("main").unwrap();
    let name = &database.name;
    database.script(&format!("CREATE USER {user}@localhost; GRANT ALL ON {name}.* TO {user}@localhost"));
    let told = || {
        let findings = Mariadb::open(&options(database, &user)).unwrap().examine().unwrap();
        let lacks = |what: &str| what.contains("lacks the right") || what.contains("may not");
        let lacking = findings.into_iter().filter(|one| lacks(&one.what));
        lacking.map(|one| (one.what, one.grave)).collect::<Vec<_>>()
    };
    // Everything on the one database: only what lies beside it is missing, and nothing of that is grave.
    let plain = told();
    assert!(plain.iter().all(|(_, grave)| !grave), "{plain:?}");
    let says = |all: &[(String, bool)], what: &str, grave| all.iter().any(|one| one.0.contains(what) && one.1 == grave);
    assert!(says(&plain, "PROCESS", false) && says(&plain, "SET USER", false), "{plain:?}");
    let before = Fingerprint::of(&site);
    for (right, grave) in [
        ("TRIGGER", true),
        ("LOCK TABLES", false),
        ("CREATE TEMPORARY TABLES", true),
        ("CREATE VIEW", false),
        ("ALTER ROUTINE", false),
        ("EVENT", false),
        ("DELETE", true),
        ("CREATE", true),
        ("ALTER", true),
    ] {
        database.script(&format!("REVOKE {right} ON {name}.* FROM {user}@localhost"));
        let found = told();
        assert_eq!(found.len(), plain.len() + 1, "{right}: {found:?}");
        assert!(says(&found, right, grave), "{right}: {found:?}");
        if right == "CREATE TEMPORARY TABLES" {
            let done = site.deploy(&Pkg::new("p").step(sql("UPDATE t SET b = 2;")));
            assert_eq!(done.status(), Status::Refused, "{done:?}");
            assert!(format!("{done:?}").contains("no change of rows can be undone"), "{done:?}");
        }
        if right == "TRIGGER" {
            let script = "CREATE TABLE u (a int PRIMARY KEY) ENGINE=InnoDB; UPDATE t SET b = 2;";
            let done = site.deploy(&Pkg::new("p").step(sql(script)));
            assert_eq!(done.status(), Status::Refused, "{done:?}");
            assert!(format!("{done:?}").contains(&format!("GRANT TRIGGER ON `{name}`.*")), "{done:?}");
            before.assert_same(&Fingerprint::of(&site), "refused");
        }
        database.script(&format!("GRANT {right} ON {name}.* TO {user}@localhost"));
    }
    database.script(&format!("DROP USER {user}@localhost"));
}

/// As its grants say: on the database by name or pattern, on all, or on nothing but tables.
#[test]
fn doctor_tells_whether_what_others_write_is_told_apart() {
    let database = Server::shared().database();
    let (name, user) = (database.name.clone(), format!("deaf_{}", database.name));
    database.script(&format!(
        "CREATE TABLE t (a int); CREATE USER {user}@localhost; GRANT SELECT ON {name}.t TO {user}@localhost"
    ));
    let said = || {
        let found = Mariadb::open(&options(&database, &user)).unwrap().examine().unwrap();
        found.into_iter().map(|finding| finding.what).collect::<Vec<_>>().join("\n")
    };
    let is_deaf = || {
        let said = said();
        assert_ne!(
            said.contains("told apart where their sessions were there"),
            said.contains("GRANT TRIGGER ON"),
            "{said}"
        );
        said.contains("GRANT TRIGGER ON")
    };
    let grant = |right: &str, on: &str| database.script(&format!("GRANT {right} ON {on} TO {user}@localhost"));
    let revoke = |right: &str, on: &str| database.script(&format!("REVOKE {right} ON {on} FROM {user}@localhost"));
    assert!(is_deaf());
    grant("TRIGGER", "`other\\_%`.*");
    assert!(is_deaf());
    let pattern = format!("`{}%`.*", name.replace('_', "\\_"));
    for (right, on) in
        [("TRIGGER", format!("{name}.*")), ("ALL PRIVILEGES", pattern), ("SELECT, TRIGGER", "*.*".to_owned())]
    {
        grant(right, &on);
        assert!(!is_deaf(), "{right} ON {on}");
        revoke(right, &on);
        assert!(is_deaf(), "{right} ON {on}");
    }
    database.script(&format!("DROP USER {user}@localhost"));
}

/// A server that keeps the time to itself since: what gives rows the moment is not done again with another one.
#[test]
fn a_redo_without_the_time_of_then_is_refused() {
    let server: &'static Server = Box::leak(Box::new(Server::fresh()));
    let site = TestSite::builder().mariadb("main", server, BASE).build();
    let packages = [
        Pkg::new("plain").step(sql("ALTER TABLE t ADD c int DEFAULT 5;")),
        Pkg::new("timed").step(sql("UPDATE t SET b = 2; ALTER TABLE t ADD at datetime(6) DEFAULT NOW(6);")),
    ];
    for package in &packages {
        site.deploy(package).expect(Status::Done);
    }
    for _ in &packages {
        site.undo(None).expect(Status::Done);
    }
    server.kill();
    server.set("--secure-timestamp=YES");
    server.start();
    site.redo().expect(Status::Done);
    let before = Fingerprint::of(&site);
    let done = site.redo();
    assert_eq!(done.status(), Status::Failed, "{done:?}");
    assert!(format!("{done:?}").contains("they would get another one than at first"), "{done:?}");
    before.assert_same(&Fingerprint::of(&site), "refused");
}

/// A server that starts anew forgets the numbers that a statement set aside and did not use.
#[test]
fn a_counter_goes_back_behind_a_restart_where_nobody_used_it() {
    let server: &'static Server = Box::leak(Box::new(Server::fresh()));
    let site = TestSite::builder()
        .mariadb("main", server, "CREATE TABLE n (id int AUTO_INCREMENT PRIMARY KEY, a int) ENGINE=InnoDB; INSERT INTO n (a) VALUES (1), (2), (3), (4);")
        .build();
    let counter =
        "SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'n'";
    let read = || site.mariadb("main").unwrap().connect().query_first::<u64, _>(counter).unwrap().unwrap_or_default();
    for (theirs, left) in [("DO 0", 5), ("INSERT INTO n (a) VALUES (9)", 10)] {
        site.deploy(&Pkg::new("p").step(sql("INSERT INTO n (a) SELECT a FROM n;"))).expect(Status::Done);
        let after = read();
        server.kill();
        server.start();
        let mut others = site.mariadb("main").unwrap().connect();
        assert!(read() < after, "{} {after}", read());
        others.query_drop(theirs).unwrap();
        others.query_drop("DELETE FROM n WHERE a = 9").unwrap();
        site.undo(None).expect(Status::Done);
        assert_eq!(read(), left, "{theirs}");
    }
}

/// A server whose COMMIT begins the next transaction, or lets go of the session.
#[test]
fn a_commit_is_a_plain_one_whatever_the_server_has_it_be() {
    for kind in ["--completion-type=CHAIN", "--completion-type=RELEASE"] {
        let server: &'static Server = Box::leak(Box::new(Server::with(&[kind])));
        let site = TestSite::builder().mariadb("main", server, BASE).build();
        let before = Fingerprint::of(&site);
        let script = "UPDATE t SET b = 2; ALTER TABLE t MODIFY b varchar(9), ADD c int DEFAULT 4; UPDATE t SET c = 1; TRUNCATE t; INSERT INTO t VALUES (5, 'x', 2);";
        site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
        let deployed = Fingerprint::of(&site);
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), kind);
        site.redo().expect(Status::Done);
        deployed.assert_same(&Fingerprint::of(&site), kind);
    }
}

#[test]
fn doctor_tells_of_a_way_that_is_not_encrypted() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = ["--skip-networking=0".to_owned(), format!("--port={port}"), "--bind-address=127.0.0.1".to_owned()];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server: &'static Server = Box::leak(Box::new(Server::with(&settings)));
    let database = server.database();
    database.script("CREATE USER far@'%'; GRANT ALL ON *.* TO far@'%'");
    let tells = |options: &Options| {
        let findings = Mariadb::open(options).unwrap().examine().unwrap();
        findings.iter().any(|one| !one.grave && one.what.contains("is not encrypted"))
    };
    let by_socket = options(&database, "far");
    assert!(!tells(&by_socket));
    let mut by_tcp = options(&database, "far");
    by_tcp.parameters.remove("socket");
    by_tcp.parameters.extend([("host".to_owned(), "127.0.0.1".to_owned()), ("port".to_owned(), port.to_string())]);
    by_tcp.parameters.insert("ssl-mode".to_owned(), "disabled".to_owned());
    assert!(tells(&by_tcp));
}

/// What the tool left when it was stopped in the middle goes with the next lock.
#[test]
fn a_server_that_dies_between_two_segments() {
    let server: &'static Server = Box::leak(Box::new(Server::fresh()));
    let site = TestSite::builder().mariadb("main", server, BASE).build();
    let before = Fingerprint::of(&site);
    let script = "UPDATE t SET b = 2; ALTER TABLE t ADD c int; UPDATE t SET c = SLEEP(1); ALTER TABLE t ADD d int;";
    std::thread::scope(|scope| {
        let deploying = scope.spawn(|| site.deploy(&Pkg::new("p").step(sql(script))));
        let mut watching = server.connect("mysql");
        let asleep = "SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO LIKE 'UPDATE t SET c = SLEEP%'";
        while watching.query_first::<u32, _>(asleep).unwrap().is_none() {
            std::thread::yield_now();
        }
        server.kill();
        server.start();
        let done = deploying.join().unwrap();
        assert_eq!(done.status(), Status::Failed, "{done:?}");
    });
    before.assert_same(&Fingerprint::of(&site), "failed");
}
