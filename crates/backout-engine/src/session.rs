//! One process at work on a site: the targets, the journal, the locks, and what commands are given.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

use backout_files::root::Root;
use backout_journal::{Clock, Journal, Options, process};
use backout_model::backup::Backup;
use backout_model::entry::Draft;
use backout_model::id::{DeploymentId, FramePath, ID_LENGTH};
use backout_model::state::Event;
use backout_model::target::{Finding, Target};
use backout_package::fill::fill;
use backout_package::site::Site;
use backout_sql::database::{Database, Holder, LockError};
use serde_json::json;

use crate::act::{Act, Followed};
use crate::error::EngineError;
use crate::history::{Why, payload};
use crate::marks::{AHEAD_HINT, BEHIND_HINT, ahead, behind, lacking};
use crate::observer::{Happening, Observer};
use crate::restored;
use crate::scratch::{LeftAlone, OnScratch};

/// The targets of a site by name, as the binary wired them.
pub struct Targets {
    pub databases: BTreeMap<String, Box<dyn Database>>,
    pub roots: BTreeMap<String, Box<dyn Root>>,
}

impl Targets {
    pub(crate) fn database(&mut self, name: &str) -> Result<&mut dyn Database, EngineError> {
        match self.databases.get_mut(name) {
            Some(database) => Ok(database.as_mut()),
            None => Err(gone("database", name)),
        }
    }

    pub(crate) fn root(&mut self, name: &str) -> Result<&mut dyn Root, EngineError> {
        match self.roots.get_mut(name) {
            Some(root) => Ok(root.as_mut()),
            None => Err(gone("root", name)),
        }
    }

    /// The targets in which a command is followed, each named once.
    pub(crate) fn all_of(&mut self, followed: &[Followed]) -> Result<Vec<&mut dyn Target>, EngineError> {
        let mut databases: BTreeMap<_, _> = self.databases.iter_mut().collect();
        let mut roots: BTreeMap<_, _> = self.roots.iter_mut().collect();
        let target = |one: &Followed| match one {
            Followed::Database(name) => {
                let database = databases.remove(name).ok_or_else(|| gone("database", name))?;
                Ok(database.as_mut() as &mut dyn Target)
            }
            Followed::Root(name) => {
                let root = roots.remove(name).ok_or_else(|| gone("root", name))?;
                Ok(root.as_mut() as &mut dyn Target)
            }
        };
        followed.iter().map(target).collect()
    }

    /// Refuses where the site no longer names what one of these acts changed.
    pub(crate) fn name_all<'a>(&mut self, acts: impl Iterator<Item = &'a Act>) -> Result<(), EngineError> {
        for act in acts {
            match act {
                Act::Run { .. } => {}
                Act::Sql { .. } | Act::Files { .. } | Act::Delete { .. } | Act::Captured { .. } => drop(self.of(act)?),
            }
        }
        Ok(())
    }

    /// The target of an act.
    pub(crate) fn of(&mut self, act: &Act) -> Result<&mut dyn Target, EngineError> {
        match act {
            Act::Sql { database, .. } => self.database(database).map(|database| database as &mut dyn Target),
            Act::Files { root, .. } | Act::Delete { root, .. } => self.root(root).map(|root| root as &mut dyn Target),
            Act::Captured { followed: Followed::Database(name), .. } => {
                self.database(name).map(|database| database as &mut dyn Target)
            }
            Act::Captured { followed: Followed::Root(name), .. } => self.root(name).map(|root| root as &mut dyn Target),
            Act::Run { .. } => Err(EngineError::History("a command has no target".to_owned())),
        }
    }
}

/// What the outside world gives a session; tests pin it.
pub struct Surroundings {
    pub clock: Box<dyn Clock>,
    /// `user@host`.
    pub actor: String,
    /// Draws the random bytes of a new id.
    pub random: Box<dyn FnMut() -> [u8; ID_LENGTH] + Send>,
}

