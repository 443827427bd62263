//! `backout backup`: a full copy of the site, now; and the list of those that there are.

use backout_engine::backup;
use backout_engine::restored::short;
use backout_model::backup::{Backup as _, Snapshot};
use serde_json::json;

use super::Context;
use crate::end::End;
use crate::error::CliError;
use crate::{wiring, words};

/// Take a full backup now; a deployment takes one by itself
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List the backups of this site instead
    #[arg(long)]
    list: bool,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    let mut keeper = wiring::keeper(&site).ok_or_else(backup::no_backup)?;
    if args.list {
        let all = keeper.list().map_err(backout_engine::error::EngineError::from)?;
        for snapshot in &all {
            context.ui.item("backup", snapshot, line);
        }
        return Ok(End::answered(&json!({ "site": site.name, "backups": all.len() })));
    }
    context.in_session(
        site,
        "backup",
        |_, _, _| Ok(()),
        |session, _| {
            session.backed_up_by(Box::new(keeper));
            Ok(backup::by_hand(session)?)
        },
    )
}

/// One backup on a line.
pub fn line(snapshot: &Snapshot) -> String {
    let before = snapshot.deployment.as_ref().map(|id| format!("  before {id}")).unwrap_or_default();
    format!("{}  {}{before}", short(&snapshot.id), words::time(snapshot.taken_ms))
}
