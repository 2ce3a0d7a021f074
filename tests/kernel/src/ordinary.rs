//! An ordinary guest: no TD around it, an EPTP of its own, and the host that answers its TDCALLs itself.

use crate::guest_image;
use crate::machine::Call;
use crate::machine::Event;
use crate::machine::Machine;
use crate::machine::Violation;
use crate::tables;
use crate::vmx::Exit;
use crate::vmx::Vcpu;
use crate::vmx::VcpuConfig;
use crate::vmx::reason;

/// Bytes of the instruction TDCALL.
pub(crate) const TDCALL_BYTES: u64 = 4;
/// Interruption information of #UD as a hardware exception.
const INVALID_OPCODE: u32 = 1 << 31 | 3 << 8 | 6;

/// An ordinary guest.
pub(crate) struct Ordinary {
    vcpu: Vcpu,
    eptp: u64,
}

impl Ordinary {
    /// The guest in its start state under `eptp`, or the step that failed.
    pub(crate) fn new(eptp: u64, ve_information: Option<u64>) -> Result<Self, &'static str> {
        let config = VcpuConfig {
            cr3: guest_image::BASE,
            rip: guest_image::ENTRY,
            ve_information,
        };
        Ok(Self {
            vcpu: Vcpu::new(config)?,
            eptp,
        })
    }

    /// Gives its VMCS back.
    pub(crate) fn free(self) {
        self.vcpu.free();
    }

    fn call(&self) -> Call {
        let registers = self.vcpu.registers();
        Call {
            r10: registers.r10,
            r11: registers.r11,
            r12: registers.r12,
            r13: registers.r13,
            r14: registers.r14,
            r15: registers.r15,
        }
    }
}

/// The violation that an exit with reason 48 reports.
pub(crate) fn violation(exit: &Exit) -> Violation {
    Violation {
        gpa: exit.gpa,
        access: exit.qualification & tables::RWX,
        pending: false,
    }
}

impl Machine for Ordinary {
    fn run(&mut self, ticks: u32) -> Event {
        let exit = match self.vcpu.enter(self.eptp, ticks) {
            Ok(exit) => exit,
            Err(error) => return Event::Unexpected(u32::MAX, error),
        };
        match exit.reason {
            reason::EXCEPTION if exit.interruption == INVALID_OPCODE => {
                self.vcpu.skip(TDCALL_BYTES);
                Event::Call(self.call())
            }
            reason::EPT_VIOLATION => Event::Violation(violation(&exit)),
            reason::EPT_MISCONFIGURATION => Event::Misconfiguration(exit.gpa),
            reason::PREEMPTION_TIMER => Event::Timer,
            other => Event::Unexpected(other, exit.rip),
        }
    }

    fn answer(&mut self, answer: Call) {
        let registers = self.vcpu.registers_mut();
        registers.rax = 0;
        registers.r10 = answer.r10;
        registers.r11 = answer.r11;
        registers.r12 = answer.r12;
        registers.r13 = answer.r13;
        registers.r14 = answer.r14;
        registers.r15 = answer.r15;
    }
}
