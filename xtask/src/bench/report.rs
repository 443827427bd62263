//! The table of what was measured, with the project's targets beside each figure. It measures nothing.

use std::time::Duration;

use serde_json::{Value, json};

use super::measure::median;

/// What a figure must not exceed.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// So many times the baseline.
    Ratio(f64),
    /// So many times the baseline and so many milliseconds on top.
    RatioPlus(f64, f64),
    Milliseconds(f64),
    Mebibytes(f64),
    /// Of so many a second, so much of the baseline must be left.
    AtLeast(f64),
    /// Shown, not judged.
    None,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    /// What it is compared with, in words; empty for a figure that stands alone.
    pub baseline: String,
    /// Milliseconds, or mebibytes for memory, or how many a second.
    pub base: Option<f64>,
    pub ours: f64,
    pub target: Target,
    /// The ratio of the best run of each side, where there were several: what noise touches least.
    pub best: Option<f64>,
}

impl Row {
    pub fn times(name: &str, baseline: &str, base: Duration, ours: Duration, target: Target) -> Self {
        let (base, ours) = (Some(ms(base)), ms(ours));
        Self { name: name.to_owned(), baseline: baseline.to_owned(), base, ours, target, best: None }
    }

    /// All runs of both sides: their medians are judged, the best of each shown beside them.
    pub fn runs(name: &str, baseline: &str, base: &[Duration], ours: &[Duration], target: Target) -> Self {
        let best = |times: &[Duration]| times.iter().min().map(|time| time.as_secs_f64());
        let ratio = best(ours).zip(best(base)).map(|(ours, base)| ours / base);
        Self { best: ratio, ..Self::times(name, baseline, median(base.to_vec()), median(ours.to_vec()), target) }
    }

    pub fn alone(name: &str, ours: f64, target: Target) -> Self {
        Self { name: name.to_owned(), baseline: String::new(), base: None, ours, target, best: None }
    }

    fn ratio(&self) -> Option<f64> {
        self.base.map(|base| self.ours / base)
    }

    fn met(&self) -> bool {
        let base = self.base.unwrap_or_default();
        if let Target::AtLeast(part) = self.target {
            return self.ours >= base * part;
        }
        self.ours
            <= match self.target {
                Target::AtLeast(_) | Target::None => f64::INFINITY,
                Target::Ratio(ratio) => base * ratio,
                Target::RatioPlus(ratio, plus) => base * ratio + plus,
                Target::Milliseconds(most) | Target::Mebibytes(most) => most,
            }
    }

    fn unit(&self) -> &'static str {
        match self.target {
            Target::Mebibytes(_) => "MiB",
            Target::AtLeast(_) => "/s",
            Target::Ratio(_) | Target::RatioPlus(..) | Target::Milliseconds(_) | Target::None => "ms",
        }
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::Ratio(ratio) => format!("{ratio} ×"),
            Target::RatioPlus(ratio, plus) => format!("{ratio} × + {plus} ms"),
            Target::Milliseconds(most) => format!("{most} ms"),
            Target::Mebibytes(most) => format!("{most} MiB"),
            Target::AtLeast(part) => format!("at least {part} ×"),
            Target::None => "-".to_owned(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "baseline": self.baseline,
            "unit": self.unit(),
            "base": self.base,
            "ours": self.ours,
            "ratio": self.ratio(),
            "best": self.best,
            "target": self.target_text(),
            "met": self.met(),
        })
    }

    fn text(&self) -> String {
        let unit = self.unit();
        let base = self.base.map_or_else(String::new, |base| format!("{base:.1} {unit}"));
        let ratio = self.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2} ×"));
        let best = self.best.map_or_else(String::new, |best| format!("{best:.2} ×"));
        let verdict = match self.target {
            Target::None => "",
            _ if self.met() => "ok",
            _ => "over",
        };
        format!(
            "{:<44} {:>12} {:>12} {:>9} {:>9}   {:<16} {verdict:<5} {}",
            self.name,
            base,
            format!("{:.1} {unit}", self.ours),
            ratio,
            best,
            self.target_text(),
            self.baseline
        )
    }
}

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Prints rows as they come.
pub struct Report {
    json: bool,
    over: usize,
    rows: usize,
}

impl Report {
    pub fn new(json: bool) -> Self {
        if !json {
            println!(
                "{:<44} {:>12} {:>12} {:>9} {:>9}   {:<16} {:<5} against",
                "", "baseline", "backout", "ratio", "of best", "target", ""
            );
        }
        Self { json, over: 0, rows: 0 }
    }

    pub fn add(&mut self, row: &Row) {
        self.rows += 1;
        self.over += usize::from(!row.met());
        if self.json {
            println!("{}", row.json());
        } else {
            println!("{}", row.text());
        }
    }

    pub fn close(&self) {
        if self.json {
            println!("{}", json!({ "rows": self.rows, "over": self.over }));
        } else {
            println!("{} measured, {} over the target", self.rows, self.over);
        }
    }

    pub fn all_met(&self) -> bool {
        self.over == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_up_to_its_edge() {
        let row = |ours, target| Row { base: Some(100.0), ..Row::alone("x", ours, target) };
        assert!(row(200.0, Target::Ratio(2.0)).met() && !row(200.1, Target::Ratio(2.0)).met());
        assert!(row(300.0, Target::RatioPlus(2.0, 100.0)).met() && !row(300.1, Target::RatioPlus(2.0, 100.0)).met());
        assert!(row(90.0, Target::AtLeast(0.9)).met() && !row(89.9, Target::AtLeast(0.9)).met());
        assert!(Row::alone("x", 20.0, Target::Milliseconds(20.0)).met());
        assert!(!Row::alone("x", 128.1, Target::Mebibytes(128.0)).met());
    }

    #[test]
    fn medians_are_judged_and_the_best_runs_shown() {
        let times = |all: [u64; 3]| all.map(Duration::from_millis);
        let row = |target| Row::runs("x", "y", &times([100, 90, 400]), &times([210, 500, 180]), target);
        assert_eq!((row(Target::None).ratio(), row(Target::None).best), (Some(2.1), Some(2.0)));
        assert!(!row(Target::Ratio(2.0)).met() && row(Target::Ratio(2.1)).met() && row(Target::None).met());
    }
}
