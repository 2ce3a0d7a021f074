//! Dynamic PAMT: which 2 MiB ranges have the pages in which the module keeps their PAMT entries.
//!
//! With Dynamic PAMT the module takes a page of 4 KiB only in a range for which the host has given it a *pair* of
//! pages (TDH.PHYMEM.PAMT.ADD), and gives the pair back (TDH.PHYMEM.PAMT.REMOVE) once no 4 KiB page of the range is in
//! use. A range that is one 2 MiB page has none: TDH.MEM.PAGE.DEMOTE takes the pair, TDH.MEM.PAGE.PROMOTE returns it.
//!
//! The embedder keeps one word for each range, common to all TDs. There is no lock over all ranges, and no call of
//! the module but for the first and the last page of a range.

use core::sync::atomic::Ordering;

use tdx_abi::Level;

use crate::Word;
use crate::embed::Relax;
pub use crate::td::pamt::admit;
pub use crate::td::pamt::clean;
pub use crate::td::pamt::collect;
pub use crate::td::pamt::dismiss;

/// No pair.
const NONE: u64 = 0;
/// Has a pair; the low bits count the 4 KiB pages in use.
const PRESENT: u64 = 1 << 62;
/// The pair is on its way to or from the module.
const CHANGING: u64 = 1 << 63;
/// Pages of a range.
const PAGES: u64 = Level::Pd.size() >> Level::Pt.shift();

/// The count of 4 KiB pages that the module has of one 2 MiB range, and whether the range has its pair.
#[derive(Debug)]
pub struct PairCount<'w, W>(&'w W);

impl<'w, W: Word> PairCount<'w, W> {
    /// The count in `word`, which was 0 at first.
    pub const fn new(word: &'w W) -> Self {
        Self(word)
    }

    /// Counts one page more, before it is given to the module.
    ///
    /// Where it is the first and there is no pair, `prepare` gets one ready (it may fail, and may be asked more than
    /// once), and `give` gives it to the module. Whoever comes meanwhile waits for that one call.
    pub fn get<E>(
        &self,
        relax: &impl Relax,
        mut prepare: impl FnMut() -> Result<(), E>,
        give: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let seen = self.0.load(Ordering::Acquire);
            if seen == NONE {
                prepare()?;
                if self.0.replace(NONE, CHANGING).is_ok() {
                    let given = give();
                    let now = if given.is_ok() { PRESENT | 1 } else { NONE };
                    self.0.store(now, Ordering::Release);
                    return given;
                }
            } else if seen & CHANGING != 0 {
                relax.pause();
            } else if self.0.replace(seen, seen + 1).is_ok() {
                return Ok(());
            }
        }
    }

    /// Counts one page less, after the module has given it back; if it was the last, `take` takes the pair back.
    ///
    /// If that fails the pair stays with the module, idle: the next page of the range needs no other one, and
    /// [`PairCount::collect`] tries again.
    pub fn put<T, E>(
        &self,
        relax: &impl Relax,
        take: impl FnOnce() -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        loop {
            let seen = self.0.load(Ordering::Acquire);
            if seen & CHANGING != 0 {
                relax.pause();
            } else if seen <= PRESENT {
                // Nobody has counted this page.
                return Ok(None);
            } else if seen > (PRESENT | 1) {
                if self.0.replace(seen, seen - 1).is_ok() {
                    return Ok(None);
                }
            } else if self.0.replace(seen, CHANGING).is_ok() {
                return self.end(take()).map(Some);
            }
        }
    }

    /// Takes the pair of a range back in which nothing is in use, if there is one.
    pub fn collect<T, E>(&self, take: impl FnOnce() -> Result<T, E>) -> Result<Option<T>, E> {
        match self.0.replace(PRESENT, CHANGING) {
            Ok(()) => self.end(take()).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn end<T, E>(&self, taken: Result<T, E>) -> Result<T, E> {
        let now = if taken.is_ok() { NONE } else { PRESENT };
        self.0.store(now, Ordering::Release);
        taken
    }

    /// Notes that a 2 MiB page was split: the range has got a pair, and all of its pages are in use.
    pub fn split(&self) {
        self.0.store(PRESENT | PAGES, Ordering::Release);
    }

    /// Notes that 512 pages were promoted: the range has no pair any more.
    pub fn promoted(&self) {
        self.0.store(NONE, Ordering::Release);
    }

    /// Pages in use; `None` without a pair.
    pub fn pages(&self) -> Option<u64> {
        match self.0.load(Ordering::Acquire) {
            seen if seen & PRESENT != 0 => Some(seen & !PRESENT),
            _ => None,
        }
    }
}
