//! Dynamic PAMT: a 4 KiB page has a PAMT entry only while its 2 MiB range has a pair of pages from the host to hold it.
//!
//! The range's own entry then is a node: it names the pair and counts the 4 KiB pages in use. A bitmap in place
//! of the 4 KiB PAMT area tells which pages hold PAMT entries, and which are reserved.
//!
//! Source: `src/common/memory_handlers/pamt_manager.c` of the TDX modules that have it.

use alloc::boxed::Box;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use tdx_abi::Level;
use tdx_abi::format::ReturnedPage;

use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::lock::Mode;
use crate::lock::SharexHp;
use crate::lock::Side;
use crate::pamt::Block;
use crate::pamt::Entry;
use crate::pamt::PageType;
use crate::pamt::Walked;

/// Highest position of the lowest KeyID bit: a node has room for page addresses of 48 bits.
pub(crate) const MAX_KEY_ID_SHIFT: u32 = 48;
/// Bit that is set in the address of a page given back when it was the last one in use of its 2 MiB range.
const LAST_OF_RANGE: u64 = ReturnedPage::new().with_pamt_removal_hint(true).into_bits();
/// 4 KiB pages of a 2 MiB range.
const PAGES_OF_RANGE: u64 = 512;
/// 4 KiB pages of a 1 GiB block.
const PAGES: usize = 1 << 18;

/// The addresses of the two pages that hold the entries of a 2 MiB range.
pub(crate) type Pair = [u64; 2];

/// Pages of a 1 GiB block that hold PAMT entries or are reserved, a bit each.
pub(crate) struct PageBitmap(Box<[AtomicU64]>);

impl PageBitmap {
    /// The bitmap in which the bits of those pages are set that `is_reserved` says by their number.
    pub(crate) fn new(is_reserved: impl Fn(usize) -> bool) -> Self {
        let word = |number: usize| {
            (0..64)
                .filter(|bit| is_reserved(number * 64 + bit))
                .fold(0, |word, bit| word | 1 << bit)
        };
        Self(
            (0..PAGES / 64)
                .map(|number| AtomicU64::new(word(number)))
                .collect(),
        )
    }

    fn word(&self, address: u64) -> (&AtomicU64, u64) {
        let page = (address >> 12) as usize % PAGES;
        (&self.0[page / 64], 1 << (page % 64))
    }

    /// Whether the page at `address` holds PAMT entries or is reserved.
    pub(crate) fn has(&self, address: u64) -> bool {
        let (word, bit) = self.word(address);
        word.load(Ordering::Acquire) & bit != 0
    }

    /// Sets the page's bit, and says whether it was clear.
    fn set(&self, address: u64) -> bool {
        let (word, bit) = self.word(address);
        word.fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    fn clear(&self, address: u64) {
        let (word, bit) = self.word(address);
        word.fetch_and(!bit, Ordering::AcqRel);
    }

    /// Whether no page of the 2 MiB range at `address` holds PAMT entries or is reserved.
    pub(crate) fn is_2m_range_free(&self, address: u64) -> bool {
        let first = (address >> 12) as usize % PAGES / 64;
        self.0[first..first + 8]
            .iter()
            .all(|word| word.load(Ordering::Acquire) == 0)
    }
}

/// One page operand of a pair: its value, and how errors name it.
pub(crate) type PairOperand = (u64, OperandId);

impl Core {
    /// Checks the address of a page that is to hold PAMT entries and finds its block.
    pub(crate) fn pamt_page_block(&self, (hpa, operand): PairOperand) -> Result<&Block, Status> {
        let fail = |code| Status::with_operand(code, operand);
        self.check_hpa(hpa, Level::Pt.size()).map_err(fail)?;
        self.global
            .block(hpa)
            .ok_or_else(|| fail(StatusCode::OPERAND_ADDR_RANGE_ERROR))
    }

