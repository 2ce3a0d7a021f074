//! TDH.MR leaves. Source: `tdh_mr_extend.c` and `tdh_mr_finalize.c` of the TDX module.

use tdx_abi::Level;

use super::Call;
use super::Outcome;
use super::mem::entry::is_allowed;
use super::mem::entry::set_details;
use crate::abi::OpState;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::lock::Mode;
use crate::measurement;
use crate::sept;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;

/// Bytes that one EXTEND measures.
const CHUNK: usize = 256;

/// TDH.MR.EXTEND
pub(crate) fn extend(call: &mut Call<'_>) -> Outcome {
    const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_MR_EXTEND;
    let core = call.core;
    let (gpa, tdr) = (call.regs.rcx, call.regs.rdx);
    call.regs.rcx = 0;
    call.regs.rdx = 0;
    let tdr = core.lock_tdr(tdr, OperandId::RDX, Mode::Exclusive)?;
    let tdcs = core.lock_tdcs(*tdr, None, LEAF)?;
    let invalid = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RCX);
    if gpa % CHUNK as u64 != 0 || !core.is_valid_gpa(gpa, tdcs.get(tdcs::GPAW), true) {
        return Err(invalid);
    }
    let found = sept::walk(core.memory(), tdcs.root(), gpa, Level::Pt);
    if !found.entry.is_leaf() || found.entry.permissions() == 0 {
        set_details(call, found.entry, found.level);
        return Err(Status::with_operand(
            StatusCode::EPT_ENTRY_NOT_PRESENT,
            OperandId::RCX,
        ));
    }
    if !is_allowed(core, LEAF, found.entry) {
        return Err(Status::of(StatusCode::EPT_ENTRY_NOT_PRESENT));
    }
    let mut chunk = [0; CHUNK];
    core.memory()
        .read(found.entry.translate(gpa, found.level), &mut chunk);
    measurement::extend(*tdcs, b"MR.EXTEND", gpa);
    measurement::add(*tdcs, &chunk);
    Ok(())
}

/// TDH.MR.FINALIZE
pub(crate) fn finalize(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Exclusive)?;
    let tdcs = core.lock_tdcs(*tdr, None, SeamcallLeaf::TDH_MR_FINALIZE)?;
    if tdcs.get(tdcs::NUM_VCPUS) == 0 {
        return Err(Status::of(StatusCode::NO_VCPUS));
    }
    tdcs.set_bytes(tdcs::MRTD.offset(), &measurement::finish(*tdcs));
    tdcs.set_bytes(tdcs::SERVTD_HASH.offset(), &servtd_hash(*tdcs));
    tdcs.set_op_state(OpState::Runnable);
    Ok(())
}

/// SERVTD_HASH: SHA-384 over information hash, type and attributes of the bound service TD, 0 if there is none.
fn servtd_hash(tdcs: Tdcs<'_>) -> [u8; 48] {
    if tdcs.get(tdcs::servtd::STATE) == 0 {
        return [0; 48];
    }
    let mut bound = tdcs.bytes(tdcs::servtd::INFO_HASH.offset(), 48);
    bound.extend(tdcs.get(tdcs::servtd::TYPE).to_le_bytes());
    bound.extend(tdcs.get(tdcs::servtd::ATTRIBUTES).to_le_bytes());
    measurement::sha384(&bound)
}
