//! How statements are shown to people, whatever the engine, and what is said where one has no undo.

use backout_model::target::{Refusal, TargetError};

/// A statement's beginning for messages, on one line.
pub fn shorten(sql: &str) -> String {
    const LONGEST: usize = 100;
    let mut short = String::with_capacity(LONGEST);
    for word in sql.split_whitespace() {
        if !short.is_empty() {
            short.push(' ');
        }
        for letter in word.chars() {
            if short.len() >= LONGEST {
                short.push('…');
                return short;
            }
            short.push(letter);
        }
    }
    short.truncate(short.trim_end_matches(';').len());
    short
}

/// The undo of a script that was declared to have none.
pub fn never(shown: &str, because: &str) -> TargetError {
    TargetError::Refused(Refusal {
        place: shown.to_owned(),
        what: "the undo of this script".to_owned(),
        why: format!("it was declared to have none, because: {because}"),
        ways_out: vec!["go back to a backup".to_owned()],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_statement_is_shortened() {
        assert_eq!(shorten("SELECT\n  1;"), "SELECT 1");
        assert!(shorten(&"ü ".repeat(200)).chars().count() < 110);
    }
}
