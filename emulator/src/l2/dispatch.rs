//! What the module does with a VM exit of an L2 VM: most go on to the L1 VM, some to the host.
//!
//! Source: `src/td_dispatcher/tdx_td_l2_dispatcher.c` and `src/td_dispatcher/vm_exits_l2` of the TDX module 1.5.01.

use tdx_abi::Level;

use crate::abi::StatusCode;
use crate::abi::TdcallLeaf;
use crate::exit::After;
use crate::exit::Guest;
use crate::exit::GuestCall;
use crate::exit::Leave;
use crate::exit::Seen;
use crate::exit::TdExit;
use crate::exit::ept_violation::EXTENDED_PENDING;
use crate::exit::ept_violation::GLA_VALID;
use crate::exit::ept_violation::ept_violation_exit;
use crate::exit::event;
use crate::exit::gpr;
use crate::exit::reason;
use crate::exit::stepping::Filtered;
use crate::metadata::interrupt_is_pending;
use crate::sept;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;

/// L2_CTLS.ENABLE_TDVMCALL.
const ENABLE_TDVMCALL: u64 = 1 << 1;
/// Pin-based control: process posted interrupts.
const PROCESS_POSTED_INTERRUPTS: u32 = 1 << 7;
/// Bytes of the requests in a posted-interrupt descriptor, and the byte with ON behind them.
const PIR_BYTES: u64 = 32;
/// Interrupt request registers in the virtual APIC page: 8 of 32 bits, 16 bytes apart.
const IRR: usize = 0x200;
/// Vectors below are no external interrupts.
const FIRST_VECTOR: u64 = 31;

/// Who runs after an exit of an L2 VM.
enum Route {
    /// The L2 VM.
    L2(After),
    /// The L1 VM.
    L1,
}

