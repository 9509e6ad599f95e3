//! Who content comes from.

use std::{fmt, str::FromStr};

use super::{Name, NameError};

/// A named service: where connections are leased to and requests are warmed from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The host's name.
    pub name: Name,
    /// The TCP port.
    pub port: u16,
}

/// Why text is not an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// No `:PORT` at the end.
    #[error("an origin is written NAME:PORT")]
    Form,
    /// Not a port from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// The name is none.
    #[error("the name is bad")]
    Name(#[source] NameError),
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let (name, port) = text.rsplit_once(':').ok_or(OriginError::Form)?;
        let port = port.parse().ok().filter(|&port| port != 0).ok_or(OriginError::Port)?;
        Ok(Self { name: name.parse().map_err(OriginError::Name)?, port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form() {
        let origin: Origin = "www.example.org:443".parse().unwrap();
        assert_eq!(origin.to_string(), "www.example.org:443");
        assert_eq!("www.example.org".parse::<Origin>(), Err(OriginError::Form));
        assert_eq!("a:0".parse::<Origin>(), Err(OriginError::Port));
        assert_eq!("a..b:1".parse::<Origin>(), Err(OriginError::Name(NameError::Label)));
    }
}
