//! Labels of an enum. PostgreSQL adds and renames them; to take one out again the type is made anew beside the old one, the
//! columns that use it get the new one, and what hangs on either comes back as it was. Never touches a row that holds a
//! label which goes: that is for the caller to find first.

use std::collections::BTreeSet;

use postgres::Error;

use super::catalog::{self, Kind, Object};
use super::ddl_alter::Setter;
use super::ddl_turn::{self, Act, Pair, Reach, TurnError};
use super::prepared::Client;
use super::{catalog_changes, ddl_keep, ddl_make, ddl_observe, ddl_rows};

/// The name of a type that makes room for the new one.
const ASIDE: &str = "backout_labels";

/// The labels as literals, in order.
pub(super) fn labels(object: &Object) -> Vec<&str> {
    let text = object.text("labels");
    let (mut found, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            // A doubled quote closes and opens again.
            b'\'' => quoted = !quoted,
            b',' if !quoted => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text.is_empty() {
        found.push(text[start..].trim());
    }
    found
}

/// The labels of `after` that `before` lacks, where all of `before` are there in their order.
pub(super) fn added<'a>(before: &Object, after: &'a Object) -> Option<Vec<&'a str>> {
    let before = labels(before);
    let mut rest = before.iter().peekable();
    let is_new = |label: &&str| rest.next_if(|old| **old == *label).is_none();
    let new: Vec<&str> = labels(after).into_iter().filter(is_new).collect();
    rest.peek().is_none().then_some(new)
}

/// True where a type got labels by a change.
pub(super) fn grew(before: &Object, after: &Object) -> bool {
    before.kind == Kind::Enum && added(before, after).is_some_and(|added| !added.is_empty())
}

/// What the labels are to be once a change is undone: what others added stays. None where others took part of it away.
pub(super) fn back(before: &Object, after: &Object, now: &Object) -> Option<String> {
    let (old, new, there) = (labels(before), labels(after), labels(now));
    if old == there {
        return Some(old.join(", "));
    }
    if let Some(added) = added(before, after).filter(|added| !added.is_empty()) {
        let all = added.iter().all(|label| there.contains(label));
        let stay = there.iter().copied().filter(|label| !added.contains(label));
        return all.then(|| stay.collect::<Vec<_>>().join(", "));
    }
    let renamed: Vec<(&str, &str)> = old.into_iter().zip(new.iter().copied()).filter(|(old, new)| old != new).collect();
    let all = old_and_new(before, after) && renamed.iter().all(|(_, new)| there.contains(new));
    let back = |label: &str| {
        renamed.iter().find(|(_, new)| *new == label).map_or_else(|| label.to_owned(), |(old, _)| (*old).to_owned())
    };
    all.then(|| there.iter().map(|label| back(label)).collect::<Vec<_>>().join(", "))
}

fn old_and_new(before: &Object, after: &Object) -> bool {
    labels(before).len() == labels(after).len()
}

/// How the labels become others.
pub(super) fn setter(live: &Object, wanted: &Object) -> Setter {
    let (now, then, id) = (labels(live), labels(wanted), live.id());
    if now.len() == then.len() {
        let renames = now.iter().zip(&then).filter(|(now, then)| now != then);
        let sql: Vec<String> =
            renames.map(|(now, then)| format!("ALTER TYPE {id} RENAME VALUE {now} TO {then}")).collect();
        return Setter::Sql(sql.join("; "));
    }
    let Some(new) = added(live, wanted).filter(|new| !new.is_empty()) else { return Setter::Anew };
    let place = |label: &str| match then.iter().position(|then| *then == label) {
        Some(0) => format!(" BEFORE {}", now[0]),
        Some(at) => format!(" AFTER {}", then[at - 1]),
        None => String::new(),
    };
    let sql: Vec<String> = new
        .iter()
        .map(|label| {
            format!("ALTER TYPE {id} ADD VALUE {label}{}", if now.is_empty() { String::new() } else { place(label) })
        })
        .collect();
    Setter::Sql(sql.join("; "))
}

/// A column whose values are of the type, or of arrays of it.
struct Column {
    table: String,
    name: String,
    key: (u32, i32),
    is_array: bool,
    has_rows: bool,
    is_inherited: bool,
    has_default: bool,
}

