//! Leases over real sockets: what an origin does to a waiting connection, and what the pool makes of it.

#[path = "lease/offers.rs"]
mod offers;
#[path = "lease/quality.rs"]
mod quality;
#[path = "lease/warm.rs"]
mod warm;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use prewarm_user::{
    config::LeaseSettings,
    lease::{Fate, Guard, LeaseOrder, LeaseState, Pool, Reason, Take, Taken, Taker, TcpDialer, netns_cookie},
    model::{IntentId, Outcome, ResourceId, Timestamp, Verdict},
};
use tokio::sync::mpsc;

/// A pool, the origin it leases from, and the origin's ends of the connections.
struct Bench {
    listener: TcpListener,
    pool: Pool,
    outcomes: mpsc::Receiver<Outcome>,
    /// Where the origin is, if not at the listener.
    elsewhere: Option<SocketAddr>,
}

const FAR: Timestamp = Timestamp::from_nanos(u64::MAX);

fn allow_all() -> Guard {
    Arc::new(|_, _| Ok(()))
}

impl Bench {
    fn new(change: impl FnOnce(&mut LeaseSettings)) -> Self {
        Self::guarded(change, allow_all())
    }

    fn guarded(change: impl FnOnce(&mut LeaseSettings), guard: Guard) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Only where it is looked at: a test says which connections there are.
        let mut settings = LeaseSettings { demand: false, ..LeaseSettings::default() };
        change(&mut settings);
        let (sender, outcomes) = mpsc::channel(64);
        let pool = Pool::start(&settings, Arc::new(TcpDialer::default()), guard, sender, Timestamp::ZERO).unwrap();
        Self { listener, pool, outcomes, elsewhere: None }
    }

    fn address(&self) -> SocketAddr {
        self.elsewhere.unwrap_or_else(|| self.listener.local_addr().unwrap())
    }

    fn origin(&self) -> String {
        format!("origin.example:{}", self.address().port())
    }

    fn order(&self, intent: u64, until: Timestamp) -> LeaseOrder {
        LeaseOrder {
            intent: Some((IntentId(intent), ResourceId(intent))),
            reason: Reason::predicted(IntentId(intent), 0.9),
            origin: self.origin().parse().unwrap(),
            addresses: vec![self.address().ip()],
            until,
        }
    }

    /// Opens a lease of no more use than its idle time; the origin's end of it.
    async fn lease(&self, intent: u64) -> TcpStream {
        let before = self.ready();
        self.pool.lease(self.order(intent, Timestamp::ZERO + Duration::from_secs(20)));
        until("the lease is ready", || self.ready() == before + 1).await;
        self.listener.accept().unwrap().0
    }

    /// One lease is wanted for good.
    fn keep_one(&self) {
        self.pool.want(self.origin().parse().unwrap(), vec![self.address().ip()], FAR, 1);
    }

    fn ready(&self) -> usize {
        self.pool.leases().iter().filter(|lease| lease.state == LeaseState::Ready).count()
    }

    fn take(&self) -> Option<Taken> {
        match self.pool.take(self.address(), &Taker::default()) {
            Take::Lease(taken) => Some(taken),
            Take::Miss { .. } => None,
        }
    }

    async fn outcome(&mut self) -> (u64, Verdict) {
        let outcome = tokio::time::timeout(Duration::from_secs(10), self.outcomes.recv()).await.unwrap().unwrap();
        (outcome.intent.0, outcome.verdict)
    }
}

/// Waits for a state.
async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if reached() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain until {what}");
}

fn from(netns: u64) -> Taker {
    Taker { netns: Some(netns), ..Taker::default() }
}

fn local(fd: &OwnedFd) -> SocketAddr {
    socket2::SockRef::from(fd).local_addr().unwrap().as_socket().unwrap()
}

#[tokio::test]
async fn a_lease_is_the_connection_that_the_origin_has() {
    let mut bench = Bench::new(|_| {});
    let mut far_end = bench.lease(1).await;
    let taken = bench.take().unwrap();
    assert_eq!(local(&taken.fd), far_end.peer_addr().unwrap());
    assert!(socket2::SockRef::from(&taken.fd).tcp_nodelay().unwrap());
    assert!(!socket2::SockRef::from(&taken.fd).nonblocking().unwrap());
    assert!(taken.rtt < Duration::from_millis(100) && !taken.rtt.is_zero(), "{:?}", taken.rtt);
    bench.pool.settle(taken.id, Fate::Used);
    assert_eq!(bench.outcome().await, (1, Verdict::Used { saved: taken.rtt }));
    // The only copy is the taker's: closing it closes the connection.
    TcpStream::from(taken.fd).write_all(b"hello").unwrap();
    let mut text = String::new();
    far_end.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert!(bench.take().is_none());
}

#[tokio::test]
async fn a_lease_of_another_network_namespace_is_not_given() {
    let bench = Bench::new(|_| {});
    let far_end = bench.lease(1).await;
    let here = netns_cookie(far_end.as_fd()).unwrap();
    assert!(matches!(bench.pool.take(bench.address(), &from(here + 1)), Take::Miss { late: false }));
    assert!(matches!(bench.pool.take(bench.address(), &from(here)), Take::Lease(_)));
}

