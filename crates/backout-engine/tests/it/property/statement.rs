//! The statements and file operations of packages and of the application: as SQL, and as what they do to a world.

use std::collections::BTreeMap;

use super::index::{Index, Indexes};
use super::world::{Column, Effect, Form, Key, Node, Part, Row, Table, Value, Way, World};

#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    All,
    Keys(Vec<Key>),
    Equals(String, Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Insert,
    Replace,
    Ignore,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    Insert {
        table: String,
        verb: Verb,
        rows: Vec<(Key, Row)>,
    },
    /// Inserts, or sets one column of the row that is there.
    Upsert {
        table: String,
        key: Key,
        row: Row,
        column: String,
    },
    Update {
        table: String,
        set: Vec<(String, Value)>,
        filter: Filter,
    },
    /// Exchanges the values of a unique column of two rows, by way of a third value; the values are as they were when
    /// the statement was written.
    Swap {
        table: String,
        column: String,
        keys: [Key; 2],
        values: [Value; 2],
        between: Value,
    },
    Delete {
        table: String,
        filter: Filter,
    },
    /// `DELETE FROM t`, without more.
    Empty {
        table: String,
    },
    Create(Table),
    Drop {
        table: String,
    },
    CreateIndex {
        name: String,
        index: Index,
    },
    DropIndex {
        name: String,
    },
    AddColumn {
        table: String,
        column: Column,
        text: u64,
    },
    DropColumn {
        table: String,
        column: String,
        text: u64,
    },
    /// Create, copy, drop, rename; perhaps without a column that was there when it was written, perhaps with a new one.
    Rebuild {
        table: String,
        before: Vec<String>,
        after: Vec<Column>,
        text: u64,
    },
    /// Always fails when it runs.
    Fail,
}

