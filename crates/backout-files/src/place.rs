//! Applies a step: stages, announces, places, and makes it durable.
//!
//! Never touches a live path before the announcement. After it an error leaves the rest to `undo` with `in_doubt`.

use std::fs::File;
use std::io::{BufWriter, Seek, Write};

use backout_model::target::{Gate, Report, Summary, TargetError};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use serde_json::json;

use crate::act;
use crate::beneath::{is_blocked, is_missing};
use crate::carry::Carry;
use crate::delete;
use crate::error::Acting;
use crate::hold::{CHANGES, Step};
use crate::image::{self, Kind, Time};
use crate::local::LocalRoot;
use crate::manifest::{Act, Change, Header, Manifest, Order, Record, Touch, Writer};
use crate::overlay::{self, Ground};
use crate::path::RootPath;
use crate::root::Work;
use crate::stage::{FEW, Stager};

/// Progress is told once in so many changes.
const TOLD_EVERY: u64 = 64;
/// Up to so many directories are synced one by one.
const FEW_DIRECTORIES: usize = 32;
/// At most so many notes of one kind are made.
pub const NOTES_KEPT: usize = 100;

impl LocalRoot {
    pub(crate) fn apply_work(&mut self, work: &Work, gate: &mut dyn Gate) -> Result<Report, TargetError> {
        self.hold.clean_stale()?;
        let mut step = self.hold.begin()?;
        let prepared = self.prepare(work, &step, gate);
        let (mut spool, summary, notes) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err(self.give_up(step, error)),
        };
        if let Err(error) = gate.announce(&summary) {
            return Err(self.give_up(step, error));
        }
        let mut report = Report { summary, notes, ..Report::default() };
        if report.summary.changes == 0 {
            step.remove().acting(|| format!("cannot clean the hold of {}", self.label))?;
            return Ok(report);
        }
        step.settle_name().acting(|| format!("cannot name the hold of a step of {}", self.label))?;
        self.place(&step, &mut spool, gate, &mut report)?;
        Ok(report)
    }

    /// Everything staged goes again; the error that made it so comes first, whatever cleaning says.
    fn give_up(&self, step: Step, error: TargetError) -> TargetError {
        match step.remove() {
            Ok(()) => error,
            // What is left is called `….new` and goes with the next step's cleaning.
            Err(_) => error,
        }
    }

    /// Stages and writes the manifest, twice: for the journal, and into the hold for placing.
    fn prepare(
        &mut self,
        work: &Work,
        step: &Step,
        gate: &mut dyn Gate,
    ) -> Result<(File, Summary, Vec<String>), TargetError> {
        let staging = || format!("cannot stage a step of {}", self.label);
        let spool = File::from(act::create(step.dir(), CHANGES).acting(staging)?);
        let time = Time::now();
        let outs: Vec<Box<dyn Write + Send>> = vec![
            Box::new(BufWriter::with_capacity(64 * 1024, gate.images())),
            Box::new(BufWriter::with_capacity(64 * 1024, spool.try_clone().acting(staging)?)),
        ];
        let writer =
            Writer::begin(Header::new(Act::Apply, &self.name, step.name(), time, Some(self.whereabouts()?)), outs)
                .acting(staging)?;
        let mut stager = Stager::new(&self.label, step, writer, time);
        self.walk(work, step.device().acting(staging)?, &mut stager)?;
        let Stager { writer, mut summary, notes, staged, .. } = stager;
        writer.end().acting(staging)?;
        summary.note = json!({ "hold": step.name() });
        if summary.changes > 0 {
            sync_staged(step, &staged).acting(|| format!("cannot sync what is staged for {}", self.label))?;
        }
        Ok((spool, summary, notes))
    }

    /// Tells a sink what the work would change.
    pub(crate) fn walk(
        &self,
        work: &Work,
        hold_device: u64,
        sink: &mut dyn crate::item::Sink,
    ) -> Result<(), TargetError> {
        let ground = Ground { root: &self.root, label: &self.label, keep: &self.keep, hold_device };
        match work {
            Work::Overlay { source, exact } => overlay::walk(&ground, source, *exact, sink),
            Work::Delete { paths, missing_ok } => delete::walk(&ground, paths, *missing_ok, sink),
        }
    }

    fn place(
        &mut self,
        step: &Step,
        spool: &mut File,
        gate: &mut dyn Gate,
        report: &mut Report,
    ) -> Result<(), TargetError> {
        spool.rewind().acting(|| format!("cannot read the hold of {}", self.label))?;
        let label = self.label.clone();
        let mut manifest = Manifest::open(spool, &label)?;
        let mut synced = Synced::default();
        let (mut done, all) = (0, report.summary.changes);
        manifest.visit(Order::Forwards, |_, record| {
            let Record::Change(change) = record else { return Ok(()) };
            let placing = || format!("cannot place {} in {label}", change.path);
            let dir = self.root.parent(&change.path).acting(placing)?;
            let carry = self.carry(change, step, dir.as_fd());
            match (&change.before, &change.after) {
                (None, Some(_)) => carry.put(),
                (Some(_), Some(_)) => carry.swap(),
                (Some(_), None) => carry.take(),
                (None, None) => Ok(()),
            }
            .acting(placing)?;
            synced.directory(&change.path.parent(), &dir).acting(placing)?;
            done += 1;
            if done % TOLD_EVERY == 0 {
                gate.progress(done, Some(all));
            }
            Ok(())
        })?;
        manifest.visit(Order::Backwards, |_, record| match record {
            Record::Touch(touch) => self.set_time(touch, touch.after, &mut report.notes),
            Record::Change(change) => {
                note_late_writers(step, change, &mut report.notes);
                Ok(())
            }
        })?;
        synced.finish(self, step)?;
        act::unlink(step.dir(), CHANGES).acting(|| format!("cannot clean the hold of {label}"))?;
        gate.progress(done, Some(all));
        Ok(())
    }

    /// Sets a touched directory's time; one that is gone, or that somebody replaced by a link, needs none. A user who
    /// may write to somebody else's directory may not set its time (utimensat(2)): it keeps that of the last entry
    /// that came or went, and a note says so once.
    pub(crate) fn set_time(&self, touch: &Touch, time: Time, notes: &mut Vec<String>) -> Result<(), TargetError> {
        const WHY: &str = "belongs to another user: times of such directories cannot be put back";
        let setting = || format!("cannot set the time of {} in {}", touch.path, self.label);
        let set = self.root.directory(&touch.path).and_then(|dir| act::set_dir_time(&dir, time));
        match set {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) || is_blocked(&error) => Ok(()),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => {
                if !notes.iter().any(|note| note.ends_with(WHY)) {
                    notes.push(format!("{}: {} {WHY}", self.label, touch.path));
                }
                Ok(())
            }
            Err(error) => Err(error).acting(setting),
        }
    }

    pub(crate) fn carry<'a>(&self, change: &'a Change, step: &'a Step, dir: rustix::fd::BorrowedFd<'a>) -> Carry<'a> {
        Carry {
            dir,
            name: change.path.name(),
            hold: step.dir().as_fd(),
            n: change.n,
            step: step.name(),
            copied: change.copied,
            may_exchange: self.may_exchange,
            rights_only: change.is_of_rights(),
        }
    }
}

