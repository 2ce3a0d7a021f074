//! Fields of the VMCSes and of TDVPS: writing.

use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::cpu;
use crate::cpu::AllowedSettings;
use crate::frame::Field;
use crate::metadata::Access;
use crate::metadata::Area;
use crate::metadata::Context;
use crate::metadata::fields::td_vmcs;
use crate::metadata::fields::tdvps as field;
use crate::metadata::forbidden_bits_unchanged;
use crate::metadata::given;
use crate::metadata::id::Id;
use crate::metadata::table;
use crate::metadata::td;
use crate::metadata::vcpu;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdvps;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::tdvps::NULL_PA;
use crate::structures::vmcs::encoding;
use tdx_abi::field::FieldRow;

/// Whether the element itself remains to be stored after its special handling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remaining {
    /// Store this value.
    Store(u64),
    /// Everything is done.
    Nothing,
}

/// Bytes of a posted-interrupt descriptor.
const POSTED_INTERRUPT_DESCRIPTOR_BYTES: u64 = 64;
const PAGE_BYTES: u64 = 4096;
/// A posted-interrupt notification vector that was never set.
pub(crate) const NO_NOTIFICATION_VECTOR: u64 = 0xffff;
/// Pin-based control "process posted interrupts".
const PROCESS_POSTED_INTERRUPTS: u64 = 1 << 7;
/// Secondary control "enable PML".
const ENABLE_PML: u64 = 1 << 17;
/// IA32_DEBUGCTL.TR, BTS and ENABLE_UNCORE_PMI.
const DEBUGCTL_TR: u64 = 1 << 6;
const DEBUGCTL_BTS: u64 = 1 << 7;
pub(crate) const DEBUGCTL_ENABLE_UNCORE_PMI: u64 = 1 << 13;
/// EPTP: supervisor shadow-stack control.
const EPTP_SUPERVISOR_SHADOW_STACK: u64 = 1 << 7;
/// XFAM bits: PT, and CET supervisor state.
const XFAM_PT_BIT: u32 = 8;
const XFAM_CET_S: u64 = 1 << 12;
/// L2_CTLS.ENABLE_SHARED_EPTP.
const ENABLE_SHARED_EPTP: u64 = 1;
/// Bytes of the legacy region and of the header of an XSAVE area.
const XSAVE_LEGACY_BYTES: u32 = 512;
const XSAVE_HEADER_BYTES: u32 = 64;
/// IA32_SPEC_CTRL.DDPD_U.
const SPEC_CTRL_DDPD_U: u64 = 1 << 8;
/// Last value of TDVPS.L2_EXIT_HOST_ROUTING.
const HOST_ROUTED_TDVMCALL: u64 = 2;
/// Virtual IA32_VMX_* MSRs of the TD.
const VIRTUAL_PROCBASED_CTLS2: Field<u64> = tdcs::VIRT_MSRS.nth(6);
const VIRTUAL_TRUE_PROCBASED_CTLS: Field<u64> = tdcs::VIRT_MSRS.nth(9);
const VIRTUAL_PROCBASED_CTLS3: Field<u64> = tdcs::VIRT_MSRS.nth(13);

const INVALID_VALUE: Status = Status::of(StatusCode::METADATA_FIELD_VALUE_NOT_VALID);
const NOT_WRITABLE: Status = Status::of(StatusCode::METADATA_FIELD_NOT_WRITABLE);