fn columns(client: &mut Client, kind: u32) -> Result<Vec<Column>, Error> {
    let sql = format!(
        "SELECT c.oid::regclass, pg_catalog.quote_ident(attname), c.oid, attnum, atttypid <> {kind}, c.relkind = 'r', \
         attinhcount > 0, atthasdef FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = attrelid \
         WHERE atttypid IN ({kind}, (SELECT typarray FROM pg_catalog.pg_type WHERE oid = {kind})) \
         AND NOT attisdropped AND attnum > 0 AND c.relkind IN ('r', 'p') ORDER BY c.oid, attnum"
    );
    let is = |text: &String| text == "t";
    Ok(catalog::rows(client, &sql)?
        .iter()
        .filter_map(|row| {
            Some(Column {
                table: row.first()?.clone(),
                name: row[1].clone(),
                key: (row[2].parse().ok()?, row[3].parse().ok()?),
                is_array: is(&row[4]),
                has_rows: is(&row[5]),
                is_inherited: is(&row[6]),
                has_default: is(&row[7]),
            })
        })
        .collect())
}

/// The columns with values that go: how they are shown, and how many rows hold one.
pub(super) fn used(client: &mut Client, now: &Object, gone: &[&str]) -> Result<Vec<(String, i64)>, Error> {
    let Some(key) = now.key else { return Ok(Vec::new()) };
    let gone = gone.join(", ");
    let mut found = Vec::new();
    for Column { table, name, is_array, .. } in columns(client, key.oid)?.into_iter().filter(|column| column.has_rows) {
        let condition = match is_array {
            true => format!("{name}::text[] && ARRAY[{gone}]::text[]"),
            false => format!("{name}::text = ANY (ARRAY[{gone}]::text[])"),
        };
        let rows = ddl_rows::count(client, &format!("ONLY {table}"), &condition)?;
        if rows > 0 {
            found.push((format!("column {name} of {table}"), rows));
        }
    }
    Ok(found)
}

/// Why the type cannot be made anew, from the catalogs alone; none where it can.
pub(super) fn obstacle(client: &mut Client, now: &Object) -> Result<Option<String>, Error> {
    let Some(key) = now.key else { return Ok(None) };
    let sql = format!(
        "WITH y AS (SELECT unnest(ARRAY[t.oid, t.typarray]) AS oid FROM pg_catalog.pg_type t WHERE t.oid = {kind}), \
         d AS (SELECT d.* FROM pg_catalog.pg_depend d JOIN y ON d.refclassid = 1247 AND d.refobjid = y.oid \
         WHERE NOT (d.classid = 1247 AND d.objid IN (SELECT oid FROM y))), \
         u AS (SELECT a.attrelid, a.attnum, a.attgenerated, c.relkind, c.reltype, c.relnamespace, p.partattrs \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         LEFT JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = c.oid \
         WHERE a.atttypid IN (SELECT oid FROM y) AND NOT a.attisdropped AND a.attnum > 0 AND c.relkind IN ('r', 'p')) \
         SELECT why FROM ( \
         SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)||' is made of it' AS why FROM d \
         LEFT JOIN pg_catalog.pg_class c ON d.classid = 1259 AND c.oid = d.objid \
         WHERE CASE d.classid WHEN 1259 THEN c.relkind NOT IN ('r', 'p', 'v', 'm', 'i', 'I') OR c.relkind = 'p' AND d.objsubid = 0 \
         ELSE d.classid NOT IN (1255, 2604, 2606, 2618, 2620, 3256, 3381, 6106) END \
         UNION ALL SELECT 'rows are put into partitions of '||attrelid::regclass||' by it' FROM u \
         WHERE attnum = ANY (partattrs::int2[]) \
         UNION ALL SELECT pg_catalog.pg_describe_object(1259, attrelid, attnum)||' is computed' FROM u WHERE attgenerated <> '' \
         UNION ALL SELECT pg_catalog.pg_describe_object(1259, g.attrelid, g.attnum)||' is computed from it' FROM u \
         JOIN pg_catalog.pg_attribute g ON g.attrelid = u.attrelid AND g.attgenerated <> '' \
         JOIN pg_catalog.pg_depend e ON e.refclassid = 1259 AND e.refobjid = u.attrelid AND e.refobjsubid = u.attnum \
         LEFT JOIN pg_catalog.pg_attrdef b ON e.classid = 2604 AND b.oid = e.objid \
         WHERE g.attnum = coalesce(b.adnum, CASE WHEN e.classid = 1259 AND e.objid = u.attrelid THEN e.objsubid END) \
         UNION ALL SELECT pg_catalog.pg_describe_object(1259, r.attrelid, r.attnum)||' holds rows of '||u.attrelid::regclass \
         FROM u JOIN pg_catalog.pg_type w ON w.oid = u.reltype JOIN pg_catalog.pg_attribute r \
         ON r.atttypid IN (w.oid, w.typarray) AND NOT r.attisdropped \
         JOIN pg_catalog.pg_class x ON x.oid = r.attrelid AND x.relkind IN ('r', 'p', 'c') \
         UNION ALL SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)||' belongs to another role' FROM d \
         LEFT JOIN pg_catalog.pg_proc f ON d.classid = 1255 AND f.oid = d.objid \
         LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = 2618 AND w.oid = d.objid \
         LEFT JOIN pg_catalog.pg_class c ON c.oid = coalesce(w.ev_class, CASE d.classid WHEN 1259 THEN d.objid END) \
         WHERE NOT pg_catalog.pg_has_role(coalesce(f.proowner, c.relowner), 'USAGE') \
         UNION ALL SELECT 'another session has it in a temporary table' FROM u \
         WHERE pg_catalog.pg_is_other_temp_schema(relnamespace)) s ORDER BY why LIMIT 1",
        kind = key.oid
    );
    Ok(catalog::column(client, &sql)?.into_iter().flatten().next())
}

