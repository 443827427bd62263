//! Fills tables with generated rows that satisfy their constraints, and hands back the SQL that does it. It adds rows
//! and never changes or removes one; a table it can't fill is named.

use std::collections::BTreeMap;

use anyhow::Result;
use postgres::{Client, SimpleQueryMessage};

use super::quoted;
use crate::fidelity::subject::Filled;
use crate::sqlite::checks;

/// Tries at one row before a table is left as it is.
const TRIES: u64 = 30;
/// Rows of a parent that are looked at for a foreign key.
const PARENTS: usize = 100;

/// A table that rows are written to: partitions get theirs through their root.
pub struct Table {
    pub schema: String,
    pub name: String,
    /// Its columns and constraints as text, by which a changed table is known.
    definition: String,
    checks: String,
    columns: Vec<Column>,
    references: Vec<Reference>,
}

struct Column {
    name: String,
    /// The type under any domain, and how to write it.
    base: String,
    full: String,
    /// `e` for an enum, `r` for a range, `c` for a row type.
    kind: char,
    labels: Vec<String>,
    /// Characters or bits that fit; numeric's digits before the point.
    room: Option<usize>,
    not_null: bool,
    unique: bool,
    has_default: bool,
    /// Computed, or counted by the server whatever is given.
    is_given: bool,
    is_domain: bool,
}

struct Reference {
    columns: Vec<String>,
    parent: String,
    parent_columns: Vec<String>,
}

