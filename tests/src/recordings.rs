//! The same traffic as files of every format that `prewarm replay` reads, made by hand.
//!
//! Comes in: look-ups and connections. Goes out: the bytes of a file. Never here: reading one.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use prewarm_user::model::Name;

/// Who answers.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
const ANSWER: u16 = 0x8180;
const QUERY: u16 = 0x0100;

/// A look-up that was answered.
#[derive(Clone, Debug)]
pub struct LookUp {
    /// When it was asked, since 1970.
    pub at: Duration,
    /// Who asked.
    pub client: Ipv4Addr,
    /// For what.
    pub name: String,
    /// What the answer took.
    pub took: Duration,
    /// For how many seconds it may be kept.
    pub ttl: u32,
    /// What it said.
    pub address: Ipv4Addr,
}

impl LookUp {
    fn wire(&self) -> Vec<u8> {
        let name = self.name.parse::<Name>();
        name.map(|name| name.as_wire().to_vec()).unwrap_or_default()
    }

    /// The question as a DNS message.
    #[must_use]
    pub fn question(&self) -> Vec<u8> {
        let mut bytes = header(QUERY, 0);
        bytes.extend(self.wire());
        put(&mut bytes, &[1, 1]);
        bytes
    }

    /// The answer as a DNS message.
    #[must_use]
    pub fn answer(&self) -> Vec<u8> {
        let mut bytes = header(ANSWER, 1);
        bytes.extend(self.wire());
        put(&mut bytes, &[1, 1, 0xc00c, 1, 1]);
        bytes.extend(self.ttl.to_be_bytes());
        put(&mut bytes, &[4]);
        bytes.extend(self.address.octets());
        bytes
    }
}

/// A TCP connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// When the client asked for it, since 1970.
    pub at: Duration,
    /// Who asked; the port tells connections apart.
    pub client: SocketAddrV4,
    /// Where to.
    pub server: SocketAddrV4,
    /// What the handshake took.
    pub took: Duration,
    /// What the client says first, in segments.
    pub says: Vec<Vec<u8>>,
}

fn header(flags: u16, answers: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, &[0x1234, flags, 1, answers, 0, 0]);
    bytes
}

fn put(bytes: &mut Vec<u8>, values: &[u16]) {
    bytes.extend(values.iter().flat_map(|value| value.to_be_bytes()));
}

fn seconds(at: Duration) -> String {
    format!("{}.{:06}", at.as_secs(), at.subsec_micros())
}

/// A trace: time, client and name.
#[must_use]
pub fn trace(look_ups: &[LookUp]) -> Vec<u8> {
    let line = |it: &LookUp| format!("{}\t{}\t{}\n", seconds(it.at), it.client, it.name);
    look_ups.iter().map(line).collect::<String>().into_bytes()
}

/// Zeek's dns.log with columns, as it writes it.
#[must_use]
pub fn zeek(look_ups: &[LookUp]) -> Vec<u8> {
    let mut text = String::from(
        "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tdns\n\
         #open\t2024-05-06-07-08-09\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\ttrans_id\trtt\t\
         query\tqclass\tqclass_name\tqtype\tqtype_name\trcode\trcode_name\tAA\tTC\tRD\tRA\tZ\tanswers\tTTLs\trejected\n\
         #types\ttime\tstring\taddr\tport\taddr\tport\tenum\tcount\tinterval\tstring\tcount\tstring\tcount\tstring\tcount\t\
         string\tbool\tbool\tbool\tbool\tcount\tvector[string]\tvector[interval]\tbool\n",
    );
    for it in look_ups {
        // Writing to a string can't fail.
        let _written = writeln!(
            text,
            "{}\tCx\t{}\t40000\t{RESOLVER}\t53\tudp\t4660\t{}\t{}\t1\tC_INTERNET\t1\tA\t0\tNOERROR\tF\tF\tT\tT\t0\t{}\t\
             {}.000000\tF",
            seconds(it.at),
            it.client,
            seconds(it.took),
            it.name,
            it.address,
            it.ttl,
        );
    }
    text.push_str("#close\t2024-05-06-08-00-00\n");
    text.into_bytes()
}

