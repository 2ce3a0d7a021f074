//! Large leaves: split, promote, relocate.

use core::cell::Cell;

use tdx_abi::Level;
use tdx_abi::OpState;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;

use super::Error;
use super::Td;
use super::build::Rejected;
use super::invalidate::stopped;
use super::l2::L2Pages;
use crate::GpaRange;
use crate::Word;
use crate::deposit::Deposit;
use crate::deposit::Pair;
use crate::embed::Embedder;
use crate::mirror::Kind;
use crate::mirror::Position;
use crate::mirror::Stop;
use crate::mirror::Uniform;

impl<E: Embedder> Td<E> {
    /// Splits the large leaves that stick out over an edge of one of `ranges`, and no others.
    ///
    /// They are blocked together and share one TRACK and one kick.
    pub fn split_edges(&self, ranges: &[GpaRange]) -> Result<(), Error> {
        let edges = || ranges.iter().flat_map(|range| [range.start(), range.end()]);
        self.split_at(edges)
    }

    /// Splits the large leaf that contains `gpa`, if there is one.
    pub fn split(&self, gpa: PrivateGpa) -> Result<(), Error> {
        // An edge within the leaf, wherever in it the address is.
        let edge = gpa.align_down(Level::Pd).bits() + Level::Pt.size();
        self.split_at(|| core::iter::once(edge))
    }

    /// Splits the large leaves that contain the addresses, with one TRACK and at most one kick.
    pub fn split_many(&self, gpas: &[PrivateGpa]) -> Result<(), Error> {
        self.split_at(|| {
            gpas.iter()
                .map(|gpa| gpa.align_down(Level::Pd).bits() + Level::Pt.size())
        })
    }

    /// Splits the leaves that have one of `edges` in their inside.
    fn split_at<I: Iterator<Item = u64>>(&self, edges: impl Fn() -> I) -> Result<(), Error> {
        let cut = |at: &Position, edge: u64| at.level > Level::Pt && at.gpa.bits() < edge;
        if !edges().any(|edge| {
            is_leaf(
                &self.mirror.look(&self.embedder, PrivateGpa::new(edge)),
                |at| cut(at, edge),
            )
        }) {
            return Ok(());
        }
        let sequence = Cell::new(self.sequence());
        if self.tracking_required() {
            let external = self.external();
            let mut section = self.mirror.exclusive(&self.embedder);
            self.sequence.add(1);
            sequence.set(self.sequence());
            for edge in edges() {
                let at = section.look(PrivateGpa::new(edge), Level::Pt);
                if is_leaf(&at, |at| cut(at, edge)) {
                    section
                        .block(&external, at.gpa, at.level)
                        .map_err(stopped)?;
                }
            }
            drop(section);
            self.track()?;
        }
        let mut result = Ok(());
        for edge in edges() {
            result = result.and(self.demote(edge, cut, &sequence));
        }
        result
    }

    /// Splits the leaf that `cut` says is to be cut at `edge`, if it is blocked or need not be; `sequence` is as
    /// [`Td::track_again`] has it.
    pub(super) fn demote(
        &self,
        edge: u64,
        cut: impl Fn(&Position, u64) -> bool,
        sequence: &Cell<u64>,
    ) -> Result<(), Error> {
        let mut deposit = Deposit::new(&self.embedder);
        let l2 = L2Pages::new(self);
        let external = self.external_with(&l2);
        loop {
            let enough = deposit.top_up(1);
            let mut section = self.mirror.section(&self.embedder);
            let at = section.look(PrivateGpa::new(edge), Level::Pt);
            let stop = match at.entry.kind() {
                Kind::Frozen => Stop::Retry,
                _ if !is_leaf(&at, |at| cut(at, edge)) => return Ok(()),
                // Mapped anew since it was blocked: none of ours.
                Kind::Leaf(_) if self.tracking_required() => return Ok(()),
                _ => match section.split(&external, at.gpa, at.level, &mut deposit) {
                    Ok(()) => {
                        drop(section);
                        return l2.settle();
                    }
                    Err(stop) => stop,
                },
            };
            drop(section);
            match stop {
                Stop::Retry => self.embedder.pause(),
                Stop::NeedTables if enough.is_ok() => {}
                stop => {
                    let error = match external.answer(&stop) {
                        Ok(true) => continue,
                        Ok(false) => stopped(stop),
                        Err(error) => error,
                    };
                    let Err(error) = self.track_again(error, sequence) else {
                        continue;
                    };
                    self.give_back_deposit(deposit);
                    self.unblock(at)?;
                    return Err(error);
                }
            }
        }
    }

