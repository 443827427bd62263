//! What the person or the script sees. stdout carries only the answer, everything else goes to stderr.
//!
//! Never decides anything, and never fails: where nobody reads stdout any more, the work goes on in silence.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;

use crate::global::{Color, Global};

/// The version of the JSON lines: raised when the meaning of a field changes, not when one is added.
pub const JSON_VERSION: u32 = 1;

/// A handle to the process's output; cheap to clone.
#[derive(Clone)]
pub struct Ui {
    shared: Arc<Shared>,
}

struct Shared {
    json: bool,
    quiet: bool,
    verbose: bool,
    /// Colours on stderr; the answer has none.
    paint_errors: bool,
    out: Mutex<Out>,
    /// Drawn on stderr; lines are written around it.
    bars: MultiProgress,
}

/// stdout and what became of it.
struct Out {
    writer: BufWriter<Stdout>,
    /// The first error of writing; a reader that went away (`| head`) is none.
    failure: Option<io::Error>,
    closed: bool,
}

/// A line under `--json` for what has no tag of its own.
#[derive(Serialize)]
struct Tagged<'a, T: Serialize> {
    v: u32,
    event: &'a str,
    #[serde(flatten)]
    rest: &'a T,
}

/// A line under `--json` for what brings its tag along.
#[derive(Serialize)]
struct Versioned<'a, T: Serialize> {
    v: u32,
    #[serde(flatten)]
    rest: &'a T,
}

/// The colours of the words that lines begin with.
#[derive(Clone, Copy)]
pub enum Paint {
    Red,
    Yellow,
    Cyan,
    Bold,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Paint::Red => "\x1b[1;31m",
            Paint::Yellow => "\x1b[1;33m",
            Paint::Cyan => "\x1b[1;36m",
            Paint::Bold => "\x1b[1m",
        }
    }
}

