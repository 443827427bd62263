//! Repository chores: the rules of the house, and the tools that judge `backout` from outside.
//!
//! Nothing here is part of the tool, and nothing here uses its crates: what judges it shares no code with it. Only the
//! private servers are those of the tests.

#![allow(clippy::print_stdout, reason = "a chore's answer goes to stdout")]

mod backout;
mod bench;
mod fidelity;
mod mariadb;
mod place;
mod postgres;
mod sqlite;
mod tidy;
mod trees;
mod with_server;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Repository chores", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check the rules of the house: layers, file headers, sizes, names, paths
    Tidy,
    /// Deploy and undo SQL files one by one and compare the database each time, by independent code
    Fidelity(fidelity::Options),
    /// Deploy and undo a real tree of files and compare everything a file system keeps
    Trees(trees::Options),
    /// Measure against what a user would pick instead
    Bench(bench::Options),
    /// Run a command with a private database server
    WithServer(with_server::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Tidy => tidy::run(),
        Chore::Fidelity(options) => fidelity::run(&options),
        Chore::Trees(options) => trees::run(&options),
        Chore::Bench(options) => bench::run(&options),
        Chore::WithServer(options) => with_server::run(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
