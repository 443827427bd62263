//! All steps deployed one after the other with the rows between them, then all undone one by one, the database
//! compared at every stage on the way down. The rows are deployed, too, so that nobody else's stand in the way.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::dump::Alike;
use super::lab::Lab;
use super::step::{Judged, compare};
use super::{Engine, Verdict, name};

/// Judges the whole history on a fresh site.
pub fn judge(first: &Lab, engine: &Engine, folder: PathBuf, base: &[PathBuf], steps: &[Judged]) -> Result<Verdict> {
    let mut lab = Lab::new(first.backout.clone(), engine, folder, base)?;
    let mut stages = vec![(String::from("the start"), lab.dump("stage-start")?)];
    // A step that the tool did not do is missing here, so from there on the two histories differ.
    let mut as_before = true;
    for step in steps {
        let mut scripts: Vec<&Path> = step.rows.as_deref().into_iter().collect();
        match step.verdict {
            Verdict::Identical => scripts.push(&step.file),
            Verdict::Failed(_) => scripts.extend(step.left.as_deref()),
            Verdict::Refused(_) | Verdict::Wrong(_) => as_before = false,
        }
        if scripts.is_empty() {
            continue;
        }
        let outcome = lab.deploy(&lab.package(&step.package, "1", &scripts)?)?;
        if !outcome.done() {
            if as_before {
                return Ok(Verdict::Wrong(format!("deploying {}: {}", name(&step.file), outcome.reason())));
            }
            // It may build on a step that is missing; then it must leave nothing.
            let Some((_, latest)) = stages.last() else { continue };
            let what = format!("what is left of {}", name(&step.file));
            if let Some(wrong) = compare(&what, latest, &lab.dump("left")?, Alike::Exactly)? {
                return Ok(wrong);
            }
            continue;
        }
        let stage = lab.dump(&format!("stage-{}", step.package))?;
        // The rows were written one by one there and all at once here.
        let what = format!("{} in the chain", name(&step.file));
        if as_before && let Some(wrong) = compare(&what, &step.after, &stage, Alike::InContent)? {
            return Ok(wrong);
        }
        stages.push((name(&step.file), stage));
    }
    for pair in stages.windows(2).rev() {
        let [(_, before), (undone, _)] = pair else { continue };
        let undo = lab.undo()?;
        if !undo.done() {
            return Ok(Verdict::Wrong(format!("undoing {undone}: {}", undo.reason())));
        }
        if let Some(wrong) = compare(&format!("undo of {undone}"), before, &lab.dump("undone")?, Alike::Exactly)? {
            return Ok(wrong);
        }
    }
    Ok(Verdict::Identical)
}
