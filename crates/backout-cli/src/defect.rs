//! A defect of the tool itself: a plain message and exit status 255 instead of a panic's text.

use std::io::Write;
use std::panic::PanicHookInfo;

use crate::ui::{JSON_VERSION, or_nobody_hears};

/// The exit status of a defect.
const EXIT: i32 = 255;

/// From here on a panic ends the process like a crash would: nothing more is written to the site, and `resume`
/// decides what was left, as after any crash. `command` is empty until the command line was understood.
pub fn install(json: bool, command: &'static str) {
    std::panic::set_hook(Box::new(move |info| {
        report(info, json, command);
        std::process::exit(EXIT);
    }));
}

fn report(info: &PanicHookInfo<'_>, json: bool, command: &str) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let what = text.unwrap_or("no reason given");
    let place = info.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
    let closing = "Needs a hand: it is not known what was left; `backout resume` finds out.";
    let mut text = format!("error: this is a defect of backout {} at {place}\n", env!("CARGO_PKG_VERSION"));
    text.push_str(&format!("caused by: {what}\n"));
    let hint = "run `backout status`, then `backout resume`, and report the lines above";
    text.push_str(&format!("hint: {hint}\n"));
    text.push_str(closing);
    text.push('\n');
    or_nobody_hears(std::io::stderr().write_all(text.as_bytes()));
    if json {
        let line = serde_json::json!({
            "v": JSON_VERSION, "event": "result", "command": command, "status": "defect", "exit": EXIT,
            "causes": [format!("a defect at {place}"), what], "hints": [hint], "closing": closing,
        });
        // The thread that panicked may hold stdout's lock; std's is reentrant for the same thread.
        or_nobody_hears(writeln!(std::io::stdout(), "{line}"));
    }
}
