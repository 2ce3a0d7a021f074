//! Removal of private memory: block many, track once, remove.

use core::cell::Cell;

use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;

use super::Error;
use super::Td;
use crate::GpaRange;
use crate::Word;
use crate::embed::Embedder;
use crate::mirror::ExclusiveSection;
use crate::mirror::ExportState;
use crate::mirror::Kind;
use crate::mirror::Position;
use crate::mirror::Stop;

/// Pages that are removed before they are cleaned outside of the section.
const BATCH: usize = 64;

/// Ranges whose leaves are blocked.
///
/// The only way on is [`Blocked::track`], and only what that returns can remove: BLOCK, TRACK and
/// REMOVE in another order do not compile.
#[derive(Debug)]
#[must_use = "blocked memory faults until it is removed or unblocked"]
pub struct Blocked<'t, E: Embedder> {
    td: &'t Td<E>,
    ranges: &'t [GpaRange],
    tracking: bool,
    /// As [`Td::track_again`] has it.
    sequence: u64,
}

/// Ranges whose blocked leaves no vCPU has a translation of.
#[derive(Debug)]
#[must_use = "blocked memory faults until it is removed or unblocked"]
pub struct Tracked<'t, E: Embedder> {
    td: &'t Td<E>,
    ranges: &'t [GpaRange],
    blocked_only: bool,
    /// As [`Td::track_again`] has it.
    sequence: Cell<u64>,
}

impl<E: Embedder> Td<E> {
    /// Unmaps the private memory of `ranges` and gives the pages back; large leaves at their edges are
    /// split first.
    ///
    /// However many ranges: the leaves are blocked together, one TRACK, at most one kick (and the same
    /// again for edges that had to be split). No blocking at all while OP_STATE needs no tracking. What
    /// can be promoted is removed as large pages where that costs nothing but SEAMCALLs less
    /// ([`crate::embed::Backing::promotes_before_removal`]), and the TRACK serves the 2 MiB ranges as well that the
    /// guest has filled meanwhile ([`crate::embed::Backing::promotes`]).
    pub fn unmap_private(&self, ranges: &[GpaRange]) -> Result<(), Error> {
        self.split_edges(ranges)?;
        self.promote_before_removal(ranges)?;
        loop {
            match self.block(ranges) {
                Err(Error::Unexpected(at)) if matches!(at.entry.kind(), Kind::BlockedTable(_)) => {
                    self.heal(at)?
                }
                blocked => return self.remove_and_promote(blocked?),
            }
        }
    }

    /// Blocks every leaf in `ranges`. A leaf that sticks out of a range is an error: split it first.
    pub fn block<'t>(&'t self, ranges: &'t [GpaRange]) -> Result<Blocked<'t, E>, Error> {
        let mut section = self.mirror.exclusive(&self.embedder);
        self.sequence.add(1);
        self.block_in(&mut section, ranges)
    }

    pub(super) fn block_in<'t>(
        &'t self,
        section: &mut ExclusiveSection<'_, E>,
        ranges: &'t [GpaRange],
    ) -> Result<Blocked<'t, E>, Error> {
        let mut tracking = false;
        if self.exporting()
            && let Some(at) = first_exported(section, ranges)
        {
            return Err(Error::Exported(at));
        }
        if self.tracking_required() {
            let external = self.external();
            for range in ranges {
                let mut address = range.start();
                while let Some(at) = section.next(address, range.end()) {
                    address = at.end();
                    match at.entry.kind() {
                        Kind::Poisoned(_) => {}
                        Kind::BlockedTable(_) => return Err(Error::Unexpected(at)),
                        _ if range.cuts(at.gpa.bits(), at.end()) => {
                            return Err(Error::Unexpected(at));
                        }
                        _ => {
                            section
                                .block(&external, at.gpa, at.level)
                                .map_err(stopped)?;
                            tracking = true;
                        }
                    }
                }
            }
        }
        Ok(Blocked {
            td: self,
            ranges,
            tracking,
            sequence: self.sequence(),
        })
    }
}

/// The first page of `ranges` that has been exported.
fn first_exported<E: Embedder>(
    section: &mut ExclusiveSection<'_, E>,
    ranges: &[GpaRange],
) -> Option<Position> {
    for range in ranges {
        let mut address = range.start();
        while let Some(at) = section.next(address, range.end()) {
            if matches!(at.entry.kind(), Kind::ExportLeaf(_, state) if state.is_exported()) {
                return Some(at);
            }
            address = at.end();
        }
    }
    None
}

impl<'t, E: Embedder> Blocked<'t, E> {
    /// Whether anything is blocked.
    pub(super) const fn tracks(&self) -> bool {
        self.tracking
    }

