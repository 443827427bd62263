//! Makes a state directory again from records, where it is lost: the journal's entries with their numbers, the images,
//! the copy of the package, and what a hold lacks. Then an undo is one like any other, guarded as ever.
//!
//! Changes nothing of the site. Refuses where the site has a history of its own, or where a database knows of changes
//! that no record tells of.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use backout_journal::{Journal, JournalError, Options, Rebuilding};
use backout_model::entry::{Digest, Entry};
use backout_model::id::DeploymentId;
use backout_model::state::Event;
use backout_package::percent::encode_path;
use backout_package::signature::{self, Signed};
use backout_package::site::Site;
use backout_record::error::RecordError;
use backout_record::extract::Extraction;
use backout_record::head::{Head, IMAGES, JOURNAL, NAMESPACE, PACKAGE};
use backout_record::reader::{self, Checked};
use serde_json::Value;

use crate::act::Intended;
use crate::error::EngineError;
use crate::history::Planned;
use crate::marks::ahead;
use crate::record::files_at;
use crate::session::{Surroundings, Targets};

/// No line of a journal is longer: an entry has at most 16 MiB.
const LINE_MAX: u64 = 17 << 20;

/// Reads a record to its end, checks it, and whether the site trusts whoever signed it.
pub fn check(site: &Site, file: &Path) -> Result<Checked, EngineError> {
    let checked = reader::read(file, &mut |_, _, _| Ok(()))?;
    if checked.head.site != site.name {
        return Err(EngineError::Usage {
            what: format!("{} is a record of the site {}, not of {}", file.display(), checked.head.site, site.name),
            hint: Some("--site FILE names another site".to_owned()),
        });
    }
    let why = match signed(site, &checked)? {
        Signed::By { .. } => return Ok(checked),
        Signed::Not if !site.trust.as_ref().is_some_and(|trust| trust.require_signature) => return Ok(checked),
        Signed::Not => "it is not signed, and the site requires a signature".to_owned(),
        Signed::Badly(why) => why,
    };
    let hint = "`backout record --key FILE` signs one, with a key that `trust:` in site.yaml names";
    Err(EngineError::not_now(format!("{} is not trusted: {why}", file.display()), hint))
}

/// Whose signature a record has, of those whom the site trusts. Without `trust:` none is looked at.
pub fn signed(site: &Site, checked: &Checked) -> Result<Signed, EngineError> {
    let Some(trust) = &site.trust else { return Ok(Signed::Not) };
    let mut keys = Vec::new();
    for file in &trust.keys {
        keys.extend(signature::read_keys(file)?);
    }
    Ok(match &checked.signature {
        None => Signed::Not,
        Some(text) => signature::verify_text(text, NAMESPACE, &checked.seal, &keys),
    })
}

/// What there is for an undo from records.
#[derive(Debug)]
pub enum Found {
    /// The state directory is not lost: it knows the deployment, and the record is not needed.
    Known(DeploymentId),
    /// It was made again.
    MadeAgain(DeploymentId),
}

/// Makes the state directory again from `records`, the first of which is the one of the deployment to be undone. All of
/// them were checked.
pub fn make_again(
    site: &Site,
    targets: &mut Targets,
    surroundings: Surroundings,
    records: &[(PathBuf, Head)],
) -> Result<Found, EngineError> {
    let Some((_, first)) = records.first() else { return Err(EngineError::usage("no record is named")) };
    let id = DeploymentId::try_from(first.deployment.clone())
        .map_err(|_| EngineError::usage(format!("{} is no id of a deployment", first.deployment)))?;
    let reader = Journal::read(&site.state)?;
    if reader.deployment(&id)?.is_some() {
        return Ok(Found::Known(id));
    }
    let last = records.iter().map(|(_, head)| head.last_entry).chain([reader.last_seq()?]).max().unwrap_or(0);
    knows_all(targets, last)?;
    drop(reader);
    let options = Options { clock: surroundings.clock, actor: surroundings.actor, purpose: "undo --record".to_owned() };
    let mut rebuilding = Rebuilding::begin(&site.state, options).map_err(other_history)?;
    let room = site.state.join("from-record");
    clear(&room)?;
    let made = records_into(&room, site, targets, records, &mut rebuilding);
    let cleared = clear(&room);
    made?;
    rebuilding.finish()?;
    cleared?;
    Ok(Found::MadeAgain(id))
}

