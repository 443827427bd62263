//! Foreign keys after an undo or redo, during which nobody enforced them.
//!
//! Only the rows that were changed are looked at: what came back may point at nothing, and something may point at what
//! went. Such a row is a conflict, and stays as the step left it: PostgreSQL would take a row that points at nothing for
//! valid ever after.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts, OnConflict};
use backout_model::target::TargetError;

use super::load::{Loaded, Replay};
use super::prepared::{self, Asked};
use super::session::{Session, ident, literal};
use super::stream::Table;
use super::table::{self, quoted};
use super::terms::{keyed, shown_key};

/// A column of each side, and the operators that compare them.
#[derive(Clone)]
struct Pair {
    parent: String,
    child: String,
    /// `parent = child`, `child = child`.
    equals: String,
    among_children: String,
}

/// What a foreign key does to the rows that point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    /// They go, or take the new values.
    Cascade,
    /// They get NULL or the default.
    Set,
}

impl Action {
    fn of(letter: &str) -> Self {
        match letter {
            "c" => Self::Cascade,
            "n" | "d" => Self::Set,
            _ => Self::Nothing,
        }
    }
}

/// One foreign key whose tables were touched.
struct Link {
    child: u32,
    child_name: String,
    parent_name: String,
    columns: Vec<Pair>,
    /// The touched table is, or is part of, the child or the parent.
    is_child: bool,
    validated: bool,
    /// The role may read both tables.
    readable: bool,
    /// What becomes of the child's rows where the parent's are deleted.
    on_delete: Action,
    /// The same, where the columns that they point at are changed.
    on_update: Action,
}

/// Looks at the foreign keys of all tables whose rows were changed.
pub fn check(a: &mut Session, replay: &mut Replay<'_>, tables: &[Table], loaded: &[Loaded]) -> Result<(), TargetError> {
    if tables.is_empty() {
        return Ok(());
    }
    let label = replay.label;
    let failed = |source| TargetError::failed(format!("cannot check the foreign keys of {label}"), source);
    let mut all = Vec::new();
    for one in loaded {
        for link in links(a, &one.table).map_err(failed)? {
            // What a key that was never validated points at may have been missing before; where keys stay in force, such
            // a row cannot come back all the same.
            let counts = !link.is_child || link.validated || replay.cascades;
            // One that stays in force is looked at by the server, too, which may read what the role may not.
            if counts && (link.readable || !replay.cascades) {
                all.push((one, link));
            }
        }
    }
    // A row that is left as it was may itself be what another one needs gone, or there.
    loop {
        let mut changed = false;
        for (one, link) in &all {
            changed |= dangling(a, replay, one, link).map_err(failed)?;
        }
        if !changed {
            return Ok(());
        }
    }
}

/// A foreign key whose rows follow those that they point at: they are deleted or changed with them.
pub struct Followed {
    pub table: Table,
    pub child: String,
    columns: Vec<Pair>,
    /// It points at its own table.
    pub own: bool,
    action: Action,
}

impl Followed {
    /// The condition that a row `c` points at a row `parent`.
    pub fn points_at(&self, parent: &str) -> String {
        compare(&self.columns, parent, "c")
    }

    /// True where it points at one of these columns.
    pub fn needs(&self, mut columns: impl Iterator<Item = String>) -> bool {
        columns.any(|column| self.columns.iter().any(|pair| pair.parent == column))
    }
}

/// The condition that the row `child` points at the row `parent`.
fn compare(columns: &[Pair], parent: &str, child: &str) -> String {
    let parts: Vec<String> =
        columns.iter().map(|pair| format!("{parent}.{} {} {child}.{}", pair.parent, pair.equals, pair.child)).collect();
    parts.join(" AND ")
}

/// What the rows of a foreign key follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Following {
    Deletes,
    Changes,
}

/// The foreign keys that point at a table and delete or change the rows that do.
pub fn followed(a: &mut Session, table: &Table, what: Following) -> Result<Vec<Followed>, postgres::Error> {
    let mut found = Vec::new();
    for link in links(a, table)?.into_iter().filter(|link| !link.is_child) {
        let action = match what {
            Following::Deletes => link.on_delete,
            Following::Changes => link.on_update,
        };
        if action != Action::Nothing {
            let child = table::read(a, link.child)?;
            let own = child.schema == table.schema && child.name == table.name;
            found.push(Followed { table: child, child: link.child_name, columns: link.columns, own, action });
        }
    }
    Ok(found)
}

