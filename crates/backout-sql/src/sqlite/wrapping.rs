//! Where a script stands as to the transaction that a step is: what may still come, and what goes before it.
//!
//! Goes by the kinds of the statements alone, so that plan and run say the same; never runs one.

use backout_model::target::Refusal;

use super::classify::{Class, refusal};
use super::pragma;
use super::split::Statement;

const OWN_STEP: &str = "make it a script, and so a step, of its own";
const PUT_FIRST: &str = "put it at the beginning of the script, or make what follows it a step of its own";

/// What is to be done with a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing: it means the transaction, which is the tool's, or has no effect.
    Skip,
    /// To be run before the transaction begins.
    Before,
    /// To be run inside.
    Within,
}

/// The statements of one script so far.
#[derive(Default)]
pub struct Wrapping {
    /// Something runs inside already.
    open: bool,
    changed: bool,
    /// BEGIN was seen; COMMIT was seen.
    begun: bool,
    ended: bool,
    /// Whether foreign keys are enforced.
    foreign_keys: bool,
    /// A PRAGMA that came too late to take effect, and would have one on what follows.
    late: Option<Refusal>,
}

impl Wrapping {
    /// Says what to do with the next statement. A refusal may name an earlier one, which this one turned into a
    /// mistake; asked again, it speaks of this one alone.
    pub fn admit(&mut self, class: &Class, statement: &Statement, place: &str) -> Result<Turn, Refusal> {
        let changes = match class {
            Class::Empty => return Ok(Turn::Skip),
            Class::LeadingPragma => return Ok(self.setting(statement, place)),
            Class::Read => false,
            Class::Begin
            | Class::Commit
            | Class::Rows
            | Class::DeleteAll { .. }
            | Class::Ddl
            | Class::Analyze
            | Class::Counter => true,
        };
        let refused = |why| Err(refusal(place, &statement.sql, why, OWN_STEP));
        if changes && self.ended {
            return refused("it stands after the COMMIT that ends the script's transaction");
        }
        if let Some(late) = self.late.take_if(|_| changes) {
            return Err(late);
        }
        match class {
            Class::Begin if self.begun || self.changed => {
                return refused("a script is one transaction, and this one begins another inside");
            }
            Class::Begin => self.begun = true,
            Class::Commit if !self.begun => return refused("it would commit half of the script"),
            Class::Commit => self.ended = true,
            _ => {
                self.open = true;
                self.changed |= changes;
                return Ok(Turn::Within);
            }
        }
        Ok(Turn::Skip)
    }

    fn setting(&mut self, statement: &Statement, place: &str) -> Turn {
        let asked = pragma::parse(&statement.sql).filter(|pragma| !pragma.works_inside());
        let asked = asked.and_then(|pragma| pragma.value).map(|value| pragma::is_on(&value));
        if !self.open && !self.begun {
            self.foreign_keys = asked.unwrap_or(self.foreign_keys);
            return Turn::Before;
        }
        match asked {
            None => {
                self.open = true;
                Turn::Within
            }
            // Inside its own transaction the plain client ignores it, too.
            Some(_) if self.begun => Turn::Skip,
            Some(on) => {
                let why = "a step is one transaction, inside which it has no effect on the statements that follow it";
                self.late = (on != self.foreign_keys).then(|| refusal(place, &statement.sql, why, PUT_FIRST));
                Turn::Skip
            }
        }
    }
}