impl Ui {
    pub fn new(global: &Global) -> Self {
        let paint_errors = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                io::stderr().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        };
        let shows_bars = !global.json && !global.quiet && io::stderr().is_terminal();
        let target = if shows_bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let out = Out { writer: BufWriter::new(io::stdout()), failure: None, closed: false };
        Self {
            shared: Arc::new(Shared {
                json: global.json,
                quiet: global.quiet,
                verbose: global.verbose,
                paint_errors,
                out: Mutex::new(out),
                bars: MultiProgress::with_draw_target(target),
            }),
        }
    }

    pub fn is_json(&self) -> bool {
        self.shared.json
    }

    pub fn is_quiet(&self) -> bool {
        self.shared.quiet
    }

    pub fn is_verbose(&self) -> bool {
        self.shared.verbose
    }

    /// Where progress bars are drawn; hidden where stderr is no terminal.
    pub fn bars(&self) -> &MultiProgress {
        &self.shared.bars
    }

    /// Does something on the terminal that bars would disturb.
    pub fn without_bars<T>(&self, act: impl FnOnce() -> T) -> T {
        if self.shared.bars.is_hidden() {
            return act();
        }
        self.shared.bars.set_draw_target(ProgressDrawTarget::hidden());
        let done = act();
        self.shared.bars.set_draw_target(ProgressDrawTarget::stderr());
        done
    }

    /// A line of the answer for people.
    pub fn answer(&self, line: impl Display) {
        if !self.shared.json {
            self.shared.bars.suspend(|| self.write(|out| writeln!(out, "{line}")));
        }
    }

    /// Bytes of the answer that are the same for people and scripts (a completion, a schema).
    pub fn raw(&self, bytes: &[u8]) {
        self.write(|out| out.write_all(bytes));
    }

    /// One thing of an answer that may have very many: a line for people, an object under `--json`.
    pub fn item<T: Serialize>(&self, event: &str, item: &T, words: impl FnOnce(&T) -> String) {
        if self.shared.json {
            self.object(&Tagged { v: JSON_VERSION, event, rest: item });
        } else {
            let words = words(item);
            self.shared.bars.suspend(|| self.write(|out| writeln!(out, "{words}")));
        }
    }

    /// Something that happened and that brings its tag `event` along; only under `--json`, and at once.
    pub fn event<T: Serialize>(&self, happening: &T) {
        if self.shared.json {
            self.object(&Versioned { v: JSON_VERSION, rest: happening });
            self.flush();
        }
    }

    /// A tagged object under `--json`, at once.
    pub fn object_now<T: Serialize>(&self, event: &str, rest: &T) {
        if self.shared.json {
            self.object(&Tagged { v: JSON_VERSION, event, rest });
            self.flush();
        }
    }

    fn object<T: Serialize>(&self, value: &T) {
        self.write(|out| {
            serde_json::to_writer(&mut *out, value)?;
            out.write_all(b"\n")
        });
    }

    pub fn error(&self, causes: &[String]) {
        for (index, cause) in causes.iter().enumerate() {
            let word = if index == 0 { "error:" } else { "caused by:" };
            self.marked(Paint::Red, word, cause);
        }
    }

    pub fn warning(&self, text: impl Display) {
        self.marked(Paint::Yellow, "warning:", text);
    }

    /// What to do next.
    pub fn hint(&self, text: impl Display) {
        if !self.shared.quiet {
            self.marked(Paint::Cyan, "hint:", text);
        }
    }

    /// What the operator should know and need not act on.
    pub fn note(&self, text: impl Display) {
        if !self.shared.quiet {
            self.marked(Paint::Bold, "note:", text);
        }
    }

    /// A line on stderr that begins with a coloured word.
    pub fn marked(&self, paint: Paint, word: &str, text: impl Display) {
        let word = painted(self.shared.paint_errors, paint, word);
        self.stderr(&format!("{word} {}", harmless(&text.to_string())));
    }

    /// A plain line on stderr.
    pub fn stderr(&self, line: &str) {
        // Whatever was answered before comes first, also where both end in the same file.
        self.flush();
        self.shared.bars.suspend(|| {
            or_nobody_hears(writeln!(io::stderr().lock(), "{line}"));
        });
    }

    pub fn flush(&self) {
        self.write(|out| out.flush());
    }

    /// What went wrong with stdout, once.
    pub fn take_failure(&self) -> Option<io::Error> {
        self.flush();
        self.out().failure.take()
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.shared.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, act: impl FnOnce(&mut BufWriter<Stdout>) -> io::Result<()>) {
        let mut out = self.out();
        if out.closed {
            return;
        }
        if let Err(error) = act(&mut out.writer) {
            out.closed = true;
            if error.kind() != io::ErrorKind::BrokenPipe {
                out.failure = Some(error);
            }
        }
    }
}

/// Where a stream is closed there is nobody left to tell, and the work goes on.
pub fn or_nobody_hears(_written: io::Result<()>) {}

/// The text with control characters made visible: what comes from a package, a database or a command must not steer the
/// terminal.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

fn painted(wanted: bool, paint: Paint, text: &str) -> String {
    if wanted { format!("{}{text}\x1b[0m", paint.code()) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_begins_with_its_version_and_event() {
        #[derive(Serialize)]
        struct Rest {
            a: u8,
        }
        let line = serde_json::to_string(&Tagged { v: 1, event: "x", rest: &Rest { a: 2 } }).unwrap();
        assert_eq!(line, r#"{"v":1,"event":"x","a":2}"#);
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(harmless("a\u{1b}[31m\r\n\tb"), "a\\u{1b}[31m\\r\n\tb");
    }

    #[test]
    fn paint_is_put_on_only_where_it_is_wanted() {
        assert_eq!(painted(false, Paint::Red, "error:"), "error:");
        assert_eq!(painted(true, Paint::Red, "error:"), "\u{1b}[1;31merror:\u{1b}[0m");
    }
}