fn stuck(now: &Object, why: impl Into<String>) -> TurnError {
    TurnError::Stuck { what: format!("make {} anew without a label", now.shown()), why: why.into() }
}

/// All that hangs on the type: its objects as they are, and those that would lose something, as that would leave them.
fn hanging(client: &mut Client, version: u32, now: &Object) -> Result<Vec<super::ddl::Change>, TurnError> {
    let mark = catalog_changes::mark(client, "backout_labels")?;
    let drop =
        Act { sql: format!("DROP TYPE {} CASCADE", now.id()), shown: format!("drop {}", now.shown()), drops: false };
    ddl_turn::run(client, vec![drop])?;
    let touched = catalog_changes::since(client, &mark)?;
    let seen = ddl_observe::see(client, touched, version)?;
    client.batch_execute("ROLLBACK TO SAVEPOINT backout_labels; RELEASE SAVEPOINT backout_labels")?;
    client.went_back();
    let before = ddl_observe::before(client, &seen, version)?;
    if let Some(what) = seen.touched.unhandled.iter().chain(&seen.touched.unknown).chain(&before.unhandled).next() {
        return Err(stuck(now, format!("{what} hangs on it")));
    }
    Ok(ddl_observe::differences(before.objects, seen.after))
}

/// Puts a type with the labels of `wanted` in the place of `now`, in all that uses it.
pub(super) fn take_out(client: &mut Client, version: u32, now: &Object, wanted: &Object) -> Result<(), TurnError> {
    let Some(key) = now.key else { return Err(stuck(now, "it is gone")) };
    if let Some(why) = obstacle(client, now)? {
        return Err(stuck(now, why));
    }
    let columns = columns(client, key.oid)?;
    let converted: BTreeSet<(u32, i32)> = columns.iter().map(|column| column.key).collect();
    let changes = hanging(client, version, now)?;
    let (mut rest, mut kept, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    for change in &changes {
        match (&change.before, &change.after) {
            (Some(before), None) if before.key == now.key => {}
            (Some(before), None) if before.key.is_some_and(|key| converted.contains(&(key.oid, key.sub))) => {
                kept.push(Pair { from: Some(before), to: Some(before) });
            }
            (Some(before), None) => {
                let lost = matches!(before.kind, Kind::Table | Kind::Sequence | Kind::Composite | Kind::Domain)
                    || before.kind == Kind::Column && before.part("relation").is_none();
                if lost {
                    return Err(stuck(now, format!("{} hangs on it", before.shown())));
                }
                if before.kind == Kind::MaterializedView && !ddl_keep::is_fresh(client, before)? {
                    return Err(stuck(now, format!("{} holds other rows than its query gives now", before.shown())));
                }
                rest.push(before);
                pairs.push(Pair { from: None, to: Some(before) });
            }
            (Some(before), Some(after)) => pairs.push(Pair { from: Some(after), to: Some(before) }),
            (None, _) => {}
        }
    }
    // Those that stay let go of what is dropped: a default that calls a function of the type.
    let bare: Vec<&Object> = pairs.iter().filter_map(|pair| pair.from).collect();
    if !bare.is_empty() {
        ddl_turn::converge(client, version, &bare, Reach::NotAnew)?;
    }
    let defaults = columns.iter().filter(|column| column.has_default).map(|Column { table, name, .. }| Act {
        sql: format!("ALTER TABLE ONLY {table} ALTER COLUMN {name} DROP DEFAULT"),
        shown: format!("drop the default of column {name} of {table}"),
        drops: false,
    });
    ddl_turn::run(client, defaults.collect())?;
    // By their names of now, in which that of the type stands.
    ddl_turn::run(client, ddl_turn::drops(&rest, &|_| None))?;
    let id = now.id();
    let aside = format!("{}.{ASIDE}", now.text("schema"));
    let mut made = now.clone();
    made.parts.insert("labels".to_owned(), wanted.text("labels").to_owned());
    let make = ddl_make::create(&made, &[]).unwrap_or_default();
    let room = format!("ALTER TYPE {id} RENAME TO {ASIDE}; {make}");
    ddl_turn::run(client, vec![Act { sql: room, shown: format!("make {} anew", now.shown()), drops: false }])?;
    let mut acts = Vec::new();
    let roots: Vec<&Column> = columns.iter().filter(|column| !column.is_inherited).collect();
    for of_table in roots.chunk_by(|one, other| one.key.0 == other.key.0) {
        let table = &of_table[0].table;
        let types: Vec<String> = of_table
            .iter()
            .map(|Column { name, is_array, .. }| {
                let array = if *is_array { "[]" } else { "" };
                format!("ALTER COLUMN {name} TYPE {id}{array} USING {name}::text{array}::{id}{array}")
            })
            .collect();
        let sql = format!("ALTER TABLE {table} {}", types.join(", "));
        acts.push(Act { sql, shown: format!("give table {table} the type anew"), drops: false });
    }
    ddl_turn::run(client, acts)?;
    pairs.extend(kept);
    pairs.push(Pair { from: Some(now), to: Some(&made) });
    ddl_turn::turn(client, version, &pairs, &|_| None, &|_| None, Reach::NotAnew)?;
    let drop = Act { sql: format!("DROP TYPE {aside}"), shown: format!("drop the old {}", now.shown()), drops: false };
    ddl_turn::run(client, vec![drop])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &str) -> Object {
        let parts = [("id".to_owned(), "e".to_owned()), ("labels".to_owned(), labels.to_owned())].into();
        Object { kind: Kind::Enum, parts, key: None }
    }

    #[test]
    fn labels_go_back_beside_those_of_others() {
        for (before, after, now, expected) in [
            ("'a', 'b'", "'a', 'n', 'b'", "'a', 'n', 'b'", Some("'a', 'b'")),
            ("'a', 'b'", "'a', 'n', 'b'", "'o', 'a', 'n', 'b', 'p'", Some("'o', 'a', 'b', 'p'")),
            ("'a', 'b'", "'a', 'n', 'b'", "'a', 'b'", Some("'a', 'b'")),
            ("'a', 'b'", "'a', 'n', 'b'", "'a', 'm', 'b'", None),
            ("'a', 'b'", "'c', 'b'", "'c', 'b', 'n'", Some("'a', 'b', 'n'")),
            ("'a', 'b'", "'c', 'b'", "'d', 'b'", None),
            (
                "'it''s, x', E'\\\\'",
                "'it''s, x', E'\\\\', ''''",
                "'it''s, x', E'\\\\', ''''",
                Some("'it''s, x', E'\\\\'"),
            ),
        ] {
            assert_eq!(back(&of(before), &of(after), &of(now)).as_deref(), expected, "{before} {after} {now}");
        }
    }

    #[test]
    fn a_label_is_added_at_its_place() {
        let sql = |live: &str, wanted: &str| setter(&of(live), &of(wanted));
        let text = |text: &str| Setter::Sql(text.to_owned());
        assert_eq!(sql("'a'", "'b'"), text("ALTER TYPE e RENAME VALUE 'a' TO 'b'"));
        assert_eq!(
            sql("'a'", "'n', 'a', 'z'"),
            text("ALTER TYPE e ADD VALUE 'n' BEFORE 'a'; ALTER TYPE e ADD VALUE 'z' AFTER 'a'")
        );
        assert_eq!(sql("", "'n', 'm'"), text("ALTER TYPE e ADD VALUE 'n'; ALTER TYPE e ADD VALUE 'm'"));
        assert_eq!(sql("'a', 'b'", "'a'"), Setter::Anew);
    }
}
