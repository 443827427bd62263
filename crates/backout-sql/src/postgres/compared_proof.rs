//! Tries the undo of what a command did, and holds what it leaves against the copy of before: schema, column order and rows.
//! So nothing is told as undoable that would come back in another form. And puts everything back at once where that is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use backout_model::target::{Gate, Images, Snapshot, Summary, TargetError, Ticket};

use super::catalog::{Kind, Object, literal};
use super::compared::{Imaged, is_table};
use super::compared_events::first_difference;
use super::compared_schema::{self, Grain};
use super::ddl_turn::attempt;
use super::session::ident;
use super::snapshot::{Before, Copy, Other};
use super::stream::Unsealed;
use super::{Postgres, marker, table};

impl Postgres {
    /// Why the undo would not bring everything back; none where it does.
    pub(super) fn try_undo_exactly(
        &mut self,
        before: &Before,
        touched: &BTreeSet<u32>,
        unsealed: &mut Unsealed,
        gate: &mut dyn Gate,
    ) -> Result<Option<String>, TargetError> {
        self.try_undo(unsealed, gate, true, false, &mut |this| this.unlike(before, touched))
    }

    /// The first difference between the state of now and the one of before, in words.
    pub(super) fn unlike(&mut self, before: &Before, touched: &BTreeSet<u32>) -> Result<Option<String>, TargetError> {
        let label = self.label.clone();
        let reading = |source| TargetError::failed(format!("cannot compare {label} with what it was"), source);
        let version = self.a.version;
        let now = compared_schema::all(&mut self.a.client, version).map_err(reading)?;
        if let Some(what) = first_difference(&before.objects, &now) {
            return Ok(Some(what));
        }
        for copy in before.tables.iter().filter(|copy| touched.contains(&copy.oid)) {
            let Some(table) = before.objects.iter().find(|table| is_table(table, copy.oid)) else { continue };
            if self.rows_differ(table, copy).map_err(reading)? {
                return Ok(Some(format!("{} has other rows", table.shown())));
            }
        }
        Ok(None)
    }

