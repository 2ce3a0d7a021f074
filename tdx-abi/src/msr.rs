//! How model-specific registers behave in a TD.

use crate::module::Modules;

tdx_codegen_macros::msrs!();

/// How a range of MSRs behaves in a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MsrRow {
    /// Name; `x` stands for the number within the range.
    pub name: &'static str,
    /// First MSR.
    pub start: u32,
    /// Last MSR.
    pub end: u32,
    /// Modules that the row holds for.
    pub modules: Modules,
    /// The bitmap bit for RDMSR, and what the module does if it exits.
    pub read: &'static str,
    /// The bitmap bit for WRMSR, and what the module does if it exits.
    pub write: &'static str,
}
