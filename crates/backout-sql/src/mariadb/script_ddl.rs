//! How a script for `mariadb` takes back a change of the schema: by the statements that the tool would run. Each commits by
//! itself, so all that can be looked at beforehand is: that the names in it mean what they did when the script was written,
//! and that the deployment left that.

use std::collections::BTreeSet;

use mysql::Error;

use super::ddl::{Change, Gone, definition, rename, rows_in};
use super::ddl_fit::{filled, is_new};
use super::ddl_kept::{Holds, changed, refilled};
use super::ddl_links;
use super::ddl_shape::Shape;
use super::ddl_text::{Kind, Text, Told};
use super::marker::Names;
use super::quiet;
use super::segment::Segment;
use super::sequence;
use super::session::{Session, ident, literal, under};
use super::table::{ForeignKey, Side, Table};

/// Statements that take a change back, and the conditions under which they must not run.
#[derive(Default)]
pub(super) struct Back {
    /// Conditions, and the words for what stands in the way.
    pub stops: Vec<(String, String)>,
    pub statements: Vec<String>,
}

/// The triggers that are there at the place that the script has come to.
pub(super) struct Triggers {
    there: BTreeSet<String>,
    /// Those that the script brought back, with their tables.
    back: Vec<(String, String)>,
}

impl Triggers {
    pub(super) fn read(b: &mut Session) -> Result<Self, Error> {
        Ok(Self { there: quiet::names(b)?.into_iter().collect(), back: Vec::new() })
    }

    /// Those that came back on a table.
    pub(super) fn back_on(&self, table: &str) -> impl Iterator<Item = &str> {
        self.back.iter().filter(move |(_, of)| of == table).map(|(name, _)| name.as_str())
    }

    /// Takes away one of a table, or makes it what a text says.
    fn put(&mut self, run: &mut Vec<String>, name: &str, table: &str, wanted: Option<&Text>) {
        text(run, Kind::Trigger, name, wanted, &|next| self.there.contains(next));
        self.there.remove(name);
        self.back.retain(|(one, _)| one != name);
        if wanted.is_some() {
            self.there.insert(name.to_owned());
            self.back.push((name.to_owned(), table.to_owned()));
        }
    }
}

/// By the server's own text.
fn is_view(definition: &str) -> bool {
    definition.starts_with("CREATE ") && !definition.starts_with("CREATE TABLE")
}

/// Ends what a trigger's or routine's own settings were for.
fn settings_back() -> Vec<String> {
    Session::of_scripts().map(|(name, value)| format!("SET SESSION {name} = {value}")).collect()
}

