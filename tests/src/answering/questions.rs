//! Questions of every kind, made from a number, and the zone that has answers to some of them.

/// Hosts of the zone.
const HOSTS: u32 = 40;

/// The zone: names of every length, sets of several records, chains, and types of all sorts.
#[must_use]
pub fn zone() -> String {
    let mut text = "$ORIGIN example.org.\n$TTL 300\n@ SOA ns.example.org. hostmaster.example.org. 1 3600 600 86400 60\n\
                    @ NS ns.example.org.\nns A 127.0.0.3\n@ MX 10 mail.example.org.\n@ A 192.0.2.80\nmail A 192.0.2.25\n"
        .to_owned();
    for host in 0..HOSTS {
        let ttl = [300, 3600, 40, 7][host as usize % 4];
        text += &format!("h{host} {ttl} A 192.0.2.{}\n", host + 1);
        if host % 2 == 0 {
            text += &format!("h{host} {ttl} AAAA 2001:db8::{host:x}\n");
        }
        if host % 3 == 0 {
            text += &format!("h{host} {ttl} TYPE65 \\# 13 00010000010006026832026833\n");
        }
        text += &format!("h{host} TXT \"host number {host}\"\n");
        text += &format!("c{host} {ttl} CNAME d{host}\nd{host} CNAME h{host}\n");
    }
    text += "near A 10.77.0.1\nnear A 10.77.0.2\n";
    for many in 2..20 {
        for record in 0..many {
            text += &format!("m{many} A 198.51.100.{record}\nm{many} AAAA 2001:db8:1::{record}\n");
        }
    }
    for name in long_names() {
        text += &format!("{name}. A 203.0.113.7\n{name}. AAAA 2001:db8:2::7\n");
    }
    text
}

/// Names of every length from 14 to 255 bytes, in steps.
fn long_names() -> Vec<String> {
    let mut names = Vec::new();
    for length in (1..240).step_by(7) {
        let mut name = "example.org".to_owned();
        let mut left = length;
        while left > 0 {
            let label = left.min(60);
            name = format!("{}.{name}", "x".repeat(label));
            left = left.saturating_sub(label + 1);
        }
        if name.len() <= 253 {
            names.push(name);
        }
    }
    names
}

/// Makes questions from random numbers.
#[derive(Clone, Debug)]
pub struct Generator {
    state: u64,
    names: Vec<String>,
}

impl Generator {
    /// One whose questions depend on nothing but this number.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut names = long_names();
        names.extend((0..HOSTS).flat_map(|host| [format!("h{host}.example.org"), format!("c{host}.example.org")]));
        names.extend((2..20).map(|many| format!("m{many}.example.org")));
        names.extend((0..30).map(|gone| format!("gone{gone}.example.org")));
        names.push("example.org".to_owned());
        Self { state: seed | 1, names }
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % limit
    }

    /// The plain questions of which most of the others are variations: every name, in the types and kinds that can be
    /// answered by the kernel.
    #[must_use]
    pub fn plain(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for name in &self.names {
            for qtype in [1, 28, 65] {
                for (flags, size) in [(0x0100, None), (0x0100, Some(1232)), (0x0120, None), (0x0120, Some(1232))] {
                    let mut message = header(all.len() as u16, flags, u8::from(size.is_some()));
                    message.extend(wire(name));
                    message.extend([0, qtype, 0, 1]);
                    message.extend(size.map(|size| opt(size, 0, &[])).unwrap_or_default());
                    all.push(message);
                }
            }
        }
        all
    }

    /// The next question, under this number.
    pub fn next(&mut self, id: u16) -> Vec<u8> {
        let place = self.below(self.names.len() as u64) as usize;
        let mut name = wire(&self.names[place]);
        // Random case, every letter for itself, in half of them.
        if self.below(2) == 0 {
            for byte in &mut name {
                if byte.is_ascii_alphabetic() && self.below(2) == 0 {
                    *byte ^= 0x20;
                }
            }
        }
        let qtype: u16 = match self.below(20) {
            0..9 => 1,
            9..14 => 28,
            14..16 => 65,
            16 => 16,
            17 => 15,
            18 => 5,
            _ => [2, 6, 33, 255, 64, 99, 65_280][self.below(7) as usize],
        };
        let class: u16 = if self.below(60) == 0 { 3 } else { 1 };
        let flags: u16 = match self.below(24) {
            0 => 0x0000,
            1 => 0x0110,
            2 => 0x0140,
            3 => 0x0500,
            4 => 0x0180,
            5 => 0x0020,
            6..12 => 0x0120,
            _ => 0x0100,
        };
        let size = [512, 1232, 1232, 4096, 0, 100, 1400, 700][self.below(8) as usize];
        let records = match self.below(24) {
            0..9 => None,
            9..20 => Some(opt(size, 0, &[])),
            20 => Some(opt(size, 0x8000, &[])),
            21 => Some(opt(size, 0x1_0000, &[])),
            22 => {
                let options: [&[u8]; 6] = [
                    b"\0\x08\0\x07\0\x01\x18\0\xc0\0\x02",
                    b"\0\x0a\0\x0812345678",
                    b"\0\x0c\0\x04\0\0\0\0",
                    b"\0\x03\0\0",
                    b"\xfd\xe9\0\x01x",
                    b"\0\x0b\0\0",
                ];
                Some(opt(size, 0, options[self.below(6) as usize]))
            }
            _ => Some(opt(size, 0x0100 << self.below(7), &[])),
        };
        let mut message = header(id, flags, u8::from(records.is_some()));
        message.extend(name);
        message.extend(qtype.to_be_bytes());
        message.extend(class.to_be_bytes());
        message.extend(records.unwrap_or_default());
        message
    }
}

fn header(id: u16, flags: u16, additionals: u8) -> Vec<u8> {
    let [a, b] = id.to_be_bytes();
    let [c, d] = flags.to_be_bytes();
    vec![a, b, c, d, 0, 1, 0, 0, 0, 0, 0, additionals]
}

fn opt(size: u16, flags: u32, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 41];
    bytes.extend(size.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    bytes.extend((options.len() as u16).to_be_bytes());
    bytes.extend(options);
    bytes
}

fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}
