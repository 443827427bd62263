//! Sequences: positions that no transaction takes back by itself. Put back only where nobody used them since.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use backout_model::target::TargetError;

use super::session::{Session, ident, literal};
use super::stream::{Position, Sequence};

/// Schema and name.
type Name = (String, String);

/// Where each sequence stood, with its oid.
pub type Positions = BTreeMap<Name, (u32, Position)>;

/// How many sequences are read in one statement.
const AT_ONCE: usize = 200;

/// Reads where all sequences that may be read stand.
pub fn read(a: &mut Session, label: &str) -> Result<Positions, TargetError> {
    positions(a, "").map_err(|source| TargetError::failed(format!("cannot read the sequences of {label}"), source))
}

pub(super) fn positions(a: &mut Session, condition: &str) -> Result<Positions, postgres::Error> {
    let names = a.rows(&format!(
        "SELECT n.nspname, c.relname, c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'S' AND c.relpersistence <> 't' 
             AND CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT') END {condition}"
    ))?;
    let names: Vec<((String, String), u32)> = names
        .into_iter()
        .map(|mut row| {
            let mut text = |at: usize| row[at].take().unwrap_or_default();
            ((text(0), text(1)), text(2).parse().unwrap_or_default())
        })
        .collect();
    let mut found = Positions::new();
    for some in names.chunks(AT_ONCE) {
        let asked: Vec<String> = some
            .iter()
            .enumerate()
            .map(|(at, ((schema, name), _))| {
                format!("SELECT {at}, last_value, is_called FROM {}.{}", ident(schema), ident(name))
            })
            .collect();
        for row in a.rows(&asked.join(" UNION ALL "))? {
            let number = |at: usize| row[at].as_deref().unwrap_or_default();
            let (Ok(at), Ok(value)) = (number(0).parse::<usize>(), number(1).parse()) else { continue };
            if let Some((name, oid)) = some.get(at) {
                found.insert(name.clone(), (*oid, Position { value, called: number(2) == "t" }));
            }
        }
    }
    Ok(found)
}

/// The sequences that A used in its open transaction and that do not stand where they did, by whatever name, and those that it
/// dropped: it may have used them before.
pub fn moved(a: &mut Session, label: &str, before: &Positions) -> Result<Vec<Sequence>, TargetError> {
    let used = "AND EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid = pg_catalog.pg_backend_pid() AND l.granted
         AND l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.relation = c.oid)";
    let failed = |source| TargetError::failed(format!("cannot read the sequences of {label}"), source);
    let after = positions(a, used).map_err(failed)?;
    // A name may have gone from one to another; the number stays.
    let known: BTreeMap<u32, (&Name, Position)> = before.iter().map(|(name, (oid, at))| (*oid, (name, *at))).collect();
    let mut moved: Vec<Sequence> = after
        .into_iter()
        .filter_map(|(name, (oid, after))| match known.get(&oid) {
            Some((_, before)) if *before == after => None,
            Some((was, before)) => {
                let was = Some((*was).clone()).filter(|was| *was != name);
                Some(Sequence { was, oid: Some(oid), ..sequence(name, *before, after) })
            }
            None => Some(Sequence { made: true, ..sequence(name, after, after) }),
        })
        .collect();
    let left = still_there(a, before).map_err(failed)?;
    let gone = before.iter().filter(|(_, (oid, _))| !left.contains(oid));
    moved.extend(gone.map(|(name, (_, at))| Sequence { gone: true, ..sequence(name.clone(), *at, *at) }));
    Ok(moved)
}

fn sequence((schema, name): Name, before: Position, after: Position) -> Sequence {
    Sequence { schema, name, before, after, made: false, gone: false, was: None, oid: None }
}

/// Which of these sequences were not dropped; those that are held were.
fn still_there(a: &mut Session, of: &Positions) -> Result<BTreeSet<u32>, postgres::Error> {
    let oids: Vec<String> = of.values().map(|(oid, _)| oid.to_string()).collect();
    let found = a.rows(&format!(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = ANY ('{{{}}}'::pg_catalog.oid[]) AND NOT pg_catalog.starts_with(n.nspname::pg_catalog.text, 'backout')",
        oids.join(", ")
    ))?;
    Ok(found.iter().filter_map(|row| row[0].as_deref()?.parse().ok()).collect())
}

