//! TDH.MEM.PAGE.ADD

use tdx_abi::Level;

use super::super::Call;
use super::super::Outcome;
use super::entry::Mapping;
use super::entry::is_allowed;
use super::entry::set_details;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::SeptState;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::lock::Mode;
use crate::measurement;
use crate::pamt::PageType;
use crate::sept;
use crate::sept::RWX;
use crate::sept::SeptEntry;
use crate::structures::Structure;
use crate::structures::tdcs;

/// TDH.MEM.PAGE.ADD
pub(crate) fn page_add(call: &mut Call<'_>) -> Outcome {
    const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_MEM_PAGE_ADD;
    let core = call.core;
    let (mapping, tdr, page, source) = (call.regs.rcx, call.regs.rdx, call.regs.r8, call.regs.r9);
    call.regs.rcx = 0;
    call.regs.rdx = 0;
    let tdr = core.lock_tdr(tdr, OperandId::RDX, Mode::Exclusive)?;
    let tdcs = core.lock_tdcs(*tdr, None, LEAF)?;
    let invalid = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RCX);
    let Mapping { gpa, level } = Mapping::decode(mapping, Level::Pt, Level::Pt).ok_or(invalid)?;
    if !core.is_valid_gpa(gpa, tdcs.get(tdcs::GPAW), true) {
        return Err(invalid);
    }
    let found = sept::walk(core.memory(), tdcs.root(), gpa, level);
    if found.level != level {
        set_details(call, found.entry, found.level);
        return Err(Status::with_operand(
            StatusCode::EPT_WALK_FAILED,
            OperandId::RCX,
        ));
    }
    let entry = found.cell.get();
    if !is_allowed(core, LEAF, entry) {
        set_details(call, entry, level);
        return Err(Status::with_operand(
            StatusCode::EPT_ENTRY_STATE_INCORRECT,
            OperandId::RCX,
        ));
    }
    core.check_shared_hpa_aligned(source, Level::Pt.size())
        .map_err(|code| Status::with_operand(code, OperandId::R9))?;
    let locked = core.lock_page(page, OperandId::R8, Mode::Exclusive, PageType::Nda)?;
    core.memory()
        .copy(core.without_key_id(source) >> 12, page >> 12);
    core.claim(page, *tdr);
    found
        .cell
        .set(SeptEntry::leaf(SeptState::Mapped, RWX, page));
    measurement::extend(*tdcs, b"MEM.PAGE.ADD", gpa);
    core.count_memory(*tdcs, level, true);
    tdr.add_children(1);
    locked.take(PageType::Regular, tdr.hpa);
    locked.entry.set_bepoch(0);
    Ok(())
}
