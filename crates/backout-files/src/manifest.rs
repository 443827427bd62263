//! The images of one step on a root: what each path held before and holds after, in the order of placing.
//!
//! Version 1: one JSON object a line, `header`, then any number of `change` and `touch`, then `end` with the BLAKE3
//! of all bytes before it. Small manifests are parsed once, large ones are read in pieces, forwards or backwards.
//! Never trusts what it reads: paths are checked again, a wrong digest is an error before anything is done.

use std::io::{self, BufRead, BufReader, Read, SeekFrom, Write};

use backout_model::entry::Digest;
use backout_model::target::{Images, TargetError};
use serde::{Deserialize, Serialize};

use crate::image::{Image, Kind, Time};
use crate::path::RootPath;

/// The version that this code writes, and the newest that it reads.
pub const VERSION: u32 = 1;
const FORMAT: &str = "backout-files";
/// No line can be longer: a path and two link targets of 4 KiB, each byte escaped as four, and some numbers.
const LONGEST_LINE: u64 = 128 * 1024;
/// Up to here a manifest is kept parsed; about ten times as much memory.
const PARSED_ONCE: u64 = 4 * 1024 * 1024;
/// Records that are read together, going backwards.
const BATCH: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub format: String,
    pub version: u32,
    pub act: Act,
    /// The root's name on its site.
    pub root: String,
    /// The directory in the hold.
    pub step: String,
    /// When the step was staged; touched directories get this time.
    pub time: Time,
    /// Which directory it was done to; none in manifests of before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// It was found by comparing: all of it was live before it was announced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
}

/// A directory on this machine. The inode tells it from others and stays when it is moved; the path is for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub ino: u64,
    pub path: String,
    /// The hold of that time; none where its path is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
}

/// What announced the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Apply,
    /// Holds only what an undo overwrote of others' work.
    Undo,
    Redo,
}

impl Header {
    pub fn new(act: Act, root: &str, step: &str, time: Time, place: Option<Place>) -> Self {
        let (root, step) = (root.to_owned(), step.to_owned());
        Self { format: FORMAT.to_owned(), version: VERSION, act, root, step, time, place, found: false }
    }
}

/// One path that the step changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The name in the step's directory of the hold, where whatever is not live lies.
    pub n: u64,
    pub path: RootPath,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Image>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Image>,
    /// True where hold and path lie on different file systems, so that files are copied and not exchanged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copied: bool,
    /// What earlier steps keep of the same file under other names: of a captured command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Elsewhere>,
}

/// One name under which an earlier step keeps a file that has another name in the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// The file's inode before the command ran.
    pub ino: u64,
    /// The step's directory in the hold.
    pub step: String,
    /// The name in there; of a directory that is kept as one, a path.
    pub place: RootPath,
    /// Of the directory that has the name.
    pub time: Time,
}

impl Change {
    /// True where a directory stays one, and only its rights change.
    pub fn is_of_rights(&self) -> bool {
        let is_dir = |image: &Option<Image>| image.as_ref().is_some_and(|image| image.kind == Kind::Dir);
        is_dir(&self.before) && is_dir(&self.after)
    }
}

/// A directory whose entries the step changes, and so its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    pub path: RootPath,
    pub before: Time,
    pub after: Time,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Change(Box<Change>),
    Touch(Touch),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Header(Header),
    Change(Box<Change>),
    Touch(Touch),
    End(End),
}

#[derive(Serialize, Deserialize)]
struct End {
    records: u64,
    digest: Digest,
}

/// Writes a manifest to any number of places at once.
pub struct Writer {
    outs: Vec<Box<dyn Write + Send>>,
    hasher: blake3::Hasher,
    line: Vec<u8>,
    records: u64,
}

impl Writer {
    pub fn begin(header: Header, outs: Vec<Box<dyn Write + Send>>) -> io::Result<Self> {
        let mut writer = Self { outs, hasher: blake3::Hasher::new(), line: Vec::new(), records: 0 };
        writer.write(&Line::Header(header))?;
        Ok(writer)
    }

    pub fn change(&mut self, change: Change) -> io::Result<()> {
        self.records += 1;
        self.write(&Line::Change(Box::new(change)))
    }

    pub fn touch(&mut self, touch: Touch) -> io::Result<()> {
        self.records += 1;
        self.write(&Line::Touch(touch))
    }

