//! TEMPORARY: the SEAMCALL instruction until tdx-abi's hardware backend is there.
use core::arch::global_asm;

use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::Trap;

global_asm!(
    ".global do_seamcall",
    "do_seamcall:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "mov rax, [rdi]",
    "mov rcx, [rdi + 8]",
    "mov rdx, [rdi + 16]",
    "mov rbx, [rdi + 24]",
    "mov rbp, [rdi + 32]",
    "mov rsi, [rdi + 40]",
    "mov r8, [rdi + 56]",
    "mov r9, [rdi + 64]",
    "mov r10, [rdi + 72]",
    "mov r11, [rdi + 80]",
    "mov r12, [rdi + 88]",
    "mov r13, [rdi + 96]",
    "mov r14, [rdi + 104]",
    "mov r15, [rdi + 112]",
    "mov rdi, [rdi + 48]",
    ".byte 0x66, 0x0f, 0x01, 0xcf",
    "jc 2f",
    "xchg rdi, [rsp]",
    "mov [rdi], rax",
    "mov [rdi + 8], rcx",
    "mov [rdi + 16], rdx",
    "mov [rdi + 24], rbx",
    "mov [rdi + 32], rbp",
    "mov [rdi + 40], rsi",
    "pop rax",
    "mov [rdi + 48], rax",
    "mov [rdi + 56], r8",
    "mov [rdi + 64], r9",
    "mov [rdi + 72], r10",
    "mov [rdi + 80], r11",
    "mov [rdi + 88], r12",
    "mov [rdi + 96], r13",
    "mov [rdi + 104], r14",
    "mov [rdi + 112], r15",
    "xor eax, eax",
    "jmp 3f",
    "2:",
    "pop rdi",
    "mov eax, 1",
    "3:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
);

unsafe extern "C" {
    fn do_seamcall(registers: *mut Registers) -> u64;
}

/// The real instruction.
pub(crate) struct Instruction;

impl Seamcall for Instruction {
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        // SAFETY: kernel in ring 0 with a #UD handler.
        if unsafe { do_seamcall(registers) } == 0 {
            Ok(())
        } else {
            Err(Trap::VmFailInvalid)
        }
    }
}
