//! Foreign keys among the clauses of an ALTER TABLE. An empty table of the same shape has none, and a foreign key's name
//! is the whole database's: so its clauses are left out there or get another name, and the way back for them is told from
//! what the server says of the table.

use mysql::Error;

use super::capture::patiently;
use super::ddl::definition;
use super::ddl_shape::{self, Shape};
use super::head::Head;
use super::reader::reader;
use super::session::{Session, ident, needs_copy};
use super::table::{self, There};
use super::token::each_token;

/// A statement as the empty table is to hear it.
pub struct ForClone {
    /// The whole statement; none where nothing of it is left.
    pub text: Option<String>,
    /// Foreign keys come or go.
    pub links: bool,
    /// Names that foreign keys, and the indexes that come with them, have there, and those that they are to have.
    pub names: Vec<(String, String)>,
}

/// The clauses behind the head: where each begins and ends.
fn parts(sql: &str, from: usize) -> Vec<(usize, usize)> {
    let (mut depth, mut begin) = (0_u32, from);
    let mut all = Vec::new();
    for token in each_token(&sql[from..]) {
        if token.is_sign(b'(') {
            depth += 1;
        } else if token.is_sign(b')') {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && token.is_sign(b',') {
            all.push((begin, from + token.start));
            begin = from + token.start + 1;
        }
    }
    all.push((begin, sql.len()));
    all
}

/// `sql`: about the clone already, its head up to `rest`; `prefix`: what names there may begin with.
pub fn for_clone(sql: &str, rest: usize, before: &Shape, prefix: &str) -> ForClone {
    let (mut kept, mut names, mut links) = (Vec::new(), Vec::new(), false);
    for (begin, end) in parts(sql, rest) {
        let clause = &sql[begin..end];
        let mut words = reader(clause);
        if words.takes("DROP FOREIGN KEY") {
            links = true;
            continue;
        }
        if words.takes("DROP CONSTRAINT") {
            words.takes("IF EXISTS");
            if words.name().is_some_and(|name| before.links.iter().any(|(link, _)| *link == name.name)) {
                links = true;
                continue;
            }
        }
        if words.takes("ADD CONSTRAINT") {
            words.takes("IF NOT EXISTS");
            let mut ahead = words.clone();
            if let (Some(name), true) = (ahead.name(), ahead.takes("FOREIGN KEY")) {
                links = true;
                let other = format!("{prefix}{}", names.len());
                kept.push(format!("{}{}{}", &clause[..name.start], ident(&other), &clause[name.end..]));
                names.push((other, name.name));
                continue;
            }
        }
        // A column may bring one along.
        links |= each_token(clause).any(|token| token.is("REFERENCES"));
        kept.push(clause.to_owned());
    }
    let text = (!kept.is_empty()).then(|| format!("{}{}", &sql[..rest], kept.join(",")));
    ForClone { text, links, names }
}

/// Where the clauses of a statement begin whose first name was changed for another of another length.
pub fn rest_of(head: &Head, other: &str) -> usize {
    head.names.first().map_or(head.rest, |name| head.rest + ident(other).len() - (name.end - name.start))
}

/// Takes the foreign keys of the empty table away, and gives the indexes that came with them their names.
pub fn tidy_clone(b: &mut Session, clone: &str, now: &Shape, names: &[(String, String)]) -> Result<(), Error> {
    let mut clauses: Vec<String> =
        now.links.iter().map(|(link, _)| format!("DROP FOREIGN KEY {}", ident(link))).collect();
    if !clauses.is_empty() {
        b.run(&format!("ALTER TABLE {} {}", ident(clone), clauses.join(", ")))?;
    }
    clauses.clear();
    for (other, name) in names {
        if now.keys.iter().any(|(head, _)| *head == format!("KEY {}", ident(other))) {
            clauses.push(format!("RENAME INDEX {} TO {}", ident(other), ident(name)));
        }
    }
    if clauses.is_empty() {
        return Ok(());
    }
    b.run(&format!("ALTER TABLE {} {}", ident(clone), clauses.join(", ")))
}

/// A key of before that is gone although the statement does not name it, and its columns are there: the server had made it
/// by itself for a foreign key, and another one serves now.
pub fn gone_unsaid(sql: &str, from: &Shape, to: &Shape) -> Option<String> {
    let said = |name: &str| each_token(sql).any(|token| token.name().is_some_and(|one| one == name));
    let unsaid = |head: &str, line: &str| {
        let mut names = each_token(line).filter_map(|token| token.name().filter(|_| token.text.starts_with('`')));
        let Some(own) = names.next() else { return false };
        let there = names.all(|column| from.column(&column).is_some());
        head != "PRIMARY KEY" && there && !said(&own)
    };
    let gone =
        to.keys.iter().find(|(head, line)| from.keys.iter().all(|(other, _)| other != head) && unsaid(head, line));
    gone.map(|(head, _)| head.clone())
}

/// Alters a table, by a copy where its new foreign keys need one.
pub fn alter(b: &mut Session, table: &str, clauses: &[String]) -> Result<(), Error> {
    let sql = format!("ALTER TABLE {} {}", ident(table), clauses.join(", "));
    match b.run(&sql) {
        Err(error) if needs_copy(&error) => b.run(&format!("{sql}, {BY_COPY}")),
        done => done,
    }
}

/// Has an ALTER TABLE make a copy.
pub const BY_COPY: &str = "ALGORITHM=COPY";

/// An option that the server forgets with each ALTER TABLE that does not say it.
pub fn said_again(to: &Shape) -> Option<String> {
    let tokens: Vec<_> = each_token(&to.options).collect();
    let said = tokens.windows(3).find(|three| three[0].is("PAGE_CHECKSUM") && three[1].is_sign(b'='))?;
    ["0", "1"].into_iter().find(|value| said[2].text == *value).map(|value| format!("PAGE_CHECKSUM={value}"))
}

/// The clauses that lead from the foreign keys of one shape to those of another.
pub fn clauses(from: &Shape, to: &Shape) -> Vec<String> {
    let gone = from.links.iter().filter(|link| !to.links.contains(link));
    let come = to.links.iter().filter(|link| !from.links.contains(link));
    let mut all: Vec<String> = gone
        .map(|(name, _)| format!("DROP FOREIGN KEY {}", ident(name)))
        .chain(come.map(|(_, line)| format!("ADD {line}")))
        .collect();
    if !all.is_empty() {
        all.extend(said_again(to));
    }
    all
}

/// Leads the foreign keys of a table to those of a definition. An index that the server had made by itself for one gives way to
/// another when that comes again: so the keys are made what they were, too. Can be done again.
pub fn lead(b: &mut Session, table: &str, wanted: &str) -> Result<(), Error> {
    let to = Shape::of(wanted);
    run(b, table, &to, clauses)?;
    lead_keys(b, table, &to)
}

/// Makes the keys of a table what they are in a shape.
pub fn lead_keys(b: &mut Session, table: &str, to: &Shape) -> Result<(), Error> {
    run(b, table, to, keys)
}

fn keys(from: &Shape, to: &Shape) -> Vec<String> {
    let keys = |shape: &Shape| Shape { keys: shape.keys.clone(), ..Shape::default() };
    let mut clauses = ddl_shape::clauses(&keys(from), &keys(to), &[]);
    if clauses.is_empty() {
        return clauses;
    }
    clauses.extend(said_again(to));
    if same_keys(from, to) {
        // Another order alone the server takes for no change in place.
        clauses.push(BY_COPY.to_owned());
    }
    clauses
}

/// True where two shapes have the same keys, in whatever order.
fn same_keys(one: &Shape, other: &Shape) -> bool {
    let sorted = |shape: &Shape| {
        let mut keys = shape.keys.clone();
        keys.sort();
        keys
    };
    sorted(one) == sorted(other)
}

/// Puts the keys of a table in the order of a definition that has the same ones. The server puts a key that it made by itself
/// for a foreign key behind the others when that one comes again; a key that came back with an undo stays where it is.
pub fn order_keys(b: &mut Session, table: &str, wanted: &str) -> Result<(), Error> {
    run(b, table, &Shape::of(wanted), |now, to| if same_keys(now, to) { keys(now, to) } else { Vec::new() })
}

fn run(b: &mut Session, table: &str, to: &Shape, of: fn(&Shape, &Shape) -> Vec<String>) -> Result<(), Error> {
    let Some(now) = definition(b, table)? else { return Ok(()) };
    let clauses = of(&Shape::of(&now), to);
    if clauses.is_empty() {
        return Ok(());
    }
    patiently(|| alter(b, table, &clauses))
}

/// Of each foreign key that one shape has and the other has not, how many rows of the table would point at nothing.
pub fn orphans(a: &mut Session, table: &str, from: &Shape, to: &Shape) -> Result<Vec<(String, u64)>, Error> {
    let mut all = Vec::new();
    for (name, line) in to.links.iter().filter(|link| !from.links.contains(link)) {
        let Some((columns, parent, referenced)) = link(line) else { continue };
        if columns.iter().any(|column| from.column(column).is_none()) {
            // A column that comes back with it.
            continue;
        }
        if table::there(a, &parent)? == There::Nothing {
            continue;
        }
        let on: Vec<String> = columns
            .iter()
            .zip(&referenced)
            .map(|(own, other)| format!("c.{} = p.{}", ident(own), ident(other)))
            .collect();
        let set: Vec<String> = columns.iter().map(|column| format!("c.{} IS NOT NULL", ident(column))).collect();
        let count = a.number(&format!(
            "SELECT COUNT(*) FROM {} AS c WHERE {} AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {})",
            ident(table),
            set.join(" AND "),
            ident(&parent),
            on.join(" AND ")
        ))?;
        if count > 0 {
            all.push((name.clone(), count));
        }
    }
    Ok(all)
}

/// The columns, the table and its columns of a foreign key as the server writes it.
pub fn link(line: &str) -> Option<(Vec<String>, String, Vec<String>)> {
    let mut words = reader(line);
    words.find(|token| token.is("FOREIGN"))?;
    words.takes("KEY");
    let list = |words: &mut super::reader::Reader<'_>| {
        words.takes_sign(b'(').then_some(())?;
        let names = words.names()?.into_iter().map(|name| name.name).collect::<Vec<_>>();
        words.takes_sign(b')').then_some(names)
    };
    let columns = list(&mut words)?;
    words.takes("REFERENCES");
    let parent = words.name()?.name;
    Some((columns, parent, list(&mut words)?))
}

