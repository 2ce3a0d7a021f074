use core::sync::atomic::Ordering;

use tdx_abi::Gpa;
use tdx_abi::Level;

use super::Ept;
use super::EptEntry;
use super::EptFormat;
use super::EptPosition;
use super::EptSection;
use super::EptStop;
use super::Gather;
use super::section::fill_leaves;
use crate::Word;
use crate::deposit::Deposit;
use crate::deposit::Table;
use crate::embed::Frames;
use crate::embed::Grace;
use crate::embed::Tables;
use crate::tree::Format;

impl Ept {
    /// Whether [`EptSection::promote`] would find what it needs behind the entry of `level` around `gpa`, where something
    /// has just been mapped at `gpa`. Others may be changing it.
    pub(crate) fn completed<E: Tables + Grace>(
        &self,
        embedder: &E,
        gpa: Gpa,
        level: Level,
    ) -> bool {
        let Some(below) = level.below() else {
            return false;
        };
        let _guard = embedder.enter();
        let Some(table) = self.tree().surrounded(embedder, gpa.bits(), level) else {
            return false;
        };
        let entries = embedder.entries(table);
        let seen = |index: usize| entries[index].load(Ordering::Relaxed);
        let first = EptEntry::from_bits(seen(0));
        let equal = |index: usize| seen(index) == first.bits() + index as u64 * below.size();
        first.is_leaf() && first.address().is_aligned(level) && (1..entries.len()).all(equal)
    }
}

impl<E: Tables + Grace> EptSection<'_, E> {
    /// Replaces the leaf of `level` at `gpa` by a table of leaves one level lower, access as it was.
    pub fn split<F: Frames>(
        &mut self,
        gpa: Gpa,
        level: Level,
        gather: &mut Gather,
        deposit: &mut Deposit<'_, F, Table>,
    ) -> Result<(), EptStop> {
        let slot = self.cursor.seek(gpa.bits(), level);
        let at = EptPosition::new(gpa.bits(), slot.level, slot.value);
        let Some(below) = level
            .below()
            .filter(|_| at.level == level && at.entry.is_leaf())
        else {
            return Err(self.found(at));
        };
        let table = deposit.draw().ok_or(EptStop::NeedTables)?;
        fill_leaves(
            self.cursor.tables(),
            table.0.hpa(),
            at.entry.part(0, below),
            below,
        );
        match self.exchange(slot.entry, at, EptEntry::table(table.0.hpa())) {
            Ok(()) => {
                gather.stale(1);
                Ok(())
            }
            Err(stop) => {
                deposit.put_back(table);
                Err(stop)
            }
        }
    }

    /// Replaces the table behind the entry of `level` at `gpa` by one leaf, if its 512 leaves map
    /// contiguous, aligned memory and are otherwise equal.
    ///
    /// While the table is looked through, its entries read as frozen. Ends with [`EptStop::Found`] and
    /// the tree as before if they are not so.
    pub fn promote(&mut self, gpa: Gpa, level: Level, gather: &mut Gather) -> Result<(), EptStop> {
        let tables = self.cursor.tables();
        let slot = self.cursor.seek(gpa.bits(), level);
        let at = EptPosition::new(gpa.bits(), slot.level, slot.value);
        let Some(below) = level
            .below()
            .filter(|_| at.level == level && EptFormat::is_table(slot.value))
        else {
            return Err(self.found(at));
        };
        self.exchange(slot.entry, at, EptEntry::FROZEN)?;
        let table = EptFormat::table(slot.value);
        let entries = tables.entries(table);
        let first = EptEntry::from_bits(entries[0].load(Ordering::Acquire));
        let aligned = first.is_leaf() && first.address().is_aligned(level);
        let step = |index: usize| first.bits() + index as u64 * below.size();
        let frozen = match aligned {
            true => entries
                .iter()
                .enumerate()
                .take_while(|(index, entry)| entry.replace(step(*index), EptFormat::FROZEN).is_ok())
                .count(),
            false => 0,
        };
        if frozen < entries.len() {
            for (index, entry) in entries.iter().enumerate().take(frozen) {
                // Nobody changes a frozen entry, but for a zap of a table above that freezes it for good.
                entry.store(step(index), Ordering::Release);
            }
            slot.entry.store(slot.value, Ordering::Release);
            let bits = entries[frozen].load(Ordering::Acquire);
            let address = gpa.bits() + frozen as u64 * below.size();
            return Err(self.found(EptPosition::new(address, below, bits)));
        }
        slot.entry.store(first.whole().bits(), Ordering::Release);
        gather.unlinked(tables, table);
        gather.stale(1);
        self.cursor.reset();
        Ok(())
    }
}
