//! The handler of SIGILL.
//!
//! SIGILL comes from the instruction itself, so the handler runs as if the program had called it there: it may
//! allocate and lock as any function may.

#![expect(
    unsafe_code,
    reason = "signal handlers, interrupted registers and code bytes are C's"
)]

use core::ffi::c_int;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use std::io;

use tdx_abi::Registers;

use crate::guest_thread;

/// A signal action, as the kernel keeps it.
pub(crate) type Action = libc::sigaction;

type Greg = libc::greg_t;
type Gregs = [Greg; 23];

/// `66 0F 01` is followed by CF for SEAMCALL and CC for TDCALL (SDM volume 2, TDX module ABI).
const PREFIX: [u8; 3] = [0x66, 0x0f, 0x01];
const SEAMCALL: u8 = 0xcf;
const TDCALL: u8 = 0xcc;
/// Bytes of either.
const INSTRUCTION_BYTES: Greg = 4;
/// EFLAGS.CF: after SEAMCALL, VMfailInvalid.
const CARRY: Greg = 1;

/// Where each register of [`Registers`] is among the interrupted ones.
const PLACES: [c_int; 15] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Installs the handler and returns what was there before.
pub(crate) fn install() -> io::Result<Action> {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_signal;
    // SAFETY: all fields of the C structure are integers or an optional function, for which zeros are valid.
    let mut action: Action = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO;
    let mut previous = MaybeUninit::<Action>::uninit();
    // SAFETY: both structures live during the call, and the handler has the form that SA_SIGINFO asks for.
    let result = unsafe { libc::sigaction(libc::SIGILL, &raw const action, previous.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and so has filled the structure.
    Ok(unsafe { previous.assume_init() })
}

/// Puts `action` in the handler's place.
pub(crate) fn restore(action: &Action) {
    // SAFETY: the structure came from the kernel, and null means that the present action is not asked for.
    unsafe { libc::sigaction(libc::SIGILL, action, core::ptr::null_mut()) };
}

extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes the interrupted context, which is this handler's until it returns.
    let gregs = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let handled = match instruction(gregs[libc::REG_RIP as usize] as u64) {
        Some(SEAMCALL) => on_seamcall(gregs),
        Some(TDCALL) => on_tdcall(gregs),
        _ => false,
    };
    if !handled {
        pass_on(signal, info, context);
    }
}

/// The last byte of the instruction at `rip`, if the others are those of SEAMCALL and TDCALL.
fn instruction(rip: u64) -> Option<u8> {
    // SAFETY: the CPU raised #UD for the instruction at `rip`, so it fetched all of it; each prefix of ours is
    // incomplete without the byte after it, which is therefore read only if it belongs to the instruction.
    let byte = |at: u64| unsafe { ((rip + at) as *const u8).read_volatile() };
    (0..)
        .zip(PREFIX)
        .all(|(at, expected)| byte(at) == expected)
        .then(|| byte(3))
}

fn on_seamcall(gregs: &mut Gregs) -> bool {
    let mut registers = load(gregs);
    let Some(executed) = crate::seamcall(&mut registers) else {
        return false;
    };
    let flags = &mut gregs[libc::REG_EFL as usize];
    if executed {
        *flags &= !CARRY;
        store(gregs, &registers);
    } else {
        *flags |= CARRY;
    }
    gregs[libc::REG_RIP as usize] += INSTRUCTION_BYTES;
    true
}

fn on_tdcall(gregs: &mut Gregs) -> bool {
    let mut registers = load(gregs);
    if !guest_thread::tdcall(&mut registers) {
        return false;
    }
    gregs[libc::REG_EFL as usize] &= !CARRY;
    store(gregs, &registers);
    gregs[libc::REG_RIP as usize] += INSTRUCTION_BYTES;
    true
}

fn load(gregs: &Gregs) -> Registers {
    let [
        rax,
        rcx,
        rdx,
        rbx,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
    ] = PLACES.map(|place| gregs[place as usize] as u64);
    Registers {
        rax,
        rcx,
        rdx,
        rbx,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
    }
}

fn store(gregs: &mut Gregs, from: &Registers) {
    let values = [
        from.rax, from.rcx, from.rdx, from.rbx, from.rbp, from.rsi, from.rdi, from.r8, from.r9,
        from.r10, from.r11, from.r12, from.r13, from.r14, from.r15,
    ];
    for (place, value) in PLACES.into_iter().zip(values) {
        gregs[place as usize] = value as Greg;
    }
}

/// Does what would have been done without the guard.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let previous = crate::previous();
    match previous.map(|action| (action.sa_sigaction, action)) {
        Some((libc::SIG_DFL | libc::SIG_IGN, _)) | None => {
            // SAFETY: as in `install`; zeros mean the default action, without flags.
            let default: Action = unsafe { MaybeUninit::zeroed().assume_init() };
            // The instruction is executed again and ends the process, as a signal of its own kind cannot be ignored.
            restore(&default);
        }
        Some((handler, action)) if action.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: whoever installed the handler with SA_SIGINFO gave it this form.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { core::mem::transmute(handler) };
            handler(signal, info, context);
        }
        Some((handler, _)) => {
            // SAFETY: whoever installed the handler without SA_SIGINFO gave it this form.
            let handler: extern "C" fn(c_int) = unsafe { core::mem::transmute(handler) };
            handler(signal);
        }
    }
}
