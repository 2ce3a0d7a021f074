use tdx_abi::Hpa;
use tdx_abi::Page;

use crate::Word;
use crate::l2::MAX_L2_VMS;

/// Access to table pages in host memory.
///
/// The addresses passed are of pages that [`Frames::allocate_table`] of the same embedder returned and
/// that were neither given to [`Frames::free_table`] nor retired with their grace period over. An
/// implementation that turns addresses into references without looking relies on that.
pub trait Tables: Sync {
    /// The atomic that an entry is, normally [`core::sync::atomic::AtomicU64`].
    type Word: Word;

    /// The 512 entries of `table`.
    fn entries(&self, table: Hpa) -> &[Self::Word; 512];

    /// A word kept beside `table`: its page descriptor's private field, or an array of the embedder.
    ///
    /// For a mirrored table it holds the address of the Secure-EPT page that stands for it. It is not
    /// read on the way of a walk.
    fn link(&self, table: Hpa) -> &Self::Word;

    /// The words kept beside a mirrored `table` for the L2 VMs, as [`crate::l2::Link`]; the MMU clears them before the
    /// table is linked.
    ///
    /// `None` unless the embedder has partitioned TDs; then those of the table must be there at every call.
    fn l2_links(&self, table: Hpa) -> Option<&[Self::Word; MAX_L2_VMS]> {
        let _ = table;
        None
    }

    /// The word that counts the 4 KiB pages in use of the 2 MiB range of host memory around `hpa`, 0 at first and
    /// common to all TDs: see [`crate::pamt`]. `None` unless the module is configured for Dynamic PAMT.
    fn pamt_count(&self, hpa: Hpa) -> Option<&Self::Word> {
        let _ = hpa;
        None
    }
}

/// Allocation of 4 KiB pages.
///
/// Called outside of every section and lock of this crate, so it may sleep.
pub trait Frames: Sync {
    /// A page for a table that the host reads and writes; its content does not matter.
    fn allocate_table(&self) -> Option<Page>;

    /// Takes back a table page that nobody can reach any more.
    fn free_table(&self, table: Page);

    /// A page for the TDX module, from memory covered by a TDMR: Secure-EPT pages, control pages, pages of PAMT pairs.
    ///
    /// With Dynamic PAMT it must not lie in a range that backs a guest's 2 MiB page.
    fn allocate_module_page(&self) -> Option<Page>;

    /// Takes back such a page, written back and scrubbed.
    fn free_module_page(&self, page: Page);
}
