use super::Cite;
use super::ModuleSet;
use crate::diagnostic::Place;

/// A row with a name that holds for some modules.
pub trait Named {
    /// The name.
    fn name(&self) -> &str;
    /// The modules.
    fn modules(&self) -> ModuleSet;
    /// Where the row stands.
    fn place(&self) -> Place;
}

macro_rules! named {
    ($($row:ident),*) => {
        $(impl Named for $row {
            fn name(&self) -> &str {
                &self.name
            }

            fn modules(&self) -> ModuleSet {
                self.modules
            }

            fn place(&self) -> Place {
                self.place
            }
        })*
    };
}

named!(StatusRow, OperandId, StateRow, FieldRow, MsrRow);

/// Who returns a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Callee {
    /// The TDX module.
    Module,
    /// P-SEAMLDR.
    Seamldr,
    /// Linux, for a call that did not reach the callee.
    Linux,
}

impl Callee {
    /// Names as in the files.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("module", Self::Module),
        ("seamldr", Self::Seamldr),
        ("linux", Self::Linux),
    ];
}

/// How to call again after a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retry {
    /// The same call, later.
    Busy,
    /// The same call, from scratch.
    Restartable,
    /// With the registers as returned.
    Resumable,
}

impl Retry {
    /// Names as in the files.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("busy", Self::Busy),
        ("restartable", Self::Restartable),
        ("resumable", Self::Resumable),
    ];
}

/// What RAX bits 31:0 hold with a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Low {
    /// 0.
    #[default]
    None,
    /// An operand id.
    Operand,
    /// A level.
    Level,
    /// A VM exit reason.
    ExitReason,
    /// A count.
    Count,
    /// Part of a metadata field id.
    Field,
    /// Something else.
    Detail,
}

impl Low {
    /// Names as in the files.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("none", Self::None),
        ("operand", Self::Operand),
        ("level", Self::Level),
        ("exit_reason", Self::ExitReason),
        ("count", Self::Count),
        ("field", Self::Field),
        ("detail", Self::Detail),
    ];
}

/// Status codes of one callee.
#[derive(Clone, Debug)]
pub struct StatusTable {
    /// Who returns them.
    pub callee: Callee,
    /// Sources.
    pub cite: Vec<Cite>,
    /// The codes.
    pub rows: Vec<StatusRow>,
}

/// A status code.
#[derive(Clone, Debug)]
pub struct StatusRow {
    /// Where it is declared.
    pub place: Place,
    /// Name without `TDX_`.
    pub name: String,
    /// Value; for the module with bits 31:0 equal to 0.
    pub value: u64,
    /// Modules that have it.
    pub modules: ModuleSet,
    /// How to call again.
    pub retry: Option<Retry>,
    /// What bits 31:0 hold.
    pub low: Low,
    /// Whether another row claims the name or the value.
    pub contested: bool,
    /// What it says.
    pub doc: Option<String>,
    /// What usually causes it.
    pub cause: Option<String>,
    /// What to do.
    pub remedy: Option<String>,
    /// Sources of this row alone.
    pub cite: Vec<Cite>,
}

/// An operand id as it stands in RAX bits 31:0.
#[derive(Clone, Debug)]
pub struct OperandId {
    /// Where it is declared.
    pub place: Place,
    /// Name.
    pub name: String,
    /// Value.
    pub value: u32,
    /// Modules that have it.
    pub modules: ModuleSet,
    /// What it stands for.
    pub doc: Option<String>,
}

/// A flag of a state.
#[derive(Clone, Debug, Default)]
pub struct Flag {
    /// Name.
    pub name: String,
    /// What it says of a state.
    pub doc: String,
    /// Modules whose tables have the flag.
    pub modules: ModuleSet,
}

/// States with flags.
#[derive(Clone, Debug, Default)]
pub struct FlagTable {
    /// Every flag.
    pub flags: Vec<Flag>,
    /// The states; one state may have several rows, for different modules.
    pub rows: Vec<StateRow>,
    /// Sources.
    pub cite: Vec<Cite>,
}

/// A state for some modules.
#[derive(Clone, Debug, Default)]
pub struct StateRow {
    /// Where it is declared.
    pub place: Place,
    /// Name.
    pub name: String,
    /// Value or encoding.
    pub value: u64,
    /// Second encoding.
    pub also: Option<u64>,
    /// Intel's `public_state`.
    pub public: Option<u64>,
    /// Intel's index.
    pub index: Option<u64>,
    /// Slot in the table of the module.
    pub table_index: Option<u64>,
    /// Flags that are set, by index in `FlagTable::flags`.
    pub flags: Vec<usize>,
    /// Modules that this row holds for.
    pub modules: ModuleSet,
    /// What the state is.
    pub doc: Option<String>,
}

/// Metadata fields of one table.
#[derive(Clone, Debug, Default)]
pub struct FieldTable {
    /// Where it is declared.
    pub place: Place,
    /// Name, such as `TDR_TDCS`.
    pub name: String,
    /// Modules whose table is known.
    pub modules: ModuleSet,
    /// Rows in Intel's order.
    pub rows: Vec<FieldRow>,
    /// Sources.
    pub cite: Vec<Cite>,
}

/// A metadata field.
#[derive(Clone, Debug, Default)]
pub struct FieldRow {
    /// Where it is declared.
    pub place: Place,
    /// Intel's name.
    pub name: String,
    /// Field id.
    pub id: u64,
    /// Modules that this row holds for.
    pub modules: ModuleSet,
    /// Fields of the array, at most.
    pub num_of_fields: u32,
    /// Elements of a field.
    pub num_of_elem: u32,
    /// Byte offset in the control structure, if it has one.
    pub offset: Option<u32>,
    /// Masks, in the order of [`FieldRow::MASKS`].
    pub masks: [u64; 10],
    /// Part in export.
    pub mig_export: String,
    /// Part in import.
    pub mig_import: String,
    /// Whether reading has side conditions.
    pub special_rd: bool,
    /// Whether writing has side conditions.
    pub special_wr: bool,
    /// Attributes as bits, in the order of [`FieldRow::ATTRIBUTES`].
    pub attributes: u8,
    /// Field that holds the real count.
    pub count_from: Option<super::At<String>>,
    /// What it is.
    pub doc: Option<String>,
}

impl FieldRow {
    /// Names of the masks.
    pub const MASKS: [&'static str; 10] = [
        "prod_rd", "prod_wr", "dbg_rd", "dbg_wr", "guest_rd", "guest_wr", "migtd_rd", "migtd_wr",
        "export", "import",
    ];

    /// Which of the masks are those of hosts, whether the TD is under debug or not.
    pub const PRODUCTION: [usize; 2] = [0, 1];

    /// Names of the attributes, from bit 0.
    pub const ATTRIBUTES: [&'static str; 6] =
        ["hpa", "gpa", "private", "shared", "vm_app_l1", "vm_app_l2"];
}

/// How a range of MSRs behaves in a TD.
#[derive(Clone, Debug, Default)]
pub struct MsrRow {
    /// Where it is declared.
    pub place: Place,
    /// Name.
    pub name: String,
    /// First MSR.
    pub start: u32,
    /// Last MSR.
    pub end: u32,
    /// Modules that this row holds for.
    pub modules: ModuleSet,
    /// What RDMSR does.
    pub read: String,
    /// What WRMSR does.
    pub write: String,
}
