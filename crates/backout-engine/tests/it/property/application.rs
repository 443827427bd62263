//! A program that writes to the site as a stranger to the tool, by itself or after the steps of a run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use backout_engine::observer::Happening;
use backout_testkit::observer::Recorder;
use backout_testkit::site::TestSite;

use super::history::Write;
use super::live::Live;
use super::statement::FileWrite;

pub struct Application {
    database: Live,
    root: PathBuf,
}

impl Application {
    pub fn of(site: &TestSite) -> Self {
        Self { database: Live::of(site), root: site.root("web") }
    }

    pub fn does(&mut self, write: &Write) {
        match write {
            Write::Sql(_, text) => self.database.attempt(text),
            Write::File(write) => FileWrite::run(write, &self.root),
            Write::Table(name) => self.database.execute(&format!("CREATE TABLE {name} (x integer)")),
            Write::Vacuum => self.database.execute(self.database.dialect().vacuum()),
        }
    }
}

/// Lets the application write after the steps that are scheduled.
pub fn recorder(site: &TestSite, writes: &BTreeMap<usize, Vec<Write>>) -> Recorder {
    meanwhile(site, writes, |happening| matches!(happening, Happening::StepDone { .. }))
}

/// Lets the application write after the n-th of what counts.
pub fn meanwhile(
    site: &TestSite,
    writes: &BTreeMap<usize, Vec<Write>>,
    counts: impl Fn(&Happening) -> bool + Send + 'static,
) -> Recorder {
    if writes.is_empty() {
        return Recorder::default();
    }
    let application = Mutex::new(Application::of(site));
    let writes = writes.clone();
    let mut done = 0;
    Recorder::with_hook(move |happening| {
        if counts(happening) {
            done += 1;
            let mut application = application.lock().unwrap();
            writes.get(&done).into_iter().flatten().for_each(|write| application.does(write));
        }
    })
}
