//! Progress on a terminal: one bar for the steps of a package, one line for what the step at hand does.
//!
//! Drawn on stderr by `indicatif`; never written to stdout.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Standing;

pub struct Bars {
    multi: MultiProgress,
    standing: Standing,
    bar: Option<ProgressBar>,
}

impl Bars {
    pub fn new(multi: &MultiProgress) -> Self {
        Self { multi: multi.clone(), standing: Standing::default(), bar: None }
    }

    pub fn show(&mut self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.standing);
        let bar = self.bar.get_or_insert_with(|| {
            let bar = self.multi.add(ProgressBar::new_spinner());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let (position, length) = match (self.standing.done_of, self.standing.of) {
            (Some(of), _) => (self.standing.done, of),
            (None, of) => (u64::from(self.standing.step.saturating_sub(1)), u64::from(of)),
        };
        if length > 0 {
            bar.set_style(style("{spinner} {elapsed} [{bar:24}] {wide_msg}"));
            bar.set_length(length);
            bar.set_position(position);
        } else {
            bar.set_style(style("{spinner} {elapsed} {wide_msg}"));
        }
        bar.set_message(self.standing.line());
    }

    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            self.multi.remove(&bar);
        }
        self.standing = Standing::default();
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are fixed and tested; a bar that looks plain is no reason to fail.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound() {
        for template in ["{spinner} {elapsed} [{bar:24}] {wide_msg}", "{spinner} {elapsed} {wide_msg}"] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
