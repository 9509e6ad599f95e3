//! The form with columns: a head that names them, then values between separators.

use std::borrow::Cow;

use super::{Fields, Reason, least, words};

/// What the head says.
#[derive(Debug)]
pub(super) struct Columns {
    separator: u8,
    set_separator: u8,
    empty: Vec<u8>,
    unset: Vec<u8>,
    /// Which field each column is.
    columns: Vec<Option<Field>>,
    named: bool,
}

/// The fields that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Time,
    Client,
    Server,
    Port,
    Rtt,
    Query,
    Class,
    Type,
    Code,
    Answers,
    Ttls,
    ServerName,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            separator: b'\t',
            set_separator: b',',
            empty: b"(empty)".to_vec(),
            unset: b"-".to_vec(),
            columns: Vec::new(),
            named: false,
        }
    }
}

impl Columns {
    /// Takes in a line of the head.
    pub(super) fn head(&mut self, line: &[u8]) {
        // This one alone is parted by a blank, since it says what parts the others.
        if let Some(separator) = line.strip_prefix(b"#separator ") {
            self.separator = unescaped(separator).first().copied().unwrap_or(b'\t');
            return;
        }
        let mut words = line.split(|byte| *byte == self.separator);
        match words.next() {
            Some(b"#set_separator") => {
                self.set_separator = words.next().and_then(<[u8]>::first).copied().unwrap_or(b',')
            }
            Some(b"#empty_field") => self.empty = words.next().unwrap_or_default().to_vec(),
            Some(b"#unset_field") => self.unset = words.next().unwrap_or_default().to_vec(),
            Some(b"#fields") => {
                self.columns = words.map(field).collect();
                self.named = true;
            }
            _ => {}
        }
    }

    /// Whether the head names columns, none of which is one of ours.
    pub(super) fn is_another_log(&self) -> bool {
        self.named && !self.columns.iter().flatten().any(|field| matches!(field, Field::Query | Field::ServerName))
    }

    /// The fields of a line.
    pub(super) fn fields(&self, line: &[u8]) -> Result<Fields, Reason> {
        let mut fields = Fields::default();
        let mut count = 0;
        for (value, column) in line.split(|byte| *byte == self.separator).zip(&self.columns) {
            count += 1;
            let Some(field) = column else { continue };
            if value == self.unset || value == self.empty {
                continue;
            }
            self.put(&mut fields, *field, value)?;
        }
        if count < self.columns.len() { Err(Reason::Broken) } else { Ok(fields) }
    }

    fn put(&self, fields: &mut Fields, field: Field, value: &[u8]) -> Result<(), Reason> {
        let broken = Reason::Broken;
        match field {
            Field::Time => fields.at = Some(words::time(value).ok_or(broken)?),
            Field::Client => fields.client = Some(words::client(value)),
            Field::Server => fields.server = number(value),
            Field::Port => fields.port = Some(number(value).ok_or(broken)?),
            Field::Rtt => fields.rtt = words::span(value),
            Field::Query => fields.query = Some(unescaped(value).into_owned()),
            Field::Class => fields.qclass = Some(number(value).ok_or(broken)?),
            Field::Type => fields.qtype = Some(number(value).ok_or(broken)?),
            // Extended codes don't fit into a header's four bits; they say as little as any failure.
            Field::Code => fields.rcode = Some(number::<u16>(value).ok_or(broken)?.try_into().unwrap_or(u8::MAX)),
            Field::Answers => {
                fields.addresses = self.items(value).filter_map(|item| number(&unescaped(item))).collect()
            }
            Field::Ttls => fields.ttl = least(self.items(value).map(words::span)),
            Field::ServerName => fields.server_name = Some(unescaped(value).into_owned()),
        }
        Ok(())
    }

    fn items<'a>(&self, value: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let separator = self.set_separator;
        value.split(move |byte| *byte == separator)
    }
}

fn field(name: &[u8]) -> Option<Field> {
    Some(match name {
        b"ts" => Field::Time,
        b"id.orig_h" => Field::Client,
        b"id.resp_h" => Field::Server,
        b"id.resp_p" => Field::Port,
        b"rtt" => Field::Rtt,
        b"query" => Field::Query,
        b"qclass" => Field::Class,
        b"qtype" => Field::Type,
        b"rcode" => Field::Code,
        b"answers" => Field::Answers,
        b"TTLs" => Field::Ttls,
        b"server_name" => Field::ServerName,
        _ => return None,
    })
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// `\xHH` stands for a byte.
fn unescaped(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.contains(&b'\\') {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        let escaped = value[at..].strip_prefix(b"\\x").and_then(|rest| rest.get(..2));
        let escaped = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        at += if escaped.is_some() { 4 } else { 1 };
        out.push(escaped.unwrap_or(byte));
    }
    Cow::Owned(out)
}
