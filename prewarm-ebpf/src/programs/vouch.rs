//! Who may be answered: clients that the server itself has answered a while ago.
//!
//! So the server's own access rules, and the host's firewall, hold for what the kernel answers too: whoever they keep out
//! has never had an answer. A place in the array may be lost to another client, whose next question then passes.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use prewarm_ebpf::{
    Packet, address,
    answers::{AnswerCounter, CLIENT_ENTRIES, ClientSlot, FLAG_RD, ServerKey, spread},
    be16,
};

use crate::{
    answer::count,
    maps::{ANSWER_CLIENTS, ANSWER_SERVERS, key},
    sense::{Message, Passage},
};

const NOERROR: u16 = 0;
const NXDOMAIN: u16 = 3;
const REFUSED: u16 = 5;

/// Notes that a server of this host answered, or refused, whoever the message goes to.
#[inline(always)]
pub(crate) fn answered(passage: &Passage, message: &Message) {
    let frame = &passage.frame;
    if message.segment.tcp || message.segment.ports & 2 == 0 {
        return;
    }
    let Some(header) = frame.window::<12>(message.at) else { return };
    let flags = be16(header, 2);
    if flags & 0x8000 == 0 {
        return;
    }
    let Some(server) = address(frame, &message.segment, false) else { return };
    let Some(client) = address(frame, &message.segment, true) else { return };
    if ANSWER_SERVERS.get_ptr(ServerKey { address: server, interface: passage.interface, reserved: 0 }).is_none() {
        return;
    }
    let Some(slot) = slot(client, server) else { return };
    match flags & 0xf {
        NOERROR | NXDOMAIN => {
            // SAFETY: the helper takes nothing and only reads a clock.
            let time = unsafe { bpf_ktime_get_coarse_ns() };
            // SAFETY: inside the array. Other processors may write it too; a slot mixed from two clients is nobody's.
            unsafe { *slot = ClientSlot { client, server, time } };
            count(AnswerCounter::Vouched);
        }
        // Without recursion, or in another class, a question is refused for what it asks, not for who asks.
        REFUSED if flags & FLAG_RD != 0 && is_internet(passage, message) => {
            // SAFETY: as above.
            if unsafe { (*slot).client == client } {
                // SAFETY: as above.
                unsafe { (*slot).time = 0 };
            }
            count(AnswerCounter::Refused);
        }
        _ => {}
    }
}

/// Whether the question is of class IN.
#[inline(always)]
fn is_internet(passage: &Passage, message: &Message) -> bool {
    let Some(scan) = message.scanned else { return false };
    let at = passage.frame.blur(message.at + 12 + scan.length + 2);
    passage.frame.window::<2>(at).is_some_and(|class| *class == [0, 1])
}

/// Whether the server has answered the client less than `lasting` nanoseconds ago.
#[inline(always)]
pub(crate) fn is_known(client: [u64; 2], server: [u64; 2], now: u64, lasting: u64) -> bool {
    let Some(slot) = slot(client, server) else { return false };
    // SAFETY: inside the array; see `answered` for other processors.
    let slot = unsafe { &*slot };
    slot.client[0] == client[0]
        && slot.client[1] == client[1]
        && slot.server[0] == server[0]
        && slot.server[1] == server[1]
        && slot.time != 0
        // Another processor may have written it after the clock was read here.
        && now.saturating_sub(slot.time) <= lasting
}

#[inline(always)]
fn slot(client: [u64; 2], server: [u64; 2]) -> Option<*mut ClientSlot> {
    let mixed = (spread(client) ^ spread(server).rotate_left(17) ^ key()[0]).wrapping_mul(key()[1] | 1) >> 32;
    ANSWER_CLIENTS.get_ptr_mut(mixed as u32 & (CLIENT_ENTRIES - 1))
}
