//! How the counters of the programs are declared: once, with their place, their name in statistics and what they count.

/// Declares an enumeration of counters, `pub enum NAME: LENGTH { /// MEANING VARIANT = PLACE, NAME; … }`; `LENGTH` is how
/// many places there are.
macro_rules! counters {
    (
        $(#[doc = $meaning:literal])+
        pub enum $name:ident: $length:expr;
        $($(#[doc = $doc:literal])+ $variant:ident = $index:literal, $word:literal;)+
    ) => {
        $(#[doc = $meaning])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant = $index,)+
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in statistics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        const _: () = {
            $(assert!($index < $length);)+
        };
    };
}

pub(crate) use counters;