#[tokio::test]
async fn a_closed_lease_is_buried_and_its_age_remembered() {
    let mut bench = Bench::new(|_| {});
    let far_end = bench.lease(1).await;
    drop(far_end);
    assert_eq!(bench.outcome().await, (1, Verdict::Wasted));
    let counters = bench.pool.counters();
    assert_eq!((counters.dead, counters.dead_closed, bench.ready()), (1, 1, 0));
    let _far_end = bench.lease(2).await;
    let expires = bench.pool.leases()[0].expires_in_seconds.unwrap();
    assert!(expires <= 1.0, "the origin closes at once: {expires}");
}

#[tokio::test]
async fn a_close_that_nobody_has_seen_yet_is_seen_at_the_take() {
    let bench = Bench::new(|_| {});
    let first = bench.lease(1).await;
    let second = bench.lease(2).await;
    drop(first);
    // No await in between: the pool's keeper has not run since.
    let taken = bench.take().unwrap();
    assert_eq!(local(&taken.fd), second.peer_addr().unwrap());
    assert_eq!(bench.pool.counters().dead_closed, 1);
}

#[tokio::test]
async fn a_reset_lease_is_buried_and_the_origin_left_alone() {
    let mut bench = Bench::new(|_| {});
    let far_end = bench.lease(1).await;
    socket2::SockRef::from(&far_end).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far_end);
    assert_eq!(bench.outcome().await, (1, Verdict::Wasted));
    assert_eq!(bench.pool.counters().dead_reset, 1);
    bench.pool.lease(bench.order(2, FAR));
    assert_eq!(bench.outcome().await, (2, Verdict::Refused));
    assert_eq!(bench.pool.counters().refused_backoff, 1);
}

#[tokio::test]
async fn stray_bytes_bury_a_lease() {
    let mut bench = Bench::new(|_| {});
    let mut far_end = bench.lease(1).await;
    far_end.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
    assert_eq!(bench.outcome().await, (1, Verdict::Wasted));
    assert_eq!(bench.pool.counters().dead_spoke, 1);
    assert!(bench.take().is_none());
}

#[tokio::test]
async fn a_greeting_stays_for_the_taker_where_the_server_speaks_first() {
    // The port is known only now, so the pool is made twice.
    let mut bench = Bench::new(|_| {});
    let origin = bench.origin();
    let settings = LeaseSettings { speaks_first: vec![origin], ..LeaseSettings::default() };
    let (sender, outcomes) = mpsc::channel(64);
    bench.pool = Pool::start(&settings, Arc::new(TcpDialer::default()), allow_all(), sender, Timestamp::ZERO).unwrap();
    bench.outcomes = outcomes;

    let mut far_end = bench.lease(1).await;
    far_end.write_all(b"220 ready\r\n").unwrap();
    let taken = bench.take().unwrap();
    let mut greeting = [0; 11];
    TcpStream::from(taken.fd).read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    bench.pool.settle(taken.id, Fate::Used);
    assert!(matches!(bench.outcome().await, (1, Verdict::Used { .. })));

    let mut far_end = bench.lease(2).await;
    far_end.write_all(b"421 too long\r\n").unwrap();
    drop(far_end);
    assert_eq!(bench.outcome().await, (2, Verdict::Wasted), "bytes with a close behind them are nobody's greeting");
    assert!(bench.take().is_none());
}

#[tokio::test]
async fn an_unused_lease_is_closed_in_time() {
    let mut bench = Bench::new(|settings| settings.idle_seconds = 0.3);
    bench.pool.lease(bench.order(1, Timestamp::ZERO));
    until("the lease is ready", || bench.ready() == 1).await;
    let mut far_end = bench.listener.accept().unwrap().0;
    assert_eq!(bench.outcome().await, (1, Verdict::Wasted));
    assert_eq!(far_end.read(&mut [0]).unwrap(), 0, "the origin sees the close");
    assert_eq!((bench.pool.counters().expired, bench.ready()), (1, 0));
}

#[tokio::test]
async fn a_lease_that_is_still_expected_is_renewed() {
    let mut bench = Bench::new(|settings| settings.idle_seconds = 0.2);
    bench.pool.lease(bench.order(1, Timestamp::ZERO + Duration::from_secs(20)));
    until("the lease is ready", || bench.ready() == 1).await;
    let mut first = bench.listener.accept().unwrap().0;
    until("it was renewed", || bench.pool.counters().renewed >= 1 && bench.ready() == 1).await;
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    let taken = bench.take().unwrap();
    bench.pool.settle(taken.id, Fate::Used);
    assert!(matches!(bench.outcome().await, (1, Verdict::Used { .. })));
    assert!(bench.outcomes.try_recv().is_err(), "one outcome for one intent");
}

