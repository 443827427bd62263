//! The flags that every command takes. Never looks at anything else of the command line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// The flags that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The site's file [default: site.yaml here or in a directory above]
    #[arg(long, global = true, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// Answer yes to every question
    #[arg(long, global = true)]
    pub yes: bool,
    /// One JSON object a line on stdout, the last one the result
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress, hints or notes
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Name every step on stderr
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Colours on a terminal
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// When colours are used. `NO_COLOR` in the environment turns `auto` into `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}
