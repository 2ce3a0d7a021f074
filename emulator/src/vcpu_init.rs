//! Initial state of a vCPU.

use crate::core::Core;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::Tdvps;
use crate::structures::tdcs;
use crate::structures::tdvps;

/// Gives a vCPU its initial state and associates it with an LP.
pub(crate) fn initialize(
    _core: &Core,
    _tdr: Tdr<'_>,
    tdcs: Tdcs<'_>,
    tdvps: Tdvps<'_>,
    lp: u32,
    _rcx: u64,
) {
    tdvps.set(tdvps::STATE, tdvps::state::READY);
    tdvps.set(tdvps::ASSOC_LPID, lp);
    tdcs.update(tdcs::NUM_ASSOC_VCPUS, |count: u32| count.wrapping_add(1));
}
