use super::Cite;
use super::ModuleSet;
use crate::diagnostic::Place;

/// EAX, EBX, ECX and EDX.
pub type CpuidValues = [u32; 4];

/// CPUID virtualization of some modules.
#[derive(Clone, Debug, Default)]
pub struct CpuidTable {
    /// Where it is declared.
    pub place: Place,
    /// Modules that it holds for.
    pub modules: ModuleSet,
    /// Sources.
    pub cite: Vec<Cite>,
    /// Leaves, in the order in which the TDCS keeps their values.
    pub lookup: Vec<CpuidLookup>,
    /// What TD_PARAMS configures, in its order.
    pub configurable: Vec<CpuidConfigurable>,
    /// Bits that depend on XFAM.
    pub xfam_masks: Vec<CpuidXfamMask>,
}

/// A CPUID leaf as the module treats it.
#[derive(Clone, Debug, Default)]
pub struct CpuidLookup {
    /// Where it is declared.
    pub place: Place,
    /// EAX of the CPUID.
    pub leaf: u32,
    /// ECX of the CPUID, if it matters.
    pub subleaf: Option<u32>,
    /// Whether it causes #VE in the guest.
    pub faulting: bool,
    /// Bits that the module demands of the CPU.
    pub verify_mask: CpuidValues,
    /// What those bits must be.
    pub verify_value: CpuidValues,
    /// Bits that must be the same on every LP.
    pub verify_same: CpuidValues,
    /// Bits that are 0 for the guest or made up.
    pub fixed0_or_dynamic: CpuidValues,
    /// Bits that are 1 for the guest.
    pub fixed1: CpuidValues,
    /// Position among what TD_PARAMS configures.
    pub config: Option<u32>,
}

/// A CPUID leaf that TD_PARAMS configures.
#[derive(Clone, Debug, Default)]
pub struct CpuidConfigurable {
    /// Where it is declared.
    pub place: Place,
    /// EAX of the CPUID.
    pub leaf: u32,
    /// ECX of the CPUID, if it matters.
    pub subleaf: Option<u32>,
    /// Bits that the host sets freely.
    pub direct: CpuidValues,
    /// Bits that the host may clear.
    pub allow: CpuidValues,
}

/// Bits of a CPUID leaf that are 0 for a TD whose XFAM lacks a bit.
#[derive(Clone, Debug, Default)]
pub struct CpuidXfamMask {
    /// Where it is declared.
    pub place: Place,
    /// EAX of the CPUID.
    pub leaf: u32,
    /// ECX of the CPUID, if it matters.
    pub subleaf: Option<u32>,
    /// Bit of XFAM.
    pub xfam_bit: u32,
    /// The bits.
    pub mask: CpuidValues,
}
