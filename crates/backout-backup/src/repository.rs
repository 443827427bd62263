//! The repository of restic's format: opened, made, listed, thinned out.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use backout_model::backup::{BackupError, Keep, Snapshot, is_remote};
use rustic_backend::BackendOptions;
use rustic_core::jiff::Zoned;
use rustic_core::repofile::SnapshotFile;
use rustic_core::{
    ConfigOptions, Credentials, KeepOptions, KeyOptions, OpenStatus, PruneOptions, Repository, RepositoryOptions,
    RusticError,
};

/// The tag of every snapshot that this tool makes.
const OURS: &str = "backout";

/// Opens a repository; makes it where there is none and `create` says so.
pub fn open(repository: &str, credentials: &Credentials, create: bool) -> Result<Repository<OpenStatus>, BackupError> {
    let failed = |error: Box<RusticError>| said(&format!("cannot open the backup repository {repository}"), &error);
    if is_remote(repository) && !cfg!(feature = "remote") {
        return Err(BackupError::new(format!("the backup repository {repository} is on another machine"))
            .hint("this backout was built without remote repositories: give a local path, or build it with `--features remote`"));
    }
    if create && !is_remote(repository) {
        let mut directory = fs::DirBuilder::new();
        directory
            .recursive(true)
            .mode(0o700)
            .create(Path::new(repository))
            .map_err(|error| BackupError::failed(format!("cannot make the backup repository {repository}"), error))?;
    }
    let backends = BackendOptions::default().repository(repository.to_owned()).to_backends().map_err(failed)?;
    // A cache would lie outside of the state directory.
    let unopened = Repository::new(&RepositoryOptions::default().no_cache(true), &backends).map_err(failed)?;
    if unopened.config_id().map_err(failed)?.is_none() {
        if !create {
            return Err(BackupError::new(format!("there is no backup repository at {repository}"))
                .hint("`backout backup` makes it with the first backup"));
        }
        return unopened.init(credentials, &KeyOptions::default(), &ConfigOptions::default()).map_err(failed);
    }
    unopened.open(credentials).map_err(|error| {
        if error.is_incorrect_password() {
            return BackupError::new(format!("the password of the backup repository {repository} is wrong"))
                .hint("`password-file:` under `backup:` in site.yaml names the file that holds it");
        }
        failed(error)
    })
}

/// The snapshots of a site, the newest first.
pub fn snapshots(repository: &Repository<OpenStatus>, site: &str) -> Result<Vec<SnapshotFile>, BackupError> {
    let mut all = repository
        .get_matching_snapshots(|snapshot| is_of(snapshot, site))
        .map_err(|error| said("cannot list the backups", &error))?;
    all.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.time.timestamp()));
    Ok(all)
}

fn is_of(snapshot: &SnapshotFile, site: &str) -> bool {
    snapshot.tags.contains(OURS) && snapshot.tags.contains(&site_tag(site))
}

/// The tags of a new snapshot.
pub fn tags(site: &str, deployment: Option<&str>) -> Vec<String> {
    let mut tags = vec![OURS.to_owned(), site_tag(site)];
    tags.extend(deployment.map(|id| format!("{BEFORE}{id}")));
    tags
}

const BEFORE: &str = "before:";

fn site_tag(site: &str) -> String {
    format!("site:{site}")
}

/// A snapshot as the engine knows it.
pub fn shown(snapshot: &SnapshotFile) -> Snapshot {
    Snapshot {
        id: snapshot.id.to_hex().to_string(),
        tree: snapshot.tree.to_hex().to_string(),
        taken_ms: snapshot.time.timestamp().as_millisecond(),
        deployment: (&snapshot.tags).into_iter().find_map(|tag| tag.strip_prefix(BEFORE)).map(str::to_owned),
    }
}

/// Those of `all`, the newest first, that no rule keeps. The newest always stays.
pub fn surplus(
    all: Vec<SnapshotFile>,
    keep: Keep,
    protected: &BTreeSet<String>,
) -> Result<Vec<SnapshotFile>, BackupError> {
    if keep == Keep::default() {
        return Ok(Vec::new());
    }
    let number = |number: Option<u32>| number.map(|number| i32::try_from(number).unwrap_or(i32::MAX));
    let mut ids: Vec<String> = protected.iter().cloned().collect();
    ids.extend(all.first().map(|newest| newest.id.to_hex().to_string()));
    let keep = KeepOptions::default()
        .keep_ids(ids)
        .keep_last(number(keep.last))
        .keep_hourly(number(keep.hourly))
        .keep_daily(number(keep.daily))
        .keep_weekly(number(keep.weekly))
        .keep_monthly(number(keep.monthly))
        .keep_yearly(number(keep.yearly));
    let judged = keep.apply(all, &Zoned::now()).map_err(|error| said("cannot tell which backups to keep", &error))?;
    Ok(judged.into_iter().filter(|one| !one.keep).map(|one| one.snapshot).collect())
}

/// Forgets snapshots and removes what only they needed.
pub fn forget(repository: &Repository<OpenStatus>, snapshots: &[SnapshotFile]) -> Result<(), BackupError> {
    if snapshots.is_empty() {
        return Ok(());
    }
    let failed = |error: Box<RusticError>| said("cannot forget backups", &error);
    let ids: Vec<_> = snapshots.iter().map(|snapshot| snapshot.id).collect();
    repository.delete_snapshots(&ids).map_err(failed)?;
    // Whoever else uses the repository at this moment may be about to refer to a pack: it is marked first, and removed
    // by a later run.
    let options = PruneOptions::default();
    let plan = repository.prune_plan(&options).map_err(failed)?;
    repository.prune(&options, plan).map_err(failed)
}

/// What the library says of a failure, on one line.
pub fn said(what: &str, error: &RusticError) -> BackupError {
    let told = error.display_log();
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    BackupError::failed(what, told.strip_prefix("Error: ").unwrap_or(&told).to_owned())
}
