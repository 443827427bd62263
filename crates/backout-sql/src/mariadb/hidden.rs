//! Statements that a string hides: PREPARE, EXECUTE. What the string says is known only when it is reached, so a segment with
//! one arms every table; then the text is read, once, and must be one that changes rows of armed tables at most.

use backout_model::target::TargetError;

use super::apply::{Chain, cannot_run};
use super::classify::{self, Class, No};
use super::reader::reader;
use super::run::{self, Bodies, Run};
use super::split::Statement;
use super::token::bare;
use super::{capture::Capture, written};

/// What of a statement that has to do with one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// The name, and where the expression of the text begins.
    Prepare(String, usize),
    Execute(String),
    /// Where the expression of the text begins and ends.
    Immediate(usize, usize),
}

/// Reads a statement that begins with PREPARE or EXECUTE.
pub fn of(sql: &str) -> Option<Hidden> {
    let mut rest = reader(sql);
    if rest.takes("PREPARE") {
        let name = rest.name()?.name;
        rest.takes("FROM").then_some(())?;
        return Some(Hidden::Prepare(name, rest.peek()?.start));
    }
    if rest.takes("EXECUTE IMMEDIATE") {
        let begin = rest.peek()?.start;
        let end = rest.find(|token| token.is("USING")).map_or(sql.len(), |token| token.start);
        return Some(Hidden::Immediate(begin, end));
    }
    rest.takes("EXECUTE").then_some(())?;
    Some(Hidden::Execute(rest.name()?.name.to_lowercase()))
}

impl Chain<'_> {
    /// Runs a statement that prepares or executes a hidden one, once what is hidden is known to be captured.
    pub(super) fn hidden(
        &mut self,
        statement: &Statement,
        place: &str,
        hidden: &Hidden,
        capture: Option<&Capture>,
    ) -> Result<(), TargetError> {
        let sql = bare(&statement.sql, self.database.version);
        let failed = |source: mysql::Error| cannot_run(place, &statement.sql, source);
        let (text, run) = match hidden {
            Hidden::Prepare(_, begin) | Hidden::Immediate(begin, _) => {
                let end = if let Hidden::Immediate(_, end) = hidden { *end } else { sql.len() };
                let a = self.database.a()?;
                // Computed once: a second time it might say something else. As a parameter it may call and read as little as there.
                let text = &sql[*begin..end];
                a.run(&format!("EXECUTE IMMEDIATE 'SET @backout_text = ?' USING {text}")).map_err(failed)?;
                let text = a.value("SELECT @backout_text").map_err(failed)?.unwrap_or_default();
                (text, format!("{}@backout_text {}", &sql[..*begin], &sql[end..]))
            }
            Hidden::Execute(name) => (self.prepared.get(name).cloned().unwrap_or_default(), sql.clone()),
        };
        self.admit_hidden(statement, place, &text, capture)?;
        if let Hidden::Prepare(name, _) = hidden {
            self.prepared.insert(name.to_lowercase(), text);
        }
        self.database.a()?.count(&run).map(drop).map_err(failed)
    }

    fn admit_hidden(
        &mut self,
        statement: &Statement,
        place: &str,
        text: &str,
        capture: Option<&Capture>,
    ) -> Result<(), TargetError> {
        let refused = |why: String| TargetError::from(No::undo(why).at(place, &statement.sql).refusal);
        let database = &mut *self.database;
        let sql = bare(text, database.version);
        let sql = sql.trim_end_matches(|end: char| end == ';' || end.is_ascii_whitespace()).to_owned();
        let names = match classify::of(&sql) {
            Ok(Class::Rows(_)) if reader(&sql).takes("LOAD") => {
                return Err(refused("its string hides a statement that loads a file".to_owned()));
            }
            Ok(Class::Rows(names)) => names,
            Ok(Class::Read) => run::all_names(&sql),
            Ok(_) => {
                return Err(refused(format!(
                    "what its string hides is no change of rows: {}",
                    crate::shown::shorten(text)
                )));
            }
            Err(no) => {
                let inner = no.at(place, text).refusal;
                return Err(refused(format!("its string hides {}: {}", inner.what, inner.why)));
            }
        };
        let mut wanted = Run::default();
        wanted.take(&sql, &names);
        let bodies =
            Bodies::find(&mut database.b).map_err(|source| database.failed("cannot read the routines of", source))?;
        let plan = written::tables(&mut database.b, &database.database, &wanted, &bodies)
            .map_err(|why| refused(format!("its string hides a statement of which {why}")))?;
        match capture {
            Some(capture) if capture.covers(&plan) => Ok(()),
            _ => Err(refused("its string hides a statement on tables that could not be watched".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_a_statement_is_read() {
        for (sql, expected) in [
            ("PREPARE s FROM 'DELETE FROM a'", Some(Hidden::Prepare("s".to_owned(), 15))),
            ("EXECUTE S USING @a", Some(Hidden::Execute("s".to_owned()))),
            ("EXECUTE IMMEDIATE CONCAT('a', @b) USING 1", Some(Hidden::Immediate(18, 34))),
            ("EXECUTE", None),
        ] {
            assert_eq!(of(sql), expected, "{sql}");
        }
    }
}
