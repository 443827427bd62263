//! What a command did to a root: everything is copied into the hold before it runs, and compared afterwards. What differs
//! becomes a step like any other, whose before-images are those copies; the rest of them goes.
//!
//! A command may write into a file where it stands, so a second name would be no before-image: each file is a copy, or
//! shares its blocks where the file system can. Never changes a live path.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Lines, Write};

use backout_model::target::{Gate, Report, Summary, TargetError};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::act;
use crate::copy;
use crate::elsewhere;
use crate::error::Acting;
use crate::followed::{Seen, Walk, order};
use crate::hold::Step;
use crate::image::{self, Image, Kind, Time, file_type};
use crate::local::LocalRoot;
use crate::manifest::{Act, Change, Elsewhere, Header, Touch, Writer};
use crate::path::RootPath;
use crate::stage::count;
use crate::{overlay, xattr};

/// What was there, in the order of the walk: the root's own time, then one [`Entry`] as JSON a line.
const LIST: &[u8] = b"before";
/// What earlier steps keep of files that have other names here: one [`Elsewhere`] as JSON a line; missing where there is none.
const ELSEWHERE: &[u8] = b"elsewhere";

/// One path as it was before the command.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    /// The name of its copy in the hold.
    n: u64,
    path: RootPath,
    image: Image,
    /// When the inode was changed last: nobody can set it back.
    ctime: Time,
    /// The inode of the copy.
    held: u64,
}

impl Entry {
    /// As its copy is, which lies in the hold and comes back by an undo.
    fn before(&self) -> Image {
        Image { ino: self.held, ..self.image.clone() }
    }

    /// True where nobody can have changed anything.
    fn is_untouched(&self, stat: &Stat) -> bool {
        self.image.looks_untouched(stat) && self.ctime == Time::of_change(stat)
    }
}

impl LocalRoot {
    /// Files and bytes that a snapshot would copy.
    pub(crate) fn measure(&self) -> Result<Summary, TargetError> {
        let mut walk = Walk::new(self)?;
        let mut summary = Summary::default();
        while let Some(seen) = walk.next()? {
            summary.changes += 1;
            if file_type(&seen.stat) == FileType::RegularFile {
                summary.bytes += u64::try_from(seen.stat.st_size).unwrap_or(0);
            }
        }
        Ok(summary)
    }

    /// Copies everything into the hold, durably; the note says where.
    pub(crate) fn take_snapshot(&mut self) -> Result<Value, TargetError> {
        self.hold.clean_stale()?;
        let step = self.hold.begin()?;
        match self.copy_all(&step) {
            Ok(()) => Ok(json!({ "hold": step.name() })),
            Err(error) => {
                // What is left is called `….new` and goes with the next step's cleaning.
                drop(step.remove());
                Err(error)
            }
        }
    }

    fn copy_all(&self, step: &Step) -> Result<(), TargetError> {
        let listing = || format!("cannot list {} in its hold", self.label);
        let mut list = BufWriter::new(File::from(act::create(step.dir(), LIST).acting(listing)?));
        let mut linked: HashMap<(u64, u64), (u64, Image, u64)> = HashMap::new();
        let top = self.time_of(&RootPath::root())?.unwrap_or_default();
        serde_json::to_writer(&mut list, &top).map_err(std::io::Error::from).acting(listing)?;
        list.write_all(b"\n").acting(listing)?;
        let mut walk = Walk::new(self)?;
        let mut n = 0;
        while let Some(Seen { path, stat, device }) = walk.next()? {
            let copying = || format!("cannot copy {path} of {} into its hold", self.label);
            let name = n.to_string().into_bytes();
            let several = stat.st_nlink > 1 && file_type(&stat) == FileType::RegularFile;
            let key = (device, image::ino(&stat));
            let image = match linked.get(&key).filter(|_| several) {
                Some((first, image, _)) => {
                    act::link(step.dir(), first.to_string().as_bytes(), step.dir(), &name).acting(copying)?;
                    image.clone()
                }
                None => copy::make(walk.dir()?, path.name(), step.dir(), &name, false).acting(copying)?,
            };
            if several {
                // Of names that were not seen yet: each one that is takes one off.
                let (.., unseen) = linked.entry(key).or_insert_with(|| (n, image.clone(), link_count(&stat)));
                *unseen = unseen.saturating_sub(1);
            }
            let held = step.stat(n).acting(copying)?.as_ref().map_or(0, image::ino);
            let entry = Entry { n, path, image, ctime: Time::of_change(&stat), held };
            serde_json::to_writer(&mut list, &entry).map_err(std::io::Error::from).acting(listing)?;
            list.write_all(b"\n").acting(listing)?;
            n += 1;
        }
        list.flush().acting(listing)?;
        let device = step.device().acting(listing)?;
        let elsewhere = linked.iter().filter(|((on, _), (.., unseen))| *on == device && *unseen > 0);
        self.note_elsewhere(step, &elsewhere.map(|((_, ino), _)| *ino).collect())?;
        act::sync_file_system(step.dir()).acting(|| format!("cannot sync the hold of {}", self.label))?;
        step.sync().acting(|| format!("cannot sync the hold of {}", self.label))
    }

