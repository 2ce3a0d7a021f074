//! TD exits, and what the module does with a VM exit of the guest before it comes to one.
//!
//! Source: `src/td_dispatcher/tdx_td_dispatcher.c`, `src/td_dispatcher/vm_exits` and
//! `src/td_transitions/td_exit.c` of the TDX module 1.5.01.

mod control_register;
mod cpuid;
mod dispatch;
pub(crate) mod ept_violation;
pub(crate) mod event;
mod leave;
pub(crate) mod msr;
pub(crate) mod reason;
pub(crate) mod stepping;
pub(crate) mod xmm;

pub(crate) use dispatch::guest_exit;
use tdx_abi::Registers;

use crate::abi::StatusCode;
use crate::core::Core;
use crate::l2::Vcpu;
use crate::lp::Inside;
use crate::lp::LpSlot;
use crate::lp::LpState;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::Tdvps;
use crate::structures::Vmcs;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;

/// A VM exit of a guest other than by TDCALL, as the CPU reports it in the VMCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitInfo {
    /// Exit reason, all 32 bits: basic reason in bits 15:0.
    pub reason: u32,
    /// Exit qualification.
    pub qualification: u64,
    /// Guest-physical address.
    pub gpa: u64,
    /// Guest-linear address.
    pub gla: u64,
    /// VM-exit interruption information.
    pub interruption_info: u32,
    /// VM-exit interruption error code.
    pub interruption_error_code: u32,
    /// VM-exit instruction length in bytes.
    pub instruction_length: u32,
    /// VM-exit instruction information.
    pub instruction_info: u32,
    /// IDT-vectoring information.
    pub idt_vectoring_info: u32,
    /// IDT-vectoring error code.
    pub idt_vectoring_error_code: u32,
    /// Whether the guest is where it was at its last entry, so that the zero-step defence counts;
    /// otherwise its RIP has moved on.
    pub keeps_rip: bool,
}

/// Bytes by which guest code is taken to move between one exit and the next.
const PROGRESS: u64 = 0x100;

/// What becomes of a VM exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestExit {
    /// The module handled it and resumed the guest: the registers are the guest's.
    ResumedTd,
    /// TD exit: TDH.VP.ENTER returns to the VMM, the registers are the VMM's.
    ExitedToVmm,
    /// The module executed UD2, which shuts it down: nothing works any more.
    Shutdown,
    /// No guest is inside its TD on this LP; nothing was done.
    NotInGuest,
}

/// What becomes of a TDCALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestCall {
    /// It completed: the registers are the guest's.
    ReturnedToTd,
    /// TD exit: TDH.VP.ENTER returns to the VMM, the registers are the VMM's.
    ExitedToVmm,
    /// It was interrupted: registers and RIP are as before, the guest executes it again.
    Reexecute,
    /// An exception was injected instead: the registers are as before, RIP too.
    EventInjected,
    /// The module executed UD2, which shuts it down: nothing works any more.
    Shutdown,
    /// No guest is inside its TD on this LP; nothing was done.
    NotInGuest,
}

/// An asynchronous TD exit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TdExit {
    /// TDX_SUCCESS, or why the vCPU or the TD cannot go on.
    pub(crate) status: StatusCode,
    /// Exit reason for RAX bits 31:0.
    pub(crate) reason: u64,
    /// Exit qualification for RCX.
    pub(crate) qualification: u64,
    /// Extended exit qualification for RDX.
    pub(crate) extended: u64,
    /// Guest-physical address for R8.
    pub(crate) gpa: u64,
    /// Interruption information for R9.
    pub(crate) interruption: u64,
    /// Whether a preempted bus lock is added to the reason.
    pub(crate) tells_bus_lock: bool,
}

/// How the guest leaves its TD.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leave {
    /// Asynchronously.
    Async(TdExit),
    /// By TDG.VP.VMCALL with this RCX.
    Vmcall(u64),
    /// Not at all: the module shuts down.
    Shutdown,
}

/// How the handling of an exit ends if the guest stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The instruction is done, unless an event has been injected meanwhile.
    Done,
    /// The instruction was interrupted and will be executed again.
    Reexecute,
}

/// Why a TDCALL does not return a status.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// TD exit.
    Leave(Leave),
    /// An event was injected in its place; it will be executed again after the event.
    Injected,
    /// An interrupt is pending; it will be executed again.
    Reexecute,
    /// An L2 VM has been entered.
    EnteredL2,
}

/// What the VMCS says of an exit when it is handled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Exit reason.
    pub(crate) reason: u64,
    /// Exit qualification.
    pub(crate) qualification: u64,
    /// VM-exit interruption information.
    pub(crate) interruption: u64,
}

