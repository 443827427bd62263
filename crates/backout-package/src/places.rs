//! Where the directories of a site lie to each other, symlinks resolved as far as there is something to resolve.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// `path`, absolute, with symlinks resolved in the part that exists and `..` taken out of the rest.
pub fn real(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(mut real) = fs::canonicalize(ancestor) {
            for part in path.strip_prefix(ancestor).into_iter().flat_map(Path::components) {
                match part {
                    Component::ParentDir => {
                        real.pop();
                    }
                    Component::Normal(name) => real.push(name),
                    Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
                }
            }
            return real;
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_is_resolved_and_the_rest_tidied() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        fs::create_dir(base.join("a")).unwrap();
        std::os::unix::fs::symlink("a", base.join("l")).unwrap();
        assert_eq!(real(&base.join("l/x/../y")), base.join("a/y"));
        assert_eq!(real(&base.join("l/../a")), base.join("a"));
        assert_eq!(real(&base.join("none/./z")), base.join("none/z"));
    }
}