    fn note_elsewhere(&self, step: &Step, wanted: &HashSet<u64>) -> Result<(), TargetError> {
        let listing = || format!("cannot list {} in its hold", self.label);
        if wanted.is_empty() {
            return Ok(());
        }
        let mut list = BufWriter::new(File::from(act::create(step.dir(), ELSEWHERE).acting(listing)?));
        for kept in elsewhere::find(&self.hold, step.name(), wanted, &self.label)? {
            serde_json::to_writer(&mut list, &kept).map_err(std::io::Error::from).acting(listing)?;
            list.write_all(b"\n").acting(listing)?;
        }
        list.flush().acting(listing)
    }

    /// Compares the root with a snapshot and announces what differs.
    pub(crate) fn compare_snapshot(&mut self, note: &Value, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        let mut step = self.needed_snapshot(note)?;
        let mut found = Comparison::begin(self, &step, gate)?;
        found.run()?;
        let Comparison { writer, mut summary, used, touched, .. } = found;
        writer.end().acting(|| self.comparing())?;
        summary.note = json!({ "hold": step.name() });
        gate.announce(&summary)?;
        let cleaned = if summary.changes == 0 && !touched {
            step.remove()
        } else {
            step.settle_name().acting(|| format!("cannot name the hold of a step of {}", self.label))?;
            keep_only(&step, &used)
        };
        // It is announced, and what is left over goes with the rest of it.
        let note = |error| format!("{}: copies that no undo needs stay in the hold for now: {error}", self.label);
        Ok(Report { summary, notes: cleaned.err().map(note).into_iter().collect(), ..Report::default() })
    }

    /// Writes what differs from a snapshot as images that nobody announces; where the copies of before lie.
    pub(crate) fn write_differences(&self, note: &Value, gate: &mut dyn Gate) -> Result<Step, TargetError> {
        let step = self.needed_snapshot(note)?;
        let mut found = Comparison::begin(self, &step, gate)?;
        found.run()?;
        found.writer.end().acting(|| self.comparing())?;
        Ok(step)
    }

    fn comparing(&self) -> String {
        format!("cannot compare {} with what it was", self.label)
    }

    fn needed_snapshot(&self, note: &Value) -> Result<Step, TargetError> {
        let gone = || TargetError::failed(self.comparing(), "the copy of before is not in the hold any more");
        self.snapshot_of(note)?.ok_or_else(gone)
    }

    /// Gives a snapshot up of which nothing was announced.
    pub(crate) fn give_up_snapshot(&mut self, note: &Value) -> Result<(), TargetError> {
        if note.is_null() {
            return self.hold.clean_stale().map(drop);
        }
        match self.snapshot_of(note)? {
            // It is a step's own by now.
            Some(step) if !step.is_staging() => Ok(()),
            Some(step) => step.remove().acting(|| format!("cannot clean the hold of {}", self.label)),
            None => Ok(()),
        }
    }

