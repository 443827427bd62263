//! A package made of what was recorded: one script a database, the files of each root, what goes, conditions that must hold
//! elsewhere before anything begins, and a page for the reviewer. It stands beside its place until it is whole.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use backout_files::root::DraftedFiles;
use backout_model::review::{Concern, Review};
use backout_model::target::Snapshot;
use backout_package::package::{MANIFEST, Package};
use backout_sql::recorded::{Condition, Drafting};
use serde_json::Value;

use crate::act::Followed;
use crate::capture::captures;
use crate::check::digest;
use crate::error::EngineError;
use crate::history::View;
use crate::observer::Happening;
use crate::recording::{is_free, may_hold};
use crate::session::Session;
use crate::when;

/// Where packages of a recording were begun, each path ended by a zero byte.
const PLACES: &str = "places";

/// The reviewer's page in the package.
pub const REVIEW: &str = "REVIEW.md";

/// What no package of a recording asks or does.
const ALWAYS: &str = "Always: what the scripts drop, alter or make again must be elsewhere what it was here, and the names of what they make must \
                      be free; else the package is refused there, and nothing begins. Owners, definers and grants are no part of that.";

/// A package that is written and not in its place yet.
pub(crate) struct Draft {
    directory: tempfile::TempDir,
    review: Review,
}

impl Draft {
    /// Puts it where it belongs, durably; what is for the reviewer.
    pub fn settle(self, into: &Path) -> Result<Review, EngineError> {
        is_free(into)?;
        let failed = |source| EngineError::Io { act: format!("cannot make {}", into.display()), source };
        let from = self.directory.path().to_owned();
        rustix::fs::syncfs(File::open(&from).map_err(failed)?).map_err(|error| failed(error.into()))?;
        std::fs::rename(&from, into).map_err(failed)?;
        drop(self.directory.keep());
        File::open(above(into)).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(self.review)
    }
}

pub(crate) fn above(path: &Path) -> PathBuf {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")).to_owned()
}

