//! States of a TD's life, as TDCS keeps them.

tdx_codegen_macros::op_states!();

/// A set of OP_STATEs; bit `n` stands for the state of number `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct OpStates(u32);

impl OpStates {
    /// The set with these bits.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The set as bits.
    pub const fn into_bits(self) -> u32 {
        self.0
    }

    /// Whether `state` is in the set.
    pub const fn contains(self, state: OpState) -> bool {
        self.0 & 1 << state as u32 != 0
    }

    /// The states of the set.
    pub fn iter(self) -> impl Iterator<Item = OpState> {
        OpState::ALL
            .into_iter()
            .filter(move |state| self.contains(*state))
    }
}
