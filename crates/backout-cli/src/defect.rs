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
        let file = info.location().map_or("", std::panic::Location::file);
        if is_nobody_listening(file, what(info)) {
            return;
        }
        report(info, json, command);
        std::process::exit(EXIT);
    }));
}

/// Whether a thread of the backup library that reads trees ahead found that its reader has gone, as after an error that the
/// reader tells: it panics then (`TreeStreamerOnce`), and only that thread is to end.
fn is_nobody_listening(file: &str, what: &str) -> bool {
    file.contains("rustic_core") && what.contains("SendError")
}

fn what<'info>(info: &'info PanicHookInfo<'_>) -> &'info str {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason given")
}

fn report(info: &PanicHookInfo<'_>, json: bool, command: &str) {
    let what = what(info);
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

#[cfg(test)]
mod tests {
    use super::is_nobody_listening;

    #[test]
    fn only_a_reader_that_has_gone_is_no_defect() {
        let library = "registry/rustic_core-0.13.0/src/blob/tree.rs";
        let gone = "called `Result::unwrap()` on an `Err` value: \"SendError(..)\"";
        assert!(is_nobody_listening(library, gone));
        assert!(!is_nobody_listening("crates/backout-files/src/look.rs", gone));
        assert!(!is_nobody_listening(library, "index out of bounds"));
    }
}
