//! The contents of a site as plain maps: rows by key with columns by name, files by path. And what a change does to
//! them, forward and back, by the contract's rules alone.

use std::collections::{BTreeMap, BTreeSet};

use backout_model::conflict::OnConflict;

use super::dialect::Dialect;
use super::index::{Index, Indexes};

/// A value; a real number is kept by its bits, so that values can be keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Null,
    Integer(i64),
    Real(u64),
    Text(String),
    Blob(Vec<u8>),
}

/// The kind of values that a column takes as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Any,
    Integer,
    Real,
    Text,
    Blob,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Type,
    pub default: Option<Value>,
    pub not_null: bool,
    /// Nobody writes to it but by copying it from another row: a key of somebody else's schema.
    pub fixed: bool,
    pub unique: bool,
    /// The table whose integer key it holds.
    pub references: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `id INTEGER PRIMARY KEY`.
    Integer,
    Autoincrement,
    /// `k TEXT PRIMARY KEY`.
    Text,
    /// `(a INTEGER, b TEXT)`, WITHOUT ROWID.
    Pair,
    /// No key: rows are known by their rowid.
    Loose,
}

pub type Key = Vec<Value>;
pub type Row = BTreeMap<String, Value>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub form: Form,
    /// The names of the key's columns, where they are not the form's own.
    pub key: Vec<String>,
    pub strict: bool,
    pub columns: Vec<Column>,
    pub rows: BTreeMap<Key, Row>,
    /// Stands for the text of its definition: another one after each change of it.
    pub text: u64,
    pub dialect: Dialect,
    /// Others write to a column of it all the time, of which the model knows nothing.
    pub busy: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    File {
        content: String,
        mode: u32,
    },
    Link(String),
    Dir,
    /// A directory with all it holds, as it is deleted in one piece: paths from it down.
    Tree(BTreeMap<String, Node>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    pub tables: BTreeMap<String, Table>,
    pub files: BTreeMap<String, Node>,
    pub indexes: Indexes,
    /// Counts what others did that may have numbered rows without a key anew.
    pub era: u64,
    pub dialect: Dialect,
}

/// One row's or one path's way: what was there, what is left there.
#[derive(Clone, Debug, PartialEq)]
pub struct Way<T> {
    pub before: Option<T>,
    pub after: Option<T>,
}

/// One part of what a step did; undone and redone as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Net, by table and key.
    Rows(BTreeMap<(String, Key), Way<Row>>),
    /// All rows of a table at once: its definition and the rows.
    Emptied {
        table: String,
        text: u64,
        rows: BTreeMap<Key, Row>,
    },
    Created(Table),
    /// With its indexes.
    Dropped(Table, Indexes),
    /// An index came, or went.
    Indexed {
        name: String,
        index: Index,
        made: bool,
    },
    /// Columns came or went; the table before (with the values of those that went) and after.
    Reshaped {
        before: Table,
        after: Table,
        /// By a new table in place of the old.
        rebuilt: bool,
        /// The indexes that went with the old table, or with a column.
        indexes: Indexes,
    },
    Files(BTreeMap<String, Way<Node>>),
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effect {
    pub parts: Vec<Part>,
    /// Rows that pointed at nothing before it, and after it.
    pub orphans: BTreeSet<(String, Key)>,
    pub left: BTreeSet<(String, Key)>,
    /// When it was done.
    pub era: u64,
    /// All rows that its statements changed, also those that others of them changed back.
    pub touched: BTreeSet<(String, Key)>,
}

/// How a conflict ends about what one step took away, a later one put there again, and others took away.
pub const PUT_BACK: &str = "was put there again";

/// Which way an effect is turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Undo,
    Redo,
}

/// What stood in the way of a turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Rows, columns and files that others wrote too, in words.
    pub conflicts: Vec<String>,
    /// Conflicts of definitions and references: what settling them comes to is not this model's business.
    pub hard: Vec<String>,
    /// The contract leaves open what should come of it: nothing is predicted.
    pub unknown: Vec<String>,
    /// Files that went otherwise than they were left: removed by others, or with another mode. What a redo makes of
    /// them is not this model's business.
    pub lost: Vec<String>,
    /// Rows and files that were already as they should be, by others' hands.
    pub left: Vec<String>,
    /// Directories that stay, since they hold what others put there: a later step, or the application.
    pub filled: Vec<String>,
    /// Rows and paths that others had taken away when an undo was to: an earlier step does not bring back what was there
    /// before.
    pub taken: BTreeSet<String>,
    /// Something was kept by an earlier undo, and a redo since has no images of it.
    pub left_before: bool,
}