    /// Splits the PAMT entry of the page of size `level` at `hpa`, of type regular, into 512.
    ///
    /// `pair` is looked at only where the 4 KiB entries need it.
    pub(crate) fn demote_pamt(
        &self,
        hpa: u64,
        level: Level,
        pair: [PairOperand; 2],
    ) -> Result<(), Status> {
        let Some(block) = self.global.block(hpa) else {
            return Ok(());
        };
        let Some(_) = block.bitmap().filter(|_| level == Level::Pd) else {
            return block
                .demote(hpa, level)
                .map_err(|code| Status::with_operand(code, OperandId::RCX));
        };
        let entry = block.entry(hpa, level);
        let _lock = SharexHp::acquire(entry.lock(), Mode::Exclusive, Side::Host)
            .map_err(|code| Status::with_operand(code, OperandId::RCX))?;
        for (page, operand) in pair {
            self.check_hpa(page, Level::Pt.size())
                .map_err(|code| Status::with_operand(code, operand))?;
        }
        let blocks = [
            self.pamt_page_block(pair[0])?,
            self.pamt_page_block(pair[1])?,
        ];
        let _first = lock_free_page(blocks[0], pair[0])?;
        let _second = lock_free_page(blocks[1], pair[1])?;
        self.mark_pair(blocks, pair)?;
        block.fill_small(hpa, entry.page_type(), entry.owner());
        entry.set_node(pair.map(|(page, _)| page), PAGES_OF_RANGE);
        Ok(())
    }

    /// Makes one PAMT entry of size `level` of the 512 at `hpa`; returns the pair that held them, if the host gave one.
    pub(crate) fn promote_pamt(&self, hpa: u64, level: Level) -> Result<Option<Pair>, StatusCode> {
        let Some(block) = self.global.block(hpa) else {
            return Ok(None);
        };
        if block.bitmap().is_none() || level != Level::Pd {
            return block.promote(hpa, level).map(|()| None);
        }
        let entry = block.entry(hpa, level);
        let _lock = SharexHp::acquire(entry.lock(), Mode::Exclusive, Side::Host)?;
        let pair = entry.pair();
        let first = block.entry(hpa, Level::Pt);
        entry.assign(first.page_type(), first.owner());
        entry.set_bepoch(0);
        self.unmark_pair(pair);
        Ok(Some(pair))
    }

    /// Notes that the two pages hold PAMT entries from now on, and clears them.
    pub(crate) fn mark_pair(
        &self,
        blocks: [&Block; 2],
        pair: [PairOperand; 2],
    ) -> Result<(), Status> {
        let not_free = |operand| Status::with_operand(StatusCode::PAGE_NOT_FREE, operand);
        let set = |number: usize| {
            blocks[number]
                .bitmap()
                .is_some_and(|bitmap| bitmap.set(pair[number].0))
        };
        if !set(0) {
            return Err(not_free(pair[0].1));
        }
        if !set(1) {
            if let Some(bitmap) = blocks[0].bitmap() {
                bitmap.clear(pair[0].0);
            }
            return Err(not_free(pair[1].1));
        }
        for (page, _) in pair {
            self.memory().fill(page >> 12, 0);
            self.claim_with(page, self.global.key_id.load(Ordering::Acquire));
        }
        Ok(())
    }

    /// Notes that the two pages hold no PAMT entries any more.
    pub(crate) fn unmark_pair(&self, pair: Pair) {
        for page in pair {
            if let Some(bitmap) = self.global.block(page).and_then(Block::bitmap) {
                bitmap.clear(page);
            }
        }
    }
}

/// Locks the entry of a page that is to hold PAMT entries; it must be free, at whatever size.
pub(crate) fn lock_free_page(
    block: &Block,
    (hpa, operand): PairOperand,
) -> Result<Walked<'_>, Status> {
    let fail = |code| Status::with_operand(code, operand);
    let walked = block
        .walk(hpa, Mode::Shared, Level::Pt, Side::Host)
        .map_err(fail)?;
    if walked.entry.page_type() == PageType::Nda {
        Ok(walked)
    } else {
        Err(fail(StatusCode::PAGE_NOT_FREE))
    }
}

/// Takes a page out of its node's count; the bit to be set in the page's address, if it was the last of its range.
pub(crate) fn uncount(node: Option<&Entry>) -> u64 {
    if node.is_some_and(Entry::uncount_page) {
        LAST_OF_RANGE
    } else {
        0
    }
}