/// How journal and databases must go together where a session opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    OfOneHistory,
    /// They are made to fit: what one of them lacks is given up.
    BegunAnew,
    DoesNotMatter,
}

/// A process that holds the locks of a site. Gives them back when it is dropped.
pub struct Session<'o> {
    pub(crate) config: Site,
    pub(crate) targets: Targets,
    pub(crate) journal: Journal,
    pub(crate) observer: &'o mut dyn Observer,
    pub(crate) random: Box<dyn FnMut() -> [u8; ID_LENGTH] + Send>,
    /// What keeps full copies of the site, where it has that.
    pub(crate) backup: Option<Box<dyn Backup>>,
    epochs: BTreeMap<String, u64>,
    epoch: u64,
    /// The deployment at hand, for commands' environment.
    pub(crate) at_hand: Option<DeploymentId>,
    /// None on the live site.
    pub(crate) on_scratch: Option<OnScratch>,
    /// What did not run because this is a scratch.
    pub(crate) left_alone: BTreeSet<LeftAlone>,
}

impl<'o> Session<'o> {
    /// Takes the lock of the state directory and of every database. `purpose` is for whoever is kept out.
    pub fn open(
        config: Site,
        targets: Targets,
        surroundings: Surroundings,
        purpose: &str,
        observer: &'o mut dyn Observer,
    ) -> Result<Self, EngineError> {
        Self::open_on(config, targets, surroundings, purpose, observer, Fit::OfOneHistory)
    }

    /// Begins a new history where databases and journal are not of one: entries that one of them does not have are given
    /// up, and what those did cannot be undone any more.
    pub fn open_anew(
        config: Site,
        targets: Targets,
        surroundings: Surroundings,
        observer: &'o mut dyn Observer,
    ) -> Result<Self, EngineError> {
        Self::open_on(config, targets, surroundings, "begin a new history", observer, Fit::BegunAnew)
    }

    /// For a restore, which puts right what does not fit: `targets` are those that could be opened.
    pub fn open_to_restore(
        config: Site,
        targets: Targets,
        surroundings: Surroundings,
        observer: &'o mut dyn Observer,
    ) -> Result<Self, EngineError> {
        Self::open_on(config, targets, surroundings, restored::PURPOSE, observer, Fit::DoesNotMatter)
    }

    /// For a rehearsal: `config` and `targets` are a scratch.
    pub fn open_on_scratch(
        config: Site,
        targets: Targets,
        surroundings: Surroundings,
        on_scratch: OnScratch,
        observer: &'o mut dyn Observer,
    ) -> Result<Self, EngineError> {
        let mut session = Self::open(config, targets, surroundings, "rehearse", observer)?;
        session.on_scratch = Some(on_scratch);
        Ok(session)
    }

    fn open_on(
        config: Site,
        targets: Targets,
        surroundings: Surroundings,
        purpose: &str,
        observer: &'o mut dyn Observer,
        fit: Fit,
    ) -> Result<Self, EngineError> {
        let since_ms = surroundings.clock.now_ms();
        let journal = Journal::open(
            &config.state,
            Options { clock: surroundings.clock, actor: surroundings.actor, purpose: purpose.to_owned() },
        )?;
        let floor = journal.last_epoch() + 1;
        let mut session = Self {
            config,
            targets,
            journal,
            observer,
            random: surroundings.random,
            backup: None,
            epochs: BTreeMap::new(),
            epoch: floor,
            at_hand: None,
            on_scratch: None,
            left_alone: BTreeSet::new(),
        };
        session.lock_databases(purpose, since_ms, fit)?;
        session.lock_roots()?;
        let last_seq = session.journal.reader().last_seq()?;
        match fit {
            Fit::OfOneHistory => {
                restored::none_interrupted(session.journal.reader())?;
                session.knows_its_databases(last_seq)?;
            }
            Fit::BegunAnew => session.begin_anew(last_seq)?,
            Fit::DoesNotMatter => {}
        }
        let epoch = session.epoch;
        session.journal.defer(Draft {
            deployment: None,
            frame: FramePath::root(),
            step: None,
            event: Event::LockTaken,
            payload: json!({ "epoch": epoch, "purpose": purpose }),
        })?;
        Ok(session)
    }

