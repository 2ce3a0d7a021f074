//! What a page-table tree holds, whoever reads it.

use tdx_abi::Level;

/// A present entry of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First guest-physical address that the entry covers, without the SHARED bit.
    pub gpa: u64,
    /// Level of the entry.
    pub level: Level,
    /// Whether it maps memory; otherwise it points to a table.
    pub is_leaf: bool,
    /// The memory or the table. For a table of the mirror: the S-EPT page that stands for it.
    pub hpa: u64,
    /// Whether the guest's access is blocked.
    pub is_blocked: bool,
}

/// A tree as its present entries, ascending by address, parents before children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The entries.
    pub entries: Vec<Entry>,
}

impl Tree {
    /// Number of leaves of `level`.
    pub fn leaves(&self, level: Level) -> u64 {
        self.count(|entry| entry.is_leaf && entry.level == level)
    }

    /// Number of tables below the root, by the level of the entry that points to them.
    pub fn tables(&self, level: Level) -> u64 {
        self.count(|entry| !entry.is_leaf && entry.level == level)
    }

    /// Number of tables below the root.
    pub fn all_tables(&self) -> u64 {
        self.count(|entry| !entry.is_leaf)
    }

    /// The first place where both trees differ, as a sentence; `None` if there is none.
    pub fn difference(&self, names: [&str; 2], other: &Self) -> Option<String> {
        let first = self
            .entries
            .iter()
            .zip(&other.entries)
            .find(|(one, other)| one != other)
            .map(|(one, other)| format!("{} has {one:x?}, {} has {other:x?}", names[0], names[1]));
        let common = self.entries.len().min(other.entries.len());
        let surplus = |name, entry: &Entry| format!("only {name} has {entry:x?}");
        first
            .or_else(|| {
                self.entries
                    .get(common)
                    .map(|entry| surplus(names[0], entry))
            })
            .or_else(|| {
                other
                    .entries
                    .get(common)
                    .map(|entry| surplus(names[1], entry))
            })
    }

    fn count(&self, wanted: impl Fn(&Entry) -> bool) -> u64 {
        self.entries.iter().filter(|entry| wanted(entry)).count() as u64
    }
}
