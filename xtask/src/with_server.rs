//! `cargo xtask with-server`: runs a command with a private database server, which goes when the command has ended.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};
use backout_servers::postgres::{SUPERUSER, Server};
use clap::{Args, ValueEnum};

#[derive(Args)]
pub struct Options {
    engine: Engine,
    /// The command; it finds the server by libpq's variables
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    Postgres,
}

/// True when the command succeeds.
pub fn run(options: &Options) -> Result<bool> {
    let Engine::Postgres = options.engine;
    let server = Server::fresh();
    let (program, arguments) = options.command.split_first().context("no command")?;
    let status = Command::new(program)
        .args(arguments)
        .env("PGHOST", server.socket())
        .env("PGPORT", server.port().to_string())
        .env("PGUSER", SUPERUSER)
        .env("PGDATABASE", "postgres")
        .status()
        .with_context(|| format!("running {}", program.display()))?;
    Ok(status.success())
}
