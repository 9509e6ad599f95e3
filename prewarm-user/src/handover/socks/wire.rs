//! What is said in SOCKS5 (RFC 1928), byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::handover::reach::Target;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NOTHING_ACCEPTABLE: u8 = 0xff;
const CONNECT: u8 = 1;
const ADDRESS_V4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_V6: u8 = 4;

/// Replies (RFC 1928, 6).
pub(super) const SUCCEEDED: u8 = 0;
pub(super) const FAILURE: u8 = 1;
pub(super) const NOT_ALLOWED: u8 = 2;
pub(super) const NETWORK_UNREACHABLE: u8 = 3;
pub(super) const HOST_UNREACHABLE: u8 = 4;
pub(super) const REFUSED: u8 = 5;
const COMMAND: u8 = 7;
const ADDRESS_TYPE: u8 = 8;

/// Why a client is turned away before it got anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It ended, or speaks something else.
    NoSocks,
    /// It has no authentication method but those that are not offered; it was told.
    Authentication,
    /// It wants this.
    Reply(u8),
}

impl Refusal {
    /// What it is still to be told.
    pub(super) const fn reply(self) -> Option<u8> {
        match self {
            Self::Reply(code) => Some(code),
            Self::NoSocks | Self::Authentication => None,
        }
    }
}

/// Hears a client to the end of its request. Not a byte more is read: what follows is for the other end.
pub(super) async fn hear<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<Target, Refusal> {
    let gone = |_| Refusal::NoSocks;
    let [version, methods] = read(stream).await?;
    if version != VERSION {
        return Err(Refusal::NoSocks);
    }
    let mut offered = [0; 255];
    let offered = &mut offered[..usize::from(methods)];
    stream.read_exact(offered).await.map_err(gone)?;
    let method = if offered.contains(&NO_AUTHENTICATION) { NO_AUTHENTICATION } else { NOTHING_ACCEPTABLE };
    stream.write_all(&[VERSION, method]).await.map_err(gone)?;
    if method == NOTHING_ACCEPTABLE {
        return Err(Refusal::Authentication);
    }
    let [version, command, _reserved, kind] = read(stream).await?;
    if version != VERSION {
        return Err(Refusal::NoSocks);
    }
    let host = match kind {
        ADDRESS_V4 => Ok(IpAddr::V4(Ipv4Addr::from(read::<_, 4>(stream).await?))),
        ADDRESS_V6 => Ok(IpAddr::V6(Ipv6Addr::from(read::<_, 16>(stream).await?))),
        ADDRESS_NAME => {
            let [length] = read(stream).await?;
            let mut name = vec![0; usize::from(length)];
            stream.read_exact(&mut name).await.map_err(gone)?;
            Err(name)
        }
        _ => return Err(Refusal::Reply(ADDRESS_TYPE)),
    };
    let port = u16::from_be_bytes(read(stream).await?);
    if command != CONNECT {
        return Err(Refusal::Reply(COMMAND));
    }
    match host {
        Ok(_) if port == 0 => Err(Refusal::Reply(FAILURE)),
        Ok(address) => Ok(Target::address(address, port)),
        Err(name) => {
            let name = std::str::from_utf8(&name).map_err(|_| Refusal::Reply(FAILURE))?;
            Target::new(name, port).map_err(|_| Refusal::Reply(FAILURE))
        }
    }
}

async fn read<S: AsyncRead + Unpin, const N: usize>(stream: &mut S) -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(|_| Refusal::NoSocks)?;
    Ok(bytes)
}

