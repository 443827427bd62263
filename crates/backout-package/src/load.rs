//! From `package.yaml` to a [`Package`]: every rule that the types alone can't hold, each broken one with its place.
//!
//! Looks at what the manifest names (does the file exist, does it lie in the package), never into SQL or into trees.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::beneath;
use crate::decode::decode;
use crate::error::PackageError;
use crate::field::{Argv, Located, Text};
use crate::load_check::load_checks;
use crate::load_step::load_step;
use crate::manifest::{CommandFile, PackageFile};
use crate::package::{MANIFEST, Package};
use crate::siblings;
use crate::step::Command;
use crate::words::{check_name, shown};
use crate::yaml::{self, Spot};

/// The deepest nesting of packages.
pub const MAX_NESTING: usize = 16;

/// Finds a `files` directory by the path that people see.
pub type Sources<'a> = &'a dyn Fn(&str) -> Option<PathBuf>;

/// What is known while one package is read.
pub struct Loader<'a> {
    /// The package's directory, absolute and without symlinks.
    pub dir: PathBuf,
    /// Its manifest, as errors show it.
    pub file: PathBuf,
    /// What goes before its paths when people read them: empty, or `content/`.
    pub prefix: String,
    /// The names of the packages around it, the outermost first.
    pub above: Vec<String>,
    /// Where its `files` directories are, where that is not in the package: a snapshot has left them behind.
    pub sources: Option<Sources<'a>>,
}

/// The program of a command where it is a file of the package: a relative path with a `/` and no placeholder.
pub fn own_program(argv: &[String]) -> Option<&str> {
    argv.first().map(String::as_str).filter(|p| p.contains('/') && !p.starts_with('/') && !p.contains('{'))
}

