//! How statements are shown to people, whatever the engine.

/// A statement's beginning for messages, on one line.
pub fn shorten(sql: &str) -> String {
    const LONGEST: usize = 100;
    let mut short = String::with_capacity(LONGEST);
    for word in sql.split_whitespace() {
        if !short.is_empty() {
            short.push(' ');
        }
        for letter in word.chars() {
            if short.len() >= LONGEST {
                short.push('…');
                return short;
            }
            short.push(letter);
        }
    }
    short.truncate(short.trim_end_matches(';').len());
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_statement_is_shortened() {
        assert_eq!(shorten("SELECT\n  1;"), "SELECT 1");
        assert!(shorten(&"ü ".repeat(200)).chars().count() < 110);
    }
}
