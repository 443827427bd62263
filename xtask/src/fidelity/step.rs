//! One step: fill, deploy, compare, undo, compare, redo, undo, deploy again. It leaves the database as the plain
//! client would have, whatever the verdict, so that the next step has its ground. A step that fails on the rows it
//! finds is judged for that, and then once more with plainer rows: a history must go on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Verdict;
use super::dump::{Alike, Dump};
use super::lab::Lab;
use super::subject::Plain;
use crate::backout::Outcome;

/// A step that was judged, and what a chain of all steps needs of it.
pub struct Judged {
    /// The name of its packages.
    pub package: String,
    pub file: PathBuf,
    /// What was done to the rows before it, as a script; none where nothing was.
    pub rows: Option<PathBuf>,
    /// What it left of itself though it failed, as a script: the numbers that it drew are gone.
    pub left: Option<PathBuf>,
    pub verdict: Verdict,
    /// The database after it.
    pub after: Dump,
    /// Tables that no row fits, with the last error.
    pub not_filled: Vec<(String, String)>,
}

/// Judges one step on the database as it stands, a second time on other rows where it fails on these.
pub fn judge(lab: &mut Lab, number: usize, file: &Path, rows: u64) -> Result<Vec<Judged>> {
    let filled = lab.subject.fill(rows).context("filling the tables")?;
    let mut first = on_these_rows(lab, &format!("step-{number:04}"), file, &filled.statements)?;
    first.not_filled = filled.empty;
    let mut judged = vec![first];
    if matches!(judged[0].verdict, Verdict::Failed(_)) {
        let script = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        if let Some(statements) = other_rows(lab, file, &script)? {
            judged.push(on_these_rows(lab, &format!("step-{number:04}-again"), file, &statements)?);
        }
    }
    Ok(judged)
}

/// Changes the rows of the tables that a script names until the plain client can run it; none if it never can.
fn other_rows(lab: &mut Lab, file: &Path, script: &str) -> Result<Option<Vec<String>>> {
    lab.subject.keep("original")?;
    let mut way = 0;
    while let Some(statements) = lab.subject.make_plainer(script, way)? {
        if let Plain::Done { .. } = lab.subject.plain(file)? {
            return Ok(Some(statements));
        }
        lab.subject.take("original")?;
        way += 1;
    }
    Ok(None)
}

fn on_these_rows(lab: &mut Lab, name: &str, file: &Path, statements: &[String]) -> Result<Judged> {
    let rows = if statements.is_empty() {
        None
    } else {
        let script = lab.path(&format!("rows-{name}.sql"));
        fs::write(&script, statements.join(";\n") + ";\n").context("writing the rows")?;
        Some(script)
    };
    let before = lab.dump("before")?;
    let plain = lab.subject.plain(file)?;
    // Where the next step starts if this one does not go as it should.
    let ground = match &plain {
        Plain::Done { copy, .. } => copy.clone(),
        Plain::Failed(_) => {
            lab.subject.keep("before")?;
            "before".to_owned()
        }
    };
    let outcome = lab.deploy(&lab.package(name, "1", &[file])?)?;
    let verdict = verdict(lab, name, file, &before, &plain, &outcome)?;
    match verdict {
        Verdict::Identical | Verdict::Failed(_) => {}
        Verdict::Refused(_) | Verdict::Wrong(_) => lab.take(&ground)?,
    }
    let after = lab.dump(&format!("after-{name}"))?;
    let moved = if matches!(verdict, Verdict::Failed(_)) { after.moved_since(&before)? } else { Vec::new() };
    let left = if moved.is_empty() {
        None
    } else {
        let script = lab.path(&format!("left-{name}.sql"));
        fs::write(&script, moved.join("\n") + "\n").context("writing what a failure left")?;
        Some(script)
    };
    let (package, file, not_filled) = (name.to_owned(), file.to_owned(), Vec::new());
    Ok(Judged { package, file, rows, left, verdict, after, not_filled })
}

