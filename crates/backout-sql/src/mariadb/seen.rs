//! What the locking of a table's rows shows at once: whether all that a step left still stands, byte for byte, and nothing
//! is in the way of what is to come. Then nothing is left to be compared or merged, and the rows change as whole sets.
//!
//! Reads by locks alone: a snapshot that began before the last row was locked would not know what others did until then.

use mysql::Error;

use super::guard::{F, Rows, T, X};
use super::session::{Row, Session, ident};

/// The numbers of rows of two holds, what is expected and what is wanted, beside the table that was locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What is expected.
    from: u64,
    /// Of these, what stands there in all columns.
    stands: u64,
    /// What is wanted.
    to: u64,
    /// Keys of both.
    both: u64,
    /// Of these, those whose rows differ.
    changes: u64,
    /// Keys that are only wanted, and that the table has.
    taken: u64,
}

impl Seen {
    /// True where nobody touched a row of the holds: no row is in conflict, but for unique values beside the key.
    pub fn is_untouched(&self) -> bool {
        self.stands == self.from && self.taken == 0
    }

    /// Rows that are only expected: to be taken away.
    pub fn goes(&self) -> u64 {
        self.from - self.both
    }

    /// Rows that are only wanted: to be brought.
    pub fn comes(&self) -> u64 {
        self.to - self.both
    }

    pub fn both(&self) -> u64 {
        self.both
    }

    pub fn changes(&self) -> u64 {
        self.changes
    }

    pub fn taken(&self) -> u64 {
        self.taken
    }
}

/// Locks the rows of both holds in the table, or the gaps where they would be; `to_rows`: how many the wanted hold has.
pub fn look(rows: &Rows<'_>, a: &mut Session, to_rows: u64) -> Result<Seen, Error> {
    let (table, from, to, live) = (rows.table, &rows.from, &rows.to, ident(&rows.table.name));
    let key = table.key.first().copied().unwrap_or_default();
    let (f, t, x) = (F.column(table, key), T.column(table, key), X.column(table, key));
    // No column of a key takes NULL: what has none there is not there.
    let [from_rows, stands, both, changes] = numbers(a.rows(&format!(
        "SELECT COUNT(*), SUM({}), COUNT({t}), SUM({t} IS NOT NULL AND NOT ({}))
         FROM `{from}` AS f LEFT JOIN `{to}` AS t ON {} LEFT JOIN {live} AS x ON {} FOR UPDATE",
        table.all_same(X, F),
        table.all_same(F, T),
        table.keyed(F, T),
        table.keyed(X, F)
    ))?);
    if both > to_rows {
        return Err(
            std::io::Error::other(format!("the hold {to} has {to_rows} rows, and {both} were found there")).into()
        );
    }
    let mut seen = Seen { from: from_rows, stands, to: to_rows, both, changes, taken: 0 };
    if seen.comes() > 0 {
        let alone = match from_rows {
            0 => format!("LEFT JOIN {live} AS x ON {}", table.keyed(X, T)),
            _ => format!(
                "LEFT JOIN `{from}` AS f ON {} LEFT JOIN {live} AS x ON {} WHERE {f} IS NULL",
                table.keyed(F, T),
                table.keyed(X, T)
            ),
        };
        let [taken] = numbers(a.rows(&format!("SELECT COUNT({x}) FROM `{to}` AS t {alone} FOR UPDATE"))?);
        seen.taken = taken;
    }
    Ok(seen)
}

/// The numbers of the one row of an answer; a sum of nothing is 0.
fn numbers<const N: usize>(rows: Vec<Row>) -> [u64; N] {
    let number = |at: usize| rows.first()?.get(at)?.as_deref()?.parse().ok();
    std::array::from_fn(|at| number(at).unwrap_or(0))
}
