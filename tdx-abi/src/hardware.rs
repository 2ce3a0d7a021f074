//! The real instructions, in the crate's only module with `unsafe`.
//!
//! # What the embedder supplies
//!
//! - A CPU in the right mode: for SEAMCALL, VMX root operation at CPL 0 with SEAM loaded; for TDCALL, CPL 0 inside a TD.
//! - Trap handling, if traps are to be reported and not to end the program. Where the instruction raises #UD or #GP, the
//!   handler calls [`fixup`] with the interrupted RIP. If that returns an address, the handler sets RIP to it and EAX to
//!   the vector (6 or 13), leaves every other register as it was, and returns; the call then ends with
//!   [`Trap::InvalidOpcode`] or [`Trap::GeneralProtection`]. In a kernel with a linker script of its own, the
//!   read-only section `tdx_fixup` must be kept, between `__start_tdx_fixup` and `__stop_tdx_fixup`.
//! - State that the callee does not keep. An ordinary leaf may reset AVX, AVX-512 and AMX state to its initial values;
//!   XMM0 to XMM15 are taken as overwritten here. **TDH.VP.ENTER** runs the guest, and of what lies outside the general
//!   registers only part is restored:
//!   - extended state: x87, SSE, AVX, AVX-512, MPX, PKRU, AMX and whatever else the TD's XFAM enables is as the guest left
//!     it or initialised; save it before and restore it after (XSAVE of the whole XFAM, XCR0 too);
//!   - MSRs that are not restored: `IA32_SPEC_CTRL`, `IA32_TSX_CTRL` (set to the TD's or a fixed value), `IA32_UMWAIT_CONTROL`,
//!     `IA32_STAR`, `IA32_LSTAR`, `IA32_FMASK`, `IA32_KERNEL_GS_BASE`, `IA32_TSC_AUX`, `IA32_XSS`, `IA32_PERF_GLOBAL_CTRL` and the
//!     performance counters where the TD's ATTRIBUTES.PERFMON is set, `IA32_DS_AREA`, `IA32_RTIT_*` and LBR state where XFAM
//!     enables them, `IA32_DEBUGCTL` bits other than those of VM exit;
//!   - DR0 to DR3, DR6; CR2.
//!
//!   (TDX module ABI, "CPU state preservation following TD exit"; the module's `src/td_transitions/`.)
//!
//! # What is called
//!
//! Ordinary leaves compile to loads of the registers that they have, the instruction, and a test of CF. Leaves that pass
//! every register (TDH.VP.ENTER, TDG.VP.VMCALL) go through memory, since no register is left to name it.

#![expect(unsafe_code, reason = "the instructions cannot be expressed otherwise")]

use core::arch::asm;
use core::mem::offset_of;

use crate::Reach;
use crate::Registers;
use crate::Seamcall;
use crate::Tdcall;
use crate::Trap;

/// SEAMCALL on this processor.
///
/// CF = 1 after the instruction is [`Trap::VmFailInvalid`]: RAX then still holds the leaf and says nothing.
#[derive(Clone, Copy, Debug)]
pub struct HardwareSeamcall(());

