//! Rows that changed while a site was recorded, as statements for another site that a person reads first: the same for every
//! engine, which gives names and values as its own statements write them.
//!
//! Each statement names its columns, and each row its key. Beside the statements come conditions that must hold before
//! anything begins: that rows which change or go are there as they were here, and that the keys of new ones are free. So
//! nothing is merged without a word. Never reads a database.

use std::collections::BTreeMap;
use std::io::{self, Write};

use backout_model::review::{Concern, Review};

/// How many rows one statement inserts at most, and how much text.
const BATCH_ROWS: usize = 100;
const BATCH_BYTES: usize = 64 * 1024;
/// How many rows one condition is about at most, and how much text.
const CONDITION_ROWS: u64 = 40;
const CONDITION_BYTES: usize = 16 * 1024;
/// How many rows of one table have conditions at most.
pub const ROWS_CHECKED: u64 = 2000;
/// A value that is longer is no part of a condition.
pub const LONGEST_CHECKED: usize = 2048;
/// What names of tables hold that keep what belongs to one site and one hour.
const PASSING: [&str; 9] =
    ["session", "cache", "transient", "watchdog", "queue", "semaphore", "flood", "heartbeat", "lockout"];
/// What names of columns hold that keep secrets.
const SECRET: [&str; 8] = ["password", "passwd", "user_pass", "secret", "api_key", "apikey", "token", "private_key"];
/// How digests of passwords begin.
const DIGESTS: [&str; 14] = [
    "$2a$", "$2b$", "$2y$", "$P$", "$H$", "$S$", "$5$", "$6$", "$wp$", "$argon2", "pbkdf2_", "scrypt", "bcrypt",
    "{SSHA",
];

/// A condition on a database: the one value of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub name: String,
    pub sql: String,
    pub equals: String,
}

/// What became of a recording of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drafted {
    /// Nothing to write where there is none.
    pub statements: u64,
    /// What is dropped, altered or made, by kind and name, with what it must be before anything begins, as
    /// [`crate::database::Database::definition`] has it; none where its name must be free.
    pub definitions: BTreeMap<String, Option<String>>,
    /// What must hold before anything begins.
    pub conditions: Vec<Condition>,
    /// What must hold once all is done.
    pub after: Vec<Condition>,
}

/// What a draft is made with.
pub struct Drafting<'d> {
    /// The script.
    pub out: &'d mut dyn Write,
    pub review: &'d mut Review,
    /// Tables that the reviewer leaves out, as people are shown them.
    pub leave_out: &'d dyn Fn(&str) -> bool,
    /// Rows of the others, by the table and the values as literals.
    pub leave_out_row: &'d dyn Fn(&str, &[String]) -> bool,
    /// Statements for rows that are left out: whoever proves the script needs them, too.
    pub aside: &'d mut dyn Write,
    /// What says where the site is, beside addresses: the paths of its roots.
    pub places: &'d [String],
}

/// A table as statements name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// For people.
    pub shown: String,
    pub name: String,
    pub columns: Vec<String>,
    /// The columns by which a row is found again; without any it is found by all that it holds.
    pub key: Vec<usize>,
    /// The key is a number that the database counts.
    pub is_counted: bool,
    /// What stands between the columns of an INSERT and its rows.
    pub inserting: &'static str,
    /// The script makes it, so that nothing can be asked of it before.
    pub is_new: bool,
    /// The columns that the script makes.
    pub new_columns: Vec<usize>,
    /// What it is called before the script renames it; empty where it keeps its name.
    pub old_name: String,
    /// The columns that an UPDATE changes by itself where it does not name them.
    pub moving: Vec<usize>,
}

impl Table {
    /// What stands between the columns of an INSERT and its rows, with a space before it.
    fn between(&self) -> String {
        if self.inserting.is_empty() { String::new() } else { format!(" {}", self.inserting) }
    }

