//! Rows that may have been changed, as session B sees them, and the lock that keeps their marks meanwhile.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek as _, Write as _};

use super::capture_error::{CaptureError, reading};
use super::marks::{RowPlace, parse_ctid};
use super::rewritten;
use super::session::{Session, ident, is_lock_timeout, literal};
use super::stream::Table;
use super::table;
use super::touched::Touched;

/// How often a lock is asked for, each time for as long as `lock_timeout` says.
const LOCK_TRIES: u32 = 30;

/// Keeps VACUUM away, which would clear the marks of lockers between B's look and A's. Readers and writers go on.
pub fn lock(a: &mut Session, touched: &Touched) -> Result<(), CaptureError> {
    let shown = touched.shown();
    let name = format!("{}.{}", ident(&touched.schema), ident(&touched.name));
    for _ in 0..LOCK_TRIES {
        a.run("SAVEPOINT backout_lock").map_err(reading(&shown))?;
        match a.run(&format!("LOCK TABLE ONLY {name} IN SHARE UPDATE EXCLUSIVE MODE; RELEASE backout_lock")) {
            Ok(()) => return Ok(()),
            Err(source) if is_lock_timeout(&source) => {
                a.run("ROLLBACK TO backout_lock; RELEASE backout_lock").map_err(reading(&shown))?;
            }
            Err(source) => return Err(reading(&shown)(source)),
        }
    }
    Err(CaptureError::Uncapturable(format!("{shown} is held by VACUUM or a change of its schema for too long")))
}

/// The type of values in a table's rows that is the row type of a table which A changed: B waits for A to read such rows.
pub fn altered_type(a: &mut Session, oid: u32) -> Result<Option<String>, postgres::Error> {
    a.value(&format!(
        "WITH RECURSIVE used AS (
             SELECT atttypid AS oid FROM pg_catalog.pg_attribute WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped
             UNION SELECT part.oid FROM used JOIN pg_catalog.pg_type t ON t.oid = used.oid CROSS JOIN LATERAL (
                 VALUES (t.typelem), (t.typbasetype), ((SELECT rngsubtype FROM pg_catalog.pg_range WHERE rngtypid = t.oid))
                 UNION ALL SELECT atttypid FROM pg_catalog.pg_attribute
                 WHERE t.typrelid <> 0 AND attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) AS part (oid)
             WHERE part.oid <> 0)
         SELECT pg_catalog.format_type(t.oid, NULL) FROM used JOIN pg_catalog.pg_type t ON t.oid = used.oid
         JOIN pg_catalog.pg_locks l ON l.relation = t.typrelid AND l.pid = pg_catalog.pg_backend_pid()
             AND l.locktype = 'relation' AND l.granted AND l.mode = 'AccessExclusiveLock' LIMIT 1"
    ))
}

/// The condition that a row of `alias` was made by the transaction `top` or a part of it: whatever A sees and is still in
/// progress is A's own. `top` itself goes first, because most rows are of it and the question is cheap. The age comes
/// next: of old ids the server no longer knows what became of them.
pub fn own_rows(alias: &str, top: &str) -> String {
    format!(
        "({alias}.xmin = '{top}'::xid8::xid OR age({alias}.xmin) <= (SELECT age('{top}'::xid8::xid))
         AND pg_xact_status((({top} + (({alias}.xmin::text::int8 - {top}) & 4294967295))::text)::xid8) = 'in progress')"
    )
}

/// True where a row that is no one of A's has the number of A's transaction `top` or of a part of it: numbers of transactions
/// begin anew after 2^32 of them, and a row keeps its own. B sees these, and none of A's. `only` as in [`candidates`].
pub fn has_namesakes(b: &mut Session, place: &str, top: &str, only: Option<&str>) -> Result<bool, postgres::Error> {
    if top.parse::<u64>().is_ok_and(|top| top <= u64::from(u32::MAX)) {
        return Ok(false);
    }
    let own = own_rows("x", top);
    Ok(b.value(&format!("SELECT 1 FROM {place} AS x WHERE {own} AND {} LIMIT 1", only.unwrap_or("true")))?.is_some())
}

/// Of so many candidates at most A is told the places, so that it need not look through the whole table for them.
const FEW: u64 = 10_000;

/// Rows that may have been changed, as B sees them, in the order of their places.
pub struct Candidates {
    pub lines: BufReader<File>,
    /// Where they are, as a `tid[]`; `None` where they are many.
    pub places: Option<String>,
}

