//! Why capturing stopped, and which statement of a script is refused for it.

use std::io;

use backout_model::target::{Refusal, TargetError};

use super::apply::{Reading, shortened, uncaptured};
use super::ddl_names::starts_with;
use super::session::is_lock_timeout;
use super::split::Statement;
use super::token::each_token;
use crate::database::Script;

/// Why capturing stopped.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("the images cannot be written")]
    Write(#[from] io::Error),
    #[error("cannot read {what}")]
    Read { what: String, source: postgres::Error },
    #[error("a deferred constraint does not hold")]
    Deferred(#[source] postgres::Error),
    /// What was changed has no proven undo.
    #[error("{0}")]
    Uncapturable(String),
    /// What was changed could be captured in a step of its own.
    #[error("{0}")]
    TwoSteps(String),
    /// The same, where it is known whose rows it is about.
    #[error("{source}")]
    Of { table: String, source: Box<CaptureError> },
}

impl CaptureError {
    /// Tells whose rows are meant where they cannot be captured; `table` is the plain name, without its schema.
    pub fn about(self, table: &str) -> Self {
        match self {
            Self::Uncapturable(_) | Self::TwoSteps(_) => Self::Of { table: table.to_owned(), source: Box::new(self) },
            other => other,
        }
    }

    /// The table that it is about, by its plain name, and the rest of it.
    pub fn parts(self) -> (Option<String>, Self) {
        match self {
            Self::Of { table, source } => (Some(table), *source),
            other => (None, other),
        }
    }

    /// Of rows as they were, which the second session reads.
    pub fn of_rows(self, table: &str) -> Self {
        match self {
            // Up to 13 a partition that leaves is not locked against readers, and its whole, which they look at, is.
            Self::Read { source, .. } if is_lock_timeout(&source) => Self::TwoSteps(format!(
                "the rows of {table} as they were could not be read: a lock that this step, or somebody else, holds keeps readers away"
            )),
            Self::Read { source, .. } => Self::Read { what: table.to_owned(), source },
            other => other,
        }
    }
}

pub fn reading(what: &str) -> impl FnOnce(postgres::Error) -> CaptureError {
    move |source| CaptureError::Read { what: what.to_owned(), source }
}

/// What cannot be captured is refused; any other failure is the step's.
pub fn refused_or(label: &str, place: &str, source: CaptureError) -> TargetError {
    let (why, two_steps) = match source.parts().1 {
        CaptureError::Uncapturable(why) => (why, None),
        CaptureError::TwoSteps(why) => {
            (why, Some("make it two steps: the change of the schema, then the rows".to_owned()))
        }
        source => return uncaptured(label, source),
    };
    let general = [
        "give the script an undo script of its own (`undo: FILE`)".to_owned(),
        "declare it irreversible (`undo: none` with `because:`)".to_owned(),
    ];
    TargetError::Refused(Refusal {
        place: place.to_owned(),
        what: "the script".to_owned(),
        why,
        ways_out: two_steps.into_iter().chain(general).collect(),
    })
}

/// The same at the step's end, when rows are captured table by table: with the first statement that names the table.
pub fn refused_at_end(label: &str, script: &Script, source: CaptureError) -> TargetError {
    let (table, source) = source.parts();
    match (refused_or(label, &script.shown, source), table) {
        (TargetError::Refused(refusal), Some(table)) => TargetError::Refused(blamed(refusal, script, &table)),
        (error, _) => error,
    }
}

/// The refusal with the place and the text of the first statement that changes rows and names the table, by its plain name. Where none does, a
/// trigger, a cascade or a function reached it: it stays with the script.
fn blamed(refusal: Refusal, script: &Script, table: &str) -> Refusal {
    let Ok(mut reading) = Reading::of(&script.path, &script.shown) else { return refusal };
    const CHANGE_ROWS: [&str; 6] = ["INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "WITH"];
    let names = |statement: &Statement| {
        CHANGE_ROWS.iter().any(|word| starts_with(&statement.sql, word))
            && each_token(&statement.sql).any(|token| token.name().as_deref() == Some(table))
    };
    // All of it ran, so it can be read.
    while let Ok(Some(statement)) = reading.next() {
        if names(&statement) {
            let place = format!("{}:{}", script.shown, statement.line);
            return Refusal { place, what: shortened(&statement.sql), ..refusal };
        }
    }
    refusal
}
