//! Holds the application's triggers still while rows go back: the images hold already what they did. No setting of a session
//! does that, so each is made again with a condition around its body, which lets it act for everybody but the tool; and
//! made as it was afterwards. What stands in between acts the same for others, also where the tool dies.
//!
//! A trigger is made again in one statement and before the one that followed it, so that their order stays.

use backout_model::target::TargetError;
use mysql::Error;

use super::Mariadb;
use super::capture::patiently;
use super::ddl_shape::Shape;
use super::session::{Session, ident, literal, under};
use super::token::each_token;

/// Set in the tool's own sessions alone.
pub const QUIET: &str = "@backout_quiet";
const END: &str = "\n; END IF";

/// From here on held triggers do not act for this session.
pub fn be_quiet(session: &mut Session) -> Result<(), Error> {
    session.run(&format!("SET {QUIET} = 1"))
}

/// From here on held triggers act for this session, too.
pub fn be_heard(session: &mut Session) -> Result<(), Error> {
    session.run(&format!("SET {QUIET} = NULL"))
}

/// Why the triggers of a table could not be held still by this user; none where they could.
pub fn why_not(b: &mut Session, table: &str) -> Result<Option<String>, Error> {
    let others = b.rows(&format!(
        "SELECT TRIGGER_NAME, DEFINER FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()
         AND EVENT_OBJECT_TABLE = {} AND TRIGGER_NAME NOT LIKE 'backout\\_%' AND DEFINER <> CURRENT_USER()",
        literal(table)
    ))?;
    let Some(other) = others.into_iter().next() else { return Ok(None) };
    if may_for_others(b)? {
        return Ok(None);
    }
    let [name, definer] = [0, 1].map(|at| other[at].clone().unwrap_or_default());
    Ok(Some(format!(
        "the table {table} has the trigger {name} of {definer}, which only that user or one with SET USER can hold still while rows go back"
    )))
}

/// Why no trigger of a table could be made again once a column has gone or has another name, of the shapes before and after that; none
/// where none names such a column. The server leaves one that does as it is, and every write to the table fails.
pub fn names_gone(b: &mut Session, table: &str, [before, after]: [&Shape; 2]) -> Result<Option<String>, Error> {
    let gone: Vec<&str> =
        before.columns.iter().map(|(name, _)| name.as_str()).filter(|name| after.column(name).is_none()).collect();
    if gone.is_empty() {
        return Ok(None);
    }
    for trigger in find(b, Some(&[table]))? {
        let tokens: Vec<_> = each_token(&trigger.body).collect();
        let of_row =
            tokens.windows(3).filter(|three| (three[0].is("NEW") || three[0].is("OLD")) && three[1].is_sign(b'.'));
        let mut named = of_row.filter_map(|three| three[2].name());
        if let Some(column) = named.find(|name| gone.iter().any(|gone| gone.eq_ignore_ascii_case(name))) {
            return Ok(Some(format!(
                "the trigger {} names the column {column}, and could not be held still while rows go back: drop it before, and make it anew behind",
                trigger.name
            )));
        }
    }
    Ok(None)
}

struct Trigger {
    name: String,
    body: String,
    /// The one that fires after it, among its like.
    next: Option<String>,
}

/// The triggers of these tables, or of all; those of the application.
fn find(b: &mut Session, tables: Option<&[&str]>) -> Result<Vec<Trigger>, Error> {
    let of = match tables {
        Some(tables) => {
            let names: Vec<String> = tables.iter().map(|name| literal(name)).collect();
            format!(" AND EVENT_OBJECT_TABLE IN ({})", names.join(", "))
        }
        None => String::new(),
    };
    let rows = b.rows(&format!(
        "SELECT TRIGGER_NAME, ACTION_STATEMENT, CONCAT_WS(' ', EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION)
         FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() AND TRIGGER_NAME NOT LIKE 'backout\\_%'{of}
         ORDER BY 3, ACTION_ORDER"
    ))?;
    let text = |at: usize, place: usize| rows.get(at).and_then(|row| row[place].clone()).unwrap_or_default();
    Ok((0..rows.len())
        .map(|at| Trigger {
            name: text(at, 0),
            body: text(at, 1),
            next: (at + 1 < rows.len() && text(at + 1, 2) == text(at, 2)).then(|| text(at + 1, 0)),
        })
        .collect())
}

/// Makes a trigger again with what `turn` makes of its body, under the settings that it was made under; where that is nothing, it
/// stays.
fn make_again(b: &mut Session, trigger: &Trigger, turn: &dyn Fn(&str) -> Option<String>) -> Result<(), Error> {
    let row = b.rows(&format!("SHOW CREATE TRIGGER {}", ident(&trigger.name)))?.pop().unwrap_or_default();
    let at = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let (mode, text) = (at(1), at(2));
    // The server's own text of the body alone is without its escapes.
    let misread = || Error::from(std::io::Error::other("the text of a trigger is not understood"));
    let (head, body) = text.split_at(body_at(&text).ok_or_else(misread)?);
    let head = head.strip_prefix("CREATE ").ok_or_else(misread)?;
    let Some(body) = turn(body.trim_end()) else { return Ok(()) };
    let place = trigger.next.as_ref().map(|next| format!("PRECEDES {} ", ident(next))).unwrap_or_default();
    b.aside(|b| {
        let (charset, collation) = (at(3), at(4));
        let settings = [("sql_mode", &mode), ("character_set_client", &charset), ("collation_connection", &collation)];
        let run = under(
            settings.into_iter().map(|(name, value)| (name, value.as_str())),
            &format!("CREATE OR REPLACE {head}{place}{body}"),
        );
        run.iter().try_for_each(|sql| patiently(|| b.run(sql)))
    })
}

