//! The defences against stepping: a VMM that interrupts a guest after each instruction, or lets one instruction fault on
//! private pages again and again.
//!
//! Source: `src/td_transitions/td_exit_stepping.c` of the TDX module 1.5.01.

use super::Guest;
use super::Leave;
use super::TdExit;
use super::event;
use super::reason;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::lock::Mode;
use crate::lock::Sharex;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdvps;
use crate::structures::tdcs;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;
use crate::translate;
use crate::translate::Translation;

/// EPT violations of one instruction after which their addresses are logged (`STEPPING_EPF_THRESHOLD`).
const THRESHOLD: u8 = 6;
/// NOTIFY_ENABLES: the guest wants to be told of a suspected attack.
const NOTIFY_EPT_FAULTS: u64 = 1;
/// Read, write and execute.
const RWX: u64 = 7;

/// Whether the vCPU may be entered.
#[derive(Debug)]
pub(crate) enum Filter<'m> {
    /// Yes.
    Enter(Option<Sharex<'m>>),
    /// Yes, and the guest wants a #VE that tells it of the faults.
    Notify(Option<Sharex<'m>>),
    /// No: the access to this guest-physical address would fault once more.
    WouldFault(u64),
    /// The Secure-EPT tree is locked.
    Busy,
}

/// Decides at TD entry. On [`Filter::Enter`] and [`Filter::Notify`] the tree stays locked until the entry.
pub(crate) fn at_entry<'m>(core: &'m Core, tdcs: Tdcs<'m>, tdvps: Tdvps<'m>) -> Filter<'m> {
    let count = tdvps
        .get(tdvps::LAST_EPF_GPA_LIST_IDX)
        .min(tdvps::EPF_GPA_LIST_SIZE);
    if count == 0 {
        return Filter::Enter(None);
    }
    let Some(lock) = Sharex::acquire(tdcs.lock_word(tdcs::SEPT_LOCK), Mode::Exclusive) else {
        return Filter::Busy;
    };
    for index in 0..usize::from(count) {
        let gpa = tdvps.get(tdvps::LAST_EPF_GPA_LIST.nth(index));
        match translate::private(core, tdcs, gpa, RWX).outcome {
            Translation::Mapped(_) | Translation::Convertible => {}
            Translation::Violation | Translation::Misconfigured => return Filter::WouldFault(gpa),
        }
    }
    if tdcs.get(tdcs::NOTIFY_ENABLES) & NOTIFY_EPT_FAULTS != 0 {
        Filter::Notify(Some(lock))
    } else {
        Filter::Enter(Some(lock))
    }
}

impl Guest<'_> {
    /// Forgets what was counted once the guest has made progress.
    pub(crate) fn note_progress(&self) {
        if self.vmcs.read(encoding::GUEST_RIP) != self.inside.rip_at_entry {
            self.tdvps.set(tdvps::LAST_EPF_GPA_LIST_IDX, 0);
            self.tdvps.set(tdvps::POSSIBLY_EPF_STEPPING, 0);
        }
    }

    /// Counts an EPT violation on a private address that is about to become a TD exit.
    pub(crate) fn log_violation(&self, gpa: u64) {
        self.note_progress();
        let tdvps = self.tdvps;
        let count = tdvps.get(tdvps::POSSIBLY_EPF_STEPPING);
        if count < THRESHOLD {
            tdvps.set(tdvps::POSSIBLY_EPF_STEPPING, count + 1);
            return;
        }
        let length = tdvps.get(tdvps::LAST_EPF_GPA_LIST_IDX);
        let logged = (0..usize::from(length))
            .any(|index| tdvps.get(tdvps::LAST_EPF_GPA_LIST.nth(index)) == gpa);
        if length < tdvps::EPF_GPA_LIST_SIZE && !logged {
            tdvps.set(tdvps::LAST_EPF_GPA_LIST.nth(length.into()), gpa);
            tdvps.set(tdvps::LAST_EPF_GPA_LIST_IDX, length + 1);
        }
    }
}

/// What the single-step defence makes of a VM exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filtered {
    /// It is handled as ever.
    Continue,
    /// The guest goes on by one instruction, without anybody learning of the exit.
    Resume,
}

/// How far an LP is with single-stepping a guest that it suspects to be single-stepped by its VMM.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stepping {
    /// Whether the guest is being stepped: interrupts wait, and each instruction exits by the monitor trap flag.
    pub(crate) active: bool,
    /// Instructions still to be stepped.
    left: u32,
    /// TSC at the last TD entry.
    pub(crate) last_entry_tsc: u64,
}

