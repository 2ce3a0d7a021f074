use super::At;
use crate::diagnostic::Place;

/// A set of modules that have a manifest, by their index in `Spec::modules`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleSet(pub u32);

impl ModuleSet {
    /// The set of the first `count` modules.
    pub const fn first(count: usize) -> Self {
        if count >= 32 {
            Self(u32::MAX)
        } else {
            Self((1 << count) - 1)
        }
    }

    /// Whether the module with this index is in the set.
    pub const fn contains(self, index: usize) -> bool {
        index < 32 && self.0 & (1 << index) != 0
    }

    /// The set with the module of this index.
    #[must_use]
    pub const fn with(self, index: usize) -> Self {
        Self(self.0 | 1 << index)
    }

    /// Modules in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether no module is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Indices of the modules.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..32).filter(move |index| self.contains(*index))
    }
}

/// Where a fact was read.
#[derive(Clone, Debug, Default)]
pub struct Cite {
    /// Id of a [`SourceDocument`].
    pub id: At<String>,
    /// File, section, table or symbol in it.
    pub at: Option<String>,
}

/// A document or source tree that facts come from.
#[derive(Clone, Debug, Default)]
pub struct SourceDocument {
    /// Where it is declared.
    pub place: Place,
    /// Short name.
    pub id: String,
    /// Title.
    pub title: String,
    /// Document number.
    pub number: Option<String>,
    /// Where to get it.
    pub url: Option<String>,
    /// Its licence.
    pub license: Option<String>,
    /// Revision.
    pub commit: Option<String>,
}

/// A bit of TDX_FEATURES0.
#[derive(Clone, Debug, Default)]
pub struct Feature {
    /// Where it is declared.
    pub place: Place,
    /// Name.
    pub name: String,
    /// Bit number.
    pub bit: u32,
    /// Whether another row has the same bit.
    pub contested: bool,
    /// What it means.
    pub doc: Option<String>,
    /// Sources of this row alone.
    pub cite: Vec<Cite>,
}

/// A part of the ABI that is compiled on demand.
#[derive(Clone, Debug, Default)]
pub struct Area {
    /// Where it is declared.
    pub place: Place,
    /// Name, and that of the cargo feature.
    pub name: String,
    /// What it is.
    pub doc: String,
    /// Beginnings of the names of its leaves: a side, or a side and a group.
    pub groups: Vec<At<String>>,
    /// Types that belong to it though no leaf tells.
    pub types: Vec<At<String>>,
    /// Masks of metadata fields, in the order of `FieldRow::MASKS`, that make a field one of it if the host has no access otherwise.
    pub access: Vec<usize>,
}

/// A released module.
#[derive(Clone, Debug, Default)]
pub struct Release {
    /// Where it is declared.
    pub place: Place,
    /// Version, such as `1.5.05`.
    pub version: String,
    /// TDX_FEATURES0.
    pub features0: u64,
    /// The oldest module from which a TD-preserving update is possible.
    pub min_update_from: Option<String>,
    /// P-SEAMLDR versions that can load it.
    pub min_seamldr: Vec<String>,
    /// Remark.
    pub doc: Option<String>,
}

/// A module whose source is public: what it dispatches.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Where it is declared.
    pub place: Place,
    /// Version, such as `1.5.01`.
    pub name: String,
    /// TDX_FEATURES0, where known.
    pub features0: Option<u64>,
    /// Dispatched leaves with their accepted versions.
    pub leaves: Vec<(At<String>, Vec<u8>)>,
    /// Numbered but not dispatched.
    pub reserved: Vec<At<String>>,
    /// What its code fixes fields of the table GLOBAL to, by their names.
    pub values: Vec<(At<String>, u64)>,
    /// Numbers of its code that no field tells, by the names of its source.
    pub limits: Vec<(At<String>, u64)>,
    /// Sources.
    pub cite: Vec<Cite>,
}
