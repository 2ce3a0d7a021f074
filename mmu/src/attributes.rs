//! Which guest pages are private and which are shared, kept in a tree of the same kind as the mappings.

use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;

use crate::GpaRange;
use crate::Word;
use crate::deposit::Deposit;
use crate::deposit::Table;
use crate::embed::Frames;
use crate::embed::Grace;
use crate::embed::Tables;
use crate::tree::Format;
use crate::tree::Tree;

const PRESENT: u64 = 1 << 0;
const PRIVATE: u64 = 1 << 1;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const END: u64 = 1;

/// Whether the guest is to use a page as private or as shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// With SHARED = 0, through the Secure-EPT. The entry in the tree is `PRIVATE`.
    Private,
    /// With SHARED = 1, through the shared EPT. What an address is until it is set otherwise.
    Shared,
}

impl Visibility {
    const fn bits(self) -> u64 {
        match self {
            Self::Private => PRIVATE,
            Self::Shared => 0,
        }
    }

    const fn from_bits(bits: u64) -> Self {
        if bits & PRIVATE != 0 {
            Self::Private
        } else {
            Self::Shared
        }
    }
}

#[derive(Debug)]
enum VisibilityFormat {}

impl Format for VisibilityFormat {
    const EMPTY: u64 = 0;
    const FROZEN: u64 = 0;

    fn is_table(entry: u64) -> bool {
        entry & PRESENT != 0
    }

    fn table(entry: u64) -> Hpa {
        Hpa::new(entry & ADDRESS)
    }

    fn link(table: Hpa) -> u64 {
        table.bits() | PRESENT
    }
}

/// The visibility of every page, for any number of readers and one writer at a time.
#[derive(Debug)]
pub struct VisibilityMap {
    tree: Tree<VisibilityFormat>,
}

/// Tables of the map that nobody reaches any more.
#[derive(Debug)]
#[must_use = "the tables leak"]
pub struct Replaced(u64);

impl VisibilityMap {
    /// The map under the table `root`, which is cleared: everything is shared.
    pub fn new<T: Tables>(tables: &T, root: Hpa, top: Level) -> Self {
        Tree::<VisibilityFormat>::clear(tables, root);
        Self {
            tree: Tree::new(root, top),
        }
    }

    pub(crate) const fn root(&self) -> Hpa {
        self.tree.root()
    }

    /// The visibility at `address`, and the level up to which its whole naturally aligned block is known
    /// to have it.
    pub fn look<E: Tables + Grace>(&self, embedder: &E, address: u64) -> (Visibility, Level) {
        let _guard = embedder.enter();
        let slot = self.tree.descend(embedder, address, Level::Pt);
        (Visibility::from_bits(slot.value), slot.level)
    }

    /// Sets the visibility of `range`. Needs up to [`VisibilityMap::TABLES`] tables in `deposit`; `Err`
    /// if they did not suffice, with the range set in part.
    ///
    /// There must be only one writer.
    pub fn set<T: Tables, F: Frames>(
        &self,
        tables: &T,
        range: GpaRange,
        visibility: Visibility,
        deposit: &mut Deposit<'_, F, Table>,
    ) -> (Replaced, Result<(), NeedTables>) {
        let mut replaced = Replaced(END);
        let mut address = range.start();
        while address < range.end() {
            let level = range.block_at(address, self.tree.top());
            let slot = self.tree.descend(tables, address, level);
            if slot.level > level && Visibility::from_bits(slot.value) != visibility {
                let Some(table) = deposit.draw() else {
                    return (replaced, Err(NeedTables));
                };
                Tree::<VisibilityFormat>::fill(tables, table.0.hpa(), slot.value);
                slot.entry
                    .store(VisibilityFormat::link(table.0.hpa()), Ordering::Release);
                continue;
            }
            if slot.level == level {
                slot.entry.store(visibility.bits(), Ordering::Release);
                replaced.detach(tables, slot.value);
            }
            address += level.size();
        }
        for edge in [range.start(), range.end() - Level::Pt.size()] {
            self.merge(tables, edge, &mut replaced);
        }
        (replaced, Ok(()))
    }

    /// Makes one entry of each table on the way to `address` whose entries say all the same.
    ///
    /// Guests convert large ranges in steps; without this the map would stay in small pieces.
    fn merge<T: Tables>(&self, tables: &T, address: u64, replaced: &mut Replaced) {
        for level in Level::ALL
            .into_iter()
            .filter(|level| (Level::Pd..=self.tree.top()).contains(level))
        {
            let slot = self.tree.descend(tables, address, level);
            if slot.level != level || !VisibilityFormat::is_table(slot.value) {
                continue;
            }
            let entries = tables.entries(VisibilityFormat::table(slot.value));
            let first = entries[0].load(Ordering::Relaxed);
            let equal = entries
                .iter()
                .all(|entry| entry.load(Ordering::Relaxed) == first);
            if VisibilityFormat::is_table(first) || !equal {
                return;
            }
            slot.entry.store(first, Ordering::Release);
            replaced.detach(tables, slot.value);
        }
    }

    /// Takes all tables but the root away, when nobody uses the map any more.
    pub(crate) fn clear<T: Tables>(&self, tables: &T) -> Replaced {
        let mut replaced = Replaced(END);
        for entry in tables.entries(self.tree.root()) {
            let seen = entry.load(Ordering::Relaxed);
            entry.store(VisibilityFormat::EMPTY, Ordering::Relaxed);
            replaced.detach(tables, seen);
        }
        replaced
    }

    /// Most tables that setting a range can need: a path for each of its ends.
    pub const TABLES: usize = 8;
}

/// The deposit was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedTables;

impl Replaced {
    fn detach<T: Tables>(&mut self, tables: &T, entry: u64) {
        if !VisibilityFormat::is_table(entry) {
            return;
        }
        let table = VisibilityFormat::table(entry);
        for entry in tables.entries(table) {
            self.detach(tables, entry.load(Ordering::Relaxed));
        }
        tables.link(table).store(self.0, Ordering::Relaxed);
        self.0 = table.bits();
    }

    /// Frees the tables after a grace period. Not to be called inside of a section.
    pub fn retire<E: Tables + Grace>(self, embedder: &E) {
        let mut table = Hpa::new(self.0);
        while let Some(page) = Page::assume_owned(table, Level::Pt) {
            table = Hpa::new(embedder.link(table).load(Ordering::Relaxed));
            embedder.retire(page);
        }
    }
}
