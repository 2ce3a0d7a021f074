//! Entering VMX operation.

use core::sync::atomic::Ordering;

use super::instruction;
use crate::cpu;
use crate::frames;
use crate::physical;

const FEATURE_CONTROL: u32 = 0x3a;
const LOCKED: u64 = 1;
const VMX_OUTSIDE_SMX: u64 = 1 << 2;
const BASIC: u32 = 0x480;
const CR0_FIXED: [u32; 2] = [0x486, 0x487];
const CR4_FIXED: [u32; 2] = [0x488, 0x489];
const CR4_VMXE: u64 = 1 << 13;

/// Switches VMX on, once; the error says which step the CPU refused.
pub(crate) fn start() -> Result<(), &'static str> {
    let (cr0, _, cr4) = cpu::control_registers();
    // SAFETY: 1. The CPU model has VMX, so all these registers exist. 2. The fixed bits of CR0 and CR4 are those that the
    // kernel already runs with, apart from CR4.VMXE, which enables instructions and nothing else. 3. The frame is taken
    // for good, and carries the revision.
    unsafe {
        let control = cpu::read_msr(FEATURE_CONTROL);
        if control & LOCKED == 0 {
            cpu::write_msr(FEATURE_CONTROL, control | LOCKED | VMX_OUTSIDE_SMX);
        } else if control & VMX_OUTSIDE_SMX == 0 {
            return Err("VMX is locked off by the firmware");
        }
        let fixed =
            |value, msrs: [u32; 2]| (value | cpu::read_msr(msrs[0])) & cpu::read_msr(msrs[1]);
        cpu::set_control_registers(fixed(cr0, CR0_FIXED), fixed(cr4 | CR4_VMXE, CR4_FIXED));
        let region = control_region().ok_or("no frame for VMXON")?;
        instruction::vmxon(region).map_err(|_| "VMXON failed")
    }
}

/// A cleared frame with the VMCS revision in it, taken for good.
pub(super) fn control_region() -> Option<u64> {
    let region = frames::allocate_frame()?;
    let frame = physical::frame(region)?;
    physical::clear(region);
    // SAFETY: the CPU has VMX, so the register exists.
    let revision = unsafe { cpu::read_msr(BASIC) } & 0x7fff_ffff;
    frame[0].store(revision, Ordering::Relaxed);
    Some(region)
}