#[tokio::test]
async fn what_is_wanted_is_kept_open() {
    let bench = Bench::new(|settings| settings.idle_seconds = 0.5);
    bench.pool.want(bench.origin().parse().unwrap(), vec![bench.address().ip()], FAR, 2);
    until("both are there", || bench.ready() == 2).await;
    let taken = bench.take().unwrap();
    bench.pool.settle(taken.id, Fate::Used);
    until("the one that was taken is replaced", || bench.ready() == 2).await;
    drop(bench.listener.accept().unwrap());
    until("those that expired are replaced", || bench.pool.counters().renewed >= 2 && bench.ready() == 2).await;
    bench.pool.want(bench.origin().parse().unwrap(), vec![], FAR, 0);
}

#[tokio::test]
async fn a_program_that_comes_too_early_is_late() {
    // A listener whose queue is full does not answer.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let mut bench = Bench::new(|settings| settings.connect_timeout_seconds = 1.0);
    bench.listener = socket.into();
    let _queued = TcpStream::connect(bench.address()).unwrap();
    bench.pool.lease(bench.order(1, FAR));
    tokio::task::yield_now().await;
    assert!(matches!(bench.pool.take(bench.address(), &Taker::default()), Take::Miss { late: true }));
    assert_eq!(bench.outcome().await, (1, Verdict::Late));
    until("the dial has timed out", || bench.pool.counters().failed == 1).await;
    assert!(matches!(bench.pool.take(bench.address(), &Taker::default()), Take::Miss { late: false }));
    assert!(bench.outcomes.try_recv().is_err(), "one outcome for one intent");
}

#[tokio::test]
async fn limits_hold() {
    let mut bench = Bench::new(|settings| settings.per_origin = 3);
    for intent in 0..5 {
        bench.pool.lease(bench.order(intent, FAR));
    }
    assert_eq!(bench.outcome().await, (3, Verdict::Refused));
    assert_eq!(bench.outcome().await, (4, Verdict::Refused));
    until("three are ready", || bench.ready() == 3).await;
    assert_eq!((bench.pool.counters().opened, bench.pool.counters().refused_limit), (3, 2));
}

#[tokio::test]
async fn an_origin_that_refuses_is_left_alone_for_longer_and_longer() {
    let mut bench = Bench::new(|settings| settings.backoff_seconds = 0.05);
    let address = bench.address();
    bench.listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let order = |intent| LeaseOrder {
        origin: format!("gone.example:{}", address.port()).parse().unwrap(),
        ..bench.order(intent, FAR)
    };
    let orders: Vec<_> = (0..50).map(order).collect();
    let (mut failed, mut refused) = (0, 0);
    let begun = tokio::time::Instant::now();
    for order in orders {
        bench.pool.lease(order);
        match bench.outcome().await.1 {
            Verdict::Failed => failed += 1,
            Verdict::Refused => refused += 1,
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Pauses of 50, 100, 200 ms … in something over 250 ms.
    let most = 2 + (begun.elapsed().as_millis() / 50).ilog2();
    assert!((2..=most).contains(&failed), "{failed} dials in {:?}", begun.elapsed());
    assert_eq!(failed + refused, 50);
    assert_eq!(bench.pool.counters().failed, u64::from(failed));
}

#[tokio::test]
async fn the_guard_is_asked_about_the_address() {
    let guard: Guard = Arc::new(|address, port| Err(format!("{address} port {port} is private")));
    let mut bench = Bench::guarded(|_| {}, guard);
    bench.pool.lease(bench.order(1, FAR));
    assert_eq!(bench.outcome().await, (1, Verdict::Refused));
    assert_eq!(bench.pool.counters().refused_guard, 1);
    bench.listener.set_nonblocking(true).unwrap();
    assert!(bench.listener.accept().is_err(), "nothing was opened");
}

#[tokio::test]
async fn a_lease_that_comes_back_is_watched_again() {
    let mut bench = Bench::new(|_| {});
    let far_end = bench.lease(1).await;
    let taken = bench.take().unwrap();
    bench.pool.settle(taken.id, Fate::Unfit(taken.fd));
    assert_eq!((bench.ready(), bench.pool.counters().given_back), (1, 1));
    drop(far_end);
    assert_eq!(bench.outcome().await, (1, Verdict::Wasted));
    assert_eq!(bench.pool.counters().dead_closed, 1);
}

#[tokio::test]
async fn draining_closes_everything_and_accounts_for_it() {
    let mut bench = Bench::new(|_| {});
    let mut far_end = bench.lease(1).await;
    bench.pool.drain().await;
    assert_eq!(bench.outcome().await, (1, Verdict::Wasted));
    assert_eq!(far_end.read(&mut [0]).unwrap(), 0);
    bench.pool.lease(bench.order(2, FAR));
    assert_eq!(bench.outcome().await, (2, Verdict::Refused));
    assert_eq!((bench.pool.counters().drained, bench.pool.counters().refused_draining), (1, 1));
}

#[tokio::test]
async fn outcomes_that_nobody_reads_are_counted() {
    let mut bench = Bench::new(|settings| settings.total = 0);
    for intent in 0..70 {
        bench.pool.lease(bench.order(intent, FAR));
    }
    assert_eq!(bench.pool.counters().outcomes_dropped, 6);
    assert_eq!(bench.outcome().await, (0, Verdict::Refused));
}
