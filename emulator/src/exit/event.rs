//! Events that the module injects into the guest, and what it does before the guest runs on.

use super::After;
use super::Guest;
use super::Leave;
use super::TdExit;
use super::reason;
use crate::abi::StatusCode;
use crate::structures::Structure;
use crate::structures::Vmcs;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;
use tdx_abi::format::VeCategory;

/// VE_INFO.VALID when the rest is valid.
const VE_INFO_VALID: u32 = u32::MAX;
/// RFLAGS.RF.
const RFLAGS_RF: u64 = 1 << 16;
/// RFLAGS.TF.
pub(crate) const RFLAGS_TF: u64 = 1 << 8;
/// IA32_DEBUGCTL.BTF.
pub(crate) const DEBUGCTL_BTF: u64 = 1 << 1;
/// Pending debug exceptions: BS.
pub(crate) const PENDING_DEBUG_BS: u64 = 1 << 14;
/// Interruptibility state: blocking by STI.
pub(crate) const BLOCKING_BY_STI: u64 = 1;
/// Interruptibility state: blocking by MOV SS.
pub(crate) const BLOCKING_BY_MOV_SS: u64 = 1 << 1;
/// Interruptibility state: blocking by NMI.
pub(crate) const BLOCKING_BY_NMI: u64 = 1 << 3;
/// Primary control: NMI-window exiting.
pub(crate) const NMI_WINDOW_EXITING: u64 = 1 << 22;

