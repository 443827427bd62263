//! Sequences: what one is and where it stands. The number that it keeps is the first one that no session has in its cache, so
//! one that changed was drawn from.
//!
//! A number that was drawn is never given back: between two draws of a script somebody else may have drawn one, too.

use std::collections::BTreeSet;

use mysql::Error;

use super::marker::Names;
use super::segment::Detail;
use super::session::{Session, ident};
use super::table::{self, There};
use super::token::each_token;

/// How the server's text of a sequence as a table ends.
const MARK: &str = " SEQUENCE=1";

/// True for a definition that is a sequence's.
pub fn is_one(definition: &str) -> bool {
    definition.lines().any(|line| line.starts_with(')') && line.contains(MARK))
}

/// True where a bare statement or a body may draw a number.
pub fn draws(sql: &str) -> bool {
    each_token(sql).any(|token| token.is("NEXTVAL")) || {
        let mut tokens = super::reader::reader(sql);
        std::iter::from_fn(|| tokens.find(|token| token.is("NEXT")).map(|_| tokens.takes("VALUE FOR")))
            .any(|found| found)
    }
}

/// All that a sequence says of itself, as one line; the number first.
pub fn state(b: &mut Session, name: &str) -> Result<String, Error> {
    let row = b.rows(&format!("SELECT * FROM {}", ident(name)))?.pop().unwrap_or_default();
    Ok(row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" "))
}

/// Where steps left a sequence that drew from it, as the segments say which are there.
fn left(b: &mut Session, names: &Names, name: &str) -> Result<Vec<String>, Error> {
    let sql = format!(
        "SELECT detail FROM `{}` WHERE INSTR(detail, '\"drawn\":') > 0 OR INSTR(detail, '\"pairs\":') > 0",
        names.segments()
    );
    let mut draws: Vec<(String, String)> = Vec::new();
    let mut pairs: Vec<(String, String)> = Vec::new();
    for mut row in b.rows(&sql)? {
        match serde_json::from_str(&row[0].take().unwrap_or_default()) {
            Ok(Detail::Rows { drawn, .. }) => draws.extend(drawn),
            Ok(Detail::Ddl { change, .. }) => pairs.extend(change.pairs().iter().cloned()),
            _ => {}
        }
    }
    // All names that it has had.
    let mut own = BTreeSet::from([name]);
    while let Some((from, to)) = pairs.iter().find(|(from, to)| own.contains(&**from) != own.contains(&**to)) {
        own.extend([from.as_str(), to.as_str()]);
    }
    Ok(draws.iter().filter(|(one, _)| own.contains(&**one)).map(|(_, state)| state.clone()).collect())
}

/// The definition that a step left; of a sequence, with the numbers that steps drew from it since.
pub fn as_left(b: &mut Session, names: &Names, name: &str, definition: &str) -> Result<String, Error> {
    let Some((shape, _)) = definition.rsplit_once("\n-- ").filter(|_| is_one(definition)) else {
        return Ok(definition.to_owned());
    };
    let left = left(b, names, name)?;
    if left.is_empty() || table::there(b, name)? != There::Sequence {
        return Ok(definition.to_owned());
    }
    let now = state(b, name)?;
    Ok(if left.contains(&now) { format!("{shape}\n-- {now}") } else { definition.to_owned() })
}

/// The same for its text.
pub fn text_as_left(b: &mut Session, names: &Names, name: &str, text: &str) -> Result<String, Error> {
    let Some((options, _)) = text.rsplit_once(' ') else { return Ok(text.to_owned()) };
    let left = left(b, names, name)?;
    if left.is_empty() || table::there(b, name)? != There::Sequence {
        return Ok(text.to_owned());
    }
    let now = state(b, name)?;
    let number = now.split(' ').next().unwrap_or_default();
    Ok(if left.contains(&now) { format!("{options} {number}") } else { text.to_owned() })
}

/// The condition, for a script, that one with this definition was drawn from since.
pub fn was_drawn_from(name: &str, definition: &str) -> String {
    let state: Vec<&str> = definition.lines().last().unwrap_or_default().trim_start_matches("-- ").split(' ').collect();
    let at = |at: usize| state.get(at).copied().unwrap_or("NULL");
    format!(
        "NOT EXISTS (SELECT 1 FROM {} WHERE next_not_cached_value = {} AND cycle_count = {})",
        ident(name),
        at(0),
        at(7)
    )
}

