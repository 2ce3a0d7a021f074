//! The radix tree that the shared EPT, the mirrored tree and the attribute tree are made of.

mod cursor;
mod format;

use core::marker::PhantomData;
use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;

pub use self::cursor::Cursor;
pub use self::format::Format;
use crate::Word;
use crate::embed::Tables;

/// A tree of 512-entry tables.
#[derive(Debug)]
pub struct Tree<F> {
    root: Hpa,
    top: Level,
    format: PhantomData<fn() -> F>,
}

impl<F> Clone for Tree<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Tree<F> {}

/// Where a descent ended.
#[derive(Debug)]
pub struct Slot<'t, W> {
    /// The entry.
    pub entry: &'t W,
    /// What it held when the descent passed (acquired).
    pub value: u64,
    /// Its level: the wanted one, or a higher one if the entry is not a table.
    pub level: Level,
}

/// The table where a descent ended.
struct Reached<'t, W> {
    table: &'t [W; 512],
    /// Level of its entries.
    level: Level,
    /// The table that leads to it; itself, if that is the root.
    above: &'t [W; 512],
}

impl<F: Format> Tree<F> {
    /// The tree under the table `root`, whose entries have level `top`.
    pub const fn new(root: Hpa, top: Level) -> Self {
        Self {
            root,
            top,
            format: PhantomData,
        }
    }

    /// The root table.
    pub const fn root(&self) -> Hpa {
        self.root
    }

    /// Level of the root table's entries.
    pub const fn top(&self) -> Level {
        self.top
    }

    /// The first address that the tree does not cover.
    pub const fn end(&self) -> u64 {
        self.top.size() << 9
    }

    /// Walks towards `address`, down to the entry of level `to` or to the first one that is no table.
    ///
    /// Bits of `address` above the tree's reach are ignored. `to` above the top means the top.
    #[inline(always)]
    pub fn descend<'t, T: Tables>(
        &self,
        tables: &'t T,
        address: u64,
        to: Level,
    ) -> Slot<'t, T::Word> {
        loop {
            let Reached { table, level, .. } = self.reach(tables, address, to);
            let entry = &table[level.index(address)];
            let value = entry.load(Ordering::Acquire);
            // Or else somebody has linked a table there since the descent ended.
            if level <= to || !F::is_table(value) {
                return Slot {
                    entry,
                    value,
                    level,
                };
            }
        }
    }

    /// Walks down to the entry that a walk to `address` ends at, and returns what `see` makes of its bits
    /// and its level.
    ///
    /// `see` is compiled once for each level, which is a constant there: for look-ups that have to be quick.
    #[inline(always)]
    pub fn walk<T: Tables, R>(&self, tables: &T, address: u64, see: impl Fn(u64, Level) -> R) -> R {
        match self.top {
            Level::Pml4 => self.walk_from::<{ Level::Pml4 as u8 }, T, R>(tables, address, see),
            Level::Pml5 => self.walk_from::<{ Level::Pml5 as u8 }, T, R>(tables, address, see),
            _ => {
                let slot = self.descend(tables, address, Level::Pt);
                see(slot.value, slot.level)
            }
        }
    }

    #[inline(always)]
    fn walk_from<const TOP: u8, T: Tables, R>(
        &self,
        tables: &T,
        address: u64,
        see: impl Fn(u64, Level) -> R,
    ) -> R {
        let mut table = tables.entries(self.root);
        let mut number = TOP;
        while number > 0 {
            let level = Level::new(number).unwrap_or(Level::Pt);
            let value = table[level.index(address)].load(Ordering::Acquire);
            if !F::is_table(value) {
                return see(value, level);
            }
            table = tables.entries(F::table(value));
            number -= 1;
        }
        see(
            table[Level::Pt.index(address)].load(Ordering::Acquire),
            Level::Pt,
        )
    }

    /// Where a descent ends.
    ///
    /// The number of levels of the trees that CPUs walk is a constant, so that the loop unrolls.
    #[inline(always)]
    fn reach<'t, T: Tables>(&self, tables: &'t T, address: u64, to: Level) -> Reached<'t, T::Word> {
        match self.top {
            Level::Pml4 => self.reach_from(Level::Pml4 as u8, tables, address, to),
            Level::Pml5 => self.reach_from(Level::Pml5 as u8, tables, address, to),
            _ => self.reach_below(tables, address, to),
        }
    }

    #[cold]
    #[inline(never)]
    fn reach_below<'t, T: Tables>(
        &self,
        tables: &'t T,
        address: u64,
        to: Level,
    ) -> Reached<'t, T::Word> {
        self.reach_from(self.top as u8, tables, address, to)
    }

    #[inline(always)]
    fn reach_from<'t, T: Tables>(
        &self,
        top: u8,
        tables: &'t T,
        address: u64,
        to: Level,
    ) -> Reached<'t, T::Word> {
        let mut table = tables.entries(self.root);
        let mut above = table;
        let mut number = top;
        while number > to as u8 {
            let level = Level::new(number).unwrap_or(to);
            let value = table[level.index(address)].load(Ordering::Acquire);
            if !F::is_table(value) {
                break;
            }
            above = table;
            table = tables.entries(F::table(value));
            number -= 1;
        }
        Reached {
            table,
            level: Level::new(number).unwrap_or(to),
            above,
        }
    }

    /// Shows `see` every entry that is not empty, tables before what is in them, with the first address
    /// it covers, its level and its bits.
    ///
    /// The caller holds a grace-period guard, or knows that no table goes away.
    pub fn visit<T: Tables>(&self, tables: &T, see: &mut impl FnMut(u64, Level, u64)) {
        Self::visit_table(tables, self.root, self.top, 0, see);
    }

    fn visit_table<T: Tables>(
        tables: &T,
        table: Hpa,
        level: Level,
        start: u64,
        see: &mut impl FnMut(u64, Level, u64),
    ) {
        for (index, entry) in (0..).zip(tables.entries(table)) {
            let value = entry.load(Ordering::Acquire);
            if value == F::EMPTY {
                continue;
            }
            let address = start + index * level.size();
            see(address, level, value);
            if let Some(below) = level.below().filter(|_| F::is_table(value)) {
                Self::visit_table(tables, F::table(value), below, address, see);
            }
        }
    }

    /// The table behind the entry of `level` around `address`, if it has one in which the neighbours of the entry of
    /// `address` say something, the last and the first being neighbours too: of pages that come one after the other this
    /// is so when the last one comes.
    ///
    /// The caller holds a grace-period guard.
    pub(crate) fn surrounded<T: Tables>(
        &self,
        tables: &T,
        address: u64,
        level: Level,
    ) -> Option<Hpa> {
        let index = level.below()?.index(address);
        let slot = self.descend(tables, address, level);
        if slot.level != level || !F::is_table(slot.value) {
            return None;
        }
        let table = F::table(slot.value);
        let entries = tables.entries(table);
        [index + 1, index + entries.len() - 1]
            .iter()
            .all(|neighbour| entries[neighbour % entries.len()].load(Ordering::Relaxed) != F::EMPTY)
            .then_some(table)
    }

    /// Fills `table` with empty entries, before it is linked.
    pub fn clear<T: Tables>(tables: &T, table: Hpa) {
        Self::fill(tables, table, F::EMPTY);
    }

    /// Fills `table` with `value`.
    pub fn fill<T: Tables>(tables: &T, table: Hpa, value: u64) {
        for entry in tables.entries(table) {
            entry.store(value, Ordering::Relaxed);
        }
    }
}