    /// Columns are matched by their names: a table that was built anew numbers them by itself.
    fn rows_differ(&mut self, table: &Object, copy: &Copy) -> Result<bool, postgres::Error> {
        let oid = self.a.value(&format!("SELECT {}::pg_catalog.regclass::pg_catalog.oid", literal(table.id())))?;
        let now = table::read(&mut self.a, oid.and_then(|oid| oid.parse().ok()).unwrap_or(0))?;
        let old: Vec<String> = copy.columns.iter().map(|column| column.copied("b.")).collect();
        let new: Vec<String> = copy.columns.iter().map(|column| column.value("a.")).collect();
        let (old, new, id, copied) = (old.join(", "), new.join(", "), table.id(), &copy.table);
        let key = now.key.iter().map(|key| {
            let name = &now.columns.get(key.column)?.name;
            let column = copy.columns.iter().find(|column| column.name == *name)?;
            Some(format!("{} = {}", column.value("a."), column.copied("b.")))
        });
        let key: Option<Vec<String>> = key.collect();
        let sql = match key.filter(|key| !key.is_empty()) {
            // As many rows, and each of before is there: a key has one row.
            Some(key) => format!(
                "SELECT 1 WHERE (SELECT pg_catalog.count(*) FROM ONLY {id}) <> (SELECT pg_catalog.count(*) FROM {copied}) OR EXISTS (SELECT FROM {copied} AS b
                 WHERE NOT EXISTS (SELECT FROM ONLY {id} AS a WHERE {} AND pg_catalog.record_image_eq(ROW({new}), ROW({old}))))",
                key.join(" AND ")
            ),
            None => {
                let old = format!("SELECT ROW({old})::pg_catalog.text FROM {copied} AS b");
                let new = format!("SELECT ROW({new})::pg_catalog.text FROM ONLY {id} AS a");
                format!("SELECT 1 WHERE EXISTS ({old} EXCEPT ALL {new}) OR EXISTS ({new} EXCEPT ALL {old})")
            }
        };
        Ok(self.a.value(&sql)?.is_some())
    }

    /// See [`backout_model::target::Target::put_back_whole`]: what the command did is found once more, and undone at once.
    pub(super) fn put_all_back(&mut self, snapshot: &Snapshot) -> Result<(), TargetError> {
        self.ready()?;
        let named = self.name_schemas_back(snapshot);
        self.after_step();
        named?;
        let mut last = None;
        for grain in [Grain::Fine, Grain::Coarse] {
            let done = self.put_back_in(snapshot, grain);
            self.after_step();
            match done {
                Ok(None) => return Ok(()),
                Ok(Some(why)) => last = Some(why),
                Err(TargetError::Refused(refusal)) => last = Some(refusal.why),
                Err(error) => return Err(error),
            }
        }
        let why = last.unwrap_or_default();
        let schema = snapshot.note["schema"].as_str().unwrap_or_default();
        Err(TargetError::failed(
            format!("cannot put {} back as it was before the command", self.label),
            format!("{why}; the rows of before are in the schema {}", ident(schema)),
        ))
    }

    /// Gives schemas the names that they had: everything in them is named by these. What took one of these names since gives
    /// way. A transaction of its own, for the second session is to read the tables under them.
    fn name_schemas_back(&mut self, snapshot: &Snapshot) -> Result<(), TargetError> {
        let failed = |this: &Self, source| this.failed("cannot give the schemas their names back in", source);
        self.begin()?;
        marker::holds(&mut self.a, self.place.as_ref(), &self.label, self.epoch)?;
        let before = self.before(&snapshot.note)?;
        let rows = self.a.rows("SELECT oid, pg_catalog.quote_ident(nspname) FROM pg_catalog.pg_namespace");
        let rows = rows.map_err(|source| failed(self, source))?.into_iter();
        let now: BTreeMap<u32, String> =
            rows.filter_map(|row| Some((row[0].as_deref()?.parse().ok()?, row[1].clone()?))).collect();
        let of_before = before.objects.iter().filter(|object| object.kind == Kind::Schema);
        let renamed: Vec<(&str, &str)> = of_before
            .filter_map(|schema| Some((now.get(&schema.key?.oid)?.as_str(), schema.id())))
            .filter(|(is, was)| is != was)
            .collect();
        let ways = |name: &&str| now.values().any(|other| other == name) && !renamed.iter().any(|(is, _)| is == name);
        let in_the_way: Vec<&str> = renamed.iter().map(|(_, was)| *was).filter(ways).collect();
        let aside = |at: usize| format!("gave_way_{}_{at}", snapshot.note["schema"].as_str().unwrap_or_default());
        let mut sql: Vec<String> = Vec::new();
        for (at, is) in renamed.iter().map(|(is, _)| *is).chain(in_the_way.iter().copied()).enumerate() {
            sql.push(format!("ALTER SCHEMA {is} RENAME TO {}", ident(&aside(at))));
        }
        for (at, (_, was)) in renamed.iter().enumerate() {
            sql.push(format!("ALTER SCHEMA {} RENAME TO {was}", ident(&aside(at))));
        }
        sql.push("COMMIT".to_owned());
        self.a.run(&sql.join("; ")).map_err(|source| failed(self, source))
    }

    fn put_back_in(&mut self, snapshot: &Snapshot, grain: Grain) -> Result<Option<String>, TargetError> {
        self.begin()?;
        marker::holds(&mut self.a, self.place.as_ref(), &self.label, self.epoch)?;
        let mut before = self.before(&snapshot.note)?;
        self.without_others(&mut before)?;
        let came: Vec<Other> =
            self.others()?.into_iter().filter(|other| before.others.iter().all(|was| was.what != other.what)).collect();
        // What they depend on goes with what the command made, and that may depend on them.
        let came = self.drop_others(came)?;
        let mut scratch = Scratch { path: snapshot.directory.join("images") };
        let (mut unsealed, touched) = match self.images_of(&before, grain, "the command", &mut scratch)? {
            Imaged::Done { unsealed, touched, .. } => (unsealed, touched),
            Imaged::TooFine(error) => return Err(error),
        };
        let why =
            self.try_undo(&mut unsealed, &mut scratch, false, false, &mut |this| this.unlike(&before, &touched))?;
        if why.is_none() {
            self.drop_others(came)?;
            let left = self.other_than(&before)?;
            self.a.run("COMMIT").map_err(|source| self.failed("cannot commit to", source))?;
            if let Some(what) = left {
                return Err(TargetError::failed(
                    format!("cannot put {what} back as it was before the command in {}", self.label),
                    "nothing knows how; all else there is as it was. Make it as it was by hand, then go on",
                ));
            }
        }
        Ok(why)
    }
}

impl Postgres {
    /// Drops what came and is not handled; what is left of it.
    fn drop_others(&mut self, mut came: Vec<Other>) -> Result<Vec<Other>, TargetError> {
        let failed = |this: &Self, source| this.failed("cannot drop what came in", source);
        loop {
            let mut left = Vec::new();
            let before = came.len();
            for other in came {
                let large = other.what.strip_prefix("large object ").map(|oid| format!("SELECT lo_unlink({oid})"));
                let drop = other.name.as_ref().map(|name| format!("DROP {name}"));
                let Some(sql) = large.or(drop) else { continue };
                match attempt(&mut self.a.client, &sql) {
                    Ok(()) => {}
                    Err(error) if self.a.client.is_closed() => return Err(failed(self, error)),
                    Err(_) => left.push(other),
                }
            }
            if left.is_empty() || left.len() == before {
                return Ok(left);
            }
            came = left;
        }
    }
}

/// Images that are read back at once and belong to no step.
pub(super) struct Scratch {
    pub path: PathBuf,
}

impl Gate for Scratch {
    fn images(&mut self) -> Box<dyn Write + Send> {
        match File::create(&self.path) {
            Ok(file) => Box::new(std::io::BufWriter::new(file)),
            Err(error) => Box::new(Unwritable(error.kind())),
        }
    }

    fn written(&mut self) -> std::io::Result<Box<dyn Images>> {
        Ok(Box::new(File::open(&self.path)?))
    }

    fn announce(&mut self, _: &Summary) -> Result<Ticket, TargetError> {
        Err(TargetError::failed("cannot announce what is put back at once", "it is no step"))
    }

    fn progress(&mut self, _: u64, _: Option<u64>) {}
}

/// A file that could not be made.
struct Unwritable(std::io::ErrorKind);

impl Write for Unwritable {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Err(self.0.into())
    }
}
