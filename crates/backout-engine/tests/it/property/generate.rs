//! Random schemas, rows, files, packages and what an application does meanwhile. All of it comes from one seed.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use backout_testkit::package::{self, Pkg};
use backout_testkit::tree::{Node as TreeNode, Tree};
use fastrand::Rng;
use serde_json::json;

use super::dialect::Dialect;
use super::history::{KEPT, Spec, Step, Write};
use super::index::{INDEX, Index};
use super::noise::{BUSY, BUSY_ROWS};
use super::statement::{self, FileWrite, Filter, Statement, Verb};
use super::world::{Column, Form, Key, Node, Row, Table, Type, Value, World};

pub struct Generator {
    pub rng: Rng,
    /// Numbers that were never used before: for values, keys, names.
    next: u64,
    dialect: Dialect,
}

/// What the names of an application's own tables begin with.
pub const STRANGE: &str = "own";

/// What a script may do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Anything,
    /// Nothing that the plan would miss later, should the step fail.
    NothingGoes,
}

impl Generator {
    pub fn new(seed: u64, dialect: Dialect) -> Self {
        Self { rng: Rng::with_seed(seed), next: 1000, dialect }
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { Some(&from[self.rng.usize(0..from.len())]) }
    }

    fn value(&mut self, kind: Type, nullable: bool) -> Value {
        if nullable && self.chance(15) {
            return Value::Null;
        }
        let n = self.fresh();
        match kind {
            Type::Integer => Value::Integer(if n.is_multiple_of(3) { -(n as i64) } else { n as i64 }),
            Type::Real => Value::Real((n as f64 + 0.5).to_bits()),
            Type::Text => Value::Text(match n % 3 {
                0 => format!("it's {n}"),
                1 => format!("ü{n}"),
                _ => format!("t{n}"),
            }),
            Type::Blob => Value::Blob(n.to_be_bytes()[5..].to_vec()),
            Type::Any => {
                let kinds = [Type::Integer, Type::Real, Type::Text, Type::Blob];
                let kind = kinds[self.rng.usize(0..4)];
                self.value(kind, false)
            }
        }
    }

    fn column(&mut self, may_be_unique: bool) -> Column {
        let kinds = self.dialect.types();
        let kind = kinds[self.rng.usize(0..kinds.len())];
        let unique = may_be_unique && kind != Type::Any && self.chance(20);
        let default = if !unique && self.chance(40) { Some(self.value(kind, false)) } else { None };
        Column {
            name: format!("c{}", self.fresh()),
            kind,
            not_null: default.is_some() && self.chance(30),
            default,
            fixed: false,
            unique,
            references: None,
        }
    }

    /// A column for a table that is there.
    fn further_column(&mut self, table: &Table) -> Column {
        let mut column = Column { not_null: false, ..self.column(false) };
        if table.strict && column.kind == Type::Any {
            column.kind = Type::Text;
            column.default = None;
        }
        column
    }

    pub fn table(&mut self, parents: &[String], rows: usize) -> Table {
        let forms = self.dialect.forms();
        let form = forms[self.rng.usize(0..forms.len())];
        let mut columns: Vec<Column> = (0..self.rng.usize(1..4)).map(|_| self.column(true)).collect();
        if let Some(parent) = self.pick(parents).cloned()
            && self.chance(50)
        {
            let mut column = self.column(false);
            column.kind = Type::Integer;
            column.default = None;
            column.not_null = false;
            column.references = Some(parent);
            columns.push(column);
        }
        let strict = self.dialect == Dialect::Sqlite
            && form != Form::Loose
            && columns.iter().all(|column| column.kind != Type::Any)
            && self.chance(30);
        let text = self.fresh();
        let mut table = Table {
            name: format!("t{}", self.fresh()),
            form,
            key: Vec::new(),
            strict,
            columns,
            rows: BTreeMap::new(),
            text,
            dialect: self.dialect,
            busy: false,
        };
        for _ in 0..rows {
            let (key, row) = self.row(&table, &World::default()).expect("a table of our own");
            table.rows.insert(key, row);
        }
        table
    }

