//! The images of the few rows of a large table that are known by their keys, if they are all that the server counted.

use std::io::{Seek as _, SeekFrom};

use super::candidates::{candidates, has_namesakes, lock, odd, own_rows, placed, read_line};
use super::capture::{Capture, Sessions};
use super::capture_error::{CaptureError, reading};
use super::marks::Seen;
use super::session::{Session, ident};
use super::stream::{Side, Span, Table};
use super::table::quoted;
use super::touched::{Counts, Touched};

impl Capture {
    /// The rows of a table as B reads them: where A gave its schema another name, under the old one.
    pub(super) fn place_in(&mut self, b: &mut Session, touched: &Touched) -> Result<String, CaptureError> {
        let plain = format!("ONLY {}.{}", ident(&touched.schema), ident(&touched.name));
        if touched.made || !self.own_schema_changes && self.index().changes() == 0 {
            return Ok(plain);
        }
        let sql = format!(
            "SELECT format('ONLY %I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class AS c
             JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = {}",
            touched.oid
        );
        let found = b.value(&sql).map_err(reading(&touched.shown()))?;
        // One that B does not know was made or lately dropped: A's name is as good as any.
        Ok(found.unwrap_or(plain))
    }

    /// Writes how the rows were and how A's transaction `top` left them. `None`, and nothing written, where they are not known
    /// or the counters tell of more: each row that was changed is counted once at least. `theirs`: see [`Capture::place_in`].
    pub(super) fn rows_by_key(
        &mut self,
        sessions: &mut Sessions<'_>,
        (touched, theirs): (&Touched, &str),
        table: &Table,
        number: u32,
        counts: Counts,
        top: &str,
    ) -> Result<Option<(Span, Span)>, CaptureError> {
        let all = counts.inserts.checked_add(counts.updates).zip(counts.updates.checked_add(counts.deletes));
        let Some((come, gone)) = all.filter(|_| !touched.made) else { return Ok(None) };
        let Some(only) = self.by_key.take(touched.oid, table, come.max(gone)) else { return Ok(None) };
        let shown = touched.shown();
        let Sessions { a, b } = sessions;
        let place = format!("ONLY {}", quoted(table));
        let own = format!("{} AND {only}", own_rows("x", top));
        if come > 0 {
            if has_namesakes(b, theirs, top, Some(&only)).map_err(reading(&shown))? {
                return Ok(None);
            }
            let found = a.value(&format!("SELECT count(*) FROM {place} AS x WHERE {own}")).map_err(reading(&shown))?;
            if found.and_then(|text| text.parse::<i64>().ok()) != Some(come) {
                return Ok(None);
            }
        }
        let mut before = self.nothing()?;
        if gone > 0 {
            self.readable(a, touched)?;
            lock(a, touched)?;
            let snapshot = Seen::declare(a, &place).map_err(reading(&shown))?;
            let found = candidates(b, &snapshot, (touched.oid, theirs), table, Some(&only))
                .map_err(|error| error.of_rows(&shown))?;
            // As in `changed_rows`: A looks once B is through.
            let mut seen = Seen::at(a, found.places.as_deref()).map_err(reading(&shown))?;
            let (mut lines, mut line) = (found.lines, Vec::new());
            let mut changed = Vec::new();
            while read_line(&mut lines, &mut line)? {
                let (place, _) = placed(&line).ok_or_else(|| odd(&shown))?;
                changed.push(!seen.has(a, place).map_err(reading(&shown))?);
            }
            seen.close(a).map_err(reading(&shown))?;
            if changed.iter().filter(|changed| **changed).count() as i64 != gone {
                return Ok(None);
            }
            lines.seek(SeekFrom::Start(0))?;
            for changed in changed {
                read_line(&mut lines, &mut line)?;
                let (_, image) = placed(&line).ok_or_else(|| odd(&shown))?;
                if changed {
                    self.writer.row(Side::Before, number, image)?;
                    before.records += 1;
                }
            }
            before.end = self.writer.boundary()?;
        }
        let after = if come > 0 { self.after(a, table, number, &own)? } else { self.nothing()? };
        Ok(Some((before, after)))
    }
}
