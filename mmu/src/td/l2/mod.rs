//! L2 VMs of a partitioned TD: their Secure-EPT tables.

mod config;
mod pages;

use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;

pub(crate) use self::pages::L2;
pub(crate) use self::pages::L2Pages;
use super::Error;
use super::Resolution;
use super::Td;
use super::fault::LOCAL_RETRIES;
use super::invalidate::stopped;
use super::leaves;
use super::propagate::Propagate;
use crate::GpaRange;
use crate::Word;
use crate::embed::Embedder;
use crate::l2::Link;
use crate::l2::MAX_L2_VMS;
use crate::mirror::Kind;
use crate::mirror::MirrorEntry;
use crate::mirror::Position;
use crate::mirror::Stop;

impl<E: Embedder> Td<E> {
    /// Number of the TD's L2 VMs.
    pub fn l2_vms(&self) -> usize {
        usize::from(self.config.l2_vms).min(MAX_L2_VMS)
    }

    /// Gives L2 VM `vm`, 1 or more, a table beside each of the TD's that covers a part of `range`. Returns how many
    /// there were not: one TDH.MEM.SEPT.ADD each.
    ///
    /// Then the L1 VMM can alias what is mapped there, and what is mapped there later under the same tables, without
    /// an exit ([`crate::td::AccessKind::Alias`]) each time that a table is missing. They leave with the TD's.
    pub fn link_l2(&self, vm: u8, range: GpaRange) -> Result<u64, Error> {
        let index = self.l2_index(vm)?;
        let l2 = L2Pages::new(self);
        let external = self.external_with(&l2);
        let mut linked = 0;
        let mut address = range.start();
        while address < range.end() {
            let gpa = PrivateGpa::new(address);
            match self.link_path(&external, &l2, gpa, index, &mut linked) {
                Ok(end) => address = end,
                Err(Stop::Retry) => self.embedder.pause(),
                // An interrupted promotion has left it so, or one is under way.
                Err(Stop::Found(at)) if matches!(at.entry.kind(), Kind::BlockedTable(_)) => {
                    self.heal(at)?
                }
                Err(stop) if external.answer(&stop)? => {}
                Err(stop) => return Err(stopped(stop)),
            }
        }
        l2.settle().map(|()| linked)
    }

    /// Gives L2 VM `vm` the tables on the way to `gpa`, because TDG.MEM.PAGE.ATTR.WR found one missing.
    pub(super) fn fault_alias(&self, gpa: PrivateGpa, vm: u8) -> Result<Resolution, Error> {
        let index = self.l2_index(vm)?;
        let l2 = L2Pages::new(self);
        let external = self.external_with(&l2);
        for _ in 0..LOCAL_RETRIES {
            match self.link_path(&external, &l2, gpa, index, &mut 0) {
                Ok(_) => return l2.settle().map(|()| Resolution::Linked),
                Err(Stop::Retry) => self.embedder.pause(),
                Err(Stop::Found(at)) if matches!(at.entry.kind(), Kind::BlockedTable(_)) => {
                    self.embedder.pause()
                }
                Err(stop) if external.answer(&stop)? => {}
                Err(stop) => return Err(stopped(stop)),
            }
        }
        Ok(Resolution::Retry)
    }

    fn l2_index(&self, vm: u8) -> Result<usize, Error> {
        usize::from(vm)
            .checked_sub(1)
            .filter(|index| *index < self.l2_vms())
            .ok_or(Error::NoSuchL2Vm(vm))
    }

    /// Links the tables that are missing on the way to `gpa`, from the root down, and counts them; returns where what
    /// they cover ends.
    fn link_path(
        &self,
        external: &Propagate<'_, E>,
        l2: &L2Pages<'_, E>,
        gpa: PrivateGpa,
        index: usize,
        linked: &mut u64,
    ) -> Result<u64, Stop<Error>> {
        let mut section = self.mirror.section(&self.embedder);
        let mut level = self.mirror.tree().top();
        loop {
            let at = section.look(gpa, level);
            let table = match at.entry.kind() {
                Kind::Table(table) if at.level == level => table,
                Kind::Frozen => return Err(Stop::Retry),
                Kind::BlockedTable(_) | Kind::Poisoned(_) => return Err(Stop::Found(at)),
                _ => return Ok(at.end()),
            };
            *linked += u64::from(l2.link(&external.memory, at, table, index)?);
            match level.below() {
                Some(below) if below > Level::Pt => level = below,
                _ => return Ok(at.end()),
            }
        }
    }

    /// Reclaims the pages of L2 VMs beside `table`, which is the one behind the entry at `at`; the TD has lost its key.
    pub(super) fn reclaim_l2(&self, at: Position, table: Hpa) -> Result<(), Error> {
        for link in self.embedder.l2_links(table).into_iter().flatten() {
            match Link::from_bits(link.load(Ordering::Acquire)) {
                Link::Page(page) => {
                    leaves::phymem_page_reclaim(&self.embedder, page)?;
                    link.store(Link::Absent.bits(), Ordering::Relaxed);
                    let dismissed = self.dismiss(page, Level::Pt);
                    if let Some(page) = Page::assume_owned(page, Level::Pt) {
                        self.scrub_and_free(page);
                    }
                    dismissed?;
                }
                Link::Poisoned(page) => {
                    return Err(Error::Poisoned(Position {
                        entry: MirrorEntry::table(page).poisoned(),
                        ..at
                    }));
                }
                Link::Absent | Link::Changing => {}
            }
        }
        Ok(())
    }
}
