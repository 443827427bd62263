//! `backout init`: a `site.yaml` for SQLite databases and file roots. Asks on a terminal; flags answer elsewhere.

use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use backout_package::site::{SITE_FILE, Site};
use backout_package::template::{self, NewSite};
use serde_json::json;

use super::{Context, working_directory, write_new};
use crate::ask;
use crate::end::End;
use crate::error::CliError;

/// Write a site.yaml: which database and directory a site consists of
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory to write it into [default: here]
    dir: Option<PathBuf>,
    /// The site's name [default: the directory's]
    #[arg(long)]
    name: Option<String>,
    /// The site's SQLite database
    #[arg(long, value_name = "PATH")]
    database: Option<String>,
    /// The directory that the site serves
    #[arg(long, value_name = "PATH")]
    root: Option<String>,
    /// Where journal and before-images are kept, outside the root [default: .backout beside site.yaml]
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<End, CliError> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => working_directory()?,
    };
    let file = dir.join(SITE_FILE);
    let there =
        || CliError::usage(format!("{} is there already", file.display()), "edit it, or name another directory");
    if file.symlink_metadata().is_ok() {
        return Err(there());
    }
    let mut site = answers(&dir, args)?;
    if site.database.is_none() && site.root.is_none() {
        return Err(CliError::usage(
            "a site needs a database or a root, and there is no terminal to ask on",
            "name them: `backout init --database shop.sqlite --root web`",
        ));
    }
    site.password_file = Some(password_name(&site));
    let text = template::site_yaml(&site).map_err(|what| CliError::usage(what, "give another one with --name"))?;
    write_new(&file, text.as_bytes())?;
    // What was written is read back: a path that does not do must not stay.
    let made = Site::load(&file).map_err(CliError::from).and_then(|site| match &site.backup {
        Some(backup) => make_password(&backup.password_file).map(|made| (made, backup.password_file.clone())),
        None => Ok((false, PathBuf::new())),
    });
    let (made, password) = made.or_else(|error| {
        std::fs::remove_file(&file).map_err(|source| CliError::io(format!("remove {}", file.display()), source))?;
        Err(error)
    })?;
    if made {
        context
            .ui
            .note(format!("{} holds the password of the backups: keep a copy of it elsewhere", password.display()));
    }
    context.ui.answer(file.display());
    context.ui.hint("`backout doctor` says whether it works, `backout new NAME` writes a package");
    Ok(End::did(&json!({ "file": file.to_string_lossy(), "site": site.name }), ""))
}

fn answers(dir: &Path, args: &Args) -> Result<NewSite, CliError> {
    let asks = ask::possible() && args.database.is_none() && args.root.is_none();
    let mut site = NewSite {
        name: args.name.clone().unwrap_or_else(|| name_of(dir)),
        database: args.database.clone(),
        root: args.root.clone(),
        state: args.state.clone(),
        password_file: None,
    };
    if asks {
        if args.name.is_none() {
            site.name = ask::text("Name of the site", &site.name)?;
        }
        site.database = some(ask::text("SQLite database (a path; empty for none)", "")?);
        site.root = some(ask::text("Directory that the site serves (a path; empty for none)", "")?);
        if site.state.is_none() {
            site.state =
                some(ask::text("Where to keep journal and before-images (empty: .backout beside site.yaml)", "")?);
        }
    }
    Ok(site)
}

/// Beside the state directory where that is named, for then the file itself may lie in a root.
fn password_name(site: &NewSite) -> String {
    site.state
        .as_ref()
        .map_or_else(|| "backup-password".to_owned(), |state| format!("{}.password", state.trim_end_matches('/')))
}

/// Makes a password that nobody else can read. False where there is one already: other backups may need it.
fn make_password(file: &Path) -> Result<bool, CliError> {
    let failed = |source| CliError::write(file, source);
    if file.exists() {
        return Ok(false);
    }
    let mut random = [0; 24];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random)).map_err(failed)?;
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(directory) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    }
    let mut out = File::options().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    writeln!(out, "{password}").and_then(|()| out.sync_all()).map_err(failed)?;
    Ok(true)
}

fn some(answer: String) -> Option<String> {
    Some(answer).filter(|answer| !answer.is_empty())
}

/// The directory's name made into a site's.
fn name_of(dir: &Path) -> String {
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let name = real.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let name: String =
        name.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' { c } else { '-' }).collect();
    let name = name.trim_matches(['-', '_']);
    if name.is_empty() { "site".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_from_that_of_the_directory() {
        assert_eq!(name_of(Path::new("/nowhere/My Shop.")), "my-shop");
        assert_eq!(name_of(Path::new("/")), "site");
    }
}
