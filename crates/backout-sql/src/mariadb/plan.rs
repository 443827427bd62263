//! How each statement of a script would be taken back, told from its class and from the tables that are there; changes
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use backout_model::target::{PlannedChange, Refusal, TargetError, Verdict};

use super::Mariadb;
use super::capture::CaptureError;
use super::classify::{self, Class};
use super::head::{Head, Object, Verb};
use super::load;
use super::reader::Name;
use super::rights;
use super::run::Run;
use super::sequence;
use super::split::Statement;
use super::stream::Way;
use super::survey::Reading;
use super::token::bare;
use super::written;
use crate::database::{Planner, Script};
use crate::shown::shorten;

pub struct OnDatabase<'a> {
    pub database: &'a mut Mariadb,
    /// Why no rows can be captured, or taken back.
    pub unwatched: Option<String>,
    /// What was found for statements like others: which tables are copied, or why their rows cannot be captured.
    pub known: BTreeMap<Run, Result<BTreeSet<String>, String>>,
}

/// As many are remembered.
const KNOWN: usize = 1000;

impl Planner for OnDatabase<'_> {
    fn script(
        &mut self,
        script: &Script,
        _schema_known: bool,
        each: &mut dyn FnMut(PlannedChange),
    ) -> Result<(), TargetError> {
        self.database.look_at_bodies()?;
        self.known.clear();
        let nothing = self.database.names.object("nothing");
        let unwatched = rights::why_no_rows(&mut self.database.b, &nothing);
        self.unwatched = unwatched.map_err(|source| self.database.failed("cannot read the rights in", source))?;
        let mut flow = classify::Flow::default();
        let mut reading = Reading::of(&script.path, &script.shown)?;
        while let Some(statement) = reading.next()? {
            let place = format!("{}:{}", script.shown, statement.line);
            let change = shorten(&statement.sql);
            let class = self.database.class(&statement, &place, &Way::Captured);
            let class = class.and_then(|class| match flow.admit(&class) {
                Ok(()) => match load::beside(&script.path, &bare(&statement.sql, self.database.version)) {
                    Ok(_) => Ok(class),
                    Err(no) => Err(no.at(&place, &statement.sql).refusal.into()),
                },
                Err(no) => Err(no.at(&place, &statement.sql).refusal.into()),
            });
            let (verdict, locks) = match class {
                Err(TargetError::Refused(refusal)) => (Verdict::Refused(refusal), None),
                Err(error) => return Err(error),
                Ok(class) => match self.verdict(&class, &place, &statement)? {
                    Some(verdict) => (verdict, locks(&class)),
                    None => continue,
                },
            };
            each(PlannedChange { place, change, verdict, rows: None, bytes: None, locks });
        }
        Ok(())
    }
}

impl OnDatabase<'_> {
    /// None for what changes nothing.
    fn verdict(&mut self, class: &Class, place: &str, statement: &Statement) -> Result<Option<Verdict>, TargetError> {
        let refused = |why: String| {
            Verdict::Refused(Refusal {
                place: place.to_owned(),
                what: format!("`{}`", shorten(&statement.sql)),
                why,
                ways_out: vec![classify::OWN_UNDO.to_owned(), classify::LEAVE_OUT.to_owned()],
            })
        };
        if let (Class::Rows(_) | Class::Hidden(_), Some(why)) = (class, &self.unwatched) {
            return Ok(Some(refused(why.clone())));
        }
        let undo = match class {
            Class::Read | Class::Setting(_) | Class::Upkeep | Class::Begin | Class::Commit | Class::Use(_) => {
                return Ok(None);
            }
            Class::Rows(names) => {
                let bare = bare(&statement.sql, self.database.version);
                match self.copied(&bare, names)? {
                    Ok(copied) => captured(&copied, sequence::draws(&bare)),
                    Err(why) => return Ok(Some(refused(why))),
                }
            }
            Class::Temporary(_) | Class::Rollback | Class::Savepoint => return Ok(None),
            Class::Hidden(_) => {
                "puts back each row that it changes, in whatever table: all are watched meanwhile".to_owned()
            }
            Class::Ddl(head) => {
                let database = &*self.database;
                if matches!(head.object, Object::Table | Object::Index)
                    && database.bodies.are_called(&bare(&statement.sql, database.version))
                {
                    return Ok(Some(refused(
                        "it may call a routine: what that writes is not captured here".to_owned(),
                    )));
                }
                let sql = bare(&statement.sql, self.database.version);
                match self.database.emptying(&sql, head)? {
                    None => words(head),
                    Some(emptying) => {
                        let whole = emptying.partitions.is_empty();
                        match written::alone(&mut self.database.b, &emptying.table, whole) {
                            Ok(_) => emptying.words(),
                            Err(CaptureError::Uncapturable(why)) => return Ok(Some(refused(why))),
                            Err(CaptureError::Server(source)) => {
                                return Err(self.database.failed("cannot read the schema of", source));
                            }
                        }
                    }
                }
            }
        };
        Ok(Some(Verdict::Undoable { undo }))
    }

    /// The tables that are copied before a statement, or why its rows cannot be captured. The schema is asked once for all
    /// that are alike.
    fn copied(&mut self, bare: &str, names: &[Name]) -> Result<Result<BTreeSet<String>, String>, TargetError> {
        let mut run = Run::default();
        run.take(bare, names);
        if let Some(known) = self.known.get(&run) {
            return Ok(known.clone());
        }
        let database = &mut *self.database;
        let found = match written::tables(&mut database.b, &database.database, &run, &database.bodies) {
            Ok(plan) => Ok(plan.copied),
            Err(CaptureError::Uncapturable(why)) => Err(why),
            Err(CaptureError::Server(source)) => return Err(database.failed("cannot read the schema of", source)),
        };
        if self.known.len() < KNOWN {
            self.known.insert(run, found.clone());
        }
        Ok(found)
    }
}

/// How rows are taken back, in words.
fn captured(copied: &BTreeSet<String>, draws: bool) -> String {
    let drawn = if draws { "; numbers that it draws from a sequence stay drawn" } else { "" };
    let rows = format!("puts back each row that it changes, as it was{drawn}");
    if copied.is_empty() {
        return rows;
    }
    let names: Vec<&str> = copied.iter().map(String::as_str).collect();
    format!("{rows}; {} copied first, and nobody else can write there until it has ended", names.join(", "))
}

/// How a change of the schema is taken back, in words.
fn words(head: &Head) -> String {
    let what = format!("{} {}", head.word, head.shown());
    match (head.verb, head.object) {
        (_, Object::Index) => format!("puts back the definition of table {}", head.shown()),
        (Verb::Create, _) => format!("takes {what} away"),
        (Verb::Drop, _) => format!("puts back {what} with all that went with it"),
        (Verb::Alter, _) => format!("puts back the definition of {what}, and the data that it lost"),
        (Verb::Truncate, _) => format!("puts back the rows of {}", head.shown()),
        (Verb::Rename, _) => "gives the old names back".to_owned(),
    }
}

/// The strongest locks that a statement takes, or that are taken on its behalf.
fn locks(class: &Class) -> Option<String> {
    match class {
        Class::Rows(_) | Class::Hidden(_) => {
            Some("the rows; for a moment before, the definitions of the tables, where triggers are needed".to_owned())
        }
        Class::Ddl(head) if head.object != Object::View => Some(format!("the definition of {}", head.shown())),
        _ => None,
    }
}
