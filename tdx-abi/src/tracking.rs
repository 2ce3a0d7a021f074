//! Evidence that no translation of an entry can be cached: BLOCK, then TRACK, then whatever needs it.
//!
//! [`tdh::mem::RangeBlock`](crate::tdh::mem::RangeBlock) yields [`Blocked`]; [`tdh::mem::Track`](crate::tdh::mem::Track)
//! takes any number of them and yields [`Tracked`]; leaves that remove or change an entry take [`Untranslated`]. Where
//! OP_STATE needs no tracking, [`NoTracking`] stands for both steps.

use crate::Mapping;
use crate::OpState;
use crate::Tdr;
use crate::level::LevelType;

/// An entry that is blocked: no new translation of it can be made.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a blocked entry is to be tracked and removed, or unblocked"]
pub struct Blocked<L = crate::Level> {
    tdr: Tdr,
    mapping: Mapping<L>,
}

impl<L: LevelType> Blocked<L> {
    /// An entry that the caller knows to be blocked, for example from its mirror.
    pub const fn assume(tdr: Tdr, mapping: Mapping<L>) -> Self {
        Self { tdr, mapping }
    }

    /// The TD.
    pub const fn tdr(&self) -> Tdr {
        self.tdr
    }

    /// The entry.
    pub const fn mapping(&self) -> Mapping<L> {
        self.mapping
    }
}

/// What was blocked before a TRACK that succeeded: a [`Blocked`], or a collection of them.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what was tracked is to be removed or unblocked"]
pub struct Tracked<B>(B);

impl<B> Tracked<B> {
    pub(crate) const fn new(blocked: B) -> Self {
        Self(blocked)
    }

    /// What was blocked, without the evidence.
    pub fn into_inner(self) -> B {
        self.0
    }
}

impl<B: IntoIterator> IntoIterator for Tracked<B> {
    type Item = Tracked<B::Item>;
    type IntoIter = TrackedIter<B::IntoIter>;

    fn into_iter(self) -> Self::IntoIter {
        TrackedIter(self.0.into_iter())
    }
}

/// The entries of a [`Tracked`] collection.
#[derive(Clone, Debug)]
pub struct TrackedIter<I>(I);

impl<I: Iterator> Iterator for TrackedIter<I> {
    type Item = Tracked<I::Item>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Tracked)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// Evidence that a TD is in an OP_STATE in which its virtual processors do not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTracking {
    tdr: Tdr,
}

impl NoTracking {
    /// Evidence from the OP_STATE of the TD of `tdr`; `None` if that state needs tracking.
    ///
    /// The caller states that the TD is in `state` and stays there while the evidence is used; a wrong statement is
    /// an error that the module reports.
    pub const fn in_state(tdr: Tdr, state: OpState) -> Option<Self> {
        if state.tlb_tracking_required() {
            None
        } else {
            Some(Self { tdr })
        }
    }

    /// The TD.
    pub const fn tdr(self) -> Tdr {
        self.tdr
    }
}

/// An entry of which no translation can be cached.
#[derive(Debug, PartialEq, Eq)]
pub struct Untranslated<L = crate::Level> {
    tdr: Tdr,
    mapping: Mapping<L>,
}

impl<L: LevelType> Untranslated<L> {
    /// An entry that the caller knows to be blocked and tracked, for example because its mirror says the former and it
    /// has just done the latter for many entries at once. A wrong statement is an error that the module reports.
    pub const fn assume(tdr: Tdr, mapping: Mapping<L>) -> Self {
        Self { tdr, mapping }
    }

    /// An entry of a TD that needs no tracking now.
    pub const fn without_tracking(evidence: NoTracking, mapping: Mapping<L>) -> Self {
        Self {
            tdr: evidence.tdr,
            mapping,
        }
    }

    /// The TD.
    pub const fn tdr(&self) -> Tdr {
        self.tdr
    }

    /// The entry.
    pub const fn mapping(&self) -> Mapping<L> {
        self.mapping
    }

    #[inline(always)]
    pub(crate) fn level_type(&self) -> L {
        self.mapping.level_type()
    }
}

impl<L: LevelType> From<Tracked<Blocked<L>>> for Untranslated<L> {
    fn from(tracked: Tracked<Blocked<L>>) -> Self {
        Self {
            tdr: tracked.0.tdr,
            mapping: tracked.0.mapping,
        }
    }
}
