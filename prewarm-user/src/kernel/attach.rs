//! One interface: what is attached to it, in which way, and why not in a better one.

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode as Mode,
        tc::{self, NlOptions, SchedClassifierLinkId, TcAttachOptions},
        xdp::XdpLinkId,
    },
};
use prewarm_ebpf::abi::{EGRESS, INGRESS};

use super::KernelError;
use crate::config::XdpMode;

/// How XDP is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// In the driver.
    Native,
    /// In the generic hook, and why not in the driver; none where that was not tried.
    Generic(Option<String>),
    /// Not at all.
    Off,
}

/// How the egress program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// By a tcx link, which goes with this process.
    Tcx,
    /// By a filter at the clsact qdisc, which is removed at the end or at the next start.
    Clsact,
    /// Not at all.
    Off,
}

/// An interface that programs are attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// What looks at what arrives.
    pub ingress: Ingress,
    /// What looks at what leaves.
    pub egress: Egress,
}

/// The same with the links that hold it.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) view: Attachment,
    xdp: Option<XdpLinkId>,
    egress: Option<SchedClassifierLinkId>,
}

/// What is wanted of an interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) ingress: Option<XdpMode>,
    pub(super) egress: bool,
    pub(super) clsact_only: bool,
}

pub(super) fn attach(ebpf: &mut Ebpf, interface: &str, wanted: Wanted) -> Result<Attached, KernelError> {
    let index = nix::net::if_::if_nametoindex(interface).map_err(|_| KernelError::NoInterface(interface.to_owned()))?;
    let view = Attachment { interface: interface.to_owned(), index, ingress: Ingress::Off, egress: Egress::Off };
    let mut attached = Attached { view, xdp: None, egress: None };
    let done = attach_to(ebpf, &mut attached, wanted);
    match done {
        Ok(()) => Ok(attached),
        Err(error) => {
            detach(ebpf, attached);
            Err(error)
        }
    }
}

fn attach_to(ebpf: &mut Ebpf, attached: &mut Attached, wanted: Wanted) -> Result<(), KernelError> {
    let interface = attached.view.interface.clone();
    if let Some(mode) = wanted.ingress {
        let (link, ingress) = attach_xdp(xdp(ebpf)?, &interface, mode)
            .map_err(|error| KernelError::refused(format!("attach XDP to {interface}"))(error.into()))?;
        attached.xdp = Some(link);
        attached.view.ingress = ingress;
    }
    if wanted.egress {
        // A daemon that was killed on a kernel without tcx left its filter.
        drop(tc::qdisc_detach_program(&interface, TcAttachType::Egress, EGRESS));
        let (link, egress) = attach_egress(classifier(ebpf)?, &interface, wanted.clsact_only)
            .map_err(|error| KernelError::refused(format!("attach to what leaves {interface}"))(error.into()))?;
        attached.egress = Some(link);
        attached.view.egress = egress;
    }
    Ok(())
}

/// Detaches; what cannot be detached was gone already.
pub(super) fn detach(ebpf: &mut Ebpf, attached: Attached) {
    let Attached { view, xdp: xdp_link, egress } = attached;
    if let Some(link) = xdp_link
        && let Err(error) = xdp(ebpf).map(|program| program.detach(link))
    {
        tracing::warn!(interface = view.interface, %error, "could not detach XDP");
    }
    if let Some(link) = egress
        && let Err(error) = classifier(ebpf).map(|program| program.detach(link))
    {
        tracing::warn!(interface = view.interface, %error, "could not detach the egress program");
    }
}

pub(super) fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    let program = ebpf.program_mut(INGRESS).ok_or(KernelError::Version { found: None })?;
    program.try_into().map_err(|error: ProgramError| KernelError::refused("find the XDP program")(error.into()))
}

pub(super) fn classifier(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, KernelError> {
    let program = ebpf.program_mut(EGRESS).ok_or(KernelError::Version { found: None })?;
    program.try_into().map_err(|error: ProgramError| KernelError::refused("find the egress program")(error.into()))
}

/// aya leaves the fallback to its user, and so does the kernel once a mode is named.
fn attach_xdp(program: &mut Xdp, interface: &str, mode: XdpMode) -> Result<(XdpLinkId, Ingress), ProgramError> {
    let refusal = match mode {
        XdpMode::Generic => None,
        XdpMode::Native | XdpMode::Auto => match program.attach(interface, Mode::Driver) {
            Ok(link) => return Ok((link, Ingress::Native)),
            Err(error) if mode == XdpMode::Native => return Err(error),
            Err(error) => Some(innermost(&error)),
        },
    };
    let link = program.attach(interface, Mode::Skb)?;
    Ok((link, Ingress::Generic(refusal)))
}

fn attach_egress(
    program: &mut SchedClassifier,
    interface: &str,
    clsact_only: bool,
) -> Result<(SchedClassifierLinkId, Egress), ProgramError> {
    if !clsact_only {
        let tcx = TcAttachOptions::TcxOrder(LinkOrder::default());
        if let Ok(link) = program.attach_with_options(interface, TcAttachType::Egress, tcx) {
            return Ok((link, Egress::Tcx));
        }
    }
    // There already, most often: another tool's, which we share.
    drop(tc::qdisc_add_clsact(interface));
    let netlink = TcAttachOptions::Netlink(NlOptions::default());
    Ok((program.attach_with_options(interface, TcAttachType::Egress, netlink)?, Egress::Clsact))
}

/// The cause that names the kernel's refusal.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
