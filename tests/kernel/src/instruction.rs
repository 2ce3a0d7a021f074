//! This kernel's SEAMCALL and TDCALL: the real instructions.

use tdx_abi::hardware::HardwareSeamcall;
use tdx_abi::hardware::HardwareTdcall;

/// SEAMCALL on this CPU.
pub(crate) fn seamcall() -> HardwareSeamcall {
    // SAFETY: 1. #UD is handled: by the emulated module, or by the fix-up in exception.rs. 2. Addresses that are passed to
    // a leaf are of frames that the frame allocator gave out for it. 3. The handler saves and restores the x87
    // and SSE state (FXSAVE), and TD entry changes no other register of this CPU.
    unsafe { HardwareSeamcall::new() }
}

/// TDCALL on this CPU, which is in no TD: every call traps.
pub(crate) fn tdcall() -> HardwareTdcall {
    // SAFETY: 1. #UD is handled by the fix-up in exception.rs. 2. and 3. No call reaches a module.
    unsafe { HardwareTdcall::new() }
}