impl Seen {
    /// Reads it.
    pub(crate) fn of(vmcs: Vmcs<'_>) -> Self {
        Self {
            reason: vmcs.read(encoding::EXIT_REASON),
            qualification: vmcs.read(encoding::EXIT_QUALIFICATION),
            interruption: vmcs.read(encoding::EXIT_INTERRUPTION_INFO),
        }
    }
}

impl TdExit {
    /// An exit that only says why.
    pub(crate) const fn bare(status: StatusCode) -> Self {
        Self {
            status,
            reason: 0,
            qualification: 0,
            extended: 0,
            gpa: 0,
            interruption: 0,
            tells_bus_lock: false,
        }
    }

    /// An exit that hands on a VM exit.
    pub(crate) const fn of(status: StatusCode, reason: u64, qualification: u64) -> Self {
        Self {
            reason,
            qualification,
            tells_bus_lock: true,
            ..Self::bare(status)
        }
    }

    /// The same exit with interruption information.
    pub(crate) const fn with_interruption(self, interruption: u64) -> Self {
        Self {
            interruption,
            ..self
        }
    }

    /// An exit of a service TD because of its target, whose status the guest finds in RAX afterwards.
    pub(crate) const fn cross_td(status: StatusCode, cross_td_status: u64, target: u64) -> Self {
        Self {
            extended: cross_td_status,
            gpa: target,
            ..Self::bare(status)
        }
    }
}

/// A vCPU inside its TD, with the LP that runs it.
pub(crate) struct Guest<'a> {
    pub(crate) core: &'a Core,
    pub(crate) slot: &'a LpSlot,
    pub(crate) lp: &'a mut LpState,
    pub(crate) inside: Inside,
    pub(crate) tdr: Tdr<'a>,
    pub(crate) tdcs: Tdcs<'a>,
    pub(crate) tdvps: Tdvps<'a>,
    /// The VM that runs: 0 is L1.
    pub(crate) vm: usize,
    /// Its VMCS.
    pub(crate) vmcs: Vmcs<'a>,
}

/// Encoding of a register in TDVPS' array of general-purpose registers.
pub(crate) mod gpr {
    pub(crate) const RAX: usize = 0;
    pub(crate) const RCX: usize = 1;
    pub(crate) const RDX: usize = 2;
    pub(crate) const RBX: usize = 3;
    pub(crate) const RBP: usize = 5;
    pub(crate) const RSI: usize = 6;
    pub(crate) const RDI: usize = 7;
    pub(crate) const R8: usize = 8;
    pub(crate) const R9: usize = 9;
    pub(crate) const R10: usize = 10;
    pub(crate) const R11: usize = 11;
    pub(crate) const R12: usize = 12;
    pub(crate) const R13: usize = 13;
    pub(crate) const R14: usize = 14;
    pub(crate) const R15: usize = 15;
}

impl<'a> Guest<'a> {
    /// The vCPU that is inside its TD on this LP, if any.
    pub(crate) fn on(core: &'a Core, slot: &'a LpSlot, lp: &'a mut LpState) -> Option<Self> {
        let inside = lp.inside?;
        let tdr = core.tdr(inside.tdr);
        let tdvps = core.tdvps(inside.tdvpr);
        let tdcs = core.tdcs(tdr);
        let vcpu = Vcpu {
            core,
            tdr,
            tdcs,
            tdvps,
        };
        Some(Self {
            core,
            slot,
            lp,
            inside,
            tdr,
            tdcs,
            tdvps,
            vm: vcpu.vm(),
            vmcs: vcpu.vmcs(),
        })
    }