    /// Refuses where journal and databases are not of one history: an undo would put back what is not gone.
    fn knows_its_databases(&mut self, last_seq: u64) -> Result<(), EngineError> {
        let refused =
            |finding: Finding, hint: &str| EngineError::not_now(format!("{}: {}", finding.target, finding.what), hint);
        if let Some(finding) = ahead(&mut self.targets, last_seq)?.into_iter().next() {
            return Err(refused(finding, AHEAD_HINT));
        }
        match behind(&mut self.targets, self.journal.reader())?.into_iter().next() {
            Some(behind) => Err(refused(behind.finding, BEHIND_HINT)),
            None => Ok(()),
        }
    }

    /// Gives up the deployments that a database lacks, and lets those databases that are ahead forget the history that
    /// is lost.
    fn begin_anew(&mut self, last_seq: u64) -> Result<(), EngineError> {
        for (id, causes) in lacking(&mut self.targets, self.journal.reader())? {
            self.journal.append(&[Draft {
                deployment: Some(id),
                frame: FramePath::root(),
                step: None,
                event: Event::DeploymentGivenUp,
                payload: payload(&Why::because(causes))?,
            }])?;
        }
        for database in self.targets.databases.values_mut() {
            database.set_mark(last_seq)?;
        }
        Ok(())
    }

    fn lock_databases(&mut self, purpose: &str, since_ms: i64, fit: Fit) -> Result<(), EngineError> {
        let me = self.me(purpose, since_ms)?;
        let mut broken = Vec::new();
        for (name, database) in &mut self.targets.databases {
            match database.lock(&me, self.epoch) {
                Ok(epoch) => {
                    self.epochs.insert(name.clone(), epoch);
                    self.epoch = self.epoch.max(epoch);
                }
                // It is to be replaced.
                Err(LockError::Target(error)) if fit == Fit::DoesNotMatter => {
                    let text = format!("{}: cannot be locked: {error}", database.label());
                    self.observer.heard(Happening::Warning { text });
                    broken.push(name.clone());
                }
                Err(error) => return Err(EngineError::Lock(error)),
            }
        }
        self.targets.databases.retain(|name, _| !broken.contains(name));
        Ok(())
    }

    /// Locks a database that was just restored, and so holds the lock of the process that backed it up.
    pub(crate) fn lock_restored(&mut self, name: &str, mut database: Box<dyn Database>) -> Result<(), EngineError> {
        let me = self.me(restored::PURPOSE, self.journal.now_ms())?;
        if let Some(holder) = database.holder()? {
            database.break_lock(&holder)?;
        }
        let epoch = database.lock(&me, self.epoch).map_err(EngineError::Lock)?;
        self.epoch = self.epoch.max(epoch);
        self.epochs.insert(name.to_owned(), epoch);
        self.targets.databases.insert(name.to_owned(), database);
        Ok(())
    }

    fn me(&self, purpose: &str, since_ms: i64) -> Result<Holder, EngineError> {
        let facts = process::ProcessFacts::current()
            .map_err(|source| EngineError::Io { act: "cannot find out who this process is".to_owned(), source })?;
        Ok(Holder {
            site: self.config.name.clone(),
            host: facts.host,
            boot_id: facts.boot_id,
            pid: facts.pid,
            started: facts.started,
            purpose: purpose.to_owned(),
            since_ms,
        })
    }

    /// Two sites may name one directory, and have no other lock in common.
    fn lock_roots(&mut self) -> Result<(), EngineError> {
        for root in self.targets.roots.values_mut() {
            if let Some(who) = root.lock()? {
                return Err(EngineError::not_now(
                    format!("cannot lock the site: {}: {who}", root.label()),
                    "wait until it is done, then try again; a root belongs to one site",
                ));
            }
        }
        Ok(())
    }

