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
use tdx_abi::format;

use crate::abi::StatusCode;
use crate::dynamic_pamt;
use crate::dynamic_pamt::PageBitmap;
use crate::dynamic_pamt::Pair;
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
    /// Page that holds PAMT entries; of a 2 MiB range: it has the pages that hold its 4 KiB entries.
    Pamt,
}

impl PageType {
    /// The number in the entry.
    pub const fn number(self) -> u8 {
        match self {
            Self::Nda => format::PageType::NDA,
            Self::Reserved => format::PageType::RSVD,
            Self::Regular => format::PageType::REG,
            Self::Tdr => format::PageType::TDR,
            Self::Tdcx => format::PageType::TDCX,
            Self::Tdvpr => format::PageType::TDVPR,
            Self::Ept => format::PageType::EPT,
            Self::Pamt => format::PageType::PAMT,
        }
        .into_bits()
    }

    #[inline]
    const fn from_number(number: u8) -> Self {
        match format::PageType::from_bits(number) {
            format::PageType::NDA => Self::Nda,
            format::PageType::REG => Self::Regular,
            format::PageType::TDR => Self::Tdr,
            format::PageType::TDCX => Self::Tdcx,
            format::PageType::TDVPR => Self::Tdvpr,
            format::PageType::EPT => Self::Ept,
            format::PageType::PAMT => Self::Pamt,
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
    #[inline]
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
    #[inline]
    pub(crate) fn set_page_type(&self, page_type: PageType) {
        self.replace(0xff << 16, u64::from(page_type.number()) << 16);
    }

    /// Sets the epoch in which the page was blocked.
    pub(crate) fn set_bepoch(&self, epoch: u64) {
        self.bepoch.store(epoch, Ordering::Release);
    }

    /// Sets type and owner at once.
    #[inline]
    pub(crate) fn assign(&self, page_type: PageType, tdr: u64) {
        self.replace(
            !0xffff,
            u64::from(page_type.number()) << 16 | tdr >> 12 << 24,
        );
    }

    /// Makes this entry of a 2 MiB range a node: bits 63:28 name one page of its pair, and those of the second quadword the other.
    pub(crate) fn set_node(&self, [first, second]: Pair, pages_in_use: u64) {
        self.set_bepoch(pages_in_use | second >> 12 << 28);
        let page_type = u64::from(PageType::Pamt.number()) << 16;
        self.replace(!0xffff, page_type | first >> 12 << 28);
    }

    /// The pages that hold the entries below this node.
    pub(crate) fn pair(&self) -> Pair {
        [
            self.head.load(Ordering::Acquire) >> 28 << 12,
            self.bepoch() >> 28 << 12,
        ]
    }

    fn count_page(&self) {
        self.bepoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts one page less in use below this node, and says whether it was the last.
    pub(crate) fn uncount_page(&self) -> bool {
        const COUNT: u64 = 0x3ff;
        self.bepoch.fetch_sub(1, Ordering::AcqRel) & COUNT == 1
    }

    #[inline]
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
    /// With Dynamic PAMT.
    bitmap: Option<PageBitmap>,
}

impl Block {
    /// The block at `offset` of a TDMR with base `tdmr_base` and these reserved areas; all pages not reserved are free.
    pub(crate) fn new(
        tdmr_base: u64,
        offset: u64,
        reserved: &[ReservedArea],
        dynamic: bool,
    ) -> Self {
        let base = tdmr_base + offset;
        let reserved: Vec<_> = reserved
            .iter()
            .map(|area| ReservedArea {
                offset: tdmr_base + area.offset,
                size: area.size,
            })
            .collect();
        let bitmap = dynamic.then(|| {
            PageBitmap::new(|page| is_reserved(&reserved, base + page as u64 * Level::Pt.size()))
        });
        Self {
            base,
            reserved,
            bitmap,
            large: Entry::new(PageType::Nda),
            medium: (0..512).map(|_| Entry::new(PageType::Nda)).collect(),
            small: (0..512).map(|_| OnceBox::new()).collect(),
        }
    }

    /// The entry of the page of size `level` that holds `address`; levels above [`Level::Pdpt`] count as it.
    #[inline]
    pub(crate) fn entry(&self, address: u64, level: Level) -> &Entry {
        match level {
            Level::Pt => &self.small(address)[Level::Pt.index(address)],
            Level::Pd => &self.medium[Level::Pd.index(address)],
            _ => &self.large,
        }
    }

    /// The 512 entries below the 2 MiB entry for `address`.
    #[inline]
    fn small(&self, address: u64) -> &[Entry; 512] {
        let number = Level::Pd.index(address);
        match self.small[number].get() {
            Some(entries) => entries,
            None => self.touch(number),
        }
    }

    #[cold]
    #[inline(never)]
    fn touch(&self, number: usize) -> &[Entry; 512] {
        self.small[number].get_or_init(|| {
            let base = self.base + number as u64 * Level::Pd.size();
            Box::new(core::array::from_fn(|page| {
                self.initial(base + page as u64 * Level::Pt.size())
            }))
        })
    }

    /// The pages that hold PAMT entries or are reserved; `None` without Dynamic PAMT.
    pub(crate) const fn bitmap(&self) -> Option<&PageBitmap> {
        self.bitmap.as_ref()
    }

    /// Gives the 512 entries of 4 KiB pages at `address` this type and owner, and BEPOCH 0.
    pub(crate) fn fill_small(&self, address: u64, page_type: PageType, owner: u64) {
        for entry in self.small(address) {
            entry.assign(page_type, owner);
            entry.set_bepoch(0);
        }
    }

    /// Number of the first 4 KiB page in use of the 2 MiB range at `address`.
    pub(crate) fn first_page_in_use(&self, address: u64) -> Option<usize> {
        self.small(address)
            .iter()
            .position(|entry| entry.page_type() != PageType::Nda)
    }

    fn initial(&self, address: u64) -> Entry {
        let reserved = self.bitmap.is_none() && is_reserved(&self.reserved, address);
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
        match &self.bitmap {
            Some(bitmap) => bitmap.is_2m_range_free(address),
            None => self
                .small(address)
                .iter()
                .all(|entry| entry.page_type() == PageType::Nda),
        }
    }

    /// Calls `each` for every page in use: its address, size, type and owner; pages that hold PAMT entries are left out.
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
            let base = self.base + number as u64 * Level::Pd.size();
            let is_node = entry.page_type() == PageType::Pamt;
            if !is_node {
                visit(number, Level::Pd, self.base, entry);
            }
            if self.bitmap.is_some() && !is_node {
                continue;
            }
            for (page, entry) in self.small[number].get().into_iter().flatten().enumerate() {
                visit(page, Level::Pt, base, entry);
            }
        }
    }

    /// Walks to the entry for `address`, locking the entries above it shared and itself in `mode`.
    ///
    /// Stops at a page in use at a larger size, and at `target` (which is [`Level::Pt`] if the page's own size
    /// is wanted). Errors are those of [`SharexHp::acquire`].
    #[inline(always)]
    pub(crate) fn walk(
        &self,
        address: u64,
        mode: Mode,
        target: Level,
        side: Side,
    ) -> Result<Walked<'_>, StatusCode> {
        let mut above = [None, None];
        for (step, level) in [Level::Pdpt, Level::Pd].into_iter().enumerate() {
            let entry = self.entry(address, level);
            let mut lock = SharexHp::acquire(entry.lock(), Mode::Shared, side)?;
            let is_leaf = match &self.bitmap {
                Some(_) if level == Level::Pd => entry.page_type() != PageType::Pamt,
                _ => entry.page_type() == PageType::Regular,
            };
            if is_leaf || level == target {
                if mode == Mode::Exclusive {
                    lock.promote()?;
                }
                lock.leak();
                return Ok(Walked {
                    entry,
                    level,
                    node: None,
                    mode,
                    _above: above,
                });
            }
            lock.leak();
            above[step] = Some(Reader(entry));
        }
        let entry = self.entry(address, Level::Pt);
        SharexHp::acquire(entry.lock(), mode, side)?.leak();
        Ok(Walked {
            entry,
            level: Level::Pt,
            node: self.node(address),
            mode,
            _above: above,
        })
    }

