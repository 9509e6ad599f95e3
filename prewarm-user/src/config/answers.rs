//! Answers that the kernel gives in the place of a server on this host.

use std::{fmt, net::IpAddr, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::within;
use crate::model::Name;

/// Answers in the kernel, for questions to a DNS server on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AnswersSettings {
    /// The servers whose answers are given, as ADDRESS@INTERFACE: an address of this host, and the interface by which
    /// its clients come; empty switches this off.
    #[schemars(with = "Vec<String>", example = ["192.0.2.53@eth0"])]
    pub servers: Vec<AnswerAt>,
    /// How many answers are held at most, 64 to 16384.
    pub entries: u32,
    /// Zones whose names are always left to the server.
    #[schemars(with = "Vec<String>")]
    pub exclude: Vec<String>,
    /// Seconds for which an answer is given at most, 1 to 86400; never for longer than its TTL.
    pub max_seconds: u32,
    /// Seconds for which an answer is still given beyond its TTL while the server fails (RFC 8767), 0 to 259200; the
    /// server is asked again every 30 s. 0: never.
    pub stale_seconds: u32,
    /// The longest DNS message, 64 to 1232 bytes; what is longer is left to the server.
    pub longest: u16,
    /// How many times as long as its question an answer may be, 1 to 100.
    pub ratio: u16,
    /// Answers a second for the clients of one network (/24, /56), 0 to 10000000; more are left to the server. 0: no
    /// limit.
    pub per_second: u32,
    /// Of the questions over that limit, one in so many is answered with TC, so that a client that is no forged address
    /// comes by TCP; 0: none.
    pub truncate: u16,
    /// Of the uses of an answer, one in so many goes to the server all the same, to see that it still says the same; a
    /// power of two from 2, or 0 for never.
    pub audit: u32,
    /// Seconds for which a client is answered after the server itself has answered it, 1 to 86400.
    pub client_seconds: u32,
    /// Questions a second that the daemon asks the servers to fill and refresh answers, 1 to 100000.
    pub fills_per_second: u32,
    /// Whether, of several addresses, one that a ready lease leads to comes first.
    pub lease_first: bool,
}

impl Default for AnswersSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            entries: 8192,
            exclude: Vec::new(),
            max_seconds: 3600,
            stale_seconds: 0,
            longest: 1232,
            ratio: 12,
            per_second: 20_000,
            truncate: 0,
            audit: 1024,
            client_seconds: 3600,
            fills_per_second: 500,
            lease_first: true,
        }
    }
}

impl AnswersSettings {
    /// Whether the settings can be worked with.
    ///
    /// # Errors
    /// The key that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        within("answers.entries", self.entries, 64..=16_384)?;
        within("answers.max_seconds", self.max_seconds, 1..=86_400)?;
        within("answers.longest", self.longest, 64..=1232)?;
        within("answers.stale_seconds", self.stale_seconds, 0..=259_200)?;
        within("answers.ratio", self.ratio, 1..=100)?;
        within("answers.per_second", self.per_second, 0..=10_000_000)?;
        within("answers.client_seconds", self.client_seconds, 1..=86_400)?;
        within("answers.fills_per_second", self.fills_per_second, 1..=100_000)?;
        if self.audit == 1 || (self.audit != 0 && !self.audit.is_power_of_two()) {
            return Err(format!("answers.audit = {} is no power of two; set it to one from 2, or to 0", self.audit));
        }
        if self.servers.len() > 32 {
            return Err(format!("answers.servers: {} are too many; name at most 32", self.servers.len()));
        }
        for zone in &self.exclude {
            zone.parse::<Name>().map_err(|error| format!("answers.exclude: {zone:?} is no name: {error}"))?;
        }
        Ok(())
    }
}

/// A server of this host and the interface by which its clients come.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AnswerAt {
    /// Its address.
    pub address: IpAddr,
    /// The interface's name.
    pub interface: String,
}

impl fmt::Display for AnswerAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.address, self.interface)
    }
}

impl FromStr for AnswerAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?} is not ADDRESS@INTERFACE, for example 192.0.2.53@eth0");
        let (server, interface) = text.rsplit_once('@').ok_or_else(wanted)?;
        if interface.is_empty() {
            return Err(wanted());
        }
        let interface = interface.to_owned();
        if let Ok(address) = server.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Self { address, interface });
        }
        let socket: std::net::SocketAddr = server.parse().map_err(|_| wanted())?;
        if socket.port() != 53 {
            return Err(format!("{text:?}: only port 53 is watched; leave {} out", socket.port()));
        }
        Ok(Self { address: socket.ip(), interface })
    }
}

impl TryFrom<String> for AnswerAt {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<AnswerAt> for String {
    fn from(at: AnswerAt) -> Self {
        at.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_they_are_shown() {
        for text in ["192.0.2.53@eth0", "2001:db8::53@wlan0", "127.0.0.53@lo"] {
            assert_eq!(text.parse::<AnswerAt>().unwrap().to_string(), text);
        }
        let at: AnswerAt = "[2001:db8::53]:53@eth0".parse().unwrap();
        assert_eq!(at.to_string(), "2001:db8::53@eth0");
        assert_eq!("192.0.2.53:53@a".parse::<AnswerAt>().unwrap().to_string(), "192.0.2.53@a");
        for (text, part) in [("192.0.2.53", "@"), ("eth0@192.0.2.1", "ADDRESS"), ("::1@", "@"), ("1.2.3.4:54@lo", "53")]
        {
            assert!(text.parse::<AnswerAt>().unwrap_err().contains(part), "{text}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        assert_eq!(AnswersSettings::default().check(), Ok(()));
        for (change, key) in [
            ((|s| s.entries = 1) as fn(&mut AnswersSettings), "answers.entries"),
            (|s| s.audit = 3, "answers.audit"),
            (|s| s.exclude = vec!["a..b".to_owned()], "answers.exclude"),
            (|s| s.ratio = 0, "answers.ratio"),
        ] {
            let mut settings = AnswersSettings::default();
            change(&mut settings);
            assert!(settings.check().unwrap_err().contains(key));
        }
    }
}