impl Table {
    pub fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

/// Remembers each table's definition between fillings, so that a table that was altered gets fresh rows.
#[derive(Debug, Default)]
pub struct Filler {
    definitions: BTreeMap<String, String>,
    rounds: u64,
}

impl Filler {
    /// Brings every table to `rows` rows; one whose definition is new gets `rows` more.
    pub fn fill(&mut self, client: &mut Client, rows: u64) -> Result<Filled> {
        self.rounds += 1;
        let mut draw = Draw { serial: self.rounds << 14, random: fastrand::Rng::with_seed(self.rounds) };
        let tables = tables(client)?;
        let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
        for table in &tables {
            let name = table.quoted();
            let known = self.definitions.insert(name.clone(), table.definition.clone());
            let altered = known.as_ref() != Some(&table.definition);
            let missing = if altered { rows } else { rows.saturating_sub(count(client, &name)?) };
            wanted.insert(name, missing);
        }
        let mut filled = Filled::default();
        let mut errors = BTreeMap::new();
        client.batch_execute("BEGIN")?;
        // Parents before children; a table whose parents are still empty waits for the next round.
        loop {
            let mut added = 0;
            for table in &tables {
                let name = table.quoted();
                while wanted.get(&name).is_some_and(|missing| *missing > 0) {
                    match row(client, table, &mut draw)? {
                        Ok(statement) => filled.statements.push(statement),
                        Err(error) => {
                            errors.insert(name.clone(), error);
                            break;
                        }
                    }
                    added += 1;
                    wanted.entry(name.clone()).and_modify(|missing| *missing -= 1);
                }
            }
            if added == 0 {
                break;
            }
        }
        client.batch_execute("COMMIT")?;
        for table in &tables {
            let name = table.quoted();
            if rows > 0 && count(client, &name)? == 0 {
                let why = errors.remove(&name).unwrap_or_else(|| "no row fits".to_owned());
                filled.empty.push((name, why));
            }
        }
        Ok(filled)
    }
}

fn count(client: &mut Client, table: &str) -> Result<u64> {
    let count: i64 = client.query_one(&format!("SELECT count(*) FROM {table}"), &[])?.get(0);
    Ok(u64::try_from(count)?)
}

/// All tables of the users, in the order in which they were made.
pub fn tables(client: &mut Client) -> Result<Vec<Table>> {
    let listed = client.query(
        "SELECT c.oid, n.nspname::text, c.relname::text,
                coalesce((SELECT string_agg(pg_get_constraintdef(k.oid), ' ' ORDER BY k.oid)
                          FROM pg_constraint k WHERE k.conrelid = c.oid), ''),
                coalesce((SELECT string_agg(pg_get_constraintdef(k.oid), ' ') FROM pg_constraint k
                          WHERE k.contype = 'c' AND (k.conrelid = c.oid OR k.contypid IN
                            (SELECT atttypid FROM pg_attribute WHERE attrelid = c.oid))), '')
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname !~ '^(pg_|information_schema$|backout)'
           AND c.relname !~ '^backout' ORDER BY c.oid",
        &[],
    )?;
    let mut tables = Vec::new();
    for row in listed {
        let oid: u32 = row.get(0);
        let columns = columns(client, oid)?;
        let shape: Vec<String> = columns.iter().map(|c| format!("{} {} {}", c.name, c.full, c.not_null)).collect();
        tables.push(Table {
            schema: row.get(1),
            name: row.get(2),
            definition: format!("{} {}", shape.join(", "), row.get::<_, String>(3)),
            checks: row.get(4),
            columns,
            references: references(client, oid)?,
        });
    }
    Ok(tables)
}

fn columns(client: &mut Client, table: u32) -> Result<Vec<Column>> {
    let rows = client.query(
        "WITH RECURSIVE base(attnum, typ, typmod) AS (
           SELECT attnum, atttypid, atttypmod FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
           UNION ALL
           SELECT b.attnum, t.typbasetype, CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE b.typmod END
           FROM base b JOIN pg_type t ON t.oid = b.typ WHERE t.typtype = 'd')
         SELECT a.attname::text, t.typname::text, format_type(a.atttypid, a.atttypmod), t.typtype::text,
                ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder),
                b.typmod, a.attnotnull OR d.typnotnull, a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '',
                EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = $1 AND i.indisunique AND a.attnum = ANY (i.indkey)),
                a.attidentity = 'a' OR a.attgenerated <> '', d.typtype = 'd'
         FROM pg_attribute a JOIN base b USING (attnum) JOIN pg_type t ON t.oid = b.typ
         JOIN pg_type d ON d.oid = a.atttypid
         WHERE a.attrelid = $1 AND t.typtype <> 'd' ORDER BY a.attnum",
        &[&table],
    )?;
    let column = |row: &postgres::Row| {
        let (base, typmod): (String, i32) = (row.get(1), row.get(5));
        let room = match base.as_str() {
            "varchar" | "bpchar" if typmod > 4 => Some(typmod - 4),
            "bit" | "varbit" if typmod > 0 => Some(typmod),
            "numeric" if typmod > 4 => Some((((typmod - 4) >> 16) & 0xffff) - ((typmod - 4) & 0x7ff)),
            _ => None,
        };
        Column {
            name: row.get(0),
            full: row.get(2),
            kind: row.get::<_, String>(3).chars().next().unwrap_or('b'),
            labels: row.get(4),
            room: room.and_then(|room| usize::try_from(room).ok()),
            not_null: row.get(6),
            has_default: row.get(7),
            unique: row.get(8),
            is_given: row.get(9),
            is_domain: row.get(10),
            base,
        }
    };
    Ok(rows.iter().map(column).collect())
}

fn references(client: &mut Client, table: u32) -> Result<Vec<Reference>> {
    let rows = client.query(
        "SELECT format('%I.%I', n.nspname, p.relname),
                ARRAY(SELECT attname::text FROM unnest(k.conkey) WITH ORDINALITY u(a, o)
                      JOIN pg_attribute ON attrelid = k.conrelid AND attnum = u.a ORDER BY o),
                ARRAY(SELECT attname::text FROM unnest(k.confkey) WITH ORDINALITY u(a, o)
                      JOIN pg_attribute ON attrelid = k.confrelid AND attnum = u.a ORDER BY o)
         FROM pg_constraint k JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace n ON n.oid = p.relnamespace
         WHERE k.contype = 'f' AND k.conrelid = $1 ORDER BY k.oid",
        &[&table],
    )?;
    let reference =
        |row: &postgres::Row| Reference { parent: row.get(0), columns: row.get(1), parent_columns: row.get(2) };
    Ok(rows.iter().map(reference).collect())
}

/// The first column of each row as the server writes it.
fn texts(client: &mut Client, sql: &str) -> Result<Vec<String>> {
    let rows = client.simple_query(sql)?;
    let text = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(text).collect())
}

