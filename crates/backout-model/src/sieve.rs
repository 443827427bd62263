//! Many things by a short hash of each: told of what was put in that it may be there, never that it is missing.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// A set of bits of bounded size.
pub struct Sieve(Vec<u64>);

impl Sieve {
    /// For `count` things, 64 bits each, and no more than `most` bits in all. At 64 bits each one in sixty-four is let
    /// through for nothing.
    #[must_use]
    pub fn new(count: u64, most: u64) -> Self {
        Self(vec![0; (count.saturating_mul(64).clamp(64, most) / 64) as usize])
    }

    fn place(&self, parts: impl IntoIterator<Item: Hash>) -> (usize, u64) {
        let mut hasher = DefaultHasher::new();
        parts.into_iter().for_each(|part| part.hash(&mut hasher));
        let bit = hasher.finish() % (self.0.len() as u64 * 64);
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    /// Puts in what has these parts.
    pub fn put(&mut self, parts: impl IntoIterator<Item: Hash>) {
        let (word, bit) = self.place(parts);
        self.0[word] |= bit;
    }

    /// True for whatever was put in with these parts; for all else false, as a rule.
    pub fn may_hold(&self, parts: impl IntoIterator<Item: Hash>) -> bool {
        let (word, bit) = self.place(parts);
        self.0[word] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_held_and_most_else_is_not() {
        let mut sieve = Sieve::new(1000, 1 << 20);
        (0..1000).for_each(|one| sieve.put([one]));
        assert!((0..1000).all(|one| sieve.may_hold([one])));
        let let_through = (1000..11_000).filter(|one| sieve.may_hold([*one])).count();
        assert!(let_through < 500, "{let_through} of 10,000");
    }

    #[test]
    fn it_is_no_larger_than_it_may_be() {
        assert_eq!(Sieve::new(0, 128).0.len(), 1);
        assert_eq!(Sieve::new(u64::MAX, 128).0.len(), 2);
    }
}
