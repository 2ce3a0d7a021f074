//! Leaf numbers, and in which states each module allows a leaf.

use core::fmt;

use crate::module::Features;
use crate::module::Module;
use crate::op_state::OpState;
use crate::op_state::OpStates;
use crate::sept::SeptState;
use crate::sept::SeptStates;

tdx_codegen_macros::leaf_numbers!(area = core);
#[cfg(feature = "connect")]
tdx_codegen_macros::leaf_numbers!(area = connect);
#[cfg(feature = "migration")]
tdx_codegen_macros::leaf_numbers!(area = migration);
#[cfg(feature = "guest")]
tdx_codegen_macros::leaf_numbers!(area = guest);
#[cfg(feature = "seamldr")]
tdx_codegen_macros::leaf_numbers!(area = seamldr);

/// What is known of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeafRow {
    /// Number in RAX bits 15:0.
    pub number: u16,
    /// Intel's name, such as `TDH.MEM.PAGE.AUG`.
    pub name: &'static str,
    /// Bits of TDX_FEATURES0 without which no module has the leaf.
    pub feature: Features,
    versions: [u8; Module::COUNT],
    op_states: [Option<u32>; Module::COUNT],
    sept_states: [Option<u32>; Module::COUNT],
}

impl LeafRow {
    const fn new(
        number: u16,
        name: &'static str,
        versions: [u8; Module::COUNT],
        op_states: [Option<u32>; Module::COUNT],
        sept_states: [Option<u32>; Module::COUNT],
        feature: Features,
    ) -> Self {
        Self {
            number,
            name,
            feature,
            versions,
            op_states,
            sept_states,
        }
    }

    /// Whether the dispatcher of `module` knows the leaf.
    pub const fn dispatched(&self, module: Module) -> bool {
        self.versions[module as usize] != 0
    }

    /// The highest version that `module` accepts; `None` if it does not know the leaf.
    pub const fn max_version(&self, module: Module) -> Option<u8> {
        match self.versions[module as usize] {
            0 => None,
            versions => Some(7 - versions.leading_zeros() as u8),
        }
    }

    /// Whether `module` accepts this version of the leaf.
    pub const fn accepts(&self, module: Module, version: u8) -> bool {
        version < 8 && self.versions[module as usize] & 1 << version != 0
    }

    /// Whether `module`, or P-SEAMLDR if the leaf is its, answers this version of the leaf.
    pub const fn answers(&self, module: Module, version: u8) -> bool {
        self.accepts(module, version) || self.is_seamldr() && version == 0
    }

    const fn is_seamldr(&self) -> bool {
        matches!(
            self.name.as_bytes(),
            [b'S', b'E', b'A', b'M', b'L', b'D', b'R', ..]
        )
    }

    /// OP_STATEs in which `module` allows the leaf; `None` if it does not gate on OP_STATE.
    pub const fn op_states(&self, module: Module) -> Option<OpStates> {
        match self.op_states[module as usize] {
            Some(bits) => Some(OpStates::from_bits(bits)),
            None => None,
        }
    }

    /// States of entries on which `module` lets the leaf act; `None` if it does not gate on them.
    pub const fn sept_states(&self, module: Module) -> Option<SeptStates> {
        match self.sept_states[module as usize] {
            Some(bits) => Some(SeptStates::from_bits(bits)),
            None => None,
        }
    }
}

/// Leaf numbers are below this.
const INDEXED: usize = 256;

/// For each number the position after its first row, and 0 where there is none.
const fn index(table: &[LeafRow]) -> [u8; INDEXED] {
    assert!(table.len() <= u8::MAX as usize);
    let mut index = [0; INDEXED];
    let mut position = table.len();
    while position > 0 {
        index[table[position - 1].number as usize] = position as u8;
        position -= 1;
    }
    index
}

const fn find(
    table: &'static [LeafRow],
    index: &[u8; INDEXED],
    number: u16,
) -> Option<&'static LeafRow> {
    if number as usize >= INDEXED {
        return None;
    }
    match index[number as usize] {
        0 => None,
        position => Some(&table[position as usize - 1]),
    }
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident $table:ident)*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u16);

        impl $name {
            /// The leaf with this number.
            pub const fn new(number: u16) -> Self {
                Self(number)
            }

            /// The number in RAX bits 15:0.
            pub const fn number(self) -> u16 {
                self.0
            }

            /// What is known of the leaf. Of leaves that share a number, the one that a public module dispatches.
            pub const fn row(self) -> Option<&'static LeafRow> {
                const INDEX: &[u8; INDEXED] = &index($table);
                find($table, INDEX, self.0)
            }

            /// Intel's name, such as `TDH.MEM.PAGE.AUG`.
            pub const fn name(self) -> Option<&'static str> {
                match self.row() {
                    Some(row) => Some(row.name),
                    None => None,
                }
            }

            /// Whether the dispatcher of `module` knows the leaf.
            pub const fn dispatched(self, module: Module) -> bool {
                match self.row() {
                    Some(row) => row.dispatched(module),
                    None => false,
                }
            }

            /// The highest version that `module` accepts; `None` if it does not know the leaf.
            pub const fn max_version(self, module: Module) -> Option<u8> {
                match self.row() {
                    Some(row) => row.max_version(module),
                    None => None,
                }
            }

            /// OP_STATEs in which `module` allows the leaf; `None` if it does not gate on OP_STATE.
            pub const fn op_states(self, module: Module) -> Option<OpStates> {
                match self.row() {
                    Some(row) => row.op_states(module),
                    None => None,
                }
            }

            /// States of entries on which `module` lets the leaf act; `None` if it does not gate on them.
            pub const fn sept_states(self, module: Module) -> Option<SeptStates> {
                match self.row() {
                    Some(row) => row.sept_states(module),
                    None => None,
                }
            }

            /// May this leaf be called in this OP_STATE?
            pub const fn allowed_in(self, state: OpState, module: Module) -> bool {
                match self.op_states(module) {
                    Some(states) => states.contains(state),
                    None => true,
                }
            }

            /// May this leaf act on an entry in this state?
            pub const fn allowed_on(self, state: SeptState, module: Module) -> bool {
                match self.sept_states(module) {
                    Some(states) => states.contains(state),
                    None => true,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "leaf {}", self.0),
                }
            }
        })*
    };
}

numbers! {
    /// Number of a leaf of the TDX module that the host calls.
    SeamcallLeaf SEAMCALL_LEAVES
    /// Number of a leaf of the TDX module that the guest calls.
    TdcallLeaf TDCALL_LEAVES
    /// Number of a leaf of P-SEAMLDR; RAX has bit 63 beside it.
    SeamldrLeaf SEAMLDR_LEAVES
}
