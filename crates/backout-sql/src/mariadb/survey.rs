//! Reads a script before any of it runs: every statement is classified and written to the images, and of each run of
//! statements that make one segment it is learned which tables they may write to.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use backout_model::target::{Gate, TargetError};

use super::Mariadb;
use super::apply::uncaptured;
use super::classify::{self, Class};
use super::head::folded;
use super::load;
use super::reader::reader;
use super::run::{self, Bodies, Run};
use super::sequence::draws;
use super::setting::Setting;
use super::single::single;
use super::split::{self, Statement};
use super::stream::{Index, Way, Writer};
use super::token::bare;
use crate::database::{Script, ScriptUndo};

/// A script's statements.
pub struct Reading {
    script: split::Script<BufReader<File>>,
    act: String,
}

impl Reading {
    pub fn of(path: &Path, shown: &str) -> Result<Self, TargetError> {
        let act = format!("cannot read {shown}");
        let file = File::open(path).map_err(|source| TargetError::failed(act.clone(), source))?;
        Ok(Self { script: split::Script::new(BufReader::new(file)), act })
    }

    pub fn next(&mut self) -> Result<Option<Statement>, TargetError> {
        self.script.next().transpose().map_err(|source| TargetError::failed(self.act.clone(), source))
    }
}

/// Bytes of conditions that are kept of a script, and of one: a statement of the tool's says it with more around it.
const ROOM: usize = 1 << 20;
const LONGEST: usize = 1 << 16;

/// What is known of a script before it runs.
pub struct Survey {
    pub index: Index,
    pub bytes: u64,
    /// Of each segment of rows, in their order, the tables that it may write to.
    pub runs: Vec<Run>,
}

/// True where a statement ends a segment of rows.
pub fn ends_run(class: &Class) -> bool {
    match class {
        Class::Ddl(_) | Class::Upkeep | Class::Begin | Class::Commit => true,
        Class::Read | Class::Rows(_) | Class::Hidden(_) | Class::Temporary(_) | Class::Setting(_) | Class::Use(_) => {
            false
        }
        Class::Rollback | Class::Savepoint => false,
    }
}

/// True where a statement opens a segment of rows.
pub fn opens_run(class: &Class) -> bool {
    matches!(class, Class::Rows(_) | Class::Hidden(_) | Class::Begin)
}

impl Mariadb {
    /// The class of a statement of a script; what nobody captures need not be capturable.
    pub(super) fn class(&self, statement: &Statement, place: &str, way: &Way) -> Result<Class, TargetError> {
        match classify::classify(statement, self.version, place) {
            // What a routine does that it calls, it does.
            Ok(Class::Read | Class::Setting(Setting::Session))
                if self.calls(statement) || draws(&bare(&statement.sql, self.version)) =>
            {
                Ok(Class::Rows(run::all_names(&bare(&statement.sql, self.version))))
            }
            Ok(Class::Use(name)) if name != self.database && !(self.bodies.folds && folded(&name) == self.database) => {
                let no = classify::No::step("a step works on one database", "name the other one in site.yaml");
                Err(no.at(place, &statement.sql).refusal.into())
            }
            Ok(Class::Ddl(head)) if self.bodies.folds => Ok(Class::Ddl(head.folded())),
            Ok(Class::Temporary(head)) if self.bodies.folds => Ok(Class::Temporary(head.folded())),
            Ok(class) => Ok(class),
            Err(refused) if refused.always || *way == Way::Captured => Err(refused.refusal.into()),
            Err(_) => Ok(Class::Rows(Vec::new())),
        }
    }

    /// True where a statement calls a routine that was there when the script was read first.
    fn calls(&self, statement: &Statement) -> bool {
        self.bodies.are_called(&bare(&statement.sql, self.version))
    }

    /// Reads what statements can act through, before a script is read.
    pub(super) fn look_at_bodies(&mut self) -> Result<(), TargetError> {
        self.bodies = Bodies::find(&mut self.b).map_err(|source| self.failed("cannot read the routines of", source))?;
        Ok(())
    }

    /// Reads a script and writes its statements to the images.
    pub(super) fn survey(&mut self, script: &Script, gate: &mut dyn Gate) -> Result<Survey, TargetError> {
        self.look_at_bodies()?;
        let written = |source: std::io::Error| uncaptured(&self.label, source);
        let mut writer = Writer::new(gate.images()).map_err(written)?;
        let way = match &script.undo {
            ScriptUndo::Captured => Way::Captured,
            ScriptUndo::ByScript { shown, .. } => Way::ByScript { shown: shown.clone() },
            ScriptUndo::Never { because } => Way::Never { because: because.clone() },
        };
        let mut index = Index { shown: script.shown.clone(), way, ..Index::default() };
        let mut runs = Vec::new();
        let (mut run, mut flow): (Option<Run>, _) = (None, classify::Flow::default());
        let mut room = ROOM;
        let mut reading = Reading::of(&script.path, &script.shown)?;
        while let Some(statement) = reading.next()? {
            let place = format!("{}:{}", script.shown, statement.line);
            let class = self.class(&statement, &place, &index.way)?;
            flow.admit(&class).map_err(|no| no.at(&place, &statement.sql).refusal)?;
            let loads = load::beside(&script.path, &bare(&statement.sql, self.version));
            loads.map_err(|no| no.at(&place, &statement.sql).refusal)?;
            if ends_run(&class) {
                runs.extend(run.take());
            }
            if opens_run(&class) {
                run.get_or_insert_default();
            }
            if let (Class::Rows(names), Some(run)) = (&class, &mut run) {
                let bare = bare(&statement.sql, self.version);
                run.take(&bare, names);
                let single = single(&statement.sql, &bare).filter(|single| single.condition.len() <= room.min(LONGEST));
                room -= single.as_ref().map_or(0, |single| single.condition.len());
                run.ask(single);
            }
            let says_otherwise = matches!(class, Class::Rollback | Class::Savepoint | Class::Setting(Setting::Session));
            if let (true, Some(run)) = (says_otherwise, &mut run) {
                run.ask(None);
            }
            if let (Class::Hidden(_), Some(run)) = (&class, &mut run) {
                run.all = true;
            }
            writer.statement(statement.line, &statement.sql, false).map_err(written)?;
            index.statements += 1;
        }
        runs.extend(run);
        if let ScriptUndo::ByScript { path, shown } = &script.undo {
            writer.boundary().map_err(written)?;
            let mut reading = Reading::of(path, shown)?;
            while let Some(statement) = reading.next()? {
                if reader(&bare(&statement.sql, self.version)).takes("LOAD") {
                    let no = classify::No::step("an undo script is kept without files beside it", "write the rows out");
                    return Err(no.at(&format!("{shown}:{}", statement.line), &statement.sql).refusal.into());
                }
                writer.statement(statement.line, &statement.sql, true).map_err(written)?;
            }
        }
        index.step = super::marker::next_step(&mut self.b, &self.names)
            .map_err(|source| self.failed("cannot number a step in", source))?;
        let bytes = writer.finish(&index).map_err(written)?;
        Ok(Survey { index, bytes, runs })
    }
}
