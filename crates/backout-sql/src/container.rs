//! The bytes of the images of one step: blocks of records, each with a checksum, an index and a footer. Every engine
//! puts its own records and its own index into them.
//!
//! Written once, front to back; read in either direction, a block at a time, so that memory stays bounded whatever
//! the size. A reader never trusts what it reads: every damage is an error.
//!
//! Layout, all numbers little-endian:
//!
//! ```text
//! header   magic 8 bytes, version u32, zero u32
//! block    length u32, kind u8, table u32, checksum 8 bytes, payload, length u32        (any number)
//! index    a block of kind 255 whose payload is JSON
//! footer   offset of the index u64, checksum of that 8 bytes, closing magic 8 bytes
//! ```
//!
//! A checksum is the first eight bytes of BLAKE3 over the offset of the block, kind, table and payload, so that a
//! block that stands in the wrong place is damage, too. A payload is a row of records, each preceded by its length
//! as u32.

use std::io::{self, SeekFrom, Write};

use backout_model::target::Images;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub const HEADER: u64 = 16;
const FOOTER: u64 = 24;
const BLOCK_HEAD: u64 = 17;
const BLOCK_TAIL: u64 = 4;
/// A block whose records are not all of one kind and table.
pub const KIND_MIXED: u8 = 0;
const KIND_INDEX: u8 = 255;
/// A block is closed once it holds this much; only a record larger than that makes a larger one.
const BLOCK_FULL: usize = 60 * 1024;
/// No block is larger: the limit of a row is 1 GB everywhere, and an update holds two.
const BLOCK_MAX: u32 = u32::MAX - 64;

/// The table of contents of one engine's images.
pub trait Contents: Serialize + DeserializeOwned + Default {
    const MAGIC: &'static [u8; 8];
    const MAGIC_END: &'static [u8; 8];
    /// The version of the records and of the index.
    const VERSION: u32;

    /// What the index says must fit the blocks from `start` to `end`, before anybody relies on it.
    fn fits(&self, start: u64, end: u64) -> Result<(), Damage>;
}

/// How the step is taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    #[default]
    Captured,
    /// By the statements of the user's own script, which follow those of the step.
    ByScript {
        shown: String,
    },
    Never {
        because: String,
    },
}

/// The stream is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub &'static str);

/// Why a stream could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Damage(#[from] Damage),
    #[error("it is of version {0}, newer than this tool knows")]
    Version(u32),
    #[error("the index does not parse: {0}")]
    Index(#[from] serde_json::Error),
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
}

/// See the module's text.
fn checksum(offset: u64, kind: u8, table: u32, payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    let mut place = [0; 13];
    place[..8].copy_from_slice(&offset.to_le_bytes());
    place[8] = kind;
    place[9..].copy_from_slice(&table.to_le_bytes());
    hasher.update(&place);
    hasher.update(payload);
    let mut short = [0; 8];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    short
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// A block as read: its records, and where it stands.
#[derive(Default)]
pub struct Block {
    pub start: u64,
    pub end: u64,
    bytes: Vec<u8>,
    /// Where each record's bytes are.
    records: Vec<(usize, usize)>,
}

impl Block {
    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The bytes of one record.
    pub fn bytes(&self, at: usize) -> Result<&[u8], Damage> {
        let (from, to) = self.records.get(at).copied().ok_or(Damage("a record is missing"))?;
        Ok(&self.bytes[from..to])
    }
}

/// What a block holds, without its payload.
#[derive(Clone, Copy, Debug)]
pub struct BlockHead {
    pub start: u64,
    length: u32,
    /// The kind and table of all its records, remarks left out, or [`KIND_MIXED`].
    pub kind: u8,
    pub table: u32,
    checksum: [u8; 8],
}

impl BlockHead {
    pub fn end(&self) -> u64 {
        self.start + BLOCK_HEAD + u64::from(self.length) + BLOCK_TAIL
    }
}

/// Reads the images of one step.
pub struct Reader<'a, I> {
    from: &'a mut dyn Images,
    pub index: I,
    index_at: u64,
}

