//! How numbers are told. Nothing of any one command or engine.

/// `1 row`, `2 rows`.
#[must_use]
pub fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}
