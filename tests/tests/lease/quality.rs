//! What servers do to connections that wait, and what the pool learns from it.

use std::sync::atomic::{AtomicUsize, Ordering};

use prewarm_user::lease::OriginView;

use super::*;

/// A server that does the same to each connection, until the test ends.
struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    fn start(behave: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, behave) = (Arc::new(AtomicUsize::new(0)), Arc::new(behave));
        let count = Arc::clone(&accepted);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::Relaxed);
                let (stream, behave) = (stream.unwrap(), Arc::clone(&behave));
                std::thread::spawn(move || behave(stream));
            }
        });
        Self { address, accepted }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    fn bench(&self, change: impl FnOnce(&mut LeaseSettings)) -> Bench {
        let mut bench = Bench::new(change);
        bench.elsewhere = Some(self.address);
        bench
    }
}

fn known(bench: &Bench) -> OriginView {
    bench.pool.origins().into_iter().next().unwrap()
}

fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test]
async fn leases_end_before_a_server_ends_them() {
    let server = Server::start(|_stream| sleep_ms(2400));
    let bench = server.bench(|_| {});
    bench.keep_one();
    until("the server has closed the first", || bench.pool.counters().dead_closed == 1).await;
    let learnt = known(&bench);
    assert!(learnt.idle_learnt && (1.0..1.3).contains(&learnt.idle_seconds), "{learnt:?}");
    until("three were renewed in time", || bench.pool.counters().renewed == 3).await;
    assert_eq!(bench.pool.counters().dead, 1, "no other was closed by the server");
}

