//! TDH.EXPORT.BLOCKW, UNBLOCKW and RESTORE: the write-blocking of pages around their export.

use tdx_abi::Level;

use super::gpa_list;
use super::gpa_list::Progress;
use super::operand;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::SeptState;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::lock::Mode;
use crate::module::Call;
use crate::module::Outcome;
use crate::module::mem::entry::Levels;
use crate::module::mem::entry::Opened;
use crate::module::mem::entry::is_allowed;
use crate::sept;
use crate::sept::EntryLock;
use crate::sept::SeptEntry;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;
use tdx_abi::format::GpaListStatus;

/// TDH.EXPORT.BLOCKW: blocks the listed pages for writing.
pub(crate) fn blockw(call: &mut Call<'_>) -> Outcome {
    list_leaf(call, SeamcallLeaf::TDH_EXPORT_BLOCKW, |tdcs, lock| {
        let entry = lock.get();
        let state = match entry.state() {
            SeptState::Mapped => SeptState::Blockedw,
            SeptState::ExportedDirty => SeptState::ExportedDirtyBlockedw,
            SeptState::Pending => SeptState::PendingBlockedw,
            SeptState::PendingExportedDirty => SeptState::PendingExportedDirtyBlockedw,
            _ => return Err(GpaListStatus::SEPT_ENTRY_STATE_INCORRECT),
        };
        lock.set(entry.with_state(state).with_write(false));
        tdcs.set(tdcs::BW_EPOCH, tdcs.get(tdcs::TD_EPOCH));
        Ok(())
    })
}

/// TDH.EXPORT.RESTORE: forgets the export of the listed pages after an aborted session.
pub(crate) fn restore(call: &mut Call<'_>) -> Outcome {
    list_leaf(call, SeamcallLeaf::TDH_EXPORT_RESTORE, |tdcs, lock| {
        let entry = lock.get();
        tdcs.update(tdcs::MIG_COUNT, |count: u64| count.wrapping_sub(1));
        lock.set(restored(entry));
        Ok(())
    })
}

/// The entry as it was before the page was exported or blocked for writing.
pub(crate) fn restored(entry: SeptEntry) -> SeptEntry {
    if entry.state().any_pending() {
        entry.with_state(SeptState::Pending)
    } else {
        entry.with_state(SeptState::Mapped).with_write(true)
    }
}

/// TDH.EXPORT.UNBLOCKW: lets the TD write to one page again.
pub(crate) fn unblockw(call: &mut Call<'_>) -> Outcome {
    const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_EXPORT_UNBLOCKW;
    let opened = Opened::open(call, LEAF, Levels(Level::Pt, Some(Level::Pt)), Mode::Shared);
    let opened = opened.inspect_err(|&status| {
        // Unlike the memory leaves this one says nothing of an entry that it cannot lock.
        if status == Status::with_operand(StatusCode::OPERAND_BUSY, OperandId::RCX) {
            call.regs.rcx = 0;
            call.regs.rdx = 0;
        }
    })?;
    opened.require(call, LEAF)?;
    let entry = opened.entry;
    let (state, writable) = match entry.state() {
        SeptState::Blockedw => (SeptState::Mapped, true),
        SeptState::ExportedBlockedw | SeptState::ExportedDirtyBlockedw => {
            (SeptState::ExportedDirty, true)
        }
        SeptState::PendingBlockedw => (SeptState::Pending, false),
        _ => (SeptState::PendingExportedDirty, false),
    };
    let unblocked = entry.with_state(state);
    opened.lock.set(if writable {
        unblocked.with_write(true)
    } else {
        unblocked
    });
    if entry.state().any_exported_and_non_dirty() {
        opened
            .tdcs
            .update(tdcs::DIRTY_COUNT, |count: u64| count.wrapping_add(1));
    }
    Ok(())
}

/// A leaf that does one thing with the entry of each listed GPA.
fn list_leaf(
    call: &mut Call<'_>,
    leaf: SeamcallLeaf,
    change: impl Fn(Tdcs<'_>, &EntryLock<'_>) -> Result<(), GpaListStatus>,
) -> Outcome {
    gpa_list::run(call, |call, progress| {
        change_each(call, progress, leaf, change)
    })
}

fn change_each(
    call: &mut Call<'_>,
    progress: &mut Progress,
    leaf: SeamcallLeaf,
    change: impl Fn(Tdcs<'_>, &EntryLock<'_>) -> Result<(), GpaListStatus>,
) -> Result<Status, Status> {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rdx, OperandId::RDX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(*tdr, Some(Mode::Shared), leaf)?;
    let _tree = operand::lock_tree(*tdcs)?;
    let list = operand::gpa_list(core, progress.info())?;
    gpa_list::each(
        progress,
        list,
        |gpa| core.is_valid_gpa(gpa, tdcs.get(tdcs::GPAW), true),
        || call.interrupt_pending(),
        |gpa| {
            let lock = lock_entry(core, *tdcs, gpa)?;
            if !is_allowed(core, leaf, lock.get()) {
                return Err(GpaListStatus::SEPT_ENTRY_STATE_INCORRECT);
            }
            change(*tdcs, &lock)
        },
    )
}

/// Walks to the 4 KiB entry for `gpa` and locks it for the host. The tree lock is held.
pub(crate) fn lock_entry<'m>(
    core: &'m Core,
    tdcs: Tdcs<'m>,
    gpa: u64,
) -> Result<EntryLock<'m>, GpaListStatus> {
    let found = sept::walk(core.memory(), tdcs.root(), gpa, Level::Pt);
    if found.level != Level::Pt {
        return Err(GpaListStatus::SEPT_WALK_FAILED);
    }
    found
        .cell
        .lock_host()
        .map_err(|_| GpaListStatus::SEPT_ENTRY_BUSY_HOST_PRIORITY)
}
