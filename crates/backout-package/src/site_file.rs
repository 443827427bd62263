//! The keys of `site.yaml`, as written. The types make the JSON Schema; what they allow beyond it, `site` checks.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::field::{Argv, Located, Named, Text};

/// Where packages are deployed: databases, file roots, and where the tool keeps its journal.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "backout site.yaml")]
pub struct SiteFile {
    /// The site's name: lowercase letters, digits, `-`, `_`.
    pub site: Located<Text>,
    /// The databases, by the names that packages use.
    #[serde(default)]
    pub databases: Named<DatabaseFile>,
    /// The directories that hold the site's files, by the names that packages use.
    #[serde(default)]
    pub roots: Named<RootFile>,
    /// Where journal and before-images lie, outside every root; `.backout` beside this file if left out.
    pub state: Option<Located<Text>>,
    /// Commands that close the site to its users while it changes, and open it again.
    pub maintenance: Option<MaintenanceFile>,
    /// Where full backups go; a deployment takes one before it starts.
    pub backup: Option<Located<BackupFile>>,
    /// True: at its end each deployment writes its record into `records` of the state directory.
    #[serde(default)]
    pub record: bool,
    /// Which deployments `prune` leaves undoable; all if left out.
    pub retention: Option<Located<RetentionFile>>,
    /// Whom to tell when a deployment or an undo goes wrong.
    #[serde(default)]
    pub alerts: Vec<Located<AlertFile>>,
    /// By whom packages must be signed.
    pub trust: Option<TrustFile>,
    /// What rehearsals may use beside what they make themselves.
    pub scratch: Option<ScratchFile>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DatabaseFile {
    /// `sqlite:PATH`, relative to this file, `postgresql://USER@HOST/DATABASE` or `mariadb://USER@HOST/DATABASE`. `${NAME}` is from the environment.
    pub url: Located<Text>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RootFile {
    /// The directory, relative to this file or absolute.
    pub path: Located<Text>,
    /// Paths in the root that no deployment touches, relative to it.
    #[serde(default)]
    pub keep: Vec<Located<Text>>,
}

/// Both commands run in the directory of this file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MaintenanceFile {
    pub enter: Argv,
    pub leave: Argv,
}

/// A repository of restic's format.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BackupFile {
    /// A directory, relative to this file or absolute, outside every root; `backups` in the state directory if left out.
    /// With a version that was built for it, also a place elsewhere: `rest:https://…`, `rclone:…`, `opendal:…`.
    pub repository: Option<Located<Text>>,
    /// The file whose first line is the repository's password, relative to this file. Without it no backup can be read.
    pub password_file: Located<Text>,
    /// Which backups stay; all if left out.
    pub keep: Option<Located<KeepFile>>,
}

/// A backup stays where any of these keeps it; the newest always does.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KeepFile {
    /// The last so many.
    pub last: Option<u32>,
    /// The last one of each hour, for so many hours that have one.
    pub hourly: Option<u32>,
    /// The same by days.
    pub daily: Option<u32>,
    /// The same by weeks.
    pub weekly: Option<u32>,
    /// The same by months.
    pub monthly: Option<u32>,
    /// The same by years.
    pub yearly: Option<u32>,
}

/// One way to tell: exactly one of `email` and `webhook`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["email", "smtp"] }, { "required": ["webhook"] }]))]
pub struct AlertFile {
    /// The address that gets a mail.
    pub email: Option<Located<Text>>,
    /// For `email`: the server that takes it: `smtp://HOST:PORT`, `smtps://USER:${PASSWORD}@HOST`; `?tls=required`,
    /// `?tls=if-offered` or `?tls=never` rule STARTTLS. With a password it is required if left out.
    pub smtp: Option<Located<Text>>,
    /// For `email`: the sender; `backout` at the machine's name if left out.
    pub from: Option<Located<Text>>,
    /// A URL that gets a POST.
    pub webhook: Option<Located<Text>>,
    /// For `webhook`: what it gets; `json` if left out.
    pub format: Option<Located<WebhookFormatFile>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WebhookFormatFile {
    /// Everything, field by field.
    Json,
    /// `{"text": …}` as Slack takes it.
    Slack,
    /// `{"text": …}` as Mattermost takes it.
    Mattermost,
}

/// What either of the two keeps stays undoable.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RetentionFile {
    /// The last so many deployments.
    pub keep: Option<u64>,
    /// Deployments that began within so many days.
    pub days: Option<u64>,
}

/// Which signatures count.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TrustFile {
    /// Whether a package without a signature is refused; false if left out. One with a bad signature always is.
    #[serde(default)]
    pub require_signature: bool,
    /// Files of public SSH keys, relative to this file.
    pub keys: Vec<Located<Text>>,
    /// The private SSH key by which this site signs its records, without a passphrase; they are not signed if left out.
    pub record_key: Option<Located<Text>>,
}

/// A rehearsal plays on copies in the state directory and on databases that it makes on the servers of the live ones. This
/// says otherwise, and what makes sure that commands and checks by HTTP find the copies and not the live site.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ScratchFile {
    /// Empty databases to be filled and emptied again, by the names of the site's databases.
    #[serde(default)]
    pub databases: Named<DatabaseFile>,
    /// Empty directories to lay the copies in, by the names of the site's roots.
    #[serde(default)]
    pub roots: Named<RootPlaceFile>,
    /// Variables that commands get besides. Only where this is given, also empty, a rehearsal runs commands.
    #[schemars(with = "Option<BTreeMap<String, Text>>")]
    pub environment: Option<Named<Located<Text>>>,
    /// Directories that are laid over the copies of roots, relative to this file: configuration that names the scratch databases.
    #[serde(default)]
    pub files: Named<Located<Text>>,
    /// Where the copies are served: scheme, host and port, which take the place of those in checks by HTTP.
    pub url: Option<Located<Text>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RootPlaceFile {
    /// The directory, relative to this file or absolute.
    pub path: Located<Text>,
}
