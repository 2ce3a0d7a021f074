//! Fields of TDR and TDCS.

use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::cpuid;
use crate::metadata::Access;
use crate::metadata::Area;
use crate::metadata::Context;
use crate::metadata::MAX_ELEMENTS;
use crate::metadata::Masks;
use crate::metadata::cpuid_index;
use crate::metadata::fields::tdr_tdcs;
use crate::metadata::forbidden_bits_unchanged;
use crate::metadata::given;
use crate::metadata::id::Id;
use crate::metadata::table::CPUID_VALUES;
use crate::structures::Structure;
use crate::structures::tdcs;
use tdx_abi::field::FieldRow;

/// Shortest and longest HP_LOCK_TIMEOUT in microseconds.
///
/// Source: `MIN_HP_LOCK_TIMEOUT_USEC` and `MAX_HP_LOCK_TIMEOUT_USEC`, `td_control_structures.h`.
const HP_LOCK_TIMEOUT_US: core::ops::RangeInclusive<u64> = 10_000..=100_000_000;

const MICROSECONDS_PER_SECOND: u64 = 1_000_000;

/// Service TD type of a migration TD.
const MIGRATION_TD: u16 = 0;

const MIG_ENC_KEY_ELEMENTS: usize = 4;

/// An element of TDR or TDCS that was found.
pub(crate) struct Element<'a> {
    /// What the access may see and change.
    pub(crate) masks: Masks,
    /// Its value as metadata, not yet masked.
    pub(crate) value: u64,
    area: Area<'a>,
    offset: u32,
    size: u32,
}

impl Element<'_> {
    /// The element `index` elements further on, as it is in memory.
    pub(crate) fn raw(&self, index: u32) -> u64 {
        self.area.load(self.offset + index * self.size, self.size)
    }

    /// Replaces the element `index` elements further on, if it still is `old`.
    pub(crate) fn replace(&self, index: u32, old: u64, new: u64) -> Result<(), Status> {
        if self
            .area
            .compare_exchange(self.offset + index * self.size, self.size, old, new)
        {
            Ok(())
        } else {
            Err(Status::with_operand(
                StatusCode::OPERAND_BUSY,
                OperandId::METADATA_FIELD,
            ))
        }
    }
}

/// Finds the element `id` of the field that `row` describes, and reads it.
pub(crate) fn locate<'a>(
    context: &Context<'a>,
    id: Id,
    row: &FieldRow,
    access: Access,
) -> Result<Element<'a>, Status> {
    let row_id = Id::of(row.id);
    let tdcs = given(context.tdcs)?;
    let area = if is_in_tdr(row_id) {
        Area::Tdr(given(context.tdr)?)
    } else {
        Area::Tdcs(tdcs)
    };
    let number = if row_id.class_code() == CPUID_VALUES {
        let code = id.cpuid();
        let index = cpuid_index(code).filter(|_| code.is_well_formed());
        let index = index.ok_or(Status::of(StatusCode::METADATA_FIELD_ID_INCORRECT))? as u32;
        let faulting = cpuid::LOOKUP
            .get(index as usize)
            .is_none_or(|entry| entry.faulting);
        if access != Access::ImportImmutable
            && (faulting || !tdcs.get(tdcs::CPUID_VALID.nth(index as usize)))
        {
            return Err(Status::of(StatusCode::METADATA_FIELD_NOT_READABLE));
        }
        code.element() + index * u32::from(row.num_of_elem)
    } else {
        id.field_code() - row_id.field_code()
    };
    let size = row_id.element_size();
    let mut element = Element {
        masks: access.masks(row),
        value: 0,
        area,
        offset: row.offset + number * size,
        size,
    };
    element.value =
        special_value(context, row, access, number, element.raw(0))? & row_id.element_mask();
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

/// Reads all elements of a field. A CPUID leaf that cannot be read is skipped.
pub(crate) fn read_field(
    context: &Context<'_>,
    id: Id,
    row: &'static FieldRow,
    access: Access,
    values: &mut [u64; MAX_ELEMENTS],
) -> Result<(), Status> {
    let unreadable = Status::of(StatusCode::METADATA_FIELD_NOT_READABLE);
    let element = locate(context, id, row, access).map_err(|status| {
        if status == unreadable && id.class_code() == CPUID_VALUES {
            Status::of(StatusCode::METADATA_FIELD_SKIP)
        } else {
            status
        }
    })?;
    if element.masks.read == 0 {
        return Err(unreadable);
    }
    match Id::of(row.id) {
        tdr_tdcs::VIRTUAL_TSC => values[0] = virtual_tsc(context)?,
        tdr_tdcs::CPUID_VALUES => {
            for (index, value) in (0u32..).zip(values.iter_mut().take(usize::from(row.num_of_elem)))
            {
                *value = element.raw(index);
            }
        }
        _ if row.special_rd => values[0] = element.value,
        _ => {
            for (index, value) in (0u32..).zip(values.iter_mut().take(usize::from(row.num_of_elem)))
            {
                *value = element.raw(index) & element.masks.read;
            }
        }
    }
    Ok(())
}

