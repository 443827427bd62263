//! Two dumps compared line by line, however large they are.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use backout_model::backup::BackupError;

/// The longest line that is told, in characters.
const TOLD: usize = 120;

/// The first line that one of two files does not have in common with the other, after `evened`, which leaves out the
/// lines that it gives none for.
pub fn first_difference(
    one: &Path,
    other: &Path,
    evened: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Option<String>, BackupError> {
    let (mut one, mut other) = (Lines::open(one)?, Lines::open(other)?);
    loop {
        match (one.next(evened)?, other.next(evened)?) {
            (None, None) => return Ok(None),
            (a, b) if a == b => {}
            (a, b) => {
                let line = a.or(b).unwrap_or_default();
                return Ok(Some(String::from_utf8_lossy(&line).trim().chars().take(TOLD).collect()));
            }
        }
    }
}

struct Lines<'a> {
    path: &'a Path,
    file: BufReader<File>,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self, BackupError> {
        let failed = |error| BackupError::failed(format!("cannot read {}", path.display()), error);
        Ok(Self { path, file: BufReader::new(File::open(path).map_err(failed)?) })
    }

    fn next(&mut self, evened: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> Result<Option<Vec<u8>>, BackupError> {
        loop {
            let mut line = Vec::new();
            let failed = |error| BackupError::failed(format!("cannot read {}", self.path.display()), error);
            if self.file.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                return Ok(None);
            }
            if let Some(line) = evened(&line) {
                return Ok(Some(line));
            }
        }
    }
}