/// What takes `change` back; why not, in words, where only the tool can. `untouched`: what it is about is now as it left it.
pub(super) fn back(
    b: &mut Session,
    names: &Names,
    segment: &Segment,
    change: &Change,
    untouched: bool,
    there: &mut Triggers,
) -> Result<Result<Back, String>, Error> {
    let hold = |what: &str| segment.object(names, what);
    let mut back = Back::default();
    let run = &mut back.statements;
    let mut moves = change.moves(&hold);
    moves = moves.into_iter().rev().map(|(from, to)| (to, from)).collect();
    match change {
        Change::Made { name, definition, rows, .. } => {
            let other_rows = match rows {
                None => format!("EXISTS (SELECT 1 FROM {})", ident(name)),
                Some(_) if !untouched => {
                    return Ok(Err(format!("table {name} was made with rows, and changed after that")));
                }
                Some(_) => {
                    let digest = digest_of_rows(b, name)?;
                    format!("({digest}) <> {}", literal(&value(b, &digest)?))
                }
            };
            if sequence::is_one(definition) {
                let left = sequence::as_left(b, names, name, definition)?;
                back.stops.push((sequence::was_drawn_from(name, &left), format!("the sequence {name}")));
            } else if !is_view(definition) {
                back.stops.push((other_rows, format!("what is in {name}")));
            }
            let links: Vec<String> = Shape::of(definition)
                .links
                .iter()
                .map(|(link, _)| format!("DROP FOREIGN KEY {}", ident(link)))
                .collect();
            if !links.is_empty() {
                run.push(format!("ALTER TABLE {} {}", ident(name), links.join(", ")));
            }
            run.push(rename(&moves));
        }
        Change::Dropped { gone } => {
            run.push(rename(&moves));
            for one in gone {
                came_back(run, one, there);
            }
        }
        Change::Swapped { name, after, .. } => {
            if !is_view(after) {
                back.stops.push((format!("EXISTS (SELECT 1 FROM {})", ident(name)), format!("what is in {name}")));
            }
            run.push(rename(&moves));
        }
        Change::Renamed { triggers, .. } => {
            run.push(rename(&moves));
            triggers.iter().for_each(|told| told_back(run, told, there));
        }
        Change::Relinked { name, before, after, .. } => links(run, name, &Shape::of(after), &Shape::of(before)),
        Change::Told(told) => {
            if let (Kind::Sequence, Some(after)) = (told.kind, &told.after) {
                let left = sequence::text_as_left(b, names, &told.name, &after.sql)?;
                let number = left.rsplit(' ').next().unwrap_or_default();
                let drawn = format!("(SELECT next_not_cached_value FROM {}) <> {number}", ident(&told.name));
                back.stops.push((drawn, format!("the sequence {}", told.name)));
            }
            told_back(run, told, there);
        }
        Change::Altered(altered) => {
            let name = &altered.name;
            let mut inverse = Vec::from_iter((!altered.inverse.is_empty()).then(|| altered.inverse.clone()));
            if altered.links {
                inverse.extend(ddl_links::clauses(&Shape::of(&altered.after), &Shape::of(&altered.before)));
            }
            let holds = Holds::named(hold);
            if let Some(kept) = &altered.kept {
                if kept.brings() && !quiet::names_in_order(b, name)?.is_empty() {
                    return Ok(Err(format!("table {name} has triggers, which would act on values that come back")));
                }
                if kept.after.columns.len() > kept.after.key.len() {
                    back.stops.push((
                        format!("EXISTS (SELECT 1 FROM {})", changed(kept, &holds)),
                        format!("a row of {name}"),
                    ));
                }
            }
            if let Some(kept) = altered.kept.as_ref().filter(|_| altered.retypes()) {
                // The server would cut, round and bound what has no room in its old type.
                let theirs = format!("EXISTS (SELECT 1 FROM {} WHERE {})", ident(name), is_new(kept, &holds));
                back.stops.push((theirs, format!("a row that others made in {name}")));
            }
            // Its key alone.
            let strict = altered.kept.is_none() && altered.retypes();
            if strict {
                run.push("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')".to_owned());
            }
            if altered.brings_checks() {
                run.push("SET SESSION check_constraint_checks = 1".to_owned());
            }
            for condition in filled(altered) {
                back.stops.push((
                    format!("EXISTS (SELECT 1 FROM {} WHERE {condition})", ident(name)),
                    format!("a value in a new column of {name}"),
                ));
            }
            if !inverse.is_empty() {
                checked(run, format!("ALTER TABLE {} {}", ident(name), inverse.join(", ")));
            }
            if let Some(kept) = &altered.kept {
                let was = Shape::of(&altered.before);
                let moving = was.columns.iter().filter(|(_, rest)| rest.to_lowercase().contains("on update"));
                run.push(format!("DELETE FROM `{}`", holds.skipped));
                run.extend(refilled(moving.map(|(name, _)| name.as_str()), kept, &holds));
            }
            if strict || altered.brings_checks() {
                run.extend(settings_back());
            }
            if let (Some(was), Some(left)) =
                (altered.counter, altered.counter_after.filter(|after| Some(*after) != altered.counter))
            {
                run.push(counter(name, was, left));
            }
        }
    }
    Ok(Ok(back))
}

fn told_back(run: &mut Vec<String>, told: &Told, there: &mut Triggers) {
    match (told.kind, &told.table) {
        (Kind::Trigger, Some(table)) => there.put(run, &told.name, table, told.before.as_ref()),
        _ => text(run, told.kind, &told.name, told.before.as_ref(), &|_| false),
    }
}

/// What a change that is taken back makes of the foreign keys.
pub(super) fn lead_back(keys: &mut Vec<ForeignKey>, change: &Change) {
    let definitions: Vec<(&str, &str)> = match change {
        Change::Made { .. } | Change::Swapped { .. } | Change::Told(_) => Vec::new(),
        Change::Dropped { gone } => gone.iter().map(|one| (one.name.as_str(), one.definition.as_str())).collect(),
        Change::Altered(altered) => vec![(&altered.name, &altered.before)],
        Change::Relinked { name, before, .. } => vec![(name, before)],
        Change::Renamed { pairs, .. } => {
            for (from, to) in pairs.iter().rev() {
                for name in keys.iter_mut().flat_map(|key| [&mut key.child, &mut key.parent]) {
                    if name == to {
                        name.clone_from(from);
                    }
                }
            }
            return;
        }
    };
    if let Change::Made { name, .. } = change {
        keys.retain(|key| key.child != *name);
    }
    for (child, definition) in definitions {
        keys.retain(|key| key.child != child);
        for (name, line) in &Shape::of(definition).links {
            let Some((columns, parent, referenced)) = ddl_links::link(line) else { continue };
            let (name, child) = (name.clone(), child.to_owned());
            let (on_delete, on_update) = (String::new(), String::new());
            keys.push(ForeignKey {
                name,
                elsewhere: [None, None],
                child,
                columns,
                parent,
                referenced,
                on_delete,
                on_update,
            });
        }
    }
}

