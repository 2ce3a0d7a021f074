//! TDH.MEM.SEPT.ADD

use tdx_abi::Level;

use super::super::Call;
use super::super::Outcome;
use super::super::check::operand_r8_plus;
use super::super::check::with_l2_details;
use super::entry::Levels;
use super::entry::Opened;
use crate::abi::L2SeptState;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::SeptState;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::lock::Mode;
use crate::pamt::PageType;
use crate::pamt::Walked;
use crate::sept::Found;
use crate::sept::SeptEntry;
use crate::structures::Tdr;
use crate::structures::tdcs;
use crate::structures::tdvps::NULL_PA;

const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_MEM_SEPT_ADD;
const ALLOW_EXISTING: u64 = 1;
const TDR_AND_FLAG: u64 = 0x000f_ffff_ffff_f001;
/// Bit 63 of a page operand: the page has not been used.
const NOT_USED: u64 = 1 << 63;

/// The pages given, for L1 and each L2 VM.
struct Pages<'m> {
    /// The operands, without [`NOT_USED`].
    given: [u64; 4],
    /// What is returned of them.
    left: [u64; 4],
    locked: [Option<Walked<'m>>; 4],
}

/// TDH.MEM.SEPT.ADD
pub(crate) fn sept_add(call: &mut Call<'_>) -> Outcome {
    let versioned = call.version > 0;
    let mut given = [call.regs.r8, 0, 0, 0];
    if versioned {
        given = [call.regs.r8, call.regs.r9, call.regs.r10, call.regs.r11];
    }
    super::check_version(call)?;
    for page in &mut given {
        if *page != NULL_PA {
            *page &= !NOT_USED;
        }
    }
    let mut pages = Pages {
        given,
        left: given,
        locked: [const { None }; 4],
    };
    let outcome = add(call, &mut pages);
    if versioned {
        [call.regs.r8, call.regs.r9, call.regs.r10, call.regs.r11] = pages.left;
    }
    outcome
}

#[expect(
    clippy::needless_range_loop,
    reason = "VM numbers index several arrays"
)]
fn add<'m>(call: &mut Call<'m>, pages: &mut Pages<'m>) -> Outcome {
    let core: &'m Core = call.core;
    let (rcx, rdx) = (call.regs.rcx, call.regs.rdx);
    let allow_existing = rdx & ALLOW_EXISTING != 0;
    if rdx & !TDR_AND_FLAG != 0 {
        call.regs.rcx = 0;
        call.regs.rdx = 0;
        return Err(Status::with_operand(
            StatusCode::OPERAND_INVALID,
            OperandId::RDX,
        ));
    }
    call.regs.rdx &= !ALLOW_EXISTING;
    let opened = Opened::open(call, LEAF, Levels(Level::Pd, None), Mode::Shared)?;
    opened.require(call, LEAF)?;
    let versioned = call.version > 0;

    if pages.given[0] == NULL_PA {
        if !versioned {
            return Err(Status::with_operand(
                StatusCode::OPERAND_INVALID,
                OperandId::R8,
            ));
        }
        if opened.entry.state() != SeptState::NlMapped {
            return Err(opened.refuse(call, StatusCode::EPT_ENTRY_STATE_INCORRECT));
        }
    } else if opened.entry.state() == SeptState::Free {
        pages.locked[0] = Some(core.lock_page(
            pages.given[0],
            OperandId::R8,
            Mode::Exclusive,
            PageType::Nda,
        )?);
    } else if allow_existing {
        pages.left[0] |= NOT_USED;
    } else {
        return Err(opened.refuse(call, StatusCode::EPT_ENTRY_STATE_INCORRECT));
    }
    let mut l2_parents: [Option<Found<'m>>; 4] = [None; 4];
    if versioned {
        for vm in 1..4 {
            l2_parents[vm] = prepare_l2(call, &opened, pages, vm, allow_existing)?;
        }
    }

    let mut added = false;
    if pages.left[0] & NOT_USED == 0 {
        init_table(core, *opened.tdr, pages, 0, SeptEntry::FREE);
        opened.lock.set(SeptEntry::table(pages.given[0]));
        pages.left[0] = NULL_PA;
        added = true;
    }
    if versioned {
        for vm in 1..4 {
            if pages.left[vm] & NOT_USED != 0 {
                continue;
            }
            if added && call.interrupt_pending() {
                call.regs.rcx = rcx;
                call.regs.rdx = rdx;
                return Err(Status::of(StatusCode::INTERRUPTED_RESUMABLE));
            }
            let Some(parent) = l2_parents[vm] else {
                continue;
            };
            init_table(core, *opened.tdr, pages, vm, SeptEntry::L2_FREE);
            opened.lock.set(opened.lock.get().with_alias(vm));
            parent.cell.set(SeptEntry::l2_table(pages.given[vm]));
            pages.left[vm] = NULL_PA;
            added = true;
        }
    }
    Ok(())
}

fn prepare_l2<'m>(
    call: &mut Call<'m>,
    opened: &Opened<'m>,
    pages: &mut Pages<'m>,
    vm: usize,
    allow_existing: bool,
) -> Result<Option<Found<'m>>, Status> {
    if pages.given[vm] == NULL_PA {
        return Ok(None);
    }
    let operand = operand_r8_plus(vm);
    if vm > opened.tdcs.l2_vms() {
        return Err(Status::with_operand(StatusCode::OPERAND_INVALID, operand));
    }
    let found = opened.l2_walk_with_details(call, vm)?;
    if found.entry.l2_state() == L2SeptState::L2Free {
        pages.locked[vm] =
            Some(
                call.core
                    .lock_page(pages.given[vm], operand, Mode::Exclusive, PageType::Nda)?,
            );
    } else if allow_existing {
        pages.left[vm] |= NOT_USED;
    } else {
        let debug = opened.tdcs.has_attribute(tdcs::ATTRIBUTES_DEBUG);
        (call.regs.rcx, call.regs.rdx) = found.entry.l2_details(vm, debug, found.level);
        return Err(with_l2_details(
            StatusCode::L2_SEPT_ENTRY_NOT_FREE,
            vm,
            found.level,
        ));
    }
    Ok(Some(found))
}

fn init_table(core: &Core, tdr: Tdr<'_>, pages: &Pages<'_>, vm: usize, free: SeptEntry) {
    core.memory().frame(pages.given[vm] >> 12).fill(free.0);
    core.claim(pages.given[vm], tdr);
    if let Some(locked) = &pages.locked[vm] {
        locked.take(PageType::Ept, tdr.hpa);
        locked.entry.set_bepoch(0);
    }
    tdr.add_children(1);
}
