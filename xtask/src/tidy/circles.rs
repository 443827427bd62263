//! Circles: among crates, and among the modules of one crate. Only a module's own `use` and paths are looked at, by
//! text. A few modules that name each other's types are remarked on; a larger tangle is wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;

/// Who uses whom.
pub type Graph = BTreeMap<String, BTreeSet<String>>;

/// More modules than these that all use each other are a tangle.
const TANGLE: usize = 6;

/// Looks at every crate's top-level modules.
pub fn check(sources: &[(String, String)], findings: &mut Findings) {
    let mut crates: BTreeMap<&str, Graph> = BTreeMap::new();
    for (path, text) in sources {
        let Some((krate, inside)) = path.split_once("/src/") else { continue };
        let room = room(inside);
        if matches!(room, "main" | "lib" | "bin") {
            continue;
        }
        let uses = uses(text).into_iter().filter(|used| used != room);
        crates.entry(krate).or_default().entry(room.to_owned()).or_default().extend(uses);
    }
    for (krate, graph) in crates {
        for tangle in tangles(&graph) {
            let text = format!("{krate}: modules that use each other in a circle: {}", tangle.join(", "));
            if tangle.len() > TANGLE { findings.wrong(text) } else { findings.remark(text) }
        }
    }
}

/// The top-level module that a file of a crate belongs to.
fn room(inside: &str) -> &str {
    let first = inside.split('/').next().unwrap_or(inside);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The top-level modules of its own crate that a file names, tests left out: those may look anywhere.
fn uses(text: &str) -> BTreeSet<String> {
    const OWN: &str = "crate::";
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let mut used = BTreeSet::new();
    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices(OWN) {
            if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &line[at + OWN.len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(list) => list.split(',').collect(),
                None => vec![rest],
            };
            for name in names {
                let name = name.trim_start();
                let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
                // A capital is an item of the crate's root, not a module.
                if name[..end].starts_with(|c: char| c.is_lowercase()) {
                    used.insert(name[..end].to_owned());
                }
            }
        }
    }
    used
}

/// The sets of modules each of which reaches all others of its set.
fn tangles(graph: &Graph) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|from| (from, reachable(graph, from))).collect();
    let reaches = |from: &String, to: &String| reached.get(from).is_some_and(|set| set.contains(to));
    let mut tangles: Vec<Vec<String>> = graph
        .keys()
        .filter(|module| reaches(module, module))
        .map(|module| graph.keys().filter(|other| reaches(module, other) && reaches(other, module)).cloned().collect())
        .collect();
    tangles.sort();
    tangles.dedup();
    tangles
}

/// What a module uses, directly or through others.
fn reachable<'a>(graph: &'a Graph, from: &String) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&String> = graph.get(from).into_iter().flatten().collect();
    while let Some(module) = next.pop() {
        if found.insert(module) {
            next.extend(graph.get(module).into_iter().flatten());
        }
    }
    found
}

/// The first circle of a graph, its first member repeated at the end.
pub fn first(graph: &Graph) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    for start in graph.keys() {
        let mut path = Vec::new();
        if let Some(circle) = walk(graph, start, &mut path, &mut done) {
            return Some(circle);
        }
    }
    None
}

fn walk(graph: &Graph, at: &str, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
    if let Some(from) = path.iter().position(|seen| seen == at) {
        let mut circle = path[from..].to_vec();
        circle.push(at.to_owned());
        return Some(circle);
    }
    if done.contains(at) {
        return None;
    }
    path.push(at.to_owned());
    for next in graph.get(at).into_iter().flatten() {
        if let Some(circle) = walk(graph, next, path, done) {
            return Some(circle);
        }
    }
    path.pop();
    done.insert(at.to_owned());
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sources: &[(&str, &str)]) -> Findings {
        let owned: Vec<_> = sources.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let mut findings = Findings::default();
        check(&owned, &mut findings);
        findings
    }

    #[test]
    fn a_small_circle_is_remarked_on_and_a_tangle_is_wrong() {
        let ring = |modules: usize| {
            let uses = |n: usize| format!("use crate::{{other, m{}::Thing}};", (n + 1) % modules);
            let sources: Vec<_> = (0..modules).map(|n| (format!("crates/x/src/m{n}.rs"), uses(n))).collect();
            let borrowed: Vec<_> = sources.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
            found(&borrowed)
        };
        let small = ring(3);
        assert_eq!(small.remarks, ["crates/x: modules that use each other in a circle: m0, m1, m2"]);
        assert!(small.wrong.is_empty());
        assert!(ring(TANGLE).wrong.is_empty());
        assert_eq!(ring(TANGLE + 1).wrong.len(), 1);
    }

    #[test]
    fn one_way_use_tests_comments_and_other_crates_pass() {
        let findings = found(&[
            ("crates/x/src/plan.rs", "use crate::deploy::Deploy;\nuse crate::plan::more;"),
            ("crates/x/src/deploy.rs", "// use crate::plan;\n#[cfg(test)]\nmod tests { use crate::plan::Plan; }"),
            ("crates/y/src/deploy.rs", "use crate::plan::Plan;"),
        ]);
        assert!(findings.wrong.is_empty() && findings.remarks.is_empty(), "{findings:?}");
    }
}
