//! `backout doctor`: what works on a site and what does not.

use backout_engine::outcome::{NOTHING_CHANGED, Status};
use backout_engine::{backup, doctor, restored};
use backout_journal::{Clock as _, Journal, SystemClock};
use backout_model::backup::{Backup, Examined};
use backout_model::target::Finding;
use serde_json::json;

use super::Context;
use crate::alerts::Alerts;
use crate::end::End;
use crate::error::CliError;
use crate::{boot, wiring, words};

/// What works on this site and what does not
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(context: &Context<'_>, _args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    let reader = Journal::read(&site.state)?;
    let mut findings = match restored::none_under_way(&reader) {
        Ok(()) => {
            let (mut targets, mut findings) = wiring::targets_as_far_as_possible(&site);
            findings.extend(doctor::doctor(&site, &mut targets)?);
            findings
        }
        // To ask its databases now could take as long as the restore does.
        Err(error) => {
            let what = error.causes().into_iter().chain(error.hints()).collect::<Vec<_>>().join("; ");
            vec![Finding { target: "site".to_owned(), what, grave: true }]
        }
    };
    let mut keeper = wiring::keeper(&site);
    let keeper = keeper.as_mut().map(|keeper| keeper as &mut dyn Backup);
    let Examined { findings: of_backup, mut lacking } = backup::doctor(&site, keeper, &reader, SystemClock.now_ms())?;
    findings.extend(of_backup);
    let of_alerts = Alerts::of(&site).examine();
    findings.extend(of_alerts.findings);
    lacking.extend(of_alerts.lacking);
    lacking.extend(boot::uncovered(&site));
    for finding in &findings {
        context.ui.item("finding", finding, words::finding);
    }
    for finding in &lacking {
        context.ui.item("lacking", finding, words::lacking);
    }
    let grave = findings.iter().filter(|finding| finding.grave).count();
    let figures = json!({ "site": site.name, "findings": findings.len(), "grave": grave, "lacking": lacking.len() });
    if grave > 0 {
        context.ui.error(&[format!("{grave} of the findings would stop a deployment or endanger its undo")]);
        return Ok(End::answered_with(Status::Refused, &figures, NOTHING_CHANGED));
    }
    let but = match lacking.len() {
        0 => String::new(),
        notes => format!("; {} what is not covered", if notes == 1 { "the note says" } else { "the notes say" }),
    };
    context.ui.answer(format!("{} is fit for deployments{but}", site.name));
    Ok(End::answered(&figures))
}
