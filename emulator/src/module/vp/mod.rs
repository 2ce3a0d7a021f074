//! TDH.VP leaves. Source: `tdh_vp_*.c` of the TDX module.

pub(crate) mod enter;
pub(crate) mod init;

use super::Call;
use super::Outcome;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::lock::Mode;
use crate::module::check::Implicit;
use crate::pamt::PageType;
use crate::pamt::Walked;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::Tdvps;
use crate::structures::tdcs;
use crate::structures::tdr;
use crate::structures::tdr::Lifecycle;
use crate::structures::tdvps;
use crate::structures::tdvps::state;
use tdx_abi::Level;

/// TDH.VP.CREATE
pub(crate) fn create(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let (page, tdr) = (call.regs.rcx, call.regs.rdx);
    let tdr = core.lock_tdr(tdr, OperandId::RDX, Mode::Shared)?;
    let _tdcs = core.lock_tdcs(*tdr, Some(Mode::Shared), SeamcallLeaf::TDH_VP_CREATE)?;
    let locked = core.lock_page(page, OperandId::RCX, Mode::Exclusive, PageType::Nda)?;
    core.memory().fill(page >> 12, 0);
    core.claim(page, *tdr);
    let tdvps = core.tdvps(page);
    tdvps.set(tdvps::NUM_TDVPS_PAGES, 1);
    tdvps.set(tdvps::ASSOC_LPID, tdvps::NO_LP);
    tdvps.set(tdvps::TDVPS_PA, core.with_key_id(page, tdr.get(tdr::HKID)));
    tdr.add_children(1);
    locked.take(PageType::Tdvpr, tdr.hpa);
    Ok(())
}

/// TDH.VP.ADDCX
pub(crate) fn addcx(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let (page, tdvpr) = (call.regs.rcx, call.regs.rdx);
    let vcpu = core.lock_page(tdvpr, OperandId::RDX, Mode::Exclusive, PageType::Tdvpr)?;
    let owner = vcpu.entry.owner();
    let _td = core.lock_implicit(owner, OperandId::TDR, Mode::Shared, Level::Pt)?;
    let tdr = core.tdr(owner);
    let _tdcs = core.lock_tdcs(tdr, Some(Mode::Shared), SeamcallLeaf::TDH_VP_ADDCX)?;
    let tdvps = core.tdvps(tdvpr);
    if tdvps.get(tdvps::STATE) != state::UNINITIALIZED {
        return Err(core.vcpu_state_incorrect(tdvps));
    }
    let number = tdvps.get(tdvps::NUM_TDVPS_PAGES);
    if number >= tdvps::MAX_TDVPS_PAGES {
        return Err(Status::of(StatusCode::TDCX_NUM_INCORRECT));
    }
    let locked = core.lock_page(page, OperandId::RCX, Mode::Exclusive, PageType::Nda)?;
    let content = if is_l2_msr_bitmap(number) {
        u64::MAX
    } else {
        0
    };
    core.memory().fill(page >> 12, content);
    core.claim(page, tdr);
    let with_key = core.with_key_id(page, tdr.get(tdr::HKID));
    tdvps.set(tdvps::TDVPS_PA.nth(usize::from(number)), with_key);
    tdvps.set(tdvps::NUM_TDVPS_PAGES, number + 1);
    tdr.add_children(1);
    locked.take(PageType::Tdcx, tdr.hpa);
    Ok(())
}

/// Whether page `number` of a vCPU holds MSR bitmaps of an L2 VM.
const fn is_l2_msr_bitmap(number: u8) -> bool {
    matches!(number, 7 | 10 | 13)
}