    /// Undoes a block that is tracked; nothing happens if the entry is not blocked any more.
    pub(super) fn unblock(&self, at: Position) -> Result<(), Error> {
        let mut section = self.mirror.exclusive(&self.embedder);
        match section.look(at.gpa, at.level) {
            now if now.level == at.level
                && matches!(
                    now.entry.kind(),
                    Kind::BlockedLeaf(_) | Kind::BlockedTable(_)
                ) =>
            {
                section
                    .unblock(&self.external(), at.gpa, at.level)
                    .map_err(stopped)
            }
            _ => Ok(()),
        }
    }

    /// Unblocks a table that an interrupted promotion has left blocked.
    pub(super) fn heal(&self, at: Position) -> Result<(), Error> {
        let _reshaping = self.reshape();
        // Whoever was promoting it may have done so.
        let now = self.mirror.look(&self.embedder, at.gpa);
        if !matches!(now.entry.kind(), Kind::BlockedTable(_)) {
            return Ok(());
        }
        self.track()?;
        self.unblock(at)
    }

    /// Makes one leaf of each table of `ranges` whose 512 leaves map contiguous, aligned memory and
    /// which the guest has accepted all or none of, and aliased alike in each L2 VM. Returns how many.
    ///
    /// The tables are blocked together and share one TRACK and one kick; none of that while OP_STATE
    /// needs no tracking. A table that the module refuses is unblocked again and left as it was.
    ///
    /// Nothing is promoted while the TD is being exported: only 4 KiB pages are.
    pub fn promote(&self, ranges: &[GpaRange]) -> Result<u64, Error> {
        self.promote_where(ranges, |_| true, |_| true)
    }

    /// Promotes what is about to be removed where that is sure to succeed and cheaper: always while OP_STATE needs no
    /// tracking, otherwise where the embedder prefers a second TRACK and kick to a thousand SEAMCALLs.
    pub(super) fn promote_before_removal(&self, ranges: &[GpaRange]) -> Result<(), Error> {
        let tracking = self.tracking_required();
        if !self.may_promote() || tracking && !self.embedder.promotes_before_removal() {
            return Ok(());
        }
        self.promote_where(
            ranges,
            |gpa| self.embedder.promotes(gpa),
            |uniform| !tracking || uniform.leaf.is_accepted(),
        )
        .map(drop)
    }

