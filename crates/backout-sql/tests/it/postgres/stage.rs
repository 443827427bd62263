//! A database on the shared private server, the engine on it, and a dump that knows nothing of the engine.

use std::io::Cursor;

use backout_model::conflict::{Conflicts, OnConflict};
use backout_model::target::{Manner, Report, Target, TargetError, Ticket};
use backout_sql::database::{Database, Script, ScriptUndo};
use backout_sql::postgres::Postgres;
use backout_testkit::postgres as testkit;
use backout_testkit::site::{postgres_options, postgres_url};
use postgres::{Client, SimpleQueryMessage};

use crate::stage::{Images, TestGate, me, told};

/// One live database and the engine on it.
pub struct Stage<'s> {
    directory: tempfile::TempDir,
    pub live: testkit::Database<'s>,
    pub database: Postgres,
    pub epoch: u64,
    pub seq: u64,
}

pub fn open(url: &str) -> Postgres {
    Postgres::open(&postgres_options("shop".to_owned(), "main".to_owned(), &postgres_url(url)))
        .unwrap_or_else(|error| panic!("{}", told(&error)))
}

impl Stage<'static> {
    /// A database made by `setup`, locked.
    pub fn new(setup: &str) -> Self {
        Self::on(testkit::Server::shared(), setup)
    }
}

impl<'s> Stage<'s> {
    pub fn on(server: &'s testkit::Server, setup: &str) -> Self {
        let live = server.database();
        live.connect().batch_execute(setup).unwrap();
        let url = live.url();
        Self::over(live, &url)
    }

    pub fn over(live: testkit::Database<'s>, url: &str) -> Self {
        let mut database = open(url);
        let epoch = database.lock(&me(), 1).unwrap();
        Self { directory: tempfile::tempdir().unwrap(), live, database, epoch, seq: 0 }
    }

    /// A session of the application's.
    pub fn other(&self) -> Client {
        self.live.connect()
    }

    /// Runs statements as the application.
    pub fn others(&self, sql: &str) {
        self.other().batch_execute(sql).unwrap();
    }

    /// The one value that a query gives, as text.
    pub fn ask(&self, sql: &str) -> String {
        one(&mut self.other(), sql)
    }

    pub fn gate(&mut self) -> TestGate {
        self.seq += 1;
        TestGate::new(Ticket { seq: self.seq, epoch: self.epoch })
    }

    pub fn script(&self, sql: &str, undo: ScriptUndo) -> Script {
        let path = self.directory.path().join("script.sql");
        std::fs::write(&path, sql).unwrap();
        Script { path, shown: "sql/script.sql".to_owned(), undo }
    }

    pub fn try_apply(&mut self, sql: &str) -> Result<(Images, Report), TargetError> {
        let script = self.script(sql, ScriptUndo::Captured);
        let mut gate = self.gate();
        let report = self.database.apply(&script, &mut gate)?;
        Ok((gate.written(), report))
    }

    #[track_caller]
    pub fn apply(&mut self, sql: &str) -> Images {
        match self.try_apply(sql) {
            Ok((images, _)) => images,
            Err(error) => panic!("{sql}: {}", told(&error)),
        }
    }

    pub fn try_undo(&mut self, images: &Images, on_conflict: OnConflict) -> Result<Report, TargetError> {
        let mut gate = self.gate();
        self.database.undo(&mut Cursor::new(images), Manner { on_conflict, in_doubt: false }, &mut gate)
    }

    #[track_caller]
    pub fn undo(&mut self, images: &Images) -> Report {
        self.try_undo(images, OnConflict::Stop).unwrap_or_else(|error| panic!("{}", told(&error)))
    }

    #[track_caller]
    pub fn conflicts(&mut self, images: &Images) -> Conflicts {
        match self.try_undo(images, OnConflict::Stop) {
            Err(TargetError::Conflicts(conflicts)) => conflicts,
            other => panic!("no conflicts but {other:?}"),
        }
    }

    pub fn try_redo(&mut self, images: &Images, on_conflict: OnConflict) -> Result<Images, TargetError> {
        let mut gate = self.gate();
        self.database.redo(&mut Cursor::new(images), Manner { on_conflict, in_doubt: false }, &mut gate)?;
        Ok(gate.written())
    }

