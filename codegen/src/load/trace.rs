//! What the loader has asked of each node: the schema as it is in force, from which the JSON Schemas are made.

use alloc::collections::BTreeMap;
use alloc::collections::BTreeSet;
use std::collections::HashMap;

use super::question::Type;
use super::question::Use;
use crate::diagnostic::Place;

/// All questions about one node.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    pub(crate) types: BTreeSet<Type>,
    pub(crate) max: Option<u64>,
    pub(crate) names: Option<BTreeSet<String>>,
    pub(crate) pattern: Option<&'static str>,
    pub(crate) keys: BTreeMap<&'static str, Key>,
}

/// All questions about a key of a record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Key {
    pub(crate) ty: Option<Type>,
    pub(crate) needed: bool,
}

/// All questions.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) uses: HashMap<Place, Uses>,
}

impl Trace {
    pub(crate) fn note(&mut self, place: Place, what: Use<'_>) {
        let uses = self.uses.entry(place).or_default();
        match what {
            Use::As(ty) => {
                uses.types.insert(ty);
            }
            Use::Max(max) => uses.max = Some(max),
            Use::Names(names) => {
                uses.names = Some(names.iter().copied().map(str::to_owned).collect());
            }
            Use::Pattern(pattern) => uses.pattern = Some(pattern),
            Use::Key(key, ty) => {
                let key = uses.keys.entry(key).or_default();
                key.ty = key.ty.or(ty);
            }
            Use::Need(key) => uses.keys.entry(key).or_default().needed = true,
        }
    }
}