fn verdict(lab: &mut Lab, name: &str, file: &Path, before: &Dump, plain: &Plain, outcome: &Outcome) -> Result<Verdict> {
    if let Outcome::Other(why) = outcome {
        return Ok(Verdict::Wrong(format!("deploy: {why}")));
    }
    if !outcome.done() {
        let left = lab.dump("left")?;
        if let Some(wrong) = compare("what is left of it", before, &left, Alike::Exactly)? {
            // Numbers that a sequence gave to a transaction that failed are gone, whoever asked for them.
            let failed = matches!(plain, Plain::Failed(_));
            let same = |dump: Dump| dump.same(&left, Alike::Exactly);
            if !failed || !lab.subject.left_by_plain("before", file)?.is_some_and(same) {
                return Ok(wrong);
            }
        }
    }
    match (plain, outcome) {
        (Plain::Failed(why), Outcome::Done) => {
            Ok(Verdict::Wrong(format!("done here, but the plain client says {why}")))
        }
        (Plain::Failed(_), _) => Ok(Verdict::Failed(outcome.reason().to_owned())),
        (Plain::Done { .. }, Outcome::Refused(why)) => Ok(Verdict::Refused(why.clone())),
        (Plain::Done { dump, .. }, Outcome::Done) => there_and_back(lab, name, file, before, dump),
        (Plain::Done { .. }, Outcome::Failed(why)) if lab.subject.refuses_late() && why.contains(" is refused: ") => {
            Ok(Verdict::Refused(why.clone()))
        }
        (Plain::Done { .. }, _) => Ok(Verdict::Wrong(format!("fails only here: {}", outcome.reason()))),
    }
}

/// The way of a step that was deployed.
fn there_and_back(lab: &mut Lab, name: &str, file: &Path, before: &Dump, plain: &Dump) -> Result<Verdict> {
    let after = lab.dump("deployed")?;
    if let Some(wrong) = compare("result", plain, &after, Alike::ButForTime)? {
        // Another client may be right as well. It must run on what was there before, so the deployment is undone first.
        if let Some(wrong) = undone(lab, before)? {
            return Ok(wrong);
        }
        let Some(Plain::Done { dump, .. }) = lab.subject.plain_otherwise(file)? else { return Ok(wrong) };
        if compare("result", &dump, &after, Alike::ButForTime)?.is_some() {
            return Ok(wrong);
        }
    } else if let Some(wrong) = undone(lab, before)? {
        return Ok(wrong);
    }
    let redo = lab.redo()?;
    if !redo.done() {
        return Ok(Verdict::Wrong(format!("redo: {}", redo.reason())));
    }
    if let Some(wrong) = compare("redo", &after, &lab.dump("redone")?, Alike::Exactly)? {
        return Ok(wrong);
    }
    if let Some(wrong) = undone(lab, before)? {
        return Ok(wrong);
    }
    let again = lab.deploy(&lab.package(name, "2", &[file])?)?;
    if !again.done() {
        return Ok(Verdict::Wrong(format!("deploying again: {}", again.reason())));
    }
    Ok(compare("deployed again", &after, &lab.dump("again")?, Alike::ButForTime)?.unwrap_or(Verdict::Identical))
}

/// Undoes the latest deployment; a verdict only where that went wrong.
fn undone(lab: &mut Lab, before: &Dump) -> Result<Option<Verdict>> {
    let undo = lab.undo()?;
    if !undo.done() {
        return Ok(Some(Verdict::Wrong(format!("undo: {}", undo.reason()))));
    }
    compare("undo", before, &lab.dump("undone")?, Alike::Exactly)
}

/// A verdict where two dumps differ, with the first lines that do.
pub fn compare(what: &str, wanted: &Dump, found: &Dump, alike: Alike) -> Result<Option<Verdict>> {
    if wanted.same(found, alike) {
        return Ok(None);
    }
    let lines = wanted.differences(found)?;
    Ok(Some(Verdict::Wrong(format!("{what} differs:\n    {}", lines.join("\n    ")))))
}
