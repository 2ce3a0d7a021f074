//! Into an L2 VM and out of it again.
//!
//! Source: `tdg_vp_enter.c`, `td_l2_to_l1_exit_internal` in `td_exit.c`, `handle_l2_entry` in `tdh_vp_enter.c` and
//! `translate_gpas` in `helpers.c` of the TDX module 1.5.01.

use tdx_abi::Level;

use super::Vcpu;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::exit::Guest;
use crate::exit::Leave;
use crate::exit::Seen;
use crate::exit::TdExit;
use crate::exit::event;
use crate::exit::gpr;
use crate::exit::reason;
use crate::sept;
use crate::structures::Structure;
use crate::structures::Vmcs;
use crate::structures::tdcs;
use crate::structures::tdr;
use crate::structures::tdvps;
use crate::structures::tdvps::last_exit;
use crate::structures::tdvps::routed;
use crate::structures::vmcs::encoding;

/// L2_DEBUG_CTLS.TD_EXIT_ON_L2_TO_L1.
const TD_EXIT_ON_L2_TO_L1: u64 = 1 << 1;
/// General-purpose registers of the state that the L1 VMM keeps of an L2 vCPU, RSP among them.
const REGISTERS: usize = 16;
const RSP: usize = 4;
/// What follows the registers in that state.
const RFLAGS: u64 = 0x80;
const RIP: u64 = 0x88;
const SSP: u64 = 0x90;
const INTERRUPT_STATUS: u64 = 0x98;
/// Pin-based control: VMX-preemption timer.
const PREEMPTION_TIMER: u64 = 1 << 6;

/// Fields of the state behind the registers and where the VMCS has them; the interrupt status has 16 bits.
const BEHIND: [(u64, u32); 3] = [
    (RFLAGS, encoding::GUEST_RFLAGS),
    (RIP, encoding::GUEST_RIP),
    (SSP, encoding::GUEST_SSP),
];

