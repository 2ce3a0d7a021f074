//! Sections of a mirrored tree.
//!
//! In a shared section an entry is changed by the frozen-entry protocol: compare-exchange from the old
//! value to FROZEN, one call of the backend, a release store of the new value, or of the old one if
//! the backend refused. Without the frozen state another thread would see a table in the mirror and
//! call the backend for its child before the backend has the parent. In an exclusive section nothing
//! needs freezing and no locked instruction runs.

use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;

use super::ExportState;
use super::External;
use super::Kind;
use super::MirrorEntry;
use super::MirrorFormat;
use super::Mode;
use super::Position;
use super::Stop;
use super::change::change;
use super::change::change_seen;
use super::change::found;
use super::link;
use super::link::Uniform;
use crate::Word;
use crate::deposit::Deposit;
use crate::deposit::Pair;
use crate::embed::Frames;
use crate::embed::Grace;
use crate::embed::Tables;
use crate::gate::Exclusive;
use crate::tree::Cursor;
use crate::tree::Format;
use crate::tree::Slot;
use crate::tree::Tree;

/// A section of a mirrored tree, shared or exclusive by its mode `M`; ends when dropped.
///
/// Holds one guard for all that is done in it. Do not allocate, sleep or wait for another section of
/// the same mirror while it lives.
pub struct Section<'s, E: Tables + Grace + 's, M> {
    pub(super) cursor: Cursor<'s, MirrorFormat, E>,
    _mode: M,
    _guard: E::Guard<'s>,
}

impl<'s, E: Tables + Grace, M: Mode<E::Word>> Section<'s, E, M> {
    pub(super) fn new(embedder: &'s E, tree: Tree<MirrorFormat>, mode: M) -> Self {
        let guard = embedder.enter();
        Self {
            cursor: Cursor::new(tree, embedder),
            _mode: mode,
            _guard: guard,
        }
    }

    /// The entry of level `to` at `gpa`, or the higher one that ends the walk.
    #[inline(always)]
    pub fn look(&mut self, gpa: PrivateGpa, to: Level) -> Position {
        let tables = self.cursor.tables();
        let slot = self.cursor.tree().descend(tables, gpa.bits(), to);
        Position::new(gpa.bits(), slot.level, slot.value)
    }

    /// Where `gpa` is mapped to at this moment, if it is and is not blocked. Quicker than
    /// [`Mirror::translate`](super::Mirror::translate) where many addresses are near to each other.
    #[inline(always)]
    pub fn translate(&mut self, gpa: PrivateGpa) -> Option<Hpa> {
        self.cursor.walk(gpa.bits(), |value, level| {
            MirrorEntry::from_bits(value).translate(gpa.bits(), level)
        })
    }

    /// The first entry in [`from`, `end`) that maps something or once did: leaf, blocked, frozen or poisoned.
    pub fn next(&mut self, from: u64, end: u64) -> Option<Position> {
        let mut address = from;
        while address < end {
            let slot = self.cursor.seek(address, Level::Pt);
            let position = Position::new(address, slot.level, slot.value);
            if position.entry != MirrorEntry::EMPTY {
                return Some(position);
            }
            address = position.end();
        }
        None
    }