/// Writes the bits `requested` of one element, and returns what it was before.
pub(crate) fn write_element(
    context: &Context<'_>,
    id: Id,
    row: &'static FieldRow,
    access: Access,
    value: u64,
    requested: u64,
) -> Result<u64, Status> {
    let element = vcpu::locate(context, id, row, access)?;
    let writable = element.masks.write;
    let mask = writable & requested;
    if mask == 0 {
        return Err(NOT_WRITABLE);
    }
    // When the whole element is replaced its present value does not matter.
    let whole = mask == Id::of(row.id).element_mask();
    let mut old = if whole { 0 } else { element.value };
    if (row.attributes.hpa() || row.attributes.gpa()) && old >> 63 != 0 {
        // An address that was never set is all ones; bits that cannot be written count as 0.
        old &= writable;
    }
    if !forbidden_bits_unchanged(old, value, requested, writable) {
        return Err(INVALID_VALUE);
    }
    let new = old & !mask | value & mask;
    check_address(context, row, access, new)?;
    let write = Write {
        context,
        tdvps: given(context.tdvps)?,
        tdcs: given(context.tdcs)?,
        id,
        access,
        writable,
    };
    let remaining = if !row.special_wr {
        Remaining::Store(new)
    } else if Id::of(row.id).class_code() != table::VMCS {
        write.tdvps_field(row, new)?
    } else if element.vm == 0 {
        write.vmcs_field(row, new)?
    } else {
        write.l2_vmcs_field(row, element.vm, new)?
    };
    if let Remaining::Store(value) = remaining {
        element.storage.store(value);
    }
    Ok(element.value & element.masks.read)
}

fn check_address(
    context: &Context<'_>,
    row: &FieldRow,
    access: Access,
    value: u64,
) -> Result<(), Status> {
    let attributes = row.attributes;
    let is_import = matches!(access, Access::ImportImmutable | Access::ImportMutable);
    let allowed = if attributes.hpa() && attributes.shared() {
        let size = match Id::of(row.id) {
            td_vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS => POSTED_INTERRUPT_DESCRIPTOR_BYTES,
            _ => PAGE_BYTES,
        };
        context.core.check_shared_hpa(value, size).is_ok()
    } else if is_import && value == NULL_PA {
        // An address that was never set at the source. 1.5.01 imports none.
        true
    } else if attributes.gpa() && attributes.private() {
        context
            .core
            .is_valid_gpa(value, given(context.tdcs)?.get(tdcs::GPAW), true)
    } else {
        true
    };
    if allowed { Ok(()) } else { Err(INVALID_VALUE) }
}

/// A write that passed the general checks.
struct Write<'a> {
    context: &'a Context<'a>,
    tdvps: Tdvps<'a>,
    tdcs: Tdcs<'a>,
    id: Id,
    access: Access,
    writable: u64,
}

