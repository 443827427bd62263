//! Lengths of time as people write them: `500ms`, `10s`, `5m`, `1h30m`, `2d`.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads whole numbers with their units, the larger first, each at most once; else says in words what is wrong.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = |why: &str| Err(format!("`{text}` is not a duration: {why} (as in 500ms, 10s, 5m, 1h30m)"));
    let mut rest = text;
    let mut total_ms = 0u64;
    let mut units = UNITS.as_slice();
    if rest.is_empty() {
        return wrong("it is empty");
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, from_unit) = rest.split_at(digits);
        let letters = from_unit.len() - from_unit.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        let (unit, after) = from_unit.split_at(letters);
        if number.is_empty() {
            return wrong("a whole number must come before each unit");
        }
        if unit.is_empty() {
            return wrong("a unit must come after each number");
        }
        let Some(place) = units.iter().position(|(name, _)| *name == unit) else {
            let known = UNITS.iter().any(|(name, _)| *name == unit);
            return wrong(if known {
                "the larger units come first, each once"
            } else {
                "the units are d, h, m, s and ms"
            });
        };
        let ms = number.parse::<u64>().ok().and_then(|n| n.checked_mul(units[place].1));
        // A thousand years: what is longer is a mistake, and would overflow the clock.
        match ms.and_then(|ms| total_ms.checked_add(ms)).filter(|ms| *ms <= 365_000 * 86_400_000) {
            Some(sum) => total_ms = sum,
            None => return wrong("it is too long"),
        }
        units = &units[place + 1..];
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h30m", 5_400_000), ("0s", 0), ("1d1ms", 86_400_001)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", "5", "m", "5 m", "1.5s", "-5s", "5x", "5m1h", "5m5m", "99999999999999999999s", "9999999999d", "5M"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            parse("30").unwrap_err(),
            "`30` is not a duration: a unit must come after each number (as in 500ms, 10s, 5m, 1h30m)"
        );
    }
}
