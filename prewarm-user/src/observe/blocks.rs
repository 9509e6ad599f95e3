//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng).

use std::{
    io::{self, Read},
    time::Duration,
};

use super::capture::{Parts, Stop, fill, fill_buffer, number};

/// The type of a section header, the same in both byte orders; the file begins with it.
pub(super) const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// An entry of the systemd journal: no packet, but other tools number it as one.
const JOURNAL: u32 = 9;
/// `LINKTYPE_…` of what has none.
const NO_LINK_TYPE: u16 = u16::MAX;
/// A longer block is a sign of a broken file.
const LONGEST: u32 = 1 << 24;

/// Where reading stands in the file.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    started: bool,
    big_endian: bool,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: u16,
    snap_length: u32,
    /// Time stamps count this part of a second.
    resolution: u64,
    offset: u64,
}

impl Blocks {
    /// Reads blocks up to the next packet.
    pub(super) fn next(&mut self, input: &mut dyn Read, buffer: &mut Vec<u8>) -> io::Result<Result<Parts, Stop>> {
        loop {
            let kind = match self.block(input, buffer)? {
                Ok(kind) => kind,
                Err(stop) => return Ok(Err(stop)),
            };
            let parts = match kind {
                INTERFACE => {
                    let interface = self.interface(buffer);
                    self.interfaces.push(interface);
                    continue;
                }
                ENHANCED_PACKET => self.packet(buffer, self.number(buffer, 0)),
                OLD_PACKET => {
                    self.packet(buffer, self.number(buffer, 0) >> if self.big_endian { 16 } else { 0 } & 0xffff)
                }
                SIMPLE_PACKET => self.simple(buffer),
                JOURNAL => Some(Parts { link_type: NO_LINK_TYPE, time: Duration::ZERO, length: 0, start: 0, end: 0 }),
                _ => continue,
            };
            return Ok(parts.ok_or(Stop::Nonsense("a packet that doesn't fit its block")));
        }
    }

    /// Reads one block and gives its type; its body is in the buffer.
    fn block(&mut self, input: &mut dyn Read, buffer: &mut Vec<u8>) -> io::Result<Result<u32, Stop>> {
        // The type of the first block was read to see that this is pcapng.
        let mut kind = SECTION;
        if self.started {
            match fill(input, &mut kind)? {
                0 => return Ok(Err(Stop::End)),
                4 => {}
                _ => return Ok(Err(Stop::Short)),
            }
        }
        self.started = true;
        let mut length = [0; 4];
        if fill(input, &mut length)? < 4 {
            return Ok(Err(Stop::Short));
        }
        let mut before = 8;
        if kind == SECTION {
            let mut order = [0; 4];
            if fill(input, &mut order)? < 4 {
                return Ok(Err(Stop::Short));
            }
            self.big_endian = match order {
                [0x1a, 0x2b, 0x3c, 0x4d] => true,
                [0x4d, 0x3c, 0x2b, 0x1a] => false,
                _ => return Ok(Err(Stop::Nonsense("a section in no byte order"))),
            };
            self.interfaces.clear();
            before = 12;
        }
        let length = number(&length, 0, self.big_endian);
        if !(before + 4..=LONGEST).contains(&length) || !length.is_multiple_of(4) {
            return Ok(Err(Stop::Nonsense("a block of an impossible length")));
        }
        if !fill_buffer(input, buffer, (length - before) as usize)? {
            return Ok(Err(Stop::Short));
        }
        // The length stands behind the block once more.
        buffer.truncate(buffer.len() - 4);
        Ok(Ok(number(&kind, 0, self.big_endian)))
    }

    fn interface(&self, body: &[u8]) -> Interface {
        let (link_type, _) = self.halves(body, 0);
        let mut interface =
            Interface { link_type, snap_length: self.number(body, 4), resolution: 1_000_000, offset: 0 };
        let mut at = 8;
        while at + 4 <= body.len() {
            let (code, length) = self.halves(body, at);
            let value = body.get(at + 4..).unwrap_or_default();
            match (code, value.first()) {
                (0, _) => break,
                (9, Some(&exponent)) => {
                    let power = u32::from(exponent & 0x7f);
                    let base: u64 = if exponent & 0x80 == 0 { 10 } else { 2 };
                    interface.resolution = base.checked_pow(power).unwrap_or(1_000_000);
                }
                (14, Some(_)) => {
                    let (first, second) = (self.number(value, 0), self.number(value, 4));
                    let (high, low) = if self.big_endian { (first, second) } else { (second, first) };
                    interface.offset = u64::from(high) << 32 | u64::from(low);
                }
                _ => {}
            }
            at += 4 + usize::from(length).next_multiple_of(4);
        }
        interface
    }

    fn packet(&self, body: &[u8], interface: u32) -> Option<Parts> {
        let interface = self.interfaces.get(interface as usize)?;
        let ticks = u64::from(self.number(body, 4)) << 32 | u64::from(self.number(body, 8));
        let end = 20_usize.checked_add(self.number(body, 12) as usize)?;
        if end > body.len() {
            return None;
        }
        let fraction = u128::from(ticks % interface.resolution) * 1_000_000_000 / u128::from(interface.resolution);
        let seconds = (ticks / interface.resolution).saturating_add(interface.offset);
        let time = Duration::new(seconds, u32::try_from(fraction).ok()?);
        Some(Parts { link_type: interface.link_type, time, length: self.number(body, 16), start: 20, end })
    }

    fn simple(&self, body: &[u8]) -> Option<Parts> {
        let interface = self.interfaces.first()?;
        let length = self.number(body, 0);
        let snap = if interface.snap_length == 0 { u32::MAX } else { interface.snap_length };
        let end = 4 + length.min(snap) as usize;
        if end > body.len() {
            return None;
        }
        Some(Parts { link_type: interface.link_type, time: Duration::ZERO, length, start: 4, end })
    }

    fn number(&self, bytes: &[u8], at: usize) -> u32 {
        number(bytes, at, self.big_endian)
    }

    /// Two 16-bit numbers in their order in the file.
    fn halves(&self, bytes: &[u8], at: usize) -> (u16, u16) {
        let word = self.number(bytes, at);
        let (high, low) = ((word >> 16) as u16, (word & 0xffff) as u16);
        if self.big_endian { (high, low) } else { (low, high) }
    }
}
