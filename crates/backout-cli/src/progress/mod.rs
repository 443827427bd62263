//! What a run tells while it runs: bars on a terminal, a line every ten seconds elsewhere, JSON events for scripts.
//!
//! Never changes what happens, but for one thing: it passes on that the operator asked to stop.

mod bars;
mod lines;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use backout_engine::observer::{Happening, Observer};
use backout_model::id::FramePath;

use crate::signals::Stop;
use crate::ui::{Paint, Ui};
use crate::words;
use bars::Bars;
use lines::Lines;

/// At most so often a script hears how far a step is.
const WITHIN_EVERY: Duration = Duration::from_millis(200);

/// The observer of a run.
pub struct Progress {
    ui: Ui,
    stop: Stop,
    view: View,
    within_last: Option<Instant>,
    /// Why each frame failed last, until it is tried again or passed over.
    failures: BTreeMap<FramePath, String>,
    told_to_stop: bool,
}

enum View {
    Bars(Bars),
    Lines(Lines),
    /// `--quiet`, or `--json`, where the events are the progress.
    Nothing,
}

/// Where a run stands, as all views show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub phase: String,
    pub package: String,
    pub frame: String,
    /// From 1.
    pub step: u32,
    pub of: u32,
    pub what: String,
    pub done: u64,
    pub done_of: Option<u64>,
}

impl Progress {
    pub fn new(ui: &Ui, stop: Stop) -> Self {
        let view = if ui.is_json() || ui.is_quiet() {
            View::Nothing
        } else if !ui.bars().is_hidden() {
            View::Bars(Bars::new(ui.bars()))
        } else {
            View::Lines(Lines::new(ui.clone()))
        };
        Self { ui: ui.clone(), stop, view, within_last: None, failures: BTreeMap::new(), told_to_stop: false }
    }

    /// Takes bars away and stops the lines, for the answer that comes now.
    pub fn pause(&mut self) {
        match &mut self.view {
            View::Bars(bars) => bars.clear(),
            View::Lines(lines) => lines.clear(),
            View::Nothing => {}
        }
    }

    fn show(&mut self, change: impl FnOnce(&mut Standing)) {
        match &mut self.view {
            View::Bars(bars) => bars.show(change),
            View::Lines(lines) => lines.show(change),
            View::Nothing => {}
        }
    }

    /// What people want to hear at once, whatever the view.
    fn tell(&mut self, happening: &Happening) {
        match happening {
            Happening::Warning { text } => self.ui.warning(text),
            Happening::Failed { frame, causes } => {
                self.failures.insert(frame.clone(), causes.join(": "));
            }
            Happening::Retrying { frame, attempt, of, wait_ms } => {
                let why = self.failures.remove(frame).unwrap_or_default();
                let wait = Duration::from_millis(*wait_ms);
                self.ui.warning(format!("{frame} failed: {why}; attempt {attempt} of {of} follows in {wait:?}"));
            }
            Happening::PassedOver { frame, why } => self.ui.warning(format!("{frame} is passed over: {why}")),
            _ if self.ui.is_verbose() => {
                if let Some(line) = verbose(happening) {
                    self.ui.marked(Paint::Bold, "·", line);
                }
            }
            _ => {}
        }
    }
}

impl Observer for Progress {
    fn heard(&mut self, happening: Happening) {
        if matches!(happening, Happening::Within { .. }) {
            let now = Instant::now();
            if self.within_last.is_some_and(|last| now - last < WITHIN_EVERY) {
                return;
            }
            self.within_last = Some(now);
        }
        if self.stop.asked() && !self.told_to_stop {
            self.told_to_stop = true;
            self.ui.warning("asked to stop: the step at hand is finished, then what was begun is taken back (a plain list keeps what is done)");
        }
        self.ui.event(&happening);
        self.tell(&happening);
        self.show(|standing| standing.follow(happening));
    }

    fn stop(&self) -> Option<Arc<AtomicBool>> {
        Some(self.stop.flag())
    }
}

impl Standing {
    /// Takes in what happened.
    fn follow(&mut self, happening: Happening) {
        match happening {
            Happening::Deployment { package, version, .. } => self.package = format!("{package} {version}"),
            Happening::Phase { name } => {
                name.clone_into(&mut self.phase);
                self.clear_step();
            }
            Happening::FrameStarted { frame, .. } => {
                frame.as_str().clone_into(&mut self.frame);
                self.clear_step();
            }
            Happening::StepStarted { frame, index, of, what } => {
                frame.as_str().clone_into(&mut self.frame);
                (self.step, self.of, self.what) = (index + 1, of, what);
                (self.done, self.done_of) = (0, None);
            }
            Happening::StepUndoing { frame, index, what } => {
                frame.as_str().clone_into(&mut self.frame);
                (self.step, self.of, self.what) = (index + 1, 0, what);
                (self.done, self.done_of) = (0, None);
            }
            Happening::Within { done, of } => (self.done, self.done_of) = (done, of),
            Happening::CheckRan { name, .. } => {
                self.clear_step();
                self.what = format!("check: {name}");
            }
            _ => {}
        }
    }

    fn clear_step(&mut self) {
        (self.step, self.of, self.done, self.done_of) = (0, 0, 0, None);
        self.what.clear();
    }

    /// All of it on one line.
    pub fn line(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut part = |text: &str| {
            if !text.is_empty() {
                parts.push(words::short(text));
            }
        };
        part(&self.phase);
        part(&self.package);
        part(&self.frame);
        if self.step > 0 {
            part(&if self.of > 0 {
                format!("step {} of {}", self.step, self.of)
            } else {
                format!("step {}", self.step)
            });
        }
        part(&self.what);
        match (self.done, self.done_of) {
            (0, _) => {}
            (done, Some(of)) => part(&format!("{done} of {of}")),
            (done, None) => part(&done.to_string()),
        }
        parts.join(" · ")
    }
}

/// A line for `-v`.
fn verbose(happening: &Happening) -> Option<String> {
    let at = |frame: &FramePath, index: u32| {
        if frame.is_root() { format!("step {}", index + 1) } else { format!("{frame} step {}", index + 1) }
    };
    Some(match happening {
        Happening::Deployment { id, package, version } => format!("deployment {id}: {package} {version}"),
        Happening::Phase { name } => (*name).to_owned(),
        Happening::FrameStarted { frame, package, version, attempt } if !frame.is_root() => {
            format!("{frame}: {package} {version}, attempt {attempt}")
        }
        Happening::StepStarted { frame, index, of, what } => format!("{} of {of}: {what}", at(frame, *index)),
        Happening::StepDone { frame, index, changes, rows } => {
            format!("{} done: {changes} changes, {rows} rows", at(frame, *index))
        }
        Happening::StepUndoing { frame, index, what } => format!("{} is taken back: {what}", at(frame, *index)),
        Happening::CheckRan { name, held, detail } => {
            let detail = detail.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
            format!("check {name} {}{detail}", if *held { "holds" } else { "does not hold" })
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_the_run_stands() {
        let mut standing = Standing::default();
        standing.follow(Happening::Phase { name: "applying" });
        standing.follow(Happening::StepStarted {
            frame: FramePath::parse("content"),
            index: 1,
            of: 3,
            what: "sql/010.sql".into(),
        });
        standing.follow(Happening::Within { done: 500, of: None });
        assert_eq!(standing.line(), "applying · content · step 2 of 3 · sql/010.sql · 500");
        standing.follow(Happening::Phase { name: "undoing" });
        assert_eq!(standing.line(), "undoing · content");
    }
}