impl Found {
    pub fn is_clear(&self) -> bool {
        !self.left_before && self.conflicts.is_empty() && self.hard.is_empty() && self.unknown.is_empty()
    }
}

impl Effect {
    /// Turns the effect in `world`; a conflict is settled as `manner` says (`Stop` only finds them, and goes on as
    /// `Keep` does). Returns the effect that undoes a redo.
    pub fn turn(&self, world: &mut World, turn: Turn, manner: OnConflict, found: &mut Found) -> Effect {
        let before = world.orphans();
        let loose = |name: &String| world.tables.get(name).is_some_and(|table| table.form == Form::Loose);
        if self.era != world.era && self.parts.iter().any(|part| part.tables().into_iter().any(loose)) {
            found.unknown.push("rows without a key may have been numbered anew".to_owned());
        }
        if turn == Turn::Redo {
            found.taken.clear();
        }
        let mut parts = Vec::new();
        let mut each = |part: &Part, world: &mut World| parts.push(part.turn(world, turn, manner, found));
        match turn {
            Turn::Undo => self.parts.iter().rev().for_each(|part| each(part, world)),
            Turn::Redo => self.parts.iter().for_each(|part| each(part, world)),
        }
        let left = world.orphans();
        for orphan in left.difference(&before) {
            let words = format!("{orphan:?} would point at nothing");
            // SQLite names no rows of a table without rowids: among several none is known again.
            let nameless = world.tables.get(&orphan.0).is_some_and(|table| table.form == Form::Pair);
            let hidden = nameless && before.iter().chain(&self.orphans).any(|other| other.0 == orphan.0);
            match turn {
                Turn::Undo if self.orphans.contains(orphan) => {}
                Turn::Undo if hidden => found.unknown.push(words),
                Turn::Undo => found.hard.push(words),
                Turn::Redo if !self.left.contains(orphan) => found.unknown.push(words),
                Turn::Redo => {}
            }
        }
        for double in world.doubles() {
            // A row that is kept has a value that another is to get back.
            found.hard.push(format!("{double} would be there twice"));
        }
        let era = if turn == Turn::Redo { world.era } else { self.era };
        Effect { parts, orphans: before, left, era, touched: self.touched.clone() }
    }
}

impl Effect {
    /// True where it changed what tables or indexes there are, or their columns.
    pub fn is_of_schema(&self) -> bool {
        self.parts.iter().any(|part| !matches!(part, Part::Rows(_) | Part::Emptied { .. } | Part::Files(_)))
    }
}

impl Part {
    /// The tables in which it finds rows again.
    fn tables(&self) -> Vec<&String> {
        match self {
            Part::Rows(ways) => ways.keys().map(|(name, _)| name).collect(),
            Part::Emptied { table, .. } => vec![table],
            Part::Reshaped { before, .. } => vec![&before.name],
            Part::Dropped(table, _) => vec![&table.name],
            Part::Created(_) | Part::Indexed { .. } | Part::Files(_) => Vec::new(),
        }
    }

