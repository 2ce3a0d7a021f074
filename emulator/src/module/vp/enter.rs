//! TDH.VP.ENTER
//!
//! Source: `src/td_transitions/tdh_vp_enter.c` of the TDX module 1.5.01.

use tdx_abi::Level;
use tdx_abi::Registers;

use super::super::Call;
use super::super::Outcome;
use super::associate;
use super::invalidate_translations;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::cpu;
use crate::exit::Guest;
use crate::exit::Seen;
use crate::exit::event;
use crate::exit::gpr;
use crate::exit::load_registers;
use crate::exit::numbered;
use crate::exit::reason;
use crate::exit::selected;
use crate::exit::stepping;
use crate::exit::stepping::Filter;
use crate::exit::xmm;
use crate::l2::Vcpu;
use crate::lock::Mode;
use crate::lock::Sharex;
use crate::lp::Inside;
use crate::lp::Xmm;
use crate::pamt::PageType;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdvps;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::tdvps::last_exit;
use crate::structures::tdvps::state;
use crate::structures::vmcs::encoding;
use tdx_abi::format::VeCategory;

/// RCX: address of the TDVPR in bits 51:12.
const TDVPR: u64 = 0x000f_ffff_ffff_f000;
/// RCX: the host expects to recover from the reason of the last trap-like exit.
const RECOVERABILITY_HINT: u64 = 1 << 52;
/// RCX: the L1 VM is to be resumed after an exit of an L2 VM.
const RESUME_L1: u64 = 1 << 53;
/// RAX bit 60 of a guest's status: [`RECOVERABILITY_HINT`] handed on.
const STATUS_HINT: u64 = 1 << 60;
/// Exit qualification: a data write.
const DATA_WRITE: u64 = 1 << 1;

