//! The `backout` binary: reads the command line, wires a site's databases and roots to the engine, tells the result.
//!
//! Decides nothing about a deployment; that is the engine's. Start with `commands`, one file a command.

mod alerts;
mod args;
mod ask;
mod boot;
mod commands;
mod defect;
mod end;
mod error;
#[cfg(feature = "faults")]
mod faults;
mod global;
mod incoming;
mod lent;
mod progress;
mod rehearsal;
mod signals;
mod ui;
mod wiring;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use rustix::fs::Mode;
use rustix::process::umask;

use crate::args::{Cli, Command};
use crate::commands::Context;
use crate::end::End;
use crate::error::CliError;
use crate::ui::Ui;

fn main() -> ExitCode {
    keep_rights_of_owner();
    let words: Vec<OsString> = std::env::args_os().collect();
    let json = args::json_wanted(&words);
    defect::install(json, "");
    #[cfg(feature = "faults")]
    let _faults = faults::from_environment();
    let exit = match args::parse(&words) {
        Ok(cli) => {
            let ui = Ui::new(&cli.global);
            let name = cli.command.name();
            defect::install(json, name);
            end::finish(&ui, name, run(cli, &ui))
        }
        Err(error) => commands::usage::tell(&error, json),
    };
    ExitCode::from(exit)
}

/// Whatever the mask of the caller: what the tool makes for itself it must be able to use, and modes are promised.
fn keep_rights_of_owner() {
    let others = Mode::RWXG | Mode::RWXO;
    let mask = umask(others);
    umask(mask & others);
}

fn run(cli: Cli, ui: &Ui) -> Result<End, CliError> {
    let context = Context { ui, global: &cli.global };
    match cli.command {
        Command::Init(args) => commands::init::run(&context, &args),
        Command::New(args) => commands::new::run(&context, &args),
        Command::Doctor(args) => commands::doctor::run(&context, &args),
        Command::Plan(args) => commands::plan::run(&context, &args),
        Command::Rehearse(args) => commands::rehearse::run(&context, &args),
        Command::Deploy(args) => commands::deploy::run(&context, &args),
        Command::Undo(args) => commands::undo::run(&context, &args),
        Command::Redo(args) => commands::redo::run(&context, &args),
        Command::Retry(args) => commands::retry::run(&context, &args),
        Command::Log(args) => commands::log::run(&context, &args),
        Command::Show(args) => commands::show::run(&context, &args),
        Command::Status(args) => commands::status::run(&context, &args),
        Command::Confirm(args) => commands::confirm::run(&context, &args),
        Command::Watch(args) => commands::watch::run(&context, &args),
        Command::Resume(args) => commands::resume::run(&context, &args),
        Command::Unlock(args) => commands::unlock::run(&context, &args),
        Command::Verify(args) => commands::verify::run(&context, &args),
        Command::Record(args) => commands::record::run(&context, &args),
        Command::Backup(args) => commands::backup::run(&context, &args),
        Command::Restore(args) => commands::restore::run(&context, &args),
        Command::Sign(args) => commands::sign::run(&context, &args),
        Command::Prune(args) => commands::prune::run(&context, &args),
        Command::Pack(args) => commands::pack::run(&context, &args),
        Command::Inspect(args) => commands::inspect::run(&context, &args),
        Command::Diff(args) => commands::diff::run(&context, &args),
        Command::Completions(args) => commands::completions::run(&context, &args, args::definition()),
        Command::Man(args) => commands::man::run(&context, &args, args::definition()),
        Command::Schema(args) => commands::schema::run(&context, &args),
        Command::Capture(args) => commands::capture::run(&context, &args),
    }
}
