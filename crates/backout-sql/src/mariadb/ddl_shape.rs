//! The server's own text of a table, taken apart, and the ALTER that leads from one to another.
//!
//! Never trusted by itself: what it says is tried on an empty table of the same shape before anything else is changed.

use super::token::each_token;

/// A table as SHOW CREATE TABLE writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Name and the rest of the line.
    pub columns: Vec<(String, String)>,
    /// Keys with the head that DROP names them by: `PRIMARY KEY` or `` KEY `a` ``.
    pub keys: Vec<(String, String)>,
    pub checks: Vec<(String, String)>,
    pub links: Vec<(String, String)>,
    /// What follows the closing parenthesis, without the counter.
    pub options: String,
    /// How it is partitioned; empty where it is not.
    pub parts: String,
}

/// The text without the counter, which is no part of a table's definition.
pub fn without_counter(text: &str) -> String {
    let Some(at) = text.rfind("\n) ") else { return text.to_owned() };
    let (body, options) = text.split_at(at);
    let kept: Vec<&str> = options.split(' ').filter(|word| !word.starts_with("AUTO_INCREMENT=")).collect();
    format!("{body}{}", kept.join(" "))
}

/// A definition without these foreign keys.
pub fn without_links(text: &str, names: &[&str]) -> String {
    let is_one = |line: &str| {
        let link = line.trim_start().strip_prefix("CONSTRAINT ").and_then(named);
        link.is_some_and(|(name, rest)| rest.starts_with("FOREIGN KEY") && names.contains(&name.as_str()))
    };
    let mut lines: Vec<&str> = text.lines().filter(|line| !is_one(line)).collect();
    // What stands last now has no comma behind it.
    if let Some(end) = lines.iter().position(|line| line.starts_with(')')).filter(|end| *end > 0) {
        lines[end - 1] = lines[end - 1].trim_end_matches(',');
    }
    lines.join("\n")
}

/// The first name in backquotes, and what follows it.
fn named(line: &str) -> Option<(String, &str)> {
    let rest = line.strip_prefix('`')?;
    let mut at = 0;
    loop {
        at += rest[at..].find('`')?;
        if rest[at + 1..].starts_with('`') {
            at += 2;
            continue;
        }
        return Some((rest[..at].replace("``", "`"), rest[at + 1..].trim_start()));
    }
}

impl Shape {
    pub fn of(text: &str) -> Self {
        let text = without_counter(text);
        let mut shape = Shape::default();
        let mut lines = text.lines().skip(1);
        for line in lines.by_ref() {
            if let Some(options) = line.strip_prefix(')') {
                shape.options = options.trim().to_owned();
                break;
            }
            let line = line.trim_start().trim_end_matches(',');
            if let Some((name, rest)) = named(line) {
                shape.columns.push((name, rest.to_owned()));
            } else if let Some(rest) = line.strip_prefix("CONSTRAINT ")
                && let Some((name, rest)) = named(rest)
            {
                let list = if rest.starts_with("FOREIGN KEY") { &mut shape.links } else { &mut shape.checks };
                list.push((name, line.to_owned()));
            } else {
                let head = match line.find('`') {
                    Some(at) if !line.starts_with("PRIMARY") => named(&line[at..])
                        .map(|(name, _)| format!("KEY `{}`", name.replace('`', "``")))
                        .unwrap_or_default(),
                    _ => "PRIMARY KEY".to_owned(),
                };
                shape.keys.push((head, line.to_owned()));
            }
        }
        // What follows on further lines are partitions.
        shape.parts = lines.collect::<Vec<_>>().join(" ").trim_start().to_owned();
        shape
    }

    /// Without foreign keys, which an empty table of the same shape does not have.
    pub fn without_links(mut self) -> Self {
        self.links.clear();
        self
    }

    pub fn column(&self, name: &str) -> Option<&str> {
        self.columns.iter().find(|(one, _)| one == name).map(|(_, rest)| rest.as_str())
    }
}

