//! What guest and host say to each other by TDG.VP.VMCALL.
//!
//! Source: Intel, Guest-Host-Communication Interface for TDX, "TDG.VP.VMCALL sub-functions".

use tdx_abi::Registers;
use tdx_abi::format::VmcallMask;
use tdx_abi::leaf::TdcallLeaf;
use tdx_abi::vmcall::Vmcall;

/// The registers of a TDG.VP.VMCALL with sub-function `call` and its operands R12 and R13.
pub(crate) fn request(call: Vmcall, r12: u64, r13: u64) -> Registers {
    let passed = VmcallMask::new()
        .with_r10(true)
        .with_r11(true)
        .with_r12(true)
        .with_r13(true);
    Registers {
        rax: TdcallLeaf::TDG_VP_VMCALL.number().into(),
        rcx: passed.into_bits(),
        r11: call.number(),
        r12,
        r13,
        ..Registers::default()
    }
}
