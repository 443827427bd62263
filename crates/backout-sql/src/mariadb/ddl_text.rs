//! Objects that are their text and nothing else: triggers, procedures, functions, events, and views that are altered. What
//! takes a change of one back is its text of before, run under the settings that it was made under; a trigger goes to its
//! old place among its like, a routine gets its grants again.

use backout_model::target::TargetError;
use mysql::Error;
use serde::{Deserialize, Serialize};

use super::Mariadb;
use super::capture::patiently;
use super::head::{Head, Object};
use super::quiet;
use super::sequence;
use super::session::{Row, Session, ident, literal, under};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Trigger,
    Function,
    Procedure,
    Event,
    View,
    Sequence,
}

impl Kind {
    pub fn of(object: Object) -> Option<Self> {
        match object {
            Object::Trigger => Some(Kind::Trigger),
            Object::Function => Some(Kind::Function),
            Object::Procedure => Some(Kind::Procedure),
            Object::Event => Some(Kind::Event),
            Object::View => Some(Kind::View),
            Object::Sequence => Some(Kind::Sequence),
            Object::Table | Object::Index | Object::Other => None,
        }
    }

    /// What DROP calls it.
    pub fn named(word: &str) -> Option<Self> {
        [Kind::Trigger, Kind::Function, Kind::Procedure, Kind::Event, Kind::View]
            .into_iter()
            .find(|one| one.word() == word)
    }

    pub fn word(self) -> &'static str {
        match self {
            Kind::Trigger => "TRIGGER",
            Kind::Function => "FUNCTION",
            Kind::Procedure => "PROCEDURE",
            Kind::Event => "EVENT",
            Kind::View => "VIEW",
            Kind::Sequence => "SEQUENCE",
        }
    }
}

/// An object's text and what else makes it what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    pub sql: String,
    /// As SET takes them.
    settings: Vec<(String, String)>,
    /// Of a trigger, the one that fires after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Of a routine, who may do what with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    grants: Vec<String>,
}

impl Text {
    /// As SET takes them.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn grants(&self) -> &[String] {
        &self.grants
    }

    /// The statement that makes it, before the one that it went before where that `is_there`.
    pub fn made(&self, is_there: impl FnOnce(&str) -> bool) -> String {
        if self.sql.starts_with("SEQUENCE ") {
            return format!("ALTER {}", self.sql);
        }
        let sql = self.sql.strip_prefix("CREATE ").unwrap_or(&self.sql);
        let placed = self.next.as_deref().filter(|next| is_there(next)).and_then(|next| quiet::placed(sql, next));
        format!("CREATE OR REPLACE {}", placed.as_deref().unwrap_or(sql))
    }

    /// The same for one that comes after all of its like.
    pub fn without_place(self) -> Self {
        Self { next: None, ..self }
    }
}

/// What one statement changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub kind: Kind,
    pub name: String,
    /// Of a trigger, its table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    pub before: Option<Text>,
    pub after: Option<Text>,
}

impl Told {
    pub fn words(&self) -> String {
        let what = format!("the {} {}", self.kind.word().to_lowercase(), self.name);
        match self.before {
            Some(_) => format!("puts back {what} as it was"),
            None => format!("takes {what} away"),
        }
    }

    /// What it says on either side; none where there is no such object then.
    pub fn side(&self, undo: bool) -> Option<&Text> {
        if undo { self.before.as_ref() } else { self.after.as_ref() }
    }
}

/// Reads an object; none where there is none of that name. `held`: how the body of a trigger begins that is held still.
pub fn read(b: &mut Session, kind: Kind, name: &str, held: &str) -> Result<Option<Text>, Error> {
    read_with(b, kind, name, held, |grants| grants)
}

/// The same; who may use a routine is left out where this user may not read that.
pub fn seen(b: &mut Session, kind: Kind, name: &str, held: &str) -> Result<Option<Text>, Error> {
    read_with(b, kind, name, held, |grants| match grants {
        Err(Error::MySqlError(error)) if error.code == 1142 => Ok(Vec::new()),
        grants => grants,
    })
}