    fn turn(&self, world: &mut World, turn: Turn, manner: OnConflict, found: &mut Found) -> Part {
        match self {
            Part::Rows(ways) => {
                let mut turned = BTreeMap::new();
                for ((name, key), way) in ways {
                    let (from, to) = ends(way, turn);
                    let Some(table) = world.tables.get_mut(name) else {
                        found.unknown.push(format!("{name} is gone"));
                        continue;
                    };
                    let before = table.rows.get(key).cloned();
                    table.turn_row(key, from, to, manner, found);
                    let after = table.rows.get(key).cloned();
                    turned.insert((name.clone(), key.clone()), Way { before, after });
                }
                Part::Rows(turned)
            }
            Part::Emptied { table: name, text, rows } => {
                let Some(table) = world.tables.get_mut(name).filter(|table| table.text == *text) else {
                    found.unknown.push(format!("{name} has another definition"));
                    return self.clone();
                };
                if turn == Turn::Redo && table.rows != *rows {
                    found.unknown.push(format!("{name} is to be emptied and others wrote to it"));
                }
                for (key, row) in rows {
                    let (from, to) = if turn == Turn::Undo { (None, Some(row)) } else { (Some(row), None) };
                    table.turn_row(key, from, to, manner, found);
                }
                self.clone()
            }
            Part::Created(made) => {
                if turn == Turn::Undo && !world.take_indexes(&made.name, None).is_empty() {
                    found.hard.push(format!("{} has others' indexes", made.name));
                }
                world.turn_table(made, turn == Turn::Redo, true, found);
                self.clone()
            }
            Part::Dropped(gone, indexes) => {
                world.turn_table(gone, turn == Turn::Undo, false, found);
                world.turn_indexes(&gone.name, indexes, turn == Turn::Undo, found);
                self.clone()
            }
            Part::Indexed { name, index, made } => {
                world.turn_index(name, index, *made == (turn == Turn::Redo), turn, found);
                self.clone()
            }
            Part::Reshaped { before, after, rebuilt, indexes } => {
                let (from, to) = if turn == Turn::Undo { (after, before) } else { (before, after) };
                world.indexes_object(from, to, *rebuilt, indexes, turn, found);
                let now = world.tables.get(&from.name).map(|table| &table.rows);
                if *rebuilt && !world.dialect.carries_rows() && now.is_some_and(|now| *now != from.rows) {
                    found.hard.push(format!("{} was built anew and others wrote to it", from.name));
                }
                if turn == Turn::Redo && !*rebuilt {
                    world.indexes.retain(|name, _| !indexes.contains_key(name));
                }
                let (before, after) = world.reshape(from, to, turn, found);
                if *rebuilt || turn == Turn::Undo {
                    world.turn_indexes(&from.name, indexes, turn == Turn::Undo, found);
                }
                Part::Reshaped { before, after, rebuilt: *rebuilt, indexes: indexes.clone() }
            }
            Part::Files(ways) => Part::Files(world.turn_files(ways, turn, manner, found)),
        }
    }
}

fn ends<T>(way: &Way<T>, turn: Turn) -> (Option<&T>, Option<&T>) {
    match turn {
        Turn::Undo => (way.after.as_ref(), way.before.as_ref()),
        Turn::Redo => (way.before.as_ref(), way.after.as_ref()),
    }
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Guarded, and merged column by column.
    fn turn_row(&mut self, key: &Key, from: Option<&Row>, to: Option<&Row>, manner: OnConflict, found: &mut Found) {
        let overwrite = manner == OnConflict::Overwrite;
        let shape: Vec<&String> = self.columns.iter().map(|column| &column.name).collect();
        if [from, to].into_iter().flatten().any(|row| !row.keys().eq(shape.iter().copied().collect::<BTreeSet<_>>())) {
            // An earlier deployment is turned under a later one that changed the table's columns.
            found.unknown.push(format!("{} has other columns than the images", self.name));
            return;
        }
        let now = self.rows.get(key).cloned();
        let say = |what: &str| format!("{} {key:?} {what}", self.name);
        if let Some(why) = self.dialect.whole_row(self, from, to, now.as_ref()) {
            found.hard.push(say(why));
            return;
        }
        let conflicts = &mut found.conflicts;
        match (from, to, now) {
            (None, None, _) => {}
            (Some(_), None, None) => {
                found.left.push(say("is gone"));
                if self.form != Form::Loose {
                    found.taken.insert(say(""));
                }
            }
            (None, Some(to), None) => {
                let is_taken = found.taken.contains(&say(""));
                if is_taken {
                    conflicts.push(say(PUT_BACK));
                }
                if !is_taken || overwrite {
                    self.rows.insert(key.clone(), to.clone());
                }
            }
            (None, Some(to), Some(now)) if now == *to => found.left.push(say("is back")),
            // It comes back beside the one that has its rowid now, under another.
            (None, Some(_), Some(_)) if self.form == Form::Loose => found.unknown.push(say("has its rowid taken")),
            (None, Some(to), Some(_)) => {
                conflicts.push(say("appeared"));
                if overwrite {
                    self.rows.insert(key.clone(), to.clone());
                }
            }
            (Some(from), None, Some(now)) => {
                if now != *from {
                    conflicts.push(say("changed"));
                }
                if now == *from || overwrite {
                    self.rows.remove(key);
                }
            }
            (Some(from), Some(to), None) => {
                if from != to {
                    conflicts.push(say("missing"));
                    if overwrite {
                        self.rows.insert(key.clone(), to.clone());
                    }
                }
            }
            (Some(from), Some(to), Some(mut now)) => {
                for (column, wanted) in to.iter().filter(|(column, wanted)| from[*column] != **wanted) {
                    if now[column] == *wanted {
                        found.left.push(say(column));
                        continue;
                    }
                    if now[column] != from[column] {
                        conflicts.push(say(column));
                        if !overwrite {
                            continue;
                        }
                    }
                    now.insert(column.clone(), wanted.clone());
                }
                self.rows.insert(key.clone(), now);
            }
        }
    }
}

