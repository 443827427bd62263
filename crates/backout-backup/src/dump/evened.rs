//! A dump whose rows come in any order, as lines that only differ where what they say does: rows are counted and their digests
//! are summed up, so that memory does not grow with them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

/// What a line of a dump is.
pub enum Line {
    /// It stands where it stands.
    Plain,
    /// It is one of several, by what they are of, whose order says nothing.
    Among(Vec<u8>),
    /// It says nothing.
    Nothing,
}

/// Rows of one thing.
#[derive(Default)]
struct Heap {
    count: u64,
    sum: [u64; 4],
}

impl Heap {
    fn add(&mut self, line: &[u8]) {
        self.count += 1;
        for (sum, part) in self.sum.iter_mut().zip(blake3::hash(line).as_bytes().chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(part);
            *sum = sum.wrapping_add(u64::from_le_bytes(bytes));
        }
    }
}

/// Copies a dump, evened out.
pub fn copy(dump: &Path, out: &mut impl Write, kind: &mut dyn FnMut(&[u8]) -> Line) -> io::Result<()> {
    let mut heaps: BTreeMap<Vec<u8>, Heap> = BTreeMap::new();
    let mut file = BufReader::new(File::open(dump)?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        match kind(&line) {
            Line::Plain => out.write_all(&line)?,
            Line::Among(which) => heaps.entry(which).or_default().add(&line),
            Line::Nothing => {}
        }
        line.clear();
    }
    for (which, Heap { count, sum }) in heaps {
        out.write_all(&which)?;
        writeln!(out, ": {count}, {:016x}{:016x}{:016x}{:016x}", sum[0], sum[1], sum[2], sum[3])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_same_in_any_order_and_differ_where_one_does() {
        let temp = tempfile::tempdir().unwrap();
        let evened = |text: &str| {
            let file = temp.path().join("dump");
            std::fs::write(&file, text).unwrap();
            let mut out = Vec::new();
            let mut kind = |line: &[u8]| match line[0] {
                b'-' => Line::Nothing,
                b'r' => Line::Among(b"rows".to_vec()),
                _ => Line::Plain,
            };
            copy(&file, &mut out, &mut kind).unwrap();
            out
        };
        assert_eq!(evened("a\nr1\nr2\nr2\n"), evened("-x\nr2\na\nr1\nr2\n"));
        assert_ne!(evened("a\nr1\nr2\nr2\n"), evened("a\nr1\nr1\nr2\n"));
        assert_ne!(evened("a\nr1\nr2\n"), evened("a\nr1\nr2\nr2\n"));
    }
}
