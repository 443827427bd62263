//! The site's database as a stranger to the tool finds it.

use std::collections::BTreeMap;

use backout_testkit::site::TestSite;
use mysql::consts::ColumnType;
use mysql::prelude::Queryable as _;
use postgres::Client;
use postgres::error::SqlState;
use postgres::types::Type as Kind;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::dialect::Dialect;
use super::index::INDEX;
use super::world::Value;

pub enum Live {
    Sqlite(Connection),
    Postgres(Box<Client>),
    Mariadb(Box<mysql::Conn>),
}

/// Two that wait for each other, or one that waited long enough.
const CONTENDED_POSTGRES: [&str; 2] = ["40P01", "55P03"];
const CONTENDED_MARIADB: [u16; 2] = [1213, 1205];
/// MariaDB: a foreign key needs an index that is to be dropped.
const NEEDED: u16 = 1553;

/// Why a database does not take what an application writes; nothing of it is there then.
#[derive(Debug)]
pub enum Refused {
    /// Integrity constraints, and names that mean nothing.
    Objects(String),
    /// Others are in the way just now.
    Contended,
    Failed(String),
}

impl Refused {
    fn by(state: &str, contended: bool, why: String) -> Self {
        match state.get(..2) {
            _ if contended => Refused::Contended,
            Some("23" | "42") => Refused::Objects(why),
            _ => Refused::Failed(why),
        }
    }
}

impl Live {
    pub fn of(site: &TestSite) -> Self {
        match (site.postgres("main"), site.mariadb("main")) {
            (Some(database), _) => Live::Postgres(Box::new(database.connect())),
            (None, Some(database)) => Live::Mariadb(Box::new(database.connect())),
            (None, None) => Live::Sqlite(site.connect("main")),
        }
    }

    /// Runs statements; why not, where the database does not take them.
    pub fn run(&mut self, text: &str) -> Result<(), Refused> {
        match self {
            Live::Sqlite(connection) => connection.execute_batch(text).map_err(|error| match &error {
                rusqlite::Error::SqliteFailure(failure, _)
                    if !matches!(
                        failure.code,
                        rusqlite::ErrorCode::ConstraintViolation | rusqlite::ErrorCode::Unknown
                    ) =>
                {
                    Refused::Failed(format!("{error:?}"))
                }
                _ => Refused::Objects(format!("{error:?}")),
            }),
            Live::Postgres(client) => client.batch_execute(text).map_err(|error| {
                let code = error.code().map(SqlState::code).unwrap_or_default();
                Refused::by(code, CONTENDED_POSTGRES.contains(&code), format!("{error:?}"))
            }),
            Live::Mariadb(conn) => conn.query_drop(text).map_err(|error| match &error {
                mysql::Error::MySqlError(own) if own.code == NEEDED => Refused::Objects(format!("{error:?}")),
                mysql::Error::MySqlError(own) => {
                    Refused::by(&own.state, CONTENDED_MARIADB.contains(&own.code), format!("{error:?}"))
                }
                _ => Refused::Failed(format!("{error:?}")),
            }),
        }
    }

    /// Where the database objects (a table is gone, a key points at nothing) nothing happens.
    pub fn attempt(&mut self, text: &str) {
        loop {
            match self.run(text) {
                Ok(()) => return,
                Err(Refused::Objects(why)) => {
                    eprintln!("the application could not: {why}: {text}");
                    return;
                }
                // Those who write all the time are in the way.
                Err(Refused::Contended) => {}
                Err(Refused::Failed(why)) => panic!("the application cannot write: {why}: {text}"),
            }
        }
    }

    pub fn dialect(&self) -> Dialect {
        match self {
            Live::Sqlite(_) => Dialect::Sqlite,
            Live::Postgres(_) => Dialect::Postgres,
            Live::Mariadb(_) => Dialect::Mariadb,
        }
    }

    pub fn execute(&mut self, text: &str) {
        match self {
            Live::Sqlite(connection) => connection.execute_batch(text).unwrap(),
            Live::Postgres(client) => client.batch_execute(text).unwrap(),
            Live::Mariadb(conn) => conn.query_drop(text).unwrap(),
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
            Live::Mariadb(_) => {
                "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()
                 AND TABLE_NAME NOT LIKE 'backout%'"
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
            Live::Mariadb(_) => format!(
                "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
                 AND TABLE_NAME = '{table}' ORDER BY ORDINAL_POSITION"
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
            Live::Mariadb(_) => {
                "SELECT INDEX_NAME, CONCAT('CREATE INDEX ', INDEX_NAME, ' ON ', TABLE_NAME, ' (', COLUMN_NAME, ')')
                 FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE 'backout%'"
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
            Live::Mariadb(conn) => {
                // Numbers come as numbers from what was prepared.
                let rows: Vec<mysql::Row> = conn.exec(query, ()).unwrap();
                rows.iter().map(|row| (0..row.len()).map(|at| field(row, at)).collect()).collect()
            }
        }
    }
}

/// The character set of bytes that are no text.
const BINARY: u16 = 63;

fn field(row: &mysql::Row, at: usize) -> Value {
    let column = &row.columns_ref()[at];
    match &row[at] {
        mysql::Value::NULL => Value::Null,
        mysql::Value::Int(number) => Value::Integer(*number),
        mysql::Value::Double(number) => Value::Real(number.to_bits()),
        mysql::Value::Bytes(bytes) if column.character_set() == BINARY => Value::Blob(bytes.clone()),
        mysql::Value::Bytes(bytes) if column.column_type() != ColumnType::MYSQL_TYPE_LONGLONG => {
            Value::Text(String::from_utf8(bytes.clone()).unwrap())
        }
        other => panic!("the model has no {other:?}"),
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
