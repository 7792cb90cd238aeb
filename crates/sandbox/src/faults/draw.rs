//! Numbers that follow from a seed and a name, and look like chance.

use std::time::Duration;

/// A sequence of numbers for one purpose (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Draw(u64);

impl Draw {
    /// The sequence of a seed for what the names name.
    pub(super) fn new(seed: u64, names: &[u64]) -> Self {
        let mut draw = Self(seed);
        for name in names {
            draw = Self(draw.next() ^ name.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        draw
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0 and less than 1.
    pub(super) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Less than the longest, to the millisecond.
    pub(super) fn within(&mut self, longest: Duration) -> Duration {
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(self.next() % millis)
    }

    /// One of so many, which are at least one.
    pub(super) fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % length).unwrap_or_default()
    }
}

/// A name as a number (FNV-1a, 64 bits), the same in every build.
pub(super) fn hash(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_follow_from_seed_and_name() {
        let share = |number| Draw::new(7, &[number]).share();
        let below = (0..10_000).filter(|number| share(*number) < 0.25).count();
        assert!((2_300..2_700).contains(&below), "{below}");
        assert_eq!(share(3), share(3));
        assert_ne!(share(3), Draw::new(8, &[3]).share());
    }
}