impl Write<'_> {
    fn is_debug(&self) -> bool {
        self.tdcs.has_attribute(tdcs::ATTRIBUTES_DEBUG)
    }

    fn vmcs_field(&self, row: &FieldRow, value: u64) -> Result<Remaining, Status> {
        let vmcs = self.tdvps.vmcs(0);
        match Id::of(row.id) {
            td_vmcs::GUEST_CR0 => guest_write(
                vmcs.read(encoding::GUEST_CR0),
                value,
                vmcs.read(encoding::CR0_GUEST_HOST_MASK),
                vmcs.read(encoding::CR0_READ_SHADOW),
            ),
            td_vmcs::GUEST_CR4 => guest_write(
                vmcs.read(encoding::GUEST_CR4),
                value,
                vmcs.read(encoding::CR4_GUEST_HOST_MASK),
                vmcs.read(encoding::CR4_READ_SHADOW),
            ),
            td_vmcs::GUEST_CR3 => self.cr3(value),
            td_vmcs::IA32_DEBUGCTL => self.debugctl(value),
            td_vmcs::PIN_BASED_VM_EXECTION_CONTROLS => {
                if value & PROCESS_POSTED_INTERRUPTS != 0 {
                    let vector = vmcs.read(encoding::POSTED_INTERRUPT_NOTIFICATION_VECTOR);
                    if vector & 0xffff == NO_NOTIFICATION_VECTOR {
                        return Err(not_initialized(
                            td_vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR,
                        ));
                    }
                    if vmcs.read(encoding::POSTED_INTERRUPT_DESCRIPTOR) == NULL_PA {
                        return Err(not_initialized(
                            td_vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS,
                        ));
                    }
                }
                self.tdvps
                    .set(tdvps::SHADOW_PINBASED_EXEC_CTLS, value as u32);
                Ok(Remaining::Store(value))
            }
            td_vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS => {
                self.tdvps.set(tdvps::SHADOW_PID_HPA, value);
                Ok(Remaining::Store(value))
            }
            td_vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR => {
                if value > u64::from(u8::MAX) {
                    return Err(INVALID_VALUE);
                }
                self.tdvps
                    .set(tdvps::SHADOW_POSTED_INT_NOTIFICATION_VECTOR, value as u16);
                Ok(Remaining::Store(value))
            }
            td_vmcs::SECONDARY_PROCESSOR_BASED_VM_EXECTION_CONTROLS => {
                let allowed = cpu::SECONDARY_CONTROLS;
                let pml_without_log = value & ENABLE_PML != 0
                    && (!self.is_debug() || vmcs.read(encoding::PML_ADDRESS) >> 63 != 0);
                if !allowed.allow(self.writable as u32, value as u32) || pml_without_log {
                    return Err(INVALID_VALUE);
                }
                Ok(Remaining::Store(value))
            }
            td_vmcs::SHARED_EPTP => {
                self.tdvps.set(tdvps::SHADOW_SHARED_EPTP, value);
                Ok(Remaining::Store(value))
            }
            _ => Ok(Remaining::Store(value)),
        }
    }

    /// CR3 of newer modules (`check_guest_cr3_value`, `metadata_vp.c`), on a CPU without LAM.
    fn cr3(&self, value: u64) -> Result<Remaining, Status> {
        if self
            .context
            .core
            .is_valid_gpa(value, self.tdcs.get(tdcs::GPAW), true)
        {
            Ok(Remaining::Store(value))
        } else {
            Err(INVALID_VALUE)
        }
    }

    fn l2_vmcs_field(&self, row: &FieldRow, vm: u16, value: u64) -> Result<Remaining, Status> {
        let vmcs = self.tdvps.vmcs(usize::from(vm));
        let index = usize::from(vm);
        let shadow = |field: Field<u64>| self.tdvps.set(field.nth(index), value);
        match Id::of(row.id) {
            td_vmcs::GUEST_CR3 => self.cr3(value),
            td_vmcs::CR0_GUEST_HOST_MASK => {
                shadow(tdvps::SHADOW_CR0_GUEST_HOST_MASK);
                self.combine_cr0(vm);
                Ok(Remaining::Nothing)
            }
            td_vmcs::CR0_READ_SHADOW => {
                shadow(tdvps::SHADOW_CR0_READ_SHADOW);
                self.combine_cr0(vm);
                Ok(Remaining::Nothing)
            }
            td_vmcs::CR4_GUEST_HOST_MASK => {
                shadow(tdvps::SHADOW_CR4_GUEST_HOST_MASK);
                self.combine_cr4(vm);
                Ok(Remaining::Nothing)
            }
            td_vmcs::CR4_READ_SHADOW => {
                shadow(tdvps::SHADOW_CR4_READ_SHADOW);
                self.combine_cr4(vm);
                Ok(Remaining::Nothing)
            }
            td_vmcs::EPTP => {
                if value & EPTP_SUPERVISOR_SHADOW_STACK != 0
                    && self.tdcs.get(tdcs::XFAM) & XFAM_CET_S == 0
                {
                    return Err(INVALID_VALUE);
                }
                Ok(Remaining::Store(value))
            }
            td_vmcs::GUEST_CR0 => guest_write(
                vmcs.read(encoding::GUEST_CR0),
                value,
                self.tdvps.get(tdvps::BASE_L2_CR0_GUEST_HOST_MASK),
                self.tdvps.get(tdvps::BASE_L2_CR0_READ_SHADOW),
            ),
            td_vmcs::GUEST_CR4 => guest_write(
                vmcs.read(encoding::GUEST_CR4),
                value,
                self.tdvps.get(tdvps::BASE_L2_CR4_GUEST_HOST_MASK),
                self.tdvps.get(tdvps::BASE_L2_CR4_READ_SHADOW),
            ),
            td_vmcs::IA32_DEBUGCTL => self.debugctl(value),
            td_vmcs::PLE_GAP => self.pause_loop(tdvps::SHADOW_PLE_GAP.nth(index), value),
            td_vmcs::PLE_WINDOW => self.pause_loop(tdvps::SHADOW_PLE_WINDOW.nth(index), value),
            td_vmcs::PRIMARY_PROCESSOR_BASED_VM_EXECTION_CONTROLS => {
                self.check_controls(cpu::PRIMARY_CONTROLS, VIRTUAL_TRUE_PROCBASED_CTLS, value)
            }
            td_vmcs::SECONDARY_PROCESSOR_BASED_VM_EXECTION_CONTROLS => {
                self.check_controls(cpu::SECONDARY_CONTROLS, VIRTUAL_PROCBASED_CTLS2, value)
            }
            td_vmcs::TERTIARY_PROCESSOR_BASED_VM_EXECTION_CONTROLS => {
                let allowed = if self.debugger_writes() {
                    cpu::TERTIARY_CONTROLS
                } else {
                    self.tdcs.get(VIRTUAL_PROCBASED_CTLS3)
                };
                if value & self.writable & !allowed == 0 {
                    Ok(Remaining::Store(value))
                } else {
                    Err(INVALID_VALUE)
                }
            }
            td_vmcs::SHARED_EPTP => {
                shadow(tdvps::SHADOW_SHARED_EPTP);
                let enabled = self.tdvps.get(tdvps::L2_CTLS.nth(index)) & ENABLE_SHARED_EPTP != 0;
                Ok(if enabled {
                    Remaining::Store(value)
                } else {
                    Remaining::Nothing
                })
            }
            td_vmcs::VIRTUAL_APIC_ADDRESS => {
                shadow(tdvps::L2_VAPIC_GPA);
                self.tdvps.set(tdvps::L2_VAPIC_HPA.nth(index), NULL_PA);
                Ok(Remaining::Nothing)
            }
            _ => Ok(Remaining::Store(value)),
        }
    }

    fn tdvps_field(&self, row: &FieldRow, value: u64) -> Result<Remaining, Status> {
        let code = self.id.field_code();
        let number = code - Id::of(row.id).field_code();
        let valid = match Id::of(row.id) {
            field::XCR0 => is_guest_xcr0(value, cpu::XCR0_SUPPORTED, self.tdcs.get(tdcs::XFAM)),
            field::XBUFF => {
                if matches!(self.access, Access::HostWrite { .. }) && self.is_protected_xbuff(code)
                {
                    return Err(NOT_WRITABLE);
                }
                true
            }
            field::IA32_SPEC_CTRL => return Ok(Remaining::Store(self.real_spec_ctrl(value))),
            field::IA32_XSS => value & !self.tdcs.get(tdcs::XFAM) == 0,
            field::VCPU_STATE if self.tdvps.get(tdvps::STATE) != tdvps::state::DISABLED => {
                return Ok(Remaining::Nothing);
            }
            field::VCPU_INDEX => value < u64::from(self.tdcs.get(tdcs::NUM_VCPUS)),
            field::LAST_TD_EXIT => value <= u64::from(tdvps::last_exit::TDVMCALL),
            field::CURR_VM => value <= u64::from(self.tdcs.get(tdcs::NUM_L2_VMS)),
            field::L2_EXIT_HOST_ROUTING => value <= HOST_ROUTED_TDVMCALL,
            // The table lets a debugger write it; the module does not.
            field::XFAM => return Err(NOT_WRITABLE),
            field::L2_CTLS => {
                self.apply_l2_controls(number, value)?;
                true
            }
            field::TSC_DEADLINE => {
                self.apply_tsc_deadline(number, value)?;
                true
            }
            _ => match table::l2_msr_bitmaps_vm(self.id) {
                Some(vm) => {
                    self.write_msr_bitmaps(row, vm, number, value);
                    return Ok(Remaining::Nothing);
                }
                None => true,
            },
        };
        if valid {
            Ok(Remaining::Store(value))
        } else {
            Err(INVALID_VALUE)
        }
    }

    /// Bits 7:6 of IA32_DEBUGCTL must not be 01 unless the TD is debugged; ENABLE_UNCORE_PMI is the VMM's.
    fn debugctl(&self, value: u64) -> Result<Remaining, Status> {
        if value & DEBUGCTL_BTS == 0 && value & DEBUGCTL_TR != 0 && !self.is_debug() {
            return Err(INVALID_VALUE);
        }
        let host = cpu::DEBUGCTL & DEBUGCTL_ENABLE_UNCORE_PMI;
        Ok(Remaining::Store(value & !DEBUGCTL_ENABLE_UNCORE_PMI | host))
    }

    fn debugger_writes(&self) -> bool {
        matches!(self.access, Access::HostWrite { .. }) && self.is_debug()
    }

    fn check_controls(
        &self,
        native: AllowedSettings,
        virtual_msr: Field<u64>,
        value: u64,
    ) -> Result<Remaining, Status> {
        let allowed = if self.debugger_writes() {
            native
        } else {
            AllowedSettings::from_msr(self.tdcs.get(virtual_msr))
        };
        if allowed.allow(self.writable as u32, value as u32) {
            Ok(Remaining::Store(value))
        } else {
            Err(INVALID_VALUE)
        }
    }

    fn combine_cr0(&self, vm: u16) {
        let vmcs = self.tdvps.vmcs(usize::from(vm));
        let (mask, shadow) = self.combined(
            vm,
            [
                tdvps::BASE_L2_CR0_GUEST_HOST_MASK,
                tdvps::BASE_L2_CR0_READ_SHADOW,
            ],
            [
                tdvps::SHADOW_CR0_GUEST_HOST_MASK,
                tdvps::SHADOW_CR0_READ_SHADOW,
            ],
        );
        vmcs.write(encoding::CR0_GUEST_HOST_MASK, mask);
        vmcs.write(encoding::CR0_READ_SHADOW, shadow);
    }

    fn combine_cr4(&self, vm: u16) {
        let vmcs = self.tdvps.vmcs(usize::from(vm));
        let (mask, shadow) = self.combined(
            vm,
            [
                tdvps::BASE_L2_CR4_GUEST_HOST_MASK,
                tdvps::BASE_L2_CR4_READ_SHADOW,
            ],
            [
                tdvps::SHADOW_CR4_GUEST_HOST_MASK,
                tdvps::SHADOW_CR4_READ_SHADOW,
            ],
        );
        vmcs.write(encoding::CR4_GUEST_HOST_MASK, mask);
        vmcs.write(encoding::CR4_READ_SHADOW, shadow);
    }

    /// Guest/host mask and read shadow of an L2 VM: a bit is the L1 VMM's if it asked for it, else the
    /// module's if the base policy says so.
    fn combined(&self, vm: u16, base: [Field<u64>; 2], by_l1: [Field<u64>; 2]) -> (u64, u64) {
        let [base_mask, base_shadow] = base.map(|field| self.tdvps.get(field));
        let [l1_mask, l1_shadow] = by_l1.map(|field| self.tdvps.get(field.nth(usize::from(vm))));
        (
            base_mask | l1_mask,
            base_mask & !l1_mask & base_shadow | l1_mask & l1_shadow,
        )
    }

    /// PLE_GAP and PLE_WINDOW are virtual TSC ticks for the L1 VMM and native ones in the VMCS.
    fn pause_loop(&self, shadow: Field<u32>, value: u64) -> Result<Remaining, Status> {
        if !matches!(self.access, Access::GuestWrite | Access::ImportImmutable) {
            return Ok(Remaining::Store(value));
        }
        self.tdvps.set(shadow, value as u32);
        let native = self
            .native_tsc(value)
            .filter(|&ticks| u32::try_from(ticks).is_ok());
        native.map(Remaining::Store).ok_or(INVALID_VALUE)
    }

    /// The native TSC at which the virtual TSC is `virtual_tsc`, if it has 64 bits.
    fn native_tsc(&self, virtual_tsc: u64) -> Option<u64> {
        let multiplier = u128::from(self.tdcs.get(tdcs::TSC_MULTIPLIER));
        let ticks = virtual_tsc.wrapping_sub(self.tdcs.get(tdcs::TSC_OFFSET));
        (u128::from(ticks) << 48)
            .checked_div(multiplier)
            .and_then(|native| u64::try_from(native).ok())
    }

    fn real_spec_ctrl(&self, value: u64) -> u64 {
        let hidden = self.tdcs.get(tdcs::IA32_SPEC_CTRL_MASK) & SPEC_CTRL_DDPD_U;
        if cpu::DDPD_SUPPORTED {
            value | hidden
        } else {
            value & !SPEC_CTRL_DDPD_U
        }
    }

    /// The XSAVE header, and the image of IA32_RTIT_CTL, stay out of a debugger's reach.
    fn is_protected_xbuff(&self, code: u32) -> bool {
        let header = XSAVE_LEGACY_BYTES / 8..(XSAVE_LEGACY_BYTES + XSAVE_HEADER_BYTES) / 8;
        let processor_trace = self.tdcs.get(tdcs::XFAM) >> XFAM_PT_BIT & 1 != 0
            && code == self.tdcs.get(tdcs::XBUFF_OFFSETS.nth(XFAM_PT_BIT as usize)) / 8;
        header.contains(&code) || processor_trace
    }

    fn apply_l2_controls(&self, vm: u32, value: u64) -> Result<(), Status> {
        if vm == 0 || u64::from(vm) > u64::from(self.tdcs.get(tdcs::NUM_L2_VMS)) {
            return Ok(());
        }
        let asked = self.tdvps.get(tdvps::SHADOW_SHARED_EPTP.nth(vm as usize));
        let eptp = if value & ENABLE_SHARED_EPTP != 0 && asked != NULL_PA {
            asked
        } else {
            given(self.context.tdr)?.tdcx(tdcs::ZERO_PAGE)
        };
        self.tdvps
            .vmcs(vm as usize)
            .write(encoding::SHARED_EPTP, eptp);
        Ok(())
    }

    fn apply_tsc_deadline(&self, vm: u32, value: u64) -> Result<(), Status> {
        if vm == 0
            || u64::from(vm) > u64::from(self.tdcs.get(tdcs::NUM_L2_VMS))
            || value == u64::MAX
        {
            return Ok(());
        }
        let now = self.context.core.tsc();
        let deadline = if value <= td::virtual_tsc(self.context)? {
            now
        } else {
            let later = |&native: &u64| native != 0 && native.wrapping_sub(now) as i64 >= 0;
            self.native_tsc(value)
                .filter(later)
                .ok_or(Status::of(StatusCode::OPERAND_INVALID))?
        };
        self.tdvps
            .set(tdvps::SHADOW_TSC_DEADLINE.nth(vm as usize), deadline);
        Ok(())
    }

    /// What the L1 VMM asks for goes to the shadow; the CPU uses it or-ed with the TD's own bitmaps.
    fn write_msr_bitmaps(&self, row: &FieldRow, vm: u16, number: u32, value: u64) {
        let size = Id::of(row.id).element_size();
        let tdvps = Area::Tdvps(self.tdvps);
        tdvps.store(
            table::l2_shadow_msr_bitmaps(self.context.module(), vm) + number * size,
            size,
            value,
        );
        let of_td = self
            .tdcs
            .msr_bitmaps()
            .load::<u64>((number * size) as usize);
        tdvps.store(row.offset + number * size, size, of_td | value);
    }
}