    /// [`Td::promote`] of the tables that `wanted` (asked outside of sections) and `fit` agree to.
    fn promote_where(
        &self,
        ranges: &[GpaRange],
        wanted: impl Fn(PrivateGpa) -> bool,
        fit: impl Fn(Uniform) -> bool,
    ) -> Result<u64, Error> {
        if self.exporting() {
            return Ok(0);
        }
        let _reshaping = self.reshape();
        let level = Self::LARGEST_PRIVATE;
        let tracking = self.tracking_required();
        // Before FINALIZE the marks are exact, and what is mixed would be refused.
        let exact = self.op_state() == OpState::Initialized;
        let fit = |uniform: Option<Uniform>| {
            uniform.is_some_and(|uniform| !(exact && uniform.is_mixed) && fit(uniform))
        };
        let mut any = false;
        for gpa in tables_of(ranges).filter(|gpa| tracking && wanted(*gpa)) {
            // Others are kept out for the tables only that are blocked.
            if fit(self.mirror.section(&self.embedder).uniform(gpa, level)) {
                let external = self.external();
                let mut section = self.mirror.exclusive(&self.embedder);
                if fit(section.uniform(gpa, level)) {
                    section.block(&external, gpa, level).map_err(stopped)?;
                    any = true;
                }
            }
        }
        if tracking && !any {
            return Ok(0);
        }
        if tracking {
            self.track()?;
        }
        let mut promoted = 0;
        let mut result = Ok(());
        for gpa in tables_of(ranges) {
            let skip =
                || !wanted(gpa) || !fit(self.mirror.section(&self.embedder).uniform(gpa, level));
            if !tracking && skip() {
                continue;
            }
            match self.promote_one(gpa, tracking) {
                Ok(done) => promoted += u64::from(done),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.map(|()| promoted)
    }

    pub(super) fn promote_one(&self, gpa: PrivateGpa, tracking: bool) -> Result<bool, Error> {
        let level = Self::LARGEST_PRIVATE;
        let l2 = L2Pages::new(self);
        let external = self.external_with(&l2);
        let stop = if tracking {
            let mut section = self.mirror.section(&self.embedder);
            let at = section.look(gpa, level);
            if at.level != level || !matches!(at.entry.kind(), Kind::BlockedTable(_)) {
                return Ok(false);
            }
            section.promote(&external, gpa, level)
        } else {
            let mut section = self.mirror.exclusive(&self.embedder);
            if !section.is_uniform(gpa, level) {
                return Ok(false);
            }
            section.promote(&external, gpa, level)
        };
        match stop {
            Ok(pair) => {
                let settled = external.pairs.settle();
                let pages = self.give_back_pair(pair).and(l2.settle());
                pages.and(settled).map(|()| true)
            }
            Err(stop) => {
                self.unblock(Position {
                    gpa,
                    level,
                    entry: crate::mirror::MirrorEntry::EMPTY,
                })?;
                match stop {
                    Stop::Refused(error) if is_invalid_promote(&error) => Ok(false),
                    stop => Err(stopped(stop)),
                }
            }
        }
    }

    /// Retires the table and cleans the page that stood for it.
    fn give_back_pair(&self, pair: Pair) -> Result<(), Error> {
        self.embedder.retire(pair.table);
        self.give_back_external(pair.external)
    }

    /// As [`Td::unmap_private`], after promoting what can be: one REMOVE instead of 512, at the price of
    /// a second TRACK and perhaps a second kick.
    pub fn unmap_private_promoting(&self, ranges: &[GpaRange]) -> Result<(), Error> {
        self.split_edges(ranges)?;
        self.promote(ranges)?;
        self.unmap_private(ranges)
    }

    /// Moves the 4 KiB page at `gpa` to `target`, content and state with it, and gives the old page back.
    ///
    /// A large leaf is not moved. On failure `target` comes back.
    pub fn relocate(&self, gpa: PrivateGpa, target: Page) -> Result<(), Rejected> {
        let reject = |page, error| {
            Err(Rejected {
                page: Some(page),
                error,
            })
        };
        if target.level() != Level::Pt || !gpa.is_aligned(Level::Pt) {
            return reject(target, Error::BadAddress(gpa.bits()));
        }
        let tracking = self.tracking_required();
        let sequence = Cell::new(self.sequence());
        if tracking {
            let blocked = {
                let mut section = self.mirror.exclusive(&self.embedder);
                self.sequence.add(1);
                sequence.set(self.sequence());
                section.block(&self.external(), gpa, Level::Pt)
            };
            if let Err(error) = blocked.map_err(stopped).and_then(|()| self.track()) {
                return reject(target, error);
            }
        }
        let external = self.external();
        loop {
            let moved = self.mirror.section(&self.embedder).relocate(
                &external,
                gpa,
                Level::Pt,
                target.hpa(),
            );
            let error = match moved {
                Ok(old) => {
                    // The module has the target now.
                    let _ = target.into_hpa();
                    return self.give_back(gpa, old).map_err(Rejected::none);
                }
                Err(Stop::Retry) => {
                    self.embedder.pause();
                    continue;
                }
                Err(Stop::Poisoned(error)) => {
                    // The module may have the target.
                    let _ = target.into_hpa();
                    return Err(Rejected::none(error));
                }
                Err(stop) => match external.pairs.answer(&stop) {
                    Ok(true) => continue,
                    Ok(false) => stopped(stop),
                    Err(error) => error,
                },
            };
            let Err(error) = self.track_again(error, &sequence) else {
                continue;
            };
            let at = Position {
                gpa,
                level: Level::Pt,
                entry: crate::mirror::MirrorEntry::EMPTY,
            };
            let undone = if tracking { self.unblock(at) } else { Ok(()) };
            return reject(target, undone.err().unwrap_or(error));
        }
    }
}

fn is_leaf(at: &Position, and: impl Fn(&Position) -> bool) -> bool {
    matches!(at.entry.kind(), Kind::Leaf(_) | Kind::BlockedLeaf(_)) && and(at)
}

fn is_invalid_promote(error: &Error) -> bool {
    error.status().is_some_and(|status| {
        status.code() == tdx_abi::status::StatusCode::EPT_INVALID_PROMOTE_CONDITIONS
    })
}

/// The aligned blocks that lie whole in one of `ranges`, as large as the Secure-EPT's largest leaf.
fn tables_of(ranges: &[GpaRange]) -> impl Iterator<Item = PrivateGpa> {
    let size = Level::Pd.size();
    ranges
        .iter()
        .flat_map(move |range| {
            let first = range.start().next_multiple_of(size);
            (first..range.end())
                .step_by(usize::try_from(size).unwrap_or(usize::MAX))
                .filter(move |gpa| range.end() - gpa >= size)
        })
        .map(PrivateGpa::new)
}
