//! Finds a file or directory that a manifest names, and makes sure that it lies in the package.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use crate::words::{relative, shown};

/// Resolves `text` beneath `dir`, which is absolute and without symlinks. Symlinks on the way may lead elsewhere in the
/// package, but neither out of it nor by an absolute path: a copy of the package would still point at the original.
pub fn resolve(dir: &Path, text: &str) -> Result<(PathBuf, Metadata), String> {
    let parts = relative(text)?;
    let quoted = shown(text);
    let mut path = dir.to_owned();
    for part in &parts {
        path.push(part);
        let metadata = fs::symlink_metadata(&path).map_err(|e| unreachable(&quoted, &e))?;
        if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(|e| unreachable(&quoted, &e))?;
            if target.is_absolute() {
                return Err(format!(
                    "`{quoted}` passes through a symlink with an absolute path, which leaves the package"
                ));
            }
            let real = fs::canonicalize(&path).map_err(|e| unreachable(&quoted, &e))?;
            if !real.starts_with(dir) {
                return Err(format!("`{quoted}` leaves the package by a symlink"));
            }
        }
    }
    let metadata = fs::metadata(&path).map_err(|e| unreachable(&quoted, &e))?;
    Ok((path, metadata))
}

fn unreachable(quoted: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("there is no `{quoted}` in the package"),
        io::ErrorKind::NotADirectory => format!("there is no `{quoted}` in the package: a file is in the way"),
        _ => format!("`{quoted}` can't be reached: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_lies_in_the_package_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap().join("p");
        fs::create_dir_all(dir.join("sql/deep")).unwrap();
        fs::write(dir.join("sql/a.sql"), "").unwrap();
        fs::write(temp.path().join("out.sql"), "").unwrap();
        symlink("sql/a.sql", dir.join("inside")).unwrap();
        symlink("../out.sql", dir.join("outside")).unwrap();
        symlink(dir.join("sql"), dir.join("absolute")).unwrap();
        symlink("../..", dir.join("sql/up")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();

        assert_eq!(resolve(&dir, "./sql//a.sql").map(|(path, _)| path), Ok(dir.join("sql/a.sql")));
        assert!(resolve(&dir, "inside").is_ok());
        for (bad, why) in [
            ("sql/b.sql", "there is no `sql/b.sql` in the package"),
            ("sql/a.sql/x", "a file is in the way"),
            ("outside", "leaves the package by a symlink"),
            ("sql/up/out.sql", "leaves the package by a symlink"),
            ("absolute/a.sql", "absolute path"),
            ("../out.sql", "`..`"),
            ("/etc/passwd", "absolute"),
            ("loop", "can't be reached"),
        ] {
            let error = resolve(&dir, bad).expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
