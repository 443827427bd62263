//! The layer rule among the crates: `model ← {package, journal, sql, files, net} ← engine ← cli`, and
//! `model ← backup ← cli`, no circles, the
//! testkit only for tests. It knows the crates by name: a new crate must be given its place here first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::Findings;

/// Each crate with the crates of the workspace that it may use. `xtask` judges from outside and may use none
/// of the tool's; `backout-servers` is no part of the tool.
const MAY_USE: &[(&str, &[&str])] = &[
    ("backout-model", &[]),
    ("backout-package", &["backout-model"]),
    ("backout-journal", &["backout-model"]),
    ("backout-sql", &["backout-model"]),
    ("backout-files", &["backout-model"]),
    ("backout-record", &["backout-model"]),
    ("backout-net", &[]),
    ("backout-backup", &["backout-model"]),
    (
        "backout-engine",
        &[
            "backout-model",
            "backout-package",
            "backout-journal",
            "backout-sql",
            "backout-files",
            "backout-record",
            "backout-net",
        ],
    ),
    (
        "backout-cli",
        &[
            "backout-model",
            "backout-package",
            "backout-journal",
            "backout-sql",
            "backout-files",
            "backout-record",
            "backout-net",
            "backout-backup",
            "backout-engine",
        ],
    ),
    ("backout-servers", &[]),
    (
        "backout-testkit",
        &[
            "backout-model",
            "backout-package",
            "backout-journal",
            "backout-sql",
            "backout-files",
            "backout-engine",
            "backout-servers",
        ],
    ),
    ("xtask", &["backout-servers"]),
];

/// What no crate of the workspace may name, and why. What others bring along is `deny.toml`'s.
const NEVER: &[(&str, &str)] = &[
    ("tokio", "a deployment is serial by nature; async stays inside a library that forces it"),
    ("async-std", "a deployment is serial by nature"),
    ("futures", "a deployment is serial by nature"),
];

const TESTKIT: &str = "backout-testkit";

/// One crate of the workspace and what it depends on inside the workspace.
#[derive(Debug)]
pub struct Crate {
    pub name: String,
    pub edges: Vec<Edge>,
    /// Crates from elsewhere.
    pub outside: Vec<String>,
    /// Whether its manifest takes over the workspace's lints.
    pub lints_shared: bool,
}

/// A dependency on another crate of the workspace.
#[derive(Debug)]
pub struct Edge {
    pub to: String,
    /// Only tests and benches see it.
    pub dev: bool,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

/// Asks cargo for the crates of the workspace.
pub fn read(root: &Path) -> Result<Vec<Crate>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    let mut crates = Vec::new();
    for package in metadata.packages {
        let manifest = std::fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("reading {}", package.manifest_path))?;
        let (own, outside): (Vec<_>, Vec<_>) =
            package.dependencies.into_iter().partition(|dependency| dependency.path.is_some());
        let outside = outside.into_iter().map(|dependency| dependency.name).collect();
        let edges = own
            .into_iter()
            .map(|dependency| Edge { dev: dependency.kind.as_deref() == Some("dev"), to: dependency.name })
            .collect();
        crates.push(Crate { name: package.name, edges, outside, lints_shared: shares_lints(&manifest) });
    }
    Ok(crates)
}

fn shares_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim);
    lines.any(|line| line == "[lints]") && lines.next() == Some("workspace = true")
}

/// Looks at every edge, then for circles.
pub fn check(crates: &[Crate], findings: &mut Findings) {
    for each in crates {
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == each.name) else {
            findings.wrong(format!("crate {} has no place in the layers (xtask/src/tidy/layers.rs)", each.name));
            continue;
        };
        if !each.lints_shared {
            findings.wrong(format!("crate {}: `[lints] workspace = true` is missing", each.name));
        }
        for (name, why) in NEVER.iter().filter(|(name, _)| each.outside.iter().any(|outside| outside == name)) {
            findings.wrong(format!("crate {} must not use {name}: {why}", each.name));
        }
        for edge in &each.edges {
            // A crate names itself among its dev-dependencies to turn on a feature of its own in tests.
            let for_tests = edge.dev && (edge.to == TESTKIT || edge.to == each.name);
            if !for_tests && !allowed.contains(&edge.to.as_str()) {
                findings.wrong(format!("wrong edge: {} must not use {}", each.name, edge.to));
            }
        }
    }
    if let Some(circle) = circle(crates) {
        findings.wrong(format!("circle among crates: {}", circle.join(" → ")));
    }
}