/// Writes the bits `requested` of one element, and returns what it was before.
pub(crate) fn write_element(
    context: &Context<'_>,
    id: Id,
    row: &'static FieldRow,
    access: Access,
    value: u64,
    requested: u64,
) -> Result<u64, Status> {
    let element = locate(context, id, row, access)?;
    let mask = element.masks.write & requested;
    if mask == 0 {
        return Err(Status::of(StatusCode::METADATA_FIELD_NOT_WRITABLE));
    }
    if !forbidden_bits_unchanged(element.value, value, requested, element.masks.write) {
        return Err(Status::of(StatusCode::METADATA_FIELD_VALUE_NOT_VALID));
    }
    let new = element.value & !mask | value & mask;
    match Id::of(row.id) {
        tdr_tdcs::HP_LOCK_TIMEOUT => {
            if mask != u64::MAX {
                return Err(Status::of(StatusCode::METADATA_WR_MASK_NOT_VALID));
            }
            let ticks = hp_lock_timeout_ticks(context, new)?;
            element.area.store(element.offset, element.size, ticks);
            return Ok(element.value & element.masks.read);
        }
        tdr_tdcs::MIG_DEC_KEY => given(context.tdcs)?.set(tdcs::MIG_DEC_KEY_SET, true),
        tdr_tdcs::MIG_VERSION if new != 0 => {
            return Err(Status::of(StatusCode::METADATA_FIELD_VALUE_NOT_VALID));
        }
        tdr_tdcs::FEATURE_PARAVIRT_CTLS => {
            let ctls = given(context.tdcs)?.get(tdcs::TD_CTLS);
            if ctls & tdcs::TD_CTLS_LOCK != 0 && new != element.value {
                return Err(Status::of(StatusCode::METADATA_FIELD_VALUE_NOT_VALID));
            }
        }
        tdr_tdcs::TD_CTLS if access == Access::GuestWrite => {
            // Only newer modules let the guest write these bits.
            let changed = new ^ element.value;
            let is_locked = element.value & tdcs::TD_CTLS_LOCK != 0 && changed != 0;
            if is_locked || changed & new & tdcs::TD_CTLS_NOT_OFFERED != 0 {
                return Err(Status::of(StatusCode::METADATA_FIELD_VALUE_NOT_VALID));
            }
            let flexible = given(context.tdcs)?.get(tdcs::CONFIG_FLAGS)
                & tdcs::CONFIG_FLEXIBLE_PENDING_VE
                != 0;
            if !flexible && (new ^ element.value) & tdcs::TD_CTLS_PENDING_VE_DISABLE != 0 {
                return Err(Status::of(StatusCode::METADATA_FIELD_VALUE_NOT_VALID));
            }
        }
        _ => {}
    }
    element.replace(0, element.value, new)?;
    Ok(element.value & element.masks.read)
}

/// HP_LOCK_TIMEOUT of `microseconds` in ticks of the platform's TSC, as TDCS keeps it: 32 bits, so
/// that long times wrap around on a fast TSC, as they do in the module.
pub(crate) fn hp_lock_timeout_ticks(
    context: &Context<'_>,
    microseconds: u64,
) -> Result<u64, Status> {
    if !HP_LOCK_TIMEOUT_US.contains(&microseconds) {
        return Err(Status::of(StatusCode::METADATA_FIELD_VALUE_NOT_VALID));
    }
    let ticks = microseconds * context.core.config.tsc_frequency / MICROSECONDS_PER_SECOND;
    Ok(u64::from(ticks as u32))
}

/// The TSC as the TD sees it: native TSC times TSC_MULTIPLIER over 2^48, plus TSC_OFFSET.
pub(crate) fn virtual_tsc(context: &Context<'_>) -> Result<u64, Status> {
    let tdcs = given(context.tdcs)?;
    let product = u128::from(context.core.tsc()) * u128::from(tdcs.get(tdcs::TSC_MULTIPLIER));
    Ok(((product >> 48) as u64).wrapping_add(tdcs.get(tdcs::TSC_OFFSET)))
}

fn special_value(
    context: &Context<'_>,
    row: &FieldRow,
    access: Access,
    number: u32,
    stored: u64,
) -> Result<u64, Status> {
    Ok(match Id::of(row.id) {
        tdr_tdcs::HP_LOCK_TIMEOUT => {
            let ticks = stored.min(u64::MAX / MICROSECONDS_PER_SECOND);
            (ticks * MICROSECONDS_PER_SECOND)
                .checked_div(context.core.config.tsc_frequency)
                .unwrap_or(0)
        }
        tdr_tdcs::NUM_CPUID_VALUES => cpuid::LOOKUP.len() as u64,
        tdr_tdcs::MIG_ENC_KEY
            if number == 0 && access == (Access::ServiceTdRead { kind: MIGRATION_TD }) =>
        {
            // Each read by the migration TD makes a new key.
            let tdcs = given(context.tdcs)?;
            let mut key = [0; MIG_ENC_KEY_ELEMENTS];
            for word in &mut key {
                *word = context.core.random();
            }
            for (index, &word) in key.iter().enumerate() {
                tdcs.set(tdcs::MIG_ENC_KEY.nth(index), word);
            }
            key[0]
        }
        _ => stored,
    })
}

/// Whether the fields of this class lie in TDR; all others of the context lie in TDCS.
const fn is_in_tdr(row: Id) -> bool {
    const TDR_CLASSES: [u8; 3] = [
        tdr_tdcs::FATAL.class_code(),
        tdr_tdcs::HKID.class_code(),
        tdr_tdcs::HANDOFF_VERSION.class_code(),
    ];
    let class = row.class_code();
    class == TDR_CLASSES[0] || class == TDR_CLASSES[1] || class == TDR_CLASSES[2]
}
