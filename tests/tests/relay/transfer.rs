//! Bytes, closes and resets through a relay.

use std::{hash::Hasher as _, io::ErrorKind, sync::Arc, time::Duration};

use prewarm_user::handover::relay::{Ended, Pipes, Side};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Pair, WAIT};

/// Numbers that look random and are the same in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 ^ (self.0 >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Small, large, and nothing at all in turn.
    fn size(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1..=3 => self.below(2_000),
            4..=6 => self.below(300_000),
            _ => self.below(3_000_000),
        }
    }
}

fn hash() -> std::hash::DefaultHasher {
    std::hash::DefaultHasher::new()
}

/// Sends so many bytes in pieces of all sizes, closes, and gives their hash.
async fn send(mut to: OwnedWriteHalf, size: u64, seed: u64) -> u64 {
    let (mut chance, mut hash, mut left) = (Chance(seed), hash(), size);
    while left > 0 {
        let length = left.min(1 + chance.below(100_000));
        let piece: Vec<u8> = (0..length).map(|_| chance.next() as u8).collect();
        hash.write(&piece);
        to.write_all(&piece).await.unwrap();
        if chance.below(5) == 0 {
            sleep(Duration::from_micros(chance.below(2_000))).await;
        }
        left -= length;
    }
    to.shutdown().await.unwrap();
    hash.finish()
}

/// Reads to the end, slowly if told so, and gives the hash.
async fn receive(mut from: OwnedReadHalf, slow: bool) -> (u64, u64) {
    let (mut hash, mut size, mut buffer) = (hash(), 0, vec![0; 16 << 10]);
    loop {
        let read = from.read(&mut buffer).await.unwrap();
        if read == 0 {
            return (size, hash.finish());
        }
        hash.write(&buffer[..read]);
        size += read as u64;
        if slow {
            sleep(Duration::from_micros(200)).await;
        }
    }
}

async fn transfer(pipes: Arc<Pipes>, seed: u64) {
    let mut chance = Chance(seed);
    let (up, down, slow) = (chance.size(), chance.size(), chance.below(6));
    let pair = Pair::new(&pipes).await;
    let Pair { client, origin, relay, moved } = pair;
    let (client_in, client_out) = client.into_split();
    let (origin_in, origin_out) = origin.into_split();
    // A third of the origins say nothing before the client has closed its direction.
    let waits = chance.below(3) == 0;
    let origin = async {
        if waits {
            let heard = receive(origin_in, slow == 1).await;
            (heard, send(origin_out, down, seed + 2).await)
        } else {
            tokio::join!(receive(origin_in, slow == 1), send(origin_out, down, seed + 2))
        }
    };
    let both = async { tokio::join!(send(client_out, up, seed + 1), receive(client_in, slow == 0), origin) };
    let (sent, (received, received_hash), ((heard, heard_hash), said)) =
        timeout(WAIT * 3, both).await.unwrap_or_else(|_| panic!("transfer {seed} hangs: {up} up, {down} down"));
    assert_eq!((heard, heard_hash), (up, sent), "transfer {seed} up");
    assert_eq!((received, received_hash), (down, said), "transfer {seed} down");
    let relayed = timeout(WAIT, relay).await.expect("the relay ends").unwrap();
    assert!(matches!(relayed.ended, Ended::Closed), "{relayed:?}");
    assert_eq!((relayed.sent, relayed.received), (up, down));
    assert_eq!(moved.load(std::sync::atomic::Ordering::Relaxed), up + down);
}

