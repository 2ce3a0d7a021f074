//! TDH.PHYMEM leaves. Source: `tdh_phymem_*.c` of the TDX module.

pub(crate) mod pamt;

use core::sync::atomic::Ordering;

use tdx_abi::Level;
use tdx_abi::format::PageTypeAndNonLeaf;

use super::Call;
use super::Outcome;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::global::KeyState;
use crate::lock::Mode;
use crate::lock::Mutex;
use crate::lock::Sharex;
use crate::lock::Side;
use crate::pamt::PageType;
use crate::structures::Structure;
use crate::structures::tdr;
use crate::structures::tdr::Lifecycle;

/// RCX of PHYMEM.CACHE.WB: continue an interrupted run. 0 starts one.
const RESUME: u64 = 1;

/// TDH.PHYMEM.CACHE.WB
pub(crate) fn cache_wb(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let global = &core.global;
    let command = call.regs.rcx;
    if command > RESUME {
        return Err(Status::with_operand(
            StatusCode::OPERAND_INVALID,
            OperandId::RCX,
        ));
    }
    let busy = |operand| Status::with_operand(StatusCode::OPERAND_BUSY, operand);
    let package = call.lp.package as usize;
    let state = &global.write_back[package];
    let _mutex = Mutex::acquire(state.lock()).ok_or(busy(OperandId::WBCACHE))?;
    let _kot = Sharex::acquire(global.kot_lock(), Mode::Shared).ok_or(busy(OperandId::KOT))?;
    let mut sub_block = state.resume_at.load(Ordering::Acquire);
    if command == RESUME {
        if sub_block == 0 {
            return Err(Status::of(StatusCode::WBCACHE_RESUME_ERROR));
        }
    } else {
        state.resume_at.store(0, Ordering::Release);
        sub_block = 0;
        let mut any = false;
        for (key_id, entry) in global.kot.iter().enumerate() {
            let flushed = entry.state() == KeyState::Flushed;
            any |= flushed;
            let bit = 1 << (key_id % 64);
            let word = &state.key_ids[key_id / 64];
            if flushed {
                word.fetch_or(bit, Ordering::AcqRel);
            } else {
                word.fetch_and(!bit, Ordering::AcqRel);
            }
        }
        if !any {
            return Err(Status::of(StatusCode::NO_HKID_READY_TO_WBCACHE));
        }
    }
    loop {
        sub_block += 1;
        if sub_block >= core.config.cache_sub_blocks {
            break;
        }
        if call.interrupt_pending() {
            state.resume_at.store(sub_block, Ordering::Release);
            return Err(Status::of(StatusCode::INTERRUPTED_RESUMABLE));
        }
    }
    state.resume_at.store(0, Ordering::Release);
    for (key_id, entry) in global.kot.iter().enumerate() {
        if state.key_ids[key_id / 64].load(Ordering::Acquire) >> (key_id % 64) & 1 != 0 {
            let left = entry
                .wbinvd_bitmap
                .fetch_and(!(1 << package), Ordering::AcqRel);
            if let (Some(keys), true) = (&core.keys, left & !(1 << package) == 0) {
                keys.flush_key(key_id as u16);
            }
        }
    }
    Ok(())
}

