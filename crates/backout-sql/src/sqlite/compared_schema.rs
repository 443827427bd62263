//! What differs between two schemas, as objects that went and objects that came. Reads `sqlite_schema`; never a row of a
//! table and never changes anything.
//!
//! An object that has another text, or another place in the order, went and came again: so its undo brings back text and
//! place. With a table goes what hangs on it.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::classify::is_ours;
use super::ddl_side::{SEQUENCE, is_statistics};
use super::schema::{self, SchemaRow};

/// An object with what SQLite makes for it: the indexes of a table's keys, the tables that a virtual one is kept in.
#[derive(Clone, Debug)]
pub struct Unit {
    pub object: SchemaRow,
    pub parts: Vec<SchemaRow>,
}

impl Unit {
    pub fn is_table(&self) -> bool {
        self.object.kind == "table"
    }

    pub fn is_virtual(&self) -> bool {
        self.is_table() && self.object.rootpage == 0
    }

    /// What is found in `sqlite_schema` for it, in order.
    pub fn rows(&self) -> Vec<SchemaRow> {
        let mut rows: Vec<SchemaRow> = std::iter::once(&self.object).chain(&self.parts).cloned().collect();
        rows.sort_by_key(|row| row.rowid);
        rows
    }

    /// The tables of it that hold rows.
    pub fn tables(&self) -> impl Iterator<Item = &SchemaRow> {
        std::iter::once(&self.object).chain(&self.parts).filter(|row| row.kind == "table" && row.rootpage > 0)
    }

    fn key(&self) -> (String, String) {
        (self.object.kind.clone(), self.object.name.clone())
    }

    fn is_same(&self, other: &Unit) -> bool {
        let have = |rows: &[SchemaRow], row: &SchemaRow| rows.iter().any(|other| other.is_same(row));
        self.object.is_same(&other.object)
            && self.is_virtual() == other.is_virtual()
            && self.parts.len() == other.parts.len()
            && self.parts.iter().all(|row| have(&other.parts, row))
    }

    /// In dropping costs, where one of two has to go and come again.
    fn weight(&self) -> u64 {
        match () {
            () if self.is_internal() => 1_000_000,
            () if self.is_table() => 1000,
            () => 1,
        }
    }

    /// SQLite's own, by which the others are placed; what becomes of it is told elsewhere.
    fn is_internal(&self) -> bool {
        self.object.name == SEQUENCE || is_statistics(&self.object.name)
    }
}

/// What became of a schema.
#[derive(Debug, Default)]
pub struct Differences {
    /// What went, in the order in which it is to go: last in the schema first. What hangs on a table that went is with it.
    pub gone: Vec<(Unit, Vec<SchemaRow>)>,
    /// What came, in the order of the schema, with its rows; what hangs on a table comes by itself.
    pub made: Vec<(Unit, Vec<SchemaRow>)>,
    /// Tables that stayed, those of virtual ones among them, by name.
    pub same: Vec<String>,
    /// Virtual tables that stand elsewhere than before among the tables that they are kept in (VACUUM puts them last): no
    /// undo gives them their place again.
    pub moved: Vec<String>,
}

