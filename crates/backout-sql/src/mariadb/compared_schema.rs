//! All that a database holds, as a copy of before a command and the comparison after it see it: tables with their
//! definitions, counters and triggers, what is its text and nothing else, and what is not handled. Reads only.

use std::collections::BTreeMap;

use mysql::Error;
use serde::{Deserialize, Serialize};

use super::Mariadb;
use super::ddl::definition;
use super::ddl_text::{self, Kind, Text};
use super::quiet;
use super::session::{Row, ident, is_missing, is_without_definer, literal};
use super::table::{self, ForeignKey, Table};

/// The engines whose tables are copied: what they keep is on the disk, and theirs alone.
const ENGINES: [&str; 3] = ["InnoDB", "MyISAM", "Aria"];

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneTable {
    pub table: Table,
    pub definition: String,
    pub engine: String,
    pub counter: Option<u64>,
    /// In the order in which they fire.
    pub triggers: Vec<(String, Text)>,
    /// Where its copy lies; empty where it has none.
    #[serde(default)]
    pub copy: String,
    /// What others write to it is logged there; empty where nobody listens.
    #[serde(default)]
    pub log: String,
}

impl OneTable {
    /// Its rows go back in a transaction.
    pub fn is_transactional(&self) -> bool {
        self.engine == "InnoDB" && !self.table.columns.is_empty()
    }
}

/// A view, a routine or an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneText {
    pub kind: Kind,
    pub name: String,
    pub text: Text,
    /// Of a view, those that it is made of.
    #[serde(default)]
    pub views: Vec<String>,
    /// A view of which the server finds no more all that it is made of: it could not be made now.
    #[serde(default)]
    pub broken: bool,
}

/// What is not handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// `sequence ticket`, for people.
    pub what: String,
    pub why: String,
    /// What takes it away.
    pub drop: String,
}

/// The names of the tables that are handled, with their engines; and what is not handled.
pub type There = (Vec<(String, String)>, Vec<Other>);

/// All that there is, without the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    pub tables: BTreeMap<String, OneTable>,
    pub texts: Vec<OneText>,
    pub others: Vec<Other>,
    pub links: Vec<ForeignKey>,
    /// The collation that new tables get.
    pub collation: String,
}

impl Schema {
    pub fn text(&self, kind: Kind, name: &str) -> Option<&Text> {
        self.texts.iter().find(|one| one.kind == kind && one.name == name).map(|one| &one.text)
    }

    /// The views, each behind those that it is made of.
    pub fn views(&self) -> Vec<&OneText> {
        let mut left: Vec<&OneText> = self.texts.iter().filter(|one| one.kind == Kind::View).collect();
        let mut sorted = Vec::new();
        while !left.is_empty() {
            let waits = |one: &OneText| left.iter().any(|other| one.views.contains(&other.name));
            let next = left.iter().position(|one| !waits(one));
            // The server lets none be made of itself.
            sorted.push(left.remove(next.unwrap_or(0)));
        }
        sorted
    }
}

fn text(row: &mut Row, at: usize) -> String {
    row.get_mut(at).and_then(Option::take).unwrap_or_default()
}

impl Mariadb {
    pub(super) fn tables_there(&mut self) -> Result<There, Error> {
        let rows = self.b.rows(
            "SELECT TABLE_NAME, TABLE_TYPE, IFNULL(ENGINE, '') FROM information_schema.TABLES
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE <> 'VIEW' AND TABLE_NAME NOT LIKE 'backout\\_%' ORDER BY 1",
        )?;
        let (mut tables, mut others) = (Vec::new(), Vec::new());
        for mut row in rows {
            let [name, kind, engine] = [0, 1, 2].map(|at| text(&mut row, at));
            let quoted = ident(&name);
            let (what, why, drop) = match kind.as_str() {
                "BASE TABLE" if ENGINES.contains(&engine.as_str()) => {
                    tables.push((name, engine));
                    continue;
                }
                "BASE TABLE" => ("table", format!("it is kept by {engine}"), format!("DROP TABLE {quoted}")),
                "SEQUENCE" => {
                    ("sequence", "it counts outside of all transactions".to_owned(), format!("DROP SEQUENCE {quoted}"))
                }
                _ => ("table", format!("it is a {} table", kind.to_lowercase()), format!("DROP TABLE {quoted}")),
            };
            others.push(Other { what: format!("{what} {name}"), why, drop });
        }
        Ok((tables, others))
    }

