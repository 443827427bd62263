//! The site's database as a stranger to the tool finds it.

use std::collections::BTreeMap;

use backout_testkit::site::TestSite;
use postgres::Client;
use postgres::error::SqlState;
use postgres::types::Type as Kind;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::index::INDEX;
use super::world::Value;

pub enum Live {
    Sqlite(Connection),
    Postgres(Box<Client>),
}

impl Live {
    pub fn of(site: &TestSite) -> Self {
        match site.postgres("main") {
            Some(database) => Live::Postgres(Box::new(database.connect())),
            None => Live::Sqlite(site.connect("main")),
        }
    }

    /// Where the database objects (a table is gone, a key points at nothing) nothing happens.
    pub fn attempt(&mut self, text: &str) {
        match self {
            Live::Sqlite(connection) => match connection.execute_batch(text) {
                Ok(()) => {}
                Err(rusqlite::Error::SqliteFailure(error, _))
                    if !matches!(
                        error.code,
                        rusqlite::ErrorCode::ConstraintViolation | rusqlite::ErrorCode::Unknown
                    ) =>
                {
                    panic!("the application cannot write: {error:?}: {text}")
                }
                Err(_) => {}
            },
            Live::Postgres(client) => {
                let Err(error) = client.batch_execute(text) else { return };
                let code = error.code().map(SqlState::code).unwrap_or_default();
                // Integrity constraints, and names that mean nothing.
                let objects = code.starts_with("23") || code.starts_with("42");
                assert!(objects, "the application cannot write: {error:?}: {text}");
            }
        }
    }

    pub fn execute(&mut self, text: &str) {
        match self {
            Live::Sqlite(connection) => connection.execute_batch(text).unwrap(),
            Live::Postgres(client) => client.batch_execute(text).unwrap(),
        }
    }

    /// The names of all tables but the tool's own.
    pub fn tables(&mut self) -> Vec<String> {
        let text = match self {
            Live::Sqlite(_) => {
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'backout%'
                 AND name NOT LIKE 'sqlite_%'"
            }
            Live::Postgres(_) => {
                "SELECT relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                 WHERE relkind = 'r' AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
                 AND nspname NOT LIKE 'backout%'"
            }
        };
        self.texts(text)
    }

    pub fn columns(&mut self, table: &str) -> Vec<String> {
        let text = match self {
            Live::Sqlite(_) => format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid"),
            Live::Postgres(_) => format!(
                "SELECT attname::text FROM pg_attribute WHERE attrelid = 'public.{table}'::regclass AND attnum > 0
                 AND NOT attisdropped ORDER BY attnum"
            ),
        };
        self.texts(&text)
    }

    /// The definitions of the model's indexes, by name.
    pub fn indexes(&mut self) -> BTreeMap<String, String> {
        let text = match self {
            Live::Sqlite(_) => "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL",
            Live::Postgres(_) => {
                "SELECT indexname::text, replace(replace(indexdef, ' USING btree', ''), 'public.', '') FROM pg_indexes
                 WHERE schemaname = 'public'"
            }
        };
        let ours = |name: &str| name.strip_prefix(INDEX).is_some_and(|number| number.parse::<u64>().is_ok());
        let pairs = self.rows(text).into_iter().map(|mut row| (text_of(row.remove(0)), text_of(row.remove(0))));
        pairs.filter(|(name, _)| ours(name)).collect()
    }

    fn texts(&mut self, query: &str) -> Vec<String> {
        self.rows(query).into_iter().map(|mut row| text_of(row.remove(0))).collect()
    }

    pub fn rows(&mut self, query: &str) -> Vec<Vec<Value>> {
        match self {
            Live::Sqlite(connection) => {
                let mut statement = connection.prepare(query).unwrap();
                let width = statement.column_count();
                let mut rows = statement.query([]).unwrap();
                let mut found = Vec::new();
                while let Some(row) = rows.next().unwrap() {
                    found.push((0..width).map(|at| stored(row.get_ref(at).unwrap())).collect());
                }
                found
            }
            Live::Postgres(client) => {
                let rows = client.query(query, &[]).unwrap();
                rows.iter().map(|row| (0..row.len()).map(|at| cell(row, at)).collect()).collect()
            }
        }
    }
}

fn text_of(value: Value) -> String {
    let Value::Text(text) = value else { panic!("{value:?} is no text") };
    text
}

fn cell(row: &postgres::Row, at: usize) -> Value {
    let kind = row.columns()[at].type_();
    let value = match *kind {
        Kind::INT8 => row.get::<_, Option<i64>>(at).map(Value::Integer),
        Kind::FLOAT8 => row.get::<_, Option<f64>>(at).map(|number| Value::Real(number.to_bits())),
        Kind::TEXT => row.get::<_, Option<String>>(at).map(Value::Text),
        Kind::BYTEA => row.get::<_, Option<Vec<u8>>>(at).map(Value::Blob),
        _ => panic!("the model has no {kind}"),
    };
    value.unwrap_or(Value::Null)
}

pub fn stored(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number.to_bits()),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}
