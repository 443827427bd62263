//! How each statement of a script would be taken back, told from its class and from the tables that are there; changes
//! nothing.

use backout_model::target::{PlannedChange, Refusal, TargetError, Verdict};

use super::Mariadb;
use super::capture::{self, CaptureError};
use super::classify::{self, Class};
use super::head::{Head, Object, Verb};
use super::stream::Way;
use super::survey::Reading;
use crate::database::{Planner, Script};
use crate::shown::shorten;

pub struct OnDatabase<'a> {
    pub database: &'a mut Mariadb,
}

impl Planner for OnDatabase<'_> {
    fn script(
        &mut self,
        script: &Script,
        _schema_known: bool,
        each: &mut dyn FnMut(PlannedChange),
    ) -> Result<(), TargetError> {
        let mut reading = Reading::of(&script.path, &script.shown)?;
        while let Some(statement) = reading.next()? {
            let place = format!("{}:{}", script.shown, statement.line);
            let change = shorten(&statement.sql);
            let (verdict, locks) = match self.database.class(&statement, &place, &Way::Captured) {
                Err(TargetError::Refused(refusal)) => (Verdict::Refused(refusal), None),
                Err(error) => return Err(error),
                Ok(class) => match self.verdict(&class, &place, &change)? {
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
    fn verdict(&mut self, class: &Class, place: &str, change: &str) -> Result<Option<Verdict>, TargetError> {
        let undo = match class {
            Class::Read | Class::Setting(_) | Class::Upkeep | Class::Begin | Class::Commit | Class::Use(_) => {
                return Ok(None);
            }
            Class::Rows(names) => {
                let named: Vec<_> = names.iter().map(|name| (name.database.clone(), name.name.clone())).collect();
                let database = &mut *self.database;
                match capture::tables(&mut database.b, &database.database, &named) {
                    Ok(_) => "puts back each row that it changes, as it was".to_owned(),
                    Err(CaptureError::Server(source)) => {
                        return Err(database.failed("cannot read the schema of", source));
                    }
                    Err(CaptureError::Uncapturable(why)) => {
                        return Ok(Some(Verdict::Refused(Refusal {
                            place: place.to_owned(),
                            what: format!("`{change}`"),
                            why,
                            ways_out: vec![classify::OWN_UNDO.to_owned(), classify::LEAVE_OUT.to_owned()],
                        })));
                    }
                }
            }
            Class::Ddl(head) => words(head),
        };
        Ok(Some(Verdict::Undoable { undo }))
    }
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
        Class::Rows(_) => {
            Some("for a moment the definitions of the tables, to make triggers; then the rows".to_owned())
        }
        Class::Ddl(head) if head.object != Object::View => Some(format!("the definition of {}", head.shown())),
        _ => None,
    }
}
