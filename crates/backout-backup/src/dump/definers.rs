//! In whose name a dump of MariaDB makes things, and whether an account may make them: found before a restore empties
//! anything.
//!
//! Never judges what the things do.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use backout_model::backup::BackupError;

use super::listed;
use super::mariadb::Access;

/// What lets an account restore what is made in others' names.
pub const WAY_OUT: &str = "an administrator can grant the account what it lacks (`GRANT SET USER ON *.* TO …`), or load by hand what `backout restore --into DIR` gives; docs/backup.md says how";

/// Who one is, what else may be named as a definer, and what the server asks of those who make functions and triggers.
const WHO: &str = "SELECT DATABASE(), CURRENT_USER(), IFNULL(CURRENT_ROLE(), ''), SUBSTRING_INDEX(VERSION(), '.', 1) < 11, \
     @@log_bin AND NOT @@log_bin_trust_function_creators; SHOW GRANTS";

/// What emptying a database and filling it again takes in any case.
const ALWAYS: [&str; 7] = ["DROP", "CREATE", "ALTER", "INSERT", "SELECT", "UPDATE", "LOCK TABLES"];

/// What a dump makes in somebody's name.
#[derive(Debug, PartialEq, Eq)]
struct Defined {
    /// `trigger`, `event`, `view`, `procedure`, …
    kind: String,
    name: String,
    user: String,
    host: String,
}

impl Defined {
    /// What it takes to make it.
    fn right(&self) -> &'static str {
        match self.kind.as_str() {
            "view" => "CREATE VIEW",
            "trigger" => "TRIGGER",
            "event" => "EVENT",
            _ => "CREATE ROUTINE",
        }
    }
}

/// An account, its rights on the whole server, and those on its database.
struct Account {
    name: String,
    role: String,
    rights: Vec<String>,
    here: Vec<String>,
    super_names_others: bool,
    logged: bool,
}

/// What in the files of a dump the account may not make, a sentence each.
pub fn bars(access: &Access, dump: &[PathBuf], private: &Path) -> Result<Vec<String>, BackupError> {
    let mut all = Vec::new();
    for file in dump {
        let failed = |error| BackupError::failed(format!("cannot read {}", file.display()), error);
        all.extend(defined(BufReader::new(File::open(file).map_err(failed)?)).map_err(failed)?);
    }
    let said = private.join("who");
    access.query(WHO, &said)?;
    let text =
        fs::read_to_string(&said).map_err(|error| BackupError::failed("cannot read what a query gave", error))?;
    Ok(Account::read(&text).bars(&all))
}

impl Account {
    fn read(said: &str) -> Self {
        let mut lines = said.lines();
        let mut fields = lines.next().unwrap_or_default().split('\t');
        let mut field = || fields.next().unwrap_or_default().to_owned();
        let (database, name, role, old, logged) = (field(), field(), field(), field(), field());
        let (mut rights, mut here) = (Vec::new(), Vec::new());
        for line in lines {
            let Some((granted, rest)) = line.strip_prefix("GRANT ").and_then(|line| line.split_once(" ON ")) else {
                continue;
            };
            let granted = granted.split(", ").map(str::to_owned);
            if rest.starts_with("*.* TO ") {
                rights.extend(granted);
            } else if let (pattern, after) = word(rest)
                && after.starts_with(".* TO ")
                && is_like(&database, &pattern)
            {
                here.extend(granted);
            }
        }
        Self { name, role, rights, here, super_names_others: old == "1", logged: logged == "1" }
    }

    fn has_here(&self, right: &str) -> bool {
        self.has(right) || self.here.iter().any(|one| one == right || one == "ALL PRIVILEGES")
    }

    fn has(&self, right: &str) -> bool {
        self.rights.iter().any(|one| one == right || one == "ALL PRIVILEGES")
    }

