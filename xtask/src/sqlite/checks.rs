//! What a table's CHECKs ask for, guessed from the literals that stand in them. A guess that is wrong costs one more
//! try: the database itself decides.

/// Literals that stand in CHECKs beside a column's name, as SQL.
pub fn candidates(table_sql: &str, column: &str) -> Vec<String> {
    let mut found = Vec::new();
    let wanted = column.to_ascii_lowercase();
    for check in checks(table_sql) {
        let lower = check.to_ascii_lowercase();
        if !names(&lower, &wanted) {
            continue;
        }
        if lower.contains("json") {
            found.extend(["'{}'", "'[1, 2]'", "'{\"a\": \"b\"}'"].map(str::to_owned));
        }
        for literal in literals(&check) {
            if let Ok(number) = literal.parse::<i64>() {
                found.extend([number - 1, number, number + 1].map(|n| n.to_string()));
            } else {
                found.push(literal);
            }
        }
        if lower.contains("length") {
            found.extend(["''", "'a'", "'ab'", "'abcde'", "'abcdefghij'"].map(str::to_owned));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The inside of every `CHECK (…)`.
fn checks(sql: &str) -> Vec<String> {
    let lower = sql.to_ascii_lowercase();
    let mut found = Vec::new();
    for (at, _) in lower.match_indices("check") {
        let Some(open) = sql[at..].find('(').map(|offset| at + offset) else { continue };
        if !sql[at + "check".len()..open].trim().is_empty() {
            continue;
        }
        let mut depth = 0_usize;
        let mut quote = None;
        for (offset, c) in sql[open..].char_indices() {
            match (quote, c) {
                (Some(q), _) if q == c => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(c),
                (None, '(') => depth += 1,
                (None, ')') => {
                    depth -= 1;
                    if depth == 0 {
                        found.push(sql[open + 1..open + offset].to_owned());
                        break;
                    }
                }
                (None, _) => {}
            }
        }
    }
    found
}

/// Whether a name stands in the text as a word of its own.
fn names(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| !text[..at].ends_with(part) && !text[at + name.len()..].starts_with(part))
}

/// String and number literals.
fn literals(check: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = check;
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '\'' => string_end(rest, '\''),
            '"' => {
                // A quoted name.
                rest = &rest[string_end(rest, '"')..];
                continue;
            }
            '0'..='9' => rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len()),
            c if c.is_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                rest = &rest[end..];
                continue;
            }
            c => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        found.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
    found
}

/// Where a quoted piece that opens the text ends, a doubled quote inside being part of it.
fn string_end(text: &str, quote: char) -> usize {
    let mut at = 1;
    while let Some(offset) = text[at..].find(quote) {
        at += offset + 1;
        if !text[at..].starts_with(quote) {
            return at;
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_come_from_the_checks_that_name_the_column() {
        let sql =
            r#"CREATE TABLE t(kind TEXT CHECK (kind IN ('it''s', 'b)')), n INT, m INT CHECK(n > 10 AND "m" <> 3))"#;
        assert_eq!(candidates(sql, "kind"), ["'b)'", "'it''s'"]);
        assert_eq!(candidates(sql, "N"), ["10", "11", "2", "3", "4", "9"]);
        assert_eq!(candidates(sql, "in"), ["'b)'", "'it''s'"]);
        assert!(candidates(sql, "k").is_empty());
    }
}
