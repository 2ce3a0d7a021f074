//! The receiving end of SEAMCALL: the instruction raises #UD on a CPU without SEAM, and the handler comes here.

use core::ptr;

use tdx_abi::Registers;
use tdx_emulator::HostCall;

use crate::exception::Frame;
use crate::module;
use crate::seam_guest;

/// `66 0F 01 CF`.
const SEAMCALL: u32 = 0xcf01_0f66;
const SEAMCALL_BYTES: u64 = 4;
const CARRY: u64 = 1;

/// Whether the four bytes at `rip` are the instruction SEAMCALL.
pub(crate) fn is_seamcall(rip: u64) -> bool {
    // SAFETY: the CPU has just fetched an instruction from `rip`, and the kernel's code is followed by mapped memory.
    unsafe { ptr::read_unaligned(rip as *const u32) == SEAMCALL }
}

/// Does what the instruction would do, and moves past it.
pub(crate) fn execute(frame: &mut Frame) {
    if call_module(&mut frame.registers) {
        frame.rflags &= !CARRY;
    } else {
        frame.rflags |= CARRY;
    }
    frame.rip += SEAMCALL_BYTES;
}

/// Hands `registers` to the emulated module; false if none is loaded.
fn call_module(registers: &mut Registers) -> bool {
    let Some(lp) = module::platform().and_then(|platform| platform.lp(0)) else {
        return false;
    };
    if lp.host_call(registers) == HostCall::EnteredTd {
        seam_guest::run(&lp, registers);
    }
    true
}
