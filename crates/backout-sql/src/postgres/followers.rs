//! Where foreign keys stay in force while rows go back: rows that rows of others would follow are left alone, and are conflicts.

use backout_model::conflict::{Conflict, ConflictKind};

use super::foreign::{self, Followed, Following};
use super::guard::Rows;
use super::session::ident;
use super::table;
use super::terms::{keyed, same, shown_key};

impl Rows<'_, '_> {
    /// A condition that leaves out the rows that others' rows would follow by a cascade. These are conflicts.
    pub(super) fn unneeded(&mut self, needed: &[Followed]) -> Result<String, postgres::Error> {
        let (from, to) = (self.loaded.from.clone(), self.loaded.to.clone());
        let pair = keyed(self.table, "t", "f");
        let mut left_out = String::new();
        for link in needed {
            // Rows of the table itself that go as well are no obstacle.
            let going = if link.own {
                let same = keyed(self.table, "g", "c");
                format!(
                    " AND NOT EXISTS (SELECT FROM {from} AS g WHERE {same}
                      AND NOT EXISTS (SELECT FROM {to} AS t WHERE {}))",
                    keyed(self.table, "t", "g")
                )
            } else {
                String::new()
            };
            let rows = format!(
                "{from} AS f JOIN {} AS c ON {} WHERE NOT EXISTS (SELECT FROM {to} AS t WHERE {pair}){going}",
                link.child,
                link.points_at("f")
            );
            let shown = format!("{}, {}", shown_key(&link.table, "c"), shown_key(self.table, "f"));
            let parent = table::shown(self.table);
            self.look(&shown, "1", &rows, " FOR NO KEY UPDATE OF c", |replay, _, row| {
                let conflict = replay.conflict(&link.table, row[0].clone(), ConflictKind::ForeignKey);
                let now = format!("{parent}({})", row[1].clone().unwrap_or_default());
                replay.conflicts.push(Conflict { now, ..conflict });
            })?;
            left_out +=
                &format!(" AND NOT EXISTS (SELECT FROM {} AS c WHERE {}{going})", link.child, link.points_at("f"));
        }
        Ok(left_out)
    }

    /// Finds the rows at which others point by a column that changes, and which these would follow: those are conflicts, and
    /// stay. What the step itself made them follow has gone back already and points elsewhere.
    pub(super) fn hold(&mut self, columns: &[usize]) -> Result<(), postgres::Error> {
        let table = self.table;
        let changing = || columns.iter().map(|at| ident(&table.columns[*at].name));
        let mut held = String::new();
        for link in foreign::followed(self.a, table, Following::Changes)?.iter().filter(|link| link.needs(changing())) {
            let changes: Vec<String> = columns
                .iter()
                .filter(|at| link.needs(std::iter::once(ident(&table.columns[**at].name))))
                .map(|at| format!("NOT {}", same(table, *at, "f", "t")))
                .collect();
            let changes = changes.join(" OR ");
            let rows = format!(
                "{} AS f JOIN {} AS t ON {} JOIN ONLY {} AS x ON {} JOIN {} AS c ON {} WHERE ({changes})",
                self.loaded.from,
                self.loaded.to,
                keyed(table, "f", "t"),
                self.live,
                keyed(table, "x", "f"),
                link.child,
                link.points_at("x")
            );
            let shown = format!("{}, {}", shown_key(&link.table, "c"), shown_key(table, "x"));
            let parent = table::shown(table);
            self.look(&shown, "1", &rows, "", |replay, _, row| {
                let conflict = replay.conflict(&link.table, row[0].clone(), ConflictKind::Constraint);
                let now = format!("it points at {parent}({}) and would follow", row[1].clone().unwrap_or_default());
                replay.conflicts.push(Conflict { now, ..conflict });
            })?;
            held += &format!(
                " AND NOT (({changes}) AND EXISTS (SELECT FROM {} AS c WHERE {}))",
                link.child,
                link.points_at("x")
            );
        }
        self.held = held;
        Ok(())
    }
}