/// TDH.PHYMEM.PAGE.RDMD
pub(crate) fn page_rdmd(call: &mut Call<'_>) -> Outcome {
    let operand = call.regs.rcx;
    clear_outputs(call);
    let fail = |code| Status::with_operand(code, OperandId::RCX);
    let core = call.core;
    let (page, level) = if core.global.has_dynamic_pamt() {
        pamt::decode(operand).ok_or(fail(StatusCode::OPERAND_INVALID))?
    } else {
        (operand, Level::Pt)
    };
    core.check_hpa(page, level.size()).map_err(fail)?;
    let block = core
        .global
        .block(page)
        .ok_or(fail(StatusCode::OPERAND_ADDR_RANGE_ERROR))?;
    let walked = block
        .walk(page, Mode::Shared, level, Side::Host)
        .map_err(fail)?;
    let page_type = walked.entry.page_type();
    let holds_entries = level == Level::Pt
        && page_type == PageType::Nda
        && block.bitmap().is_some_and(|bitmap| bitmap.has(page));
    if holds_entries {
        call.regs.rcx = u64::from(PageType::Pamt.number());
        call.regs.r8 = Level::Pt as u64;
        return Ok(());
    }
    call.regs.r8 = walked.level as u64;
    if page_type == PageType::Pamt {
        call.regs.rcx = PageTypeAndNonLeaf::from_bits(page_type.number().into())
            .with_non_leaf(true)
            .into_bits();
        [call.regs.r10, call.regs.r11] = walked.entry.pair();
        return Ok(());
    }
    call.regs.rcx = u64::from(page_type.number());
    call.regs.rdx = walked.entry.owner();
    if matches!(page_type, PageType::Regular | PageType::Ept) {
        call.regs.r9 = walked.entry.bepoch();
    }
    Ok(())
}

/// TDH.PHYMEM.PAGE.RECLAIM
pub(crate) fn page_reclaim(call: &mut Call<'_>) -> Outcome {
    let page = call.regs.rcx;
    clear_outputs(call);
    let fail = |code| Status::with_operand(code, OperandId::RCX);
    let core = call.core;
    core.check_hpa(page, Level::Pt.size()).map_err(fail)?;
    let block = core
        .global
        .block(page)
        .ok_or(fail(StatusCode::OPERAND_ADDR_RANGE_ERROR))?;
    let walked = block
        .walk(page, Mode::Exclusive, Level::Pt, Side::Host)
        .map_err(fail)?;
    let page_type = walked.entry.page_type();
    if matches!(page_type, PageType::Nda | PageType::Reserved) {
        return Err(fail(StatusCode::PAGE_METADATA_INCORRECT));
    }
    let owner = walked.entry.owner();
    call.regs.rcx = u64::from(page_type.number());
    call.regs.rdx = owner;
    call.regs.r8 = walked.level as u64;
    if page & (walked.level.size() - 1) != 0 {
        return Err(fail(StatusCode::OPERAND_INVALID));
    }
    if page_type == PageType::Tdr {
        let tdr = core.tdr(page);
        if !tdr.is(Lifecycle::Teardown) {
            return Err(Status::of(StatusCode::LIFECYCLE_STATE_INCORRECT));
        }
        if tdr.get(tdr::CHLDCNT) != 0 {
            return Err(Status::of(StatusCode::TD_ASSOCIATED_PAGES_EXIST));
        }
    } else {
        let _tdr = core.lock_implicit(owner, OperandId::TDR, Mode::Shared, Level::Pt)?;
        let tdr = core.tdr(owner);
        if !tdr.is(Lifecycle::Teardown) {
            return Err(Status::of(StatusCode::LIFECYCLE_STATE_INCORRECT));
        }
        tdr.add_children(-(1 << (9 * walked.level as u32)));
    }
    call.regs.r9 = walked.free();
    Ok(())
}

/// TDH.PHYMEM.PAGE.WBINVD
pub(crate) fn page_wbinvd(call: &mut Call<'_>) -> Outcome {
    let page = call.core.without_key_id(call.regs.rcx);
    let _locked = call
        .core
        .lock_free_of_any_size(page, OperandId::RCX, Mode::Shared)?;
    if let Some(keys) = &call.core.keys {
        keys.flush_page(page >> 12);
    }
    Ok(())
}

fn clear_outputs(call: &mut Call<'_>) {
    call.regs.rcx = 0;
    call.regs.rdx = 0;
    call.regs.r8 = 0;
    call.regs.r9 = 0;
    call.regs.r10 = 0;
    call.regs.r11 = 0;
}
