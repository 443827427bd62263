//! Checks journal, images, holds and the live site against each other. Changes nothing.

use std::collections::BTreeSet;

use backout_journal::Reader;
use backout_model::state::{DeploymentState, StepState};
use backout_model::target::Finding;
use backout_package::site::Site;
use serde::Serialize;

use crate::act::Act;
use crate::copies;
use crate::error::EngineError;
use crate::history::{StepView, View};
use crate::marks::{ahead, behind};
use crate::records;
use crate::session::Targets;

/// What was looked at, in figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Checked {
    pub entries: u64,
    pub images: u64,
    pub bytes: u64,
    /// In the state directory, each read through.
    pub records: u64,
    /// Steps whose holds, and where applied whose live values, were compared.
    pub steps: u64,
    pub findings: u64,
    /// Findings that endanger an undo or the journal.
    pub grave: u64,
}

/// Hands every finding to `each`. A table or directory that a later step changed again is compared with that step only.
pub fn verify(
    site: &Site,
    targets: &mut Targets,
    reader: &Reader,
    each: &mut dyn FnMut(Finding),
) -> Result<Checked, EngineError> {
    let mut checked = Checked::default();
    let mut found = |finding: Finding, checked: &mut Checked| {
        checked.findings += 1;
        checked.grave += u64::from(finding.grave);
        each(finding);
    };
    let mut findings = ahead(targets, reader.last_seq()?)?;
    findings.extend(behind(targets, reader)?.into_iter().map(|behind| behind.finding));
    let journal = reader.verify(&mut |finding| findings.push(finding))?;
    checked.entries = journal.entries;
    checked.images = journal.images;
    checked.bytes = journal.bytes;
    checked.records = records::verify(&site.state, &mut |finding| findings.push(finding))?;
    for finding in findings {
        found(finding, &mut checked);
    }
    // Newest first: what a later step changed again is judged there, by what that step left.
    let mut changed_later: BTreeSet<(String, String)> = BTreeSet::new();
    for row in reader.deployments()? {
        let needed = row.state.is_on_site() || row.state == DeploymentState::Undone;
        if !needed {
            continue;
        }
        let view = View::load(reader, &row.id)?;
        let copy = site.state.join("packages").join(view.id.as_str());
        if !view.pruned
            && let Ok(manifest) = view.manifest()
        {
            let run = manifest.runs_its_own(false);
            let target = || format!("the kept copy of the package of {}", view.id);
            match copies::altered(&copy, &view) {
                Ok(files) => files.iter().for_each(|file| {
                    let what = format!("{} is not what was deployed", file.display());
                    found(Finding { target: target(), what, grave: run.contains(file) }, &mut checked);
                }),
                Err(error) if !run.is_empty() => {
                    let what = error.causes().join(": ");
                    found(Finding { target: target(), what, grave: true }, &mut checked);
                }
                Err(_) => {}
            }
        }
        let mut steps: Vec<&StepView> =
            view.steps.values().filter(|step| step.has_images && !matches!(step.act(), Act::Run { .. })).collect();
        steps.sort_by_key(|step| std::cmp::Reverse(step.seq));
        for step in steps {
            let applied = match step.state {
                // What others did they may do otherwise.
                StepState::Applied => !step.act().is_of_others(),
                StepState::Undone => false,
                StepState::Intended | StepState::Discarded | StepState::UndoIntended => continue,
            };
            if view.pruned {
                if applied && let Ok(target) = targets.of(step.act()) {
                    let label = target.label();
                    changed_later
                        .extend(step.intended.summary.objects.iter().map(|object| (label.clone(), object.clone())));
                }
                continue;
            }
            checked.steps += 1;
            let mut images = match reader.open_images(step.seq) {
                Ok(images) => images,
                Err(error) => {
                    let what = format!("{}: {error}", step.act().words());
                    found(Finding { target: format!("journal entry {}", step.seq), what, grave: true }, &mut checked);
                    continue;
                }
            };
            let target = match targets.of(step.act()) {
                Ok(target) => target,
                Err(error) => {
                    let what = format!("{} of {}: {error}", step.act().words(), view.id);
                    found(Finding { target: "site.yaml".to_owned(), what, grave: true }, &mut checked);
                    continue;
                }
            };
            let label = target.label();
            let objects: Vec<(String, String)> =
                step.intended.summary.objects.iter().map(|object| (label.clone(), object.clone())).collect();
            let superseded = objects.iter().any(|object| changed_later.contains(object));
            match target.verify(&mut images, applied) {
                Ok(list) => list
                    .into_iter()
                    .filter(|finding| finding.grave || !superseded)
                    .for_each(|finding| found(finding, &mut checked)),
                Err(error) => {
                    let what = format!("{} of {}: {error}", step.act().words(), view.id);
                    found(Finding { target: label, what, grave: true }, &mut checked);
                }
            }
            if applied {
                changed_later.extend(objects);
            }
        }
    }
    Ok(checked)
}
