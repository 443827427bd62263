//! The guarded change of a table's rows, as a whole set: what is there now is locked and compared, byte for byte, with
//! what is expected; what others changed is merged by column or is a conflict.
//!
//! Never changes a column that somebody else changed, too, unless told to overwrite. Runs in a transaction of the
//! caller's, under the tool's own settings: no foreign key acts, so what points at nothing is sought afterwards.

use backout_model::conflict::{Conflict, ConflictKind, Conflicts};
use backout_model::target::TargetError;
use mysql::Error;

use super::replay::{Direction, Replay};
use super::seen::{self, Seen};
use super::session::{Row, Session, ident, is_taken};
use super::table::{Compared, ForeignKey, Side, Table};
use super::{loose, put, taken};

pub(super) const X: Side<'static> = Side::Live("x");
pub(super) const F: Side<'static> = Side::Held("f");
pub(super) const T: Side<'static> = Side::Held("t");
pub(super) const M: Side<'static> = Side::Held("m");

/// The change of one table: from what is expected to what is wanted, both holds.
pub struct Rows<'a> {
    pub table: &'a Table,
    pub from: String,
    pub to: String,
    /// Columns that the table has today beyond those of the holds, and which move by themselves.
    pub(super) more: Vec<(String, bool)>,
    /// What the locking of its rows showed; none before that, and of a loose table.
    seen: Option<Seen>,
}

impl<'a> Rows<'a> {
    /// `now`: the table as it is today; an error in words where it is not what the holds are of.
    pub fn new(table: &'a Table, from: String, to: String, now: &Table) -> Result<Self, String> {
        for column in &table.columns {
            match now.columns.iter().find(|one| one.name == column.name) {
                None => return Err(format!("it has no column {}", column.name)),
                Some(one) if one.kind != column.kind => {
                    return Err(format!("its column {} is of type {}, not {}", column.name, one.kind, column.kind));
                }
                Some(_) => {}
            }
        }
        let names = |table: &Table| table.key.iter().map(|at| table.columns[*at].name.clone()).collect::<Vec<_>>();
        if names(table) != names(now) {
            return Err("it has another primary key".to_owned());
        }
        let is_more = |one: &&super::table::Column| !table.columns.iter().any(|column| column.name == one.name);
        let more: Vec<(String, bool)> =
            now.columns.iter().filter(is_more).map(|column| (column.name.clone(), column.moves)).collect();
        if let Some((name, _)) = more.first().filter(|_| table.is_loose()) {
            return Err(format!(
                "it has a column {name}, and without a primary key nothing tells whose rows have a value there"
            ));
        }
        Ok(Self { table, from, to, more, seen: None })
    }

    pub(super) fn live(&self) -> String {
        ident(&self.table.name)
    }

    /// Locks the rows that are there, so that nobody changes them until the end. No snapshot is taken before that: what is
    /// read afterwards is what stands there. `wanted`: how many rows [`Self::to`] has, which another session counted.
    pub fn lock(&mut self, a: &mut Session, wanted: u64) -> Result<(), Error> {
        if self.table.is_loose() {
            return loose::lock(self, a);
        }
        self.seen = Some(seen::look(self, a, wanted)?);
        Ok(())
    }

    /// True where its rows were locked and found as the hold has them, with nothing in the way of their keys.
    pub fn is_untouched(&self) -> bool {
        self.seen.is_some_and(|seen| seen.is_untouched())
    }

