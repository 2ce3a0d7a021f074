//! A virtual CPU: its VMCS, its registers, and the way in and out.

use core::arch::global_asm;
use core::ptr;

use tdx_abi::Registers;

use super::control;
use super::control::Controls;
use super::field;
use super::instruction;
use super::instruction::vmread;
use super::instruction::vmwrite;
use super::start;
use crate::cpu;
use crate::descriptor;
use crate::frames;

global_asm!(include_str!("../vmx_entry.s"), options(att_syntax));

unsafe extern "C" {
    fn vmx_enter(context: *mut Context, launched: u64) -> u64;
    static vmx_exit: u8;
}

/// Registers that the CPU does not keep in the VMCS.
#[repr(C, align(16))]
struct Context {
    registers: Registers,
    reserved: u64,
    extended: [u8; 512],
}

/// What a virtual CPU starts with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VcpuConfig {
    /// CR3: guest-physical address of the guest's top page table.
    pub(crate) cr3: u64,
    /// First instruction, in 64-bit mode at privilege level 0.
    pub(crate) rip: u64,
    /// Physical address of the page for #VE information, or `None` for a guest without #VE.
    pub(crate) ve_information: Option<u64>,
}

/// An event that the next entry delivers to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Injection {
    /// VM-entry interruption information: vector, type, valid bits.
    pub(crate) information: u32,
    /// Error code, where the information says that there is one.
    pub(crate) error_code: u32,
}

impl Injection {
    /// A hardware exception without error code.
    pub(crate) const fn exception(vector: u8) -> Self {
        Self {
            information: 1 << 31 | 3 << 8 | vector as u32,
            error_code: 0,
        }
    }
}

/// A VM exit as the VMCS tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Exit reason; the basic reason in bits 15:0.
    pub(crate) reason: u32,
    /// Exit qualification.
    pub(crate) qualification: u64,
    /// Guest-physical address, where the reason has one.
    pub(crate) gpa: u64,
    /// Guest-linear address, where the reason has one.
    pub(crate) gla: u64,
    /// VM-exit interruption information.
    pub(crate) interruption: u32,
    /// Length of the instruction that exited, in bytes.
    pub(crate) instruction_length: u32,
    /// Address of the instruction that exited or was interrupted.
    pub(crate) rip: u64,
}

/// A virtual CPU.
pub(crate) struct Vcpu {
    vmcs: u64,
    launched: bool,
    context: Context,
}

const CR0: u64 = 0x8001_0033;
const CR4: u64 = 0x2620;
const CODE_RIGHTS: u64 = 0xa09b;
const DATA_RIGHTS: u64 = 0xc093;
const TASK_RIGHTS: u64 = 0x8b;
const UNUSABLE: u64 = 1 << 16;
const INVALID_OPCODE: u64 = 6;
const MXCSR: u32 = 0x1f80;
const FPU_CONTROL: u16 = 0x37f;

