//! x2APIC ids of vCPUs, which newer modules keep to enumerate the TD's topology.
//!
//! Source: `tdh_vp_init.c` of the TDX modules that know version 1 of TDH.VP.INIT.

use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::metadata::Area;
use crate::rules::Topology;
use crate::structures::Tdcs;

const ID_BYTES: u32 = 4;

/// Says that a vCPU is given its x2APIC id until one is not.
pub(crate) fn begin(tdcs: Tdcs<'_>, places: &Topology) {
    set_flags(tdcs, places, true);
}

fn set_flags(tdcs: Tdcs<'_>, places: &Topology, value: bool) {
    for flag in [places.configured, places.ve_reduction_valid] {
        Area::Tdcs(tdcs).store(flag, 1, value.into());
    }
}

/// Notes the x2APIC id of vCPU `index`, unique in its TD; `None` if the host gave none, which ends topology enumeration.
pub(crate) fn set_x2apic_id(
    tdcs: Tdcs<'_>,
    places: &Topology,
    index: u32,
    chosen: Option<u64>,
) -> Result<(), Status> {
    let area = Area::Tdcs(tdcs);
    let Some(chosen) = chosen else {
        set_flags(tdcs, places, false);
        return Ok(());
    };
    let invalid = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::R8);
    let id = u32::try_from(chosen).map_err(|_| invalid)?;
    let place = |index: u32| places.x2apic_ids + index * ID_BYTES;
    let is_taken = (0..index).any(|other| area.load(place(other), ID_BYTES) == u64::from(id));
    if is_taken {
        return Err(Status::with_detail(StatusCode::X2APIC_ID_NOT_UNIQUE, id));
    }
    area.store(place(index), ID_BYTES, id.into());
    Ok(())
}
