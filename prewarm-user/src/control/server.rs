//! The daemon's end of the control socket.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Semaphore,
};

use super::{
    Answer, Failure, FailureCode, Reply, Request, RequestLine, VERSION,
    protocol::Outcome,
};
use crate::handover::send_with_fd;

/// The longest request.
const LINE: u64 = 64 * 1024;
/// Clients at once; more wait.
const CLIENTS: usize = 256;

/// What goes back: an answer, and with a lease its descriptor.
#[derive(Debug)]
pub struct Response {
    /// The answer, or why there is none.
    pub result: Result<Answer, Failure>,
    /// The connection that goes with [`Answer::Lease`].
    pub descriptor: Option<OwnedFd>,
}

impl From<Result<Answer, Failure>> for Response {
    fn from(result: Result<Answer, Failure>) -> Self {
        Self { result, descriptor: None }
    }
}

/// Answers requests.
pub trait Handle: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// Is told that the reply to a take could not be delivered, so its lease is lost.
    fn undelivered(&self);
}

/// Serves clients until the task is dropped.
pub async fn serve<H: Handle>(listener: UnixListener, handle: Arc<H>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let handle = Arc::clone(&handle);
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &*handle).await {
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

async fn converse<H: Handle>(stream: UnixStream, handle: &H) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader: BufReader<OwnedReadHalf> = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(LINE).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            let complaint = format!("a request is one line of at most {LINE} bytes");
            return reply(&mut writer, 0, failure(FailureCode::Malformed, complaint).into()).await;
        }
        let (id, response) = match read_request(&line) {
            Ok(RequestLine { id, request, .. }) => (id, handle.answer(request).await),
            Err((id, refusal)) => (id, Err(refusal).into()),
        };
        let lease = response.descriptor.is_some();
        if let Err(error) = reply(&mut writer, id, response).await {
            if lease {
                handle.undelivered();
            }
            return Err(error);
        }
    }
}

/// The request in `line`; the version is looked at before anything else, so that a newer client is told so.
fn read_request(line: &[u8]) -> Result<RequestLine, (u64, Failure)> {
    #[derive(serde::Deserialize)]
    struct Head {
        v: u32,
        #[serde(default)]
        id: u64,
    }
    let malformed = |error: serde_json::Error| Failure {
        code: FailureCode::Malformed,
        message: format!("the request is not understood: {error}"),
    };
    let head: Head = serde_json::from_slice(line).map_err(|error| (0, malformed(error)))?;
    if head.v != VERSION {
        let message = format!("the daemon speaks version {VERSION} of the protocol, not {}", head.v);
        return Err((head.id, Failure { code: FailureCode::Version, message }));
    }
    serde_json::from_slice(line).map_err(|error| (head.id, malformed(error)))
}

fn failure(code: FailureCode, message: String) -> Result<Answer, Failure> {
    Err(Failure { code, message })
}

async fn reply(writer: &mut OwnedWriteHalf, id: u64, response: Response) -> std::io::Result<()> {
    let result = match response.result {
        Ok(answer) => Outcome::Ok(answer),
        Err(failure) => Outcome::Error(failure),
    };
    let mut line = serde_json::to_vec(&Reply { v: VERSION, id, result })?;
    line.push(b'\n');
    match response.descriptor {
        Some(descriptor) => send_with_fd(writer.as_ref(), &line, &descriptor).await,
        None => writer.write_all(&line).await,
    }
}
