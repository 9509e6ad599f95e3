//! Leases that die on their way to a program, over a link with 40 ms of round trip: a close that is under way when the
//! lease is taken can be seen by nobody.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream as Std},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prewarm_tests::{
    link::DelayedLink,
    needs::{self, Need},
    netns::Namespace,
};
use prewarm_user::{
    config::LeaseSettings,
    handover::relay::{Ended, Pipes, Relayed, Side, Upstream, relay},
    lease::{LeaseOrder, LeaseState, Pool, Reason, Take, Taker, TcpDialer},
    model::{Outcome, Timestamp},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{WAIT, connected, dial};

const ROUND_TRIP: Duration = Duration::from_millis(40);
const NEAR: &str = "10.78.0.1";
const FAR: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);

/// A near and a far host.
struct World {
    near: Namespace,
    listener: TcpListener,
    _far: Namespace,
    _link: DelayedLink,
}

fn world() -> Option<World> {
    if needs::skip(&[Need::Root]) {
        return None;
    }
    let (near, far) = (Namespace::create("near").unwrap(), Namespace::create("far").unwrap());
    let link = DelayedLink::join((&near, "pw-near"), (&far, "pw-far"), ROUND_TRIP).unwrap();
    near.ip(&["addr", "add", &format!("{NEAR}/24"), "dev", "pw-near"]).unwrap();
    far.ip(&["addr", "add", &format!("{FAR}/24"), "dev", "pw-far"]).unwrap();
    let listener = far.enter(|| Ok(TcpListener::bind((FAR, 0))?)).unwrap();
    Some(World { near, listener, _far: far, _link: link })
}

/// A client of a relay over a lease, and the origin's end of that.
struct Case {
    client: TcpStream,
    origin: Option<Std>,
    listener: TcpListener,
    relay: JoinHandle<Relayed>,
    pool: Pool,
    _outcomes: mpsc::Receiver<Outcome>,
}

impl World {
    /// Runs a case on the near host.
    fn run<F: Future<Output = ()>>(&self, case: impl FnOnce(Case) -> F + Send) {
        self.run_with("", case);
    }

    /// The same with an origin that says this first.
    fn run_with<F: Future<Output = ()>>(&self, greeting: &str, case: impl FnOnce(Case) -> F + Send) {
        let ran = self.near.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let all = async { case(start(self.listener.try_clone().unwrap(), greeting).await).await };
            Ok(runtime.block_on(async { timeout(WAIT, all).await })?)
        });
        ran.unwrap();
    }
}

async fn start(listener: TcpListener, greeting: &str) -> Case {
    let address = listener.local_addr().unwrap();
    let (sender, _outcomes) = mpsc::channel(8);
    let name = format!("origin.example:{}", address.port());
    let mut settings = LeaseSettings::default();
    if !greeting.is_empty() {
        settings.speaks_first = vec![name.clone()];
    }
    let dialer = Arc::new(TcpDialer::default());
    let pool = Pool::start(&settings, dialer, Arc::new(|_, _| Ok(())), sender, Timestamp::ZERO).unwrap();
    pool.lease(LeaseOrder {
        intent: None,
        reason: Reason::Wanted,
        origin: name.parse().unwrap(),
        addresses: vec![address.ip()],
        until: Timestamp::ZERO + Duration::from_secs(20),
    });
    while !pool.leases().iter().any(|lease| lease.state == LeaseState::Ready) {
        sleep(Duration::from_millis(2)).await;
    }
    let mut origin = listener.accept().unwrap().0;
    if !greeting.is_empty() {
        origin.write_all(greeting.as_bytes()).unwrap();
        sleep(ROUND_TRIP).await;
    }
    let Take::Lease(taken) = pool.take(address, &Taker::default()) else { panic!("the lease is ready") };
    let upstream = Upstream::lease(taken, &pool).unwrap();
    let (client, accepted) = connected().await;
    let relay = tokio::spawn(async move {
        let moved = AtomicU64::new(0);
        let relayed = relay(accepted, upstream, || dial(address), &Pipes::default(), &moved).await;
        assert_eq!(moved.load(Ordering::Relaxed), relayed.sent + relayed.received);
        relayed
    });
    Case { client, origin: Some(origin), listener, relay, pool, _outcomes }
}

