//! TDH.SYS leaves. Source: `tdh_sys_*.c` of the TDX module.

pub(crate) mod config;
pub(crate) mod info;
pub(crate) mod update;

use core::sync::atomic::Ordering;

use tdx_abi::Level;

use super::Call;
use super::Outcome;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::config::PlatformConfig;
use crate::global::SysState;
use crate::lock::Mode;
use crate::lock::Mutex;
use crate::lock::Sharex;
use crate::structures::tdvps::NULL_PA;

/// Bytes of a TDMR whose PAMT one TDMR.INIT initialises.
const TDMR_INIT_STEP: u64 = 4 << 20;

/// TDH.SYS.INIT
pub(crate) fn init(call: &mut Call<'_>) -> Outcome {
    let attributes = call.regs.rcx;
    call.regs.rcx = 0;
    call.regs.rdx = 0;
    call.regs.r8 = 0;
    call.regs.r9 = 0;
    call.regs.r10 = 0;
    call.check_version()?;
    let global = &call.core.global;
    let _lock = lock_global(call, Mode::Exclusive)?;
    if attributes != 0 {
        return Err(Status::with_operand(
            StatusCode::OPERAND_INVALID,
            OperandId::RCX,
        ));
    }
    if global.sys_state() != SysState::InitPending {
        return Err(Status::of(StatusCode::SYS_INIT_NOT_PENDING));
    }
    if !cmrs_are_valid(&call.core.config) {
        return Err(Status::of(StatusCode::CMR_LIST_INVALID));
    }
    // The stack canary.
    call.core.random();
    global.initialized_lps.store(0, Ordering::Release);
    global.initialized_packages.store(0, Ordering::Release);
    global.package_bitmap.store(0, Ordering::Release);
    global.set_sys_state(SysState::InitDone);
    Ok(())
}

/// Whether the CMRs lie below the KeyID bits, consist of whole pages, and ascend without overlapping (`check_cmrs` of
/// `tdh_sys_init.c`).
fn cmrs_are_valid(config: &PlatformConfig) -> bool {
    let mut before = None;
    for cmr in config.cmrs.iter().filter(|cmr| cmr.size > 0) {
        let Some(last) = cmr.base.checked_add(cmr.size - 1) else {
            return false;
        };
        let ascends = before.is_none_or(|end| end <= cmr.base);
        if (cmr.base | last) & config.key_id_mask() != 0
            || last >> config.max_pa != 0
            || (cmr.base | cmr.size) % Level::Pt.size() != 0
            || !ascends
        {
            return false;
        }
        before = Some(last);
    }
    true
}

/// TDH.SYS.LP.INIT
pub(crate) fn lp_init(call: &mut Call<'_>) -> Outcome {
    call.regs.rcx = 0;
    call.regs.rdx = 0;
    call.regs.r8 = 0;
    let global = &call.core.global;
    let _lock = lock_global(call, Mode::Shared)?;
    if global.sys_state() != SysState::InitDone {
        return Err(Status::of(StatusCode::SYS_LP_INIT_NOT_PENDING));
    }
    if call.lp.initialized {
        return Err(Status::of(StatusCode::SYS_LP_INIT_DONE));
    }
    call.lp.last_tdvpr = NULL_PA;
    call.lp.lfsr = call.core.random() as u32;
    call.lp.initialized = true;
    global.initialized_lps.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

/// TDH.SYS.KEY.CONFIG
pub(crate) fn key_config(call: &mut Call<'_>) -> Outcome {
    let global = &call.core.global;
    let _lock = lock_global(call, Mode::Exclusive)?;
    if global.sys_state() != SysState::ConfigDone {
        return Err(Status::of(StatusCode::SYS_KEY_CONFIG_NOT_PENDING));
    }
    let package = 1 << call.lp.package;
    if global.package_bitmap.fetch_or(package, Ordering::AcqRel) & package != 0 {
        return Err(Status::of(StatusCode::KEY_CONFIGURED));
    }
    let configured = global.initialized_packages.fetch_add(1, Ordering::AcqRel) + 1;
    if configured == call.core.config.packages {
        global.set_sys_state(SysState::Ready);
    }
    Ok(())
}

/// TDH.SYS.TDMR.INIT
pub(crate) fn tdmr_init(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let base = call.regs.rcx;
    call.regs.rdx = 0;
    let invalid = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RCX);
    core.check_hpa(base, 1 << 30).map_err(|_| invalid)?;
    let tdmr = core
        .global
        .tdmrs()
        .iter()
        .find(|tdmr| tdmr.base == base)
        .ok_or(invalid)?;
    let _lock = Mutex::acquire(tdmr.lock()).ok_or(Status::with_operand(
        StatusCode::OPERAND_BUSY,
        OperandId::RCX,
    ))?;
    let done = tdmr.last_initialized.load(Ordering::Acquire);
    if done >= tdmr.base + tdmr.size {
        return Err(Status::of(StatusCode::TDMR_ALREADY_INITIALIZED));
    }
    let done = done + TDMR_INIT_STEP;
    tdmr.last_initialized.store(done, Ordering::Release);
    call.regs.rdx = done & !((1 << 30) - 1);
    Ok(())
}

fn lock_global<'m>(call: &Call<'m>, mode: Mode) -> Result<Sharex<'m>, Status> {
    let core = call.core;
    Sharex::acquire(core.global.lock(), mode).ok_or(Status::of(StatusCode::SYS_BUSY))
}
