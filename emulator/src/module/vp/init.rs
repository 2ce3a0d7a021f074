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
use crate::topology;
use crate::vcpu_init;

/// TDH.VP.INIT
pub(crate) fn init(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let (tdvpr, rcx, x2apic_id) = (call.regs.rcx, call.regs.rdx, call.regs.r8);
    let with_x2apic_id = call.version > 0;
    call.check_version()?;
    let vcpu = core.lock_page(tdvpr, OperandId::RCX, Mode::Exclusive, PageType::Tdvpr)?;
    let owner = vcpu.entry.owner();
    let td_mode = if with_x2apic_id {
        Mode::Exclusive
    } else {
        Mode::Shared
    };
    let _td = core.lock_implicit(owner, OperandId::TDR, td_mode, Level::Pt)?;
    let tdr = core.tdr(owner);
    let tdcs = core.lock_tdcs(tdr, Some(Mode::Shared), SeamcallLeaf::TDH_VP_INIT)?;
    let tdvps = core.tdvps(tdvpr);
    if !tdvps.is_complete(tdcs.l2_vms()) {
        return Err(Status::of(StatusCode::TDCX_NUM_INCORRECT));
    }
    if tdvps.get(tdvps::STATE) != state::UNINITIALIZED {
        return Err(core.vcpu_state_incorrect(tdvps));
    }
    let index = tdcs.update(tdcs::NUM_VCPUS, |count: u32| count.wrapping_add(1));
    if index >= tdcs.get(tdcs::MAX_VCPUS) {
        tdcs.update(tdcs::NUM_VCPUS, |count: u32| count.wrapping_sub(1));
        return Err(Status::of(StatusCode::MAX_VCPUS_EXCEEDED));
    }
    tdvps.set(tdvps::VCPU_INDEX, index);
    if let Some(places) = &core.rules().topology {
        let chosen = with_x2apic_id.then_some(x2apic_id);
        topology::set_x2apic_id(*tdcs, places, index, chosen).inspect_err(|_| {
            tdcs.update(tdcs::NUM_VCPUS, |count: u32| count.wrapping_sub(1));
        })?;
    }
    vcpu_init::initialize(core, tdr, *tdcs, tdvps, call.lp.id, rcx);
    Ok(())
}
