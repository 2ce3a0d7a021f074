//! Large pages that suggest themselves: a table that the guest has filled is promoted when a TRACK is due anyway.
//!
//! The module promotes 512 pages that are all accepted or all pending, and only it knows which of them are. So the
//! mirror marks the leaves that the host has seen the guest accept, and those added with their content; what is not
//! marked throughout is left to [`Td::promote`]. Where L2 VMs have aliases that differ, or a page is marked that the guest
//! has not come to accept yet, the module refuses; that happens once for each time that a range is filled. Before
//! FINALIZE no guest accepts anything, and the marks are exact.

use core::sync::atomic::Ordering;

use tdx_abi::Module;
use tdx_abi::PrivateGpa;
use tdx_abi::leaf::SeamcallLeaf;

use super::Error;
use super::Td;
use super::invalidate::Blocked;
use super::invalidate::Tracked;
use super::invalidate::stopped;
use crate::GpaRange;
use crate::Word;
use crate::embed::Embedder;
use crate::embed::Tables;
use crate::gate::Exclusive;
use crate::mirror::Kind;

const PLACES: usize = 16;
const EMPTY: u64 = 0;
/// All 512 pages are there and accepted.
const NOTED: u64 = 1 << 0;
/// The table is blocked, or is about to be.
const BLOCKED: u64 = 1 << 1;

/// Ranges that a fault has completed, as many as there is room for, with what is to be known of each in the low bits.
///
/// Whoever finds a free place takes it. Of private ranges, a place that is taken is changed by whoever holds
/// [`Td::reshape`].
#[derive(Debug)]
pub(super) struct Candidates<W>([W; PLACES]);

impl<W: Word> Candidates<W> {
    pub(super) fn new() -> Self {
        Self(core::array::from_fn(|_| W::new(EMPTY)))
    }

    /// Notes the range `range`; where there is no room it is passed over.
    pub(super) fn note(&self, range: u64) {
        let held = |place: &W| place.load(Ordering::Relaxed);
        let known = |place: &W| held(place) & !(NOTED | BLOCKED) == range && held(place) != EMPTY;
        if !self.0.iter().any(known) {
            let free = |place: &W| place.replace(EMPTY, range | NOTED).is_ok();
            let _ = self.0.iter().any(free);
        }
    }

    /// Does `work` with each that is noted, which is not noted any more then.
    pub(super) fn take(&self, mut work: impl FnMut(u64)) {
        for place in &self.0 {
            let noted = place.load(Ordering::Relaxed);
            if noted != EMPTY && place.replace(noted, EMPTY).is_ok() {
                work(noted & !(NOTED | BLOCKED));
            }
        }
    }

    fn any(&self, how: u64) -> bool {
        let has = |place: &W| place.load(Ordering::Relaxed) & how != 0;
        self.0.iter().any(has)
    }
}

/// Candidates whose tables are blocked; they wait for a TRACK.
struct Riders<'t, E: Embedder> {
    td: &'t Td<E>,
    _reshaping: Exclusive<'t, <E as Tables>::Word>,
    /// What became of those that could not be blocked.
    result: Result<(), Error>,
}

impl<E: Embedder> Td<E> {
    /// Looks whether what was mapped at `gpa` completes a large page, where the embedder wants that.
    ///
    /// It is made at once while no tracking is needed, and noted otherwise.
    pub(super) fn notice(&self, gpa: PrivateGpa) {
        if !self.embedder.promotes(gpa) || !self.may_promote() {
            return;
        }
        let start = gpa.align_down(Self::LARGEST_PRIVATE);
        let Some(uniform) = self
            .mirror
            .completed(&self.embedder, gpa, Self::LARGEST_PRIVATE)
        else {
            return;
        };
        if self.tracking_required() {
            if uniform.leaf.is_accepted() {
                self.candidates.note(start.bits());
            }
        } else if let Some(range) = GpaRange::new(start.bits(), Self::LARGEST_PRIVATE.size()) {
            // The page is mapped whatever comes of this; what is refused stays as it was.
            let _ = self.promote(&[range]);
        }
    }

    /// [`Td::notice`] once for each 2 MiB of what was mapped ahead of the guest, which is of interest only while no
    /// guest runs.
    pub(super) fn notice_all(&self, gpas: impl Iterator<Item = PrivateGpa>) {
        if self.tracking_required() {
            return;
        }
        let mut last: Option<PrivateGpa> = None;
        for gpa in gpas {
            let region = |gpa: PrivateGpa| gpa.align_down(Self::LARGEST_PRIVATE);
            if let Some(before) = last.replace(gpa)
                && region(before) != region(gpa)
            {
                self.notice(before);
            }
        }
        if let Some(gpa) = last {
            self.notice(gpa);
        }
    }

