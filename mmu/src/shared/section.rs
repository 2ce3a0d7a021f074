use core::sync::atomic::Ordering;

use tdx_abi::Gpa;
use tdx_abi::Hpa;
use tdx_abi::Level;

use super::Attributes;
use super::EptEntry;
use super::EptFormat;
use super::EptKind;
use crate::Word;
use crate::deposit::Deposit;
use crate::deposit::Table;
use crate::embed::Frames;
use crate::embed::Grace;
use crate::embed::Tables;
use crate::tree::Cursor;
use crate::tree::Slot;
use crate::tree::Tree;

/// An entry of the shared tree and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptPosition {
    /// First address that the entry covers.
    pub gpa: Gpa,
    /// Its level.
    pub level: Level,
    /// What it said.
    pub entry: EptEntry,
}

impl EptPosition {
    pub(super) const fn new(address: u64, level: Level, bits: u64) -> Self {
        Self {
            gpa: Gpa::new(address).align_down(level),
            level,
            entry: EptEntry::from_bits(bits),
        }
    }

    /// First address behind the entry.
    pub const fn end(&self) -> u64 {
        self.gpa.bits().saturating_add(self.level.size())
    }
}

/// Why a change of the shared tree did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EptStop {
    /// Somebody else is changing the entry: look again.
    Retry,
    /// A table is missing and the deposit is empty.
    NeedTables,
    /// The entry says something that the change does not start from.
    Found(EptPosition),
}

/// A section of a shared tree; ends when dropped. Any number of them run at once.
pub struct EptSection<'s, E: Tables + Grace + 's> {
    pub(super) cursor: Cursor<'s, EptFormat, E>,
    _guard: E::Guard<'s>,
}

impl<'s, E: Tables + Grace> EptSection<'s, E> {
    pub(super) fn new(embedder: &'s E, tree: Tree<EptFormat>) -> Self {
        let guard = embedder.enter();
        Self {
            cursor: Cursor::new(tree, embedder),
            _guard: guard,
        }
    }

    /// The entry of level `to` at `gpa`, or the higher one that ends the walk.
    #[inline(always)]
    pub fn look(&mut self, gpa: Gpa, to: Level) -> EptPosition {
        let tables = self.cursor.tables();
        let slot = self.cursor.tree().descend(tables, gpa.bits(), to);
        EptPosition::new(gpa.bits(), slot.level, slot.value)
    }

    /// Where `gpa` is mapped to at this moment, if it is. Quicker than
    /// [`Ept::translate`](super::Ept::translate) where many addresses are near to each other.
    #[inline(always)]
    pub fn translate(&mut self, gpa: Gpa) -> Option<Hpa> {
        self.cursor.walk(gpa.bits(), |value, level| {
            EptEntry::from_bits(value).translate(gpa.bits(), level)
        })
    }

    /// The first entry in [`from`, `end`) that is not empty.
    pub fn next(&mut self, from: u64, end: u64) -> Option<EptPosition> {
        let mut address = from;
        while address < end {
            let slot = self.cursor.seek(address, Level::Pt);
            let position = EptPosition::new(address, slot.level, slot.value);
            match position.entry {
                EptEntry::FROZEN => {
                    self.cursor.reset();
                    continue;
                }
                EptEntry::EMPTY => address = position.end(),
                _ => return Some(position),
            }
        }
        None
    }

    /// Maps the page at `hpa` at `gpa` by an entry of `level`; both are aligned to it.
    ///
    /// Missing tables are linked from `deposit`.
    #[inline(always)]
    pub fn map<F: Frames>(
        &mut self,
        gpa: Gpa,
        hpa: Hpa,
        level: Level,
        attributes: Attributes,
        deposit: &mut Deposit<'_, F, Table>,
    ) -> Result<(), EptStop> {
        self.set(gpa, level, EptEntry::leaf(hpa, level, attributes), deposit)
    }

    /// Makes accesses to what the entry of `level` at `gpa` covers raise #VE: emulated MMIO.
    pub fn map_virtualization_exception<F: Frames>(
        &mut self,
        gpa: Gpa,
        level: Level,
        deposit: &mut Deposit<'_, F, Table>,
    ) -> Result<(), EptStop> {
        self.set(gpa, level, EptEntry::VIRTUALIZATION_EXCEPTION, deposit)
    }

    #[inline(always)]
    fn set<F: Frames>(
        &mut self,
        gpa: Gpa,
        level: Level,
        new: EptEntry,
        deposit: &mut Deposit<'_, F, Table>,
    ) -> Result<(), EptStop> {
        let (entry, found_level) = self.cursor.locate(gpa.bits(), level);
        if found_level != level {
            return self.link_and_set(gpa, level, new, deposit);
        }
        let at = EptPosition {
            gpa,
            level,
            entry: EptEntry::EMPTY,
        };
        self.exchange(entry, at, new)
    }

    #[cold]
    #[inline(never)]
    fn link_and_set<F: Frames>(
        &mut self,
        gpa: Gpa,
        level: Level,
        new: EptEntry,
        deposit: &mut Deposit<'_, F, Table>,
    ) -> Result<(), EptStop> {
        let entry = self.link_down(gpa, level, deposit)?.entry;
        let at = EptPosition {
            gpa,
            level,
            entry: EptEntry::EMPTY,
        };
        self.exchange(entry, at, new)
    }

