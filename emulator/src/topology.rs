//! x2APIC ids of vCPUs, which newer modules keep to enumerate the TD's topology.
//!
//! Source: `tdh_vp_init.c` of the TDX modules that know version 1 of TDH.VP.INIT.

use crate::abi::Module;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::metadata::Area;
use crate::structures::Tdcs;

/// Offset in TDCS of the x2APIC id of vCPU 0.
const X2APIC_IDS: u32 = 0x1680;
/// Offset in TDCS of the flag that every vCPU so far was given an x2APIC id; the next byte says that #VE can be reduced.
const TOPOLOGY_ENUM_CONFIGURED: u32 = 0x12c;
const ID_BYTES: u32 = 4;

/// Most vCPUs of a TD, where a module has a limit of its own: as many as it keeps x2APIC ids.
///
/// Source: `MAX_VCPUS_PER_TD` of `global_constants.h`.
pub(crate) const fn max_vcpus(module: Module) -> Option<u32> {
    match module {
        Module::V1_5_01 => None,
        Module::V1_5_34 => Some(576),
        Module::V2_0_18 => Some(1376),
    }
}

/// Says that a vCPU is given its x2APIC id until one is not.
pub(crate) fn begin(tdcs: Tdcs<'_>) {
    for flag in 0..2 {
        Area::Tdcs(tdcs).store(TOPOLOGY_ENUM_CONFIGURED + flag, 1, 1);
    }
}

/// Notes the x2APIC id of vCPU `index`, unique in its TD; `None` if the host gave none, which ends topology enumeration.
pub(crate) fn set_x2apic_id(tdcs: Tdcs<'_>, index: u32, chosen: Option<u64>) -> Result<(), Status> {
    let area = Area::Tdcs(tdcs);
    let Some(chosen) = chosen else {
        for flag in 0..2 {
            area.store(TOPOLOGY_ENUM_CONFIGURED + flag, 1, 0);
        }
        return Ok(());
    };
    let invalid = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::R8);
    let id = u32::try_from(chosen).map_err(|_| invalid)?;
    let place = |index: u32| X2APIC_IDS + index * ID_BYTES;
    let is_taken = (0..index).any(|other| area.load(place(other), ID_BYTES) == u64::from(id));
    if is_taken {
        return Err(Status::with_detail(StatusCode::X2APIC_ID_NOT_UNIQUE, id));
    }
    area.store(place(index), ID_BYTES, id.into());
    Ok(())
}
