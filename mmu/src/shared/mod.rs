//! The shared EPT: ordinary page tables that the CPU walks for GPAs whose SHARED bit is 1.
//!
//! Also usable on its own, for a guest that is no TD.
//!
//! Nothing here takes a lock. Entries change by compare-exchange; a table that leaves the tree has all
//! its entries frozen, so that whoever still holds it on a path looks again. Addresses are as the CPU
//! reports them: the SHARED bit is part of the index, not stripped.

mod entry;
mod gather;
mod section;
mod shape;
mod update;
mod zap;

use tdx_abi::Gpa;
use tdx_abi::Hpa;
use tdx_abi::Level;

pub use self::entry::Attributes;
pub use self::entry::EptEntry;
pub use self::entry::EptFormat;
pub use self::entry::EptKind;
pub use self::entry::MemoryType;
pub use self::entry::Permissions;
pub use self::gather::Flushed;
pub use self::gather::Gather;
pub use self::section::EptPosition;
pub use self::section::EptSection;
pub use self::section::EptStop;
use crate::embed::Grace;
use crate::embed::Tables;
use crate::tree::Tree;

/// A shared EPT.
#[derive(Clone, Copy, Debug)]
pub struct Ept {
    tree: Tree<EptFormat>,
}

impl Ept {
    /// The tree under the table `root`, which is cleared; `top` is the level of its entries.
    ///
    /// `top` and the position of the SHARED bit are independent: a 5-level tree with SHARED at bit 47
    /// is legal.
    pub fn new<E: Tables>(embedder: &E, root: Hpa, top: Level) -> Self {
        Tree::<EptFormat>::clear(embedder, root);
        Self {
            tree: Tree::new(root, top),
        }
    }

    /// The tree.
    pub const fn tree(&self) -> Tree<EptFormat> {
        self.tree
    }

    /// Begins a section: a grace-period guard and a place in the tree.
    pub fn section<'s, E: Tables + Grace>(&self, embedder: &'s E) -> EptSection<'s, E> {
        EptSection::new(embedder, self.tree)
    }

    /// Where `gpa` is mapped to at this moment, if it is.
    #[inline(always)]
    pub fn translate<E: Tables + Grace>(&self, embedder: &E, gpa: Gpa) -> Option<Hpa> {
        let _guard = embedder.enter();
        self.tree.walk(embedder, gpa.bits(), |value, level| {
            EptEntry::from_bits(value).translate(gpa.bits(), level)
        })
    }

    /// What the tree says about `gpa` at this moment.
    pub fn look<E: Tables + Grace>(&self, embedder: &E, gpa: Gpa) -> EptPosition {
        let _guard = embedder.enter();
        let slot = self.tree.descend(embedder, gpa.bits(), Level::Pt);
        EptPosition::new(gpa.bits(), slot.level, slot.value)
    }
}