impl Case {
    /// The fresh connection is to hear exactly this request and its answer to be all that the client hears.
    async fn expect_fresh(mut self, request: &[u8]) {
        let (listener, length) = (self.listener, request.len());
        let served = tokio::task::spawn_blocking(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = vec![0; length];
            stream.read_exact(&mut heard).unwrap();
            stream.write_all(b"fresh").unwrap();
            heard
        });
        let mut answer = Vec::new();
        self.client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"fresh");
        assert!(served.await.unwrap() == request, "the request arrives whole and once");
        drop(self.client);
        let relayed = self.relay.await.unwrap();
        assert!(relayed.replayed, "{relayed:?}");
        assert_eq!((relayed.sent, relayed.received), (length as u64, 5));
        assert_eq!(settled(&self.pool), (0, 1));
    }

    /// Whatever the origin did was passed on, and nobody else was asked.
    async fn expect_faithful(self, ended: Side) {
        drop(self.client);
        let relayed = self.relay.await.unwrap();
        assert!(!relayed.replayed, "{relayed:?}");
        match relayed.ended {
            Ended::Reset(side) => assert_eq!(side, ended),
            other => panic!("{other:?}"),
        }
        self.listener.set_nonblocking(true).unwrap();
        assert_eq!(self.listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(settled(&self.pool), (1, 0));
    }
}

fn settled(pool: &Pool) -> (u64, u64) {
    let counters = pool.counters();
    (counters.taken, counters.lost)
}

/// What is done at this time has not arrived anywhere yet.
async fn moment() {
    sleep(ROUND_TRIP / 8).await;
}

#[test]
fn a_lease_that_lives_is_used() {
    let Some(world) = world() else { return };
    world.run(|case| async move {
        let Case { mut client, origin, relay, pool, .. } = case;
        let mut origin = origin.unwrap();
        client.write_all(b"ask\n").await.unwrap();
        client.shutdown().await.unwrap();
        let answered = tokio::task::spawn_blocking(move || {
            let mut heard = Vec::new();
            origin.read_to_end(&mut heard).unwrap();
            origin.write_all(b"leased").unwrap();
            heard
        });
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!((&answer[..], &answered.await.unwrap()[..]), (&b"leased"[..], &b"ask\n"[..]));
        let relayed = relay.await.unwrap();
        assert!(
            matches!(relayed, Relayed { sent: 4, received: 6, replayed: false, ended: Ended::Closed }),
            "{relayed:?}"
        );
        assert_eq!(settled(&pool), (1, 0));
    });
}

/// The origin has closed; the request meets the close on the way, and is answered with a reset.
#[test]
fn a_request_that_meets_a_close_is_sent_again() {
    let Some(world) = world() else { return };
    for half_close in [false, true] {
        world.run(|mut case| async move {
            drop(case.origin.take());
            moment().await;
            case.client.write_all(b"ask\n").await.unwrap();
            if half_close {
                case.client.shutdown().await.unwrap();
            }
            case.expect_fresh(b"ask\n").await;
        });
    }
}

/// More than is kept at once: what is over waits in the client's own socket.
#[test]
fn a_long_request_that_meets_a_close_is_sent_again() {
    let Some(world) = world() else { return };
    world.run(|mut case| async move {
        drop(case.origin.take());
        moment().await;
        let request: Vec<u8> = (0..300_000_u32).map(|index| (index % 251) as u8).collect();
        let (from, mut to) = case.client.into_split();
        let said = request.clone();
        let saying = tokio::spawn(async move {
            to.write_all(&said).await.unwrap();
            to
        });
        let client = async { from.reunite(saying.await.unwrap()).unwrap() };
        // The upload ends only when the fresh connection takes it.
        let (listener, length) = (case.listener, request.len());
        let served = tokio::task::spawn_blocking(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = vec![0; length];
            stream.read_exact(&mut heard).unwrap();
            heard
        });
        drop(client.await);
        assert!(served.await.unwrap() == request, "the request arrives whole");
        assert!(case.relay.await.unwrap().replayed);
    });
}

