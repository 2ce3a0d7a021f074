//! Which memory is private and which is shared, and changes of that.

use tdx_abi::SharedGpa;

use super::Error;
use super::Td;
use crate::GpaRange;
use crate::Word;
use crate::attributes::Visibility;
use crate::attributes::VisibilityMap;
use crate::deposit::DEPTH;
use crate::deposit::Deposit;
use crate::deposit::Table;
use crate::embed::Embedder;
use crate::shared::EptStop;
use crate::shared::Gather;

impl<E: Embedder> Td<E> {
    /// Whether `gpa` (without SHARED bit) is private or shared memory.
    pub fn visibility(&self, gpa: u64) -> Visibility {
        self.visibility.look(&self.embedder, gpa).0
    }

    /// Declares `range` private or shared without touching what is mapped: for memory slots before use.
    ///
    /// What nobody declares is shared.
    pub fn declare(&self, range: GpaRange, visibility: Visibility) -> Result<(), Error> {
        let mut deposit = Deposit::new(&self.embedder);
        deposit.top_up(VisibilityMap::TABLES)?;
        let (replaced, done) = {
            let _section = self.mirror.exclusive(&self.embedder);
            self.sequence.add(1);
            self.visibility
                .set(&self.embedder, range, visibility, &mut deposit)
        };
        replaced.retire(&self.embedder);
        done.map_err(|_| Error::OutOfPages)
    }

    /// Converts `range` to `visibility`: what is mapped in the other way is unmapped, exactly in the
    /// range, and later accesses fault in anew.
    ///
    /// May be repeated after a failure; a range that is converted already costs no SEAMCALL.
    pub fn convert(&self, range: GpaRange, visibility: Visibility) -> Result<(), Error> {
        self.declare(range, visibility)?;
        match visibility {
            Visibility::Shared => self.unmap_private(&[range]),
            Visibility::Private => self.unmap_shared(&[range]),
        }
    }

    /// Takes the memory of `ranges` back from the guest, private and shared, as a balloon or a deleted
    /// memory slot does. What is private or shared stays so; later accesses fault in anew.
    ///
    /// However many ranges, they share one TRACK and at most one kick as in [`Td::unmap_private`], and one
    /// flush of the shared EPT.
    pub fn discard(&self, ranges: &[GpaRange]) -> Result<(), Error> {
        let private = self.unmap_private(ranges);
        private.and(self.unmap_shared(ranges))
    }

    /// Unmaps the shared memory of `ranges`, and flushes it before this returns.
    ///
    /// The flush serves large pages as well that faults have completed, as far as the backing is contiguous.
    pub fn unmap_shared(&self, ranges: &[GpaRange]) -> Result<(), Error> {
        {
            let _section = self.mirror.exclusive(&self.embedder);
            self.sequence.add(1);
        }
        let mut gather = Gather::new();
        let mut deposit = Deposit::new(&self.embedder);
        let result = ranges
            .iter()
            .try_for_each(|range| self.zap_shared(*range, &mut gather, &mut deposit));
        self.merge_shared(&mut gather);
        let _ = gather.flush(&self.embedder);
        result
    }

    fn zap_shared(
        &self,
        range: GpaRange,
        gather: &mut Gather,
        deposit: &mut Deposit<'_, E, Table>,
    ) -> Result<(), Error> {
        let gpa = |address| self.config.shared_bit.join(SharedGpa::new(address)).bits();
        let (from, end) = (gpa(range.start()), gpa(range.start()) + range.bytes());
        loop {
            let mut section = self.ept.section(&self.embedder);
            let stop = match section.zap(from, end, gather) {
                Ok(()) => return Ok(()),
                // A large leaf sticks out.
                Err(EptStop::Found(at)) => match section.split(at.gpa, at.level, gather, deposit) {
                    Ok(()) => continue,
                    Err(stop) => stop,
                },
                Err(stop) => stop,
            };
            drop(section);
            match stop {
                EptStop::NeedTables => deposit.top_up(DEPTH)?,
                EptStop::Retry | EptStop::Found(_) => self.embedder.pause(),
            }
        }
    }
}
