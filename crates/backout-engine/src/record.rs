//! Writes the record of a deployment: everything that it did, in one archive, from which alone it can be undone.
//!
//! Reads the journal, the holds and the roots; changes nothing of the site. Every member is passed twice: once to be
//! counted, once to be written, so that the record can say beforehand how much it holds and memory stays bounded.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use backout_files::root::{Kept, KeptKind, Side};
use backout_journal::JournalError;
use backout_model::id::DeploymentId;
use backout_model::state::{DeploymentState, StepState};
use backout_model::target::Images;
use backout_record::head::{self, DatabasePart, FILES, FORMAT, Head, IMAGES, JOURNAL, PACKAGE, SQL};
use backout_record::member::{Kind, Member, Meta};
use backout_record::writer::{Sign, Writer};
use backout_sql::client;
use jiff::Timestamp;
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::act::Act;
use crate::copies;
use crate::error::EngineError;
use crate::history::{StepView, View};
use crate::lookup::find;
use crate::record_place;
use crate::session::Session;

/// How many paths a record names that it lacks.
const LACKS_KEPT: usize = 100;

/// Where records are kept that nobody asked to have elsewhere.
pub fn directory(state: &Path) -> PathBuf {
    state.join("records")
}

/// A record that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    pub deployment: DeploymentId,
    pub file: PathBuf,
    /// Of the file.
    pub bytes: u64,
    /// What it lacks, in words.
    pub lacks: Vec<String>,
}

/// Writes the record of a deployment, the latest where none is named, into the file or directory `to`, or else into the
/// state directory. One that is there under that name is replaced.
pub fn record(
    session: &mut Session<'_>,
    what: Option<&str>,
    to: Option<&Path>,
    tool: &str,
    sign: Option<Sign<'_>>,
) -> Result<Written, EngineError> {
    let reader = session.journal.reader();
    let row = match what {
        Some(what) => find(reader, what)?,
        // What was refused did nothing.
        None => reader
            .deployments()?
            .into_iter()
            .find(|row| row.state != DeploymentState::Refused)
            .ok_or_else(|| EngineError::NotNow { what: "nothing was ever deployed here".to_owned(), hint: None })?,
    };
    let view = View::load(reader, &row.id)?;
    view.is_kept()?;
    let kept = directory(&session.config.state);
    if let Some(to) = to {
        record_place::is_free(&session.config, &kept, to)?;
    }
    let (directory, named) = match to {
        Some(to) if to.is_dir() => (to.to_owned(), None),
        Some(to) => {
            (to.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")).to_owned(), Some(to))
        }
        None => {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&kept);
            made.map_err(|source| io_error("make", &kept, source))?;
            (kept, None)
        }
    };
    let mut head = Head {
        format: FORMAT,
        tool: tool.to_owned(),
        site: session.config.name.clone(),
        deployment: row.id.to_string(),
        package: row.package.clone(),
        version: row.version.clone(),
        actor: row.actor.clone(),
        started_ms: row.started_ms,
        written_ms: session.journal.now_ms(),
        state: backout_journal::states::name(&row.state),
        first_entry: row.first_seq,
        last_entry: row.last_seq,
        ..Head::default()
    };
    let out =
        NamedTempFile::with_prefix_in(".record", &directory).map_err(|e| io_error("write into", &directory, e))?;
    let mut parts = Parts::prepare(session, &view, &mut head, &directory)?;
    let mut count = Count::default();
    parts.pass(session, &view, &mut head, &mut count)?;
    (head.members, head.bytes) = (count.members, count.bytes);
    let name = head::file_name(&head, &stamp(head.started_ms));
    let file = named.map_or_else(|| directory.join(name), PathBuf::from);
    let copy = out.as_file().try_clone().map_err(|e| io_error("write", &file, e))?;
    let mut writer = Writer::begin(copy, &file, &head)?;
    parts.pass(session, &view, &mut head, &mut writer)?;
    let written = writer.finish(sign)?;
    let bytes = written.metadata().map_err(|e| io_error("write", &file, e))?.len();
    if backout_model::fault::syncs_issued() {
        written.sync_all().map_err(|e| io_error("write", &file, e))?;
    }
    out.persist(&file).map_err(|e| io_error("write", &file, e.error))?;
    Ok(Written { deployment: row.id, file, bytes, lacks: head.lacks })
}

fn io_error(act: &str, path: &Path, source: io::Error) -> EngineError {
    EngineError::Io { act: format!("cannot {act} {}", path.display()), source }
}

/// For a file's name: UTC, without colons.
fn stamp(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| at.strftime("%Y%m%dT%H%M%SZ").to_string())
}