/// The close arrives before the client has said anything: the client sees nothing of it.
#[test]
fn a_lease_that_closes_unused_is_replaced_in_silence() {
    let Some(world) = world() else { return };
    for reset in [false, true] {
        world.run(|mut case| async move {
            if reset {
                SockRef::from(case.origin.as_ref().unwrap()).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(case.origin.take());
            sleep(ROUND_TRIP * 3).await;
            case.client.write_all(b"ask\n").await.unwrap();
            case.expect_fresh(b"ask\n").await;
        });
    }
}

#[test]
fn a_request_that_meets_a_reset_is_sent_again() {
    let Some(world) = world() else { return };
    world.run(|mut case| async move {
        SockRef::from(case.origin.as_ref().unwrap()).set_linger(Some(Duration::ZERO)).unwrap();
        drop(case.origin.take());
        moment().await;
        case.client.write_all(b"ask\n").await.unwrap();
        case.expect_fresh(b"ask\n").await;
    });
}

/// A server that gives up on a silent client says so and closes; nobody asked for that answer.
#[test]
fn an_answer_to_nothing_is_never_passed_on() {
    let Some(world) = world() else { return };
    for early in [false, true] {
        world.run(|mut case| async move {
            let mut origin = case.origin.take().unwrap();
            origin.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
            drop(origin);
            if early {
                moment().await;
            } else {
                sleep(ROUND_TRIP * 2).await;
            }
            case.client.write_all(b"ask\n").await.unwrap();
            case.expect_fresh(b"ask\n").await;
        });
    }
}

/// The origin has only closed its own direction: it hears the request, and its silence is its answer.
#[test]
fn a_half_closed_origin_is_heard_out() {
    let Some(world) = world() else { return };
    world.run(|mut case| async move {
        let origin = case.origin.as_ref().unwrap();
        origin.shutdown(Shutdown::Write).unwrap();
        moment().await;
        case.client.write_all(b"ask\n").await.unwrap();
        assert_eq!(case.client.read(&mut [0]).await.unwrap(), 0, "the close is passed on");
        let mut heard = [0; 4];
        case.origin.as_mut().unwrap().read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"ask\n");
        SockRef::from(&case.client).set_linger(Some(Duration::ZERO)).unwrap();
        case.expect_faithful(Side::Client).await;
    });
}

/// The origin has read the request: what follows is its answer, also when it is a reset.
#[test]
fn a_request_that_was_read_is_never_sent_again() {
    let Some(world) = world() else { return };
    world.run(|mut case| async move {
        case.client.write_all(b"ask\n").await.unwrap();
        let mut origin = case.origin.take().unwrap();
        tokio::task::spawn_blocking(move || {
            origin.read_exact(&mut [0; 4]).unwrap();
            SockRef::from(&origin).set_linger(Some(Duration::ZERO)).unwrap();
        })
        .await
        .unwrap();
        let error = case.client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        case.expect_faithful(Side::Origin).await;
    });
}

#[test]
fn without_a_fresh_connection_the_client_is_reset() {
    let Some(world) = world() else { return };
    world.run(|mut case| async move {
        drop(case.origin.take());
        moment().await;
        case.client.write_all(b"ask\n").await.unwrap();
        // Closes it for all copies: from now on nobody gets a connection.
        SockRef::from(&case.listener).shutdown(Shutdown::Both).unwrap();
        let error = case.client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let relayed = case.relay.await.unwrap();
        assert!(matches!(relayed, Relayed { replayed: true, ended: Ended::Unreachable(_), .. }), "{relayed:?}");
    });
}

/// Where the server speaks first, what it said is what the client hears first, at once.
#[test]
fn a_greeting_is_delivered() {
    let Some(world) = world() else { return };
    world.run_with("220 ready\r\n", |mut case| async move {
        let mut greeting = [0; 11];
        timeout(ROUND_TRIP, case.client.read_exact(&mut greeting)).await.expect("it waits already").unwrap();
        assert_eq!(&greeting, b"220 ready\r\n");
        SockRef::from(&case.client).set_linger(Some(Duration::ZERO)).unwrap();
        case.expect_faithful(Side::Client).await;
    });
}
