//! Values for a column, as SQL literals: what its type and name suggest, with the edges of each type among them.

use super::shape::Column;

/// Draws values; the same seed draws the same ones.
pub struct Draw {
    pub random: fastrand::Rng,
    /// Grows with every row, so that a unique value is at hand.
    pub serial: u64,
}

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), serial: 0 }
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        self.random.choice(from)
    }

    /// One value for a column; `unique` asks for one that has not been drawn before.
    pub fn value(&mut self, column: &Column, unique: bool) -> String {
        let declared = column.declared.as_str();
        let name = column.name.to_ascii_lowercase();
        if declared.contains("BOOL") {
            return self.random.u8(0..2).to_string();
        }
        if declared.contains("DATETIME") || declared.contains("TIMESTAMP") {
            let (date, time) = (self.date(), self.time());
            return format!("'{date} {time}.{:06}'", self.random.u32(0..1_000_000));
        }
        if declared.starts_with("DATE") {
            return format!("'{}'", self.date());
        }
        if declared.starts_with("TIME") {
            return format!("'{}'", self.time());
        }
        // The order is that of SQLite's rules for a declared type (sqlite.org/datatype3.html, 3.1).
        if declared.contains("INT") {
            self.integer(unique)
        } else if ["CHAR", "CLOB", "TEXT", "JSON", "UUID"].iter().any(|kind| declared.contains(kind)) {
            self.text(&name, declared, unique)
        } else if declared.contains("BLOB") {
            self.blob(unique)
        } else if ["REAL", "FLOA", "DOUB"].iter().any(|kind| declared.contains(kind)) {
            self.real(unique)
        } else if declared.contains("NUM") || declared.contains("DEC") {
            if self.random.bool() { self.integer(unique) } else { self.real(unique) }
        } else {
            match self.random.u8(0..4) {
                0 => self.integer(unique),
                1 => self.real(unique),
                2 => self.blob(unique),
                _ => self.text(&name, declared, unique),
            }
        }
    }

    fn integer(&mut self, unique: bool) -> String {
        if unique {
            return (1_000 + self.serial * 7).to_string();
        }
        match self.random.u8(0..10) {
            0 => "0".to_owned(),
            1 => i64::MAX.to_string(),
            _ => self.random.u32(1..100_000).to_string(),
        }
    }

    fn real(&mut self, unique: bool) -> String {
        const EDGES: [&str; 6] =
            ["0.1", "16777216.0", "1e308", "2.2250738585072014e-308", "0.30000000000000004", "9e999"];
        if !unique && self.random.u8(0..3) == 0 {
            return EDGES[self.random.usize(0..EDGES.len())].to_owned();
        }
        format!("{}.{:03}", self.serial, self.random.u16(0..1000))
    }

    fn blob(&mut self, unique: bool) -> String {
        let length = self.random.usize(0..40);
        let mut hex: String = (0..length).map(|_| format!("{:02x}", self.random.u8(..))).collect();
        if unique {
            hex.push_str(&format!("{:016x}", self.serial));
        }
        format!("x'{hex}'")
    }

    fn text(&mut self, name: &str, declared: &str, unique: bool) -> String {
        const WORDS: [&str; 10] =
            ["winter", "Größe", "it''s", "雪", "a \"b\"", "100%", "naïve", "tab\there", "🦊 fox", "line\nbreak"];
        if name.contains("uuid") || name.contains("guid") || declared.contains("UUID") {
            return format!("'{:032x}'", self.random.u128(..));
        }
        if declared.contains("JSON") {
            return format!("'{{\"n\": {}}}'", self.serial);
        }
        let limit = length_limit(declared).unwrap_or(usize::MAX);
        let mut text = if unique { format!("{:x}", self.serial) } else { String::new() };
        for _ in 0..self.random.usize(0..4) {
            let word = WORDS[self.random.usize(0..WORDS.len())];
            // A doubled quote counts as one, so this errs on the short side.
            if text.chars().count() + word.chars().count() < limit {
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(word);
            }
        }
        if name.contains("url") {
            text = format!("https://example.org/{:x}", self.serial);
        }
        format!("'{text}'")
    }

    fn date(&mut self) -> String {
        format!("{}-{:02}-{:02}", self.random.u16(1970..2030), self.random.u8(1..13), self.random.u8(1..29))
    }

    fn time(&mut self) -> String {
        format!("{:02}:{:02}:{:02}", self.random.u8(0..24), self.random.u8(0..60), self.random.u8(0..60))
    }
}

/// The n of `varchar(n)`.
fn length_limit(declared: &str) -> Option<usize> {
    let open = declared.find('(')?;
    let close = declared[open..].find(')')? + open;
    declared[open + 1..close].split(',').next()?.trim().parse().ok()
}
