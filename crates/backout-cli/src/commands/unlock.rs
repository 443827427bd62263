//! `backout unlock`: take over a lock whose holder is gone, after showing whose it is.

use backout_engine::outcome::NOTHING_CHANGED;
use backout_engine::{doctor, marks, recording};
use backout_journal::Journal;
use backout_journal::process::{Liveness, ProcessFacts};
use backout_model::id::DeploymentId;
use backout_sql::database::Holder;
use serde::Serialize;
use serde_json::json;

use super::Context;
use crate::end::End;
use crate::error::CliError;
use crate::{ask, wiring, words};

/// Take over a lock whose holder is provably gone; shows whose it is
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Begin a new history where the state directory is lost or a database was set back: what one of them lacks can't
    /// be undone any more
    #[arg(long)]
    anew: bool,
}

/// A lock that is held, for scripts.
#[derive(Serialize)]
struct Held {
    /// `database main`, `state`.
    target: String,
    #[serde(flatten)]
    holder: Holder,
    /// `alive`, `dead`, `unprovable` (it ran on another host).
    process: &'static str,
}

/// A deployment that a database lacks, for scripts.
#[derive(Serialize)]
struct GivenUp<'a> {
    id: &'a DeploymentId,
    causes: &'a [String],
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let ui = context.ui;
    let site = context.site()?;
    let mut targets = wiring::targets(&site)?;
    let held = doctor::holders(&mut targets)?;
    let mut unprovable = 0;
    for (name, holder) in &held {
        let liveness = liveness(holder)?;
        let process = match liveness {
            Liveness::Alive => "alive",
            Liveness::Dead => "dead",
            Liveness::Unprovable => "unprovable",
        };
        let shown = Held { target: format!("database {name}"), holder: holder.clone(), process };
        ui.item("lock", &shown, |held| in_words(&held.target, holder, liveness));
        if liveness == Liveness::Alive {
            return Err(alive(holder));
        }
        unprovable += u32::from(liveness == Liveness::Unprovable);
    }
    if let Some(note) = Journal::read(&site.state)?.holder() {
        // The kernel's lock ends with its process: whoever is named there is at work.
        let what = format!("the state directory is in use by process {} on {} ({})", note.pid, note.host, note.purpose);
        return Err(CliError::refused(what, "wait until it is done, then try again"));
    }
    if args.anew {
        recording::none_under_way(&Journal::read(&site.state)?)?;
        let lacking = marks::lacking(&mut targets, &Journal::read(&site.state)?)?;
        for (id, causes) in &lacking {
            let shown = GivenUp { id, causes };
            ui.item("given-up", &shown, |_| {
                format!("{id} will be given up, what it changed elsewhere stays as it is: {}", causes.join("; "))
            });
        }
        ask::confirm("Begin a new history?", context.global.yes)?;
        drop(targets);
        context.begin_anew(site)?;
        ui.answer("a new history begins here");
        let given_up: Vec<_> = lacking.keys().collect();
        return Ok(End::did(&json!({ "anew": true, "given_up": given_up }), "The site itself was not touched."));
    }
    if held.is_empty() {
        ui.answer("no lock is held");
        return Ok(End::did(&json!({ "taken_over": 0 }), NOTHING_CHANGED));
    }
    if unprovable > 0 {
        ui.warning("whether that process is gone cannot be known from here: make sure of it on its host first");
    }
    ask::confirm("Take the lock over?", context.global.yes)?;
    for (name, holder) in &held {
        if let Some(database) = targets.databases.get_mut(name)
            && !database.break_lock(holder)?
        {
            let what = format!("the lock of database {name} changed hands meanwhile");
            return Err(CliError::refused(what, "look again whose it is"));
        }
    }
    ui.answer(format!("{} taken over", words::count(held.len() as u64, "lock")));
    ui.hint("`backout resume` settles what that process left");
    Ok(End::did(&json!({ "taken_over": held.len() }), "The lock is free; the site itself was not touched."))
}

fn liveness(holder: &Holder) -> Result<Liveness, CliError> {
    let facts = ProcessFacts {
        host: holder.host.clone(),
        boot_id: holder.boot_id.clone(),
        pid: holder.pid,
        started: holder.started,
    };
    facts.liveness().map_err(|source| CliError::io("find out whether the holder of the lock lives", source))
}

fn in_words(target: &str, holder: &Holder, liveness: Liveness) -> String {
    let state = match liveness {
        Liveness::Alive => "which is at work",
        Liveness::Dead => "which is gone",
        Liveness::Unprovable => "which cannot be asked from here",
    };
    format!(
        "{target}: locked since {} by process {} on {} ({}), {state}",
        words::time(holder.since_ms),
        holder.pid,
        words::short(&holder.host),
        words::short(&holder.purpose)
    )
}

fn alive(holder: &Holder) -> CliError {
    CliError::refused(
        format!("process {} on {} ({}) holds the lock and is at work", holder.pid, holder.host, holder.purpose),
        "wait until it is done, or stop it: it then takes back what it had begun",
    )
}
