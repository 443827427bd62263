//! Sequences that a statement's text names, as arguments of setval() and nextval(): what these do no transaction takes back.
//! Such a sequence gets a file of its own in the transaction first, so that it stands where it did if that never commits;
//! and until then nobody else can use it, so that it can be put back between two runs of one statement.
//!
//! Never fails for it: a sequence that is named in another way, or that the role may not alter, is left as it is.

use postgres::{Client, Error};

use super::session::{Session, ident, is_lost, literal, rows};
use super::stream::Position;
use super::token::{Kind, each_token};

/// How long others who use one are waited for: their next numbers wait meanwhile.
const LOCK_TURN: &str = "500ms";

/// A sequence that only this transaction can use, and where it stands.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// Quoted and with its schema.
    name: String,
    at: Position,
}

/// Puts sequences back to where they stood before a statement that runs once more.
pub fn put_back(client: &mut Client, all: &[Drawn]) -> Result<(), Error> {
    for Drawn { name, at } in all {
        rows(client, &format!("SELECT pg_catalog.setval({}, {}, {})", literal(name), at.value, at.called))?;
    }
    Ok(())
}

/// Makes the sequences that a statement names the transaction's own; with those that it only draws from where `draws`.
pub fn own(a: &mut Session, sql: &str, draws: bool) -> Result<Vec<Drawn>, Error> {
    let mut arguments = Vec::new();
    named(sql, draws, 0, &mut arguments);
    if arguments.is_empty() {
        return Ok(Vec::new());
    }
    let mut oids = Vec::new();
    for argument in arguments {
        // Under the settings of the script: the name may need its search path.
        let asked = attempt(a, |a| a.value(&format!("SELECT ({argument})::pg_catalog.regclass::pg_catalog.oid")))?;
        oids.extend(asked.flatten().filter(|oid| !oids.contains(oid)).into_iter().collect::<Vec<_>>());
    }
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let settings = a.neutral()?;
    let mut all = Vec::new();
    for oid in oids {
        all.extend(attempt(a, |a| one(a, &oid))?.flatten());
    }
    a.restore(settings)?;
    Ok(all)
}

/// What `work` gives; none where it fails, and then nothing of it stays.
fn attempt<T>(a: &mut Session, work: impl FnOnce(&mut Session) -> Result<T, Error>) -> Result<Option<T>, Error> {
    a.run("SAVEPOINT backout_drawn")?;
    match work(a) {
        Ok(done) => a.run("RELEASE backout_drawn").map(|()| Some(done)),
        Err(error) if is_lost(&error) => Err(error),
        Err(_) => a.run("ROLLBACK TO backout_drawn; RELEASE backout_drawn").map(|()| None),
    }
}

fn one(a: &mut Session, oid: &str) -> Result<Option<Drawn>, Error> {
    let found = a.rows(&format!(
        "SELECT n.nspname, c.relname, s.seqincrement FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         JOIN pg_sequence AS s ON s.seqrelid = c.oid WHERE c.oid = {oid} AND c.relpersistence <> 't'"
    ))?;
    let Some(row) = found.into_iter().next() else { return Ok(None) };
    let text = |at: usize| row[at].clone().unwrap_or_default();
    let name = format!("{}.{}", ident(&text(0)), ident(&text(1)));
    // Any of its options makes it write a new file, and the position goes along.
    a.run(&format!("SET LOCAL lock_timeout = '{LOCK_TURN}'; ALTER SEQUENCE {name} INCREMENT BY {}", text(2)))?;
    let stands = a.rows(&format!("SELECT last_value, is_called FROM {name}"))?;
    let Some([Some(value), Some(called)]) = stands.first().map(Vec::as_slice) else { return Ok(None) };
    Ok(value.parse().ok().map(|value| Drawn { name, at: Position { value, called: called == "t" } }))
}

/// The first arguments of the calls in a text, also within its strings, which may be the body of a block.
fn named(sql: &str, draws: bool, depth: u32, found: &mut Vec<String>) {
    /// A block within a block within a block.
    const DEEPEST: u32 = 3;
    let tokens: Vec<_> = each_token(sql).collect();
    for (at, token) in tokens.iter().enumerate() {
        if token.kind == Kind::Text
            && depth < DEEPEST
            && let Some(inner) = token.value()
        {
            named(&inner, draws, depth + 1, found);
        }
        let calls = token.is("setval") || draws && token.is("nextval");
        if !calls || !tokens.get(at + 1).is_some_and(|next| next.is_sign(b'(')) {
            continue;
        }
        let mut open = 0_u32;
        let mut end = None;
        for token in &tokens[at + 2..] {
            match token.kind {
                Kind::Sign(b'(') => open += 1,
                Kind::Sign(b')') if open == 0 => end = Some(token.start),
                Kind::Sign(b')') => open -= 1,
                Kind::Sign(b',') if open == 0 => end = Some(token.start),
                Kind::Sign(b',' | b':' | b'.') | Kind::Text | Kind::Quoted => {}
                Kind::Word if CONSTANT.iter().any(|word| token.is(word)) => {}
                _ => break,
            }
            if end.is_some() {
                break;
            }
        }
        let start = tokens.get(at + 2).map_or(0, |token| token.start);
        found.extend(end.and_then(|end| sql.get(start..end)).filter(|text| !text.is_empty()).map(str::to_owned));
    }
}

/// Words in an argument that is the same wherever it is asked for.
const CONSTANT: [&str; 4] = ["pg_catalog", "pg_get_serial_sequence", "regclass", "text"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_name_a_sequence_are_found() {
        let all = |sql: &str, draws| {
            let mut found = Vec::new();
            named(sql, draws, 0, &mut found);
            found
        };
        assert_eq!(all("SELECT pg_catalog.setval('public.s', 5, true)", false), ["'public.s'"]);
        assert_eq!(
            all("SELECT setval(pg_get_serial_sequence('\"t\"', 'id'), max(id)) FROM t", false),
            ["pg_get_serial_sequence('\"t\"', 'id')"]
        );
        assert_eq!(all("ALTER TABLE t ADD z int DEFAULT nextval('s'::regclass)", true), ["'s'::regclass"]);
        assert_eq!(all("DO $$ BEGIN PERFORM nextval('a'), setval(name, 4); END $$", true), ["'a'"]);
        assert!(all("SELECT nextval('s')", false).is_empty());
        assert!(all("SELECT setval(f(), 1), setval(", true).is_empty());
    }
}
