//! The known word that a mistyped one most likely stands for.

/// The word of `known` nearest to `word`, if it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase().replace('_', "-");
    // Two thirds of the letters must agree: nearer suggestions help, farther ones mislead.
    let far = (word.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn distance(word: &str, candidate: &str) -> usize {
    // A whole word that was begun or drawn out (`desc`, `descriptions`) is near, too.
    if word.len() >= 3 && (candidate.starts_with(word) || word.starts_with(candidate)) {
        return 1;
    }
    strsim::damerau_levenshtein(word, candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let known = ["description", "requires", "steps", "on-failure", "sql"];
        assert_eq!(nearest("step", &known), Some("steps"));
        assert_eq!(nearest("on_failure", &known), Some("on-failure"));
        assert_eq!(nearest("reqiures", &known), Some("requires"));
        assert_eq!(nearest("desc", &known), Some("description"));
        assert_eq!(nearest("SQL", &known), Some("sql"));
        assert_eq!(nearest("tables", &known), None);
    }
}
