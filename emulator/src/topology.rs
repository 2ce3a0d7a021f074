//! x2APIC ids of vCPUs, which newer modules keep to enumerate the TD's topology.
//!
//! Source: `tdh_vp_init.c` of the TDX modules that know version 1 of TDH.VP.INIT.

use tdx_abi::field::tdr_tdcs;

use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::metadata::Area;
use crate::metadata::added_to_tdcs;
use crate::structures::Tdcs;

/// Offset in TDCS of the x2APIC id of vCPU 0.
const X2APIC_IDS: u32 = added_to_tdcs(tdr_tdcs::X2APIC_IDS);
/// Offset in TDCS of the flag that every vCPU so far was given an x2APIC id; the next byte says that #VE can be reduced.
const TOPOLOGY_ENUM_CONFIGURED: u32 = added_to_tdcs(tdr_tdcs::TOPOLOGY_ENUM_CONFIGURED);
const ID_BYTES: u32 = 4;

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