impl Guest<'_> {
    /// Injects #UD.
    pub(crate) fn inject_ud(&self) {
        self.set_rf();
        self.inject(reason::VECTOR_UD, None);
    }

    /// Injects #GP(0).
    pub(crate) fn inject_gp(&self) {
        self.set_rf();
        self.inject(reason::VECTOR_GP, Some(0));
    }

    /// Injects #PF for guest-linear address `gla`; a #PF or #VE under way makes it #DF, a #DF a triple fault.
    pub(crate) fn inject_pf(&self, gla: u64, error_code: u64) -> Result<(), Leave> {
        self.tdvps.set(tdvps::CR2, gla);
        match self.pending_exception() {
            Some(reason::VECTOR_DF) => {
                return Err(Leave::Async(TdExit::of(
                    StatusCode::NON_RECOVERABLE_VCPU,
                    reason::TRIPLE_FAULT.into(),
                    0,
                )));
            }
            Some(reason::VECTOR_PF | reason::VECTOR_VE) => self.inject(reason::VECTOR_DF, Some(0)),
            _ => self.inject(reason::VECTOR_PF, Some(error_code)),
        }
        self.set_rf();
        Ok(())
    }

    /// Fills the #VE information and injects #VE, or injects #DF if the guest has not read the last one.
    ///
    /// `category` tells why; a #VE that the processor raises by itself has none, and leaves that of the last one as it was.
    pub(crate) fn inject_ve(
        &self,
        category: Option<VeCategory>,
        exit_reason: u64,
        qualification: u64,
        gpa: u64,
        gla: u64,
    ) {
        let (tdvps, vmcs) = (self.tdvps, self.vmcs);
        if tdvps.get(tdvps::VE_VALID) == 0 {
            tdvps.set(tdvps::VE_EXIT_REASON, exit_reason as u32);
            tdvps.set(tdvps::VE_EXIT_QUALIFICATION, qualification);
            tdvps.set(tdvps::VE_GLA, gla);
            tdvps.set(tdvps::VE_GPA, gpa);
            tdvps.set(tdvps::VE_EPTP_INDEX, vmcs.read(encoding::EPTP_INDEX) as u16);
            let length = vmcs.read(encoding::EXIT_INSTRUCTION_LENGTH);
            tdvps.set(tdvps::VE_INSTRUCTION_LENGTH, length as u32);
            tdvps.set(
                tdvps::VE_INSTRUCTION_INFO,
                vmcs.read(encoding::EXIT_INSTRUCTION_INFO) as u32,
            );
            if let Some(category) = category.filter(|_| self.core.rules().ve_has_category) {
                tdvps.set(tdvps::VE_CATEGORY, category.into_bits());
                tdvps.set(
                    tdvps::VE_INTERRUPTIBILITY_STATE,
                    vmcs.read(encoding::GUEST_INTERRUPTIBILITY) as u32,
                );
            }
            tdvps.set(tdvps::VE_VALID, VE_INFO_VALID);
            self.inject(reason::VECTOR_VE, None);
        } else {
            self.inject(reason::VECTOR_DF, Some(0));
        }
        self.set_rf();
    }

    /// Injects the NMI that the host asked for, unless a #VE waits to be read, and closes the NMI window.
    pub(crate) fn nmi_window(&self) {
        if self.tdvps.get(tdvps::PEND_NMI) && self.tdvps.get(tdvps::VE_VALID) == 0 {
            let event = reason::EVENT_VALID | reason::EVENT_NMI | reason::VECTOR_NMI;
            self.vmcs.write(encoding::ENTRY_INTERRUPTION_INFO, event);
            self.tdvps.set(tdvps::PEND_NMI, false);
        }
        let controls = self.vmcs.read(encoding::PROC_BASED_CONTROLS);
        self.vmcs.write(
            encoding::PROC_BASED_CONTROLS,
            controls & !NMI_WINDOW_EXITING,
        );
    }

    /// Asks for an exit as soon as an NMI can be delivered, if the host wants one injected.
    pub(crate) fn open_nmi_window(&self) {
        if self.tdvps.get(tdvps::PEND_NMI) && self.tdvps.get(tdvps::VE_VALID) == 0 {
            let controls = self.vmcs.read(encoding::PROC_BASED_CONTROLS);
            self.vmcs
                .write(encoding::PROC_BASED_CONTROLS, controls | NMI_WINDOW_EXITING);
        }
    }

    /// What happens between the handling of an exit and the guest's next instruction.
    pub(crate) fn before_resuming(&mut self, after: After) -> Result<(), Leave> {
        let event = self.vmcs.read(encoding::ENTRY_INTERRUPTION_INFO) & reason::EVENT_VALID != 0;
        if !event && after == After::Done {
            self.open_nmi_window();
            self.advance_rip()?;
        }
        if self.inside.bus_lock {
            return Err(Leave::Async(TdExit::of(
                StatusCode::SUCCESS,
                reason::BUS_LOCK.into(),
                0,
            )));
        }
        self.check_event()
    }

    /// Tells the debugger of an event that waits to be injected and that it wants to know of.
    pub(crate) fn check_event(&self) -> Result<(), Leave> {
        let debug = self.tdcs.has_attribute(tdcs::ATTRIBUTES_DEBUG);
        if debug && is_intercepted(self.vmcs) {
            let event = self.vmcs.read(encoding::ENTRY_INTERRUPTION_INFO);
            let exit = TdExit::of(StatusCode::SUCCESS, reason::EXCEPTION_OR_NMI.into(), 0);
            return Err(Leave::Async(exit.with_interruption(event)));
        }
        Ok(())
    }

    /// Moves guest RIP over the instruction that exited. The module shuts down if the CPU gave no length.
    pub(crate) fn advance_rip(&self) -> Result<(), Leave> {
        advance(self.vmcs)
    }

    fn inject(&self, vector: u64, error_code: Option<u64>) {
        let mut event = reason::EVENT_VALID | reason::EVENT_HARDWARE_EXCEPTION | vector;
        if let Some(code) = error_code {
            event |= reason::EVENT_ERROR_CODE;
            self.vmcs.write(encoding::ENTRY_EXCEPTION_ERROR_CODE, code);
        }
        self.vmcs.write(encoding::ENTRY_INTERRUPTION_INFO, event);
    }

    fn set_rf(&self) {
        self.vmcs.write(
            encoding::GUEST_RFLAGS,
            self.vmcs.read(encoding::GUEST_RFLAGS) | RFLAGS_RF,
        );
    }

    /// Vector of the hardware exception that waits to be injected.
    fn pending_exception(&self) -> Option<u64> {
        pending_exception(self.vmcs)
    }

    /// Delivers the event whose delivery the exit cut short, before anything else; most exits cannot have done so.
    pub(crate) fn resume_delivery(&self) -> Result<(), Leave> {
        let vmcs = self.vmcs;
        let vectoring = vmcs.read(encoding::IDT_VECTORING_INFO);
        if vectoring & reason::EVENT_VALID == 0 {
            return Ok(());
        }
        let exit = vmcs.read(encoding::EXIT_REASON);
        let possible = matches!(
            exit as u16,
            reason::TASK_SWITCH | reason::EPT_VIOLATION | reason::EPT_MISCONFIGURATION
        );
        if !possible {
            if !self.tdcs.has_attribute(tdcs::ATTRIBUTES_DEBUG) {
                return Err(Leave::Shutdown);
            }
            let qualification = vmcs.read(encoding::EXIT_QUALIFICATION);
            return Err(Leave::Async(TdExit::of(
                StatusCode::SUCCESS,
                exit,
                qualification,
            )));
        }
        if vectoring & reason::EVENT_TYPE == reason::EVENT_NMI {
            let state = vmcs.read(encoding::GUEST_INTERRUPTIBILITY);
            vmcs.write(encoding::GUEST_INTERRUPTIBILITY, state & !BLOCKING_BY_NMI);
        }
        deliver_again(vmcs, vectoring);
        Ok(())
    }
}

/// Bits of an event that VM entry takes: vector, type, error code, valid.
const EVENT_BITS: u64 = reason::EVENT_VALID | 0xfff;