/// Where all sequences stand, but for the tool's own.
pub fn all(b: &mut Session) -> Result<Vec<(String, String)>, Error> {
    let names = b.rows(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'SEQUENCE'
         AND TABLE_NAME NOT LIKE 'backout\\_%' ORDER BY 1",
    )?;
    let names = names.into_iter().filter_map(|mut row| row[0].take());
    names.map(|name| Ok((name.clone(), state(b, &name)?))).collect()
}

/// Has one stand at least where it stood.
pub fn reach(b: &mut Session, name: &str, state: &str) -> Result<(), Error> {
    let state: Vec<&str> = state.split(' ').collect();
    if let ([number, .., cycles], There::Sequence) = (state.as_slice(), table::there(b, name)?) {
        // Which only ever goes on.
        b.run(&format!("DO SETVAL({}, {number}, 0, {cycles})", ident(name)))?;
    }
    Ok(())
}

/// What ALTER makes of one, which would make it what it is; the number last.
pub fn text(b: &mut Session, name: &str) -> Result<Option<String>, Error> {
    let shown = match b.rows(&format!("SHOW CREATE SEQUENCE {}", ident(name))) {
        Err(Error::MySqlError(error)) if error.code == 1146 => return Ok(None),
        rows => rows?.pop().and_then(|mut row| row[1].take()).unwrap_or_default(),
    };
    let options = shown.strip_prefix("CREATE ").unwrap_or(&shown);
    let options = options.split(" ENGINE=").next().unwrap_or_default();
    Ok(Some(format!("{options} RESTART {}", state(b, name)?.split(' ').next().unwrap_or_default())))
}

/// Why one could not be made what it is by ALTER; none where it could.
pub fn why_not(b: &mut Session, name: &str) -> Result<Option<String>, Error> {
    let sql = format!(
        "SELECT CASE WHEN cycle_count <> 0 THEN 'how often it began anew cannot be set back'
             WHEN next_not_cached_value NOT BETWEEN minimum_value AND maximum_value THEN 'it has no number left' END FROM {}",
        ident(name)
    );
    Ok(b.value(&sql)?.map(|why| format!("of the sequence {name}: {why}")))
}

/// The columns whose default draws from a sequence: their tables, and how they are named to people.
pub fn defaults(b: &mut Session, name: &str) -> Result<Vec<(String, String)>, Error> {
    let rows = b.rows(
        "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_DEFAULT FROM information_schema.COLUMNS
         WHERE TABLE_SCHEMA = DATABASE() AND COLUMN_DEFAULT LIKE '%nextval(%' AND TABLE_NAME NOT LIKE 'backout\\_%'",
    )?;
    let drawing = rows.into_iter().filter_map(|row| {
        let [table, column, text] = <[_; 3]>::try_from(row).ok()?;
        let (table, column, text) = (table?, column?, text?);
        let says = each_token(&text).any(|token| token.name().is_some_and(|one| one.eq_ignore_ascii_case(name)));
        says.then(|| (table.clone(), format!("the default of {column} in {table}")))
    });
    Ok(drawing.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_draws_is_known() {
        for (sql, expected) in [
            ("SELECT NEXTVAL(s)", true),
            ("INSERT INTO t VALUES (NEXT VALUE FOR s)", true),
            ("SELECT next FROM t", false),
            ("SELECT next, NEXT VALUE FOR s", true),
            ("SELECT 'NEXTVAL(s)', PREVIOUS VALUE FOR s", false),
        ] {
            assert_eq!(draws(sql), expected, "{sql}");
        }
        let definition = "CREATE TABLE `s` (\n  `x` int\n) ENGINE=InnoDB SEQUENCE=1\n-- 7 1 9 1 1 0 1 2";
        assert!(is_one(definition) && !is_one("CREATE TABLE `s` (\n  `x` int COMMENT ' SEQUENCE=1'\n) ENGINE=InnoDB"));
        assert!(was_drawn_from("s", definition).ends_with("next_not_cached_value = 7 AND cycle_count = 2)"));
    }
}