/// TDH.VP.FLUSH
pub(crate) fn flush(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let tdvpr = call.regs.rcx;
    let vcpu = core.lock_page(tdvpr, OperandId::RCX, Mode::Exclusive, PageType::Tdvpr)?;
    let owner = vcpu.entry.owner();
    let _td = core.lock_implicit(owner, OperandId::TDR, Mode::Shared, Level::Pt)?;
    let tdr = core.tdr(owner);
    if !tdr.is(Lifecycle::KeysConfigured) {
        return Err(Status::of(StatusCode::TD_KEYS_NOT_CONFIGURED));
    }
    let tdcs = core.tdcs(tdr);
    let tdvps = core.tdvps(tdvpr);
    if !tdvps.is_complete(tdcs.l2_vms()) {
        return Err(Status::of(StatusCode::TDCX_NUM_INCORRECT));
    }
    if tdvps.get(tdvps::ASSOC_LPID) != call.lp.id {
        return Err(Status::of(StatusCode::VCPU_NOT_ASSOCIATED));
    }
    call.lp.tlb.flush_td(tdr.hpa);
    invalidate_translations(tdcs, tdvps);
    for vm in 0..=tdcs.l2_vms() {
        tdvps.set(tdvps::VM_LAUNCHED.nth(vm), false);
    }
    tdvps.set(tdvps::ASSOC_LPID, tdvps::NO_LP);
    tdcs.update(tdcs::NUM_ASSOC_VCPUS, |count: u32| count.wrapping_sub(1));
    call.lp.last_tdvpr = tdvps::NULL_PA;
    Ok(())
}

/// Forgets the physical addresses that were derived from guest-physical ones for L2 VMs.
pub(crate) fn invalidate_translations(tdcs: Tdcs<'_>, tdvps: Tdvps<'_>) {
    for vm in 0..=tdcs.l2_vms() {
        tdvps.set(tdvps::L2_ENTER_GUEST_STATE_HPA.nth(vm), tdvps::NULL_PA);
        tdvps.set(tdvps::L2_VAPIC_HPA.nth(vm), tdvps::NULL_PA);
    }
}

/// A vCPU locked for exclusive use, with its TD.
pub(crate) struct LockedVcpu<'m> {
    pub tdr: Tdr<'m>,
    tdvpr: u64,
    _page: Walked<'m>,
    _td: Implicit<'m>,
}

/// Locks the vCPU whose TDVPR RCX names.
pub(crate) fn lock(core: &Core, tdvpr: u64) -> Result<LockedVcpu<'_>, Status> {
    let page = core.lock_page(tdvpr, OperandId::RCX, Mode::Exclusive, PageType::Tdvpr)?;
    let owner = page.entry.owner();
    let td = core.lock_implicit(owner, OperandId::TDR, Mode::Shared, Level::Pt)?;
    Ok(LockedVcpu {
        tdr: core.tdr(owner),
        tdvpr,
        _page: page,
        _td: td,
    })
}

impl LockedVcpu<'_> {
    /// Its TDVPS, if that has all pages that it needs.
    pub(crate) fn tdvps<'m>(&self, core: &'m Core, tdcs: Tdcs<'_>) -> Result<Tdvps<'m>, Status> {
        let tdvps = core.tdvps(self.tdvpr);
        if tdvps.is_complete(tdcs.l2_vms()) {
            Ok(tdvps)
        } else {
            Err(Status::of(StatusCode::TDCX_NUM_INCORRECT))
        }
    }
}

/// Associates a vCPU that may run (or is disabled, if `allow_disabled`) with an LP; whether it was with none before.
pub(crate) fn associate(
    core: &Core,
    tdvps: Tdvps<'_>,
    tdcs: Tdcs<'_>,
    lp: u32,
    allow_disabled: bool,
) -> Result<bool, Status> {
    match tdvps.get(tdvps::STATE) {
        state::READY => {}
        state::DISABLED if allow_disabled => {}
        _ => return Err(core.vcpu_state_incorrect(tdvps)),
    }
    associate_with(tdvps, tdcs, lp)
}

/// Associates a vCPU in any state with an LP; whether it was with none before.
pub(crate) fn associate_with(tdvps: Tdvps<'_>, tdcs: Tdcs<'_>, lp: u32) -> Result<bool, Status> {
    let before = tdvps.update(tdvps::ASSOC_LPID, |associated: u32| {
        if associated == tdvps::NO_LP {
            lp
        } else {
            associated
        }
    });
    if before != tdvps::NO_LP && before != lp {
        return Err(Status::of(StatusCode::VCPU_ASSOCIATED));
    }
    let is_new = before == tdvps::NO_LP;
    if is_new {
        for vm in 0..4 {
            tdvps.set(tdvps::LP_DEPENDENT_HPA_UPDATED.nth(vm), false);
        }
        tdcs.update(tdcs::NUM_ASSOC_VCPUS, |count: u32| count.wrapping_add(1));
    }
    Ok(is_new)
}