    /// Maps `bytes` of contiguous memory from `hpa` on at `gpa` by entries of `level`.
    ///
    /// All three are multiples of the level's size. Where a whole table is missing, it is filled before
    /// it is linked, so that its entries cost a store each. Returns what was mapped before a stop.
    pub fn map_range<F: Frames>(
        &mut self,
        gpa: Gpa,
        hpa: Hpa,
        bytes: u64,
        level: Level,
        attributes: Attributes,
        deposit: &mut Deposit<'_, F, Table>,
    ) -> (u64, Result<(), EptStop>) {
        let mut done = 0;
        while done < bytes {
            let at = Gpa::new(gpa.bits() + done);
            let from = Hpa::new(hpa.bits() + done);
            let step = match self.map_table(at, from, bytes - done, level, attributes, deposit) {
                Ok(Some(step)) => Ok(step),
                Ok(None) => self
                    .map(at, from, level, attributes, deposit)
                    .map(|()| level.size()),
                Err(stop) => Err(stop),
            };
            match step {
                Ok(step) => done += step,
                Err(stop) => return (done, Err(stop)),
            }
        }
        (done, Ok(()))
    }

    /// Links a table full of leaves at `gpa` if all of it is wanted and nothing is there.
    #[inline]
    fn map_table<F: Frames>(
        &mut self,
        gpa: Gpa,
        hpa: Hpa,
        bytes: u64,
        level: Level,
        attributes: Attributes,
        deposit: &mut Deposit<'_, F, Table>,
    ) -> Result<Option<u64>, EptStop> {
        let Some(above) = level
            .above()
            .filter(|above| gpa.is_aligned(*above) && bytes >= above.size())
        else {
            return Ok(None);
        };
        if above > self.cursor.tree().top() {
            return Ok(None);
        }
        let mut slot = self.cursor.seek(gpa.bits(), above);
        if slot.level != above {
            slot = self.link_down(gpa, above, deposit)?;
        }
        if slot.value != EptEntry::EMPTY.bits() {
            return Ok(None);
        }
        let table = deposit.draw().ok_or(EptStop::NeedTables)?;
        let first = EptEntry::leaf(hpa, level, attributes);
        fill_leaves(self.cursor.tables(), table.0.hpa(), first, level);
        let at = EptPosition::new(gpa.bits(), above, slot.value);
        match self.exchange(slot.entry, at, EptEntry::table(table.0.hpa())) {
            Ok(()) => Ok(Some(above.size())),
            Err(EptStop::Found(_)) => {
                deposit.put_back(table);
                Ok(None)
            }
            Err(stop) => {
                deposit.put_back(table);
                Err(stop)
            }
        }
    }

    /// Removes the leaf of `level` at `gpa` and returns it.
    ///
    /// For trees that no CPU walks, and for whoever invalidates translations by himself.
    #[inline(always)]
    pub fn unmap(&mut self, gpa: Gpa, level: Level) -> Result<EptEntry, EptStop> {
        let slot = self.cursor.seek(gpa.bits(), level);
        let at = EptPosition {
            gpa,
            level: slot.level,
            entry: EptEntry::from_bits(slot.value),
        };
        if at.level != level || !at.entry.is_leaf() {
            return Err(self.found(at));
        }
        self.exchange(slot.entry, at, EptEntry::EMPTY)?;
        Ok(at.entry)
    }

    /// Empties the entry of `level` at `gpa` of a tree that no CPU walks.
    pub(crate) fn forget(&mut self, gpa: Gpa, level: Level) {
        let slot = self.cursor.seek(gpa.bits(), level);
        if slot.level == level {
            slot.entry.store(EptEntry::EMPTY.bits(), Ordering::Release);
        }
    }

    #[cold]
    #[inline(never)]
    fn link_down<F: Frames>(
        &mut self,
        gpa: Gpa,
        level: Level,
        deposit: &mut Deposit<'_, F, Table>,
    ) -> Result<Slot<'s, E::Word>, EptStop> {
        loop {
            let slot = self.cursor.seek(gpa.bits(), level);
            if slot.level == level {
                return Ok(slot);
            }
            let at = EptPosition::new(gpa.bits(), slot.level, slot.value);
            if at.entry != EptEntry::EMPTY {
                return Err(self.found(at));
            }
            let table = deposit.draw().ok_or(EptStop::NeedTables)?;
            Tree::<EptFormat>::clear(self.cursor.tables(), table.0.hpa());
            match self.exchange(slot.entry, at, EptEntry::table(table.0.hpa())) {
                Ok(()) => {}
                Err(EptStop::Found(_)) => deposit.put_back(table),
                Err(stop) => {
                    deposit.put_back(table);
                    return Err(stop);
                }
            }
        }
    }

    /// Replaces what `at` says by `new`.
    #[inline(always)]
    pub(super) fn exchange(
        &mut self,
        entry: &E::Word,
        at: EptPosition,
        new: EptEntry,
    ) -> Result<(), EptStop> {
        match entry.replace(at.entry.bits(), new.bits()) {
            Ok(()) => Ok(()),
            Err(seen) => Err(self.found(EptPosition {
                entry: EptEntry::from_bits(seen),
                ..at
            })),
        }
    }

    #[cold]
    pub(super) fn found(&mut self, at: EptPosition) -> EptStop {
        match at.entry.kind() {
            EptKind::Frozen => {
                self.cursor.reset();
                EptStop::Retry
            }
            _ => EptStop::Found(at),
        }
    }
}

/// Fills a table that is not linked yet with the parts of a run that begins with `first`.
pub(super) fn fill_leaves<T: Tables>(tables: &T, table: Hpa, first: EptEntry, level: Level) {
    let mut bits = first.bits();
    for entry in tables.entries(table) {
        entry.store(bits, Ordering::Relaxed);
        bits += level.size();
    }
}

impl<E: Tables + Grace> core::fmt::Debug for EptSection<'_, E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EptSection").finish_non_exhaustive()
    }
}
