//! TDH.VP.INIT

use tdx_abi::Level;

use super::super::Call;
use super::super::Outcome;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::lock::Mode;
use crate::pamt::PageType;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::tdvps::state;
use crate::vcpu_init;

/// TDH.VP.INIT
pub(crate) fn init(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let (tdvpr, rcx) = (call.regs.rcx, call.regs.rdx);
    let vcpu = core.lock_page(tdvpr, OperandId::RCX, Mode::Exclusive, PageType::Tdvpr)?;
    let owner = vcpu.entry.owner();
    let _td = core.lock_implicit(owner, OperandId::TDR, Mode::Shared, Level::Pt)?;
    let tdr = core.tdr(owner);
    let tdcs = core.lock_tdcs(tdr, Some(Mode::Shared), SeamcallLeaf::TDH_VP_INIT)?;
    let tdvps = core.tdvps(tdvpr);
    if !tdvps.is_complete(tdcs.l2_vms()) {
        return Err(Status::of(StatusCode::TDCX_NUM_INCORRECT));
    }
    if tdvps.get(tdvps::STATE) != state::UNINITIALIZED {
        return Err(Status::of(StatusCode::VCPU_STATE_INCORRECT));
    }
    let index = tdcs.update(tdcs::NUM_VCPUS, |count: u32| count.wrapping_add(1));
    if index >= tdcs.get(tdcs::MAX_VCPUS) {
        tdcs.update(tdcs::NUM_VCPUS, |count: u32| count.wrapping_sub(1));
        return Err(Status::of(StatusCode::MAX_VCPUS_EXCEEDED));
    }
    tdvps.set(tdvps::VCPU_INDEX, index);
    vcpu_init::initialize(core, tdr, *tdcs, tdvps, call.lp.id, rcx);
    Ok(())
}
