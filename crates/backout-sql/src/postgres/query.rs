//! Statements that read and write rows: which of them write, and which make a table after all.

use super::classify::{self, Class, LEAVE_OUT, No};
use super::functions;
use super::head::{Head, Object, Verb};
use super::reader::Reader;
use super::token::Token;

/// SELECT, VALUES, TABLE, INSERT, UPDATE, DELETE, MERGE, each perhaps behind WITH.
pub fn query<'a>(first: Token<'a>, mut rest: Reader<'a>) -> Result<Class, No> {
    let mut writes = false;
    let verb = if first.is("WITH") { main_verb(&mut rest, &mut writes) } else { Some(first) };
    let Some(verb) = verb else { return Ok(Class::Rows) };
    if ["INSERT", "UPDATE", "DELETE", "MERGE"].iter().any(|word| verb.is(word)) {
        guard_own(rest)?;
        return Ok(Class::Rows);
    }
    // SELECT … INTO makes a table. INTO is reserved, so elsewhere it stands only behind INSERT and MERGE, in parentheses.
    let mut depth = 0_u32;
    while let Some(token) = rest.next() {
        if token.is_sign(b'(') {
            depth += 1;
        } else if token.is_sign(b')') {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && token.is("INTO") {
            let mut temporary = false;
            while let Some(word) =
                ["LOCAL", "GLOBAL", "TEMP", "TEMPORARY", "UNLOGGED", "TABLE"].iter().find(|word| rest.takes(word))
            {
                temporary |= word.starts_with("TEMP");
            }
            if temporary {
                return Ok(Class::Session);
            }
            let names = rest.name().into_iter().collect();
            let words = "table".to_owned();
            let (verb, object) = (Verb::Create, Object::Table);
            let head = Head { verb, object, words, names, on: None, temporary, concurrently: false };
            return classify::own(head).map(Class::Ddl);
        }
    }
    Ok(if writes { Class::Rows } else { Class::Read })
}

/// The verb of the statement that a WITH belongs to; `writes` where one of its parts changes rows.
///
/// Read by the grammar of WITH, because `update` and the like are good names for its parts.
fn main_verb<'a>(rest: &mut Reader<'a>, writes: &mut bool) -> Option<Token<'a>> {
    rest.takes("RECURSIVE");
    loop {
        rest.next()?;
        if rest.peek()?.is_sign(b'(') {
            rest.skip_parentheses();
        }
        if !rest.takes("AS") {
            return None;
        }
        if !rest.takes("MATERIALIZED") {
            rest.takes("NOT MATERIALIZED");
        }
        let mut part = rest.clone();
        part.next();
        *writes |= ["INSERT", "UPDATE", "DELETE", "MERGE"].iter().any(|word| part.takes(word));
        rest.skip_parentheses();
        if rest.takes("SEARCH") {
            rest.find(|token| token.is("SET"))?;
            rest.next()?;
        }
        if rest.takes("CYCLE") {
            rest.find(|token| token.is("USING"))?;
            rest.next()?;
        }
        if !rest.takes_sign(b',') {
            return rest.next();
        }
    }
}

/// EXPLAIN runs what it explains where it says ANALYZE.
pub fn explain<'a>(sql: &str, mut rest: Reader<'a>) -> Result<Class, No> {
    let mut runs = false;
    if rest.peek().is_some_and(|token| token.is_sign(b'(')) {
        let mut options = rest.clone();
        rest.skip_parentheses();
        let after = rest.peek().map_or(sql.len(), |token| token.start);
        while let Some(option) = options.next().filter(|token| token.start < after) {
            if option.is("ANALYZE") || option.is("ANALYSE") {
                runs = !["OFF", "FALSE"].iter().any(|word| options.takes(word))
                    && options.peek().is_none_or(|token| token.text != "0");
            }
        }
    } else {
        runs = rest.takes("ANALYZE") || rest.takes("ANALYSE");
        rest.takes("VERBOSE");
    }
    let Some(first) = rest.peek() else { return Ok(Class::Read) };
    if !runs {
        return Ok(Class::Read);
    }
    classify::of(&sql[first.start..], false)
}

pub fn copy<'a>(sql: &str, mut rest: Reader<'a>, has_data: bool) -> Result<Class, No> {
    functions::admit(sql)?;
    let is_query = rest.peek().is_some_and(|token| token.is_sign(b'('));
    if is_query {
        let mut query = rest.clone();
        query.next();
        let mut inner = query.clone();
        rest.skip_parentheses();
        if ["INSERT", "UPDATE", "DELETE", "MERGE"].iter().any(|word| inner.takes(word)) {
            guard_own(inner)?;
        }
    } else {
        guard_own(rest.clone())?;
    }
    let mut depth = 0_u32;
    while let Some(token) = rest.next() {
        if token.is_sign(b'(') {
            depth += 1;
        } else if token.is_sign(b')') {
            depth = depth.saturating_sub(1);
        }
        if depth > 0 || !(token.is("FROM") || token.is("TO")) {
            continue;
        }
        if rest.takes("PROGRAM") {
            return Err(No::undo("what a program on the server does is not captured"));
        }
        return match (token.is("FROM"), rest.takes("STDIN") || rest.takes("STDOUT")) {
            (true, true) if has_data => Ok(Class::CopyIn),
            (true, true) => Err(No::step("its data are missing", LEAVE_OUT)),
            (true, false) => Ok(Class::Rows),
            (false, true) => Ok(Class::CopyOut),
            (false, false) => Err(No::undo("it writes a file on the server")),
        };
    }
    Ok(Class::Rows)
}

/// Refuses a statement that writes to a table of the tool: the next name.
fn guard_own<'a>(mut rest: Reader<'a>) -> Result<(), No> {
    for word in ["INTO", "FROM", "ONLY"] {
        rest.takes(word);
    }
    match rest.name() {
        Some(name) if name.schema.as_deref().is_some_and(classify::is_ours) || name.name.starts_with("backout_") => {
            Err(No::step(format!("{} is the tool's own", name.name), LEAVE_OUT))
        }
        _ => Ok(()),
    }
}
