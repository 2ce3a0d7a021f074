//! Exceptions: #UD may be a SEAMCALL, which is handed on; everything else ends the kernel with a register dump.

use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering;

use tdx_abi::Registers;
use tdx_abi::hardware;

use crate::console;
use crate::cpu;
use crate::log;
use crate::seamcall;

/// What a stub in exceptions.s leaves on the stack.
#[repr(C)]
pub(crate) struct Frame {
    /// The general-purpose registers.
    pub(crate) registers: Registers,
    vector: u64,
    error: u64,
    /// Address of the instruction; a handler moves it past an instruction that it emulated.
    pub(crate) rip: u64,
    cs: u64,
    /// RFLAGS that the instruction leaves.
    pub(crate) rflags: u64,
    rsp: u64,
    ss: u64,
}

const INVALID_OPCODE: u64 = 6;
const GENERAL_PROTECTION: u64 = 13;

static IN_SEAMCALL: AtomicBool = AtomicBool::new(false);

#[unsafe(no_mangle)]
extern "C" fn on_exception(frame: &mut Frame) {
    if frame.vector == INVALID_OPCODE && seamcall::is_seamcall(frame.rip) {
        // The handler's stack has room for one: a SEAMCALL inside the module would overwrite the first.
        if IN_SEAMCALL.swap(true, Ordering::Relaxed) {
            fatal(frame, "SEAMCALL inside SEAMCALL");
        }
        seamcall::execute(frame);
        IN_SEAMCALL.store(false, Ordering::Relaxed);
        return;
    }
    if matches!(frame.vector, INVALID_OPCODE | GENERAL_PROTECTION)
        && let Some(rip) = hardware::fixup(frame.rip)
    {
        frame.registers.rax = frame.vector;
        frame.rip = rip;
        return;
    }
    fatal(frame, "exception in the kernel");
}

fn fatal(frame: &Frame, what: &str) -> ! {
    log!(
        "FAILED {what}: vector {} error {:#x} rip {:#x} rsp {:#x} rflags {:#x} cr2 {:#x}",
        frame.vector,
        frame.error,
        frame.rip,
        frame.rsp,
        frame.rflags,
        cpu::page_fault_address()
    );
    log!(
        "{:#x?} cs {:#x} ss {:#x}",
        frame.registers,
        frame.cs,
        frame.ss
    );
    log!("verdict: FAILED, the kernel stopped");
    console::power_off()
}
