//! Domain names.

use std::{fmt, str::FromStr, sync::Arc};

/// A domain name in lower-cased wire format (RFC 1035, 3.1), at most 255 bytes with its terminating zero.
///
/// Compares by bytes, so 0x20 case games of a client make no second name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

/// Why bytes or text are not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Over 255 bytes in wire format (RFC 1035, 2.3.4).
    #[error("the name is longer than 255 bytes")]
    TooLong,
    /// A label of no bytes before the end, or of more than 63 bytes.
    #[error("a label must have 1 to 63 bytes")]
    Label,
    /// The bytes end before the root label, or go on behind it.
    #[error("the name does not end where its bytes do")]
    Unterminated,
    /// A backslash that is followed neither by three decimal digits up to 255 nor by a character.
    #[error("a backslash must be followed by a character or by three decimal digits up to 255")]
    Escape,
}

impl Name {
    /// The longest wire format, with the terminating zero.
    pub const MAX_WIRE: usize = 255;
    /// The longest label.
    pub const MAX_LABEL: usize = 63;

    /// A name from its wire format, without compression; upper case is folded.
    ///
    /// # Errors
    /// When the bytes are not exactly one uncompressed name.
    pub fn from_wire(wire: &[u8]) -> Result<Self, NameError> {
        if wire.len() > Self::MAX_WIRE {
            return Err(NameError::TooLong);
        }
        let mut at = 0;
        loop {
            match wire.get(at) {
                None => return Err(NameError::Unterminated),
                Some(0) => break,
                Some(&length) if usize::from(length) > Self::MAX_LABEL => return Err(NameError::Label),
                Some(&length) => at += 1 + usize::from(length),
            }
        }
        if at + 1 != wire.len() {
            return Err(NameError::Unterminated);
        }
        // Length bytes are at most 63, below 'A', so folding all bytes folds only the letters.
        Ok(Self(wire.iter().map(u8::to_ascii_lowercase).collect()))
    }

    /// The lower-cased wire format.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels, leftmost first, without the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (&length, tail) = rest.split_first()?;
            if length == 0 {
                return None;
            }
            let (label, tail) = tail.split_at(usize::from(length));
            rest = tail;
            Some(label)
        })
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Whether `self` is `zone` or lies below it.
    #[must_use]
    pub fn is_within(&self, zone: &Self) -> bool {
        if !self.0.ends_with(&zone.0) {
            return false;
        }
        // The suffix must start at a label of ours, not inside one.
        let start = self.0.len() - zone.0.len();
        let mut at = 0;
        while at < start {
            at += 1 + usize::from(self.0[at]);
        }
        at == start
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Presentation format (RFC 4343, 2.1: `\.`, `\\`, `\DDD`); a dot at the end is optional, `.` is the root.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let text = if text == "." { "" } else { text };
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut label = Vec::new();
        let mut bytes = text.bytes();
        let mut end_label = |label: &mut Vec<u8>| {
            let length = u8::try_from(label.len()).ok().filter(|l| (1..=63).contains(l)).ok_or(NameError::Label)?;
            wire.push(length);
            wire.append(label);
            Ok(())
        };
        let mut open = false;
        while let Some(byte) = bytes.next() {
            open = true;
            match byte {
                b'.' => {
                    end_label(&mut label)?;
                    open = false;
                }
                b'\\' => match bytes.next().ok_or(NameError::Escape)? {
                    first @ b'0'..=b'9' => {
                        let mut value = u16::from(first - b'0');
                        for _ in 0..2 {
                            let digit = bytes.next().filter(u8::is_ascii_digit).ok_or(NameError::Escape)?;
                            value = value * 10 + u16::from(digit - b'0');
                        }
                        label.push(u8::try_from(value).map_err(|_| NameError::Escape)?);
                    }
                    other => label.push(other),
                },
                other => label.push(other),
            }
        }
        if open {
            end_label(&mut label)?;
        }
        wire.push(0);
        Self::from_wire(&wire)
    }
}

impl fmt::Display for Name {
    /// Printable bytes stand for themselves, a dot or backslash inside a label is escaped with a backslash, every
    /// other byte is `\DDD`; no dot at the end, the root is `.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        if self.is_root() {
            return f.write_char('.');
        }
        for (index, label) in self.labels().enumerate() {
            if index > 0 {
                f.write_char('.')?;
            }
            for &byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                    0x21..=0x7e => f.write_char(char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_and_wire_agree() {
        let name: Name = "WWW.Example.org.".parse().unwrap();
        assert_eq!(name.as_wire(), b"\x03www\x07example\x03org\x00");
        assert_eq!(name.to_string(), "www.example.org");
        assert_eq!(".".parse::<Name>().unwrap().to_string(), ".");
        assert_eq!(r"a\.b\\\000.c".parse::<Name>().unwrap().as_wire(), b"\x05a.b\\\0\x01c\0");
    }

    #[test]
    fn bad_text_is_refused() {
        for (text, error) in [
            ("a..b", NameError::Label),
            (".a", NameError::Label),
            (r"a\", NameError::Escape),
            (r"a\25", NameError::Escape),
            (r"a\256", NameError::Escape),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text}");
        }
        assert_eq!("a".repeat(64).parse::<Name>(), Err(NameError::Label));
        assert_eq!(vec!["a".repeat(63); 4].join(".").parse::<Name>(), Err(NameError::TooLong));
    }

    #[test]
    fn bad_wire_is_refused() {
        assert_eq!(Name::from_wire(b""), Err(NameError::Unterminated));
        assert_eq!(Name::from_wire(b"\x03ww"), Err(NameError::Unterminated));
        assert_eq!(Name::from_wire(b"\x01a\0\0"), Err(NameError::Unterminated));
        assert_eq!(Name::from_wire(b"\xc0\x0c"), Err(NameError::Label));
    }

    #[test]
    fn a_zone_holds_whole_labels_only() {
        let zone: Name = "example.org".parse().unwrap();
        assert!("www.example.org".parse::<Name>().unwrap().is_within(&zone));
        assert!(zone.is_within(&zone));
        assert!(!"badexample.org".parse::<Name>().unwrap().is_within(&zone));
        // A label whose bytes look like the zone's wire format is still one label.
        let trap = Name::from_wire(b"\x0d\x07example\x03org\0\0");
        assert!(!trap.unwrap().is_within(&zone));
    }

    proptest! {
        #[test]
        fn text_survives_a_round_trip(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8)) {
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(u8::try_from(label.len()).unwrap());
                wire.extend_from_slice(label);
            }
            wire.push(0);
            let name = Name::from_wire(&wire).unwrap();
            prop_assert_eq!(name.to_string().parse::<Name>().unwrap(), name);
        }

        #[test]
        fn no_bytes_make_it_panic(wire in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(name) = Name::from_wire(&wire) {
                prop_assert!(name.labels().all(|label| !label.is_empty() && label.len() <= Name::MAX_LABEL));
            }
        }
    }
}
