//! The FLOATs that a dump of MariaDB writes with six digits: as a script of guarded UPDATEs that has them all.
//!
//! It is read after the dump, in another transaction. So each statement sets a value only where the dump has it as it was
//! then, to six digits.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use backout_model::backup::BackupError;

use super::mariadb::Access;
use crate::ledger::Ledger;

/// Every column of the tables that have a FLOAT.
const COLUMNS: &str = "SELECT JSON_ARRAY(c.TABLE_NAME, c.COLUMN_NAME, LOWER(c.DATA_TYPE), c.COLUMN_KEY, LOWER(c.EXTRA), IFNULL(c.GENERATION_EXPRESSION, '') <> '', t.TABLE_TYPE <> 'BASE TABLE') \
     FROM information_schema.COLUMNS c JOIN information_schema.TABLES t USING (TABLE_SCHEMA, TABLE_NAME) \
     WHERE c.TABLE_SCHEMA = DATABASE() AND t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND EXISTS \
     (SELECT 1 FROM information_schema.COLUMNS f WHERE f.TABLE_SCHEMA = c.TABLE_SCHEMA AND f.TABLE_NAME = c.TABLE_NAME AND f.DATA_TYPE = 'float') \
     ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION";

#[derive(serde::Deserialize)]
struct Column(String, String, String, String, String, bool, bool);

impl Column {
    fn is_float(&self) -> bool {
        self.2 == "float" && !self.5
    }

    fn is_key(&self) -> bool {
        self.3 == "PRI"
    }

    /// Set by the server whenever the row changes, unless it is set to something.
    fn follows(&self) -> bool {
        self.4.contains("on update")
    }

    fn has_history(&self) -> bool {
        self.6
    }

    /// An expression that gives the value as a literal.
    fn literal(&self) -> String {
        let name = quoted(&self.1);
        match self.2.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" => format!("CONCAT({name})"),
            "bit" => format!("CONCAT({name} + 0)"),
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
                format!("CONCAT('0x', HEX({name}))")
            }
            _ => format!("QUOTE({name})"),
        }
    }
}

/// Writes the script; empty of statements where nothing is lost. `history`: it is in the dump, too.
pub fn write(
    access: &Access,
    script: &Path,
    private: &Path,
    ledger: &Ledger,
    history: bool,
) -> Result<(), BackupError> {
    let failed = |error: io::Error| BackupError::failed("cannot write the values of FLOATs", error);
    let list = private.join("columns");
    access.query(COLUMNS, &list)?;
    let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for line in fs::read_to_string(&list).map_err(failed)?.lines() {
        let column: Column = serde_json::from_str(line).map_err(|error| failed(error.into()))?;
        tables.entry(column.0.clone()).or_default().push(column);
    }
    let mut out = BufWriter::new(File::create(script).map_err(failed)?);
    out.write_all(b"SET NAMES utf8mb4;\nSET sql_mode = '';\nSET foreign_key_checks = 0;\nSET time_zone = '+00:00';\n")
        .map_err(failed)?;
    for (table, columns) in &tables {
        if !columns.iter().any(Column::is_float) {
            continue;
        }
        if history && columns.iter().any(Column::has_history) {
            ledger.note(format!(
                "table {table}: its FLOATs keep six digits, as setting them would write history that never was"
            ));
            continue;
        }
        if !columns.iter().any(Column::is_key) || columns.iter().any(|column| column.is_key() && column.is_float()) {
            ledger.note(format!(
                "table {table}: its rows cannot be told apart by a key without FLOATs, so these keep six digits"
            ));
            continue;
        }
        for float in columns.iter().filter(|column| column.is_float()) {
            let rows = private.join("floats");
            access.query(&statements(table, float, columns), &rows)?;
            io::copy(&mut File::open(&rows).map_err(failed)?, &mut out).map_err(failed)?;
        }
    }
    out.flush().map_err(failed)
}

/// A query that gives an UPDATE for each value that six digits do not hold.
fn statements(table: &str, float: &Column, columns: &[Column]) -> String {
    let name = quoted(&float.1);
    let stay: String = columns
        .iter()
        .filter(|column| column.follows())
        .map(|column| format!(", {0} = {0}", quoted(&column.1)))
        .collect();
    let keys = columns.iter().filter(|column| column.is_key());
    let keys: Vec<String> =
        keys.map(|key| format!("{}, {}", text(&format!("{} <=> ", quoted(&key.1))), key.literal())).collect();
    let head = text(&format!("UPDATE {} SET {name} = ", quoted(table)));
    let middle = text(&format!("{stay} WHERE "));
    let guard = text(&format!(" AND CONCAT({name}) = "));
    format!(
        "SET time_zone = '+00:00'; SELECT CONCAT({head}, CAST({name} AS DOUBLE), {middle}, {}, {guard}, QUOTE(CONCAT({name})), ';') \
         FROM {} WHERE {name} <> CAST(CONCAT({name}) AS FLOAT)",
        keys.join(", ' AND ', "),
        quoted(table)
    )
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