/// The clauses of an ALTER TABLE that leads from one shape to another; `renamed`: columns under other names, old and new
/// as of the way from `to` to `from`.
pub fn clauses(from: &Shape, to: &Shape, renamed: &[(String, String)]) -> Vec<String> {
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    let now_of =
        |name: &str| renamed.iter().find(|(old, _)| old == name).map_or(name.to_owned(), |(_, new)| new.clone());
    let mut out = Vec::new();
    // Keys in their order: from the first that differs on, all are made anew.
    let pairs = || from.keys.iter().zip(&to.keys);
    let marked = from.keys.len() == to.keys.len() && pairs().all(|(one, other)| unmarked(&one.1) == unmarked(&other.1));
    let same = pairs().take_while(|(one, other)| marked || one == other).count();
    for (head, _) in from.keys.iter().skip(same) {
        out.push(format!("DROP {head}"));
    }
    for ((_, now), (head, line)) in pairs().take(same) {
        if now != line {
            let not = if line.ends_with(IGNORED) { "" } else { " NOT" };
            out.push(format!("ALTER INDEX {}{not}{IGNORED}", head.trim_start_matches("KEY ")));
        }
    }
    for (name, _) in from.links.iter().filter(|link| !to.links.contains(link)) {
        out.push(format!("DROP FOREIGN KEY {}", quoted(name)));
    }
    for (name, _) in from.checks.iter().filter(|check| !to.checks.contains(check)) {
        out.push(format!("DROP CONSTRAINT {}", quoted(name)));
    }
    let kept: Vec<String> = to.columns.iter().map(|(name, _)| now_of(name)).collect();
    for (name, _) in from.columns.iter().filter(|(name, _)| !kept.contains(name)) {
        out.push(format!("DROP COLUMN {}", quoted(name)));
    }
    // Where the rest would stand in any case.
    let left: Vec<&String> = from.columns.iter().map(|(name, _)| name).filter(|name| kept.contains(name)).collect();
    let stays: Vec<&String> = kept.iter().filter(|name| from.column(name).is_some()).collect();
    let in_order = left == stays;
    for (at, (name, rest)) in to.columns.iter().enumerate() {
        let place = match at {
            0 => "FIRST".to_owned(),
            _ => format!("AFTER {}", quoted(&to.columns[at - 1].0)),
        };
        let now = now_of(name);
        let explicit = in_charset(rest, &from.options, &to.options);
        let (rest, written) = (rest, explicit.as_deref().unwrap_or(rest));
        match from.column(&now) {
            None => out.push(format!("ADD COLUMN {} {written} {place}", quoted(name))),
            Some(_) if now != *name => {
                out.push(format!("CHANGE COLUMN {} {} {written} {place}", quoted(&now), quoted(name)))
            }
            Some(own) if own != rest || explicit.is_some() || !in_order => {
                out.push(format!("MODIFY COLUMN {} {written} {place}", quoted(name)));
            }
            Some(_) => {}
        }
    }
    for (_, line) in to.keys.iter().skip(same) {
        out.push(format!("ADD {line}"));
    }
    for (_, line) in to.checks.iter().filter(|check| !from.checks.contains(check)) {
        out.push(format!("ADD {line}"));
    }
    if from.options != to.options || from.parts != to.parts {
        let mut options = to.options.clone();
        // What was set and was not before is set to nothing.
        let before = options_of(&to.options);
        let goes = |name: &String| !before.contains(name) && !ALWAYS.contains(&name.as_str());
        for name in options_of(&from.options).into_iter().filter(goes) {
            options += &format!(" {name}={}", unset(&name));
        }
        // Behind all else that a statement says.
        match to.parts.as_str() {
            parts if parts == from.parts => {}
            "" => options += " REMOVE PARTITIONING",
            parts => options = format!("{options} {parts}"),
        }
        out.push(options);
    }
    out
}

/// How the server writes, behind all else, that an index is not to be used.
const IGNORED: &str = " IGNORED";

fn unmarked(key: &str) -> &str {
    key.strip_suffix(IGNORED).unwrap_or(key)
}

/// Options that no table is without, said or not.
const ALWAYS: [&str; 3] = ["ENGINE", "CHARSET", "COLLATE"];

/// The names of a table's options, as they are written; an engine's own stand in quotes.
fn options_of(options: &str) -> Vec<String> {
    let tokens: Vec<_> = each_token(options).collect();
    let named = tokens.windows(2).filter(|pair| pair[1].is_sign(b'=') && pair[0].name().is_some());
    named.map(|pair| pair[0].text.to_owned()).collect()
}

/// What an option is set to so that it is not set. One of which that is not known is refused when the way back is tried.
fn unset(name: &str) -> &'static str {
    match name {
        "COMMENT" | "CONNECTION" => "''",
        "CHECKSUM" | "AVG_ROW_LENGTH" | "MIN_ROWS" | "MAX_ROWS" | "DELAY_KEY_WRITE" | "KEY_BLOCK_SIZE" => "0",
        _ => "DEFAULT",
    }
}