/// A few files one by one, many by one sync of the file system.
fn sync_staged(step: &Step, staged: &[u64]) -> std::io::Result<()> {
    if staged.len() > FEW {
        return act::sync_file_system(step.dir());
    }
    for n in staged {
        let name = n.to_string().into_bytes();
        match image::stat(step.dir(), &name)?.map(|stat| image::file_type(&stat)) {
            Some(rustix::fs::FileType::RegularFile) => act::sync_file(image::open_file(step.dir(), &name)?)?,
            Some(rustix::fs::FileType::Directory) => {
                act::sync_dir(crate::beneath::subdirectory(step.dir(), &name)?)?;
            }
            Some(_) | None => {}
        }
    }
    step.sync()
}

/// Somebody may have had a replaced file open and written on, or replaced it in the last moment. What was kept is
/// that very inode, so an undo brings their content back whatever the digest in the manifest says: nothing is lost,
/// and a look at size and time is enough to tell the operator. Only a shared mapping that was already dirty could
/// store without moving the time, and that goes unnoticed here (`verify` hashes everything).
fn note_late_writers(step: &Step, change: &Change, notes: &mut Vec<String>) {
    let Some(before) = &change.before else { return };
    if change.copied || !matches!(before.kind, Kind::File { .. }) {
        return;
    }
    if let Ok(Some(stat)) = step.stat(change.n)
        && !before.looks_untouched(&stat)
        && notes.len() < NOTES_KEPT
    {
        notes.push(format!(
            "{} was written to by another program while it was being replaced; its last content is kept in {}",
            change.path,
            step.shown(change.n)
        ));
    }
}

/// The directories whose entries changed, for syncing at the end.
#[derive(Default)]
pub(crate) struct Synced {
    few: Vec<RootPath>,
    many: bool,
    /// One open directory of each file system that was touched.
    systems: Vec<(u64, OwnedFd)>,
}

impl Synced {
    pub fn directory(&mut self, path: &RootPath, dir: &OwnedFd) -> std::io::Result<()> {
        if self.few.last() == Some(path) {
            return Ok(());
        }
        let device = overlay::device(&rustix::fs::fstat(dir)?);
        if !self.systems.iter().any(|(known, _)| *known == device) {
            self.systems.push((device, dir.try_clone()?));
        }
        if !self.many && !self.few.contains(path) {
            self.few.push(path.clone());
            if self.few.len() > FEW_DIRECTORIES {
                self.many = true;
                self.few.clear();
            }
        }
        Ok(())
    }

    /// Makes all of it durable, the hold's side, too.
    pub fn finish(self, root: &LocalRoot, step: &Step) -> Result<(), TargetError> {
        let syncing = || format!("cannot sync {}", root.label);
        if self.many {
            for (_, dir) in &self.systems {
                act::sync_file_system(dir).acting(syncing)?;
            }
            let hold = step.device().acting(syncing)?;
            if !self.systems.iter().any(|(device, _)| *device == hold) {
                act::sync_file_system(step.dir()).acting(syncing)?;
            }
            return Ok(());
        }
        for path in &self.few {
            match root.root.directory(path) {
                Ok(dir) => act::sync_dir(&dir).acting(syncing)?,
                // Taken away with its directory: then that one's entries are in the list as well.
                Err(error) if is_missing(&error) || is_blocked(&error) => {}
                Err(error) => return Err(error).acting(syncing),
            }
        }
        step.sync().acting(syncing)
    }
}
