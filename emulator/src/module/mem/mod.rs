//! TDH.MEM leaves. Source: `src/vmm_dispatcher/api_calls/tdh_mem_*.c` of the TDX module.

pub(crate) mod counts;
pub(crate) mod demote;
pub(crate) mod entry;
pub(crate) mod page_add;
pub(crate) mod promote;
pub(crate) mod rd_wr;
pub(crate) mod sept_add;
pub(crate) mod sept_remove;

use tdx_abi::Level;

use super::Call;
use super::Outcome;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::SeptState;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::lock::Mode;
use crate::lock::Sharex;
use crate::pamt::PageType;
use crate::sept::SeptEntry;
use crate::structures::Structure;
use crate::structures::tdcs;
use entry::Levels;
use entry::Opened;

/// TDH.MEM.PAGE.AUG
pub(crate) fn page_aug(call: &mut Call<'_>) -> Outcome {
    const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_MEM_PAGE_AUG;
    let page = call.regs.r8;
    let opened = Opened::open(call, LEAF, Levels(Level::Pt, Some(Level::Pd)), Mode::Shared)?;
    opened.require(call, LEAF)?;
    let locked = call
        .core
        .lock_free_range(page, OperandId::R8, opened.level)?;
    let Opened {
        lock,
        tdr,
        tdcs,
        level,
        ..
    } = opened;
    call.core.count_memory(*tdcs, level, true);
    lock.set_and_release(SeptEntry::leaf(SeptState::Pending, 0, page));
    tdr.add_children(1 << (9 * level as u32));
    locked.take(PageType::Regular, tdr.hpa);
    locked.entry.set_bepoch(0);
    Ok(())
}

/// TDH.MEM.PAGE.REMOVE
pub(crate) fn page_remove(call: &mut Call<'_>) -> Outcome {
    const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_MEM_PAGE_REMOVE;
    let opened = Opened::open(
        call,
        LEAF,
        Levels(Level::Pt, Some(Level::Pdpt)),
        Mode::Shared,
    )?;
    opened.require_leaf(call, LEAF)?;
    let entry = opened.entry.without_pending_count(opened.level);
    let hpa = entry.translate(opened.gpa, opened.level);
    let locked = call
        .core
        .lock_implicit(hpa, OperandId::RCX, Mode::Exclusive, opened.level)?;
    opened.require_tracked(call, entry, locked.entry, OperandId::RCX)?;
    opened.for_each_alias(call.core, entry, |cell| cell.set(SeptEntry::L2_FREE));
    let importing = opened.tdcs.op_state().import_in_progress();
    call.core.count_unblocked(*opened.tdcs, entry, opened.level);
    call.core.count_memory(*opened.tdcs, opened.level, false);
    let Opened {
        lock,
        tdr,
        tdcs,
        level,
        ..
    } = opened;
    lock.set_and_release(if importing {
        SeptEntry::removed(tdcs.get(tdcs::MIG_EPOCH))
    } else {
        SeptEntry::FREE
    });
    tdr.add_children(-(1 << (9 * level as u32)));
    call.regs.rcx = hpa | locked.free();
    Ok(())
}

/// Refuses a version that the module does not have, and says nothing of an entry.
fn check_version(call: &mut Call<'_>) -> Outcome {
    call.check_version().inspect_err(|_| {
        call.regs.rcx = 0;
        call.regs.rdx = 0;
    })
}

/// Bits of a physical address.
const PHYSICAL_ADDRESS: u64 = (1 << 52) - 1;

/// TDH.MEM.PAGE.RELOCATE
pub(crate) fn page_relocate(call: &mut Call<'_>) -> Outcome {
    const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_MEM_PAGE_RELOCATE;
    let target = call.regs.r8;
    let opened = Opened::open(call, LEAF, Levels(Level::Pt, Some(Level::Pt)), Mode::Shared)?;
    opened.require_leaf(call, LEAF)?;
    let source = opened.entry.translate(opened.gpa, opened.level);
    // Bits above a physical address do not count here; what they are worth, the lock of the target tells.
    if source == target & PHYSICAL_ADDRESS {
        return Err(Status::with_operand(
            StatusCode::OPERAND_INVALID,
            OperandId::R8,
        ));
    }
    let core = call.core;
    let old = core.lock_implicit(source, OperandId::RCX, Mode::Exclusive, opened.level)?;
    opened.require_tracked(call, opened.entry, old.entry, OperandId::RCX)?;
    let new = core.lock_page(target, OperandId::R8, Mode::Exclusive, PageType::Nda)?;
    let pending = opened.entry.state().any_pending();
    if !pending {
        core.memory().copy(source >> 12, target >> 12);
        core.claim(target, *opened.tdr);
    }
    let last = old.free();
    new.take(PageType::Regular, opened.tdr.hpa);
    new.entry.set_bepoch(0);
    opened.for_each_alias(core, opened.entry, |cell| {
        let moved = cell.get().with_address(target);
        cell.set(if pending { moved } else { moved.l2_unblocked() });
    });
    core.count_unblocked(*opened.tdcs, opened.entry, opened.level);
    opened
        .lock
        .set(opened.entry.with_address(target).unblocked());
    call.regs.rcx = source | last;
    Ok(())
}

