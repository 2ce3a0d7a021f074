//! Fields of the VMCSes and of TDVPS: finding and reading.

use crate::abi::Status;
use crate::abi::StatusCode;
use crate::frame::Field;
use crate::metadata::Access;
use crate::metadata::Area;
use crate::metadata::Context;
use crate::metadata::Masks;
use crate::metadata::fields::td_vmcs;
use crate::metadata::fields::tdvps as field;
use crate::metadata::given;
use crate::metadata::id::Id;
use crate::metadata::table;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdvps;
use crate::structures::Vmcs;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;
use tdx_abi::field::FieldRow;

/// Where an element of a vCPU field is kept.
#[derive(Clone, Copy)]
pub(crate) enum Storage<'a> {
    /// The field with this encoding in a VMCS of the vCPU.
    Vmcs(Vmcs<'a>, u32),
    /// TDVPS.
    Tdvps {
        /// The vCPU's TDVPS.
        tdvps: Tdvps<'a>,
        /// Bytes from its start.
        offset: u32,
        /// Bytes of the element.
        size: u32,
    },
}

impl Storage<'_> {
    /// The element as it is kept.
    pub(crate) fn load(self) -> u64 {
        match self {
            Self::Vmcs(vmcs, field) => vmcs.read(field),
            Self::Tdvps {
                tdvps,
                offset,
                size,
            } => Area::Tdvps(tdvps).load(offset, size),
        }
    }

    /// Replaces the element.
    pub(crate) fn store(self, value: u64) {
        match self {
            Self::Vmcs(vmcs, field) => vmcs.write(field, value),
            Self::Tdvps {
                tdvps,
                offset,
                size,
            } => Area::Tdvps(tdvps).store(offset, size, value),
        }
    }
}

/// An element of a vCPU field that was found.
pub(crate) struct Element<'a> {
    /// What the access may see and change.
    pub(crate) masks: Masks,
    /// Its value as metadata, not yet masked.
    pub(crate) value: u64,
    /// The VM (0 for L1) whose VMCS or MSR bitmaps it belongs to.
    pub(crate) vm: u16,
    /// Where it is kept.
    pub(crate) storage: Storage<'a>,
}

/// Bit 0 of a VMCS encoding: the high half of a 64-bit field, which metadata does not offer.
const ACCESS_TYPE_HIGH: u32 = 1;

/// Finds the element `id` of the field that `row` describes, and reads it.
pub(crate) fn locate<'a>(
    context: &Context<'a>,
    id: Id,
    row: &FieldRow,
    access: Access,
) -> Result<Element<'a>, Status> {
    let incorrect = Status::of(StatusCode::METADATA_FIELD_ID_INCORRECT);
    let tdvps = given(context.tdvps)?;
    let tdcs = given(context.tdcs)?;
    let row_id = Id::of(row.id);
    let vm = table::l2_vcpu_vm(id).unwrap_or(0);
    if vm > tdcs.get(tdcs::NUM_L2_VMS) {
        return Err(incorrect);
    }
    let storage = if id.class_code() == table::VMCS || table::l2_vmcs_vm(id).is_some() {
        if id.field_code() & ACCESS_TYPE_HIGH != 0 {
            return Err(incorrect);
        }
        Storage::Vmcs(tdvps.vmcs(usize::from(vm)), id.field_code())
    } else {
        let number = id.field_code() - row_id.field_code();
        let size = row_id.element_size();
        let offset = match table::l2_msr_bitmaps_vm(id) {
            // The L1 VMM and migration see the bitmaps that the L1 VMM asked for.
            Some(vm) if !access.is_host() => {
                table::l2_shadow_msr_bitmaps(context.module(), vm) + number * size
            }
            _ => row.offset + number * size,
        };
        Storage::Tdvps {
            tdvps,
            offset,
            size,
        }
    };
    let mut element = Element {
        masks: access.masks(row),
        value: storage.load(),
        vm,
        storage,
    };
    if row.special_rd {
        element.value = special_value(tdvps, tdcs, row, access, vm, element.value);
    }
    element.value &= row_id.element_mask();
    Ok(element)
}

/// Reads one element.
pub(crate) fn read_element(
    context: &Context<'_>,
    id: Id,
    row: &'static FieldRow,
    access: Access,
) -> Result<u64, Status> {
    let element = locate(context, id, row, access)?;
    if element.masks.read == 0 {
        return Err(Status::of(StatusCode::METADATA_FIELD_NOT_READABLE));
    }
    Ok(element.value & element.masks.read)
}