/// Refuses where a database was changed by what none of the records tells of.
fn knows_all(targets: &mut Targets, last: u64) -> Result<(), EngineError> {
    let Some(finding) = ahead(targets, last)?.into_iter().next() else { return Ok(()) };
    let what = format!(
        "{}: it was changed since by deployments that the record does not know: {}",
        finding.target, finding.what
    );
    let hint = "undo those first by their own records, the latest first; or name their records, too: --record FILE --record LATER";
    Err(EngineError::not_now(what, hint))
}

fn other_history(error: JournalError) -> EngineError {
    match error {
        JournalError::OtherHistory { state } => EngineError::not_now(
            format!(
                "the state directory {} has a history of its own, which does not know the deployment",
                state.display()
            ),
            "a record undoes where the state directory is lost: name another `state:` in site.yaml, if this one is not the site's",
        ),
        error => error.into(),
    }
}

fn clear(room: &Path) -> Result<(), EngineError> {
    match fs::remove_dir_all(room) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", room, error)),
        _ => Ok(()),
    }
}

fn io_error(act: &str, path: &Path, source: io::Error) -> EngineError {
    EngineError::Io { act: format!("cannot {act} {}", path.display()), source }
}

fn records_into(
    room: &Path,
    site: &Site,
    targets: &mut Targets,
    records: &[(PathBuf, Head)],
    rebuilding: &mut Rebuilding,
) -> Result<(), EngineError> {
    let mut sorted: Vec<&(PathBuf, Head)> = records.iter().collect();
    sorted.sort_by_key(|(_, head)| head.first_entry);
    let mut sources = Vec::new();
    for (at, (file, head)) in sorted.into_iter().enumerate() {
        let into = room.join(at.to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(&into).map_err(|e| io_error("make", &into, e))?;
        let mut extraction = Extraction::begin(&into);
        let checked = reader::read(file, &mut |_, member, content| extraction.put(member, content))?;
        extraction.finish()?;
        if checked.head != *head {
            return Err(RecordError::bad(file, "was exchanged while it was read").into());
        }
        let copy = site.state.join("packages").join(&head.deployment);
        sources.push(Source::open(file, &into, head, copy)?);
    }
    // Entries of several deployments may lie between each other.
    while let Some(at) = next(&sources) {
        let Some(entry) = sources[at].take()? else { continue };
        let source = &sources[at];
        let images = source.into.join(IMAGES).join(entry.seq.to_string());
        let mut images = match (&entry.images, images.is_file()) {
            (Some(_), true) => Some(File::open(&images).map_err(|e| io_error("read", &images, e))?),
            _ => None,
        };
        if let Some(images) = &mut images
            && entry.event == Event::StepIntended
        {
            source.keep(targets, &entry, images)?;
        }
        rebuilding.add(entry, images.as_mut().map(|images| images as &mut dyn Read)).map_err(other_history)?;
    }
    sources.into_iter().try_for_each(|source| source.end())
}

/// The source whose next entry has the lowest number.
fn next(sources: &[Source<'_>]) -> Option<usize> {
    let at = sources.iter().enumerate().filter_map(|(at, source)| Some((source.next.as_ref()?.seq, at))).min();
    at.map(|(_, at)| at)
}

/// A record that lies opened in `into`.
struct Source<'r> {
    file: &'r Path,
    into: PathBuf,
    head: &'r Head,
    lines: BufReader<File>,
    next: Option<Entry>,
    /// Number and digest of the entry before.
    before: Option<(u64, Digest)>,
    /// Where the copy of the package was, as payloads write it, and where it is now.
    moved: Option<(String, String)>,
    copy: PathBuf,
}

impl<'r> Source<'r> {
    fn open(file: &'r Path, into: &Path, head: &'r Head, copy: PathBuf) -> Result<Self, EngineError> {
        let path = into.join(JOURNAL);
        let lines = BufReader::new(File::open(&path).map_err(|_| RecordError::bad(file, "has no journal"))?);
        let mut source = Self { file, into: into.to_owned(), head, lines, next: None, before: None, moved: None, copy };
        source.next = source.read()?;
        Ok(source)
    }

    fn bad(&self, what: impl Into<String>) -> EngineError {
        RecordError::bad(self.file, what).into()
    }

    /// The entry at hand, with its paths as they are now; the one after it is read.
    fn take(&mut self) -> Result<Option<Entry>, EngineError> {
        let next = self.read()?;
        let Some(mut entry) = std::mem::replace(&mut self.next, next) else { return Ok(None) };
        if entry.event == Event::DeploymentPlanned {
            let planned: Planned = crate::history::read(&entry.payload, entry.seq)?;
            let was = planned.manifest.dir.parent().map(encode_path);
            self.moved = was.map(|was| (was, encode_path(&self.copy)));
        }
        if let Some((from, to)) = self.moved.as_ref().filter(|(from, to)| from != to) {
            rewrite(&mut entry.payload, from, to);
        }
        Ok(Some(entry))
    }

    /// Reads a line and holds it against the one before.
    fn read(&mut self) -> Result<Option<Entry>, EngineError> {
        let mut line = Vec::new();
        let got = (&mut self.lines).take(LINE_MAX).read_until(b'\n', &mut line);
        got.map_err(|source| io_error("read", &self.into, source))?;
        if line.is_empty() {
            return Ok(None);
        }
        let body = line.strip_suffix(b"\n").ok_or_else(|| self.bad("has a journal that is cut off"))?;
        let entry: Entry =
            serde_json::from_slice(body).map_err(|error| self.bad(format!("has an unreadable entry: {error}")))?;
        let digest = entry.digest().map_err(|error| self.bad(error.to_string()))?;
        if serde_json::to_vec(&entry).ok().as_deref() != Some(body) {
            return Err(self.bad(format!("has entry {} in another form than it was written", entry.seq)));
        }
        if entry.deployment.as_ref().map(DeploymentId::as_str) != Some(self.head.deployment.as_str()) {
            return Err(self.bad(format!("has entry {}, which is of another deployment", entry.seq)));
        }
        if let Some((seq, before)) = self.before
            && (entry.seq <= seq || entry.seq == seq + 1 && entry.previous != before)
        {
            return Err(self.bad(format!("has entry {}, which does not follow entry {seq}", entry.seq)));
        }
        self.before = Some((entry.seq, digest));
        Ok(Some(entry))
    }

    /// Puts into a root's hold what it lacks of a step.
    fn keep(&self, targets: &mut Targets, entry: &Entry, images: &mut File) -> Result<(), EngineError> {
        let intended: Intended = crate::history::read(&entry.payload, entry.seq)?;
        let Some(root) = intended.act.root() else { return Ok(()) };
        let from = self.into.join(files_at(root, entry.seq)).join("before");
        // A step that was redone has its files with its last entry.
        if from.is_dir() {
            targets.root(root)?.take_back(images, &from)?;
            io::Seek::rewind(images).map_err(|source| io_error("read", &self.into, source))?;
        }
        Ok(())
    }

    /// Puts the copy of the package in its place.
    fn end(self) -> Result<(), EngineError> {
        let from = self.into.join(PACKAGE);
        if !from.is_dir() || self.copy.exists() {
            return Ok(());
        }
        let above = self.copy.parent().unwrap_or(&self.copy);
        DirBuilder::new().recursive(true).mode(0o700).create(above).map_err(|e| io_error("make", above, e))?;
        fs::rename(&from, &self.copy).map_err(|e| io_error("make", &self.copy, e))
    }
}

/// Makes paths below `from` paths below `to`, wherever they stand.
fn rewrite(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) => {
            let below = text.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('/'));
            if let Some(rest) = below {
                *text = format!("{to}{rest}");
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rewrite(value, from, to)),
        Value::Object(map) => map.values_mut().for_each(|value| rewrite(value, from, to)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