/// Zeek's dns.log with an object a line.
#[must_use]
pub fn zeek_json(look_ups: &[LookUp]) -> Vec<u8> {
    let line = |it: &LookUp| {
        format!(
            "{{\"ts\":{},\"uid\":\"Cx\",\"id.orig_h\":\"{}\",\"id.orig_p\":40000,\"id.resp_h\":\"{RESOLVER}\",\
             \"id.resp_p\":53,\"proto\":\"udp\",\"trans_id\":4660,\"rtt\":{},\"query\":\"{}\",\"qclass\":1,\"qtype\":1,\
             \"rcode\":0,\"answers\":[\"{}\"],\"TTLs\":[{}.0],\"rejected\":false}}\n",
            seconds(it.at),
            it.client,
            seconds(it.took),
            it.name,
            it.address,
            it.ttl
        )
    };
    look_ups.iter().map(line).collect::<String>().into_bytes()
}

/// Zeek's ssl.log with columns.
#[must_use]
pub fn zeek_ssl(connections: &[(&str, &Connection)]) -> Vec<u8> {
    let mut text = String::from(
        "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tssl\n\
         #fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tversion\tserver_name\n\
         #types\ttime\tstring\taddr\tport\taddr\tport\tstring\tstring\n",
    );
    for (name, it) in connections {
        let (client, server) = (it.client, it.server);
        let _written = writeln!(
            text,
            "{}\tCx\t{}\t{}\t{}\t{}\tTLSv13\t{name}",
            seconds(it.at),
            client.ip(),
            client.port(),
            server.ip(),
            server.port()
        );
    }
    text.into_bytes()
}

/// Packets, in the order of their times.
#[must_use]
pub fn pcap(look_ups: &[LookUp], connections: &[Connection]) -> Vec<u8> {
    let mut packets = Vec::new();
    for it in look_ups {
        let (client, server) = (SocketAddrV4::new(it.client, 40_000), SocketAddrV4::new(RESOLVER, 53));
        packets.push((it.at, udp(client, server, &it.question())));
        packets.push((it.at + it.took, udp(server, client, &it.answer())));
    }
    for it in connections {
        let (client, server) = (it.client, it.server);
        let (mut at, mut next) = (it.at + it.took, 1001);
        packets.push((it.at, tcp(client, server, 1000, 0, SYN, &[])));
        packets.push((at, tcp(server, client, 5000, next, SYN | ACK, &[])));
        packets.push((at, tcp(client, server, next, 5001, ACK, &[])));
        for says in &it.says {
            at += Duration::from_micros(10);
            packets.push((at, tcp(client, server, next, 5001, ACK, says)));
            next += says.len() as u32;
        }
    }
    packets.sort_by_key(|(at, _)| *at);
    let mut bytes: Vec<u8> =
        [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1].iter().flat_map(|n: &u32| n.to_le_bytes()).collect();
    for (at, frame) in packets {
        let length = frame.len() as u32;
        let head = [at.as_secs() as u32, at.subsec_micros(), length, length];
        bytes.extend(head.iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend(frame);
    }
    bytes
}

const SYN: u8 = 2;
const ACK: u8 = 16;

fn ip(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    put(&mut bytes, &[20 + payload.len() as u16, 0, 0x4000]);
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(payload);
    bytes
}

fn udp(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, &[source.port(), destination.port(), 8 + payload.len() as u16, 0]);
    bytes.extend(payload);
    ip(*source.ip(), *destination.ip(), 17, &bytes)
}

fn tcp(source: SocketAddrV4, destination: SocketAddrV4, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, &[source.port(), destination.port()]);
    bytes.extend(seq.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend([0x50, flags]);
    put(&mut bytes, &[65_535, 0, 0]);
    bytes.extend(payload);
    ip(*source.ip(), *destination.ip(), 6, &bytes)
}

/// What a TLS client says first to a server of this name.
///
/// # Errors
/// When the name is none.
pub fn greeting(name: &str) -> anyhow::Result<Vec<u8>> {
    let roots = rustls::RootCertStore::empty();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = name.to_owned().try_into()?;
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes)
}

/// A dnstap frame stream of a resolver that writes down questions and answers.
#[must_use]
pub fn dnstap(look_ups: &[LookUp]) -> Vec<u8> {
    let mut messages = Vec::new();
    for it in look_ups {
        messages.push((it.at, tapped(it, 5)));
        messages.push((it.at + it.took, tapped(it, 6)));
    }
    messages.sort_by_key(|(at, _)| *at);
    stream(messages.iter().map(|(_, message)| &message[..]))
}

