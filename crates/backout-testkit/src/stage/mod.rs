//! What the crash suites play on: a site and a package with every kind of step, statement and file; a deployment, an
//! undo and a redo of it; and the judge of what a death or a fault left of them.

mod captured;
mod mariadb;
mod postgres;
mod sqlite;

use backout_engine::outcome::Status;
use backout_model::state::DeploymentState;
use backout_servers::mariadb::Server as MariadbServer;
use backout_servers::postgres::Server;

use crate::database::integrity;
use crate::faults::{Fault, play};
use crate::fingerprint::Fingerprint;
use crate::mariadb_dump;
use crate::package::{Pkg, Step, run};
use crate::postgres_dump;
use crate::proxy::Proxy;
use crate::site::{Done, TestSite};

/// How the names end of what the tool may leave in a MariaDB database.
const MARIADB_STAYS: [char; 15] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 's', 't', 'x'];

/// On what the acts are played.
#[derive(Clone, Copy)]
pub enum Cast {
    Sqlite,
    /// On SQLite, by commands whose changes are captured.
    Captured,
    Postgres(&'static Server),
    /// There, by commands whose changes are captured.
    CapturedPostgres(&'static Server),
    /// The server is reached through the proxy.
    Through(&'static Server, &'static Proxy),
    Mariadb(&'static MariadbServer),
    /// There, by commands whose changes are captured.
    CapturedMariadb(&'static MariadbServer),
}

impl Cast {
    pub fn site(self) -> TestSite {
        match self {
            Cast::Sqlite | Cast::Captured => sqlite::site(),
            Cast::Postgres(server) | Cast::CapturedPostgres(server) => postgres::site(server, None),
            Cast::Through(server, proxy) => postgres::site(server, Some(proxy)),
            Cast::Mariadb(server) | Cast::CapturedMariadb(server) => mariadb::site(server),
        }
    }

    pub fn package(self) -> Pkg {
        match self {
            Cast::Sqlite => sqlite::package(),
            Cast::Captured => captured::package(),
            Cast::CapturedPostgres(_) => captured::on_postgres(),
            Cast::CapturedMariadb(_) => captured::on_mariadb(),
            Cast::Postgres(_) | Cast::Through(..) => postgres::package(),
            Cast::Mariadb(_) => mariadb::package(),
        }
    }

    /// How many points apart those are that are usually played: with a server each takes seconds.
    pub fn stride(self) -> usize {
        match self {
            Cast::Sqlite => 2,
            // Its commands take their time.
            Cast::Captured | Cast::CapturedPostgres(_) | Cast::CapturedMariadb(_) => 19,
            Cast::Postgres(_) | Cast::Through(..) | Cast::Mariadb(_) => 10,
        }
    }
}

/// A command that leaves a file beside the root, and its undo.
fn flag(name: &str) -> Step {
    run(&format!("touch \"$BACKOUT_ROOT_WEB/../{name}\""), Some(&format!("rm -f \"$BACKOUT_ROOT_WEB/../{name}\"")))
}

fn with_database(mut check: serde_json::Value) -> serde_json::Value {
    check["database"] = "main".into();
    check
}

/// What is played; all three begin with a site that is ready for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Deploy,
    Undo,
    Redo,
}

/// A site ready for the act, and its two states; that after the deployment is known only once it was there.
pub struct Stage {
    pub cast: Cast,
    pub site: TestSite,
    pub original: Fingerprint,
    pub deployed: Option<Fingerprint>,
}

impl Act {
    pub const ALL: [Act; 3] = [Act::Deploy, Act::Undo, Act::Redo];

    /// A site that is ready for the act.
    pub fn stage(self, cast: Cast) -> Stage {
        let playing = play(Fault::None, false);
        let site = cast.site();
        let original = Fingerprint::of(&site);
        let mut deployed = None;
        if self != Act::Deploy {
            site.deploy(&cast.package()).expect(Status::Done);
            deployed = Some(Fingerprint::of(&site));
        }
        if self == Act::Redo {
            site.undo(None).expect(Status::Done);
            original.assert_same(&Fingerprint::of(&site), "undone");
        }
        drop(playing);
        Stage { cast, site, original, deployed }
    }

    pub fn play(self, stage: &Stage) -> Done {
        match self {
            Act::Deploy => stage.site.deploy(&stage.cast.package()),
            Act::Undo => stage.site.undo(None),
            Act::Redo => stage.site.redo(),
        }
    }
}

/// Which of its two states a site is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Original,
    Deployed,
}

impl Stage {
    /// The state of the site, exactly, or what is wrong with it.
    pub fn state(&self, twin: &Fingerprint) -> Result<State, String> {
        let now = Fingerprint::of(&self.site);
        let original = self.original.differences(&now);
        let deployed = match &self.deployed {
            Some(deployed) => deployed.differences(&now),
            None => twin.differences(&now.without_directory_times()),
        };
        let state = match (original.is_empty(), deployed.is_empty()) {
            (true, _) => State::Original,
            (_, true) => State::Deployed,
            _ => {
                let fewer = if original.len() <= deployed.len() { original } else { deployed };
                return Err(format!("neither as before nor as after:\n    {}", fewer.join("\n    ")));
            }
        };
        for name in ["flag-all", "flag-images"] {
            if self.site.dir().join(name).exists() != (state == State::Deployed) {
                return Err(format!("{state:?}, but {name} is as in the other state"));
            }
        }
        if self.site.dir().join("closed").exists() {
            return Err("the site is still in maintenance mode".to_owned());
        }
        self.leaves_nothing(state)?;
        Ok(state)
    }

    /// On a server: no session, no lock, and of the tool's own only the marker where nothing is deployed.
    fn leaves_nothing(&self, state: State) -> Result<(), String> {
        if self.site.state().join("captures").exists() {
            return Err(format!("{state:?}, and copies of before a command are left"));
        }
        for database in self.site.databases().filter_map(|name| self.site.postgres(name)) {
            if let Some(left) = postgres_dump::left_behind(database).first() {
                return Err(format!("{state:?}, and this is left in {}: {left}", database.name));
            }
            let own = postgres_dump::own_objects(database);
            let is_copy = |name: &&String| name.split('.').next().is_some_and(|schema| schema.contains("_c"));
            if let Some(copy) = own.iter().find(is_copy) {
                return Err(format!("{state:?}, and the copy {copy} of before a command is left in {}", database.name));
            }
            let is_marker = |name: &String| matches!(name.as_str(), "backout_shop" | "backout_shop.marker");
            if state == State::Original
                && let Some(other) = own.iter().find(|name| !is_marker(name))
            {
                return Err(format!("{state:?}, and {other} is left in {}", database.name));
            }
        }
        for database in self.site.databases().filter_map(|name| self.site.mariadb(name)) {
            // Holds stay, for the undo or the redo; what only a capture under way needs does not.
            let passes = |name: &&String| name.contains('$') && !name.ends_with(MARIADB_STAYS);
            if let Some(other) = mariadb_dump::own_objects(database).iter().find(passes) {
                return Err(format!("{state:?}, and {other} is left in {}", database.name));
            }
        }
        Ok(())
    }

    /// Nothing is in doubt, the journal holds together, and the site can go on from where it is, there and back.
    pub fn goes_on(&self, state: State, twin: &Fingerprint) -> Result<(), String> {
        let playing = play(Fault::None, false);
        let result = self.goes_on_now(state, twin);
        drop(playing);
        result
    }

    fn goes_on_now(&self, state: State, twin: &Fingerprint) -> Result<(), String> {
        let open: Vec<DeploymentState> =
            self.site.journal().deployments().unwrap().iter().map(|row| row.state).collect();
        if open.iter().any(|state| state.is_underway() || *state == DeploymentState::NeedsHand) {
            return Err(format!("the history says {open:?}"));
        }
        if let Some(finding) = self.site.grave().into_iter().next() {
            return Err(format!("verify: {}: {}", finding.target, finding.what));
        }
        for name in
            self.site.databases().filter(|name| self.site.postgres(name).is_none() && self.site.mariadb(name).is_none())
        {
            if let Some(line) = integrity(&self.site.database(name)).first() {
                return Err(format!("integrity of {name}: {line}"));
            }
        }
        let steps: [(&str, State); 2] = match state {
            State::Original if self.deployed.is_none() => [("deploy", State::Deployed), ("undo", State::Original)],
            State::Original => [("redo", State::Deployed), ("undo", State::Original)],
            State::Deployed => [("undo", State::Original), ("redo", State::Deployed)],
        };
        for (command, expected) in steps {
            let done = match command {
                "deploy" => self.site.deploy(&self.cast.package()),
                "undo" => self.site.undo(None),
                _ => self.site.redo(),
            };
            if done.status() != Status::Done {
                return Err(format!("afterwards, {command}: {done:?}"));
            }
            let came = self.state(twin).map_err(|what| format!("afterwards, {command}: {what}"))?;
            if came != expected {
                return Err(format!("afterwards, {command}: {came:?}"));
            }
        }
        Ok(())
    }

    /// Lets a later session resume, as often as the recovery itself dies.
    pub fn resume(&self, deaths: &[usize]) -> Result<(), String> {
        for death in deaths {
            self.site.bury_the_dead();
            let playing = play(Fault::CrashAt(*death), false);
            let done = self.site.resume();
            let struck = playing.struck();
            drop(playing);
            if !struck {
                return no_hand(&done);
            }
        }
        self.site.bury_the_dead();
        let playing = play(Fault::None, false);
        let done = self.site.resume();
        drop(playing);
        no_hand(&done)
    }
}

fn no_hand(done: &Done<Option<backout_engine::outcome::Outcome>>) -> Result<(), String> {
    match &done.result {
        Ok(None) => Ok(()),
        Ok(Some(outcome)) if outcome.status != Status::NeedsHand => Ok(()),
        Ok(Some(outcome)) => Err(format!("resume: {outcome:?}")),
        Err(error) => Err(format!("resume: {}", error.causes().join(": "))),
    }
}

impl Act {
    /// The states before and after it.
    pub fn ends(self) -> (State, State) {
        match self {
            Act::Undo => (State::Deployed, State::Original),
            Act::Deploy | Act::Redo => (State::Original, State::Deployed),
        }
    }

    /// The site after a deployment, without the times of its directories: what [`Stage::state`] compares with where
    /// the stage itself was never deployed to.
    pub fn twin(cast: Cast) -> Fingerprint {
        let stage = Act::Undo.stage(cast);
        stage.deployed.unwrap_or(stage.original).without_directory_times()
    }
}
