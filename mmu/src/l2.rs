//! Secure-EPT pages of the L2 VMs of a partitioned TD, and where the host keeps their addresses.
//!
//! An L2 VM has a Secure-EPT of its own, whose tables stand beside those of the TD's: for each table of the TD there is
//! none or one of each L2 VM, over the same addresses. The host adds tables; which pages an L2 VM sees (its *aliases*
//! of the TD's pages) the L1 VMM decides by TDG.MEM.PAGE.ATTR.WR, without the host. All that the module does to an entry
//! of the TD's tree it does to the aliases too, so blocking, tracking, removing and relocating need nothing more.
//!
//! The mirror has no tables for L2 VMs: a word beside each mirrored table says which page stands for it ([`Link`]).

use tdx_abi::Hpa;

/// Most L2 VMs of a TD; they are numbered from 1 on.
pub const MAX_L2_VMS: usize = tdx_abi::field::MAX_L2_VMS as usize;

/// Page addresses are multiples of 4 KiB, so that the low bits can say more. The encoding is the crate's own.
const CHANGING: u64 = 1 << 0;
const POISONED: u64 = 1 << 1;

/// What the word of an L2 VM beside a mirrored table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The L2 VM has no table here.
    Absent,
    /// Somebody is adding one: look again.
    Changing,
    /// The Secure-EPT page of the L2 VM that stands for the table.
    Page(Hpa),
    /// The module answered what cannot be: whether it has this page is not known.
    Poisoned(Hpa),
}

impl Link {
    /// The word.
    pub const fn bits(self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Changing => CHANGING,
            Self::Page(page) => page.bits(),
            Self::Poisoned(page) => page.bits() | POISONED,
        }
    }

    /// What a word says.
    pub const fn from_bits(bits: u64) -> Self {
        let page = Hpa::new(bits & !(CHANGING | POISONED));
        match bits {
            0 => Self::Absent,
            _ if bits & CHANGING != 0 => Self::Changing,
            _ if bits & POISONED != 0 => Self::Poisoned(page),
            _ => Self::Page(page),
        }
    }
}
