//! The journal's side of a step: where a target's images go, and where its intent becomes durable.

use std::io::{self, Write};

use backout_journal::{ImagesWriter, Journal, JournalError, Written};
use backout_model::entry::Draft;
use backout_model::target::{Gate, Images, Summary, TargetError, Ticket};

use crate::observer::{Happening, Observer};

/// Used for one step, once.
pub struct JournalGate<'a> {
    journal: &'a mut Journal,
    observer: &'a mut dyn Observer,
    draft: Draft,
    epoch: u64,
    images: Option<ImagesWriter>,
    trouble: Option<JournalError>,
    /// The operator may break it off.
    stoppable: bool,
    /// What was written, once it was: the entry and whether it has images.
    announced: Option<(Draft, u64, bool)>,
}

impl<'a> JournalGate<'a> {
    /// `draft` is the announcing entry; its payload gets the summary.
    pub fn new(
        journal: &'a mut Journal,
        observer: &'a mut dyn Observer,
        draft: Draft,
        epoch: u64,
        stoppable: bool,
    ) -> Self {
        Self { journal, observer, draft, epoch, images: None, trouble: None, stoppable, announced: None }
    }

    /// The entry that was written, its number, and whether images came with it.
    pub fn into_announced(self) -> Option<(Draft, u64, bool)> {
        self.announced
    }
}

impl Gate for JournalGate<'_> {
    fn images(&mut self) -> Box<dyn Write + Send> {
        match self.journal.images() {
            Ok(writer) => {
                self.images = Some(writer.clone());
                Box::new(writer)
            }
            Err(error) => {
                let text = error.to_string();
                self.trouble = Some(error);
                Box::new(Broken(text))
            }
        }
    }

    fn written(&mut self) -> io::Result<Box<dyn Images>> {
        let images = self.images.as_ref().ok_or_else(|| io::Error::other("no images were opened"))?;
        Ok(match images.written()? {
            Written::Small(bytes) => Box::new(io::Cursor::new(bytes)),
            Written::Large(file) => Box::new(io::BufReader::new(file)),
        })
    }

    fn announce(&mut self, summary: &Summary) -> Result<Ticket, TargetError> {
        let cannot = |error: JournalError| TargetError::failed("cannot write the journal", error);
        if let Some(error) = self.trouble.take() {
            return Err(cannot(error));
        }
        let mut draft = self.draft.clone();
        let summary =
            serde_json::to_value(summary).map_err(|error| TargetError::failed("cannot write the journal", error))?;
        if let Some(object) = draft.payload.as_object_mut() {
            object.insert("summary".to_owned(), summary);
        }
        let images = self.images.take();
        let has_images = images.is_some();
        let seq = match images {
            Some(images) => self.journal.append_with_images(draft.clone(), images),
            None => self.journal.append(std::slice::from_ref(&draft)),
        }
        .map_err(cannot)?;
        self.announced = Some((draft, seq, has_images));
        Ok(Ticket { seq, epoch: self.epoch })
    }

    fn progress(&mut self, done: u64, of: Option<u64>) {
        self.observer.heard(Happening::Within { done, of });
    }

    fn ran(&mut self, place: &str, locks: &mut dyn FnMut() -> Result<String, String>) {
        let Some(index) = self.draft.step.filter(|_| self.observer.measures()) else { return };
        self.observer.ran(&self.draft.frame, index);
        self.observer.locked(&self.draft.frame, index, place, locks());
    }

    fn is_stopped(&self) -> bool {
        self.stoppable && self.observer.interrupted()
    }
}

/// Stands in where the journal could not open images; the step fails at its first byte.
struct Broken(String);

impl Write for Broken {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::Error::other(self.0.clone()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::Error::other(self.0.clone()))
    }
}