/// Takes members: counts or writes them.
trait Sink {
    fn add(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), EngineError>;
    /// False where only the sizes of files matter.
    fn seconds(&self) -> i64;
}

#[derive(Default)]
struct Count {
    members: u64,
    bytes: u64,
}

impl Sink for Count {
    fn add(&mut self, member: &Member, _content: &mut dyn Read) -> Result<(), EngineError> {
        self.members += 1;
        if let Kind::File(size) = member.kind {
            self.bytes += size;
        }
        Ok(())
    }

    fn seconds(&self) -> i64 {
        0
    }
}

impl Sink for Writer {
    fn add(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), EngineError> {
        Ok(Writer::add(self, member, content)?)
    }

    fn seconds(&self) -> i64 {
        Writer::seconds(self)
    }
}

/// What is written to disk first, for its length must be known before it goes into the archive.
struct Parts {
    journal: File,
    /// By database: what was run, and what takes it back.
    scripts: BTreeMap<String, (File, File)>,
    /// Entries with images.
    images: Vec<u64>,
    /// Steps on roots, in order.
    steps: Vec<StepView>,
    spool: Spool,
}

/// Where parts lie until they are written: without a name, beside the record, which is no file system in memory.
struct Spool(PathBuf);

impl Spool {
    fn file(&self) -> Result<File, EngineError> {
        tempfile::tempfile_in(&self.0).map_err(spooling)
    }
}

impl Parts {
    fn prepare(session: &mut Session<'_>, view: &View, head: &mut Head, directory: &Path) -> Result<Self, EngineError> {
        let spool = Spool(directory.to_owned());
        let (journal, images) = entries(session, &view.id, &spool)?;
        let mut steps: Vec<StepView> =
            view.steps.values().filter(|step| step.has_images && step.state != StepState::Discarded).cloned().collect();
        steps.sort_by_key(|step| step.seq);
        let mut scripts = BTreeMap::new();
        let databases: Vec<String> = session.database_names().iter().map(|name| (*name).to_owned()).collect();
        for name in databases {
            let of_it = |step: &&StepView| step.act().database() == Some(&name);
            let of_it: Vec<StepView> = steps.iter().filter(of_it).cloned().collect();
            if of_it.is_empty() {
                continue;
            }
            let executed = executed(session, view, &name, &of_it, &spool)?;
            let taken: Vec<StepView> = of_it.into_iter().filter(|step| !step.act().is_of_others()).collect();
            let (undo, not_in_script) = undo(session, view, &name, &taken, &spool)?;
            let engine = session.targets.database(&name)?.engine().to_owned();
            head.databases.push(DatabasePart { name: name.clone(), engine, not_in_script });
            scripts.insert(name, (executed, undo));
        }
        steps.retain(|step| step.act().root().is_some());
        head.roots = steps.iter().filter_map(|step| step.act().root()).map(str::to_owned).collect();
        head.roots.sort();
        head.roots.dedup();
        Ok(Self { journal, scripts, images, steps, spool })
    }

    /// Hands every member to `sink`, in the order in which they stand in a record.
    fn pass(
        &mut self,
        session: &mut Session<'_>,
        view: &View,
        head: &mut Head,
        sink: &mut dyn Sink,
    ) -> Result<(), EngineError> {
        own_file(sink, JOURNAL, &mut self.journal)?;
        own_directory(sink, SQL)?;
        for (name, (executed, undo)) in &mut self.scripts {
            own_directory(sink, &format!("{SQL}/{name}"))?;
            own_file(sink, &format!("{SQL}/{name}/executed.sql"), executed)?;
            own_file(sink, &format!("{SQL}/{name}/undo.sql"), undo)?;
        }
        own_directory(sink, IMAGES)?;
        for seq in &self.images {
            let mut images = session.journal.reader().open_images(*seq)?;
            let size = images.seek(SeekFrom::End(0)).map_err(reading)?;
            images.seek(SeekFrom::Start(0)).map_err(reading)?;
            own(sink, &format!("{IMAGES}/{seq}"), size, &mut images)?;
        }
        let copy = session.package_copy(&view.id);
        if copy.is_dir() {
            match copies::altered(&copy, view) {
                Ok(files) => files.iter().for_each(|file| {
                    lacks(head, format!("{} as it was deployed: it was changed since", file.display()));
                }),
                Err(error) => lacks(head, format!("the copy of its package as it was: {}", error.causes().join(": "))),
            }
            tree(sink, &copy, PACKAGE.as_bytes().to_vec())?;
        } else {
            lacks(head, "the copy of its package".to_owned());
        }
        own_directory(sink, FILES)?;
        for step in &self.steps {
            files(session, step, head, sink, &self.spool)?;
        }
        Ok(())
    }
}

