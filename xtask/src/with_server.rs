//! `cargo xtask with-server`: runs a command with a private database server, which goes when the command has ended.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};
use backout_servers::{mariadb, postgres};
use clap::{Args, ValueEnum};

#[derive(Args)]
pub struct Options {
    engine: Engine,
    /// The command; it finds the server by PGHOST, PGPORT and PGUSER, or by MYSQL_UNIX_PORT
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    Postgres,
    Mariadb,
}

/// True when the command succeeds.
pub fn run(options: &Options) -> Result<bool> {
    let (program, arguments) = options.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    match options.engine {
        Engine::Postgres => {
            let server = postgres::Server::fresh();
            command.env("PGHOST", server.socket()).env("PGPORT", server.port().to_string());
            finish(command.env("PGUSER", postgres::SUPERUSER).env("PGDATABASE", "postgres"))
        }
        Engine::Mariadb => {
            let server = mariadb::Server::fresh();
            finish(command.env("MYSQL_UNIX_PORT", server.socket()))
        }
    }
}

fn finish(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("running {}", command.get_program().display()))?;
    Ok(status.success())
}
