//! The texts of a table and its indexes under other names, for a table of the tool that takes b-trees of the same form.
//! Never changes what SQLite would store.

use super::token::{Kind, Token, quote, tokens};

/// The text of a table under another name, made of the same columns, keys and generated values, so that its b-trees
/// have the same form; without foreign keys and CHECKs, so that nothing reaches what is held in it.
/// None where the text is not of a form that SQLite writes.
pub fn twin_table(sql: &str, name: &str) -> Option<String> {
    let all = tokens(sql);
    if !(all.first()?.is("CREATE") && all.get(1)?.is("TABLE") && all.get(3)?.is_sign(b'(')) {
        return None;
    }
    let mut items: Vec<String> = Vec::new();
    let mut depth = 1;
    let mut at = 4;
    let mut start = 4;
    loop {
        let token = all.get(at)?;
        match token.kind {
            Kind::Sign(b'(') => depth += 1,
            Kind::Sign(b')') => depth -= 1,
            _ => {}
        }
        if depth == 0 || depth == 1 && token.is_sign(b',') {
            let item = without_references(sql, all.get(start..at)?)?;
            if !item.is_empty() {
                items.push(item);
            }
            start = at + 1;
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    let options = all.get(at..).filter(|rest| !rest.is_empty()).map_or("", |rest| &sql[rest[0].start..]);
    let text = format!("CREATE TABLE {}({}){options}", quote(name), items.join(",\n"));
    Some(renamed(&text, &all.get(2)?.name()?, name))
}

/// The text with every `old.column` made `new.column`.
fn renamed(text: &str, old: &str, new: &str) -> String {
    let all = tokens(text);
    let mut result = String::with_capacity(text.len());
    let mut from = 0;
    for pair in all.windows(2) {
        if pair[1].is_sign(b'.') && pair[0].name().is_some_and(|name| name.eq_ignore_ascii_case(old)) {
            result.push_str(&text[from..pair[0].start]);
            result.push_str(&quote(new));
            from = pair[0].end;
        }
    }
    result.push_str(&text[from..]);
    result
}

/// One column or constraint of a table without its CHECK and REFERENCES clauses; empty where nothing else is left.
fn without_references(sql: &str, item: &[Token<'_>]) -> Option<String> {
    let mut kept: Vec<&str> = Vec::new();
    let mut at = 0;
    let mut from = None;
    let mut named_only = true;
    let close = |at: usize| -> Option<usize> {
        let mut depth = 0;
        for (index, token) in item.iter().enumerate().skip(at) {
            match token.kind {
                Kind::Sign(b'(') => depth += 1,
                Kind::Sign(b')') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(index + 1);
            }
        }
        None
    };
    let word = |at: usize, text: &str| item.get(at).is_some_and(|token| token.is(text));
    while at < item.len() {
        let mut next = at;
        if word(at, "CHECK") && item.get(at + 1).is_some_and(|token| token.is_sign(b'(')) {
            next = close(at + 1)?;
            if word(next, "ON") && word(next + 1, "CONFLICT") {
                next += 3;
            }
        } else if word(at, "FOREIGN") && word(at + 1, "KEY") {
            next = close(at + 2)?;
        } else if word(at, "REFERENCES") {
            next = at + 2;
            if item.get(next).is_some_and(|token| token.is_sign(b'(')) {
                next = close(next)?;
            }
            loop {
                if word(next, "ON") && (word(next + 1, "DELETE") || word(next + 1, "UPDATE")) {
                    let two_words = word(next + 2, "SET") || word(next + 2, "NO");
                    next += if two_words { 4 } else { 3 };
                } else if word(next, "MATCH") {
                    next += 2;
                } else if word(next, "DEFERRABLE") || word(next, "NOT") && word(next + 1, "DEFERRABLE") {
                    next += if word(next, "NOT") { 2 } else { 1 };
                    if word(next, "INITIALLY") {
                        next += 2;
                    }
                } else {
                    break;
                }
            }
        }
        if next > at {
            if let Some(from) = from.take() {
                kept.push(&sql[item.get::<usize>(from)?.start..item.get(at - 1)?.end]);
            }
            at = next;
            continue;
        }
        from.get_or_insert(at);
        // `CONSTRAINT name` may stand alone before what was left out.
        if word(at, "CONSTRAINT") {
            at += 2;
            continue;
        }
        named_only = false;
        at = if item[at].is_sign(b'(') { close(at)? } else { at + 1 };
    }
    if let Some(from) = from {
        kept.push(&sql[item.get::<usize>(from)?.start..item.last()?.end]);
    }
    Some(if named_only { String::new() } else { kept.join("\n") })
}

/// The text of an index under another name and on another table.
pub fn twin_index(sql: &str, name: &str, table: &str) -> Option<String> {
    let all = tokens(sql);
    let mut at = 1;
    let unique = all.get(at)?.is("UNIQUE");
    if unique {
        at += 1;
    }
    if !(all.first()?.is("CREATE") && all.get(at)?.is("INDEX") && all.get(at + 2)?.is("ON")) {
        return None;
    }
    let rest = all.get(at + 4).filter(|token| token.is_sign(b'('))?;
    let unique = if unique { "UNIQUE " } else { "" };
    let text = format!("CREATE {unique}INDEX {} ON {}{}", quote(name), quote(table), &sql[rest.start..]);
    Some(renamed(&text, &all.get(at + 3)?.name()?, table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_has_the_same_columns_and_keys_and_nothing_that_reaches_out() {
        let sql = "CREATE TABLE \"a b\" (id INTEGER PRIMARY KEY AUTOINCREMENT, -- the key\n\
            p INT CONSTRAINT pk NOT NULL REFERENCES p(x) ON DELETE SET NULL ON UPDATE NO ACTION MATCH full \
            NOT DEFERRABLE INITIALLY IMMEDIATE DEFAULT 'a,)' CHECK (p || '' <> ')') UNIQUE ON CONFLICT IGNORE,\n\
            g AS (p->>'x') STORED, CONSTRAINT c CHECK (p>0), CONSTRAINT f FOREIGN KEY (p) REFERENCES q DEFERRABLE \
            INITIALLY DEFERRED, UNIQUE (p, g)) STRICT";
        let twin = twin_table(sql, "t\"w").unwrap();
        assert_eq!(
            twin,
            "CREATE TABLE \"t\"\"w\"(id INTEGER PRIMARY KEY AUTOINCREMENT,\n\
             p INT CONSTRAINT pk NOT NULL\nDEFAULT 'a,)'\nUNIQUE ON CONFLICT IGNORE,\n\
             g AS (p->>'x') STORED,\nUNIQUE (p, g))STRICT"
        );
    }

    #[test]
    fn an_index_follows_to_the_twin() {
        let sql = "CREATE UNIQUE INDEX 'i' ON t (a COLLATE NOCASE DESC, lower(b)) WHERE c > 0";
        assert_eq!(
            twin_index(sql, "j", "u").unwrap(),
            "CREATE UNIQUE INDEX \"j\" ON \"u\"(a COLLATE NOCASE DESC, lower(b)) WHERE c > 0"
        );
        assert_eq!(
            twin_index("CREATE INDEX i ON \"T\"(t.a + 1)", "j", "u").unwrap(),
            "CREATE INDEX \"j\" ON \"u\"(\"u\".a + 1)"
        );
        assert_eq!(twin_index("CREATE TABLE t(a)", "j", "u"), None);
    }
}
