//! TDH.MEM.PAGE.DEMOTE: splits a large page.

use tdx_abi::Level;

use super::super::Call;
use super::super::Outcome;
use super::super::check::operand_r8_plus;
use super::entry::Levels;
use super::entry::Opened;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::lock::Mode;
use crate::pamt::PageType;
use crate::pamt::Walked;
use crate::sept::EntryCell;
use crate::sept::Found;
use crate::sept::SeptEntry;
use crate::structures::tdvps::NULL_PA;

const FLAG: u64 = 1;
const TDR_AND_FLAG: u64 = 0x000f_ffff_ffff_f001;
const NOT_USED: u64 = 1 << 63;

/// TDH.MEM.PAGE.DEMOTE
pub(crate) fn page_demote(call: &mut Call<'_>) -> Outcome {
    const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_MEM_PAGE_DEMOTE;
    let core = call.core;
    let (rcx, rdx) = (call.regs.rcx, call.regs.rdx);
    let mut pages = [call.regs.r8, call.regs.r9, call.regs.r10, call.regs.r11];
    let pair = [
        (call.regs.r12, OperandId::R12),
        (call.regs.r13, OperandId::R13),
    ];
    let l2_add_mode = rdx & FLAG != 0;
    if rdx & !TDR_AND_FLAG != 0 {
        call.regs.rcx = 0;
        call.regs.rdx = 0;
        return Err(Status::with_operand(
            StatusCode::OPERAND_INVALID,
            OperandId::RDX,
        ));
    }
    call.regs.rdx &= !FLAG;
    let opened = Opened::open(
        call,
        LEAF,
        Levels(Level::Pd, Some(Level::Pdpt)),
        Mode::Shared,
    )?;
    opened.require(call, LEAF)?;
    let entry = opened.entry.without_pending_count(opened.level);
    let hpa = entry.translate(opened.gpa, opened.level);
    let split = core.implicit(hpa, opened.level)?;
    opened.require_tracked(call, entry, split, OperandId::RCX)?;

    let table = core.lock_page(pages[0], OperandId::R8, Mode::Exclusive, PageType::Nda)?;
    let l2_vms = opened.tdcs.l2_vms();
    let mut l2_tables: [Option<Walked<'_>>; 4] = [const { None }; 4];
    for vm in 1..=l2_vms {
        let operand = operand_r8_plus(vm);
        if pages[vm] == NULL_PA {
            if entry.is_aliased(vm) {
                return Err(Status::with_operand(
                    StatusCode::L2_SEPT_PAGE_NOT_PROVIDED,
                    operand,
                ));
            }
        } else if !l2_add_mode || entry.is_aliased(vm) {
            let page = pages[vm] & !NOT_USED;
            l2_tables[vm] = Some(core.lock_page(page, operand, Mode::Exclusive, PageType::Nda)?);
        } else {
            pages[vm] |= NOT_USED;
        }
    }

    let child = entry.unblocked().with_lock(false);
    split_entry(core, pages[0], hpa, opened.level, child);
    core.claim(pages[0], *opened.tdr);
    let interrupted = |call: &mut Call<'_>| {
        call.regs.rcx = rcx;
        call.regs.rdx = rdx;
        Status::of(StatusCode::INTERRUPTED_RESTARTABLE)
    };
    let mut l2_parents: [Option<Found<'_>>; 4] = [None; 4];
    for vm in 1..=l2_vms {
        if l2_tables[vm].is_none() {
            continue;
        }
        if call.interrupt_pending() {
            return Err(interrupted(call));
        }
        let parent = opened.l2_walk_with_details(call, vm)?;
        l2_parents[vm] = Some(parent);
        if entry.is_aliased(vm) {
            let unblocked = if child.state().any_pending() {
                parent.entry
            } else {
                parent.entry.l2_unblocked()
            };
            split_entry(core, pages[vm], hpa, opened.level, unblocked);
        } else {
            core.memory().fill(pages[vm] >> 12, SeptEntry::L2_FREE.0);
            core.claim(pages[vm], *opened.tdr);
        }
    }
    if (core.rules().demote_is_interruptible || l2_vms > 0) && call.interrupt_pending() {
        return Err(interrupted(call));
    }

    core.demote_pamt(hpa, opened.level, pair)?;
    core.count_unblocked(*opened.tdcs, entry, opened.level);
    let mut parent = SeptEntry::table(pages[0]);
    table.take(PageType::Ept, opened.tdr.hpa);
    opened.tdr.add_children(1);
    for vm in 1..=l2_vms {
        if let (Some(table), Some(found)) = (&l2_tables[vm], l2_parents[vm]) {
            found.cell.set(SeptEntry::l2_table(pages[vm]));
            parent = parent.with_alias(vm);
            table.take(PageType::Ept, opened.tdr.hpa);
            opened.tdr.add_children(1);
        }
    }
    opened.lock.set(parent);
    call.regs.r9 = pages[1];
    call.regs.r10 = pages[2];
    call.regs.r11 = pages[3];
    Ok(())
}

/// Writes 512 copies of `entry` into the table page at `table`, mapping what the page at `hpa` and `level` consists of.
fn split_entry(core: &Core, table: u64, hpa: u64, level: Level, entry: SeptEntry) {
    let size = level.below().unwrap_or(Level::Pt).size();
    let frame = core.memory().frame(table >> 12);
    for (number, cell) in (0u64..).zip(frame.qwords()) {
        EntryCell(cell).set(entry.with_address(hpa + number * size));
    }
}
