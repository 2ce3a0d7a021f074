//! A VMCS in its page, in a format of our own, as the SDM leaves it to the processor.

use core::fmt;

use super::Structure;
use crate::frame::Field;
use crate::frame::Frame;

/// The VMCS of one VM of a vCPU.
#[derive(Clone, Copy)]
pub(crate) struct Vmcs<'m>(&'m Frame);

impl<'m> Vmcs<'m> {
    /// The VMCS in this page.
    pub(crate) const fn new(frame: &'m Frame) -> Self {
        Self(frame)
    }

    /// Reads the field with this encoding; fields that nobody has written read 0.
    pub(crate) fn read(self, encoding: u32) -> u64 {
        let value = self.0.get(slot(encoding));
        if encoding & 1 != 0 && width(encoding) == 1 {
            value >> 32
        } else {
            value & width_mask(encoding)
        }
    }

    /// Writes the field with this encoding, as far as it is wide.
    pub(crate) fn write(self, encoding: u32, value: u64) {
        let slot = slot(encoding);
        if encoding & 1 != 0 && width(encoding) == 1 {
            self.0
                .update(slot.offset(), |old: u64| old & 0xffff_ffff | value << 32);
        } else {
            self.0.set(slot, value & width_mask(encoding));
        }
    }
}

impl fmt::Debug for Vmcs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmcs").finish_non_exhaustive()
    }
}

/// Bits 14:13 of an encoding: 0 is 16-bit, 1 is 64-bit, 2 is 32-bit, 3 is natural.
const fn width(encoding: u32) -> u32 {
    encoding >> 13 & 3
}

