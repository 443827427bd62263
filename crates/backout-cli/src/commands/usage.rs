//! A command line that can't be understood, and what `--help` and `--version` come to.

use std::io::Write;

use backout_engine::outcome::{NOTHING_CHANGED, Status};
use clap::error::ErrorKind;
use serde_json::json;

use crate::ui::{JSON_VERSION, or_nobody_hears};

/// Shows it and returns the exit status.
pub fn tell(error: &clap::Error, as_json: bool) -> u8 {
    or_nobody_hears(error.print());
    let status = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Status::Done,
        _ => {
            or_nobody_hears(writeln!(std::io::stderr(), "{NOTHING_CHANGED}"));
            Status::Usage
        }
    };
    if as_json {
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let causes: &[&str] = if status == Status::Done { &[] } else { &[what] };
        let line = json!({
            "v": JSON_VERSION, "event": "result", "status": status, "exit": status.code(), "causes": causes,
            "closing": NOTHING_CHANGED,
        });
        or_nobody_hears(writeln!(std::io::stdout(), "{line}"));
    }
    status.code()
}
