//! XMM registers, as far as TDG.VP.VMCALL passes them; the rest of the extended state is not emulated.
//!
//! Source: `load_xmms_by_mask` in `td_exit.c` and `save_xmms_by_mask` in `tdh_vp_enter.c` of the TDX module 1.5.01.

use crate::lp::Xmm;
use crate::structures::Structure;
use crate::structures::Tdvps;
use crate::structures::tdvps;

/// Where RCX of TDG.VP.VMCALL selects XMM registers.
const SELECT_SHIFT: u32 = 16;
/// XSTATE_BV: SSE.
const SSE: u64 = 1 << 1;

const fn is_selected(control: u64, number: usize) -> bool {
    control >> SELECT_SHIFT >> number & 1 != 0
}

/// Of these registers, those that RCX selects; the others are 0.
pub(crate) fn selected(control: u64, from: &Xmm) -> Xmm {
    core::array::from_fn(|number| {
        if is_selected(control, number) {
            from[number]
        } else {
            0
        }
    })
}

/// Gives the guest what RCX selects of the host's registers.
pub(crate) fn take(tdvps: Tdvps<'_>, control: u64, from: &Xmm) {
    for (number, &value) in from.iter().enumerate() {
        if is_selected(control, number) {
            store(tdvps, number, value);
        }
    }
    if selected(control, &[1; 16]) != Xmm::default() {
        tdvps.update(tdvps::XSTATE_BV, |components: u64| components | SSE);
    }
}

/// Saves the guest's registers.
pub(crate) fn save(tdvps: Tdvps<'_>, from: &Xmm) {
    let used = *from != Xmm::default();
    if used {
        tdvps.update(tdvps::XSTATE_BV, |components: u64| components | SSE);
    }
    if used || tdvps.get(tdvps::XSTATE_BV) & SSE != 0 {
        for (number, &value) in from.iter().enumerate() {
            store(tdvps, number, value);
        }
    }
}

/// The guest's registers.
pub(crate) fn load(tdvps: Tdvps<'_>) -> Xmm {
    if tdvps.get(tdvps::XSTATE_BV) & SSE == 0 {
        return Xmm::default();
    }
    core::array::from_fn(|number| {
        let low = tdvps.get(tdvps::XMM.nth(2 * number));
        let high = tdvps.get(tdvps::XMM.nth(2 * number + 1));
        u128::from(high) << 64 | u128::from(low)
    })
}

fn store(tdvps: Tdvps<'_>, number: usize, value: u128) {
    tdvps.set(tdvps::XMM.nth(2 * number), value as u64);
    tdvps.set(tdvps::XMM.nth(2 * number + 1), (value >> 64) as u64);
}