fn read_with(
    b: &mut Session,
    kind: Kind,
    name: &str,
    held: &str,
    admit: impl FnOnce(Result<Vec<String>, Error>) -> Result<Vec<String>, Error>,
) -> Result<Option<Text>, Error> {
    if kind == Kind::Sequence {
        let text = sequence::text(b, name)?;
        return Ok(text.map(|sql| Text { sql, settings: Vec::new(), next: None, grants: Vec::new() }));
    }
    let row = match b.rows(&format!("SHOW CREATE {} {}", kind.word(), ident(name))) {
        Err(Error::MySqlError(error)) if matches!(error.code, 1146 | 1305 | 1360 | 1539) => return Ok(None),
        rows => rows?.pop(),
    };
    let Some(row) = row else { return Ok(None) };
    let at = |at: usize| row.get(at).cloned().flatten();
    let (text, settings): (_, &[(&str, usize)]) = match kind {
        Kind::View => (1, &[("character_set_client", 2), ("collation_connection", 3)]),
        Kind::Event => {
            (3, &[("sql_mode", 1), ("time_zone", 2), ("character_set_client", 4), ("collation_connection", 5)])
        }
        Kind::Sequence | Kind::Trigger | Kind::Function | Kind::Procedure => {
            (2, &[("sql_mode", 1), ("character_set_client", 3), ("collation_connection", 4)])
        }
    };
    let Some(mut sql) = at(text) else {
        return Err(Error::from(std::io::Error::other(format!("this user may not read the text of {name}"))));
    };
    if let Some(plain) = quiet::plain(&sql, held) {
        sql = plain;
    }
    let settings = settings.iter().map(|(name, place)| ((*name).to_owned(), at(*place).unwrap_or_default())).collect();
    let next = if kind == Kind::Trigger { quiet::next_of(b, name)? } else { None };
    let grants = match kind {
        Kind::Function | Kind::Procedure => admit(grants(b, kind, name))?,
        _ => Vec::new(),
    };
    Ok(Some(Text { sql, settings, next, grants }))
}

/// The grants on a routine, as statements.
fn grants(b: &mut Session, kind: Kind, name: &str) -> Result<Vec<String>, Error> {
    let rows = b.rows(&format!(
        "SELECT User, Host, CONCAT(Proc_priv) FROM mysql.procs_priv WHERE Db = DATABASE() AND Routine_name = {} AND Routine_type = {}
         ORDER BY 1, 2",
        literal(name),
        literal(kind.word())
    ))?;
    let grant = |row: Row| {
        let at = |at: usize| row[at].clone().unwrap_or_default();
        let (all, option) = (at(2), at(2).contains("Grant"));
        let rights: Vec<&str> = all.split(',').filter(|right| *right != "Grant" && !right.is_empty()).collect();
        let rights = if rights.is_empty() { "USAGE".to_owned() } else { rights.join(", ") };
        let option = if option { " WITH GRANT OPTION" } else { "" };
        format!("GRANT {rights} ON {} {} TO {}@{}{option}", kind.word(), ident(name), literal(&at(0)), literal(&at(1)))
    };
    Ok(rows.into_iter().map(grant).collect())
}

/// Makes an object what a text says, or takes it away.
pub fn put(b: &mut Session, kind: Kind, name: &str, text: Option<&Text>) -> Result<(), Error> {
    let Some(text) = text else {
        return patiently(|| b.run(&format!("DROP {} IF EXISTS {}", kind.word(), ident(name))));
    };
    let place = match (&text.next, kind) {
        (Some(next), Kind::Trigger) => quiet::names(b)?.contains(next),
        _ => false,
    };
    let run = under(text.settings(), &text.made(|_| place));
    b.aside(|b| run.iter().try_for_each(|sql| patiently(|| b.run(sql))))?;
    text.grants.iter().try_for_each(|grant| b.run(grant))
}