impl<'a> Loader<'a> {
    /// For the outermost package.
    pub fn new(dir: &Path, sources: Option<Sources<'a>>) -> Result<Self, PackageError> {
        let real = fs::canonicalize(dir).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => PackageError::unusable(dir, "there is no such package"),
            _ => PackageError::read(dir, e),
        })?;
        if !real.is_dir() {
            return Err(PackageError::unusable(dir, "is neither a package's directory nor a bundle"));
        }
        // `./package.yaml` says no more than `package.yaml`.
        let file = if dir == Path::new(".") { PathBuf::from(MANIFEST) } else { dir.join(MANIFEST) };
        Ok(Self { dir: real, file, prefix: String::new(), above: Vec::new(), sources })
    }

    pub fn load(self) -> Result<Package, PackageError> {
        let path = self.dir.join(MANIFEST);
        self.manifest_stays(&path)?;
        let node = yaml::read(&path, &self.file)?;
        let manifest: PackageFile = decode(&node, &self.file)?;
        let name = self.name("package's name", &manifest.package)?;
        let version = self.name("version", &manifest.version)?;

        let mut requires = Vec::new();
        for required in &manifest.requires {
            let other = self.name("package's name", required)?;
            if other == name || self.above.contains(&other) {
                let what = format!("`{name}` can't require `{other}`, which is not deployed before it ends: a cycle");
                return Err(self.wrong(required.spot, what));
            }
            if requires.contains(&other) {
                return Err(self.wrong(required.spot, format!("`{other}` is required twice")));
            }
            requires.push(other);
        }

        if manifest.steps.value.is_empty() {
            return Err(self.wrong(manifest.steps.spot, "the package is empty: it has no steps"));
        }
        let mut steps = Vec::with_capacity(manifest.steps.value.len());
        let mut spots = Vec::new();
        for step in &manifest.steps.value {
            steps.push(load_step(&self, &name, step)?);
            spots.push(step.spot);
        }
        siblings::check(&self, &name, &requires, &manifest.requires, &steps, &spots)?;

        Ok(Package {
            requires,
            version,
            description: manifest.description.map(|text| text.0),
            atomic: manifest.atomic,
            before: load_checks(&self, &manifest.before)?,
            steps,
            finally: manifest.finally.iter().map(|c| self.command(c)).collect::<Result<_, _>>()?,
            after: load_checks(&self, &manifest.after)?,
            name,
            dir: self.dir,
            file: self.file,
        })
    }

    /// A manifest that is a symlink out of the package would not be in its bundle, and could read any file.
    fn manifest_stays(&self, path: &Path) -> Result<(), PackageError> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => match beneath::resolve(&self.dir, MANIFEST) {
                Ok(_) => Ok(()),
                Err(what) => Err(PackageError::unusable(&self.file, what)),
            },
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(PackageError::Unusable {
                path: self.file.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new(".")).to_owned(),
                what: format!("is not a package: it holds no {MANIFEST}"),
                hint: Some("`backout new NAME` writes one to start from".to_owned()),
            }),
            Err(e) => Err(PackageError::read(&self.file, e)),
        }
    }

    pub fn wrong(&self, spot: Spot, what: impl Into<String>) -> PackageError {
        PackageError::Wrong { place: spot.in_file(&self.file), what: what.into(), hint: None }
    }

    pub fn wrong_with(&self, spot: Spot, what: impl Into<String>, hint: impl Into<String>) -> PackageError {
        PackageError::Wrong { place: spot.in_file(&self.file), what: what.into(), hint: Some(hint.into()) }
    }

    fn name(&self, what: &str, text: &Located<Text>) -> Result<String, PackageError> {
        check_name(what, &text.value.0).map_err(|e| self.wrong(text.spot, e))?;
        Ok(text.value.0.clone())
    }

    /// A file of the package that a step names.
    pub fn regular_file(&self, spot: Spot, text: &str) -> Result<PathBuf, PackageError> {
        let (path, metadata) = beneath::resolve(&self.dir, text).map_err(|e| self.wrong(spot, e))?;
        if metadata.is_dir() {
            return Err(self.wrong(spot, format!("`{}` is a directory; a file is wanted here", shown(text))));
        }
        if !metadata.is_file() {
            return Err(self.wrong(spot, format!("`{}` is not a regular file", shown(text))));
        }
        Ok(path)
    }

    /// `text` as people see it from the outermost package.
    pub fn shown(&self, text: &str) -> String {
        let tidy: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        format!("{}{}", self.prefix, tidy.join("/"))
    }

    fn command(&self, command: &Located<CommandFile>) -> Result<Command, PackageError> {
        let file = &command.value;
        let timeout = self.positive("timeout", file.timeout.as_ref())?;
        self.program(file.run.spot, &file.run.value)?;
        Ok(Command { line: command.spot.line, argv: file.run.value.0.clone(), timeout })
    }

    /// A duration that may not be zero.
    pub fn positive(
        &self,
        key: &str,
        span: Option<&Located<crate::field::Span>>,
    ) -> Result<Option<std::time::Duration>, PackageError> {
        match span {
            Some(span) if span.value.0.is_zero() => {
                Err(self.wrong(span.spot, format!("`{key}` must be longer than nothing")))
            }
            Some(span) => Ok(Some(span.value.0)),
            None => Ok(None),
        }
    }

    /// A program of the package itself (`./bin/x`, `bin/x`) must be there and may be run. Programs that are looked up
    /// in PATH, absolute ones and those with placeholders are the site's.
    pub fn program(&self, spot: Spot, argv: &Argv) -> Result<(), PackageError> {
        let Some(program) = own_program(&argv.0) else { return Ok(()) };
        let path = self.regular_file(spot, program)?;
        let mode = fs::metadata(&path).map_err(|e| PackageError::read(&path, e))?.permissions().mode();
        if mode & 0o111 == 0 {
            let what = format!("`{}` is not executable", shown(program));
            return Err(self.wrong_with(spot, what, format!("chmod +x {}", self.shown(program))));
        }
        Ok(())
    }
}
