//! The state of a whole site as a value, and what differs between two of them.

use std::collections::BTreeMap;
use std::fmt;

use crate::database::{self, Lines};
use crate::files;
use crate::mariadb_dump;
use crate::postgres_dump;
use crate::site::TestSite;

/// Every database and every root, exactly.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// By `database main`, `root web`.
    pub parts: BTreeMap<String, Lines>,
}

impl Fingerprint {
    pub fn of(site: &TestSite) -> Self {
        let mut parts = BTreeMap::new();
        for name in site.databases() {
            let lines = match (site.postgres(name), site.mariadb(name)) {
                (Some(live), _) => postgres_dump::read(live),
                (None, Some(live)) => mariadb_dump::read(live),
                (None, None) => database::read(&site.database(name)),
            };
            parts.insert(format!("database {name}"), lines);
        }
        for name in site.roots() {
            parts.insert(format!("root {name}"), files::read(&site.root(name)));
        }
        Self { parts }
    }

    /// Without the times of directories: a deployment leaves them at the moment when it changed what is in them.
    #[must_use]
    pub fn without_directory_times(mut self) -> Self {
        let roots = self.parts.iter_mut().filter(|(part, _)| part.starts_with("root "));
        for line in roots.flat_map(|(_, lines)| lines.values_mut()).filter(|line| line.starts_with("directory ")) {
            if let Some((before, after)) = line.split_once(" mtime ") {
                let rest = after.split_once(' ').map(|(_, rest)| rest).unwrap_or_default();
                *line = format!("{before} {rest}");
            }
        }
        self
    }

    /// What another state has otherwise, a line each; empty where nothing differs.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (part, lines) in &self.parts {
            let Some(others) = other.parts.get(part) else {
                found.push(format!("{part}: gone"));
                continue;
            };
            for (name, line) in lines {
                match others.get(name) {
                    None => found.push(format!("{part}: {name}: missing, was {line}")),
                    Some(now) if now != line => found.push(format!("{part}: {name}: was {line}\n      is {now}")),
                    Some(_) => {}
                }
            }
            let extra = others.iter().filter(|(name, _)| !lines.contains_key(*name));
            found.extend(extra.map(|(name, line)| format!("{part}: {name}: extra, {line}")));
        }
        found.extend(
            other.parts.keys().filter(|part| !self.parts.contains_key(*part)).map(|part| format!("{part}: new")),
        );
        found
    }

    /// Panics with the differences where there are any.
    #[track_caller]
    pub fn assert_same(&self, other: &Self, what: &str) {
        let found = self.differences(other);
        assert!(found.is_empty(), "{what}: {} difference(s):\n  {}", found.len(), found.join("\n  "));
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (part, lines) in &self.parts {
            writeln!(f, "{part}")?;
            for (name, line) in lines {
                writeln!(f, "  {name}: {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, SystemTime};

    const SCHEMA: &str =
        "CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT, b); INSERT INTO t VALUES (1, 'x'), (2, 1);
        CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w VALUES ('k', 1);
        CREATE TABLE p (v); INSERT INTO p VALUES ('x'), ('x'); CREATE INDEX i ON t (b);";

    fn site() -> TestSite {
        let tree = Tree::new().file("a", "A").dir("empty").link("s", "a").file("l1", "L").same("l2", "l1");
        TestSite::builder().database("main", SCHEMA).root("web", tree).build()
    }

    #[test]
    fn every_difference_of_a_database_shows() {
        for change in [
            "UPDATE t SET b = 1.0 WHERE a = 2",
            "UPDATE t SET b = '1' WHERE a = 2",
            "UPDATE t SET b = x'78' WHERE a = 1",
            "UPDATE t SET a = 3 WHERE a = 2",
            "INSERT INTO t VALUES (9, 1); DELETE FROM t WHERE a = 9",
            "UPDATE w SET v = NULL",
            "DELETE FROM p WHERE rowid = 1",
            "UPDATE p SET rowid = 7 WHERE rowid = 2",
            "DROP INDEX i",
            "DROP INDEX i; CREATE INDEX i ON t  (b)",
            "CREATE VIEW v AS SELECT 1",
            "PRAGMA user_version = 7",
        ] {
            let site = site();
            let before = Fingerprint::of(&site);
            before.assert_same(&Fingerprint::of(&site), "unchanged");
            site.connect("main").execute_batch(change).unwrap();
            assert!(!before.differences(&Fingerprint::of(&site)).is_empty(), "{change}");
        }
        let site = site();
        let before = Fingerprint::of(&site);
        site.connect("main").execute_batch("CREATE TABLE backout_x (a); INSERT INTO backout_x VALUES (1)").unwrap();
        before.assert_same(&Fingerprint::of(&site), "the tool's own");
    }

    #[test]
    fn every_difference_of_a_tree_shows() {
        type Change = fn(&std::path::Path) -> std::io::Result<()>;
        let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_000_000, 7);
        assert_eq!(long_ago.duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos(), 7);
        let changes: [Change; 9] = [
            |d| fs::write(d.join("a"), "B"),
            |d| fs::set_permissions(d.join("a"), Permissions::from_mode(0o4755)),
            |d| File::open(d.join("a"))?.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_000_000, 7)),
            |d| File::open(d.join("empty"))?.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_000_000, 7)),
            |d| fs::remove_dir(d.join("empty")),
            |d| fs::remove_file(d.join("s")).and_then(|()| symlink("b", d.join("s"))),
            |d| Ok(rustix::fs::setxattr(d.join("a"), "user.x", b"1", rustix::fs::XattrFlags::empty())?),
            |d| fs::remove_file(d.join("l2")).and_then(|()| fs::copy(d.join("l1"), d.join("l2"))).map(drop),
            |d| fs::write(d.join("new"), ""),
        ];
        for (count, change) in changes.iter().enumerate() {
            let site = site();
            let before = Fingerprint::of(&site);
            before.assert_same(&Fingerprint::of(&site), "unchanged");
            change(&site.root("web")).unwrap();
            assert!(!before.differences(&Fingerprint::of(&site)).is_empty(), "change {count}");
        }
    }
}