/// A frame stream around payloads.
pub fn stream<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    const CONTENT: &[u8] = b"protobuf:dnstap.Dnstap";
    let number = |value: usize| (value as u32).to_be_bytes();
    let mut bytes = Vec::new();
    for value in [0, 12 + CONTENT.len(), 2, 1, CONTENT.len()] {
        bytes.extend(number(value));
    }
    bytes.extend(CONTENT);
    for payload in payloads {
        bytes.extend(number(payload.len()));
        bytes.extend(payload);
    }
    for value in [0, 4, 3] {
        bytes.extend(number(value));
    }
    bytes
}

/// A dnstap payload of this type, by its protocol buffers definition.
fn tapped(it: &LookUp, kind: u64) -> Vec<u8> {
    let (asked, answered) = (it.at, it.at + it.took);
    let mut message = Vec::new();
    number(&mut message, 1, kind);
    number(&mut message, 3, 1);
    text(&mut message, 4, &it.client.octets());
    number(&mut message, 6, 40_000);
    number(&mut message, 8, asked.as_secs());
    fixed(&mut message, 9, asked.subsec_nanos());
    if kind == 5 {
        text(&mut message, 10, &it.question());
    } else {
        number(&mut message, 12, answered.as_secs());
        fixed(&mut message, 13, answered.subsec_nanos());
        text(&mut message, 14, &it.answer());
    }
    let mut outer = Vec::new();
    text(&mut outer, 14, &message);
    number(&mut outer, 15, 1);
    outer
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn number(bytes: &mut Vec<u8>, field: u64, value: u64) {
    varint(bytes, field << 3);
    varint(bytes, value);
}

fn fixed(bytes: &mut Vec<u8>, field: u64, value: u32) {
    varint(bytes, field << 3 | 5);
    bytes.extend(value.to_le_bytes());
}

fn text(bytes: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(bytes, field << 3 | 2);
    varint(bytes, value.len() as u64);
    bytes.extend(value);
}

/// An HTTP archive: each look-up with a request behind it that opens a connection in `connect` milliseconds.
#[must_use]
pub fn har(look_ups: &[LookUp], connect: u32) -> Vec<u8> {
    let entry = |it: &LookUp| {
        serde_json::json!({
            "startedDateTime": date(it.at),
            "time": 100,
            "request": {"method": "GET", "url": format!("https://{}/a?b=c", it.name), "headers": []},
            "response": {"status": 200, "content": {"size": 5, "mimeType": "text/html", "text": "hello"}},
            "serverIPAddress": it.address.to_string(),
            "timings": {
                "blocked": -1, "dns": it.took.as_secs_f64() * 1000.0, "connect": 2 * connect, "ssl": connect,
                "send": 0.1, "wait": 10, "receive": 5
            }
        })
    };
    let entries: Vec<_> = look_ups.iter().map(entry).collect();
    let creator = serde_json::json!({"name": "by hand", "version": "1"});
    let archive = serde_json::json!({"log": {"version": "1.2", "creator": creator, "entries": entries}});
    archive.to_string().into_bytes()
}

/// A time of the first of January 2024 and the hours behind it, as ISO 8601 writes it.
fn date(at: Duration) -> String {
    let since = at.as_secs().saturating_sub(YEAR_2024);
    let (hour, minute, second) = (since / 3600, since % 3600 / 60, since % 60);
    format!("2024-01-{:02}T{:02}:{minute:02}:{second:02}.{:06}Z", 1 + hour / 24, hour % 24, at.subsec_micros())
}

/// The first of January 2024.
pub const YEAR_2024: u64 = 1_704_067_200;

/// Visits of a page whose two followers come 200 and 900 ms later, every hundred seconds by one of two clients; each
/// answer takes 40 ms and is kept for a minute.
#[must_use]
pub fn visits(count: u32) -> Vec<LookUp> {
    let mut look_ups = Vec::new();
    for visit in 0..count {
        let followers = [("www.example.org", 0, 7), ("static.example.net", 200, 8), ("api.example.com", 900, 9)];
        for (name, lag, last) in followers {
            look_ups.push(LookUp {
                at: Duration::from_secs(YEAR_2024 + 100 * u64::from(visit)) + Duration::from_millis(lag),
                client: Ipv4Addr::new(10, 0, 0, 1 + (visit % 2) as u8),
                name: name.to_owned(),
                took: Duration::from_millis(40),
                ttl: 60,
                address: Ipv4Addr::new(93, 184, 216, last),
            });
        }
    }
    look_ups
}

/// Compressed with gzip.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to memory can't fail.
    let _written = gzip.write_all(bytes);
    gzip.finish().unwrap_or_default()
}