/// Puts tables in an order in which those that point come before those that they point at.
pub fn children_first(a: &mut Session, tables: &[&Table]) -> Result<Vec<usize>, postgres::Error> {
    let rows = a.rows(
        "SELECT format('%I.%I', cn.nspname, c.relname), format('%I.%I', pn.nspname, p.relname)
         FROM pg_constraint AS f JOIN pg_class AS c ON c.oid = f.conrelid JOIN pg_namespace AS cn ON cn.oid = c.relnamespace
         JOIN pg_class AS p ON p.oid = f.confrelid JOIN pg_namespace AS pn ON pn.oid = p.relnamespace
         WHERE f.contype = 'f' AND f.conrelid <> f.confrelid",
    )?;
    let names = a.rows(&format!(
        "SELECT format('%I.%I', s, n) FROM unnest(ARRAY[{}]::text[], ARRAY[{}]::text[]) WITH ORDINALITY AS x (s, n, at) ORDER BY at",
        tables.iter().map(|table| literal(&table.schema)).collect::<Vec<_>>().join(", "),
        tables.iter().map(|table| literal(&table.name)).collect::<Vec<_>>().join(", ")
    ))?;
    let at = |name: &Option<String>| names.iter().position(|row| row[0] == *name);
    let pairs: Vec<(usize, usize)> = rows.iter().filter_map(|row| Some((at(&row[0])?, at(&row[1])?))).collect();
    let mut order: Vec<usize> = Vec::new();
    while order.len() < tables.len() {
        let open = |one: usize| !order.contains(&one);
        let free = |one: &usize| open(*one) && !pairs.iter().any(|(child, parent)| parent == one && open(*child));
        // In a circle none is free: then any will do.
        let next = (0..tables.len()).find(free).or_else(|| (0..tables.len()).find(|one| open(*one)));
        order.extend(next);
    }
    Ok(order)
}