/// Where the body begins in the text of a trigger: behind FOR EACH ROW, which no name before it can hold but in quotes.
fn body_at(text: &str) -> Option<usize> {
    let mut words = super::reader::reader(text);
    while !words.takes("FOR EACH ROW") {
        words.next()?;
    }
    Some(words.peek()?.start)
}

/// The text of a trigger that is held still, as it was; none of any other text.
pub fn plain(text: &str, begin: &str) -> Option<String> {
    let at = text.find(begin)?;
    let inner = text[at + begin.len()..].trim_end().strip_suffix(END)?;
    Some(format!("{}{inner}", &text[..at]))
}

/// The trigger that fires after one, among its like.
pub fn next_of(b: &mut Session, name: &str) -> Result<Option<String>, Error> {
    Ok(find(b, None)?.into_iter().find(|trigger| trigger.name == name).and_then(|trigger| trigger.next))
}

/// The table that a trigger is on.
pub fn table_of(b: &mut Session, name: &str) -> Result<Option<String>, Error> {
    b.value(&format!(
        "SELECT EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() AND TRIGGER_NAME = {}",
        literal(name)
    ))
}

pub fn names_in_order(b: &mut Session, table: &str) -> Result<Vec<String>, Error> {
    Ok(find(b, Some(&[table]))?.into_iter().map(|trigger| trigger.name).collect())
}

/// The names of all triggers.
pub fn names(b: &mut Session) -> Result<Vec<String>, Error> {
    Ok(find(b, None)?.into_iter().map(|trigger| trigger.name).collect())
}

/// The text of a trigger, without its CREATE, that goes before another of the same table.
pub fn placed(text: &str, next: &str) -> Option<String> {
    let (head, body) = text.split_at(body_at(text)?);
    Some(format!("{head}PRECEDES {} {body}", ident(next)))
}

/// The definer of an object that this user cannot make again; none where it can.
pub fn not_ours(b: &mut Session, text: &str) -> Result<Option<String>, Error> {
    let Some(definer) = text.split_once("DEFINER=").and_then(|(_, rest)| rest.split(' ').next()) else {
        return Ok(None);
    };
    let me = b.value("SELECT CURRENT_USER()")?.unwrap_or_default();
    if definer.replace('`', "") == me || may_for_others(b)? {
        return Ok(None);
    }
    Ok(Some(definer.to_owned()))
}

/// Whether this user may make objects that act in the name of others.
pub fn may_for_others(b: &mut Session) -> Result<bool, Error> {
    let rights = ["ALL PRIVILEGES ON *.*", "SUPER", "SET USER"];
    let may = |text: &str| rights.iter().any(|right| text.contains(right));
    Ok(b.rows("SHOW GRANTS")?.iter().any(|row| row[0].as_deref().is_some_and(may)))
}

impl Mariadb {
    /// How the body of a trigger of this site begins that is held still.
    pub(super) fn begin_of_held(&self) -> String {
        format!("IF {QUIET} IS NULL THEN /* {} */\n", self.names.marker())
    }

    /// Holds the triggers of tables still.
    pub(super) fn hold_triggers(&mut self, tables: &[&str]) -> Result<(), TargetError> {
        if tables.is_empty() {
            return Ok(());
        }
        let begin = self.begin_of_held();
        let held = find(&mut self.b, Some(tables)).and_then(|found| {
            for trigger in found.iter().filter(|trigger| !trigger.body.starts_with(&begin)) {
                make_again(&mut self.b, trigger, &|body| Some(format!("{begin}{body}{END}")))?;
            }
            Ok(())
        });
        held.map_err(|source| self.failed("cannot hold triggers still in", source))
    }

    /// Makes all triggers again as they were that are held still.
    pub(super) fn release_triggers(&mut self) -> Result<(), Error> {
        let begin = self.begin_of_held();
        for trigger in find(&mut self.b, None)? {
            if trigger.body.starts_with(&begin) {
                let inner = |body: &str| body.strip_prefix(&begin)?.strip_suffix(END).map(str::to_owned);
                make_again(&mut self.b, &trigger, &inner)?;
            }
        }
        Ok(())
    }

    /// The same at the end of an act.
    pub(super) fn let_triggers_go(&mut self) -> Result<(), TargetError> {
        self.release_triggers().map_err(|source| self.failed("cannot let triggers act again in", source))
    }
}
