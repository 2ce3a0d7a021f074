//! TDCALL: the leaves that the guest calls.
//!
//! Source: `td_call` in `tdx_td_dispatcher.c` and `src/td_dispatcher/vm_exits/tdg_*.c` of the TDX module 1.5.01.

mod accept;
mod l2;
mod memory;
mod metadata;
mod report;
mod vcpu;

use core::sync::atomic::Ordering;

use tdx_abi::Registers;

use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::abi::TdcallLeaf;
use crate::core::Core;
use crate::exit::After;
use crate::exit::ExitInfo;
use crate::exit::Guest;
use crate::exit::GuestCall;
use crate::exit::GuestExit;
use crate::exit::Leave;
use crate::exit::Stop;
use crate::exit::TdExit;
use crate::exit::gpr;
use crate::exit::reason;
use crate::fault::Calls;
use crate::fault::Effect;
use crate::l2::attributes;
use crate::lp::LpSlot;
use crate::lp::LpState;
use crate::servtd;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;

/// How a guest leaf ends: success, any other status, or not at all.
pub(crate) type Outcome = Result<(), Failure>;

/// Why a guest leaf does not return success.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// It returns this status.
    Status(Status),
    /// It does not return.
    Stop(Stop),
}

impl Failure {
    /// The same, about `operand` if it is a status.
    fn with_operand(self, operand: OperandId) -> Self {
        match self {
            Self::Status(status) => Status::with_operand(status.code(), operand).into(),
            Self::Stop(_) => self,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Leave> for Failure {
    fn from(leave: Leave) -> Self {
        Self::Stop(Stop::Leave(leave))
    }
}

/// Bytes of the TDCALL instruction.
const TDCALL_BYTES: u32 = 4;
/// RAX bits that are neither leaf (15:0) nor version (23:16).
const RESERVED_RAX: u64 = !0xff_ffff;

/// Executes the TDCALL in `regs`, if a guest is inside a TD on this LP.
pub(crate) fn tdcall(
    core: &Core,
    slot: &LpSlot,
    lp: &mut LpState,
    regs: &mut Registers,
) -> GuestCall {
    core.counters.count_tdcall(regs.rax as u16);
    let Some(mut guest) = Guest::on(core, slot, lp) else {
        return GuestCall::NotInGuest;
    };
    let info = ExitInfo {
        reason: reason::TDCALL.into(),
        instruction_length: TDCALL_BYTES,
        ..ExitInfo::default()
    };
    guest.save(regs, &info);
    let (call, outcome) = if guest.vm == 0 {
        guest.l1_call()
    } else {
        guest.l2_call()
    };
    match guest.conclude(outcome, regs) {
        GuestExit::ResumedTd => call,
        GuestExit::ExitedToVmm => GuestCall::ExitedToVmm,
        GuestExit::Shutdown => GuestCall::Shutdown,
        GuestExit::NotInGuest => GuestCall::NotInGuest,
    }
}

impl Guest<'_> {
    fn l1_call(&mut self) -> (GuestCall, Result<(), Leave>) {
        // The single-step defence lets every TDCALL pass.
        let call = match self.prologue().and_then(|_| self.call()) {
            Ok(call) => call,
            Err(leave) => return (GuestCall::ReturnedToTd, Err(leave)),
        };
        if self.vm != 0 {
            // TDG.VP.ENTER goes on in the L2 VM.
            return (call, Ok(()));
        }
        let after = if call == GuestCall::Reexecute {
            After::Reexecute
        } else {
            After::Done
        };
        (call, self.before_resuming(after))
    }

    fn l2_call(&mut self) -> (GuestCall, Result<(), Leave>) {
        let outcome = self.l2_exit();
        let event = self.vmcs.read(encoding::ENTRY_INTERRUPTION_INFO) & reason::EVENT_VALID != 0;
        let call = if event {
            GuestCall::EventInjected
        } else {
            GuestCall::ReturnedToTd
        };
        (call, outcome)
    }

    /// Executes the TDCALL in the guest's registers.
    pub(crate) fn call(&mut self) -> Result<GuestCall, Leave> {
        if !self.is_in_64_bit_mode() {
            self.inject_gp();
            return Ok(GuestCall::EventInjected);
        }
        let outcome = self.suffer_fault().and_then(|()| self.dispatch());
        self.slot.fault_interrupt.store(false, Ordering::Relaxed);
        let status = match outcome {
            Ok(()) => Status::of(StatusCode::SUCCESS),
            Err(Failure::Status(status)) => status,
            Err(Failure::Stop(Stop::Leave(leave))) => return Err(leave),
            Err(Failure::Stop(Stop::EnteredL2)) => return Ok(GuestCall::ReturnedToTd),
            Err(Failure::Stop(Stop::Injected)) => return Ok(GuestCall::EventInjected),
            Err(Failure::Stop(Stop::Reexecute)) => {
                self.tdvps.set(tdvps::HP_LOCK_BUSY, false);
                return Ok(GuestCall::Reexecute);
            }
        };
        let status = self.limit_host_priority(status)?;
        self.set_register(gpr::RAX, status.rax());
        Ok(GuestCall::ReturnedToTd)
    }

    /// Lets a fault that is in force strike the call.
    fn suffer_fault(&self) -> Outcome {
        let leaf = TdcallLeaf::new(self.register(gpr::RAX) as u16);
        match self.core.faults.on(Calls::Guest(leaf)) {
            Some(Effect::Status(status)) => return Err(status.into()),
            Some(Effect::Interrupt) => self.slot.fault_interrupt.store(true, Ordering::Relaxed),
            None => {}
        }
        Ok(())
    }

    /// Refuses a version of `leaf` that the module does not have.
    fn check_version(&self, leaf: TdcallLeaf, version: u8) -> Outcome {
        if version > leaf.max_version(self.core.module()).unwrap_or(0) {
            return Err(Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RAX).into());
        }
        Ok(())
    }

    fn dispatch(&mut self) -> Outcome {
        let invalid = Failure::Status(Status::with_operand(
            StatusCode::OPERAND_INVALID,
            OperandId::RAX,
        ));
        let rax = self.register(gpr::RAX);
        let leaf = TdcallLeaf::new(rax as u16);
        let version = (rax >> 16) as u8;
        let module = self.core.module();
        let unversioned = leaf.max_version(module).unwrap_or(0) == 0;
        if rax & RESERVED_RAX != 0 || version > 0 && unversioned || !leaf.dispatched(module) {
            return Err(invalid);
        }
        match leaf {
            TdcallLeaf::TDG_VP_VMCALL => self.vmcall(),
            TdcallLeaf::TDG_VP_INFO => self.info(),
            TdcallLeaf::TDG_VP_VEINFO_GET => self.veinfo_get(version),
            TdcallLeaf::TDG_VP_CPUIDVE_SET => self.cpuidve_set(),
            TdcallLeaf::TDG_MEM_PAGE_ACCEPT => self.page_accept(),
            TdcallLeaf::TDG_MR_RTMR_EXTEND => self.rtmr_extend(),
            TdcallLeaf::TDG_VM_RD => self.vm_rd(version),
            TdcallLeaf::TDG_VM_WR => self.vm_wr(),
            TdcallLeaf::TDG_VP_RD => self.vp_rd(),
            TdcallLeaf::TDG_VP_WR => self.vp_wr(),
            TdcallLeaf::TDG_SYS_RD => self.sys_rd(),
            TdcallLeaf::TDG_SYS_RDALL => self.sys_rdall(),
            TdcallLeaf::TDG_MR_REPORT => self.mr_report(),
            TdcallLeaf::TDG_VP_ENTER => self.l2_enter(),
            TdcallLeaf::TDG_VP_INVEPT => self.invept(),
            TdcallLeaf::TDG_VP_INVVPID => self.invvpid(),
            TdcallLeaf::TDG_SERVTD_RD => servtd::access::rd(self),
            TdcallLeaf::TDG_SERVTD_WR => servtd::access::wr(self),
            TdcallLeaf::TDG_MEM_PAGE_ATTR_RD => attributes::rd(self),
            TdcallLeaf::TDG_MEM_PAGE_ATTR_WR => attributes::wr(self),
            // The emulated CPU has no SEAMGETKEY, without which no key is given.
            TdcallLeaf::TDG_MR_KEY_GET => Err(Status::of(StatusCode::OPERAND_INVALID).into()),
            // The emulated CPU has no SEAMVERIFYREPORT, without which TDG.MR.VERIFYREPORT ends so too.
            _ => Err(invalid),
        }
    }

    /// A guest does not learn of host priority: it sees BUSY, and after HP_LOCK_TIMEOUT the TD is left.
    fn limit_host_priority(&mut self, status: Status) -> Result<Status, Leave> {
        if status.code() != StatusCode::OPERAND_BUSY_HOST_PRIORITY {
            self.tdvps.set(tdvps::HP_LOCK_BUSY, false);
            return Ok(status);
        }
        let status = Status::with_detail(StatusCode::OPERAND_BUSY, status.low());
        let now = self.core.tsc();
        if !self.tdvps.get(tdvps::HP_LOCK_BUSY) {
            self.tdvps.set(tdvps::HP_LOCK_BUSY, true);
            self.tdvps.set(tdvps::HP_LOCK_BUSY_START, now);
        } else {
            let waited = self
                .core
                .tsc()
                .wrapping_sub(self.tdvps.get(tdvps::HP_LOCK_BUSY_START));
            if waited >= self.tdcs.get(tdcs::HP_LOCK_TIMEOUT) {
                self.tdvps.set(tdvps::HP_LOCK_BUSY, false);
                self.set_register(gpr::RAX, status.rax());
                return Err(Leave::Async(TdExit::bare(
                    StatusCode::HOST_PRIORITY_BUSY_TIMEOUT,
                )));
            }
        }
        Ok(status)
    }
}