    fn bars(&self, all: &[Defined]) -> Vec<String> {
        let mut others: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let names_others = self.has("SET USER") || self.super_names_others && self.has("SUPER");
        if !names_others {
            for one in all {
                let definer = format!("{}@{}", one.user, one.host);
                if definer != self.name && !(one.host.is_empty() && one.user == self.role) {
                    others.entry(definer).or_default().push(format!("{} {}", one.kind, one.name));
                }
            }
        }
        let mut bars: Vec<String> = others
            .into_iter()
            .map(|(definer, things)| {
                format!(
                    "{} in the name of {definer}, which {} may not use (it lacks SET USER)",
                    listed(&things),
                    self.name
                )
            })
            .collect();
        let mut lacking: Vec<String> = ALWAYS
            .into_iter()
            .chain(all.iter().map(Defined::right))
            .filter(|right| !self.has_here(right))
            .map(str::to_owned)
            .collect();
        lacking.sort();
        lacking.dedup();
        if !lacking.is_empty() {
            bars.push(format!("{} lacks {} on its database", self.name, lacking.join(", ")));
        }
        if self.logged && !["SUPER", "BINLOG ADMIN"].iter().any(|right| self.has(right)) {
            let made = all.iter().filter(|one| ["trigger", "function"].contains(&one.kind.as_str()));
            let made: Vec<String> = made.map(|one| format!("{} {}", one.kind, one.name)).collect();
            if !made.is_empty() {
                let why =
                    "for which a server with a binary log wants SUPER, unless log_bin_trust_function_creators is on";
                bars.push(format!("{}, {why}", listed(&made)));
            }
        }
        bars
    }
}

/// What the text of a dump makes with a definer. A row's text has no line of its own, so only definitions are found.
fn defined(mut dump: impl BufRead) -> io::Result<Vec<Defined>> {
    const VIEW: &str = "/*!50013 DEFINER=";
    const OTHERS: [&str; 3] =
        ["/*!50003 CREATE*/ /*!50017 DEFINER=", "/*!50106 CREATE*/ /*!50117 DEFINER=", "CREATE DEFINER="];
    let mut found: Vec<Defined> = Vec::new();
    let mut line = Vec::new();
    let mut view: Option<(String, String)> = None;
    while dump.read_until(b'\n', &mut line)? > 0 {
        // Rows make the longest lines, and begin otherwise.
        if line.starts_with(b"/*!") || line.starts_with(b"CREATE ") {
            let text = String::from_utf8_lossy(&line);
            if let Some(rest) = text.strip_prefix(VIEW) {
                view = definer(rest).map(|(user, host, _)| (user, host));
            } else if let Some((rest, (user, host))) =
                text.strip_prefix("/*!50001 VIEW ").and_then(|rest| Some((rest, view.take()?)))
            {
                found.push(Defined { kind: "view".to_owned(), name: word(rest).0, user, host });
            } else if let Some(rest) = OTHERS.iter().find_map(|start| text.strip_prefix(start)) {
                found.extend(definer(rest).map(|(user, host, rest)| {
                    let (kind, name) = named(rest);
                    Defined { kind, name, user, host }
                }));
            }
        }
        line.clear();
    }
    Ok(found)
}

/// User and host, and what comes after them.
fn definer(text: &str) -> Option<(String, String, &str)> {
    let (user, rest) = word(text);
    let (host, rest) = word(rest.strip_prefix('@')?);
    Some((user, host, rest))
}

/// What is made, and its name: what comes first is as whoever made it wrote it.
fn named(mut rest: &str) -> (String, String) {
    let mut words = Vec::new();
    while words.len() < 2 {
        rest = rest
            .trim_start_matches(|c: char| c.is_whitespace() || c == '*' || c == '/' || c == '!' || c.is_ascii_digit());
        let (next, after) = word(rest);
        if next.is_empty() {
            break;
        }
        rest = after;
        if !["AGGREGATE", "IF", "NOT", "EXISTS"].iter().any(|filler| next.eq_ignore_ascii_case(filler)) {
            words.push(next);
        }
    }
    let mut words = words.into_iter();
    (words.next().unwrap_or_default().to_lowercase(), words.next().unwrap_or_default())
}

/// Whether a database is one of those that a grant names: `_` and `%` stand for others unless they are escaped.
fn is_like(name: &str, pattern: &str) -> bool {
    let mut rest = pattern.chars();
    let Some(first) = rest.next() else { return name.is_empty() };
    let mut chars = name.chars();
    match first {
        '%' => {
            let rest = rest.as_str();
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| is_like(&name[at..], rest))
        }
        '_' => chars.next().is_some() && is_like(chars.as_str(), rest.as_str()),
        first => {
            let literal = if first == '\\' { rest.next().unwrap_or(first) } else { first };
            chars.next() == Some(literal) && is_like(chars.as_str(), rest.as_str())
        }
    }
}