impl HardwareSeamcall {
    /// Permission to execute SEAMCALL.
    ///
    /// # Safety
    ///
    /// While the value or a copy of it is used,
    /// 1. the processor may execute SEAMCALL, or its traps are handled as the module's documentation says;
    /// 2. every page, structure and buffer whose address is passed to a leaf is memory that the holder may give away, or
    ///    let the callee read and write, as the leaf says;
    /// 3. processor state that the leaf does not keep, as listed above, is saved and restored by the holder.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

/// TDCALL on this processor.
#[derive(Clone, Copy, Debug)]
pub struct HardwareTdcall(());

impl HardwareTdcall {
    /// Permission to execute TDCALL.
    ///
    /// # Safety
    ///
    /// While the value or a copy of it is used,
    /// 1. the processor runs in a TD at CPL 0, or its traps are handled as the module's documentation says;
    /// 2. every buffer whose address is passed to a leaf may be read and written as the leaf says;
    /// 3. a page that is accepted holds nothing that is in use: its content is lost.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

/// XMM0 to XMM15, as TDG.VP.VMCALL can pass them.
pub type Xmm = [u128; 16];

/// Trap number that stands for CF = 1: what `sbb x, x` makes of it.
const CARRY: u32 = u32::MAX;

const fn outcome(trap: u32) -> Result<(), Trap> {
    match trap {
        0 => Ok(()),
        CARRY => Err(Trap::VmFailInvalid),
        6 => Err(Trap::InvalidOpcode),
        _ => Err(Trap::GeneralProtection),
    }
}

/// Where execution goes on after a trap of the instruction at `rip`; `None` if that is none of ours.
pub fn fixup(rip: u64) -> Option<u64> {
    unsafe extern "C" {
        #[link_name = "__start_tdx_fixup"]
        static START: [i32; 2];
        #[link_name = "__stop_tdx_fixup"]
        static STOP: [i32; 2];
    }
    let (mut entry, stop) = (&raw const START, &raw const STOP);
    while entry < stop {
        // SAFETY: the linker defines both symbols as the ends of the section `tdx_fixup`, which holds nothing but the pairs
        // of 32-bit displacements that `instruction!` emits; `entry` is one of them.
        let [instruction, landing] = unsafe { entry.read() };
        let base = entry as u64;
        if base.wrapping_add_signed(i64::from(instruction)) == rip {
            return Some((base + 4).wrapping_add_signed(i64::from(landing)));
        }
        entry = entry.wrapping_add(1);
    }
    None
}

/// The instruction with its entry in the table that [`fixup`] reads.
macro_rules! instruction {
    ($bytes:literal) => {
        concat!(
            "2: .byte ",
            $bytes,
            "\n.pushsection tdx_fixup, \"a\"\n.balign 4\n.long 2b - .\n.long 4f - .\n.popsection"
        )
    };
}

/// A call through the registers that ordinary leaves have.
///
/// `$in` are loaded and read back, `$out` are read back only: what the leaf does not read costs no load, and RDX to R11 need
/// not be saved by anyone.
macro_rules! ordinary {
    ($bytes:literal, $registers:ident, [$($in:ident $in_name:tt)*], [$($out:ident $out_name:tt)*]) => {{
        let trap: u32;
        let Registers { $(mut $in,)* .. } = *$registers;
        $(let $out: u64;)*
        // SAFETY: whoever made the backend has stated that the instruction may be executed with these operands. It writes
        // no register beside those listed (`Reach` of the leaf, and RCX to R11 always), CF is read before anything changes
        // it, and after a trap control comes to label 4 with the vector in EAX or does not come back at all. Nothing here
        // touches the stack, and a trap does no more to it than any other instruction's.
        unsafe {
            asm!(
                instruction!($bytes),
                "sbb {trap:e}, {trap:e}",
                "3:",
                ".pushsection .text.tdx_trap, \"ax\"",
                "4: mov {trap:e}, eax",
                "jmp 3b",
                ".popsection",
                trap = lateout(reg) trap,
                $(inlateout($in_name) $in,)*
                $(lateout($out_name) $out,)*
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                options(nostack),
            );
        }
        let outcome = outcome(trap);
        if outcome.is_ok() {
            *$registers = Registers { $($in,)* $($out,)* ..*$registers };
        }
        outcome
    }};
}

/// [`ordinary!`] with as many loads as the leaf needs.
macro_rules! within {
    ($bytes:literal, $registers:ident, $reach:ident, $full:expr) => {
        match $reach {
            Reach::Rcx => ordinary!($bytes, $registers,
                [rax "rax" rcx "rcx"],
                [rdx "rdx" r8 "r8" r9 "r9" r10 "r10" r11 "r11"]),
            Reach::Rdx => ordinary!($bytes, $registers,
                [rax "rax" rcx "rcx" rdx "rdx"],
                [r8 "r8" r9 "r9" r10 "r10" r11 "r11"]),
            Reach::R8 => ordinary!($bytes, $registers,
                [rax "rax" rcx "rcx" rdx "rdx" r8 "r8"],
                [r9 "r9" r10 "r10" r11 "r11"]),
            Reach::R9 => ordinary!($bytes, $registers,
                [rax "rax" rcx "rcx" rdx "rdx" r8 "r8" r9 "r9"],
                [r10 "r10" r11 "r11"]),
            Reach::R11 => ordinary!($bytes, $registers,
                [rax "rax" rcx "rcx" rdx "rdx" r8 "r8" r9 "r9" r10 "r10" r11 "r11"],
                []),
            Reach::R13 => ordinary!($bytes, $registers,
                [rax "rax" rcx "rcx" rdx "rdx" r8 "r8" r9 "r9" r10 "r10" r11 "r11" r12 "r12" r13 "r13"],
                []),
            Reach::All => $full,
        }
    };
}

/// A call through every register but RSP; the block is in RDI before and after, XMM in RSI.
macro_rules! full {
    ($bytes:literal, $registers:expr, $xmm:expr, [$($load:literal)*], [$($store:literal)*]) => {{
        let trap: u32;
        // SAFETY: as in `ordinary!`; moreover RBX and RBP, which an operand cannot name, are saved on the stack, RSP is the same
        // after as before, RDI and RSI point to blocks that this function borrows for writing, and after a trap
        // nothing has been stored to them.
        unsafe {
            asm!(
                "push rbp",
                "push rbx",
                "push rsi",
                "push rdi",
                $($load,)*
                "mov rax, [rdi + {rax}]",
                "mov rcx, [rdi + {rcx}]",
                "mov rdx, [rdi + {rdx}]",
                "mov rbx, [rdi + {rbx}]",
                "mov rbp, [rdi + {rbp}]",
                "mov rsi, [rdi + {rsi}]",
                "mov r8, [rdi + {r8}]",
                "mov r9, [rdi + {r9}]",
                "mov r10, [rdi + {r10}]",
                "mov r11, [rdi + {r11}]",
                "mov r12, [rdi + {r12}]",
                "mov r13, [rdi + {r13}]",
                "mov r14, [rdi + {r14}]",
                "mov r15, [rdi + {r15}]",
                "mov rdi, [rdi + {rdi}]",
                instruction!($bytes),
                // RDI as returned changes places with the block's address; CF is kept until `sbb`.
                "xchg rdi, [rsp]",
                "mov [rdi + {rcx}], rcx",
                "sbb ecx, ecx",
                // With CF = 1 nothing is an output, and the block's RCX is as it was: the instruction changed no register.
                "mov [rdi + {rax}], rax",
                "mov [rdi + {rdx}], rdx",
                "mov [rdi + {rbx}], rbx",
                "mov [rdi + {rbp}], rbp",
                "mov [rdi + {rsi}], rsi",
                "mov [rdi + {r8}], r8",
                "mov [rdi + {r9}], r9",
                "mov [rdi + {r10}], r10",
                "mov [rdi + {r11}], r11",
                "mov [rdi + {r12}], r12",
                "mov [rdi + {r13}], r13",
                "mov [rdi + {r14}], r14",
                "mov [rdi + {r15}], r15",
                "pop rax",
                "mov [rdi + {rdi}], rax",
                "pop rsi",
                $($store,)*
                "3: pop rbx",
                "pop rbp",
                ".pushsection .text.tdx_trap, \"ax\"",
                "4: mov ecx, eax",
                "pop rdi",
                "pop rsi",
                "jmp 3b",
                ".popsection",
                rax = const offset_of!(Registers, rax),
                rcx = const offset_of!(Registers, rcx),
                rdx = const offset_of!(Registers, rdx),
                rbx = const offset_of!(Registers, rbx),
                rbp = const offset_of!(Registers, rbp),
                rsi = const offset_of!(Registers, rsi),
                rdi = const offset_of!(Registers, rdi),
                r8 = const offset_of!(Registers, r8),
                r9 = const offset_of!(Registers, r9),
                r10 = const offset_of!(Registers, r10),
                r11 = const offset_of!(Registers, r11),
                r12 = const offset_of!(Registers, r12),
                r13 = const offset_of!(Registers, r13),
                r14 = const offset_of!(Registers, r14),
                r15 = const offset_of!(Registers, r15),
                inlateout("rdi") core::ptr::from_mut::<Registers>($registers) => _,
                inlateout("rsi") $xmm => _,
                out("ecx") trap,
                out("rax") _, out("rdx") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            );
        }
        outcome(trap)
    }};
}

macro_rules! full_with_xmm {
    ($bytes:literal, $registers:expr, $xmm:expr) => {
        full!(
            $bytes,
            $registers,
            core::ptr::from_mut::<Xmm>($xmm),
            [
                "movups xmm0, [rsi]" "movups xmm1, [rsi + 16]" "movups xmm2, [rsi + 32]" "movups xmm3, [rsi + 48]"
                "movups xmm4, [rsi + 64]" "movups xmm5, [rsi + 80]" "movups xmm6, [rsi + 96]" "movups xmm7, [rsi + 112]"
                "movups xmm8, [rsi + 128]" "movups xmm9, [rsi + 144]" "movups xmm10, [rsi + 160]"
                "movups xmm11, [rsi + 176]" "movups xmm12, [rsi + 192]" "movups xmm13, [rsi + 208]"
                "movups xmm14, [rsi + 224]" "movups xmm15, [rsi + 240]"
            ],
            [
                "movups [rsi], xmm0" "movups [rsi + 16], xmm1" "movups [rsi + 32], xmm2" "movups [rsi + 48], xmm3"
                "movups [rsi + 64], xmm4" "movups [rsi + 80], xmm5" "movups [rsi + 96], xmm6" "movups [rsi + 112], xmm7"
                "movups [rsi + 128], xmm8" "movups [rsi + 144], xmm9" "movups [rsi + 160], xmm10"
                "movups [rsi + 176], xmm11" "movups [rsi + 192], xmm12" "movups [rsi + 208], xmm13"
                "movups [rsi + 224], xmm14" "movups [rsi + 240], xmm15"
            ]
        )
    };
}

impl Seamcall for HardwareSeamcall {
    #[inline]
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        full!(
            "0x66, 0x0f, 0x01, 0xcf",
            registers,
            core::ptr::null_mut::<Xmm>(),
            [],
            []
        )
    }

