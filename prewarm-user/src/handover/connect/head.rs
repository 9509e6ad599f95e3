//! The head of a CONNECT request.

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::handover::reach::Target;

/// The longest head.
const LONGEST: usize = 8 << 10;
/// The most header fields.
const FIELDS: usize = 64;
/// Methods that exist, and that are not for here (RFC 9110, 9.1; RFC 5789).
const OTHERS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "QUERY"];

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The client ended before its request did.
    Gone,
    /// That is no HTTP.
    Malformed,
    /// The target is not an authority with a port.
    Authority,
    /// It announces content.
    Content,
    /// The head is too long.
    TooLong,
    /// Another method.
    Method,
    /// A method that nobody knows.
    UnknownMethod,
}

/// Hears a client to the end of its request; with whom it wants, what it said behind that.
pub(super) async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(Target, Vec<u8>), Refusal> {
    let mut said = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut said).await.unwrap_or(0) == 0 {
            return Err(Refusal::Gone);
        }
        if let Some((target, length)) = parse(&said)? {
            said.drain(..length);
            return Ok((target, said));
        }
        if said.len() >= LONGEST {
            return Err(Refusal::TooLong);
        }
    }
}

/// The target and the length of a head, once it is whole.
fn parse(said: &[u8]) -> Result<Option<(Target, usize)>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(&said[..said.len().min(LONGEST)]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLong),
        Err(_) => return Err(Refusal::Malformed),
    };
    match request.method {
        Some("CONNECT") => {}
        Some(method) if OTHERS.contains(&method) => return Err(Refusal::Method),
        _ => return Err(Refusal::UnknownMethod),
    }
    // Content would be taken for the tunnel's first bytes.
    let content = request.headers.iter().any(|field| {
        field.name.eq_ignore_ascii_case("transfer-encoding")
            || field.name.eq_ignore_ascii_case("content-length") && field.value.trim_ascii() != b"0"
    });
    if content {
        return Err(Refusal::Content);
    }
    let (host, port) = request.path.and_then(|path| path.rsplit_once(':')).ok_or(Refusal::Authority)?;
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || (host.contains(':') && !host.starts_with('[')) {
        return Err(Refusal::Authority);
    }
    let port = port.parse().map_err(|_| Refusal::Authority)?;
    if host.bytes().any(|byte| matches!(byte, b'@' | b'/' | b'?' | b'#' | b'\\' | b'%')) {
        return Err(Refusal::Authority);
    }
    Ok(Some((Target::new(host, port).map_err(|_| Refusal::Authority)?, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(head: &str) -> Result<Target, Refusal> {
        parse(head.as_bytes()).map(|parsed| parsed.expect("the head is whole").0)
    }

    #[test]
    fn authorities_are_heard() {
        let name = |text: &str| Ok(Target::Name(text.parse().unwrap()));
        assert_eq!(target("CONNECT www.example.org:443 HTTP/1.1\r\n\r\n"), name("www.example.org:443"));
        assert_eq!(target("CONNECT WWW.example.org:443 HTTP/1.0\r\nHost: x\r\n\r\n"), name("www.example.org:443"));
        assert_eq!(target("CONNECT a.example:80 HTTP/1.1\r\nContent-Length: 0\r\n\r\n"), name("a.example:80"));
        let address = target("CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n");
        assert_eq!(address, Ok(Target::Address("[2001:db8::1]:443".parse().unwrap())));
    }

    #[test]
    fn everything_else_is_refused() {
        for (head, refusal) in [
            ("GET http://www.example.org/ HTTP/1.1\r\n\r\n", Refusal::Method),
            ("BREW pot HTTP/1.1\r\n\r\n", Refusal::UnknownMethod),
            ("CONNECT www.example.org HTTP/1.1\r\n\r\n", Refusal::Authority),
            ("CONNECT www.example.org: HTTP/1.1\r\n\r\n", Refusal::Authority),
            ("CONNECT www.example.org:0 HTTP/1.1\r\n\r\n", Refusal::Authority),
            ("CONNECT www.example.org:+443 HTTP/1.1\r\n\r\n", Refusal::Authority),
            ("CONNECT www.example.org:65536 HTTP/1.1\r\n\r\n", Refusal::Authority),
            ("CONNECT user@www.example.org:443 HTTP/1.1\r\n\r\n", Refusal::Authority),
            ("CONNECT http://www.example.org:443 HTTP/1.1\r\n\r\n", Refusal::Authority),
            ("CONNECT 2001:db8::1:443 HTTP/1.1\r\n\r\n", Refusal::Authority),
            ("CONNECT [fe80::1%25eth0]:443 HTTP/1.1\r\n\r\n", Refusal::Authority),
            ("CONNECT a.example:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::Content),
            ("CONNECT a.example:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\n", Refusal::Content),
            ("\u{5}\u{1}\u{0}", Refusal::Malformed),
            ("CONNECT a.example:443 HTTP/3\r\n\r\n", Refusal::Malformed),
            ("CONNECT a.example:443 HTTP/1.1\r\nbroken field\r\n\r\n", Refusal::Malformed),
        ] {
            assert_eq!(target(head), Err(refusal), "{head:?}");
        }
        let many = format!("CONNECT a.example:443 HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELDS + 1));
        assert_eq!(target(&many), Err(Refusal::TooLong));
    }

    #[tokio::test]
    async fn heads_come_in_pieces_and_are_bounded() {
        let head = "CONNECT a.example:443 HTTP/1.1\r\nUser-Agent: x\r\n\r\nhello";
        for at in 1..head.len() {
            let mut pieces = std::io::Cursor::new(&head.as_bytes()[..at]).chain(&head.as_bytes()[at..]);
            let (_, mut said) = hear(&mut pieces).await.unwrap();
            pieces.read_to_end(&mut said).await.unwrap();
            assert_eq!(said, b"hello", "cut at {at}");
        }
        let endless = format!("CONNECT a.example:443 HTTP/1.1\r\nX: {}", "y".repeat(100_000));
        assert_eq!(hear(&mut endless.as_bytes()).await, Err(Refusal::TooLong));
        assert_eq!(hear(&mut &b"CONNECT a.exam"[..]).await, Err(Refusal::Gone));
    }
}
