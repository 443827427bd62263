//! Going back to a backup: the last resort. Appends to the history what was restored, and gives up the deployments whose
//! changes it took away or brought back: their undo would find a site that they do not know.

use std::collections::BTreeSet;
use std::path::PathBuf;

use backout_journal::{DeploymentRow, Journal, Reader};
use backout_model::backup::{Backup, BackupError, Content, Snapshot, Wanted};
use backout_model::entry::Draft;
use backout_model::id::{DeploymentId, FramePath};
use backout_model::state::{DeploymentState, Event, StepState};
use serde::Serialize;

use crate::act::Act;
use crate::backup::no_backup;
use crate::error::EngineError;
use crate::history::{View, Why, payload};
use crate::observer::Happening;
use crate::outcome::{Outcome, Status};
use crate::prune::images;
use crate::recording;
use crate::restored::{Noted, interrupted, short};
use crate::resume;
use crate::session::{Session, Targets};
use crate::step_view::StepView;
use crate::when::at;

/// What is asked for on the command line.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The beginning of a snapshot's id; none: the latest backup.
    pub snapshot: Option<String>,
    /// Nothing named: everything.
    pub databases: Vec<String>,
    pub roots: Vec<String>,
    pub into: Option<PathBuf>,
}

/// What a restore will do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub snapshot: Snapshot,
    pub databases: BTreeSet<String>,
    pub roots: BTreeSet<String>,
    pub into: Option<PathBuf>,
    /// Deployments that will not be offered for undo or redo any more, the newest first.
    pub gives_up: Vec<Lost>,
    /// The backup was taken beside another journal: what came later is not known.
    pub of_another_history: bool,
    /// The last entry of this journal that the backup knows of.
    since: u64,
}

/// A deployment that a restore gives up.
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    pub id: DeploymentId,
    pub package: String,
    pub version: String,
    pub state: DeploymentState,
    /// Nothing of it is on the site afterwards.
    pub gone: bool,
}

/// Finds the backup that is meant and what of it is wanted. Reads only.
pub fn plan(backup: &mut dyn Backup, reader: &Reader, asked: &Asked) -> Result<Plan, EngineError> {
    let snapshot = chosen(backup.list()?, asked.snapshot.as_deref())?;
    let content = backup.content(&snapshot)?;
    let all = asked.databases.is_empty() && asked.roots.is_empty();
    let pick = |kind: &str, has: &BTreeSet<String>, named: &[String]| -> Result<BTreeSet<String>, EngineError> {
        match named.iter().find(|name| !has.contains(*name)) {
            Some(name) => {
                Err(EngineError::usage(format!("the backup {} holds no {kind} `{name}`", short(&snapshot.id))))
            }
            None if all => Ok(has.clone()),
            None => Ok(named.iter().cloned().collect()),
        }
    };
    let databases = pick("database", &content.databases, &asked.databases)?;
    let roots = pick("root", &content.roots, &asked.roots)?;
    let mut plan = Plan {
        snapshot,
        databases,
        roots,
        into: asked.into.clone(),
        gives_up: Vec::new(),
        of_another_history: !is_of(reader, &content)?,
        since: 0,
    };
    if !plan.of_another_history {
        // By another journal's numbers nothing can be told, so nothing stays.
        plan.since = content.position.seq;
    }
    if plan.into.is_none() {
        recording::none_under_way(reader)?;
        let whole = plan.databases == content.databases && plan.roots == content.roots;
        if let Some(row) = reader.unfinished()?.filter(|_| !whole) {
            let what = format!("{} ({}) was interrupted: what it left is not known yet", row.id, row.package);
            return Err(EngineError::not_now(what, "`backout resume` first, or restore everything"));
        }
        plan.gives_up = lost(reader, &plan)?;
    }
    Ok(plan)
}

/// The same once nobody else can change anything.
pub fn plan_again(session: &mut Session<'_>, asked: &Asked) -> Result<Plan, EngineError> {
    let Session { backup, journal, .. } = session;
    match backup {
        Some(backup) => plan(backup.as_mut(), journal.reader(), asked),
        None => Err(no_backup()),
    }
}

