use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::SharedGpa;

use crate::shared::Attributes;

/// The memory behind the guest's addresses.
///
/// Called outside of every section and lock of this crate, so it may sleep.
pub trait Backing {
    /// A page for `gpa`, of a level up to `largest`, aligned so that it can back the naturally aligned
    /// range of that level around `gpa`. `None` if there is no memory at this address.
    fn private_page(&self, gpa: PrivateGpa, largest: Level) -> Option<Page>;

    /// Takes back a page that backed `gpa` or was meant to. It is written back and scrubbed if it was in use.
    fn take_back(&self, gpa: PrivateGpa, page: Page);

    /// What backs the shared page at `gpa`.
    fn shared_page(&self, gpa: SharedGpa) -> SharedBacking;

    /// Whether the 512 pages of 4 KiB around `gpa` are to become one of 2 MiB by themselves where they are contiguous,
    /// aligned and accepted: from then on they come back as one.
    ///
    /// Not by default: a backing that gives 4 KiB pages may not know larger ones.
    fn promotes(&self, gpa: PrivateGpa) -> bool {
        let _ = gpa;
        false
    }

    /// Whether such pages are promoted before they are removed from a TD that runs: for each 2 MiB that costs 519
    /// SEAMCALLs instead of 1537, for each operation one TRACK more and up to one kick more.
    ///
    /// Not by default: a kick stops every vCPU. Before FINALIZE, where nothing is tracked, it is always done.
    fn promotes_before_removal(&self) -> bool {
        false
    }

    /// Notes that the guest writes to a page that was caught for dirty logging; `gpa` and `level` say which.
    fn mark_dirty(&self, gpa: SharedGpa, level: Level) {
        let _ = (gpa, level);
    }
}

/// What backs a shared page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedBacking {
    /// Nothing.
    None,
    /// An emulated device: accesses raise #VE in the guest.
    Mmio,
    /// Memory of the host.
    Memory {
        /// First byte of the naturally aligned run of size `level` around the address.
        hpa: Hpa,
        /// Size of the contiguous run.
        level: Level,
        /// What the guest may do with it.
        attributes: Attributes,
    },
}