    /// A condition before the script can ask for its rows by their key.
    fn can_be_asked(&self) -> bool {
        !self.is_new && !self.key.is_empty() && !self.key.iter().any(|at| self.new_columns.contains(at))
    }

    /// A condition can be about this value of a column; never about a secret, which would lie in the package.
    fn is_checked(&self, at: usize, value: &str) -> bool {
        let is_asked = !self.key.contains(&at) && !self.new_columns.contains(&at);
        is_asked && value.len() <= LONGEST_CHECKED && !self.is_secret(at, value)
    }

    fn column_shown(&self, at: usize) -> String {
        format!("{}.{}", self.shown, self.columns[at].trim_matches(['"', '`']))
    }

    fn is_secret(&self, at: usize, value: &str) -> bool {
        let name = self.columns[at].to_lowercase();
        value != "NULL"
            && (DIGESTS.iter().any(|start| value.strip_prefix('\'').is_some_and(|text| text.starts_with(start)))
                || SECRET.iter().any(|word| name.contains(word)))
    }
}

/// What differs from engine to engine.
pub trait Dialect {
    /// The rows of the table called `name` and of no other, as UPDATE, DELETE and SELECT name them.
    fn own_rows(&self, name: &str) -> String {
        name.to_owned()
    }
    /// The column holds this value, whatever it is.
    fn same(&self, table: &Table, column: usize, value: &str) -> String;
    /// Deletes one of the rows for which this holds.
    fn delete_one(&self, table: &Table, holds: &str) -> String;
}

/// Writes the changes of rows.
pub struct Rows<'r, 'd, D> {
    drafting: &'r mut Drafting<'d>,
    drafted: &'r mut Drafted,
    dialect: D,
    /// An INSERT that is not ended yet: its table, its rows and bytes.
    inserting: Option<(String, usize, usize)>,
    gathered: Gathered,
    preamble: Option<&'static str>,
}

/// What the conditions of one table are made of so far.
#[derive(Default)]
struct Gathered {
    table: String,
    name: String,
    /// As it is called before the script.
    asked: String,
    there: Vec<String>,
    free: Vec<String>,
    bytes: usize,
    rows: u64,
    number: u64,
}

impl<'r, 'd, D: Dialect> Rows<'r, 'd, D> {
    pub fn new(drafting: &'r mut Drafting<'d>, drafted: &'r mut Drafted, dialect: D) -> Self {
        Self { drafting, drafted, dialect, inserting: None, gathered: Gathered::default(), preamble: None }
    }

    /// A row that came.
    pub fn insert(&mut self, table: &Table, values: &[String]) -> io::Result<()> {
        if (self.drafting.leave_out_row)(&table.shown, values) {
            let (columns, values) = (table.columns.join(", "), values.join(", "));
            let between = table.between();
            return self
                .set_aside(table, &format!("INSERT INTO {} ({columns}){between} VALUES ({values})", table.name));
        }
        self.look(table, values, |_| true);
        if table.is_counted {
            let number = || table.key.iter().map(|at| values[*at].as_str()).collect::<Vec<_>>().join(", ");
            self.drafting.review.note(Concern::Counted, &format!("table {}", table.shown), number);
        }
        if table.can_be_asked() {
            let holds = self.keyed(table, values);
            self.gather(table, holds, false)?;
        }
        let row = format!("({})", values.join(", "));
        let bytes = row.len();
        match &mut self.inserting {
            Some((name, rows, size)) if *name == table.name && *rows < BATCH_ROWS && *size + bytes < BATCH_BYTES => {
                *rows += 1;
                *size += bytes;
                write!(self.drafting.out, ",\n  {row}")
            }
            _ => {
                self.end_insert()?;
                self.inserting = Some((table.name.clone(), 1, bytes));
                self.drafted.statements += 1;
                let columns = table.columns.join(", ");
                let between = table.between();
                write!(self.drafting.out, "INSERT INTO {} ({columns}){between} VALUES\n  {row}", table.name)
            }
        }
    }