/// The backup that is meant: by the beginning of its id or by its deployment; none or `latest`: the first of `all`.
pub fn chosen(all: Vec<Snapshot>, wanted: Option<&str>) -> Result<Snapshot, EngineError> {
    let list = || "`backout backup --list` lists them".to_owned();
    let Some(prefix) = wanted.filter(|wanted| *wanted != "latest") else {
        let none = || EngineError::NotNow { what: "there is no backup of this site".to_owned(), hint: None };
        return all.into_iter().next().ok_or_else(none);
    };
    let mut found =
        all.into_iter().filter(|one| one.id.starts_with(prefix) || one.deployment.as_deref() == Some(prefix));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(EngineError::Usage { what: format!("no backup `{prefix}` of this site"), hint: Some(list()) }),
        (Some(_), Some(_)) => {
            Err(EngineError::Usage { what: format!("`{prefix}` names several backups"), hint: Some(list()) })
        }
    }
}

/// True where the backup was taken beside this journal.
fn is_of(reader: &Reader, content: &Content) -> Result<bool, EngineError> {
    if content.position.seq == 0 {
        return Ok(reader.last_seq()? == 0);
    }
    let Some(entry) = reader.entry(content.position.seq)? else { return Ok(false) };
    let digest = entry.digest().map_err(|error| EngineError::History(error.to_string()))?;
    Ok(digest.hex() == content.position.digest)
}

/// The deployments whose changes the restore takes away or brings back.
fn lost(reader: &Reader, plan: &Plan) -> Result<Vec<Lost>, EngineError> {
    let since = plan.since;
    let mut lost = Vec::new();
    for row in reader.deployments()?.into_iter().filter(|row| row.last_seq > since) {
        if matches!(row.state, DeploymentState::GivenUp | DeploymentState::Refused) {
            continue;
        }
        let view = View::load(reader, &row.id)?;
        if row.state.is_underway() || view.steps.values().any(|step| moved(step) > since && is_wanted(step, plan)) {
            let DeploymentRow { id, package, version, state, .. } = row;
            let is_taken_away =
                |step: &StepView| step.seq > since && is_wanted(step, plan) && !matches!(step.act(), Act::Run { .. });
            let gone = view.steps.values().filter(|step| step.state != StepState::Discarded).all(is_taken_away);
            lost.push(Lost { id, package, version, state, gone });
        }
    }
    Ok(lost)
}

/// The last entry by which a step changed the site, or may have.
fn moved(step: &StepView) -> u64 {
    let undo = step.undo.as_ref().map_or(0, |(seq, _)| *seq);
    match step.state {
        StepState::Discarded => step.before_redo.as_deref().map_or(0, moved),
        StepState::Intended | StepState::Applied | StepState::UndoIntended | StepState::Undone => step.seq.max(undo),
    }
}

fn is_wanted(step: &StepView, plan: &Plan) -> bool {
    match (step.act().database(), step.act().root()) {
        (Some(database), _) => plan.databases.iter().any(|one| one == database),
        (None, Some(root)) => plan.roots.iter().any(|one| one == root),
        // A command may have changed anything.
        (None, None) => true,
    }
}

/// Restores beside the site: nothing of it changes, and nothing is journaled.
pub fn elsewhere(backup: &mut dyn Backup, plan: &Plan) -> Result<Outcome, EngineError> {
    let notes = backup.restore(&plan.snapshot, &wanted(plan), &mut || Ok(()))?;
    let mut outcome =
        Outcome::new(if notes.is_empty() { Status::Done } else { Status::Partly }, "The site itself was not touched.");
    let into = plan.into.as_deref().map(|into| into.display().to_string()).unwrap_or_default();
    outcome.answer.push(format!("restored {} into {into}", short(&plan.snapshot.id)));
    outcome.notes = notes;
    Ok(outcome)
}