/// Cycles within which an exit after an entry is suspicious (`STEPPING_TSC_THRESHOLD`).
const TSC_THRESHOLD: u64 = 4096;
/// Bytes of code within which an exit after an entry is suspicious: two of the longest instructions.
const RIP_THRESHOLD: u64 = 2 * 15;
/// The generator's polynomial (`POLY_MASK_32`).
const POLYNOMIAL: u32 = 0xb4bc_d35c;
/// IA32_APIC_BASE and its global enable bit.
const IA32_APIC_BASE: u32 = 0x1b;
const APIC_ENABLED: u64 = 1 << 11;
/// Primary control: monitor trap flag.
const MONITOR_TRAP_FLAG: u64 = 1 << 27;
/// Pending debug exceptions: enabled breakpoint, BS, RTM.
const PENDING_DEBUG: u64 = 1 << 12 | event::PENDING_DEBUG_BS | 1 << 16;

impl Guest<'_> {
    /// Lets the guest go on for a few instructions if it was interrupted so soon that this may be an attack.
    ///
    /// The module sends itself the interrupt, NMI or INIT that it withholds; here who made the exit makes it again.
    pub(crate) fn filter_stepping(&mut self) -> Result<Filtered, Leave> {
        self.note_progress();
        let seen = self.seen();
        let basic = seen.reason as u16;
        let mtf = basic == reason::MONITOR_TRAP_FLAG;
        let withholdable = match basic {
            reason::EXTERNAL_INTERRUPT | reason::MONITOR_TRAP_FLAG | reason::INIT => true,
            reason::OTHER_SMI => seen.qualification & reason::SMI_MACHINE_CHECK == 0,
            reason::EXCEPTION_OR_NMI => {
                seen.interruption & reason::EVENT_VECTOR == reason::VECTOR_NMI
            }
            _ => false,
        };
        if withholdable {
            if !self.lp.stepping.active {
                if !self.is_suspicious() {
                    return Ok(Filtered::Continue);
                }
                let apic = self.lp.msrs.get(&IA32_APIC_BASE);
                if apic.is_some_and(|base| base & APIC_ENABLED == 0) {
                    let exit = TdExit::of(
                        StatusCode::NON_RECOVERABLE_TD_WRONG_APIC_MODE,
                        seen.reason,
                        seen.qualification,
                    );
                    return Err(Leave::Async(exit.with_interruption(seen.interruption)));
                }
                self.lp.stepping.left = (self.next_random() & 0x1f) + 1;
                self.lp.stepping.active = true;
                self.set_monitor_trap_flag(true);
            }
            if self.lp.stepping.left > 0 {
                self.withhold_debug_exceptions();
                self.lp.stepping.left -= 1;
                return Ok(Filtered::Resume);
            }
        }
        if self.lp.stepping.active {
            self.set_monitor_trap_flag(false);
            self.lp.stepping.active = false;
            self.lp.stepping.left = 0;
            if mtf {
                // What follows is no attack, however soon it comes.
                self.lp.stepping.last_entry_tsc = 0;
                return Ok(Filtered::Resume);
            }
        }
        Ok(Filtered::Continue)
    }

    fn is_suspicious(&self) -> bool {
        let moved = self
            .vmcs
            .read(encoding::GUEST_RIP)
            .abs_diff(self.inside.rip_at_entry);
        let inside = self
            .tdvps
            .get(tdvps::LAST_EXIT_TSC)
            .wrapping_sub(self.lp.stepping.last_entry_tsc);
        moved <= RIP_THRESHOLD && inside <= TSC_THRESHOLD
    }

    fn next_random(&mut self) -> u32 {
        let old = self.lp.lfsr;
        let shifted = old >> 1;
        self.lp.lfsr = if old & 1 == 0 {
            shifted
        } else {
            shifted ^ POLYNOMIAL
        };
        self.lp.lfsr
    }

    fn set_monitor_trap_flag(&self, on: bool) {
        let controls = self.vmcs.read(encoding::PROC_BASED_CONTROLS) & !MONITOR_TRAP_FLAG;
        let flag = if on { MONITOR_TRAP_FLAG } else { 0 };
        self.vmcs
            .write(encoding::PROC_BASED_CONTROLS, controls | flag);
    }

    /// Lets nothing but the next instruction come between, unless something is due already.
    fn withhold_debug_exceptions(&self) {
        let vmcs = self.vmcs;
        let state = vmcs.read(encoding::GUEST_INTERRUPTIBILITY);
        let due = vmcs.read(encoding::GUEST_PENDING_DEBUG_EXCEPTIONS) & PENDING_DEBUG != 0;
        if !due && !self.is_at_breakpoint() && state & event::BLOCKING_BY_STI == 0 {
            event::set_pending_single_step(vmcs);
            let blocking = state | event::BLOCKING_BY_MOV_SS;
            vmcs.write(encoding::GUEST_INTERRUPTIBILITY, blocking);
        }
    }

    /// Whether one of the four debug registers breaks on execution of the next instruction.
    fn is_at_breakpoint(&self) -> bool {
        let control = self.vmcs.read(encoding::GUEST_DR7);
        let rip = self.vmcs.read(encoding::GUEST_RIP);
        (0..4).any(|number| {
            let enabled = control >> (2 * number) & 3 != 0;
            let on_execution = control >> (16 + 4 * number) & 0xf == 0;
            enabled && on_execution && self.tdvps.get(tdvps::DR.nth(number)) == rip
        })
    }
}