    /// A row that was changed.
    pub fn update(&mut self, table: &Table, before: &[String], after: &[String]) -> io::Result<()> {
        let changed: Vec<usize> = (0..table.columns.len()).filter(|at| before[*at] != after[*at]).collect();
        if table.key.is_empty() {
            self.delete(table, before)?;
            return self.insert(table, after);
        }
        let mut sets: Vec<String> =
            changed.iter().map(|at| format!("{} = {}", table.columns[*at], after[*at])).collect();
        let kept = table.moving.iter().filter(|at| !changed.contains(at)).map(|at| &table.columns[*at]);
        sets.extend(kept.map(|column| format!("{column} = {column}")));
        let own = self.dialect.own_rows(&table.name);
        let update = format!("UPDATE {own} SET {} WHERE {}", sets.join(", "), self.keyed(table, before));
        if (self.drafting.leave_out_row)(&table.shown, before) || (self.drafting.leave_out_row)(&table.shown, after) {
            return self.set_aside(table, &update);
        }
        self.look(table, after, |at| changed.contains(&at));
        let mut held = vec![self.keyed(table, before)];
        self.tell_unasked(table, before, changed.iter().copied());
        let checked = changed.iter().filter(|at| table.is_checked(**at, &before[**at]));
        held.extend(checked.map(|at| self.dialect.same(table, *at, &before[*at])));
        if table.can_be_asked() {
            self.gather(table, held.join(" AND "), true)?;
        }
        self.statement(&update)
    }

    /// A row that went.
    pub fn delete(&mut self, table: &Table, before: &[String]) -> io::Result<()> {
        let all = 0..table.columns.len();
        let left_out = (self.drafting.leave_out_row)(&table.shown, before);
        if left_out && !table.key.is_empty() {
            return self.set_aside(table, &self.delete_keyed(table, before));
        }
        if table.key.is_empty() {
            let held: Vec<String> = all.map(|at| self.dialect.same(table, at, &before[at])).collect();
            let note = "a row without a key, by all that it holds";
            self.drafting.review.note(Concern::Unchecked, &format!("table {}", table.shown), || note.to_owned());
            let sql = self.dialect.delete_one(table, &held.join(" AND "));
            return if left_out { self.set_aside(table, &sql) } else { self.statement(&sql) };
        }
        self.asked_whole(table, before)?;
        self.statement(&self.delete_keyed(table, before))
    }

    /// A row of a table that goes as a whole.
    pub fn doomed(&mut self, table: &Table, before: &[String]) -> io::Result<()> {
        if (self.drafting.leave_out_row)(&table.shown, before) { Ok(()) } else { self.asked_whole(table, before) }
    }

    /// A table that goes with all its rows, so many of them: it takes no more along elsewhere. `from`: as a query names it.
    pub fn table_goes(&mut self, shown: &str, from: &str, rows: u64) {
        self.drafting.review.note(Concern::Goes, &format!("table {shown}"), || format!("{rows} rows here"));
        self.drafted.conditions.push(Condition {
            name: format!("{shown} has as many rows as it had"),
            sql: format!("SELECT count(*) FROM {from}"),
            equals: rows.to_string(),
        });
    }

    /// The row must be there as it was.
    fn asked_whole(&mut self, table: &Table, before: &[String]) -> io::Result<()> {
        let all = 0..table.columns.len();
        let mut held = vec![self.keyed(table, before)];
        self.tell_unasked(table, before, all.clone());
        let checked = all.filter(|at| table.is_checked(*at, &before[*at]));
        held.extend(checked.map(|at| self.dialect.same(table, at, &before[at])));
        if table.can_be_asked() { self.gather(table, held.join(" AND "), true) } else { Ok(()) }
    }

    /// Ends what is open: rows of one kind, or of one table, are over.
    pub fn pause(&mut self) -> io::Result<()> {
        if self.inserting.is_some() { self.end_insert() } else { Ok(()) }
    }