/// Transfers of all sizes with half-close in both orders, many at once, through few pipes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_arrives() {
    let pipes = Arc::new(Pipes::new(5));
    let mut running = JoinSet::new();
    for seed in 0..400 {
        while running.len() >= 24 {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(transfer(Arc::clone(&pipes), seed * 1000));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

/// What a client can push towards an origin that reads nothing is bounded by socket buffers and one pipe.
#[tokio::test]
async fn nothing_piles_up() {
    for pipes in [0, 1] {
        let Pair { mut client, mut origin, relay, .. } = Pair::new(&Arc::new(Pipes::new(pipes))).await;
        let piece = vec![7; 1 << 20];
        let mut pushed = 0_u64;
        while let Ok(written) = timeout(Duration::from_millis(500), client.write(&piece)).await {
            pushed += written.unwrap() as u64;
            assert!(pushed < 64 << 20, "{pushed} bytes are nowhere");
        }
        drop(client.shutdown().await);
        let mut arrived = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match timeout(WAIT, origin.read(&mut buffer)).await.unwrap().unwrap() {
                0 => break,
                read => arrived += read as u64,
            }
        }
        assert_eq!(arrived, pushed);
        drop((client, origin));
        timeout(WAIT, relay).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_reset_of_the_origin_is_a_reset_for_the_client() {
    let pair = Pair::new(&Arc::default()).await;
    let Pair { mut client, mut origin, relay, .. } = pair;
    client.write_all(b"hello").await.unwrap();
    origin.read_exact(&mut [0; 5]).await.unwrap();
    let page = vec![1; 200_000];
    origin.write_all(&page).await.unwrap();
    // Until the page has left the origin: a reset drops what has not.
    sleep(Duration::from_millis(50)).await;
    reset(origin);
    let mut received = Vec::new();
    let error = client.read_to_end(&mut received).await.unwrap_err();
    assert_eq!((received.len(), error.kind()), (page.len(), ErrorKind::ConnectionReset));
    let relayed = timeout(WAIT, relay).await.unwrap().unwrap();
    assert!(matches!(relayed.ended, Ended::Reset(Side::Origin)), "{relayed:?}");
}

#[tokio::test]
async fn a_reset_of_the_client_is_a_reset_for_the_origin() {
    for half_closed in [false, true] {
        let Pair { mut client, mut origin, relay, .. } = Pair::new(&Arc::default()).await;
        client.write_all(b"hello").await.unwrap();
        if half_closed {
            client.shutdown().await.unwrap();
        }
        origin.read_exact(&mut [0; 5]).await.unwrap();
        if half_closed {
            assert_eq!(origin.read(&mut [0]).await.unwrap(), 0);
        }
        reset(client);
        if half_closed {
            // A stream that has ended has no more errors to tell; writing shows it.
            let failed = timeout(WAIT, async {
                loop {
                    if let Err(error) = origin.write_all(b"x").await {
                        return error.kind();
                    }
                    sleep(Duration::from_millis(5)).await;
                }
            });
            let kind = failed.await.expect("the origin learns of it");
            assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{kind}");
        } else {
            let error = timeout(WAIT, origin.read(&mut [0])).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        let relayed = timeout(WAIT, relay).await.unwrap().unwrap();
        assert!(matches!(relayed.ended, Ended::Reset(Side::Client)), "{relayed:?}");
    }
}

/// The origin answers in full, closes, and refuses what the client goes on saying.
#[tokio::test]
async fn an_answer_survives_the_reset_behind_it() {
    let Pair { mut client, mut origin, relay, .. } = Pair::new(&Arc::default()).await;
    client.write_all(b"POST").await.unwrap();
    origin.read_exact(&mut [0; 4]).await.unwrap();
    let page = vec![2; 500_000];
    let (written, mut received) = (page.clone(), vec![0; page.len()]);
    let origin = tokio::spawn(async move {
        origin.write_all(&written).await.unwrap();
        origin.shutdown().await.unwrap();
        sleep(Duration::from_millis(50)).await;
        drop(origin);
    });
    // The upload goes on until it is refused.
    let (mut from, mut to) = client.split();
    let upload = async {
        loop {
            if to.write_all(&[3; 10_000]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    let download = async { from.read_exact(&mut received).await.unwrap() };
    let (_, read) = timeout(WAIT, async { tokio::join!(upload, download) }).await.unwrap();
    assert_eq!(read, page.len());
    assert_eq!(received, page);
    origin.await.unwrap();
    timeout(WAIT, relay).await.unwrap().unwrap();
}

/// Relays that say nothing take no buffers and end when their sides do.
#[tokio::test]
async fn silence_costs_nothing_and_ends() {
    let pipes = Arc::new(Pipes::new(1));
    let mut pairs = Vec::new();
    for _ in 0..50 {
        pairs.push(Pair::new(&pipes).await);
    }
    for pair in pairs {
        let Pair { client, origin, relay, .. } = pair;
        drop(client);
        drop(origin);
        let relayed = timeout(WAIT, relay).await.unwrap().unwrap();
        assert_eq!((relayed.sent, relayed.received), (0, 0));
    }
}

#[tokio::test]
async fn small_messages_are_not_held_back() {
    let Pair { client, origin, .. } = Pair::new(&Arc::default()).await;
    let echo = tokio::spawn(async move {
        let mut origin = origin;
        let mut buffer = [0; 64];
        while let Ok(read @ 1..) = origin.read(&mut buffer).await {
            origin.write_all(&buffer[..read]).await.unwrap();
        }
    });
    let mut client = client;
    client.set_nodelay(true).unwrap();
    let begun = tokio::time::Instant::now();
    for _ in 0..200 {
        // Two writes a message: with Nagle in the way the second would wait for an acknowledgement.
        client.write_all(b"two ").await.unwrap();
        client.write_all(b"parts").await.unwrap();
        client.read_exact(&mut [0; 9]).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    drop(client);
    timeout(WAIT, echo).await.unwrap().unwrap();
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn a_counted_relay_ends() {
    let pair = Pair::new(&Arc::default()).await;
    let Pair { mut client, mut origin, relay, moved } = pair;
    client.write_all(b"12345").await.unwrap();
    origin.read_exact(&mut [0; 5]).await.unwrap();
    assert_eq!(moved.load(std::sync::atomic::Ordering::Relaxed), 5, "counted while it runs");
    origin.write_all(b"123").await.unwrap();
    client.read_exact(&mut [0; 3]).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(origin.read(&mut [0]).await.unwrap(), 0);
    origin.shutdown().await.unwrap();
    let relayed = Pair { client, origin, relay, moved }.end().await;
    assert_eq!((relayed.sent, relayed.received, relayed.replayed), (5, 3, false));
}
