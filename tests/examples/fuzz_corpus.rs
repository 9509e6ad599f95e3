//! Writes the DNS messages of captures into a folder, one a file, for the fuzz targets to begin with:
//! `cargo run -p prewarm-tests --example fuzz_corpus -- FOLDER [CAPTURE…]`; without captures, those that the tests have.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::Context as _;
use etherparse::{LaxSlicedPacket, TransportSlice};
use prewarm_tests::captures;
use prewarm_user::observe::Capture;

/// The port of DNS, of multicast DNS, and of LLMNR, which have the same messages.
const PORTS: [u16; 3] = [53, 5353, 5355];

#[expect(clippy::print_stdout, reason = "says what it did")]
fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().context("name the folder to write to, for example tests/fuzz/corpus/parser")?;
    let mut messages = BTreeSet::new();
    let captures: Vec<PathBuf> = arguments.collect();
    if captures.is_empty() {
        messages.extend(captures::frames().iter().filter_map(|(_, frame)| message(frame)));
    }
    for path in captures {
        let mut capture = Capture::open(&path).with_context(|| path.display().to_string())?;
        while let Some(frame) = capture.next_frame().with_context(|| path.display().to_string())? {
            messages.extend(message(frame.bytes));
        }
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (number, message) in messages.iter().enumerate() {
        fs::write(folder.join(format!("capture-{number:05}.dns")), message)?;
    }
    println!("{} messages in {}", messages.len(), folder.display());
    Ok(())
}

/// The DNS message of an Ethernet frame, if it has one in a datagram.
fn message(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Udp(datagram)) = packet.transport else { return None };
    let is_dns = PORTS.iter().any(|port| [datagram.source_port(), datagram.destination_port()].contains(port));
    (is_dns && datagram.payload().len() >= 12).then(|| datagram.payload().to_vec())
}
