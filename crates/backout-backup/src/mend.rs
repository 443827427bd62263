//! What the library does not restore: links to links and to other things that are no files, and holes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use backout_model::backup::BackupError;
use rustic_core::repofile::Node;
use rustic_core::{IndexedFullStatus, Repository};
use rustix::fs::FallocateFlags;

use crate::compare::walk;

/// Holes are dug in steps of this: the size of a block in most file systems.
const BLOCK: usize = 4096;

/// Makes one thing again of what had several names and is no file: symbolic links, pipes, sockets, devices.
pub fn links(repository: &Repository<IndexedFullStatus>, node: &Node, top: &Path) -> Result<(), BackupError> {
    let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut dirs = Vec::new();
    walk(repository, node, |path, node| {
        if node.is_file() || node.is_dir() || node.meta.links < 2 || node.meta.device_id == 0 {
            return Ok(());
        }
        let here = top.join(&path);
        match first.get(&(node.meta.device_id, node.meta.inode)) {
            Some(other) => {
                let failed = |error| BackupError::failed(format!("cannot link {}", path.display()), error);
                let parent = here.parent().unwrap_or(top).to_owned();
                let times = times(&parent).map_err(failed)?;
                fs::remove_file(&here).map_err(failed)?;
                fs::hard_link(other, &here).map_err(failed)?;
                dirs.push((parent, times));
            }
            None => drop(first.insert((node.meta.device_id, node.meta.inode), here)),
        }
        Ok(())
    })?;
    for (path, times) in dirs.into_iter().rev() {
        set_times(&path, &times)
            .map_err(|error| BackupError::failed(format!("cannot date {}", path.display()), error))?;
    }
    Ok(())
}

/// Gives back the blocks of a file that hold zeros alone.
pub fn holes(path: &Path) -> io::Result<()> {
    let times = times(path)?;
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut buffer = vec![0; BLOCK];
    let (mut at, mut hole) = (0_u64, None);
    loop {
        let length = whole(&mut file, &mut buffer)?;
        if length > 0 && buffer[..length].iter().all(|byte| *byte == 0) {
            hole.get_or_insert(at);
        } else if let Some(from) = hole.take() {
            rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, from, at - from)?;
            file.seek(SeekFrom::Start(at + length as u64))?;
        }
        if length == 0 {
            break;
        }
        at += length as u64;
    }
    drop(file);
    set_times(path, &times)
}

fn whole(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}

fn times(path: &Path) -> io::Result<fs::FileTimes> {
    let meta = fs::metadata(path)?;
    Ok(fs::FileTimes::new().set_accessed(meta.accessed()?).set_modified(meta.modified()?))
}

fn set_times(path: &Path, times: &fs::FileTimes) -> io::Result<()> {
    File::open(path)?.set_times(*times)
}
