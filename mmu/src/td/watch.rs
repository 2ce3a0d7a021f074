//! Watching shared memory: dirty logging, ageing, permissions, large pages.
//!
//! The Secure-EPT has none of this: EPTP.AD is 0 in a TD, and private entries are the module's.

use tdx_abi::Level;
use tdx_abi::SharedGpa;

use super::Error;
use super::Td;
use crate::GpaRange;
use crate::deposit::DEPTH;
use crate::deposit::Deposit;
use crate::embed::Embedder;
use crate::shared::EptPosition;
use crate::shared::EptSection;
use crate::shared::EptStop;
use crate::shared::Flushed;
use crate::shared::Gather;
use crate::shared::Permissions;

impl<E: Embedder> Td<E> {
    /// Begins a round of dirty logging: writes to the shared memory of `range` fault once, and
    /// [`crate::embed::Backing::mark_dirty`] hears of the page.
    ///
    /// Large leaves are split first where `by_page`, so that what is dirty is known to 4 KiB; from then on no large ones
    /// are made before [`Td::promote_shared`].
    pub fn log_dirty(&self, range: GpaRange, by_page: bool) -> Result<Flushed, Error> {
        if by_page {
            self.merges.keep_small(true);
        }
        let mut gather = Gather::new();
        let split = if by_page {
            self.split_shared(range, &mut gather)
        } else {
            Ok(())
        };
        self.in_shared(range, |section, from, end| {
            section.catch_writes(from, end, &mut gather)
        });
        let flushed = gather.flush(&self.embedder);
        split.map(|()| flushed)
    }

    /// Begins a round of ageing: reports every mapped shared page of `range` with whether the guest has
    /// used it since the round before.
    pub fn age(&self, range: GpaRange, report: impl FnMut(SharedGpa, Level, bool)) -> Flushed {
        let mut report = report;
        let mut gather = Gather::new();
        let gpa = |at: EptPosition| SharedGpa::new(at.gpa.bits() & !self.config.shared_bit.mask());
        self.in_shared(range, |section, from, end| {
            section.age(from, end, &mut gather, |at, used| {
                report(gpa(at), at.level, used)
            });
        });
        gather.flush(&self.embedder)
    }

    /// Sets what the guest may do with the mapped shared memory of `range`.
    pub fn protect(&self, range: GpaRange, permissions: Permissions) -> Result<Flushed, Error> {
        let mut gather = Gather::new();
        let split = self.split_shared_edges(range, &mut gather);
        self.in_shared(range, |section, from, end| {
            section.protect(from, end, permissions, &mut gather)
        });
        let flushed = gather.flush(&self.embedder);
        split.map(|()| flushed)
    }

    fn in_shared(&self, range: GpaRange, mut work: impl FnMut(&mut EptSection<'_, E>, u64, u64)) {
        let from = self
            .config
            .shared_bit
            .join(SharedGpa::new(range.start()))
            .bits();
        work(
            &mut self.ept.section(&self.embedder),
            from,
            from + range.bytes(),
        );
    }

    /// Splits every large shared leaf of `range`.
    fn split_shared(&self, range: GpaRange, gather: &mut Gather) -> Result<(), Error> {
        let mut address = range.start();
        while address < range.end() {
            let at = self.split_shared_at(address, gather)?;
            address += at.size() - (address & (at.size() - 1));
        }
        Ok(())
    }

    /// Splits the large shared leaves that stick out of `range`.
    fn split_shared_edges(&self, range: GpaRange, gather: &mut Gather) -> Result<(), Error> {
        for edge in [range.start(), range.end()] {
            if edge & (Level::Pd.size() - 1) != 0 {
                self.split_shared_at(edge, gather)?;
            }
        }
        Ok(())
    }

    /// Splits the leaf at `address` down to 4 KiB; returns the level of the entry that is there now.
    fn split_shared_at(&self, address: u64, gather: &mut Gather) -> Result<Level, Error> {
        let gpa = self.config.shared_bit.join(SharedGpa::new(address));
        let mut deposit = Deposit::new(&self.embedder);
        loop {
            let mut section = self.ept.section(&self.embedder);
            let at = section.look(gpa, Level::Pt);
            if at.level == Level::Pt || !at.entry.is_leaf() {
                return Ok(at.level);
            }
            let stop = section.split(at.gpa, at.level, gather, &mut deposit);
            drop(section);
            match stop {
                Err(EptStop::NeedTables) => deposit.top_up(DEPTH)?,
                Err(EptStop::Retry) => self.embedder.pause(),
                Ok(()) | Err(EptStop::Found(_)) => {}
            }
        }
    }
}