    /// As [`Blocked::track`], for more that the caller has blocked.
    pub(super) fn also_track(mut self) -> Result<Tracked<'t, E>, Error> {
        self.tracking = self.td.tracking_required();
        self.track()
    }

    /// One TRACK for all, and a kick if a vCPU has been inside since before.
    ///
    /// If that fails everything stays blocked, in the mirror as in the Secure-EPT: unmap again.
    pub fn track(self) -> Result<Tracked<'t, E>, Error> {
        let Self {
            td,
            ranges,
            tracking,
            sequence,
        } = self;
        if tracking {
            td.track()?;
        }
        Ok(Tracked {
            td,
            ranges,
            blocked_only: td.tracking_required(),
            sequence: Cell::new(sequence),
        })
    }
}

impl<E: Embedder> Tracked<'_, E> {
    /// Removes the leaves and gives their pages back.
    ///
    /// Runs beside faults and other removals. Goes on after a failure and returns the first one; what
    /// failed stays blocked.
    pub fn remove(self) -> Result<(), Error> {
        let mut result = Ok(());
        for &range in self.ranges {
            result = result.and(self.remove_range(range));
        }
        result
    }

    fn remove_range(&self, range: GpaRange) -> Result<(), Error> {
        let mut result = Ok(());
        let mut address = range.start();
        while address < range.end() {
            let mut removed = [const { None }; BATCH];
            let mut failed = address;
            let stop = self.remove_batch(&mut address, &mut failed, range.end(), &mut removed);
            for (gpa, page) in removed.into_iter().flatten() {
                result = result.and(self.td.give_back(gpa, page));
            }
            match stop {
                Ok(()) => {}
                Err(Stop::Retry) => self.td.embedder.pause(),
                Err(stop) => match self.td.track_again(stopped(stop), &self.sequence) {
                    Ok(()) => address = failed,
                    Err(error) => result = result.and(Err(error)),
                },
            }
        }
        result
    }

    /// Goes on at `address`; what it fails at, and has passed over, begins at `failed`.
    fn remove_batch(
        &self,
        address: &mut u64,
        failed: &mut u64,
        end: u64,
        removed: &mut [Option<(PrivateGpa, Page)>; BATCH],
    ) -> Result<(), Stop<Error>> {
        let external = self.td.external();
        let mut section = self.td.mirror.section(&self.td.embedder);
        let mut places = removed.iter_mut();
        let Some(mut place) = places.next() else {
            return Ok(());
        };
        while let Some(at) = section.next(*address, end) {
            // A failure is reported once, and passed over.
            *address = at.end();
            *failed = at.gpa.bits();
            match at.entry.kind() {
                Kind::BlockedLeaf(_) => {}
                Kind::Leaf(_) | Kind::ExportLeaf(_, ExportState::WriteBlocked)
                    if !self.blocked_only => {}
                Kind::ExportLeaf(..) if !self.blocked_only => return Err(Stop::Found(at)),
                Kind::Frozen => {
                    *address = at.gpa.bits();
                    return Err(Stop::Retry);
                }
                Kind::Poisoned(_) => return Err(Stop::Found(at)),
                // Mapped anew after the block.
                _ => continue,
            }
            let page = match section.remove(&external, at.gpa, at.level) {
                Ok(page) => page,
                // Another removal was quicker.
                Err(Stop::Found(now)) if now != at => {
                    *address = at.gpa.bits();
                    continue;
                }
                Err(stop) => {
                    if stop == Stop::Retry {
                        *address = at.gpa.bits();
                    }
                    return Err(stop);
                }
            };
            *place = Some((at.gpa, page));
            match places.next() {
                Some(next) => place = next,
                None => return Ok(()),
            }
        }
        *address = end;
        Ok(())
    }
}

/// What a stop means to a caller of the TD.
pub(super) fn stopped(stop: Stop<Error>) -> Error {
    match stop {
        Stop::Refused(error) | Stop::Poisoned(error) => error,
        Stop::NeedTables => Error::OutOfPages,
        Stop::Found(at) if matches!(at.entry.kind(), Kind::Poisoned(_)) => Error::Poisoned(at),
        Stop::Found(at) if matches!(at.entry.kind(), Kind::ExportLeaf(..)) => Error::Exported(at),
        Stop::Found(at) => Error::Unexpected(at),
        // Callers that can meet a frozen entry look again themselves.
        Stop::Retry => Error::Unexpected(Position {
            gpa: PrivateGpa::new(0),
            level: Level::Pt,
            entry: crate::mirror::MirrorEntry::FROZEN,
        }),
    }
}
