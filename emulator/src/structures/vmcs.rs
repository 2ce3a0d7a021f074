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

/// Encodings of the fields that the emulator itself uses: the codes of the fields of the TD VMCS.
pub(crate) mod encoding {
    use tdx_abi::field::td_vmcs;

    pub(crate) const VPID: u32 = td_vmcs::VPID.field_code();
    pub(crate) const POSTED_INTERRUPT_NOTIFICATION_VECTOR: u32 =
        td_vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR.field_code();
    pub(crate) const EPTP_INDEX: u32 = td_vmcs::EPTP_INDEX.field_code();
    pub(crate) const GUEST_CS_SELECTOR: u32 = td_vmcs::GUEST_CS_SELECTOR.field_code();
    pub(crate) const GUEST_INTERRUPT_STATUS: u32 = td_vmcs::GUEST_INTERRUPT_STATUS.field_code();
    pub(crate) const IO_BITMAP_A: u32 = td_vmcs::I_O_BITMAP_ADDRESS_N.field_code();
    pub(crate) const IO_BITMAP_B: u32 = td_vmcs::I_O_BITMAP_ADDRESS_N.field_code() + 2;
    pub(crate) const MSR_BITMAP: u32 = td_vmcs::MSR_BITMAP_ADDRESS.field_code();
    pub(crate) const EXIT_MSR_STORE: u32 = td_vmcs::VM_EXIT_MSR_STORE_ADDRESS.field_code();
    pub(crate) const EXIT_MSR_LOAD: u32 = td_vmcs::VM_EXIT_MSR_LOAD_ADDRESS.field_code();
    pub(crate) const ENTRY_MSR_LOAD: u32 = td_vmcs::VM_ENTRY_MSR_LOAD_ADDRESS.field_code();
    pub(crate) const PML_ADDRESS: u32 = td_vmcs::PML_ADDRESS.field_code();
    pub(crate) const TSC_OFFSET: u32 = td_vmcs::TIME_STAMP_COUNTER_OFFSET.field_code();
    pub(crate) const VIRTUAL_APIC_PAGE: u32 = td_vmcs::VIRTUAL_APIC_ADDRESS.field_code();
    pub(crate) const APIC_ACCESS_PAGE: u32 = td_vmcs::APIC_ACCESS_ADDRESS.field_code();
    pub(crate) const POSTED_INTERRUPT_DESCRIPTOR: u32 =
        td_vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS.field_code();
    pub(crate) const EPTP: u32 = td_vmcs::EPTP.field_code();
    pub(crate) const EPTP_LIST: u32 = td_vmcs::EPTP_LIST_ADDRESS.field_code();
    pub(crate) const VMREAD_BITMAP: u32 = td_vmcs::VMREAD_BITMAP_ADDRESS.field_code();
    pub(crate) const VMWRITE_BITMAP: u32 = td_vmcs::VMWRITE_BITMAP_ADDRESS.field_code();
    pub(crate) const VE_INFO_ADDRESS: u32 =
        td_vmcs::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS.field_code();
    pub(crate) const ENCLS_EXITING: u32 = td_vmcs::ENCLS_EXITING_BITMAP.field_code();
    pub(crate) const TSC_MULTIPLIER: u32 = td_vmcs::TIME_STAMP_COUNTER_MULTIPLIER.field_code();
    pub(crate) const TERTIARY_CONTROLS: u32 =
        td_vmcs::TERTIARY_PROCESSOR_BASED_VM_EXECTION_CONTROLS.field_code();
    pub(crate) const ENCLV_EXITING: u32 = td_vmcs::ENCLV_EXITING_BITMAP.field_code();
    pub(crate) const PASID_LOW: u32 = td_vmcs::LOW_PASID_DIRECTORY_ADDRESS.field_code();
    pub(crate) const PASID_HIGH: u32 = td_vmcs::HIGH_PASID_DIRECTORY_ADDRESS.field_code();
    pub(crate) const SHARED_EPTP: u32 = td_vmcs::SHARED_EPTP.field_code();
    pub(crate) const PCONFIG_EXITING: u32 = td_vmcs::PCONFIG_EXITING_BITMAP.field_code();
    pub(crate) const HLATP: u32 = td_vmcs::HLAT_POINTER.field_code();
    pub(crate) const SPEC_CTRL_MASK: u32 = td_vmcs::IA32_SPEC_CTRL_MASK.field_code();
    pub(crate) const SPEC_CTRL_SHADOW: u32 = td_vmcs::IA32_SPEC_CTRL_SHADOW.field_code();
    pub(crate) const GUEST_PHYSICAL_ADDRESS: u32 = td_vmcs::GUEST_PHYSICAL_ADDRESS.field_code();
    pub(crate) const VMCS_LINK_POINTER: u32 = td_vmcs::VMCS_LINK_POINTER.field_code();
    pub(crate) const GUEST_DEBUGCTL: u32 = td_vmcs::IA32_DEBUGCTL.field_code();
    pub(crate) const GUEST_PAT: u32 = td_vmcs::IA32_PAT.field_code();
    pub(crate) const GUEST_EFER: u32 = td_vmcs::IA32_EFER.field_code();
    pub(crate) const GUEST_PERF_GLOBAL_CTRL: u32 = td_vmcs::IA32_PERF_GLOBAL_CTRL.field_code();
    pub(crate) const GUEST_PDPTE0: u32 = td_vmcs::PDPTEN.field_code();
    pub(crate) const PIN_BASED_CONTROLS: u32 = td_vmcs::PIN_BASED_VM_EXECTION_CONTROLS.field_code();
    pub(crate) const PROC_BASED_CONTROLS: u32 =
        td_vmcs::PRIMARY_PROCESSOR_BASED_VM_EXECTION_CONTROLS.field_code();
    pub(crate) const EXCEPTION_BITMAP: u32 = td_vmcs::EXCEPTION_BITMAP.field_code();
    pub(crate) const EXIT_CONTROLS: u32 = td_vmcs::VM_EXIT_CONTROLS.field_code();
    pub(crate) const ENTRY_CONTROLS: u32 = td_vmcs::VM_ENTRY_CONTROLS.field_code();
    pub(crate) const ENTRY_INTERRUPTION_INFO: u32 =
        td_vmcs::VM_ENTRY_INTERRUPTION_INFORMATION.field_code();
    pub(crate) const ENTRY_EXCEPTION_ERROR_CODE: u32 =
        td_vmcs::VM_ENTRY_EXCEPTION_ERROR_CODE.field_code();
    pub(crate) const ENTRY_INSTRUCTION_LENGTH: u32 =
        td_vmcs::VM_ENTRY_INSTRUCTION_LENGTH.field_code();
    pub(crate) const SECONDARY_CONTROLS: u32 =
        td_vmcs::SECONDARY_PROCESSOR_BASED_VM_EXECTION_CONTROLS.field_code();
    pub(crate) const EXIT_REASON: u32 = td_vmcs::EXIT_REASON.field_code();
    pub(crate) const EXIT_INTERRUPTION_INFO: u32 =
        td_vmcs::VM_EXIT_INTERRUPTION_INFORMATION.field_code();
    pub(crate) const EXIT_INTERRUPTION_ERROR_CODE: u32 =
        td_vmcs::VM_EXIT_INTERRUPTION_ERROR_CODE.field_code();
    pub(crate) const IDT_VECTORING_INFO: u32 = td_vmcs::IDT_VECTORING_INFORMATION.field_code();
    pub(crate) const IDT_VECTORING_ERROR_CODE: u32 = td_vmcs::IDT_VECTORING_ERROR_CODE.field_code();
    pub(crate) const EXIT_INSTRUCTION_LENGTH: u32 =
        td_vmcs::VM_EXIT_INSTRUCTION_LENGTH.field_code();
    pub(crate) const EXIT_INSTRUCTION_INFO: u32 =
        td_vmcs::VM_EXIT_INSTRUCTION_INFORMATION.field_code();
    pub(crate) const GUEST_ES_LIMIT: u32 = td_vmcs::GUEST_ES_LIMIT.field_code();
    pub(crate) const GUEST_CS_LIMIT: u32 = td_vmcs::GUEST_CS_LIMIT.field_code();
    pub(crate) const GUEST_SS_LIMIT: u32 = td_vmcs::GUEST_SS_LIMIT.field_code();
    pub(crate) const GUEST_DS_LIMIT: u32 = td_vmcs::GUEST_DS_LIMIT.field_code();
    pub(crate) const GUEST_FS_LIMIT: u32 = td_vmcs::GUEST_FS_LIMIT.field_code();
    pub(crate) const GUEST_GS_LIMIT: u32 = td_vmcs::GUEST_GS_LIMIT.field_code();
    pub(crate) const GUEST_LDTR_LIMIT: u32 = td_vmcs::GUEST_LDTR_LIMIT.field_code();
    pub(crate) const GUEST_TR_LIMIT: u32 = td_vmcs::GUEST_TR_LIMIT.field_code();
    pub(crate) const GUEST_GDTR_LIMIT: u32 = td_vmcs::GUEST_GDTR_LIMIT.field_code();
    pub(crate) const GUEST_IDTR_LIMIT: u32 = td_vmcs::GUEST_IDTR_LIMIT.field_code();
    pub(crate) const GUEST_ES_ACCESS_RIGHTS: u32 = td_vmcs::GUEST_ES_ACCESS_RIGHTS.field_code();
    pub(crate) const GUEST_CS_ACCESS_RIGHTS: u32 = td_vmcs::GUEST_CS_ACCESS_RIGHTS.field_code();
    pub(crate) const GUEST_SS_ACCESS_RIGHTS: u32 = td_vmcs::GUEST_SS_ACCESS_RIGHTS.field_code();
    pub(crate) const GUEST_DS_ACCESS_RIGHTS: u32 = td_vmcs::GUEST_DS_ACCESS_RIGHTS.field_code();
    pub(crate) const GUEST_FS_ACCESS_RIGHTS: u32 = td_vmcs::GUEST_FS_ACCESS_RIGHTS.field_code();
    pub(crate) const GUEST_GS_ACCESS_RIGHTS: u32 = td_vmcs::GUEST_GS_ACCESS_RIGHTS.field_code();
    pub(crate) const GUEST_LDTR_ACCESS_RIGHTS: u32 = td_vmcs::GUEST_LDTR_ACCESS_RIGHTS.field_code();
    pub(crate) const GUEST_TR_ACCESS_RIGHTS: u32 = td_vmcs::GUEST_TR_ACCESS_RIGHTS.field_code();
    pub(crate) const GUEST_INTERRUPTIBILITY: u32 = td_vmcs::INTERRUPTIBILITY_STATE.field_code();
    pub(crate) const GUEST_PREEMPTION_TIMER: u32 = td_vmcs::VMX_PREEMPTION_TIMER_VALUE.field_code();
    pub(crate) const CR0_GUEST_HOST_MASK: u32 = td_vmcs::CR0_GUEST_HOST_MASK.field_code();
    pub(crate) const CR4_GUEST_HOST_MASK: u32 = td_vmcs::CR4_GUEST_HOST_MASK.field_code();
    pub(crate) const CR0_READ_SHADOW: u32 = td_vmcs::CR0_READ_SHADOW.field_code();
    pub(crate) const CR4_READ_SHADOW: u32 = td_vmcs::CR4_READ_SHADOW.field_code();
    pub(crate) const EXIT_QUALIFICATION: u32 = td_vmcs::EXIT_QUALIFICATION.field_code();
    pub(crate) const GUEST_LINEAR_ADDRESS: u32 = td_vmcs::GUEST_LINEAR_ADDRESS.field_code();
    pub(crate) const GUEST_CR0: u32 = td_vmcs::GUEST_CR0.field_code();
    pub(crate) const GUEST_CR4: u32 = td_vmcs::GUEST_CR4.field_code();
    pub(crate) const GUEST_CS_BASE: u32 = td_vmcs::GUEST_CS_BASE.field_code();
    pub(crate) const GUEST_DR7: u32 = td_vmcs::GUEST_DR7.field_code();
    pub(crate) const GUEST_RSP: u32 = td_vmcs::GUEST_RSP.field_code();
    pub(crate) const GUEST_RIP: u32 = td_vmcs::GUEST_RIP.field_code();
    pub(crate) const GUEST_RFLAGS: u32 = td_vmcs::GUEST_RFLAGS.field_code();
    pub(crate) const GUEST_PENDING_DEBUG_EXCEPTIONS: u32 =
        td_vmcs::PENDING_DEBUG_EXCEPTIONS.field_code();
    pub(crate) const GUEST_SSP: u32 = td_vmcs::GUEST_SSP.field_code();
}
