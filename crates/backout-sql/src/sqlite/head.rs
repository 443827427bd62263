//! What the first words of a statement that changes the schema say: which kind of object, which name; no more.
//!
//! Source: the grammar in SQLite's `parse.y`. What the words leave open is decided by the schema before and after.

use super::token::{Token, each_token};

/// Which kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Table,
    Index,
    View,
    Trigger,
    Virtual,
}

impl Object {
    /// As `sqlite_schema.type` has it.
    pub fn kind(self) -> &'static str {
        match self {
            Object::Table | Object::Virtual => "table",
            Object::Index => "index",
            Object::View => "view",
            Object::Trigger => "trigger",
        }
    }
}

/// What ALTER TABLE does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alter {
    RenameTable {
        to: String,
    },
    RenameColumn {
        from: String,
        to: String,
    },
    AddColumn {
        column: String,
    },
    DropColumn {
        column: String,
    },
    /// Adds or drops a CHECK or NOT NULL: only the text changes.
    Constraint,
}

/// A statement that changes the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    Create { object: Object, name: Name, as_select: bool, module: Option<String> },
    Drop { object: Object, name: Name },
    Alter { name: Name, alter: Alter },
    Reindex,
}

impl Head {
    /// True where SQLite may give any other object a new text on the way: names follow, and `"x"` that is no column
    /// becomes 'x'.
    pub fn may_rewrite(&self) -> bool {
        let Self::Alter { alter, .. } = self else { return false };
        matches!(alter, Alter::RenameTable { .. } | Alter::RenameColumn { .. } | Alter::DropColumn { .. })
    }

    /// The name that it gives to something.
    pub fn made(&self) -> Option<&str> {
        match self {
            Self::Create { name, .. } => Some(&name.name),
            Self::Alter { alter: Alter::RenameTable { to }, .. } => Some(to),
            Self::Drop { .. } | Self::Alter { .. } | Self::Reindex => None,
        }
    }
}

/// A name as written, perhaps with its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub database: Option<String>,
    pub name: String,
}

/// Reads the head; none where it is none of these statements, or cut off.
pub fn head(sql: &str) -> Option<Head> {
    let mut words = Words { rest: each_token(sql), next: None };
    words.advance();
    if words.take("CREATE") {
        create(&mut words)
    } else if words.take("DROP") {
        let object = words.object()?;
        if words.take("IF") {
            words.advance();
        }
        Some(Head::Drop { object, name: words.name()? })
    } else if words.take("ALTER") {
        if !words.take("TABLE") {
            return None;
        }
        let name = words.name()?;
        Some(Head::Alter { name, alter: alter(&mut words)? })
    } else if words.take("REINDEX") {
        Some(Head::Reindex)
    } else {
        None
    }
}

fn create<'a>(words: &mut Words<'a, impl Iterator<Item = Token<'a>>>) -> Option<Head> {
    if words.take("TEMP") || words.take("TEMPORARY") || words.take("UNIQUE") {
        // A temporary object shows in no schema of the file; a unique index is an index.
    }
    let object = words.object()?;
    if words.take("IF") {
        words.advance();
        words.advance();
    }
    let name = words.name()?;
    let as_select = object == Object::Table && words.take("AS");
    let module = if object == Object::Virtual && words.take("USING") { words.one_name() } else { None };
    Some(Head::Create { object, name, as_select, module })
}

fn alter<'a>(words: &mut Words<'a, impl Iterator<Item = Token<'a>>>) -> Option<Alter> {
    if words.take("RENAME") {
        if words.take("TO") {
            return Some(Alter::RenameTable { to: words.one_name()? });
        }
        words.take("COLUMN");
        let from = words.one_name()?;
        return words.take("TO").then(|| words.one_name()).flatten().map(|to| Alter::RenameColumn { from, to });
    }
    if words.take("ADD") {
        if words.is("CONSTRAINT") || words.is("CHECK") {
            return Some(Alter::Constraint);
        }
        words.take("COLUMN");
        return Some(Alter::AddColumn { column: words.one_name()? });
    }
    if words.take("DROP") {
        if words.is("CONSTRAINT") {
            return Some(Alter::Constraint);
        }
        words.take("COLUMN");
        return Some(Alter::DropColumn { column: words.one_name()? });
    }
    words.is("ALTER").then_some(Alter::Constraint)
}

