//! The physical address metadata table: who owns each page of a TDMR, as what, and at which size.
//!
//! Entries have the module's fields (lock word, page type, owner, BEPOCH). They are kept beside the
//! emulated memory, not in the PAMT areas that the host gives for them, and come into being when touched.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use once_cell::race::OnceBox;
use tdx_abi::Hpa;
use tdx_abi::Level;

use crate::abi::StatusCode;
use crate::lock::LockWord;
use crate::lock::Mode;
use crate::lock::SharexHp;
use crate::lock::Side;

/// What a page is used as, as PHYMEM.PAGE.RDMD tells it. Source: `page_type_t` of `pamt_manager.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageType {
    /// Not assigned: the host may use it.
    Nda,
    /// In a reserved area of its TDMR.
    Reserved,
    /// Private memory of a TD.
    Regular,
    /// Root control page of a TD.
    Tdr,
    /// Further control page of a TD or a vCPU.
    Tdcx,
    /// Root control page of a vCPU.
    Tdvpr,
    /// Page of a Secure-EPT.
    Ept,
}

impl PageType {
    /// The number in the entry.
    pub const fn number(self) -> u8 {
        match self {
            Self::Nda => 0,
            Self::Reserved => 1,
            Self::Regular => 3,
            Self::Tdr => 4,
            Self::Tdcx => 5,
            Self::Tdvpr => 6,
            Self::Ept => 8,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Nda,
            3 => Self::Regular,
            4 => Self::Tdr,
            5 => Self::Tdcx,
            6 => Self::Tdvpr,
            8 => Self::Ept,
            _ => Self::Reserved,
        }
    }
}

/// One PAMT entry: bits 15:0 lock word, 23:16 page type, 63:24 owner's frame number; then BEPOCH.
pub(crate) struct Entry {
    head: AtomicU64,
    bepoch: AtomicU64,
}

impl Entry {
    const fn new(page_type: PageType) -> Self {
        Self {
            head: AtomicU64::new((page_type.number() as u64) << 16),
            bepoch: AtomicU64::new(0),
        }
    }

    /// The lock word (shared-exclusive with host priority).
    pub(crate) const fn lock(&self) -> LockWord<'_> {
        LockWord::new(&self.head, 0)
    }

    /// What the page is used as.
    pub(crate) fn page_type(&self) -> PageType {
        PageType::from_number((self.head.load(Ordering::Acquire) >> 16) as u8)
    }

    /// Physical address of the TDR that owns or last owned the page.
    pub(crate) fn owner(&self) -> u64 {
        self.head.load(Ordering::Acquire) >> 24 << 12
    }

    /// Epoch in which the page was blocked; bit 63 is set while it belongs to an export session.
    pub(crate) fn bepoch(&self) -> u64 {
        self.bepoch.load(Ordering::Acquire)
    }

    /// Sets what the page is used as. The caller holds the entry or the entries above it exclusively.
    pub(crate) fn set_page_type(&self, page_type: PageType) {
        self.replace(0xff << 16, u64::from(page_type.number()) << 16);
    }

    /// Sets the epoch in which the page was blocked.
    pub(crate) fn set_bepoch(&self, epoch: u64) {
        self.bepoch.store(epoch, Ordering::Release);
    }

    /// Sets type and owner at once.
    pub(crate) fn assign(&self, page_type: PageType, tdr: u64) {
        self.replace(
            !0xffff,
            u64::from(page_type.number()) << 16 | tdr >> 12 << 24,
        );
    }

    fn replace(&self, field: u64, value: u64) {
        let mut old = self.head.load(Ordering::Relaxed);
        while let Err(seen) = self.head.compare_exchange_weak(
            old,
            (old & !field) | value,
            Ordering::AcqRel,
            Ordering::Relaxed,
        ) {
            old = seen;
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("lock", &self.lock().get())
            .field("page_type", &self.page_type())
            .field("owner", &self.owner())
            .field("bepoch", &self.bepoch())
            .finish()
    }
}

/// A reserved area of a TDMR, as offset and size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReservedArea {
    /// Offset from the TDMR's base.
    pub offset: u64,
    /// Size; 0 where there is none.
    pub size: u64,
}

/// The entries of one 1 GiB block.
pub(crate) struct Block {
    base: u64,
    reserved: Vec<ReservedArea>,
    large: Entry,
    medium: Box<[Entry]>,
    small: Box<[OnceBox<[Entry; 512]>]>,
}

impl Block {
    /// The block at `offset` of a TDMR with base `tdmr_base` and these reserved areas; all pages not reserved are free.
    pub(crate) fn new(tdmr_base: u64, offset: u64, reserved: &[ReservedArea]) -> Self {
        Self {
            base: tdmr_base + offset,
            reserved: reserved
                .iter()
                .map(|area| ReservedArea {
                    offset: tdmr_base + area.offset,
                    size: area.size,
                })
                .collect(),
            large: Entry::new(PageType::Nda),
            medium: (0..512).map(|_| Entry::new(PageType::Nda)).collect(),
            small: (0..512).map(|_| OnceBox::new()).collect(),
        }
    }

    /// The entry of the page of size `level` that holds `address`; levels above [`Level::Pdpt`] count as it.
    pub(crate) fn entry(&self, address: u64, level: Level) -> &Entry {
        match level {
            Level::Pt => &self.small(address)[Level::Pt.index(address)],
            Level::Pd => &self.medium[Level::Pd.index(address)],
            _ => &self.large,
        }
    }

