//! Single privileged instructions.

use core::arch::asm;

/// Writes a byte to an I/O port.
///
/// # Safety
/// The device behind `port` must not, as a consequence, touch memory that Rust owns.
pub(crate) unsafe fn out8(port: u16, value: u8) {
    // SAFETY: the caller answers for the device.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
    }
}

/// Reads a byte from an I/O port.
///
/// # Safety
/// The device behind `port` must not, as a consequence, touch memory that Rust owns.
pub(crate) unsafe fn in8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: the caller answers for the device.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    }
    value
}

/// Stops until an interrupt; the kernel runs with interrupts off, so for good.
///
/// # Safety
/// Nothing may wait for this CPU.
pub(crate) unsafe fn halt() {
    // SAFETY: the caller wants to stop.
    unsafe { asm!("hlt", options(nomem, nostack)) }
}

/// Reads a model-specific register.
///
/// # Safety
/// The register must exist, or the #GP ends the kernel.
pub(crate) unsafe fn read_msr(msr: u32) -> u64 {
    let low: u32;
    let high: u32;
    // SAFETY: the caller knows that the register exists; reading it changes nothing.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The new value must keep every assumption of running code: paging mode, segment bases, memory types.
pub(crate) unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: the caller answers for the effect.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags))
    }
}

/// CR2: the address of the last page fault.
pub(crate) fn page_fault_address() -> u64 {
    let value;
    // SAFETY: reading CR2 in ring 0 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// The control registers CR0, CR3 and CR4.
pub(crate) fn control_registers() -> (u64, u64, u64) {
    let (cr0, cr3, cr4);
    // SAFETY: reading control registers in ring 0 has no effect.
    unsafe {
        asm!("mov {}, cr0", "mov {}, cr3", "mov {}, cr4", out(reg) cr0, out(reg) cr3, out(reg) cr4,
            options(nomem, nostack, preserves_flags));
    }
    (cr0, cr3, cr4)
}

/// Sets bits of CR0 and CR4 that VMX wants.
///
/// # Safety
/// The values must keep paging, protection and the memory map as they are.
pub(crate) unsafe fn set_control_registers(cr0: u64, cr4: u64) {
    // SAFETY: the caller keeps the running mode.
    unsafe {
        asm!("mov cr0, {}", "mov cr4, {}", in(reg) cr0, in(reg) cr4, options(nostack, preserves_flags))
    }
}

/// The time-stamp counter, which counts instructions in the CPU emulator.
pub(crate) fn time_stamp() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading the counter has no effect.
    unsafe {
        asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    }
    u64::from(high) << 32 | u64::from(low)
}
