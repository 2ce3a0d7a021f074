use core::sync::atomic::Ordering;

use tdx_abi::Level;

use super::Format;
use super::Reached;
use super::Slot;
use super::Tree;
use crate::Word;
use crate::embed::Tables;

/// A position in a tree that holds the table it is in, and the one above.
///
/// Moving within the table costs an index, moving to a neighbour of the table one load more; anything
/// else costs a descent from the root. Neither table may be unlinked while the cursor lives, unless its
/// entries are left frozen: an entry that reads as frozen asks for [`Cursor::reset`].
#[derive(Debug)]
pub struct Cursor<'t, F, T: Tables> {
    tables: &'t T,
    tree: Tree<F>,
    table: Held<'t, T::Word>,
    /// What leads to `table`, or the same table again.
    above: Held<'t, T::Word>,
}

#[derive(Debug)]
struct Held<'t, W> {
    entries: &'t [W; 512],
    /// Level of the entries, and what all addresses in the table have in common.
    place: u64,
}

impl<W> Clone for Held<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for Held<'_, W> {}

/// No table's place: there is no level 7.
const NOWHERE: u64 = u64::MAX;

/// Tells the tables of a tree apart: the level of the entries below the bits that all addresses in the
/// table have in common.
#[inline(always)]
const fn place(address: u64, level: Level) -> u64 {
    address >> level.shift() >> 9 << 3 | level as u64
}

impl<'t, F: Format, T: Tables> Cursor<'t, F, T> {
    /// A cursor at the root.
    pub fn new(tree: Tree<F>, tables: &'t T) -> Self {
        let root = Held {
            entries: tables.entries(tree.root()),
            place: NOWHERE,
        };
        Self {
            tables,
            tree,
            table: root,
            above: root,
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

    /// As [`Tree::descend`], but for less if the cursor is near.
    #[inline(always)]
    pub fn seek(&mut self, address: u64, to: Level) -> Slot<'t, T::Word> {
        loop {
            let (entry, level) = self.locate(address, to);
            let value = entry.load(Ordering::Acquire);
            // Or else somebody has linked a table there meanwhile.
            if level <= to || !F::is_table(value) {
                return Slot {
                    entry,
                    value,
                    level,
                };
            }
        }
    }

    /// As [`Cursor::seek`], without reading the entry.
    #[inline(always)]
    pub fn locate(&mut self, address: u64, to: Level) -> (&'t T::Word, Level) {
        if self.table.place == place(address, to) {
            return (&self.table.entries[to.index(address)], to);
        }
        match to {
            Level::Pt => self.go::<{ Level::Pt as u8 }>(address),
            Level::Pd => self.go::<{ Level::Pd as u8 }>(address),
            _ => self.go_from_root(address, to),
        }
    }

    /// As [`Tree::walk`], but from the table of 2 MiB entries that the cursor holds, if `address` is in it.
    ///
    /// Leaves the cursor where it is, or else holds what leads to `address`.
    #[inline(always)]
    pub fn walk<R>(&mut self, address: u64, see: impl Fn(u64, Level) -> R) -> R {
        if self.above.place == place(address, Level::Pd) {
            let value = self.above.entries[Level::Pd.index(address)].load(Ordering::Acquire);
            if F::is_table(value) {
                let table = self.tables.entries(F::table(value));
                let value = table[Level::Pt.index(address)].load(Ordering::Acquire);
                if value != F::FROZEN {
                    return see(value, Level::Pt);
                }
            } else if value != F::FROZEN {
                return see(value, Level::Pd);
            }
        }
        let (value, level) = self.walk_from_root(address);
        see(value, level)
    }

    #[cold]
    #[inline(never)]
    fn walk_from_root(&mut self, address: u64) -> (u64, Level) {
        self.reset();
        let slot = self.seek(address, Level::Pt);
        (slot.value, slot.level)
    }

    /// The entries from that of level `to` at `address` to the end of its table or of the range that ends
    /// at `end`, if the tree has them.
    #[inline]
    pub fn rest_of_table(&mut self, address: u64, end: u64, to: Level) -> Option<&'t [T::Word]> {
        if self.locate(address, to).1 != to {
            return None;
        }
        let rest = &self.table.entries[to.index(address)..];
        let wanted = end.saturating_sub(address).div_ceil(to.size());
        Some(match usize::try_from(wanted) {
            Ok(wanted) if wanted < rest.len() => &rest[..wanted],
            _ => rest,
        })
    }

    /// Not inlined: callers that stay in a table, the many, would pay for it in registers.
    #[inline(never)]
    fn go<const TO: u8>(&mut self, address: u64) -> (&'t T::Word, Level) {
        let to = Level::new(TO).unwrap_or(Level::Pt);
        let Some(above) = to
            .above()
            .filter(|above| self.above.place == place(address, *above))
        else {
            return self.go_from_root(address, to);
        };
        let entry = &self.above.entries[above.index(address)];
        let value = entry.load(Ordering::Acquire);
        if !F::is_table(value) {
            self.table = self.above;
            return (entry, above);
        }
        let entries = self.tables.entries(F::table(value));
        self.table = Held {
            entries,
            place: place(address, to),
        };
        (&entries[to.index(address)], to)
    }

    #[inline(never)]
    fn go_from_root(&mut self, address: u64, to: Level) -> (&'t T::Word, Level) {
        let Reached {
            table,
            level,
            above,
        } = self.tree.reach(self.tables, address, to);
        self.table = Held {
            entries: table,
            place: place(address, level),
        };
        self.above = match level.above() {
            Some(higher) if level < self.tree.top() => Held {
                entries: above,
                place: place(address, higher),
            },
            _ => self.table,
        };
        (&table[level.index(address)], level)
    }
}
