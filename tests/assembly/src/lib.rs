//! Typed calls beside what one would write by hand: `tests/assembly.rs` compares the pairs as assembly.
//!
//! A pair takes the same arguments and returns RAX as the callee left it, or all ones if the instruction did not reach the
//! callee (CF = 1). Both put the GPA's bits in place and look whether RAX is an error, as every caller has to.
#![no_std]
#![expect(
    unsafe_code,
    reason = "instructions, and names that are found in the assembly"
)]

use core::arch::naked_asm;

use abi::CallError;
use abi::GuestLeaf;
use abi::HostLeaf;
use abi::Leaf;
use abi::Mapping;
use abi::Page;
use abi::Refused;
use abi::Registers;
use abi::Seamcall;
use abi::Success;
use abi::Tdr;
use abi::hardware::HardwareSeamcall;
use abi::hardware::HardwareTdcall;
use abi::level::Pd;
use abi::level::Pt;
use abi::tdg;
use abi::tdh;

#[inline(always)]
fn rax<L: Leaf>(result: Result<Success<L::Output>, Refused<L>>) -> u64 {
    match result {
        Ok(done) => done.status.rax(),
        Err(refused) => match refused.error {
            CallError::Retry(_, failure) | CallError::Failed(failure) => failure.status.rax(),
            CallError::Trap(_) => u64::MAX,
        },
    }
}

/// TDH.MEM.PAGE.AUG.
// SAFETY: the name is found nowhere else; it is only looked at.
#[unsafe(no_mangle)]
pub fn typed_page_aug(lp: HardwareSeamcall, gpa: Mapping<Pt>, tdr: Tdr, page: Page<Pt>) -> u64 {
    rax(tdh::mem::PageAug { gpa, tdr, page }.call(&lp))
}

/// TDH.MEM.PAGE.AUG: RCX the entry, RDX the TD, R8 the page.
// SAFETY: as above; never called.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub extern "sysv64" fn written_page_aug() {
    naked_asm!(
        "movabs rcx, 0xffffffffff000",
        "and rcx, rdi",
        "mov r8, rdx",
        "mov rdx, rsi",
        "mov eax, 6",
        ".byte 0x66, 0x0f, 0x01, 0xcf",
        "jc 2f",
        "test rax, rax",
        "js 3f",
        "ret",
        "2: mov rax, -1",
        "3: ret",
    )
}

/// TDH.MEM.RANGE.BLOCK.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub fn typed_range_block(lp: HardwareSeamcall, gpa: Mapping<Pd>, tdr: Tdr) -> u64 {
    rax(tdh::mem::RangeBlock { gpa, tdr }.call(&lp))
}

/// TDH.MEM.RANGE.BLOCK: RCX the entry, RDX the TD.
// SAFETY: as above; never called.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub extern "sysv64" fn written_range_block() {
    naked_asm!(
        "movabs rcx, 0xffffffffff000",
        "and rcx, rdi",
        "inc rcx",
        "mov rdx, rsi",
        "mov eax, 7",
        ".byte 0x66, 0x0f, 0x01, 0xcf",
        "jc 2f",
        "test rax, rax",
        "js 3f",
        "ret",
        "2: mov rax, -1",
        "3: ret",
    )
}

/// TDG.MEM.PAGE.ACCEPT.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub fn typed_page_accept(cpu: HardwareTdcall, gpa: Mapping<Pt>) -> u64 {
    rax(tdg::mem::PageAccept { gpa }.call(&cpu))
}

/// TDG.MEM.PAGE.ACCEPT: RCX the page with its level.
// SAFETY: as above; never called.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub extern "sysv64" fn written_page_accept() {
    naked_asm!(
        "movabs rcx, 0xffffffffff000",
        "and rcx, rdi",
        "mov eax, 6",
        ".byte 0x66, 0x0f, 0x01, 0xcc",
        "jc 2f",
        "test rax, rax",
        "js 3f",
        "ret",
        "2: mov rax, -1",
        "3: ret",
    )
}

/// TDH.VP.ENTER through a block of registers, as a host keeps them for a virtual processor.
///
/// Returns 0, or what trapped.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub fn typed_vp_enter(lp: HardwareSeamcall, registers: &mut Registers) -> u64 {
    match lp.seamcall(registers) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// TDH.VP.ENTER as a typed call, of which the caller looks at RAX.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub fn typed_vp_enter_leaf(lp: HardwareSeamcall, enter: tdh::vp::Enter) -> u64 {
    rax(enter.call(&lp))
}