impl World {
    /// Rows that point at nothing.
    pub fn orphans(&self) -> BTreeSet<(String, Key)> {
        let mut orphans = BTreeSet::new();
        for table in self.tables.values() {
            for column in &table.columns {
                let Some(parent) = &column.references else { continue };
                let parents = self.tables.get(parent).map(|parent| &parent.rows);
                for (key, row) in &table.rows {
                    let value = &row[&column.name];
                    if *value != Value::Null && !parents.is_some_and(|rows| rows.contains_key(&vec![value.clone()])) {
                        orphans.insert((table.name.clone(), key.clone()));
                    }
                }
            }
        }
        orphans
    }

    /// Values that stand twice in a unique column.
    fn doubles(&self) -> Vec<String> {
        let mut doubles = Vec::new();
        for table in self.tables.values() {
            for column in table.columns.iter().filter(|column| column.unique) {
                let mut seen = BTreeSet::new();
                let values = table.rows.values().map(|row| &row[&column.name]).filter(|value| **value != Value::Null);
                let double = |value: &Value| format!("{} {} {value:?}", table.name, column.name);
                doubles.extend(values.filter(|value| !seen.insert(*value)).map(double));
            }
        }
        doubles
    }

    /// True where another table has a foreign key that points at it.
    pub fn is_referenced(&self, name: &str) -> bool {
        let points = |column: &Column| column.references.as_deref() == Some(name);
        self.tables.values().any(|table| table.name != name && table.columns.iter().any(points))
    }

    /// Others did what may number rows without a key anew.
    pub fn renumber(&mut self) {
        if self.dialect.numbers_rows() {
            self.era += 1;
        }
    }

    /// Others vacuum the database.
    pub fn vacuum(&mut self) {
        if !self.dialect.numbers_rows() {
            return;
        }
        self.era += 1;
        // An index keeps the rowids of a table as they are.
        let indexed = |table: &Table| self.indexes.values().any(|index| index.table == table.name);
        let loose = |table: &&mut Table| {
            table.form == Form::Loose && !table.columns.iter().any(|column| column.unique) && !indexed(table)
        };
        for table in self.tables.values_mut().filter(loose) {
            let rows = std::mem::take(&mut table.rows).into_values();
            table.rows = (1..).zip(rows).map(|(rowid, row)| (vec![Value::Integer(rowid)], row)).collect();
        }
    }

    /// A table comes with its rows, or goes with them. `made`: it is one that the deployment made, empty.
    fn turn_table(&mut self, table: &Table, comes: bool, made: bool, found: &mut Found) {
        if comes {
            if self.tables.contains_key(&table.name) {
                found.hard.push(format!("a table {} appeared", table.name));
            } else {
                self.tables.insert(table.name.clone(), table.clone());
            }
            return;
        }
        match self.tables.get(&table.name) {
            None => found.unknown.push(format!("{} is gone", table.name)),
            Some(now) if now.text != table.text => found.hard.push(format!("{} has another definition", table.name)),
            Some(now) if now.rows != table.rows => {
                // What a deployment made must be empty again; what it drops anew is captured anew.
                if made {
                    found.hard.push(format!("{} holds others' rows", table.name));
                } else {
                    found.unknown.push(format!("{} is to be dropped and others wrote to it", table.name));
                }
            }
            Some(_) => drop(self.tables.remove(&table.name)),
        }
    }

