//! Everything a MariaDB database says, as named lines: the server's own text of each object, counters, and typed rows;
//! and what the tool keeps in it.
//!
//! Knows nothing of the code under test. What the tool keeps (names that begin with `backout`) is left out.

use backout_servers::mariadb::Database;
use mysql::Conn;
use mysql::prelude::Queryable as _;

use crate::database::Lines;

/// The marker of the site that all tests of the testkit deploy to.
const OWN: &str = "backout_shop";

/// Reads a database that nobody is changing.
pub fn read(database: &Database<'_>) -> Lines {
    let mut conn = database.connect();
    conn.query_drop("SET NAMES utf8mb4, sql_mode = '', time_zone = '+00:00', group_concat_max_len = 1000000").unwrap();
    let mut lines = Lines::new();
    let tables: Vec<(String, String)> = conn
        .query("SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE 'backout%'")
        .unwrap();
    for (name, kind) in tables {
        if kind == "VIEW" {
            let row: mysql::Row = conn.query_first(format!("SHOW CREATE VIEW `{name}`")).unwrap().unwrap();
            // Of one that lacks something the server writes the database's name, too.
            let text = row.get::<String, _>(1).unwrap().replace(&format!("`{}`.", database.name), "");
            lines.insert(format!("view {name}"), text);
            continue;
        }
        let row: mysql::Row = conn.query_first(format!("SHOW CREATE TABLE `{name}`")).unwrap().unwrap();
        // A default of bytes is no text.
        let text: Vec<u8> = row.get(1).unwrap();
        let text = text.utf8_chunks().fold(String::new(), |text, chunk| {
            chunk.invalid().iter().fold(text + chunk.valid(), |text, byte| format!("{text}\\x{byte:02x}"))
        });
        // So it does of a sequence that a default draws from.
        for (at, line) in text.replace(&format!("`{}`.", database.name), "").lines().enumerate() {
            lines.insert(format!("table {name} {at:03}"), line.to_owned());
        }
        rows(&mut conn, &name, &mut lines);
    }
    let triggers: Vec<(String, String, String)> = conn
        .query("SELECT CONCAT_WS(' ', EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER), TRIGGER_NAME, ACTION_STATEMENT FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()")
        .unwrap();
    // A trigger of the tool's has nothing to do on a table once it has ended.
    lines.extend(
        triggers.into_iter().map(|(place, name, text)| (format!("trigger {place}"), format!("{name}: {text}"))),
    );
    let texts: Vec<(String, String)> = conn
        .query(
            "SELECT CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_NAME), CONCAT_WS('|', DTD_IDENTIFIER, ROUTINE_DEFINITION, SQL_MODE, ROUTINE_COMMENT, DEFINER)
             FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE()
             UNION ALL SELECT CONCAT('event ', EVENT_NAME), CONCAT_WS('|', EVENT_DEFINITION, INTERVAL_VALUE, INTERVAL_FIELD, STARTS, STATUS, EVENT_COMMENT, DEFINER)
             FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()",
        )
        .unwrap();
    lines.extend(texts);
    lines
}

fn rows(conn: &mut Conn, table: &str, lines: &mut Lines) {
    let columns: Vec<(String, String)> = conn
        .exec(
            "SELECT COLUMN_NAME, LOWER(DATA_TYPE) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
            (table,),
        )
        .unwrap();
    let values: Vec<String> = columns
        .iter()
        .map(|(name, kind)| {
            let value = match kind.as_str() {
                "float" | "double" => format!("CONCAT(CAST(`{name}` AS DOUBLE))"),
                "bit" => format!("CONCAT(`{name}` + 0)"),
                "enum" | "set" => format!("CONCAT(`{name}` + 0, '/', HEX(`{name}`))"),
                "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "binary" | "varbinary"
                | "tinyblob" | "blob" | "mediumblob" | "longblob" | "geometry" | "point" => {
                    // Of what is longer than half of a packet HEX makes NULL.
                    let bytes = format!("BINARY `{name}`");
                    format!("IF(LENGTH({bytes}) > 9999, SHA2({bytes}, 256), HEX(`{name}`))")
                }
                _ => format!("CONCAT(`{name}`)"),
            };
            format!("IFNULL({value}, 'NULL')")
        })
        .collect();
    let found: Vec<String> =
        conn.query(format!("SELECT CONCAT_WS(' | ', {}) FROM `{table}`", values.join(", "))).unwrap();
    for row in found {
        let mut name = format!("row {table} {row}");
        while lines.contains_key(&name) {
            name.push_str(" again");
        }
        lines.insert(name, "there".to_owned());
    }
}

/// Names that begin with `backout`: what the tool keeps.
pub fn own_objects(database: &Database<'_>) -> Vec<String> {
    database
        .connect()
        .query(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'backout%'
             UNION ALL SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() AND TRIGGER_NAME LIKE 'backout%' ORDER BY 1",
        )
        .unwrap()
}

/// See [`crate::site::TestSite::bury_the_dead`].
pub fn bury_the_dead(database: &Database<'_>) {
    let mut conn = database.connect();
    let there: Option<u32> = conn
        .exec_first(
            "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?",
            (OWN,),
        )
        .unwrap();
    if there.is_some() {
        let buried = format!(
            "UPDATE {OWN} SET holder = JSON_SET(holder, '$.boot_id', 'an earlier boot') WHERE holder IS NOT NULL"
        );
        conn.query_drop(buried).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backout_servers::mariadb::Server;

    #[test]
    fn every_difference_of_a_database_shows() {
        for change in [
            "UPDATE a SET f = 16777218 WHERE x = 1",
            "UPDATE a SET e = 'no' WHERE x = 1",
            "UPDATE a SET y = 'ONE' WHERE x = 1",
            "DELETE FROM a WHERE x = 2",
            "ALTER TABLE a AUTO_INCREMENT = 9",
            "ALTER TABLE a MODIFY y text AFTER f",
            "CREATE OR REPLACE VIEW v AS SELECT y, x FROM a",
            "CREATE TRIGGER r BEFORE DELETE ON a FOR EACH ROW SET @a = 1",
        ] {
            let database = Server::shared().database();
            database.script(
                "SET sql_mode = ''; CREATE TABLE a(x int AUTO_INCREMENT PRIMARY KEY, y text, f float, e enum('', 'b'));
                 INSERT INTO a VALUES (1, 'one', 16777216, ''), (2, NULL, 0, 'b'); CREATE VIEW v AS SELECT x, y FROM a;",
            );
            let before = read(&database);
            database.script("UPDATE a SET x = x; CREATE TABLE backout_shop (x int)");
            assert_eq!(before, read(&database), "nothing that says anything");
            database.script(&format!("SET sql_mode = ''; {change}"));
            assert_ne!(before, read(&database), "{change}");
            assert_eq!(own_objects(&database), ["backout_shop"]);
        }
    }
}
