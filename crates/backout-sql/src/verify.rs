//! What a comparison of a step with its live database found, in the words that every engine uses.

use backout_model::target::{Finding, Images, Report, TargetError};

/// Compares the images of a step with themselves and, where it is applied, with the live database.
///
/// `captured` reads the images whole and says whether the step can be undone by them; `try_undo` tries that, and leaves
/// nothing of it.
pub fn step<E: std::fmt::Display>(
    label: &str,
    images: &mut dyn Images,
    applied: bool,
    captured: impl FnOnce(&mut dyn Images) -> Result<bool, E>,
    try_undo: impl FnOnce(Box<dyn Images>) -> Result<Report, TargetError>,
) -> Result<Vec<Finding>, TargetError> {
    match captured(images) {
        Err(why) => {
            let what = format!("the images cannot be read: {why}");
            Ok(vec![Finding { target: label.to_owned(), what, grave: true }])
        }
        Ok(captured) if captured && applied => Ok(findings(label, try_undo(owned(images)?))),
        Ok(_) => Ok(Vec::new()),
    }
}

/// The live rows and holds are what a step left exactly where its undo, which was only tried, met no conflict.
fn findings(label: &str, tried: Result<Report, TargetError>) -> Vec<Finding> {
    let found = |what: String, grave: bool| Finding { target: label.to_owned(), what, grave };
    let (conflicts, notes) = match tried {
        Ok(report) => (report.conflicts, report.notes),
        Err(TargetError::Conflicts(conflicts)) => (conflicts, Vec::new()),
        Err(error) => return vec![found(format!("an undo would fail: {}", chain(&error)), true)],
    };
    let mut findings: Vec<Finding> =
        conflicts.listed.iter().map(|conflict| found(conflict.to_string(), false)).collect();
    let more = conflicts.total.saturating_sub(findings.len() as u64);
    if more > 0 {
        findings.push(found(format!("and {more} more"), false));
    }
    // What the step made and others took away is in no undo's way, and still another state than the step left.
    let label = format!("{label}: ");
    findings.extend(notes.iter().map(|note| found(note.strip_prefix(&label).unwrap_or(note).to_owned(), false)));
    findings
}

/// Copies the images so that a check may own them; through a file, since they may be large.
fn owned(images: &mut dyn Images) -> Result<Box<dyn Images>, TargetError> {
    let failed = |source: std::io::Error| TargetError::failed("cannot copy images to check them", source);
    let mut copy = tempfile::tempfile().map_err(failed)?;
    images.rewind().map_err(failed)?;
    std::io::copy(images, &mut copy).map_err(failed)?;
    Ok(Box::new(copy))
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
