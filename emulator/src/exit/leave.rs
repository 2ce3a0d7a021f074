//! From inside a TD back to the VMM.

use tdx_abi::Level;
use tdx_abi::Registers;

use super::Guest;
use super::GuestExit;
use super::Leave;
use super::TdExit;
use super::numbered_mut;
use super::reason;
use super::selected;
use super::xmm;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::lock::Mode;
use crate::lock::SharexHp;
use crate::lp::Xmm;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdr;
use crate::structures::tdvps;
use crate::structures::tdvps::last_exit;
use crate::structures::tdvps::state;

/// RAX bit 61: the TD cannot be entered any more.
const FATAL: u64 = 1 << 61;
/// RAX bit 60: the exit was trap-like, the host may give a recoverability hint.
const RECOVERABILITY_HINT: u64 = 1 << 60;
/// RCX bits 33:32: the VM that ran.
const VM_SHIFT: u32 = 32;
const VM_MASK: u64 = 3 << VM_SHIFT;
/// Bits of RCX that select registers for TDG.VP.VMCALL.
const VMCALL_SELECT: u64 = 0xffff_ffff;

/// What remains of the vCPU after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vcpu {
    state: u8,
    last_exit: u8,
    /// Whether nothing of the TD may be touched any more.
    dead: bool,
    /// Whether RIP goes past the instruction that exited.
    trap: bool,
    /// XMM registers that the host gets.
    xmm: Xmm,
}

impl Guest<'_> {
    /// Leaves the TD: the vCPU's state is saved, its locks are released, and `regs` become the VMM's.
    pub(crate) fn leave(mut self, leave: Leave, regs: &mut Registers) -> GuestExit {
        match leave {
            Leave::Shutdown => return GuestExit::Shutdown,
            Leave::Async(exit) => {
                let vcpu = self.async_registers(exit, regs);
                self.exit(vcpu);
            }
            Leave::Vmcall(control) => {
                self.vmcall_registers(control, regs);
                let xmm = xmm::selected(control, &self.lp.xmm);
                self.exit(Vcpu {
                    state: state::READY,
                    last_exit: last_exit::TDVMCALL,
                    dead: false,
                    trap: true,
                    xmm,
                });
            }
        }
        GuestExit::ExitedToVmm
    }

    fn async_registers(&mut self, exit: TdExit, regs: &mut Registers) -> Vcpu {
        let mut vcpu = Vcpu {
            state: self.tdvps.get(tdvps::STATE),
            last_exit: self.tdvps.get(tdvps::LAST_TD_EXIT),
            dead: exit.status == StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE,
            trap: exit.status.value() & RECOVERABILITY_HINT != 0,
            xmm: Xmm::default(),
        };
        let mut status = exit.status.value();
        match exit.status {
            StatusCode::NON_RECOVERABLE_VCPU => vcpu.state = state::DISABLED,
            StatusCode::NON_RECOVERABLE_TD
            | StatusCode::NON_RECOVERABLE_TD_WRONG_APIC_MODE
            | StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE
            | StatusCode::NON_RECOVERABLE_TD_CORRUPTED_MD => {
                self.tdr.set(tdr::FATAL, true);
                status |= FATAL;
            }
            StatusCode::CROSS_TD_TRAP | StatusCode::HOST_PRIORITY_BUSY_TIMEOUT => {
                vcpu.state = state::READY;
                vcpu.last_exit = last_exit::ASYNC_TRAP;
            }
            _ => {
                vcpu.state = state::READY;
                vcpu.last_exit = last_exit::ASYNC_FAULT;
            }
        }
        let mut exit_reason = exit.reason;
        if exit.tells_bus_lock && self.inside.bus_lock {
            exit_reason |= reason::BUS_LOCK_PREEMPTED;
        }
        self.inside.bus_lock = false;
        let vm = u64::from(self.tdvps.get(tdvps::CURR_VM));
        *regs = Registers {
            rax: Status::from_rax(status | exit_reason & 0xffff_ffff).rax(),
            rcx: exit.qualification & !VM_MASK | vm << VM_SHIFT & VM_MASK,
            rdx: exit.extended,
            r8: exit.gpa,
            r9: exit.interruption,
            ..Registers::default()
        };
        vcpu
    }

    fn vmcall_registers(&mut self, control: u64, regs: &mut Registers) {
        let vm = u64::from(self.tdvps.get(tdvps::CURR_VM));
        let keep_rbp = self.tdcs.get(tdcs::CONFIG_FLAGS) & tdcs::CONFIG_NO_RBP_MOD != 0;
        let mut exit_reason = u64::from(reason::TDCALL);
        if self.inside.bus_lock {
            exit_reason |= reason::BUS_LOCK_PREEMPTED;
            self.inside.bus_lock = false;
        }
        *regs = Registers {
            rax: exit_reason,
            rcx: control & VMCALL_SELECT | vm << VM_SHIFT,
            rbp: if keep_rbp { self.inside.host.rbp } else { 0 },
            ..Registers::default()
        };
        for (number, to) in numbered_mut(regs) {
            if selected(control, number) {
                *to = self.register(number);
            }
        }
    }

    fn exit(self, vcpu: Vcpu) {
        let tdvps = self.tdvps;
        if !vcpu.dead {
            tdvps.set(tdvps::STATE, vcpu.state);
            tdvps.set(tdvps::LAST_TD_EXIT, vcpu.last_exit);
            if self.vm != 0 && !vcpu.trap {
                self.vcpu().store_state();
            }
            xmm::save(tdvps, &self.lp.xmm);
            if vcpu.trap {
                // A TDCALL always has a length.
                let _ = self.advance_rip();
            }
            let epoch = tdvps.get(tdvps::VCPU_EPOCH);
            self.tdcs
                .update(tdcs::REFCOUNT.nth((epoch & 1) as usize), |count: u16| {
                    count.wrapping_sub(1)
                });
        }
        self.lp.xmm = vcpu.xmm;
        self.lp.inside = None;
        self.slot.leave_guest();
        self.core.counters.count_exit();
        if let Ok(entry) = self.core.implicit(self.inside.tdr, Level::Pt) {
            SharexHp::release(entry.lock(), Mode::Shared);
        }
        if let Some(block) = self.core.global.block(self.inside.tdvpr) {
            block.release(self.inside.tdvpr, Mode::Shared, Level::Pt);
        }
    }
}
