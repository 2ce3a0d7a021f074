//! TDH.SYS.SHUTDOWN and TDH.SYS.UPDATE: a module gives way to another one.
//!
//! Source: `tdh_sys_shutdown.c` and `tdh_sys_update.c` of the TDX module. No module takes over here: the handoff data are
//! neither prepared nor found.

use core::sync::atomic::Ordering;

use super::super::Call;
use super::super::Outcome;
use super::lock_global;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::global::SysState;
use crate::lock::Mode;

/// MODULE_HV, which is MIN_UPDATE_HV too: the only handoff version.
const HANDOFF_VERSION: u64 = 0;

/// TDH.SYS.SHUTDOWN
pub(crate) fn shutdown(call: &mut Call<'_>) -> Outcome {
    if call.regs.rcx != HANDOFF_VERSION {
        return Err(Status::with_operand(
            StatusCode::OPERAND_INVALID,
            OperandId::RCX,
        ));
    }
    let _lock = lock_global(call, Mode::Exclusive)?;
    let global = &call.core.global;
    global.set_sys_state(SysState::Shutdown);
    let busy = call.core.lps.iter().any(|slot| {
        let other = !core::ptr::eq(slot, call.slot);
        other && (slot.in_guest.load(Ordering::SeqCst) || slot.state.try_lock().is_none())
    });
    if busy {
        global.set_sys_state(SysState::Ready);
        return Err(Status::of(StatusCode::SYS_BUSY));
    }
    Ok(())
}

/// TDH.SYS.UPDATE
pub(crate) fn update(call: &mut Call<'_>) -> Outcome {
    let _lock = lock_global(call, Mode::Exclusive)?;
    let core = call.core;
    let initialized = core.global.initialized_lps.load(Ordering::Acquire) as usize;
    let all = initialized >= core.lps.len();
    Err(Status::of(
        if core.global.sys_state() == SysState::InitDone && all {
            StatusCode::SYS_INVALID_HANDOFF
        } else {
            StatusCode::SYS_STATE_INCORRECT
        },
    ))
}
