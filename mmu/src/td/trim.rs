//! Giving empty tables back while the TD lives.

use tdx_abi::Level;
use tdx_abi::PrivateGpa;

use super::Error;
use super::Td;
use super::invalidate::stopped;
use super::l2::L2Pages;
use crate::GpaRange;
use crate::Word;
use crate::embed::Embedder;
use crate::mirror::Kind;
use crate::mirror::Stop;
use crate::range::block_at;

impl<E: Embedder> Td<E> {
    /// Takes the tables that lie whole in `range` and map nothing out of the Secure-EPT, the lowest
    /// first, and gives their pages back (TDH.MEM.SEPT.REMOVE), those of L2 VMs beside them too. Returns how many.
    ///
    /// The tables of one level are blocked together and share one TRACK and one kick; none of that while
    /// OP_STATE needs no tracking. Unmapping leaves tables where they are, because most ranges are
    /// mapped again.
    pub fn trim(&self, range: GpaRange) -> Result<u64, Error> {
        let _reshaping = self.reshape();
        let mut removed = 0;
        for level in Level::ALL
            .into_iter()
            .filter(|level| (Level::Pd..=self.mirror.tree().top()).contains(level))
        {
            if self.block_vacant(range, level)? {
                if self.tracking_required() {
                    self.track()?;
                }
                removed += self.unlink_vacant(range, level)?;
            }
        }
        Ok(removed)
    }

    /// Blocks the vacant tables behind entries of `level`; says whether there are any.
    fn block_vacant(&self, range: GpaRange, level: Level) -> Result<bool, Error> {
        let external = self.external();
        let tracking = self.tracking_required();
        let mut any = false;
        let mut section = self.mirror.exclusive(&self.embedder);
        for gpa in entries_of(range, level) {
            if section.is_vacant(gpa, level) {
                any = true;
                if tracking {
                    self.sequence.add(1);
                    section.block(&external, gpa, level).map_err(stopped)?;
                }
            }
        }
        Ok(any)
    }

    fn unlink_vacant(&self, range: GpaRange, level: Level) -> Result<u64, Error> {
        let l2 = L2Pages::new(self);
        let external = self.external_with(&l2);
        let tracking = self.tracking_required();
        let mut removed = 0;
        let mut result = Ok(());
        for gpa in entries_of(range, level) {
            let unlinked = {
                let mut section = self.mirror.exclusive(&self.embedder);
                let at = section.look(gpa, level);
                let blocked = matches!(at.entry.kind(), Kind::BlockedTable(_));
                // Without tracking somebody may have mapped something in between.
                if at.level != level || tracking && !blocked || !section.is_vacant(gpa, level) {
                    continue;
                }
                section
                    .unlink(&external, gpa, level)
                    .map_err(|stop| (stop, at))
            };
            match unlinked {
                Ok(pair) => {
                    self.embedder.retire(pair.table);
                    removed += 1;
                    result = result
                        .and(self.give_back_external(pair.external))
                        .and(l2.settle());
                }
                Err((stop, at)) => {
                    let undone = match stop {
                        Stop::Poisoned(_) => Ok(()),
                        _ => self.unblock(at),
                    };
                    result = result.and(undone).and(Err(stopped(stop)));
                }
            }
        }
        result.map(|()| removed)
    }
}

/// The entries of `level` that lie whole in `range`.
fn entries_of(range: GpaRange, level: Level) -> impl Iterator<Item = PrivateGpa> {
    let first = range.start().next_multiple_of(level.size());
    let mut next = Some(first).filter(|first| *first < range.end());
    core::iter::from_fn(move || {
        let here = next.filter(|here| block_at(*here, range.end(), level) == level)?;
        next = here
            .checked_add(level.size())
            .filter(|next| *next < range.end());
        Some(PrivateGpa::new(here))
    })
}
