//! The daemon's end of the control socket.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use super::{Answer, Failure, FailureCode, Reply, Request, VERSION, protocol::Outcome};
use crate::{
    handover::{
        lines::Lines,
        protocol::{Ask, Request as LeaseRequest},
        serve::Grants,
    },
    lease::Pool,
};

/// Clients at once; more wait.
const CLIENTS: usize = 256;

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

/// Serves clients until the task is dropped.
pub async fn serve<H: Handle>(listener: UnixListener, pool: Pool, handle: Arc<H>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (handle, pool) = (Arc::clone(&handle), pool.clone());
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, pool, &*handle).await {
                        tracing::debug!(%error, "control: a client left");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: give others time to close some.
                tracing::warn!(%error, "control: could not accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse<H: Handle>(stream: UnixStream, pool: Pool, handle: &H) -> io::Result<()> {
    let mut lines = Lines::new(stream);
    let mut grants = Grants::new(pool);
    while let Some(line) = lines.next().await? {
        if let Ok(request) = serde_json::from_slice::<LeaseRequest>(&line) {
            let leased = grants.handle(&mut lines, &request).await?;
            match request.request {
                Ask::Take(want) => handle.connected(want.destination, leased),
                Ask::Passed { destination } => handle.connected(destination, false),
                Ask::Taken(_) | Ask::Hints {} => {}
            }
            continue;
        }
        let (id, result) = match read(&line) {
            Ok((id, request)) => (id, handle.answer(request).await),
            Err((id, failure)) => (id, Err(failure)),
        };
        let result = match result {
            Ok(answer) => Outcome::Ok(answer),
            Err(failure) => Outcome::Error(failure),
        };
        lines.send(&serde_json::to_vec(&Reply { v: VERSION, id, result })?, None).await?;
    }
    Ok(())
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
