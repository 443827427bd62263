//! The command line: every command with its flags, and what is wrong with one that can't be understood.
//!
//! Never does anything: it only says what was asked for.

use std::ffi::OsString;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands;
use crate::global::Global;

/// Deployments that can be taken back.
#[derive(Debug, Parser)]
#[command(
    name = "backout",
    version,
    about = "Deployments that can be taken back",
    long_about = "Deploys packages of SQL, files and commands to a live site, journals every change, and takes it back exactly.",
    after_help = "Exit status: 0 done; 1 failed and undone; 2 usage; 3 needs a hand; 4 refused, nothing changed; 5 done in part; 255 a defect of backout.",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 110
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Init(commands::init::Args),
    New(commands::new::Args),
    Doctor(commands::doctor::Args),
    Plan(commands::plan::Args),
    Rehearse(commands::rehearse::Args),
    Deploy(commands::deploy::Args),
    Undo(commands::undo::Args),
    Confirm(commands::confirm::Args),
    Redo(commands::redo::Args),
    Retry(commands::retry::Args),
    Log(commands::log::Args),
    Show(commands::show::Args),
    Status(commands::status::Args),
    Resume(commands::resume::Args),
    Unlock(commands::unlock::Args),
    Verify(commands::verify::Args),
    Record(commands::record::Args),
    Backup(commands::backup::Args),
    Restore(commands::restore::Args),
    Prune(commands::prune::Args),
    Pack(commands::pack::Args),
    Sign(commands::sign::Args),
    Inspect(commands::inspect::Args),
    Capture(commands::capture::Args),
    Diff(commands::diff::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
    Schema(commands::schema::Args),
    #[command(hide = true)]
    Watch(commands::watch::Args),
}

impl Command {
    /// The command's name as it is typed.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Init(_) => "init",
            Command::New(_) => "new",
            Command::Doctor(_) => "doctor",
            Command::Plan(_) => "plan",
            Command::Deploy(_) => "deploy",
            Command::Undo(_) => "undo",
            Command::Redo(_) => "redo",
            Command::Retry(_) => "retry",
            Command::Log(_) => "log",
            Command::Show(_) => "show",
            Command::Status(_) => "status",
            Command::Resume(_) => "resume",
            Command::Unlock(_) => "unlock",
            Command::Verify(_) => "verify",
            Command::Pack(_) => "pack",
            Command::Inspect(_) => "inspect",
            Command::Completions(_) => "completions",
            Command::Man(_) => "man",
            Command::Schema(_) => "schema",
            Command::Watch(_) => "watch",
            Command::Rehearse(_) => "rehearse",
            Command::Confirm(_) => "confirm",
            Command::Backup(_) => "backup",
            Command::Restore(_) => "restore",
            Command::Capture(_) => "capture",
            Command::Diff(_) => "diff",
            Command::Record(_) => "record",
            Command::Sign(_) => "sign",
            Command::Prune(_) => "prune",
        }
    }
}

/// The definition that parsing, help, completions and man pages share.
pub fn definition() -> clap::Command {
    let styles = Styles::styled()
        .header(AnsiColor::Green.on_default().bold())
        .usage(AnsiColor::Green.on_default().bold())
        .literal(AnsiColor::Cyan.on_default().bold())
        .placeholder(AnsiColor::Cyan.on_default())
        .error(AnsiColor::Red.on_default().bold());
    Cli::command().styles(styles)
}

/// Reads the command line. An error is also what `--help` and `--version` come to.
pub fn parse(words: &[OsString]) -> Result<Cli, clap::Error> {
    let definition = definition().color(color_wanted(words));
    let mut matches = definition.try_get_matches_from(words)?;
    let mut cli = Cli::from_arg_matches_mut(&mut matches)?;
    // A command that comes later takes any words, this one among them.
    cli.global.json |= json_wanted(words);
    Ok(cli)
}

/// What the words say of colours, for errors and help that come before they are understood.
fn color_wanted(words: &[OsString]) -> ColorChoice {
    let said = |value: &str| {
        words.iter().any(|word| *word == *format!("--color={value}"))
            || words.windows(2).any(|pair| pair[0] == *"--color" && pair[1] == *value)
    };
    if said("always") {
        ColorChoice::Always
    } else if said("never") {
        ColorChoice::Never
    } else {
        ColorChoice::Auto
    }
}

/// True where the words ask for JSON, for a command line that can't be understood.
pub fn json_wanted(words: &[OsString]) -> bool {
    words.iter().skip(1).take_while(|word| **word != *"--").any(|word| *word == *"--json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn colour_and_json_are_known_before_the_rest_is_understood() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(color_wanted(&words("backout nonsense --color never")), ColorChoice::Never);
        assert_eq!(color_wanted(&words("backout --color=always")), ColorChoice::Always);
        assert_eq!(color_wanted(&words("backout never")), ColorChoice::Auto);
        assert!(json_wanted(&words("backout nonsense --json")));
        assert!(!json_wanted(&words("backout nonsense -- --json")));
    }
}