impl Vcpu {
    /// A virtual CPU in its start state, or the step that failed.
    pub(crate) fn new(config: VcpuConfig) -> Result<Self, &'static str> {
        let vmcs = start::control_region().ok_or("no frame for a VMCS")?;
        let mut extended = [0; 512];
        extended[..2].copy_from_slice(&FPU_CONTROL.to_le_bytes());
        extended[24..28].copy_from_slice(&MXCSR.to_le_bytes());
        let vcpu = Self {
            vmcs,
            launched: false,
            context: Context {
                registers: Registers::default(),
                reserved: 0,
                extended,
            },
        };
        // SAFETY: the frame was taken for good and carries the revision.
        unsafe { instruction::vmclear(vmcs) }.map_err(|_| "VMCLEAR failed")?;
        vcpu.load();
        let secondary = control::EPT
            | config
                .ve_information
                .map_or(0, |_| control::VIRTUALIZATION_EXCEPTION);
        let controls = Controls::new(control::PREEMPTION_TIMER, secondary)?;
        vcpu.write_controls(&controls, config.ve_information);
        vcpu.write_host_state();
        vcpu.write_guest_state(config);
        Ok(vcpu)
    }

    /// The guest's general-purpose registers.
    pub(crate) fn registers(&self) -> &Registers {
        &self.context.registers
    }

    /// The guest's general-purpose registers, to be changed.
    pub(crate) fn registers_mut(&mut self) -> &mut Registers {
        &mut self.context.registers
    }

    /// Gives the VMCS region back.
    pub(crate) fn free(self) {
        // SAFETY: VMCLEAR makes the CPU write back what it holds of the region, and forget it.
        if unsafe { instruction::vmclear(self.vmcs) }.is_ok() {
            frames::free(self.vmcs, frames::FRAME);
        }
    }

    /// Moves RIP past `bytes` of the instruction that exited.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.load();
        self.write(field::GUEST_RIP, vmread(field::GUEST_RIP) + bytes);
    }

    /// Delivers `injection` at the next entry.
    pub(crate) fn inject(&mut self, injection: Injection) {
        self.load();
        self.write(field::ENTRY_INTERRUPTION, injection.information.into());
        self.write(field::ENTRY_ERROR_CODE, injection.error_code.into());
    }

    /// Runs the guest under `eptp` until its next exit, or until `ticks` of the preemption timer have passed.
    ///
    /// The error is the VM-instruction error number of a failed entry.
    pub(crate) fn enter(&mut self, eptp: u64, ticks: u32) -> Result<Exit, u64> {
        self.load();
        self.write(field::EPTP, eptp);
        self.write(field::PREEMPTION_TIMER, ticks.into());
        // SAFETY: 1. The host state of the current VMCS describes this kernel and returns to `vmx_exit`, which restores the
        // callee-saved registers that `vmx_enter` pushed. 2. The guest reaches only memory that its EPT maps, which
        // holds no Rust object but atomics. 3. The context is exclusively borrowed.
        let result = unsafe { vmx_enter(&raw mut self.context, u64::from(self.launched)) };
        if result != 0 {
            return Err(vmread(field::INSTRUCTION_ERROR));
        }
        self.launched = true;
        self.deliver_again();
        Ok(Exit {
            reason: vmread(field::EXIT_REASON) as u32,
            qualification: vmread(field::EXIT_QUALIFICATION),
            gpa: vmread(field::GUEST_PHYSICAL_ADDRESS),
            gla: vmread(field::GUEST_LINEAR_ADDRESS),
            interruption: vmread(field::EXIT_INTERRUPTION) as u32,
            instruction_length: vmread(field::EXIT_INSTRUCTION_LENGTH) as u32,
            rip: vmread(field::GUEST_RIP),
        })
    }

    /// An event whose delivery exited (its stack was not mapped, say) is delivered again at the next entry.
    fn deliver_again(&mut self) {
        const VALID: u64 = 1 << 31;
        const UNDEFINED: u64 = 1 << 12;
        let vectoring = vmread(field::IDT_VECTORING);
        if vectoring & VALID != 0 {
            self.write(field::ENTRY_INTERRUPTION, vectoring & !UNDEFINED);
            self.write(field::ENTRY_ERROR_CODE, vmread(field::IDT_VECTORING_ERROR));
        }
    }

    fn load(&self) {
        // SAFETY: the region was cleared when this virtual CPU was made, and belongs to it.
        if unsafe { instruction::vmptrld(self.vmcs) }.is_err() {
            panic!("VMPTRLD of {:#x} failed", self.vmcs);
        }
    }

    /// Writes a field of the current VMCS, which is this one's.
    fn write(&self, name: u32, value: u64) {
        // SAFETY: the values that this module writes describe the running kernel, or the guest.
        if unsafe { vmwrite(name, value) }.is_err() {
            panic!(
                "VMWRITE of field {name:#x} failed with error {}",
                vmread(field::INSTRUCTION_ERROR)
            );
        }
    }

    fn write_controls(&self, controls: &Controls, ve_information: Option<u64>) {
        self.write(field::PIN_CONTROLS, controls.pin.into());
        self.write(field::PRIMARY_CONTROLS, controls.primary.into());
        self.write(field::SECONDARY_CONTROLS, controls.secondary.into());
        self.write(field::EXIT_CONTROLS, controls.exit.into());
        self.write(field::ENTRY_CONTROLS, controls.entry.into());
        // TDCALL is #UD on a CPU without SEAM, and comes here.
        self.write(field::EXCEPTION_BITMAP, 1 << INVALID_OPCODE);
        self.write(field::LINK_POINTER, u64::MAX);
        if let Some(page) = ve_information {
            self.write(field::VE_INFORMATION_ADDRESS, page);
        }
    }

    fn write_host_state(&self) {
        let (cr0, cr3, cr4) = cpu::control_registers();
        let bases = descriptor::bases();
        self.write(field::HOST_CR0, cr0);
        self.write(field::HOST_CR3, cr3);
        self.write(field::HOST_CR4, cr4);
        // ES, CS, SS, DS, FS, GS.
        for (index, selector) in [
            descriptor::DATA,
            descriptor::CODE,
            descriptor::DATA,
            descriptor::DATA,
            0,
            0,
        ]
        .iter()
        .enumerate()
        {
            self.write(
                field::HOST_ES_SELECTOR + 2 * index as u32,
                (*selector).into(),
            );
        }
        self.write(field::HOST_TR_SELECTOR, descriptor::TASK.into());
        self.write(field::HOST_TR_BASE, bases.task);
        self.write(field::HOST_GDTR_BASE, bases.gdt);
        self.write(field::HOST_IDTR_BASE, bases.idt);
        self.write(field::HOST_RIP, ptr::addr_of!(vmx_exit) as u64);
    }

    fn write_guest_state(&self, config: VcpuConfig) {
        self.write(field::GUEST_CR0, CR0);
        self.write(field::GUEST_CR3, config.cr3);
        self.write(field::GUEST_CR4, CR4);
        // ES, CS, SS, DS, FS, GS, LDTR, TR.
        let rights = [
            DATA_RIGHTS,
            CODE_RIGHTS,
            DATA_RIGHTS,
            DATA_RIGHTS,
            DATA_RIGHTS,
            DATA_RIGHTS,
            UNUSABLE,
            TASK_RIGHTS,
        ];
        let selectors = [0x10, 0x08, 0x10, 0x10, 0x10, 0x10, 0, 0x18];
        for (index, (rights, selector)) in rights.into_iter().zip(selectors).enumerate() {
            let step = 2 * index as u32;
            self.write(field::GUEST_ES_SELECTOR + step, selector);
            self.write(field::GUEST_ES_BASE + step, 0);
            self.write(
                field::GUEST_ES_LIMIT + step,
                if rights == TASK_RIGHTS {
                    0x67
                } else {
                    0xffff_ffff
                },
            );
            self.write(field::GUEST_ES_RIGHTS + step, rights);
        }
        self.write(field::GUEST_GDTR_BASE, 0);
        self.write(field::GUEST_GDTR_LIMIT, 0);
        self.write(field::GUEST_IDTR_BASE, 0);
        self.write(field::GUEST_IDTR_LIMIT, 0);
        self.write(field::GUEST_DR7, 0x400);
        self.write(field::GUEST_RSP, 0);
        self.write(field::GUEST_RIP, config.rip);
        self.write(field::GUEST_RFLAGS, 2);
        self.write(field::GUEST_INTERRUPTIBILITY, 0);
    }
}