impl Table {
    pub fn key_columns(&self) -> Vec<String> {
        if !self.key.is_empty() {
            return self.key.clone();
        }
        let names: &[&str] = match self.form {
            Form::Integer | Form::Autoincrement => &["id"],
            Form::Text => &["k"],
            Form::Pair => &["a", "b"],
            Form::Loose => &[self.dialect.row_number()],
        };
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// `CREATE TABLE` under a name.
    pub fn create(&self, name: &str) -> String {
        self.dialect.create(self, name)
    }

    fn value(&self, value: &Value) -> String {
        self.dialect.value(value)
    }

    fn place(&self, key: &Key) -> String {
        let columns = self.key_columns();
        columns
            .iter()
            .zip(key)
            .map(|(name, value)| format!("{name} = {}", self.value(value)))
            .collect::<Vec<_>>()
            .join(" AND ")
    }

    fn insert(&self, verb: Verb, rows: &[(Key, Row)]) -> String {
        let (verb, end) = self.dialect.verb(self, verb);
        let mut names = self.key_columns();
        names.extend(self.columns.iter().map(|column| column.name.clone()));
        let values: Vec<String> = rows
            .iter()
            .map(|(key, row)| {
                let columns = self.columns.iter().map(|column| &row[&column.name]);
                format!("({})", key.iter().chain(columns).map(|value| self.value(value)).collect::<Vec<_>>().join(", "))
            })
            .collect();
        format!("{verb} INTO {} ({}) VALUES {}{end}", self.name, names.join(", "), values.join(", "))
    }

    /// The script that makes the table with its rows.
    pub fn script(&self) -> String {
        let rows: Vec<(Key, Row)> = self.rows.iter().map(|(key, row)| (key.clone(), row.clone())).collect();
        let insert = if rows.is_empty() { String::new() } else { self.insert(Verb::Insert, &rows) + ";" };
        format!("{}{insert}", self.create(&self.name))
    }

    fn matches(&self, filter: &Filter) -> Vec<Key> {
        match filter {
            Filter::All => self.rows.keys().cloned().collect(),
            Filter::Keys(keys) => keys.iter().filter(|key| self.rows.contains_key(*key)).cloned().collect(),
            Filter::Equals(column, value) => {
                self.rows.iter().filter(|(_, row)| row[column] == *value).map(|(key, _)| key.clone()).collect()
            }
        }
    }

    fn condition(&self, filter: &Filter) -> String {
        match filter {
            Filter::All => self.dialect.truth(true).to_owned(),
            Filter::Keys(keys) if keys.is_empty() => self.dialect.truth(false).to_owned(),
            Filter::Keys(keys) => {
                keys.iter().map(|key| format!("({})", self.place(key))).collect::<Vec<_>>().join(" OR ")
            }
            Filter::Equals(column, value) => format!("{column} {} {}", self.dialect.is(), self.value(value)),
        }
    }

    /// The row as the table takes it, columns that are not named with their defaults; none where it does not.
    fn taken(&self, key: &Key, row: &Row) -> Option<Row> {
        if key.len() != self.key_columns().len() || row.keys().any(|name| self.column(name).is_none()) {
            return None;
        }
        let value = |column: &Column| {
            row.get(&column.name).cloned().unwrap_or_else(|| column.default.clone().unwrap_or(Value::Null))
        };
        let row: Row = self.columns.iter().map(|column| (column.name.clone(), value(column))).collect();
        let null = self.columns.iter().any(|column| column.not_null && row[&column.name] == Value::Null);
        (!null).then_some(row)
    }
}

impl Statement {
    /// As SQL, given the tables as they are expected to be when it runs.
    pub fn sql(&self, world: &World) -> String {
        let table = |name: &String| world.tables.get(name);
        match self {
            Statement::Insert { table: name, verb, rows } => {
                table(name).map_or_else(gone, |table| table.insert(*verb, rows))
            }
            Statement::Upsert { table: name, key, row, column } => table(name).map_or_else(gone, |table| {
                let insert = table.insert(Verb::Insert, &[(key.clone(), row.clone())]);
                let keys = table.key_columns().join(", ");
                format!("{insert}{}", world.dialect.upsert(&keys, column))
            }),
            Statement::Update { table: name, set, filter } => table(name).map_or_else(gone, |table| {
                let set: Vec<String> =
                    set.iter().map(|(column, value)| format!("{column} = {}", table.value(value))).collect();
                format!("UPDATE {name} SET {} WHERE {}", set.join(", "), table.condition(filter))
            }),
            Statement::Swap { table: name, column, keys: [one, other], values: [first, second], between } => {
                table(name).map_or_else(gone, |table| {
                    let set = |key: &Key, value: &Value| {
                        format!("UPDATE {name} SET {column} = {} WHERE {}", table.value(value), table.place(key))
                    };
                    [set(one, between), set(other, first), set(one, second)].join("; ")
                })
            }
            Statement::Delete { table: name, filter } => {
                table(name).map_or_else(gone, |table| format!("DELETE FROM {name} WHERE {}", table.condition(filter)))
            }
            Statement::Empty { table } => format!("DELETE FROM {table}"),
            Statement::Create(table) => table.create(&table.name).trim_end_matches(';').to_owned(),
            Statement::Drop { table } => format!("DROP TABLE {table}"),
            Statement::CreateIndex { name, index } => index.sql(name),
            Statement::DropIndex { name } => {
                world.indexes.get(name).map_or_else(gone, |index| world.dialect.drop_index(name, &index.table))
            }
            Statement::AddColumn { table, column, .. } => {
                format!("ALTER TABLE {table} ADD COLUMN {}", world.dialect.column(column))
            }
            Statement::DropColumn { table, column, .. } => format!("ALTER TABLE {table} DROP COLUMN {column}"),
            Statement::Rebuild { table: name, before, after, .. } => table(name).map_or_else(gone, |table| {
                let shared: Vec<String> = table
                    .key_columns()
                    .into_iter()
                    .chain(after.iter().filter(|c| before.contains(&c.name)).map(|c| c.name.clone()))
                    .collect();
                let made = Table { columns: after.clone(), ..table.clone() };
                let (create, shared) = (made.create(&format!("{name}_new")), shared.join(", "));
                format!(
                    "{create} INSERT INTO {name}_new ({shared}) SELECT {shared} FROM {name}; DROP TABLE {name}; \
                     ALTER TABLE {name}_new RENAME TO {name}"
                )
            }),
            Statement::Fail => "INSERT INTO never VALUES (1)".to_owned(),
        }
    }

