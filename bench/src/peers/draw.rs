//! Random orders and samples that come again.
//!
//! Owns the small generator that they are drawn from. The same seed gives the same draws on any machine.

/// SplitMix64: small, seeded, good enough to draw orders and samples.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// Draws of their own for each purpose of a run.
    pub fn new(seed: u64, purpose: &str) -> Draw {
        // FNV-1a: two purposes of one seed must have nothing to do with each other.
        let mixed = purpose.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Draw(mixed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not zero.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// The numbers below `n`, in random order.
    pub fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_everyone_once_and_comes_again() {
        let order = Draw::new(3, "echo-64/0").order(50);
        assert_eq!(order, Draw::new(3, "echo-64/0").order(50));
        assert_ne!(order, Draw::new(3, "echo-64/1").order(50));
        assert_ne!(order, Draw::new(4, "echo-64/0").order(50));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_ne!(order, sorted);
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn every_place_is_as_likely_as_any_other() {
        let mut first = [0u32; 4];
        for block in 0..4_000 {
            first[Draw::new(9, &format!("x/{block}")).order(4)[0]] += 1;
        }
        assert!(first.iter().all(|count| (850..1_150).contains(count)), "{first:?}");
    }
}
