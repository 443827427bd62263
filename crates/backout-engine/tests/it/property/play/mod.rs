//! Plays a random history on a real site and in the model, side by side, and compares them after every command.

mod again;
mod deploy;
mod undo;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use backout_engine::outcome::Status;
use backout_model::state::Event;
use backout_testkit::database::integrity;
use backout_testkit::faults::{Fault, play};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::site::{Done, TestSite};
use backout_testkit::{mariadb, postgres};

use super::application::Application;
use super::compare;
use super::dialect::Dialect;
use super::generate::{Generator, tree};
use super::history::{Deployment, Follower, Foresight, Heard, Spec, Step, Write, join};
use super::noise::{BUSY, Noise, Told};
use super::world::{Found, World};

/// A server whose databases runs are played on.
#[derive(Clone, Copy)]
pub enum Server {
    Postgres(&'static postgres::Server),
    Mariadb(&'static mariadb::Server),
}

/// Where and how runs are played.
#[derive(Clone)]
pub struct Setting {
    pub below: Option<PathBuf>,
    pub syncs: bool,
    /// The sample database and what of it the model knows.
    pub sample: Option<Arc<(Vec<u8>, World)>>,
    /// The server whose databases they are played on; SQLite without.
    pub server: Option<Server>,
    /// What others did meanwhile, all in all.
    pub noise: Arc<Mutex<Told>>,
}

struct Run<'s> {
    setting: &'s Setting,
    generator: Generator,
    site: TestSite,
    world: World,
    deployments: Vec<Deployment>,
    /// The history's clock: begins of deployments and numbers of undos.
    clock: u64,
    order: u64,
    counts: BTreeMap<String, u32>,
    log: Vec<String>,
    /// The model can't say more.
    over: bool,
    /// Where nobody else wrote: the site before and after the deployment at that place of the list.
    exact: Option<(usize, Fingerprint, Fingerprint)>,
    /// Other sessions, on a server.
    noise: Option<Noise>,
}

/// One history. An error tells all that happened and what is wrong.
pub fn run(seed: u64, setting: &Setting) -> Result<(), String> {
    let dialect = match setting.server {
        None => Dialect::Sqlite,
        Some(Server::Postgres(_)) => Dialect::Postgres,
        Some(Server::Mariadb(_)) => Dialect::Mariadb,
    };
    let mut generator = Generator::new(seed, dialect);
    let sample = setting.sample.clone().filter(|_| generator.chance(6));
    let mut world = generator.world();
    let mut script = String::from(dialect.never());
    match &sample {
        Some(sample) => world.tables.clone_from(&sample.1.tables),
        None => script.extend(world.tables.values().map(|table| table.script())),
    }
    let builder =
        TestSite::builder().root("web", tree(&world.files)).keep(&["uploads"]).below(setting.below.as_deref());
    let builder = match (&sample, setting.server) {
        (Some(sample), _) => builder.database_from("main", &sample.0, &script),
        (None, None) => builder.database("main", &script),
        (None, Some(Server::Postgres(server))) => builder.postgres("main", server, &script),
        (None, Some(Server::Mariadb(server))) => builder.mariadb("main", server, &script),
    };
    let site = builder.build();
    let noise = dialect.is_server().then(|| Noise::on(&site, seed));
    let mut run = Run {
        setting,
        generator,
        site,
        world,
        deployments: Vec::new(),
        clock: 0,
        order: 0,
        counts: BTreeMap::new(),
        log: vec![if sample.is_some() { "on the sample".to_owned() } else { script }],
        over: false,
        exact: None,
        noise,
    };
    let mut played = run.play();
    if let Some(noise) = run.noise.take() {
        let told = noise.end();
        played = played.and_then(|()| {
            let told = told?;
            let mut all = setting.noise.lock().unwrap();
            all.written += told.written;
            all.locked += told.locked;
            Ok(())
        });
    }
    played.map_err(|what| format!("{}\n{what}", run.log.join("\n")))
}

impl Run<'_> {
    fn play(&mut self) -> Result<(), String> {
        self.agrees("at the beginning")?;
        self.deploy()?;
        for _ in 0..self.generator.rng.usize(1..=5) {
            if self.over {
                break;
            }
            if self.generator.chance(45) {
                let writes = self.generator.writes(&self.world.clone(), 3);
                self.exact = None;
                for write in &writes {
                    self.log.push(format!("application: {write:?}"));
                    write.apply(&mut self.world);
                    Application::of(&self.site).does(write);
                }
            }
            match self.generator.rng.u32(0..100) {
                0..35 => self.deploy()?,
                35..70 => self.undo()?,
                70..92 => self.redo()?,
                _ => self.retry()?,
            }
        }
        let playing = play(Fault::None, self.setting.syncs);
        let grave = self.site.grave();
        drop(playing);
        match grave.first() {
            None => {}
            Some(finding) => return Err(format!("verify: {}: {}", finding.target, finding.what)),
        }
        if self.setting.server.is_some() {
            return Ok(());
        }
        match integrity(&self.site.database("main")).first() {
            None => Ok(()),
            Some(line) => Err(format!("integrity: {line}")),
        }
    }

    fn fault(&mut self) -> Fault {
        let n = self.generator.rng.usize(1..=120);
        match self.generator.rng.u32(0..100) {
            0..18 => Fault::CrashAt(n),
            18..23 => Fault::NoSpaceAt(n),
            23..28 => Fault::BrokenAt(n),
            _ => Fault::None,
        }
    }

