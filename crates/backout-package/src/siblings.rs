//! What the children of one package must be to each other: distinct, and required in an order that can be met.

use std::collections::HashMap;

use crate::error::PackageError;
use crate::field::{Located, Text};
use crate::load::Loader;
use crate::step::{Child, Step, StepKind};
use crate::yaml::Spot;

/// Checks the children among `steps`, which begin at `spots`.
pub fn check(
    loader: &Loader<'_>,
    name: &str,
    requires: &[String],
    required_at: &[Located<Text>],
    steps: &[Step],
    spots: &[Spot],
) -> Result<(), PackageError> {
    let children: Vec<(&Child, Spot)> = steps
        .iter()
        .zip(spots)
        .filter_map(|(step, spot)| match &step.kind {
            StepKind::Package(child) => Some((child, *spot)),
            StepKind::Sql(_) | StepKind::Files(_) | StepKind::Delete(_) | StepKind::Run(_) => None,
        })
        .collect();
    let mut elements = HashMap::new();
    let mut places = HashMap::new();
    for (place, (child, spot)) in children.iter().enumerate() {
        if let Some(line) = elements.insert(child.name.as_str(), spot.line) {
            let what = format!("a second child in a directory called `{}`, after the one on line {line}", child.name);
            return Err(loader.wrong(*spot, what));
        }
        if let Some(earlier) = places.insert(child.package.name.as_str(), place) {
            let line = children[earlier].1.line;
            let what = format!("a second child package named `{}`, after the one on line {line}", child.package.name);
            return Err(loader.wrong(*spot, what));
        }
    }
    for (other, at) in requires.iter().zip(required_at) {
        if places.contains_key(other.as_str()) {
            let what = format!("`{name}` can't require its own child `{other}`: a cycle");
            return Err(loader.wrong(at.spot, what));
        }
    }
    for (place, (child, spot)) in children.iter().enumerate() {
        for required in &child.package.requires {
            let Some(&other) = places.get(required.as_str()) else { continue };
            if other <= place {
                continue;
            }
            let (one, two) = (&child.package.name, required);
            return Err(match cycle(&children, &places, place) {
                Some(path) => loader.wrong(*spot, format!("a cycle among children: {path}")),
                None => loader.wrong_with(
                    *spot,
                    format!("the child `{one}` requires `{two}`, which comes after it"),
                    format!("move the step of `{two}` before this one"),
                ),
            });
        }
    }
    Ok(())
}

/// The way from a child back to itself along `requires`, if there is one.
fn cycle(children: &[(&Child, Spot)], places: &HashMap<&str, usize>, start: usize) -> Option<String> {
    let mut from: HashMap<usize, usize> = HashMap::new();
    let mut to_see = vec![start];
    while let Some(place) = to_see.pop() {
        for required in &children[place].0.package.requires {
            let Some(&next) = places.get(required.as_str()) else { continue };
            if next == start {
                let mut names = vec![children[start].0.package.name.as_str()];
                let mut at = place;
                while at != start {
                    names.push(&children[at].0.package.name);
                    at = *from.get(&at)?;
                }
                names.push(&children[start].0.package.name);
                names.reverse();
                return Some(names.join(" → "));
            }
            if let std::collections::hash_map::Entry::Vacant(entry) = from.entry(next) {
                entry.insert(place);
                to_see.push(next);
            }
        }
    }
    None
}