struct Words<'a, I> {
    rest: I,
    next: Option<Token<'a>>,
}

impl<'a, I: Iterator<Item = Token<'a>>> Words<'a, I> {
    fn advance(&mut self) {
        self.next = self.rest.next();
    }

    fn is(&self, word: &str) -> bool {
        self.next.is_some_and(|token| token.is(word))
    }

    fn take(&mut self, word: &str) -> bool {
        let is = self.is(word);
        if is {
            self.advance();
        }
        is
    }

    fn object(&mut self) -> Option<Object> {
        if self.take("VIRTUAL") {
            return self.take("TABLE").then_some(Object::Virtual);
        }
        [("TABLE", Object::Table), ("INDEX", Object::Index), ("VIEW", Object::View), ("TRIGGER", Object::Trigger)]
            .into_iter()
            .find_map(|(word, object)| self.take(word).then_some(object))
    }

    fn one_name(&mut self) -> Option<String> {
        let name = self.next?.name()?;
        self.advance();
        Some(name)
    }

    fn name(&mut self) -> Option<Name> {
        let first = self.one_name()?;
        if self.next.is_some_and(|token| token.is_sign(b'.')) {
            self.advance();
            return Some(Name { database: Some(first), name: self.one_name()? });
        }
        Some(Name { database: None, name: first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(name: &str) -> Name {
        Name { database: None, name: name.into() }
    }

    #[test]
    fn heads_are_read_in_all_their_spellings() {
        let create = |object, name, as_select| Head::Create { object, name, as_select, module: None };
        let main = Name { database: Some("main".into()), name: "a b".into() };
        assert_eq!(head("create table if not exists main.\"a b\"(x)"), Some(create(Object::Table, main, false)));
        assert_eq!(head("CREATE TABLE t AS SELECT 1"), Some(create(Object::Table, plain("t"), true)));
        assert_eq!(head("CREATE UNIQUE INDEX 'i' ON t(a)"), Some(create(Object::Index, plain("i"), false)));
        assert_eq!(head("/* x */ CREATE TEMP VIEW v AS SELECT 1"), Some(create(Object::View, plain("v"), false)));
        assert_eq!(
            head("CREATE VIRTUAL TABLE f USING fts5(a)"),
            Some(Head::Create {
                object: Object::Virtual,
                name: plain("f"),
                as_select: false,
                module: Some("fts5".into())
            })
        );
        assert_eq!(head("DROP TRIGGER IF EXISTS [t]"), Some(Head::Drop { object: Object::Trigger, name: plain("t") }));
        assert_eq!(head("REINDEX"), Some(Head::Reindex));
        for none in
            ["", "SELECT 1", "CREATE", "CREATE TABLE", "DROP TABLE IF EXISTS", "ALTER TABLE t", "ALTER TABLE t ADD"]
        {
            assert_eq!(head(none), None, "{none}");
        }
    }

    #[test]
    fn what_alter_does_is_read() {
        let alter = |sql: &str| match head(&format!("ALTER TABLE t {sql}")) {
            Some(Head::Alter { alter, .. }) => Some(alter),
            _ => None,
        };
        assert_eq!(alter("RENAME TO u"), Some(Alter::RenameTable { to: "u".into() }));
        for sql in ["RENAME COLUMN a TO b", "RENAME a TO b"] {
            assert_eq!(alter(sql), Some(Alter::RenameColumn { from: "a".into(), to: "b".into() }));
        }
        for sql in ["ADD COLUMN a INT", "ADD a"] {
            assert_eq!(alter(sql), Some(Alter::AddColumn { column: "a".into() }));
        }
        for sql in ["DROP COLUMN a", "DROP `a`"] {
            assert_eq!(alter(sql), Some(Alter::DropColumn { column: "a".into() }));
        }
        for sql in ["ADD CONSTRAINT c CHECK (a)", "ADD CHECK (a)", "DROP CONSTRAINT c", "ALTER a SET NOT NULL"] {
            assert_eq!(alter(sql), Some(Alter::Constraint));
        }
    }
}
