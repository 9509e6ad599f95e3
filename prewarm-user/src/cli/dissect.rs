//! `prewarm dissect`: the real kernel program over each frame of captures, and what it saw.
//!
//! The addresses come from the frame; the verdict, the number and the name come from the program through the ring.
//! Each frame is seen as if it were the first.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use prewarm_ebpf::{
    abi::{FLAG_TCP, INGRESS},
    address, locate,
};
use serde::Serialize;

use crate::{
    kernel::{Body, KernelError, Key, MAX_FRAME, MIN_FRAME, Record, Trial, object},
    model::Name,
    observe::{Capture, CaptureError, ETHERNET},
};

const XDP_PASS: u32 = 2;

/// Run the kernel program over captures and print the DNS questions it sees.
///
/// One line a question, tab-separated: frame number, source, destination, IP version, transport, DNS number, name,
/// type. What was left out is summed up by reason on standard error.
#[derive(Clone, Debug, Args)]
pub struct Dissect {
    /// Captures: pcap or pcapng, compressed with gzip or not.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// A question as it is printed.
#[derive(Debug, Serialize)]
struct Row {
    frame: u64,
    source: IpAddr,
    destination: IpAddr,
    ip_version: u8,
    transport: &'static str,
    id: u16,
    name: String,
    qtype: u16,
    qclass: u16,
}

/// What a file had.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    frames: u64,
    questions: Vec<Row>,
    /// Frames and messages that were left out, by reason.
    left_out: BTreeMap<String, u64>,
    /// What is wrong with the file, if anything.
    warning: Option<String>,
}

/// What a command of its own exit code failed on.
#[derive(Debug, thiserror::Error)]
enum DissectError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error("frame {0}: the program's verdict is {1}, which should be to let it pass")]
    Verdict(u64, u32),
    #[error("frame {0}: the program's record has no name")]
    NoName(u64),
    #[error("can't write: {0}")]
    Write(#[from] io::Error),
}

impl Dissect {
    /// Runs the command: data to `out`, the rest to `log`.
    pub fn run(&self, out: &mut dyn Write, log: &mut dyn Write) -> ExitCode {
        match self.try_run(out, log) {
            Ok(0) => ExitCode::from(1),
            Ok(_) => ExitCode::SUCCESS,
            Err(DissectError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                let privilege = matches!(&error, DissectError::Kernel(error) if error.is_privilege());
                let hint = if privilege {
                    " (hint: run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)"
                } else {
                    ""
                };
                // Nobody is left to tell when this fails too.
                let _unwritten = writeln!(log, "error: {error}{hint}");
                ExitCode::from(if privilege { 77 } else { 2 })
            }
        }
    }

    /// Gives how many questions there were.
    fn try_run(&self, out: &mut dyn Write, log: &mut dyn Write) -> Result<usize, DissectError> {
        // Files first: a bad name is the likelier mistake, and needs no privilege to be told.
        let captures =
            self.files.iter().map(|path| Ok((path, Capture::open(path)?))).collect::<Result<Vec<_>, CaptureError>>()?;
        let object = object().ok_or(KernelError::NoObject)?;
        // The names are printed and the IDs are not, so the key is of no matter.
        let mut trial = Trial::ingress(object, Key::from_secret(&[0; 32]))?;
        let mut found = 0;
        let mut reports = Vec::new();
        let several = captures.len() > 1;
        for (path, mut capture) in captures {
            let report = dissect(&mut trial, path, &mut capture, &mut |row| {
                found += 1;
                if self.json { Ok(()) } else { write_row(out, row) }
            })?;
            if !self.json {
                write_summary(log, &report, several)?;
            }
            reports.push(report);
        }
        if self.json {
            serde_json::to_writer(&mut *out, &serde_json::json!({ "schema": 1, "files": reports }))
                .map_err(io::Error::from)?;
            writeln!(out)?;
        }
        out.flush()?;
        Ok(found)
    }
}

