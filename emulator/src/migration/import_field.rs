//! Single fields of imported state: what is checked, and what follows from them.
//!
//! Source: `md_td_write_field`, `metadata_td.c`, and `check_and_init_imported_td_state_immutable` of the TDX
//! module 1.5.01.

use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::cpuid;
use crate::metadata::Access;
use crate::metadata::Context;
use crate::metadata::ContextCode;
use crate::metadata::MAX_ELEMENTS;
use crate::metadata::cpuid_index;
use crate::metadata::fields::tdr_tdcs as field;
use crate::metadata::hp_lock_timeout_ticks;
use crate::metadata::id::Id;
use crate::metadata::locate_in_td;
use crate::module::mng::derived;
use crate::module::mng::init;
use crate::servtd::binding;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::tdcs;
use crate::structures::tdr;
use tdx_abi::field::FieldRow;
use tdx_abi::field::MAX_L2_VMS;

/// IA32_SPEC_CTRL.DDPD_U.
const SPEC_CTRL_DDPD_U: u64 = 1 << 8;

const INVALID_VALUE: Status = Status::of(StatusCode::METADATA_FIELD_VALUE_NOT_VALID);
const NOT_WRITABLE: Status = Status::of(StatusCode::METADATA_FIELD_NOT_WRITABLE);

/// Writes the bits `mask` of all elements of the field that starts at `id`, as an import does.
pub(crate) fn write(
    context: &Context<'_>,
    scope: ContextCode,
    id: Id,
    row: &'static FieldRow,
    access: Access,
    values: &[u64; MAX_ELEMENTS],
    mask: u64,
) -> Result<(), Status> {
    match scope {
        ContextCode::System => Err(NOT_WRITABLE),
        ContextCode::Vcpu if row.num_of_elem == 1 => context
            .write_element(scope, id, access, values[0], mask)
            .map(|_| ()),
        ContextCode::Vcpu => Err(Status::of(StatusCode::METADATA_FIELD_ID_INCORRECT)),
        ContextCode::Td => write_td(context, id, row, access, values, mask),
    }
}

fn write_td(
    context: &Context<'_>,
    id: Id,
    row: &'static FieldRow,
    access: Access,
    values: &[u64; MAX_ELEMENTS],
    requested: u64,
) -> Result<(), Status> {
    let unreadable = Status::of(StatusCode::METADATA_FIELD_NOT_READABLE);
    let is_cpuid = Id::of(row.id) == field::CPUID_VALUES;
    let element = locate_in_td(context, id, row, access).map_err(|status| {
        if is_cpuid && status == unreadable {
            NOT_WRITABLE
        } else {
            status
        }
    })?;
    let mask = element.masks.write & requested;
    if mask == 0 {
        return Err(NOT_WRITABLE);
    }
    if row.special_wr && import_special(context, id, row, values, mask)? == Remaining::Nothing {
        return Ok(());
    }
    for (number, &value) in (0..u32::from(row.num_of_elem)).zip(values) {
        let old = element.raw(number);
        let forbidden = requested & !element.masks.write;
        if old & forbidden != value & forbidden {
            return Err(INVALID_VALUE);
        }
        element.replace(number, old, old & !mask | value & mask)?;
    }
    Ok(())
}

/// What is left to do for a field that needs more than a masked copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remaining {
    Copy,
    Nothing,
}

fn import_special(
    context: &Context<'_>,
    id: Id,
    row: &FieldRow,
    values: &[u64; MAX_ELEMENTS],
    mask: u64,
) -> Result<Remaining, Status> {
    let incorrect = Status::of(StatusCode::METADATA_FIELD_ID_INCORRECT);
    let (tdr, tdcs) = context.tdr.zip(context.tdcs).ok_or(incorrect)?;
    let core = context.core;
    let value = values[0] & mask;
    let copy_if = |legal: bool| {
        if legal {
            Ok(Remaining::Copy)
        } else {
            Err(INVALID_VALUE)
        }
    };
    match Id::of(row.id) {
        field::TD_UUID => {
            for word in 0..4 {
                tdcs.set(
                    tdcs::PREIMPORT_UUID.nth(word),
                    tdr.get(tdr::TD_UUID.nth(word)),
                );
            }
            Ok(Remaining::Copy)
        }
        field::ATTRIBUTES => {
            copy_if(value & tdcs::ATTRIBUTES_MIGRATABLE != 0 && init::are_attributes_legal(value))
        }
        field::CONFIG_FLAGS => copy_if(value & !init::CONFIG_FLAGS_ALLOWED == 0),
        field::XFAM => copy_if(init::is_xfam_legal(value)),
        field::VIRTUAL_IA32_ARCH_CAPABILITIES => {
            let tsx = tdcs.flag(tdcs::flags::TSX);
            copy_if(init::are_arch_capabilities_legal(values[0], tsx))
        }
        field::EPTP => {
            if !init::is_eptp_legal(core, value, tdcs.get(tdcs::GPAW)) {
                return Err(INVALID_VALUE);
            }
            tdcs.set(tdcs::EPTP, value | tdcs.page_hpa(tdcs::SEPT_ROOT_PAGE));
            Ok(Remaining::Nothing)
        }
        field::HP_LOCK_TIMEOUT => {
            tdcs.set(
                tdcs::HP_LOCK_TIMEOUT,
                hp_lock_timeout_ticks(context, value)?,
            );
            Ok(Remaining::Nothing)
        }
        field::NUM_CPUID_VALUES if values[0] == cpuid::LOOKUP.len() as u64 => {
            Ok(Remaining::Nothing)
        }
        field::NUM_CPUID_VALUES => Err(INVALID_VALUE),
        field::NUM_L2_VMS => import_l2_vms(tdr, tdcs, values[0]),
        field::VIRTUAL_TSC => {
            init::set_virtual_tsc(core, tdcs, values[0]);
            Ok(Remaining::Nothing)
        }
        field::CPUID_VALUES => copy_if(import_cpuid(core, tdcs, id, values)),
        field::SERVTD_BINDINGS_TABLE => {
            if binding::is_importable(tdcs, values) {
                Ok(Remaining::Nothing)
            } else {
                Err(INVALID_VALUE)
            }
        }
        _ => Ok(Remaining::Copy),
    }
}

