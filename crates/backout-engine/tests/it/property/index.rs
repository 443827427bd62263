//! The indexes of the model: they come and go by themselves and with their tables and columns, and never change a row.

use std::collections::BTreeMap;

use super::world::{Found, Table, Turn, World};

/// What the names of the model's indexes begin with.
pub const INDEX: &str = "x";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub table: String,
    pub column: String,
}

pub type Indexes = BTreeMap<String, Index>;

impl Index {
    pub fn sql(&self, name: &str) -> String {
        format!("CREATE INDEX {name} ON {} ({})", self.table, self.column)
    }
}

impl World {
    pub fn indexes_of(&self, table: &str) -> Indexes {
        let own = self.indexes.iter().filter(|(_, index)| index.table == table);
        own.map(|(name, index)| (name.clone(), index.clone())).collect()
    }

    pub fn is_indexed(&self, table: &str, column: &str) -> bool {
        self.indexes.values().any(|index| index.table == table && index.column == column)
    }

    /// Those of a table go with it; or those on a column of it.
    pub fn take_indexes(&mut self, table: &str, column: Option<&str>) -> Indexes {
        let mut own = self.indexes_of(table);
        own.retain(|_, index| column.is_none_or(|column| index.column == column));
        self.indexes.retain(|name, _| !own.contains_key(name));
        own
    }

    /// One index comes or goes by itself.
    pub fn turn_index(&mut self, name: &str, index: &Index, comes: bool, turn: Turn, found: &mut Found) {
        let now = self.indexes.get(name);
        if !comes {
            match now {
                Some(_) => drop(self.indexes.remove(name)),
                None if turn == Turn::Undo => {}
                None => found.hard.push(format!("the index {name} is gone")),
            }
            return;
        }
        let has_column = self.tables.get(&index.table).map(|table| table.column(&index.column).is_some());
        match (now, has_column) {
            (Some(_), _) => found.hard.push(format!("an index {name} appeared")),
            (None, Some(true)) => drop(self.indexes.insert(name.to_owned(), index.clone())),
            (None, _) if turn == Turn::Undo => found.hard.push(format!("the index {name} has nothing to stand on")),
            (None, _) => found.unknown.push(format!("the index {name} has nothing to stand on")),
        }
    }

    /// Those of a table that went with it come and go with it again.
    pub fn turn_indexes(&mut self, table: &str, indexes: &Indexes, comes: bool, found: &mut Found) {
        if comes {
            for (name, index) in indexes {
                self.turn_index(name, index, true, Turn::Undo, found);
            }
            return;
        }
        let now = self.take_indexes(table, None);
        if let Some(name) = indexes.keys().find(|name| !now.contains_key(*name)) {
            found.hard.push(format!("the index {name} is gone"));
        }
        if let Some(name) = now.keys().find(|name| !indexes.contains_key(*name)) {
            found.unknown.push(format!("the index {name} goes, too"));
        }
    }

    /// What indexes have against a change of a table's columns.
    pub fn indexes_object(
        &self,
        from: &Table,
        to: &Table,
        rebuilt: bool,
        known: &Indexes,
        turn: Turn,
        found: &mut Found,
    ) {
        for (name, index) in self.indexes_of(&from.name) {
            if turn == Turn::Redo && !rebuilt && known.get(&name) == Some(&index) {
                continue;
            }
            if turn == Turn::Undo && rebuilt {
                found.unknown.push(format!("the index {name} was made on the new table"));
            } else if to.column(&index.column).is_none() && !rebuilt {
                let open = if turn == Turn::Undo { &mut found.hard } else { &mut found.unknown };
                open.push(format!("the index {name} is on a column that goes"));
            }
        }
    }
}
