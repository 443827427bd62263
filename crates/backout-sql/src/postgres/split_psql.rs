//! Scripts as split here against the statements that a server was given when psql ran the same script.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::time::{Duration, Instant};

use backout_testkit::postgres::{Database, Server, Setup};

use super::split::tests::{BETWEEN, STATEMENTS, bare, parts, sql};

/// What the server was given, statement by statement, when psql ran the script.
fn by_psql(server: &Server, database: &Database<'_>, script: &str) -> Vec<String> {
    let name = &database.name;
    database.psql(&format!("ALTER DATABASE {name} SET log_statement = 'all'"));
    let from = log(server).metadata().unwrap().len();
    // The log is written by a process of its own, which may be behind: what it holds of before comes before this.
    database.psql("SELECT 'the start'");
    database.psql(script);
    // What it holds last comes last.
    database.psql("SELECT 'the end'");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let mut sent = logged(server, from, &database.name);
        if sent.pop_if(|last| last.starts_with("SELECT 'the end'")).is_some() {
            let start = sent.iter().rposition(|sql| sql.starts_with("SELECT 'the start'"));
            return sent.split_off(start.expect("the log has its start") + 1);
        }
        assert!(Instant::now() < deadline, "the log lacks its end: {sent:?}");
    }
}

fn log(server: &Server) -> File {
    let names = std::fs::read_to_string(server.data().join("current_logfiles")).unwrap();
    let csv = names.lines().find_map(|line| line.strip_prefix("csvlog ")).unwrap();
    File::open(server.data().join(csv)).unwrap()
}

/// The statements in the server's CSV log from this byte on: the third field is the database, the fourteenth the message.
fn logged(server: &Server, from: u64, database: &str) -> Vec<String> {
    let (mut log, mut bytes) = (log(server), Vec::new());
    log.seek(SeekFrom::Start(from)).unwrap();
    log.read_to_end(&mut bytes).unwrap();
    // A line may be read while it is written, and so end within a letter.
    let text = String::from_utf8_lossy(&bytes);
    let mut fields = vec![String::new()];
    let (mut found, mut quoted) = (Vec::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => fields.last_mut().unwrap().push(letters.next().unwrap()),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            '\n' if !quoted => {
                if fields[2] == database
                    && let Some(sql) = fields[13].strip_prefix("statement: ")
                {
                    found.push(sql.to_owned());
                }
                fields = vec![String::new()];
            }
            _ => fields.last_mut().unwrap().push(letter),
        }
    }
    found
}

fn logging_server() -> Server {
    let settings = [("logging_collector", "on"), ("log_destination", "csvlog")];
    let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
    let setup = Setup { settings, ..Default::default() };
    Server::with(&setup)
}

#[test]
fn a_dump_is_split_as_psql_splits_it() {
    let server = logging_server();
    let database = server.database();
    // The body is a part of the statement from 14 on.
    let body = if server.version() < 14 {
        "AS 'SELECT 1; SELECT 2'"
    } else {
        "BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END"
    };
    database.psql(&format!(
        "CREATE TABLE t(a int, b text); INSERT INTO t VALUES (1, E'a\\n;''\\t\\\\.'), (2, NULL), (3, '\\.');
         CREATE TABLE s(\"a;\" text DEFAULT ';', CHECK (\"a;\" <> '$$;'));
         CREATE FUNCTION f() RETURNS int LANGUAGE sql {body};
         CREATE RULE r AS ON UPDATE TO t DO ALSO (DELETE FROM s; DELETE FROM s);
         COMMENT ON TABLE t IS E'it''s; \\\\ a \"table\"';",
    ));
    let dump = server.client("pg_dump").args(["--dbname", &database.name]).output().unwrap();
    // A dump by a newer client sets what an older server does not know.
    let unknown = if server.version() < 17 { "SET transaction_timeout = 0;\n" } else { "" };
    let dump = String::from_utf8(dump.stdout).unwrap().replacen(unknown, "", 1);
    let parts = parts(&dump);
    let data: Vec<_> = parts.iter().filter_map(|(_, _, data)| data.as_deref()).map(String::from_utf8_lossy).collect();
    assert_eq!(data, ["", "1\ta\\n;'\\t\\\\.\n2\t\\N\n3\t\\\\.\n"]);
    let sent: Vec<String> = by_psql(&server, &server.database(), &dump).iter().map(|sql| bare(sql)).collect();
    assert_eq!(parts.iter().map(|(_, sql, _)| bare(sql)).collect::<Vec<_>>(), sent);
}

#[test]
fn psql_sends_the_same_statements() {
    let server = logging_server();
    // psql mistakes an `E'…'` that is continued on another line.
    let is_known = |sql: &&str| server.version() >= 14 || !sql.to_ascii_uppercase().contains("ATOMIC");
    let fair = STATEMENTS.into_iter().filter(|sql| !sql.starts_with("SELECT E'a'"));
    let fair: Vec<&str> = fair.filter(is_known).collect();
    let copies = ["COPY t FROM STDIN;\n1\n\\.\n", "COPY s (a) FROM stdin (FORMAT csv);\n1\n\"2\"\n\\.\n"];
    let database = server.database();
    database.psql("CREATE TABLE t(a int); CREATE TABLE s(a int)");
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..12 {
        let mut script = String::new();
        for _ in 0..rng.usize(1..90) {
            if rng.u8(..8) == 0 {
                script.push_str(copies[rng.usize(..copies.len())]);
            } else {
                script.push_str(fair[rng.usize(..fair.len())]);
                script.push_str(BETWEEN[rng.usize(..BETWEEN.len())]);
            }
        }
        let split: Vec<String> = sql(&script).iter().map(|sql| bare(sql)).collect();
        let sent: Vec<String> =
            by_psql(&server, &database, &script).iter().map(|sql| bare(sql)).filter(|sql| !sql.is_empty()).collect();
        assert_eq!(split, sent, "{script}");
    }
}
