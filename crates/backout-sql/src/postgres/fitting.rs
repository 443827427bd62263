//! What has become of a table since the images of its rows were taken: whether they still fit it, and what others added.
//!
//! Only looks; what does not fit is a conflict.

use backout_model::conflict::ConflictKind;
use backout_model::target::TargetError;

use super::load::Replay;
use super::session::literal;
use super::stream::{Column, Table};
use super::{Postgres, ddl_rows, table};

/// A column that the images do not know: others made it since.
#[derive(Clone, Debug)]
pub struct Stranger {
    pub column: Column,
    /// The condition that a row `x` has a value of its own there; none where that cannot be told.
    pub written: Option<String>,
}

impl Postgres {
    /// The columns that the table has beside those of its images; `None` where these fit it no more, which is told.
    pub(super) fn strangers(
        &mut self,
        wanted: &Table,
        replay: &mut Replay<'_>,
    ) -> Result<Option<Vec<Stranger>>, TargetError> {
        let failed = |this: &Self, source| this.failed("cannot read the schema of", source);
        let found = table::find(&mut self.a, &wanted.schema, &wanted.name).map_err(|source| failed(self, source))?;
        let is_in = |column: &Column, all: &[Column]| {
            all.iter().any(|other| other.name == column.name && other.kind == column.kind)
        };
        let why = match &found {
            None => "there is no such table".to_owned(),
            Some((_, now)) => match wanted.columns.iter().find(|column| !is_in(column, &now.columns)) {
                Some(column) => format!("it has no column {} of type {}", column.name, column.kind),
                None if !wanted.key.is_empty() && now.key.is_empty() => "it has no key any more".to_owned(),
                None => {
                    let beside = now.columns.iter().filter(|column| !is_in(column, &wanted.columns)).cloned();
                    let beside: Vec<Column> = beside.collect();
                    if !beside.is_empty() {
                        self.built_anew(wanted, replay).map_err(|source| failed(self, source))?;
                    }
                    return beside
                        .into_iter()
                        .map(|column| self.stranger(wanted, column))
                        .collect::<Result<_, _>>()
                        .map(Some)
                        .map_err(|source| failed(self, source));
                }
            },
        };
        self.unfit(wanted, why, replay)?;
        Ok(None)
    }

    /// Tells that images do not fit their table; an error where they are to go in all the same.
    pub(super) fn unfit(&self, wanted: &Table, why: String, replay: &mut Replay<'_>) -> Result<(), TargetError> {
        if replay.overwrites() {
            // To pass over them would be to keep what was to be overwritten.
            return Err(TargetError::failed(
                format!("cannot bring rows of {} in {} back", table::shown(wanted), self.label),
                format!("{why}; undo first what changed that, or pass over these rows with `--on-conflict keep`"),
            ));
        }
        replay.definition(wanted, why);
        Ok(())
    }

    fn stranger(&mut self, of: &Table, column: Column) -> Result<Stranger, postgres::Error> {
        let facts = self.a.rows(&format!(
            "SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '',
                 pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_attribute a
             LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = {}::pg_catalog.regclass AND a.attname = {}",
            literal(&table::quoted(of)),
            literal(&column.name)
        ))?;
        let fact = facts.into_iter().next().unwrap_or_default();
        let counts = fact.get(1).is_none_or(|identity| identity.as_deref() != Some("f"));
        let written = if counts {
            None
        } else {
            let added = ddl_rows::Added {
                table: &table::quoted(of),
                column: fact[2].as_deref().unwrap_or_default(),
                kind: &column.kind,
                default: fact[0].as_deref(),
                found: false,
            };
            added.not_as_added(&mut self.a.client, "x.")?
        };
        Ok(Stranger { column, written })
    }

    /// Tells, where an undo is tried, that a later step built the table anew and holds the old one: that has rows which
    /// are undone in the new one alone.
    fn built_anew(&mut self, of: &Table, replay: &mut Replay<'_>) -> Result<(), postgres::Error> {
        if replay.already.is_none() {
            return Ok(());
        }
        let held = self.a.value(&format!(
            "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relname = {} AND pg_catalog.starts_with(n.nspname::pg_catalog.text, {}) LIMIT 1",
            literal(&of.name),
            literal(&format!("{}_h", self.own))
        ))?;
        if held.is_some() {
            let conflict = replay.conflict(of, None, ConflictKind::RequiredBy);
            if let Some(already) = &mut replay.already {
                already.push(conflict);
            }
        }
        Ok(())
    }
}
