//! What a person must look at before what was recorded on one site is deployed on another: counted by what it is and where,
//! with a few examples. Never decides anything.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Why something may not mean elsewhere what it means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Concern {
    /// The reviewer's word: it is not in the package.
    LeftOut,
    /// Tables, columns, rows or files go elsewhere, too.
    Goes,
    /// Keys that the database counted: another site may have given them to something else.
    Counted,
    /// Addresses of the site on which it was recorded.
    Address,
    /// Digests of passwords, tokens, keys.
    Secret,
    /// Of sessions, caches, queues, logs: of that site and that hour alone.
    Passing,
    /// Serialized values with lengths in them: whoever edits a text in one breaks it.
    Serialized,
    /// Whether it is there as it was here could not be written as a condition.
    Unchecked,
    /// A view that holds rows of its own, which the package does not fill as it was filled here.
    Refilled,
    /// What no package carries: owners, times, extended attributes.
    Attributes,
}

impl Concern {
    /// A heading, and what to do about it.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::LeftOut => ("Left out", "It changed and is not in the package, as you said."),
            Self::Goes => ("What goes", "Elsewhere it takes along whatever that site has there."),
            Self::Counted => (
                "Numbers that the database gave",
                "Another site may have given them to something else: then the package is refused there. What points at them by \
                 number, in texts or settings, was not looked for.",
            ),
            Self::Address => {
                ("Addresses", "Absolute addresses stay as they were recorded, also where the site has another name.")
            }
            Self::Secret => ("Secrets", "Digests of passwords, tokens and keys are taken over as they are."),
            Self::Passing => (
                "Sessions, caches, queues, logs",
                "They belong to the site on which they were recorded. `--leave-out` leaves a table or path out.",
            ),
            Self::Serialized => (
                "Serialized values",
                "They hold the lengths of their texts: whoever edits one by hand must count again.",
            ),
            Self::Unchecked => (
                "Not checked beforehand",
                "Elsewhere they are overwritten whatever is there: the package has no condition on them.",
            ),
            Self::Refilled => {
                ("Not filled anew", "A materialized view was filled here and is not filled by the package.")
            }
            Self::Attributes => ("Owners, times, attributes", "No package carries them: set them where they matter."),
        }
    }
}

/// What was noted of one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Noted {
    pub times: u64,
    /// The first ones, shortened; none of secrets.
    pub examples: Vec<String>,
}

/// All that was noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    noted: BTreeMap<(Concern, String), Noted>,
    /// Of concerns with more places than are kept.
    more: BTreeMap<Concern, u64>,
}

impl Review {
    pub const EXAMPLES: usize = 3;
    const EXAMPLE_CHARACTERS: usize = 80;
    /// So many places of one concern are kept.
    const PLACES: usize = 500;

    /// Notes one thing at `place`; `example` is asked where there is room for one, and may give none.
    pub fn note(&mut self, concern: Concern, place: &str, example: impl FnOnce() -> String) {
        let key = (concern, place.to_owned());
        let places =
            || self.noted.range((concern, String::new())..).take_while(|((one, _), _)| *one == concern).count();
        if !self.noted.contains_key(&key) && places() >= Self::PLACES {
            *self.more.entry(concern).or_default() += 1;
            return;
        }
        let noted = self.noted.entry(key).or_default();
        noted.times += 1;
        if noted.examples.len() < Self::EXAMPLES {
            let example: String = example().chars().take(Self::EXAMPLE_CHARACTERS).collect();
            if !example.is_empty() && !noted.examples.contains(&example) {
                noted.examples.push(example);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.noted.is_empty()
    }

    /// By concern, then by place.
    pub fn all(&self) -> impl Iterator<Item = (Concern, &str, &Noted)> {
        self.noted.iter().map(|((concern, place), noted)| (*concern, place.as_str(), noted))
    }
}

/// As a page for the reviewer: a heading for each concern, a line for each place.
impl fmt::Display for Review {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for (concern, place, noted) in self.all() {
            if last != Some(concern) {
                let (heading, advice) = concern.words();
                write!(f, "\n## {heading}\n\n{advice}\n\n")?;
                last = Some(concern);
            }
            write!(f, "- {place}")?;
            if noted.times > 1 {
                write!(f, " ({} times)", noted.times)?;
            }
            if !noted.examples.is_empty() {
                write!(f, ": {}", noted.examples.join("; ").replace(['\n', '\r'], " "))?;
            }
            writeln!(f)?;
        }
        for (concern, more) in &self.more {
            writeln!(f, "\nAnd {more} more of: {}", concern.words().0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_counted_and_places_are_bounded() {
        let mut review = Review::default();
        for n in 0..5 {
            review.note(Concern::Address, "table a, column b", || format!("https://{n}.example"));
        }
        review.note(Concern::Secret, "table users, column pass", String::new);
        let page = review.to_string();
        assert!(
            page.contains("- table a, column b (5 times): https://0.example; https://1.example; https://2.example\n")
        );
        assert!(page.contains("## Secrets\n") && page.contains("- table users, column pass\n"), "{page}");
        for n in 0..2 * Review::PLACES {
            review.note(Concern::Goes, &format!("row {n}"), String::new);
        }
        assert_eq!(review.all().count(), Review::PLACES + 2);
        assert!(review.to_string().contains("And 500 more of: What goes"));
    }
}