    /// Closes the manifest and flushes it; durable it becomes by whoever owns the places.
    pub fn end(mut self) -> io::Result<()> {
        let digest = Digest(*self.hasher.finalize().as_bytes());
        self.write(&Line::End(End { records: self.records, digest }))?;
        self.outs.iter_mut().try_for_each(|out| out.flush())
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        self.hasher.update(&self.line);
        self.outs.iter_mut().try_for_each(|out| out.write_all(&self.line))
    }
}

/// In which order records are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Forwards,
    Backwards,
}

/// A manifest that has been read through once and found whole.
pub struct Manifest<'a> {
    images: &'a mut dyn Images,
    target: String,
    pub header: Header,
    /// Where each record begins, and behind the last one where it ends.
    offsets: Vec<u64>,
    parsed: Option<Vec<Record>>,
}

impl<'a> Manifest<'a> {
    /// Reads the whole stream once and checks version, digest and every line.
    pub fn open(images: &'a mut dyn Images, target: &str) -> Result<Self, TargetError> {
        let bad = |what: &str| TargetError::Images { target: target.to_owned(), what: what.to_owned() };
        let broken = |error: io::Error| bad(&format!("reading failed: {error}"));
        let bytes = images.seek(SeekFrom::End(0)).map_err(broken)?;
        images.seek(SeekFrom::Start(0)).map_err(broken)?;
        let mut parsed = (bytes <= PARSED_ONCE).then(Vec::new);
        let mut reader = BufReader::with_capacity(256 * 1024, &mut *images);
        let mut hasher = blake3::Hasher::new();
        let (mut header, mut offsets, mut line, mut at) = (None, Vec::new(), Vec::new(), 0);
        loop {
            line.clear();
            let got = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(broken)?;
            if got == 0 {
                return Err(bad("they end too early"));
            }
            if line.last() != Some(&b'\n') {
                return Err(bad("a line is cut off or too long"));
            }
            if header.is_none() {
                header = Some(read_header(&line, target)?);
            } else {
                match serde_json::from_slice(&line).map_err(|error| bad(&format!("a line is broken: {error}")))? {
                    Line::Header(_) => return Err(bad("a second header")),
                    Line::End(end) => {
                        let digest = Digest(*hasher.finalize().as_bytes());
                        if end.digest != digest || end.records != offsets.len() as u64 {
                            return Err(bad("their digest is wrong"));
                        }
                        if at + got as u64 != bytes {
                            return Err(bad("something follows their end"));
                        }
                        offsets.push(at);
                        break;
                    }
                    Line::Change(change) => {
                        offsets.push(at);
                        if let Some(all) = &mut parsed {
                            all.push(Record::Change(change));
                        }
                    }
                    Line::Touch(touch) => {
                        offsets.push(at);
                        if let Some(all) = &mut parsed {
                            all.push(Record::Touch(touch));
                        }
                    }
                }
            }
            hasher.update(&line);
            at += got as u64;
        }
        drop(reader);
        let header = header.ok_or_else(|| bad("they hold nothing"))?;
        Ok(Self { images, target: target.to_owned(), header, offsets, parsed })
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Visits every record with its number from 0, until `each` fails.
    pub fn visit(
        &mut self,
        order: Order,
        mut each: impl FnMut(usize, &Record) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        let count = self.len();
        if let Some(all) = &self.parsed {
            return match order {
                Order::Forwards => all.iter().enumerate().try_for_each(|(i, record)| each(i, record)),
                Order::Backwards => all.iter().enumerate().rev().try_for_each(|(i, record)| each(i, record)),
            };
        }
        let batches = count.div_ceil(BATCH);
        for turn in 0..batches {
            let batch = if order == Order::Forwards { turn } else { batches - 1 - turn };
            let (from, to) = (batch * BATCH, ((batch + 1) * BATCH).min(count));
            let records = self.read(from, to)?;
            match order {
                Order::Forwards => records.iter().zip(from..to).try_for_each(|(record, i)| each(i, record))?,
                Order::Backwards => records.iter().zip(from..to).rev().try_for_each(|(record, i)| each(i, record))?,
            }
        }
        Ok(())
    }

    /// Reads the records `from..to` anew.
    fn read(&mut self, from: usize, to: usize) -> Result<Vec<Record>, TargetError> {
        let bad = |what: String| TargetError::Images { target: self.target.clone(), what };
        let length = usize::try_from(self.offsets[to] - self.offsets[from]).map_err(|error| bad(error.to_string()))?;
        let mut bytes = vec![0; length];
        self.images
            .seek(SeekFrom::Start(self.offsets[from]))
            .and_then(|_| self.images.read_exact(&mut bytes))
            .map_err(|error| bad(format!("reading failed: {error}")))?;
        bytes
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| match serde_json::from_slice(line) {
                Ok(Line::Change(change)) => Ok(Record::Change(change)),
                Ok(Line::Touch(touch)) => Ok(Record::Touch(touch)),
                Ok(Line::Header(_) | Line::End(_)) | Err(_) => Err(bad("they changed while they were read".to_owned())),
            })
            .collect()
    }
}

