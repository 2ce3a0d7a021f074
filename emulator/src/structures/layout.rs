//! Where the fields of the control structures lie, by module.
//!
//! Fields are named by their offsets in 1.5.01, which 1.5.34 keeps for all that it shares with it; 2.0 moved some of them.

use tdx_abi::field::global;

use crate::abi::Module;
use crate::frame::FRAME_BYTES;
use crate::metadata::limit;

/// From an offset in 1.5.01 on, how many bytes further a field lies; ascending.
type Shifts = &'static [(usize, usize)];

/// The layout of one line of modules.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layout {
    /// 1.5: two pages of fields.
    V1_5,
    /// 2.0: three more pages of fields, for TDX Connect.
    V2_0,
}

/// What 2.0 moved in TDR.
const TDR: Shifts = &[(0x60, 0x20), (0x80, 0)];
/// What 2.0 moved in TDCS.
const TDCS: Shifts = &[
    (0x190, 0x50),
    (0x200, 0x80),
    (0xd00, 0x580),
    (0x2000, 0x3000),
];
/// What 2.0 moved in TDVPS.
const TDVPS: Shifts = &[
    (0x102, 2),
    (0x108, 8),
    (0x20e, 0xa),
    (0x228, 0x10),
    (0x700, 0),
];

impl Layout {
    /// The layout of a module.
    pub(crate) const fn of(module: Module) -> Self {
        match module {
            Module::V1_5_01 | Module::V1_5_34 => Self::V1_5,
            Module::V2_0_18 => Self::V2_0,
        }
    }

    /// TDCX pages of a TD without L2 VMs.
    pub(crate) const fn min_tdcs_pages(self) -> u32 {
        const OF_1_5: u32 = min_tdcs_pages(Module::V1_5_01);
        const OF_2_0: u32 = min_tdcs_pages(Module::V2_0_18);
        match self {
            Self::V1_5 => OF_1_5,
            Self::V2_0 => OF_2_0,
        }
    }

    /// TDCX pages of a TD with three L2 VMs.
    pub(crate) const fn max_tdcs_pages(self) -> u32 {
        self.min_tdcs_pages() + 3
    }

    /// The number of the TDCX page that is number `page` in 1.5.01.
    pub(crate) const fn tdcs_page(self, page: usize) -> usize {
        /// In 1.5.01 the MSR bitmaps follow two pages of fields.
        const OF_FIELDS: usize = 2;
        if page < OF_FIELDS {
            page
        } else {
            page + (self.min_tdcs_pages() - Self::V1_5.min_tdcs_pages()) as usize
        }
    }

    /// Offset in TDR of what 1.5.01 keeps at `offset`.
    #[inline]
    pub(crate) const fn tdr(self, offset: usize) -> usize {
        self.shift(TDR, offset)
    }

    /// Offset in TDCS of what 1.5.01 keeps at `offset`.
    #[inline]
    pub(crate) const fn tdcs(self, offset: usize) -> usize {
        self.shift(TDCS, offset)
    }

    /// Offset in TDVPS of what 1.5.01 keeps at `offset`.
    #[inline]
    pub(crate) const fn tdvps(self, offset: usize) -> usize {
        self.shift(TDVPS, offset)
    }

    #[inline]
    const fn shift(self, shifts: Shifts, offset: usize) -> usize {
        if matches!(self, Self::V1_5) {
            return offset;
        }
        let mut left = shifts.len();
        while left > 0 {
            left -= 1;
            let (from, by) = shifts[left];
            if offset >= from {
                return offset + by;
            }
        }
        offset
    }
}

const fn min_tdcs_pages(module: Module) -> u32 {
    (limit(module, global::TDCS_BASE_SIZE) / FRAME_BYTES as u64) as u32
}
