//! Passwords reach databases and mail servers, and nothing else: no file that is kept, no record, no output, no argument
//! list of any process of a run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use backout_testkit::{mariadb, postgres};

use crate::record::sh;
use crate::scene::{Hold, Scene};

const PASSWORDS: [&str; 3] = ["pg-S3cret/p@ss", "maria-S3cret:w%rd", "mail-S3cret+pass"];

/// Files below `dir` that hold one of the passwords, as they are or percent-encoded.
fn holding(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            holding(&path, found);
        } else if meta.is_file() {
            let content = fs::read(&path).unwrap();
            let packed = path.to_string_lossy().ends_with(".tar.zst");
            let content = if packed { zstd::decode_all(&content[..]).unwrap() } else { content };
            found.extend(secrets_in(&content).map(|secret| format!("{}: {secret}", path.display())));
        }
    }
}

/// The parts of passwords that no encoding changes.
fn secrets_in(content: &[u8]) -> impl Iterator<Item = &'static str> {
    let holds = |part: &str| content.windows(part.len()).any(|window| window == part.as_bytes());
    ["pg-S3cret", "maria-S3cret", "mail-S3cret"]
        .into_iter()
        .filter(move |part| holds(part))
        .collect::<Vec<_>>()
        .into_iter()
}

/// The argument lists of a process and of all that it started.
fn argument_lists(child: &Child) -> Vec<u8> {
    let mut lists = Vec::new();
    let mut family = BTreeSet::from([child.id()]);
    for _ in 0..5 {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
            if family.contains(&pid) || parent.is_some_and(|parent| family.contains(&parent)) {
                family.insert(pid);
                lists.extend(fs::read(entry.path().join("cmdline")).unwrap_or_default());
            }
        }
    }
    assert!(family.len() > 1, "no command was found running");
    lists
}

#[test]
fn passwords_are_nowhere() {
    let scene = Scene::new();
    let [pg_password, maria_password, mail_password] = PASSWORDS;
    let pg = postgres::Server::shared().database();
    pg.psql(&format!(
        "CREATE TABLE a (id integer PRIMARY KEY, x text); INSERT INTO a VALUES (1, 'one');
         CREATE ROLE {0} LOGIN PASSWORD '{pg_password}'; ALTER TABLE a OWNER TO {0};
         GRANT CREATE ON DATABASE {0} TO {0}; GRANT CREATE ON SCHEMA public TO {0};",
        pg.name
    ));
    let maria = mariadb::Server::shared().database();
    maria.script(&format!(
        "CREATE TABLE b (id INT PRIMARY KEY, x TEXT); INSERT INTO b VALUES (1, 'one');
         CREATE USER {0}@localhost IDENTIFIED BY '{maria_password}'; GRANT ALL ON {0}.* TO {0}@localhost;",
        maria.name
    ));
    let (server, socket) = (pg.server(), maria.server().socket());
    let site = format!(
        "site: shop\ndatabases:\n  pg: {{url: \"postgresql://{0}:${{PG_PASSWORD}}@/{0}?host={1}&port={2}\"}}\n  \
         maria: {{url: \"mariadb://{3}:${{MARIA_PASSWORD}}@localhost/{3}?socket={4}\"}}\nrecord: true\n\
         alerts:\n  - email: ops@shop.example\n    smtp: \"smtp://joe:${{MAIL_PASSWORD}}@localhost:1?tls=never\"\n",
        pg.name,
        server.socket().display(),
        server.port(),
        maria.name,
        socket.display()
    );
    scene.write("site.yaml", site);
    let hold = Hold::new(&scene);
    let steps = format!(
        "steps:\n  - sql: a.sql\n    database: pg\n  - sql: b.sql\n    database: maria\n  \
         - run: [sh, -c, \"echo $BACKOUT_DATABASE_PG $BACKOUT_DATABASE_MARIA {{database.pg}}\"]\n    undo: [\"true\"]\n{}",
        hold.step()
    );
    scene.package("change", &steps);
    scene.write("change/a.sql", "UPDATE a SET x = 'two';");
    scene.write("change/b.sql", "UPDATE b SET x = 'two';");
    let command = |words: &[&str]| {
        let mut command = scene.command(words);
        command
            .env("PG_PASSWORD", pg_password)
            .env("MARIA_PASSWORD", maria_password)
            .env("MAIL_PASSWORD", mail_password);
        command
    };
    let mut said = Vec::new();
    let child = command(&["deploy", "change", "-v"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    hold.wait();
    said.extend(argument_lists(&child));
    hold.release();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    said.extend([output.stdout, output.stderr].concat());
    let record = sh(&scene.path(".backout/records"), "ls");
    fs::copy(scene.path(".backout/records").join(record.trim()), scene.path("rec")).unwrap();
    // What goes wrong is told as well: by the mail server that is not there, and by a database that is not.
    scene.write("change/a.sql", "UPDATE nothing SET x = 'two';");
    let wrong = scene.read("site.yaml").replace(&format!("/{0}?host", pg.name), "/no_such_database?host");
    scene.write("wrong.yaml", wrong);
    for words in [
        &["show", "--json"][..],
        &["inspect", "rec"],
        &["status", "--json"],
        &["deploy", "change", "--json"],
        &["deploy", "change", "--site", "wrong.yaml"],
        &["undo"],
        &["verify", "--json"],
    ] {
        let output = command(words).output().unwrap();
        said.extend([output.stdout, output.stderr].concat());
    }
    assert_eq!(secrets_in(&said).collect::<Vec<_>>(), Vec::<&str>::new(), "{}", String::from_utf8_lossy(&said));
    let mut found = Vec::new();
    holding(&scene.path("."), &mut found);
    assert_eq!(found, Vec::<String>::new());
    assert!(
        String::from_utf8_lossy(&said).contains("nobody was told by mail"),
        "no mail was tried: {}",
        String::from_utf8_lossy(&said)
    );
}
