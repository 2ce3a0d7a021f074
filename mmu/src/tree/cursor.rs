use core::sync::atomic::Ordering;

use tdx_abi::Level;

use super::Format;
use super::Slot;
use super::Tree;
use crate::Word;
use crate::embed::Tables;

/// A position in a tree that holds the table it is in.
///
/// Moving within the table costs an index; leaving it costs a descent from the root, which is cheaper
/// than remembering the tables on the way. The table must not be unlinked while the cursor lives,
/// unless its entries are left frozen: an entry that reads as frozen asks for [`Cursor::reset`].
#[derive(Debug)]
pub struct Cursor<'t, F, T: Tables> {
    tables: &'t T,
    tree: Tree<F>,
    table: &'t [T::Word; 512],
    level: Level,
    /// What all addresses in the table have in common.
    region: u64,
}

/// What addresses in one table of `level` entries have in common.
#[inline(always)]
const fn region(address: u64, level: Level) -> u64 {
    address >> level.shift() >> 9
}

impl<'t, F: Format, T: Tables> Cursor<'t, F, T> {
    /// A cursor that holds the root.
    pub fn new(tree: Tree<F>, tables: &'t T) -> Self {
        Self {
            tables,
            tree,
            table: tables.entries(tree.root()),
            level: tree.top(),
            region: 0,
        }
    }

    /// Goes back to the root.
    pub fn reset(&mut self) {
        *self = Self::new(self.tree, self.tables);
    }

    /// The tree walked.
    pub const fn tree(&self) -> Tree<F> {
        self.tree
    }

    /// Where its tables are.
    pub const fn tables(&self) -> &'t T {
        self.tables
    }

    /// As [`Tree::descend`], but for nothing if the cursor is in the right table already.
    #[inline(always)]
    pub fn seek(&mut self, address: u64, to: Level) -> Slot<'t, T::Word> {
        if self.level == to && self.region == region(address, to) {
            let entry = &self.table[to.index(address)];
            let value = entry.load(Ordering::Acquire);
            return Slot {
                entry,
                value,
                level: to,
            };
        }
        let (entry, level) = self.go(address, to);
        let value = entry.load(Ordering::Acquire);
        Slot {
            entry,
            value,
            level,
        }
    }

    /// The entries from that of level `to` at `address` to the end of its table, if the tree has it.
    #[inline]
    pub fn rest_of_table(&mut self, address: u64, to: Level) -> Option<&'t [T::Word]> {
        let found = self.seek(address, to);
        (found.level == to).then(|| &self.table[to.index(address)..])
    }

    /// Not inlined: callers that stay in a table, the many, would pay for it in registers.
    #[inline(never)]
    fn go(&mut self, address: u64, to: Level) -> (&'t T::Word, Level) {
        let (table, level) = self.tree.reach(self.tables, address, to);
        self.table = table;
        self.level = level;
        self.region = region(address, level);
        (&table[level.index(address)], level)
    }
}
