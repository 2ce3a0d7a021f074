//! An emulated platform that carries out the steps of a sequence.
#![expect(
    clippy::large_enum_variant,
    clippy::result_large_err,
    reason = "a difference is rare, printed at once, and holds all registers"
)]

use std::cell::Cell;
use std::sync::atomic::Ordering;

use tdx_abi::Registers;
use tdx_abi::module::Module;
use tdx_emulator::ExitInfo;
use tdx_emulator::GuestCall;
use tdx_emulator::GuestExit;
use tdx_emulator::HostCall;
use tdx_emulator::LockWord;
use tdx_emulator::Lp;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;

use super::Outcome;
use super::format::Action;
use super::format::CallStep;
use super::format::EntryPlace;
use super::format::ExitStep;
use super::format::FormatError;
use super::format::Lock;
use super::format::Recording;
use super::format::Sequence;
use super::format::Step;
use super::format::To;
use super::format::register;
use super::newer::Host;

/// MSR number of IA32_INTR_PENDING.
const INTERRUPTS_PENDING: u32 = 0x9a;
/// Where the recorded platform's PAMTs begin.
const PAMT_BASE: u64 = 0x1_8000_0000;
/// Where TDMR_INFO is put during bring-up.
const TDMR_INFO: u64 = 0x1_a000_0000;
/// TDR of the first TD in the recordings, to which entries without `tdr` belong.
const FIRST_TDR: u64 = 0x1_0000_0000;
/// Entry lock bit and host-priority bit of a Secure-EPT entry.
const ENTRY_LOCK: u64 = 1 << 11;
const HOST_PRIORITY: u64 = 1 << 52;
/// Multiplier of a page pattern's seed.
const PATTERN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A call or check that did not come out as recorded.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// Name of the sequence.
    pub sequence: String,
    /// Line of the step.
    pub line: usize,
    /// Name of the call or check.
    pub name: String,
    /// Inputs; 0 for a check.
    pub before: Registers,
    /// What was recorded and what came out.
    pub difference: Difference,
}

/// How two results differ.
#[derive(Clone, Debug)]
pub enum Difference {
    /// In registers.
    Registers {
        /// As recorded.
        recorded: Registers,
        /// As it came out.
        actual: Registers,
        /// Where the LP was recorded to be, and where it is.
        to: Option<(&'static str, &'static str)>,
    },
    /// In something else.
    Text {
        /// As recorded.
        recorded: String,
        /// As it came out.
        actual: String,
    },
}

/// The platform of one sequence.
pub(super) struct Machine {
    platform: Platform,
    /// By LP: the guest's registers after its last step there.
    guests: Vec<Cell<Registers>>,
    host: Host,
}

impl Machine {
    /// A platform as it is before the sequence's base.
    pub(super) fn new(
        module: Module,
        recording: &Recording,
        sequence: &Sequence,
    ) -> Result<Self, FormatError> {
        let platform = Platform::new(PlatformConfig {
            module,
            ..recording.config.clone()
        });
        let guests = (0..platform.lps()).map(|_| Cell::default()).collect();
        let machine = Self {
            platform,
            guests,
            host: Host::of(module),
        };
        let only_loaded = sequence.base.is_none()
            && (recording.only_loaded || sequence.steps.iter().any(is_first_sys_init));
        if !only_loaded {
            machine
                .bring_up(recording)
                .map_err(|what| FormatError::new(sequence.line, what))?;
        }
        Ok(machine)
    }

    /// Carries out steps without looking at their results.
    pub(super) fn prepare(&mut self, steps: &[Step]) {
        for step in steps {
            let _ = self.step(step);
        }
    }