    /// The node above the entry of the 4 KiB page at `address`; `None` without Dynamic PAMT.
    #[inline]
    pub(crate) fn node(&self, address: u64) -> Option<&Entry> {
        self.bitmap.as_ref()?;
        Some(self.entry(address, Level::Pd))
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

/// A shared hold on the lock of an entry.
#[derive(Debug)]
struct Reader<'p>(&'p Entry);

impl Drop for Reader<'_> {
    #[inline]
    fn drop(&mut self) {
        SharexHp::release(self.0.lock(), Mode::Shared);
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
    /// With Dynamic PAMT, the node above the entry of a 4 KiB page.
    node: Option<&'p Entry>,
    /// How the entry is locked.
    mode: Mode,
    _above: [Option<Reader<'p>>; 2],
}

impl Drop for Walked<'_> {
    #[inline]
    fn drop(&mut self) {
        SharexHp::release(self.entry.lock(), self.mode);
    }
}

impl Walked<'_> {
    /// Gives the page, which was free, a type and an owner.
    pub(crate) fn take(&self, page_type: PageType, tdr: u64) {
        self.entry.assign(page_type, tdr);
        if let Some(node) = self.node {
            node.count_page();
        }
    }

    /// Makes the page free; returns what is to be set in its address if it was the last in use of its 2 MiB range.
    pub(crate) fn free(&self) -> u64 {
        self.entry.set_page_type(PageType::Nda);
        dynamic_pamt::uncount(self.node)
    }

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

fn is_reserved(areas: &[ReservedArea], address: u64) -> bool {
    areas
        .iter()
        .any(|area| address >= area.offset && address - area.offset < area.size)
}
