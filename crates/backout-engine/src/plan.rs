//! The dry run: every change, how it would be undone, and what is refused. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use backout_files::root::Work;
use backout_model::id::FramePath;
use backout_model::target::{PlannedChange, Refusal, Summary, TargetError, Verdict};
use backout_model::words;
use backout_package::check::CheckKind;
use backout_package::fill::placeholders;
use backout_package::package::Package;
use backout_package::site::Site;
use backout_package::step::{RunUndo, SqlUndo, Step, StepKind};
use backout_sql::database::{Database, Planner, Script};
use serde::Serialize;

use crate::act::{Act, Followed, pick, steps_are_few};
use crate::deploy::trusted;
use crate::error::{EngineError, causes};
use crate::session::Targets;
use crate::step::script_undo;

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    pub frame: FramePath,
    pub step: u32,
    /// `database main`, `root web`, `command`.
    pub target: String,
    #[serde(flatten)]
    pub change: PlannedChange,
}

/// A plan in figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    pub steps: u64,
    pub changes: u64,
    /// Known only while they run.
    pub unknown: u64,
    /// The first of them; `refused` counts all.
    pub refusals: Vec<Refusal>,
    pub refused: u64,
    /// What the user declared irreversible: allowed only with `--accept-irreversible`.
    pub irreversible: Vec<String>,
    /// Conditions and names that do not fit the site.
    pub warnings: Vec<String>,
}

const REFUSALS_KEPT: usize = 100;

impl Totals {
    fn add(&mut self, change: &PlannedChange) {
        self.changes += 1;
        match &change.verdict {
            Verdict::Undoable { .. } => {}
            Verdict::Unknown { .. } => self.unknown += 1,
            Verdict::Refused(refusal) => {
                self.refused += 1;
                if self.refusals.len() < REFUSALS_KEPT {
                    self.refusals.push(refusal.clone());
                }
            }
        }
    }
}

/// Plans a package on a site. Every change is handed to `each` as it is found.
pub fn plan(
    site: &Site,
    targets: &mut Targets,
    package: &Package,
    each: &mut dyn FnMut(Item),
) -> Result<Totals, EngineError> {
    trusted(site, package)?;
    let Targets { databases, roots } = targets;
    let database_names: Vec<String> = databases.keys().cloned().collect();
    let root_names: Vec<String> = roots.keys().cloned().collect();
    let refusals = queries_that_never_hold(databases, package)?;
    let mut sizes = BTreeMap::new();
    if captures(package) {
        for (name, database) in databases.iter_mut() {
            let size = match database.snapshot_size() {
                Err(TargetError::Refused(refusal)) => Err(refusal),
                size => Ok(size?),
            };
            sizes.insert(name.clone(), size);
        }
    }
    let mut planners: BTreeMap<String, Box<dyn Planner + '_>> = BTreeMap::new();
    for (name, database) in databases.iter_mut() {
        planners.insert(name.clone(), database.planner()?);
    }
    let mut walk = Walk {
        planners,
        roots,
        database_names,
        root_names,
        totals: Totals { refused: refusals.len() as u64, refusals, ..Totals::default() },
        touched_roots: BTreeSet::new(),
        command_ran: false,
        sizes,
        is_closed: site.maintenance.is_some(),
        each,
    };
    walk.package(package, &FramePath::root())?;
    Ok(walk.totals)
}

struct Walk<'t, 'e> {
    planners: BTreeMap<String, Box<dyn Planner + 't>>,
    roots: &'t mut BTreeMap<String, Box<dyn backout_files::root::Root>>,
    database_names: Vec<String>,
    root_names: Vec<String>,
    totals: Totals,
    /// Roots that an earlier step changes: what a later one finds there is not known before.
    touched_roots: BTreeSet<String>,
    /// A command that may have changed schemas and files.
    command_ran: bool,
    /// What a copy of each database would be, where the package captures what commands do.
    sizes: BTreeMap<String, Result<Option<Summary>, Refusal>>,
    /// Others are kept out while it runs.
    is_closed: bool,
    each: &'e mut dyn FnMut(Item),
}

