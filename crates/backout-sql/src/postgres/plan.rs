//! How each statement of a script would be taken back, told from its class; asks and changes nothing.
//!
//! What a statement needs of the schema is seen when it runs: its transaction rolls back where that fails. A copy of
//! the schema to try on, as SQLite has, would need rights that an owner's role lacks.

use std::fs::File;
use std::io::BufReader;

use backout_model::target::{PlannedChange, TargetError, Verdict};

use super::classify::{self, Class, classify};
use super::head::{Head, Name, Object, Verb};
use super::notify::Beforehand;
use super::split;
use super::wrapping::Wrapping;
use crate::database::{Planner, Script};
use crate::shown::shorten;

/// The planner of a database. What it asks of it is who would send notifications.
pub struct ByClass {
    pub senders: Beforehand,
}

impl Planner for ByClass {
    fn script(
        &mut self,
        script: &Script,
        _schema_known: bool,
        each: &mut dyn FnMut(PlannedChange),
    ) -> Result<(), TargetError> {
        let act = format!("cannot read {}", script.shown);
        let file = File::open(&script.path).map_err(|source| TargetError::failed(act.clone(), source))?;
        let mut wrapping = Wrapping::default();
        for statement in split::Script::new(BufReader::new(file)) {
            let statement = statement.map_err(|source| TargetError::failed(act.clone(), source))?;
            let place = format!("{}:{}", script.shown, statement.line);
            let class = classify(&statement, &place).map_err(|refused| refused.refusal);
            let admitted = class.and_then(|class| wrapping.admit(&class, &statement, &place).map(|()| class));
            let (verdict, locks) = match admitted {
                Ok(Class::Ddl(head)) if is_label(&head, &statement.sql) => {
                    let name = head.names.iter().map(shown).collect::<Vec<_>>().join(", ");
                    (Verdict::Undoable { undo: format!("takes the label out of type {name}{ANEW}") }, None)
                }
                Ok(class) => match verdict(&class, &self.senders.of(&statement.sql)) {
                    Some(verdict) => (verdict, locks(&class)),
                    None => continue,
                },
                Err(refusal) => (Verdict::Refused(refusal), None),
            };
            let change = shorten(&statement.sql);
            each(PlannedChange { place, change, verdict, rows: None, bytes: None, locks });
        }
        Ok(())
    }
}

const REFRESH: &str = "it is refused when it runs if the view holds rows, which could not be brought back";

const ANEW: &str = ", if no row holds it, by a new type in all tables that use it: they are locked and written anew";

fn is_label(head: &Head, sql: &str) -> bool {
    head.verb == Verb::Alter && head.object == Object::Type && classify::adds_label(sql)
}

/// None for what changes nothing. `sends` is what it would send.
fn verdict(class: &Class, sends: &str) -> Option<Verdict> {
    let undo = match class {
        Class::Read
        | Class::CopyOut
        | Class::Setting(_)
        | Class::Constraints
        | Class::Session
        | Class::Lock
        | Class::Upkeep
        | Class::Begin
        | Class::Commit => return None,
        Class::Rows | Class::CopyIn => format!("puts back each row that it changes, as it was{sends}"),
        Class::Unknown(why) => return Some(Verdict::Unknown { why: format!("{why}{sends}") }),
        Class::Ddl(head) if head.verb == Verb::Refresh => {
            return Some(Verdict::Unknown { why: REFRESH.to_owned() });
        }
        Class::Ddl(head) => words(head),
    };
    Some(Verdict::Undoable { undo })
}