    /// Columns come and go; the rows stay.
    fn reshape(&mut self, from: &Table, to: &Table, turn: Turn, found: &mut Found) -> (Table, Table) {
        let Some(now) = self.tables.get_mut(&from.name).filter(|now| now.text == from.text) else {
            found.hard.push(format!("{} has another definition", from.name));
            return (from.clone(), to.clone());
        };
        let before = now.clone();
        let going: Vec<&Column> = from.columns.iter().filter(|column| to.column(&column.name).is_none()).collect();
        let coming: Vec<&Column> = to.columns.iter().filter(|column| from.column(&column.name).is_none()).collect();
        for column in going {
            let default = column.default.clone().unwrap_or(Value::Null);
            for (key, row) in &mut now.rows {
                let value = row.remove(&column.name);
                match turn {
                    // What was added held the default only, unless others wrote to it.
                    Turn::Undo if value == Some(Value::Null) && default != Value::Null => {
                        found.unknown.push(format!("{} {key:?} {} was emptied", from.name, column.name));
                    }
                    Turn::Undo if value != Some(default.clone()) => {
                        found.hard.push(format!("{} {key:?} {} holds what others wrote", from.name, column.name));
                    }
                    Turn::Redo if value.as_ref() != from.rows.get(key).map(|row| &row[&column.name]) => {
                        found
                            .unknown
                            .push(format!("{} {key:?} {} goes and others wrote to it", from.name, column.name));
                    }
                    Turn::Undo | Turn::Redo => {}
                }
            }
        }
        let is_gone = to.rows.keys().any(|key| !now.rows.contains_key(key));
        if turn == Turn::Undo && !coming.is_empty() && is_gone && now.rows.keys().any(|key| !to.rows.contains_key(key))
        {
            // A row may be gone, or have another key now: its value then has no row, where it had one.
            found.unknown.push(format!("{} lacks rows and has others", from.name));
        }
        for column in coming {
            let default = column.default.clone().unwrap_or(Value::Null);
            for (key, row) in &mut now.rows {
                let held = to.rows.get(key).map(|row| row[&column.name].clone());
                row.insert(column.name.clone(), held.filter(|_| turn == Turn::Undo).unwrap_or(default.clone()));
            }
        }
        now.columns.clone_from(&to.columns);
        now.text = to.text;
        (before, now.clone())
    }

    pub fn is_dir(&self, path: &str) -> bool {
        path.is_empty() || self.files.get(path) == Some(&Node::Dir)
    }

    /// Takes a directory with all below it out of the tree.
    pub fn cut(&mut self, path: &str) -> BTreeMap<String, Node> {
        let inside = format!("{path}/");
        let names: Vec<String> = self.files.keys().filter(|name| name.starts_with(&inside)).cloned().collect();
        self.files.remove(path);
        names.iter().map(|name| (name[inside.len()..].to_owned(), self.files.remove(name).unwrap())).collect()
    }

    fn paste(&mut self, path: &str, tree: &BTreeMap<String, Node>) {
        self.files.insert(path.to_owned(), Node::Dir);
        self.files.extend(tree.iter().map(|(below, node)| (format!("{path}/{below}"), node.clone())));
    }

    fn turn_files(
        &mut self,
        ways: &BTreeMap<String, Way<Node>>,
        turn: Turn,
        manner: OnConflict,
        found: &mut Found,
    ) -> BTreeMap<String, Way<Node>> {
        // What is made anew, directories first; then what changes; then what goes, directories last.
        let mut turned = BTreeMap::new();
        let goes = |way: &Way<Node>| ends(way, turn).1.is_none();
        let coming = ways.iter().filter(|(_, way)| !goes(way));
        let going = ways.iter().rev().filter(|(_, way)| goes(way));
        for (path, way) in coming.chain(going) {
            let (from, to) = ends(way, turn);
            let before = self.node(path, from);
            self.turn_path(path, from, to, manner, found);
            let after = self.node(path, to);
            turned.insert(path.clone(), Way { before, after });
        }
        turned
    }

    /// What is at a path; as a whole tree where a tree is meant.
    fn node(&self, path: &str, meant: Option<&Node>) -> Option<Node> {
        match (self.files.get(path), meant) {
            (Some(Node::Dir), Some(Node::Tree(_))) => Some(Node::Tree(self.clone().cut(path))),
            (node, _) => node.cloned(),
        }
    }

