//! The guest's TDCALLs.

use tdx_abi::GuestLeaf;
use tdx_abi::Level;
use tdx_abi::Mapping;
use tdx_abi::PrivateGpa;
use tdx_abi::format::VmcallMask;
use tdx_abi::hardware::HardwareTdcall;
use tdx_abi::tdg::mem::PageAccept;
use tdx_abi::tdg::vp::VeinfoGet;
use tdx_abi::tdg::vp::VeinfoGetOutput;
use tdx_abi::tdg::vp::Vmcall;

/// R10 to R15 are passed.
const PASSED: VmcallMask = VmcallMask::new()
    .with_r10(true)
    .with_r11(true)
    .with_r12(true)
    .with_r13(true)
    .with_r14(true)
    .with_r15(true);

/// What a host is told and what it answers: R10 to R15.
#[derive(Clone, Copy, Default)]
pub(crate) struct Call {
    pub(crate) r10: u64,
    pub(crate) r11: u64,
    pub(crate) r12: u64,
    pub(crate) r13: u64,
    pub(crate) r14: u64,
    pub(crate) r15: u64,
}

/// TDCALL on this virtual CPU.
fn cpu() -> HardwareTdcall {
    // SAFETY: 1. The guest runs in a TD at privilege level 0. 2. No leaf that is used here takes a buffer. 3. Pages are
    // accepted outside of the image only, and before the guest has put anything there.
    unsafe { HardwareTdcall::new() }
}

/// TDG.VP.VMCALL: hands `call` to the host and returns its answer.
pub(crate) fn vmcall(call: Call) -> Call {
    let leaf = Vmcall {
        mask: PASSED,
        rdx: 0,
        rbx: 0,
        rbp: 0,
        rsi: 0,
        rdi: 0,
        r8: 0,
        r9: 0,
        r10: call.r10,
        r11: call.r11,
        r12: call.r12,
        r13: call.r13,
        r14: call.r14,
        r15: call.r15,
    };
    match leaf.call(&cpu()) {
        Ok(success) => {
            let answer = success.output;
            Call {
                r10: answer.r10,
                r11: answer.r11,
                r12: answer.r12,
                r13: answer.r13,
                r14: answer.r14,
                r15: answer.r15,
            }
        }
        Err(refused) => Call {
            r10: status(refused.error.status()),
            ..Call::default()
        },
    }
}

/// TDG.VP.VEINFO.GET, or the status of its failure.
pub(crate) fn veinfo_get() -> Result<VeinfoGetOutput, u64> {
    match VeinfoGet.call(&cpu()) {
        Ok(success) => Ok(success.output),
        Err(refused) => Err(status(refused.error.status())),
    }
}

/// TDG.MEM.PAGE.ACCEPT of the page at `gpa`, and its status.
pub(crate) fn accept(gpa: u64, level: Level) -> u64 {
    let Some(mapping) = Mapping::at(PrivateGpa::new(gpa), level) else {
        return u64::MAX;
    };
    match (PageAccept { gpa: mapping }).call(&cpu()) {
        Ok(success) => success.status.rax(),
        Err(refused) => status(refused.error.status()),
    }
}

/// A status as a number; all ones for a call that did not reach the module.
fn status(status: Option<tdx_abi::Status>) -> u64 {
    status.map_or(u64::MAX, |status| status.rax())
}