impl Guest<'_> {
    /// Handles a VM exit of the L2 VM that runs.
    pub(crate) fn l2_exit(&mut self) -> Result<(), Leave> {
        let seen = self.seen();
        if self.prologue()? == Filtered::Continue {
            let Route::L2(after) = self.l2_handle(&seen)? else {
                return Ok(());
            };
            let event =
                self.vmcs.read(encoding::ENTRY_INTERRUPTION_INFO) & reason::EVENT_VALID != 0;
            if !event && after == After::Done {
                self.advance_rip()?;
            }
            if self.inside.bus_lock {
                let exit = TdExit::of(StatusCode::SUCCESS, reason::BUS_LOCK.into(), 0);
                return Err(Leave::Async(exit));
            }
        }
        event::reinject(self.vmcs);
        if event::is_intercepted(self.vmcs) {
            event::convert_to_exit(self.vmcs);
            return self.l2_to_l1(StatusCode::SUCCESS, &seen, 0);
        }
        if self.tdvps.get(tdvps::NMI_UNBLOCKING_DUE_TO_IRET) {
            event::block_nmi(self.vmcs);
        }
        self.vcpu().set_preemption_timer(self.vm);
        Ok(())
    }

    fn hand_to_l1(&mut self, seen: &Seen) -> Result<Route, Leave> {
        self.l2_to_l1(StatusCode::SUCCESS, seen, 0)?;
        Ok(Route::L1)
    }

    fn l2_handle(&mut self, seen: &Seen) -> Result<Route, Leave> {
        let exit = |status| TdExit::of(status, seen.reason, seen.qualification);
        let success = exit(StatusCode::SUCCESS);
        let leave = |exit: TdExit| Err(Leave::Async(exit));
        let debug = self.tdcs.has_attribute(tdcs::ATTRIBUTES_DEBUG);
        let basic = seen.reason as u16;
        if seen.reason & reason::ENTRY_FAILURE != 0 {
            return match basic {
                reason::ENTRY_FAILURE_GUEST_STATE => self.hand_to_l1(seen),
                reason::ENTRY_FAILURE_MACHINE_CHECK => {
                    leave(exit(StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE))
                }
                _ => Err(Leave::Shutdown),
            };
        }
        match basic {
            reason::EXCEPTION_OR_NMI => {
                let status = if seen.interruption & reason::EVENT_TYPE == reason::EVENT_NMI {
                    StatusCode::SUCCESS
                } else if seen.interruption & reason::EVENT_VECTOR == reason::VECTOR_MC {
                    StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE
                } else {
                    return self.hand_to_l1(seen);
                };
                leave(exit(status).with_interruption(seen.interruption))
            }
            reason::EXTERNAL_INTERRUPT => self.l2_interrupt(seen),
            reason::C_STATE_SMI => leave(success.with_interruption(seen.interruption)),
            reason::INIT | reason::IO_SMI | reason::BUS_LOCK => leave(success),
            reason::OTHER_SMI => {
                let status = if seen.qualification & reason::SMI_MACHINE_CHECK != 0 {
                    StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE
                } else {
                    StatusCode::SUCCESS
                };
                leave(exit(status).with_interruption(seen.interruption))
            }
            reason::NOTIFY if seen.qualification & reason::NOTIFY_CONTEXT_INVALID != 0 => {
                leave(exit(StatusCode::NON_RECOVERABLE_TD))
            }
            reason::NOTIFY => {
                self.note_nmi_unblocking(seen);
                leave(success)
            }
            reason::EPT_VIOLATION => self.l2_ept_violation(seen),
            reason::EPT_MISCONFIGURATION => self.ept_misconfiguration(seen.reason).map(Route::L2),
            reason::CR_ACCESS => match self.l2_control_register(seen.qualification) {
                true => Ok(Route::L2(After::Done)),
                false => self.hand_to_l1(seen),
            },
            reason::RDMSR | reason::WRMSR => match self.l2_msr(basic == reason::WRMSR)? {
                true => Ok(Route::L2(After::Done)),
                false => self.hand_to_l1(seen),
            },
            reason::TDCALL => self.l2_tdcall(seen),
            reason::PAGE_MODIFICATION_LOG_FULL if !debug => Err(Leave::Shutdown),
            basic if is_for_l1(basic) => self.hand_to_l1(seen),
            _ if debug => leave(success),
            _ => leave(exit(StatusCode::NON_RECOVERABLE_TD)),
        }
    }

    /// TDG.VP.VMCALL goes to the host if the L1 VMM lets it; L1 gets every other TDCALL.
    fn l2_tdcall(&mut self, seen: &Seen) -> Result<Route, Leave> {
        let leaf = TdcallLeaf::new(self.register(gpr::RAX) as u16);
        let enabled = self.tdvps.get(tdvps::L2_CTLS.nth(self.vm)) & ENABLE_TDVMCALL != 0;
        if !enabled || leaf != TdcallLeaf::TDG_VP_VMCALL {
            return self.hand_to_l1(seen);
        }
        Ok(Route::L2(match self.call()? {
            GuestCall::Reexecute => After::Reexecute,
            _ => After::Done,
        }))
    }

    fn note_nmi_unblocking(&self, seen: &Seen) {
        let vectoring = self.vmcs.read(encoding::IDT_VECTORING_INFO) & reason::EVENT_VALID != 0;
        if seen.qualification & reason::NMI_UNBLOCKING != 0 && !vectoring {
            self.tdvps.set(tdvps::NMI_UNBLOCKING_DUE_TO_IRET, true);
        }
    }

    /// The L1 VM learns of what it can mend: an alias or permission that is missing, or a page to be accepted.
    fn l2_ept_violation(&mut self, seen: &Seen) -> Result<Route, Leave> {
        let gpa = self.vmcs.read(encoding::GUEST_PHYSICAL_ADDRESS);
        let wide = self.tdcs.get(tdcs::GPAW);
        let too_wide = gpa >> self.core.gpa_width(wide) != 0;
        if too_wide && seen.qualification & GLA_VALID != 0 {
            return self.hand_to_l1(seen);
        }
        if !self.core.is_shared(gpa, wide) {
            let found = sept::walk(self.core.memory(), self.tdcs.root(), gpa, Level::Pt);
            let state = found.entry.state();
            if state.guest_accessible_leaf() {
                return self.hand_to_l1(seen);
            }
            if state.any_pending_and_guest_acceptable() {
                self.l2_to_l1(StatusCode::SUCCESS, seen, EXTENDED_PENDING)?;
                return Ok(Route::L1);
            }
            self.log_violation(gpa);
        }
        self.note_nmi_unblocking(seen);
        Err(ept_violation_exit(gpa, seen.reason, seen.qualification, 0))
    }

    /// An interrupt is the host's, or has been posted for the L1 VM.
    fn l2_interrupt(&mut self, seen: &Seen) -> Result<Route, Leave> {
        let controls = self.tdvps.get(tdvps::SHADOW_PINBASED_EXEC_CTLS);
        let notification = self.tdvps.get(tdvps::SHADOW_POSTED_INT_NOTIFICATION_VECTOR);
        let vector = seen.interruption & reason::EVENT_VECTOR;
        if controls & PROCESS_POSTED_INTERRUPTS == 0 || vector != u64::from(notification) {
            let exit = TdExit::of(StatusCode::SUCCESS, seen.reason, seen.qualification);
            return Err(Leave::Async(exit.with_interruption(seen.interruption)));
        }
        self.take_posted_interrupts();
        if !interrupt_is_pending(self.tdvps) {
            return Ok(Route::L2(After::Reexecute));
        }
        self.l2_to_l1(StatusCode::L2_EXIT_PENDING_INTERRUPT, seen, 0)?;
        Ok(Route::L1)
    }

    /// Moves what is posted for the L1 VM into its virtual APIC.
    fn take_posted_interrupts(&self) {
        const REQUESTING_VECTOR: u64 = 0xff;
        let memory = self.core.memory();
        let descriptor = self
            .core
            .without_key_id(self.tdvps.get(tdvps::SHADOW_PID_HPA));
        let vapic = self.tdvps.page(tdvps::VAPIC_PAGE);
        let frame = memory.frame(descriptor >> 12);
        let at = (descriptor & 0xfff) as usize;
        frame.update(at + PIR_BYTES as usize, |byte: u8| byte & !1);
        let mut requesting = 0;
        for word in 0..PIR_BYTES as usize / 4 {
            let posted: u32 = frame.update(at + 4 * word, |_| 0);
            vapic.update(IRR + 16 * word, |bits: u32| bits | posted);
            if let Some(highest) = posted.checked_ilog2() {
                requesting = 32 * word as u64 + u64::from(highest);
            }
        }
        if requesting < FIRST_VECTOR {
            requesting = 0;
        }
        let l1 = self.tdvps.vmcs(0);
        let status = l1.read(encoding::GUEST_INTERRUPT_STATUS);
        if requesting > status & REQUESTING_VECTOR {
            let status = status & !REQUESTING_VECTOR | requesting;
            l1.write(encoding::GUEST_INTERRUPT_STATUS, status);
        }
    }
}

