//! The first member of a record: what the rest is, and at most how much.

use serde::{Deserialize, Serialize};

/// The version of the format that this version writes and reads.
pub const FORMAT: u32 = 1;
/// What a record's file name ends with.
pub const SUFFIX: &str = ".record.tar.zst";
/// The name of the first member.
pub const HEAD: &str = "backout-record.json";
/// The deployment's entries of the journal, one a line.
pub const JOURNAL: &str = "journal.jsonl";
/// Before- and after-images, a file each, named by the number of their entry.
pub const IMAGES: &str = "images";
/// The copy of the package that the deployment kept.
pub const PACKAGE: &str = "package";
/// `DATABASE/executed.sql` and `DATABASE/undo.sql`.
pub const SQL: &str = "sql";
/// `ROOT/ENTRY/before` and `ROOT/ENTRY/after`.
pub const FILES: &str = "files";
/// What every member before it is, one a line.
pub const MANIFEST: &str = "MANIFEST.jsonl";
/// The SHA-256 of every file before it, as `sha256sum` writes and checks them.
pub const SUMS: &str = "SHA256SUMS";
/// The SHA-256 of [`SUMS`]: what is signed.
pub const SEAL: &str = "SEAL";
/// The signature of [`SEAL`] as `ssh-keygen -Y sign` makes it.
pub const SIGNATURE: &str = "SEAL.sig";
/// What keeps a signature from being taken for one of something else (`ssh-keygen -n`).
pub const NAMESPACE: &str = "backout-record";

/// What a record says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Head {
    /// Version of the format.
    pub format: u32,
    /// Version of the tool that wrote it.
    pub tool: String,
    pub site: String,
    /// The deployment's id.
    pub deployment: String,
    pub package: String,
    pub version: String,
    /// Who deployed it: `user@host`.
    pub actor: String,
    /// Milliseconds since 1970 UTC: when the deployment began, and when the record was written.
    pub started_ms: i64,
    pub written_ms: i64,
    /// Of the deployment, as the journal has it.
    pub state: String,
    /// The first and last entry of the deployment, by number.
    pub first_entry: u64,
    pub last_entry: u64,
    pub databases: Vec<DatabasePart>,
    pub roots: Vec<String>,
    /// What the record lacks, in words.
    pub lacks: Vec<String>,
    /// Members that follow, the last ones with the checksums left out: at most.
    pub members: u64,
    /// Bytes of their content: at most.
    pub bytes: u64,
}

/// A database that the deployment changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatabasePart {
    pub name: String,
    /// `sqlite`, `postgres`, `mariadb`.
    pub engine: String,
    /// What `undo.sql` can't take back, in words; it then refuses to run. Empty: all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_in_script: Vec<String>,
}

/// The name of a record's file: site, package, version, time (UTC), id. Nothing in it needs quotes in a shell.
pub fn file_name(head: &Head, stamp: &str) -> String {
    let plain = |text: &str| -> String {
        let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+') { c } else { '_' };
        text.chars().take(60).map(kept).collect()
    };
    let (site, package, version) = (plain(&head.site), plain(&head.package), plain(&head.version));
    format!("{site}-{package}-{version}-{stamp}-{}{SUFFIX}", head.deployment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        let head = Head { site: "../a b".into(), package: "p".into(), version: "1/2".into(), ..Head::default() };
        assert_eq!(file_name(&head, "20261126T100000Z"), ".._a_b-p-1_2-20261126T100000Z-.record.tar.zst");
    }
}
