//! Writes the images of one step in the form that [`super::stream`] describes. Never reads, and keeps no more than one
//! block in memory.

use std::io::{self, Write};

use super::stream::{Index, Op, RECORD_STATEMENT, RECORD_UNDO_STATEMENT};
use super::value;
use crate::container;

/// Writes the images of one step.
pub struct Writer(container::Writer);

impl Writer {
    pub fn new(out: Box<dyn Write + Send>) -> io::Result<Self> {
        Ok(Self(container::Writer::new::<Index>(out)?))
    }

    /// Adds a row; `fill` appends its images to the bytes, or says that there is nothing to keep.
    #[inline]
    pub fn row(&mut self, op: Op, table: u32, fill: impl FnOnce(&mut Vec<u8>) -> bool) -> io::Result<bool> {
        self.0.record(op as u8, table, |bytes| {
            bytes.push(op as u8);
            value::put_varint(bytes, u64::from(table));
            fill(bytes)
        })
    }

    /// Adds a statement after the rows that it changed.
    pub fn statement(&mut self, line: u32, sql: &str, rows: u64, undo: bool) -> io::Result<()> {
        self.0.remark(|bytes| {
            bytes.push(if undo { RECORD_UNDO_STATEMENT } else { RECORD_STATEMENT });
            value::put_varint(bytes, u64::from(line));
            value::put_varint(bytes, rows);
            bytes.extend_from_slice(sql.as_bytes());
        })
    }

    /// Closes the block and says where the next one starts.
    pub fn boundary(&mut self) -> io::Result<u64> {
        self.0.boundary()
    }

    /// How many bytes were written so far.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Writes index and footer; the whole stream's length.
    pub fn finish(self, index: &Index) -> io::Result<u64> {
        self.0.finish(index)
    }
}