impl<'a, I: Contents> Reader<'a, I> {
    pub fn open(from: &'a mut dyn Images) -> Result<Self, StreamError> {
        let length = from.seek(SeekFrom::End(0))?;
        if length < HEADER + FOOTER {
            return Err(Damage("it is shorter than the shortest").into());
        }
        from.seek(SeekFrom::Start(0))?;
        let mut header = [0; HEADER as usize];
        from.read_exact(&mut header)?;
        if &header[..8] != I::MAGIC || header[12..] != [0; 4] {
            return Err(Damage("it does not begin as images do").into());
        }
        let version = u32_at(&header, 8);
        if version > I::VERSION {
            return Err(StreamError::Version(version));
        }
        if version != I::VERSION {
            return Err(Damage("its version is none that ever was").into());
        }
        from.seek(SeekFrom::Start(length - FOOTER))?;
        let mut footer = [0; FOOTER as usize];
        from.read_exact(&mut footer)?;
        let index_at = u64_at(&footer, 0);
        if &footer[16..] != I::MAGIC_END
            || footer[8..16] != checksum(length - FOOTER, KIND_INDEX, 0, &index_at.to_le_bytes())
        {
            return Err(Damage("its end is missing or altered").into());
        }
        let mut reader = Self { from, index: I::default(), index_at: length - FOOTER };
        let head = reader.head(index_at)?;
        if head.kind != KIND_INDEX || head.end() != length - FOOTER {
            return Err(Damage("its index is not where it should be").into());
        }
        let mut block = Block::default();
        reader.payload(&head, &mut block)?;
        reader.index = serde_json::from_slice(&block.bytes)?;
        reader.index_at = index_at;
        reader.index.fits(HEADER, index_at)?;
        Ok(reader)
    }

    /// Reads what was written so far, up to `end`, by an index that is not.
    pub fn unfinished(from: &'a mut dyn Images, index: I, end: u64) -> Result<Self, StreamError> {
        index.fits(HEADER, end)?;
        Ok(Self { from, index, index_at: end })
    }

    /// Where the blocks begin and end.
    pub fn extent(&self) -> (u64, u64) {
        (HEADER, self.index_at)
    }

    /// The head of the block at `start`.
    pub fn head(&mut self, start: u64) -> Result<BlockHead, StreamError> {
        self.from.seek(SeekFrom::Start(start))?;
        let mut head = [0; BLOCK_HEAD as usize];
        self.from.read_exact(&mut head)?;
        let kind = head[4];
        let table = u32_at(&head, 5);
        let mut sum = [0; 8];
        sum.copy_from_slice(&head[9..17]);
        let head = BlockHead { start, length: u32_at(&head, 0), kind, table, checksum: sum };
        if head.end() > self.index_at {
            return Err(Damage("a block is longer than the rest").into());
        }
        Ok(head)
    }

    /// The head of the block that ends at `end`.
    pub fn head_before(&mut self, end: u64) -> Result<BlockHead, StreamError> {
        if end < HEADER + BLOCK_HEAD + BLOCK_TAIL {
            return Err(Damage("a block would begin before the first").into());
        }
        self.from.seek(SeekFrom::Start(end - BLOCK_TAIL))?;
        let mut tail = [0; BLOCK_TAIL as usize];
        self.from.read_exact(&mut tail)?;
        let whole = BLOCK_HEAD + BLOCK_TAIL + u64::from(u32_at(&tail, 0));
        let start = end.checked_sub(whole).filter(|start| *start >= HEADER);
        let head = self.head(start.ok_or(Damage("a block would begin before the first"))?)?;
        if head.end() == end { Ok(head) } else { Err(Damage("the two lengths of a block differ").into()) }
    }

    /// Reads and checks the block's payload.
    pub fn block(&mut self, head: &BlockHead, into: &mut Block) -> Result<(), StreamError> {
        self.payload(head, into)?;
        into.records.clear();
        let mut at = 0;
        while at < into.bytes.len() {
            let (from, rest) = (at + 4, into.bytes.len());
            if from > rest {
                return Err(Damage("a record ends early").into());
            }
            let to = from + u32_at(&into.bytes, at) as usize;
            if to > rest {
                return Err(Damage("a record is longer than its block").into());
            }
            into.records.push((from, to));
            at = to;
        }
        Ok(())
    }

    fn payload(&mut self, head: &BlockHead, into: &mut Block) -> Result<(), StreamError> {
        self.from.seek(SeekFrom::Start(head.start + BLOCK_HEAD))?;
        into.start = head.start;
        into.end = head.end();
        let length = head.length as usize;
        into.bytes.resize(length + BLOCK_TAIL as usize, 0);
        self.from.read_exact(&mut into.bytes)?;
        let tail = u32_at(&into.bytes, length);
        into.bytes.truncate(length);
        if tail != head.length || checksum(head.start, head.kind, head.table, &into.bytes) != head.checksum {
            return Err(Damage("the checksum of a block is wrong").into());
        }
        Ok(())
    }
}