/// TDH.VP.ENTER: on success the registers are the guest's.
pub(crate) fn enter(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let rcx = call.regs.rcx;
    let invalid = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RCX);
    if rcx & !(TDVPR | RECOVERABILITY_HINT | RESUME_L1) != 0 {
        return Err(invalid);
    }
    let tdvpr = rcx & TDVPR;
    let vcpu = core.lock_page(tdvpr, OperandId::RCX, Mode::Shared, PageType::Tdvpr)?;
    let owner = vcpu.entry.owner();
    let td = core.lock_implicit(owner, OperandId::TDR, Mode::Shared, Level::Pt)?;
    let tdr = core.tdr(owner);
    let tdcs = core.lock_tdcs(tdr, Some(Mode::Shared), SeamcallLeaf::TDH_VP_ENTER)?;
    let tdvps = core.tdvps(tdvpr);
    if !tdvps.is_complete(tdcs.l2_vms()) {
        return Err(Status::of(StatusCode::TDCX_NUM_INCORRECT));
    }
    let is_new = associate(core, tdvps, *tdcs, call.lp.id, false)?;
    let last = tdvps.get(tdvps::LAST_TD_EXIT);
    if rcx & RECOVERABILITY_HINT != 0 && last != last_exit::ASYNC_TRAP {
        return Err(invalid);
    }
    let vcpu_state = Vcpu {
        core,
        tdr,
        tdcs: *tdcs,
        tdvps,
    };
    if rcx & RESUME_L1 != 0 {
        if vcpu_state.vm() == 0 {
            return Err(invalid);
        }
        vcpu_state.route_to_l1();
    }
    check_msrs(call, *tdcs)?;
    if core
        .tsc()
        .wrapping_sub(tdvps.get(tdvps::LAST_EXIT_TSC))
        .cast_signed()
        < 0
    {
        return Err(Status::of(StatusCode::TSC_ROLLBACK));
    }
    let flush = track(*tdcs, tdvps, is_new)?;
    let was_in_l1 = vcpu_state.vm() == 0;
    let rip_at_entry = vcpu_state.vmcs().read(encoding::GUEST_RIP);
    let mut seen = Seen::of(vcpu_state.vmcs());
    let mut gpa = vcpu_state.vmcs().read(encoding::GUEST_PHYSICAL_ADDRESS);
    let mut would_fault = false;
    let (tree, notify) = match stepping::at_entry(core, *tdcs, tdvps) {
        Filter::Enter(tree) => (tree, false),
        Filter::Notify(tree) => (tree, true),
        Filter::Busy => {
            untrack(*tdcs, tdvps);
            return Err(Status::with_operand(
                StatusCode::OPERAND_BUSY,
                OperandId::SEPT_TREE,
            ));
        }
        Filter::WouldFault(address) => {
            gpa = address;
            would_fault = true;
            (None, false)
        }
    };
    let private_fault =
        seen.reason as u16 == reason::EPT_VIOLATION && !core.is_shared(gpa, tdcs.get(tdcs::GPAW));
    let notify = notify && private_fault;
    let fault = if vcpu_state.vm() == 0 {
        would_fault.then_some(gpa)
    } else {
        if notify {
            vcpu_state.route_to_l1();
        }
        let entered = vcpu_state.enter_from_host(&mut seen, gpa, || {
            take_registers(call.regs, &call.lp.xmm, tdvps);
        });
        let entered = entered.err().or(would_fault.then_some(gpa));
        entered.or_else(|| match vcpu_state.vm() {
            0 => None,
            vm => vcpu_state.translate_operands(vm).err(),
        })
    };
    if let Some(gpa) = fault {
        untrack(*tdcs, tdvps);
        return Err(repeat_violation(call.regs, tdvps, gpa));
    }
    let notify = notify && was_in_l1;
    // From here on the entry succeeds.
    let inside = Inside {
        tdr: owner,
        tdvpr,
        rip_at_entry,
        bus_lock: false,
        host: *call.regs,
    };
    if flush || call.lp.last_tdvpr != tdvpr {
        call.lp.tlb.flush_td(owner);
        call.lp.last_tdvpr = tdvpr;
    }
    call.lp.inside = Some(inside);
    if let Some(guest) = Guest::on(core, call.slot, call.lp) {
        if notify {
            notify_of_faults(&guest);
        }
        if guest.vm == 0 {
            guest.open_nmi_window();
        } else {
            if tdvps.get(tdvps::NMI_UNBLOCKING_DUE_TO_IRET) {
                event::block_nmi(guest.vmcs);
            }
            vcpu_state.set_preemption_timer(guest.vm);
        }
        // The guest and its VMM have uncore PMIs in common.
        let debugctl = guest.vmcs.read(encoding::GUEST_DEBUGCTL) & !cpu::DEBUGCTL_UNCORE_PMI;
        let debugctl = debugctl | cpu::DEBUGCTL & cpu::DEBUGCTL_UNCORE_PMI;
        guest.vmcs.write(encoding::GUEST_DEBUGCTL, debugctl);
    }
    // An exit routed to L1 has taken the host's registers already.
    let last = tdvps.get(tdvps::LAST_TD_EXIT);
    pass_registers(call.regs, &call.lp.xmm, tdvps, last, rcx);
    call.lp.xmm = xmm::load(tdvps);
    call.lp.stepping.last_entry_tsc = core.tsc();
    tdvps.set(tdvps::STATE, state::ACTIVE);
    drop(tree);
    drop(tdcs);
    vcpu.leak();
    td.lock.leak();
    core.counters.count_entry();
    Ok(())
}

/// Counts the vCPU into the TD's present epoch; whether the LP's translations are older than that.
fn track(tdcs: Tdcs<'_>, tdvps: Tdvps<'_>, is_new: bool) -> Result<bool, Status> {
    let busy = Status::with_operand(StatusCode::OPERAND_BUSY, OperandId::TD_EPOCH);
    let lock = Sharex::acquire(tdcs.lock_word(tdcs::EPOCH_LOCK), Mode::Shared).ok_or(busy)?;
    let epoch = tdcs.get(tdcs::TD_EPOCH);
    tdcs.update(tdcs::REFCOUNT.nth((epoch & 1) as usize), |count: u16| {
        count.wrapping_add(1)
    });
    drop(lock);
    if epoch == tdvps.get(tdvps::VCPU_EPOCH) {
        return Ok(false);
    }
    tdvps.set(tdvps::VCPU_EPOCH, epoch);
    if !is_new {
        invalidate_translations(tdcs, tdvps);
    }
    Ok(!is_new)
}

/// Takes back [`track`].
fn untrack(tdcs: Tdcs<'_>, tdvps: Tdvps<'_>) {
    let epoch = tdvps.get(tdvps::VCPU_EPOCH);
    tdcs.update(tdcs::REFCOUNT.nth((epoch & 1) as usize), |count: u16| {
        count.wrapping_sub(1)
    });
}

