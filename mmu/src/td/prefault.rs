//! Mapping ahead of faults.

use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;

use super::Error;
use super::Td;
use super::invalidate::stopped;
use crate::GpaRange;
use crate::attributes::Visibility;
use crate::deposit::DEPTH;
use crate::deposit::Deposit;
use crate::deposit::Pair;
use crate::embed::Embedder;
use crate::mirror::Kind;
use crate::mirror::Stop;

/// Pages that are taken from the backing before a section maps them.
const BATCH: usize = 64;

type Batch = [Option<(PrivateGpa, Page)>; BATCH];

impl<E: Embedder> Td<E> {
    /// Maps all private memory of `range` that is not mapped, by the largest pages up to `largest` that
    /// attributes, alignment and backing allow. Returns the number of bytes mapped.
    ///
    /// Shared parts and parts without memory are passed over. Goes on beside faults.
    pub fn prefault(&self, range: GpaRange, largest: Level) -> Result<u64, Error> {
        let largest = largest.min(self.largest_private());
        let mut mapped = 0;
        let mut address = range.start();
        let mut deposit = Deposit::new(&self.embedder);
        while address < range.end() {
            let sequence = self.sequence();
            let mut batch: Batch = [const { None }; BATCH];
            address = self.collect(range, address, largest, &mut batch);
            let wanted = batch
                .each_ref()
                .map(|place| place.as_ref().map(|(gpa, _)| *gpa));
            mapped += self.map_batch(&mut batch, sequence, &mut deposit)?;
            self.notice_all(wanted.into_iter().flatten());
        }
        Ok(mapped)
    }

    /// Takes pages for the next unmapped addresses; returns where to go on.
    fn collect(&self, range: GpaRange, from: u64, largest: Level, batch: &mut Batch) -> u64 {
        let mut address = from;
        let mut places = batch.iter_mut();
        let mut place = places.next();
        while address < range.end() {
            let gpa = PrivateGpa::new(address);
            let (visibility, uniform) = self.visibility.look(&self.embedder, address);
            let at = self.mirror.look(&self.embedder, gpa);
            let block = range.block_at(address, largest.min(uniform).min(at.level));
            if visibility == Visibility::Shared || at.entry.kind() != Kind::Empty {
                address += block.size();
                continue;
            }
            let Some(free) = place.take() else {
                return address;
            };
            let page = self.embedder.private_page(gpa, block);
            address += page.as_ref().map_or(block, Page::level).size();
            match page {
                Some(page) => {
                    *free = Some((gpa, page));
                    place = places.next();
                }
                None => place = Some(free),
            }
        }
        address
    }

    /// Maps the pages of a batch; those that cannot be mapped go back. Returns the bytes mapped.
    fn map_batch(
        &self,
        batch: &mut Batch,
        sequence: u64,
        deposit: &mut Deposit<'_, E, Pair>,
    ) -> Result<u64, Error> {
        let external = self.external();
        let mut mapped = 0;
        let mut result = Ok(());
        while result.is_ok() && batch.iter().any(Option::is_some) {
            let mut section = self.mirror.section(&self.embedder);
            let mut stop = (self.sequence() != sequence).then_some(Stop::Retry);
            for place in batch.iter_mut() {
                let Some((gpa, page)) = place.as_ref() else {
                    continue;
                };
                if stop.is_some() {
                    break;
                }
                match section.map(&external, *gpa, page.hpa(), page.level(), deposit) {
                    Ok(()) => {
                        mapped += page.level().size();
                        let _ = place.take().map(|(_, page)| page.into_hpa());
                    }
                    Err(error) => stop = Some(error),
                }
            }
            drop(section);
            match stop {
                None => {}
                Some(Stop::NeedTables) => result = deposit.top_up(DEPTH).map_err(Error::from),
                // Mapped by a fault, or being invalidated: leave it.
                Some(Stop::Retry | Stop::Found(_)) => {
                    self.embedder.pause();
                    break;
                }
                Some(stop) => {
                    result = match external.pairs.answer(&stop) {
                        Ok(true) => Ok(()),
                        Ok(false) => Err(stopped(stop)),
                        Err(error) => Err(error),
                    }
                }
            }
        }
        for (gpa, page) in batch.iter_mut().filter_map(Option::take) {
            self.embedder.take_back(gpa, page);
        }
        result.map(|()| mapped)
    }
}
