//! From a VM exit of the guest to what becomes of it.

use core::sync::atomic::Ordering;

use tdx_abi::Registers;

use super::After;
use super::ExitInfo;
use super::Guest;
use super::GuestExit;
use super::Leave;
use super::TdExit;
use super::event;
use super::reason;
use super::stepping::Filtered;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::cpu;
use crate::lp::LpSlot;
use crate::lp::LpState;
use crate::metadata::is_guest_xcr0;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdr;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;
use tdx_abi::format::VeCategory;

/// L2_DEBUG_CTLS.TD_EXIT_ON_L2_VM_EXIT.
const TD_EXIT_ON_L2_VM_EXIT: u64 = 1 << 2;

/// Handles a VM exit other than TDCALL of the guest on an LP, if one is inside a TD there.
pub(crate) fn guest_exit(
    core: &Core,
    slot: &LpSlot,
    lp: &mut LpState,
    info: &ExitInfo,
    regs: &mut Registers,
) -> GuestExit {
    let Some(mut guest) = Guest::on(core, slot, lp) else {
        return GuestExit::NotInGuest;
    };
    guest.save(regs, info);
    let outcome = if guest.vm == 0 {
        guest.l1_exit()
    } else {
        guest.l2_exit()
    };
    guest.conclude(outcome, regs)
}

