//! What works on a site and what does not. Changes nothing.

use backout_journal::Journal;
use backout_model::target::Finding;
use backout_package::site::Site;
use backout_sql::database::Holder;

use crate::error::{EngineError, causes};
use crate::marks::{ahead, behind};
use crate::session::Targets;

/// Asks every target; one that cannot answer is itself a finding.
pub fn doctor(site: &Site, targets: &mut Targets) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    for database in targets.databases.values_mut() {
        let label = database.label();
        match database.examine() {
            Ok(list) => findings.extend(list),
            Err(error) => findings.push(Finding { target: label, what: causes(&error).join(": "), grave: true }),
        }
    }
    for root in targets.roots.values_mut() {
        match root.examine() {
            Ok(list) => findings.extend(list),
            Err(error) => findings.push(Finding { target: root.label(), what: causes(&error).join(": "), grave: true }),
        }
    }
    findings.push(state_directory(site));
    let reader = Journal::read(&site.state)?;
    findings.extend(ahead(targets, reader.last_seq()?)?);
    findings.extend(behind(targets, &reader)?.into_iter().map(|behind| behind.finding));
    Ok(findings)
}

fn state_directory(site: &Site) -> Finding {
    let target = "state".to_owned();
    let mut path = site.state.as_path();
    while !path.exists() {
        match path.parent() {
            Some(parent) => path = parent,
            None => break,
        }
    }
    match rustix::fs::statvfs(path) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let mib = free / (1 << 20);
            Finding { target, what: format!("{}: {mib} MiB free", site.state.display()), grave: mib < 64 }
        }
        Err(error) => Finding { target, what: format!("{}: {error}", site.state.display()), grave: true },
    }
}

/// Who holds the lock of each database.
pub fn holders(targets: &mut Targets) -> Result<Vec<(String, Holder)>, EngineError> {
    let mut found = Vec::new();
    for (name, database) in &mut targets.databases {
        if let Some(holder) = database.holder()? {
            found.push((name.clone(), holder));
        }
    }
    Ok(found)
}
