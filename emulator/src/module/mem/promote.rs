//! TDH.MEM.PAGE.PROMOTE: merges 512 pages into a large one.

use alloc::vec::Vec;

use tdx_abi::Level;

use super::super::Call;
use super::super::Outcome;
use super::entry::Levels;
use super::entry::Opened;
use crate::abi::L2SeptState;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::frame::Frame;
use crate::lock::Mode;
use crate::module::check::Implicit;
use crate::sept::EntryCell;
use crate::sept::EntryLock;
use crate::sept::Found;
use crate::structures::tdvps::NULL_PA;

/// TDH.MEM.PAGE.PROMOTE
#[expect(
    clippy::needless_range_loop,
    reason = "VM numbers index several arrays"
)]
pub(crate) fn page_promote(call: &mut Call<'_>) -> Outcome {
    const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_MEM_PAGE_PROMOTE;
    let core = call.core;
    let (rcx, rdx) = (call.regs.rcx, call.regs.rdx);
    let versioned = call.version > 0;
    if versioned {
        call.regs.r9 = NULL_PA;
        call.regs.r10 = NULL_PA;
        call.regs.r11 = NULL_PA;
    }
    super::check_version(call)?;
    let locks_tree = core.rules().promote_locks_tree;
    let tree = if locks_tree {
        Mode::Exclusive
    } else {
        Mode::Shared
    };
    let opened = Opened::open(call, LEAF, Levels(Level::Pd, Some(Level::Pdpt)), tree)?;
    opened.require(call, LEAF)?;
    let table = opened.entry.address();
    let freed = core.lock_implicit(table, OperandId::RCX, Mode::Exclusive, Level::Pt)?;
    opened.require_tracked(call, opened.entry, freed.entry, OperandId::RCX)?;
    let frame = core.memory().frame(table >> 12);
    let children = if locks_tree {
        is_uniform(frame, opened.level)
            .then(Vec::new)
            .ok_or(StatusCode::EPT_INVALID_PROMOTE_CONDITIONS)
    } else {
        lock_uniform(frame, opened.level)
    };
    let children = children.map_err(|code| opened.refuse(call, code))?;

    let interrupted = |call: &mut Call<'_>| {
        call.regs.rcx = rcx;
        call.regs.rdx = rdx;
        Status::of(StatusCode::INTERRUPTED_RESTARTABLE)
    };
    let l2_vms = opened.tdcs.l2_vms();
    let mut l2_parents: [Option<(Found<'_>, Implicit<'_>)>; 4] = [const { None }; 4];
    for vm in 1..=l2_vms {
        if !opened.entry.is_aliased(vm) {
            continue;
        }
        if call.interrupt_pending() {
            return Err(interrupted(call));
        }
        let found = opened.l2_walk(core, vm)?;
        let l2_table = found.cell.get().address();
        let locked = core.lock_implicit(l2_table, OperandId::RCX, Mode::Exclusive, Level::Pt)?;
        if !is_l2_uniform(core.memory().frame(l2_table >> 12), opened.level) {
            return Err(opened.refuse(call, StatusCode::EPT_INVALID_PROMOTE_CONDITIONS));
        }
        l2_parents[vm] = Some((found, locked));
    }
    if call.interrupt_pending() {
        return Err(interrupted(call));
    }

    let first = EntryCell(frame.qword(0));
    let below = opened.level.below().unwrap_or(Level::Pt);
    let hpa = first.get().translate(0, below);
    let pair = core
        .promote_pamt(hpa, opened.level)
        .map_err(|code| Status::with_operand(code, OperandId::RCX))?;
    for child in children {
        child.leave_locked();
    }
    for (vm, parent) in l2_parents.iter().enumerate() {
        let Some((found, locked)) = parent else {
            continue;
        };
        let l2_table = found.cell.get().address();
        found
            .cell
            .set(EntryCell(core.memory().frame(l2_table >> 12).qword(0)).get());
        opened.tdr.add_children(-1);
        let page = l2_table | locked.free();
        if versioned {
            match vm {
                1 => call.regs.r9 = page,
                2 => call.regs.r10 = page,
                _ => call.regs.r11 = page,
            }
        }
    }
    core.count_unblocked(*opened.tdcs, opened.entry, opened.level);
    let merged = first.get();
    opened.lock.set(merged.with_lock(true));
    opened.tdr.add_children(-1);
    call.regs.rcx = table | freed.free();
    if let Some(pair) = pair {
        [call.regs.r12, call.regs.r13] = pair;
    }
    Ok(())
}

/// Locks all entries of a table below an entry of `parent` level, and checks that they map one aligned range alike.
fn lock_uniform(frame: &Frame, parent: Level) -> Result<Vec<EntryLock<'_>>, StatusCode> {
    let level = parent.below().unwrap_or(Level::Pt);
    let mut locks = Vec::with_capacity(512);
    let mut expected = None;
    for cell in frame.qwords() {
        let lock = EntryCell(cell).lock_host()?;
        let entry = lock.get().without_pending_count(level);
        locks.push(lock);
        let matches = match expected {
            None => {
                entry.translate(0, level) & (parent.size() - 1) == 0
                    && entry.state().mapped_or_pending()
            }
            Some(expected) => entry.0 == expected,
        };
        if !matches {
            return Err(StatusCode::EPT_INVALID_PROMOTE_CONDITIONS);
        }
        expected = Some(entry.0.wrapping_add(level.size()));
    }
    Ok(locks)
}

/// Whether all entries of a table below an entry of `parent` level map one aligned range alike.
///
/// In modules after 1.5.01 the tree is locked exclusively and the entries are not; a guest that waits for a lock does not matter.
fn is_uniform(frame: &Frame, parent: Level) -> bool {
    let level = parent.below().unwrap_or(Level::Pt);
    let mut expected = None;
    frame.qwords().iter().all(|cell| {
        let entry = EntryCell(cell).get().without_pending_count(level);
        let matches = match expected {
            None => {
                entry.translate(0, level) & (parent.size() - 1) == 0
                    && entry.state().mapped_or_pending()
            }
            Some(expected) => entry.comparable().0 == expected,
        };
        expected = Some(entry.comparable().0.wrapping_add(level.size()));
        matches
    })
}

/// Whether all entries of an L2 VM's table are alike but for their address, and free or leaves.
fn is_l2_uniform(frame: &Frame, parent: Level) -> bool {
    let level = parent.below().unwrap_or(Level::Pt);
    let first = EntryCell(frame.qword(0)).get();
    let aligned = first.translate(0, level) & (parent.size() - 1) == 0;
    if first.l2_state() != L2SeptState::L2Free && !(aligned && first.is_leaf()) {
        return false;
    }
    frame
        .qwords()
        .iter()
        .all(|cell| EntryCell(cell).get().with_address(0) == first.with_address(0))
}