/// Foreign keys and triggers of a table that came back.
fn came_back(run: &mut Vec<String>, gone: &Gone, there: &mut Triggers) {
    for (name, of_trigger) in &gone.triggers {
        there.put(run, name, &gone.name, Some(of_trigger));
    }
    links(run, &gone.name, &Shape::of(&gone.definition).without_links(), &Shape::of(&gone.definition));
}

fn links(run: &mut Vec<String>, name: &str, from: &Shape, to: &Shape) {
    let clauses = ddl_links::clauses(from, to);
    if !clauses.is_empty() {
        checked(run, format!("ALTER TABLE {} {}", ident(name), clauses.join(", ")));
    }
}

/// With foreign keys checked as they come.
fn checked(run: &mut Vec<String>, sql: String) {
    run.push("SET SESSION foreign_key_checks = 1".to_owned());
    run.push(sql);
    run.push("SET SESSION foreign_key_checks = 0".to_owned());
}

/// Makes an object what a text says, or takes it away.
fn text(run: &mut Vec<String>, kind: Kind, name: &str, text: Option<&Text>, is_there: &dyn Fn(&str) -> bool) {
    let Some(text) = text else {
        return run.push(format!("DROP {} IF EXISTS {}", kind.word(), ident(name)));
    };
    run.extend(under(text.settings(), &text.made(is_there)));
    run.extend(settings_back());
    run.extend(text.grants().iter().cloned());
}

/// Where a counter stood goes back where nobody drew from it since; never below the rows that are there.
pub(super) fn counter(name: &str, was: u64, left: u64) -> String {
    format!(
        "BEGIN NOT ATOMIC
  IF (SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}) = {left}
  THEN ALTER TABLE {} AUTO_INCREMENT = {was}; END IF;
END",
        literal(name),
        ident(name)
    )
}

/// Whether the database is as the change left it; in words, what is not. Rows of tables are compared as far as the change
/// tells what they were.
pub(super) fn not_as_left(
    b: &mut Session,
    names: &Names,
    change: &Change,
    held: &str,
) -> Result<Option<String>, Error> {
    let shape = |b: &mut Session, name: &str, wanted: &str| -> Result<Option<String>, Error> {
        let now = definition(b, name)?.unwrap_or_default();
        let wanted = sequence::as_left(b, names, name, wanted)?;
        Ok((Shape::of(&now) != Shape::of(&wanted)).then(|| format!("{name} is no longer as the deployment left it")))
    };
    Ok(match change {
        Change::Made { name, definition, rows, .. } => match shape(b, name, definition)? {
            None if rows.is_some() && rows_in(b, name)? != *rows => {
                Some(format!("{name} has other rows than the deployment left"))
            }
            found => found,
        },
        Change::Swapped { name, after, .. } | Change::Relinked { name, after, .. } => shape(b, name, after)?,
        Change::Altered(altered) => shape(b, &altered.name, &altered.after)?,
        Change::Dropped { gone } => {
            let mut found = None;
            for one in gone {
                if definition(b, &one.name)?.is_some() {
                    found = Some(format!("others made a {} of their own", one.name));
                }
            }
            found
        }
        Change::Told(told) => {
            let now = super::ddl_text::seen(b, told.kind, &told.name, held)?;
            let sql = |text: &Option<Text>| text.as_ref().map(|text| text.sql.clone());
            let left = match (told.kind, sql(&told.after)) {
                (Kind::Sequence, Some(after)) => Some(sequence::text_as_left(b, names, &told.name, &after)?),
                (_, after) => after,
            };
            (sql(&now) != left).then(|| format!("{} is no longer as the deployment left it", told.name))
        }
        Change::Renamed { .. } => None,
    })
}

/// A condition that what is called so is another thing than it is now.
pub(super) fn differs(b: &mut Session, name: &str) -> Result<String, Error> {
    let digest = digest(name);
    let now = value(b, &digest)?;
    Ok(format!("({digest}) <> {}", literal(&now)))
}

fn value(b: &mut Session, sql: &str) -> Result<String, Error> {
    Ok(b.value(sql)?.unwrap_or_default())
}