/// CR0 or CR4 as a guest reads it: host-owned bits come from the read shadow.
pub(crate) const fn guest_view(register: u64, guest_host_mask: u64, read_shadow: u64) -> u64 {
    register & !guest_host_mask | read_shadow & guest_host_mask
}

fn special_value(
    tdvps: Tdvps<'_>,
    tdcs: Tdcs<'_>,
    row: &FieldRow,
    access: Access,
    vm: u16,
    stored: u64,
) -> u64 {
    if Id::of(row.id).class_code() != table::VMCS {
        return match Id::of(row.id) {
            field::VCPU_STATE_DETAILS => u64::from(interrupt_is_pending(tdvps)),
            field::IA32_SPEC_CTRL => stored & !tdcs.get(tdcs::IA32_SPEC_CTRL_MASK),
            _ => stored,
        };
    }
    if vm == 0 {
        let vmcs = tdvps.vmcs(0);
        let migrating = matches!(access, Access::ExportMutable | Access::ImportMutable);
        return match Id::of(row.id) {
            td_vmcs::GUEST_CR0 if migrating => guest_view(
                stored,
                vmcs.read(encoding::CR0_GUEST_HOST_MASK),
                vmcs.read(encoding::CR0_READ_SHADOW),
            ),
            td_vmcs::GUEST_CR4 if migrating => guest_view(
                stored,
                vmcs.read(encoding::CR4_GUEST_HOST_MASK),
                vmcs.read(encoding::CR4_READ_SHADOW),
            ),
            _ => stored,
        };
    }
    let vm = usize::from(vm);
    let shadow = |field: Field<u64>| tdvps.get(field.nth(vm));
    let in_virtual_ticks = matches!(
        access,
        Access::GuestRead | Access::GuestWrite | Access::ExportImmutable
    );
    match Id::of(row.id) {
        td_vmcs::SHARED_EPTP => shadow(tdvps::SHADOW_SHARED_EPTP),
        td_vmcs::VIRTUAL_APIC_ADDRESS => shadow(tdvps::L2_VAPIC_GPA),
        _ if access.is_host() => stored,
        td_vmcs::CR0_GUEST_HOST_MASK => shadow(tdvps::SHADOW_CR0_GUEST_HOST_MASK),
        td_vmcs::CR0_READ_SHADOW => shadow(tdvps::SHADOW_CR0_READ_SHADOW),
        td_vmcs::CR4_GUEST_HOST_MASK => shadow(tdvps::SHADOW_CR4_GUEST_HOST_MASK),
        td_vmcs::CR4_READ_SHADOW => shadow(tdvps::SHADOW_CR4_READ_SHADOW),
        td_vmcs::GUEST_CR0 => guest_view(
            stored,
            tdvps.get(tdvps::BASE_L2_CR0_GUEST_HOST_MASK),
            tdvps.get(tdvps::BASE_L2_CR0_READ_SHADOW),
        ),
        td_vmcs::GUEST_CR4 => guest_view(
            stored,
            tdvps.get(tdvps::BASE_L2_CR4_GUEST_HOST_MASK),
            tdvps.get(tdvps::BASE_L2_CR4_READ_SHADOW),
        ),
        td_vmcs::PLE_GAP if in_virtual_ticks => u64::from(tdvps.get(tdvps::SHADOW_PLE_GAP.nth(vm))),
        td_vmcs::PLE_WINDOW if in_virtual_ticks => {
            u64::from(tdvps.get(tdvps::SHADOW_PLE_WINDOW.nth(vm)))
        }
        _ => stored,
    }
}

/// VCPU_STATE_DETAILS.VMXIP: whether a virtual interrupt is above the virtual processor priority.
pub(crate) fn interrupt_is_pending(tdvps: Tdvps<'_>) -> bool {
    /// Offset of the processor priority register in the virtual APIC page.
    const PPR: usize = 0xa0;
    /// The priority class of a vector or of PPR.
    const CLASS: u64 = 0xf0;
    let requesting_vector = tdvps.vmcs(0).read(encoding::GUEST_INTERRUPT_STATUS) & CLASS;
    requesting_vector > u64::from(tdvps.page(tdvps::VAPIC_PAGE).load::<u8>(PPR)) & CLASS
}
