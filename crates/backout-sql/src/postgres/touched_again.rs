//! Which rows and objects a step changed, told from its images alone: what a later step made the same again shows nowhere
//! else. Never touches the database.

use backout_model::sieve::Sieve;
use backout_model::target::{Images, TargetError, Touched};

use super::Postgres;
use super::catalog::{Kind, Object};
use super::ddl::{Change, DdlEvent};
use super::ddl_keep::What;
use super::joined::{Join, Pair};
use super::meets::{Form, field, is_another};
use super::named::called;
use super::session::ident;
use super::stream::{Event, Reader, Sequence, Span, StreamError, Table};
use super::table::{plain, shown};

/// Why a walk ended early: the images are damaged, or whoever is told of them has had enough.
enum Halt {
    Damaged(StreamError),
    Told(TargetError),
}

impl From<StreamError> for Halt {
    fn from(source: StreamError) -> Self {
        Self::Damaged(source)
    }
}

impl From<TargetError> for Halt {
    fn from(error: TargetError) -> Self {
        Self::Told(error)
    }
}

type Each<'e> = &'e mut dyn FnMut(&Touched<'_>) -> Result<(), TargetError>;

impl Postgres {
    /// See [`backout_model::target::Target::touched`].
    pub(super) fn touched_by(&self, images: &mut dyn Images, each: Each<'_>) -> Result<(), TargetError> {
        let mut reader = Reader::open(images).map_err(|source| self.damaged(source))?;
        all(&mut reader, each).map_err(|halt| match halt {
            Halt::Damaged(source) => self.damaged(source),
            Halt::Told(error) => error,
        })
    }
}

/// Rows of a table that the step itself made come and go with the table.
fn all(reader: &mut Reader<'_>, each: Each<'_>) -> Result<(), Halt> {
    let events = reader.index.events.clone();
    for (at, event) in events.iter().enumerate() {
        match event {
            Event::Statements { .. } => {}
            Event::Ddl { event, .. } => schema(event, each)?,
            Event::Rows { table, before, after } => {
                let table = reader.index.tables[*table as usize].clone();
                if table.made {
                    continue;
                }
                let names = names(&table, &events[at + 1..]);
                rows(reader, &table, &names, [*before, *after], each)?;
            }
        }
    }
    for sequence in reader.index.sequences.clone() {
        position(&sequence, each)?;
    }
    Ok(())
}

/// How the table is shown: by the name under which its rows were changed, and by what the step called it in the end.
fn names(table: &Table, after: &[Event]) -> Vec<String> {
    let mut names = vec![shown(table)];
    let mut changes = after.iter().filter_map(|event| match event {
        Event::Ddl { event, .. } => Some(&event.changes),
        Event::Rows { .. } | Event::Statements { .. } => None,
    });
    let last = changes.try_fold(names[0].clone(), |name, changes| {
        let is_it = |object: &Object| object.kind == Kind::Table && plain(object.id()) == name;
        match changes.iter().find(|change| change.before.as_ref().is_some_and(is_it)) {
            None => Some(name),
            Some(change) => change.after.as_ref().map(|after| plain(after.id())),
        }
    });
    names.extend(last.filter(|last| *last != names[0]));
    names
}

fn rows(
    reader: &mut Reader<'_>,
    table: &Table,
    names: &[String],
    [before, after]: [Span; 2],
    each: Each<'_>,
) -> Result<(), Halt> {
    let (form, is_loose) = (Form::of(table), table.key.is_empty());
    let key = |line: &[u8], key: &mut Vec<u8>| {
        if is_loose {
            key.extend_from_slice(line);
        }
        for one in &table.key {
            key.extend_from_slice(field(line, one.column));
            key.push(b'\t');
        }
    };
    let contents =
        if is_loose { None } else { Some(contents_of(reader, table, before)?).filter(|_| after.records > 0) };
    let (mut identity, mut columns) = (Vec::new(), Vec::new());
    let (mut came, mut went, mut moved) = (false, false, false);
    let mut row = |pair: Pair<'_>| -> Result<(), Halt> {
        let Some(line) = pair.after.or(pair.before) else { return Ok(()) };
        let made = pair.before.is_none();
        came |= made;
        went |= pair.after.is_none();
        let aspects = match (pair.before, pair.after) {
            (Some(before), Some(after)) => {
                differing(table, before, after, &mut columns);
                if columns.is_empty() {
                    return Ok(());
                }
                moved |= contents.as_ref().is_some_and(|contents| contents.may_hold(content(table, after)));
                Some(columns.as_slice())
            }
            _ if !is_loose => None,
            _ if made => Some([Touched::CAME].as_slice()),
            _ => Some([Touched::WENT].as_slice()),
        };
        for object in names {
            identity.clear();
            identity.extend_from_slice(object.as_bytes());
            identity.push(0);
            key(line, &mut identity);
            let key = || Some(form.key(line));
            each(&Touched { object, identity: &identity, aspects, made, key: &key })?;
        }
        Ok(())
    };
    Join { key: &key, room: Join::ROOM }.pairs(reader, before, after, &mut row)?;
    if (came && went || moved) && !is_loose {
        // Some may have got the key of others: the images do not tell that from rows that came and went, or that others' values
        // came to.
        for object in names {
            let identity = [object.as_bytes(), b"\0keys"].concat();
            let aspects = Some([Touched::KEY].as_slice());
            each(&Touched { object, identity: &identity, aspects, made: false, key: &|| None })?;
        }
    }
    Ok(())
}

