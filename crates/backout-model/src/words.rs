//! How numbers are told. Nothing of any one command or engine.

/// `1 row`, `2 rows`.
#[must_use]
pub fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// `312 bytes`, `1.4 MB`: powers of a thousand, as `df -H` has them.
#[must_use]
pub fn sized(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return count(bytes, "byte");
    }
    let (mut tenths, mut unit) = (bytes / 100, 0);
    while tenths >= 9_995 && unit + 1 < UNITS.len() {
        tenths = (tenths + 500) / 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_fitting_units() {
        let told = [0, 1, 999, 1000, 1449, 999_499, 1_000_000, 123_456_789, 5_000_000_000_000].map(sized);
        assert_eq!(
            told,
            ["0 bytes", "1 byte", "999 bytes", "1.0 kB", "1.4 kB", "999.4 kB", "1.0 MB", "123.5 MB", "5.0 TB"]
        );
    }
}