const fn width_mask(encoding: u32) -> u64 {
    match width(encoding) {
        0 => 0xffff,
        2 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// Slot of a field: 32 for each width and type (bits 11:10), in which index bits 5:1 of the encoding count; there are no
/// 16-bit fields of type 1, so that the 64-bit controls above index 31 go there.
const fn slot(encoding: u32) -> Field<u64> {
    let kind = width(encoding) << 2 | encoding >> 10 & 3;
    let index = encoding >> 1 & 0x1ff;
    let kind = if kind == 4 && index >= 32 { 1 } else { kind };
    Field::at((kind * 32 + (index & 31)) * 8)
}

/// Encodings of the fields that the emulator itself uses. Source: Intel SDM volume 3, appendix B.
pub(crate) mod encoding {
    pub(crate) const VPID: u32 = 0x0000;
    pub(crate) const POSTED_INTERRUPT_NOTIFICATION_VECTOR: u32 = 0x0002;
    pub(crate) const EPTP_INDEX: u32 = 0x0004;
    pub(crate) const GUEST_CS_SELECTOR: u32 = 0x0802;
    pub(crate) const GUEST_INTERRUPT_STATUS: u32 = 0x0810;
    pub(crate) const IO_BITMAP_A: u32 = 0x2000;
    pub(crate) const IO_BITMAP_B: u32 = 0x2002;
    pub(crate) const MSR_BITMAP: u32 = 0x2004;
    pub(crate) const EXIT_MSR_STORE: u32 = 0x2006;
    pub(crate) const EXIT_MSR_LOAD: u32 = 0x2008;
    pub(crate) const ENTRY_MSR_LOAD: u32 = 0x200a;
    pub(crate) const PML_ADDRESS: u32 = 0x200e;
    pub(crate) const TSC_OFFSET: u32 = 0x2010;
    pub(crate) const VIRTUAL_APIC_PAGE: u32 = 0x2012;
    pub(crate) const APIC_ACCESS_PAGE: u32 = 0x2014;
    pub(crate) const POSTED_INTERRUPT_DESCRIPTOR: u32 = 0x2016;
    pub(crate) const EPTP: u32 = 0x201a;
    pub(crate) const EPTP_LIST: u32 = 0x2024;
    pub(crate) const VMREAD_BITMAP: u32 = 0x2026;
    pub(crate) const VMWRITE_BITMAP: u32 = 0x2028;
    pub(crate) const VE_INFO_ADDRESS: u32 = 0x202a;
    pub(crate) const ENCLS_EXITING: u32 = 0x202e;
    pub(crate) const TSC_MULTIPLIER: u32 = 0x2032;
    pub(crate) const TERTIARY_CONTROLS: u32 = 0x2034;
    pub(crate) const ENCLV_EXITING: u32 = 0x2036;
    pub(crate) const PASID_LOW: u32 = 0x2038;
    pub(crate) const PASID_HIGH: u32 = 0x203a;
    pub(crate) const SHARED_EPTP: u32 = 0x203c;
    pub(crate) const PCONFIG_EXITING: u32 = 0x203e;
    pub(crate) const HLATP: u32 = 0x2040;
    pub(crate) const SPEC_CTRL_MASK: u32 = 0x204a;
    pub(crate) const SPEC_CTRL_SHADOW: u32 = 0x204c;
    pub(crate) const GUEST_PHYSICAL_ADDRESS: u32 = 0x2400;
    pub(crate) const VMCS_LINK_POINTER: u32 = 0x2800;
    pub(crate) const GUEST_DEBUGCTL: u32 = 0x2802;
    pub(crate) const GUEST_PAT: u32 = 0x2804;
    pub(crate) const GUEST_EFER: u32 = 0x2806;
    pub(crate) const GUEST_PERF_GLOBAL_CTRL: u32 = 0x2808;
    pub(crate) const GUEST_PDPTE0: u32 = 0x280a;
    pub(crate) const PIN_BASED_CONTROLS: u32 = 0x4000;
    pub(crate) const PROC_BASED_CONTROLS: u32 = 0x4002;
    pub(crate) const EXCEPTION_BITMAP: u32 = 0x4004;
    pub(crate) const EXIT_CONTROLS: u32 = 0x400c;
    pub(crate) const ENTRY_CONTROLS: u32 = 0x4012;
    pub(crate) const ENTRY_INTERRUPTION_INFO: u32 = 0x4016;
    pub(crate) const ENTRY_EXCEPTION_ERROR_CODE: u32 = 0x4018;
    pub(crate) const ENTRY_INSTRUCTION_LENGTH: u32 = 0x401a;
    pub(crate) const SECONDARY_CONTROLS: u32 = 0x401e;
    pub(crate) const EXIT_REASON: u32 = 0x4402;
    pub(crate) const EXIT_INTERRUPTION_INFO: u32 = 0x4404;
    pub(crate) const EXIT_INTERRUPTION_ERROR_CODE: u32 = 0x4406;
    pub(crate) const IDT_VECTORING_INFO: u32 = 0x4408;
    pub(crate) const IDT_VECTORING_ERROR_CODE: u32 = 0x440a;
    pub(crate) const EXIT_INSTRUCTION_LENGTH: u32 = 0x440c;
    pub(crate) const EXIT_INSTRUCTION_INFO: u32 = 0x440e;
    pub(crate) const GUEST_ES_LIMIT: u32 = 0x4800;
    pub(crate) const GUEST_CS_LIMIT: u32 = 0x4802;
    pub(crate) const GUEST_SS_LIMIT: u32 = 0x4804;
    pub(crate) const GUEST_DS_LIMIT: u32 = 0x4806;
    pub(crate) const GUEST_FS_LIMIT: u32 = 0x4808;
    pub(crate) const GUEST_GS_LIMIT: u32 = 0x480a;
    pub(crate) const GUEST_LDTR_LIMIT: u32 = 0x480c;
    pub(crate) const GUEST_TR_LIMIT: u32 = 0x480e;
    pub(crate) const GUEST_GDTR_LIMIT: u32 = 0x4810;
    pub(crate) const GUEST_IDTR_LIMIT: u32 = 0x4812;
    pub(crate) const GUEST_ES_ACCESS_RIGHTS: u32 = 0x4814;
    pub(crate) const GUEST_CS_ACCESS_RIGHTS: u32 = 0x4816;
    pub(crate) const GUEST_SS_ACCESS_RIGHTS: u32 = 0x4818;
    pub(crate) const GUEST_DS_ACCESS_RIGHTS: u32 = 0x481a;
    pub(crate) const GUEST_FS_ACCESS_RIGHTS: u32 = 0x481c;
    pub(crate) const GUEST_GS_ACCESS_RIGHTS: u32 = 0x481e;
    pub(crate) const GUEST_LDTR_ACCESS_RIGHTS: u32 = 0x4820;
    pub(crate) const GUEST_TR_ACCESS_RIGHTS: u32 = 0x4822;
    pub(crate) const GUEST_INTERRUPTIBILITY: u32 = 0x4824;
    pub(crate) const GUEST_PREEMPTION_TIMER: u32 = 0x482e;
    pub(crate) const CR0_GUEST_HOST_MASK: u32 = 0x6000;
    pub(crate) const CR4_GUEST_HOST_MASK: u32 = 0x6002;
    pub(crate) const CR0_READ_SHADOW: u32 = 0x6004;
    pub(crate) const CR4_READ_SHADOW: u32 = 0x6006;
    pub(crate) const EXIT_QUALIFICATION: u32 = 0x6400;
    pub(crate) const GUEST_LINEAR_ADDRESS: u32 = 0x640a;
    pub(crate) const GUEST_CR0: u32 = 0x6800;
    pub(crate) const GUEST_CR4: u32 = 0x6804;
    pub(crate) const GUEST_CS_BASE: u32 = 0x6808;
    pub(crate) const GUEST_DR7: u32 = 0x681a;
    pub(crate) const GUEST_RSP: u32 = 0x681c;
    pub(crate) const GUEST_RIP: u32 = 0x681e;
    pub(crate) const GUEST_RFLAGS: u32 = 0x6820;
    pub(crate) const GUEST_PENDING_DEBUG_EXCEPTIONS: u32 = 0x6822;
    pub(crate) const GUEST_SSP: u32 = 0x682a;
}