    /// Compares and, where no conflict forbids it, changes.
    pub fn settle(&self, a: &mut Session, replay: &mut Replay<'_>) -> Result<(), Error> {
        if self.table.is_loose() {
            return loose::settle(self, a, replay);
        }
        let unlocked = || Error::from(std::io::Error::other("its rows were not locked"));
        let seen = self.seen.ok_or_else(unlocked)?;
        let both = format!("`{}` AS f JOIN `{}` AS t ON {}", self.from, self.to, self.table.keyed(F, T));
        let only_from = format!(
            "`{}` AS f JOIN {} AS x ON {} WHERE NOT EXISTS (SELECT 1 FROM `{}` AS t WHERE {})",
            self.from,
            self.live(),
            self.table.keyed(X, F),
            self.to,
            self.table.keyed(T, F)
        );
        let only_to = format!(
            "`{}` AS t WHERE NOT EXISTS (SELECT 1 FROM `{}` AS f WHERE {})",
            self.to,
            self.from,
            self.table.keyed(F, T)
        );
        let untouched = seen.is_untouched();
        if !untouched && seen.goes() > 0 {
            self.look_at_removed(a, replay, &only_from)?;
        }
        if !untouched && seen.both() > 0 {
            self.look_at_changed(a, replay, &both)?;
        }
        if seen.taken() > 0 {
            self.look_at_brought(a, replay, &only_to)?;
        }
        let met = taken::look(self, a, replay, &seen)?;
        if replay.is_stopped() {
            return Ok(());
        }
        if untouched && met.is_empty() {
            replay.rows += put::all(self, a, &seen)?;
            return Ok(());
        }
        a.run(&format!("CREATE TEMPORARY TABLE backout_m {}", self.table.hold()))?;
        let done = self.change(a, replay, [&both, &only_from, &only_to], &seen, &met);
        a.run("DROP TEMPORARY TABLE IF EXISTS backout_m")?;
        taken::end(a)?;
        done
    }

    /// Rows to be taken away that others changed.
    fn look_at_removed(&self, a: &mut Session, replay: &mut Replay<'_>, only_from: &str) -> Result<(), Error> {
        let table = self.table;
        let differs = format!("{only_from} AND NOT ({})", table.all_same(X, F));
        let columns = format!("{}, {}, {}", table.shown_key(F), table.shown_row(F), table.shown_row(X));
        self.list(a, replay, &columns, &differs, |replay, row| {
            let [key, left, now] = three(row);
            let conflict = replay.conflict(&table.name, Some(key), ConflictKind::Changed);
            Conflict { before: "no such row".to_owned(), left, now, ..conflict }
        })?;
        let gone = format!(
            "`{}` AS f WHERE NOT EXISTS (SELECT 1 FROM `{}` AS t WHERE {}) AND NOT EXISTS (SELECT 1 FROM {} AS x WHERE {})",
            self.from,
            self.to,
            table.keyed(T, F),
            self.live(),
            table.keyed(X, F)
        );
        if replay.direction != Direction::Undo || !replay.replacing.contains(&table.name) {
            return self.already(a, replay, ConflictKind::Missing, F, &gone);
        }
        let before = replay.conflicts.total;
        let columns = format!("{}, {}", table.shown_key(F), table.shown_row(F));
        self.list(a, replay, &columns, &gone, |replay, row| {
            let conflict = replay.conflict(&table.name, row[0].clone(), ConflictKind::Missing);
            Conflict { left: row[1].clone().unwrap_or_default(), now: "no such row".to_owned(), ..conflict }
        })?;
        replay.unkept |= replay.conflicts.total > before;
        Ok(())
    }