/// The version is looked at before anything else, so that a newer format is named as such.
fn read_header(line: &[u8], target: &str) -> Result<Header, TargetError> {
    #[derive(Deserialize)]
    struct Any {
        header: Which,
    }
    #[derive(Deserialize)]
    struct Which {
        format: String,
        version: u32,
    }
    let bad = |what: String| TargetError::Images { target: target.to_owned(), what };
    let any: Any = serde_json::from_slice(line).map_err(|error| bad(format!("their header is broken: {error}")))?;
    if any.header.format != FORMAT {
        return Err(bad(format!("they are of the format `{}`, not `{FORMAT}`", any.header.format)));
    }
    if any.header.version > VERSION {
        return Err(bad(format!("they are of version {}, this program reads up to {VERSION}", any.header.version)));
    }
    match serde_json::from_slice(line) {
        Ok(Line::Header(header)) => Ok(header),
        Ok(_) => Err(bad("their header is broken".to_owned())),
        Err(error) => Err(bad(format!("their header is broken: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(records: u64) -> Vec<u8> {
        let shared = Shared::default();
        let mut writer =
            Writer::begin(Header::new(Act::Apply, "web", "step", Time(1, 2), None), vec![Box::new(shared.clone())])
                .unwrap();
        for n in 0..records {
            let path = RootPath::parse(&format!("dir/file-{n}"), "").unwrap();
            writer.change(Change { n, path, before: None, after: None, copied: false, elsewhere: Vec::new() }).unwrap();
        }
        writer.end().unwrap();
        std::mem::take(&mut *shared.0.lock().unwrap())
    }

    fn order(bytes: Vec<u8>, order: Order, streamed: bool) -> Vec<u64> {
        let mut cursor = Cursor::new(bytes);
        let mut manifest = Manifest::open(&mut cursor, "root web").unwrap();
        if streamed {
            manifest.parsed = None;
        }
        let mut seen = Vec::new();
        manifest
            .visit(order, |i, record| {
                let Record::Change(change) = record else { unreachable!() };
                assert_eq!(change.n, i as u64);
                seen.push(change.n);
                Ok(())
            })
            .unwrap();
        seen
    }

    #[test]
    fn records_come_back_in_both_orders_parsed_and_streamed() {
        for count in [0, 1, 511, 512, 513, 1500] {
            let bytes = written(count);
            for streamed in [false, true] {
                assert_eq!(order(bytes.clone(), Order::Forwards, streamed), (0..count).collect::<Vec<_>>());
                assert_eq!(order(bytes.clone(), Order::Backwards, streamed), (0..count).rev().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn any_changed_or_missing_byte_is_found() {
        let bytes = written(3);
        for i in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 1;
            assert!(Manifest::open(&mut Cursor::new(changed), "root web").is_err(), "byte {i}");
            let cut = bytes[..i].to_vec();
            assert!(Manifest::open(&mut Cursor::new(cut), "root web").is_err(), "cut at {i}");
        }
        let mut longer = bytes.clone();
        longer.push(b'\n');
        assert!(Manifest::open(&mut Cursor::new(longer), "root web").is_err());
    }

    #[test]
    fn a_newer_version_is_named() {
        let text = String::from_utf8(written(0)).unwrap().replace("\"version\":1", "\"version\":2");
        let error = Manifest::open(&mut Cursor::new(text.into_bytes()), "root web").err().unwrap();
        assert!(error.to_string().contains("version 2"), "{error}");
    }
}
