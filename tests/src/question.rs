//! DNS questions as they stand in a datagram.

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};

/// A question for the A record of `name`, with recursion desired.
///
/// # Panics
/// When `name` is none.
pub fn bytes(name: &str) -> Vec<u8> {
    of_type(name, RecordType::A)
}

/// A question for the records of a type of `name`, with recursion desired.
///
/// # Panics
/// When `name` is none.
pub fn of_type(name: &str, record_type: RecordType) -> Vec<u8> {
    let name = Name::from_ascii(name).expect("a test's name is a name");
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, record_type));
    message.to_vec().expect("a question can be written")
}

/// A name that nothing else resembles, the same for the same number.
pub fn random_name(number: u32) -> String {
    // SplitMix64's finaliser: neighbours share no bits.
    let mut bits = u64::from(number).wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("{:016x}.example", bits ^ (bits >> 31))
}
