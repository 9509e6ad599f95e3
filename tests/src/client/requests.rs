//! Requests as the plain client makes them to every kind of origin, one after the other, and which of them failed.
//!
//! What is said on a connection is the least of its protocol by which success can be told: the answer of a web server, the
//! greeting and the key exchange of SSH, the greeting and the farewell of SMTP.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

use super::way::{Opener, Target, Way};
use crate::clock;

/// How long a connection and one answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// HTTP; the path is `/NUMBER`.
    Http,
    /// SSH, to the server's list of key exchanges.
    Ssh,
    /// SMTP, to the farewell.
    Smtp,
}

/// An origin: a name for the report, what is spoken, how often, where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterpart {
    /// For the report.
    pub name: String,
    /// What is spoken.
    pub speech: Speech,
    /// Requests.
    pub count: u32,
    /// Where.
    pub target: Target,
}

/// What became of the requests to one origin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// Requests that were answered.
    pub answered: u32,
    /// The numbers of those that were not.
    pub failed: Vec<u32>,
    /// The first complaints.
    pub complaints: Vec<String>,
}

/// Makes the requests to each origin, to all of them at the same time. Before each is a pause that depends on its
/// number alone, up to `longest`.
///
/// # Errors
/// When a thread panics; what goes wrong with a request is counted.
pub fn requests(way: &Way, counterparts: &[Counterpart], longest: Duration) -> Result<BTreeMap<String, Answers>> {
    thread::scope(|scope| {
        let start = |counterpart| (counterpart, scope.spawn(move || one_by_one(way, counterpart, longest)));
        let running: Vec<(&Counterpart, _)> = counterparts.iter().map(start).collect();
        let join = |(counterpart, thread): (&Counterpart, thread::ScopedJoinHandle<'_, Answers>)| {
            Ok((counterpart.name.clone(), thread.join().map_err(|_| anyhow!("a thread of requests panicked"))?))
        };
        running.into_iter().map(join).collect()
    })
}

fn one_by_one(way: &Way, counterpart: &Counterpart, longest: Duration) -> Answers {
    let mut answers = Answers::default();
    let mut opener = Opener::new(way.clone()).with_patience(PATIENCE);
    for number in 0..counterpart.count {
        // Spread evenly, in no order that could be in step with anything.
        clock::pause(longest * (number.wrapping_mul(0x9e37_79b9) >> 16) / (1 << 16));
        let opened = opener.open(&counterpart.target).context("connect");
        match opened.and_then(|opened| counterpart.speech.speak(opened.stream, number)) {
            Ok(()) => answers.answered += 1,
            Err(error) => {
                answers.failed.push(number);
                if answers.complaints.len() < 5 {
                    answers.complaints.push(format!("{number}: {error:#}"));
                }
            }
        }
    }
    answers
}

impl Speech {
    const ALL: [(Self, &'static str); 3] = [(Self::Http, "http"), (Self::Ssh, "ssh"), (Self::Smtp, "smtp")];

    fn speak(self, mut stream: TcpStream, number: u32) -> Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        match self {
            Self::Http => {
                write!(stream, "GET /{number} HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n").context("ask")?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).context("read the answer")?;
                let answer = String::from_utf8_lossy(&answer);
                let status = answer.lines().next().unwrap_or("nothing");
                ensure!(status.starts_with("HTTP/1.") && status.contains(" 200"), "{status}");
                let length =
                    answer.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                let body = answer.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
                ensure!(length.is_none_or(|length: usize| length == body), "an answer cut to {body} bytes");
            }
            Self::Ssh => {
                ensure!(line(&mut stream).context("read the greeting")?.starts_with("SSH-2.0-"), "no greeting");
                stream.write_all(b"SSH-2.0-plain\r\n").context("greet")?;
                // The first packet of the server: its length, then the list of key exchanges.
                let mut head = [0; 6];
                stream.read_exact(&mut head).context("read the key exchange")?;
                ensure!(head[5] == 20, "no key exchange");
            }
            Self::Smtp => {
                let greeting = line(&mut stream).context("read the greeting")?;
                ensure!(greeting.starts_with("220 "), "{greeting:?} for a greeting");
                stream.write_all(b"QUIT\r\n").context("take leave")?;
                let farewell = line(&mut stream).context("read the farewell")?;
                ensure!(farewell.starts_with("221 "), "{farewell:?} for a farewell");
            }
        }
        Ok(())
    }
}

/// One line, read byte by byte.
fn line(stream: &mut TcpStream) -> Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        ensure!(
            line.len() < 1024 && stream.read(&mut byte)? == 1,
            "{:?} and then the end",
            String::from_utf8_lossy(&line)
        );
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

impl fmt::Display for Counterpart {
    /// `NAME=COUNT*SPEECH@TARGET`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let speech = Speech::ALL.iter().find(|(known, _)| *known == self.speech).map_or("", |(_, word)| word);
        write!(formatter, "{}={}*{speech}@{}", self.name, self.count, self.target)
    }
}

impl FromStr for Counterpart {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = || {
            let (name, rest) = text.split_once('=')?;
            let (count, rest) = rest.split_once('*')?;
            let (speech, target) = rest.split_once('@')?;
            Some((name, count, speech, target))
        };
        let Some((name, count, speech, target)) = parts() else { bail!("{text} is not NAME=COUNT*SPEECH@TARGET") };
        let speech = Speech::ALL.iter().find(|(_, word)| *word == speech).context("an unknown speech")?.0;
        Ok(Self { name: name.to_owned(), speech, count: count.parse()?, target: target.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::Counterpart;

    #[test]
    fn a_counterpart_reads_as_it_is_written() {
        let text = "openssh=9*ssh@198.51.100.10:8022";
        assert_eq!(text.parse::<Counterpart>().unwrap().to_string(), text);
        assert!("openssh=9*telnet@198.51.100.10:8022".parse::<Counterpart>().is_err());
    }
}