    /// Carries out the steps of a sequence and compares.
    pub(super) fn replay(&mut self, sequence: &Sequence, keep: usize) -> Outcome {
        let mut outcome = Outcome {
            sequences: 1,
            ..Outcome::default()
        };
        for step in &sequence.steps {
            let result = self.step(step);
            let (is_call, is_check) = match &step.action {
                Action::Seamcall(_) | Action::Tdcall(_) | Action::Exit(..) => (true, false),
                Action::CheckMemory { .. }
                | Action::CheckLock { .. }
                | Action::CheckEntry { .. } => (false, true),
                _ => (false, false),
            };
            outcome.calls += u64::from(is_call);
            outcome.checks += u64::from(is_check);
            let Err((name, before, difference)) = result else {
                outcome.matched += u64::from(is_call);
                continue;
            };
            outcome.mismatched += u64::from(is_call);
            outcome.checks_failed += u64::from(!is_call);
            if outcome.mismatches.len() < keep {
                outcome.mismatches.push(Mismatch {
                    sequence: sequence.name.clone(),
                    line: step.line,
                    name,
                    before,
                    difference: *difference,
                });
            }
        }
        outcome
    }

    fn step(&self, step: &Step) -> Result<(), (String, Registers, Box<Difference>)> {
        let memory = self.platform.memory();
        let text = |name: &str, recorded: String, actual: String| {
            let difference = Difference::Text { recorded, actual };
            Err((name.to_owned(), Registers::default(), Box::new(difference)))
        };
        match &step.action {
            Action::Seamcall(call) => self.call(call, |lp, registers| {
                self.host.before(lp, &call.before);
                let list = self.host.list(&call.before);
                registers.r9 = list;
                let to = match lp.host_call(registers) {
                    HostCall::Returned => To::Caller,
                    HostCall::EnteredTd => To::Td,
                };
                self.host.after(lp, &call.before, registers);
                if registers.r9 == list {
                    registers.r9 = call.before.r9;
                }
                to
            }),
            Action::Tdcall(call) => {
                self.call(call, |lp, registers| match lp.guest_call(registers) {
                    GuestCall::ReturnedToTd | GuestCall::EventInjected => To::Caller,
                    GuestCall::ExitedToVmm => To::Vmm,
                    GuestCall::Reexecute => To::Again,
                    GuestCall::Shutdown | GuestCall::NotInGuest => To::Nowhere,
                })
            }
            Action::Exit(call, exit) => self.exit(call, exit),
            Action::Write { address, bytes } => {
                memory.write(*address, bytes);
                Ok(())
            }
            Action::Pattern { address, seed } => {
                let base = seed.wrapping_mul(PATTERN);
                for number in 0..512 {
                    memory.write_u64(address + 8 * number, base.wrapping_add(number));
                }
                Ok(())
            }
            Action::Fill {
                address,
                byte,
                count,
            } => {
                memory.write(*address, &vec![*byte; *count as usize]);
                Ok(())
            }
            Action::CheckMemory { address, bytes } => {
                let mut actual = vec![0; bytes.len()];
                memory.read(*address, &mut actual);
                if actual == *bytes {
                    Ok(())
                } else {
                    text(&format!("memory at {address:#x}"), hex(bytes), hex(&actual))
                }
            }
            Action::Msr { number, lp, value } => {
                match self.platform.lp(*lp) {
                    Some(lp) if *number == INTERRUPTS_PENDING => lp.set_interrupts_pending(*value),
                    Some(lp) => lp.set_msr(*number, *value),
                    None => {}
                }
                Ok(())
            }
            Action::SetLock { lock, value } => match self.lock(*lock) {
                Some(word) => {
                    word.set(*value);
                    Ok(())
                }
                None => text(
                    "lock",
                    format!("{lock:?}"),
                    "there is no such lock".to_owned(),
                ),
            },
            Action::CheckLock { lock, value } => {
                let actual = self.lock(*lock).map(LockWord::get);
                if actual == Some(*value) {
                    Ok(())
                } else {
                    text(
                        &format!("{lock:?}"),
                        format!("{:#x?}", Some(value)),
                        format!("{actual:#x?}"),
                    )
                }
            }
            Action::ChangeEntry { entry, set, clear } => match self.entry(*entry) {
                Some(cell) => {
                    cell.fetch_or(*set, Ordering::AcqRel);
                    cell.fetch_and(!clear, Ordering::AcqRel);
                    Ok(())
                }
                None => text(
                    "entry",
                    format!("{entry:?}"),
                    "there is no such entry".to_owned(),
                ),
            },
            Action::CheckEntry {
                entry,
                lock,
                host_priority,
            } => {
                let value = self
                    .entry(*entry)
                    .map_or(0, |cell| cell.load(Ordering::Acquire));
                let actual = (value & ENTRY_LOCK != 0, value & HOST_PRIORITY != 0);
                if actual == (*lock, *host_priority) {
                    Ok(())
                } else {
                    let show = |(lock, host)| format!("lock {lock}, host priority {host}");
                    text(
                        &format!("{entry:x?}"),
                        show((*lock, *host_priority)),
                        show(actual),
                    )
                }
            }
        }
    }