/// CR0 or CR4 after a write as if by the guest, which sees the read shadow of host-owned bits.
fn guest_write(
    old: u64,
    new: u64,
    guest_host_mask: u64,
    read_shadow: u64,
) -> Result<Remaining, Status> {
    if (new ^ read_shadow) & guest_host_mask != 0 {
        return Err(INVALID_VALUE);
    }
    Ok(Remaining::Store(
        old & guest_host_mask | new & !guest_host_mask,
    ))
}

/// TD_VMCS_FIELD_NOT_INITIALIZED with the encoding of the field.
const fn not_initialized(field: Id) -> Status {
    Status::with_operand(
        StatusCode::TD_VMCS_FIELD_NOT_INITIALIZED,
        OperandId::new(field.field_code()),
    )
}

/// Whether a guest may have `value` in XCR0: supported bits, and combinations that the CPU allows.
///
/// Source: SDM volume 1, 13.3.
pub(crate) const fn is_guest_xcr0(value: u64, supported: u64, xfam: u64) -> bool {
    const X87: u64 = 1;
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const AVX512: u64 = 7 << 5;
    const AMX: u64 = 3 << 17;
    let avx512 = value & AVX512;
    let amx = value & AMX;
    value & !(supported & xfam) == 0
        && value & X87 != 0
        && (value & AVX == 0 || value & SSE != 0)
        && (avx512 == 0 || avx512 == AVX512 && value & AVX != 0)
        && (amx == 0 || amx == AMX)
}
