//! Whether rows can be written again as they were: what the server computes from a row, or checks of it, runs once more then,
//! and where it calls a function of the user's, that may find other names, or say another thing than it once did.
//!
//! Rows go back while names are looked for in `pg_catalog` alone, so that nobody can put another operator or function in the
//! way of the tool's own statements. A function that names what it uses without a schema, and sets no `search_path` of its
//! own, fails then. It is tried beforehand, on the rows themselves.

use super::prepared::{self, Asked, Client};
use super::session::ident;

/// One thing that the server does with each row that is written.
struct Rule {
    /// In words.
    shown: String,
    /// True of a row `x` that cannot be written as it is; an error where it cannot be told.
    broken: String,
}

/// What calls a function of the user's that does not say where it looks for names.
fn calls(class: &str, object: &str) -> String {
    let open = "p.prolang NOT IN (SELECT l.oid FROM pg_language l WHERE l.lanname IN ('internal', 'c'))
             AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS conf WHERE conf LIKE 'search_path=%')";
    format!(
        "EXISTS (SELECT FROM pg_depend uses LEFT JOIN pg_operator o ON uses.refclassid = 2617 AND o.oid = uses.refobjid
         JOIN pg_proc p ON p.oid = CASE uses.refclassid WHEN 1255 THEN uses.refobjid WHEN 2617 THEN o.oprcode::oid END
         WHERE uses.classid = {class} AND uses.objid = {object} AND p.oid >= 16384 AND {open})"
    )
}

/// The rules of the table `$1`: what each is, its name, its expression.
fn question() -> String {
    format!(
        "SELECT 'check', k.conname, pg_get_expr(k.conbin, k.conrelid), '' FROM pg_constraint k
         WHERE k.conrelid = $1 AND k.contype = 'c' AND (NOT k.convalidated OR {check})
         UNION ALL SELECT 'computed', a.attname, pg_get_expr(d.adbin, d.adrelid), '' FROM pg_attribute a
         JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = $1 AND a.attgenerated = 's' AND ({default} OR {column})
         UNION ALL SELECT 'index', c.relname, concat_ws(', ', pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)), ''
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE i.indrelid = $1 AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL) AND {index}
         UNION ALL SELECT 'partition', w.relid::regclass::text, pg_get_partition_constraintdef($1), ''
         FROM pg_partition_ancestors($1) AS w WHERE w.relid <> $1 AND {partition}
         UNION ALL SELECT 'domain', format_type(t.oid, NULL), format_type(t.oid, NULL), a.attname FROM pg_attribute a
         JOIN pg_type t ON t.oid = a.atttypid AND t.typtype = 'd' JOIN pg_constraint k ON k.contypid = t.oid
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND (NOT k.convalidated OR {check})",
        check = calls("2606", "k.oid"),
        default = calls("2604", "d.oid"),
        // Of a generated column it is the column that depends on what its expression uses, in newer versions.
        column = calls("1259", "a.attrelid"),
        index = calls("1259", "i.indexrelid"),
        partition = calls("1259", "w.relid"),
    )
}

fn rules(client: &mut Client, oid: u32) -> Result<Vec<Rule>, postgres::Error> {
    let found = prepared::rows(client, &[Asked::new(question(), "oid", oid.to_string())])?;
    let rule = |row: Vec<String>| {
        let [what, name, expression, column] = <[String; 4]>::try_from(row).ok()?;
        let fails = |it: &str| format!("NOT coalesce(({it}), true)");
        // Run for each row, and true of none.
        let runs = |it: &str| format!("num_nulls({it}) < 0");
        Some(match what.as_str() {
            "check" => Rule { shown: format!("the constraint {name}"), broken: fails(&expression) },
            "computed" => Rule {
                shown: format!("the computed column {name}"),
                broken: format!("({expression})::text IS DISTINCT FROM x.{}::text", ident(&name)),
            },
            "index" => Rule { shown: format!("the index {name}"), broken: runs(&expression) },
            "partition" => Rule { shown: format!("the partition bound within {name}"), broken: fails(&expression) },
            _ => Rule {
                shown: format!("the type {name}"),
                broken: runs(&format!("x.{}::text::{expression}", ident(&column))),
            },
        })
    };
    Ok(found.into_iter().filter_map(rule).collect())
}

/// Why rows of `place` for which `which` holds could not be written again as they are; `which` and `place` as SQL, a row is `x`.
/// Where it does, the transaction may have failed.
pub fn objection(client: &mut Client, oid: u32, place: &str, which: &str) -> Result<Option<String>, postgres::Error> {
    for Rule { shown, broken } in rules(client, oid)? {
        let asked =
            client.unwritten().simple_query(&format!("SELECT 1 FROM {place} AS x WHERE {which} AND {broken} LIMIT 1"));
        let found = match asked {
            Ok(found) => found.iter().any(|message| matches!(message, postgres::SimpleQueryMessage::Row(_))),
            Err(error) => match error.as_db_error() {
                Some(said) => {
                    return Ok(Some(format!(
                        "{shown} does not take rows back as they were: {}. Where a name is not found, a `SET search_path` of the \
                         function that it calls helps (ALTER FUNCTION …)",
                        said.message()
                    )));
                }
                None => return Err(error),
            },
        };
        if found {
            return Ok(Some(format!(
                "{shown} does not take a row back as it was: it would be refused or come out other than it stands there"
            )));
        }
    }
    Ok(None)
}
