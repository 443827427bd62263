//! Packages as values, written as directories with a `package.yaml`.
//!
//! The manifest is written as JSON, which is YAML too: nothing has to be quoted by hand.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::tree::{PACKAGE_TIME, Tree};

/// A package to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pkg {
    pub name: String,
    pub version: String,
    pub requires: Vec<String>,
    pub atomic: Option<bool>,
    /// Checks as they stand in the manifest.
    pub before: Vec<Value>,
    pub after: Vec<Value>,
    pub steps: Vec<Step>,
    /// Each a command's words.
    pub finally: Vec<Vec<String>>,
}

/// A step and what further keys the manifest says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub kind: Kind,
    pub more: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Sql(String),
    /// With the script that undoes it.
    SqlUndoneBy(String, String),
    Files(Tree),
    Delete(Vec<String>),
    Run(Vec<String>),
    Child(Box<Pkg>),
}

impl From<Kind> for Step {
    fn from(kind: Kind) -> Self {
        Self { kind, more: Map::new() }
    }
}

impl Step {
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }
}

pub fn sql(text: impl Into<String>) -> Step {
    Kind::Sql(text.into()).into()
}

pub fn files(tree: Tree) -> Step {
    Kind::Files(tree).into()
}

pub fn delete<const N: usize>(paths: [&str; N]) -> Step {
    Kind::Delete(paths.map(str::to_owned).to_vec()).into()
}

/// A shell script as a command; without an undo it is declared irreversible.
pub fn run(script: &str, undo: Option<&str>) -> Step {
    let step = Step::from(Kind::Run(shell(script)));
    match undo {
        Some(undo) => step.with("undo", json!(shell(undo))),
        None => step.with("undo", "none").with("because", "the test says so"),
    }
}

/// A shell script as a command whose changes are captured, wherever the site has something.
pub fn captured(script: &str) -> Step {
    Step::from(Kind::Run(shell(script))).with("capture", "all")
}

/// The same of statements, run by SQLite's own client on the database `main`.
pub fn captured_sql(statements: &str) -> Step {
    let mut step = captured("printf '%s' \"$0\" | sqlite3 -bail \"$BACKOUT_DATABASE_MAIN\"");
    if let Kind::Run(argv) = &mut step.kind {
        argv.push(statements.to_owned());
    }
    step
}

/// The same of statements for PostgreSQL, run by its own client, each by itself.
pub fn captured_psql(statements: &str) -> Step {
    let mut step = captured("printf '%s' \"$0\" | psql -X -q -v ON_ERROR_STOP=1 \"$BACKOUT_DATABASE_MAIN\"");
    if let Kind::Run(argv) = &mut step.kind {
        argv.push(statements.to_owned());
    }
    step
}

/// The same of statements for MariaDB, run by its own client, each by itself.
pub fn captured_mariadb(statements: &str) -> Step {
    let mut step = captured(
        "url=\"$BACKOUT_DATABASE_MAIN\"; base=\"${url%%\\?*}\"; user=\"${base#*//}\"
         printf '%s' \"$0\" | mariadb --no-defaults --default-character-set=utf8mb4 --socket=\"${url#*socket=}\" --user=\"${user%%@*}\" \"${base##*/}\"",
    );
    if let Kind::Run(argv) = &mut step.kind {
        argv.push(statements.to_owned());
    }
    step
}

pub fn child(package: Pkg) -> Step {
    Kind::Child(Box::new(package)).into()
}

/// The words that run a shell script.
pub fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

/// A check that a query's value is what is expected.
pub fn sql_is(query: &str, equals: impl ToString) -> Value {
    json!({ "sql": query, "equals": equals.to_string() })
}

impl Pkg {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), version: "1.0".to_owned(), ..Self::default() }
    }

    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    #[must_use]
    pub fn requires(mut self, name: &str) -> Self {
        self.requires.push(name.to_owned());
        self
    }

    /// A plain list: each step stands alone.
    #[must_use]
    pub fn list(mut self) -> Self {
        self.atomic = Some(false);
        self
    }

    #[must_use]
    pub fn before(mut self, check: Value) -> Self {
        self.before.push(check);
        self
    }

    #[must_use]
    pub fn after(mut self, check: Value) -> Self {
        self.after.push(check);
        self
    }

    #[must_use]
    pub fn finally(mut self, script: &str) -> Self {
        self.finally.push(shell(script));
        self
    }

    /// Writes the package as the directory `at`, children in it by their names.
    pub fn write(&self, at: &Path) -> PathBuf {
        fs::create_dir_all(at).unwrap();
        let steps: Vec<Value> =
            self.steps.iter().enumerate().map(|(index, step)| Value::Object(step.write(at, index))).collect();
        let mut manifest = json!({
            "package": self.name, "version": self.version, "requires": self.requires,
            "before": self.before, "steps": steps, "after": self.after,
            "finally": self.finally.iter().map(|argv| json!({ "run": argv })).collect::<Vec<_>>(),
        });
        if let Some(atomic) = self.atomic {
            manifest["atomic"] = atomic.into();
        }
        fs::write(at.join("package.yaml"), serde_json::to_string_pretty(&manifest).unwrap()).unwrap();
        at.to_owned()
    }
}

impl Step {
    fn write(&self, at: &Path, index: usize) -> Map<String, Value> {
        let mut keys = Map::new();
        match &self.kind {
            Kind::Sql(text) => {
                let name = format!("{index}.sql");
                fs::write(at.join(&name), text).unwrap();
                keys.insert("sql".to_owned(), name.into());
            }
            Kind::SqlUndoneBy(text, undo) => {
                let (name, undo_name) = (format!("{index}.sql"), format!("{index}.undo.sql"));
                fs::write(at.join(&name), text).unwrap();
                fs::write(at.join(&undo_name), undo).unwrap();
                keys.insert("sql".to_owned(), name.into());
                keys.insert("undo".to_owned(), undo_name.into());
            }
            Kind::Files(tree) => {
                let name = format!("{index}.files");
                tree.write(&at.join(&name), PACKAGE_TIME);
                keys.insert("files".to_owned(), name.into());
            }
            Kind::Delete(paths) => {
                keys.insert("delete".to_owned(), json!(paths));
            }
            Kind::Run(argv) => {
                keys.insert("run".to_owned(), json!(argv));
            }
            Kind::Child(package) => {
                package.write(&at.join(&package.name));
                keys.insert("package".to_owned(), package.name.clone().into());
            }
        }
        keys.extend(self.more.clone());
        keys
    }
}