    /// Rows to be changed back: those that are gone, and columns that both changed.
    fn look_at_changed(&self, a: &mut Session, replay: &mut Replay<'_>, both: &str) -> Result<(), Error> {
        let table = self.table;
        let gone = format!(
            "{both} WHERE NOT ({}) AND NOT EXISTS (SELECT 1 FROM {} AS x WHERE {})",
            table.all_same(F, T),
            self.live(),
            table.keyed(X, F)
        );
        let columns = format!("{}, {}, {}", table.shown_key(F), table.shown_row(T), table.shown_row(F));
        self.list(a, replay, &columns, &gone, |replay, row| {
            let [key, before, left] = three(row);
            let conflict = replay.conflict(&table.name, Some(key), ConflictKind::Missing);
            Conflict { before, left, now: "no such row".to_owned(), ..conflict }
        })?;
        let joined = self.joined(both);
        for at in 0..table.columns.len() {
            let both_changed = format!(
                "{joined} WHERE NOT ({}) AND NOT ({}) AND NOT ({})",
                table.same(at, F, T),
                table.same(at, X, F),
                table.same(at, X, T)
            );
            let columns = format!(
                "{}, {}, {}, {}",
                table.shown_key(F),
                table.shown(at, F),
                table.shown(at, X),
                table.shown(at, T)
            );
            self.list(a, replay, &columns, &both_changed, |replay, row| {
                let [key, left, now] = three(row);
                let conflict = replay.conflict(&table.name, Some(key), ConflictKind::Changed);
                let before = row[3].clone().unwrap_or_default();
                Conflict { column: Some(table.columns[at].name.clone()), before, left, now, ..conflict }
            })?;
            let so = format!("{joined} WHERE NOT ({}) AND ({})", table.same(at, F, T), table.same(at, X, T));
            self.already(a, replay, ConflictKind::Appeared, T, &so)?;
        }
        Ok(())
    }

    /// Rows to be brought back whose key somebody else has by now.
    fn look_at_brought(&self, a: &mut Session, replay: &mut Replay<'_>, only_to: &str) -> Result<(), Error> {
        let table = self.table;
        let present = |same: &str| {
            let sql = only_to.replacen(
                " AS t WHERE",
                &format!(" AS t JOIN {} AS x ON {} WHERE", self.live(), table.keyed(X, T)),
                1,
            );
            format!("{sql} AND {same}")
        };
        let differs = present(&format!("NOT ({})", table.all_same(X, T)));
        let columns = format!("{}, {}, {}", table.shown_key(T), table.shown_row(T), table.shown_row(X));
        self.list(a, replay, &columns, &differs, |replay, row| {
            let [key, before, now] = three(row);
            let conflict = replay.conflict(&table.name, Some(key), ConflictKind::Appeared);
            Conflict { before, left: "no such row".to_owned(), now, ..conflict }
        })?;
        self.already(a, replay, ConflictKind::Appeared, T, &present(&format!("({})", table.all_same(X, T))))
    }

    /// The rows of both holds, with what is there now.
    fn joined(&self, both: &str) -> String {
        format!("{both} JOIN {} AS x ON {}", self.live(), self.table.keyed(X, F))
    }