/// Compares the schemas of two connections.
pub fn compare(before: &Connection, after: &Connection) -> rusqlite::Result<Differences> {
    let (olds, news) = (units(before)?, units(after)?);
    let at: HashMap<_, _> = news.iter().enumerate().map(|(at, unit)| (unit.key(), at)).collect();
    let met: Vec<(usize, usize)> = olds
        .iter()
        .enumerate()
        .filter_map(|(old, unit)| Some((old, *at.get(&unit.key())?)))
        .filter(|(old, new)| olds[*old].is_same(&news[*new]))
        .collect();
    // What was dropped and made the same again stands behind all that stayed. Only VACUUM, which numbers anew, brings
    // anything forward.
    let is_renumbered = met.iter().any(|(old, new)| news[*new].object.rowid < olds[*old].object.rowid);
    let rowids = |unit: &Unit| unit.rows().into_iter().map(|row| row.rowid).collect::<Vec<_>>();
    let (stay, others): (Vec<_>, Vec<_>) =
        met.into_iter().partition(|(old, new)| is_renumbered || rowids(&olds[*old]) == rowids(&news[*new]));
    let mut met = in_order(&stay, &olds);
    // A virtual table is told by its rows all the same: what others write to it later has no other one to go over to.
    let behind: Vec<(usize, usize)> = others.into_iter().filter(|(old, _)| olds[*old].is_virtual()).collect();
    met.extend(&behind);
    // What hangs on a table that does not stay goes with it.
    let stays: HashSet<String> =
        met.iter().map(|(old, _)| &olds[*old]).filter(|unit| has_hangers(unit)).map(own_name).collect();
    met.retain(|(old, _)| has_hangers(&olds[*old]) || stays.contains(&olds[*old].object.table.to_ascii_lowercase()));
    let kept_old: HashSet<usize> = met.iter().map(|(old, _)| *old).collect();
    let kept_new: HashSet<usize> = met.iter().map(|(_, new)| *new).collect();
    let swapped: Vec<(usize, usize)> = met.iter().map(|(old, new)| (*new, *old)).collect();
    let (back, forth) = match is_renumbered {
        true => (places(&olds, &news, &met), places(&news, &olds, &swapped)),
        false => Default::default(),
    };
    let gone_names: HashSet<String> = olds
        .iter()
        .enumerate()
        .filter(|(old, unit)| !kept_old.contains(old) && has_hangers(unit))
        .map(|(_, unit)| own_name(unit))
        .collect();
    let mut differences = Differences::default();
    for (at, unit) in olds.iter().enumerate().rev().filter(|(at, _)| !kept_old.contains(at)) {
        if unit.is_internal() {
            continue;
        }
        let table = unit.object.table.to_ascii_lowercase();
        if !has_hangers(unit) && gone_names.contains(&table) {
            continue;
        }
        let hangs = |(other, hanger): &(usize, &Unit)| {
            has_hangers(unit)
                && *other != at
                && !has_hangers(hanger)
                && hanger.object.table.eq_ignore_ascii_case(&unit.object.name)
        };
        let hangers = olds.iter().enumerate().filter(hangs).flat_map(|(_, hanger)| hanger.rows());
        let mut rows: Vec<SchemaRow> = unit.rows().into_iter().chain(hangers).map(|row| moved(&row, &back)).collect();
        rows.sort_by_key(|row| row.rowid);
        differences.gone.push((unit.clone(), rows));
    }
    let came = news.iter().enumerate().filter(|(at, unit)| !kept_new.contains(at) && !unit.is_internal());
    let made = came.map(|(_, unit)| unit);
    differences.made =
        made.map(|unit| (unit.clone(), unit.rows().iter().map(|row| moved(row, &forth)).collect())).collect();
    let stay = met.iter().map(|(old, _)| &olds[*old]).filter(|unit| !unit.is_internal());
    differences.same = stay.flat_map(Unit::tables).map(|row| row.name.clone()).collect();
    let order = |unit: &Unit| unit.rows().into_iter().map(|row| row.name).collect::<Vec<_>>();
    let elsewhere = met.iter().filter(|(old, new)| {
        let was_before_others = || olds.iter().skip(old + 1).any(|unit| !unit.is_internal());
        olds[*old].is_virtual()
            && (order(&olds[*old]) != order(&news[*new]) || behind.contains(&(*old, *new)) && was_before_others())
    });
    differences.moved = elsewhere.map(|(old, _)| olds[*old].object.name.clone()).collect();
    Ok(differences)
}

fn moved(row: &SchemaRow, places: &HashMap<i64, i64>) -> SchemaRow {
    SchemaRow { rowid: places.get(&row.rowid).copied().unwrap_or(row.rowid), ..row.clone() }
}

/// Tables and views: an index or trigger is one of theirs.
fn has_hangers(unit: &Unit) -> bool {
    matches!(unit.object.kind.as_str(), "table" | "view")
}

fn own_name(unit: &Unit) -> String {
    unit.object.name.to_ascii_lowercase()
}