/// A column's definition with the character set that it leaves to the table, where the table's is about to change: within
/// one statement it would be the one of before.
fn in_charset(rest: &str, from: &str, to: &str) -> Option<String> {
    let of = |options: &str| -> Option<String> {
        let at = options.find("CHARSET=")?;
        let mut words = options[at..].split(' ');
        let charset = words.next()?.strip_prefix("CHARSET=")?.to_owned();
        let collation = words.next().and_then(|word| word.strip_prefix("COLLATE="));
        let collation = collation.map(|name| format!(" COLLATE {name}")).unwrap_or_default();
        Some(format!(" CHARACTER SET {charset}{collation}"))
    };
    let wanted = of(to)?;
    let textual = ["char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"];
    let word = rest.split(['(', ' ']).next()?;
    if of(from).as_ref() == Some(&wanted) || !textual.contains(&word) {
        return None;
    }
    // Past the type: its parentheses may hold strings with anything in them.
    let bytes = rest.as_bytes();
    let mut end = word.len();
    if bytes.get(end) == Some(&b'(') {
        while *bytes.get(end)? != b')' {
            end = if bytes[end] == b'\'' { super::token::string(bytes, end) } else { end + 1 };
        }
        end += 1;
    }
    let (kind, more) = rest.split_at(end);
    if more.starts_with(" CHARACTER SET") || more.starts_with(" COLLATE") {
        return None;
    }
    Some(format!("{kind}{wanted}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "CREATE TABLE `t` (\n  `id` int(11) NOT NULL AUTO_INCREMENT,\n  `a``b` varchar(9) DEFAULT 'x,`y' COMMENT 'c',\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u``k` (`a``b`),\n  CONSTRAINT `f` FOREIGN KEY (`id`) REFERENCES `p` (`id`),\n  CONSTRAINT `c` CHECK (`id` > 0)\n) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4";

    #[test]
    fn a_text_is_taken_apart() {
        let shape = Shape::of(TEXT);
        assert_eq!(shape.columns[1], ("a`b".to_owned(), "varchar(9) DEFAULT 'x,`y' COMMENT 'c'".to_owned()));
        assert_eq!(shape.keys[1].0, "KEY `u``k`");
        assert_eq!((shape.links.len(), shape.checks.len()), (1, 1));
        assert_eq!(shape.options, "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4");
    }

    #[test]
    fn partitions_are_told_from_a_comment_about_them() {
        let from = format!("{TEXT} COMMENT='a PARTITION BY b'");
        let to = format!("{from}\n PARTITION BY HASH (`id`)\nPARTITIONS 2");
        let shape = Shape::of(&to);
        assert_eq!(
            (shape.options.ends_with("'a PARTITION BY b'"), shape.parts.as_str()),
            (true, "PARTITION BY HASH (`id`) PARTITIONS 2")
        );
        let clauses = clauses(&shape, &Shape::of(&from), &[]).join(", ");
        assert!(clauses.ends_with("COMMENT='a PARTITION BY b' REMOVE PARTITIONING"), "{clauses}");
    }

    #[test]
    fn foreign_keys_can_be_left_out_of_a_text() {
        let text = without_counter(TEXT);
        let lines = |text: &str| text.lines().count();
        assert_eq!(without_links(&text, &["c", "other"]), text, "a check is none");
        let left = without_links(&text, &["f"]);
        assert_eq!((lines(&left), Shape::of(&left)), (lines(&text) - 1, Shape::of(&text).without_links()));
        let last = text.replace(",\n  CONSTRAINT `c` CHECK (`id` > 0)", "");
        assert!(without_links(&last, &["f"]).contains("(`a``b`)\n)"), "{last}");
    }

    #[test]
    fn the_way_back_is_told_in_clauses() {
        let from = Shape::of(&TEXT.replace("  `a``b`", "  `new` int,\n  `a``b`").replace("varchar(9)", "text"));
        let to = Shape::of(TEXT);
        assert_eq!(
            clauses(&from, &to, &[]),
            ["DROP COLUMN `new`", "MODIFY COLUMN `a``b` varchar(9) DEFAULT 'x,`y' COMMENT 'c' AFTER `id`"]
        );
        assert!(clauses(&to, &to, &[]).is_empty());
    }

    #[test]
    fn marks_and_options_are_taken_back_by_themselves() {
        let before = "CREATE TABLE `t` (\n  `a` int,\n  KEY `k` (`a`) COMMENT 'x IGNORED',\n  UNIQUE KEY `u` (`a`) IGNORED\n) ENGINE=InnoDB COMMENT='CHECKSUM=1'";
        let after = before.replace("IGNORED',", "IGNORED' IGNORED,").replace("(`a`) IGNORED", "(`a`)");
        let after = format!("{after} CHECKSUM=1 `PAGE_compressed`='ON' ROW_FORMAT=DYNAMIC");
        assert_eq!(
            clauses(&Shape::of(&after), &Shape::of(before), &[]),
            [
                "ALTER INDEX `k` NOT IGNORED",
                "ALTER INDEX `u` IGNORED",
                "ENGINE=InnoDB COMMENT='CHECKSUM=1' CHECKSUM=0 `PAGE_compressed`=DEFAULT ROW_FORMAT=DEFAULT"
            ]
        );
    }
}
