//! The site as it is, against the model.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use backout_testkit::site::TestSite;

use super::generate::STRANGE;
use super::history::join;
use super::live::Live;
use super::world::{Key, Node, Row, Table, World};

/// What the model and the site do not agree on. `sample`: the site began as a database of which the model knows this.
pub fn differences(world: &World, site: &TestSite, sample: Option<&World>) -> Vec<String> {
    let mut live = Live::of(site);
    let there = live.tables();
    let mut wrong = Vec::new();
    let on_sample = sample.is_some_and(|sample| world.tables.keys().any(|name| sample.tables.contains_key(name)));
    for name in &there {
        let known = world.tables.contains_key(name) || name == "never" || name.starts_with(STRANGE);
        if !known && (!on_sample || name.starts_with('t')) {
            wrong.push(format!("table {name} is there"));
        }
    }
    let found = live.indexes();
    let wanted: BTreeMap<String, String> =
        world.indexes.iter().map(|(name, index)| (name.clone(), index.sql(name))).collect();
    if found != wanted {
        wrong.push(format!("the indexes are {found:?}, not {wanted:?}"));
    }
    for table in world.tables.values() {
        if there.contains(&table.name) {
            table_differs(table, &mut live, &mut wrong);
        } else {
            wrong.push(format!("table {} is missing", table.name));
        }
    }
    wrong.extend(files_differ(&world.files, &site.root("web")));
    wrong
}

fn table_differs(table: &Table, live: &mut Live, wrong: &mut Vec<String>) {
    let own: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    let keys = table.key_columns();
    let others = |name: &String| keys.contains(name) || table.busy && name == "w";
    let found: Vec<String> = live.columns(&table.name).into_iter().filter(|name| !others(name)).collect();
    if table.key.is_empty() && found != own {
        wrong.push(format!("table {} has the columns {found:?}, not {own:?}", table.name));
        return;
    }
    let list: Vec<String> = keys.iter().chain(&own).cloned().collect();
    let mut actual: BTreeMap<Key, Row> = BTreeMap::new();
    for mut values in live.rows(&format!("SELECT {} FROM {}", list.join(", "), table.name)) {
        let row = own.iter().cloned().zip(values.split_off(keys.len())).collect();
        if let Some(twin) = actual.insert(values.clone(), row) {
            wrong.push(format!("{} {values:?} is there twice: {twin:?}", table.name));
        }
    }
    for (key, row) in &table.rows {
        match actual.remove(key) {
            None => wrong.push(format!("{} {key:?} is missing: {row:?}", table.name)),
            Some(now) if now != *row => {
                wrong.push(format!("{} {key:?} should be {row:?}\n      and is {now:?}", table.name));
            }
            Some(_) => {}
        }
    }
    wrong.extend(actual.iter().map(|(key, row)| format!("{} {key:?} is there: {row:?}", table.name)));
}

fn files_differ(files: &BTreeMap<String, Node>, root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut actual = BTreeMap::new();
    let mut next = vec![String::new()];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap().map(Result::unwrap) {
            let path = join(&dir, &entry.file_name().into_string().unwrap());
            let found = fs::symlink_metadata(entry.path()).unwrap();
            let node = if found.is_dir() {
                next.push(path.clone());
                Node::Dir
            } else if found.is_symlink() {
                Node::Link(fs::read_link(entry.path()).unwrap().display().to_string())
            } else {
                let content = fs::read_to_string(entry.path()).unwrap();
                Node::File { content, mode: found.permissions().mode() & 0o7777 }
            };
            actual.insert(path, node);
        }
    }
    for (path, node) in files {
        match actual.remove(path) {
            None => wrong.push(format!("{path} is missing: {node:?}")),
            Some(now) if now != *node => wrong.push(format!("{path} should be {node:?} and is {now:?}")),
            Some(_) => {}
        }
    }
    wrong.extend(actual.iter().map(|(path, node)| format!("{path} is there: {node:?}")));
    wrong
}
