//! How a script for `psql` takes back a change of the schema: by the statements that its undo was when it was tried, once
//! all that it is about is seen to be as the deployment left it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use backout_model::target::TargetError;

use super::acts::Act;
use super::catalog::{self, Key, Kind, Object, Wanted, class, literal};
use super::ddl::DdlEvent;
use super::prepared::Client;
use super::{catalog_read, ddl_along, ddl_rows, ddl_turn, ddl_values, hung};

/// What every guard says.
pub(super) const STOPS: &str = "RAISE EXCEPTION '% is no longer as the deployment left it: nothing was changed', ";

/// The statements that take it back; none where only the tool can.
fn acts(event: &DdlEvent) -> Option<Vec<Act>> {
    if event.adds_labels() {
        // Before the step committed they could not be taken out.
        return None;
    }
    if !event.acts.is_empty() {
        return Some(event.acts.clone());
    }
    let mut made: Vec<&Object> = event.changes.iter().filter_map(|change| change.after.as_ref()).collect();
    if !event.refreshed.is_empty() {
        // What its undo is stands behind all rows.
        return Some(Vec::new());
    }
    if event.alters() || made.is_empty() {
        return None;
    }
    made.sort_by_key(|object| object.kind);
    let drops = ddl_turn::drops(&made, &|_| None);
    Some(drops.into_iter().filter(|act| !act.sql.is_empty()).map(|act| Act::Sql(act.sql)).collect())
}

/// Why no script can take a change of the schema back.
pub(super) fn not_in_script(event: &DdlEvent) -> Option<String> {
    acts(event).is_none().then(|| format!("line {}: {}", event.line, event.words()))
}

impl DdlEvent {
    /// Which table points at which by a foreign key that its undo brings back.
    pub(super) fn points_that_come_back(&self) -> Vec<(String, String)> {
        let gone =
            self.changes.iter().filter(|change| change.after.is_none()).filter_map(|change| change.before.as_ref());
        let keys = gone.filter_map(|key| Some((key.of().to_owned(), key.part("references")?.to_owned())));
        keys.collect()
    }
}

/// What the change is written with.
pub(super) struct Writing<'w> {
    /// Reads the database as it is.
    pub client: &'w mut Client,
    pub version: u32,
    /// Tables that the change made and the same step dropped.
    pub passing: Vec<String>,
    /// Tables that the step made.
    pub made: &'w BTreeSet<String>,
    pub label: &'w str,
}