/// A question for the digest of all definitions of a name: table or view with all its parts, routine, event, trigger.
fn digest(name: &str) -> String {
    let parts = [
        ("TABLES", "TABLE", "TABLE_TYPE, ENGINE, ROW_FORMAT, TABLE_COLLATION, CREATE_OPTIONS, TABLE_COMMENT"),
        (
            "COLUMNS",
            "TABLE",
            "COLUMN_NAME, ORDINAL_POSITION, COLUMN_DEFAULT, IS_NULLABLE, COLUMN_TYPE, COLLATION_NAME, EXTRA, COLUMN_COMMENT, GENERATION_EXPRESSION",
        ),
        (
            "STATISTICS",
            "TABLE",
            "INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, SUB_PART, NON_UNIQUE, INDEX_TYPE, INDEX_COMMENT",
        ),
        (
            "KEY_COLUMN_USAGE",
            "TABLE",
            "CONSTRAINT_NAME, ORDINAL_POSITION, COLUMN_NAME, REFERENCED_TABLE_NAME, REFERENCED_COLUMN_NAME",
        ),
        ("KEY_COLUMN_USAGE", "REFERENCED", "TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_COLUMN_NAME"),
        ("REFERENTIAL_CONSTRAINTS", "CONSTRAINT", "CONSTRAINT_NAME, UPDATE_RULE, DELETE_RULE"),
        ("CHECK_CONSTRAINTS", "CONSTRAINT", "CONSTRAINT_NAME, CHECK_CLAUSE"),
        ("PARTITIONS", "TABLE", "PARTITION_NAME, PARTITION_METHOD, PARTITION_EXPRESSION, PARTITION_DESCRIPTION"),
        ("VIEWS", "TABLE", "VIEW_DEFINITION, CHECK_OPTION, DEFINER, SECURITY_TYPE"),
        (
            "TRIGGERS",
            "EVENT_OBJECT",
            "TRIGGER_NAME, EVENT_MANIPULATION, ACTION_TIMING, ACTION_ORDER, ACTION_STATEMENT, DEFINER",
        ),
        (
            "TRIGGERS",
            "TRIGGER",
            "EVENT_OBJECT_TABLE, EVENT_MANIPULATION, ACTION_TIMING, ACTION_ORDER, ACTION_STATEMENT, DEFINER",
        ),
        (
            "ROUTINES",
            "ROUTINE",
            "ROUTINE_TYPE, DTD_IDENTIFIER, ROUTINE_DEFINITION, DEFINER, SECURITY_TYPE, SQL_MODE, ROUTINE_COMMENT",
        ),
        (
            "EVENTS",
            "EVENT",
            "EVENT_DEFINITION, EXECUTE_AT, INTERVAL_VALUE, INTERVAL_FIELD, STARTS, ENDS, STATUS, ON_COMPLETION, DEFINER",
        ),
    ];
    let lines = parts.iter().enumerate().map(|(at, (view, word, columns))| {
        let told: Vec<String> = columns.split(", ").map(|column| format!("IFNULL(CONCAT('=', {column}), '-')")).collect();
        let (schema, own) = match *word {
            "EVENT_OBJECT" => ("EVENT_OBJECT_SCHEMA", "EVENT_OBJECT_TABLE"),
            "CONSTRAINT" => ("CONSTRAINT_SCHEMA", "TABLE_NAME"),
            "TABLE" => ("TABLE_SCHEMA", "TABLE_NAME"),
            "REFERENCED" => ("REFERENCED_TABLE_SCHEMA", "REFERENCED_TABLE_NAME"),
            "TRIGGER" => ("TRIGGER_SCHEMA", "TRIGGER_NAME"),
            "ROUTINE" => ("ROUTINE_SCHEMA", "ROUTINE_NAME"),
            _ => ("EVENT_SCHEMA", "EVENT_NAME"),
        };
        format!(
            "SELECT CONCAT_WS('|', {at}, {}) AS line FROM information_schema.{view} WHERE {schema} = DATABASE() AND {own} = {}",
            told.join(", "),
            literal(name)
        )
    });
    let lines: Vec<String> = lines.collect();
    format!(
        "SELECT IFNULL(MD5(GROUP_CONCAT(line ORDER BY line SEPARATOR '\\n')), '') FROM ({}) AS d",
        lines.join(" UNION ALL ")
    )
}

/// A question for a digest of a table's rows.
fn digest_of_rows(b: &mut Session, name: &str) -> Result<String, Error> {
    let digest = Table::find(b, name)?.digest(Side::Live("x"));
    Ok(format!(
        "SELECT CONCAT(COUNT(*), ' ', IFNULL(SUM(CAST(CONV(LEFT(HEX({digest}), 12), 16, 10) AS UNSIGNED)), 0)) FROM {} AS x",
        ident(name)
    ))
}