    /// Maps the page at `hpa` at `gpa` by an entry of `level`; both are aligned to it.
    ///
    /// Missing tables are linked from `deposit`.
    #[inline(always)]
    pub fn map<X: External, F: Frames>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        hpa: Hpa,
        level: Level,
        deposit: &mut Deposit<'_, F, Pair>,
    ) -> Result<(), Stop<X::Error>> {
        self.map_leaf(external, gpa, MirrorEntry::leaf(hpa), level, deposit)
    }

    /// As [`Section::map`], with all of what the entry is to say.
    #[inline(always)]
    pub(crate) fn map_leaf<X: External, F: Frames>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        leaf: MirrorEntry,
        level: Level,
        deposit: &mut Deposit<'_, F, Pair>,
    ) -> Result<(), Stop<X::Error>> {
        let (entry, found_level) = self.cursor.locate(gpa.bits(), level);
        if found_level != level {
            return self.link_and_map(external, gpa, leaf, level, deposit);
        }
        let at = Position {
            gpa,
            level,
            entry: MirrorEntry::EMPTY,
        };
        change::<M, _, _>(external, entry, at, leaf)
    }

    #[cold]
    #[inline(never)]
    fn link_and_map<X: External, F: Frames>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        leaf: MirrorEntry,
        level: Level,
        deposit: &mut Deposit<'_, F, Pair>,
    ) -> Result<(), Stop<X::Error>> {
        let entry = self.link_down(external, gpa, level, deposit)?.entry;
        let at = Position {
            gpa,
            level,
            entry: MirrorEntry::EMPTY,
        };
        change::<M, _, _>(external, entry, at, leaf)
    }

    /// Maps `bytes` of contiguous memory from `hpa` on at `gpa` by entries of `level`, one backend call each.
    ///
    /// All three are multiples of the level's size. Returns what was mapped before a stop.
    pub fn map_range<X: External, F: Frames>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        hpa: Hpa,
        bytes: u64,
        level: Level,
        deposit: &mut Deposit<'_, F, Pair>,
    ) -> (u64, Result<(), Stop<X::Error>>) {
        let end = gpa.bits() + bytes;
        let mut done = 0;
        while done < bytes {
            let address = gpa.bits() + done;
            let Some(entries) = self.cursor.rest_of_table(address, end, level) else {
                match self.link_down(external, PrivateGpa::new(address), level, deposit) {
                    Ok(_) => continue,
                    Err(stop) => return (done, Err(stop)),
                }
            };
            for entry in entries {
                let at = Position {
                    gpa: PrivateGpa::new(gpa.bits() + done),
                    level,
                    entry: MirrorEntry::EMPTY,
                };
                let new = MirrorEntry::leaf(Hpa::new(hpa.bits() + done));
                if let Err(stop) = change::<M, _, _>(external, entry, at, new) {
                    return (done, Err(stop));
                }
                done += level.size();
            }
        }
        (done, Ok(()))
    }

    /// Removes the leaves in [`from`, `end`), blocked or (where no tracking is needed) not, and hands
    /// their pages to `take`.
    pub fn remove_range<X: External>(
        &mut self,
        external: &X,
        from: u64,
        end: u64,
        mut take: impl FnMut(PrivateGpa, Page),
    ) -> Result<(), Stop<X::Error>> {
        let mut address = from;
        while address < end {
            let Some(entries) = self.cursor.rest_of_table(address, end, Level::Pt) else {
                let Some(at) = self.next(address, end) else {
                    break;
                };
                if at.level != Level::Pt {
                    let page = self.remove(external, at.gpa, at.level)?;
                    take(at.gpa, page);
                    address = at.end();
                } else {
                    address = at.gpa.bits();
                }
                continue;
            };
            for entry in entries {
                let at = Position {
                    gpa: PrivateGpa::new(address),
                    level: Level::Pt,
                    entry: MirrorEntry::from_bits(entry.load(Ordering::Acquire)),
                };
                address += Level::Pt.size();
                if at.entry.is_leaf() {
                    change_seen::<M, _, _>(external, entry, at, MirrorEntry::EMPTY)?;
                    let page = Page::assume_owned(at.entry.address(), Level::Pt);
                    take(at.gpa, page.ok_or(Stop::Found(at))?);
                } else if at.entry != MirrorEntry::EMPTY {
                    return Err(found(at));
                }
            }
        }
        Ok(())
    }

    /// Links tables until an entry of `level` exists at `gpa`.
    pub fn link<X: External, F: Frames>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        level: Level,
        deposit: &mut Deposit<'_, F, Pair>,
    ) -> Result<(), Stop<X::Error>> {
        self.link_down(external, gpa, level, deposit).map(|_| ())
    }

    #[cold]
    #[inline(never)]
    fn link_down<X: External, F: Frames>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        level: Level,
        deposit: &mut Deposit<'_, F, Pair>,
    ) -> Result<Slot<'s, E::Word>, Stop<X::Error>> {
        let tables = self.cursor.tables();
        loop {
            let slot = self.cursor.seek(gpa.bits(), level);
            if slot.level == level {
                return Ok(slot);
            }
            let at = Position::new(gpa.bits(), slot.level, slot.value);
            if at.entry != MirrorEntry::EMPTY {
                return Err(found(at));
            }
            let pair = deposit.draw().ok_or(Stop::NeedTables)?;
            link::prepare_empty(tables, &pair);
            match change::<M, _, _>(
                external,
                slot.entry,
                at,
                MirrorEntry::table(pair.table.hpa()),
            ) {
                Ok(()) => {}
                // Somebody else has linked a table here: walk on.
                Err(Stop::Found(_)) => deposit.put_back(pair),
                Err(stop) => return Err(unlinked(stop, pair, deposit)),
            }
        }
    }

    /// Removes the leaf of `level` at `gpa`, blocked or (where no tracking is needed) not.
    ///
    /// Returns the page. The caller has to see to caches and scrubbing.
    #[inline(always)]
    pub fn remove<X: External>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        level: Level,
    ) -> Result<Page, Stop<X::Error>> {
        let (slot, at, hpa) = self.leaf(gpa, level)?;
        change_seen::<M, _, _>(external, slot.entry, at, MirrorEntry::EMPTY)?;
        Page::assume_owned(hpa, level).ok_or(Stop::Found(at))
    }

    /// Replaces the leaf of `level` at `gpa` by a table of leaves one level lower over the same memory.
    pub fn split<X: External, F: Frames>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        level: Level,
        deposit: &mut Deposit<'_, F, Pair>,
    ) -> Result<(), Stop<X::Error>> {
        let (slot, at, hpa) = self.leaf(gpa, level)?;
        let below = level.below().ok_or(Stop::Found(at))?;
        let pair = deposit.draw().ok_or(Stop::NeedTables)?;
        link::prepare_leaves(self.cursor.tables(), &pair, at.entry.moved(hpa), below);
        change::<M, _, _>(
            external,
            slot.entry,
            at,
            MirrorEntry::table(pair.table.hpa()),
        )
        .map_err(|stop| unlinked(stop, pair, deposit))
    }

    /// Replaces the table behind the entry of `level` at `gpa` by one leaf.
    ///
    /// All 512 entries must be unblocked leaves over contiguous memory, or this ends in [`Stop::Found`]
    /// with the first that is not. In a shared section the table must be blocked, so that nobody
    /// changes them. The pair's table is to be retired after the section; its Secure-EPT page has come
    /// back from the module.
    pub fn promote<X: External>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        level: Level,
    ) -> Result<Pair, Stop<X::Error>> {
        let tables = self.cursor.tables();
        let (slot, at, behind) = self.table(gpa, level);
        let Some((table, below)) = behind else {
            return Err(found(at));
        };
        let leaf = link::uniform(tables, table, at.gpa, below)
            .map_err(found)?
            .leaf;
        let pair = link::take_back(tables, table).ok_or(Stop::Found(at))?;
        change::<M, _, _>(external, slot.entry, at, leaf)?;
        self.cursor.reset();
        Ok(pair)
    }

    /// Whether [`Section::promote`] finds what it needs behind the entry of `level` at `gpa`.
    pub fn is_uniform(&mut self, gpa: PrivateGpa, level: Level) -> bool {
        self.uniform(gpa, level).is_some()
    }

    /// What [`Section::promote`] would make of the table behind the entry of `level` at `gpa`, if it can.
    pub(crate) fn uniform(&mut self, gpa: PrivateGpa, level: Level) -> Option<Uniform> {
        let tables = self.cursor.tables();
        let (_, at, behind) = self.table(gpa, level);
        let (table, below) = behind?;
        link::uniform(tables, table, at.gpa, below).ok()
    }

    /// Whether there is a table behind the entry of `level` at `gpa`, and nothing in it.
    pub fn is_vacant(&mut self, gpa: PrivateGpa, level: Level) -> bool {
        let tables = self.cursor.tables();
        let (_, at, behind) = self.table(gpa, level);
        behind.is_some_and(|(table, below)| link::vacant(tables, table, at.gpa, below).is_ok())
    }

    /// The entry of `level` at `gpa`, and the table behind it with the level of its entries, if it has one.
    fn table(
        &mut self,
        gpa: PrivateGpa,
        level: Level,
    ) -> (Slot<'s, E::Word>, Position, Option<(Hpa, Level)>) {
        let slot = self.cursor.seek(gpa.bits(), level);
        let at = Position::new(gpa.bits(), slot.level, slot.value);
        let behind = match at.entry.kind() {
            Kind::Table(table) | Kind::BlockedTable(table) if at.level == level => {
                level.below().map(|below| (table, below))
            }
            _ => None,
        };
        (slot, at, behind)
    }

    /// Moves the leaf of `level` at `gpa` to `target`, and returns the old page.
    pub fn relocate<X: External>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        level: Level,
        target: Hpa,
    ) -> Result<Page, Stop<X::Error>> {
        let (slot, at, hpa) = self.leaf(gpa, level)?;
        change::<M, _, _>(external, slot.entry, at, at.entry.moved(target))?;
        Page::assume_owned(hpa, level).ok_or(Stop::Found(at))
    }

    #[inline(always)]
    #[expect(
        clippy::type_complexity,
        reason = "three things that are taken apart at once"
    )]
    fn leaf<X>(
        &mut self,
        gpa: PrivateGpa,
        level: Level,
    ) -> Result<(Slot<'s, E::Word>, Position, Hpa), Stop<X>> {
        let slot = self.cursor.seek(gpa.bits(), level);
        let entry = MirrorEntry::from_bits(slot.value);
        if slot.level != level || !entry.is_leaf() {
            return Err(found(Position::new(gpa.bits(), slot.level, slot.value)));
        }
        let at = Position {
            gpa: gpa.align_down(level),
            level,
            entry,
        };
        Ok((slot, at, entry.address()))
    }
}

