//! What a TD sees of CPUID.

use crate::module::Module;

/// EAX, EBX, ECX and EDX.
pub type Values = [u32; 4];

/// CPUID virtualization of a module.
#[derive(Clone, Copy, Debug)]
pub struct CpuidTable {
    /// Leaves, in the order in which the TDCS keeps their values.
    pub lookup: &'static [CpuidLookup],
    /// What TD_PARAMS configures, in its order.
    pub configurable: &'static [CpuidConfigurable],
    /// Bits that depend on XFAM.
    pub xfam_masks: &'static [CpuidXfamMask],
}

/// A CPUID leaf as the module treats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuidLookup {
    /// EAX of the CPUID.
    pub leaf: u32,
    /// ECX of the CPUID; `None` if it does not matter.
    pub subleaf: Option<u32>,
    /// Whether it causes #VE in the guest.
    pub faulting: bool,
    /// Bits that the module demands of the CPU.
    pub verify_mask: Values,
    /// What those bits must be.
    pub verify_value: Values,
    /// Bits that must be the same on every LP.
    pub verify_same: Values,
    /// Bits that are 0 for the guest or made up.
    pub fixed0_or_dynamic: Values,
    /// Bits that are 1 for the guest.
    pub fixed1: Values,
    /// Position among what TD_PARAMS configures.
    pub config: Option<usize>,
}

impl CpuidLookup {
    /// ECX of the CPUID as Intel's tables and statuses have it: all ones if it does not matter.
    pub const fn subleaf_or_ones(&self) -> u32 {
        match self.subleaf {
            Some(subleaf) => subleaf,
            None => u32::MAX,
        }
    }
}

/// A CPUID leaf that TD_PARAMS configures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuidConfigurable {
    /// EAX of the CPUID.
    pub leaf: u32,
    /// ECX of the CPUID; `None` if it does not matter.
    pub subleaf: Option<u32>,
    /// Bits that the host sets freely.
    pub direct: Values,
    /// Bits that the host may clear.
    pub allow: Values,
}

/// Bits of a CPUID leaf that are 0 for a TD whose XFAM lacks a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuidXfamMask {
    /// EAX of the CPUID.
    pub leaf: u32,
    /// ECX of the CPUID; `None` if it does not matter.
    pub subleaf: Option<u32>,
    /// Bit of XFAM.
    pub xfam_bit: u32,
    /// The bits.
    pub mask: Values,
}

tdx_codegen_macros::cpuid!();