    fn snapshot_of(&self, note: &Value) -> Result<Option<Step>, TargetError> {
        self.hold.find(note["hold"].as_str().unwrap_or_default(), None)
    }
}

/// Removes the copies that no image needs, and the list.
fn keep_only(step: &Step, used: &HashSet<u64>) -> std::io::Result<()> {
    let mut files = Vec::new();
    for name in step.names()? {
        let n: Option<u64> = std::str::from_utf8(&name).ok().and_then(|name| name.parse().ok());
        if n.is_some_and(|n| used.contains(&n)) || n.is_none() && name != LIST && name != ELSEWHERE {
            continue;
        }
        match image::stat(step.dir(), &name)?.map(|stat| file_type(&stat)) {
            Some(FileType::Directory) => act::remove_dir(step.dir(), &name)?,
            Some(_) => files.push(name),
            None => {}
        }
    }
    act::unlink_all(step.dir(), &files)?;
    step.sync()
}

/// By inode, what earlier steps keep.
fn elsewhere_of(step: &Step) -> std::io::Result<HashMap<u64, Vec<Elsewhere>>> {
    let mut all: HashMap<u64, Vec<Elsewhere>> = HashMap::new();
    if image::stat(step.dir(), ELSEWHERE)?.is_none() {
        return Ok(all);
    }
    for line in BufReader::new(File::from(image::open_file(step.dir(), ELSEWHERE)?)).lines() {
        let kept: Elsewhere = serde_json::from_str(&line?)?;
        all.entry(kept.ino).or_default().push(kept);
    }
    Ok(all)
}

fn link_count(stat: &Stat) -> u64 {
    #[allow(clippy::useless_conversion)]
    stat.st_nlink.into()
}

/// A directory under way, of before or of now.
struct Open {
    path: RootPath,
    before: Time,
    after: Time,
    touched: bool,
    /// It went, or something else has its name now: told after what it held.
    goes: Option<Change>,
}

/// One comparison: two walks in the same order, merged.
struct Comparison<'a> {
    root: &'a LocalRoot,
    writer: Writer,
    list: Lines<BufReader<File>>,
    elsewhere: HashMap<u64, Vec<Elsewhere>>,
    walk: Walk<'a>,
    open: Vec<Open>,
    summary: Summary,
    used: HashSet<u64>,
    touched: bool,
    /// The next name for what was not there before.
    next: u64,
    hold_device: u64,
}