/// Puts each sequence back (or forward, `redo`) where nobody used it since, as they stood when the undo (or redo) began:
/// one that was not there then came with it. In the transaction, so that it stays as it
/// is where that does not commit: ALTER SEQUENCE gives it a new file, and only that is written to.
pub fn put_back(
    a: &mut Session,
    label: &str,
    began: &Positions,
    sequences: &[Sequence],
    redo: bool,
    notes: &mut Vec<String>,
) -> Result<(), TargetError> {
    let failed = |source| TargetError::failed(format!("cannot put the sequences of {label} back"), source);
    for sequence in sequences.iter().filter(|sequence| if redo { !sequence.gone } else { !sequence.made }) {
        let after = (sequence.schema.clone(), sequence.name.clone());
        let before = sequence.was.clone().unwrap_or_else(|| after.clone());
        // What it is called now that the schema is what it shall be, and what it was called until then.
        let (name, other, left, want) = if redo {
            (after, before, sequence.before, sequence.after)
        } else {
            (before, after, sequence.after, sequence.before)
        };
        let (schema, bare) = &name;
        let shown = format!("{schema}.{bare}");
        let condition = format!("AND n.nspname = {} AND c.relname = {}", literal(schema), literal(bare));
        let now = positions(a, &condition).map_err(failed)?.into_values().next();
        let Some((_, now)) = now else {
            notes.push(format!("{label}: the sequence {shown} is gone"));
            continue;
        };
        // One that comes back, or comes again, was not there for anybody to use.
        let came = sequence.made || sequence.gone;
        let stood = began.get(&other).filter(|_| !came).map(|(_, position)| *position);
        if now == want {
            continue;
        }
        // Behind what comes back it would give numbers that are taken.
        let behind = !redo && is_behind(a, &name, now, want).map_err(failed)?;
        let is_used =
            stood.is_some_and(|stood| stood != left) || (!redo && in_use(a, &name, sequence).map_err(failed)?);
        if !behind && is_used {
            notes.push(format!("{label}: the sequence {shown} was used since and stays"));
            continue;
        }
        let name = format!("{}.{}", ident(schema), ident(bare));
        let done = a.run(&format!(
            "SAVEPOINT backout_sequence; ALTER SEQUENCE {name} RESTART; SELECT setval({}, {}, {}); RELEASE backout_sequence",
            literal(&name),
            want.value,
            want.called
        ));
        if let Err(source) = done {
            if super::session::is_lost(&source) {
                return Err(failed(source));
            }
            a.run("ROLLBACK TO backout_sequence; RELEASE backout_sequence").map_err(failed)?;
            notes
                .push(format!("{label}: the sequence {shown} stays where it is: {}", super::ddl_turn::reason(&source)));
        }
    }
    Ok(())
}

/// True where a sequence has still to give numbers that it had given before.
fn is_behind(a: &mut Session, (schema, name): &Name, now: Position, before: Position) -> Result<bool, postgres::Error> {
    let falls = a.value(&format!(
        "SELECT 1 FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE s.seqincrement < 0 AND n.nspname = {} AND c.relname = {}",
        literal(schema),
        literal(name)
    ))?;
    // What was not called yet still gives its value.
    let next = |position: Position| (position.value, position.called);
    Ok(match falls {
        None => next(now) < next(before),
        Some(_) => (Reverse(now.value), now.called) < (Reverse(before.value), before.called),
    })
}

/// True where a column that the sequence fills holds a value that it would give again.
fn in_use(a: &mut Session, (schema, name): &Name, sequence: &Sequence) -> Result<bool, postgres::Error> {
    let filled = a.rows(&format!(
        "SELECT DISTINCT t.nspname, r.relname, a.attname, s.seqincrement > 0
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid
         CROSS JOIN LATERAL (
             SELECT refobjid AS relation, refobjsubid AS at FROM pg_catalog.pg_depend
             WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND objid = c.oid AND deptype IN ('a', 'i') AND refobjsubid > 0
             UNION SELECT ad.adrelid, ad.adnum FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef ad ON ad.oid = d.objid
             WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
                 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid) AS f
         JOIN pg_catalog.pg_class r ON r.oid = f.relation JOIN pg_catalog.pg_namespace t ON t.oid = r.relnamespace
         JOIN pg_catalog.pg_attribute a ON a.attrelid = f.relation AND a.attnum = f.at
         WHERE n.nspname = {} AND c.relname = {} AND a.atttypid IN (20, 21, 23, 1700)",
        literal(schema),
        literal(name)
    ))?;
    let Position { value, called } = sequence.before;
    for row in filled {
        let text = |at: usize| row[at].clone().unwrap_or_default();
        let beyond = match (text(3) == "t", called) {
            (true, true) => ">",
            (true, false) => ">=",
            (false, true) => "<",
            (false, false) => "<=",
        };
        let column = ident(&text(2));
        let found = a.value(&format!(
            "SELECT 1 WHERE EXISTS (SELECT FROM {}.{} WHERE {column} {beyond} {value} AND {column} {} {})",
            ident(&text(0)),
            ident(&text(1)),
            if text(3) == "t" { "<=" } else { ">=" },
            sequence.after.value
        ))?;
        if found.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
