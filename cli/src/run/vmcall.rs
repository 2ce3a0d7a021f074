//! What guest and host say to each other by TDG.VP.VMCALL.
//!
//! Source: Intel, Guest-Host-Communication Interface for TDX, "TDG.VP.VMCALL sub-functions".

use tdx_abi::Registers;
use tdx_abi::format::VmcallMask;
use tdx_abi::leaf::TdcallLeaf;

/// Sub-function by which the guest says that it has nothing to do: `Instruction.HLT`.
pub(crate) const HLT: u64 = 12;
/// Sub-function by which the guest converts memory: `MapGPA`.
pub(crate) const MAP_GPA: u64 = 0x1_0001;

/// The registers of a TDG.VP.VMCALL with sub-function `number` and its operands R12 and R13.
pub(crate) fn request(number: u64, r12: u64, r13: u64) -> Registers {
    let passed = VmcallMask::new()
        .with_r10(true)
        .with_r11(true)
        .with_r12(true)
        .with_r13(true);
    Registers {
        rax: TdcallLeaf::TDG_VP_VMCALL.number().into(),
        rcx: passed.into_bits(),
        r11: number,
        r12,
        r13,
        ..Registers::default()
    }
}
