//! Stand-ins that do on every connection what servers do now and then.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, SockRef, Socket, Type};

use crate::netns::Namespace;

/// How long they wait for a request.
const PATIENCE: Duration = Duration::from_millis(400);
/// More connections at the same time than this are closed at once by who limits them.
const MOST: u32 = 3;

/// What a stand-in does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Closes a connection on which nothing is asked.
    ClosesIdle,
    /// Resets it.
    ResetsIdle,
    /// Writes a 408 and closes it, as Node and Apache do after a minute.
    Complains,
    /// Closes connections beyond [`MOST`] at once.
    Limits,
    /// Resets, closes without an answer, or cuts the answer, by the number that is asked for.
    Breaks,
    /// Closes every connection at once.
    ClosesAtOnce,
    /// Listens, and accepts nothing.
    AcceptsNothing,
}

/// One that listens until this is dropped.
#[derive(Debug)]
pub(super) struct Odd {
    listener: Arc<Socket>,
    ended: Arc<AtomicBool>,
}

impl Odd {
    pub(super) fn start(namespace: &Namespace, address: SocketAddr, habit: Habit) -> Result<Self> {
        let listener = namespace.enter(|| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into()).with_context(|| format!("bind {address}"))?;
            socket.listen(if habit == Habit::AcceptsNothing { 1 } else { 1024 })?;
            Ok(Arc::new(socket))
        })?;
        let odd = Self { listener: Arc::clone(&listener), ended: Arc::new(AtomicBool::new(false)) };
        if habit == Habit::AcceptsNothing {
            return Ok(odd);
        }
        let (ended, open) = (Arc::clone(&odd.ended), Arc::new(AtomicU32::new(0)));
        thread::Builder::new().name("odd".into()).spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let open = Arc::clone(&open);
                thread::spawn(move || {
                    let others = open.fetch_add(1, Ordering::SeqCst);
                    // Clients of all sorts come here; what becomes of them is theirs to tell.
                    let _told = serve(stream.into(), habit, others);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        })?;
        Ok(odd)
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes `accept` with an error.
        let _woken = self.listener.shutdown(Shutdown::Both);
    }
}

fn serve(mut stream: TcpStream, habit: Habit, others: u32) -> Result<()> {
    match habit {
        Habit::ClosesAtOnce => return Ok(()),
        Habit::Limits if others >= MOST => return Ok(()),
        // It is the others that are in the way, not those that wait too long.
        Habit::Limits | Habit::Breaks | Habit::AcceptsNothing => {}
        Habit::ClosesIdle | Habit::ResetsIdle | Habit::Complains => stream.set_read_timeout(Some(PATIENCE))?,
    }
    let number = match request(&stream) {
        Ok(number) => number,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            match habit {
                Habit::ResetsIdle => reset(&stream)?,
                Habit::Complains => stream.write_all(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")?,
                _ => {}
            }
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
    match number % 5 {
        1 if habit == Habit::Breaks => reset(&stream)?,
        2 if habit == Habit::Breaks => {}
        3 if habit == Habit::Breaks => write!(stream, "{answer}o")?,
        _ => write!(stream, "{answer}odd")?,
    }
    stream.shutdown(Shutdown::Write)?;
    // A request may still be under way; closing over it would reset the answer.
    stream.set_read_timeout(Some(PATIENCE))?;
    let _rest = stream.read(&mut [0; 64]);
    Ok(())
}

/// Reads the head of a request, and gives the number in its path.
fn request(stream: &TcpStream) -> std::io::Result<u32> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.ok_or(ErrorKind::UnexpectedEof)?;
    let number = first.split(['/', ' ']).find_map(|word| word.parse().ok()).unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            return Ok(number);
        }
    }
    Err(ErrorKind::UnexpectedEof.into())
}

/// What is closed now is reset.
fn reset(stream: &TcpStream) -> std::io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}
