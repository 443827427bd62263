//! The names that a statement's text speaks of, so that what it may change can be read before it runs. A name too many
//! costs a look, a name too few a second run; neither changes what is captured.

use std::collections::BTreeSet;

use postgres::Error;

use super::catalog::{Key, Wanted, literal};
use super::prepared::{self, Asked, Client};
use super::token::each_token;

/// More names than these are not looked up.
const MOST: usize = 60;

/// True where the first word of the statement is `word`, in any case.
pub(super) fn starts_with(sql: &str, word: &str) -> bool {
    first_word(sql).eq_ignore_ascii_case(word)
}

/// True for a statement whose own words say what it changes.
pub(super) fn is_ddl(sql: &str) -> bool {
    const WORDS: [&str; 8] = ["CREATE", "ALTER", "DROP", "COMMENT", "GRANT", "REVOKE", "TRUNCATE", "REFRESH"];
    WORDS.iter().any(|word| starts_with(sql, word))
}

/// The first word after blanks and comments.
fn first_word(sql: &str) -> &str {
    let mut rest = sql.trim_start();
    loop {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, rest)| rest).trim_start();
        } else {
            break;
        }
    }
    let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    &rest[..end]
}

/// Identifiers outside of strings and comments, as PostgreSQL folds them.
fn identifiers(sql: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut chars = sql.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => {
                for (_, c) in chars.by_ref() {
                    if c == '\'' {
                        break;
                    }
                }
            }
            '"' => {
                let mut name = String::new();
                while let Some((_, c)) = chars.next() {
                    if c != '"' {
                        name.push(c);
                    } else if chars.next_if(|(_, c)| *c == '"').is_some() {
                        name.push('"');
                    } else {
                        break;
                    }
                }
                found.insert(name);
            }
            '-' if sql[at..].starts_with("--") => while chars.next_if(|(_, c)| *c != '\n').is_some() {},
            '$' => {
                let tag: &str = sql[at + 1..].split('$').next().unwrap_or_default();
                let quote = &sql[at..(at + tag.len() + 2).min(sql.len())];
                if quote.ends_with('$') && tag.chars().all(|c| c.is_alphanumeric() || c == '_') {
                    let body = at + quote.len();
                    let end = sql[body..].find(quote).map_or(sql.len(), |end| body + end + quote.len());
                    while chars.next_if(|(at, _)| *at < end).is_some() {}
                }
            }
            c if c.is_alphabetic() || c == '_' => {
                let mut name = c.to_string();
                while let Some((_, c)) = chars.next_if(|(_, c)| c.is_alphanumeric() || matches!(c, '_' | '$')) {
                    name.push(c);
                }
                found.insert(name.to_ascii_lowercase());
            }
            _ => {}
        }
    }
    found
}

/// True where the statement likely makes something and alters nothing. What it makes is not there yet; of the tables
/// around it no more changes than that they have it.
fn only_makes(sql: &str) -> bool {
    let has = |words: &[&str]| each_token(sql).any(|token| words.iter().any(|word| token.is(word)));
    let adds = || {
        each_token(sql).nth(1).is_some_and(|token| token.is("TABLE"))
            && has(&["ADD"])
            && each_token(sql).filter(|token| token.is("ALTER")).count() == 1
            && !has(&["DROP", "PRIMARY", "USING"])
    };
    starts_with(sql, "CREATE") && !has(&["REPLACE"]) || starts_with(sql, "ALTER") && adds()
}

/// What the names in the text are in this database, in whatever schema.
pub(super) fn named(client: &mut Client, sql: &str) -> Result<Wanted, Error> {
    let names = identifiers(sql);
    if names.is_empty() || names.len() > MOST {
        return Ok(Wanted::default());
    }
    const NAMED: &str = "SELECT 1259, oid, relkind::text FROM pg_class WHERE relname = ANY ($1) AND oid >= 16384 \
         UNION ALL SELECT 1247, oid, '' FROM pg_type WHERE typname = ANY ($1) AND typrelid = 0 AND oid >= 16384 \
         UNION ALL SELECT 1255, oid, '' FROM pg_proc WHERE proname = ANY ($1) AND oid >= 16384 \
         UNION ALL SELECT 2615, oid, '' FROM pg_namespace WHERE nspname = ANY ($1) \
         UNION ALL SELECT 2606, oid, '' FROM pg_constraint WHERE conname = ANY ($1) AND contypid <> 0";
    let list: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let asked = Asked::new(NAMED.to_owned(), "name[]", format!("ARRAY[{}]", list.join(",")));
    let only_makes = only_makes(sql);
    let mut wanted = Wanted::default();
    for row in prepared::rows(client, &[asked])? {
        let [Ok(class), Ok(oid)] = [row[0].parse::<u32>(), row[1].parse::<u32>()] else { continue };
        let kind = row[2].chars().next();
        wanted.kinds.extend(kind.map(|kind| (oid, kind)));
        if matches!(kind, Some('r' | 'p')) && !only_makes {
            wanted.families.push(oid);
        } else {
            wanted.keys.push(Key { class, oid, sub: 0 });
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_outside_of_strings() {
        let sql = "ALTER TABLE \"T \"\"x\"\"\".Abc -- no\n SET 'str''ing' $q$ body $q$ $1 DEFAULT é";
        let found: Vec<String> = identifiers(sql).into_iter().collect();
        assert_eq!(found, ["T \"x\"", "abc", "alter", "default", "set", "table", "é"]);
    }

    #[test]
    fn what_only_adds_needs_no_columns_to_be_known() {
        for sql in ["CREATE INDEX i ON t (a)", "alter table t add c int, add check (c > 0)"] {
            assert!(only_makes(sql), "{sql}");
        }
        let others = [
            "CREATE OR REPLACE VIEW v AS SELECT 1",
            "ALTER TABLE t ADD c int, ALTER d SET NOT NULL",
            "ALTER TABLE t ADD PRIMARY KEY (a)",
            "ALTER TABLE t DROP c",
            "COMMENT ON TABLE t IS 'ADD'",
        ];
        for sql in others {
            assert!(!only_makes(sql), "{sql}");
        }
    }

    #[test]
    fn the_first_word_stands_after_comments() {
        assert!(starts_with(" /* a */ -- b\n drop TABLE x", "DROP"));
        assert!(!starts_with("-- drop", "DROP"));
    }
}
