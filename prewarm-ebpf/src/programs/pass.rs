//! XDP: nothing. The baseline of measurements, and what the far end of a veth needs to take `XDP_TX`.

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};

#[xdp]
fn pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}