/// What a row holds beside its key.
fn content<'l>(table: &Table, line: &'l [u8]) -> impl Iterator<Item = &'l [u8]> {
    let is_key = |at: usize| table.key.iter().any(|key| key.column == at);
    let fields = line.split(|byte| *byte == b'\t').enumerate();
    fields.filter(move |(at, _)| !is_key(*at)).map(|(_, field)| field)
}

/// The bits of the sieve of contents, 4 MiB at most.
const CONTENTS_BITS: u64 = 1 << 25;

/// What the rows of a span hold beside their keys.
fn contents_of(reader: &mut Reader<'_>, table: &Table, span: Span) -> Result<Sieve, StreamError> {
    let mut contents = Sieve::new(span.records, CONTENTS_BITS);
    reader.rows::<StreamError>(span, &mut |line| {
        contents.put(content(table, line));
        Ok(())
    })?;
    Ok(contents)
}

/// The columns in which two images of a row differ.
fn differing<'t>(table: &'t Table, before: &[u8], after: &[u8], columns: &mut Vec<&'t str>) {
    let fields = |line| <[u8]>::split(line, |byte| *byte == b'\t');
    let both = fields(before).zip(fields(after));
    columns.clear();
    columns.extend(
        table.columns.iter().zip(both).filter(|(_, (one, other))| one != other).map(|(column, _)| column.name.as_str()),
    );
}

/// What a change of the schema made of each object: a later step is told to have made the same where it left it the same,
/// or gone, too. And what it does to all rows of a table: those are known by the names of table and columns.
fn schema(event: &DdlEvent, each: Each<'_>) -> Result<(), TargetError> {
    let mut of_all = |object: &str, aspects: &[&str]| {
        each(&Touched { object, identity: &[], aspects: Some(aspects), made: false, key: &|| None })
    };
    let mut gone = Vec::new();
    for change in &event.changes {
        let both = || [&change.before, &change.after].into_iter().flatten();
        let kind = both().next().map(|object| object.kind);
        // A column that comes with its table is none of the rows'.
        let is_renamed = matches!((&change.before, &change.after), (Some(_), Some(_))) && is_another(change);
        match kind {
            Some(Kind::Column) if is_renamed => {
                let names: Vec<&str> = both().map(|column| column.text("name")).collect();
                both().try_for_each(|column| of_all(&plain(column.of()), &names))?;
            }
            Some(Kind::Table) if is_renamed => {
                both().try_for_each(|table| of_all(&plain(table.id()), &[RENAMED]))?;
            }
            Some(Kind::Sequence) if is_renamed => gone.extend(&change.before),
            _ => {}
        }
    }
    for kept in event.kept.iter().filter(|kept| matches!(kept.what, What::Values { .. })) {
        of_all(&plain(&kept.table), &[Touched::KEY])?;
    }
    gone.iter().try_for_each(|one| placed(&one.shown(), one.id(), Touched::WENT, each))?;
    for change in &event.changes {
        if let Some(after) = change.after.as_ref().filter(|_| loses_its_name(change)) {
            named(&after.shown(), &called(after), Touched::CAME, each)?;
        }
    }
    event.names_used().try_for_each(|(shown, name)| named(&shown, &name, Touched::WENT, each))?;
    event.changes.iter().try_for_each(|change| object(change, each))
}

