//! TDH.MEM.RD and TDH.MEM.WR: memory of a debug TD.

use tdx_abi::Level;

use super::super::Call;
use super::super::Outcome;
use super::entry::is_allowed;
use super::entry::set_details;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::lock::Mode;
use crate::lock::Sharex;
use crate::sept;
use crate::structures::Structure;
use crate::structures::tdcs;

/// TDH.MEM.RD
pub(crate) fn rd(call: &mut Call<'_>) -> Outcome {
    access(call, SeamcallLeaf::TDH_MEM_RD, None)
}

/// TDH.MEM.WR
pub(crate) fn wr(call: &mut Call<'_>) -> Outcome {
    let value = call.regs.r8;
    access(call, SeamcallLeaf::TDH_MEM_WR, Some(value))
}

fn access(call: &mut Call<'_>, leaf: SeamcallLeaf, write: Option<u64>) -> Outcome {
    let core = call.core;
    let (gpa, tdr) = (call.regs.rcx, call.regs.rdx);
    call.regs.rcx = 0;
    call.regs.rdx = 0;
    call.regs.r8 = 0;
    let tdr = core.lock_tdr(tdr, OperandId::RDX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(*tdr, Some(Mode::Shared), leaf)?;
    if !tdcs.has_attribute(tdcs::ATTRIBUTES_DEBUG) {
        return Err(Status::of(StatusCode::TD_NON_DEBUG));
    }
    let invalid = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RCX);
    if gpa & 7 != 0 {
        return Err(invalid);
    }
    let _tree = Sharex::acquire(tdcs.lock_word(tdcs::SEPT_LOCK), Mode::Shared).ok_or(
        Status::with_operand(StatusCode::OPERAND_BUSY, OperandId::SEPT_TREE),
    )?;
    if !core.is_valid_gpa(gpa, tdcs.get(tdcs::GPAW), true) {
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
    let lock = found.cell.lock_host().map_err(|code| {
        set_details(call, found.entry, found.level);
        Status::with_operand(code, OperandId::RCX)
    })?;
    let entry = lock.get();
    if !is_allowed(core, leaf, entry) {
        set_details(call, entry, found.level);
        return Err(Status::with_operand(
            StatusCode::EPT_ENTRY_STATE_INCORRECT,
            OperandId::RCX,
        ));
    }
    let hpa = entry.translate(gpa, found.level);
    call.regs.r8 = core.memory().read_u64(hpa);
    if let Some(value) = write {
        core.memory().write_u64(hpa, value);
    }
    Ok(())
}