fn import_l2_vms(tdr: Tdr<'_>, tdcs: Tdcs<'_>, l2_vms: u64) -> Result<Remaining, Status> {
    if l2_vms > u64::from(MAX_L2_VMS) {
        return Err(INVALID_VALUE);
    }
    tdcs.set(tdcs::NUM_L2_VMS, l2_vms as u16);
    if !tdr.has_tdcs(l2_vms as u32) {
        return Err(Status::of(StatusCode::TDCS_NOT_ALLOCATED));
    }
    Ok(Remaining::Nothing)
}

/// Takes note of what the values of a CPUID leaf imply, if this platform can offer them.
fn import_cpuid(core: &Core, tdcs: Tdcs<'_>, id: Id, values: &[u64; MAX_ELEMENTS]) -> bool {
    let Some(number) = cpuid_index(id.cpuid()) else {
        return false;
    };
    let halves = |value: u64| [value as u32, (value >> 32) as u32];
    let [[eax, ebx], [ecx, edx]] = [halves(values[0]), halves(values[1])];
    let native = cpuid::platform_values(&core.config)[number];
    let mut flags = core::array::from_fn(|number| tdcs.get(tdcs::CPUID_FLAGS.nth(number)));
    let importable = cpuid::is_importable(
        number,
        &[eax, ebx, ecx, edx],
        &native,
        init::td_config(tdcs),
        &mut flags,
    );
    for (number, &flag) in flags.iter().enumerate() {
        tdcs.set(tdcs::CPUID_FLAGS.nth(number), flag);
    }
    if importable {
        let hidden = if flags[tdcs::flags::DDPD] {
            0
        } else {
            SPEC_CTRL_DDPD_U
        };
        tdcs.set(tdcs::IA32_SPEC_CTRL_MASK, hidden);
        tdcs.set(tdcs::CPUID_VALID.nth(number), true);
    }
    importable
}

/// Checks that the imported immutable state fits together, and sets what it implies.
pub(crate) fn complete_immutable(tdcs: Tdcs<'_>) -> bool {
    let migratable = tdcs.has_attribute(tdcs::ATTRIBUTES_MIGRATABLE);
    let vcpus = tdcs.get(tdcs::NUM_VCPUS);
    if migratable && tdcs.l2_vms() > 0 || vcpus == 0 || vcpus > tdcs.get(tdcs::MAX_VCPUS) {
        return false;
    }
    tdcs.set(tdcs::NUM_ASSOC_VCPUS, 0);
    tdcs.set(tdcs::TD_EPOCH, 1);
    tdcs.set(tdcs::REFCOUNT, 0);
    tdcs.set(tdcs::REFCOUNT.nth(1), 0);
    derived::set_xsave_layout(tdcs);
    derived::set_msr_bitmaps(tdcs);
    let set =
        |flags: u64, bit: u64, condition: bool| if condition { flags | bit } else { flags & !bit };
    tdcs.update(tdcs::CONFIG_FLAGS, |flags: u64| {
        set(flags, tdcs::CONFIG_GPAW, tdcs.get(tdcs::GPAW))
    });
    let pending_without_ve = tdcs.has_attribute(tdcs::ATTRIBUTES_SEPT_VE_DISABLE);
    tdcs.update(tdcs::TD_CTLS, |ctls: u64| {
        set(ctls, tdcs::TD_CTLS_PENDING_VE_DISABLE, pending_without_ve)
    });
    true
}