    /// Ends all.
    pub fn end(mut self) -> io::Result<()> {
        self.pause()?;
        self.condition();
        Ok(())
    }

    /// Any other statement.
    pub fn statement(&mut self, sql: &str) -> io::Result<()> {
        self.end_insert()?;
        self.drafted.statements += 1;
        writeln!(self.drafting.out, "{};", sql.trim_end().trim_end_matches(';'))
    }

    /// Statements that stand as they are: with delimiters of their own.
    pub fn block(&mut self, text: &str) -> io::Result<()> {
        self.end_insert()?;
        self.drafted.statements += 1;
        self.drafting.out.write_all(text.as_bytes())
    }

    /// A statement that stands before the first of the others, where there is one.
    pub fn preamble(&mut self, sql: &'static str) {
        self.preamble = Some(sql);
    }

    pub fn note(&mut self, concern: Concern, place: &str, example: &str) {
        self.drafting.review.note(concern, place, || example.to_owned());
    }

    /// What must hold once all is done.
    pub fn after(&mut self, condition: Condition) {
        self.drafted.after.push(condition);
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.preamble.take() {
            Some(sql) => writeln!(self.drafting.out, "{sql};"),
            None => Ok(()),
        }
    }

    fn set_aside(&mut self, table: &Table, sql: &str) -> io::Result<()> {
        self.drafting.review.note(Concern::LeftOut, &format!("rows of {}", table.shown), String::new);
        writeln!(self.drafting.aside, "{sql};")
    }

    fn end_insert(&mut self) -> io::Result<()> {
        self.begin()?;
        if self.inserting.take().is_some() { writeln!(self.drafting.out, ";") } else { Ok(()) }
    }

    fn delete_keyed(&self, table: &Table, before: &[String]) -> String {
        format!("DELETE FROM {} WHERE {}", self.dialect.own_rows(&table.name), self.keyed(table, before))
    }

    fn keyed(&self, table: &Table, values: &[String]) -> String {
        let parts: Vec<String> =
            table.key.iter().map(|at| format!("{} = {}", table.columns[*at], values[*at])).collect();
        parts.join(" AND ")
    }

    /// Notes what must hold of a row before: that it is there as it was, or that its key is free.
    fn gather(&mut self, table: &Table, holds: String, there: bool) -> io::Result<()> {
        if self.gathered.name != table.name {
            self.condition();
            let name = if table.old_name.is_empty() { &table.name } else { &table.old_name };
            let asked = self.dialect.own_rows(name);
            let (shown, name) = (table.shown.clone(), table.name.clone());
            self.gathered = Gathered { table: shown, name, asked, ..Gathered::default() };
        }
        let gathered = &mut self.gathered;
        gathered.rows += 1;
        if gathered.rows > ROWS_CHECKED {
            let what = || format!("rows beyond the first {ROWS_CHECKED}");
            self.drafting.review.note(Concern::Unchecked, &format!("table {}", table.shown), what);
            return Ok(());
        }
        gathered.bytes += holds.len();
        let list = if there { &mut gathered.there } else { &mut gathered.free };
        list.push(format!("({holds})"));
        if (gathered.there.len() + gathered.free.len()) as u64 >= CONDITION_ROWS || gathered.bytes >= CONDITION_BYTES {
            self.condition();
        }
        Ok(())
    }

    fn condition(&mut self) {
        let gathered = &mut self.gathered;
        let (there, free) = (std::mem::take(&mut gathered.there), std::mem::take(&mut gathered.free));
        gathered.bytes = 0;
        for (rows, words, equals) in [(there, "are as they were", None), (free, "are not taken", Some(0))] {
            if rows.is_empty() {
                continue;
            }
            gathered.number += 1;
            let what = if equals.is_none() { "rows" } else { "keys" };
            self.drafted.conditions.push(Condition {
                name: format!("{what} of {} {words} ({})", gathered.table, gathered.number),
                sql: format!("SELECT count(*) FROM {} WHERE {}", gathered.asked, rows.join(" OR ")),
                equals: equals.unwrap_or(rows.len()).to_string(),
            });
        }
    }

