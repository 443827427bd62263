//! The engine's answers in words for people. Nothing here is read by scripts: they have `--json`.

use backout_engine::plan::{Item, Totals};
use backout_engine::rehearse::Rehearsed;
use backout_engine::report::{Awaiting, Line, Shown, Status};
use backout_engine::restored::short as short_id;
use backout_engine::verify::Checked;
use backout_model::target::{Described, Finding, Verdict};
pub use backout_model::words::count;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

/// The longest text of a change on a line.
const WIDTH: usize = 110;
/// The same where one has to read all of it, with the ways out.
const WHOLE: usize = 600;

/// A text on one line: blanks collapsed, control characters made visible, shortened.
pub fn short(text: &str) -> String {
    within(text, WIDTH)
}

/// The same, at another width.
pub fn within(text: &str, most: usize) -> String {
    let blank = |number: usize| (number > 0).then_some(' ');
    let spaced = text.split_whitespace().enumerate().flat_map(|(n, word)| blank(n).into_iter().chain(word.chars()));
    let mut line = String::new();
    for (width, c) in spaced.enumerate() {
        if width == most {
            line.push('…');
            break;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// A point in time where the person is.
pub fn time(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(at) => at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}

/// A word of the vocabulary as `--json` writes it.
pub fn name<T: Serialize>(word: &T) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{size:.1} {}", UNITS[unit]) }
}

fn amount(rows: u64, size: u64) -> String {
    let mut parts = Vec::new();
    if rows > 0 {
        parts.push(count(rows, "row"));
    }
    if size > 0 {
        parts.push(bytes(size));
    }
    if parts.is_empty() { String::new() } else { format!("  ({})", parts.join(", ")) }
}

/// The head of the changes of one step in a plan.
pub fn group(item: &Item) -> String {
    let frame = if item.frame.is_root() { String::new() } else { format!("{} · ", item.frame) };
    format!("{frame}step {} · {}", item.step + 1, item.target)
}

/// One change of a plan.
pub fn planned(item: &Item) -> String {
    let change = &item.change;
    let place = if change.place.is_empty() { String::new() } else { format!("{}: ", short(&change.place)) };
    let verdict = match &change.verdict {
        Verdict::Undoable { undo } => format!("undo: {}", short(undo)),
        Verdict::Unknown { why } => format!("known only while it runs: {}", short(why)),
        Verdict::Refused(refusal) => format!("REFUSED: {}", short(&refusal.why)),
    };
    let locks = change.locks.as_ref().map(|locks| format!("; locks: {}", short(locks))).unwrap_or_default();
    let amount = amount(change.rows.unwrap_or(0), change.bytes.unwrap_or(0));
    format!("  {place}{}{amount}\n      {verdict}{locks}", short(&change.change))
}

/// A plan in one line.
pub fn totals(totals: &Totals) -> String {
    let refused =
        if totals.refused == 0 { "nothing is refused".to_owned() } else { format!("{} refused", totals.refused) };
    let unknown = match totals.unknown {
        0 => String::new(),
        unknown => format!("; {unknown} known only while they run"),
    };
    format!("{}, {}{unknown}; {refused}", count(totals.steps, "step"), count(totals.changes, "change"))
}

/// One change of a deployment and its undo.
pub fn described(change: &Described) -> String {
    let place = if change.place.is_empty() { String::new() } else { format!("{}: ", short(&change.place)) };
    format!(
        "  {place}{}{}\n      undo: {}",
        short(&change.change),
        amount(change.rows, change.bytes),
        short(&change.undo)
    )
}

/// The head of the changes of one step that was rehearsed.
pub fn rehearsed_step(rehearsed: &Rehearsed) -> String {
    let frame = if rehearsed.frame.is_root() { String::new() } else { format!("{} · ", rehearsed.frame) };
    let step = rehearsed.step.map_or_else(String::new, |step| format!("step {} · ", step + 1));
    let times = rehearsed
        .times
        .map_or_else(String::new, |times| format!(" · done in {} ms, undone in {} ms", times.deploy_ms, times.undo_ms));
    format!("{frame}{step}{}{times}", rehearsed.target)
}

/// One change that was rehearsed.
pub fn rehearsed(rehearsed: &Rehearsed) -> String {
    let Rehearsed { change, proven, why, locks, locks_unmeasured, took_us, .. } = rehearsed;
    let place = if change.place.is_empty() { String::new() } else { format!("{}: ", short(&change.place)) };
    let verdict = match (proven, why) {
        (true, _) => format!("proven; undo: {}", short(&change.undo)),
        (false, why) => format!("NOT PROVEN: {}", short(why.as_deref().unwrap_or("it did not run"))),
    };
    let unmeasured = locks_unmeasured.as_ref().map(|why| format!(" (planned: {})", short(why))).unwrap_or_default();
    let locks = locks.as_ref().map(|locks| format!("; locks{unmeasured}: {}", short(locks))).unwrap_or_default();
    let took = took_us.map(|took| format!("; took {}.{} ms", took / 1000, took % 1000 / 100)).unwrap_or_default();
    let amount = amount(change.rows, change.bytes);
    format!("  {place}{}{amount}\n      {verdict}{took}{locks}", short(&change.change))
}

/// One deployment of the history.
pub fn line(line: &Line) -> String {
    format!(
        "{}  {}  {:<13}  {} {}  by {}{}",
        line.id,
        time(line.state_ms),
        name(&line.state),
        short(&line.package),
        short(&line.version),
        short(&line.actor),
        if line.pruned { "  (pruned: stays)" } else { "" }
    )
}

/// One line of `show`, from the outside in.
pub fn shown(shown: &Shown) -> String {
    let because =
        |causes: &[String]| if causes.is_empty() { String::new() } else { format!(": {}", short(&causes.join(": "))) };
    match shown {
        Shown::Deployment {
            id,
            package,
            version,
            state,
            actor,
            started_ms,
            last_ms,
            source,
            causes,
            left,
            pruned,
            backup,
        } => {
            let state = state.as_ref().map(name).unwrap_or_default();
            let mut lines = vec![
                format!("deployment {id}: {} {}", short(package), short(version)),
                format!(
                    "{state} since {}{}{}",
                    time(*last_ms),
                    because(causes),
                    if *pruned { " (pruned: stays)" } else { "" }
                ),
                format!("begun {} by {} from {}", time(*started_ms), short(actor), short(source)),
            ];
            lines.extend(left.iter().map(|left| format!("left: {}", short(left))));
            lines.extend(backup.iter().map(|id| format!("backup: {}", short_id(id))));
            lines.join("\n")
        }
        Shown::Frame { frame, package, version, state, causes } => {
            let at = if frame.is_root() { "package".to_owned() } else { format!("child {frame}") };
            format!("{at}: {} {}, {}{}", short(package), short(version), name(state), because(causes))
        }
        Shown::Step { frame, step, what, state, changes, rows, output } => {
            let frame = if frame.is_root() { String::new() } else { format!("{frame} · ") };
            let mut text = format!("{frame}step {}: {}, {}", step + 1, short(what), name(state));
            if *changes > 0 {
                text.push_str(&format!(", {}", count(*changes, "change")));
            }
            if *rows > 0 {
                text.push_str(&format!(", {}", count(*rows, "row")));
            }
            for line in output.iter().flat_map(|output| output.lines()) {
                text.push_str(&format!("\n  | {}", short(line)));
            }
            text
        }
        Shown::Change { change, .. } => described(change),
    }
}

/// One screen about a site.
pub fn status(status: &Status) -> Vec<String> {
    let mut lines = vec![format!("site {}", status.site)];
    if status.deployed.is_empty() {
        lines.push("nothing is deployed".to_owned());
    } else {
        lines.push(format!("deployed ({}):", status.deployed_total));
        lines.extend(status.deployed.iter().map(|deployed| format!("  {}", line(deployed))));
        let more = status.deployed_total.saturating_sub(status.deployed.len());
        if more > 0 {
            lines.push(format!("  … and {more} earlier"));
        }
    }
    if let Some(underway) = &status.underway {
        let what = match status.recording {
            true => "recording what happens on the site",
            false if status.interrupted => "interrupted",
            false => "under way",
        };
        lines.push(format!("{what}: {}", line(underway)));
    }
    match &status.holder {
        Some(holder) => lines.push(format!("at work: {}", short(holder))),
        None => lines.push("nobody is at work".to_owned()),
    }
    if status.in_maintenance {
        let opens =
            if status.holder.is_none() && status.needs_hand.is_empty() { "; `backout resume` leaves it" } else { "" };
        lines.push(format!("the site is in maintenance mode{opens}"));
    }
    for needing in &status.needs_hand {
        lines.push(format!("needs a hand: {}", line(&needing.deployment)));
        lines.extend(needing.causes.iter().map(|cause| format!("  because {}", short(cause))));
        lines.extend(needing.left.iter().map(|left| format!("  left: {}", short(left))));
        lines.push(format!("  go on with: {}", needing.command));
        lines.extend(needing.way_back.iter().map(|way| format!("  or: {way}")));
    }
    if let Some(Awaiting { deployment, until_ms, overdue }) = &status.confirm {
        let until = time(*until_ms);
        if *overdue {
            lines.push(format!("was not confirmed in time: {}", line(deployment)));
            lines.push(format!(
                "  was to be undone at {until}, and is not yet: `backout resume` does it, or says what is in the way"
            ));
        } else {
            lines.push(format!("to be confirmed: {}", line(deployment)));
            lines.push(format!("  `backout confirm` keeps it; undone otherwise at {until}"));
        }
    }
    if let Some(redo) = &status.redo {
        lines.push(format!("redo would bring back: {}", line(redo)));
    }
    if let Some(backup) = &status.backup {
        lines.push(match (&backup.snapshot, backup.taken_ms) {
            (Some(id), Some(taken)) => format!("last backup: {}  {}", short_id(id), time(taken)),
            _ => "no backup was taken yet".to_owned(),
        });
    }
    if let Some(id) = &status.restoring {
        lines.push(format!("a restore was interrupted: `backout restore {}` goes on", short_id(id)));
    }
    lines
}

pub fn finding(finding: &Finding) -> String {
    marked(if finding.grave { "GRAVE" } else { "ok   " }, finding, WHOLE)
}

/// What is in order and covers less than one may think.
pub fn lacking(finding: &Finding) -> String {
    marked("note ", finding, WHOLE)
}

/// What nobody knows, as it could not be tried.
pub fn unchecked(finding: &Finding) -> String {
    marked("?    ", finding, WHOLE)
}

/// Something `verify` found is never "ok": what is not grave is drift.
pub fn drift(finding: &Finding) -> String {
    marked(if finding.grave { "GRAVE" } else { "drift" }, finding, WIDTH)
}

fn marked(mark: &str, finding: &Finding, width: usize) -> String {
    let what = finding.what.strip_prefix(&format!("{}: ", finding.target)).unwrap_or(&finding.what);
    format!("{mark}  {}: {}", finding.target, within(what, width))
}

pub fn checked(checked: &Checked) -> String {
    let findings = match (checked.findings, checked.grave) {
        (0, _) => "all in order".to_owned(),
        (findings, grave) => format!("{}, {grave} of them grave", count(findings, "finding")),
    };
    format!(
        "{} of the journal, {} of images in {}, {}{} compared with the site: {findings}",
        if checked.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", checked.entries) },
        bytes(checked.bytes),
        count(checked.images, "place"),
        if checked.records > 0 { format!("{}, ", count(checked.records, "record")) } else { String::new() },
        count(checked.steps, "step"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_one_harmless_line() {
        assert_eq!(short("UPDATE t\n   SET a = 1"), "UPDATE t SET a = 1");
        assert_eq!(short("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        assert_eq!(short(&"ä".repeat(WIDTH + 1)).chars().count(), WIDTH + 1);
        assert_eq!(short(&"ä".repeat(WIDTH)).chars().count(), WIDTH);
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(count(1, "row"), "1 row");
        assert_eq!(count(0, "row"), "0 rows");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }
}
