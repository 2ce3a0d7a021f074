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
        let (table, level) = self.reach(tables, address, to);
        let entry = &table[level.index(address)];
        Slot {
            entry,
            value: entry.load(Ordering::Acquire),
            level,
        }
    }

    /// The table where a descent ends, and the level of its entries.
    ///
    /// The number of levels is a constant in each arm, so that the loop unrolls.
    #[inline(always)]
    fn reach<'t, T: Tables>(
        &self,
        tables: &'t T,
        address: u64,
        to: Level,
    ) -> (&'t [T::Word; 512], Level) {
        match self.top {
            Level::Pml4 => self.reach_from::<{ Level::Pml4 as u8 }, T>(tables, address, to),
            Level::Pml5 => self.reach_from::<{ Level::Pml5 as u8 }, T>(tables, address, to),
            Level::Pdpt => self.reach_from::<{ Level::Pdpt as u8 }, T>(tables, address, to),
            Level::Pd => self.reach_from::<{ Level::Pd as u8 }, T>(tables, address, to),
            Level::Pt => self.reach_from::<{ Level::Pt as u8 }, T>(tables, address, to),
        }
    }

    #[inline(always)]
    fn reach_from<'t, const TOP: u8, T: Tables>(
        &self,
        tables: &'t T,
        address: u64,
        to: Level,
    ) -> (&'t [T::Word; 512], Level) {
        let mut table = tables.entries(self.root);
        let mut number = TOP;
        while number > to as u8 {
            let level = Level::new(number).unwrap_or(to);
            let value = table[level.index(address)].load(Ordering::Acquire);
            if !F::is_table(value) {
                break;
            }
            table = tables.entries(F::table(value));
            number -= 1;
        }
        (table, Level::new(number).unwrap_or(to))
    }

    /// The entry that a walk to `address` ends at, and its level.
    #[inline]
    pub fn lookup<T: Tables>(&self, tables: &T, address: u64) -> (u64, Level) {
        let slot = self.descend(tables, address, Level::Pt);
        (slot.value, slot.level)
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
