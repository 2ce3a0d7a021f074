//! Partitioned TDs: what their L1 VMM decides of the memory of L2 VMs, and how these run.

pub(crate) mod attributes;
mod dispatch;
pub(crate) mod entry;
mod run;

use crate::core::Core;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::Tdvps;

/// A vCPU, whose VMs are entered and left.
#[derive(Clone, Copy)]
pub(crate) struct Vcpu<'m> {
    /// The platform.
    pub(crate) core: &'m Core,
    /// The TD.
    pub(crate) tdr: Tdr<'m>,
    /// Its control structure.
    pub(crate) tdcs: Tdcs<'m>,
    /// The vCPU's own.
    pub(crate) tdvps: Tdvps<'m>,
}
