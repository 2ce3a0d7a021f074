//! A specification as facts: one line each, sorted, the same for every order and layout of the files.
//!
//! This is what the ABI lock file holds and what `tdx spec diff` compares. Texts and sources are no facts.

mod layout;
mod leaf;
mod line;
mod table;

pub(super) use leaf::BASE;
pub(super) use leaf::list_of;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use tdx_codegen::model::ModuleSet;
use tdx_codegen::model::Spec;

/// What an entity of the specification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Module,
    Feature,
    Release,
    Leaf,
    Status,
    Operand,
    OpState,
    SeptState,
    L2SeptState,
    Field,
    Msr,
    Cpuid,
    Enum,
    Format,
    Structure,
}

impl Kind {
    /// Every kind: its word in lock files, and a heading.
    pub(super) const ALL: [(Self, &'static str, &'static str); 15] = [
        (Self::Module, "module", "Modules"),
        (Self::Feature, "feature", "TDX_FEATURES0"),
        (Self::Release, "release", "Releases"),
        (Self::Leaf, "leaf", "Leaves"),
        (Self::Status, "status", "Statuses"),
        (Self::Operand, "operand", "Operand ids"),
        (Self::OpState, "op_state", "OP_STATEs"),
        (Self::SeptState, "sept_state", "S-EPT states"),
        (Self::L2SeptState, "l2_sept_state", "L2 S-EPT states"),
        (Self::Field, "field", "Metadata fields"),
        (Self::Msr, "msr", "MSR virtualization"),
        (Self::Cpuid, "cpuid", "CPUID virtualization"),
        (Self::Enum, "enum", "Enums"),
        (Self::Format, "format", "Formats"),
        (Self::Structure, "structure", "Structures"),
    ];

    /// Its word in lock files.
    pub(super) fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or("", |(_, word, _)| word)
    }
}

/// What a fact is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    /// The leaf, status, field and so on.
    pub(super) entity: String,
    /// What about it: `in rcx`, `lock TDR rdx`, `field hpa`.
    pub(super) aspect: String,
}

/// For which modules a fact holds; `None` stands for what is bound to no module.
type Scope = BTreeSet<Option<String>>;

/// The facts of a specification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    facts: BTreeMap<Key, BTreeMap<String, Scope>>,
}

/// The facts about one module, or about what is bound to none: entities with aspects.
pub(super) type View = BTreeMap<(Kind, String), BTreeMap<String, String>>;

/// Names of the modules of `spec` that are in `set`.
fn scope(spec: &Spec, set: ModuleSet) -> Scope {
    spec.module_names(set)
        .into_iter()
        .map(|name| Some(name.to_owned()))
        .collect()
}

/// What is bound to no module.
fn unbound() -> Scope {
    Scope::from([None])
}

impl Facts {
    /// The facts of `spec`.
    pub(super) fn of(spec: &Spec) -> Self {
        let mut facts = Self::default();
        table::add(spec, &mut facts);
        leaf::add(spec, &mut facts);
        layout::add(spec, &mut facts);
        facts
    }

    fn add(&mut self, kind: Kind, entity: &str, aspect: &str, value: String, scope: &Scope) {
        if scope.is_empty() {
            return;
        }
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let key = Key {
            kind,
            entity: one_line(entity),
            aspect: one_line(aspect),
        };
        let values = self.facts.entry(key).or_default();
        values
            .entry(one_line(&value))
            .or_default()
            .extend(scope.iter().cloned());
    }

    /// Number of facts.
    pub(super) fn count(&self) -> usize {
        self.facts.values().map(BTreeMap::len).sum()
    }

    /// The modules that facts are about, and `None` if some are bound to no module.
    pub(super) fn scopes(&self) -> Scope {
        self.facts
            .values()
            .flat_map(BTreeMap::values)
            .flatten()
            .cloned()
            .collect()
    }

    /// What holds for one module, or is bound to none.
    ///
    /// A leaf of which only one operand list applies has that under the name of the base list. Likewise a
    /// layout whose relative alone applies has that one's name, so that the two can be compared.
    pub(super) fn view(&self, module: Option<&str>) -> View {
        let mut view = View::new();
        for (key, values) in &self.facts {
            for (value, scope) in values {
                if scope.iter().any(|it| it.as_deref() == module) {
                    view.entry((key.kind, key.entity.clone()))
                        .or_default()
                        .insert(key.aspect.clone(), value.clone());
                }
            }
        }
        leaf::unify(&mut view);
        layout::unify(&mut view);
        view
    }
}
