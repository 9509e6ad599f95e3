//! Attaching the programs to an interface, and taking them off again.

use aya::{
    Ebpf,
    programs::{
        Link as _, LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp,
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
        xdp::{self, XdpLink},
    },
};
use prewarm_ebpf::abi::{EGRESS, INGRESS};
use serde::Serialize;

use super::{KernelError, link, netlink};
use crate::config;

/// Priority and handle of our filter where tcx is missing: the place where the next start finds what a killed daemon
/// left behind.
const PRIORITY: u16 = 0x7077;
const HANDLE: TcHandle = TcHandle::new(0, 0x7077);

/// How the programs sit on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// The interface's index.
    pub index: u32,
    /// Where `ingress` runs.
    pub xdp: XdpMode,
    /// Why not in the driver, if it doesn't.
    pub xdp_reason: Option<String>,
    /// Where `egress` runs.
    pub egress: EgressHook,
    /// Why not at tcx, if it doesn't.
    pub egress_reason: Option<String>,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver, before the kernel has made anything of the packet.
    Native,
    /// In the stack, with any driver.
    Generic,
    /// Nowhere.
    Off,
}

/// Where the egress program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressHook {
    /// At tcx, gone with the daemon.
    Tcx,
    /// As a filter of the clsact qdisc, as before Linux 6.6.
    Clsact,
    /// Nowhere.
    Off,
}

/// The programs on an interface; taken off when dropped.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) attachment: Attachment,
    xdp: Option<XdpLink>,
    egress: Option<SchedClassifierLink>,
    /// The clsact qdisc wasn't there before.
    own_clsact: bool,
}

/// Which programs are wanted, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) ingress: Option<config::XdpMode>,
    pub(super) egress: bool,
    pub(super) tcx: bool,
    /// Whether packets are sent back.
    pub(super) answers: bool,
}

/// Attaches the programs that are wanted, or none.
pub(super) fn attach(bpf: &mut Ebpf, interface: &str, wanted: Wanted) -> Result<Attached, KernelError> {
    let index = link::index(interface)?;
    link::expect_ethernet(interface)?;
    let (xdp, xdp_mode, xdp_reason) = match wanted.ingress {
        Some(mode) => attach_xdp(bpf, interface, index, mode, wanted.answers)?,
        None => (None, XdpMode::Off, None),
    };
    // On an error `xdp` is dropped, and with it the attachment.
    let (egress, hook, egress_reason, own_clsact) = if wanted.egress {
        classify(bpf, EGRESS, interface, TcAttachType::Egress, wanted.tcx)?
    } else {
        (None, EgressHook::Off, None, false)
    };
    let attachment =
        Attachment { interface: interface.to_owned(), index, xdp: xdp_mode, xdp_reason, egress: hook, egress_reason };
    Ok(Attached { attachment, xdp, egress, own_clsact })
}

impl Attached {
    /// Takes the programs off. An interface that is gone took them along.
    pub(super) fn detach(self) -> Result<(), KernelError> {
        let Self { attachment, xdp, egress, own_clsact } = self;
        let detach = |program, result: Result<(), ProgramError>| match result {
            Err(_) if link::index(&attachment.interface).ok() != Some(attachment.index) => Ok(()),
            other => other.map_err(|source| KernelError::Detach {
                program,
                interface: attachment.interface.clone(),
                source: Box::new(source),
            }),
        };
        // Both are tried, whatever becomes of the first.
        let ingress = detach(INGRESS, xdp.map_or(Ok(()), XdpLink::detach));
        let egress = detach(EGRESS, egress.map_or(Ok(()), SchedClassifierLink::detach));
        if own_clsact && link::index(&attachment.interface).ok() == Some(attachment.index) {
            netlink::delete_empty_clsact(attachment.index)?;
        }
        ingress.and(egress)
    }
}

type XdpAttached = (Option<XdpLink>, XdpMode, Option<String>);

fn attach_xdp(
    bpf: &mut Ebpf,
    interface: &str,
    index: u32,
    wanted: config::XdpMode,
    answers: bool,
) -> Result<XdpAttached, KernelError> {
    let error =
        |source| KernelError::Attach { program: INGRESS, interface: interface.to_owned(), source: Box::new(source) };
    let program: &mut Xdp = bpf.program_mut(INGRESS).ok_or(KernelError::NoMap(INGRESS))?.try_into().map_err(error)?;
    let (id, mode, reason) = match wanted {
        config::XdpMode::Generic => {
            (program.attach_to_if_index(index, xdp::XdpMode::Skb).map_err(error)?, XdpMode::Generic, None)
        }
        config::XdpMode::Native => {
            (program.attach_to_if_index(index, xdp::XdpMode::Driver).map_err(error)?, XdpMode::Native, None)
        }
        config::XdpMode::Auto if answers && link::driver(interface).as_deref() == Some("veth") => {
            let reason = "a veth takes what is sent back only where its other end has an XDP program too; \
                          capture.xdp = \"native\" where it does"
                .to_owned();
            (program.attach_to_if_index(index, xdp::XdpMode::Skb).map_err(error)?, XdpMode::Generic, Some(reason))
        }
        config::XdpMode::Auto => match program.attach_to_if_index(index, xdp::XdpMode::Driver) {
            Ok(id) => (id, XdpMode::Native, None),
            Err(native) => match program.attach_to_if_index(index, xdp::XdpMode::Skb) {
                Ok(id) => (id, XdpMode::Generic, Some(reason(&native))),
                Err(generic) => return Err(error(generic)),
            },
        },
    };
    Ok((Some(program.take_link(id).map_err(error)?), mode, reason))
}

pub(super) type Classified = (Option<SchedClassifierLink>, EgressHook, Option<String>, bool);

/// Puts a classifier on an interface: at tcx, or where that is missing as a filter of the clsact qdisc. Gives its link,
/// where it is and why, and whether the qdisc was not there before.
pub(super) fn classify(
    bpf: &mut Ebpf,
    name: &'static str,
    interface: &str,
    direction: TcAttachType,
    tcx: bool,
) -> Result<Classified, KernelError> {
    let error =
        |source| KernelError::Attach { program: name, interface: interface.to_owned(), source: Box::new(source) };
    let program: &mut SchedClassifier =
        bpf.program_mut(name).ok_or(KernelError::NoMap(name))?.try_into().map_err(error)?;
    let why = if tcx {
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        match program.attach_with_options(interface, direction, options) {
            Ok(id) => return Ok((Some(program.take_link(id).map_err(error)?), EgressHook::Tcx, None, false)),
            Err(source) => reason(&source),
        }
    } else {
        "switched off".to_owned()
    };
    let own_clsact = match tc::qdisc_add_clsact(interface) {
        Ok(()) => true,
        // A qdisc that is there is as good.
        Err(TcError::AlreadyAttached | TcError::NetlinkError(_)) => false,
        Err(source) => return Err(error(source.into())),
    };
    let mut filter = || {
        let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
        program.attach_with_options(interface, direction, TcAttachOptions::Netlink(options))
    };
    let id = match filter() {
        Ok(id) => id,
        // Ours, of a daemon that was killed.
        Err(_) if tc::qdisc_detach_program(interface, direction, name).is_ok() => filter().map_err(error)?,
        Err(source) => return Err(error(source)),
    };
    Ok((Some(program.take_link(id).map_err(error)?), EgressHook::Clsact, Some(why), own_clsact))
}

/// The innermost cause, which is what a person can look up.
fn reason(error: &ProgramError) -> String {
    let error: &dyn std::error::Error = error;
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error).to_string()
}