    /// The table that others write to all the time.
    fn busy(&mut self) -> Table {
        let column = |kind| Column { kind, unique: false, default: None, not_null: false, ..self.column(false) };
        let columns: Vec<Column> = [Type::Integer, Type::Text].map(column).into();
        let mut table = self.table(&[], 0);
        table = Table { name: BUSY.to_owned(), form: Form::Integer, strict: false, columns, busy: true, ..table };
        for id in 1..=BUSY_ROWS {
            let (_, row) = self.row(&table, &World::default()).expect("a table of our own");
            table.rows.insert(vec![Value::Integer(id as i64)], row);
        }
        table
    }

    fn key(&mut self, form: Form) -> Key {
        let n = self.fresh();
        match form {
            Form::Integer | Form::Autoincrement | Form::Loose => vec![Value::Integer(n as i64)],
            Form::Text => vec![Value::Text(format!("k{n}"))],
            Form::Pair => vec![Value::Integer((n % 3) as i64), Value::Text(format!("k{n}"))],
        }
    }

    /// A row with a fresh key; none where the table has columns that nobody can fill.
    fn row(&mut self, table: &Table, world: &World) -> Option<(Key, Row)> {
        let mut row = Row::new();
        let rows: Vec<Row> = table.rows.values().cloned().collect();
        for column in &table.columns {
            let value = if column.fixed {
                self.pick(&rows)?[&column.name].clone()
            } else if let Some(parent) = &column.references {
                let keys: Vec<Key> =
                    world.tables.get(parent).map(|parent| parent.rows.keys().cloned().collect()).unwrap_or_default();
                match self.pick(&keys) {
                    Some(key) if self.rng.u32(0..100) < 70 => key[0].clone(),
                    _ => Value::Null,
                }
            } else {
                // Without a key, rows that are alike can't be told apart.
                let nullable = !column.not_null && !column.unique && table.form != Form::Loose;
                self.value(column.kind, nullable)
            };
            row.insert(column.name.clone(), value);
        }
        Some((self.key(table.form), row))
    }

    /// Columns that may be written with any fresh value.
    fn writable(table: &Table) -> Vec<Column> {
        table.columns.iter().filter(|column| !column.fixed && column.references.is_none()).cloned().collect()
    }

    pub fn world(&mut self) -> World {
        let mut world = World { dialect: self.dialect, ..World::default() };
        let mut parents = Vec::new();
        for _ in 0..self.rng.usize(1..4) {
            let rows = self.rng.usize(0..7);
            let table = self.table(&parents, rows);
            if matches!(table.form, Form::Integer | Form::Autoincrement) {
                parents.push(table.name.clone());
            }
            world.tables.insert(table.name.clone(), table);
        }
        if self.dialect.is_server() {
            let table = self.busy();
            world.tables.insert(table.name.clone(), table);
        }
        world.files.insert(KEPT.to_owned(), Node::Dir);
        world.files.insert(format!("{KEPT}/photo"), Node::File { content: "a photo".to_owned(), mode: 0o644 });
        for (path, node) in self.tree(5) {
            world.files.insert(path, node);
        }
        world
    }

    /// Names say what they are, so that no file comes to lie over a directory.
    fn path(&mut self, name: &str) -> String {
        let dirs = ["", "", "d0/", "d1/", "d0/d2/", "d3/d4/"];
        format!("{}{name}{}", dirs[self.rng.usize(0..dirs.len())], self.rng.u32(0..3))
    }

    fn tree(&mut self, most: usize) -> BTreeMap<String, Node> {
        let mut world = World::default();
        for _ in 0..self.rng.usize(1..=most) {
            let (path, node) = match self.rng.u32(0..10) {
                0 => (self.path("l"), Node::Link(format!("f{}", self.rng.u32(0..3)))),
                1 => (self.path("e"), Node::Dir),
                // A link where a file may be.
                2 => (self.path("f"), Node::Link("d0".to_owned())),
                _ => (self.path("f"), self.file()),
            };
            world.make_parents(&path);
            world.files.insert(path, node);
        }
        world.files
    }