/// The first circle among the crates, its first crate repeated at the end. What only tests use is left out: the
/// testkit's users are below it.
fn circle(crates: &[Crate]) -> Option<Vec<String>> {
    let mut graph = BTreeMap::new();
    for each in crates {
        let to: BTreeSet<String> = each.edges.iter().filter(|edge| !edge.dev).map(|edge| edge.to.clone()).collect();
        graph.insert(each.name.clone(), to);
    }
    super::circles::first(&graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn krate(name: &str, uses: &[&str], dev: &[&str]) -> Crate {
        let edge = |dev| move |to: &&str| Edge { to: (*to).to_owned(), dev };
        let edges = uses.iter().map(edge(false)).chain(dev.iter().map(edge(true))).collect();
        Crate { name: name.to_owned(), edges, outside: Vec::new(), lints_shared: true }
    }

    fn found(crates: &[Crate]) -> Vec<String> {
        let mut findings = Findings::default();
        check(crates, &mut findings);
        findings.wrong
    }

    #[test]
    fn the_layers_as_they_are_meant_pass() {
        let crates = [
            krate("backout-model", &[], &[TESTKIT, "backout-model"]),
            krate("backout-sql", &["backout-model"], &[TESTKIT]),
            krate("backout-engine", &["backout-sql", "backout-files"], &[TESTKIT]),
            krate("backout-cli", &["backout-engine", "backout-sql"], &[TESTKIT]),
            krate(TESTKIT, &["backout-engine"], &[]),
        ];
        assert_eq!(found(&crates), Vec::<String>::new());
    }

    #[test]
    fn an_edge_upwards_between_siblings_or_into_the_testkit_is_wrong() {
        for (from, to) in [
            ("backout-model", "backout-sql"),
            ("backout-sql", "backout-files"),
            ("backout-engine", "backout-cli"),
            ("backout-cli", TESTKIT),
            ("xtask", "backout-model"),
        ] {
            let wrong = found(&[krate(from, &[to], &[])]);
            assert_eq!(wrong, [format!("wrong edge: {from} must not use {to}")]);
        }
    }

    #[test]
    fn tests_do_not_widen_the_layers() {
        let wrong = found(&[krate("backout-sql", &[], &["backout-files"])]);
        assert_eq!(wrong, ["wrong edge: backout-sql must not use backout-files"]);
    }

    #[test]
    fn async_code_stays_with_others() {
        let mut one = krate("backout-net", &[], &[]);
        one.outside = ["ureq", "tokio"].map(str::to_owned).to_vec();
        let wrong = found(&[one]);
        assert!(wrong.len() == 1 && wrong[0].starts_with("crate backout-net must not use tokio: "), "{wrong:?}");
    }

    #[test]
    fn a_circle_is_named() {
        let wrong =
            found(&[krate("backout-sql", &["backout-files"], &[]), krate("backout-files", &["backout-sql"], &[])]);
        assert!(
            wrong.iter().any(|w| w == "circle among crates: backout-files → backout-sql → backout-files"),
            "{wrong:?}"
        );
    }

    #[test]
    fn an_unknown_crate_or_one_without_the_lints_is_wrong() {
        assert!(found(&[krate("backout-extra", &[], &[])])[0].contains("no place in the layers"));
        let mut bare = krate("backout-model", &[], &[]);
        bare.lints_shared = false;
        assert!(found(&[bare])[0].contains("is missing"));
        assert!(shares_lints("[lints]\nworkspace = true\n"));
        assert!(!shares_lints("[dependencies]\nworkspace = true\n"));
    }
}
