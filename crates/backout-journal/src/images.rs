//! The images of one step on their way to the disk: small ones wait in memory, large ones go to a file.
//!
//! Nothing here makes an entry; a stream that no entry took leaves no file behind.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backout_model::entry::{Digest, ImagesRef};
use backout_model::fault::{self, Point};
use tempfile::NamedTempFile;

use crate::layout::sync_directory;

/// Up to here images go into the journal's own transaction: one sync for intent and images. Also the size in which
/// larger ones are written, and so the memory that a stream takes.
pub const SPILL_BYTES: usize = 256 * 1024;

/// How the names of files of images end.
pub(crate) const SUFFIX: &str = ".images";

/// A handle to one stream of images; clones write to the same stream. After an error the stream takes nothing more
/// and no entry can be made with it.
#[derive(Clone)]
pub struct ImagesWriter {
    stream: Arc<Mutex<Stream>>,
}

struct Stream {
    directory: PathBuf,
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
    bytes: u64,
    file: Option<NamedTempFile>,
    end: End,
}

enum End {
    Open,
    Broken,
    Finished(Finished),
}

/// A stream that is whole, and on the disk where it is large.
#[derive(Clone)]
pub(crate) struct Finished {
    pub images: ImagesRef,
    pub content: Content,
}

#[derive(Clone)]
pub(crate) enum Content {
    Inline(Arc<Vec<u8>>),
    /// Name in the directory of images.
    File(String),
}

/// See [`ImagesWriter::written`].
#[derive(Debug)]
pub enum Written {
    Small(Vec<u8>),
    Large(File),
}

impl ImagesWriter {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            stream: Arc::new(Mutex::new(Stream {
                directory: directory.to_owned(),
                buffer: Vec::new(),
                hasher: blake3::Hasher::new(),
                bytes: 0,
                file: None,
                end: End::Open,
            })),
        }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// What was written so far, to be read from its beginning.
    ///
    /// # Errors
    /// Where the stream broke, was announced already, or its file cannot be written or opened.
    pub fn written(&self) -> io::Result<Written> {
        self.lock().written()
    }

    /// Ends the stream and makes a large one durable. Asked again, it answers the same.
    pub(crate) fn finish(&self) -> io::Result<Finished> {
        self.lock().finish()
    }

    fn lock(&self) -> MutexGuard<'_, Stream> {
        // A writer that panicked left the stream either whole or marked as broken.
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for ImagesWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().write(bytes)
    }

    /// Does nothing: images become durable with their entry.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.end {
            End::Open => {}
            End::Broken => return Err(io::Error::other("an earlier write of these images failed")),
            End::Finished(_) => return Err(io::Error::other("these images were announced already")),
        }
        if self.buffer.len() == SPILL_BYTES {
            self.guarded(Self::spill)?;
        }
        let taken = bytes.len().min(SPILL_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        self.bytes += taken as u64;
        Ok(taken)
    }

    /// Whatever fails half way leaves a stream that nobody can take for whole.
    fn guarded<T>(&mut self, act: fn(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let end = std::mem::replace(&mut self.end, End::Broken);
        let done = act(self)?;
        self.end = end;
        Ok(done)
    }

    fn spill(&mut self) -> io::Result<()> {
        fault::point(Point::ImagesWrite)?;
        let file = match &mut self.file {
            Some(file) => file,
            // Made 0600 and removed again on drop.
            None => self.file.insert(tempfile::Builder::new().prefix("i").suffix(SUFFIX).tempfile_in(&self.directory)?),
        };
        file.as_file_mut().write_all(&self.buffer)?;
        self.hasher.update(&self.buffer);
        self.buffer.clear();
        Ok(())
    }

    fn written(&mut self) -> io::Result<Written> {
        match self.end {
            End::Open => {}
            End::Broken | End::Finished(_) => return Err(io::Error::other("these images take nothing more")),
        }
        if self.file.is_none() {
            return Ok(Written::Small(self.buffer.clone()));
        }
        self.guarded(Self::spill)?;
        match &self.file {
            // A handle of its own: reading moves no place of the writer's.
            Some(file) => Ok(Written::Large(file.reopen()?)),
            None => Err(io::Error::other("the file of these images is gone")),
        }
    }

    fn finish(&mut self) -> io::Result<Finished> {
        if let End::Finished(finished) = &self.end {
            return Ok(finished.clone());
        }
        if let End::Broken = self.end {
            return Err(io::Error::other("a write of these images failed"));
        }
        let finished = self.guarded(Self::complete)?;
        self.end = End::Finished(finished.clone());
        Ok(finished)
    }

    fn complete(&mut self) -> io::Result<Finished> {
        if self.file.is_none() {
            let images = ImagesRef { bytes: self.bytes, digest: Digest(*blake3::hash(&self.buffer).as_bytes()) };
            return Ok(Finished { images, content: Content::Inline(Arc::new(std::mem::take(&mut self.buffer))) });
        }
        self.spill()?;
        self.buffer = Vec::new();
        let images = ImagesRef { bytes: self.bytes, digest: Digest(*self.hasher.finalize().as_bytes()) };
        let Some(file) = self.file.take() else {
            return Err(io::Error::other("the file of these images is gone"));
        };
        fault::point(Point::Sync)?;
        if fault::syncs_issued() {
            file.as_file().sync_all()?;
        }
        sync_directory(&self.directory)?;
        let name = file.path().file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let name = name.ok_or_else(|| io::Error::other("the file of these images has no proper name"))?;
        // From here on the file stays: an entry may name it even where writing that entry seems to fail.
        file.into_temp_path().keep().map_err(|e| e.error)?;
        Ok(Finished { images, content: Content::File(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_images_stay_in_memory_and_large_ones_take_no_more_memory_than_a_block() {
        let directory = tempfile::tempdir().unwrap();
        let mut small = ImagesWriter::new(directory.path());
        small.write_all(&vec![7; SPILL_BYTES]).unwrap();
        let finished = small.finish().unwrap();
        assert_eq!(finished.images.bytes, SPILL_BYTES as u64);
        assert!(matches!(finished.content, Content::Inline(_)));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);

        let mut large = ImagesWriter::new(directory.path());
        let mut other = large.clone();
        for _ in 0..40 {
            large.write_all(&[1; 100_000]).unwrap();
            other.write_all(&[2; 100_000]).unwrap();
            assert!(large.lock().buffer.capacity() <= 2 * SPILL_BYTES);
        }
        let finished = other.finish().unwrap();
        let Content::File(name) = finished.content else { panic!("not in a file") };
        let content = std::fs::read(directory.path().join(name)).unwrap();
        assert_eq!(content.len(), 8_000_000);
        assert_eq!(finished.images.digest.0, *blake3::hash(&content).as_bytes());
        assert!(large.write_all(b"late").is_err());
    }

    #[test]
    fn a_stream_that_no_entry_took_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut stream = ImagesWriter::new(directory.path());
        stream.write_all(&vec![7; SPILL_BYTES * 3]).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        drop(stream);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
