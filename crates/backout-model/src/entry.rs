//! One line of the journal, and its place in the hash chain.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{DeploymentId, FramePath};
use crate::state::Event;

/// Version of the bytes that [`Entry::digest`] hashes and of the payloads.
pub const ENTRY_VERSION: u32 = 1;

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// What the first entry of a journal follows.
    pub const ZERO: Digest = Digest([0; 32]);

    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.hex()[..16])
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("not a digest of 64 hex digits"))
    }
}

/// The before- and after-images of a step, kept outside its entry and bound to it by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagesRef {
    pub bytes: u64,
    pub digest: Digest,
}

/// An entry as its writer hands it over; number, time and chain are the journal's.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// None for entries of the site as a whole.
    pub deployment: Option<DeploymentId>,
    pub frame: FramePath,
    /// The number of the step in its frame, from 0; none for entries of a frame or deployment.
    pub step: Option<u32>,
    pub event: Event,
    pub payload: Value,
}

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1, without gaps.
    pub seq: u64,
    /// Milliseconds since 1970 UTC; never goes back within a journal.
    pub time_ms: i64,
    /// Who: `user@host`.
    pub actor: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deployment: Option<DeploymentId>,
    pub frame: FramePath,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step: Option<u32>,
    pub event: Event,
    pub payload: Value,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub images: Option<ImagesRef>,
    /// The digest of the entry before.
    pub previous: Digest,
}

impl Entry {
    /// The digest of this entry: BLAKE3 over its canonical JSON (keys in the order of the struct, maps sorted),
    /// preceded by [`ENTRY_VERSION`] as four little-endian bytes.
    pub fn digest(&self) -> Result<Digest, serde_json::Error> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&ENTRY_VERSION.to_le_bytes());
        hasher.update(&serde_json::to_vec(self)?);
        Ok(Digest(*hasher.finalize().as_bytes()))
    }
}