/// Returns as if the guest had been entered and had faulted on `gpa` once more; RBP is left alone.
fn repeat_violation(regs: &mut Registers, tdvps: Tdvps<'_>, gpa: u64) -> Status {
    tdvps.set(tdvps::STATE, state::READY);
    tdvps.set(tdvps::LAST_TD_EXIT, last_exit::ASYNC_FAULT);
    let vm = u64::from(tdvps.get(tdvps::CURR_VM));
    *regs = Registers {
        rcx: DATA_WRITE | vm << 32,
        r8: gpa & !0xfff,
        rbp: regs.rbp,
        ..Registers::default()
    };
    Status::from_rax(reason::EPT_VIOLATION.into())
}

/// Tells a guest that wants to know by #VE that it was kept faulting; its last exit was such a fault.
fn notify_of_faults(guest: &Guest<'_>) {
    let vmcs = guest.vmcs;
    let exit_reason = vmcs.read(encoding::EXIT_REASON);
    let qualification = vmcs.read(encoding::EXIT_QUALIFICATION);
    let gpa = vmcs.read(encoding::GUEST_PHYSICAL_ADDRESS);
    let possible = vmcs.read(encoding::GUEST_INTERRUPTIBILITY) & event::BLOCKING_BY_NMI == 0
        && qualification & reason::NMI_UNBLOCKING == 0
        && vmcs.read(encoding::IDT_VECTORING_INFO) & reason::EVENT_VALID == 0
        && guest.tdvps.get(tdvps::VE_VALID) == 0;
    if possible {
        guest.inject_ve(Some(VeCategory::ARCH), exit_reason, qualification, gpa, 0);
    }
}

/// Checks MSRs of the LP that the host may have changed since the module was initialised.
fn check_msrs(call: &Call<'_>, tdcs: Tdcs<'_>) -> Outcome {
    /// TSC adjustment, which is 0 on all LPs.
    const IA32_TSC_ADJUST: u32 = 0x3b;
    const IA32_MISC_ENABLE: u32 = 0x1a0;
    const ENABLE_MONITOR: u64 = 1 << 18;
    if call.lp.msrs.get(&IA32_TSC_ADJUST).copied().unwrap_or(0) != 0 {
        return Err(Status::with_detail(
            StatusCode::INCONSISTENT_MSR,
            IA32_TSC_ADJUST,
        ));
    }
    let misc = call.lp.msrs.get(&IA32_MISC_ENABLE);
    let misc = misc.copied().unwrap_or(cpu::MISC_ENABLE);
    if tdcs.flag(tdcs::flags::MONITOR_MWAIT) && misc & ENABLE_MONITOR == 0 {
        return Err(Status::with_detail(
            StatusCode::INCORRECT_MSR_VALUE,
            IA32_MISC_ENABLE,
        ));
    }
    Ok(())
}

/// Gives the guest what the VMM passes after a VMCALL.
fn take_registers(regs: &Registers, xmm: &Xmm, tdvps: Tdvps<'_>) {
    let set = |number: usize, value: u64| tdvps.set(tdvps::GPRS.nth(number), value);
    let control = tdvps.get(tdvps::GPRS.nth(gpr::RCX));
    xmm::take(tdvps, control, xmm);
    for (number, value) in numbered(regs) {
        if selected(control, number) {
            set(number, value);
        }
    }
    set(gpr::RAX, Status::of(StatusCode::SUCCESS).rax());
}

/// Gives the guest what the VMM passes after a VMCALL, or the host's hint after a trap-like exit.
fn pass_registers(regs: &mut Registers, xmm: &Xmm, tdvps: Tdvps<'_>, last: u8, rcx: u64) {
    if last == last_exit::TDVMCALL {
        take_registers(regs, xmm, tdvps);
    } else if last == last_exit::ASYNC_TRAP {
        let status = tdvps.get(tdvps::GPRS.nth(gpr::RAX)) & !STATUS_HINT;
        let hint = if rcx & RECOVERABILITY_HINT != 0 {
            STATUS_HINT
        } else {
            0
        };
        tdvps.set(tdvps::GPRS.nth(gpr::RAX), status | hint);
    }
    *regs = load_registers(tdvps);
}