impl<'m> Vcpu<'m> {
    /// The VMCS of the VM that runs.
    pub(crate) fn vmcs(self) -> Vmcs<'m> {
        self.tdvps.vmcs(self.vm())
    }

    /// The VM that runs: 0 is L1.
    pub(crate) fn vm(self) -> usize {
        usize::from(self.tdvps.get(tdvps::CURR_VM)).min(self.tdcs.l2_vms())
    }

    /// Where the guest may read the private page of `gpa`, KeyID included.
    fn accessible(self, gpa: u64) -> Option<u64> {
        let core = self.core;
        if !core.is_valid_gpa(gpa, self.tdcs.get(tdcs::GPAW), true) {
            return None;
        }
        let found = sept::walk(core.memory(), self.tdcs.root(), gpa, Level::Pt);
        let accessible = found.entry.is_leaf() && found.entry.state().guest_accessible_leaf();
        accessible.then(|| {
            let hpa = found.entry.translate(gpa, found.level);
            core.with_key_id(hpa, self.tdr.get(tdr::HKID))
        })
    }

    /// Finds the memory of the state of `vm` that the L1 VMM keeps; the address that the guest may not read.
    fn translate_state(self, vm: usize) -> Result<(), u64> {
        let known = tdvps::L2_ENTER_GUEST_STATE_HPA.nth(vm);
        if self.tdvps.get(known) == tdvps::NULL_PA {
            let gpa = self.tdvps.get(tdvps::L2_ENTER_GUEST_STATE_GPA.nth(vm));
            self.tdvps.set(known, self.accessible(gpa).ok_or(gpa)?);
        }
        Ok(())
    }

    /// Finds all memory that the entry of `vm` needs; the address that the guest may not read.
    pub(crate) fn translate_operands(self, vm: usize) -> Result<(), u64> {
        self.translate_state(vm)?;
        let known = tdvps::L2_VAPIC_HPA.nth(vm);
        if self.tdvps.get(known) == tdvps::NULL_PA {
            let gpa = self.tdvps.get(tdvps::L2_VAPIC_GPA.nth(vm));
            let hpa = self.accessible(gpa).ok_or(gpa)?;
            self.tdvps.set(known, hpa);
            self.tdvps.vmcs(vm).write(encoding::VIRTUAL_APIC_PAGE, hpa);
        }
        Ok(())
    }

    fn state_at(self, vm: usize) -> u64 {
        let hpa = self.tdvps.get(tdvps::L2_ENTER_GUEST_STATE_HPA.nth(vm));
        self.core.without_key_id(hpa)
    }

    /// Takes the state of `vm` from memory.
    fn load_state(self, vm: usize) {
        let at = self.state_at(vm);
        let memory = self.core.memory();
        let vmcs = self.tdvps.vmcs(vm);
        for number in 0..REGISTERS {
            let value = memory.read_u64(at + 8 * number as u64);
            self.tdvps.set(tdvps::GPRS.nth(number), value);
        }
        vmcs.write(encoding::GUEST_RSP, self.tdvps.get(tdvps::GPRS.nth(RSP)));
        for (offset, field) in BEHIND {
            vmcs.write(field, memory.read_u64(at + offset));
        }
        let status = memory.read_u64(at + INTERRUPT_STATUS);
        vmcs.write(encoding::GUEST_INTERRUPT_STATUS, status);
    }

    /// Puts the state of the L2 VM that runs into memory.
    pub(crate) fn store_state(self) {
        let vm = self.vm();
        if self.tdvps.get(tdvps::L2_ENTER_GUEST_STATE_HPA.nth(vm)) == tdvps::NULL_PA {
            return;
        }
        let at = self.state_at(vm);
        let memory = self.core.memory();
        let vmcs = self.tdvps.vmcs(vm);
        for number in 0..REGISTERS {
            let value = self.tdvps.get(tdvps::GPRS.nth(number));
            memory.write_u64(at + 8 * number as u64, value);
        }
        memory.write_u64(at + 8 * RSP as u64, vmcs.read(encoding::GUEST_RSP));
        for (offset, field) in BEHIND {
            memory.write_u64(at + offset, vmcs.read(field));
        }
        let status = vmcs.read(encoding::GUEST_INTERRUPT_STATUS) as u16;
        memory.write(at + INTERRUPT_STATUS, &status.to_le_bytes());
    }

    /// Puts what the L1 VMM learns of an exit of the L2 VM into its registers.
    fn report(self, status: Status, seen: &Seen, gpa: u64, extended: u64) {
        let vmcs = self.vmcs();
        let pair = |high: u32, low: u64| vmcs.read(high) << 32 | low & 0xffff_ffff;
        let code_segment = vmcs.read(encoding::GUEST_CS_SELECTOR)
            | vmcs.read(encoding::GUEST_CS_ACCESS_RIGHTS) << 16 & 0xffff_0000
            | vmcs.read(encoding::GUEST_CS_LIMIT) << 32;
        let values = [
            (gpr::RAX, status.rax()),
            (gpr::RBX, 0),
            (gpr::RCX, seen.qualification),
            (gpr::RDX, vmcs.read(encoding::GUEST_LINEAR_ADDRESS)),
            (gpr::RSI, code_segment),
            (gpr::RDI, vmcs.read(encoding::GUEST_CS_BASE)),
            (gpr::R8, gpa),
            (
                gpr::R9,
                pair(encoding::EXIT_INTERRUPTION_ERROR_CODE, seen.interruption),
            ),
            (
                gpr::R10,
                pair(
                    encoding::IDT_VECTORING_ERROR_CODE,
                    vmcs.read(encoding::IDT_VECTORING_INFO),
                ),
            ),
            (
                gpr::R11,
                pair(
                    encoding::EXIT_INSTRUCTION_LENGTH,
                    vmcs.read(encoding::EXIT_INSTRUCTION_INFO),
                ),
            ),
            // Bits 1:0: the L2 VM's privilege level.
            (
                gpr::R12,
                vmcs.read(encoding::GUEST_SS_ACCESS_RIGHTS) >> 5 & 3,
            ),
            (gpr::R13, extended),
            (gpr::R14, 0),
            (gpr::R15, 0),
        ];
        for (number, value) in values {
            self.tdvps.set(tdvps::GPRS.nth(number), value);
        }
    }

    /// Notes that the next entry goes to the L1 VM, which is told of an exit of the L2 VM.
    pub(crate) fn route_to_l1(self) {
        if self.tdvps.get(tdvps::L2_EXIT_HOST_ROUTED) == routed::NONE {
            let by_call = self.tdvps.get(tdvps::LAST_TD_EXIT) == last_exit::TDVMCALL;
            self.tdvps.set(
                tdvps::L2_EXIT_HOST_ROUTED,
                if by_call {
                    routed::TDVMCALL
                } else {
                    routed::ASYNC
                },
            );
        }
    }

    /// What TDH.VP.ENTER does of its own for a vCPU that was in an L2 VM; `take_registers` takes what the host passes after a
    /// VMCALL. The address that the guest may not read.
    ///
    /// Nothing of what was done is taken back if this or a later step fails.
    pub(crate) fn enter_from_host(
        self,
        seen: &mut Seen,
        gpa: u64,
        take_registers: impl FnOnce(),
    ) -> Result<(), u64> {
        let vmcs = self.vmcs();
        if self.tdvps.get(tdvps::L2_EXIT_HOST_ROUTED) == routed::NONE {
            event::reinject(vmcs);
        }
        if event::is_intercepted(vmcs) {
            event::convert_to_exit(vmcs);
            seen.reason = reason::EXCEPTION_OR_NMI.into();
            seen.qualification = 0;
            self.route_to_l1();
        }
        let route = self.tdvps.get(tdvps::L2_EXIT_HOST_ROUTED);
        if route == routed::NONE {
            return Ok(());
        }
        if self.tdvps.get(tdvps::LAST_TD_EXIT) == last_exit::TDVMCALL {
            take_registers();
            self.tdvps.set(tdvps::LAST_TD_EXIT, last_exit::ASYNC_FAULT);
        }
        let by_call = route == routed::TDVMCALL;
        if by_call {
            self.translate_state(self.vm())?;
            self.store_state();
        }
        let code = if by_call {
            StatusCode::L2_EXIT_HOST_ROUTED_TDVMCALL
        } else {
            StatusCode::L2_EXIT_HOST_ROUTED_ASYNC
        };
        // The interruption information is read anew: the conversion above may have changed it.
        seen.interruption = vmcs.read(encoding::EXIT_INTERRUPTION_INFO);
        self.report(Status::with_detail(code, seen.reason as u32), seen, gpa, 0);
        self.tdvps.set(tdvps::L2_EXIT_HOST_ROUTED, routed::NONE);
        // TDG.VP.ENTER, by which L1 was left, has a length.
        let _ = event::advance(self.tdvps.vmcs(0));
        self.tdvps.set(tdvps::CURR_VM, 0);
        Ok(())
    }

    /// Sets the VMX-preemption timer of the L2 VM `vm` from its TSC deadline.
    pub(crate) fn set_preemption_timer(self, vm: usize) {
        let vmcs = self.tdvps.vmcs(vm);
        let controls = vmcs.read(encoding::PIN_BASED_CONTROLS);
        if self.tdvps.get(tdvps::TSC_DEADLINE.nth(vm)) == u64::MAX {
            vmcs.write(encoding::PIN_BASED_CONTROLS, controls & !PREEMPTION_TIMER);
            return;
        }
        let now = self.core.tsc();
        let ahead = self
            .tdvps
            .get(tdvps::SHADOW_TSC_DEADLINE.nth(vm))
            .wrapping_sub(now);
        let time = if ahead.wrapping_neg() < ahead {
            0
        } else {
            ahead.min(u32::MAX.into())
        };
        vmcs.write(encoding::GUEST_PREEMPTION_TIMER, time);
        vmcs.write(encoding::PIN_BASED_CONTROLS, controls | PREEMPTION_TIMER);
    }
}