    fn turn_path(&mut self, path: &str, from: Option<&Node>, to: Option<&Node>, manner: OnConflict, found: &mut Found) {
        let overwrite = manner == OnConflict::Overwrite;
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let now = if self.is_dir(parent) { self.files.get(path).cloned() } else { None };
        let Found { conflicts, lost, left, filled, taken, .. } = found;
        let mut conflict = |kind: &str| {
            conflicts.push(format!("{path} {kind}"));
            lost.push(path.to_owned());
        };
        match (from, to) {
            (None, None) => {}
            (None, Some(to)) => match now {
                None if !self.is_dir(parent) => {
                    conflict("has no directory");
                    if overwrite {
                        self.make_parents(path);
                        self.place(path, to);
                    }
                }
                None => {
                    let below = |tree: &BTreeMap<String, Node>| {
                        tree.keys().any(|below| taken.contains(&format!("{path}/{below}")))
                    };
                    let is_taken = taken.contains(path) || matches!(to, Node::Tree(tree) if below(tree));
                    if is_taken {
                        conflict(PUT_BACK);
                    }
                    if !is_taken || overwrite {
                        self.place(path, to);
                    }
                }
                Some(Node::Dir) if *to == Node::Dir => left.push(path.to_owned()),
                Some(ref now) if same_content(now, to) => left.push(path.to_owned()),
                Some(_) => {
                    conflict("appeared");
                    if overwrite {
                        self.cut(path);
                        self.place(path, to);
                    }
                }
            },
            (Some(from), None) => match (from, now) {
                (_, None) => {
                    lost.push(path.to_owned());
                    taken.insert(path.to_owned());
                }
                (Node::Dir, Some(Node::Dir)) => {
                    let inside = format!("{path}/");
                    if self.files.keys().any(|name| name.starts_with(&inside)) {
                        filled.push(path.to_owned());
                    } else {
                        self.files.remove(path);
                    }
                }
                (Node::Tree(held), Some(Node::Dir)) => {
                    let now = self.clone().cut(path);
                    let alike = now.keys().eq(held.keys())
                        && now.iter().zip(held.values()).all(|((_, now), then)| same_content(now, then));
                    if !alike {
                        conflict("holds something else");
                    }
                    if alike || overwrite {
                        self.cut(path);
                    }
                }
                (from, Some(now)) if same_content(&now, from) => {
                    // It is kept with the mode that others gave it.
                    if now != *from {
                        lost.push(path.to_owned());
                    }
                    self.files.remove(path);
                }
                (_, Some(_)) => {
                    conflict("changed");
                    if overwrite {
                        self.cut(path);
                    }
                }
            },
            (Some(from), Some(to)) => match now {
                None => {
                    conflict("missing");
                    if overwrite {
                        self.make_parents(path);
                        self.place(path, to);
                    }
                }
                Some(now) if same_content(&now, from) => match merged(from, to, &now) {
                    Some(node) => drop(self.files.insert(path.to_owned(), node)),
                    None => {
                        conflict("mode");
                        if overwrite {
                            self.files.insert(path.to_owned(), to.clone());
                        }
                    }
                },
                Some(now) if same_content(&now, to) => left.push(path.to_owned()),
                Some(_) => {
                    conflict("changed");
                    if overwrite {
                        self.files.insert(path.to_owned(), to.clone());
                    }
                }
            },
        }
    }

    fn place(&mut self, path: &str, node: &Node) {
        match node {
            Node::Tree(tree) => self.paste(path, tree),
            node => drop(self.files.insert(path.to_owned(), node.clone())),
        }
    }

    pub fn make_parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.files.entry(path[..at].to_owned()).or_insert(Node::Dir);
        }
    }
}

/// What differs between two nodes.
pub fn differing(one: &Node, other: &Node) -> BTreeSet<String> {
    let mode = |node: &Node| match node {
        Node::File { mode, .. } => Some(*mode),
        _ => None,
    };
    let parts = [("content", !same_content(one, other)), ("mode", mode(one) != mode(other))];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part.to_owned()).collect()
}

fn same_content(one: &Node, other: &Node) -> bool {
    match (one, other) {
        (Node::File { content: one, .. }, Node::File { content: other, .. }) => one == other,
        (one, other) => one == other,
    }
}

/// The node that goes back, with the mode that only others changed; none where both changed it.
fn merged(from: &Node, to: &Node, now: &Node) -> Option<Node> {
    match (from, to, now) {
        (Node::File { mode: from, .. }, Node::File { content, mode: to }, Node::File { mode: now, .. }) => {
            let (theirs, ours) = (now != from, to != from);
            if theirs && ours && now != to {
                return None;
            }
            Some(Node::File { content: content.clone(), mode: if theirs { *now } else { *to } })
        }
        // A mode that others gave to a file is lost with it.
        (Node::File { mode: from, .. }, Node::Link(_), Node::File { mode: now, .. }) if from != now => None,
        _ => Some(to.clone()),
    }
}