    /// The 512 entries below the 2 MiB entry for `address`.
    fn small(&self, address: u64) -> &[Entry; 512] {
        let number = Level::Pd.index(address);
        self.small[number].get_or_init(|| {
            let base = self.base + number as u64 * Level::Pd.size();
            Box::new(core::array::from_fn(|page| {
                self.initial(base + page as u64 * Level::Pt.size())
            }))
        })
    }

    fn initial(&self, address: u64) -> Entry {
        let reserved = self
            .reserved
            .iter()
            .any(|area| address >= area.offset && address - area.offset < area.size);
        Entry::new(if reserved {
            PageType::Reserved
        } else {
            PageType::Nda
        })
    }

    /// Entries of the 512 next smaller pages of the page of size `level` at `address`.
    fn children(&self, address: u64, level: Level) -> &[Entry] {
        match level {
            Level::Pd => self.small(address),
            _ => &self.medium,
        }
    }

    /// Whether all 4 KiB pages of the 2 MiB page at `address` are free.
    pub(crate) fn is_2m_range_free(&self, address: u64) -> bool {
        self.small(address)
            .iter()
            .all(|entry| entry.page_type() == PageType::Nda)
    }

    /// Calls `each` for every page in use: its address, size, type and owner.
    pub(crate) fn for_each_used(&self, each: &mut impl FnMut(Hpa, Level, PageType, Hpa)) {
        let mut visit = |number: usize, level: Level, base: u64, entry: &Entry| {
            let page_type = entry.page_type();
            if !matches!(page_type, PageType::Nda | PageType::Reserved) {
                let hpa = base + number as u64 * level.size();
                each(Hpa::new(hpa), level, page_type, Hpa::new(entry.owner()));
            }
        };
        visit(0, Level::Pdpt, self.base, &self.large);
        for (number, entry) in self.medium.iter().enumerate() {
            visit(number, Level::Pd, self.base, entry);
            let base = self.base + number as u64 * Level::Pd.size();
            for (page, entry) in self.small[number].get().into_iter().flatten().enumerate() {
                visit(page, Level::Pt, base, entry);
            }
        }
    }

    /// Walks to the entry for `address`, locking the entries above it shared and itself in `mode`.
    ///
    /// Stops at a page in use at a larger size, and at `target` (which is [`Level::Pt`] if the page's own size
    /// is wanted). Errors are those of [`SharexHp::acquire`].
    pub(crate) fn walk(
        &self,
        address: u64,
        mode: Mode,
        target: Level,
        side: Side,
    ) -> Result<Walked<'_>, StatusCode> {
        let mut path = [None, None];
        for (step, level) in [Level::Pdpt, Level::Pd].into_iter().enumerate() {
            let entry = self.entry(address, level);
            let mut lock = SharexHp::acquire(entry.lock(), Mode::Shared, side)?;
            if entry.page_type() == PageType::Regular || level == target {
                if mode == Mode::Exclusive {
                    lock.promote()?;
                }
                return Ok(Walked {
                    entry,
                    level,
                    _lock: lock,
                    _path: path,
                });
            }
            path[step] = Some(lock);
        }
        let entry = self.entry(address, Level::Pt);
        let lock = SharexHp::acquire(entry.lock(), mode, side)?;
        Ok(Walked {
            entry,
            level: Level::Pt,
            _lock: lock,
            _path: path,
        })
    }

    /// Makes one page of size `level` of the 512 smaller ones at `address`, which are alike.
    pub(crate) fn promote(&self, address: u64, level: Level) -> Result<(), StatusCode> {
        let entry = self.entry(address, level);
        let _lock = SharexHp::acquire(entry.lock(), Mode::Exclusive, Side::Host)?;
        let children = self.children(address, level);
        if let Some(first) = children.first() {
            entry.assign(first.page_type(), first.owner());
        }
        for child in children {
            child.set_page_type(PageType::Nda);
        }
        Ok(())
    }

    /// Makes 512 smaller pages of the one of size `level` at `address`; their BEPOCH is 0.
    pub(crate) fn demote(&self, address: u64, level: Level) -> Result<(), StatusCode> {
        let entry = self.entry(address, level);
        let _lock = SharexHp::acquire(entry.lock(), Mode::Exclusive, Side::Host)?;
        for child in self.children(address, level) {
            child.assign(entry.page_type(), entry.owner());
            child.set_bepoch(0);
        }
        entry.set_page_type(PageType::Nda);
        Ok(())
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// An entry that a walk found, with the locks on it and above it.
#[derive(Debug)]
#[must_use = "dropping releases the locks"]
pub(crate) struct Walked<'p> {
    /// The entry.
    pub entry: &'p Entry,
    /// The size of page that it describes.
    pub level: Level,
    _lock: SharexHp<'p>,
    _path: [Option<SharexHp<'p>>; 2],
}

impl Walked<'_> {
    /// Keeps the locks beyond this value's life; [`Block::release`] ends that.
    pub(crate) fn leak(self) {
        core::mem::forget(self);
    }
}

impl Block {
    /// Releases what [`Walked::leak`] kept of a walk to `level` in `mode`.
    pub(crate) fn release(&self, address: u64, mode: Mode, level: Level) {
        SharexHp::release(self.entry(address, level).lock(), mode);
        for above in [Level::Pd, Level::Pdpt] {
            if above > level {
                SharexHp::release(self.entry(address, above).lock(), Mode::Shared);
            }
        }
    }
}
