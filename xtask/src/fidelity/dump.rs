//! Dumps as the judge compares them: in a file, with digests, whatever the engine that wrote them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::Result;

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
    pub fn same(&self, other: &Dump, alike: Alike) -> bool {
        match alike {
            Alike::Exactly => self.exact == other.exact,
            Alike::ButForTime => self.timeless == other.timeless,
            Alike::InContent => self.content == other.content,
        }
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
