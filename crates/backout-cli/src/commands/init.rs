//! `backout init`: a `site.yaml`, for a WordPress or Drupal that it finds, else for an SQLite database and a directory. Asks on
//! a terminal; flags answer elsewhere.

use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use backout_package::application::{self, Application, Kind};
use backout_package::site::{SITE_FILE, Site};
use backout_package::template::{self, NewSite};
use serde_json::json;

use super::{Context, working_directory, write_new};
use crate::ask;
use crate::end::End;
use crate::error::CliError;

/// Write a site.yaml for WordPress, Drupal, or any database and root
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
    let (mut site, found) = answers(&dir, args)?;
    if let Some(found) = &found {
        context.ui.note(told(found));
    }
    if site.url.is_none() && site.root.is_none() {
        return Err(CliError::usage(
            "a site needs a database or a root, and there is no terminal to ask on",
            "name them: `backout init --database shop.sqlite --root web`",
        ));
    }
    site.password_file = Some(password_name(&site));
    let text = template::site_yaml(&site).map_err(|what| CliError::usage(what, "give another one with --name"))?;
    write_new(&file, text.as_bytes())?;
    // What was written is read back: a path that does not do must not stay.
    let environment = |name: &str| std::env::var_os(name).or_else(|| Some("unset".into()));
    let made = Site::load_with(&file, &environment).map_err(CliError::from).and_then(|site| match &site.backup {
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
    for (name, what) in found.iter().flat_map(|found| &found.variables) {
        context.ui.hint(format!("set {name}, {what}, in the environment of whoever deploys"));
    }
    context.ui.hint("`backout doctor` says whether it works, `backout new NAME` writes a package");
    Ok(End::did(&json!({ "file": file.to_string_lossy(), "site": site.name }), ""))
}

fn answers(dir: &Path, args: &Args) -> Result<(NewSite, Option<Application>), CliError> {
    let name = args.name.clone().unwrap_or_else(|| name_of(dir));
    let mut site = NewSite {
        url: args.database.as_deref().map(template::sqlite_url),
        root: args.root.clone(),
        state: args.state.clone(),
        name,
        ..NewSite::default()
    };
    let found = if args.database.is_some() { None } else { application(dir, args, &site.name)? };
    let asks = ask::possible() && args.database.is_none() && args.root.is_none();
    if asks && args.name.is_none() {
        site.name = ask::text("Name of the site", &site.name)?;
    }
    match &found {
        Some(found) => fill(&mut site, dir, found),
        None if asks => {
            site.url =
                some(ask::text("SQLite database (a path; empty for none)", "")?).as_deref().map(template::sqlite_url);
            site.root = some(ask::text("Directory that the site serves (a path; empty for none)", "")?);
        }
        None => {}
    }
    if asks && site.state.is_none() {
        site.state = some(ask::text("Where to keep journal and before-images (empty: .backout beside site.yaml)", "")?);
    }
    Ok((site, found))
}

/// The application in the root that was named, else in the directory or one right below it.
fn application(dir: &Path, args: &Args, site: &str) -> Result<Option<Application>, CliError> {
    let variable = format!("{}_DB_PASSWORD", site.to_ascii_uppercase().replace('-', "_"));
    if let Some(root) = &args.root {
        return Ok(application::detect(dir, root, &variable));
    }
    if let Some(found) = application::detect(dir, ".", &variable) {
        return Err(CliError::usage(
            format!("{} lies in the directory itself, which a web server serves", found.name),
            "site.yaml, journal and backups belong outside of it: run `backout init` in the directory above, or name the root \
             and a state elsewhere with --root and --state",
        ));
    }
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(none) if none.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CliError::io(format!("list {}", dir.display()), source)),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    let mut found: Vec<Application> =
        names.iter().filter_map(|name| application::detect(dir, name, &variable)).collect();
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => {
            let all = found.iter().map(|one| format!("{} in {}", one.name, one.root)).collect::<Vec<_>>().join(", ");
            Err(CliError::usage(format!("there are several applications: {all}"), "name one with --root"))
        }
    }
}

/// What the site is by what was found.
fn fill(site: &mut NewSite, dir: &Path, found: &Application) {
    site.url.clone_from(&found.url);
    site.root = Some(found.root.clone());
    site.keep.clone_from(&found.keep);
    let root = found.root.as_str();
    let words = |program: &str, words: &[&str]| -> Vec<String> {
        std::iter::once(program).chain(words.iter().copied()).map(str::to_owned).collect()
    };
    match found.kind {
        Kind::WordPress => {
            let Some(wp) = program(dir, root, "wp") else { return };
            let path = format!("--path={root}");
            let mode = |act: &str| words(&wp, &[&path, "maintenance-mode", act]);
            site.maintenance = Some([mode("activate"), mode("deactivate")]);
            site.finally = vec![words(&wp, &[&path, "cache", "flush"])];
        }
        Kind::Drupal(major) => {
            let Some(drush) = program(dir, root, "drush") else { return };
            let path = format!("--root={root}");
            let set = |on: &str| match major {
                7 => words(&drush, &[&path, "--yes", "variable-set", "maintenance_mode", on]),
                _ => words(&drush, &[&path, "state:set", "system.maintenance_mode", on, "--input-format=integer"]),
            };
            site.maintenance = Some([set("1"), set("0")]);
            let rebuild: &[&str] = if major == 7 { &[&path, "cache-clear", "all"] } else { &[&path, "cache:rebuild"] };
            site.finally = vec![words(&drush, rebuild)];
        }
    }
}

/// A program of the project's own, else one that is installed; as a command in the site's directory names it.
fn program(dir: &Path, root: &str, name: &str) -> Option<String> {
    let own = [format!("vendor/bin/{name}"), format!("{root}/vendor/bin/{name}")];
    let own = own.into_iter().find(|path| dir.join(path).is_file());
    let installed = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).any(|dir| dir.join(name).is_file()).then(|| name.to_owned())
    };
    own.or_else(installed)
}

fn told(found: &Application) -> String {
    let what = match (&found.settings, &found.url) {
        (Some(file), Some(_)) => format!("{} says where its database is", file.display()),
        (Some(file), None) => {
            format!("{} does not say plainly where its database is: write its `url` into site.yaml", file.display())
        }
        (None, _) => "it has no settings yet: write the database's `url` into site.yaml".to_owned(),
    };
    format!("found {} in {}; {what}", found.name, found.root)
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
