//! `backout record`: writes the archive of a deployment. And what `undo --record` and `inspect` do with one.

use std::path::{Path, PathBuf};

use backout_engine::error::EngineError;
use backout_engine::from_record::{self, Found};
use backout_engine::outcome::{NOTHING_CHANGED, Outcome, Status};
use backout_engine::record::{self, Written};
use backout_engine::session::Session;
use backout_package::signature;
use backout_package::site::Site;
use backout_record::error::RecordError;
use backout_record::head::{Head, NAMESPACE};
use backout_record::reader::{self, Checked};
use serde::Serialize;
use tempfile::TempDir;

use super::Context;
use crate::end::End;
use crate::error::CliError;
use crate::wiring;
use crate::words::{bytes, count, time};

/// Write the archive of a deployment: what ran, what takes it back, the files before and after, the journal
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A deployment, by any unique beginning of its id [default: the latest]
    #[arg(value_name = "ID")]
    what: Option<String>,
    /// The file or directory to write to [default: `records` in the state directory]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Sign it with this private key, in OpenSSH's format and without a passphrase [default: `record-key` of `trust:`]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let site = context.site()?;
    let key = args.key.clone().or_else(|| own_key(&site));
    let never = |_: &backout_journal::Reader| {
        Err(EngineError::NotNow { what: "nothing was ever deployed here".to_owned(), hint: None })
    };
    context.looking(site, "record", never, |session| {
        let written = write(session, args.what.as_deref(), args.output.as_deref(), key.as_deref())?;
        let mut outcome = Outcome::new(Status::Done, NOTHING_CHANGED);
        outcome.deployment = Some(written.deployment.clone());
        outcome.answer.push(written.file.display().to_string());
        outcome.notes.extend(written.lacks.iter().map(|lacks| format!("the record lacks {lacks}")));
        Ok(outcome)
    })
}

/// The key by which the site signs its records.
fn own_key(site: &Site) -> Option<PathBuf> {
    site.trust.as_ref().and_then(|trust| trust.record_key.clone())
}

/// Writes a record, signed where there is a `key`.
fn write(
    session: &mut Session<'_>,
    what: Option<&str>,
    to: Option<&Path>,
    key: Option<&Path>,
) -> Result<Written, EngineError> {
    let sign = |text: &[u8]| {
        let key = key.unwrap_or(Path::new(""));
        signature::sign_text(key, NAMESPACE, text, None).map_err(|error| RecordError::Sign(Box::new(error)))
    };
    let sign: Option<backout_record::writer::Sign<'_>> = key.map(|_| &sign as _);
    record::record(session, what, to, env!("CARGO_PKG_VERSION"), sign)
}

/// Writes the record of a deployment that has just ended, where the site wants one of each. A failure is told and is none
/// of the deployment's, which is done.
pub fn at_the_end(session: &mut Session<'_>, outcome: &mut Outcome) {
    let began = matches!(outcome.status, Status::Done | Status::Partly | Status::Failed | Status::NeedsHand);
    let Some(id) = outcome.deployment.clone().filter(|_| began && session.site().record) else { return };
    let key = own_key(session.site());
    match write(session, Some(id.as_str()), None, key.as_deref()) {
        Ok(written) => outcome.notes.push(format!("its record is {}", written.file.display())),
        Err(error) => {
            let why = error.causes().join(": ");
            outcome.notes.push(format!("its record could not be written: {why}; `backout record {id}` tries again"));
        }
    }
}

/// A site that is only to be looked at, where its state directory is lost: one that is made again is put into a place that
/// goes with the guard.
pub fn only_looked_at(site: &Site) -> Result<(Site, Option<TempDir>), CliError> {
    if site.state.exists() {
        return Ok((site.clone(), None));
    }
    let beside = site.state.parent().unwrap_or(Path::new("."));
    let made = tempfile::Builder::new().prefix(".backout-look").tempdir_in(beside);
    let room = made.map_err(|source| CliError::io(format!("make a directory in {}", beside.display()), source))?;
    Ok((Site { state: room.path().join("state"), ..site.clone() }, Some(room)))
}

/// Makes a lost state directory again from records; the id of the deployment of the first one, or the part of it that
/// is to be undone.
pub fn make_again(
    context: &Context<'_>,
    site: &Site,
    files: &[PathBuf],
    what: Option<&str>,
    is_to_stay: bool,
) -> Result<String, CliError> {
    let mut records = Vec::new();
    for file in files {
        records.push((file.clone(), from_record::check(site, file)?.head));
    }
    let id = records.first().map(|(_, head)| head.deployment.clone()).unwrap_or_default();
    let part = match what.map(|what| what.split_once('/').unwrap_or((what, ""))) {
        Some((prefix, _)) if !id.starts_with(prefix) => {
            let hint = "leave the id out, or name another record";
            return Err(CliError::usage(format!("the record is of {id}, not of `{prefix}`"), hint));
        }
        Some((_, child)) if !child.is_empty() => format!("{id}/{child}"),
        _ => id.clone(),
    };
    let mut targets = wiring::targets(site)?;
    match from_record::make_again(site, &mut targets, wiring::surroundings(), &records)? {
        Found::Known(_) => context.ui.note("the state directory knows the deployment: the record is not needed"),
        Found::MadeAgain(_) if !is_to_stay => {}
        Found::MadeAgain(_) => {
            context.ui.note(format!("made the state directory {} again from the record", site.state.display()));
        }
    }
    Ok(part)
}

/// What `inspect` tells of a record.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Inspection<'a> {
    record: &'a Head,
    /// Members and the bytes of their content.
    members: u64,
    bytes: u64,
    /// Its seal, which is what a signature is of.
    seal: String,
    signed: bool,
}

/// Reads a record to its end, checks it and tells what it holds.
pub fn inspect(context: &Context<'_>, file: &Path) -> Result<End, CliError> {
    let checked = reader::read(file, &mut |_, _, _| Ok(()))?;
    for line in lines(&checked) {
        context.ui.answer(line);
    }
    let Checked { head, members, bytes, seal, signature } = &checked;
    let seal = String::from_utf8_lossy(seal).trim_end().to_owned();
    Ok(End::answered(&Inspection { record: head, members: *members, bytes: *bytes, seal, signed: signature.is_some() }))
}

fn lines(checked: &Checked) -> Vec<String> {
    let Head { package, version, deployment, site, actor, state, .. } = &checked.head;
    let head = &checked.head;
    let mut lines = vec![
        format!("record of {package} {version} ({deployment}) on {site}"),
        format!("{state}, begun {} by {actor}", time(head.started_ms)),
        format!("written {} by backout {}", time(head.written_ms), head.tool),
    ];
    for database in &head.databases {
        lines.push(format!("database {} ({}): executed.sql, undo.sql", database.name, database.engine));
        lines.extend(database.not_in_script.iter().map(|why| format!("  undo.sql cannot run: {why}")));
    }
    lines.extend(head.roots.iter().map(|root| format!("root {root}: files before and after")));
    lines.extend(head.lacks.iter().map(|lacks| format!("lacks {lacks}")));
    lines.push(format!("{}, {}; all checksums are right", count(checked.members, "member"), bytes(checked.bytes)));
    lines.push(match &checked.signature {
        Some(_) => "signed; `undo --record` holds the signature against `trust:` in site.yaml".to_owned(),
        None => "not signed".to_owned(),
    });
    lines
}
