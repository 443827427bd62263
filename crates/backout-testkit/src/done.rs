//! What came of a command, as tests ask and show it.

use std::fmt;

use backout_engine::error::EngineError;
use backout_engine::outcome::{Outcome, Status};

use crate::site::Done;
use backout_engine::observer::Happening;

impl<T> Done<T> {
    pub fn words(&self) -> String {
        match &self.result {
            Ok(_) => "done".to_owned(),
            Err(error) => error.causes().join(": "),
        }
    }

    /// The warnings that were told.
    pub fn warnings(&self) -> Vec<&str> {
        let texts = self.heard.iter().filter_map(|happening| match happening {
            Happening::Warning { text } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }
}

impl Done {
    pub fn status(&self) -> Status {
        match &self.result {
            Ok(outcome) => outcome.status,
            Err(error) => error.status(),
        }
    }

    /// The outcome; panics with what was told where there is none or another status came.
    #[track_caller]
    pub fn expect(self, status: Status) -> Outcome {
        assert_eq!(self.status(), status, "{self:?}");
        match self.result {
            Ok(outcome) => outcome,
            Err(error) => panic!("{}", error.causes().join(": ")),
        }
    }

    /// The id of the deployment it was about.
    #[track_caller]
    pub fn id(&self) -> String {
        match &self.result {
            Ok(Outcome { deployment: Some(id), .. }) => id.to_string(),
            _ => panic!("no deployment: {self:?}"),
        }
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(outcome) => {
                writeln!(f, "{:?}: {}", outcome.status, outcome.closing)?;
                let lines = [&outcome.answer, &outcome.causes, &outcome.notes];
                lines.iter().copied().flatten().try_for_each(|line| writeln!(f, "  {line}"))?;
                outcome.conflicts.iter().try_for_each(|conflict| writeln!(f, "  conflict: {conflict}"))?;
                outcome.left_out.iter().try_for_each(|left| writeln!(f, "  left out: {}: {}", left.what, left.why))?;
            }
            Err(error) => {
                writeln!(f, "{:?}: {}", error.status(), error.causes().join(": "))?;
                if let EngineError::Refused(refusals) = error {
                    refusals.iter().try_for_each(|refusal| writeln!(f, "  refused: {refusal}"))?;
                }
            }
        }
        self.warnings().iter().try_for_each(|warning| writeln!(f, "  warning: {warning}"))
    }
}
