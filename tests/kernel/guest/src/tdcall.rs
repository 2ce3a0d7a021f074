//! The guest's TDCALLs.

use core::arch::asm;

const VP_VMCALL: u64 = 0;
const VP_VEINFO_GET: u64 = 3;
const MEM_PAGE_ACCEPT: u64 = 6;

/// RCX of TDG.VP.VMCALL: R10 to R15 are passed.
const PASSED: u64 = 0xfc00;

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

/// TDG.VP.VMCALL: hands `call` to the host and returns its answer.
pub(crate) fn vmcall(mut call: Call) -> Call {
    // SAFETY: the TDX module and the host change only R10 to R15, RAX and RCX, which are all operands; memory that the
    // host changes is only reached through volatile accesses.
    unsafe {
        asm!(
            "tdcall",
            inout("rax") VP_VMCALL => _,
            inout("rcx") PASSED => _,
            inout("r10") call.r10,
            inout("r11") call.r11,
            inout("r12") call.r12,
            inout("r13") call.r13,
            inout("r14") call.r14,
            inout("r15") call.r15,
        );
    }
    call
}

/// What TDG.VP.VEINFO.GET tells about a #VE.
pub(crate) struct VirtualizationException {
    /// Exit reason: 48 for an EPT violation.
    pub(crate) reason: u64,
    /// The guest-physical address.
    pub(crate) gpa: u64,
}

/// TDG.VP.VEINFO.GET, or the status of its failure.
pub(crate) fn veinfo_get() -> Result<VirtualizationException, u64> {
    let (status, reason, gpa): (u64, u64, u64);
    // SAFETY: every register that the leaf writes is an operand.
    unsafe {
        asm!(
            "tdcall",
            inout("rax") VP_VEINFO_GET => status,
            out("rcx") reason,
            out("rdx") _,
            out("r8") _,
            out("r9") gpa,
            out("r10") _,
            out("r11") _,
        );
    }
    if status == 0 {
        Ok(VirtualizationException {
            reason: reason & 0xffff_ffff,
            gpa,
        })
    } else {
        Err(status)
    }
}

/// TDG.MEM.PAGE.ACCEPT of the page at `gpa`, and its status.
pub(crate) fn accept(gpa: u64, level: u64) -> u64 {
    let status;
    // SAFETY: every register that the leaf writes is an operand; the page becomes zero and nobody refers to it yet.
    unsafe {
        asm!(
            "tdcall",
            inout("rax") MEM_PAGE_ACCEPT => status,
            inout("rcx") gpa | level => _,
            out("rdx") _,
            out("r8") _,
        );
    }
    status
}