#[tokio::test]
async fn a_server_that_wants_no_idle_connections_gets_few() {
    for reset in [true, false] {
        let server = Server::start(move |stream| {
            sleep_ms(50);
            if reset {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        });
        let bench = server.bench(|settings| settings.backoff_seconds = 0.2);
        bench.keep_one();
        pass(3000).await;
        // Pauses of 200, 400, 800 ms and so on, not one connection each time that one is missing.
        assert!((3..=6).contains(&server.accepted()), "{} connections, resets: {reset}", server.accepted());
        let learnt = known(&bench);
        assert!(learnt.refuses_idle, "{learnt:?}");
        assert_eq!((learnt.taken, learnt.wasted), (0, learnt.dials), "{learnt:?}");
        assert!(bench.take().is_none());
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_found_out() {
    let server = Server::start(|mut stream| {
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        sleep_ms(20_000);
    });
    let mut bench = server.bench(|_| {});
    bench.pool.lease(bench.order(1, FAR));
    assert_eq!(bench.outcome().await, (1, Verdict::Wasted), "once may be an accident");
    assert!(!known(&bench).speaks_first);
    bench.pool.lease(bench.order(2, FAR));
    until("the second is known for what it is", || known(&bench).speaks_first && bench.ready() == 1).await;
    let taken = bench.take().unwrap();
    let mut greeting = [0; 24];
    let mut stream = TcpStream::from(taken.fd);
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 mail.example ESMTP\r\n");
    bench.pool.settle(taken.id, Fate::Used);
    assert!(matches!(bench.outcome().await, (2, Verdict::Used { .. })));
    // One that nobody takes within a second is closed, and not dialled again.
    bench.pool.lease(bench.order(3, FAR));
    until("it is there", || bench.ready() == 1).await;
    pass(1050).await;
    assert!(bench.take().is_none());
    assert_eq!(bench.outcome().await, (3, Verdict::Wasted));
    pass(200).await;
    assert_eq!((bench.ready(), server.accepted()), (0, 3));
}

#[tokio::test]
async fn a_408_before_the_close_reaches_nobody() {
    let server = Server::start(|mut stream| {
        sleep_ms(1100);
        stream.write_all(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n").unwrap();
    });
    let mut bench = server.bench(|settings| settings.per_origin = 8);
    (0..8).for_each(|intent| bench.pool.lease(bench.order(intent, FAR)));
    until("all are ready", || bench.ready() == 8).await;
    let born = tokio::time::Instant::now();
    // As a program would that comes at any moment around the end.
    let mut taken = Vec::new();
    while bench.ready() > 0 {
        if taken.len() < 3 && born.elapsed() > Duration::from_millis(1080) {
            taken.extend(bench.take().map(|taken| (taken.id, born.elapsed())));
        }
        pass(5).await;
    }
    for (id, after) in taken {
        assert!(after < Duration::from_millis(1200), "handed out {after:?} after the dial");
        bench.pool.settle(id, Fate::Lost);
    }
    for _ in 0..8 {
        assert_eq!(bench.outcome().await.1, Verdict::Wasted);
    }
    let learnt = known(&bench);
    assert!(!learnt.speaks_first && learnt.idle_learnt, "{learnt:?}");
}

#[tokio::test]
async fn silence_is_given_up_and_left_alone() {
    // A listener whose queue is full answers no more.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let mut bench = Bench::new(|settings| {
        settings.connect_timeout_seconds = 0.3;
        settings.backoff_seconds = 0.3;
    });
    bench.listener = socket.into();
    let _queued = TcpStream::connect(bench.address()).unwrap();
    bench.keep_one();
    pass(2500).await;
    let counters = bench.pool.counters();
    // Each takes 0.3 s, and is followed by 0.3, 0.6, 1.2 s.
    assert!((2..=4).contains(&counters.failed), "{counters:?}");
    assert_eq!(counters.refused, 0, "looking again is no refusal");
    let learnt = known(&bench);
    assert_eq!((learnt.dials, learnt.unreached, learnt.round_trip_ms), (0, counters.failed, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_steady_load_is_served_without_more_connections_than_it_takes() {
    let server = Server::start(|mut stream| drop(stream.read(&mut [0])));
    let bench = server.bench(|settings| settings.demand = true);
    bench.pool.lease(bench.order(1, Timestamp::ZERO + Duration::from_secs(1)));
    until("the lease is ready", || bench.ready() == 1).await;
    let (mut hits, mut most) = (0, 0);
    for _ in 0..100 {
        if let Some(taken) = bench.take() {
            hits += 1;
            bench.pool.settle(taken.id, Fate::Used);
        }
        most = most.max(bench.pool.leases().len());
        pass(20).await;
    }
    assert!(hits >= 80, "{hits} of 100");
    let counters = bench.pool.counters();
    assert!(most <= 4 && counters.opened <= counters.taken + 4, "{most} at once, {counters:?}");
    let learnt = known(&bench);
    assert_eq!((learnt.taken, learnt.missed), (hits, 100 - hits));
    assert!(learnt.saved_ms > 0.0 && learnt.rate > 0.5, "{learnt:?}");
}

#[tokio::test]
async fn who_binds_another_address_or_sets_a_mark_gets_none() {
    let bench = Bench::new(|_| {});
    let _far_end = bench.lease(1).await;
    let takes = |change: fn(&mut Taker)| {
        let mut taker = Taker::default();
        change(&mut taker);
        matches!(bench.pool.take(bench.address(), &taker), Take::Lease(_))
    };
    assert!(!takes(|taker| taker.source = Some([127, 0, 0, 2].into())));
    assert!(!takes(|taker| taker.mark = 7));
    assert!(takes(|taker| taker.source = Some([127, 0, 0, 1].into())), "as the kernel chose");
}

#[tokio::test]
async fn probes_of_ours_stay_with_us() {
    let mut bench = Bench::new(|_| {});
    let (sender, outcomes) = mpsc::channel(64);
    let dialer = Arc::new(TcpDialer { keepalive: true, ..TcpDialer::default() });
    bench.pool = Pool::start(&LeaseSettings::default(), dialer, allow_all(), sender, Timestamp::ZERO).unwrap();
    bench.outcomes = outcomes;
    let _far_end = bench.lease(1).await;
    let taken = bench.take().unwrap();
    let socket = socket2::SockRef::from(&taken.fd);
    assert_eq!((socket.keepalive().unwrap(), socket.tcp_user_timeout().unwrap()), (false, None));
}

#[tokio::test]
async fn an_address_out_of_date_is_exchanged() {
    let bench = Bench::new(|_| {});
    let moved = TcpListener::bind(("127.0.0.2", bench.address().port())).unwrap();
    let mut far_end = bench.lease(1).await;
    // The look-up that went beside the dial says something else.
    bench.pool.correct(IntentId(1), &[[127, 0, 0, 2].into()]);
    until("the right one is there", || bench.ready() == 1).await;
    assert_eq!(far_end.read(&mut [0]).unwrap(), 0, "the wrong one is closed");
    assert!(bench.take().is_none());
    let take = bench.pool.take(moved.local_addr().unwrap(), &Taker::default());
    assert!(matches!(take, Take::Lease(taken) if taken.intent == Some(IntentId(1))));
}

#[tokio::test]
async fn any_address_of_an_origin_is_taken_by_name() {
    let bench = Bench::new(|_| {});
    let _far_end = bench.lease(1).await;
    let origin = bench.origin().parse().unwrap();
    assert!(matches!(bench.pool.take_from(&"other.example:1".parse().unwrap(), &Taker::default()), Take::Miss { .. }));
    let take = bench.pool.take_from(&origin, &Taker::default());
    assert!(matches!(take, Take::Lease(taken) if taken.destination == bench.address()));
    assert!(matches!(bench.pool.take_from(&origin, &Taker::default()), Take::Miss { late: false }));
}