/// True where an undo takes away what has the name now, or the name, or what a text with that name would mean.
fn loses_its_name(change: &Change) -> bool {
    let (Some(before), Some(after)) = (&change.before, &change.after) else { return true };
    let differs = |part: &str| before.part(part) != after.part(part);
    called(before) != called(after)
        || after.kind == Kind::Column && differs("type")
        || after.kind == Kind::Enum && differs("labels")
}

/// A name came to mean what it does, or is used in an undo.
fn named(object: &str, name: &str, aspect: &str, each: Each<'_>) -> Result<(), TargetError> {
    let identity = format!("\0named\0{name}");
    each(&Touched { object, identity: identity.as_bytes(), aspects: Some(&[aspect]), made: false, key: &|| None })
}

/// No column is named so: what only came or went as a whole is about it.
const RENAMED: &str = "\0renamed";

fn object(change: &Change, each: Each<'_>) -> Result<(), TargetError> {
    if matches!((&change.before, &change.after), (Some(before), Some(after)) if before.is_same(after) && !is_another(change))
    {
        return Ok(());
    }
    let one = |of: &Object, left: Option<&Object>, each: Each<'_>| {
        let shown = of.shown();
        let mut identity = [b"\0object\0", shown.as_bytes()].concat();
        for (name, part) in left.into_iter().flat_map(Object::compared) {
            [name.as_bytes(), b"\0", part.as_bytes(), b"\0"].iter().for_each(|bytes| identity.extend_from_slice(bytes));
        }
        each(&Touched {
            object: &shown,
            identity: &identity,
            aspects: None,
            made: change.before.is_none(),
            key: &|| None,
        })
    };
    if let Some(before) = change.before.as_ref().filter(|_| is_another(change)) {
        one(before, None, each)?;
    }
    change.after.iter().try_for_each(|after| one(after, Some(after), each))
}

/// Where it left a sequence: one that a later step left at the same place is that one's.
fn position(sequence: &Sequence, each: Each<'_>) -> Result<(), TargetError> {
    let Sequence { schema, name, before, after, .. } = sequence;
    let (object, id) = (format!("sequence {schema}.{name}"), format!("{}.{}", ident(schema), ident(name)));
    if sequence.gone {
        return placed(&object, &id, Touched::WENT, each);
    }
    if sequence.made || before == after {
        return Ok(());
    }
    placed(&object, &id, Touched::CAME, each)?;
    let identity = format!("\0{object}\0{} {}", after.value, after.called);
    each(&Touched { object: &object, identity: identity.as_bytes(), aspects: None, made: false, key: &|| None })
}

/// A sequence came to a place, or went by its name, dropped or renamed: it comes back at that place. `id`: its name, quoted.
fn placed(object: &str, id: &str, aspect: &str, each: Each<'_>) -> Result<(), TargetError> {
    let identity = format!("\0sequence\0{}", plain(id));
    let aspects = [aspect];
    let aspects = Some(aspects.as_slice());
    each(&Touched { object, identity: identity.as_bytes(), aspects, made: false, key: &|| None })
}
