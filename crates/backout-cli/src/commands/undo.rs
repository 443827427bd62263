//! `backout undo`: take a deployment back, or one child of it, or show what that would do.

use std::path::PathBuf;

use backout_engine::fresh;
use backout_engine::outcome::{Outcome, Status};
use backout_engine::session::{Session, Targets};
use backout_engine::undo::{self, Options};
use backout_journal::Reader;
use backout_model::conflict::OnConflict;
use backout_model::id::FramePath;
use backout_model::state::FrameState;
use backout_package::site::Site;
use clap::ValueEnum;
use serde_json::json;

use super::Context;
use super::record;
use crate::end::{self, End};
use crate::error::CliError;
use crate::{ask, words};

/// Undo the latest deployment, the named one, or one child package of it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A deployment, by any unique beginning of its id, or a child package of it [default: the latest deployment]
    #[arg(value_name = "ID[/CHILD]")]
    what: Option<String>,
    /// Show what would be undone and what stands in the way; change nothing
    #[arg(long)]
    plan: bool,
    /// What to do with values and files that somebody changed since
    #[arg(long, value_enum, value_name = "HOW", default_value = "stop")]
    on_conflict: How,
    /// Take along what others wrote while a captured command ran
    #[arg(long)]
    include_unattributed: bool,
    /// Undo from this record alone, where the state directory is lost; named again, the records of later deployments
    #[arg(long, value_name = "FILE")]
    record: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    /// Change nothing and list them
    Stop,
    /// Leave the newer value, undo the rest
    Keep,
    /// Bring the old value back all the same; asks first
    Overwrite,
}

impl From<How> for OnConflict {
    fn from(how: How) -> Self {
        match how {
            How::Stop => OnConflict::Stop,
            How::Keep => OnConflict::Keep,
            How::Overwrite => OnConflict::Overwrite,
        }
    }
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let asks = args.on_conflict == How::Overwrite && !args.plan && !context.global.yes;
    if asks {
        ask::must_be_possible("Overwrite what others changed since?")?;
    }
    let options = Options { on_conflict: args.on_conflict.into(), unattributed: args.include_unattributed };
    let mut site = context.site()?;
    let mut room = None;
    if args.plan && !args.record.is_empty() {
        (site, room) = record::only_looked_at(&site)?;
    }
    let from_record = match args.record.is_empty() {
        true => None,
        false => Some(record::make_again(context, &site, &args.record, args.what.as_deref(), room.is_none())?),
    };
    let what = from_record.as_deref().or(args.what.as_deref());
    if args.plan {
        return context.looking(
            site,
            "undo --plan",
            |reader| fresh::undo(reader, what),
            |session| plan(context, session, what, options),
        );
    }
    let first = |_: &Site, _: &mut Targets, reader: &Reader| fresh::undo(reader, what);
    context.in_session(site, "undo", first, |session, resumed| {
        if let Some(outcome) = resumed
            && is_gone(session, outcome, what)?
        {
            return Ok(settled(outcome));
        }
        if asks {
            confirm(context, session, what, options)?;
        }
        Ok(undo::undo(session, what, options)?)
    })
}

/// True where settling the interrupted run already took back what is to be undone. Going on would undo the deployment
/// before it, which nobody asked for.
fn is_gone(session: &Session<'_>, resumed: &Outcome, what: Option<&str>) -> Result<bool, CliError> {
    let Some(id) = &resumed.deployment else { return Ok(false) };
    let reader = session.journal().reader();
    let on_site = reader.deployment(id)?.is_some_and(|row| row.state.is_on_site());
    let Some((prefix, child)) = what.map(|what| what.split_once('/').unwrap_or((what, ""))) else {
        return Ok(!on_site);
    };
    if !id.as_str().starts_with(prefix) {
        return Ok(false);
    }
    let frame = reader.states(id)?.frames.get(&FramePath::parse(child)).copied();
    Ok(!on_site || (!child.is_empty() && matches!(frame, Some(FrameState::Undone | FrameState::Failed))))
}

/// What was asked for has been done by settling the interrupted run.
fn settled(resumed: &Outcome) -> Outcome {
    // An undo that was interrupted may have kept something, as it was told to.
    let status = if resumed.status == Status::Partly { Status::Partly } else { Status::Done };
    let mut outcome = Outcome::new(status, "It had been interrupted and is taken back; nothing else was undone.");
    outcome.deployment.clone_from(&resumed.deployment);
    outcome.hints.push("`backout undo` undoes the deployment before it".to_owned());
    outcome
}

fn plan(
    context: &Context<'_>,
    session: &mut Session<'_>,
    what: Option<&str>,
    options: Options,
) -> Result<Outcome, CliError> {
    let ui = context.ui;
    let mut changes = 0_u64;
    let mut outcome = undo::plan(session, what, options, &mut |change| {
        changes += 1;
        ui.item("change", &change, words::described);
    })?;
    let id = outcome.deployment.as_ref().map(ToString::to_string).unwrap_or_default();
    outcome.answer.push(match outcome.conflicts_total {
        0 => format!("{changes} changes of {id} would be undone; nothing stands in the way"),
        total => format!("{changes} changes of {id} would be undone; {total} conflicts stand in the way"),
    });
    Ok(outcome)
}

/// Shows what would be overwritten and asks; where nothing would be there is nothing to ask.
fn confirm(
    context: &Context<'_>,
    session: &mut Session<'_>,
    what: Option<&str>,
    options: Options,
) -> Result<(), CliError> {
    let outcome = undo::plan(session, what, Options { on_conflict: OnConflict::Stop, ..options }, &mut |_| {})?;
    if outcome.conflicts_total == 0 {
        return Ok(());
    }
    context.ui.object_now("conflicts", &json!({ "conflicts": outcome.conflicts, "total": outcome.conflicts_total }));
    end::tell(context.ui, &outcome);
    let question =
        format!("Overwrite {} with the old ones?", words::count(outcome.conflicts_total, "newer value or file"));
    context.ui.without_bars(|| ask::confirm(&question, false))
}