/// The objects of a schema but for the tool's own and those that SQLite keeps for itself.
fn units(conn: &Connection) -> rusqlite::Result<Vec<Unit>> {
    let all = schema::all(conn)?;
    let rows: Vec<&SchemaRow> = all.iter().filter(|row| !is_ours(&row.table) && !is_ours(&row.name)).collect();
    let shadows: HashSet<String> = conn
        .prepare("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let virtuals: Vec<&str> =
        rows.iter().filter(|row| row.kind == "table" && row.rootpage == 0).map(|row| row.name.as_str()).collect();
    let owner = |row: &SchemaRow| -> Option<String> {
        if let Some(of) = shadows.contains(&row.table).then_some(&row.table) {
            let begins = |name: &&&str| {
                of.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
                    && of[name.len()..].starts_with('_')
            };
            return virtuals.iter().filter(begins).max_by_key(|name| name.len()).map(|name| (*name).to_owned());
        }
        (row.kind == "index" && row.sql.is_none()).then(|| row.table.clone())
    };
    let mut units: Vec<Unit> = Vec::new();
    let mut parts: HashMap<String, Vec<SchemaRow>> = HashMap::new();
    for row in rows {
        match owner(row) {
            Some(owner) => parts.entry(owner).or_default().push(row.clone()),
            None => units.push(Unit { object: row.clone(), parts: Vec::new() }),
        }
    }
    for unit in units.iter_mut().filter(|unit| unit.is_table()) {
        unit.parts = parts.remove(&unit.object.name).unwrap_or_default();
    }
    Ok(units)
}

/// Of what is in both, the most that stands in the same order in both. `met` is in the order of the one.
fn in_order(met: &[(usize, usize)], units: &[Unit]) -> Vec<(usize, usize)> {
    if met.windows(2).all(|pair| pair[0].1 < pair[1].1) {
        return met.to_vec();
    }
    // The heaviest ascending subsequence: for each, the best that ends there.
    let mut best: Vec<(u64, Option<usize>)> = Vec::with_capacity(met.len());
    for (at, (old, new)) in met.iter().enumerate() {
        let before = (0..at).filter(|other| met[*other].1 < *new).max_by_key(|other| best[*other].0);
        let weight = units[*old].weight() + before.map_or(0, |other| best[other].0);
        best.push((weight, before));
    }
    let mut next = (0..met.len()).max_by_key(|at| best[*at].0);
    let mut kept = Vec::new();
    while let Some(at) = next {
        kept.push(met[at]);
        next = best[at].1;
    }
    kept.reverse();
    kept
}

/// Where what went is to come back, by its old place: its own, unless what stayed stands elsewhere now (VACUUM numbers
/// anew). Then right behind what stayed before it.
fn places(olds: &[Unit], news: &[Unit], met: &[(usize, usize)]) -> HashMap<i64, i64> {
    let mut stays: Vec<(i64, i64)> = Vec::new();
    for (old, new) in met {
        for row in olds[*old].rows() {
            let there = news[*new].rows().into_iter().find(|other| other.kind == row.kind && other.name == row.name);
            stays.extend(there.map(|there| (row.rowid, there.rowid)));
        }
    }
    if stays.iter().all(|(old, new)| old == new) {
        return HashMap::new();
    }
    stays.sort_unstable();
    let kept: HashSet<usize> = met.iter().map(|(old, _)| *old).collect();
    let mut gone: Vec<i64> = olds
        .iter()
        .enumerate()
        .filter(|(old, _)| !kept.contains(old))
        .flat_map(|(_, unit)| unit.rows())
        .map(|row| row.rowid)
        .collect();
    gone.sort_unstable();
    // Each that came back before moves what follows down by one.
    let mut places = HashMap::new();
    for (back, rowid) in gone.into_iter().enumerate() {
        let behind = stays.iter().filter(|(old, _)| *old < rowid).map(|(_, new)| *new).max().unwrap_or(0);
        let back = i64::try_from(back).unwrap_or(i64::MAX);
        places.insert(rowid, behind.saturating_add(back).saturating_add(1));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(script: &str) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(script).unwrap();
        conn
    }

    fn names(before: &str, after: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
        let found = compare(&of(before), &of(after)).unwrap();
        let gone =
            found.gone.iter().map(|(_, rows)| rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join("+"));
        (gone.collect(), found.made.iter().map(|(unit, _)| unit.object.name.clone()).collect(), found.same)
    }

    #[test]
    fn what_hangs_on_a_table_goes_with_it_and_comes_by_itself() {
        let base = "CREATE TABLE a(x UNIQUE); CREATE TABLE b(y); CREATE INDEX bi ON b(y); CREATE VIEW v AS SELECT 1;";
        assert_eq!(names(base, base), (vec![], vec![], vec!["a".into(), "b".into()]));
        let other =
            "CREATE TABLE a(x UNIQUE); CREATE TABLE b(y, z); CREATE INDEX bi ON b(y); CREATE VIEW v AS SELECT 1;";
        assert_eq!(names(base, other), (vec!["b+bi".into()], vec!["b".into(), "bi".into()], vec!["a".into()]));
    }

    #[test]
    fn an_object_at_another_place_went_and_came() {
        let base = "CREATE TABLE a(x); CREATE VIEW v AS SELECT 1; CREATE TABLE b(y);";
        let other = "CREATE TABLE a(x); CREATE TABLE b(y); CREATE VIEW v AS SELECT 1;";
        assert_eq!(names(base, other), (vec!["v".into()], vec!["v".into()], vec!["a".into(), "b".into()]));
    }

    #[test]
    fn what_was_made_again_alike_went_and_came() {
        let base = "CREATE TABLE a(x); CREATE TABLE b(y); CREATE INDEX bi ON b(y); CREATE TABLE c(z);";
        let other = format!("{base} DROP TABLE b; CREATE TABLE b(y); CREATE INDEX bi ON b(y);");
        assert_eq!(
            names(base, &other),
            (vec!["b+bi".into()], vec!["b".into(), "bi".into()], vec!["a".into(), "c".into()])
        );
        // Also where it was the last one, and so nothing stands in another order.
        let base = "CREATE TABLE a(x); CREATE TABLE b(y); CREATE TABLE gap(x); CREATE TABLE c(z);";
        let other = format!("{base} DROP TABLE gap; CREATE TABLE gap(x); DROP TABLE c; CREATE TABLE c(z);");
        assert_eq!(names(base, &other).2, ["a", "b"]);
    }

    #[test]
    fn the_tables_of_a_full_text_table_are_parts_of_it() {
        let base = "CREATE VIRTUAL TABLE f USING fts5(x);";
        let (gone, made, same) = names("", base);
        assert_eq!((gone.len(), made, same.len()), (0, vec!["f".to_owned()], 0));
        assert_eq!(names(base, base).2.len(), 5);
    }
}