/// Sets the site back. `reopen` opens its databases and roots anew, when they are as the backup has them.
pub fn restore(
    session: &mut Session<'_>,
    plan: &Plan,
    reopen: &mut dyn FnMut() -> Result<Targets, EngineError>,
) -> Result<Outcome, EngineError> {
    let noted = Noted {
        snapshot: plan.snapshot.id.clone(),
        taken_ms: plan.snapshot.taken_ms,
        databases: plan.databases.clone(),
        roots: plan.roots.clone(),
        since: Some(plan.since),
    };
    session.observer.heard(Happening::Phase { name: "restoring" });
    // The connections go, and with them what they know of the databases; the state directory's lock stays.
    for name in &plan.databases {
        if let Some(mut database) = session.targets.databases.remove(name)
            && let Err(error) = database.unlock()
        {
            session.warn(format!("{}: {error}", database.label()));
        }
    }
    let Session { backup, journal, .. } = session;
    let backup = backup.as_mut().ok_or_else(no_backup)?;
    let was_between = interrupted(journal.reader())?.is_some();
    let mut begun = false;
    let announce = &mut || {
        let announced = note_of_site(journal, Event::SiteRestoring, &noted);
        begun = announced.is_ok();
        announced.map_err(|error| BackupError::failed("cannot note that the restore begins", error))
    };
    let id = short(&plan.snapshot.id);
    let notes = match backup.restore(&plan.snapshot, &wanted(plan), announce) {
        Ok(notes) => notes,
        Err(error) if !begun => return Err(error.into()),
        // What an earlier restore left in between is still that.
        Err(error) if error.took_nothing && !was_between => {
            note_of_site(journal, Event::SiteNotRestored, &noted).map_err(|error| error.restoring(id))?;
            return Err(error.into());
        }
        Err(error) => return Err(EngineError::from(error).restoring(id)),
    };
    let settled = session.settle(plan, &noted, reopen).map_err(|error| error.restoring(id))?;
    let mut outcome = Outcome::new(
        if notes.is_empty() { Status::Done } else { Status::Partly },
        format!("The site is as it was {}.", at(plan.snapshot.taken_ms)),
    );
    outcome.answer.push(format!("restored {id}: {}", words(plan)));
    outcome.notes = notes;
    outcome.notes.extend(settled);
    Ok(outcome)
}

fn wanted(plan: &Plan) -> Wanted {
    Wanted { databases: plan.databases.clone(), roots: plan.roots.clone(), into: plan.into.clone() }
}

/// `database main, root web`.
pub fn words(plan: &Plan) -> String {
    let databases = plan.databases.iter().map(|name| format!("database {name}"));
    let all: Vec<String> = databases.chain(plan.roots.iter().map(|name| format!("root {name}"))).collect();
    all.join(", ")
}

fn note_of_site(journal: &mut Journal, event: Event, noted: &Noted) -> Result<(), EngineError> {
    let draft = Draft { deployment: None, frame: FramePath::root(), step: None, event, payload: payload(noted)? };
    journal.append(&[draft])?;
    Ok(())
}

impl Session<'_> {
    /// What a database held for steps that it no longer knows went with it, and it will give their numbers again: nobody
    /// may look there for it any more.
    fn drop_lost_images(&mut self, id: &DeploymentId, plan: &Plan) -> Result<(), EngineError> {
        let reader = self.journal.reader();
        let view = View::load(reader, id)?;
        let mut gone = Vec::new();
        for seq in images(reader, id)?.into_keys().filter(|seq| *seq > plan.since) {
            let place = reader.entry(seq)?.and_then(|entry| entry.step.map(|step| (entry.frame, step)));
            let act = place.and_then(|place| view.steps.get(&place)).map(StepView::act);
            if let Some(database) = act.and_then(Act::database)
                && plan.databases.iter().any(|one| one == database)
            {
                gone.push(seq);
            }
        }
        Ok(self.journal.drop_images(&gone, "the database was restored to a time before")?)
    }

    /// Locks what was restored, gives up what came later, and leaves maintenance mode where that was given up, too.
    fn settle(
        &mut self,
        plan: &Plan,
        noted: &Noted,
        reopen: &mut dyn FnMut() -> Result<Targets, EngineError>,
    ) -> Result<Vec<String>, EngineError> {
        let mut fresh = reopen()?;
        for name in &plan.databases {
            if let Some(database) = fresh.databases.remove(name) {
                self.lock_restored(name, database)?;
            }
        }
        let id = short(&plan.snapshot.id);
        for lost in &plan.gives_up {
            let causes = vec![format!("{} was restored from the backup {id}", words(plan))];
            self.journal.append(&[Draft {
                deployment: Some(lost.id.clone()),
                frame: FramePath::root(),
                step: None,
                event: Event::DeploymentGivenUp,
                payload: payload(&Why { causes, left: Vec::new(), gone: lost.gone })?,
            }])?;
            self.drop_lost_images(&lost.id, plan)?;
        }
        let last_seq = self.journal.last_seq();
        for (name, database) in &mut self.targets.databases {
            if plan.databases.contains(name) {
                database.set_mark(last_seq)?;
            }
        }
        note_of_site(&mut self.journal, Event::SiteRestored, noted)?;
        Ok(resume::resume(self)?.map(|outcome| outcome.closing).into_iter().filter(|text| !text.is_empty()).collect())
    }
}