#[cfg(test)]
mod tests {
    use super::super::head::head;
    use super::*;

    #[test]
    fn an_empty_table_hears_nothing_of_other_tables_names() {
        let before = Shape::of(
            "CREATE TABLE `t` (\n  `a` int,\n  CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `p` (`id`)\n) ENGINE=InnoDB",
        );
        for (clauses, text, links, names) in [
            ("DROP FOREIGN KEY f", None, true, 0),
            ("DROP CONSTRAINT f, ADD b int DEFAULT (1, 2)", Some("ADD b int DEFAULT (1, 2)"), true, 0),
            ("DROP CONSTRAINT other", Some("DROP CONSTRAINT other"), false, 0),
            (
                "ADD CONSTRAINT f2 FOREIGN KEY (a) REFERENCES p (id)",
                Some("ADD CONSTRAINT `x0` FOREIGN KEY (a) REFERENCES p (id)"),
                true,
                1,
            ),
            (
                "ADD FOREIGN KEY (a) REFERENCES p (id), ADD c int",
                Some("ADD FOREIGN KEY (a) REFERENCES p (id), ADD c int"),
                true,
                0,
            ),
            ("ADD d int REFERENCES p (id)", Some("ADD d int REFERENCES p (id)"), true, 0),
            ("ADD CONSTRAINT c CHECK (a > 0)", Some("ADD CONSTRAINT c CHECK (a > 0)"), false, 0),
        ] {
            let sql = format!("ALTER TABLE t {clauses}");
            let found = for_clone(&sql, head(&sql).unwrap().rest, &before, "x");
            let found_text =
                found.text.as_ref().map(|text| text.strip_prefix("ALTER TABLE t ").unwrap().trim().to_owned());
            assert_eq!((found_text.as_deref(), found.links, found.names.len()), (text, links, names), "{clauses}");
        }
        let to =
            Shape::of("CREATE TABLE `t` (\n  `a` int,\n  `b` int,\n  KEY `k` (`a`),\n  KEY `l` (`b`)\n) ENGINE=InnoDB");
        let from = Shape::of("CREATE TABLE `t` (\n  `a` int,\n  KEY `m` (`a`,`b`)\n) ENGINE=InnoDB");
        assert_eq!(gone_unsaid("CREATE INDEX m ON t (a, b)", &from, &to).as_deref(), Some("KEY `k`"));
        assert_eq!(gone_unsaid("ALTER TABLE t DROP KEY k, DROP COLUMN b", &from, &to), None);
        assert_eq!(
            link("CONSTRAINT `f` FOREIGN KEY (`a`, `b`) REFERENCES `p` (`c`, `d``e`) ON DELETE CASCADE"),
            Some((vec!["a".to_owned(), "b".to_owned()], "p".to_owned(), vec!["c".to_owned(), "d`e".to_owned()]))
        );
    }
}
