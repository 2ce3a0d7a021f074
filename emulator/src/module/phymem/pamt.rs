//! TDH.PHYMEM.PAMT leaves: the host gives the pages that hold the PAMT entries of a 2 MiB range, and takes them back.
//!
//! Source: `tdh_phymem_pamt_add.c` and `tdh_phymem_pamt_remove.c` of the TDX modules that have them.

use tdx_abi::Level;
use tdx_abi::format::PamtPageInfo;

use super::super::Call;
use super::super::Outcome;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::dynamic_pamt::lock_free_page;
use crate::lock::Mode;
use crate::lock::Side;
use crate::pamt::Block;
use crate::pamt::PageType;
use crate::pamt::Walked;

/// TDH.PHYMEM.PAMT.ADD
pub(crate) fn add(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let fail = |code| Status::with_operand(code, OperandId::RCX);
    let range = decode_range(call)?;
    let pair = [
        (call.regs.rdx, OperandId::RDX),
        (call.regs.r8, OperandId::R8),
    ];
    let blocks = [
        core.pamt_page_block(pair[0])?,
        core.pamt_page_block(pair[1])?,
    ];
    let (block, node) = lock_range(call, range)?;
    if node.level != Level::Pd || node.entry.page_type() != PageType::Nda {
        return Err(fail(StatusCode::HPA_RANGE_NOT_FREE));
    }
    // A page of the range itself may hold the range's entries; its own entry is locked already.
    let lock = |number: usize| {
        let is_elsewhere = pair[number].0 & !(Level::Pd.size() - 1) != range;
        is_elsewhere
            .then(|| lock_free_page(blocks[number], pair[number]))
            .transpose()
    };
    let _first = lock(0)?;
    let _second = lock(1)?;
    core.mark_pair(blocks, pair)?;
    block.fill_small(range, PageType::Nda, 0);
    node.entry.set_node(pair.map(|(page, _)| page), 0);
    Ok(())
}

/// TDH.PHYMEM.PAMT.REMOVE
pub(crate) fn remove(call: &mut Call<'_>) -> Outcome {
    let range = decode_range(call)?;
    let (block, node) = lock_range(call, range)?;
    if node.level != Level::Pd || node.entry.page_type() != PageType::Pamt {
        return Err(Status::with_operand(
            StatusCode::NO_PAMT_PAGE_PAIR,
            OperandId::RCX,
        ));
    }
    if let Some(page) = block.first_page_in_use(range) {
        const ENTRIES_OF_PAGE: usize = 256;
        let holder = (page / ENTRIES_OF_PAGE) as u32;
        return Err(Status::with_detail(StatusCode::PAMT_PAGE_NOT_EMPTY, holder));
    }
    let pair = node.entry.pair();
    call.core.unmark_pair(pair);
    [call.regs.rdx, call.regs.r8] = pair;
    node.entry.set_page_type(PageType::Nda);
    Ok(())
}

/// Address and level in an operand, if it has nothing else.
pub(crate) fn decode(operand: u64) -> Option<(u64, Level)> {
    let info = PamtPageInfo::from_bits(operand);
    let level = info.level().filter(|&level| level <= Level::Pdpt)?;
    info.is_reserved_valid().then(|| (info.hpa().bits(), level))
}

/// RCX: a range of 2 MiB.
fn decode_range(call: &Call<'_>) -> Result<u64, Status> {
    let invalid = |operand| Status::with_operand(StatusCode::OPERAND_INVALID, operand);
    if !call.core.global.has_dynamic_pamt() {
        return Err(invalid(OperandId::RAX));
    }
    decode(call.regs.rcx)
        .filter(|&(range, level)| {
            let aligned = range & (Level::Pd.size() - 1) == 0;
            level == Level::Pd && aligned && call.core.key_id(range) == 0
        })
        .map(|(range, _)| range)
        .ok_or(invalid(OperandId::RCX))
}

/// Locks the entry of the range exclusively, or that of the 1 GiB page that it is part of.
fn lock_range<'m>(call: &Call<'m>, range: u64) -> Result<(&'m Block, Walked<'m>), Status> {
    let fail = |code| Status::with_operand(code, OperandId::RCX);
    let core = call.core;
    let block = core
        .global
        .block(range)
        .ok_or(fail(StatusCode::OPERAND_ADDR_RANGE_ERROR))?;
    let node = block
        .walk(range, Mode::Exclusive, Level::Pd, Side::Host)
        .map_err(fail)?;
    Ok((block, node))
}
