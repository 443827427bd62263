//! What the images of a step on MariaDB hold: its statements and the number by which its holds are found.
//!
//! The rows themselves stay in the database: statements that commit by themselves leave no moment in which all of a
//! step's images could be written before any of it takes effect. See [`super::segment`].

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::container::{self, Block, Contents, Damage};
pub use crate::container::{StreamError, Way};

const KIND_STATEMENT: u8 = 16;
const KIND_UNDO_STATEMENT: u8 = 17;

/// Reads the images of one step.
pub type Reader<'a> = container::Reader<'a, Index>;

/// The table of contents.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Index {
    /// How the script is named to people.
    pub shown: String,
    pub way: Way,
    /// The step's number in the database.
    pub step: u64,
    pub statements: u64,
}

impl Contents for Index {
    const MAGIC: &'static [u8; 8] = b"BACKOUTM";
    const MAGIC_END: &'static [u8; 8] = b"MTUOKCAB";
    const VERSION: u32 = 1;

    fn fits(&self, _start: u64, _end: u64) -> Result<(), Damage> {
        Ok(())
    }
}

/// Writes the images of one step.
pub struct Writer(container::Writer);

impl Writer {
    pub fn new(out: Box<dyn Write + Send>) -> io::Result<Self> {
        Ok(Self(container::Writer::new::<Index>(out)?))
    }

    /// Closes the block: statements of the step and those of its undo script stand in blocks of their own.
    pub fn boundary(&mut self) -> io::Result<()> {
        self.0.boundary().map(drop)
    }

    /// Adds a statement; `undo`: of the user's own undo script.
    pub fn statement(&mut self, line: u32, text: &str, undo: bool) -> io::Result<()> {
        self.0.record(if undo { KIND_UNDO_STATEMENT } else { KIND_STATEMENT }, 0, |bytes| {
            bytes.extend_from_slice(&line.to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
            true
        })?;
        Ok(())
    }

    /// Writes index and footer; the whole stream's length.
    pub fn finish(self, index: &Index) -> io::Result<u64> {
        self.0.finish(index)
    }
}

/// A statement as the images hold it.
pub struct Kept {
    pub line: u32,
    pub text: String,
}

impl container::Reader<'_, Index> {
    /// Hands on the statements of the step, or those of the user's own undo script.
    pub(super) fn statements<E: From<StreamError>>(
        &mut self,
        undo: bool,
        each: &mut dyn FnMut(Kept) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut at, end) = self.extent();
        let mut block = Block::default();
        let wanted = if undo { KIND_UNDO_STATEMENT } else { KIND_STATEMENT };
        while at < end {
            let head = self.head(at)?;
            self.block(&head, &mut block)?;
            at = head.end();
            if head.kind != wanted {
                continue;
            }
            for number in 0..block.len() {
                each(parse(block.bytes(number).map_err(StreamError::from)?).map_err(StreamError::from)?)?;
            }
        }
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Result<Kept, Damage> {
    let (line, text) = bytes.split_first_chunk::<4>().ok_or(Damage("a record ends early"))?;
    let text = std::str::from_utf8(text).map_err(|_| Damage("a statement is not UTF-8"))?;
    Ok(Kept { line: u32::from_le_bytes(*line), text: text.to_owned() })
}
