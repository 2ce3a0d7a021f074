//! States of Secure-EPT entries.

use crate::module::Module;
use crate::module::Modules;

tdx_codegen_macros::sept_states!();

/// What some modules' tables say of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateRow<S> {
    /// The state.
    pub state: S,
    /// The modules.
    pub modules: Modules,
    /// The state's bits as the table packs them.
    pub encoding: u8,
    /// The encoding with the dirty bit set, where that bit is not part of the state.
    pub also: Option<u8>,
    /// Intel's number of the state.
    pub index: Option<u8>,
    /// Slot in the table, where it is not the encoding.
    pub table_index: Option<u16>,
}

/// A set of states of L1 entries; bit `n` stands for the `n`th of [`SeptState::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct SeptStates(u32);

impl SeptStates {
    /// The set with these bits.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The set as bits.
    pub const fn into_bits(self) -> u32 {
        self.0
    }

    /// Whether `state` is in the set.
    pub const fn contains(self, state: SeptState) -> bool {
        self.0 & 1 << state as u32 != 0
    }

    /// The states of the set.
    pub fn iter(self) -> impl Iterator<Item = SeptState> {
        SeptState::ALL
            .into_iter()
            .filter(move |state| self.contains(*state))
    }
}
