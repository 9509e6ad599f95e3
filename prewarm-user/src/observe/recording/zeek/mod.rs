//! Zeek's dns.log and ssl.log: columns with a head that names them, or a JSON object a line.
//!
//! A line of dns.log is a question and, where there was one, its answer; a line of ssl.log is a client that named whom it
//! connects to, and the address it connected to.

mod columns;
mod json;

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use self::columns::Columns;
use super::{
    LeftOut, Reader, Reason, RecordingError, Shows,
    lines::{Line, Lines},
    words::{self, Observer},
};
use crate::{
    kernel::Key,
    model::{Observation, Timestamp},
};

const DNS: u16 = 53;
/// Class IN.
const IN: u32 = 1;

/// A log being read.
pub(super) struct Zeek {
    lines: Lines,
    observer: Observer,
    left_out: LeftOut,
    columns: Option<Columns>,
    ready: VecDeque<Observation>,
    /// Whether lines of dns.log were seen.
    answers: bool,
}

/// What a line says; what is unset is not there.
#[derive(Debug, Default)]
pub(super) struct Fields {
    at: Option<Timestamp>,
    client: Option<IpAddr>,
    server: Option<IpAddr>,
    port: Option<u16>,
    rtt: Option<Duration>,
    query: Option<Vec<u8>>,
    qclass: Option<u32>,
    qtype: Option<u16>,
    rcode: Option<u8>,
    addresses: Vec<IpAddr>,
    ttl: Option<Duration>,
    server_name: Option<Vec<u8>>,
}

impl Zeek {
    pub(super) fn new(lines: Lines, key: Key) -> Result<Self, RecordingError> {
        let mut zeek = Self {
            lines,
            observer: Observer::new(key),
            left_out: LeftOut::default(),
            columns: None,
            ready: VecDeque::new(),
            answers: false,
        };
        // The first line tells which of the two logs it is, before anybody asks what it shows.
        zeek.fill()?;
        Ok(zeek)
    }

    /// Reads lines until one says something.
    fn fill(&mut self) -> Result<(), RecordingError> {
        while self.ready.is_empty() {
            let Some(line) = self.lines.next()? else { return Ok(()) };
            let taken = match line {
                Line::TooLong => Err(Reason::LongLine),
                Line::Text if self.lines.text().starts_with(b"#") => {
                    let columns = self.columns.get_or_insert_with(Columns::default);
                    columns.head(self.lines.text());
                    if columns.is_another_log() {
                        return Err(RecordingError::Broken {
                            path: self.lines.path().to_owned(),
                            place: format!("line {}", self.lines.number()),
                            what: "the log has neither names that were asked for nor names of TLS servers".to_owned(),
                            hint: "of Zeek's logs, dns.log and ssl.log are read",
                        });
                    }
                    continue;
                }
                Line::Text => self.line(),
            };
            if let Err(reason) = taken {
                self.left_out.add(reason, self.lines.number());
            }
        }
        Ok(())
    }

    /// Takes in what the line says.
    fn line(&mut self) -> Result<(), Reason> {
        let text = self.lines.text();
        let fields = match &self.columns {
            Some(columns) if !text.starts_with(b"{") => columns.fields(text)?,
            _ => json::fields(text)?,
        };
        let (Some(at), Some(client)) = (fields.at, fields.client) else { return Err(Reason::Broken) };
        if let Some(query) = &fields.query {
            let name = words::host(query);
            return self.question(at, client, name.ok_or(Reason::NoName)?, fields);
        }
        let name = fields.server_name.as_deref().and_then(words::host).ok_or(Reason::NoName)?;
        if let Some(server) = fields.server {
            let address = vec![server];
            let answer = self.observer.answer(at, client, &name, (words::A, 0), Duration::ZERO, address);
            self.ready.push_back(answer);
        }
        self.ready.push_back(self.observer.named(at, client, &name, fields.port.unwrap_or(443)));
        Ok(())
    }

    fn question(
        &mut self,
        at: Timestamp,
        client: IpAddr,
        name: crate::model::Name,
        fields: Fields,
    ) -> Result<(), Reason> {
        if fields.port.is_some_and(|port| port != DNS) {
            return Err(Reason::OtherPort);
        }
        if fields.qclass.is_some_and(|class| class != IN) {
            return Err(Reason::OtherClass);
        }
        self.answers = true;
        let qtype = fields.qtype.unwrap_or(words::A);
        self.ready.push_back(self.observer.question(at, client, fields.server, &name, qtype));
        if let Some(rcode) = fields.rcode {
            let at = at + fields.rtt.unwrap_or_default();
            let ttl = fields.ttl.unwrap_or_default();
            self.ready.push_back(self.observer.answer(at, client, &name, (qtype, rcode), ttl, fields.addresses));
        }
        Ok(())
    }
}

