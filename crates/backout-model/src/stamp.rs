//! Times of files as archives write them: seconds since 1970 with nine digits behind the point.

/// `12.000000345`; second -2 and 750,000,000 ns is `-1.250000000`.
pub fn written(seconds: i64, ns: u32) -> String {
    if seconds < 0 && ns > 0 {
        let whole = -(seconds + 1);
        return format!("-{whole}.{:09}", 1_000_000_000 - i64::from(ns));
    }
    format!("{seconds}.{ns:09}")
}

/// Reads what [`written`] gives, and less exact times: seconds, and nanoseconds that count upwards.
pub fn read(text: &str) -> Option<(i64, u32)> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) || !whole.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let ns: u32 = format!("{fraction:0<9}").parse().ok()?;
    Some(match (negative, ns) {
        (false, _) => (seconds, ns),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - ns),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        assert_eq!(read("12.000000345"), Some((12, 345)));
        assert_eq!(read("-1.250000000"), Some((-2, 750_000_000)));
        assert_eq!(read("-3.000000000"), Some((-3, 0)));
        for bad in ["", "x", "1.x", "--1", "1.0000000001", "99999999999999999999"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        for time in [(0, 0), (7, 1), (-1, 999_999_999), (-2, 750_000_000), (-5, 0)] {
            assert_eq!(read(&written(time.0, time.1)), Some(time));
        }
    }
}
