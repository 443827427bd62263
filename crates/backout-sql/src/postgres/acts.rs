//! The statements by which a change of the schema was undone when its undo was tried, kept with the change: from them a
//! script for `psql` is written that does the same without this tool.
//!
//! What was taken back to a savepoint is forgotten, as the server forgets it.

use serde::{Deserialize, Serialize};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Sql(String),
    /// `COPY … FROM STDIN`, and the block of kept rows that goes into it.
    Rows {
        copy: String,
        block: u64,
    },
}

/// The same where what is held lies in other schemas and kept rows in other blocks: pairs of old and new.
pub fn moved(acts: &[Act], holds: &[(&str, &str)], blocks: &[(u64, u64)]) -> Vec<Act> {
    let names = |sql: &str| names_replaced(sql, holds);
    let block = |old: u64| blocks.iter().find(|(from, _)| *from == old).map_or(old, |(_, to)| *to);
    let one = |act: &Act| match act {
        Act::Sql(sql) => Act::Sql(names(sql)),
        Act::Rows { copy, block: old } => Act::Rows { copy: names(copy), block: block(*old) },
    };
    acts.iter().map(one).collect()
}

/// Replaces names that end in numbers, wherever they are not the beginnings of others. What is new is not replaced again.
fn names_replaced(sql: &str, names: &[(&str, &str)]) -> String {
    let Some(((old, new), others)) = names.split_first() else { return sql.to_owned() };
    let (mut replaced, mut from) = (String::new(), 0);
    for (at, _) in sql.match_indices(old) {
        let end = at + old.len();
        if !sql[end..].starts_with(|next: char| next.is_ascii_digit()) {
            replaced += &names_replaced(&sql[from..at], others);
            replaced += new;
            from = end;
        }
    }
    replaced + &names_replaced(&sql[from..], others)
}

/// Takes down what runs.
#[derive(Debug, Default)]
pub struct Log {
    acts: Vec<Act>,
    /// Savepoints, and how many acts came before each.
    marks: Vec<(String, usize)>,
    /// Something was dropped with all that hung on it, looked at, and built anew: that fits what hung on it then.
    rebuilt: bool,
}

/// The savepoints at which it is looked what hangs on an object.
const LOOKS: [&str; 3] = ["backout_shape", "backout_anew", "backout_labels"];

impl Log {
    /// A text ran without an error.
    pub fn ran(&mut self, sql: &str) {
        let sql = sql.trim();
        if let Some(rest) = sql.strip_prefix("ROLLBACK TO ") {
            let name = first_word(rest.strip_prefix("SAVEPOINT ").unwrap_or(rest));
            self.rebuilt |= LOOKS.contains(&name);
            if let Some(at) = self.marks.iter().rposition(|(mark, _)| mark == name) {
                self.acts.truncate(self.marks[at].1);
                self.marks.truncate(at + 1);
            }
        } else if let Some(rest) = sql.strip_prefix("SAVEPOINT ") {
            self.marked(first_word(rest));
            if let Some((_, rest)) = rest.split_once(';') {
                self.ran(rest);
            }
        } else if !sql.is_empty() && !sql.starts_with("RELEASE ") {
            let own = sql.rsplit_once("; RELEASE SAVEPOINT ").map_or(sql, |(own, _)| own);
            self.acts.push(Act::Sql(own.to_owned()));
        }
    }

    /// A savepoint was set by another text.
    pub fn marked(&mut self, savepoint: &str) {
        self.marks.push((savepoint.to_owned(), self.acts.len()));
    }

    pub fn copied(&mut self, copy: &str, block: u64) {
        self.acts.push(Act::Rows { copy: copy.to_owned(), block });
    }

    /// What ran; none where it fits only what hung together then, unless that `is_known`.
    pub fn into_acts(self, is_known: bool) -> Vec<Act> {
        if self.rebuilt && !is_known { Vec::new() } else { self.acts }
    }
}

fn first_word(text: &str) -> &str {
    text.split([';', ' ']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(texts: &[&str]) -> Vec<Act> {
        let mut log = Log::default();
        texts.iter().for_each(|text| log.ran(text));
        log.into_acts(false)
    }

    #[test]
    fn what_was_taken_back_is_forgotten() {
        let ran = log(&[
            "SAVEPOINT backout_act",
            "DROP VIEW v; RELEASE SAVEPOINT backout_act",
            "SAVEPOINT backout_act",
            "ROLLBACK TO SAVEPOINT backout_act; RELEASE SAVEPOINT backout_act",
            "SAVEPOINT outer; ALTER TABLE t DROP COLUMN a",
            "SAVEPOINT inner",
            "ALTER TABLE t DROP COLUMN b",
            "ROLLBACK TO outer; RELEASE outer",
            "DROP SCHEMA IF EXISTS h",
        ]);
        assert_eq!(ran, [Act::Sql("DROP VIEW v".into()), Act::Sql("DROP SCHEMA IF EXISTS h".into())]);
    }

    #[test]
    fn what_is_held_elsewhere_comes_from_there() {
        let acts = [
            Act::Sql("ALTER TABLE backout_s_h1.t SET SCHEMA public;\nDROP SCHEMA backout_s_h12".into()),
            Act::Rows { copy: "COPY t FROM STDIN".into(), block: 3 },
        ];
        let moved = moved(&acts, &[("backout_s_h1", "backout_s_h7")], &[(3, 0)]);
        assert_eq!(
            moved[0],
            Act::Sql("ALTER TABLE backout_s_h7.t SET SCHEMA public;\nDROP SCHEMA backout_s_h12".into())
        );
        assert_eq!(moved[1], Act::Rows { copy: "COPY t FROM STDIN".into(), block: 0 });
    }

    #[test]
    fn schemas_that_change_places_are_not_mixed_up() {
        let acts = [Act::Sql("ALTER TABLE s_h1.t SET SCHEMA a; ALTER TABLE s_h2.t SET SCHEMA b; s_h12.t".into())];
        let moved = moved(&acts, &[("s_h1", "s_h2"), ("s_h2", "s_h1")], &[]);
        assert_eq!(
            moved,
            [Act::Sql("ALTER TABLE s_h2.t SET SCHEMA a; ALTER TABLE s_h1.t SET SCHEMA b; s_h12.t".into())]
        );
    }

    #[test]
    fn what_was_built_anew_is_not_told() {
        assert_eq!(
            log(&["SAVEPOINT backout_anew", "DROP VIEW v CASCADE", "ROLLBACK TO backout_anew", "DROP VIEW w"]),
            []
        );
    }
}