/// A name, quoted or not, and what comes after it.
fn word(text: &str) -> (String, &str) {
    let Some(inner) = text.strip_prefix('`') else {
        let end = text.find(|c: char| c.is_whitespace() || "`@(*;".contains(c)).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut name = String::new();
    let mut chars = inner.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '`' {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == '`').is_some() {
            name.push('`');
        } else {
            return (name, &inner[at + 1..]);
        }
    }
    (name, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "/*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50013 DEFINER=`root`@`localhost` SQL SECURITY DEFINER */\n\
        /*!50001 VIEW `v w` AS select 1 */;\nINSERT INTO `t` VALUES ('CREATE DEFINER=`x`@`y` PROCEDURE `no`()');\n\
        CREATE DEFINER=`a``b`@`%` PROCEDURE `p`()\nbegin end ;;\n\
        /*!50003 CREATE*/ /*!50017 DEFINER=`u`@`localhost`*/ /*!50003 trigger if not exists tr before insert on t */;;\n\
        /*!50106 CREATE*/ /*!50117 DEFINER=`root`@`localhost`*/ /*!50106 EVENT `ev` ON SCHEDULE */ ;;\n";

    /// With all rights on its database.
    fn account(said: &str) -> Account {
        Account::read(&format!("my\t{said}GRANT ALL PRIVILEGES ON `my`.* TO `u`@`localhost`\n"))
    }

    #[test]
    fn rights_on_the_database_come_from_whatever_names_it() {
        for (name, pattern, expected) in [
            ("my_db", "my\\_db", true),
            ("myxdb", "my\\_db", false),
            ("myxdb", "my_db", true),
            ("shop", "s%p", true),
            ("shop", "%", true),
            ("shop", "s%x", false),
        ] {
            assert_eq!(is_like(name, pattern), expected, "{name} {pattern}");
        }
        let found = defined(DUMP.as_bytes()).unwrap();
        let all = "SELECT, INSERT, UPDATE, CREATE, DROP, ALTER, LOCK TABLES, CREATE VIEW, TRIGGER, CREATE ROUTINE";
        let said = |rights: &str| {
            format!(
                "my\tu@localhost\t\t1\t0\nGRANT SET USER ON *.* TO `u`@`localhost`\nGRANT {rights} ON `m_`.* TO `u`@`localhost`\n"
            )
        };
        assert_eq!(Account::read(&said(all)).bars(&found), ["u@localhost lacks EVENT on its database"]);
        assert_eq!(Account::read(&said(&format!("{all}, EVENT"))).bars(&found), [""; 0]);
        assert_eq!(
            Account::read(&said("SELECT")).bars(&[]),
            ["u@localhost lacks ALTER, CREATE, DROP, INSERT, LOCK TABLES, UPDATE on its database"]
        );
    }

    #[test]
    fn what_has_a_definer_is_found_and_rows_are_not() {
        let found = defined(DUMP.as_bytes()).unwrap();
        let told: Vec<String> =
            found.iter().map(|one| format!("{} {} {}@{}", one.kind, one.name, one.user, one.host)).collect();
        let expected =
            ["view v w root@localhost", "procedure p a`b@%", "trigger tr u@localhost", "event ev root@localhost"];
        assert_eq!(told, expected);
    }

    #[test]
    fn who_may_use_others_names_is_read_from_the_grants() {
        let found = defined(DUMP.as_bytes()).unwrap();
        let plain = "u@localhost\t\t1\t0\nGRANT USAGE ON *.* TO `u`@`localhost`\nGRANT ALL PRIVILEGES ON `my`.* TO `u`@`localhost`\n";
        assert_eq!(account(plain).bars(&found).len(), 2);
        for rights in ["ALL PRIVILEGES", "RELOAD, SET USER", "SUPER"] {
            let said = format!("u@localhost\t\t1\t0\nGRANT {rights} ON *.* TO `u`@`localhost`\n");
            assert_eq!(account(&said).bars(&found), [""; 0], "{rights}");
        }
        let new = "u@localhost\t\t0\t0\nGRANT SUPER ON *.* TO `u`@`localhost`\n";
        assert_eq!(account(new).bars(&found).len(), 2);
        let logged = "u@localhost\t\t1\t1\nGRANT SET USER ON *.* TO `u`@`localhost`\n";
        assert!(account(logged).bars(&found)[0].contains("trigger tr, for which"));
    }
}