fn dissect(
    trial: &mut Trial,
    path: &Path,
    capture: &mut Capture,
    each: &mut dyn FnMut(&Row) -> io::Result<()>,
) -> Result<Report, DissectError> {
    let before = trial.counters().ingress()?;
    let mut report = Report {
        file: path.display().to_string(),
        frames: 0,
        questions: Vec::new(),
        left_out: BTreeMap::new(),
        warning: None,
    };
    loop {
        let frame = match capture.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error @ CaptureError::Broken { .. }) => {
                report.warning = Some(error.to_string());
                break;
            }
            Err(error) => return Err(error.into()),
        };
        report.frames += 1;
        let mut leave_out = |reason: String| *report.left_out.entry(reason).or_default() += 1;
        if frame.link_type != ETHERNET {
            leave_out(format!("link_type_{}", frame.link_type));
            continue;
        }
        if frame.bytes.len() < MIN_FRAME {
            leave_out("shorter_than_ethernet".to_owned());
            continue;
        }
        // The program gets as much of it as a test run takes; questions stand at a packet's beginning.
        let bytes = &frame.bytes[..frame.bytes.len().min(MAX_FRAME)];
        if bytes.len() < frame.bytes.len() {
            leave_out("cut_for_test_run".to_owned());
        }
        let (verdict, _) = trial.run(INGRESS, bytes, 1)?;
        if verdict != XDP_PASS {
            return Err(DissectError::Verdict(frame.number, verdict));
        }
        for record in trial.records() {
            if let Some(row) = row(frame.number, bytes, record)? {
                each(&row)?;
                report.questions.push(row);
            }
        }
    }
    let counts = trial.counters().ingress()? - before;
    for (counter, count) in counts.reasons() {
        *report.left_out.entry(counter.name().to_owned()).or_default() += count;
    }
    if counts.ring_lost > 0 {
        report.left_out.insert("ring_lost".to_owned(), counts.ring_lost);
    }
    Ok(report)
}

fn row(number: u64, bytes: &[u8], record: Record) -> Result<Option<Row>, DissectError> {
    let Record { head, name, body: Body::Question } = record else { return Ok(None) };
    let name: Name = name.ok_or(DissectError::NoName(number))?;
    // The program found a question there, so the same parser finds the addresses.
    let Ok(segment) = locate(&bytes) else { return Ok(None) };
    let ip = |destination| {
        address(&bytes, &segment, destination).map(|[first, second]| {
            let mut octets = [0; 16];
            octets[..8].copy_from_slice(&first.to_ne_bytes());
            octets[8..].copy_from_slice(&second.to_ne_bytes());
            // Only what comes from IPv4 is shown as such, not a mapped address on the wire.
            if segment.v6 { IpAddr::V6(Ipv6Addr::from(octets)) } else { Ipv6Addr::from(octets).to_canonical() }
        })
    };
    let (Some(source), Some(destination)) = (ip(false), ip(true)) else { return Ok(None) };
    Ok(Some(Row {
        frame: number,
        source,
        destination,
        ip_version: if segment.v6 { 6 } else { 4 },
        transport: if head.flags & FLAG_TCP == 0 { "udp" } else { "tcp" },
        id: head.message,
        name: name.to_string(),
        qtype: head.qtype,
        qclass: head.qclass,
    }))
}

fn write_row(out: &mut dyn Write, row: &Row) -> io::Result<()> {
    let Row { frame, source, destination, ip_version, transport, id, name, qtype, .. } = row;
    writeln!(out, "{frame}\t{source}\t{destination}\t{ip_version}\t{transport}\t{id:#06x}\t{name}\t{qtype}")
}

fn write_summary(log: &mut dyn Write, report: &Report, several: bool) -> io::Result<()> {
    let Report { file, frames, questions, left_out, warning } = report;
    if let Some(warning) = warning {
        writeln!(log, "warning: {warning}")?;
    }
    if several {
        write!(log, "{file}: ")?;
    }
    writeln!(log, "{frames} frames, {} questions", questions.len())?;
    for (reason, count) in left_out {
        writeln!(log, "  left out: {count} {reason}")?;
    }
    Ok(())
}