    /// The table as a change of its columns leaves it, its rows too; none where it has not the columns for it.
    fn reshaped(&self, table: &Table) -> Option<Table> {
        let mut columns = table.columns.clone();
        let (text, copied) = match self {
            Statement::AddColumn { column, text, .. } => {
                columns.push(column.clone());
                (text, None)
            }
            Statement::DropColumn { column, text, .. } => {
                table.column(column)?;
                columns.retain(|one| one.name != *column);
                (text, None)
            }
            Statement::Rebuild { before, after, text, .. } => {
                columns.clone_from(after);
                (text, Some(before))
            }
            _ => return None,
        };
        let mut after = Table { text: *text, rows: BTreeMap::new(), columns, ..table.clone() };
        if let Some(copied) = copied
            && after.columns.iter().any(|column| copied.contains(&column.name) && table.column(&column.name).is_none())
        {
            return None;
        }
        for (key, row) in &table.rows {
            let value = |column: &Column| match row.get(&column.name) {
                Some(value) if copied.is_none_or(|copied| copied.contains(&column.name)) => value.clone(),
                _ => column.default.clone().unwrap_or(Value::Null),
            };
            let row = after.columns.iter().map(|column| (column.name.clone(), value(column))).collect();
            after.rows.insert(key.clone(), row);
        }
        Some(after)
    }

    /// Does it to the world; `None` where the database would object, and then nothing is done. `enforced`: foreign
    /// keys are, as the application has them.
    pub fn apply(&self, world: &mut World, enforced: bool) -> Option<Part> {
        let mut after = world.clone();
        let part = self.try_apply(&mut after)?;
        if enforced && after.orphans().difference(&world.orphans()).next().is_some() {
            return None;
        }
        *world = after;
        Some(part)
    }

    fn try_apply(&self, world: &mut World) -> Option<Part> {
        let rows = |name: &String, before: Table, after: &Table| {
            let keys = before.rows.keys().chain(after.rows.keys());
            let ways = keys.map(|key| {
                let way = Way { before: before.rows.get(key).cloned(), after: after.rows.get(key).cloned() };
                ((name.clone(), key.clone()), way)
            });
            Some(Part::Rows(ways.filter(|(_, way)| way.before != way.after).collect()))
        };
        match self {
            Statement::Insert { table: name, verb, rows: new } => {
                let table = world.tables.get_mut(name)?;
                let before = table.clone();
                for (key, row) in new {
                    let row = table.taken(key, row)?;
                    let there = table.rows.contains_key(key);
                    if *verb == Verb::Insert && there {
                        return None;
                    }
                    if !there || *verb == Verb::Replace {
                        table.rows.insert(key.clone(), row);
                    }
                }
                rows(name, before, table)
            }
            Statement::Upsert { table: name, key, row, column } => {
                let table = world.tables.get_mut(name)?;
                let row = table.taken(key, row)?;
                let before = table.clone();
                match table.rows.get_mut(key) {
                    Some(there) => drop(there.insert(column.clone(), row[column].clone())),
                    None => drop(table.rows.insert(key.clone(), row)),
                }
                rows(name, before, table)
            }
            Statement::Update { table: name, set, filter } => {
                let table = world.tables.get_mut(name)?;
                if set.iter().any(|(column, _)| table.column(column).is_none()) || !filter_fits(table, filter) {
                    return None;
                }
                let before = table.clone();
                for key in table.matches(filter) {
                    let row = table.rows.get_mut(&key)?;
                    set.iter().for_each(|(column, value)| drop(row.insert(column.clone(), value.clone())));
                }
                rows(name, before, table)
            }
            Statement::Swap { table: name, column, keys, values: [first, second], .. } => {
                let table = world.tables.get_mut(name)?;
                table.column(column)?;
                let before = table.clone();
                for (key, value) in keys.iter().zip([second, first]) {
                    if let Some(row) = table.rows.get_mut(key) {
                        row.insert(column.clone(), value.clone());
                    }
                }
                rows(name, before, table)
            }
            Statement::Delete { table: name, filter } => {
                let table = world.tables.get_mut(name).filter(|table| filter_fits(table, filter))?;
                let before = table.clone();
                for key in table.matches(filter) {
                    table.rows.remove(&key);
                }
                rows(name, before, table)
            }
            Statement::Empty { table: name } => {
                let table = world.tables.get_mut(name)?;
                let rows = std::mem::take(&mut table.rows);
                if rows.is_empty() {
                    return Some(Part::Rows(BTreeMap::new()));
                }
                Some(Part::Emptied { table: name.clone(), text: table.text, rows })
            }
            Statement::Create(table) => {
                if world.tables.contains_key(&table.name) {
                    return None;
                }
                world.tables.insert(table.name.clone(), table.clone());
                Some(Part::Created(table.clone()))
            }
            Statement::Drop { table } => {
                if world.dialect.enforces() && world.is_referenced(table) {
                    return None;
                }
                let indexes = world.take_indexes(table, None);
                world.tables.remove(table).map(|table| Part::Dropped(table, indexes))
            }
            Statement::CreateIndex { name, index } => {
                world.tables.get(&index.table).filter(|table| table.column(&index.column).is_some())?;
                world.indexes.insert(name.clone(), index.clone());
                Some(Part::Indexed { name: name.clone(), index: index.clone(), made: true })
            }
            Statement::DropIndex { name } => {
                let index = world.indexes.remove(name)?;
                Some(Part::Indexed { name: name.clone(), index, made: false })
            }
            Statement::AddColumn { table, column, .. } => {
                let before = world.tables.get(table).filter(|table| table.column(&column.name).is_none())?.clone();
                self.reshape(world, before)
            }
            Statement::DropColumn { table, column, .. } => {
                let before = world.tables.get(table).filter(|table| table.column(column).is_some())?.clone();
                if world.is_indexed(table, column) && !world.dialect.indexes_go_with_columns() {
                    return None;
                }
                self.reshape(world, before)
            }
            Statement::Rebuild { table, .. } => {
                let before = world.tables.get(table)?.clone();
                self.reshape(world, before)
            }
            Statement::Fail => None,
        }
    }