    /// The vCPU alone.
    pub(crate) fn vcpu(&self) -> Vcpu<'a> {
        Vcpu {
            core: self.core,
            tdr: self.tdr,
            tdcs: self.tdcs,
            tdvps: self.tdvps,
        }
    }

    /// What the VMCS says of the exit.
    pub(crate) fn seen(&self) -> Seen {
        Seen::of(self.vmcs)
    }

    /// A general-purpose register of the guest, as numbered in [`gpr`].
    pub(crate) fn register(&self, number: usize) -> u64 {
        self.tdvps.get(tdvps::GPRS.nth(number))
    }

    /// Sets a general-purpose register of the guest.
    pub(crate) fn set_register(&self, number: usize, value: u64) {
        self.tdvps.set(tdvps::GPRS.nth(number), value);
    }

    /// Saves the guest's registers, and what the CPU reports of the exit.
    pub(crate) fn save(&mut self, regs: &Registers, info: &ExitInfo) {
        for (number, value) in numbered(regs) {
            self.set_register(number, value);
        }
        let vmcs = self.vmcs;
        vmcs.write(encoding::EXIT_REASON, info.reason.into());
        vmcs.write(encoding::EXIT_QUALIFICATION, info.qualification);
        vmcs.write(
            encoding::EXIT_INTERRUPTION_INFO,
            info.interruption_info.into(),
        );
        vmcs.write(
            encoding::EXIT_INTERRUPTION_ERROR_CODE,
            info.interruption_error_code.into(),
        );
        vmcs.write(encoding::IDT_VECTORING_INFO, info.idt_vectoring_info.into());
        vmcs.write(
            encoding::IDT_VECTORING_ERROR_CODE,
            info.idt_vectoring_error_code.into(),
        );
        vmcs.write(encoding::GUEST_PHYSICAL_ADDRESS, info.gpa);
        vmcs.write(encoding::GUEST_LINEAR_ADDRESS, info.gla);
        vmcs.write(
            encoding::EXIT_INSTRUCTION_LENGTH,
            info.instruction_length.into(),
        );
        vmcs.write(
            encoding::EXIT_INSTRUCTION_INFO,
            info.instruction_info.into(),
        );
        let event = vmcs.read(encoding::ENTRY_INTERRUPTION_INFO);
        vmcs.write(
            encoding::ENTRY_INTERRUPTION_INFO,
            event & !reason::EVENT_VALID,
        );
        let advance = if info.keeps_rip { 0 } else { PROGRESS };
        let rip = vmcs.read(encoding::GUEST_RIP).wrapping_add(advance);
        vmcs.write(encoding::GUEST_RIP, rip);
        enter_long_mode(vmcs);
    }

    /// The guest's registers, to resume it.
    fn restore(&self, regs: &mut Registers) {
        *regs = load_registers(self.tdvps);
    }
}

/// The registers of `regs` with their numbers.
pub(crate) const fn numbered(regs: &Registers) -> [(usize, u64); 15] {
    [
        (gpr::RAX, regs.rax),
        (gpr::RCX, regs.rcx),
        (gpr::RDX, regs.rdx),
        (gpr::RBX, regs.rbx),
        (gpr::RBP, regs.rbp),
        (gpr::RSI, regs.rsi),
        (gpr::RDI, regs.rdi),
        (gpr::R8, regs.r8),
        (gpr::R9, regs.r9),
        (gpr::R10, regs.r10),
        (gpr::R11, regs.r11),
        (gpr::R12, regs.r12),
        (gpr::R13, regs.r13),
        (gpr::R14, regs.r14),
        (gpr::R15, regs.r15),
    ]
}

/// The registers of `regs` with their numbers, to be changed.
pub(crate) fn numbered_mut(regs: &mut Registers) -> [(usize, &mut u64); 15] {
    [
        (gpr::RAX, &mut regs.rax),
        (gpr::RCX, &mut regs.rcx),
        (gpr::RDX, &mut regs.rdx),
        (gpr::RBX, &mut regs.rbx),
        (gpr::RBP, &mut regs.rbp),
        (gpr::RSI, &mut regs.rsi),
        (gpr::RDI, &mut regs.rdi),
        (gpr::R8, &mut regs.r8),
        (gpr::R9, &mut regs.r9),
        (gpr::R10, &mut regs.r10),
        (gpr::R11, &mut regs.r11),
        (gpr::R12, &mut regs.r12),
        (gpr::R13, &mut regs.r13),
        (gpr::R14, &mut regs.r14),
        (gpr::R15, &mut regs.r15),
    ]
}

/// Whether RCX of TDG.VP.VMCALL passes register `number`: RAX and RCX have other uses.
pub(crate) const fn selected(control: u64, number: usize) -> bool {
    number > gpr::RCX && control >> number & 1 != 0
}

/// The guest's registers as TDVPS keeps them.
pub(crate) fn load_registers(tdvps: Tdvps<'_>) -> Registers {
    let mut regs = Registers::default();
    for (number, to) in numbered_mut(&mut regs) {
        *to = tdvps.get(tdvps::GPRS.nth(number));
    }
    regs
}

/// The emulated guest runs in 64-bit ring 0 from its first exit on.
fn enter_long_mode(vmcs: Vmcs<'_>) {
    /// Execute/read, code, ring 0, present, L.
    const CODE_64: u64 = 0xa09b;
    /// Read/write, data, ring 0, present.
    const DATA: u64 = 0xc093;
    /// IA32_EFER: LME, LMA, NXE, SCE as TDs start with, and LMA.
    const EFER_LMA: u64 = 1 << 10;
    let efer = vmcs.read(encoding::GUEST_EFER);
    if efer & EFER_LMA == 0 {
        vmcs.write(encoding::GUEST_EFER, efer | EFER_LMA);
        vmcs.write(encoding::GUEST_CS_ACCESS_RIGHTS, CODE_64);
        vmcs.write(encoding::GUEST_SS_ACCESS_RIGHTS, DATA);
    }
}
