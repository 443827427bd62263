//! Passwords reach databases, mail servers, webhooks and the backup, and nothing else: no file that is kept, no record, no
//! output, no argument list of any process of a run, no log of a server.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use backout_testkit::mariadb::Queryable as _;
use backout_testkit::{mariadb, postgres};

use crate::record::sh;
use crate::scene::{Hold, Scene};

/// What is in the environment, and what of it no encoding changes.
const SECRETS: [(&str, &str, &str); 6] = [
    ("PG_PASSWORD", "pg-S3cret/p@ss", "pg-S3cret"),
    ("MARIA_PASSWORD", "maria-S3cret:w%rd", "maria-S3cret"),
    ("MAIL_PASSWORD", "mail-S3cret+pass", "mail-S3cret"),
    ("HOOK_PASSWORD", "hook-S3cret/p@ss", "hook-S3cret"),
    ("HOOK_TOKEN", "token-S3cret", "token-S3cret"),
    ("", "backup-S3cret", "backup-S3cret"),
];

/// A site on two servers, which tells by mail and webhook and is backed up, and what must be found nowhere.
struct Shop<'s> {
    scene: Scene,
    pg: postgres::Database<'s>,
    _maria: mariadb::Database<'s>,
    /// Where the backup's password is.
    _password: tempfile::TempDir,
    secrets: Vec<String>,
    /// All that was written to standard output and error.
    said: Vec<u8>,
}

impl<'s> Shop<'s> {
    fn on(pg: &'s postgres::Server, maria: &'s mariadb::Server) -> Self {
        let (scene, password) = (Scene::new(), tempfile::tempdir().unwrap());
        let (pg, maria) = (pg.database(), maria.database());
        let [(_, pg_password, _), (_, maria_password, _), ..] = SECRETS;
        pg.psql(&format!(
            "CREATE TABLE a (id integer PRIMARY KEY, x text); INSERT INTO a VALUES (1, 'one');
             CREATE ROLE {0} LOGIN CREATEDB CREATEROLE PASSWORD '{pg_password}'; ALTER TABLE a OWNER TO {0};
             GRANT CREATE ON DATABASE {0} TO {0}; GRANT CREATE ON SCHEMA public TO {0};",
            pg.name
        ));
        // A rehearsal makes databases and accounts.
        maria.script(&format!(
            "CREATE TABLE b (id INT PRIMARY KEY, x TEXT); INSERT INTO b VALUES (1, 'one');
             CREATE USER {0}@localhost IDENTIFIED BY '{maria_password}';
             GRANT ALL ON *.* TO {0}@localhost WITH GRANT OPTION;",
            maria.name
        ));
        let file = password.path().join("password");
        fs::write(&file, "backup-S3cret\n").unwrap();
        let site = format!(
            "site: shop\ndatabases:\n  pg: {{url: \"postgresql://{0}:${{PG_PASSWORD}}@/{0}?host={1}&port={2}\"}}\n  \
             maria: {{url: \"mariadb://{3}:${{MARIA_PASSWORD}}@localhost/{3}?socket={4}\"}}\nrecord: true\n\
             backup: {{password-file: {5}}}\nscratch: {{environment: {{}}}}\n\
             alerts:\n  - email: ops@shop.example\n    smtp: \"smtp://joe:${{MAIL_PASSWORD}}@localhost:1?tls=never\"\n  \
             - webhook: \"http://joe:${{HOOK_PASSWORD}}@localhost:1/T0/${{HOOK_TOKEN}}\"\n",
            pg.name,
            pg.server().socket().display(),
            pg.server().port(),
            maria.name,
            maria.server().socket().display(),
            file.display()
        );
        scene.write("site.yaml", site);
        let secrets = SECRETS.map(|(_, _, part)| part.to_owned()).to_vec();
        Self { scene, pg, _maria: maria, _password: password, secrets, said: Vec::new() }
    }

    /// A package that changes both databases, has a command say how they are reached, and then waits.
    fn package(&self, hold: &Hold, more: &str) {
        let steps = format!(
            "steps:\n  - sql: a.sql\n    database: pg\n  - sql: b.sql\n    database: maria\n  \
             - run: [sh, -c, \"echo $BACKOUT_DATABASE_PG $BACKOUT_DATABASE_MARIA {{database.pg}}\"]\n    undo: [\"true\"]\n{}{more}",
            hold.step()
        );
        self.scene.package("change", &steps);
        self.scene.write("change/a.sql", "UPDATE a SET x = 'two';");
        self.scene.write("change/b.sql", "UPDATE b SET x = 'two';");
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.scene.command(words);
        command.envs(SECRETS.iter().filter(|(name, ..)| !name.is_empty()).map(|(name, value, _)| (name, value)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&mut self, words: &[&str]) {
        let output = self.command(words).output().unwrap();
        self.said.extend([output.stdout, output.stderr].concat());
    }

    /// The secrets that `content` holds.
    fn in_content(&self, content: &[u8]) -> Vec<&str> {
        let holds = |part: &&String| content.windows(part.len()).any(|window| window == part.as_bytes());
        self.secrets.iter().filter(holds).map(String::as_str).collect()
    }

    /// The files of the site that hold one of the secrets, as it is or percent-encoded.
    fn in_files(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.below(&self.scene.path("."), &mut found);
        found
    }

    fn below(&self, dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                self.below(&path, found);
            } else if meta.is_file() {
                let content = fs::read(&path).unwrap();
                let packed = path.to_string_lossy().ends_with(".tar.zst");
                let content = if packed { zstd::decode_all(&content[..]).unwrap() } else { content };
                found.extend(self.in_content(&content).iter().map(|secret| format!("{}: {secret}", path.display())));
            }
        }
    }

