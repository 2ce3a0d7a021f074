//! The guest's exceptions: a #VE is answered (lazy acceptance, MMIO), everything else is reported.

use core::arch::asm;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use tdx_abi::Level;

use crate::protocol;
use crate::tdcall;
use crate::tdcall::Call;

/// Whether a #VE on a private page accepts it.
pub(crate) static LAZY_ACCEPT: AtomicBool = AtomicBool::new(true);
/// How many #VEs there were.
pub(crate) static COUNT: AtomicU64 = AtomicU64::new(0);

const VIRTUALIZATION: u64 = 20;
const EPT_VIOLATION: u32 = 48;
const SHARED: u64 = 1 << 39;
const PAGE: u64 = 4096;

/// What the stubs in start.s leave on the stack.
#[repr(C)]
struct Frame {
    rax: u64,
    rcx: u64,
    rdx: u64,
    rbx: u64,
    rbp: u64,
    rsi: u64,
    rdi: u64,
    r8_to_r15: [u64; 8],
    vector: u64,
    error: u64,
    rip: u64,
}

#[unsafe(no_mangle)]
extern "C" fn on_exception(frame: &mut Frame) {
    if frame.vector != VIRTUALIZATION {
        fatal(frame, fault_address());
    }
    COUNT.fetch_add(1, Ordering::Relaxed);
    let info = match tdcall::veinfo_get() {
        Ok(info) => info,
        Err(status) => fatal(frame, status),
    };
    if info.exit_reason as u32 != EPT_VIOLATION {
        fatal(frame, info.exit_reason);
    }
    if info.gpa & SHARED != 0 {
        mmio(frame, info.gpa);
    } else if LAZY_ACCEPT.load(Ordering::Relaxed) {
        let status = tdcall::accept(info.gpa & !(PAGE - 1), Level::Pt);
        if status != 0 {
            fatal(frame, status);
        }
    } else {
        fatal(frame, info.gpa);
    }
}

/// Asks the host to do the access; the guest makes it with one of two instructions only, see `memory`.
fn mmio(frame: &mut Frame, gpa: u64) {
    const LOAD: [u8; 3] = [0x48, 0x8b, 0x07];
    const STORE: [u8; 3] = [0x48, 0x89, 0x07];
    // SAFETY: the CPU has just executed these bytes.
    let code = unsafe { core::ptr::read_unaligned(frame.rip as *const [u8; 3]) };
    let write = code == STORE;
    if !write && code != LOAD {
        fatal(frame, gpa);
    }
    let data = if write { frame.rax } else { 0 };
    let answer = tdcall::vmcall(Call {
        r10: 0,
        r11: protocol::MMIO,
        r12: 8,
        r13: u64::from(write),
        r14: gpa,
        r15: data,
    });
    if answer.r10 != 0 {
        fatal(frame, gpa);
    }
    if !write {
        frame.rax = answer.r11;
    }
    frame.rip += code.len() as u64;
}

fn fault_address() -> u64 {
    let address;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) }
    address
}

fn fatal(frame: &Frame, detail: u64) -> ! {
    report(frame.vector, frame.rip, frame.error, detail)
}

/// Reports the end of the guest, for good.
pub(crate) fn report(vector: u64, rip: u64, error: u64, detail: u64) -> ! {
    loop {
        tdcall::vmcall(Call {
            r10: protocol::VENDOR,
            r11: protocol::FATAL,
            r12: vector,
            r13: rip,
            r14: error,
            r15: detail,
        });
    }
}
