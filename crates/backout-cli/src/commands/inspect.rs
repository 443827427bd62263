//! `backout inspect`: what a package, bundle or record holds.

use std::path::PathBuf;

use backout_package::inspect::{self, ChildLine, Inspection, StepLine};

use super::{Context, record};
use crate::end::End;
use crate::error::CliError;
use crate::words;

/// Look into a package, bundle or record
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory with a package.yaml, a bundle, or a record
    package: PathBuf,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    if backout_record::reader::is_record(&args.package) {
        return record::inspect(context, &args.package);
    }
    let inspection = inspect::inspect(&args.package)?;
    for line in lines(&inspection) {
        context.ui.answer(line);
    }
    Ok(End::answered(&inspection))
}

fn lines(inspection: &Inspection) -> Vec<String> {
    let mut lines = vec![format!("{} {}", inspection.name, inspection.version)];
    lines.extend(inspection.description.iter().map(|text| words::short(text)));
    if !inspection.requires.is_empty() {
        lines.push(format!("requires: {}", inspection.requires.join(", ")));
    }
    if !inspection.atomic {
        lines.push("not atomic: each step stands alone".to_owned());
    }
    lines.extend(inspection.before.iter().map(|check| format!("before: {}", words::short(check))));
    steps(&inspection.steps, &inspection.children, "", &mut lines);
    lines.extend(inspection.after.iter().map(|check| format!("after: {}", words::short(check))));
    lines.push(format!("{} files, {}", inspection.files, words::bytes(inspection.bytes)));
    lines.push(format!("digest {}", inspection.digest));
    lines
}

/// The steps of a package, with those of a child under the step that runs it.
fn steps(steps_of: &[StepLine], children: &[ChildLine], indent: &str, lines: &mut Vec<String>) {
    for (number, step) in (1..).zip(steps_of) {
        lines.push(format!(
            "{indent}{number}. {} {}  (undo: {})",
            step.kind,
            words::short(&step.what),
            words::short(&step.undo)
        ));
        if step.kind != "package" {
            continue;
        }
        let Some(child) = children.iter().find(|child| child.child == step.what) else { continue };
        let passed_over = if child.passed_over { ", passed over if it fails" } else { "" };
        lines.push(format!(
            "{indent}   {} {}, {}{passed_over}",
            child.name,
            child.version,
            words::count(child.attempts.into(), "attempt")
        ));
        steps(&child.steps, &child.children, &format!("{indent}   "), lines);
    }
}