/// Adds one row, trying other values until the database takes one.
fn row(client: &mut Client, table: &Table, draw: &mut Draw) -> Result<std::result::Result<String, String>> {
    // What a failed try took from a sequence goes back, so that the same statements make the same rows elsewhere.
    let sequences = texts(
        client,
        "SELECT format('SELECT setval(%L, %s, %L)', format('%I.%I', schemaname, sequencename),
                       coalesce(last_value, start_value), last_value IS NOT NULL) FROM pg_sequences",
    )?;
    let mut last = "it has no column to write".to_owned();
    for attempt in 0..TRIES {
        draw.serial += 1;
        let mut given: BTreeMap<&str, String> = BTreeMap::new();
        for reference in &table.references {
            let keys: Vec<String> =
                reference.parent_columns.iter().map(|name| format!("quote_nullable({}::text)", quoted(name))).collect();
            let sql = format!(
                "SELECT concat_ws(E'\\x01', {}) FROM {} ORDER BY 1 LIMIT {PARENTS}",
                keys.join(", "),
                reference.parent
            );
            let parents = texts(client, &sql)?;
            let nullable = |name: &String| table.columns.iter().any(|column| column.name == *name && !column.not_null);
            let chosen = match draw.random.choice(&parents) {
                Some(key) => key.split('\u{1}').map(str::to_owned).collect(),
                None if reference.columns.iter().any(nullable) => vec!["NULL".to_owned(); reference.columns.len()],
                None => return Ok(Err(format!("{} has no row to refer to", reference.parent))),
            };
            given.extend(reference.columns.iter().map(String::as_str).zip(chosen));
        }
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for column in &table.columns {
            if let Some(value) = given.remove(column.name.as_str()).or_else(|| draw.value(table, column, attempt)) {
                names.push(quoted(&column.name));
                values.push(value);
            }
        }
        let name = table.quoted();
        let statement = if names.is_empty() {
            format!("INSERT INTO {name} DEFAULT VALUES")
        } else {
            format!("INSERT INTO {name} ({}) VALUES ({})", names.join(", "), values.join(", "))
        };
        client.batch_execute("SAVEPOINT fill_row")?;
        match client.batch_execute(&statement) {
            Ok(()) => {
                client.batch_execute("RELEASE fill_row")?;
                return Ok(Ok(statement));
            }
            Err(error) => {
                last = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
                client.batch_execute("ROLLBACK TO fill_row; RELEASE fill_row")?;
                client.batch_execute(&sequences.join("; "))?;
            }
        }
    }
    Ok(Err(last))
}

/// Draws values; `serial` makes each of them new.
struct Draw {
    serial: u64,
    random: fastrand::Rng,
}

impl Draw {
    /// A value as SQL; none where the column's default is to stand.
    fn value(&mut self, table: &Table, column: &Column, attempt: u64) -> Option<String> {
        if column.is_given || column.has_default && (attempt < TRIES / 2 || self.random.bool()) {
            return None;
        }
        if !column.not_null && self.random.u8(..5) == 0 {
            return Some("NULL".to_owned());
        }
        let mut candidates = checks::candidates(&table.checks, &column.name);
        if column.is_domain {
            candidates.extend(checks::candidates(&table.checks, "value"));
        }
        if let Some(candidate) = self.random.choice(&candidates)
            && self.random.bool()
        {
            return Some(candidate.clone());
        }
        let n = self.serial;
        let text = match column.kind {
            'e' => self.random.choice(&column.labels)?.clone(),
            'r' | 'm' => if column.kind == 'm' { "{}" } else { "empty" }.to_owned(),
            'c' => return Some("NULL".to_owned()),
            _ => self.plain(column, n),
        };
        Some(format!("'{}'::{}", text.replace('\'', "''"), column.full))
    }