    /// Runs a command with a fault; a death is followed by a recovery, which may die as well. Says whether the fault
    /// struck, and what the recovery said.
    fn with_fault(&mut self, fault: Fault, act: impl FnOnce(&TestSite) -> Done) -> Result<Came, String> {
        let entries = self.site.journal().last_seq().map_err(|error| error.to_string())?;
        let playing = play(fault, self.setting.syncs);
        let done = act(&self.site);
        let struck = playing.struck();
        drop(playing);
        let words = format!("{done:?}");
        self.log.push(format!(
            "  {}: {}",
            if struck { "struck" } else { "unharmed" },
            words.trim().replace('\n', "\n  ")
        ));
        self.site.bury_the_dead();
        let mut resumed = None;
        if struck && matches!(fault, Fault::CrashAt(_)) {
            if self.generator.chance(30) {
                let n = self.generator.rng.usize(1..=40);
                let playing = play(Fault::CrashAt(n), self.setting.syncs);
                let done = self.site.resume();
                let died = playing.struck();
                drop(playing);
                self.site.bury_the_dead();
                self.log.push(format!("  the recovery dies at {n}: {died}"));
                // It may have died only after its work was done.
                resumed = done.result.ok().flatten();
            }
            let playing = play(Fault::None, self.setting.syncs);
            let last = self.site.resume().result.map_err(|error| format!("resume: {}", error.causes().join(": ")))?;
            drop(playing);
            resumed = last.or(resumed);
            self.log.push(format!(
                "  resumed: {:?}",
                resumed.as_ref().map(|outcome| (
                    outcome.status,
                    &outcome.answer,
                    &outcome.causes,
                    &outcome.notes,
                    &outcome.conflicts
                ))
            ));
        }
        let mut events = Vec::new();
        self.site
            .journal()
            .all_entries(entries + 1, &mut |entry| {
                events.push(entry.event);
                ControlFlow::Continue(())
            })
            .map_err(|error| error.to_string())?;
        self.read_counts();
        Ok(Came {
            struck,
            died: struck && matches!(fault, Fault::CrashAt(_)),
            resumed: resumed.map(|outcome| outcome.status),
            done,
            events,
        })
    }

    /// The counts of flaky commands, as they are on disk.
    fn read_counts(&mut self) {
        for entry in fs::read_dir(self.site.dir()).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("fail-") {
                let text = fs::read_to_string(entry.path()).unwrap();
                self.counts.insert(name, text.trim().parse().unwrap_or(0));
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.deployments.iter().filter(|one| one.on_site).map(|one| one.spec.name.clone()).collect()
    }

    fn is_exactly(&self, expected: &Fingerprint, when: &str) -> Result<(), String> {
        let found = expected.differences(&self.fingerprint());
        if found.is_empty() { Ok(()) } else { Err(format!("not exactly as {when}:\n  {}", found.join("\n  "))) }
    }

    /// Of all but what others write all the time.
    fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = Fingerprint::of(&self.site);
        let busy = [format!("COPY public.{BUSY} "), format!("row {BUSY} ")];
        let is_busy = |name: &String| busy.iter().any(|busy| name.starts_with(busy));
        fingerprint.parts.values_mut().for_each(|lines| lines.retain(|name, _| !is_busy(name)));
        fingerprint
    }

    /// The site is as the model has it.
    fn agrees(&self, when: &str) -> Result<(), String> {
        let sample = self.setting.sample.as_ref().map(|sample| &sample.1);
        let wrong = compare::differences(&self.world, &self.site, sample);
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("{when}, the model and the site differ:\n  {}", wrong.join("\n  ")))
        }
    }
}

/// What came of a command.
struct Came {
    struck: bool,
    died: bool,
    /// The status of the recovery, where there was something to recover.
    resumed: Option<Status>,
    done: Done,
    /// What the journal says since.
    events: Vec<Event>,
}

/// What the model foresees.
struct Foreseen {
    deployment: Deployment,
    world: World,
    counts: BTreeMap<String, u32>,
    order: u64,
    heard: Vec<Heard>,
    status: Status,
    kept: Found,
}

impl Foreseen {
    fn look(
        &mut self,
        others: &[Deployment],
        writes: &BTreeMap<usize, Vec<Write>>,
        act: impl FnOnce(&mut Foresight<'_>) -> Status,
    ) {
        let follower = Follower {
            deployment: &mut self.deployment,
            world: &mut self.world,
            order: &mut self.order,
            kept: Found::default(),
            wrong: Vec::new(),
        };
        let mut foresight =
            Foresight { follower, others, counts: &mut self.counts, writes, done: 0, heard: Vec::new() };
        self.status = act(&mut foresight);
        self.heard = std::mem::take(&mut foresight.heard);
        self.kept = std::mem::take(&mut foresight.follower.kept);
    }
}

impl Spec {
    /// In few lines, for the log.
    fn told(&self, above: &str) -> String {
        let path = join(above, &self.name);
        let mut text = format!("{path}{}", if self.list { " (a list)" } else { "" });
        if !self.requires.is_empty() {
            text.push_str(&format!(" requires {}", self.requires.join(", ")));
        }
        for (index, step) in self.steps.iter().enumerate() {
            let step = match step {
                Step::Sql(_, script) => format!("sql {}", script.trim().replace('\n', "\n      ")),
                Step::Files(files, exact) => format!("files{} {files:?}", if *exact { " exactly" } else { "" }),
                Step::Delete(paths) => format!("delete {paths:?}"),
                Step::Flaky { file, times } => format!("fails {times} times, counted in {file}"),
                Step::Child { spec, attempts, go_on } => {
                    format!("child, {attempts} attempt(s), go on {go_on}: {}", spec.told(&path).replace('\n', "\n  "))
                }
            };
            text.push_str(&format!("\n  {index}: {step}"));
        }
        if self.never_holds {
            text.push_str("\n  its smoke test never holds");
        }
        text
    }
}