/// TDH.MEM.RANGE.BLOCK
pub(crate) fn range_block(call: &mut Call<'_>) -> Outcome {
    const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_MEM_RANGE_BLOCK;
    let opened = Opened::open(call, LEAF, Levels(Level::Pt, None), Mode::Exclusive)?;
    let entry = opened.entry;
    if entry.state().any_blocked() {
        opened.details(call);
        let code = StatusCode::GPA_RANGE_ALREADY_BLOCKED;
        return Err(Status::with_operand(code, OperandId::RCX));
    }
    opened.require(call, LEAF)?;
    let Some(blocked) = entry.blocked(opened.level) else {
        return Err(opened.refuse(call, StatusCode::EPT_ENTRY_STATE_INCORRECT));
    };
    call.core.count_blocked(*opened.tdcs, entry, opened.level);
    opened.lock.set(blocked);
    let blocked_for_writing = entry.state().any_blockedw();
    opened.for_each_alias(call.core, entry, |cell| {
        cell.set(cell.get().l2_blocked(blocked_for_writing));
    });
    let level = if entry.is_leaf() {
        opened.level
    } else {
        Level::Pt
    };
    call.core
        .implicit(entry.address(), level)?
        .set_bepoch(opened.tdcs.get(tdcs::TD_EPOCH));
    Ok(())
}

/// TDH.MEM.RANGE.UNBLOCK
pub(crate) fn range_unblock(call: &mut Call<'_>) -> Outcome {
    const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_MEM_RANGE_UNBLOCK;
    let opened = Opened::open(call, LEAF, Levels(Level::Pt, None), Mode::Exclusive)?;
    opened.require(call, LEAF)?;
    let entry = opened.entry;
    if opened.needs_tracking(entry) {
        let pamt = if entry.is_leaf() {
            call.core
                .implicit(entry.translate(opened.gpa, opened.level), opened.level)?
        } else {
            call.core.implicit(entry.address(), Level::Pt)?
        };
        if !opened.tdcs.is_tlb_tracked(pamt.bepoch()) {
            let code = StatusCode::TLB_TRACKING_NOT_DONE;
            let operand = call.core.rules().unblock_untracked;
            return Err(Status::with_operand(code, operand));
        }
    }
    if !entry.state().any_pending() {
        opened.for_each_alias(call.core, entry, |cell| cell.set(cell.get().l2_unblocked()));
    }
    call.core.count_unblocked(*opened.tdcs, entry, opened.level);
    let Opened { lock, .. } = opened;
    lock.set_and_release(entry.unblocked());
    Ok(())
}

/// TDH.MEM.SEPT.RD
pub(crate) fn sept_rd(call: &mut Call<'_>) -> Outcome {
    const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_MEM_SEPT_RD;
    const READ_L2_ATTRIBUTES: u64 = 1;
    let read_l2 = call.regs.rdx & READ_L2_ATTRIBUTES != 0;
    call.regs.rdx &= !READ_L2_ATTRIBUTES;
    let opened = Opened::open_with(call, LEAF, Levels(Level::Pt, None), Mode::Shared, |tdcs| {
        if read_l2 && !tdcs.has_attribute(tdcs::ATTRIBUTES_DEBUG) {
            return Err(Status::with_operand(
                StatusCode::OPERAND_INVALID,
                OperandId::RDX,
            ));
        }
        Ok(())
    })?;
    if read_l2 {
        let entry = opened.entry;
        let blocked_for_writing = entry.state().any_blockedw();
        let mut attributes = 0;
        if entry.state() != SeptState::Free {
            for vm in 1..=opened.tdcs.l2_vms() {
                if entry.is_aliased(vm) {
                    let found = opened.l2_walk(call.core, vm)?;
                    let of_vm = found.entry.l2_attributes(blocked_for_writing);
                    attributes |= u64::from(of_vm) << (16 * vm);
                }
            }
        }
        call.regs.r8 = attributes;
    }
    opened.details(call);
    Ok(())
}

/// TDH.MEM.TRACK
pub(crate) fn track(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(*tdr, Some(Mode::Shared), SeamcallLeaf::TDH_MEM_TRACK)?;
    let _epoch = Sharex::acquire(tdcs.lock_word(tdcs::EPOCH_LOCK), Mode::Exclusive).ok_or(
        Status::with_operand(StatusCode::OPERAND_BUSY, OperandId::TD_EPOCH),
    )?;
    let epoch = tdcs.get(tdcs::TD_EPOCH);
    if tdcs.get(tdcs::REFCOUNT.nth(1 - (epoch & 1) as usize)) != 0 {
        return Err(Status::of(StatusCode::PREVIOUS_TLB_EPOCH_BUSY));
    }
    tdcs.set(tdcs::TD_EPOCH, epoch + 1);
    Ok(())
}
