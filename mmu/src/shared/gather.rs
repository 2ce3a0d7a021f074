use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;

use crate::Word;
use crate::embed::Flush;
use crate::embed::Grace;
use crate::embed::Tables;

// An address that no table has.
const END: u64 = 1;

/// Translations that the CPUs may still hold, and tables that they may still walk.
///
/// Collects over any number of changes; one [`Gather::flush`] settles all of it.
#[derive(Debug)]
#[must_use = "without a flush the guest keeps its old translations and the tables leak"]
pub struct Gather {
    tables: u64,
    entries: u64,
}

/// Proof that a [`Gather`] was flushed: frames that were mapped there may be reused.
#[derive(Debug)]
pub struct Flushed {
    entries: u64,
}

impl Default for Gather {
    fn default() -> Self {
        Self::new()
    }
}

impl Gather {
    /// Nothing to flush.
    pub const fn new() -> Self {
        Self {
            tables: END,
            entries: 0,
        }
    }

    /// Whether there is nothing to flush.
    pub const fn is_empty(&self) -> bool {
        self.tables == END && self.entries == 0
    }

    /// Notes that translations of `entries` entries are stale.
    pub(super) fn stale(&mut self, entries: u64) {
        self.entries += entries;
    }

    /// Notes that `table` has left the tree. Its link word chains it to the ones before.
    pub(super) fn unlinked<T: Tables>(&mut self, tables: &T, table: Hpa) {
        tables.link(table).store(self.tables, Ordering::Relaxed);
        self.tables = table.bits();
    }

    /// Invalidates the translations on every LP and retires the tables.
    ///
    /// Not to be called inside of a section.
    pub fn flush<E: Tables + Grace + Flush>(self, embedder: &E) -> Flushed {
        if !self.is_empty() {
            embedder.invept();
        }
        let mut table = Hpa::new(self.tables);
        while let Some(page) = Page::assume_owned(table, Level::Pt) {
            table = Hpa::new(embedder.link(table).load(Ordering::Relaxed));
            embedder.retire(page);
        }
        Flushed {
            entries: self.entries,
        }
    }
}

impl Flushed {
    /// How many entries were stale.
    pub const fn entries(&self) -> u64 {
        self.entries
    }
}
