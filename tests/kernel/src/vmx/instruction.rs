//! The VMX instructions.

use core::arch::asm;

/// The instruction failed: 1 with an error number in the current VMCS, 2 without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VmxError {
    /// VMfailValid.
    Valid,
    /// VMfailInvalid.
    Invalid,
}

macro_rules! vmx {
    ($template:literal, $($operands:tt)*) => {{
        let (invalid, valid): (u8, u8);
        asm!($template, "setc {invalid}", "setz {valid}", $($operands)*, invalid = out(reg_byte) invalid, valid = out(reg_byte) valid);
        match (invalid, valid) {
            (0, 0) => Ok(()),
            (0, _) => Err(VmxError::Valid),
            _ => Err(VmxError::Invalid),
        }
    }};
}

/// VMXON.
///
/// # Safety
/// `region` is the physical address of a frame given to the CPU for good, with the revision in its first word.
pub(super) unsafe fn vmxon(region: u64) -> Result<(), VmxError> {
    // SAFETY: the operand is a local; the caller answers for the frame.
    unsafe { vmx!("vmxon [{}]", in(reg) &region) }
}

/// VMCLEAR.
///
/// # Safety
/// `region` is the physical address of a frame given to the CPU for good, with the revision in its first word.
pub(super) unsafe fn vmclear(region: u64) -> Result<(), VmxError> {
    // SAFETY: the operand is a local; the caller answers for the frame.
    unsafe { vmx!("vmclear [{}]", in(reg) &region) }
}

/// VMPTRLD: makes `region` the current VMCS.
///
/// # Safety
/// `region` was cleared by VMCLEAR before.
pub(super) unsafe fn vmptrld(region: u64) -> Result<(), VmxError> {
    // SAFETY: the operand is a local; the caller answers for the frame.
    unsafe { vmx!("vmptrld [{}]", in(reg) &region) }
}

/// VMWRITE to the current VMCS.
///
/// # Safety
/// Host-state fields must describe the running kernel, addresses must be frames given to the CPU.
pub(super) unsafe fn vmwrite(field: u32, value: u64) -> Result<(), VmxError> {
    // SAFETY: the caller answers for the value.
    unsafe { vmx!("vmwrite {}, {}", in(reg) u64::from(field), in(reg) value) }
}

/// VMREAD from the current VMCS; 0 if the field does not exist.
pub(super) fn vmread(field: u32) -> u64 {
    let value: u64;
    // SAFETY: reading a field has no effect.
    unsafe { asm!("vmread {}, {}", inlateout(reg) 0u64 => value, in(reg) u64::from(field)) }
    value
}

/// INVEPT of all contexts: no translation that was cached before it is used after it.
///
/// The CPU must be in VMX operation, or the #UD ends the kernel.
pub(crate) fn invalidate_ept() -> Result<(), VmxError> {
    const ALL_CONTEXTS: u64 = 2;
    let descriptor = [0u64; 2];
    // SAFETY: the instruction only drops cached translations.
    unsafe { vmx!("invept {}, [{}]", in(reg) ALL_CONTEXTS, in(reg) &descriptor) }
}
