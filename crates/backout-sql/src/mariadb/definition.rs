//! What an object is, as a text by which two databases are compared: the server's own, without definers and counters. Reads
//! only.

use backout_model::target::TargetError;
use mysql::Error;

use super::Mariadb;
use super::compared_schema::Schema;
use super::ddl;
use super::ddl_text::{self, Kind, Text};
use super::session::literal;

const KINDS: [&str; 6] = ["table", "view", "trigger", "function", "procedure", "event"];

impl Mariadb {
    /// See [`crate::database::Database::definition`].
    pub(super) fn definition_now(&mut self, object: &str) -> Result<Option<String>, TargetError> {
        let act = format!("cannot ask for {object} in {}", self.label);
        let (kind, name) = object.split_once(' ').unwrap_or((object, ""));
        if !KINDS.contains(&kind) {
            return Err(TargetError::failed(act, format!("no {kind} is asked for here, but: {}", KINDS.join(", "))));
        }
        self.text_now(kind, name).map_err(|source| TargetError::failed(act, source))
    }

    fn text_now(&mut self, kind: &str, name: &str) -> Result<Option<String>, Error> {
        let kind = match Kind::named(&kind.to_uppercase()) {
            Some(kind) if kind != Kind::View => kind,
            // Tables and views share one space of names.
            _ => {
                let sql = format!(
                    "SELECT TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}",
                    literal(name)
                );
                match self.b.value(&sql)?.as_deref() {
                    None => return Ok(None),
                    Some("VIEW") => Kind::View,
                    Some(_) => {
                        let triggers = self.triggers_with_text(name)?;
                        let definition = ddl::definition(&mut self.b, name)?;
                        return Ok(definition.map(|definition| of_table(&definition, &triggers)));
                    }
                }
            }
        };
        let held = self.begin_of_held();
        Ok(ddl_text::seen(&mut self.b, kind, name, &held)?.as_ref().map(of_text))
    }
}

/// The same of a schema that was read.
pub(super) fn definition(schema: &Schema, object: &str) -> Option<String> {
    let (word, name) = object.split_once(' ')?;
    let kind = Kind::named(&word.to_uppercase());
    match kind {
        Some(Kind::Trigger) => {
            let mut triggers = schema.tables.values().flat_map(|one| &one.triggers);
            triggers.find(|(one, _)| one == name).map(|(_, text)| of_text(text))
        }
        Some(kind) if kind != Kind::View => schema.text(kind, name).map(of_text),
        _ => match schema.tables.get(name) {
            Some(one) => Some(of_table(&one.definition, &one.triggers)),
            None => schema.text(Kind::View, name).map(of_text),
        },
    }
}

fn of_table(definition: &str, triggers: &[(String, Text)]) -> String {
    let triggers = triggers.iter().map(|(_, text)| of_text(text));
    [definition.to_owned()].into_iter().chain(triggers).collect::<Vec<_>>().join(";\n")
}

/// With the settings that say how the server reads it.
fn of_text(text: &Text) -> String {
    let settings = text.settings().filter(|(name, _)| matches!(*name, "sql_mode" | "time_zone"));
    let settings: Vec<String> = settings.map(|(name, value)| format!("{name} = {value}")).collect();
    format!("{} [{}]", without_definer(&text.sql), settings.join(", "))
}

/// Users are others elsewhere.
fn without_definer(sql: &str) -> String {
    match sql.split_once("DEFINER=") {
        // What stands before it are words alone, so that this is none in a body.
        Some((head, rest)) if head.bytes().all(|byte| byte.is_ascii_uppercase() || b" _=".contains(&byte)) => {
            let rest = rest.split_once("` ").map_or(rest, |(_, rest)| rest);
            format!("{head}{rest}")
        }
        _ => sql.to_owned(),
    }
}