    fn reshape(&self, world: &mut World, before: Table) -> Option<Part> {
        let after = self.reshaped(&before)?;
        world.tables.insert(before.name.clone(), after.clone());
        let rebuilt = matches!(self, Statement::Rebuild { .. });
        let indexes = match self {
            Statement::Rebuild { .. } => world.take_indexes(&before.name, None),
            Statement::DropColumn { column, .. } => world.take_indexes(&before.name, Some(column)),
            _ => Indexes::new(),
        };
        Some(Part::Reshaped { before, after, rebuilt, indexes })
    }
}

/// A statement on a table that is not there is written down all the same: it fails when it runs.
fn gone() -> String {
    "INSERT INTO never VALUES (1)".to_owned()
}

fn filter_fits(table: &Table, filter: &Filter) -> bool {
    match filter {
        Filter::All => true,
        Filter::Keys(keys) => keys.iter().all(|key| key.len() == table.key_columns().len()),
        Filter::Equals(column, _) => table.column(column).is_some(),
    }
}

/// Does the statements of one step to the world; rows between two changes of the schema count as one change.
pub fn step(statements: &[Statement], world: &mut World) -> Option<Effect> {
    let mut after = world.clone();
    let mut effect = Effect { orphans: world.orphans(), era: world.era, ..Effect::default() };
    for statement in statements {
        let enforced = world.dialect.enforces();
        let part = statement.apply(&mut after, enforced)?;
        match &part {
            Part::Rows(ways) => effect.touched.extend(ways.keys().cloned()),
            Part::Emptied { table, rows, .. } => {
                effect.touched.extend(rows.keys().map(|key| (table.clone(), key.clone())));
            }
            _ => {}
        }
        match (part, effect.parts.last_mut()) {
            (Part::Rows(new), Some(Part::Rows(net))) => {
                for (key, way) in new {
                    net.entry(key).and_modify(|net| net.after.clone_from(&way.after)).or_insert(way);
                }
            }
            (part, _) => effect.parts.push(part),
        }
    }
    effect.left = after.orphans();
    *world = after;
    Some(effect)
}

/// Lays a tree over the files of the world.
pub fn overlay(tree: &BTreeMap<String, Node>, exact: bool, kept: &str, world: &mut World) -> Effect {
    let before = world.clone();
    if exact {
        let strangers: Vec<String> = world
            .files
            .keys()
            .filter(|path| !tree.contains_key(*path) && path.as_str() != kept && !path.starts_with(&format!("{kept}/")))
            .cloned()
            .collect();
        strangers.iter().for_each(|path| drop(world.files.remove(path)));
    }
    world.files.extend(tree.iter().map(|(path, node)| (path.clone(), node.clone())));
    Effect { parts: vec![Part::Files(differences(&before, world))], ..Effect::default() }
}

/// Deletes paths, a trailing `/` naming a directory with all it holds; what is missing is passed over.
pub fn delete(paths: &[String], world: &mut World) -> Effect {
    let before = world.clone();
    for path in paths {
        match path.strip_suffix('/') {
            Some(dir) if world.is_dir(dir) => drop(world.cut(dir)),
            Some(_) => {}
            None => drop(world.files.remove(path)),
        }
    }
    Effect { parts: vec![Part::Files(differences(&before, world))], ..Effect::default() }
}

/// By path; a directory that is gone counts as one tree.
fn differences(before: &World, after: &World) -> BTreeMap<String, Way<Node>> {
    let mut ways: BTreeMap<String, Way<Node>> = BTreeMap::new();
    for (path, node) in &before.files {
        let inside_gone =
            path.match_indices('/').any(|(at, _)| ways.contains_key(&path[..at]) && !after.is_dir(&path[..at]));
        if after.files.get(path) == Some(node) || inside_gone {
            continue;
        }
        let node = match (node, after.files.get(path)) {
            (Node::Dir, None) => Node::Tree(before.clone().cut(path)),
            (node, _) => node.clone(),
        };
        ways.insert(path.clone(), Way { before: Some(node), after: after.files.get(path).cloned() });
    }
    for (path, node) in after.files.iter().filter(|(path, _)| !before.files.contains_key(*path)) {
        ways.insert(path.clone(), Way { before: None, after: Some(node.clone()) });
    }
    ways
}

/// What the application does to a file.
#[derive(Clone, Debug, PartialEq)]
pub enum FileWrite {
    /// Writes into the file that is there, or makes it.
    Write {
        path: String,
        content: String,
    },
    /// Renames a new file over it.
    Replace {
        path: String,
        content: String,
    },
    Remove {
        path: String,
    },
    SetMode {
        path: String,
        mode: u32,
    },
}

impl FileWrite {
    pub fn apply(&self, world: &mut World) {
        match self {
            FileWrite::Write { path, content } | FileWrite::Replace { path, content } => {
                let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                if !world.is_dir(parent) {
                    return;
                }
                let mode = match (world.files.get(path), self) {
                    (Some(Node::File { mode, .. }), FileWrite::Write { .. }) => *mode,
                    (None | Some(Node::File { .. }), _) => 0o644,
                    _ => return,
                };
                world.files.insert(path.clone(), Node::File { content: content.clone(), mode });
            }
            FileWrite::Remove { path } => {
                if !world.is_dir(path) {
                    world.files.remove(path);
                }
            }
            FileWrite::SetMode { path, mode } => {
                if let Some(Node::File { mode: now, .. }) = world.files.get_mut(path) {
                    *now = *mode;
                }
            }
        }
    }