impl Guest<'_> {
    /// Makes `vm` the one that runs.
    fn switch_to(&mut self, vm: usize) {
        self.tdvps.set(tdvps::CURR_VM, vm as u16);
        self.vm = vm;
        self.vmcs = self.tdvps.vmcs(vm);
    }

    /// Enters the L2 VM `vm`, for which all checks have been made.
    pub(crate) fn enter_l2(&mut self, vm: usize) -> Result<(), Leave> {
        let vcpu = self.vcpu();
        if let Err(gpa) = vcpu.translate_operands(vm) {
            return Err(Leave::Async(TdExit {
                gpa: gpa & !0xfff,
                ..TdExit::of(StatusCode::SUCCESS, reason::EPT_VIOLATION.into(), 0)
            }));
        }
        self.switch_to(vm);
        vcpu.set_preemption_timer(vm);
        vcpu.load_state(vm);
        Ok(())
    }

    /// Leaves the L2 VM for the L1 VM, which finds `code` and what has been `seen` of the exit in its registers.
    pub(crate) fn l2_to_l1(
        &mut self,
        code: StatusCode,
        seen: &Seen,
        extended: u64,
    ) -> Result<(), Leave> {
        let debug = self.tdvps.get(tdvps::L2_DEBUG_CTLS.nth(self.vm));
        if debug & TD_EXIT_ON_L2_TO_L1 != 0 {
            let exit = TdExit::of(
                StatusCode::TD_EXIT_ON_L2_TO_L1,
                seen.reason,
                seen.qualification,
            );
            return Err(Leave::Async(exit.with_interruption(seen.interruption)));
        }
        let vcpu = self.vcpu();
        vcpu.store_state();
        let status = Status::from_rax(code.value() | seen.reason & 0xffff_ffff);
        let gpa = self.vmcs.read(encoding::GUEST_PHYSICAL_ADDRESS);
        vcpu.report(status, seen, gpa, extended);
        self.switch_to(0);
        self.advance_rip()
    }
}