    #[inline(always)]
    fn seamcall_short(&self, registers: &mut Registers) -> Result<(), Trap> {
        self.seamcall_within(registers, Reach::R13)
    }

    #[inline(always)]
    fn seamcall_within(&self, registers: &mut Registers, reach: Reach) -> Result<(), Trap> {
        within!(
            "0x66, 0x0f, 0x01, 0xcf",
            registers,
            reach,
            self.seamcall(registers)
        )
    }
}

impl HardwareSeamcall {
    /// [`Seamcall::seamcall`] with XMM0 to XMM15 loaded before and stored after: for TDH.VP.ENTER after a TDG.VP.VMCALL that
    /// passes some of them.
    ///
    /// # Errors
    ///
    /// The instruction trapped; neither block has changed.
    pub fn seamcall_with_xmm(&self, registers: &mut Registers, xmm: &mut Xmm) -> Result<(), Trap> {
        full_with_xmm!("0x66, 0x0f, 0x01, 0xcf", registers, xmm)
    }
}

impl Tdcall for HardwareTdcall {
    #[inline]
    fn tdcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        full!(
            "0x66, 0x0f, 0x01, 0xcc",
            registers,
            core::ptr::null_mut::<Xmm>(),
            [],
            []
        )
    }

    #[inline(always)]
    fn tdcall_short(&self, registers: &mut Registers) -> Result<(), Trap> {
        self.tdcall_within(registers, Reach::R13)
    }

    #[inline(always)]
    fn tdcall_within(&self, registers: &mut Registers, reach: Reach) -> Result<(), Trap> {
        within!(
            "0x66, 0x0f, 0x01, 0xcc",
            registers,
            reach,
            self.tdcall(registers)
        )
    }
}

impl HardwareTdcall {
    /// [`Tdcall::tdcall`] with XMM0 to XMM15 loaded before and stored after: for a TDG.VP.VMCALL whose RCX selects some of
    /// them (bits 31:16).
    ///
    /// # Errors
    ///
    /// The instruction trapped; neither block has changed.
    pub fn tdcall_with_xmm(&self, registers: &mut Registers, xmm: &mut Xmm) -> Result<(), Trap> {
        full_with_xmm!("0x66, 0x0f, 0x01, 0xcc", registers, xmm)
    }
}
