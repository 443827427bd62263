//! Rows and values that a schema change would destroy go to the images first, as COPY text with the keys of their rows.

use backout_model::target::TargetError;
use serde::{Deserialize, Serialize};

use super::catalog::{self, Key, Kind, Object, literal};
use super::ddl::{Change, Context, Statement};
use super::ddl_names::starts_with;
use super::ddl_observe;
use super::prepared::Client;
use super::rewritten;
use super::token::each_token;

/// Where rows go that a statement would destroy, and where undo finds them again: the images of the step.
pub trait Keep {
    /// Takes in what `COPY … TO STDOUT` writes and gives it a number.
    fn keep(&mut self, client: &mut Client, copy_out: &str) -> Result<u64, TargetError>;

    /// Writes the block into `COPY … FROM STDIN`.
    fn bring(&mut self, client: &mut Client, copy_in: &str, block: u64) -> Result<(), TargetError>;
}

/// What the images hold for a schema change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The table or sequence, by its qualified name before the statement.
    pub table: String,
    #[serde(flatten)]
    pub what: What,
}

impl Kept {
    /// The blocks of rows that an undo puts back.
    pub(super) fn blocks(&self) -> impl Iterator<Item = u64> {
        let blocks = match self.what {
            What::Rows { block, .. } => [Some(block), None],
            What::Values { before, after, .. } => [Some(before), after],
            What::Position { .. } => [None, None],
        };
        blocks.into_iter().flatten()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum What {
    /// All rows of an emptied table.
    Rows { columns: Vec<String>, block: u64 },
    /// The values of columns that were dropped or got another type.
    Values {
        /// The columns by which a row is found again; none where whole rows are compared.
        key: Vec<String>,
        /// Columns that tell rows without a key apart.
        others: Vec<String>,
        columns: Vec<ColumnValues>,
        before: u64,
        /// What retyped columns held afterwards.
        after: Option<u64>,
    },
    /// How far a dropped sequence had counted.
    Position { last: i64, called: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnValues {
    pub name: String,
    /// Its type before.
    pub old_type: String,
    /// Its type afterwards; none for a dropped column.
    pub new_type: Option<String>,
}

/// Tables whose file is another one: emptied or written anew.
pub(super) fn rewritten(before: &[Object], after: &[Object]) -> Vec<Object> {
    let tables = before.iter().filter(|object| object.kind == Kind::Table);
    tables
        .filter(|object| {
            let now = after.iter().find(|other| other.key == object.key);
            now.is_some_and(|now| now.part("file") != object.part("file"))
        })
        .cloned()
        .collect()
}

/// The columns of tables whose values go away or change: their definitions before, and after unless they were dropped.
/// `files` are the tables that were written anew.
fn column_changes<'a>(
    changes: &'a [Change],
    files: &[Object],
) -> impl Iterator<Item = (&'a Object, Option<&'a Object>)> + Clone {
    let written: Vec<String> = files.iter().map(|table| table.id().to_owned()).collect();
    // What PostgreSQL made anew for the column and spells in another way comes back with the table alone.
    let respelled = |table: &str| {
        let hangs = |object: &Object| matches!(object.kind, Kind::Constraint | Kind::Index) && object.of() == table;
        changes.iter().any(|change| change.after.as_ref().is_some_and(hangs))
    };
    changes.iter().filter_map(move |change| {
        let before = change.before.as_ref()?;
        if before.kind != Kind::Column || before.part("relation").is_some() {
            return None;
        }
        let Some(after) = &change.after else { return Some((before, None)) };
        let differs = |part: &str| before.part(part) != after.part(part);
        let stays = || {
            widens(before.text("type"), after.text("type"))
                && !written.iter().any(|table| table == before.of())
                && !respelled(before.of())
        };
        let changes = differs("collation") || differs("generated") || differs("type") && !stays();
        changes.then_some((before, Some(after)))
    })
}

/// True where every value of the first type is one of the second as it stands.
pub(super) fn widens(from: &str, to: &str) -> bool {
    let limit = |kind: &str| kind.strip_prefix("character varying(")?.strip_suffix(')')?.parse::<u32>().ok();
    let digits = |kind: &str| {
        let (digits, scale) = kind.strip_prefix("numeric(")?.strip_suffix(')')?.split_once(',')?;
        Some((digits.parse::<u32>().ok()?, scale.to_owned()))
    };
    match (limit(from), limit(to), digits(from), digits(to)) {
        (Some(from), Some(to), ..) => from <= to,
        (Some(_), None, ..) => to == "character varying",
        (_, _, Some((from, scale)), Some((to, same))) => from <= to && scale == same,
        _ => false,
    }
}

/// True where rows or values are to be kept before the statement runs.
pub(super) fn destroys(changes: &[Change], files: &[Object], sql: &str) -> bool {
    starts_with(sql, "TRUNCATE") || retypes(sql) > 0 || column_changes(changes, files).next().is_some()
}

/// How many columns an `ALTER TABLE … ALTER … TYPE … USING …` may give other values; at least as many as it does.
fn retypes(sql: &str) -> usize {
    if !starts_with(sql, "ALTER") || !each_token(sql).any(|token| token.is("TYPE")) {
        return 0;
    }
    each_token(sql).filter(|token| token.is("USING")).count()
}

/// What is known before the statement runs for good.
pub(super) struct Keeping {
    kept: Vec<Kept>,
}

/// An error of [`keep_before`]: a refusal in words, or a failure.
#[derive(Debug)]
pub(super) enum KeepError {
    Refused(String),
    Failed(TargetError),
}

impl From<TargetError> for KeepError {
    fn from(error: TargetError) -> Self {
        Self::Failed(error)
    }
}

impl From<postgres::Error> for KeepError {
    fn from(error: postgres::Error) -> Self {
        Self::Failed(TargetError::failed("cannot read what a statement destroys", error))
    }
}

/// An error where the rows of a table, which the undo writes again, could not be what they are.
fn can_be_written_again(context: &mut Context<'_>, number: Option<Key>, table: &str) -> Result<(), KeepError> {
    let Some(number) = number else { return Ok(()) };
    // An expression may have failed, and with it the transaction: the settings go back with that.
    ddl_observe::pinned(context.client, |client| {
        match rewritten::objection(client, number.oid, &format!("ONLY {table}"), "true")? {
            Some(why) => Err(KeepError::Refused(why)),
            None => Ok(()),
        }
    })
}

pub(super) fn explained(error: KeepError, refusal: impl Fn(String) -> TargetError) -> TargetError {
    match error {
        KeepError::Refused(why) => refusal(why),
        KeepError::Failed(error) => error,
    }
}

pub(super) fn keep_before(
    context: &mut Context<'_>,
    statement: Statement<'_>,
    changes: &[Change],
    files: &[Object],
) -> Result<Keeping, KeepError> {
    let mut kept = Vec::new();
    let reading = |error: postgres::Error| TargetError::failed("cannot read what a statement destroys", error);
    if starts_with(statement.sql, "TRUNCATE") {
        for table in files {
            can_be_written_again(context, table.key, table.id())?;
            let columns = plain_columns(context.client, table.id()).map_err(reading)?;
            let copy = format!("COPY (SELECT {} FROM ONLY {}) TO STDOUT", columns.join(", "), table.id());
            let block = copy_out(context, &copy)?;
            kept.push(Kept { table: table.id().to_owned(), what: What::Rows { columns, block } });
        }
    } else if let Some(table) = files.first()
        && !starts_with(statement.sql, "ALTER")
        && !starts_with(statement.sql, "CLUSTER")
    {
        return Err(KeepError::Refused(format!("it empties or rewrites {} from within", table.shown())));
    }
    let retyped = column_changes(changes, files).filter(|(_, after)| after.is_some()).count();
    if let Some(table) = files.first().filter(|_| retypes(statement.sql) > retyped) {
        return Err(KeepError::Refused(format!(
            "it gives a column of {} other values under the type that it has; UPDATE does that",
            table.shown()
        )));
    }
    let table_goes = |table: &str| {
        changes.iter().any(|change| {
            change.after.is_none()
                && change.before.as_ref().is_some_and(|object| object.kind == Kind::Table && object.id() == table)
        })
    };
    let lost = column_changes(changes, files).filter(|(before, _)| !table_goes(before.of()));
    let mut tables: Vec<&str> = Vec::new();
    for (before, _) in lost.clone() {
        if !tables.contains(&before.of()) {
            tables.push(before.of());
        }
    }
    for table in tables {
        if inherits(context.client, table).map_err(reading)? {
            return Err(KeepError::Refused(format!(
                "columns of {table} cannot be brought back, because it inherits from a table, or one from it"
            )));
        }
        let here: Vec<(&Object, Option<&Object>)> = lost.clone().filter(|(before, _)| before.of() == table).collect();
        can_be_written_again(context, here.first().and_then(|(before, _)| before.key), table)?;
        kept.push(keep_values(context, table, &here)?);
    }
    let gone: Vec<&Object> =
        changes.iter().filter(|change| change.after.is_none()).filter_map(|change| change.before.as_ref()).collect();
    let counted = gone.iter().filter_map(|object| match object.kind {
        Kind::Sequence if !super::ddl_hold::is_moved(object) && !object.part("referenced").is_some_and(table_goes) => {
            Some(object.id())
        }
        Kind::Column if !table_goes(object.of()) => object.part("sequence"),
        _ => None,
    });
    for view in gone.iter().filter(|object| object.kind == Kind::MaterializedView) {
        if !is_fresh(context.client, view).map_err(reading)? {
            return Err(KeepError::Refused(format!(
                "{} holds other rows than its query gives now, and they cannot be brought back; refresh it first",
                view.shown()
            )));
        }
    }
    let dropped_identity = changes.iter().filter_map(|change| {
        let (before, after) = (change.before.as_ref()?, change.after.as_ref()?);
        before.part("sequence").filter(|_| after.part("sequence").is_none())
    });
    for sequence in counted.chain(dropped_identity) {
        let (last, called) = position(context.client, sequence).map_err(reading)?;
        kept.push(Kept { table: sequence.to_owned(), what: What::Position { last, called } });
    }
    Ok(Keeping { kept })
}

/// True where a materialized view holds what its query gives.
pub(super) fn is_fresh(client: &mut Client, view: &Object) -> Result<bool, postgres::Error> {
    if view.part("empty").is_some() {
        return Ok(true);
    }
    let digest =
        |from: &str| format!("(SELECT md5(string_agg(d, '' ORDER BY d)) FROM (SELECT md5(t::text) d FROM {from} t) s)");
    let query = format!("({})", view.text("definition").trim_end().trim_end_matches(';'));
    let sql = format!("SELECT {} IS NOT DISTINCT FROM {}", digest(view.id()), digest(&query));
    Ok(catalog::column(client, &sql)?.into_iter().flatten().next().as_deref() == Some("t"))
}

/// How far a sequence has counted.
pub(super) fn position(client: &mut Client, sequence: &str) -> Result<(i64, bool), postgres::Error> {
    let rows = catalog::rows(client, &format!("SELECT last_value, is_called FROM {sequence}"))?;
    let row = rows.first().map(Vec::as_slice).unwrap_or_default();
    let last = row.first().and_then(|text| text.parse().ok()).unwrap_or(1);
    Ok((last, row.get(1).is_some_and(|text| text == "t")))
}

/// Columns that can be written.
pub(super) fn plain_columns(client: &mut Client, table: &str) -> Result<Vec<String>, postgres::Error> {
    let sql = format!(
        "SELECT quote_ident(attname) FROM pg_catalog.pg_attribute WHERE attrelid = {}::regclass AND attnum > 0 \
         AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
        literal(table)
    );
    Ok(catalog::column(client, &sql)?.into_iter().flatten().collect())
}

/// True for a part of a tree of tables that are no partitions.
fn inherits(client: &mut Client, table: &str) -> Result<bool, postgres::Error> {
    let table = literal(table);
    let sql = format!(
        "SELECT 1 FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class ON oid = inhparent
         WHERE (inhrelid = {table}::regclass OR inhparent = {table}::regclass) AND relkind <> 'p'"
    );
    Ok(!catalog::column(client, &sql)?.is_empty())
}

/// The columns of the primary key, else of another key without NULLs, that keep their values.
fn key_columns(client: &mut Client, table: &str, but: &[&str]) -> Result<Vec<String>, postgres::Error> {
    let but: Vec<String> = but.iter().map(|name| literal(name)).collect();
    let sql = format!(
        "SELECT (SELECT string_agg(quote_ident(attname), chr(10)) FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)) FROM pg_catalog.pg_index i \
         WHERE i.indrelid = {}::regclass AND i.indisunique AND i.indisvalid AND i.indpred IS NULL \
         AND i.indexprs IS NULL AND i.indimmediate AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) \
         AND (NOT a.attnotnull OR quote_ident(a.attname) IN ({}))) ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1",
        literal(table),
        but.join(", ")
    );
    let key = catalog::column(client, &sql)?.into_iter().flatten().next();
    Ok(key.map(|key| key.lines().map(str::to_owned).collect()).unwrap_or_default())
}

fn keep_values(
    context: &mut Context<'_>,
    table: &str,
    lost: &[(&Object, Option<&Object>)],
) -> Result<Kept, TargetError> {
    let reading = |error: postgres::Error| TargetError::failed(format!("cannot read the columns of {table}"), error);
    let columns: Vec<ColumnValues> = lost
        .iter()
        .filter(|(before, _)| before.part("generated").is_none())
        .map(|(before, after)| ColumnValues {
            name: before.text("name").to_owned(),
            old_type: before.text("type").to_owned(),
            new_type: after.map(|after| after.text("type").to_owned()),
        })
        .collect();
    let names: Vec<&str> = lost.iter().map(|(before, _)| before.text("name")).collect();
    let key = key_columns(context.client, table, &names).map_err(reading)?;
    let all = plain_columns(context.client, table).map_err(reading)?;
    let others = if key.is_empty() {
        all.into_iter().filter(|name| !names.contains(&name.as_str())).collect()
    } else {
        Vec::new()
    };
    let what = What::Values { key, others, columns, before: 0, after: None };
    let copy = values_query(table, &what, false);
    let block = copy_out(context, &format!("COPY ({copy}) TO STDOUT"))?;
    let What::Values { key, others, columns, .. } = what else { unreachable!("made above") };
    Ok(Kept { table: table.to_owned(), what: What::Values { key, others, columns, before: block, after: None } })
}

/// A number for each row that is the same again later: its key, or a digest of its other columns and a count.
pub(super) fn row_key(key: &[String], others: &[String]) -> Vec<String> {
    if !key.is_empty() {
        return key.to_vec();
    }
    let digest = if others.is_empty() { "''".to_owned() } else { format!("md5(ROW({})::text)", others.join(", ")) };
    vec![digest.clone(), format!("row_number() OVER (PARTITION BY {digest} ORDER BY ctid)")]
}

/// Reads keys and values of the columns that were (`after`: are) there.
pub(super) fn values_query(table: &str, what: &What, after: bool) -> String {
    let What::Values { key, others, columns, .. } = what else { return String::new() };
    let mut list = row_key(key, others);
    list.extend(columns.iter().filter(|column| !after || column.new_type.is_some()).map(|column| column.name.clone()));
    format!("SELECT {} FROM ONLY {table}", list.join(", "))
}

fn copy_out(context: &mut Context<'_>, copy: &str) -> Result<u64, TargetError> {
    let keep = &mut *context.keep;
    ddl_observe::pinned(context.client, |client| keep.keep(client, copy).map_err(CopyError::Target)).map_err(Into::into)
}

/// Keeps once more what a change that was found by comparison keeps, right before it is made again.
pub(super) fn keep_again(context: &mut Context<'_>, kept: &[Kept]) -> Result<Vec<Kept>, TargetError> {
    let reading = |error: postgres::Error| TargetError::failed("cannot read what a change destroys", error);
    let mut again = kept.to_vec();
    for Kept { table, what } in &mut again {
        match what {
            What::Values { .. } => {
                let copy = format!("COPY ({}) TO STDOUT", values_query(table, what, false));
                let block = copy_out(context, &copy)?;
                if let What::Values { before, .. } = what {
                    *before = block;
                }
            }
            What::Position { last, called } => (*last, *called) = position(context.client, table).map_err(reading)?,
            What::Rows { .. } => {}
        }
    }
    Ok(again)
}

/// Errors of both sides of [`copy_out`].
enum CopyError {
    Server(postgres::Error),
    Target(TargetError),
}

impl From<postgres::Error> for CopyError {
    fn from(error: postgres::Error) -> Self {
        Self::Server(error)
    }
}

impl From<CopyError> for TargetError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Server(error) => TargetError::failed("cannot keep the rows that a statement destroys", error),
            CopyError::Target(error) => error,
        }
    }
}

/// What is known only after the statement: the values that retyped columns have now.
pub(super) fn keep_after(context: &mut Context<'_>, keeping: Keeping) -> Result<Vec<Kept>, TargetError> {
    let mut kept = keeping.kept;
    for kept in &mut kept {
        let retyped = matches!(&kept.what, What::Values { columns, .. }
            if columns.iter().any(|column| column.new_type.is_some()));
        if retyped {
            let copy = values_query(&kept.table, &kept.what, true);
            let block = copy_out(context, &format!("COPY ({copy}) TO STDOUT"))?;
            if let What::Values { after, .. } = &mut kept.what {
                *after = Some(block);
            }
        }
    }
    Ok(kept)
}