fn deliver_again(vmcs: Vmcs<'_>, vectoring: u64) {
    vmcs.write(encoding::ENTRY_INTERRUPTION_INFO, vectoring & EVENT_BITS);
    if vectoring & reason::EVENT_ERROR_CODE != 0 {
        let code = vmcs.read(encoding::IDT_VECTORING_ERROR_CODE);
        vmcs.write(encoding::ENTRY_EXCEPTION_ERROR_CODE, code);
    }
    let length = vmcs.read(encoding::EXIT_INSTRUCTION_LENGTH);
    vmcs.write(encoding::ENTRY_INSTRUCTION_LENGTH, length);
}

/// Delivers the event whose delivery an exit of an L2 VM cut short, once.
pub(crate) fn reinject(vmcs: Vmcs<'_>) {
    let vectoring = vmcs.read(encoding::IDT_VECTORING_INFO);
    if vectoring & reason::EVENT_VALID != 0 {
        deliver_again(vmcs, vectoring);
        vmcs.write(
            encoding::IDT_VECTORING_INFO,
            vectoring & !reason::EVENT_VALID,
        );
    }
}

/// Makes the exception that waits to be injected one that has exited.
pub(crate) fn convert_to_exit(vmcs: Vmcs<'_>) {
    let event = vmcs.read(encoding::ENTRY_INTERRUPTION_INFO);
    let code = vmcs.read(encoding::ENTRY_EXCEPTION_ERROR_CODE);
    vmcs.write(encoding::EXIT_INTERRUPTION_INFO, event);
    vmcs.write(encoding::EXIT_INTERRUPTION_ERROR_CODE, code);
    vmcs.write(
        encoding::ENTRY_INTERRUPTION_INFO,
        event & !reason::EVENT_VALID,
    );
    vmcs.write(encoding::EXIT_REASON, reason::EXCEPTION_OR_NMI.into());
    vmcs.write(encoding::EXIT_QUALIFICATION, 0);
}

/// Blocks NMIs, which an IRET that did not complete had unblocked.
pub(crate) fn block_nmi(vmcs: Vmcs<'_>) {
    let state = vmcs.read(encoding::GUEST_INTERRUPTIBILITY);
    vmcs.write(encoding::GUEST_INTERRUPTIBILITY, state | BLOCKING_BY_NMI);
}

/// Moves RIP over the instruction that exited. The module shuts down if the CPU gave no length.
pub(crate) fn advance(vmcs: Vmcs<'_>) -> Result<(), Leave> {
    let length = vmcs.read(encoding::EXIT_INSTRUCTION_LENGTH);
    if length == 0 {
        return Err(Leave::Shutdown);
    }
    vmcs.write(
        encoding::GUEST_RIP,
        vmcs.read(encoding::GUEST_RIP).wrapping_add(length),
    );
    let interruptibility = vmcs.read(encoding::GUEST_INTERRUPTIBILITY);
    vmcs.write(
        encoding::GUEST_INTERRUPTIBILITY,
        interruptibility & !(BLOCKING_BY_STI | BLOCKING_BY_MOV_SS),
    );
    set_pending_single_step(vmcs);
    Ok(())
}

/// Makes a single-step trap pending if the guest steps itself.
pub(crate) fn set_pending_single_step(vmcs: Vmcs<'_>) {
    let stepping = vmcs.read(encoding::GUEST_RFLAGS) & RFLAGS_TF != 0
        && vmcs.read(encoding::GUEST_DEBUGCTL) & DEBUGCTL_BTF == 0;
    let pending = vmcs.read(encoding::GUEST_PENDING_DEBUG_EXCEPTIONS) & !PENDING_DEBUG_BS;
    let bs = if stepping { PENDING_DEBUG_BS } else { 0 };
    vmcs.write(encoding::GUEST_PENDING_DEBUG_EXCEPTIONS, pending | bs);
}

/// Vector of the hardware exception that waits to be injected.
fn pending_exception(vmcs: Vmcs<'_>) -> Option<u64> {
    let event = vmcs.read(encoding::ENTRY_INTERRUPTION_INFO);
    let exception = reason::EVENT_VALID | reason::EVENT_HARDWARE_EXCEPTION;
    (event & (reason::EVENT_VALID | reason::EVENT_TYPE) == exception)
        .then_some(event & reason::EVENT_VECTOR)
}

/// Whether the exception bitmap selects the exception that waits to be injected.
pub(crate) fn is_intercepted(vmcs: Vmcs<'_>) -> bool {
    let Some(vector) = pending_exception(vmcs) else {
        return false;
    };
    let selected = vmcs.read(encoding::EXCEPTION_BITMAP) >> (vector & 31) & 1 != 0;
    if vector != reason::VECTOR_PF {
        return selected;
    }
    let code = vmcs.read(encoding::EXIT_INTERRUPTION_ERROR_CODE);
    selected
        && code & vmcs.read(PAGE_FAULT_ERROR_CODE_MASK) == vmcs.read(PAGE_FAULT_ERROR_CODE_MATCH)
}

const PAGE_FAULT_ERROR_CODE_MASK: u32 = 0x4006;
const PAGE_FAULT_ERROR_CODE_MATCH: u32 = 0x4008;