/// A reply.
pub(super) fn reply(code: u8, bound: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![VERSION, code, 0];
    match bound.ip() {
        IpAddr::V4(address) => {
            bytes.push(ADDRESS_V4);
            bytes.extend(address.octets());
        }
        IpAddr::V6(address) => {
            bytes.push(ADDRESS_V6);
            bytes.extend(address.octets());
        }
    }
    bytes.extend(bound.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of these bytes, and what the client is told meanwhile.
    async fn heard(said: &[u8]) -> (Result<Target, Refusal>, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(1024);
        client.write_all(said).await.unwrap();
        client.shutdown().await.unwrap();
        let target = hear(&mut server).await;
        drop(server);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        (target, told)
    }

    fn request(kind: u8, address: &[u8]) -> Vec<u8> {
        [&[5, 1, 0, 5, 1, 0, kind][..], address, &[0, 80]].concat()
    }

    #[tokio::test]
    async fn addresses_and_names_are_heard() {
        let (target, told) = heard(&request(1, &[192, 0, 2, 1])).await;
        assert_eq!((target.unwrap(), told), (Target::Address("192.0.2.1:80".parse().unwrap()), vec![5, 0]));
        let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let (target, _) = heard(&request(4, &v6.octets())).await;
        assert_eq!(target.unwrap(), Target::Address("[2001:db8::1]:80".parse().unwrap()));
        let (target, _) = heard(&request(3, b"\x0fwww.EXAMPLE.org")).await;
        assert!(matches!(target, Err(Refusal::NoSocks)), "the length lies");
        let (target, _) = heard(&request(3, b"\x0dwww.EXAMPLE.o")).await;
        assert_eq!(target.unwrap(), Target::Name("www.example.o:80".parse().unwrap()));
        let (target, _) = heard(&request(3, b"\x09192.0.2.1")).await;
        assert_eq!(target.unwrap(), Target::Address("192.0.2.1:80".parse().unwrap()));
    }

    #[tokio::test]
    async fn what_follows_the_request_is_left() {
        let (mut client, mut server) = tokio::io::duplex(1024);
        client.write_all(&request(1, &[192, 0, 2, 1])).await.unwrap();
        client.write_all(b"early").await.unwrap();
        hear(&mut server).await.unwrap();
        let mut rest = [0; 5];
        server.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"early");
    }

    #[tokio::test]
    async fn everything_else_gets_its_reply() {
        let wrong_command = [5, 1, 0, 5, 2, 0, 1, 192, 0, 2, 1, 0, 80];
        assert_eq!(heard(&wrong_command).await.0, Err(Refusal::Reply(COMMAND)));
        assert_eq!(heard(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).await.0, Err(Refusal::Reply(COMMAND)));
        assert_eq!(heard(&request(2, &[1, 2, 3])).await.0, Err(Refusal::Reply(ADDRESS_TYPE)));
        assert_eq!(heard(&request(3, b"\x00")).await.0, Err(Refusal::Reply(FAILURE)));
        assert_eq!(heard(&request(3, b"\x02\xff\xfe")).await.0, Err(Refusal::Reply(FAILURE)));
        assert_eq!(heard(&[5, 1, 0, 5, 1, 0, 1, 192, 0, 2, 1, 0, 0]).await.0, Err(Refusal::Reply(FAILURE)));
        assert_eq!(heard(&[5, 2, 1, 2]).await, (Err(Refusal::Authentication), vec![5, 0xff]));
        assert_eq!(heard(&[5, 0]).await, (Err(Refusal::Authentication), vec![5, 0xff]));
        for said in
            [&b""[..], &[4, 1, 0, 80, 192, 0, 2, 1, 0], b"GET / HTTP/1.1\r\n\r\n", &[5], &[5, 3, 0], &[5, 1, 0, 4]]
        {
            assert_eq!(heard(said).await.0, Err(Refusal::NoSocks), "{said:?}");
        }
        for length in 0..10 {
            let whole = request(1, &[192, 0, 2, 1]);
            assert_eq!(heard(&whole[..3 + length]).await.0, Err(Refusal::NoSocks));
        }
    }

    #[test]
    fn replies_have_their_form() {
        assert_eq!(reply(0, "192.0.2.7:258".parse().unwrap()), [5, 0, 0, 1, 192, 0, 2, 7, 1, 2]);
        assert_eq!(reply(5, "[::1]:80".parse().unwrap()).len(), 22);
    }
}
