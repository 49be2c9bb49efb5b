//! Random numbers that follow from a seed, the same in every run.

/// Xorshift: good enough to choose by.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero, and small seeds would begin alike.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1))
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_gives_numbers_of_its_own() {
        let first = |seed| {
            let mut dice = Dice::new(seed);
            [(); 4].map(|()| dice.below(1000))
        };
        assert_eq!(first(7), first(7));
        for seed in [0, 1, 8, u64::MAX] {
            assert_ne!(first(seed), first(7));
            assert_ne!(first(seed), [first(seed)[0]; 4]);
        }
    }
}
