//! What the mirror says of many pages, and large leaves on the way out.

use core::cell::Cell;

use tdx_abi::Level;

use super::super::Error;
use super::super::Td;
use super::super::invalidate::stopped;
use crate::GpaRange;
use crate::Word;
use crate::embed::Embedder;
use crate::mirror::Kind;
use crate::mirror::Position;

impl<E: Embedder> Td<E> {
    /// Splits every large leaf of `range`, with one TRACK for all.
    pub(super) fn split_all(&self, range: GpaRange) -> Result<(), Error> {
        let sequence = Cell::new(self.sequence());
        if self.tracking_required()
            && let Some(blocked) = self.block_large(range)?
        {
            self.track()?;
            sequence.set(blocked);
        }
        let mut address = range.start();
        while let Some(at) = self.next_large(address, range.end()) {
            address = at.end();
            let edge = at.gpa.bits() + Level::Pt.size();
            self.demote(edge, |at, _| at.level > Level::Pt, &sequence)?;
        }
        Ok(())
    }

    /// Blocks the large leaves of `range`; returns the number of the invalidation if there are any.
    fn block_large(&self, range: GpaRange) -> Result<Option<u64>, Error> {
        if self.next_large(range.start(), range.end()).is_none() {
            return Ok(None);
        }
        let external = self.external();
        let mut section = self.mirror.exclusive(&self.embedder);
        self.sequence.add(1);
        let mut address = range.start();
        while let Some(at) = section.next(address, range.end()) {
            address = at.end();
            if is_large(&at) {
                section
                    .block(&external, at.gpa, at.level)
                    .map_err(stopped)?;
            }
        }
        Ok(Some(self.sequence()))
    }

    fn next_large(&self, from: u64, end: u64) -> Option<Position> {
        self.first(from, end, is_large)
    }

    /// How many 4 KiB pages of `range` are of a kind; a large leaf counts as what it maps.
    pub(super) fn count(&self, range: GpaRange, is: impl Fn(&Kind) -> bool) -> u64 {
        let mut section = self.mirror.section(&self.embedder);
        let mut count = 0;
        let mut address = range.start();
        while let Some(at) = section.next(address, range.end()) {
            if is(&at.entry.kind()) {
                count += at.level.size() / Level::Pt.size();
            }
            address = at.end();
        }
        count
    }

    /// The first page of `range` that is of a kind.
    pub(super) fn find(&self, range: GpaRange, is: impl Fn(&Kind) -> bool) -> Option<Position> {
        self.first(range.start(), range.end(), |at| is(&at.entry.kind()))
    }

    fn first(&self, from: u64, end: u64, is: impl Fn(&Position) -> bool) -> Option<Position> {
        let mut section = self.mirror.section(&self.embedder);
        let mut address = from;
        while let Some(at) = section.next(address, end) {
            if is(&at) {
                return Some(at);
            }
            address = at.end();
        }
        None
    }
}

fn is_large(at: &Position) -> bool {
    at.level > Level::Pt && matches!(at.entry.kind(), Kind::Leaf(_) | Kind::BlockedLeaf(_))
}
