//! One entry of `steps:`, from what is written to what is run.

use std::fs;
use std::time::Duration;

use crate::beneath;
use crate::capture::CaptureFile;
use crate::error::PackageError;
use crate::field::{Located, Text, Undo};
use crate::load::{Loader, MAX_NESTING};
use crate::manifest::{OnFailureFile, RetriesFile, StepFile};
use crate::package::MANIFEST;
use crate::step::{
    Capture, Child, Command, DeleteStep, FilesStep, MAX_BACKOFF, OnFailure, Retries, RunStep, RunUndo, SqlStep,
    SqlUndo, Step, StepKind,
};
use crate::words::{root_path, shown};
use crate::yaml::Spot;

/// What a `run` step without an undo may do about it.
const RUN_WAYS_OUT: &str = "add `capture: all`, which takes back whatever it does to databases and files, `undo: [a command]`, \
    or `undo: none` with `because: …` and deploy with --accept-irreversible";

/// Settles one step of the package `name`.
pub fn load_step(loader: &Loader<'_>, name: &str, step: &Located<StepFile>) -> Result<Step, PackageError> {
    let file = &step.value;
    let kinds = [
        ("sql", file.sql.as_ref().map(|l| l.spot)),
        ("files", file.files.as_ref().map(|l| l.spot)),
        ("delete", file.delete.as_ref().map(|l| l.spot)),
        ("run", file.run.as_ref().map(|l| l.spot)),
        ("package", file.package.as_ref().map(|l| l.spot)),
    ];
    let kind = one_kind(loader, "step", step.spot, &kinds)?;
    only_its_options(loader, kind, &format!("a `{kind}` step"), &options(file))?;
    let kind = match kind {
        "sql" => sql(loader, file)?,
        "files" => files(loader, file)?,
        "delete" => delete(loader, file)?,
        "run" => run(loader, step)?,
        _ => child(loader, name, file)?,
    };
    Ok(Step { line: step.spot.line, kind })
}

/// The one kind that is given among `kinds`; none or two are errors.
pub fn one_kind(
    loader: &Loader<'_>,
    what: &str,
    spot: Spot,
    kinds: &[(&'static str, Option<Spot>)],
) -> Result<&'static str, PackageError> {
    let names = || kinds.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mut given = kinds.iter().filter_map(|(name, spot)| spot.map(|spot| (*name, spot)));
    match (given.next(), given.next()) {
        (Some((kind, _)), None) => Ok(kind),
        (None, _) => Err(loader.wrong(spot, format!("this {what} does nothing: one of {} must be given", names()))),
        (Some((first, at)), Some((second, also_at))) => {
            // The later one is the one too many, in the order of the file.
            let late = if (at.line, at.column) > (also_at.line, also_at.column) { at } else { also_at };
            let what = format!("this {what} has two kinds, `{first}` and `{second}`; exactly one must be given");
            Err(loader.wrong(late, what))
        }
    }
}

/// Refuses options that belong to another kind: they would silently do nothing.
pub fn only_its_options(
    loader: &Loader<'_>,
    kind: &str,
    what: &str,
    options: &[(&str, Option<Spot>, &[&str])],
) -> Result<(), PackageError> {
    for (option, spot, kinds) in options {
        if let Some(spot) = spot
            && !kinds.contains(&kind)
        {
            let owners = kinds.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(" and ");
            return Err(loader.wrong(*spot, format!("{what} has no `{option}`; it belongs to {owners}")));
        }
    }
    Ok(())
}

type Options<'a> = [(&'a str, Option<Spot>, &'a [&'a str]); 10];

fn options(file: &StepFile) -> Options<'static> {
    [
        ("database", file.database.as_ref().map(|l| l.spot), &["sql"]),
        ("root", file.root.as_ref().map(|l| l.spot), &["files", "delete"]),
        ("exact", file.exact.as_ref().map(|l| l.spot), &["files"]),
        ("missing", file.missing.as_ref().map(|l| l.spot), &["delete"]),
        ("undo", file.undo.as_ref().map(|l| l.spot), &["sql", "run"]),
        ("because", file.because.as_ref().map(|l| l.spot), &["sql", "run"]),
        ("capture", file.capture.as_ref().map(|l| l.spot), &["run"]),
        ("timeout", file.timeout.as_ref().map(|l| l.spot), &["run"]),
        ("retries", file.retries.as_ref().map(|l| l.spot), &["package"]),
        ("on-failure", file.on_failure.as_ref().map(|l| l.spot), &["package"]),
    ]
}

fn text(given: Option<&Located<Text>>) -> Option<String> {
    given.map(|l| l.value.0.clone())
}

