//! The paths of a root that no deployment touches.

use backout_model::target::{Refusal, TargetError};

use crate::path::RootPath;

#[derive(Clone, Debug, Default)]
pub struct Keep(Vec<RootPath>);

impl Keep {
    /// Reads the site's list; a trailing `/` is allowed.
    pub fn parse(paths: &[String], place: &str) -> Result<Self, Refusal> {
        paths
            .iter()
            .map(|text| RootPath::parse(text.strip_suffix('/').unwrap_or(text), place))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The kept path that `path` is or lies beneath.
    pub fn covering(&self, path: &RootPath) -> Option<&RootPath> {
        self.0.iter().find(|keep| keep.contains(path))
    }

    /// A kept path that `path` is or holds.
    pub fn inside(&self, path: &RootPath) -> Option<&RootPath> {
        self.0.iter().find(|keep| path.contains(keep))
    }
}

/// The refusal of a path because of a kept one.
pub fn refusal(place: &str, path: &RootPath, keep: &RootPath) -> TargetError {
    let why = if keep == path {
        "it is a keep path of the root".to_owned()
    } else if keep.contains(path) {
        format!("it lies beneath the keep path {keep} of the root")
    } else {
        format!("it holds the keep path {keep} of the root")
    };
    TargetError::Refused(Refusal {
        place: place.to_owned(),
        what: path.to_string(),
        why,
        ways_out: vec![
            "take the path out of the package or the step".to_owned(),
            "take it off the root's `keep` list in site.yaml".to_owned(),
        ],
    })
}
