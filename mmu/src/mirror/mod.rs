//! The mirrored tree: the host's own copy of the Secure-EPT's shape.
//!
//! Every change of an entry goes through [`External::set`]; see [`section`] for the protocol.

mod change;
mod claim;
mod entry;
mod external;
mod link;
mod mode;
pub mod section;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::PrivateGpa;

pub use self::change::Position;
pub use self::change::Stop;
pub use self::entry::ExportState;
pub use self::entry::Kind;
pub use self::entry::MirrorEntry;
pub use self::entry::MirrorFormat;
pub use self::external::External;
pub use self::external::NoExternal;
pub use self::external::SetError;
pub(crate) use self::link::Uniform;
pub(crate) use self::link::external_page;
pub use self::mode::Mode;
pub use self::section::Section;
use crate::embed::Grace;
use crate::embed::Relax;
use crate::embed::Tables;
use crate::gate::Exclusive;
use crate::gate::Gate;
use crate::gate::Shared;
use crate::tree::Tree;

/// A mirrored tree and the gate that its changes pass.
#[derive(Debug)]
pub struct Mirror<E: Tables> {
    tree: Tree<MirrorFormat>,
    gate: Gate<E::Word>,
}

/// A section that runs beside others.
pub type SharedSection<'s, E> = Section<'s, E, Shared<'s, <E as Tables>::Word>>;

/// A section that runs alone.
pub type ExclusiveSection<'s, E> = Section<'s, E, Exclusive<'s, <E as Tables>::Word>>;

impl<E: Tables + Relax + Grace> Mirror<E> {
    /// The mirror under the root table `root`, which is cleared; `top` is the level of its entries.
    ///
    /// The word beside `root` is set to `external`, the Secure-EPT's root page.
    pub fn new(embedder: &E, root: Hpa, external: Hpa, top: Level) -> Self {
        Tree::<MirrorFormat>::clear(embedder, root);
        link::remember(embedder, root, external);
        Self {
            tree: Tree::new(root, top),
            gate: Gate::new(),
        }
    }

    /// The tree.
    pub const fn tree(&self) -> Tree<MirrorFormat> {
        self.tree
    }

    /// Begins a shared section: many of them run at once.
    pub fn section<'s>(&'s self, embedder: &'s E) -> SharedSection<'s, E> {
        Section::new(embedder, self.tree, self.gate.shared(embedder))
    }

    /// Keeps exclusive sections away, without looking at the tree.
    pub(crate) fn hold<'s>(&'s self, embedder: &E) -> Shared<'s, E::Word> {
        self.gate.shared(embedder)
    }

    /// Begins the exclusive section, once all others have ended.
    pub fn exclusive<'s>(&'s self, embedder: &'s E) -> ExclusiveSection<'s, E> {
        ExclusiveSection::new(embedder, self.tree, self.gate.exclusive(embedder))
    }

    /// Where `gpa` is mapped to at this moment, if it is and is not blocked.
    #[inline(always)]
    pub fn translate(&self, embedder: &E, gpa: PrivateGpa) -> Option<Hpa> {
        let _guard = embedder.enter();
        self.tree.walk(embedder, gpa.bits(), |value, level| {
            MirrorEntry::from_bits(value).translate(gpa.bits(), level)
        })
    }

    /// What the table below the entry of `level` around `gpa` could become at this moment, where something has just been
    /// mapped at `gpa`. Looked at without a section: others may be changing it.
    pub(crate) fn completed(&self, embedder: &E, gpa: PrivateGpa, level: Level) -> Option<Uniform> {
        let below = level.below()?;
        let _guard = embedder.enter();
        let table = self.tree.surrounded(embedder, gpa.bits(), level)?;
        link::uniform(embedder, table, gpa.align_down(level), below).ok()
    }

    /// What the mirror says about `gpa` at this moment.
    pub fn look(&self, embedder: &E, gpa: PrivateGpa) -> Position {
        let _guard = embedder.enter();
        let slot = self.tree.descend(embedder, gpa.bits(), Level::Pt);
        Position::new(gpa.bits(), slot.level, slot.value)
    }
}