/// The reason that goes with `undo: none`, and only with it.
fn because(loader: &Loader<'_>, file: &StepFile, undo: Option<Spot>) -> Result<String, PackageError> {
    match (&file.because, undo) {
        (Some(reason), Some(_)) if reason.value.0.trim().is_empty() => {
            Err(loader.wrong(reason.spot, "`because` is empty: say why there is no undo"))
        }
        (Some(reason), Some(_)) => Ok(reason.value.0.clone()),
        (None, Some(spot)) => Err(loader.wrong(spot, "`undo: none` needs a `because: …` beside it")),
        (Some(reason), None) => Err(loader.wrong(reason.spot, "`because` goes with `undo: none` only")),
        (None, None) => Ok(String::new()),
    }
}

fn sql(loader: &Loader<'_>, file: &StepFile) -> Result<StepKind, PackageError> {
    let Some(script) = &file.sql else { return Err(loader.wrong(Spot::default(), "no script")) };
    let path = loader.regular_file(script.spot, &script.value.0)?;
    let undo = match &file.undo {
        None => {
            because(loader, file, None)?;
            SqlUndo::Captured
        }
        Some(Located { spot, value: Undo::None }) => SqlUndo::Never { because: because(loader, file, Some(*spot))? },
        Some(Located { spot, value: Undo::Path(undo) }) => {
            because(loader, file, None)?;
            SqlUndo::Script { path: loader.regular_file(*spot, undo)?, shown: loader.shown(undo) }
        }
        Some(Located { spot, value: Undo::Command(_) }) => {
            return Err(
                loader.wrong(*spot, "an `sql` step is undone by a script: `undo: x.undo.sql`, not by a command")
            );
        }
    };
    Ok(StepKind::Sql(SqlStep {
        path,
        shown: loader.shown(&script.value.0),
        database: text(file.database.as_ref()),
        undo,
    }))
}

fn files(loader: &Loader<'_>, file: &StepFile) -> Result<StepKind, PackageError> {
    let Some(tree) = &file.files else { return Err(loader.wrong(Spot::default(), "no directory")) };
    let shown_path = loader.shown(&tree.value.0);
    let source = match loader.sources.and_then(|sources| sources(&shown_path)) {
        Some(source) => source,
        None => {
            let (path, metadata) =
                beneath::resolve(&loader.dir, &tree.value.0).map_err(|e| loader.wrong(tree.spot, e))?;
            if !metadata.is_dir() {
                let what = format!("`{}` is not a directory", shown(&tree.value.0));
                return Err(loader.wrong_with(
                    tree.spot,
                    what,
                    "put the file into a directory of its own and name that",
                ));
            }
            let real = fs::canonicalize(&path).map_err(|e| PackageError::read(&path, e))?;
            if real == loader.dir {
                let what = "names the package itself; its package.yaml would end up in the root";
                return Err(loader.wrong_with(tree.spot, what, "put the files into a directory of the package"));
            }
            real
        }
    };
    Ok(StepKind::Files(FilesStep {
        source,
        shown: shown_path,
        root: text(file.root.as_ref()),
        exact: file.exact.as_ref().is_some_and(|l| l.value),
    }))
}

fn delete(loader: &Loader<'_>, file: &StepFile) -> Result<StepKind, PackageError> {
    let Some(list) = &file.delete else { return Err(loader.wrong(Spot::default(), "no paths")) };
    if list.value.is_empty() {
        return Err(loader.wrong(list.spot, "`delete` names no paths"));
    }
    let mut paths = Vec::with_capacity(list.value.len());
    let mut seen = std::collections::HashSet::new();
    for path in &list.value {
        let tidy = root_path(&path.value.0).map_err(|e| loader.wrong(path.spot, e))?;
        if !seen.insert(tidy.trim_end_matches('/').to_owned()) {
            return Err(loader.wrong(path.spot, format!("`{}` is deleted twice", shown(&tidy))));
        }
        paths.push(tidy);
    }
    Ok(StepKind::Delete(DeleteStep { paths, root: text(file.root.as_ref()), missing_ok: file.missing.is_some() }))
}

fn run(loader: &Loader<'_>, step: &Located<StepFile>) -> Result<StepKind, PackageError> {
    let file = &step.value;
    let Some(command) = &file.run else { return Err(loader.wrong(step.spot, "no command")) };
    loader.program(command.spot, &command.value)?;
    let timeout = loader.positive("timeout", file.timeout.as_ref())?;
    let undo = match &file.undo {
        Some(Located { spot, .. }) if file.capture.is_some() => {
            let what = "`undo` and `capture` on one step: what is captured needs no other undo";
            return Err(loader.wrong_with(*spot, what, "keep the one that takes the command back"));
        }
        None if let Some(captured) = &file.capture => {
            because(loader, file, None)?;
            RunUndo::Captured(captures(loader, captured)?)
        }
        None if file.because.is_some() => {
            because(loader, file, None)?;
            RunUndo::Never { because: String::new() }
        }
        None => return Err(loader.wrong_with(step.spot, "this `run` step says nothing of its undo", RUN_WAYS_OUT)),
        Some(Located { spot, value: Undo::None }) => RunUndo::Never { because: because(loader, file, Some(*spot))? },
        Some(Located { spot, value: Undo::Command(argv) }) => {
            because(loader, file, None)?;
            loader.program(*spot, argv)?;
            RunUndo::Command(argv.0.clone())
        }
        Some(Located { spot, value: Undo::Path(_) }) => {
            let what = "the undo of a `run` step is a command as a list, or `none`";
            return Err(loader.wrong_with(*spot, what, RUN_WAYS_OUT));
        }
    };
    let command = Command { line: step.spot.line, argv: command.value.0.clone(), timeout };
    Ok(StepKind::Run(RunStep { command, undo }))
}