fn links(a: &mut Session, table: &Table) -> Result<Vec<Link>, postgres::Error> {
    const LINKS: &str = "WITH own AS (SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                      WHERE n.nspname = $1 AND c.relname = $2),
              all_own AS (SELECT oid FROM own UNION SELECT relid FROM own, pg_partition_ancestors(own.oid))
         SELECT f.oid, f.conrelid, f.conrelid IN (SELECT oid FROM all_own), f.confrelid IN (SELECT oid FROM all_own),
             format('%s%I.%I', CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY ' END, cn.nspname, c.relname),
             format('%s%I.%I', CASE WHEN p.relkind = 'p' THEN '' ELSE 'ONLY ' END, pn.nspname, p.relname),
             pa.attname, format('OPERATOR(%I.%s)', opn.nspname, o.oprname), ca.attname, f.convalidated,
             format('OPERATOR(%I.%s)', opf.nspname, of.oprname), f.confdeltype, f.confupdtype,
             (has_schema_privilege(cn.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
                 AND has_schema_privilege(pn.oid, 'USAGE') AND has_table_privilege(p.oid, 'SELECT'))::text
         FROM pg_constraint AS f JOIN pg_class AS c ON c.oid = f.conrelid JOIN pg_namespace AS cn ON cn.oid = c.relnamespace
         JOIN pg_class AS p ON p.oid = f.confrelid JOIN pg_namespace AS pn ON pn.oid = p.relnamespace
         CROSS JOIN generate_subscripts(f.conkey, 1) AS at
         JOIN pg_attribute AS ca ON ca.attrelid = f.conrelid AND ca.attnum = f.conkey[at]
         JOIN pg_attribute AS pa ON pa.attrelid = f.confrelid AND pa.attnum = f.confkey[at]
         JOIN pg_operator AS o ON o.oid = f.conpfeqop[at] JOIN pg_namespace AS opn ON opn.oid = o.oprnamespace
         JOIN pg_operator AS of ON of.oid = f.conffeqop[at] JOIN pg_namespace AS opf ON opf.oid = of.oprnamespace
         WHERE f.contype = 'f' AND f.conparentid = 0
             AND (f.conrelid IN (SELECT oid FROM all_own) OR f.confrelid IN (SELECT oid FROM all_own))
         ORDER BY f.oid, at";
    let values = format!("{}, {}", literal(&table.schema), literal(&table.name));
    let rows = prepared::rows(&mut a.client, &[Asked::new(LINKS.to_owned(), "name, name", values)])?;
    let mut found: Vec<Link> = Vec::new();
    let mut last = None;
    let mut sides: (bool, bool) = (false, false);
    for row in rows {
        let text = |at: usize| row[at].clone();
        let column =
            Pair { parent: ident(&text(6)), equals: text(7), child: ident(&text(8)), among_children: text(10) };
        if last.as_ref() != Some(&row[0]) {
            last = Some(row[0].clone());
            sides = (text(2) == "t", text(3) == "t");
            for is_child in [true, false] {
                if (is_child && sides.0) || (!is_child && sides.1) {
                    found.push(Link {
                        child: text(1).parse().unwrap_or_default(),
                        child_name: text(4),
                        parent_name: text(5),
                        columns: vec![column.clone()],
                        is_child,
                        validated: text(9) == "t",
                        readable: text(13) == "true",
                        on_delete: Action::of(&text(11)),
                        on_update: Action::of(&text(12)),
                    });
                }
            }
        } else {
            let pushed = usize::from(sides.0) + usize::from(sides.1);
            for link in found.iter_mut().rev().take(pushed) {
                link.columns.push(column.clone());
            }
        }
    }
    Ok(found)
}

/// Lists the rows that point at nothing; true where some were put right.
fn dangling(a: &mut Session, replay: &mut Replay<'_>, one: &Loaded, link: &Link) -> Result<bool, postgres::Error> {
    let touched = if link.is_child { (&one.to, one.wanted) } else { (&one.from, one.expected) };
    if touched.1 == 0 {
        return Ok(false);
    }
    // Where a later change of the schema took a column away, the key went with it, or was made anew and so looked at.
    let has = |name: &String| one.table.columns.iter().any(|column| ident(&column.name) == *name);
    if !link.columns.iter().all(|pair| has(if link.is_child { &pair.child } else { &pair.parent })) {
        return Ok(false);
    }
    let child = table::read(a, link.child)?;
    let compare = |parent: &str, child: &str| compare(&link.columns, parent, child);
    let no_parent =
        |child: &str| format!("NOT EXISTS (SELECT FROM {} AS p WHERE {})", link.parent_name, compare("p", child));
    let present: Vec<String> = link.columns.iter().map(|pair| format!("c.{} IS NOT NULL", pair.child)).collect();
    let touched_rows = if link.is_child {
        let same: Vec<String> =
            link.columns.iter().map(|pair| format!("r.{c} {} c.{c}", pair.among_children, c = pair.child)).collect();
        format!("EXISTS (SELECT FROM {} AS r WHERE {})", touched.0, same.join(" AND "))
    } else {
        format!("EXISTS (SELECT FROM {} AS r WHERE {})", touched.0, compare("r", "c"))
    };
    let from = format!(
        "{} AS c WHERE {} AND {touched_rows} AND {}",
        if link.is_child { format!("ONLY {}", quoted(&one.table)) } else { link.child_name.clone() },
        present.join(" AND "),
        no_parent("c")
    );
    let start = replay.conflicts.total;
    let count = a.value(&format!("SELECT count(*) FROM {from}"))?;
    let count: u64 = count.and_then(|text| text.parse().ok()).unwrap_or(0);
    if count == 0 {
        return Ok(false);
    }
    let pointed: Vec<String> = link
        .columns
        .iter()
        .map(|pair| format!("{} || format('%s', c.{})", literal(&format!("{}=", pair.parent)), pair.child))
        .collect();
    let parent = link.parent_name.trim_start_matches("ONLY ").trim_start_matches("public.");
    let rows = a.rows(&format!(
        "SELECT {}, {} || '(' || concat_ws(', ', {}) || ')' FROM {from} LIMIT {}",
        shown_key(&child, "c"),
        literal(parent),
        pointed.join(", "),
        Conflicts::KEPT
    ))?;
    for row in rows {
        let conflict = replay.conflict(&child, row[0].clone(), ConflictKind::ForeignKey);
        replay.conflicts.push(Conflict { now: row[1].clone().unwrap_or_default(), ..conflict });
    }
    replay.conflicts.total = start + count;
    if replay.on_conflict == OnConflict::Stop {
        return Ok(false);
    }
    let put_right = if link.is_child {
        leave_child(a, replay, one, link, &no_parent)?
    } else {
        let needed =
            format!("EXISTS (SELECT FROM {} AS c WHERE {} AND {})", link.child_name, compare("f", "c"), no_parent("c"));
        leave_parent(a, replay, one, link, &needed)?
    };
    Ok(put_right > 0)
}

/// Rows that came back and point at nothing stay away, or keep the columns that point.
fn leave_child(
    a: &mut Session,
    replay: &mut Replay<'_>,
    one: &Loaded,
    link: &Link,
    no_parent: &dyn Fn(&str) -> String,
) -> Result<u64, postgres::Error> {
    let (table, live) = (&one.table, quoted(&one.table));
    let only = format!("ONLY {live}");
    if table.key.is_empty() {
        let whole = |alias: &str| format!("ROW({})::text", table::list(table, alias));
        let goes = |row: &str| format!("{} = {} AND {}", whole(row), whole("t"), no_parent(row));
        let going = |row: &str| format!("EXISTS (SELECT FROM {} AS t WHERE {})", one.to, goes(row));
        follow(a, replay, table, &Going { live: &only, rows: &going, changed: None }, 0)?;
        return a.count(&format!("DELETE FROM {only} AS x USING {} AS t WHERE {}", one.to, goes("x")));
    }
    let own = |row: &str| keyed(table, row, "t");
    let pair = keyed(table, "f", "t");
    let goes = |row: &str| {
        format!("{} AND {} AND NOT EXISTS (SELECT FROM {} AS f WHERE {pair})", own(row), no_parent(row), one.from)
    };
    let going = |row: &str| format!("EXISTS (SELECT FROM {} AS t WHERE {})", one.to, goes(row));
    follow(a, replay, table, &Going { live: &only, rows: &going, changed: None }, 0)?;
    let gone = a.count(&format!("DELETE FROM {only} AS x USING {} AS t WHERE {}", one.to, goes("x")))?;
    let names: Vec<String> = link.columns.iter().map(|pair| pair.child.clone()).collect();
    let both = format!("{} AS t JOIN {} AS f ON {pair}", one.to, one.from);
    let going = |row: &str| {
        let differ = differ(&names, row, "f");
        format!("EXISTS (SELECT FROM {both} WHERE {} AND {} AND {differ})", own(row), no_parent(row))
    };
    follow(a, replay, table, &Going { live: &only, rows: &going, changed: Some(&names) }, 0)?;
    let kept = match settable(table, &names) {
        None => 0,
        Some(set) => {
            a.count(&format!("UPDATE {only} AS x SET {set} FROM {both} WHERE {} AND {}", own("x"), no_parent("x")))?
        }
    };
    Ok(gone + kept)
}

/// Rows that went and that others point at stay, or keep the columns that are pointed at.
fn leave_parent(
    a: &mut Session,
    replay: &mut Replay<'_>,
    one: &Loaded,
    link: &Link,
    needed: &str,
) -> Result<u64, postgres::Error> {
    let (table, live) = (&one.table, quoted(&one.table));
    let only = format!("ONLY {live}");
    let own = |row: &str| keyed(table, row, "f");
    let names: Vec<String> = link.columns.iter().map(|pair| pair.parent.clone()).collect();
    let going = |row: &str| {
        let differ = differ(&names, row, "f");
        format!("EXISTS (SELECT FROM {} AS f WHERE {} AND {needed} AND {differ})", one.from, own(row))
    };
    follow(a, replay, table, &Going { live: &only, rows: &going, changed: Some(&names) }, 0)?;
    let kept = match settable(table, &names) {
        None => 0,
        Some(set) => {
            a.count(&format!("UPDATE {only} AS x SET {set} FROM {} AS f WHERE {} AND {needed}", one.from, own("x")))?
        }
    };
    let back = a.count(&format!(
        "INSERT INTO {live} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} AS f
         WHERE {needed} AND NOT EXISTS (SELECT FROM {only} AS x WHERE {})",
        table::list(table, ""),
        table::list(table, "f"),
        one.from,
        own("x")
    ))?;
    Ok(kept + back)
}

/// The assignments of these columns from the row `f`, none for what no UPDATE can set and need not: a key that is `GENERATED ALWAYS
/// AS IDENTITY` is the same in both rows.
fn settable(table: &Table, names: &[String]) -> Option<String> {
    let columns = table.key.iter().map(|key| &table.columns[key.column]);
    let fixed: Vec<String> = columns.filter(|column| column.always).map(|column| ident(&column.name)).collect();
    let set: Vec<String> =
        names.iter().filter(|name| !fixed.contains(name)).map(|name| format!("{name} = f.{name}")).collect();
    (!set.is_empty()).then(|| set.join(", "))
}

/// The condition that two rows differ in one of these columns, as they are written: so a cascade sees it.
fn differ(names: &[String], one: &str, other: &str) -> String {
    let each = names.iter().map(|name| format!("{one}.{name}::text IS DISTINCT FROM {other}.{name}::text"));
    format!("({})", each.collect::<Vec<_>>().join(" OR "))
}

/// Rows that are about to be put right.
struct Going<'a> {
    /// Their table, with ONLY where it has rows of its own.
    live: &'a str,
    /// The condition that a row is one of them.
    rows: &'a dyn Fn(&str) -> String,
    /// The columns that change; `None` where the rows are deleted.
    changed: Option<&'a [String]>,
}

/// How far rows that follow rows that follow are listed one by one.
const DEEP: u32 = 16;

/// Lists the rows that cascades will take along: nobody may find them changed that was not told.
fn follow(
    a: &mut Session,
    replay: &mut Replay<'_>,
    table: &Table,
    going: &Going<'_>,
    depth: u32,
) -> Result<(), postgres::Error> {
    if !replay.cascades {
        return Ok(());
    }
    let what = if going.changed.is_some() { Following::Changes } else { Following::Deletes };
    for link in followed(a, table, what)? {
        if going.changed.is_some_and(|columns| !link.needs(columns.iter().cloned())) {
            continue;
        }
        let mut from = format!(
            "{} AS c JOIN {} AS x ON {} WHERE {}",
            link.child,
            going.live,
            link.points_at("x"),
            (going.rows)("x")
        );
        if link.own {
            from += &format!(" AND NOT {}", (going.rows)("c"));
        }
        let count = a.value(&format!("SELECT count(*) FROM {from}"))?;
        let count: u64 = count.and_then(|text| text.parse().ok()).unwrap_or(0);
        if count == 0 {
            continue;
        }
        let start = replay.conflicts.total;
        let (child, own) = (shown_key(&link.table, "c"), shown_key(table, "x"));
        let rows = a.rows(&format!("SELECT {child}, {own} FROM {from} LIMIT {}", Conflicts::KEPT))?;
        let parent = table::shown(table);
        let more = if depth < DEEP { "" } else { ", and whatever points at it in turn" };
        for row in rows {
            let conflict = replay.conflict(&link.table, row[0].clone(), ConflictKind::ForeignKey);
            let now = format!("{parent}({}), which it follows{more}", row[1].clone().unwrap_or_default());
            replay.conflicts.push(Conflict { now, ..conflict });
        }
        replay.conflicts.total = start + count;
        if depth < DEEP {
            let alias = format!("x{depth}");
            let rows = |row: &str| {
                let points = compare(&link.columns, &alias, row);
                format!("EXISTS (SELECT FROM {} AS {alias} WHERE {points} AND {})", going.live, (going.rows)(&alias))
            };
            let names: Vec<String> = link.columns.iter().map(|pair| pair.child.clone()).collect();
            let gone = going.changed.is_none() && link.action == Action::Cascade;
            let next = Going { live: &link.child, rows: &rows, changed: (!gone).then_some(names.as_slice()) };
            follow(a, replay, &link.table, &next, depth + 1)?;
        }
    }
    Ok(())
}