    fn view(&mut self, name: String, mut text: Text) -> Result<OneText, Error> {
        let of = format!("TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}", literal(&name));
        let sql = format!(
            "SELECT o.TABLE_NAME FROM information_schema.VIEWS AS v JOIN information_schema.TABLES AS o ON o.TABLE_SCHEMA = DATABASE()
             AND o.TABLE_TYPE = 'VIEW' AND o.TABLE_NAME <> v.TABLE_NAME
             AND INSTR(v.VIEW_DEFINITION, CONCAT('`', DATABASE(), '`.`', REPLACE(o.TABLE_NAME, '`', '``'), '`')) > 0
             WHERE v.{}",
            of.replace("AND ", "AND v.")
        );
        let views: Vec<String> = self.b.rows(&sql)?.into_iter().filter_map(|mut row| row[0].take()).collect();
        let mut used = |name: &str| self.b.run(&format!("SELECT * FROM {} LIMIT 0", ident(name)));
        let broken = match used(&name) {
            Err(error) if is_missing(&error) => true,
            // Nobody can use it, but it can be made again, as long as others can be used that it is made of.
            Err(error) if is_without_definer(&error) => views.iter().any(|view| used(view).is_err()),
            found => found.map(|()| false)?,
        };
        if broken {
            // The server writes it as ever, but for the database's name.
            text.sql = text.sql.replace(&format!("{}.", ident(&self.database)), "");
        }
        Ok(OneText { kind: Kind::View, name, text, views, broken })
    }

    /// All that there is now.
    pub(super) fn look(&mut self) -> Result<Schema, Error> {
        let (tables, others) = self.tables_there()?;
        let collation = "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = DATABASE()";
        let collation = self.b.value(collation)?.unwrap_or_default();
        let links = table::foreign_keys(&mut self.b)?;
        let mut schema = Schema { others, links, collation, ..Schema::default() };
        for (name, engine) in tables {
            let triggers = self.triggers_with_text(&name)?;
            if let Some(why) = quiet::why_not(&mut self.b, &name)? {
                schema.others.push(Other {
                    what: format!("table {name}"),
                    why,
                    drop: format!("DROP TABLE {}", ident(&name)),
                });
            }
            let definition = definition(&mut self.b, &name)?.unwrap_or_default();
            let (counter, table) = (table::counter(&mut self.b, &name)?, Table::find(&mut self.b, &name)?);
            let one =
                OneTable { table, definition, engine, counter, triggers, copy: String::new(), log: String::new() };
            schema.tables.insert(name, one);
        }
        let pointing = self.b.value(
            "SELECT CONCAT(CONSTRAINT_SCHEMA, '.', TABLE_NAME) FROM information_schema.REFERENTIAL_CONSTRAINTS
             WHERE UNIQUE_CONSTRAINT_SCHEMA = DATABASE() AND CONSTRAINT_SCHEMA <> DATABASE() LIMIT 1",
        )?;
        schema.others.extend(pointing.map(|name| Other {
            what: format!("foreign key of {name}"),
            why: "it points here from another database".to_owned(),
            drop: "DO 0".to_owned(),
        }));
        let held = self.begin_of_held();
        let rows = self.b.rows(
            "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE()
             UNION ALL SELECT 'EVENT', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()
             UNION ALL SELECT 'VIEW', TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE()
             AND TABLE_NAME NOT LIKE 'backout\\_%' ORDER BY 1, 2",
        )?;
        for mut row in rows {
            let [word, name] = [0, 1].map(|at| text(&mut row, at));
            let mut other = |why: String| {
                let what = format!("{} {name}", word.to_lowercase());
                schema.others.push(Other { what, why, drop: format!("DROP {word} {}", ident(&name)) });
            };
            let Some(kind) = Kind::named(&word) else {
                other("it is written in another language".to_owned());
                continue;
            };
            match ddl_text::read(&mut self.b, kind, &name, &held) {
                Ok(None) => {}
                Ok(Some(text)) => match quiet::not_ours(&mut self.b, &text.sql)? {
                    Some(whose) => other(format!("it is of {whose}, and this user cannot make it again for them")),
                    None if kind == Kind::View => schema.texts.push(self.view(name, text)?),
                    None => schema.texts.push(OneText { kind, name, text, views: Vec::new(), broken: false }),
                },
                Err(Error::IoError(error)) => other(error.to_string()),
                Err(Error::MySqlError(error)) if error.code == 1142 => {
                    other("this user may not read who may use it, and that goes with it: mysql.procs_priv".to_owned());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(schema)
    }
}