    /// Promotes the 2 MiB ranges that the guest has filled and accepted, with one TRACK for all of them; returns how
    /// many. [`Td::unmap_private`] does it without a TRACK of its own.
    ///
    /// Only ranges for which [`crate::embed::Backing::promotes`] says so are noted, 16 of them at most.
    pub fn promote_candidates(&self) -> Result<u64, Error> {
        match self.board(self.tracking_required()) {
            None => Ok(0),
            Some(riders) => {
                if self.candidates.any(BLOCKED) {
                    self.track()?;
                }
                riders.promote()
            }
        }
    }

    /// Whether the module promotes pages in the TD's OP_STATE, and the MMU wants it to.
    pub(super) fn may_promote(&self) -> bool {
        !self.exporting()
            && SeamcallLeaf::TDH_MEM_PAGE_PROMOTE
                .op_states(Module::V1_5_01)
                .is_some_and(|states| states.contains(self.op_state()))
    }

    /// Removes what is blocked, and promotes beside it what suggests itself: they share the TRACK and the kick.
    pub(super) fn remove_and_promote(&self, blocked: Blocked<'_, E>) -> Result<(), Error> {
        let Some(riders) = self.board(blocked.tracks()) else {
            return blocked.track()?.remove();
        };
        let tracked = if self.candidates.any(BLOCKED) {
            blocked.also_track()
        } else {
            blocked.track()
        };
        let removed = Tracked::remove(tracked?);
        removed.and(riders.promote().map(drop))
    }

    /// Blocks the tables of the candidates, if there are any and a TRACK is due (`tracks`) or a failure has left one
    /// blocked. Nobody waits for another one's promotions.
    fn board(&self, tracks: bool) -> Option<Riders<'_, E>> {
        let reshaping = if self.candidates.any(BLOCKED) {
            self.reshape()
        } else if tracks && self.candidates.any(NOTED) && self.may_promote() {
            self.reshaping.try_exclusive(&self.embedder)?
        } else {
            return None;
        };
        let mut riders = Riders {
            td: self,
            _reshaping: reshaping,
            result: Ok(()),
        };
        for place in &self.candidates.0 {
            let noted = place.load(Ordering::Acquire);
            let gpa = PrivateGpa::new(noted & !(NOTED | BLOCKED));
            if noted & NOTED != 0 {
                let blocked = self.block_completed(gpa);
                let is_blocked = blocked == Ok(true);
                riders.result = riders.result.and(blocked.map(drop));
                let now = if is_blocked {
                    gpa.bits() | BLOCKED
                } else {
                    EMPTY
                };
                place.store(now, Ordering::Release);
            }
        }
        Some(riders)
    }

    /// Blocks the table at `gpa` if it is as it was noted.
    fn block_completed(&self, gpa: PrivateGpa) -> Result<bool, Error> {
        let level = Self::LARGEST_PRIVATE;
        let mut section = self.mirror.exclusive(&self.embedder);
        let uniform = section.uniform(gpa, level);
        if !uniform.is_some_and(|uniform| uniform.leaf.is_accepted()) {
            return Ok(false);
        }
        let blocked = section.block(&self.external(), gpa, level);
        blocked.map(|()| true).map_err(stopped)
    }
}

impl<E: Embedder> Riders<'_, E> {
    /// Makes large pages of those that are blocked; returns how many. The TRACK has been.
    ///
    /// What stays blocked after a failure stays noted, for the next one who comes.
    fn promote(self) -> Result<u64, Error> {
        let Self { td, result, .. } = &self;
        let mut promoted = 0;
        let mut result = *result;
        for place in &td.candidates.0 {
            let noted = place.load(Ordering::Acquire);
            if noted & BLOCKED == 0 {
                continue;
            }
            let gpa = PrivateGpa::new(noted & !BLOCKED);
            match td.promote_one(gpa, true) {
                Ok(done) => promoted += u64::from(done),
                Err(error) => result = result.and(Err(error)),
            }
            let at = td.mirror.look(&td.embedder, gpa);
            if !matches!(at.entry.kind(), Kind::BlockedTable(_)) {
                place.store(EMPTY, Ordering::Release);
            }
        }
        result.map(|()| promoted)
    }
}
