//! The other end, for the command line.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Answer, Failure, Reply, Request, RequestLine, VERSION, protocol::Outcome};

/// How long a daemon may take to answer a person.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no prewarm answers on {path}\nhint: start it with `prewarm run --iface IF`, or name its socket with --socket"
    )]
    Absent {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Somebody listens, and we may not connect.
    #[error("{path} may be used by root and the group prewarm only\nhint: use sudo, or join the group")]
    Forbidden {
        /// Where.
        path: PathBuf,
    },
    /// The conversation broke off.
    #[error("the daemon on {path} did not answer")]
    Broken {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The daemon said no.
    #[error("{}", .0.message)]
    Refused(Failure),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    next: u64,
}

impl Client {
    /// Connects to the daemon that listens at `path`.
    ///
    /// # Errors
    /// When there is none, or we may not.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::PermissionDenied => ClientError::Forbidden { path: path.to_path_buf() },
            _ => ClientError::Absent { path: path.to_path_buf(), source },
        })?;
        let broken = |source| ClientError::Broken { path: path.to_path_buf(), source };
        stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
        Ok(Self { path: path.to_path_buf(), stream: BufReader::new(stream), next: 1 })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the daemon refuses or does not answer in five seconds.
    pub fn ask(&mut self, request: Request) -> Result<Answer, ClientError> {
        let id = self.next;
        self.next += 1;
        let reply = self
            .converse(&RequestLine { v: VERSION, id, request })
            .map_err(|source| ClientError::Broken { path: self.path.clone(), source })?;
        match reply.result {
            Outcome::Ok(answer) => Ok(answer),
            Outcome::Error(failure) => Err(ClientError::Refused(failure)),
        }
    }

    fn converse(&mut self, line: &RequestLine) -> std::io::Result<Reply> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.stream.get_mut().write_all(&bytes)?;
        let mut text = String::new();
        if self.stream.read_line(&mut text)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let reply: Reply = serde_json::from_str(&text)?;
        if reply.id != line.id && reply.id != 0 {
            return Err(std::io::Error::other("the daemon answered another question"));
        }
        Ok(reply)
    }
}