impl Guest<'_> {
    /// Resumes the guest, or leaves.
    pub(crate) fn conclude(self, outcome: Result<(), Leave>, regs: &mut Registers) -> GuestExit {
        match outcome {
            Ok(()) => {
                self.restore(regs);
                self.lp.inside = Some(self.inside);
                GuestExit::ResumedTd
            }
            Err(leave) => self.leave(leave, regs),
        }
    }

    fn l1_exit(&mut self) -> Result<(), Leave> {
        match self.prologue()? {
            Filtered::Continue => {
                let after = self.handle()?;
                self.before_resuming(after)
            }
            Filtered::Resume => self.check_event(),
        }
    }

    /// What every exit begins with.
    pub(crate) fn prologue(&mut self) -> Result<Filtered, Leave> {
        let exit_reason = self.vmcs.read(encoding::EXIT_REASON);
        let qualification = self.vmcs.read(encoding::EXIT_QUALIFICATION);
        let interruption = self.vmcs.read(encoding::EXIT_INTERRUPTION_INFO);
        self.tdvps.set(tdvps::LAST_EXIT_TSC, self.core.tsc());
        self.tdvps.set(tdvps::NMI_UNBLOCKING_DUE_TO_IRET, false);
        if exit_reason & reason::ENTRY_FAILURE == 0 {
            self.tdvps.set(tdvps::VM_LAUNCHED.nth(self.vm), true);
        }
        if self.tdr.get(tdr::FATAL) {
            let exit = TdExit::of(
                StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE,
                exit_reason,
                qualification,
            );
            return Err(Leave::Async(exit.with_interruption(interruption)));
        }
        if exit_reason & reason::BUS_LOCK_PREEMPTED != 0 {
            self.inside.bus_lock = true;
        }
        if !self.is_debug() && exit_reason & reason::UNEXPECTED != 0 {
            return Err(Leave::Shutdown);
        }
        let debug = self.tdvps.get(tdvps::L2_DEBUG_CTLS.nth(self.vm));
        if self.vm != 0 && debug & TD_EXIT_ON_L2_VM_EXIT != 0 {
            let status = StatusCode::TD_EXIT_ON_L2_VM_EXIT;
            let exit = TdExit::of(status, exit_reason, qualification);
            return Err(Leave::Async(exit.with_interruption(interruption)));
        }
        let filtered = self.filter_stepping()?;
        if filtered == Filtered::Continue && self.vm == 0 {
            self.resume_delivery()?;
        }
        Ok(filtered)
    }

    fn is_debug(&self) -> bool {
        self.tdcs.has_attribute(tdcs::ATTRIBUTES_DEBUG)
    }

    fn handle(&mut self) -> Result<After, Leave> {
        let exit_reason = self.vmcs.read(encoding::EXIT_REASON);
        let qualification = self.vmcs.read(encoding::EXIT_QUALIFICATION);
        let interruption = self.vmcs.read(encoding::EXIT_INTERRUPTION_INFO);
        let basic = exit_reason as u16;
        if exit_reason & reason::ENTRY_FAILURE != 0 {
            return Err(self.entry_failure(basic, exit_reason, qualification));
        }
        let exit = |status| Err(Leave::Async(TdExit::of(status, exit_reason, qualification)));
        let waits = matches!(basic, reason::MONITOR | reason::MWAIT);
        match basic {
            _ if waits && self.core.rules().monitor_is_undefined => self.inject_ud(),
            reason::IO_INSTRUCTION
            | reason::HLT
            | reason::INVD
            | reason::VMCALL
            | reason::WBINVD
            | reason::MWAIT
            | reason::MONITOR
            | reason::PCONFIG
            | reason::APIC_WRITE => {
                let category = if basic == reason::PCONFIG {
                    VeCategory::CONFIG_PARAVIRT
                } else {
                    VeCategory::NON_CONFIG_PARAVIRT
                };
                self.inject_ve(Some(category), exit_reason, qualification, 0, 0);
            }
            reason::GETSEC
            | reason::RSM
            | reason::VMCLEAR..=reason::VMXON
            | reason::INVEPT
            | reason::INVVPID
            | reason::VMFUNC
            | reason::ENCLS
            | reason::ENCLV
            | reason::ENQCMDS_PASID_FAILURE
            | reason::SEAMCALL => self.inject_ud(),
            reason::ENQCMD_PASID_FAILURE => self.inject_gp(),
            reason::TASK_SWITCH | reason::BUS_LOCK | reason::INIT => {
                return exit(StatusCode::SUCCESS);
            }
            reason::NOTIFY => return self.notify(exit_reason, qualification),
            reason::TRIPLE_FAULT => return exit(StatusCode::NON_RECOVERABLE_VCPU),
            reason::OTHER_SMI => {
                let status = if qualification & reason::SMI_MACHINE_CHECK != 0 {
                    StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE
                } else {
                    StatusCode::SUCCESS
                };
                let exit = TdExit::of(status, exit_reason, qualification);
                return Err(Leave::Async(exit.with_interruption(interruption)));
            }
            reason::EXTERNAL_INTERRUPT | reason::C_STATE_SMI => {
                let exit = TdExit::of(StatusCode::SUCCESS, exit_reason, qualification);
                return Err(Leave::Async(exit.with_interruption(interruption)));
            }
            reason::RDPMC if !self.tdcs.has_attribute(tdcs::ATTRIBUTES_PERFMON) => self.inject_gp(),
            reason::RDPMC if self.is_debug() => return exit(StatusCode::SUCCESS),
            reason::RDPMC => return Err(Leave::Shutdown),
            reason::EPT_MISCONFIGURATION => return self.ept_misconfiguration(exit_reason),
            reason::CPUID => self.cpuid(),
            reason::EPT_VIOLATION => return self.ept_violation(exit_reason, qualification),
            reason::XSETBV => self.xsetbv(),
            reason::CR_ACCESS if self.control_register(qualification) => {}
            reason::EXCEPTION_OR_NMI => {
                return Err(self.exception(exit_reason, qualification, interruption));
            }
            reason::RDMSR => self.rdmsr(exit_reason)?,
            reason::WRMSR => self.wrmsr(exit_reason)?,
            reason::NMI_WINDOW => self.nmi_window(),
            reason::PAGE_MODIFICATION_LOG_FULL if !self.is_debug() => return Err(Leave::Shutdown),
            _ if self.is_debug() => return exit(StatusCode::SUCCESS),
            _ => return exit(StatusCode::NON_RECOVERABLE_TD),
        }
        Ok(After::Done)
    }

    fn entry_failure(&self, basic: u16, exit_reason: u64, qualification: u64) -> Leave {
        let status = match basic {
            reason::ENTRY_FAILURE_GUEST_STATE if self.is_debug() => StatusCode::SUCCESS,
            reason::ENTRY_FAILURE_GUEST_STATE => StatusCode::NON_RECOVERABLE_TD,
            reason::ENTRY_FAILURE_MACHINE_CHECK => StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE,
            _ => return Leave::Shutdown,
        };
        Leave::Async(TdExit::of(status, exit_reason, qualification))
    }

    fn notify(&self, exit_reason: u64, qualification: u64) -> Result<After, Leave> {
        if qualification & reason::NMI_UNBLOCKING != 0 {
            event::block_nmi(self.vmcs);
        }
        let status = if qualification & reason::NOTIFY_CONTEXT_INVALID != 0 {
            StatusCode::NON_RECOVERABLE_TD
        } else {
            StatusCode::SUCCESS
        };
        Err(Leave::Async(TdExit::of(status, exit_reason, qualification)))
    }

    fn exception(&self, exit_reason: u64, qualification: u64, interruption: u64) -> Leave {
        let status = if interruption & reason::EVENT_TYPE == reason::EVENT_NMI {
            StatusCode::SUCCESS
        } else if interruption & reason::EVENT_VECTOR == reason::VECTOR_MC {
            StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE
        } else if self.is_debug() {
            StatusCode::SUCCESS
        } else {
            return Leave::Shutdown;
        };
        Leave::Async(TdExit::of(status, exit_reason, qualification).with_interruption(interruption))
    }

    /// XSETBV: XCR0 as far as XFAM allows it, else #GP.
    fn xsetbv(&self) {
        let value =
            self.register(super::gpr::RDX) << 32 | self.register(super::gpr::RAX) & 0xffff_ffff;
        let legal = self.register(super::gpr::RCX) as u32 == 0
            && is_guest_xcr0(value, cpu::XCR0_SUPPORTED, self.tdvps.get(tdvps::XFAM));
        if legal {
            self.tdvps.set(tdvps::XCR0, value);
        } else {
            self.inject_gp();
        }
    }

    /// Whether an interrupt waits for the host on this LP.
    pub(crate) fn interrupt_pending(&self) -> bool {
        self.slot.interrupts_pending.load(Ordering::Acquire) != 0 || self.slot.has_fault_interrupt()
    }
}