    #[track_caller]
    fn nowhere(&self) {
        let said = String::from_utf8_lossy(&self.said);
        assert_eq!(self.in_content(&self.said), [""; 0], "{said}");
        assert_eq!(self.in_files(), [""; 0]);
    }
}

/// A process and all that it started, as directories of /proc.
fn family(child: &Child) -> Vec<PathBuf> {
    let mut family = BTreeSet::from([child.id()]);
    for _ in 0..5 {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
            if parent.is_some_and(|parent| family.contains(&parent)) {
                family.insert(pid);
            }
        }
    }
    assert!(family.len() > 1, "no command was found running");
    family.into_iter().map(|pid| Path::new("/proc").join(pid.to_string())).collect()
}

fn argument_lists(child: &Child) -> Vec<u8> {
    family(child).iter().flat_map(|process| fs::read(process.join("cmdline")).unwrap_or_default()).collect()
}

#[test]
fn passwords_are_nowhere() {
    let mut shop = Shop::on(postgres::Server::shared(), mariadb::Server::shared());
    let hold = Hold::new(&shop.scene);
    shop.package(&hold, "");
    let child = shop.command(&["deploy", "change", "-v"]).spawn().unwrap();
    hold.wait();
    shop.said.extend(argument_lists(&child));
    shop.nowhere();
    hold.release();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    shop.said.extend([output.stdout, output.stderr].concat());
    let record = sh(&shop.scene.path(".backout/records"), "ls");
    fs::copy(shop.scene.path(".backout/records").join(record.trim()), shop.scene.path("rec")).unwrap();
    // What goes wrong is told as well: by the mail server and the receiver that are not there, and by a database that is not.
    shop.scene.write("change/a.sql", "UPDATE nothing SET x = 'two';");
    let site = shop.scene.read("site.yaml");
    shop.scene.write("wrong.yaml", site.replace(&format!("/{0}?host", shop.pg.name), "/no_such_database?host"));
    for words in [
        &["show", "--json"][..],
        &["inspect", "rec"],
        &["status", "--json"],
        &["doctor", "-v"],
        &["deploy", "change", "--json"],
        &["deploy", "change", "--site", "wrong.yaml"],
        &["rehearse", "change", "--site", "wrong.yaml"],
        &["undo"],
        &["verify", "--json"],
        &["verify", "--backup", "--json"],
        &["restore", "--yes", "-v"],
    ] {
        shop.run(words);
    }
    shop.nowhere();
    let said = String::from_utf8_lossy(&shop.said);
    for tried in ["nobody was told by mail", "nobody was told by webhook", "restored "] {
        assert!(said.contains(tried), "not tried: {tried}\n{said}");
    }
}

/// The password in a database's URL, as a command is given it.
fn password_in(environment: &[u8], name: &str) -> Option<String> {
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(format!("{name}=").as_bytes()))?;
    let url = OsStr::from_bytes(value).to_str()?;
    let (_, rest) = url.split_once("://")?;
    let (_, password) = rest.split_once('@')?.0.split_once(':')?;
    Some(password.to_owned())
}

/// It is drawn for each rehearsal and is in nobody's file; even the servers are told what they keep of it, not itself.
#[test]
fn the_passwords_of_a_scratch_are_nowhere() {
    let log_all = ("log_statement", "all".to_owned());
    let pg = postgres::Server::with(&postgres::Setup { settings: vec![log_all], ..postgres::Setup::default() });
    let maria = mariadb::Server::with(&["--general-log", "--log-output=TABLE"]);
    let mut shop = Shop::on(&pg, &maria);
    let hold = Hold::new(&shop.scene);
    let failing =
        "  - run: [sh, -c, \"echo $BACKOUT_DATABASE_PG $BACKOUT_DATABASE_MARIA; exit 1\"]\n    undo: [\"true\"]\n";
    shop.package(&hold, failing);
    let child = shop.command(&["rehearse", "change", "-v"]).spawn().unwrap();
    hold.wait();
    let environments: Vec<Vec<u8>> =
        family(&child).iter().filter_map(|one| fs::read(one.join("environ")).ok()).collect();
    for name in ["BACKOUT_DATABASE_PG", "BACKOUT_DATABASE_MARIA"] {
        let password = environments.iter().find_map(|one| password_in(one, name)).expect(name);
        assert_eq!(password.len(), 32, "{name}: {password}");
        shop.secrets.push(password);
    }
    shop.said.extend(argument_lists(&child));
    // The copy is there now, and so is all that it is reached by.
    shop.nowhere();
    hold.release();
    let output = child.wait_with_output().unwrap();
    shop.said.extend([output.stdout, output.stderr].concat());
    let said = String::from_utf8_lossy(&shop.said);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("backout_rehearsal_"), "the command's output was not told: {said}");
    shop.nowhere();
    let of_pg = pg.log();
    let mut session = maria.connect("mysql");
    let of_maria: Vec<String> = session.query("SELECT CONVERT(argument USING utf8mb4) FROM general_log").unwrap();
    let of_maria = of_maria.join("\n");
    for (log, made) in [(of_pg, "CREATE ROLE backout_rehearsal_"), (of_maria, "CREATE USER 'backout_rehearsal_")] {
        assert!(log.contains(made), "{made} was not logged:\n{log}");
        let own = &shop.secrets[SECRETS.len()..];
        let found: Vec<&String> = own.iter().filter(|secret| log.contains(secret.as_str())).collect();
        assert_eq!(found, Vec::<&String>::new(), "{made}\n{log}");
    }
}
