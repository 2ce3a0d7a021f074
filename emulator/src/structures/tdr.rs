//! TDR: the root of a TD.

use core::fmt;

use super::Structure;
use super::layout::Layout;
use crate::frame::Field;
use crate::frame::Frame;
use crate::memory::PhysicalMemory;

/// Whether the TD is dead beyond recovery.
pub(crate) const FATAL: Field<bool> = Field::at(0x00);
/// Number of TDCX pages given so far.
pub(crate) const NUM_TDCX: Field<u32> = Field::at(0x04);
/// Number of 4 KiB pages that belong to the TD, besides the TDR.
pub(crate) const CHLDCNT: Field<u64> = Field::at(0x08);
/// [`Lifecycle`] as a number.
pub(crate) const LIFECYCLE_STATE: Field<u32> = Field::at(0x10);
/// Physical address of TDCX page number 0, KeyID included; 8 more follow.
pub(crate) const TDCX_PA: Field<u64> = Field::at(0x18);
/// TD_UUID, 4 quadwords.
pub(crate) const TD_UUID: Field<u64> = Field::at(0x60);
/// The TD's KeyID.
pub(crate) const HKID: Field<u16> = Field::at(0x100);
/// Packages whose key has been configured, a bit each.
pub(crate) const PKG_CONFIG_BITMAP: Field<u64> = Field::at(0x108);
/// Version of the handoff data that created the TD.
pub(crate) const HANDOFF_VERSION: Field<u16> = Field::at(0x140);
/// Index in the SEAM database.
pub(crate) const SEAMDB_INDEX: Field<u64> = Field::at(0x148);
/// Nonce of the SEAM database, 4 quadwords.
pub(crate) const SEAMDB_NONCE: Field<u64> = Field::at(0x150);

/// Life stage of a TD with regard to its KeyID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Lifecycle {
    /// Has a KeyID, not yet configured on all packages.
    HkidAssigned = 0,
    /// Its key is configured: the TD can be built and run.
    KeysConfigured = 1,
    /// Its vCPUs are flushed, its KeyID is being given up.
    Blocked = 2,
    /// Has no KeyID any more: its pages can be reclaimed.
    Teardown = 3,
}

/// A TDR in memory.
#[derive(Clone, Copy)]
pub(crate) struct Tdr<'m> {
    /// Physical address of the page.
    pub hpa: u64,
    /// Where the module at hand keeps what.
    pub layout: Layout,
    frame: &'m Frame,
}

impl<'m> Tdr<'m> {
    /// The page at `hpa` as a TDR.
    #[inline]
    pub(crate) fn at(memory: &'m dyn PhysicalMemory, hpa: u64, layout: Layout) -> Self {
        Self {
            hpa,
            layout,
            frame: memory.frame(hpa >> 12),
        }
    }

    /// Whether the TD is in this life stage.
    #[inline]
    pub(crate) fn is(self, stage: Lifecycle) -> bool {
        self.get(LIFECYCLE_STATE) == stage as u32
    }

    /// Whether it has the TDCX pages that a TD with this many L2 VMs needs.
    #[inline]
    pub(crate) fn has_tdcs(self, l2_vms: u32) -> bool {
        self.get(NUM_TDCX) >= self.layout.min_tdcs_pages() + l2_vms
    }

    /// Physical address, KeyID included, of the TDCX page that is number `page` in 1.5.01.
    #[inline]
    pub(crate) fn tdcx(self, page: usize) -> u64 {
        self.get(TDCX_PA.nth(self.layout.tdcs_page(page)))
    }

    /// Adds to the number of child pages; negative `pages` subtract.
    #[inline]
    pub(crate) fn add_children(self, pages: i64) {
        self.update(CHLDCNT, |count: u64| count.wrapping_add_signed(pages));
    }
}

impl<'m> Structure<'m> for Tdr<'m> {
    #[inline]
    fn page(self, _page: usize) -> &'m Frame {
        self.frame
    }

    #[inline]
    fn place(self, offset: usize) -> usize {
        self.layout.tdr(offset)
    }
}

impl fmt::Debug for Tdr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tdr({:#x})", self.hpa)
    }
}