impl Walk<'_, '_> {
    fn package(&mut self, package: &Package, frame: &FramePath) -> Result<(), EngineError> {
        let databases: Vec<String> = self.database_names.clone();
        let databases: Vec<&str> = databases.iter().map(String::as_str).collect();
        let roots: Vec<String> = self.root_names.clone();
        let roots: Vec<&str> = roots.iter().map(String::as_str).collect();
        names_fit(package, &databases, &roots)?;
        steps_are_few(package)?;
        for (index, step) in package.steps.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            if let StepKind::Package(child) = &step.kind {
                self.package(&child.package, &frame.child(&child.name))?;
                continue;
            }
            if let Some(act) = Act::of(package, step, &databases, &roots)? {
                self.totals.steps += 1;
                self.step(frame, index, &act, &format!("{}:{}", package.file.display(), step.line))?;
            }
        }
        Ok(())
    }

    fn step(&mut self, frame: &FramePath, index: u32, act: &Act, place: &str) -> Result<(), EngineError> {
        match act {
            Act::Sql { database, path, shown, undo } => self.sql(frame, index, database, path, shown, undo),
            Act::Files { root, .. } | Act::Delete { root, .. } => self.files(frame, index, root, act, place),
            // Only ever found, never planned.
            Act::Captured { .. } => Ok(()),
            Act::Run { capture, .. } if !capture.is_empty() => {
                self.command_ran = true;
                let capture = capture.clone();
                if !self.is_closed {
                    let labels: Vec<String> = capture.iter().map(Followed::label).collect();
                    self.totals.warnings.push(format!(
                        "{place}: what others write to {} while the command runs counts as the command's, and goes with its \
                         undo, but in a database of PostgreSQL, which knows the command's sessions by their application name, and in \
                         one of MariaDB what comes from sessions that were connected before the command began; \
                         `maintenance:` in site.yaml keeps them out",
                        labels.join(", ")
                    ));
                }
                capture.iter().try_for_each(|followed| self.captured(frame, index, act, followed, place))
            }
            Act::Run { argv, undo, .. } => {
                self.command_ran = true;
                let undo = match undo {
                    RunUndo::Command(undo) => format!("runs `{}`", undo.join(" ")),
                    RunUndo::Never { because } => {
                        self.totals.irreversible.push(format!("{place}: run {}: {because}", argv.join(" ")));
                        format!("none, because {because}")
                    }
                    RunUndo::Captured(_) => "by what it changed".to_owned(),
                };
                let change = PlannedChange {
                    place: place.to_owned(),
                    change: format!("run {}", argv.join(" ")),
                    verdict: Verdict::Undoable { undo },
                    rows: None,
                    bytes: None,
                    locks: None,
                };
                self.tell(frame, index, "command".to_owned(), change);
                Ok(())
            }
        }
    }

    /// What a command does in one place: known only while it runs, and captured there.
    fn captured(
        &mut self,
        frame: &FramePath,
        index: u32,
        act: &Act,
        followed: &Followed,
        place: &str,
    ) -> Result<(), EngineError> {
        let label = followed.label();
        let size = match followed {
            Followed::Database(name) => self.sizes.get(name).cloned().unwrap_or(Ok(None)),
            Followed::Root(name) => {
                self.touched_roots.insert(name.clone());
                let root = self.roots.get_mut(name);
                Ok(root.ok_or_else(|| EngineError::History(format!("no root {name}")))?.snapshot_size()?)
            }
        };
        let verdict = match &size {
            Ok(Some(size)) => {
                let what = match followed {
                    Followed::Database(_) if size.rows > 0 => {
                        format!(
                            "a copy of its {} with about {}",
                            words::count(size.changes, "table"),
                            words::count(size.rows, "row")
                        )
                    }
                    Followed::Database(_) if size.changes > 1 => format!("a copy of its {} tables", size.changes),
                    Followed::Database(_) => "a copy of the database".to_owned(),
                    Followed::Root(_) => format!("a copy of {}", words::count(size.changes, "path")),
                };
                Verdict::Undoable {
                    undo: format!("puts back whatever it changes in {label}; needs {what} while it runs"),
                }
            }
            Err(refusal) => Verdict::Refused(Refusal { place: place.to_owned(), ..refusal.clone() }),
            Ok(None) => Verdict::Refused(Refusal {
                place: place.to_owned(),
                what: act.words(),
                why: format!("what a command does to {label} cannot be captured in this version"),
                ways_out: vec![
                    "give the step an undo of its own: `undo: [a command]`".to_owned(),
                    "declare it `undo: none` with `because:`, and deploy with --accept-irreversible".to_owned(),
                    "capture only what can be: `capture: {databases: […], roots: […]}`".to_owned(),
                ],
            }),
        };
        let change = PlannedChange {
            place: place.to_owned(),
            change: act.words(),
            verdict,
            rows: None,
            bytes: size.ok().flatten().map(|size| size.bytes),
            locks: None,
        };
        self.tell(frame, index, label, change);
        Ok(())
    }

    fn sql(
        &mut self,
        frame: &FramePath,
        index: u32,
        database: &str,
        path: &std::path::Path,
        shown: &str,
        undo: &SqlUndo,
    ) -> Result<(), EngineError> {
        let declared = match undo {
            SqlUndo::Captured => None,
            SqlUndo::Script { shown, .. } => Some(format!("runs {shown}")),
            SqlUndo::Never { because } => {
                self.totals.irreversible.push(format!("{shown}: {because}"));
                Some(format!("none, because {because}"))
            }
        };
        let script = Script { path: path.to_owned(), shown: shown.to_owned(), undo: script_undo(undo) };
        let schema_known = !self.command_ran;
        let Some(planner) = self.planners.get_mut(database) else {
            return Err(EngineError::History(format!("no planner for {database}")));
        };
        let totals = &mut self.totals;
        let each = &mut *self.each;
        let mut tell = |mut change: PlannedChange| {
            // What no step can run stays refused.
            if let (Some(undo), Verdict::Undoable { .. } | Verdict::Unknown { .. }) = (&declared, &change.verdict) {
                change.verdict = Verdict::Undoable { undo: undo.clone() };
            }
            totals.add(&change);
            each(Item { frame: frame.clone(), step: index, target: format!("database {database}"), change });
        };
        planner.script(&script, schema_known, &mut tell)?;
        Ok(())
    }

    fn files(&mut self, frame: &FramePath, index: u32, name: &str, act: &Act, place: &str) -> Result<(), EngineError> {
        let work = work(act)?;
        let sure = !self.command_ran && !self.touched_roots.contains(name);
        self.touched_roots.insert(name.to_owned());
        let Some(root) = self.roots.get_mut(name) else {
            return Err(EngineError::History(format!("no root {name}")));
        };
        let totals = &mut self.totals;
        let each = &mut *self.each;
        let mut tell = |change: PlannedChange| {
            totals.add(&change);
            each(Item { frame: frame.clone(), step: index, target: format!("root {name}"), change });
        };
        match root.plan(&work, &mut tell) {
            Ok(_) => Ok(()),
            // An earlier step of the package may make what is missing now.
            Err(error) if !sure => {
                tell(PlannedChange {
                    place: place.to_owned(),
                    change: act.words(),
                    verdict: Verdict::Unknown { why: causes(&error).join(": ") },
                    rows: None,
                    bytes: None,
                    locks: None,
                });
                Ok(())
            }
            Err(TargetError::Refused(refusal)) => {
                tell(PlannedChange {
                    place: refusal.place.clone(),
                    change: act.words(),
                    verdict: Verdict::Refused(refusal),
                    rows: None,
                    bytes: None,
                    locks: None,
                });
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn tell(&mut self, frame: &FramePath, step: u32, target: String, change: PlannedChange) {
        self.totals.add(&change);
        (self.each)(Item { frame: frame.clone(), step, target, change });
    }
}

/// Whether what a command of a package, or of one in it, does is captured.
fn captures(package: &Package) -> bool {
    let is_captured =
        |step: &Step| matches!(&step.kind, StepKind::Run(run) if matches!(run.undo, RunUndo::Captured(_)));
    package.steps.iter().any(is_captured) || package.children().any(|child| captures(&child.package))
}

/// The checks of a package, and of all in it, whose query can never give one value: found now, not when everything is
/// done already.
fn queries_that_never_hold(
    databases: &mut BTreeMap<String, Box<dyn Database>>,
    package: &Package,
) -> Result<Vec<Refusal>, EngineError> {
    let mut refusals = Vec::new();
    for check in package.before.iter().chain(&package.after) {
        let CheckKind::Sql { query, database, .. } = &check.kind else { continue };
        let only = databases.keys().next().filter(|_| databases.len() == 1);
        // One that is not named, or unknown, is an error of its own.
        let Some(name) = database.as_ref().or(only).cloned() else { continue };
        let Some(database) = databases.get_mut(&name) else { continue };
        if let Some(why) = database.never_a_value(query)? {
            refusals.push(Refusal {
                place: format!("{}:{}", package.file.display(), check.line),
                what: query.clone(),
                why: format!("{why}; a check only reads one value"),
                ways_out: vec!["ask for one value, and change things in a step".to_owned()],
            });
        }
    }
    for child in package.children() {
        refusals.extend(queries_that_never_hold(databases, &child.package)?);
    }
    Ok(refusals)
}

/// What checks and commands name must be there, so that nothing fails for it once changes have begun.
fn names_fit(package: &Package, databases: &[&str], roots: &[&str]) -> Result<(), EngineError> {
    let place = |line: u32| format!("{}:{line}", package.file.display());
    let words = |argv: &[String], line: u32| {
        for (kind, name) in argv.iter().flat_map(|word| placeholders(word)) {
            let (plural, known) = if kind == "root" { ("roots", roots) } else { ("databases", databases) };
            pick(kind, plural, Some(name), known, &place(line))?;
        }
        Ok::<(), EngineError>(())
    };
    for check in package.before.iter().chain(&package.after) {
        match &check.kind {
            CheckKind::Http(_) => {}
            CheckKind::Sql { database, .. } | CheckKind::Definition { database, .. } => {
                pick("database", "databases", database.as_deref(), databases, &place(check.line))?;
            }
            CheckKind::File { root, .. } => {
                pick("root", "roots", root.as_deref(), roots, &place(check.line))?;
            }
            CheckKind::Run { argv, .. } => words(argv, check.line)?,
        }
    }
    for command in &package.finally {
        words(&command.argv, command.line)?;
    }
    for step in &package.steps {
        if let StepKind::Run(run) = &step.kind {
            words(&run.command.argv, step.line)?;
            if let RunUndo::Command(undo) = &run.undo {
                words(undo, step.line)?;
            }
        }
    }
    Ok(())
}

/// The work of a file root in its own terms.
pub(crate) fn work(act: &Act) -> Result<Work, EngineError> {
    match act {
        Act::Files { source, exact, .. } => Ok(Work::Overlay { source: source.clone(), exact: *exact }),
        Act::Delete { paths, missing_ok, .. } => Ok(Work::Delete { paths: paths.clone(), missing_ok: *missing_ok }),
        Act::Sql { .. } | Act::Run { .. } | Act::Captured { .. } => {
            Err(EngineError::History(format!("{} is no work on files", act.words())))
        }
    }
}
