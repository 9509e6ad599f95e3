//! What the programs counted.

use std::ops::Sub;

use aya::maps::{MapData, PerCpuArray};
use prewarm_ebpf::{
    Counter,
    abi::{COUNTERS, COUNTERS_EGRESS, COUNTERS_INGRESS, COUNTERS_LENGTH, COUNTERS_SOCKOPS},
};
use serde::Serialize;

use super::KernelError;

/// The reader of the programs' counters.
pub struct Counters(PerCpuArray<MapData, [u64; COUNTERS_LENGTH]>);

impl Counters {
    pub(super) const fn new(map: PerCpuArray<MapData, [u64; COUNTERS_LENGTH]>) -> Self {
        Self(map)
    }

    /// What `ingress` counted, on all processors.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn ingress(&self) -> Result<Counts, KernelError> {
        self.sum(COUNTERS_INGRESS)
    }

    /// What `egress` counted, on all processors.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn egress(&self) -> Result<Counts, KernelError> {
        self.sum(COUNTERS_EGRESS)
    }

    /// What `sockops` counted, on all processors.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn sockops(&self) -> Result<Counts, KernelError> {
        self.sum(COUNTERS_SOCKOPS)
    }

    fn sum(&self, program: u32) -> Result<Counts, KernelError> {
        let values = self.0.get(&program, 0).map_err(|source| KernelError::Map { map: COUNTERS, source })?;
        let mut sums = [0_u64; COUNTERS_LENGTH];
        for cpu in values.iter() {
            for (sum, value) in sums.iter_mut().zip(cpu) {
                *sum = sum.wrapping_add(*value);
            }
        }
        Ok(Counts::from_sums(&sums))
    }
}

/// Declares the counts of one program with the fields of the contract's counters.
macro_rules! counts {
    ($($field:ident = $variant:ident),+ $(,)?) => {
        /// What one program counted since it was loaded. The meaning of each field is at [`Counter`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        #[expect(missing_docs, reason = "each field is documented at its counter in the contract")]
        pub struct Counts {
            $(pub $field: u64,)+
        }

        impl Counts {
            fn from_sums(sums: &[u64; COUNTERS_LENGTH]) -> Self {
                Self { $($field: sums[Counter::$variant as usize],)+ }
            }

            /// One of them.
            #[must_use]
            pub const fn get(&self, counter: Counter) -> u64 {
                match counter {
                    $(Counter::$variant => self.$field,)+
                }
            }
        }

        impl Sub for Counts {
            type Output = Self;

            /// What was counted since `earlier`.
            fn sub(self, earlier: Self) -> Self {
                Self { $($field: self.$field.wrapping_sub(earlier.$field),)+ }
            }
        }
    };
}

counts! {
    packets = Packets,
    questions = Questions,
    answers = Answers,
    folded = Folded,
    events = Events,
    named_events = NamedEvents,
    ring_lost = RingLost,
    wake_ups = WakeUps,
    own = Own,
    other_rcode = OtherRcode,
    not_ip = NotIp,
    too_many_tags = TooManyTags,
    truncated = Truncated,
    bad_ip_header = BadIpHeader,
    lying_length = LyingLength,
    fragment = Fragment,
    too_many_extensions = TooManyExtensions,
    other_transport = OtherTransport,
    other_port = OtherPort,
    tcp_empty = TcpEmpty,
    tcp_partial = TcpPartial,
    tcp_more_messages = TcpMoreMessages,
    short_message = ShortMessage,
    wrong_direction = WrongDirection,
    opcode = Opcode,
    question_count = QuestionCount,
    name_compressed = NameCompressed,
    label_type = LabelType,
    name_too_long = NameTooLong,
    name_overrun = NameOverrun,
    bad_answer = BadAnswer,
    more_records = MoreRecords,
    more_addresses = MoreAddresses,
    unreachable = Unreachable,
    connected = Connected,
    dialled = Dialled,
    closed = Closed,
    encrypted_tcp = EncryptedTcp,
    encrypted_udp = EncryptedUdp,
}

impl Counts {
    /// All of them by name, for metrics and tables.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let counts = *self;
        Counter::ALL.iter().map(move |&counter| (counter.name(), counts.get(counter)))
    }

    /// The reasons why frames or messages were left alone, with how many, those that occurred.
    pub fn reasons(&self) -> impl Iterator<Item = (Counter, u64)> + use<> {
        let counts = *self;
        Counter::ALL
            .iter()
            .filter(|counter| counter.is_reason())
            .map(move |&counter| (counter, counts.get(counter)))
            .filter(|&(_, count)| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_fields() {
        let json = serde_json::to_value(Counts::default()).unwrap();
        for (name, _) in Counts::default().iter() {
            assert!(json.get(name).is_some(), "{name}");
        }
        assert_eq!(json.as_object().unwrap().len(), Counter::ALL.len());
    }
}
