//! One HTTP connection to an origin: HTTP/1.1 or HTTP/2, over TLS or not.
//!
//! Comes in: a TCP connection, messages. Goes out: answers, and whether the connection can carry another request. Never
//! here: which connection a request takes, or a second try.

use std::{io, net::TcpStream as StdStream, os::fd::OwnedFd, sync::Arc};

use bytes::Bytes;
use http::{Response, Version};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, HandshakeKind, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
};
use tokio_rustls::TlsConnector;

use super::{WarmError, WarmRequest, message::message};

/// A connection that HTTP is spoken over. Dropping it closes the connection, or lets it end with its last answer.
#[derive(Debug)]
pub(super) struct Channel {
    sender: Sender,
    driver: AbortHandle,
    /// Whether the TLS session went on where an earlier one ended; none without TLS.
    pub(super) resumed: Option<bool>,
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Many(http2::SendRequest<Empty<Bytes>>),
}

impl Channel {
    /// Opens one over a TCP connection; which HTTP is spoken is agreed upon with TLS (ALPN, RFC 7301).
    pub(super) async fn open(
        connection: OwnedFd,
        request: &WarmRequest,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, WarmError> {
        let stream = StdStream::from(connection);
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        if !request.tls {
            return Self::over(stream, false, None).await;
        }
        let name = ServerName::try_from(request.origin.name.to_string()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
        let (_, session) = stream.get_ref();
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        Self::over(stream, is_http2, Some(resumed)).await
    }

    async fn over<T>(stream: T, is_http2: bool, resumed: Option<bool>) -> Result<Self, WarmError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = TokioIo::new(stream);
        // How a connection ended is told to whoever used it last, or nobody minds.
        let (sender, driver) = if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            (Sender::Many(sender), tokio::spawn(async move { drop(connection.await) }))
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            (Sender::One(sender), tokio::spawn(async move { drop(connection.await) }))
        };
        Ok(Self { sender, driver: driver.abort_handle(), resumed })
    }

    /// Sends a request and gives the head of the answer, its body still to come.
    pub(super) async fn send(&mut self, request: &WarmRequest) -> Result<Response<Incoming>, WarmError> {
        let message = message(request, self.version())?;
        match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(message).await?)
            }
            Sender::Many(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(message).await?)
            }
        }
    }

    /// Another handle on the same connection, where it carries several requests at once.
    pub(super) fn share(&self) -> Option<Self> {
        let Sender::Many(sender) = &self.sender else { return None };
        let (sender, driver) = (Sender::Many(sender.clone()), self.driver.clone());
        Some(Self { sender, driver, resumed: self.resumed })
    }

    /// Waits until another request can be sent; false when none ever can. The answer before must have been read whole.
    pub(super) async fn is_reusable(&mut self) -> bool {
        match &mut self.sender {
            Sender::One(sender) => sender.ready().await.is_ok(),
            Sender::Many(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Whether the other side has ended it, or said that it will (GOAWAY).
    pub(super) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::One(sender) => sender.is_closed(),
            Sender::Many(sender) => sender.is_closed(),
        }
    }

    pub(super) const fn version(&self) -> Version {
        match &self.sender {
            Sender::One(_) => Version::HTTP_11,
            Sender::Many(_) => Version::HTTP_2,
        }
    }

    /// Closes it at once, whatever is under way.
    pub(super) fn abort(&self) {
        self.driver.abort();
    }
}