impl Mariadb {
    /// What a statement about such an object will change; an error in words where it could not be taken back. The object
    /// may also turn out not to be there, or to be there already: that is for the server to say.
    pub(super) fn prepare_text(&mut self, head: &Head, kind: Kind) -> Result<Result<Option<Told>, String>, Error> {
        let name = head.names.first().map(|name| name.name.clone()).unwrap_or_default();
        let held = self.begin_of_held();
        let before = match read(&mut self.b, kind, &name, &held) {
            Err(Error::MySqlError(error)) if error.code == 1142 => {
                return Ok(Err(format!(
                    "this user may not read who may use {name}, and that goes with it: mysql.procs_priv"
                )));
            }
            Err(Error::IoError(error)) => return Ok(Err(error.to_string())),
            before => before?,
        };
        if before.is_none() && head.if_exists || before.is_some() && head.if_not_exists {
            return Ok(Ok(None));
        }
        if let Some(text) = &before
            && let Some(why) = quiet::not_ours(&mut self.b, &text.sql)?
        {
            return Ok(Err(format!("{name} is of {why}, and this user cannot make it again for them")));
        }
        if kind == Kind::Sequence
            && before.is_some()
            && let Some(why) = sequence::why_not(&mut self.b, &name)?
        {
            return Ok(Err(why));
        }
        let table = if kind == Kind::Trigger { quiet::table_of(&mut self.b, &name)? } else { None };
        Ok(Ok(Some(Told { kind, name, table, before, after: None })))
    }

    /// Learns what came of it.
    pub(super) fn learn_text(&mut self, told: &mut Told) -> Result<(), TargetError> {
        let held = self.begin_of_held();
        let found = seen(&mut self.b, told.kind, &told.name, &held);
        told.after = found.map_err(|source| self.reading(source))?;
        if told.kind == Kind::Trigger && told.table.is_none() {
            told.table = quiet::table_of(&mut self.b, &told.name).map_err(|source| self.reading(source))?;
        }
        Ok(())
    }

    /// Whether a change is done whose outcome is open, or is not taken back yet: where the object is not what it was before.
    pub(super) fn is_told(&mut self, told: &Told) -> Result<bool, TargetError> {
        let held = self.begin_of_held();
        let now = seen(&mut self.b, told.kind, &told.name, &held).map_err(|source| self.reading(source))?;
        Ok(now != told.before)
    }

    /// In words, what an object is now where it is not what it should be.
    pub(super) fn not_as_told(&mut self, told: &Told, undo: bool) -> Result<Option<String>, TargetError> {
        let held = self.begin_of_held();
        let now = seen(&mut self.b, told.kind, &told.name, &held).map_err(|source| self.reading(source))?;
        let mut wanted = told.side(!undo).cloned();
        if let (Some(text), Kind::Sequence) = (&mut wanted, told.kind) {
            let left = sequence::text_as_left(&mut self.b, &self.names, &told.name, &text.sql);
            text.sql = left.map_err(|source| self.reading(source))?;
        }
        let same = match (&now, &wanted) {
            // Where it stands among its like is another one's matter, too.
            (Some(now), Some(wanted)) => {
                (&now.sql, &now.settings, &now.grants) == (&wanted.sql, &wanted.settings, &wanted.grants)
            }
            (None, None) => true,
            _ => false,
        };
        Ok((!same).then(|| match (now, wanted) {
            (Some(_), None) => "the name is taken".to_owned(),
            (Some(now), Some(_)) => now.sql,
            (None, _) => "it is not there".to_owned(),
        }))
    }

    /// Takes a change of such an object back, or does it again.
    pub(super) fn put_text(&mut self, told: &Told, undo: bool) -> Result<(), TargetError> {
        let done = put(&mut self.b, told.kind, &told.name, told.side(undo));
        done.map_err(|source| self.failed("cannot change an object of", source))
    }
}
