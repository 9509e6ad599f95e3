//! What the plain client and the plain origin say to each other: the first 25 bytes of a connection choose what follows.

use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use anyhow::{Context as _, Result, ensure};

/// The size of a message that goes back and forth.
pub const PING: usize = 64;
/// How much is read or written at once.
pub const CHUNK: usize = 64 * 1024;

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// The origin gives back each message of [`PING`] bytes.
    Ping,
    /// The origin sends until the client closes.
    Download,
    /// The origin swallows until the client closes its half, then says that it has all.
    Upload,
    /// Both send so many bytes of a seeded stream, end their half when they have sent them, and check what they receive.
    Transfer {
        /// From the client.
        up: u64,
        /// To the client.
        down: u64,
        /// Of the streams.
        seed: u32,
        /// Who begins.
        order: Order,
    },
}

/// Who sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Both at the same time.
    Together,
    /// The origin waits for the end of the client's half.
    ClientFirst,
    /// The client waits for the end of the origin's half.
    OriginFirst,
}

impl Order {
    const ALL: [(Self, u8); 3] = [(Self::Together, b'T'), (Self::ClientFirst, b'C'), (Self::OriginFirst, b'O')];

    /// By turns.
    pub fn of(number: u32) -> Self {
        Self::ALL[number as usize % Self::ALL.len()].0
    }
}

/// How long the words that choose are.
const WORDS: usize = 25;

impl Exchange {
    /// The first bytes of the connection.
    pub fn to_bytes(self) -> [u8; WORDS] {
        let (letter, up, down, seed) = match self {
            Self::Ping => (b'P', 0, 0, 0),
            Self::Download => (b'D', 0, 0, 0),
            Self::Upload => (b'U', 0, 0, 0),
            Self::Transfer { up, down, seed, order } => {
                (Order::ALL.iter().find(|(known, _)| *known == order).map_or(0, |(_, letter)| *letter), up, down, seed)
            }
        };
        let mut bytes = [0; WORDS];
        bytes[0] = letter;
        bytes[1..9].copy_from_slice(&up.to_be_bytes());
        bytes[9..17].copy_from_slice(&down.to_be_bytes());
        bytes[17..21].copy_from_slice(&seed.to_be_bytes());
        bytes
    }

    /// What the first bytes of a connection say; nothing at its end.
    ///
    /// # Errors
    /// When they say nothing known.
    pub fn read(stream: &mut impl Read) -> Result<Option<Self>> {
        let mut bytes = [0; WORDS];
        match stream.read_exact(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|place| bytes[at + place]));
        let (up, down, seed) =
            (number(1), number(9), u32::from_be_bytes(std::array::from_fn(|place| bytes[17 + place])));
        Ok(Some(match bytes[0] {
            b'P' => Self::Ping,
            b'D' => Self::Download,
            b'U' => Self::Upload,
            other => {
                let order = Order::ALL.iter().find(|(_, letter)| *letter == other);
                Self::Transfer { up, down, seed, order: order.with_context(|| format!("unknown exchange {other}"))?.0 }
            }
        }))
    }
}

/// Bytes that depend on a seed alone.
#[derive(Debug)]
pub struct Content {
    state: u64,
    left: u64,
    hash: DefaultHasher,
}

impl Content {
    /// So many bytes. The two directions of a transfer have different `side`s.
    pub fn new(seed: u32, side: u8, length: u64) -> Self {
        Self { state: u64::from(seed) << 8 | u64::from(side), left: length, hash: DefaultHasher::new() }
    }

    /// Fills the buffer as far as there is content; how far.
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for word in buffer[..length].chunks_mut(8) {
            // SplitMix64.
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let size = word.len();
            word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..size]);
        }
        self.left -= length as u64;
        self.hash.write(&buffer[..length]);
        length
    }

    /// Writes all of it; the hash of what was written.
    ///
    /// # Errors
    /// When the other end takes no more.
    pub fn send(mut self, stream: &mut impl Write) -> io::Result<u64> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = self.fill(&mut buffer);
            if length == 0 {
                return Ok(self.hash.finish());
            }
            stream.write_all(&buffer[..length])?;
        }
    }

    /// The hash of it, without sending it.
    pub fn hash(self) -> u64 {
        // Writing to nowhere doesn't fail.
        self.send(&mut io::sink()).unwrap_or_default()
    }
}

/// Reads to the end; the number of bytes and their hash.
///
/// # Errors
/// When the connection breaks.
pub fn receive(stream: &mut impl Read) -> io::Result<(u64, u64)> {
    let (mut buffer, mut hash, mut total) = (vec![0; CHUNK], DefaultHasher::new(), 0);
    // Hashed in the chunks in which it was sent, however it was cut on its way.
    let mut filled = 0;
    loop {
        let length = stream.read(&mut buffer[filled..])?;
        filled += length;
        total += length as u64;
        if filled == CHUNK || length == 0 {
            hash.write(&buffer[..filled]);
            filled = 0;
        }
        if length == 0 {
            return Ok((total, hash.finish()));
        }
    }
}

/// A whole transfer, from one of its ends: sends one content and checks that the other comes.
///
/// # Errors
/// [`Wrong`] as the cause when other bytes came than were sent; anything else when the connection broke.
pub fn transfer(stream: &TcpStream, send: Content, expect: Content, sends_first: Option<bool>) -> Result<()> {
    let sending = || -> io::Result<()> {
        send.send(&mut &*stream)?;
        stream.shutdown(Shutdown::Write)
    };
    let received = match sends_first {
        Some(true) => {
            sending()?;
            receive(&mut &*stream)?
        }
        Some(false) => {
            let received = receive(&mut &*stream)?;
            sending()?;
            received
        }
        None => thread::scope(|scope| {
            let sender = scope.spawn(sending);
            let received = receive(&mut &*stream)?;
            sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
            anyhow::Ok(received)
        })?,
    };
    let expected = (expect.left, expect.hash());
    ensure!(received == expected, Wrong { received: received.0, expected: expected.0 });
    Ok(())
}

/// Other bytes came than were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{received} bytes came of {expected}, or others than were sent")]
pub struct Wrong {
    /// How many came.
    pub received: u64,
    /// How many were sent.
    pub expected: u64,
}

#[cfg(test)]
mod tests {
    use super::{Content, Exchange, Order, receive};

    #[test]
    fn what_is_received_in_pieces_has_the_hash_of_what_was_sent() {
        let mut sent = Vec::new();
        let hash = Content::new(7, 1, 200_001).send(&mut sent).unwrap();
        assert_eq!(receive(&mut &sent[..]).unwrap(), (200_001, hash));
        assert_eq!(Content::new(7, 1, 200_001).hash(), hash);
        assert_ne!(Content::new(7, 0, 200_001).hash(), hash);
        sent[150_000] ^= 1;
        assert_ne!(receive(&mut &sent[..]).unwrap().1, hash);
    }

    #[test]
    fn an_exchange_reads_as_it_is_written() {
        let exchange = Exchange::Transfer { up: 1, down: u64::MAX, seed: 9, order: Order::OriginFirst };
        assert_eq!(Exchange::read(&mut &exchange.to_bytes()[..]).unwrap(), Some(exchange));
        assert_eq!(Exchange::read(&mut &[][..]).unwrap(), None);
        assert!(Exchange::read(&mut &[0; 25][..]).is_err());
    }
}