/// Exits that always go on to the L1 VM: triple fault, windows, task switch and instructions.
const fn is_for_l1(basic: u16) -> bool {
    matches!(
        basic,
        reason::TRIPLE_FAULT
            | reason::INTERRUPT_WINDOW..=reason::VMXON
            | reason::DR_ACCESS
            | reason::IO_INSTRUCTION
            | reason::MWAIT
            | reason::MONITOR
            | reason::PAUSE
            | reason::TPR_BELOW_THRESHOLD
            | reason::VIRTUALIZED_EOI..=reason::LDTR_OR_TR_ACCESS
            | reason::INVEPT..=reason::RDSEED
            | reason::XSAVES..=reason::PCONFIG
            | reason::UMWAIT..=reason::ENQCMDS_PASID_FAILURE
            | reason::SEAMCALL
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_or_the_module_handles_does_not_go_to_l1() {
        let others = [
            reason::EXCEPTION_OR_NMI,
            reason::EXTERNAL_INTERRUPT,
            reason::INIT,
            reason::IO_SMI,
            reason::OTHER_SMI,
            reason::CR_ACCESS,
            reason::RDMSR,
            reason::WRMSR,
            reason::C_STATE_SMI,
            reason::EPT_VIOLATION,
            reason::EPT_MISCONFIGURATION,
            reason::PAGE_MODIFICATION_LOG_FULL,
            reason::BUS_LOCK,
            reason::NOTIFY,
            reason::TDCALL,
        ];
        assert!(others.into_iter().all(|basic| !is_for_l1(basic)));
        assert!(is_for_l1(reason::CPUID) && is_for_l1(reason::SEAMCALL));
    }
}
