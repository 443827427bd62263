//! A PostgreSQL database under schema changes, and what an independent dump says of it.

use std::io::Read;

use backout_model::conflict::{Conflicts, OnConflict};
use backout_model::target::{Manner, TargetError};
use backout_sql::postgres::ddl::{self, Context, DdlEvent, EventTriggers, Gone, Keep, Statement};
use backout_sql::postgres::prepared::Client;
use backout_testkit::postgres::{Database, Server};

/// Images in memory.
#[derive(Default)]
pub struct Blocks(Vec<Vec<u8>>);

impl Keep for Blocks {
    fn keep(&mut self, client: &mut Client, copy_out: &str) -> Result<u64, TargetError> {
        let mut block = Vec::new();
        let mut reader = client.copy_out(copy_out).map_err(|error| TargetError::failed("copy", error))?;
        reader.read_to_end(&mut block).map_err(|error| TargetError::failed("copy", error))?;
        self.0.push(block);
        Ok(self.0.len() as u64 - 1)
    }

    fn bring(&mut self, client: &mut Client, copy_in: &str, block: u64) -> Result<(), TargetError> {
        let block = &self.0[usize::try_from(block).unwrap()];
        let mut writer = client.copy_in(copy_in).map_err(|error| TargetError::failed("copy", error))?;
        std::io::Write::write_all(&mut writer, block).map_err(|error| TargetError::failed("copy", error))?;
        writer.finish().map_err(|error| TargetError::failed("copy", error))?;
        Ok(())
    }
}

/// A session that deploys.
pub struct Deployer {
    pub client: Client,
    blocks: Blocks,
    next_hold: u64,
    version: u32,
}

impl Deployer {
    pub fn on(database: &Database<'_>) -> Self {
        Self {
            client: database.connect().into(),
            blocks: Blocks::default(),
            next_hold: 1,
            version: database.server().version(),
        }
    }

    fn within<T>(&mut self, work: impl FnOnce(&mut Context<'_>) -> Result<T, TargetError>) -> Result<T, TargetError> {
        self.client.batch_execute("BEGIN").unwrap();
        let mut context = Context {
            client: &mut self.client,
            prefix: "backout_test",
            target: "database main",
            version: self.version,
            event_triggers: &EventTriggers::default(),
            next_hold: &mut self.next_hold,
            keep: &mut self.blocks,
            passing: &[],
            drawn: &[],
            already: None,
            gone: &mut Gone::default(),
            proof: false,
            knows_numbers: true,
        };
        let done = work(&mut context);
        self.client.batch_execute(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).unwrap();
        done
    }

    /// Runs statements in one transaction.
    pub fn run(&mut self, script: &[&str]) -> Result<Vec<DdlEvent>, TargetError> {
        self.within(|context| {
            let statements = (1..).zip(script).map(|(line, sql)| Statement { line, sql });
            statements.map(|statement| ddl::run(context, statement)).collect()
        })
        .map(|events: Vec<DdlEvent>| {
            // As the images give them back.
            let text = serde_json::to_string(&events).unwrap();
            serde_json::from_str(&text).unwrap()
        })
    }

    /// Undoes events; conflicts under `Stop` roll back.
    pub fn undo(
        &mut self,
        events: &[DdlEvent],
        on_conflict: OnConflict,
    ) -> Result<(Conflicts, Vec<String>), TargetError> {
        let mut conflicts = Conflicts::default();
        let mut notes = Vec::new();
        let done = self.within(|context| {
            let manner = Manner { on_conflict, in_doubt: false };
            for event in events.iter().rev() {
                ddl::undo(context, event, manner, &mut conflicts, &mut notes)?;
            }
            if on_conflict == OnConflict::Stop && !conflicts.is_empty() {
                return Err(TargetError::Conflicts(conflicts.clone()));
            }
            Ok(())
        });
        match done {
            Ok(()) | Err(TargetError::Conflicts(_)) => Ok((conflicts, notes)),
            Err(error) => Err(error),
        }
    }

    pub fn redo(&mut self, events: &[DdlEvent]) -> Result<(Vec<DdlEvent>, Conflicts), TargetError> {
        let mut conflicts = Conflicts::default();
        let done = self.within(|context| {
            let manner = Manner { on_conflict: OnConflict::Stop, in_doubt: false };
            events.iter().map(|event| ddl::redo(context, event, manner, &mut conflicts)).collect()
        });
        done.map(|events| (events, conflicts))
    }
}

/// An error with all its causes.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// The database as pg_dump writes it, without the tool's own, in an order that says nothing of physical places.
pub fn dump(server: &Server, database: &Database<'_>) -> String {
    let mut command = server.client("pg_dump");
    command.args(["--exclude-schema", "backout*", "-d", &database.name]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<&str> = Vec::new();
    let mut sorted: Vec<&str> = Vec::new();
    let mut in_copy = false;
    for line in text.lines() {
        if line.starts_with("\\restrict") || line.starts_with("\\unrestrict") {
            continue;
        }
        let is_grant = !in_copy && (line.starts_with("GRANT ") || line.starts_with("REVOKE "));
        if in_copy && line != "\\." || is_grant {
            sorted.push(line);
            continue;
        }
        sorted.sort_unstable();
        lines.append(&mut sorted);
        in_copy = line.starts_with("COPY ") && line.ends_with("FROM stdin;");
        lines.push(line);
    }
    lines.join("\n")
}

/// The lines in which two dumps differ.
pub fn difference(left: &str, right: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) = (left.lines().collect(), right.lines().collect());
    let only = |these: &[&str], those: &[&str], sign: char| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("{sign} {line}")).collect()
    };
    let mut lines = only(&left, &right, '-');
    lines.extend(only(&right, &left, '+'));
    if lines.is_empty() && left != right {
        let at = left.iter().zip(&right).position(|(one, other)| one != other).unwrap_or(left.len().min(right.len()));
        lines.push(format!("another order from line {at}: {:?} / {:?}", left.get(at), right.get(at)));
    }
    lines.join("\n")
}