    fn file(&mut self) -> Node {
        let modes = [0o644, 0o644, 0o755, 0o600];
        Node::File { content: format!("content {}", self.fresh()), mode: modes[self.rng.usize(0..4)] }
    }

    /// A package for the site as it is; `world` becomes what it should leave.
    pub fn package(&mut self, world: &mut World, others: &[String]) -> Spec {
        let mut spec = self.spec(world, 0, false);
        spec.list = self.chance(12);
        spec.never_holds = self.chance(8);
        if let Some(name) = self.pick(others).cloned()
            && self.chance(15)
        {
            spec.requires.push(name);
        }
        spec
    }

    fn spec(&mut self, world: &mut World, depth: u32, doomed: bool) -> Spec {
        let mut spec = Spec { name: format!("p{}", self.fresh()), ..Spec::default() };
        let scope = if doomed { Scope::NothingGoes } else { Scope::Anything };
        let count = self.rng.usize(1..=4);
        let mut children: Vec<String> = Vec::new();
        for _ in 0..count {
            let step = match self.rng.u32(0..100) {
                0..45 => self.sql(world, scope),
                45..65 => {
                    let tree = self.tree(4);
                    let exact = !doomed && self.chance(15);
                    statement::overlay(&tree, exact, KEPT, world);
                    Step::Files(tree, exact)
                }
                65..75 => self.deletion(world),
                75..79 => Step::Flaky { file: format!("fail-{}", self.fresh()), times: 0 },
                _ if depth < 2 => {
                    let step = self.child(world, depth, doomed, &children);
                    if let Step::Child { spec, .. } = &step {
                        children.push(spec.name.clone());
                    }
                    step
                }
                _ => self.sql(world, scope),
            };
            spec.steps.push(step);
        }
        spec
    }

