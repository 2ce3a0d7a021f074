//! Words with named bits.

/// Declares newtypes over `u64` with a getter and a builder for each named field.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($field:ident, $with:ident: $high:literal .. $low:literal;)* } reserved $reserved:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The word with these bits, reserved ones included.
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits)
            }

            /// All bits of the word.
            pub const fn into_bits(self) -> u64 {
                self.0
            }

            /// Whether every reserved bit is 0.
            pub const fn reserved_is_zero(self) -> bool {
                self.0 & $reserved == 0
            }

            $(
                #[doc = concat!("Bits ", $high, ":", $low, ".")]
                pub const fn $field(self) -> u64 {
                    (self.0 >> $low) & (u64::MAX >> (63 - $high + $low))
                }

                #[doc = concat!("The word with bits ", $high, ":", $low, " replaced by the low bits of `value`.")]
                #[must_use]
                pub const fn $with(self, value: u64) -> Self {
                    let mask = (u64::MAX >> (63 - $high + $low)) << $low;
                    Self((self.0 & !mask) | ((value << $low) & mask))
                }
            )*
        }
    )*};
}
pub(crate) use words;
