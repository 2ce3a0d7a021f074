//! The TDX ABI as plain data: what every emitter and tool works on.

mod cpuid;
mod format;
mod leaf;
mod modules;
mod table;

pub use cpuid::CpuidConfigurable;
pub use cpuid::CpuidLookup;
pub use cpuid::CpuidTable;
pub use cpuid::CpuidValues;
pub use cpuid::CpuidXfamMask;
pub use format::BitField;
pub use format::BitItem;
pub use format::Bits;
pub use format::Enum;
pub use format::EnumValue;
pub use format::Format;
pub use format::Structure;
pub use format::StructureField;
pub use format::StructureItem;
pub use format::View;
pub use leaf::Allowed;
pub use leaf::Evidence;
pub use leaf::Kind;
pub use leaf::Leaf;
pub use leaf::Lock;
pub use leaf::LockMode;
pub use leaf::Meaning;
pub use leaf::Operand;
pub use leaf::Part;
pub use leaf::Resume;
pub use leaf::Side;
pub use leaf::Yields;
pub use modules::Area;
pub use modules::Cite;
pub use modules::Feature;
pub use modules::Module;
pub use modules::ModuleSet;
pub use modules::Release;
pub use modules::SourceDocument;
pub use table::Callee;
pub use table::FieldRow;
pub use table::FieldTable;
pub use table::Flag;
pub use table::FlagTable;
pub use table::Low;
pub use table::MsrRow;
pub use table::Named;
pub use table::OperandId;
pub use table::Retry;
pub use table::StateRow;
pub use table::StatusRow;
pub use table::StatusTable;

use crate::diagnostic::Place;

/// A value and where it stands.
#[derive(Clone, Debug, Default)]
pub struct At<T> {
    /// Where.
    pub place: Place,
    /// What.
    pub value: T,
}

/// A type whose values have names.
macro_rules! words {
    ($($word:ty),*) => {
        $(impl $word {
            /// Its name in [`NAMES`](Self::NAMES).
            pub fn name(self) -> &'static str {
                let mut names = Self::NAMES.iter();
                names.find(|(_, known)| *known == self).map_or("", |(name, _)| name)
            }
        })*
    };
}
words!(Callee, Retry, Low, LockMode, Side, Yields);

/// Everything that the files say.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// What `cite` may name.
    pub sources: Vec<SourceDocument>,
    /// Bits of TDX_FEATURES0.
    pub features: Vec<Feature>,
    /// Parts of the ABI that are compiled on demand.
    pub areas: Vec<Area>,
    /// Released modules.
    pub releases: Vec<Release>,
    /// Modules with a manifest, oldest first.
    pub modules: Vec<Module>,
    /// Status codes by callee.
    pub statuses: Vec<StatusTable>,
    /// Operand ids.
    pub operands: Vec<OperandId>,
    /// OP_STATEs.
    pub op_states: FlagTable,
    /// States of entries of the L1 Secure-EPT.
    pub sept_states: FlagTable,
    /// States of entries of L2 Secure-EPTs.
    pub l2_sept_states: FlagTable,
    /// Metadata fields by table.
    pub fields: Vec<FieldTable>,
    /// MSR virtualization.
    pub msrs: Vec<MsrRow>,
    /// CPUID virtualization.
    pub cpuid: Vec<CpuidTable>,
    /// Small numberings.
    pub enums: Vec<Enum>,
    /// Registers and memory words, bit by bit.
    pub formats: Vec<Format>,
    /// Structures in memory, byte by byte.
    pub structures: Vec<Structure>,
    /// Leaves, one element an operand list.
    pub leaves: Vec<Leaf>,
    /// Names of leaves whose file could not be read as one: they exist, but nothing is known of them.
    pub unread: Vec<String>,
}

impl Spec {
    /// Names of the modules in `set`.
    pub fn module_names(&self, set: ModuleSet) -> Vec<&str> {
        let modules = set.iter().filter_map(|index| self.modules.get(index));
        modules.map(|module| module.name.as_str()).collect()
    }

    /// Modules that dispatch a version of `leaf` that its operand list is for.
    pub fn dispatchers(&self, leaf: &Leaf) -> ModuleSet {
        let dispatches = |module: &Module| {
            module.leaves.iter().any(|(name, versions)| {
                name.value == leaf.name && versions.iter().any(|v| leaf.versions.contains(v))
            })
        };
        let modules = self.modules.iter().enumerate();
        let modules = modules.filter(|(_, module)| dispatches(module));
        let modules = modules.fold(ModuleSet::default(), |set, (index, _)| set.with(index));
        modules.and(leaf.modules)
    }

    /// Modules in which `leaf` can return `status`, if not all that dispatch the leaf have such a status.
    pub fn limited_to(&self, leaf: &Leaf, status: &str) -> Option<ModuleSet> {
        let dispatchers = self.dispatchers(leaf);
        let mut tables = self.statuses.iter();
        let table = tables.find(|table| table.callee == Callee::Module)?;
        let row = table.rows.iter().find(|row| row.name == status)?;
        let both = dispatchers.and(row.modules);
        (both != dispatchers && leaf.side != Side::Seamldr).then_some(both)
    }

    /// The statuses of `leaf`, each with the modules that it is [limited to](Self::limited_to).
    pub fn statuses_of(&self, leaf: &Leaf) -> String {
        let statuses = leaf.statuses.iter().map(|status| {
            let modules = self.limited_to(leaf, &status.value);
            let modules = modules.map(|set| format!(" ({})", self.module_names(set).join(", ")));
            format!("{}{}", status.value, modules.unwrap_or_default())
        });
        statuses.collect::<Vec<_>>().join(", ")
    }
}
