use super::At;
use super::Bits;
use super::Cite;
use super::ModuleSet;
use crate::diagnostic::Place;

/// Who answers a leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The TDX module, called by SEAMCALL.
    #[default]
    Host,
    /// The TDX module, called by TDCALL.
    Guest,
    /// P-SEAMLDR, called by SEAMCALL with RAX bit 63.
    Seamldr,
    /// The VMM, called by TDG.VP.VMCALL.
    Vmcall,
}

impl Side {
    /// First part of the names of this side's leaves.
    pub const PREFIXES: [(&'static str, Self); 4] = [
        ("TDH", Self::Host),
        ("TDG", Self::Guest),
        ("SEAMLDR", Self::Seamldr),
        ("TDVMCALL", Self::Vmcall),
    ];

    /// Names for tools.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("host", Self::Host),
        ("guest", Self::Guest),
        ("seamldr", Self::Seamldr),
        ("vmcall", Self::Vmcall),
    ];
}

/// One operand list of one leaf.
#[derive(Clone, Debug, Default)]
pub struct Leaf {
    /// Where it is declared.
    pub place: Place,
    /// Intel's name, with dots.
    pub name: String,
    /// Who answers.
    pub side: Side,
    /// Number in RAX bits 15:0 (R11 for TDVMCALL).
    pub number: At<u64>,
    /// Suffix of a second operand list.
    pub variant: Option<String>,
    /// Leaf versions that the operand list is for.
    pub versions: Vec<u8>,
    /// Modules that the operand list is for.
    pub modules: ModuleSet,
    /// TDX_FEATURES0 bit that must be set.
    pub feature: Option<At<String>>,
    /// Whether another leaf has this number, or only one source knows it.
    pub contested: bool,
    /// What it does.
    pub doc: String,
    /// Sources.
    pub cite: Vec<Cite>,
    /// Operands by register, going in.
    pub inputs: Vec<Operand>,
    /// Operands by register, coming out.
    pub outputs: Vec<Operand>,
    /// Statuses that it returns.
    pub statuses: Vec<At<String>>,
    /// Locks that it takes.
    pub locks: Vec<Lock>,
    /// OP_STATEs in which it is allowed, by module; empty: not gated.
    pub op_states: Vec<Allowed>,
    /// S-EPT states on which it may act, by module; empty: not gated.
    pub sept_states: Vec<Allowed>,
    /// How an interrupted call goes on.
    pub resume: Vec<Resume>,
    /// Evidence that success yields.
    pub yields: Option<Yields>,
}

impl Leaf {
    /// RAX of a call of this version; of a sub-function of TDG.VP.VMCALL, which has no versions, R11.
    pub fn rax(&self, version: u8) -> u64 {
        let seamldr = u64::from(self.side == Side::Seamldr) << 63;
        self.number.value | u64::from(version) << 16 | seamldr
    }
}

/// States allowed in some modules.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// The modules.
    pub modules: ModuleSet,
    /// The states.
    pub states: Vec<At<String>>,
}

/// A register of a leaf.
#[derive(Clone, Debug, Default)]
pub struct Operand {
    /// Where it is declared.
    pub place: Place,
    /// Register.
    pub register: &'static str,
    /// What it holds: on input one meaning, on output one or several.
    pub meanings: Vec<Meaning>,
    /// Lock that the module takes on the page it names.
    pub lock: Option<LockMode>,
}

/// What a register means.
#[derive(Clone, Debug, Default)]
pub struct Meaning {
    /// Where it is declared.
    pub place: Place,
    /// The values in it; more than one share the register's bits.
    pub parts: Vec<Part>,
    /// Statuses with which it means this; empty: SUCCESS.
    pub on: Vec<At<String>>,
}

/// A value in a register.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Where it is declared.
    pub place: Place,
    /// Name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its bits; the whole register if `None`.
    pub bits: Option<Bits>,
    /// What it is for.
    pub doc: Option<String>,
}

/// What a value in a register is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A number of this many bits.
    Number(u32),
    /// A flag.
    Bool,
    /// A host-physical address, a multiple of `align`.
    Hpa {
        /// Alignment in bytes.
        align: u64,
    },
    /// Any guest-physical address, a multiple of `align`.
    Gpa {
        /// Alignment in bytes.
        align: u64,
    },
    /// A private guest-physical address.
    PrivateGpa {
        /// Alignment in bytes.
        align: u64,
    },
    /// A shared guest-physical address.
    SharedGpa {
        /// Alignment in bytes.
        align: u64,
    },
    /// A KeyID.
    Hkid,
    /// A metadata field id.
    FieldId,
    /// A private GPA and a level.
    Mapping {
        /// Legal levels.
        levels: Vec<u8>,
        /// What must have been done to the entry.
        evidence: Option<Evidence>,
    },
    /// Address of a TDR page.
    Tdr,
    /// Address of a TDVPR page.
    Tdvpr,
    /// A page that changes hands.
    Page {
        /// Its level; that of the mapping operand if `None`.
        level: Option<u8>,
        /// What the module makes of it.
        becomes: Option<String>,
    },
    /// Address of a structure in memory.
    Structure {
        /// Name of the structure.
        of: Option<String>,
        /// Alignment in bytes.
        align: u64,
        /// Whether the address is the guest's.
        guest: bool,
        /// `in`, `out` or `inout`.
        direction: Option<String>,
    },
    /// A format or enum.
    Format(String),
    /// Unread.
    #[default]
    Unknown,
}

impl Kind {
    /// What an operand of this kind is for, if its name says no more.
    pub const fn purpose(&self) -> Option<&'static str> {
        Some(match self {
            Self::Mapping {
                evidence: Some(_), ..
            } => "The entry, of which no translation can be cached, and with it the TD.",
            Self::Mapping { .. } => "The entry of the Secure-EPT.",
            Self::Tdr => "The TD.",
            Self::Tdvpr => "The virtual processor.",
            Self::Page { .. } => "The page, which is given away.",
            _ => return None,
        })
    }
}

/// What must have been done to an entry before a leaf may act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Blocked, and tracked where OP_STATE needs it.
    Tracked,
}

/// Evidence that success yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yields {
    /// The entry is blocked.
    Blocked,
    /// The TD's epoch has moved on.
    Tracked,
    /// The page that the first input names is the host's again, of the size that an output gives.
    Reclaimed,
}

impl Yields {
    /// Names as in the files.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("blocked", Self::Blocked),
        ("tracked", Self::Tracked),
        ("reclaimed", Self::Reclaimed),
    ];
}

/// A lock that a leaf takes.
#[derive(Clone, Debug, Default)]
pub struct Lock {
    /// What is locked.
    pub resource: String,
    /// How.
    pub mode: LockMode,
    /// Whether the host has priority.
    pub host_priority: bool,
    /// Register that names the resource.
    pub operand: Option<String>,
    /// When the lock is taken, if not always.
    pub when: Option<String>,
}

/// How a lock is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockMode {
    /// With others.
    #[default]
    Shared,
    /// Alone.
    Exclusive,
}

impl LockMode {
    /// Names as in the files.
    pub const NAMES: [(&'static str, Self); 2] =
        [("shared", Self::Shared), ("exclusive", Self::Exclusive)];
}

/// What a register holds in the call that resumes an interrupted one.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The register.
    pub register: &'static str,
    /// Bits to set in the first call's input; `None`: what the interrupted call returned.
    pub set: Option<u64>,
}