    fn call(
        &self,
        call: &CallStep,
        execute: impl FnOnce(Lp<'_>, &mut Registers) -> To,
    ) -> Result<(), (String, Registers, Box<Difference>)> {
        self.call_with(call, call.before, execute)
    }

    fn call_with(
        &self,
        call: &CallStep,
        before: Registers,
        execute: impl FnOnce(Lp<'_>, &mut Registers) -> To,
    ) -> Result<(), (String, Registers, Box<Difference>)> {
        let mut actual = before;
        let to = match self.platform.lp(call.lp) {
            Some(lp) => execute(lp, &mut actual),
            None => To::Caller,
        };
        if let Some(guest) = self.guests.get(call.lp) {
            // If the LP is not in a TD now, the next entry replaces them.
            guest.set(actual);
        }
        compare(call, before, actual, to)
    }

    fn exit(
        &self,
        call: &CallStep,
        exit: &ExitStep,
    ) -> Result<(), (String, Registers, Box<Difference>)> {
        let info = ExitInfo {
            reason: exit.reason,
            qualification: exit.qualification,
            interruption_info: exit.interruption_info,
            gpa: exit.gpa,
            gla: exit.gpa,
            instruction_length: exit.instruction_length,
            keeps_rip: exit.keeps_rip,
            ..ExitInfo::default()
        };
        // No instruction passes registers: the guest has those that its last step left.
        let guest = self.guests.get(call.lp).map_or(call.before, Cell::get);
        self.call_with(call, guest, |lp, registers| {
            match lp.guest_exit(&info, registers) {
                GuestExit::ExitedToVmm => To::Caller,
                GuestExit::ResumedTd => To::Td,
                GuestExit::Shutdown | GuestExit::NotInGuest => To::Nowhere,
            }
        })
    }

    fn lock(&self, lock: Lock) -> Option<LockWord<'_>> {
        match lock {
            Lock::Pamt { hpa, level } => self.platform.pamt_lock(hpa, level),
            Lock::Td { tdr, lock } => Some(self.platform.td_lock(tdr, lock)),
            Lock::Kot => Some(self.platform.kot_lock()),
            Lock::Global => Some(self.platform.global_lock()),
            Lock::WriteBack { package } => self.platform.write_back_lock(package),
        }
    }

    fn entry(&self, place: EntryPlace) -> Option<&std::sync::atomic::AtomicU64> {
        let tdr = place.tdr.unwrap_or(FIRST_TDR);
        self.platform.sept_entry(tdr, place.gpa, place.level)
    }

    /// Initialises the module as the recordings did, and leaves memory 0.
    fn bring_up(&self, recording: &Recording) -> Result<(), String> {
        let call = |lp: usize, rax: u64, rcx: u64, rdx: u64, r8: u64| {
            let mut registers = Registers {
                rax,
                rcx,
                rdx,
                r8,
                ..Registers::default()
            };
            if let Some(lp) = self.platform.lp(lp) {
                lp.host_call(&mut registers);
            }
            match registers.rax {
                0 => Ok(registers.rdx),
                status => Err(format!("bring-up: leaf {rax} returned {status:#x}")),
            }
        };
        use tdx_abi::leaf::SeamcallLeaf as Leaf;
        let number = |leaf: Leaf| u64::from(leaf.number());
        call(0, number(Leaf::TDH_SYS_INIT), 0, 0, 0)?;
        for lp in 0..self.platform.lps() {
            call(lp, number(Leaf::TDH_SYS_LP_INIT), 0, 0, 0)?;
        }
        let count = recording.tdmrs.len() as u64;
        let bytes = self.write_tdmr_info(recording);
        let key_id = u64::from(recording.global_key_id);
        call(0, number(Leaf::TDH_SYS_CONFIG), TDMR_INFO, count, key_id)?;
        let memory = self.platform.memory();
        memory.write(TDMR_INFO, &vec![0; bytes]);
        for package in 0..recording.config.packages {
            let lp = package * recording.config.lps_per_package;
            call(lp as usize, number(Leaf::TDH_SYS_KEY_CONFIG), 0, 0, 0)?;
        }
        for tdmr in &recording.tdmrs {
            let end = tdmr.range.base + tdmr.range.size;
            while call(0, number(Leaf::TDH_SYS_TDMR_INIT), tdmr.range.base, 0, 0)? < end {}
        }
        Ok(())
    }

    /// Writes the array of TDMR_INFO addresses and the TDMR_INFOs; returns how many bytes that took.
    fn write_tdmr_info(&self, recording: &Recording) -> usize {
        const PAGE: u64 = 4096;
        const INFO: u64 = 512;
        let memory = self.platform.memory();
        let mut pamt = PAMT_BASE;
        let mut area = |entries: u64| {
            let size = (entries * 16).next_multiple_of(PAGE);
            let base = pamt;
            pamt += size;
            [base, size]
        };
        let infos = TDMR_INFO + PAGE;
        for (number, tdmr) in (0u64..).zip(&recording.tdmrs) {
            let info = infos + number * INFO;
            memory.write_u64(TDMR_INFO + number * 8, info);
            let mut words = vec![tdmr.range.base, tdmr.range.size];
            for shift in [30, 21, 12] {
                words.extend(area(tdmr.range.size >> shift));
            }
            for reserved in &tdmr.reserved {
                words.extend([reserved.base, reserved.size]);
            }
            for (word, value) in (0u64..).zip(words) {
                memory.write_u64(info + word * 8, value);
            }
        }
        (PAGE + recording.tdmrs.len() as u64 * INFO) as usize
    }
}

/// Whether the step is a SYS.INIT that succeeded, which none is on a module that has been brought up.
fn is_first_sys_init(step: &Step) -> bool {
    let Action::Seamcall(call) = &step.action else {
        return false;
    };
    call.name == "TDH.SYS.INIT" && call.after.first() == Some(&(0, 0))
}

fn compare(
    call: &CallStep,
    before: Registers,
    actual: Registers,
    to: To,
) -> Result<(), (String, Registers, Box<Difference>)> {
    let mut recorded = before;
    for &(position, value) in &call.after {
        *register(&mut recorded, position) = value;
    }
    let expected = if call.name == "EXIT" && call.to == To::Vmm {
        To::Caller
    } else {
        call.to
    };
    if actual == recorded && to == expected {
        return Ok(());
    }
    let place = |to| match to {
        To::Caller => "returned to the caller",
        To::Td => "runs in the TD",
        To::Vmm => "left the TD",
        To::Again => "will be executed again",
        To::Nowhere => "was not in a TD, or the module shut down",
    };
    let difference = Difference::Registers {
        recorded,
        actual,
        to: (to != expected).then(|| (place(expected), place(to))),
    };
    Err((call.name.clone(), before, Box::new(difference)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