impl<'s, E: Tables + Grace> Section<'s, E, Exclusive<'s, E::Word>> {
    /// Blocks the leaf or table whose entry has `level` at `gpa`; nothing happens if it is blocked.
    pub fn block<X: External>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        level: Level,
    ) -> Result<(), Stop<X::Error>> {
        let slot = self.cursor.seek(gpa.bits(), level);
        let at = Position::new(gpa.bits(), slot.level, slot.value);
        match at.entry.kind() {
            _ if at.level != level => Err(found(at)),
            Kind::BlockedLeaf(_) | Kind::BlockedTable(_) => Ok(()),
            Kind::Leaf(_) | Kind::Table(_) | Kind::ExportLeaf(_, ExportState::WriteBlocked) => {
                change::<Exclusive<'_, E::Word>, _, _>(external, slot.entry, at, at.entry.blocked())
            }
            _ => Err(found(at)),
        }
    }

    /// Undoes [`Section::block`]; nothing happens if the entry is not blocked.
    pub fn unblock<X: External>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        level: Level,
    ) -> Result<(), Stop<X::Error>> {
        let slot = self.cursor.seek(gpa.bits(), level);
        let at = Position::new(gpa.bits(), slot.level, slot.value);
        match at.entry.kind() {
            _ if at.level != level => Err(found(at)),
            Kind::Leaf(_) | Kind::Table(_) => Ok(()),
            Kind::BlockedLeaf(_) | Kind::BlockedTable(_) => change::<Exclusive<'_, E::Word>, _, _>(
                external,
                slot.entry,
                at,
                at.entry.unblocked(),
            ),
            _ => Err(found(at)),
        }
    }

    /// Lets walks pass a blocked table again without asking the module: for a TD that has lost its key.
    pub(crate) fn open(&mut self, gpa: PrivateGpa, level: Level) {
        let slot = self.cursor.seek(gpa.bits(), level);
        let entry = MirrorEntry::from_bits(slot.value);
        if slot.level == level && matches!(entry.kind(), Kind::BlockedTable(_)) {
            slot.entry
                .store(entry.unblocked().bits(), Ordering::Release);
        }
    }

    /// Takes the table behind the entry of `level` at `gpa` out of the tree; all its entries are empty.
    pub fn unlink<X: External>(
        &mut self,
        external: &X,
        gpa: PrivateGpa,
        level: Level,
    ) -> Result<Pair, Stop<X::Error>> {
        let tables = self.cursor.tables();
        let slot = self.cursor.seek(gpa.bits(), level);
        let at = Position::new(gpa.bits(), slot.level, slot.value);
        let (table, below) = match (at.entry.kind(), level.below()) {
            (Kind::Table(table) | Kind::BlockedTable(table), Some(below)) if at.level == level => {
                (table, below)
            }
            _ => return Err(found(at)),
        };
        link::vacant(tables, table, at.gpa, below).map_err(found)?;
        let pair = link::take_back(tables, table).ok_or(Stop::Found(at))?;
        change::<Exclusive<'_, E::Word>, _, _>(external, slot.entry, at, MirrorEntry::EMPTY)?;
        Tree::<MirrorFormat>::fill(tables, table, MirrorFormat::FROZEN);
        self.cursor.reset();
        Ok(pair)
    }
}

/// Gives a pair that was not linked back to the deposit, unless the module may have it.
fn unlinked<X, F: Frames>(
    stop: Stop<X>,
    pair: Pair,
    deposit: &mut Deposit<'_, F, Pair>,
) -> Stop<X> {
    match stop {
        // Better leaked than handed out while the module may use it; the entry keeps the address.
        Stop::Poisoned(_) => {
            let _ = (pair.table.into_hpa(), pair.external.into_hpa());
        }
        _ => deposit.put_back(pair),
    }
    stop
}

impl<E: Tables + Grace, M> core::fmt::Debug for Section<'_, E, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Section").finish_non_exhaustive()
    }
}