fn reading(source: io::Error) -> EngineError {
    EngineError::Io { act: "cannot read what is kept of the deployment".to_owned(), source }
}

fn lacks(head: &mut Head, what: String) {
    if head.lacks.len() < LACKS_KEPT && !head.lacks.contains(&what) {
        head.lacks.push(what);
    }
}

fn own(sink: &mut dyn Sink, path: &str, size: u64, content: &mut dyn Read) -> Result<(), EngineError> {
    let meta = Meta::own(0o600, sink.seconds());
    sink.add(&Member { path: path.into(), kind: Kind::File(size), meta }, content)
}

fn own_directory(sink: &mut dyn Sink, path: &str) -> Result<(), EngineError> {
    let meta = Meta::own(0o700, sink.seconds());
    sink.add(&Member { path: path.into(), kind: Kind::Directory, meta }, &mut io::empty())
}

/// A file that was written for the record, from its beginning.
fn own_file(sink: &mut dyn Sink, path: &str, file: &mut File) -> Result<(), EngineError> {
    let size = file.seek(SeekFrom::End(0)).map_err(reading)?;
    file.seek(SeekFrom::Start(0)).map_err(reading)?;
    own(sink, path, size, file)
}

/// The deployment's entries of the journal, a line each, and the numbers of those whose images are still there.
fn entries(session: &Session<'_>, id: &DeploymentId, spool: &Spool) -> Result<(File, Vec<u64>), EngineError> {
    let mut lines = BufWriter::new(spool.file()?);
    let mut seqs = Vec::new();
    let mut outcome = Ok(());
    let reader = session.journal.reader();
    reader.entries(id, &mut |entry| {
        if entry.images.is_some() {
            seqs.push(entry.seq);
        }
        outcome =
            serde_json::to_writer(&mut lines, &entry).map_err(io::Error::from).and_then(|()| lines.write_all(b"\n"));
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome.map_err(spooling)?;
    let mut images = Vec::new();
    for seq in seqs {
        match reader.check_images(seq) {
            Ok(()) => images.push(seq),
            Err(JournalError::ImagesDropped { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((lines.into_inner().map_err(|error| spooling(error.into_error()))?, images))
}

fn spooling(source: io::Error) -> EngineError {
    EngineError::Io { act: "cannot write the parts of the record".to_owned(), source }
}

fn heading(out: &mut dyn Write, view: &View, database: &str, what: &str) -> io::Result<()> {
    writeln!(out, "-- {what} of {} ({}) on database {database}. See docs/record.md.", view.name(), view.id)
}

/// What was run on a database, for its engine's own client.
fn executed(
    session: &mut Session<'_>,
    view: &View,
    name: &str,
    steps: &[StepView],
    spool: &Spool,
) -> Result<File, EngineError> {
    let mut out = BufWriter::new(spool.file()?);
    let engine = session.targets.database(name)?.engine();
    heading(&mut out, view, name, "What was run").map_err(spooling)?;
    client::begin(engine, &mut out).map_err(spooling)?;
    for step in steps {
        let Act::Sql { shown, .. } = step.act() else { continue };
        client::begin_step(engine, shown, &mut out).map_err(spooling)?;
        let mut images = session.journal.reader().open_images(step.seq)?;
        let database = session.targets.database(name)?;
        database.statements(&mut images, &mut |place, text| client::statement(engine, text, place, &mut out))?;
        client::end_step(engine, &mut out).map_err(spooling)?;
    }
    out.into_inner().map_err(|error| spooling(error.into_error()))
}

/// What takes back the steps that are on the site, the latest first; and what of it no script can.
fn undo(
    session: &mut Session<'_>,
    view: &View,
    name: &str,
    steps: &[StepView],
    spool: &Spool,
) -> Result<(File, Vec<String>), EngineError> {
    let begun = |not: &[String]| -> Result<BufWriter<File>, EngineError> {
        let mut out = BufWriter::new(spool.file()?);
        heading(&mut out, view, name, "The undo").map_err(spooling)?;
        for why in not {
            writeln!(out, "-- It cannot be done by a script: {}", why.replace('\n', " ")).map_err(spooling)?;
        }
        Ok(out)
    };
    let mut out = begun(&[])?;
    let reader = session.journal.reader();
    let mut on_site = Vec::new();
    let mut not = Vec::new();
    for step in steps.iter().rev().filter(|step| step.is_on_site()) {
        let Act::Sql { shown, .. } = step.act() else {
            not.push(format!(
                "{}: what a command did is taken back by `backout undo --record` alone",
                step.act().words()
            ));
            continue;
        };
        if step.act().has_own_undo() || step.act().irreversible().is_some() {
            not.push(format!("{shown}: the package says how it is taken back, or that nothing does"));
            continue;
        }
        let images: Box<dyn Images> = reader.open_images(step.seq)?;
        on_site.push(images);
    }
    let mut images = on_site.into_iter();
    let database = session.targets.databases.get_mut(name).ok_or_else(|| EngineError::usage(name))?;
    if not.is_empty() {
        not.extend(database.undo_script(&mut images, &mut out)?);
    } else {
        not = database.undo_script(&mut images, &mut out)?;
    }
    if !not.is_empty() {
        out = begun(&not)?;
        client::refuse(database.engine(), &mut out).map_err(spooling)?;
    }
    Ok((out.into_inner().map_err(|error| spooling(error.into_error()))?, not))
}

/// A directory of the state with all it holds.
fn tree(sink: &mut dyn Sink, path: &Path, name: Vec<u8>) -> Result<(), EngineError> {
    use std::os::unix::ffi::OsStrExt;
    let failed = |source| io_error("read", path, source);
    let found = fs::symlink_metadata(path).map_err(failed)?;
    let meta = Meta {
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        mtime: (found.mtime(), u32::try_from(found.mtime_nsec()).unwrap_or(0)),
        xattrs: Vec::new(),
    };
    if found.is_symlink() {
        let link = fs::read_link(path).map_err(failed)?;
        let kind = Kind::Symlink(link.as_os_str().as_bytes().to_vec());
        return sink.add(&Member { path: name, kind, meta }, &mut io::empty());
    }
    if found.is_file() {
        let mut content = File::open(path).map_err(failed)?;
        return sink.add(&Member { path: name, kind: Kind::File(found.len()), meta }, &mut content);
    }
    if !found.is_dir() {
        return Ok(());
    }
    sink.add(&Member { path: name.clone(), kind: Kind::Directory, meta }, &mut io::empty())?;
    let mut names = fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
        .map_err(failed)?;
    names.sort();
    for inner in names {
        tree(sink, &path.join(&inner), [name.as_slice(), b"/", inner.as_bytes()].concat())?;
    }
    Ok(())
}

/// Where the files of a step on a root stand in a record.
pub(crate) fn files_at(root: &str, seq: u64) -> String {
    format!("{FILES}/{root}/{seq}")
}

/// The files of a step, as they were and as it left them.
fn files(
    session: &mut Session<'_>,
    step: &StepView,
    head: &mut Head,
    sink: &mut dyn Sink,
    spool: &Spool,
) -> Result<(), EngineError> {
    let Some(root) = step.act().root() else { return Ok(()) };
    let at = files_at(root, step.seq);
    let label = format!("root {root}");
    let mut images = session.journal.reader().open_images(step.seq)?;
    own_directory(sink, &format!("{FILES}/{root}/{}", step.seq))?;
    own_directory(sink, &format!("{at}/before"))?;
    own_directory(sink, &format!("{at}/after"))?;
    let mut trouble = None;
    let mut made = spool.file()?;
    let target = session.targets.root(root)?;
    let handed = target.hand_over(&mut images, &mut |kept| {
        if kept.made {
            made.write_all(&kept.path)?;
            made.write_all(&[0])?;
        }
        add_kept(sink, &at, kept).map_err(|error| {
            let what = error.to_string();
            trouble = Some(error);
            io::Error::other(what)
        })
    });
    if let Some(error) = trouble {
        return Err(error);
    }
    own_file(sink, &format!("{at}/made"), &mut made)?;
    for lacking in handed? {
        let side = if lacking.side == Side::Before { "before" } else { "after" };
        lacks(head, format!("{label}: {} as it was {side}: {}", lacking.path, lacking.why));
    }
    Ok(())
}

fn add_kept(sink: &mut dyn Sink, at: &str, kept: Kept<'_>) -> Result<(), EngineError> {
    let side = if kept.side == Side::Before { "before" } else { "after" };
    let within = |path: &[u8]| [format!("{at}/{side}/").as_bytes(), path].concat();
    let path = within(&kept.path);
    let Kept { mode, uid, gid, mtime, xattrs, kind, .. } = kept;
    let meta = Meta { mode, uid, gid, mtime, xattrs };
    match kind {
        KeptKind::File { size, content } => sink.add(&Member { path, kind: Kind::File(size), meta }, content),
        KeptKind::Directory => sink.add(&Member { path, kind: Kind::Directory, meta }, &mut io::empty()),
        KeptKind::Link(target) => sink.add(&Member { path, kind: Kind::Symlink(target), meta }, &mut io::empty()),
        KeptKind::HardLink(first) => {
            sink.add(&Member { path, kind: Kind::HardLink(within(&first)), meta }, &mut io::empty())
        }
    }
}