impl<'a> Comparison<'a> {
    fn begin(root: &'a LocalRoot, step: &Step, gate: &mut dyn Gate) -> Result<Self, TargetError> {
        let reading = || format!("cannot read what {} was", root.label);
        let list = File::from(image::open_file(step.dir(), LIST).acting(reading)?);
        let out: Box<dyn Write + Send> = Box::new(BufWriter::with_capacity(64 * 1024, gate.images()));
        let place = Some(root.whereabouts()?);
        let header = Header { found: true, ..Header::new(Act::Apply, &root.name, step.name(), Time::now(), place) };
        let writer =
            Writer::begin(header, vec![out]).acting(|| format!("cannot write what changed in {}", root.label))?;
        let names = step.names().acting(reading)?;
        let known = names.iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse::<u64>().ok());
        Ok(Self {
            root,
            writer,
            list: BufReader::new(list).lines(),
            elsewhere: elsewhere_of(step).acting(reading)?,
            walk: Walk::new(root)?,
            open: Vec::new(),
            summary: Summary::default(),
            used: HashSet::new(),
            touched: false,
            next: known.max().map_or(0, |last| last + 1),
            hold_device: step.device().acting(reading)?,
        })
    }

    fn run(&mut self) -> Result<(), TargetError> {
        let reading = || format!("cannot read what {} was", self.root.label);
        let first = self.list.next().unwrap_or_else(|| Ok(String::new())).acting(reading)?;
        let before: Time = serde_json::from_str(&first).map_err(std::io::Error::from).acting(reading)?;
        let after = self.root.time_of(&RootPath::root())?.unwrap_or(before);
        self.enter(&RootPath::root(), before, after, None);
        if before != after {
            self.touch_last()?;
        }
        let (mut old, mut new) = (self.old()?, self.walk.next()?);
        loop {
            let which = match (&old, &new) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(old), Some(new)) => order(&old.path, &new.path),
            };
            let path = match (&old, &new) {
                (Some(old), _) if which.is_le() => old.path.clone(),
                (_, Some(new)) => new.path.clone(),
                _ => break,
            };
            self.leave_for(Some(&path))?;
            match (&old, &new) {
                (Some(old), Some(new)) if which.is_eq() => self.both(old, new)?,
                (Some(old), _) if which.is_lt() => self.went(old)?,
                (_, Some(new)) => self.came(new)?,
                _ => {}
            }
            if which.is_le() {
                old = self.old()?;
            }
            if which.is_ge() {
                new = self.walk.next()?;
            }
        }
        self.leave_for(None)
    }

    /// The next path of before.
    fn old(&mut self) -> Result<Option<Entry>, TargetError> {
        let reading = || format!("cannot read what {} was", self.root.label);
        let Some(line) = self.list.next() else { return Ok(None) };
        let line = line.acting(reading)?;
        serde_json::from_str(&line).map(Some).map_err(std::io::Error::from).acting(reading)
    }

    /// What earlier steps keep of the file that a path was.
    fn kept_of(&self, old: &Entry) -> Vec<Elsewhere> {
        self.elsewhere.get(&old.image.ino).cloned().unwrap_or_default()
    }

    /// Leaves the directories that `path` is not in.
    fn leave_for(&mut self, path: Option<&RootPath>) -> Result<(), TargetError> {
        while let Some(open) = self.open.last() {
            if path.is_some_and(|path| open.path.contains(path) && open.path != *path) {
                break;
            }
            let Some(open) = self.open.pop() else { break };
            if let Some(change) = open.goes {
                self.change(change)?;
            }
        }
        Ok(())
    }

    fn writing(&self) -> String {
        format!("cannot write what changed in {}", self.root.label)
    }

    /// Writes one change, before it that its directory is another.
    fn change(&mut self, change: Change) -> Result<(), TargetError> {
        let writing = self.writing();
        let parent = change.path.parent();
        match self.open.last_mut().filter(|open| open.path == parent) {
            Some(open) if open.touched => {}
            Some(open) => {
                open.touched = true;
                let touch = Touch { path: parent, before: open.before, after: open.after };
                self.writer.touch(touch).acting(|| writing.clone())?;
                self.touched = true;
            }
            None => return Err(TargetError::failed(writing, format!("{parent} was not seen before {}", change.path))),
        }
        count(&mut self.summary, &change.path, change.before.as_ref(), change.after.as_ref());
        if change.before.is_some() {
            self.used.insert(change.n);
        }
        self.writer.change(change).acting(|| writing)
    }

    fn enter(&mut self, path: &RootPath, before: Time, after: Time, goes: Option<Change>) {
        self.open.push(Open { path: path.clone(), before, after, touched: false, goes });
    }

    /// What was there and is not any more.
    fn went(&mut self, old: &Entry) -> Result<(), TargetError> {
        let copied = self.is_copied(&old.path)?;
        let (path, before, elsewhere) = (old.path.clone(), Some(old.before()), self.kept_of(old));
        let change = Change { n: old.n, path, before, after: None, copied, elsewhere };
        if old.image.is_dir() {
            self.enter(&old.path, old.image.mtime, old.image.mtime, Some(change));
            return Ok(());
        }
        self.change(change)
    }

    /// What is there and was not before.
    fn came(&mut self, new: &Seen) -> Result<(), TargetError> {
        let Some(after) = self.image(new)? else { return Ok(()) };
        let n = self.next;
        self.next += 1;
        let (is_dir, time) = (after.is_dir(), after.mtime);
        let copied = new.device != self.hold_device;
        let (path, elsewhere) = (new.path.clone(), Vec::new());
        self.change(Change { n, path, before: None, after: Some(after), copied, elsewhere })?;
        if is_dir {
            self.enter(&new.path, time, time, None);
        }
        Ok(())
    }

    fn image(&self, new: &Seen) -> Result<Option<Image>, TargetError> {
        image::take(self.walk.dir()?, new.path.name())
            .acting(|| format!("cannot look at {} in {}", new.path, self.root.label))
    }

    fn both(&mut self, old: &Entry, new: &Seen) -> Result<(), TargetError> {
        let was_dir = old.image.is_dir();
        let is_dir = file_type(&new.stat) == FileType::Directory;
        if !(was_dir || is_dir) && old.is_untouched(&new.stat) {
            return Ok(());
        }
        if was_dir && is_dir {
            return self.directories(old, new);
        }
        let Some(after) = self.image(new)? else { return self.went(old) };
        if after.same_content(&old.image) && after.same_rights(&old.image) && after.mtime == old.image.mtime {
            return Ok(());
        }
        let time = after.mtime;
        let copied = new.device != self.hold_device;
        let (path, before, elsewhere) = (old.path.clone(), Some(old.before()), self.kept_of(old));
        let change = Change { n: old.n, path, before, after: Some(after), copied, elsewhere };
        if was_dir {
            self.enter(&old.path, old.image.mtime, old.image.mtime, Some(change));
            return Ok(());
        }
        self.change(change)?;
        if is_dir {
            self.enter(&new.path, time, time, None);
        }
        Ok(())
    }

    fn directories(&mut self, old: &Entry, new: &Seen) -> Result<(), TargetError> {
        let looking = || format!("cannot look at {} in {}", new.path, self.root.label);
        let dir = crate::beneath::subdirectory(self.walk.dir()?, new.path.name()).acting(looking)?;
        let attributes = xattr::digest(&xattr::read(&dir).acting(looking)?);
        let after = Image::new(Kind::Dir, &new.stat, attributes);
        let (before_time, after_time) = (old.image.mtime, after.mtime);
        if !after.same_rights(&old.image) {
            let before = Image { ino: old.held, ..old.image.clone() };
            let copied = new.device != self.hold_device;
            let (path, elsewhere) = (new.path.clone(), Vec::new());
            let change = Change { n: old.n, path, before: Some(before), after: Some(after), copied, elsewhere };
            self.change_in_place(change)?;
        }
        self.enter(&new.path, before_time, after_time, None);
        if before_time != after_time {
            self.touch_last()?;
        }
        Ok(())
    }

    /// A directory's rights: no entry of the one above came or went.
    fn change_in_place(&mut self, change: Change) -> Result<(), TargetError> {
        count(&mut self.summary, &change.path, change.before.as_ref(), change.after.as_ref());
        self.used.insert(change.n);
        let writing = self.writing();
        self.writer.change(change).acting(|| writing)
    }

    fn touch_last(&mut self) -> Result<(), TargetError> {
        let writing = self.writing();
        let Some(open) = self.open.last_mut().filter(|open| !open.touched) else { return Ok(()) };
        open.touched = true;
        self.touched = true;
        let touch = Touch { path: open.path.clone(), before: open.before, after: open.after };
        self.writer.touch(touch).acting(|| writing)
    }

    /// True where a path that is gone would come back on another file system than the hold's.
    fn is_copied(&self, path: &RootPath) -> Result<bool, TargetError> {
        let mut above = path.parent();
        loop {
            let looking = || format!("cannot look at {above} in {}", self.root.label);
            match self.root.root.directory(&above) {
                Ok(dir) => return of_other_device(&dir, self.hold_device).acting(looking),
                Err(_) if !above.is_root() => above = above.parent(),
                Err(error) => return Err(error).acting(looking),
            }
        }
    }
}

fn of_other_device(dir: &OwnedFd, device: u64) -> std::io::Result<bool> {
    Ok(overlay::device(&rustix::fs::fstat(dir)?) != device)
}
