//! How a command ends: the answer, what went wrong, what to do next, the state that was left, the exit status.
//!
//! Every way out of the binary but a defect passes here, so that the closing line is never forgotten.

use backout_engine::outcome::{NOTHING_CHANGED, Outcome, Status};
use backout_model::target::Refusal;
use serde::Serialize;
use serde_json::Value;

use crate::error::CliError;
use crate::ui::{Paint, Ui};

/// What a command that could be carried out came to.
#[must_use]
pub struct End {
    status: Status,
    /// The fields of the result under `--json`.
    fields: Value,
    /// The last line on stderr; empty where a question was answered and nothing more is to be said.
    closing: String,
    /// Nothing but the answer was asked for: one that could not be written makes the command fail.
    answer_only: bool,
}

/// The last line under `--json`.
#[derive(Serialize)]
struct ResultLine<'a> {
    command: &'a str,
    status: Status,
    exit: u8,
    #[serde(skip_serializing_if = "str::is_empty")]
    closing: &'a str,
    #[serde(flatten)]
    fields: &'a Value,
}

/// The fields of a result that is an error.
#[derive(Serialize)]
struct Failure {
    causes: Vec<String>,
    hints: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refusals: Vec<Refusal>,
}

/// How many conflicts are shown to people; `--json` has more.
const CONFLICTS_SHOWN: usize = 20;

impl End {
    /// A question was answered; `fields` is what scripts get.
    pub fn answered(fields: &impl Serialize) -> Self {
        Self { status: Status::Done, fields: to_value(fields), closing: String::new(), answer_only: true }
    }

    /// A question was answered, and the answer is not a good one.
    pub fn answered_with(status: Status, fields: &impl Serialize, closing: impl Into<String>) -> Self {
        Self { status, fields: to_value(fields), closing: closing.into(), answer_only: true }
    }

    /// Something was done beside the site (a file was written, a lock taken over).
    pub fn did(fields: &impl Serialize, closing: impl Into<String>) -> Self {
        Self { status: Status::Done, fields: to_value(fields), closing: closing.into(), answer_only: false }
    }

    /// Tells an outcome of the engine to people; the result line follows at the end.
    pub fn of(ui: &Ui, outcome: &Outcome) -> Self {
        tell(ui, outcome);
        Self {
            status: outcome.status,
            fields: without(to_value(outcome), &["status", "closing"]),
            closing: outcome.closing.clone(),
            answer_only: false,
        }
    }

    /// The same with figures beside the outcome's own fields.
    pub fn of_with(ui: &Ui, outcome: &Outcome, figures: &impl Serialize) -> Self {
        let mut end = Self::of(ui, outcome);
        if let (Value::Object(fields), Value::Object(more)) = (&mut end.fields, to_value(figures)) {
            fields.extend(more);
        }
        end
    }
}

/// Writes the last lines and returns the exit status.
pub fn finish(ui: &Ui, command: &str, ended: Result<End, CliError>) -> u8 {
    let end = match ended {
        Ok(end) => end,
        Err(error) => {
            let hints = error.hints();
            ui.error(&error.causes());
            hints.iter().for_each(|hint| ui.hint(hint));
            let failure = Failure { causes: error.causes(), hints, refusals: error.refusals().to_vec() };
            End { status: error.status(), fields: to_value(&failure), closing: error.closing(), answer_only: false }
        }
    };
    let exit = end.status.code();
    ui.object_now(
        "result",
        &ResultLine { command, status: end.status, exit, closing: &end.closing, fields: &end.fields },
    );
    if let Some(error) = ui.take_failure() {
        return unwritten(ui, &end, &error);
    }
    let needless = end.closing.is_empty() || (ui.is_quiet() && end.status == Status::Done);
    if !needless {
        ui.stderr(&end.closing);
    }
    exit
}

/// stdout could not be written (a full disk): a lost answer is a failure only where the answer was all there was.
fn unwritten(ui: &Ui, end: &End, error: &std::io::Error) -> u8 {
    if end.answer_only {
        ui.error(&["cannot write the answer to stdout".to_owned(), error.to_string()]);
        ui.stderr(NOTHING_CHANGED);
        return Status::Refused.code();
    }
    ui.warning(format!("cannot write the answer to stdout: {error}"));
    ui.stderr(&end.closing);
    end.status.code()
}

/// The engine's outcome for people.
pub fn tell(ui: &Ui, outcome: &Outcome) {
    for line in &outcome.answer {
        ui.answer(line);
    }
    for note in &outcome.notes {
        ui.note(note);
    }
    for conflict in outcome.conflicts.iter().take(CONFLICTS_SHOWN) {
        ui.marked(Paint::Yellow, "conflict:", conflict);
    }
    let shown = outcome.conflicts.len().min(CONFLICTS_SHOWN) as u64;
    if outcome.conflicts_total > shown {
        ui.stderr(&format!("… and {} more conflicts", outcome.conflicts_total - shown));
    }
    for left in &outcome.left_out {
        ui.marked(Paint::Yellow, "left out:", format!("{}: {}", left.what, left.why));
    }
    ui.error(&outcome.causes);
    for hint in &outcome.hints {
        ui.hint(hint);
    }
}

fn to_value(fields: &impl Serialize) -> Value {
    // The types that come here are structs of plain fields; one that does not serialise shows as null.
    match serde_json::to_value(fields) {
        Ok(Value::Object(map)) => Value::Object(map),
        Ok(Value::Null) | Err(_) => Value::Object(serde_json::Map::new()),
        Ok(other) => serde_json::json!({ "answer": other }),
    }
}

/// Leaves out what stands in the line itself.
fn without(mut fields: Value, names: &[&str]) -> Value {
    if let Value::Object(map) = &mut fields {
        for name in names {
            map.remove(*name);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_names_its_command_its_status_and_its_exit_once() {
        let outcome = Outcome::new(Status::Partly, "It is done in part.");
        let fields = without(to_value(&outcome), &["status", "closing"]);
        let line = ResultLine {
            command: "deploy",
            status: Status::Partly,
            exit: 5,
            closing: &outcome.closing,
            fields: &fields,
        };
        let text = serde_json::to_string(&line).unwrap();
        assert!(text.starts_with(r#"{"command":"deploy","status":"partly","exit":5,"#), "{text}");
        assert_eq!(text.matches("status").count(), 1);
    }
}