    /// Does a step again, with what is told of it.
    #[track_caller]
    pub fn redone(&mut self, images: &Images) -> (Images, Report) {
        let mut gate = self.gate();
        let manner = Manner { on_conflict: OnConflict::Stop, in_doubt: false };
        let report = self.database.redo(&mut Cursor::new(images), manner, &mut gate);
        let report = report.unwrap_or_else(|error| panic!("{}", told(&error)));
        (gate.written(), report)
    }

    #[track_caller]
    pub fn redo(&mut self, images: &Images) -> Images {
        self.redone(images).0
    }

    /// Applies, undoes, redoes, undoes again; compares rows at each turn.
    #[track_caller]
    pub fn there_and_back(&mut self, change: &str) {
        self.compared(change, &Self::dump);
    }

    /// The same, and compares all that pg_dump says.
    #[track_caller]
    pub fn schema_there_and_back(&mut self, change: &str) {
        self.compared(change, &Self::pg_dump);
    }

    #[track_caller]
    fn compared(&mut self, change: &str, dump: &dyn Fn(&Self) -> Vec<String>) {
        let before = dump(self);
        let images = self.apply(change);
        let applied = dump(self);
        assert_ne!(applied, before, "the change changes nothing: {change}");
        self.undo(&images);
        assert_eq!(dump(self), before, "undo of {change}");
        let again = self.redo(&images);
        assert_eq!(dump(self), applied, "redo of {change}");
        self.undo(&again);
        assert_eq!(dump(self), before, "undo after redo of {change}");
    }

    pub fn dump(&self) -> Vec<String> {
        dump(&mut self.other())
    }

    /// What pg_dump says, but for the tool's own; rows in order.
    pub fn pg_dump(&self) -> Vec<String> {
        let mut command = self.live.server().client("pg_dump");
        command.args(["--exclude-schema=backout*", "--no-comments", "-d"]).arg(&self.live.name);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let (mut all, mut rows): (Vec<String>, Option<Vec<String>>) = (Vec::new(), None);
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("--")) {
            match &mut rows {
                Some(own) if line == "\\." => {
                    own.sort();
                    all.append(own);
                    rows = None;
                }
                Some(own) => own.push(line.to_owned()),
                // A token that is another one each time.
                None if line.starts_with("\\restrict") || line.starts_with("\\unrestrict") => {}
                None => {
                    all.push(line.to_owned());
                    rows = line.starts_with("COPY ").then(Vec::new);
                }
            }
        }
        all
    }
}

/// The first value of the first row.
pub fn one(client: &mut Client, sql: &str) -> String {
    lines(client, sql).into_iter().next().unwrap_or_default()
}

/// The first column of all rows.
pub fn lines(client: &mut Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
            _ => None,
        })
        .collect()
}

/// All rows of all tables but the tool's own, and where the sequences stand. Text is exact here: COPY's own.
pub fn dump(client: &mut Client) -> Vec<String> {
    client.batch_execute("SET extra_float_digits = 3; SET search_path = pg_catalog").unwrap();
    let relations = |client: &mut Client, kind: char| {
        lines(
            client,
            &format!(
                "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind = '{kind}' AND n.nspname !~ '^(backout|pg_)' AND c.relname !~ '^backout'
                     AND n.nspname <> 'information_schema' ORDER BY 1"
            ),
        )
    };
    let mut all = Vec::new();
    let filled = "SELECT format('%I.%I', schemaname, matviewname) FROM pg_matviews WHERE ispopulated ORDER BY 1";
    let filled = lines(client, filled);
    for table in relations(client, 'r').into_iter().chain(filled) {
        use std::io::Read as _;
        let mut text = String::new();
        client
            .copy_out(&format!("COPY (SELECT * FROM ONLY {table}) TO STDOUT"))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        let mut rows: Vec<String> = text.lines().map(|line| format!("{table}: {line}")).collect();
        rows.sort();
        all.extend(rows);
    }
    for sequence in relations(client, 'S') {
        all.extend(lines(client, &format!("SELECT '{sequence} ' || last_value || ' ' || is_called FROM {sequence}")));
    }
    // Nothing that silences the application's triggers may stay.
    all.extend(lines(
        client,
        "SELECT format('%s of %s %s', tgname, tgrelid::regclass, tgenabled) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    ));
    all
}
