//! The daemon's end of the control socket.

use std::{io, net::SocketAddr, os::unix::net::UnixStream as StdStream, sync::Arc};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
};

use super::{Answer, Failure, FailureCode, Reply, Request, VERSION, protocol::Outcome};
use crate::{
    handover::{
        Reports,
        peer::Rule,
        serve::{Clerk, Desk},
    },
    lease::Pool,
};

/// Clients at once, beside those that only ask for leases; as many more wait.
const CLIENTS: usize = 256;
/// A line longer than this ends the connection.
const LONGEST: u64 = 64 * 1024;

/// Answers requests.
pub trait Handle: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// Is told that a program connects to `destination`, and whether it got a lease.
    fn connected(&self, destination: SocketAddr, leased: bool);
}

/// What every line has; the rest is read by whom it concerns.
#[derive(Deserialize)]
struct Head<'a> {
    v: u32,
    #[serde(default)]
    id: u64,
    #[serde(borrow)]
    request: &'a serde_json::value::RawValue,
}

/// Serves clients until the task is dropped: questions for leases on a thread of their own, everything else here.
///
/// # Errors
/// When that thread can't be started.
pub async fn serve<H: Handle>(
    listener: UnixListener,
    pool: Pool,
    rule: Rule,
    handle: Arc<H>,
    reports: Reports,
) -> io::Result<()> {
    let (strays, mut incoming) = mpsc::channel(CLIENTS);
    let clerk = Arc::new(ClerkOf { handle: Arc::clone(&handle), strays });
    let desk = Desk::open(listener.into_std()?, pool, rule, clerk)?;
    reports.add("fd", desk.report());
    let places = Arc::new(Semaphore::new(CLIENTS));
    while let Some((stream, unread)) = incoming.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let handle = Arc::clone(&handle);
        tokio::spawn(async move {
            if let Err(error) = converse(stream, unread, &*handle).await {
                tracing::debug!(%error, "control: a client left");
            }
            drop(place);
        });
    }
    Ok(())
}

/// The daemon, as the desk for leases sees it.
struct ClerkOf<H> {
    handle: Arc<H>,
    strays: mpsc::Sender<(StdStream, Vec<u8>)>,
}

impl<H: Handle> Clerk for ClerkOf<H> {
    fn connected(&self, destination: SocketAddr, leased: bool) {
        self.handle.connected(destination, leased);
    }

    fn stray(&self, stream: StdStream, unread: Vec<u8>) {
        if self.strays.try_send((stream, unread)).is_err() {
            tracing::debug!("control: too many clients at once, one was turned away");
        }
    }
}

async fn converse<H: Handle>(stream: StdStream, unread: Vec<u8>, handle: &H) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let (reading, mut writing) = UnixStream::from_std(stream)?.into_split();
    let mut reading = BufReader::new(io::Cursor::new(unread).chain(reading));
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut reading).take(LONGEST).read_until(b'\n', &mut line).await?;
        if line.pop_if(|end| *end == b'\n').is_none() {
            return if length == 0 { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
        }
        let (id, result) = match read(&line) {
            Ok((id, request)) => (id, handle.answer(request).await),
            Err((id, failure)) => (id, Err(failure)),
        };
        let result = match result {
            Ok(answer) => Outcome::Ok(answer),
            Err(failure) => Outcome::Error(failure),
        };
        let mut reply = serde_json::to_vec(&Reply { v: VERSION, id, result })?;
        reply.push(b'\n');
        writing.write_all(&reply).await?;
    }
}

/// The request in `line`. The version is looked at before anything else, so that a newer client is told so.
fn read(line: &[u8]) -> Result<(u64, Request), (u64, Failure)> {
    let malformed = |error: serde_json::Error| Failure {
        code: FailureCode::Malformed,
        message: format!("the request is not understood: {error}"),
    };
    let head: Head<'_> = serde_json::from_slice(line).map_err(|error| (0, malformed(error)))?;
    if head.v != VERSION {
        let message = format!("the daemon speaks version {VERSION} of the protocol, not {}", head.v);
        return Err((head.id, Failure { code: FailureCode::Version, message }));
    }
    let request = serde_json::from_str(head.request.get()).map_err(|error| (head.id, malformed(error)))?;
    Ok((head.id, request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_or_refused_with_their_number() {
        let (id, request) = read(br#"{"v":1,"id":7,"request":"stats"}"#).unwrap();
        assert_eq!((id, request), (7, Request::Stats));
        let (_, request) = read(br#"{"v":1,"id":8,"request":{"names":{"limit":5}}}"#).unwrap();
        assert!(matches!(request, Request::Names(limit) if limit.limit == 5));
        for (line, id, code) in [
            (&br#"{"v":2,"id":9,"request":"stats"}"#[..], 9, FailureCode::Version),
            (br#"{"v":1,"id":9,"request":"nonsense"}"#, 9, FailureCode::Malformed),
            (b"nonsense", 0, FailureCode::Malformed),
            (b"", 0, FailureCode::Malformed),
        ] {
            let (told, failure) = read(line).unwrap_err();
            assert_eq!((told, failure.code), (id, code), "{}", String::from_utf8_lossy(line));
        }
    }
}