/// Everything that may have been changed, as B sees it, or of it the rows `x` for which `only` holds: through a file, since it
/// may be large and A has to wait for it. An error where some of them could not be written again.
pub fn candidates(
    b: &mut Session,
    snapshot: &str,
    (oid, place): (u32, &str),
    table: &Table,
    only: Option<&str>,
) -> Result<Candidates, CaptureError> {
    let failed = |source| CaptureError::Read { what: String::new(), source };
    b.run(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", literal(snapshot)))
        .map_err(failed)?;
    let columns = table::list(table, "x");
    let columns = if columns.is_empty() { String::new() } else { format!(", {columns}") };
    let which = format!("x.xmax <> '0'::xid AND {}", only.unwrap_or("true"));
    // The whole table comes in the order of places.
    let only = only.map_or_else(String::new, |only| format!(" AND {only} ORDER BY x.ctid"));
    let sql =
        format!("COPY (SELECT x.ctid, x.xmin{columns} FROM {place} AS x WHERE x.xmax <> '0'::xid{only}) TO STDOUT");
    let copied = (|| -> Result<(File, u64), CaptureError> {
        if let Some(why) = rewritten::objection(&mut b.client, oid, place, &which).map_err(failed)? {
            return Err(CaptureError::Uncapturable(format!("{}: {why}", table::shown(table))));
        }
        let mut file = BufWriter::with_capacity(1 << 16, tempfile::tempfile()?);
        let mut lines = b.client.copy_out(&sql).map_err(failed)?;
        let mut rows = 0;
        loop {
            // COPY escapes the ends of lines in values.
            let part = lines.fill_buf()?;
            if part.is_empty() {
                break;
            }
            rows += part.iter().filter(|byte| **byte == b'\n').count() as u64;
            file.write_all(part)?;
            let taken = part.len();
            lines.consume(taken);
        }
        let file = file.into_inner().map_err(|error| error.into_error())?;
        Ok((file, rows))
    })();
    // Where this fails, too, the connection is gone and the first error says more.
    let ended = b.roll_back();
    let (mut file, rows) = copied?;
    ended.map_err(failed)?;
    let places = if rows <= FEW { Some(places(&mut file)?) } else { None };
    file.rewind()?;
    Ok(Candidates { lines: BufReader::with_capacity(1 << 16, file), places })
}

/// The places of all candidates in the file.
fn places(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut lines = BufReader::with_capacity(1 << 16, file);
    let (mut places, mut line) = (Vec::new(), Vec::new());
    while read_line(&mut lines, &mut line)? {
        let place = line.split(|byte| *byte == b'\t').next().unwrap_or_default();
        places.push(format!("\"{}\"", String::from_utf8_lossy(place)));
    }
    Ok(format!("{{{}}}", places.join(",")))
}

/// An error where rows do not come as they have to.
pub fn odd(shown: &str) -> CaptureError {
    CaptureError::Uncapturable(format!("the rows of {shown} did not come in the order of their places"))
}

/// Reads a line without its end; false at the end.
pub fn read_line(from: &mut impl BufRead, into: &mut Vec<u8>) -> io::Result<bool> {
    into.clear();
    if from.read_until(b'\n', into)? == 0 {
        return Ok(false);
    }
    if into.last() == Some(&b'\n') {
        into.pop();
    }
    Ok(true)
}

/// Parts a candidate's line into its place and its image.
pub fn placed(line: &[u8]) -> Option<(RowPlace, &[u8])> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let ctid = std::str::from_utf8(&line[..tab]).ok()?;
    let rest = &line[tab + 1..];
    let end = rest.iter().position(|byte| *byte == b'\t').unwrap_or(rest.len());
    let xmin = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some(((parse_ctid(ctid)?, xmin), rest.get(end + 1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use backout_testkit::postgres::Server;

    use super::*;

    /// As after a wraparound: an old row of the number that the transaction has, in the next round.
    #[test]
    fn rows_of_an_old_transaction_of_the_same_number_are_seen() {
        let live = Server::shared().database();
        for sql in ["CREATE TABLE t (a int); INSERT INTO t VALUES (1)", "VACUUM (FREEZE) t"] {
            live.connect().batch_execute(sql).unwrap();
        }
        let mut b = Session::new(live.connect()).unwrap();
        let number: u64 = b.value("SELECT xmin FROM t").unwrap().unwrap().parse().unwrap();
        let mut in_round = |round: u64, number: u64| {
            has_namesakes(&mut b, "ONLY t", &((round << 32) + number).to_string(), None).unwrap()
        };
        assert!(in_round(1, number) && in_round(7, number));
        assert!(!in_round(0, number), "before the first wraparound nobody is asked");
        assert!(!in_round(1, number + 1));
    }

    #[test]
    fn a_candidate_is_its_place_and_its_image() {
        assert_eq!(placed(b"(3,14)\t77\ta\tb"), Some((((3, 14), 77), &b"a\tb"[..])));
        assert_eq!(placed(b"(3,14)\t77"), Some((((3, 14), 77), &b""[..])));
        assert_eq!(placed(b"(3,14)\tx\ta"), None);
        assert_eq!(placed(b"junk"), None);
    }
}
