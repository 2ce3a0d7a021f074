//! TDH.MNG leaves. Source: `tdh_mng_*.c` of the TDX module.

pub(crate) mod derived;
pub(crate) mod init;

use core::sync::atomic::Ordering;

use super::Call;
use super::Outcome;
use super::check::fatal;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::frame::Field;
use crate::global::KeyState;
use crate::lock::Mode;
use crate::lock::Sharex;
use crate::pamt::PageType;
use crate::sept::SeptEntry;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdr;
use crate::structures::tdr::Lifecycle;

/// TDH.MNG.CREATE
pub(crate) fn create(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let (page, key_id) = (call.regs.rcx, call.regs.rdx);
    let key_id = u16::try_from(key_id)
        .ok()
        .filter(|&key_id| core.is_private_key_id(key_id))
        .ok_or(Status::with_operand(
            StatusCode::OPERAND_INVALID,
            OperandId::RDX,
        ))?;
    let locked = core.lock_page(page, OperandId::RCX, Mode::Exclusive, PageType::Nda)?;
    let _kot = lock_kot(core)?;
    let key = &core.global.kot[usize::from(key_id)];
    if key.state() != KeyState::Free {
        return Err(Status::of(StatusCode::HKID_NOT_FREE));
    }
    core.memory().fill(page >> 12, 0);
    core.claim_with(page, core.global.key_id.load(Ordering::Acquire));
    let tdr = core.tdr(page);
    random_256(core, tdr, tdr::TD_UUID);
    key.set_state(KeyState::Assigned);
    tdr.set(tdr::HKID, key_id);
    tdr.set(tdr::LIFECYCLE_STATE, Lifecycle::HkidAssigned as u32);
    locked.take(PageType::Tdr, 0);
    Ok(())
}

/// TDH.MNG.ADDCX
pub(crate) fn addcx(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let (page, tdr) = (call.regs.rcx, call.regs.rdx);
    let tdr = core.lock_tdr(tdr, OperandId::RDX, Mode::Exclusive)?;
    if tdr.get(tdr::FATAL) {
        return Err(fatal(StatusCode::TD_FATAL));
    }
    if !tdr.is(Lifecycle::KeysConfigured) {
        return Err(Status::of(StatusCode::TD_KEYS_NOT_CONFIGURED));
    }
    let number = tdr.get(tdr::NUM_TDCX);
    let layout = core.layout();
    if number >= layout.max_tdcs_pages() {
        return Err(Status::of(StatusCode::TDCX_NUM_INCORRECT));
    }
    let locked = core.lock_page(page, OperandId::RCX, Mode::Exclusive, PageType::Nda)?;
    core.memory().fill(
        page >> 12,
        if number as usize == layout.tdcs_page(tdcs::MSR_BITMAPS_PAGE) {
            u64::MAX
        } else if number as usize == layout.tdcs_page(tdcs::SEPT_ROOT_PAGE) {
            SeptEntry::FREE.0
        } else {
            SeptEntry::L2_FREE.0
        },
    );
    core.claim(page, *tdr);
    let count = number + 1;
    if count == layout.min_tdcs_pages() {
        random_256(core, core.tdcs(*tdr), tdcs::MIG_ENC_KEY);
    } else if count > layout.min_tdcs_pages()
        && !core.is_op_state_allowed(SeamcallLeaf::TDH_MNG_ADDCX, core.tdcs(*tdr))
    {
        return Err(Status::of(StatusCode::OP_STATE_INCORRECT));
    }
    let with_key = core.with_key_id(page, tdr.get(tdr::HKID));
    tdr.set(tdr::TDCX_PA.nth(number as usize), with_key);
    tdr.set(tdr::NUM_TDCX, count);
    tdr.add_children(1);
    locked.take(PageType::Tdcx, tdr.hpa);
    Ok(())
}

/// TDH.MNG.KEY.CONFIG
pub(crate) fn key_config(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Exclusive)?;
    if tdr.get(tdr::FATAL) {
        return Err(fatal(StatusCode::TD_FATAL));
    }
    if !tdr.is(Lifecycle::HkidAssigned) {
        return Err(Status::of(StatusCode::LIFECYCLE_STATE_INCORRECT));
    }
    let package = 1 << call.lp.package;
    let configured = tdr.get(tdr::PKG_CONFIG_BITMAP);
    if configured & package != 0 {
        return Err(Status::of(StatusCode::KEY_CONFIGURED));
    }
    tdr.set(tdr::PKG_CONFIG_BITMAP, configured | package);
    if configured | package == u64::from(core.global.package_bitmap.load(Ordering::Acquire)) {
        tdr.set(tdr::LIFECYCLE_STATE, Lifecycle::KeysConfigured as u32);
    }
    Ok(())
}

/// TDH.MNG.KEY.FREEID
pub(crate) fn key_freeid(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Exclusive)?;
    if !tdr.is(Lifecycle::Blocked) {
        return Err(Status::of(StatusCode::LIFECYCLE_STATE_INCORRECT));
    }
    let _kot = lock_kot(core)?;
    let key = &core.global.kot[usize::from(tdr.get(tdr::HKID))];
    if key.wbinvd_bitmap.load(Ordering::Acquire) != 0 {
        return Err(Status::of(StatusCode::WBCACHE_NOT_COMPLETE));
    }
    key.set_state(KeyState::Free);
    tdr.set(tdr::LIFECYCLE_STATE, Lifecycle::Teardown as u32);
    Ok(())
}

/// TDH.MNG.VPFLUSHDONE
pub(crate) fn vpflushdone(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Exclusive)?;
    let _kot = lock_kot(core)?;
    if !tdr.is(Lifecycle::KeysConfigured) && !tdr.is(Lifecycle::HkidAssigned) {
        return Err(Status::of(StatusCode::LIFECYCLE_STATE_INCORRECT));
    }
    if tdr.has_tdcs(0) {
        let tdcs = core.tdcs(*tdr);
        if tdcs.op_state().any_initialized() && tdcs.get(tdcs::NUM_ASSOC_VCPUS) != 0 {
            return Err(Status::of(StatusCode::FLUSHVP_NOT_DONE));
        }
    }
    let key = &core.global.kot[usize::from(tdr.get(tdr::HKID))];
    let packages = core.global.package_bitmap.load(Ordering::Acquire);
    key.wbinvd_bitmap.store(packages, Ordering::Release);
    tdr.set(tdr::LIFECYCLE_STATE, Lifecycle::Blocked as u32);
    key.set_state(KeyState::Flushed);
    Ok(())
}

fn lock_kot(core: &Core) -> Result<Sharex<'_>, Status> {
    Sharex::acquire(core.global.kot_lock(), Mode::Exclusive).ok_or(Status::with_operand(
        StatusCode::OPERAND_BUSY,
        OperandId::KOT,
    ))
}

/// Writes four random quadwords to `field` and what follows it.
pub(crate) fn random_256<'m>(core: &Core, to: impl Structure<'m>, field: Field<u64>) {
    for word in 0..4 {
        to.set(field.nth(word), core.random());
    }
}
