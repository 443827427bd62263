//! Dumps as the judge compares them: in a file, with digests, whatever the engine that wrote them.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};

/// How much alike two dumps must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alike {
    /// To the byte.
    Exactly,
    /// But for the time of day at which a default or a trigger wrote: of two runs, one comes later.
    ButForTime,
    /// Nor do counters and the layout of data count, which depend on how often was tried and how many at once.
    InContent,
}

/// A dump in a file, and its digests.
#[derive(Clone, Debug)]
pub struct Dump {
    pub file: PathBuf,
    pub exact: blake3::Hash,
    pub timeless: blake3::Hash,
    pub content: blake3::Hash,
}

impl Dump {
    /// Writes a dump's lines to a file, and takes the digests of them, of them without times, and of their content.
    pub fn write<L: AsRef<[u8]>, T: AsRef<[u8]>, C: AsRef<[u8]>>(
        file: PathBuf,
        lines: impl Iterator<Item = L> + Clone,
        timeless: impl Iterator<Item = T>,
        content: impl Iterator<Item = C>,
    ) -> Result<Self> {
        let mut out = BufWriter::new(File::create(&file).with_context(|| format!("making {}", file.display()))?);
        for line in lines.clone() {
            out.write_all(line.as_ref())?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(Self { exact: digest(lines), timeless: digest(timeless), content: digest(content), file })
    }

    pub fn same(&self, other: &Dump, alike: Alike) -> bool {
        match alike {
            Alike::Exactly => self.exact == other.exact,
            Alike::ButForTime => self.timeless == other.timeless,
            Alike::InContent => self.content == other.content,
        }
    }

    /// How PostgreSQL writes where a sequence stands.
    pub const POSITION: &str = "SELECT pg_catalog.setval(";

    /// The statements that set the sequences that stood elsewhere in `before`.
    pub fn moved_since(&self, before: &Dump) -> Result<Vec<String>> {
        let positions = |dump: &Dump| -> Result<Vec<String>> {
            let lines = BufReader::new(File::open(&dump.file)?).split(b'\n');
            let lines = lines.collect::<std::io::Result<Vec<_>>>()?.into_iter();
            let is_position = |line: &Vec<u8>| line.starts_with(Self::POSITION.as_bytes());
            Ok(lines.filter(is_position).map(|line| String::from_utf8_lossy(&line).into_owned()).collect())
        };
        let known = positions(before)?;
        Ok(positions(self)?.into_iter().filter(|line| !known.contains(line)).collect())
    }

    /// The first few lines in which two dumps differ, for a person.
    pub fn differences(&self, other: &Dump) -> Result<Vec<String>> {
        const SHOWN: usize = 6;
        let mut shown = Vec::new();
        let mut left = BufReader::new(File::open(&self.file)?).lines();
        let mut right = BufReader::new(File::open(&other.file)?).lines();
        loop {
            let pair = (left.next().transpose()?, right.next().transpose()?);
            match pair {
                (None, None) => break,
                (Some(a), Some(b)) if a == b => {}
                (a, b) => {
                    shown.extend(a.map(|line| format!("- {}", cut(&line))));
                    shown.extend(b.map(|line| format!("+ {}", cut(&line))));
                }
            }
            if shown.len() >= SHOWN {
                break;
            }
        }
        Ok(shown)
    }
}

fn cut(line: &str) -> String {
    const WIDTH: usize = 240;
    if line.chars().count() <= WIDTH { line.to_owned() } else { line.chars().take(WIDTH).chain(['…']).collect() }
}

fn digest<L: AsRef<[u8]>>(lines: impl Iterator<Item = L>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for line in lines {
        hasher.update(line.as_ref()).update(b"\n");
    }
    hasher.finalize()
}

/// The line with the time of day taken out of every time of one of these days.
pub fn without_time(line: &[u8], days: &[String]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len());
    let mut at = 0;
    while at < line.len() {
        let rest = &line[at..];
        let Some(day) = days.iter().find(|day| rest.starts_with(day.as_bytes())) else {
            out.push(line[at]);
            at += 1;
            continue;
        };
        out.extend_from_slice(b"<now>");
        at += day.len();
        // ` 21:38:30.123456+00`
        let time = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b'+' | b' ' | b'T');
        at += line[at..].iter().take(19).take_while(|byte| time(byte)).count();
    }
    out
}