    pub fn run(&self, root: &std::path::Path) {
        use std::os::unix::fs::PermissionsExt;
        let is_file = |path: &std::path::Path| std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
        let set_mode = |path: &std::path::Path, mode: u32| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        match self {
            FileWrite::Write { path, content } | FileWrite::Replace { path, content } => {
                let at = root.join(path);
                let there = std::fs::symlink_metadata(&at);
                if !at.parent().unwrap().is_dir() || there.as_ref().is_ok_and(|found| !found.is_file()) {
                    return;
                }
                if matches!(self, FileWrite::Replace { .. }) {
                    let beside = root.with_extension("beside");
                    std::fs::write(&beside, content).unwrap();
                    set_mode(&beside, 0o644);
                    std::fs::rename(&beside, &at).unwrap();
                } else {
                    let is_new = there.is_err();
                    std::fs::write(&at, content).unwrap();
                    if is_new {
                        set_mode(&at, 0o644);
                    }
                }
            }
            FileWrite::Remove { path } => {
                let at = root.join(path);
                if std::fs::symlink_metadata(&at).is_ok_and(|found| !found.is_dir()) {
                    std::fs::remove_file(at).unwrap();
                }
            }
            FileWrite::SetMode { path, mode } => {
                let at = root.join(path);
                if is_file(&at) {
                    set_mode(&at, *mode);
                }
            }
        }
    }
}
