//! A command line that can't be understood, and what `--help` and `--version` come to.

use std::io::Write;

use backout_engine::outcome::{NOTHING_CHANGED, Status};
use clap::error::ErrorKind;
use serde_json::json;

use crate::ui::{JSON_VERSION, or_nobody_hears};

/// Shows it and returns the exit status.
pub fn tell(error: &clap::Error, as_json: bool) -> u8 {
    or_nobody_hears(error.print());
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Status::Done.code(),
        _ => {}
    }
    or_nobody_hears(writeln!(std::io::stderr(), "{NOTHING_CHANGED}"));
    if as_json {
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let line = json!({
            "v": JSON_VERSION, "event": "result", "status": Status::Usage, "exit": Status::Usage.code(),
            "causes": [what], "closing": NOTHING_CHANGED,
        });
        or_nobody_hears(writeln!(std::io::stdout(), "{line}"));
    }
    Status::Usage.code()
}