    fn plain(&mut self, column: &Column, n: u64) -> String {
        let few = if column.unique { n } else { n % 7 };
        match column.base.as_str() {
            "int2" => (n % 32_000).to_string(),
            "int4" | "int8" | "oid" | "money" => few.to_string(),
            "numeric" => {
                let most = 10_u64.saturating_pow(u32::try_from(column.room.unwrap_or(6)).unwrap_or(6).min(12));
                (n % most).to_string()
            }
            "float4" | "float8" => {
                ["NaN".to_owned(), format!("{few}.125"), "-0".to_owned()][self.random.usize(..3)].clone()
            }
            "bool" => ["t", "f"][self.random.usize(..2)].to_owned(),
            "bytea" => format!("\\x00ff{n:08x}"),
            "date" => format!("20{:02}-0{}-1{}", n % 30, 1 + n % 9, n % 10),
            "timestamp" | "timestamptz" => format!("2020-01-{:02} {:02}:{:02}:00.5", 1 + n % 28, n % 24, n % 60),
            "time" | "timetz" => format!("{:02}:{:02}:01", n % 24, n % 60),
            "interval" => format!("{n} minutes"),
            "json" | "jsonb" => format!("{{\"a\": [{n}, 1.50, \"ü\"]}}"),
            "xml" => format!("<a>{n}</a>"),
            "uuid" => format!("00000000-0000-4000-8000-{n:012x}"),
            "inet" | "cidr" => format!("10.0.{}.{}", n / 256 % 256, n % 256),
            "macaddr" => format!("00:00:00:00:{:02x}:{:02x}", n / 256 % 256, n % 256),
            "bit" => "01".chars().cycle().take(column.room.unwrap_or(1)).collect(),
            "varbit" => "1".to_owned(),
            "point" => format!("({n},0.1)"),
            "tsvector" | "tsquery" => format!("word{n}"),
            base if base.starts_with('_') => "{}".to_owned(),
            _ => {
                let text = format!("{}'{n:x} ü\\", if column.unique { "u" } else { "x" });
                let room = column.room.unwrap_or(usize::MAX);
                // What is cut off is the least that distinguishes.
                if text.chars().count() <= room { text } else { format!("{n:x}").chars().rev().take(room).collect() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use backout_servers::postgres::Server;

    use super::*;

    #[test]
    fn tables_of_every_kind_are_filled_and_the_statements_make_the_same_rows() -> Result<()> {
        const BASE: &str = "CREATE TYPE mood AS ENUM ('sad', 'it''s'); CREATE DOMAIN year AS int CHECK (VALUE >= 1901);
            CREATE TABLE child(id int GENERATED ALWAYS AS IDENTITY, p int NOT NULL, m mood NOT NULL, y year NOT NULL,
              n numeric(4,2) NOT NULL, c char(2) UNIQUE, j jsonb, x xml, a int[] NOT NULL, g int GENERATED ALWAYS AS (p) STORED);
            CREATE TABLE parent(id serial PRIMARY KEY, kind text NOT NULL CHECK (kind IN ('a', 'b')), up int REFERENCES parent);
            ALTER TABLE child ADD FOREIGN KEY (p) REFERENCES parent;
            CREATE TABLE part(d date NOT NULL) PARTITION BY RANGE (d);
            CREATE TABLE part1 PARTITION OF part FOR VALUES FROM ('2000-01-01') TO ('2015-01-01');
            CREATE TABLE never(a int CHECK (a IS NULL) NOT NULL);";
        let server = Server::shared();
        let (one, other) = (server.database(), server.database());
        one.psql(BASE);
        other.psql(BASE);
        let mut filler = Filler::default();
        let filled = filler.fill(&mut one.connect(), 5)?;
        assert_eq!(filled.empty.iter().map(|(table, _)| table.as_str()).collect::<Vec<_>>(), ["\"public\".\"never\""]);
        assert_eq!(filled.statements.len(), 15);
        other.psql(&(filled.statements.join(";\n") + ";"));
        for table in ["parent", "child", "part"] {
            let rows = format!("SELECT t::text FROM {table} t ORDER BY 1");
            assert_eq!(one.psql(&rows), other.psql(&rows));
            assert_eq!(one.psql(&rows).lines().count(), 5, "{table}");
        }
        assert!(filler.fill(&mut one.connect(), 5)?.statements.is_empty());
        Ok(())
    }
}