/// How a change of the schema is taken back, in words.
fn words(head: &Head) -> String {
    let names = head.names.iter().map(shown).collect::<Vec<_>>().join(", ");
    let what = if names.is_empty() { head.words.clone() } else { format!("{} {names}", head.words) };
    match (head.verb, head.object) {
        (Verb::Create, _) => format!("drops {what}"),
        (Verb::Drop, Object::Table | Object::Schema) => format!("puts back {what} with all that went with it"),
        (Verb::Drop, _) => format!("puts back {what}"),
        (Verb::Alter, _) => format!("puts back the definition of {what}"),
        (Verb::Comment, _) => format!("puts back the comment on {what}"),
        (Verb::Grant, _) => format!("puts back the privileges on {what}"),
        (Verb::Truncate, _) => format!("puts back the rows of {names}"),
        (Verb::Refresh, _) => format!("fills {what} anew, as it was; empties it where it was empty"),
    }
}

/// The strongest locks of the statement itself, which it takes without this tool as well.
fn locks(class: &Class) -> Option<String> {
    let Class::Ddl(head) = class else { return None };
    let names: Vec<String> = head.names.iter().map(shown).collect();
    let exclusive = |names: String| (!names.is_empty()).then(|| format!("ACCESS EXCLUSIVE on {names}"));
    match (head.verb, head.object) {
        (Verb::Alter | Verb::Drop | Verb::Truncate, Object::Table)
        | (Verb::Drop | Verb::Refresh, Object::MaterializedView)
        | (Verb::Drop | Verb::Alter, Object::View | Object::Index) => exclusive(names.join(", ")),
        (Verb::Drop, Object::Trigger | Object::Policy | Object::Rule)
        | (Verb::Create, Object::Policy | Object::Rule) => exclusive(head.on.iter().map(shown).collect()),
        (Verb::Create, Object::Index) => head.on.as_ref().map(|on| format!("SHARE on {}", shown(on))),
        (Verb::Create, Object::Trigger) => head.on.as_ref().map(|on| format!("SHARE ROW EXCLUSIVE on {}", shown(on))),
        _ => None,
    }
}

fn shown(name: &Name) -> String {
    match &name.schema {
        Some(schema) => format!("{schema}.{}", name.name),
        None => name.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::database::ScriptUndo;

    #[test]
    fn each_statement_has_its_verdict() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let script = "SET a.b = 1; SELECT 1; UPDATE t SET a = 1; COPY t FROM STDIN;\n1\n\\.\nDO 'BEGIN END';
            ALTER TABLE s.t ADD b int; DROP VIEW v, w; REFRESH MATERIALIZED VIEW m; CREATE INDEX ON t (a); VACUUM; COMMIT;
            ALTER TYPE s.e ADD VALUE 'x' BEFORE 'y';";
        file.write_all(script.as_bytes()).unwrap();
        let script = Script { path: file.path().to_owned(), shown: "a.sql".into(), undo: ScriptUndo::Captured };
        let mut planned = Vec::new();
        ByClass { senders: Beforehand::default() }
            .script(&script, true, &mut |change| {
                let verdict = match change.verdict {
                    Verdict::Undoable { undo } => undo,
                    Verdict::Unknown { why } => format!("? {why}"),
                    Verdict::Refused(refusal) => format!("! {}", refusal.why),
                };
                planned.push(format!("{} {verdict} [{}]", change.place, change.locks.unwrap_or_default()));
            })
            .unwrap();
        assert_eq!(
            planned,
            [
                "a.sql:1 puts back each row that it changes, as it was []",
                "a.sql:1 puts back each row that it changes, as it was []",
                "a.sql:4 ? what the block does is known once it has run []",
                "a.sql:5 puts back the definition of table s.t [ACCESS EXCLUSIVE on s.t]",
                "a.sql:5 puts back view v, w [ACCESS EXCLUSIVE on v, w]",
                "a.sql:5 ? it is refused when it runs if the view holds rows, which could not be brought back [ACCESS EXCLUSIVE on m]",
                "a.sql:5 drops index [SHARE on t]",
                "a.sql:5 ! VACUUM cannot run inside of a transaction []",
                "a.sql:5 ! it would commit half of the script []",
                "a.sql:6 takes the label out of type s.e, if no row holds it, by a new type in all tables that use it: they are locked and written anew []",
            ]
        );
    }
}
