//! Leases on offer outside the pool, over real connections: exactly one of pool and claimer gets each.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use prewarm_user::lease::{Offers, Recalled, Token};

use super::*;

#[derive(Default)]
struct Market(Mutex<HashMap<Token, SocketAddr>>);

impl Market {
    fn claim(&self) -> Option<Token> {
        let mut offers = self.0.lock().unwrap();
        let token = offers.keys().next().copied()?;
        offers.remove(&token);
        Some(token)
    }
}

impl Offers for Market {
    fn offer(&self, token: Token, destination: SocketAddr) -> io::Result<()> {
        self.0.lock().unwrap().insert(token, destination);
        Ok(())
    }

    fn recall(&self, token: Token, _destination: SocketAddr) -> Recalled {
        if self.0.lock().unwrap().remove(&token).is_some() { Recalled::Ours } else { Recalled::Claimed }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_lease_goes_to_one_of_pool_and_claimers() {
    const LEASES: usize = 60;
    let bench = Bench::new(|settings| {
        settings.per_origin = 64;
        settings.per_address = 256;
        settings.dial_burst = 100;
    });
    let market = Arc::new(Market::default());
    bench.pool.offer_to(market.clone());
    for intent in 0..LEASES {
        bench.pool.lease(bench.order(intent as u64, FAR));
    }
    until("all are ready", || bench.ready() == LEASES).await;
    let (address, taken, redeemed) = (bench.address(), AtomicUsize::new(0), AtomicUsize::new(0));
    let seen = Mutex::new(HashSet::new());
    let got = |count: &AtomicUsize, taken: Taken| {
        assert_eq!(taken.destination, address);
        assert!(seen.lock().unwrap().insert(local(&taken.fd)), "a connection in two hands");
        count.fetch_add(1, Ordering::Relaxed);
        bench.pool.settle(taken.id, Fate::Used);
    };
    let all = || taken.load(Ordering::Relaxed) + redeemed.load(Ordering::Relaxed) == LEASES;
    let deadline = std::time::Duration::from_secs(10);
    let begun = tokio::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !all() && begun.elapsed() < deadline {
                    if let Take::Lease(lease) = bench.pool.take(address, &Taker::default()) {
                        got(&taken, lease);
                    }
                    std::thread::yield_now();
                }
            });
            scope.spawn(|| {
                while !all() && begun.elapsed() < deadline {
                    let Some(token) = market.claim() else {
                        std::thread::yield_now();
                        continue;
                    };
                    // Between claim and redemption others ask the pool.
                    std::thread::sleep(Duration::from_micros(200));
                    let lease = bench.pool.redeem(token).expect("what was claimed is there");
                    got(&redeemed, lease);
                    assert!(bench.pool.redeem(token).is_none(), "once");
                }
            });
        }
    });
    assert!(all(), "{taken:?} and {redeemed:?}");
    assert!(redeemed.into_inner() > 0 && taken.into_inner() > 0, "nobody contended");
    let counters = bench.pool.counters();
    assert_eq!((counters.taken, counters.unredeemed, counters.guessed), (LEASES as u64, 0, 0));
    assert_eq!((bench.ready(), market.0.lock().unwrap().len()), (0, 0));
}

#[tokio::test]
async fn a_claim_that_nobody_redeems_comes_back() {
    let bench = Bench::new(|_| {});
    let market = Arc::new(Market::default());
    let _far_end = bench.lease(1).await;
    // What waits already is on offer too.
    bench.pool.offer_to(market.clone());
    let token = market.claim().unwrap();
    assert!(bench.take().is_none());
    assert_eq!(bench.pool.leases()[0].state, LeaseState::Claimed);
    until("it is back", || bench.ready() == 1).await;
    assert!(bench.pool.redeem(token).is_none());
    assert!(bench.take().is_some());
    assert_eq!((bench.pool.counters().claimed, bench.pool.counters().unredeemed), (1, 1));
}

#[tokio::test]
async fn a_claimed_connection_that_the_origin_closed_is_not_redeemed() {
    let mut bench = Bench::new(|_| {});
    let market = Arc::new(Market::default());
    bench.pool.offer_to(market.clone());
    let far_end = bench.lease(1).await;
    let token = market.claim().unwrap();
    drop(far_end);
    assert!(bench.pool.redeem(token).is_none());
    assert_eq!(bench.outcome().await, (1, Verdict::Wasted));
}