impl Reader for Zeek {
    fn next(&mut self) -> Result<Option<Observation>, RecordingError> {
        self.fill()?;
        Ok(self.ready.pop_front())
    }

    fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    fn shows(&self) -> Shows {
        Shows { answers: self.answers, ttls: self.answers, connections: false }
    }
}

/// The least of several TTLs.
fn least(ttls: impl Iterator<Item = Option<Duration>>) -> Option<Duration> {
    ttls.flatten().min()
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, sync::Arc};

    use super::*;
    use crate::{
        model::Seen,
        observe::recording::{Format, Recording},
    };

    fn read(text: &str) -> (Vec<Observation>, LeftOut) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut recording = Recording::open(file.path(), None, &Key::from_secret(&[0; 32]), &Arc::default()).unwrap();
        assert_eq!(recording.format(), Format::Zeek);
        let mut observations = Vec::new();
        while let Some(observation) = recording.next_observation().unwrap() {
            observations.push(observation);
        }
        (observations, recording.left_out().clone())
    }

    const HEAD: &str = "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tdns\n\
        #open\t2009-11-18-08-00-21\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\trtt\tquery\t\
        qclass\tqtype\trcode\tanswers\tTTLs\n#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tinterval\tstring\tcount\t\
        count\tcount\tvector[string]\tvector[interval]\n";

    #[test]
    fn columns_and_objects_say_the_same() {
        let columns = format!(
            "{HEAD}1258531221.486539\tC1\t192.168.1.102\t68\t192.168.1.1\t53\tudp\t0.163820\twww.example.org\t1\t1\t0\t\
             cdn\\x2cx.example.net,192.0.2.7\t300.000000,60.000000\n\
             1258531222.5\tC2\t192.168.1.102\t69\t192.168.1.1\t53\tudp\t-\tgone.example.org\t1\t28\t-\t-\t-\n"
        );
        let objects = "{\"ts\":1258531221.486539,\"id.orig_h\":\"192.168.1.102\",\"id.resp_h\":\"192.168.1.1\",\
            \"id.resp_p\":53,\"rtt\":0.16382,\"query\":\"www.example.org\",\"qclass\":1,\"qtype\":1,\"rcode\":0,\
            \"answers\":[\"cdn,x.example.net\",\"192.0.2.7\"],\"TTLs\":[300.0,60.0]}\n\
            {\"ts\":1258531222.5,\"id.orig_h\":\"192.168.1.102\",\"id.resp_h\":\"192.168.1.1\",\"id.resp_p\":53,\
            \"query\":\"gone.example.org\",\"qclass\":1,\"qtype\":28}\n";
        let (observations, left_out) = read(&columns);
        assert_eq!(left_out, LeftOut::default());
        assert_eq!(observations, read(objects).0);
        assert_eq!(observations.len(), 3);
        let Seen::Answer { ttl, addresses, .. } = &observations[1].seen else { panic!("{observations:?}") };
        assert_eq!((*ttl, &addresses[..]), (Duration::from_secs(60), &["192.0.2.7".parse().unwrap()][..]));
        assert_eq!(observations[1].at.since(observations[0].at), Duration::from_micros(163_820));
    }

    #[test]
    fn what_makes_no_sense_is_counted_where_it_first_happened() {
        let (observations, left_out) = read(&format!(
            "{HEAD}soon\tC1\t192.168.1.102\t68\t192.168.1.1\t53\tudp\t-\ta.example\t1\t1\t-\t-\t-\nhalf a li\n\
             1.0\tC1\t192.168.1.102\t68\t224.0.0.251\t5353\tudp\t-\ta.example\t1\t1\t-\t-\t-\n\
             1.0\tC1\t192.168.1.102\t68\t192.168.1.1\t53\tudp\t-\t-\t1\t1\t-\t-\t-\n\
             1.0\tC1\t192.168.1.102\t68\t192.168.1.1\t53\tudp\t-\ta.example\t1\t1\t-\t-\t-\n"
        ));
        assert_eq!(observations.len(), 1);
        let found: Vec<_> = left_out.iter().collect();
        assert_eq!(found, [(Reason::Broken, 2, 9), (Reason::NoName, 1, 12), (Reason::OtherPort, 1, 11)]);
    }

    #[test]
    fn names_of_tls_servers() {
        let (observations, _) = read(
            "{\"ts\":\"2018-03-24T17:15:20.600725Z\",\"id.orig_h\":\"10.47.1.2\",\"id.resp_h\":\"23.1.2.3\",\
             \"id.resp_p\":8443,\"server_name\":\"www.example.org\"}\n",
        );
        assert_eq!(observations[0].at.as_nanos(), 1_521_911_720_600_725_000);
        assert!(matches!(&observations[0].seen, Seen::Answer { addresses, .. } if addresses.len() == 1));
        assert!(matches!(&observations[1].seen, Seen::Named { port: 8443, leased: false, .. }));
    }
}