    fn deletion(&mut self, world: &mut World) -> Step {
        let mut candidates: Vec<String> = world
            .files
            .iter()
            .filter(|(path, _)| path.as_str() != KEPT && !path.starts_with(&format!("{KEPT}/")))
            .map(|(path, node)| if *node == Node::Dir { format!("{path}/") } else { path.clone() })
            .collect();
        candidates.push("f9".to_owned());
        let mut paths = Vec::new();
        for _ in 0..self.rng.usize(1..=2) {
            let path = candidates[self.rng.usize(0..candidates.len())].clone();
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        statement::delete(&paths, world);
        Step::Delete(paths)
    }

    /// A child that may be made to fail: for good, or the first times.
    fn child(&mut self, world: &mut World, depth: u32, above_doomed: bool, siblings: &[String]) -> Step {
        let before = world.clone();
        let attempts = self.rng.u32(1..=3);
        let go_on = self.chance(60);
        let fate = self.rng.u32(0..100);
        let doomed = fate < 30;
        let mut spec = self.spec(world, depth + 1, doomed || above_doomed);
        spec.list = self.chance(10);
        if let Some(sibling) = self.pick(siblings).cloned()
            && self.chance(25)
        {
            spec.requires.push(sibling);
        }
        match fate {
            0..10 => {
                let at = self.rng.usize(0..=spec.steps.len());
                spec.steps.insert(at, Step::Sql(vec![Statement::Fail], Statement::Fail.sql(world)));
            }
            10..15 => spec.never_holds = true,
            15..30 => {
                let at = self.rng.usize(0..=spec.steps.len());
                spec.steps.insert(at, Step::Flaky { file: format!("fail-{}", self.fresh()), times: attempts });
            }
            30..45 => {
                let at = self.rng.usize(0..=spec.steps.len());
                spec.steps.insert(at, Step::Flaky { file: format!("fail-{}", self.fresh()), times: attempts - 1 });
            }
            _ => {}
        }
        if doomed {
            *world = before;
        }
        Step::Child { spec, attempts, go_on }
    }

    fn sql(&mut self, world: &mut World, scope: Scope) -> Step {
        let mut statements = Vec::new();
        let mut text = String::new();
        for _ in 0..self.rng.usize(1..=4) {
            let Some(statement) = self.statement(world, scope) else { continue };
            let sql = statement.sql(world);
            if statement.apply(world, self.dialect.enforces()).is_some() {
                text.push_str(&sql);
                text.push_str(";\n");
                statements.push(statement);
            }
        }
        if statements.is_empty() {
            text.push_str("SELECT 1;\n");
        }
        Step::Sql(statements, text)
    }

    fn statement(&mut self, world: &World, scope: Scope) -> Option<Statement> {
        let tables: Vec<&Table> = world.tables.values().collect();
        let table: Table = (*self.pick(&tables)?).clone();
        let name = table.name.clone();
        if table.busy {
            let column = self.pick(&table.columns)?.clone();
            let value = self.value(column.kind, true);
            let filter = self.filter(&table, false)?;
            return Some(Statement::Update { table: name, set: vec![(column.name, value)], filter });
        }
        let ours = table.key.is_empty();
        let may_go = scope == Scope::Anything && ours;
        let referenced =
            world.tables.values().any(|other| other.columns.iter().any(|c| c.references.as_ref() == Some(&name)));
        let text = self.fresh();
        if scope == Scope::Anything && self.chance(8) {
            return self.index(world);
        }
        match self.rng.u32(0..100) {
            0..25 => {
                let rows: Option<Vec<(Key, Row)>> =
                    (0..self.rng.usize(1..4)).map(|_| self.row(&table, world)).collect();
                Some(Statement::Insert { table: name, verb: Verb::Insert, rows: rows? })
            }
            25..33 => {
                // Some of the keys are there already.
                let keys: Vec<Key> = table.rows.keys().cloned().collect();
                let (fresh, row) = self.row(&table, world)?;
                let there = self.chance(60) && (self.dialect.numbers_rows() || table.form != Form::Loose);
                let key = if there { self.pick(&keys).cloned().unwrap_or(fresh) } else { fresh };
                let verb = if self.chance(50) { Verb::Replace } else { Verb::Ignore };
                Some(Statement::Insert { table: name, verb, rows: vec![(key, row)] })
            }
            33..38 if table.form != Form::Loose => {
                let keys: Vec<Key> = table.rows.keys().cloned().collect();
                let (fresh, row) = self.row(&table, world)?;
                let key = if self.chance(60) { self.pick(&keys).cloned().unwrap_or(fresh) } else { fresh };
                let column = self.pick(&Self::writable(&table))?.name.clone();
                Some(Statement::Upsert { table: name, key, row, column })
            }
            38..62 => {
                let columns = Self::writable(&table);
                let column = self.pick(&columns)?.clone();
                let one = column.unique || table.form == Form::Loose;
                let filter = self.filter(&table, one)?;
                let value = self.value(column.kind, !column.not_null && !one);
                Some(Statement::Update { table: name, set: vec![(column.name, value)], filter })
            }
            62..66 => {
                let unique = table.columns.iter().find(|column| column.unique)?.clone();
                let keys: Vec<Key> = table.rows.keys().cloned().collect();
                let (one, other) = (self.pick(&keys)?.clone(), self.pick(&keys)?.clone());
                if one == other {
                    return None;
                }
                let values = [table.rows[&one][&unique.name].clone(), table.rows[&other][&unique.name].clone()];
                let between = self.value(unique.kind, false);
                Some(Statement::Swap { table: name, column: unique.name, keys: [one, other], values, between })
            }
            66..76 => {
                let filter = self.filter(&table, false)?;
                Some(Statement::Delete { table: name, filter })
            }
            76..80 if ours => Some(Statement::Empty { table: name }),
            80..85 => Some(Statement::Create(self.table(&[], 0))),
            85..90 if ours => {
                let column = self.further_column(&table);
                Some(Statement::AddColumn { table: name, column, text })
            }
            90..93 if may_go && (table.form != Form::Loose || self.dialect.drops_columns_of_loose()) => {
                let plain: Vec<Column> = Self::writable(&table).into_iter().filter(|column| !column.unique).collect();
                // One column has to stay in a table without a key.
                let column = self.pick(&plain).filter(|_| table.columns.len() > 1)?.name.clone();
                Some(Statement::DropColumn { table: name, column, text })
            }
            93..97
                if ours
                    && table.form != Form::Loose
                    && !referenced
                    && (may_go || world.indexes_of(&name).is_empty()) =>
            {
                let plain: Vec<Column> = Self::writable(&table).into_iter().filter(|column| !column.unique).collect();
                let without = if may_go && table.columns.len() > 1 && self.chance(50) {
                    self.pick(&plain).map(|column| column.name.clone())
                } else {
                    None
                };
                let before = table.columns.iter().map(|column| column.name.clone()).collect();
                let mut after = table.columns.clone();
                after.retain(|column| Some(&column.name) != without.as_ref());
                if self.chance(50) {
                    after.push(self.further_column(&table));
                }
                // The same columns give the same text, whoever rebuilds.
                let mut hasher = std::hash::DefaultHasher::new();
                Table { columns: after.clone(), ..table }.create("").hash(&mut hasher);
                Some(Statement::Rebuild { table: name, before, after, text: hasher.finish() })
            }
            97..100 if may_go && !referenced && world.tables.len() > 1 => Some(Statement::Drop { table: name }),
            _ => None,
        }
    }

    /// An index that comes, or one that goes.
    fn index(&mut self, world: &World) -> Option<Statement> {
        let names: Vec<String> = world.indexes.keys().cloned().collect();
        if let Some(name) = self.pick(&names).cloned()
            && self.chance(40)
        {
            return Some(Statement::DropIndex { name });
        }
        let tables: Vec<&Table> = world.tables.values().filter(|table| !table.busy).collect();
        let table: Table = (*self.pick(&tables)?).clone();
        let column =
            self.pick(&table.columns).filter(|one| one.references.is_none() || self.dialect.indexes_links())?;
        let column = column.name.clone();
        let name = format!("{INDEX}{}", self.fresh());
        Some(Statement::CreateIndex { name, index: Index { table: table.name, column } })
    }

    fn filter(&mut self, table: &Table, one: bool) -> Option<Filter> {
        let keys: Vec<Key> = table.rows.keys().cloned().collect();
        if one || self.chance(60) {
            let mut chosen = vec![self.pick(&keys)?.clone()];
            if !one
                && let Some(more) = self.pick(&keys).cloned()
                && !chosen.contains(&more)
            {
                chosen.push(more);
            }
            return Some(Filter::Keys(chosen));
        }
        if self.chance(50) && table.key.is_empty() {
            return Some(Filter::All);
        }
        let column = self.pick(&table.columns)?.name.clone();
        let value = table.rows[self.pick(&keys)?][&column].clone();
        Some(Filter::Equals(column, value))
    }

    /// What the application does, to rows and files as they are or will be.
    pub fn writes(&mut self, world: &World, most: usize) -> Vec<Write> {
        (0..self.rng.usize(1..=most)).filter_map(|_| self.write(world)).collect()
    }

    fn write(&mut self, world: &World) -> Option<Write> {
        match self.rng.u32(0..100) {
            0..2 => return Some(Write::Vacuum),
            2..4 => return Some(Write::Table(format!("{STRANGE}{}", self.fresh()))),
            4..6 => {
                let statement = self.index(world)?;
                let text = statement.sql(world);
                return Some(Write::Sql(statement, text));
            }
            _ => {}
        }
        if self.chance(40) {
            return self.file_write(world).map(Write::File);
        }
        let tables: Vec<&Table> = world.tables.values().collect();
        let table: Table = (*self.pick(&tables)?).clone();
        let keys: Vec<Key> = table.rows.keys().cloned().collect();
        let name = table.name.clone();
        let statement = match self.rng.u32(0..10) {
            0..3 if !table.busy => {
                Statement::Insert { table: name, verb: Verb::Insert, rows: vec![self.row(&table, world)?] }
            }
            3..5 if table.key.is_empty() && !table.busy => {
                Statement::Delete { table: name, filter: Filter::Keys(vec![self.pick(&keys)?.clone()]) }
            }
            _ => {
                let columns: Vec<Column> = Self::writable(&table).into_iter().filter(|column| !column.unique).collect();
                let column = self.pick(&columns)?.clone();
                let value = self.value(column.kind, !column.not_null && table.form != Form::Loose);
                let filter = Filter::Keys(vec![self.pick(&keys)?.clone()]);
                Statement::Update { table: name, set: vec![(column.name, value)], filter }
            }
        };
        let text = statement.sql(world);
        Some(Write::Sql(statement, text))
    }

    fn file_write(&mut self, world: &World) -> Option<FileWrite> {
        let files: Vec<String> = world
            .files
            .iter()
            .filter(|(_, node)| matches!(node, Node::File { .. }))
            .map(|(path, _)| path.clone())
            .collect();
        let content = format!("written {}", self.fresh());
        Some(match self.rng.u32(0..10) {
            0..2 => FileWrite::Write { path: self.path("a"), content },
            2..5 => FileWrite::Write { path: self.pick(&files)?.clone(), content },
            5..7 => FileWrite::Replace { path: self.pick(&files)?.clone(), content },
            7..8 => FileWrite::Remove { path: self.pick(&files)?.clone() },
            8..9 => FileWrite::SetMode { path: self.pick(&files)?.clone(), mode: 0o640 },
            _ => FileWrite::Write { path: format!("{KEPT}/new{}", self.fresh()), content },
        })
    }
}

/// A tree of the model as the testkit writes it.
pub fn tree(files: &BTreeMap<String, Node>) -> Tree {
    files.iter().fold(Tree::new(), |tree, (path, node)| {
        let node = match node {
            Node::File { content, mode } => TreeNode::File { content: content.clone().into_bytes(), mode: *mode },
            Node::Link(target) => TreeNode::Link(target.clone()),
            Node::Dir | Node::Tree(_) => TreeNode::Dir { mode: 0o755 },
        };
        tree.node(path, node)
    })
}

impl Spec {
    /// The package itself.
    pub fn package(&self) -> Pkg {
        let mut package = Pkg::new(&self.name);
        package.requires.clone_from(&self.requires);
        package.atomic = self.list.then_some(false);
        if self.never_holds {
            package.after.push(package::sql_is("SELECT 1", 2));
        }
        package.steps = self.steps.iter().map(Step::package).collect();
        package
    }
}

impl Step {
    fn package(&self) -> package::Step {
        match self {
            Step::Sql(_, text) => package::sql(text.clone()),
            Step::Files(files, exact) => package::files(tree(files)).with("exact", *exact),
            Step::Delete(paths) => package::Step::from(package::Kind::Delete(paths.clone())).with("missing", "ok"),
            Step::Flaky { file, times } => {
                let file = format!("\"$BACKOUT_ROOT_WEB/../{file}\"");
                let script =
                    format!("n=$(($(cat {file} 2>/dev/null || echo 0) + 1)); echo $n > {file}; [ $n -gt {times} ]");
                package::run(&script, Some("true"))
            }
            Step::Child { spec, attempts, go_on } => package::child(spec.package())
                .with("retries", json!({ "attempts": attempts, "wait": "0s" }))
                .with("on-failure", if *go_on { "continue" } else { "fail" }),
        }
    }
}
