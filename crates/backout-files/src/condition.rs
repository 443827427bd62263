//! Conditions on one path of a root.
//!
//! Reads in pieces, never follows a link, never changes anything.

use std::io;

use backout_model::target::TargetError;
use rustix::fd::OwnedFd;
use rustix::fs::FileType;
use sha2::{Digest, Sha256};

use crate::beneath::{is_blocked, is_missing};
use crate::error::Acting;
use crate::image::{self, file_type};
use crate::local::LocalRoot;
use crate::path::RootPath;
use crate::root::FileCondition;

impl LocalRoot {
    pub(crate) fn check_path(&self, path: &str, condition: &FileCondition) -> Result<Option<String>, TargetError> {
        let path = RootPath::parse(path.strip_suffix('/').unwrap_or(path), &self.label)?;
        let looking = || format!("cannot look at {path} in {}", self.label);
        let parent = match self.root.parent(&path) {
            Ok(parent) => Some(parent),
            Err(error) if is_missing(&error) => None,
            Err(error) if is_blocked(&error) => {
                return Ok(Some(format!("{path}: a directory on its way is a symbolic link or a file")));
            }
            Err(error) => return Err(error).acting(looking),
        };
        let found = match &parent {
            Some(parent) => image::stat(parent, path.name()).acting(looking)?,
            None => None,
        };
        let (Some(parent), Some(found)) = (parent, found) else {
            let missing =
                condition.exists != Some(false) || condition.sha256.is_some() || condition.contains.as_ref().is_some();
            return Ok(missing.then(|| format!("{path} does not exist")));
        };
        if condition.exists == Some(false) {
            return Ok(Some(format!("{path} exists")));
        }
        if condition.sha256.is_none() && condition.contains.is_none() {
            return Ok(None);
        }
        match file_type(&found) {
            FileType::RegularFile => {}
            FileType::Symlink => return Ok(Some(format!("{path} is a symbolic link, not a file"))),
            _ => return Ok(Some(format!("{path} is not a file"))),
        }
        if let Some(wanted) = &condition.sha256 {
            let file = image::open_file(&parent, path.name()).acting(looking)?;
            let sum = sha256(&file).acting(looking)?;
            if !sum.eq_ignore_ascii_case(wanted) {
                return Ok(Some(format!("{path} has the sha256 {sum}")));
            }
        }
        if let Some(text) = &condition.contains {
            let file = image::open_file(&parent, path.name()).acting(looking)?;
            if !contains(&file, text.as_bytes()).acting(looking)? {
                return Ok(Some(format!("{path} does not contain the text")));
            }
        }
        Ok(None)
    }
}

fn sha256(file: &OwnedFd) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = [0; 64 * 1024];
    loop {
        match image::read(file, &mut buffer)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            got => hasher.update(&buffer[..got]),
        }
    }
}

/// Seeks the text in pieces that overlap by its length less one.
fn contains(file: &OwnedFd, text: &[u8]) -> io::Result<bool> {
    if text.is_empty() {
        return Ok(true);
    }
    let mut buffer = vec![0; (64 * 1024).max(text.len() * 2)];
    let mut have = 0;
    loop {
        let got = image::read(file, &mut buffer[have..])?;
        if got == 0 {
            return Ok(false);
        }
        have += got;
        if buffer[..have].windows(text.len()).any(|window| window == text) {
            return Ok(true);
        }
        let keep = have.min(text.len() - 1);
        buffer.copy_within(have - keep..have, 0);
        have = keep;
    }
}