    pub fn site(&self) -> &Site {
        &self.config
    }

    /// Deployments of this session take a backup before they begin.
    pub fn backed_up_by(&mut self, backup: Box<dyn Backup>) {
        self.backup = Some(backup);
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn new_id(&mut self) -> DeploymentId {
        DeploymentId::from_random((self.random)())
    }

    /// Where the copy of a deployment's package is kept.
    pub(crate) fn package_copy(&self, id: &DeploymentId) -> PathBuf {
        self.config.state.join("packages").join(id.as_str())
    }

    /// Where the site's own commands (maintenance) run: beside `site.yaml`.
    pub(crate) fn site_directory(&self) -> PathBuf {
        self.config.file.parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
    }

    /// Where a running command is noted.
    pub(crate) fn running(&self) -> PathBuf {
        self.config.state.join("running")
    }

    pub(crate) fn database_names(&self) -> Vec<&str> {
        self.targets.databases.keys().map(String::as_str).collect()
    }

    pub(crate) fn root_names(&self) -> Vec<&str> {
        self.targets.roots.keys().map(String::as_str).collect()
    }

    /// The epoch under which a step on the target of `act` is announced.
    pub(crate) fn epoch_for(&self, act: &Act) -> u64 {
        act.database().and_then(|database| self.epochs.get(database)).copied().unwrap_or(self.epoch)
    }

    /// Fills `{root.web}` and `{database.main}` into a command's words.
    pub(crate) fn filled(&self, argv: &[String]) -> Result<Vec<OsString>, EngineError> {
        let lookup = |kind: &str, name: &str| match kind {
            "root" => self.targets.roots.get(name).map(|root| root.location()),
            "database" => {
                let database = self.config.databases.iter().find(|database| database.name == name)?;
                Some(database.url.for_arguments())
            }
            _ => None,
        };
        argv.iter().map(|word| fill(word, &lookup).map_err(|error| EngineError::usage(error.to_string()))).collect()
    }

    /// What commands find in their environment beside the caller's own.
    pub(crate) fn environment(&self) -> Vec<(String, OsString)> {
        let mut environment = vec![("BACKOUT_SITE".to_owned(), OsString::from(&self.config.name))];
        if let Some(id) = &self.at_hand {
            environment.push(("BACKOUT_DEPLOYMENT".to_owned(), id.as_str().into()));
        }
        for (name, root) in &self.targets.roots {
            environment.push((format!("BACKOUT_ROOT_{}", variable(name)), root.location()));
        }
        for database in &self.config.databases {
            let name = format!("BACKOUT_DATABASE_{}", variable(&database.name));
            environment.push((name, database.url.for_environment()));
        }
        let declared = self.on_scratch.as_ref().and_then(|on| on.allowed.environment.clone());
        environment.extend(declared.into_iter().flatten());
        environment
    }

    /// A command's output without the secrets that it was given.
    pub(crate) fn redacted(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for database in &self.config.databases {
            if let Some(secret) = database.url.secret() {
                text = text.replace(secret.expose(), &database.url.without_password());
            }
        }
        text
    }

    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        self.observer.heard(Happening::Warning { text: text.into() });
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.targets.roots.values_mut().for_each(|root| root.unlock());
        for database in self.targets.databases.values_mut() {
            if let Err(error) = database.unlock() {
                // The lock names this process: the next run finds it dead and takes the lock over.
                self.observer
                    .heard(Happening::Warning { text: format!("{}: the lock stays: {error}", database.label()) });
            }
        }
    }
}

fn gone(kind: &str, name: &str) -> EngineError {
    EngineError::NotNow {
        what: format!("site.yaml no longer names the {kind} `{name}`, and the deployment used it"),
        hint: Some(format!("put the {kind} `{name}` back into site.yaml")),
    }
}

fn variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}
