//! What a comparison of a step with its live database found, in the words that every engine uses.

use backout_model::target::{Finding, Images, Report, TargetError};

/// The images themselves are damaged.
pub fn unreadable(label: &str, why: impl std::fmt::Display) -> Vec<Finding> {
    vec![Finding { target: label.to_owned(), what: format!("the images cannot be read: {why}"), grave: true }]
}

/// The live rows and holds are what a step left exactly where its undo, which was only tried, met no conflict.
pub fn findings(label: &str, tried: Result<Report, TargetError>) -> Vec<Finding> {
    let found = |what: String, grave: bool| Finding { target: label.to_owned(), what, grave };
    let conflicts = match tried {
        Ok(report) => report.conflicts,
        Err(TargetError::Conflicts(conflicts)) => conflicts,
        Err(error) => return vec![found(format!("an undo would fail: {}", chain(&error)), true)],
    };
    let mut findings: Vec<Finding> =
        conflicts.listed.iter().map(|conflict| found(conflict.to_string(), false)).collect();
    let more = conflicts.total.saturating_sub(findings.len() as u64);
    if more > 0 {
        findings.push(found(format!("and {more} more"), false));
    }
    findings
}

/// Copies the images so that a check may own them; through a file, since they may be large.
pub fn owned(images: &mut dyn Images) -> Result<Box<dyn Images>, TargetError> {
    let failed = |source: std::io::Error| TargetError::failed("cannot copy images to check them", source);
    let mut copy = tempfile::tempfile().map_err(failed)?;
    images.rewind().map_err(failed)?;
    std::io::copy(images, &mut copy).map_err(failed)?;
    Ok(Box::new(copy))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