/// Writes the images of one step.
pub struct Writer {
    out: Box<dyn Write + Send>,
    offset: u64,
    head: Vec<u8>,
    block: Vec<u8>,
    kind: Option<(u8, u32)>,
}

impl Writer {
    pub fn new<I: Contents>(mut out: Box<dyn Write + Send>) -> io::Result<Self> {
        let mut header = Vec::with_capacity(HEADER as usize);
        header.extend_from_slice(I::MAGIC);
        header.extend_from_slice(&I::VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        out.write_all(&header)?;
        Ok(Self { out, offset: HEADER, head: Vec::new(), block: Vec::with_capacity(BLOCK_FULL * 2), kind: None })
    }

    /// Adds a record of a kind about a table; `fill` appends its bytes, or says that there is nothing to keep.
    #[inline]
    pub fn record(&mut self, kind: u8, table: u32, fill: impl FnOnce(&mut Vec<u8>) -> bool) -> io::Result<bool> {
        let start = self.block.len();
        self.block.extend_from_slice(&[0; 4]);
        if !fill(&mut self.block) {
            self.block.truncate(start);
            return Ok(false);
        }
        self.kind = match self.kind {
            None => Some((kind, table)),
            Some(all) if all == (kind, table) => Some(all),
            Some(_) => Some((KIND_MIXED, 0)),
        };
        self.end_record(start)?;
        Ok(true)
    }

    /// Adds a record that may stand in a block of any kind.
    pub fn remark(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let start = self.block.len();
        self.block.extend_from_slice(&[0; 4]);
        fill(&mut self.block);
        self.end_record(start)
    }

    #[inline]
    fn end_record(&mut self, start: usize) -> io::Result<()> {
        let length = u32::try_from(self.block.len() - start - 4)
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "one row is larger than 4 GB"))?;
        self.block[start..start + 4].copy_from_slice(&length.to_le_bytes());
        if self.block.len() >= BLOCK_FULL { self.end_block() } else { Ok(()) }
    }

    /// Has all be read back that was written so far; where that ends.
    pub fn flush(&mut self) -> io::Result<u64> {
        let end = self.boundary()?;
        self.out.flush()?;
        Ok(end)
    }

    /// Closes the block and says where the next one starts.
    pub fn boundary(&mut self) -> io::Result<u64> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        Ok(self.offset)
    }

    fn end_block(&mut self) -> io::Result<()> {
        let (kind, table) = self.kind.take().unwrap_or((KIND_MIXED, 0));
        self.write_block(kind, table)
    }

    fn write_block(&mut self, kind: u8, table: u32) -> io::Result<()> {
        let length = u32::try_from(self.block.len())
            .ok()
            .filter(|length| *length <= BLOCK_MAX)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "one row is larger than 4 GB"))?;
        self.head.clear();
        self.head.extend_from_slice(&length.to_le_bytes());
        self.head.push(kind);
        self.head.extend_from_slice(&table.to_le_bytes());
        self.head.extend_from_slice(&checksum(self.offset, kind, table, &self.block));
        self.block.extend_from_slice(&length.to_le_bytes());
        self.out.write_all(&self.head)?;
        self.out.write_all(&self.block)?;
        self.offset += BLOCK_HEAD + self.block.len() as u64;
        self.block.clear();
        // One huge row must not keep its memory for the rest of the step.
        self.block.shrink_to(BLOCK_FULL * 4);
        Ok(())
    }

    /// How many bytes were written so far.
    pub fn bytes(&self) -> u64 {
        self.offset + self.block.len() as u64
    }

    /// Writes index and footer; the whole stream's length.
    pub fn finish<I: Contents>(mut self, index: &I) -> io::Result<u64> {
        let at = self.boundary()?;
        self.block = serde_json::to_vec(index)?;
        self.write_block(KIND_INDEX, 0)?;
        let mut footer = Vec::with_capacity(FOOTER as usize);
        footer.extend_from_slice(&at.to_le_bytes());
        footer.extend_from_slice(&checksum(self.offset, KIND_INDEX, 0, &at.to_le_bytes()));
        footer.extend_from_slice(I::MAGIC_END);
        self.out.write_all(&footer)?;
        self.out.flush()?;
        Ok(self.offset + FOOTER)
    }
}
