//! Where names are learnt from, beside the packets on the interfaces.

use std::{fmt, path::PathBuf, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::within;

/// Other sources than packets: for names that are asked for where nothing can be read, over TLS or inside a library.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SourcesSettings {
    /// The sources: "dnstap:/PATH" is a Unix socket that a DNS server writes dnstap to, "getaddrinfo" watches that
    /// function in the C libraries of this host, "getaddrinfo:/PATH" in one library. `prewarm run --source SOURCE` adds
    /// to them, and needs none here.
    #[schemars(with = "Vec<String>", example = ["dnstap:/run/prewarm/dnstap.sock", "getaddrinfo"])]
    pub list: Vec<Source>,
    /// The group that may write to the dnstap sockets, beside root: that of the DNS server's user, or one that it is a
    /// member of.
    pub group: String,
    /// Writers on one dnstap socket at once, 1 to 1000; a server has one for each of its threads.
    pub writers: u32,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// A Unix socket that DNS servers write dnstap to.
    Dnstap(PathBuf),
    /// The function `getaddrinfo` of a C library; without a path, of those that are found.
    Getaddrinfo(Option<PathBuf>),
}

/// Why a text is no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no source; take dnstap:/PATH/OF.sock, getaddrinfo or getaddrinfo:/PATH/OF/libc.so.6")]
pub struct SourceError(String);

impl Default for SourcesSettings {
    fn default() -> Self {
        Self { list: Vec::new(), group: "prewarm".to_owned(), writers: 64 }
    }
}

impl SourcesSettings {
    /// Whether the settings can be worked with.
    ///
    /// # Errors
    /// The key that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        within("sources.writers", self.writers, 1..=1000)
    }

    /// The sockets to listen on.
    pub fn sockets(&self) -> impl Iterator<Item = &PathBuf> {
        self.list.iter().filter_map(|source| if let Source::Dnstap(path) = source { Some(path) } else { None })
    }

    /// The libraries to watch, none meaning those that are found; `None` when none is to be watched.
    #[must_use]
    pub fn libraries(&self) -> Option<Vec<PathBuf>> {
        let mut named = Vec::new();
        let (mut wanted, mut found) = (false, false);
        for source in &self.list {
            if let Source::Getaddrinfo(path) = source {
                wanted = true;
                found |= path.is_none();
                named.extend(path.clone());
            }
        }
        // Who names one and wants those that are found too gets all of them from the search.
        wanted.then(|| if found { Vec::new() } else { named })
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let (kind, path) = text.split_once(':').map_or((text, None), |(kind, path)| (kind, Some(PathBuf::from(path))));
        match (kind, path) {
            // The longest path that a socket can have is 107 bytes (unix(7)).
            ("dnstap", Some(path)) if path.is_absolute() && path.as_os_str().len() <= 107 => Ok(Self::Dnstap(path)),
            ("getaddrinfo", None) => Ok(Self::Getaddrinfo(None)),
            ("getaddrinfo", Some(path)) if path.is_absolute() => Ok(Self::Getaddrinfo(Some(path))),
            _ => Err(SourceError(text.to_owned())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dnstap(path) => write!(f, "dnstap:{}", path.display()),
            Self::Getaddrinfo(None) => f.write_str("getaddrinfo"),
            Self::Getaddrinfo(Some(path)) => write!(f, "getaddrinfo:{}", path.display()),
        }
    }
}

impl TryFrom<String> for Source {
    type Error = SourceError;

    fn try_from(text: String) -> Result<Self, SourceError> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_written_alike() {
        for text in ["dnstap:/run/prewarm/dnstap.sock", "getaddrinfo", "getaddrinfo:/lib/ld-musl-x86_64.so.1"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        let long = format!("dnstap:/{}", "x".repeat(107));
        for text in ["dnstap", "dnstap:", "dnstap:relative.sock", "getaddrinfo:libc", "pcap:/x", "", &long] {
            let error = text.parse::<Source>().unwrap_err().to_string();
            assert!(error.contains("dnstap:/PATH"), "{error}");
        }
    }

    #[test]
    fn libraries_are_searched_where_none_is_named() {
        let with = |list: &[&str]| SourcesSettings {
            list: list.iter().map(|text| text.parse().unwrap()).collect(),
            ..SourcesSettings::default()
        };
        assert_eq!(with(&["dnstap:/a"]).libraries(), None);
        assert_eq!(with(&["getaddrinfo:/a", "getaddrinfo:/b"]).libraries(), Some(vec!["/a".into(), "/b".into()]));
        assert_eq!(with(&["getaddrinfo:/a", "getaddrinfo"]).libraries(), Some(Vec::new()));
        assert_eq!(with(&["dnstap:/a", "dnstap:/b"]).sockets().count(), 2);
    }
}
