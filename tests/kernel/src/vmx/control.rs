//! VM-execution, entry and exit controls, adjusted to what the CPU has.

use crate::cpu;

/// Pin-based: the VMX preemption timer counts.
pub(super) const PREEMPTION_TIMER: u32 = 1 << 6;
/// Primary: HLT exits.
pub(super) const HALT_EXITING: u32 = 1 << 7;
/// Primary: the secondary controls count.
pub(super) const SECONDARY: u32 = 1 << 31;
/// Secondary: guest-physical addresses are translated by EPT.
pub(super) const EPT: u32 = 1 << 1;
/// Secondary: an EPT violation whose entry has bit 63 clear becomes #VE.
pub(super) const VIRTUALIZATION_EXCEPTION: u32 = 1 << 18;
/// Exit: the host is in 64-bit mode.
pub(super) const HOST_64_BIT: u32 = 1 << 9;
/// Entry: the guest is in 64-bit mode.
pub(super) const GUEST_64_BIT: u32 = 1 << 9;

const TRUE_PIN_CAPABILITY: u32 = 0x48d;
const TRUE_PRIMARY_CAPABILITY: u32 = 0x48e;
const TRUE_EXIT_CAPABILITY: u32 = 0x48f;
const TRUE_ENTRY_CAPABILITY: u32 = 0x490;
const SECONDARY_CAPABILITY: u32 = 0x48b;

/// The controls of a virtual CPU, with the bits that the CPU insists on.
pub(super) struct Controls {
    pub(super) pin: u32,
    pub(super) primary: u32,
    pub(super) secondary: u32,
    pub(super) exit: u32,
    pub(super) entry: u32,
}

impl Controls {
    /// The controls with at least the wanted bits, or the name of a set whose wanted bits this CPU lacks.
    pub(super) fn new(pin: u32, secondary: u32) -> Result<Self, &'static str> {
        Ok(Self {
            pin: adjust(TRUE_PIN_CAPABILITY, pin).ok_or("pin-based controls")?,
            primary: adjust(TRUE_PRIMARY_CAPABILITY, HALT_EXITING | SECONDARY)
                .ok_or("primary controls")?,
            secondary: adjust(SECONDARY_CAPABILITY, secondary).ok_or("secondary controls")?,
            exit: adjust(TRUE_EXIT_CAPABILITY, HOST_64_BIT).ok_or("exit controls")?,
            entry: adjust(TRUE_ENTRY_CAPABILITY, GUEST_64_BIT).ok_or("entry controls")?,
        })
    }
}

/// `wanted` with the bits that must be 1, or `None` if one of `wanted` must be 0.
fn adjust(capability: u32, wanted: u32) -> Option<u32> {
    // SAFETY: the CPU has VMX, so it has the capability registers.
    let msr = unsafe { cpu::read_msr(capability) };
    let (must_be_1, may_be_1) = (msr as u32, (msr >> 32) as u32);
    let value = wanted | must_be_1;
    (value & !may_be_1 == 0).then_some(value)
}