/// Writes a package of what happened since `snapshots` were taken. The site is not changed, whatever comes of it.
pub(crate) fn draft(
    session: &mut Session<'_>,
    recording: &View,
    followed: &[Followed],
    snapshots: &[Snapshot],
    into: &Path,
    leave_out: &[String],
) -> Result<Draft, EngineError> {
    may_hold(&session.config, into)?;
    session.observer.heard(Happening::Phase { name: "writing" });
    let parent = above(into);
    let failed = |path: &Path, source| EngineError::Io { act: format!("cannot write {}", path.display()), source };
    // For its owner alone, as what it holds may be meant for nobody else.
    note_place(&captures(session).join(recording.id.as_str()), &parent).map_err(|source| failed(&parent, source))?;
    let directory = tempfile::Builder::new()
        .prefix(&prefix_of(recording.id.as_str()))
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(&parent);
    let directory = directory.map_err(|source| failed(&parent, source))?;
    let top = directory.path();
    let mut review = Review::default();
    let (mut sql, mut delete, mut files) = (String::new(), String::new(), String::new());
    let (mut before, mut after) = (String::new(), String::new());
    let places: Vec<String> =
        session.config.roots.iter().map(|root| root.path.display().to_string()).filter(|path| path.len() > 1).collect();
    for (one, snapshot) in followed.iter().zip(snapshots) {
        match one {
            Followed::Database(name) => {
                let shown = format!("sql/{name}.sql");
                let path = top.join(&shown);
                std::fs::create_dir_all(above(&path)).map_err(|source| failed(&path, source))?;
                let mut out = BufWriter::new(private(&path).map_err(|source| failed(&path, source))?);
                let left_out =
                    |table: &str| leave_out.iter().any(|one| one == table || *one == format!("{name}.{table}"));
                let left_out_row = |table: &str, values: &[String]| {
                    let rows = leave_out.iter().filter_map(|one| one.split_once('='));
                    let holds = |text: &str| {
                        values.iter().any(|value| value.strip_prefix('\'').is_some_and(|value| value.starts_with(text)))
                    };
                    rows.filter(|(of, _)| *of == table || *of == format!("{name}.{table}")).any(|(_, text)| holds(text))
                };
                let mut drafting = Drafting {
                    out: &mut out,
                    review: &mut review,
                    leave_out: &left_out,
                    leave_out_row: &left_out_row,
                    aside: &mut io::sink(),
                    places: &places,
                };
                let drafted = session.targets.database(name)?.draft(snapshot, &mut drafting)?;
                out.flush().map_err(|source| failed(&path, source))?;
                if drafted.statements == 0 {
                    std::fs::remove_file(&path).map_err(|source| failed(&path, source))?;
                    continue;
                }
                writeln!(sql, "  - sql: {}\n    database: {}", Value::from(shown), quoted(name)).ok();
                conditions_on_definitions(&mut before, name, &drafted.definitions);
                conditions_on_rows(&mut before, name, &drafted.conditions);
                conditions_on_rows(&mut after, name, &drafted.after);
            }
            Followed::Root(name) => {
                let shown = format!("files/{name}");
                let path = top.join(&shown);
                std::fs::create_dir_all(&path).map_err(|source| failed(&path, source))?;
                let left_out = |path: &str| {
                    let of_root = |one: &String| {
                        one.strip_prefix(&format!("{name}:")).map(|at| at.trim_end_matches('/').to_owned())
                    };
                    leave_out.iter().filter_map(of_root).any(|at| path == at || path.starts_with(&format!("{at}/")))
                };
                let drafted = session.targets.root(name)?.draft(snapshot, &path, &left_out, &mut review)?;
                if drafted.files > 0 {
                    writeln!(files, "  - files: {}\n    root: {}", Value::from(shown), quoted(name)).ok();
                } else {
                    std::fs::remove_dir(&path).map_err(|source| failed(&path, source))?;
                }
                if !drafted.deleted.is_empty() {
                    let paths: Vec<String> =
                        drafted.deleted.iter().map(|path| format!("\n      - {}", quoted(path))).collect();
                    writeln!(delete, "  - delete:{}\n    root: {}", paths.concat(), quoted(name)).ok();
                }
                conditions_on_files(&mut before, name, &drafted);
            }
        }
    }
    drop(std::fs::remove_dir(top.join("sql")));
    drop(std::fs::remove_dir(top.join("files")));
    for one in leave_out.iter().filter(|one| !one.contains('=')) {
        review.note(Concern::LeftOut, one, String::new);
    }
    let steps = [sql, delete, files].concat();
    if steps.is_empty() {
        return Err(EngineError::not_now(
            "nothing happened on the site since the recording began, but for what is left out",
            "`backout capture stop` ends it without a package",
        ));
    }
    let name = into.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (from, to) = (when::on(recording.planned_ms), when::on(session.journal.now_ms()));
    let description = format!("Recorded on {}, from {from} to {to}", session.config.name);
    let before = if before.is_empty() { before } else { format!("before:\n{before}") };
    let after = if after.is_empty() { after } else { format!("after:\n{after}") };
    let manifest = format!(
        "# A draft: read {REVIEW}, then make it yours.\npackage: {}\nversion: {}\ndescription: {}\n{before}steps:\n{steps}{after}",
        quoted(&name),
        quoted(&when::stamp(session.journal.now_ms())),
        quoted(&description)
    );
    let page = if review.is_empty() {
        "\nNothing was found that a reviewer must look at beyond the scripts and files.\n".to_owned()
    } else {
        review.to_string()
    };
    let page = format!("# {name}: what to look at before it is deployed\n\n{description}.\n\n{ALWAYS}\n{page}");
    for (file, text) in [(MANIFEST, manifest), (REVIEW, page)] {
        let path = top.join(file);
        private(&path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(|source| failed(&path, source))?;
    }
    // What `plan` and `deploy` would not read is no package.
    Package::load(top)?;
    Ok(Draft { directory, review })
}

/// How the directory is called in which a package of a recording is written, until it is whole.
fn prefix_of(recording: &str) -> String {
    format!(".backout-recorded-{recording}-")
}

/// Notes in the directory of a recording's copies that a package is being written in `parent`: for [`remove_unfinished`].
fn note_place(copies: &Path, parent: &Path) -> io::Result<()> {
    let parent = parent.canonicalize()?;
    std::fs::create_dir_all(copies)?;
    let mut places = File::options().append(true).create(true).mode(0o600).open(copies.join(PLACES))?;
    places.write_all(&[parent.as_os_str().as_bytes(), b"\0"].concat())?;
    places.sync_all()
}

/// Removes what stops of a recording that died left of the packages that they wrote, wherever that was. `copies`: where its
/// copies lie, by its id.
pub(crate) fn remove_unfinished(copies: &Path) -> io::Result<()> {
    let places = match std::fs::read(copies.join(PLACES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        places => places?,
    };
    let prefix = prefix_of(&copies.file_name().unwrap_or_default().to_string_lossy());
    for place in places.split(|byte| *byte == 0).filter(|place| !place.is_empty()) {
        let entries = match std::fs::read_dir(OsStr::from_bytes(place)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) && entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
    }
    std::fs::remove_file(copies.join(PLACES))
}

/// A file of the package that its owner alone may read.
fn private(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// A text as YAML reads it in quotes.
fn quoted(text: &str) -> Value {
    Value::from(text)
}

fn conditions_on_definitions(before: &mut String, database: &str, definitions: &BTreeMap<String, Option<String>>) {
    for (object, definition) in definitions {
        let holds = match definition {
            Some(text) => format!("sha256: {}", digest(text)),
            None => "exists: false".to_owned(),
        };
        writeln!(before, "  - definition: {}\n    database: {}\n    {holds}", quoted(object), quoted(database)).ok();
    }
}

fn conditions_on_rows(before: &mut String, database: &str, conditions: &[Condition]) {
    for condition in conditions {
        let (name, sql, equals) = (quoted(&condition.name), quoted(&condition.sql), quoted(&condition.equals));
        let database = quoted(database);
        writeln!(before, "  - name: {name}\n    sql: {sql}\n    database: {database}\n    equals: {equals}").ok();
    }
}

fn conditions_on_files(before: &mut String, root: &str, drafted: &DraftedFiles) {
    for (path, condition) in &drafted.conditions {
        write!(before, "  - file: {}\n    root: {}\n", quoted(path), quoted(root)).ok();
        if let Some(exists) = condition.exists {
            writeln!(before, "    exists: {exists}").ok();
        }
        if let Some(sha256) = &condition.sha256 {
            writeln!(before, "    sha256: {sha256}").ok();
        }
    }
}
