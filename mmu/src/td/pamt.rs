//! PAMT page pairs around the calls that need them.

use core::cell::Cell;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;

use super::Error;
use super::Td;
use super::TdConfig;
use super::clean::write_back;
use super::leaves;
use crate::embed::Clean;
use crate::embed::Embedder;
use crate::embed::Frames;
use crate::embed::Relax;
use crate::embed::Tables;
use crate::mirror::Stop;
use crate::pamt::PairCount;
use crate::platform::Executor;
use crate::platform::MemoryRange;

/// Most pairs that one operation holds: those of a page and of its table, and one that came back.
const CAPACITY: usize = 3;

/// Two pages in which the module keeps the PAMT entries of a 2 MiB range.
type Pair = [Page; 2];

/// Pairs held ready for one operation, taken from the allocator outside of sections and given back when dropped.
pub(crate) struct Pairs<'e, E: Frames + Clean> {
    embedder: &'e E,
    config: TdConfig,
    /// Why the pair of a promoted range is in quarantine.
    late: Cell<Option<Error>>,
    held: [Cell<Option<Pair>>; CAPACITY],
}

impl<'e, E: Executor + Relax + Tables + Frames + Clean> Pairs<'e, E> {
    pub(crate) const fn new(embedder: &'e E, config: &TdConfig) -> Self {
        Self {
            embedder,
            config: *config,
            late: Cell::new(None),
            held: [const { Cell::new(None) }; CAPACITY],
        }
    }

    /// Gets one more pair ready. To be called outside of sections.
    pub(crate) fn top_up(&self) -> Result<(), Error> {
        let first = self.embedder.allocate_module_page();
        match (first, self.embedder.allocate_module_page()) {
            (Some(first), Some(second)) => {
                self.put_back([first, second]);
                Ok(())
            }
            (one, other) => {
                let pages = one.into_iter().chain(other);
                pages.for_each(|page| self.embedder.free_module_page(page));
                Err(Error::OutOfPages)
            }
        }
    }

    /// What `stop` asks for is got ready; `false` if it asks for something else.
    pub(crate) fn answer(&self, stop: &Stop<Error>) -> Result<bool, Error> {
        match stop {
            Stop::Refused(Error::NoPamtPair) => self.top_up().map(|()| true),
            _ => Ok(false),
        }
    }

    pub(crate) fn draw(&self) -> Option<Pair> {
        self.held.iter().find_map(Cell::take)
    }

    pub(crate) fn put_back(&self, pair: Pair) {
        let mut pair = Some(pair);
        for place in &self.held {
            let held = place.take();
            place.set(held.or_else(|| pair.take()));
        }
        // No operation has so many.
        let _ = pair.map(|pair| pair.map(Page::into_hpa));
    }

    /// Takes a pair that the module has given back: its lines are written back, which neither
    /// TDH.PHYMEM.PAMT.REMOVE nor TDH.MEM.PAGE.PROMOTE does. A page for which that fails is in quarantine.
    fn take_back(&self, pair: [Hpa; 2]) -> Result<(), Error> {
        let [Some(first), Some(second)] = pair.map(|hpa| Page::assume_owned(hpa, Level::Pt)) else {
            return Ok(());
        };
        match self
            .write_back(&first)
            .and_then(|()| self.write_back(&second))
        {
            Ok(()) => {
                self.put_back([first, second]);
                Ok(())
            }
            Err(error) => {
                [first, second]
                    .into_iter()
                    .for_each(|page| self.embedder.quarantine(None, page));
                Err(error)
            }
        }
    }

    /// With the module's own KeyID, under which it writes PAMT entries.
    fn write_back(&self, page: &Page) -> Result<(), Error> {
        let lines = self.config.with_keyid(page.hpa(), self.config.global_hkid);
        write_back(self.embedder, lines, Level::Pt)
    }

    /// Counts a 4 KiB page that is about to be given to the module; the first of its range brings a pair.
    pub(crate) fn get(&self, page: Hpa) -> Result<(), Error> {
        let Some(word) = self.embedder.pamt_count(page) else {
            return Ok(());
        };
        let ready = Cell::new(None);
        let prepare = || {
            let pair = ready.take().or_else(|| self.draw());
            let missing = pair.is_none();
            ready.set(pair);
            if missing {
                Err(Error::NoPamtPair)
            } else {
                Ok(())
            }
        };
        let give = || match ready.take() {
            Some(pair) => self.give(page, pair),
            None => Err(Error::NoPamtPair),
        };
        let counted = PairCount::new(word).get(self.embedder, prepare, give);
        if let Some(unused) = ready.take() {
            self.put_back(unused);
        }
        counted
    }

    /// TDH.PHYMEM.PAMT.ADD; the pair is held again if it fails.
    fn give(&self, page: Hpa, pair: Pair) -> Result<(), Error> {
        let range = page.align_down(Level::Pd);
        match leaves::pamt_add(self.embedder, range, [pair[0].hpa(), pair[1].hpa()]) {
            Ok(()) => {
                let _ = pair.map(Page::into_hpa);
                Ok(())
            }
            Err(error) => {
                self.put_back(pair);
                Err(error)
            }
        }
    }

    /// Counts a page less; the last of its range brings the pair back.
    pub(crate) fn put(&self, page: Hpa) -> Result<(), Error> {
        let Some(word) = self.embedder.pamt_count(page) else {
            return Ok(());
        };
        let range = page.align_down(Level::Pd);
        let take = || leaves::pamt_remove(self.embedder, range);
        let pair = PairCount::new(word).put(self.embedder, take)?;
        pair.map_or(Ok(()), |pair| self.take_back(pair))
    }