impl Writing<'_> {
    /// The guards, then the statements; `rows` writes a block of kept rows.
    pub(super) fn write(
        &mut self,
        event: &DdlEvent,
        rows: &mut dyn FnMut(u64, &mut dyn Write) -> Result<(), TargetError>,
        out: &mut dyn Write,
    ) -> Result<(), TargetError> {
        let label = self.label;
        let reading = |source| TargetError::failed(format!("cannot read {label} for the script"), source);
        let mut guards: Vec<String> =
            event.changes.iter().filter_map(|one| self.as_left(one.before.as_ref(), one.after.as_ref())).collect();
        guards.extend(nothing_hangs(event));
        guards.extend(event.hung.iter().map(|(table, digest)| {
            let stop = format!("{STOPS}{}", literal(&format!("what hangs on table {table}")));
            format!("  IF ({}) <> {} THEN {stop}; END IF;\n", hung::question(table), literal(digest))
        }));
        for change in event.changes.iter().filter(|change| change.before.is_none()) {
            let Some(made) = &change.after else { continue };
            guards.extend(self.nothing_written(event, made).map_err(reading)?);
        }
        let writing = |source: io::Error| TargetError::failed("cannot write the script", source);
        let body = format!("DECLARE backout_key text; backout_now jsonb; BEGIN\n{}END", guards.concat());
        writeln!(out, "{}", block(&body)).map_err(writing)?;
        for act in acts(event).unwrap_or_default() {
            match act {
                Act::Sql(sql) => writeln!(out, "{};", sql.trim_end().trim_end_matches(';')).map_err(writing)?,
                Act::Rows { copy, block } => {
                    writeln!(out, "{copy};").map_err(writing)?;
                    rows(block, out)?;
                    writeln!(out, "\\.").map_err(writing)?;
                    let of_it = event.kept.iter().find(|kept| kept.blocks().any(|one| one == block));
                    // Rows of a table that the step made are gone by then.
                    let of_it = of_it.filter(|kept| !self.made.contains(&kept.table));
                    for rows in of_it.iter().flat_map(|kept| ddl_values::in_the_way_after(kept, &copy)) {
                        let stop = format!("{STOPS}{}", literal("a row whose value would come back"));
                        let body = format!("BEGIN IF EXISTS (SELECT {rows}) THEN {stop}; END IF; END");
                        writeln!(out, "{}", self::block(&body)).map_err(writing)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The object is what the change left: all of it where it was made, else the parts that were changed.
    fn as_left(&self, before: Option<&Object>, after: Option<&Object>) -> Option<String> {
        let object = after.or(before)?;
        let finder = object.finder();
        let stop = format!("{STOPS}{}", literal(&object.shown()));
        let Some(after) = after else {
            return Some(format!("  IF (SELECT {finder}) IS NOT NULL THEN {stop}; END IF;\n"));
        };
        let parts: Vec<&str> =
            before.map_or_else(|| after.compared().map(|(name, _)| name).collect(), |before| before.differences(after));
        let expected: BTreeMap<&str, &str> = parts.iter().filter_map(|name| Some((*name, after.part(name)?))).collect();
        let expected = serde_json::to_string(&expected).unwrap_or_default();
        let list = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
            format!("(ARRAY[{}]::text[])", names.join(", "))
        };
        let among = match before {
            None => format!("<> ALL {}", list(&catalog::NOT_COMPARED)),
            Some(_) => format!("= ANY {}", list(&parts)),
        };
        let question = question(object, self.version)?;
        Some(format!(
            "  backout_key := (SELECT {finder});
  SELECT q.parts::jsonb INTO backout_now FROM ({question}) AS q (key, kind, parts) WHERE q.key = backout_key;
  IF backout_now IS NULL OR (SELECT coalesce(jsonb_object_agg(key, value), '{{}}') FROM jsonb_each_text(backout_now)
      WHERE value IS NOT NULL AND key {among}) <> {}::jsonb THEN {stop}; END IF;\n",
            literal(&expected)
        ))
    }

    /// Nobody put rows into a table that goes, or values into a column.
    fn nothing_written(&mut self, event: &DdlEvent, made: &Object) -> Result<Option<String>, postgres::Error> {
        let stop = format!("{STOPS}{}", literal(&made.shown()));
        let found = |rows: &str| Some(format!("  IF EXISTS (SELECT FROM {rows}) THEN {stop}; END IF;\n"));
        match made.kind {
            Kind::Table if made.part("partition key").is_none() && !self.passing.iter().any(|one| one == made.id()) => {
                Ok(found(&format!("ONLY {}", made.id())))
            }
            Kind::Column if made.part("relation").is_none() && !made.is_inherited() => {
                let of_made = event.made().any(|table| table == made.of());
                // Where it is not there, the look at the column itself stops the script.
                if of_made || catalog::find(self.client, &[made])?.iter().all(Option::is_none) {
                    return Ok(None);
                }
                let condition = ddl_rows::not_as_added(self.client, made, event.found)?;
                Ok(condition.and_then(|condition| found(&format!("{} WHERE {condition}", made.of()))))
            }
            _ => Ok(None),
        }
    }
}

/// The question for one object, whose key is in the text variable `backout_key`; none for what is no object of its own.
fn question(object: &Object, version: u32) -> Option<String> {
    let (class, relation) = match object.kind {
        Kind::Schema => (class::SCHEMA, None),
        Kind::Extension => (class::EXTENSION, None),
        Kind::Enum | Kind::Domain | Kind::Range => (class::TYPE, None),
        Kind::Composite => (class::RELATION, Some('c')),
        Kind::Sequence => (class::RELATION, Some('S')),
        Kind::Table => (class::RELATION, Some('r')),
        Kind::Index => (class::RELATION, Some('i')),
        Kind::View | Kind::MaterializedView => (class::RELATION, Some('v')),
        Kind::Attribute | Kind::Column => (class::RELATION, None),
        Kind::Function => (class::PROCEDURE, None),
        Kind::Constraint => (class::CONSTRAINT, None),
        Kind::Statistics => (class::STATISTICS, None),
        Kind::Rule => (class::RULE, None),
        Kind::Trigger => (class::TRIGGER, None),
        Kind::Policy => (class::POLICY, None),
        Kind::Publication => (class::PUBLICATION, None),
        Kind::PublishedTable => (class::PUBLISHED_TABLE, None),
        Kind::PublishedSchema => (class::PUBLISHED_SCHEMA, None),
        Kind::DefaultPrivileges => (class::DEFAULT_ACL, None),
    };
    let sub = i32::from(matches!(object.kind, Kind::Attribute | Kind::Column));
    let wanted = Wanted { keys: vec![Key { class, oid: 0, sub }], ..Wanted::default() };
    let relations = relation.map(|kind| (0, kind)).into_iter().collect();
    let asked = catalog_read::queries(&wanted, &relations, version).into_iter().next()?;
    let part = |at: u8| format!("split_part(backout_key, ',', {at})");
    let sql = asked.sql().replace("$1", &format!("ARRAY[{}::oid]", part(2)));
    Some(sql.replace("$2", &format!("ARRAY[{}||','||{}]", part(2), part(3))))
}

/// Nothing that others made would go along with what goes.
fn nothing_hangs(event: &DdlEvent) -> Option<String> {
    let made: Vec<&Object> = event
        .changes
        .iter()
        .filter(|change| change.before.is_none())
        .filter_map(|change| change.after.as_ref())
        .collect();
    let first = made.first()?;
    let keys: Vec<String> = made.iter().map(|object| format!("((SELECT {}))", object.finder())).collect();
    let keys = format!("(SELECT key FROM (VALUES {}) AS v (key) WHERE key IS NOT NULL)", keys.join(", "));
    let going = format!(
        "SELECT split_part(key, ',', 1)::oid, split_part(key, ',', 2)::oid, split_part(key, ',', 3)::int FROM {keys} AS k"
    );
    // A table of ours in a publication of others is no loss to these.
    Some(format!(
        "  IF EXISTS (SELECT FROM ({}) AS h (key) WHERE key NOT IN {keys} AND key NOT LIKE '{},%') THEN {STOPS}{}; END IF;\n",
        ddl_along::along_sql(&going),
        class::PUBLISHED_TABLE,
        literal(&format!("what hangs on {}", first.shown()))
    ))
}

/// A block of statements, in dollar quotes whose tag does not stand in it.
fn block(body: &str) -> String {
    let tags = (0..).map(|n| if n == 0 { "$backout$".to_owned() } else { format!("$backout{n}$") });
    let tag = tags.into_iter().find(|tag| !body.contains(tag)).unwrap_or_default();
    format!("DO {tag} {body} {tag};")
}
