use core::sync::atomic::Ordering;

use tdx_abi::Level;

use super::Format;
use super::Slot;
use super::Tree;
use crate::Word;
use crate::embed::Tables;

/// A position in a tree that holds the tables on the path to it.
///
/// Moving within a table costs an index; leaving it climbs only as far as needed. Tables on the path
/// must not be unlinked while the cursor lives, unless their entries are left frozen: an entry that
/// reads as frozen asks for [`Cursor::reset`].
#[derive(Debug)]
pub struct Cursor<'t, F, T: Tables> {
    tables: &'t T,
    tree: Tree<F>,
    address: u64,
    path: [Option<&'t [T::Word; 512]>; 5],
}

impl<'t, F: Format, T: Tables> Cursor<'t, F, T> {
    /// A cursor at address 0 that holds the root only.
    pub fn new(tree: Tree<F>, tables: &'t T) -> Self {
        let mut path = [None; 5];
        path[tree.top() as usize] = Some(tables.entries(tree.root()));
        Self {
            tables,
            tree,
            address: 0,
            path,
        }
    }

    /// Forgets the path.
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

    /// As [`Tree::descend`], from the lowest table that the cursor already holds.
    #[inline(always)]
    pub fn seek(&mut self, address: u64, to: Level) -> Slot<'t, T::Word> {
        if let Some(table) = self.held(address, to) {
            let entry = &table[to.index(address)];
            return Slot {
                entry,
                value: entry.load(Ordering::Acquire),
                level: to,
            };
        }
        self.seek_far(address, to)
    }

    /// The table of `level` entries that covers `address`, if the cursor holds it.
    #[inline(always)]
    fn held(&self, address: u64, level: Level) -> Option<&'t [T::Word; 512]> {
        self.path[level as usize].filter(|_| (self.address ^ address) >> level.shift() >> 9 == 0)
    }

    #[inline(never)]
    fn seek_far(&mut self, address: u64, to: Level) -> Slot<'t, T::Word> {
        let top = self.tree.top();
        let (mut level, mut table) = Level::ALL
            .into_iter()
            .filter(|level| (to..=top).contains(level))
            .find_map(|level| self.held(address, level).map(|table| (level, table)))
            .unwrap_or((top, self.tables.entries(self.tree.root())));
        self.address = address;
        self.path[..level as usize].fill(None);
        loop {
            let entry = &table[level.index(address)];
            let value = entry.load(Ordering::Acquire);
            if level <= to || !F::is_table(value) {
                return Slot {
                    entry,
                    value,
                    level,
                };
            }
            let Some(below) = level.below() else {
                return Slot {
                    entry,
                    value,
                    level,
                };
            };
            table = self.tables.entries(F::table(value));
            level = below;
            self.path[level as usize] = Some(table);
        }
    }
}