/// What a step says it captures.
fn captures(loader: &Loader<'_>, file: &Located<CaptureFile>) -> Result<Capture, PackageError> {
    let lists = match &file.value {
        CaptureFile::All => return Ok(Capture { databases: None, roots: None }),
        CaptureFile::Some(lists) => lists,
    };
    if lists.databases.is_empty() && lists.roots.is_empty() {
        let what = "`capture` names nothing: neither a database nor a root";
        return Err(loader.wrong_with(file.spot, what, "`capture: all` means every one of the site"));
    }
    let names = |list: &[Located<Text>]| -> Result<Option<Vec<String>>, PackageError> {
        let mut names: Vec<String> = Vec::with_capacity(list.len());
        for name in list {
            if names.contains(&name.value.0) {
                return Err(loader.wrong(name.spot, format!("`{}` is named twice", name.value.0)));
            }
            names.push(name.value.0.clone());
        }
        Ok(Some(names))
    };
    Ok(Capture { databases: names(&lists.databases)?, roots: names(&lists.roots)? })
}

fn child(loader: &Loader<'_>, name: &str, file: &StepFile) -> Result<StepKind, PackageError> {
    let Some(below) = &file.package else { return Err(loader.wrong(Spot::default(), "no package")) };
    let written = &below.value.0;
    let (path, metadata) = beneath::resolve(&loader.dir, written).map_err(|e| loader.wrong(below.spot, e))?;
    if !metadata.is_dir() {
        return Err(loader.wrong(below.spot, format!("`{}` is not a directory; a package is one", shown(written))));
    }
    let real = fs::canonicalize(&path).map_err(|e| PackageError::read(&path, e))?;
    if real == loader.dir {
        return Err(
            loader.wrong(below.spot, format!("`{}` is the package itself: a cycle among packages", shown(written)))
        );
    }
    if !real.join(MANIFEST).exists() {
        return Err(loader.wrong(below.spot, format!("`{}` is not a package: it holds no {MANIFEST}", shown(written))));
    }
    if loader.above.len() + 1 >= MAX_NESTING {
        return Err(loader.wrong(below.spot, format!("packages are nested more than {MAX_NESTING} levels deep")));
    }
    let element = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    crate::words::check_name("child's directory", &element).map_err(|e| loader.wrong(below.spot, e))?;
    let parts = crate::words::relative(written).map_err(|e| loader.wrong(below.spot, e))?.join("/");
    let parent = loader.file.parent().unwrap_or(&loader.dir);
    let below_loader = Loader {
        dir: real,
        file: parent.join(&parts).join(MANIFEST),
        prefix: format!("{}{parts}/", loader.prefix),
        above: loader.above.iter().cloned().chain([name.to_owned()]).collect(),
        sources: loader.sources,
    };
    Ok(StepKind::Package(Child {
        name: element,
        package: below_loader.load()?,
        retries: file.retries.as_ref().map_or(Ok(Retries::default()), |l| retries(loader, &l.value))?,
        on_failure: match file.on_failure.as_ref().map(|l| l.value) {
            Some(OnFailureFile::Continue) => OnFailure::Continue,
            Some(OnFailureFile::Fail) | None => OnFailure::Fail,
        },
    }))
}

fn retries(loader: &Loader<'_>, file: &RetriesFile) -> Result<Retries, PackageError> {
    if file.attempts.value == 0 {
        let what = "`attempts` counts all tries, the first one too: at least 1";
        return Err(loader.wrong(file.attempts.spot, what));
    }
    if let Some(backoff) = &file.backoff
        && !(1.0..=MAX_BACKOFF).contains(&backoff.value)
    {
        return Err(loader.wrong(backoff.spot, format!("`backoff` must be a number from 1 to {MAX_BACKOFF}")));
    }
    Ok(Retries {
        attempts: file.attempts.value,
        wait: file.wait.as_ref().map_or(Duration::ZERO, |l| l.value.0),
        backoff: file.backoff.as_ref().map_or(1.0, |l| l.value),
    })
}