    /// Lists conflicts: the first ones in full, the rest counted.
    pub(super) fn list(
        &self,
        a: &mut Session,
        replay: &mut Replay<'_>,
        columns: &str,
        from: &str,
        mut each: impl FnMut(&Replay<'_>, &Row) -> Conflict,
    ) -> Result<(), Error> {
        let total = a.number(&format!("SELECT COUNT(*) FROM {from}"))?;
        if total == 0 {
            return Ok(());
        }
        let start = replay.conflicts.total;
        for row in a.rows(&format!("SELECT {columns} FROM {from} LIMIT {}", Conflicts::KEPT))? {
            let conflict = each(replay, &row);
            replay.conflicts.push(conflict);
        }
        replay.conflicts.total = start + total;
        Ok(())
    }

    /// Tells the rows of `from` that are as they are to be already, the first ones.
    fn already(
        &self,
        a: &mut Session,
        replay: &mut Replay<'_>,
        kind: ConflictKind,
        side: Side<'_>,
        from: &str,
    ) -> Result<(), Error> {
        if replay.already.is_none() {
            return Ok(());
        }
        let columns = format!("{}, {}", self.table.shown_key(side), self.table.shown_row(side));
        for row in a.rows(&format!("SELECT {columns} FROM {from} LIMIT {}", Conflicts::KEPT))? {
            let conflict = replay.conflict(&self.table.name, row[0].clone(), kind);
            let text = row[1].clone().unwrap_or_default();
            let (left, now) = if kind == ConflictKind::Missing { (text, String::new()) } else { (String::new(), text) };
            if let Some(already) = &mut replay.already {
                already.push(Conflict { left, now, ..conflict });
            }
        }
        Ok(())
    }

    fn change(
        &self,
        a: &mut Session,
        replay: &mut Replay<'_>,
        [both, only_from, only_to]: [&str; 3],
        seen: &Seen,
        met: &[String],
    ) -> Result<(), Error> {
        let table = self.table;
        let overwrites = replay.overwrites();
        let mut goes = String::new();
        if overwrites {
            taken::give_way(a, met)?;
        } else if !met.is_empty() {
            taken::keep(self, a, replay, met)?;
            goes = taken::goes(table, T);
        }
        if seen.changes() > 0 {
            self.merge(a, replay, both, &goes)?;
        }
        if seen.goes() > 0 {
            let delete = if overwrites { String::new() } else { format!(" AND {}", table.all_same(X, F)) };
            replay.rows += a.count(&format!("DELETE x FROM {only_from}{delete}"))?;
        }
        let changed = a.number("SELECT COUNT(*) FROM backout_m")?;
        if changed > 0 {
            replay.rows += put::values(self, a, M, "backout_m", "", changed)?;
        }
        if overwrites {
            // Others' rows under the same keys go.
            let sql = only_to.replacen(
                " AS t WHERE",
                &format!(" AS t JOIN {} AS x ON {} WHERE", self.live(), table.keyed(X, T)),
                1,
            );
            a.run(&format!("DELETE x FROM {sql} AND NOT ({})", table.all_same(X, T)))?;
            let gone = format!(
                "{both} WHERE NOT ({}) AND NOT EXISTS (SELECT 1 FROM {} AS x WHERE {})",
                table.all_same(F, T),
                self.live(),
                table.keyed(X, F)
            );
            replay.rows += put::rows(self, a, T, &gone)?;
        }
        let free =
            format!("{only_to} AND NOT EXISTS (SELECT 1 FROM {} AS x WHERE {}){goes}", self.live(), table.keyed(X, T));
        replay.rows += put::rows(self, a, T, &free)?;
        Ok(())
    }

    /// Fills `backout_m` with what each row of both is to be, where it is not that already: in a column that the step changed
    /// what was before, where nobody else changed it.
    fn merge(&self, a: &mut Session, replay: &Replay<'_>, both: &str, goes: &str) -> Result<(), Error> {
        let table = self.table;
        let merged: Vec<String> = (0..table.columns.len())
            .map(|at| {
                let ours = if replay.overwrites() { "1".to_owned() } else { table.same(at, X, F) };
                // Within an expression an ENUM or SET is its text, which does not tell two empty ones apart.
                let number = if table.columns[at].compared == Compared::Number { " + 0" } else { "" };
                let (x, t) = (X.column(table, at), T.column(table, at));
                format!("IF(NOT ({}) AND ({ours}), {t}{number}, {x}{number})", table.same(at, F, T))
            })
            .collect();
        a.run(&format!(
            "INSERT INTO backout_m ({}) SELECT {} FROM {} WHERE NOT ({}){goes}",
            table.held(""),
            merged.join(", "),
            self.joined(both),
            table.all_same(F, T)
        ))?;
        a.run(&format!(
            "DELETE m FROM backout_m AS m JOIN {} AS x ON {} WHERE {}",
            self.live(),
            table.keyed(X, M),
            table.all_same(X, M)
        ))
    }

    /// Seeks rows that would point at nothing: of what was brought, and of what pointed at what was taken away.
    pub fn look_at_links(&self, a: &mut Session, replay: &mut Replay<'_>, links: &[ForeignKey]) -> Result<(), Error> {
        for link in links {
            let own = link.is_of(&self.table.name);
            if !own && !link.points_at(&self.table.name) {
                continue;
            }
            let (child, parent) = (link.child_ident(), replay.ahead.parent(a, link)?);
            let pairs = link.columns.iter().zip(&link.referenced);
            let on: Vec<String> = pairs.map(|(one, other)| format!("c.{} = p.{}", ident(one), ident(other))).collect();
            let set: Vec<String> = link.columns.iter().map(|name| format!("c.{} IS NOT NULL", ident(name))).collect();
            // Only what this change has to do with: rows that it brought, or that pointed at rows that it took away.
            let touched = if own {
                let keyed = |side: &str| self.table.keyed(Side::Live("c"), Side::Held(side));
                let at = |name: &String| self.table.columns.iter().position(|column| column.name == *name);
                let same: Option<Vec<String>> =
                    link.columns.iter().map(|name| Some(self.table.same(at(name)?, F, T))).collect();
                // One that points where it pointed is no worse than it was.
                let moved = same.map_or(String::new(), |mut same| {
                    if !self.table.is_loose() {
                        same.push(self.table.keyed(F, T));
                    }
                    format!(" AND NOT EXISTS (SELECT 1 FROM `{}` AS f WHERE {})", self.from, same.join(" AND "))
                });
                let brought = format!("EXISTS (SELECT 1 FROM `{}` AS t WHERE {}{moved})", self.to, keyed("t"));
                // A digest is sought in the hold, not the hold's in the table.
                if self.table.is_loose() { format!("IF({brought}, 1, 0)") } else { brought }
            } else {
                let at = |name: &String| self.table.columns.iter().position(|column| column.name == *name);
                let keys: Option<Vec<usize>> = link.referenced.iter().map(at).collect();
                let Some(keys) = keys else { continue };
                let same: Vec<String> =
                    link.columns.iter().zip(keys).map(|(one, at)| format!("c.{} = f.c{at}", ident(one))).collect();
                format!("EXISTS (SELECT 1 FROM `{}` AS f WHERE {})", self.from, same.join(" AND "))
            };
            let comes = replay.ahead.comes(link).map(|comes| format!(" AND NOT {comes}")).unwrap_or_default();
            let from = format!(
                "{child} AS c WHERE {} AND {touched} AND NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {}){comes}",
                set.join(" AND "),
                on.join(" AND ")
            );
            let values: Vec<String> = link.columns.iter().map(|name| format!("c.{}", ident(name))).collect();
            let columns = format!("CONCAT_WS(', ', {})", values.join(", "));
            let object = link.elsewhere[0].iter().chain([&link.child]).cloned().collect::<Vec<_>>().join(".");
            let parent = link.elsewhere[1].iter().chain([&link.parent]).cloned().collect::<Vec<_>>().join(".");
            let named = link.columns.join(", ");
            self.list(a, replay, &columns, &from, |replay, row| {
                let value = row[0].clone().unwrap_or_default();
                let conflict = replay.conflict(&object, None, ConflictKind::ForeignKey);
                Conflict { now: format!("{named} = {value} is not in {parent}"), ..conflict }
            })?;
        }
        Ok(())
    }
}

pub(super) fn three(row: &Row) -> [String; 3] {
    [0, 1, 2].map(|at| row.get(at).cloned().flatten().unwrap_or_default())
}

/// A row of somebody else's in the way of a unique key is a conflict; any other failure stays one.
pub fn taken_or(replay: &mut Replay<'_>, table: &Table, source: Error) -> Result<(), TargetError> {
    if is_taken(&source) {
        let conflict = replay.conflict(&table.name, None, ConflictKind::Constraint);
        replay.conflicts.push(Conflict { now: source.to_string(), ..conflict });
        return Ok(());
    }
    Err(unchanged(&table.name, replay.label, source))
}

pub fn unchanged(table: &str, label: &str, source: Error) -> TargetError {
    TargetError::failed(format!("cannot change rows of {table} in {label}"), source)
}
