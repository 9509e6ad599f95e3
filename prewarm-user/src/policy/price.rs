//! The price controller: warm-ups get dearer when too many go unused, and cheaper when too few are tried.
//!
//! Comes in: an unused warm-up, or an access that would have been cold without one, whether it was or not. Goes out: the
//! factor on a warm-up's cost.

/// One kind's price.
#[derive(Clone, Copy, Debug)]
pub(super) struct Price {
    /// Logarithm of the factor.
    log: f64,
    /// Unused warm-ups allowed for each access that would have been cold.
    budget: f64,
}

/// How far one unused warm-up moves the price: forty of them in a row double it three times.
const STEP: f64 = 0.05;
/// The price never falls below an eighth, where a warm-up is nearly free, and never exceeds 64 times the cost.
const BOUNDS: (f64, f64) = (-2.08, 4.16);

impl Price {
    pub(super) const fn new(budget: f64) -> Self {
        Self { log: 0.0, budget }
    }

    /// Allows another share of unused warm-ups from now on.
    pub(super) const fn set_budget(&mut self, budget: f64) {
        self.budget = budget;
    }

    /// A warm-up went unused.
    pub(super) fn wasted(&mut self) {
        self.log = (self.log + STEP).min(BOUNDS.1);
    }

    /// An access found nothing ready, or only what we made ready. In balance, `wasted` comes `budget` times as often as
    /// this. Counting only what was missed would take the budget away from whoever predicts well.
    pub(super) fn wanted(&mut self) {
        self.log = (self.log - STEP * self.budget).max(BOUNDS.0);
    }

    /// The factor on the cost.
    pub(super) fn factor(&self) -> f64 {
        self.log.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_waste_at_the_budget() {
        // A world in which a candidate's probability is uniform and its cost a quarter of what it saves.
        let mut price = Price::new(0.5);
        let (mut wasted, mut wanted) = (0.0, 0.0);
        let mut seed = 1u64;
        let mut uniform = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 11) as f64 / (1u64 << 53) as f64
        };
        for round in 0..40_000 {
            let p = uniform().powi(3);
            let used = uniform() < p;
            let tried = p * 40.0 - (1.0 - p) * 10.0 * price.factor() > 0.0;
            match (tried, used) {
                (true, false) => price.wasted(),
                (_, true) => price.wanted(),
                (false, false) => (),
            }
            if round > 10_000 {
                wasted += f64::from(u8::from(tried && !used));
                wanted += f64::from(u8::from(used));
            }
        }
        let ratio = wasted / wanted;
        assert!((0.45..0.55).contains(&ratio), "{ratio}");
    }

    #[test]
    fn stays_within_bounds() {
        let mut price = Price::new(10.0);
        (0..10_000).for_each(|_| price.wasted());
        assert!(price.factor() <= 65.0);
        (0..10_000).for_each(|_| price.wanted());
        assert!(price.factor() >= 0.12);
    }
}
