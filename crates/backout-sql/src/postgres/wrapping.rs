//! BEGIN and COMMIT where they only wrap a script; anywhere else they would cut the step's one transaction up.

use backout_model::target::Refusal;

use super::classify::Class;
use super::split::Statement;
use crate::shown::shorten;

/// Where a script stands as to the transaction that may wrap it.
#[derive(Default)]
pub struct Wrapping {
    begun: bool,
    ended: bool,
    /// Something was done that BEGIN would have to hold.
    changed: bool,
}

impl Wrapping {
    /// Takes note of the next statement, or refuses it.
    pub fn admit(&mut self, class: &Class, statement: &Statement, place: &str) -> Result<(), Refusal> {
        let why = match class {
            // A dump may set and show something before BEGIN and after COMMIT.
            Class::Setting(_) | Class::Read => return Ok(()),
            _ if self.ended => "it stands after the COMMIT that ends the script's transaction",
            Class::Begin if self.begun || self.changed => {
                "a script is one transaction, and this one begins another inside"
            }
            Class::Commit if !self.begun => "it would commit half of the script",
            _ => {
                match class {
                    Class::Begin => self.begun = true,
                    Class::Commit => self.ended = true,
                    _ => self.changed = true,
                }
                return Ok(());
            }
        };
        Err(Refusal {
            place: place.to_owned(),
            what: format!("`{}`", shorten(&statement.sql)),
            why: why.to_owned(),
            ways_out: vec!["make it a script, and so a step, of its own".to_owned()],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{classify::classify, split::Script};
    use super::*;

    fn admitted(script: &str) -> Result<(), String> {
        let mut wrapping = Wrapping::default();
        for statement in Script::new(script.as_bytes()) {
            let statement = statement.unwrap();
            let class = classify(&statement, "a.sql:1").unwrap();
            wrapping.admit(&class, &statement, "a.sql:1").map_err(|refusal| refusal.why)?;
        }
        Ok(())
    }

    #[test]
    fn begin_and_commit_may_only_wrap() {
        for fine in ["SET a.b = 1; BEGIN; DELETE FROM t; COMMIT; RESET a.b; SELECT 1", "BEGIN; COMMIT", "DELETE FROM t"]
        {
            assert_eq!(admitted(fine), Ok(()), "{fine}");
        }
        for (script, why) in [
            ("DELETE FROM t; BEGIN", "begins another inside"),
            ("BEGIN; BEGIN", "begins another inside"),
            ("DELETE FROM t; COMMIT", "commit half"),
            ("BEGIN; COMMIT; DELETE FROM t", "after the COMMIT"),
            ("BEGIN; COMMIT; BEGIN", "after the COMMIT"),
        ] {
            assert!(admitted(script).unwrap_err().contains(why), "{script}");
        }
    }
}
