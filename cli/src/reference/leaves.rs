use std::collections::BTreeSet;

use tdx_codegen::model::Leaf;
use tdx_codegen::model::ModuleSet;
use tdx_codegen::model::Spec;

/// A leaf with all its operand lists.
pub(crate) struct LeafEntry<'s> {
    /// The base operand list, with the state tables.
    pub(crate) leaf: &'s Leaf,
    /// Every operand list, the base first.
    pub(crate) variants: Vec<&'s Leaf>,
    /// Modules that dispatch it.
    pub(crate) dispatched: ModuleSet,
    /// Modules that only number it.
    pub(crate) reserved: ModuleSet,
    /// Versions that any of those modules accepts.
    pub(crate) versions: Vec<u8>,
}

impl LeafEntry<'_> {
    /// Whether a module with public source dispatches it, reserves its number, or one source alone tells of it.
    pub(crate) fn status(&self) -> &'static str {
        if !self.dispatched.is_empty() {
            "dispatched"
        } else if !self.reserved.is_empty() {
            "reserved"
        } else {
            "known"
        }
    }

    /// The operand list for a leaf version in a module.
    pub(crate) fn variant(&self, version: u8, module: Option<usize>) -> &Leaf {
        let fits = |leaf: &&&Leaf| {
            leaf.versions.contains(&version)
                && module.is_none_or(|index| leaf.modules.contains(index))
        };
        self.variants
            .iter()
            .rev()
            .find(fits)
            .map_or(self.leaf, |leaf| leaf)
    }
}

/// Every leaf that `module` dispatches or reserves, or without it every leaf there is; by side and number.
pub(crate) fn leaves(spec: &Spec, module: Option<usize>) -> Vec<LeafEntry<'_>> {
    let considered: Vec<usize> =
        module.map_or_else(|| (0..spec.modules.len()).collect(), |index| vec![index]);
    let mut entries: Vec<LeafEntry<'_>> = Vec::new();
    for leaf in spec.leaves.iter().filter(|leaf| leaf.variant.is_none()) {
        let mut dispatched = ModuleSet::default();
        let mut reserved = ModuleSet::default();
        let mut versions = BTreeSet::new();
        for &index in &considered {
            let manifest = &spec.modules[index];
            if let Some((_, accepted)) = manifest
                .leaves
                .iter()
                .find(|(name, _)| name.value == leaf.name)
            {
                dispatched = dispatched.with(index);
                versions.extend(accepted.iter().copied());
            }
            if manifest.reserved.iter().any(|name| name.value == leaf.name) {
                reserved = reserved.with(index);
            }
        }
        if module.is_some() && dispatched.is_empty() && reserved.is_empty() {
            continue;
        }
        if versions.is_empty() {
            versions.extend(leaf.versions.iter().copied());
        }
        let mut variants = vec![leaf];
        variants.extend(
            spec.leaves
                .iter()
                .filter(|other| other.variant.is_some() && other.name == leaf.name),
        );
        entries.push(LeafEntry {
            leaf,
            variants,
            dispatched,
            reserved,
            versions: versions.into_iter().collect(),
        });
    }
    entries.sort_by_key(|entry| {
        (
            entry.leaf.side,
            entry.leaf.number.value,
            entry.leaf.name.clone(),
        )
    });
    entries
}
