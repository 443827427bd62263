//! Names of things in a history: deployments and the frames inside them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Length of a deployment's id in characters.
pub const ID_LENGTH: usize = 12;

/// The id of one deployment: twelve lowercase letters or digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeploymentId(String);

/// The text is not an id of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a deployment id (12 lowercase letters or digits)")]
pub struct BadId(pub String);

impl DeploymentId {
    /// Makes an id from 12 or more random bytes; how they are drawn is the caller's business.
    pub fn from_random(bytes: [u8; ID_LENGTH]) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        Self(bytes.iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeploymentId {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        let well_formed = text.len() == ID_LENGTH && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if well_formed { Ok(Self(text)) } else { Err(BadId(text)) }
    }
}

impl From<DeploymentId> for String {
    fn from(id: DeploymentId) -> Self {
        id.0
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a frame stands in its deployment: the names of the packages from the root's first child down,
/// joined by `/`. The root package's own frame is the empty path.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FramePath(String);

impl FramePath {
    pub fn root() -> Self {
        Self::default()
    }

    pub fn parse(text: &str) -> Self {
        Self(text.trim_matches('/').to_owned())
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}/{name}", self.0)) }
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// True for the frame itself and for every frame inside it.
    pub fn contains(&self, other: &FramePath) -> bool {
        self.is_root() || self == other || other.0.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The frames around it, from the next one out to the root; none for the root.
    pub fn parents(&self) -> Vec<FramePath> {
        let mut parents: Vec<FramePath> =
            self.0.match_indices('/').map(|(at, _)| Self(self.0[..at].to_owned())).rev().collect();
        if !self.is_root() {
            parents.push(Self::root());
        }
        parents
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FramePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_twelve_lowercase_letters_or_digits() {
        let id = DeploymentId::from_random([0, 31, 32, 255, 7, 8, 9, 10, 11, 12, 13, 14]);
        assert_eq!(DeploymentId::try_from(id.as_str().to_owned()), Ok(id));
        for bad in ["", "abc", "ABCDEFGHIJKL", "abcdefghijk/", "abcdefghijklm"] {
            assert!(DeploymentId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_frame_contains_itself_and_what_is_below() {
        let content = FramePath::root().child("content");
        assert!(FramePath::root().contains(&content));
        assert!(content.contains(&content.child("images")));
        assert!(!content.contains(&FramePath::parse("contents")));
        assert!(!content.contains(&FramePath::root()));
        assert_eq!(content.child("images").parents(), [content.clone(), FramePath::root()]);
        assert_eq!(FramePath::root().parents(), []);
    }
}