    /// Takes back an idle pair of the range of `page`.
    pub(crate) fn collect(&self, page: Hpa) -> Result<(), Error> {
        let Some(word) = self.embedder.pamt_count(page) else {
            return Ok(());
        };
        let range = page.align_down(Level::Pd);
        let pair = PairCount::new(word).collect(|| leaves::pamt_remove(self.embedder, range))?;
        pair.map_or(Ok(()), |pair| self.take_back(pair))
    }

    /// Makes `call`, which gives the 4 KiB `page` to the module.
    pub(crate) fn with<T>(
        &self,
        page: Hpa,
        call: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.get(page)?;
        call().map_err(|error| self.put(page).err().unwrap_or(error))
    }

    /// Splits the 2 MiB page `page` by `demote`, which takes the pair of its range where it needs one.
    pub(crate) fn split<T>(
        &self,
        page: Hpa,
        demote: impl FnOnce(Option<[Hpa; 2]>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(word) = self.embedder.pamt_count(page) else {
            return demote(None);
        };
        let pair = self.draw().ok_or(Error::NoPamtPair)?;
        match demote(Some([pair[0].hpa(), pair[1].hpa()])) {
            Ok(done) => {
                PairCount::new(word).split();
                let _ = pair.map(Page::into_hpa);
                Ok(done)
            }
            Err(error) => {
                self.put_back(pair);
                Err(error)
            }
        }
    }

    /// What went wrong with the pair after a promotion that has taken place.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        self.late.take().map_or(Ok(()), Err)
    }

    /// Promotes the 4 KiB pages from `page` on by `promote`, and keeps the pair that comes back.
    pub(crate) fn promote<T>(
        &self,
        page: Hpa,
        promote: impl FnOnce(bool) -> Result<leaves::Promoted<T>, Error>,
    ) -> Result<T, Error> {
        let word = self.embedder.pamt_count(page);
        let (promoted, pair) = promote(word.is_some())?;
        if let (Some(word), Some(pair)) = (word, pair) {
            PairCount::new(word).promoted();
            // The table is gone whatever happens to the pair.
            self.late.set(self.take_back(pair).err());
        }
        Ok(promoted)
    }
}

impl<E: Frames + Clean> Drop for Pairs<'_, E> {
    fn drop(&mut self) {
        for page in self.held.iter().filter_map(Cell::take).flatten() {
            self.embedder.scrub(&page);
            self.embedder.free_module_page(page);
        }
    }
}

impl<E: Embedder> Td<E> {
    /// Counts the 4 KiB `page` before it is given to the module. Outside of sections only.
    pub(super) fn admit(&self, page: Hpa) -> Result<(), Error> {
        admit(&self.embedder, &self.config, page)
    }

    /// Counts a page that the module has given back.
    ///
    /// An error says that a pair is idle ([`crate::pamt::collect`]) or in quarantine.
    pub(super) fn dismiss(&self, page: Hpa, level: Level) -> Result<(), Error> {
        match level {
            Level::Pt => dismiss(&self.embedder, &self.config, page),
            _ => Ok(()),
        }
    }
}

/// Counts the 4 KiB `page` before it is given to the module, and gives the pair of its range with the first one: for an
/// embedder that makes such calls itself. [`crate::Td`] does it for all its pages. Nothing happens without Dynamic PAMT.
pub fn admit<E>(embedder: &E, config: &TdConfig, page: Hpa) -> Result<(), Error>
where
    E: Executor + Relax + Tables + Frames + Clean,
{
    let pairs = Pairs::new(embedder, config);
    match pairs.get(page) {
        Err(Error::NoPamtPair) => {
            pairs.top_up()?;
            pairs.get(page)
        }
        counted => counted,
    }
}

/// Undoes [`admit`] once the module has given `page` back, and takes the pair of its range back with the last one.
///
/// An error says that the pair is idle ([`collect`]) or in quarantine ([`clean`]).
pub fn dismiss<E>(embedder: &E, config: &TdConfig, page: Hpa) -> Result<(), Error>
where
    E: Executor + Relax + Tables + Frames + Clean,
{
    Pairs::new(embedder, config).put(page)
}

/// Takes back the idle PAMT page pairs of the host's memory in `range`: those that a failed
/// TDH.PHYMEM.PAMT.REMOVE has left with the module although no 4 KiB page of their 2 MiB range is in use.
pub fn collect<E>(embedder: &E, config: &TdConfig, range: MemoryRange) -> Result<(), Error>
where
    E: Executor + Relax + Tables + Frames + Clean,
{
    let mut next = range.start().align_down(Level::Pd).bits();
    while next < range.end().bits() {
        Pairs::new(embedder, config).collect(Hpa::new(next))?;
        next += Level::Pd.size();
    }
    Ok(())
}

/// Writes back and scrubs a page of a pair that has come into quarantine, and frees it; for those that the end of
/// a teardown has left, when there is no [`Td::clean`] any more. On failure it comes back.
pub fn clean<E>(embedder: &E, config: &TdConfig, page: Page) -> Result<(), (Page, Error)>
where
    E: Executor + Relax + Tables + Frames + Clean,
{
    if let Err(error) = Pairs::new(embedder, config).write_back(&page) {
        return Err((page, error));
    }
    embedder.scrub(&page);
    embedder.free_module_page(page);
    Ok(())
}