    /// Notes the secrets that change or go, and what stood in columns under another name: no condition is about what they were.
    fn tell_unasked(&mut self, table: &Table, before: &[String], columns: impl Iterator<Item = usize> + Clone) {
        for at in columns.clone().filter(|at| table.new_columns.contains(at)) {
            self.drafting.review.note(Concern::Unchecked, &format!("column {}", table.column_shown(at)), || {
                "it had another name, or is new: what stood in it elsewhere goes".to_owned()
            });
        }
        for at in columns.filter(|at| table.is_secret(*at, &before[*at])) {
            self.drafting.review.note(
                Concern::Unchecked,
                &format!("secrets in {}", table.column_shown(at)),
                String::new,
            );
        }
        if !table.is_new && !table.key.is_empty() && !table.can_be_asked() {
            let why = || "its key had another name, or is new".to_owned();
            self.drafting.review.note(Concern::Unchecked, &format!("table {}", table.shown), why);
        }
    }

    /// Looks for what may not mean elsewhere what it means here, in the values for which `is_new` holds.
    fn look(&mut self, table: &Table, values: &[String], is_new: impl Fn(usize) -> bool) {
        let review = &mut *self.drafting.review;
        let lower = table.shown.to_lowercase();
        if PASSING.iter().any(|word| lower.contains(word)) || lower.ends_with("log") || lower.ends_with("logs") {
            review.note(Concern::Passing, &format!("table {}", table.shown), String::new);
        } else if values.iter().any(|value| value.contains("_transient_")) {
            review.note(Concern::Passing, &format!("table {}, transients", table.shown), String::new);
        }
        for (at, value) in values.iter().enumerate().filter(|(at, _)| is_new(*at)) {
            let Some(text) = value.strip_prefix('\'') else { continue };
            let column = || table.column_shown(at);
            if text.len() > 1 && table.is_secret(at, value) {
                review.note(Concern::Secret, &column(), String::new);
                continue;
            }
            let serialized = ["a:", "O:", "s:"].iter().any(|start| {
                let rest = text.strip_prefix(start);
                rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            });
            if serialized {
                review.note(Concern::Serialized, &column(), String::new);
            }
            for address in addresses(text) {
                review.note(Concern::Address, &address, column);
            }
            for place in self.drafting.places.iter().filter(|place| text.contains(place.as_str())) {
                review.note(Concern::Address, place, column);
            }
        }
    }
}

/// The absolute addresses in a text, as far as the host and its port: a user's name and password in one are left out.
fn addresses(text: &str) -> impl Iterator<Item = String> {
    let ends = |c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '[' | ']' | '_'));
    text.match_indices("://").filter_map(move |(at, _)| {
        let scheme = ["https", "http"].into_iter().find(|scheme| text[..at].ends_with(scheme))?;
        let rest = &text[at + 3..];
        let whole = &rest[..rest.find(|c: char| c.is_whitespace() || "/?#'\"\\<>".contains(c)).unwrap_or(rest.len())];
        let place = whole.rsplit_once('@').map_or(whole, |(_, place)| place);
        let address = place.strip_prefix('[').and_then(|inner| inner.find(']')).map_or(0, |end| end + 2);
        let end = address + place[address..].find(ends).unwrap_or(place.len() - address);
        let port = place[end..].strip_prefix(':').unwrap_or_default();
        let digits = port.find(|c: char| !c.is_ascii_digit()).unwrap_or(port.len());
        let host = place[..end].trim_end_matches('.');
        let port = if digits > 0 { format!(":{}", &port[..digits]) } else { String::new() };
        (!host.is_empty()).then(|| format!("{scheme}://{host}{port}"))
    })
}

#[cfg(test)]
mod tests;
