//! A table that a command altered or made anew under its name, told as SQLite's own way of altering tells it: a new table
//! beside the old one, its rows, the old one dropped, the new one renamed. So rows that others write to it later go over
//! to the old one when that comes back, as with a script that does the same.

use backout_model::target::TargetError;

use super::compared::Comparison;
use super::compared_schema::Unit;
use super::ddl;
use super::ddl_event::{DdlEvent, Kind};
use super::schema::{self, SchemaRow};
use super::split::Statement;
use super::token::quote;

impl Comparison<'_> {
    /// False where the new table cannot be told under another name: then the one went and the other came. `old` and `new`
    /// come with their rows as they are to be placed.
    pub(super) fn rebuilt(
        &mut self,
        (old, old_rows): (&Unit, &[SchemaRow]),
        (new, new_rows): (&Unit, &[SchemaRow]),
        progress: &mut dyn FnMut(u64),
    ) -> Result<bool, TargetError> {
        let name = new.object.name.clone();
        let passing = self.passing_name(&name)?;
        let Some(beside) = self.under_another_name(&name, &passing)? else { return Ok(false) };
        let own =
            |row: &&SchemaRow| row.table.eq_ignore_ascii_case(&name) && (row.kind == "table" || row.sql.is_none());
        let changed: Vec<(SchemaRow, SchemaRow)> =
            beside.iter().cloned().zip(new_rows.iter().filter(own).cloned()).collect();
        let text = beside.first().and_then(|table| table.sql.clone()).unwrap_or_default();
        let statement = Statement { line: 0, sql: text };
        let mut create = DdlEvent::new(&statement, Kind::Create, format!("table {passing}"));
        create.made = beside;
        create.made.extend(self.counters_brought_by(&new.object)?);
        self.note(&statement, create)?;
        self.rows_as(&name, &passing, None, Some("main"), progress)?;
        self.gone(old, old_rows, progress)?;
        let sql = format!("ALTER TABLE {} RENAME TO {}", quote(&passing), quote(&name));
        let statement = Statement { line: 0, sql };
        let kind = Kind::RenameTable { from: passing.clone(), to: name };
        let mut rename = DdlEvent::new(&statement, kind, format!("table {passing}"));
        rename.changed = changed;
        rename.found = true;
        self.note(&statement, rename)?;
        Ok(true)
    }

    /// A name that nothing has, before or after.
    fn passing_name(&self, name: &str) -> Result<String, TargetError> {
        let mut passing = format!("new__{name}");
        loop {
            let row = SchemaRow {
                rowid: 0,
                kind: "table".to_owned(),
                name: passing.clone(),
                table: passing.clone(),
                rootpage: 0,
                sql: None,
                is_raw: false,
            };
            let taken = |conn| schema::named_like(conn, &row.kind, &row.name).map_err(|source| self.reading(source));
            if taken(self.before)?.is_none() && taken(self.conn)?.is_none() {
                return Ok(passing);
            }
            passing.insert_str(0, "new__");
        }
    }

    /// The table, first, and the indexes of its keys as they would be under another name; none where SQLite does not
    /// rename it.
    fn under_another_name(&self, name: &str, passing: &str) -> Result<Option<Vec<SchemaRow>>, TargetError> {
        const NAME: &str = "backout_renamed";
        let conn = self.conn;
        let failed = |source| self.reading(source);
        let legacy = ddl::is_legacy(conn).map_err(failed)?;
        // What speaks of the table is not rewritten then, nor is it asked whether it is sound.
        conn.execute_batch(&format!("SAVEPOINT {NAME}; PRAGMA legacy_alter_table = ON")).map_err(failed)?;
        let renamed = ddl::execute(conn, &format!("ALTER TABLE main.{} RENAME TO {}", quote(name), quote(passing)))
            .and_then(|()| schema::of_table(conn, passing));
        conn.execute_batch(&format!(
            "ROLLBACK TO {NAME}; RELEASE {NAME}; PRAGMA legacy_alter_table = {}",
            if legacy { "ON" } else { "OFF" }
        ))
        .map_err(failed)?;
        let Ok(rows) = renamed else { return Ok(None) };
        let (table, rest): (Vec<SchemaRow>, Vec<SchemaRow>) = rows.into_iter().partition(|row| row.kind == "table");
        let indexes = rest.into_iter().filter(|row| row.kind == "index" && row.sql.is_none());
        Ok((table.len() == 1).then(|| table.into_iter().chain(indexes).collect()))
    }
}
