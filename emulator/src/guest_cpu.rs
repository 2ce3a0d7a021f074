//! Guests as programs: what a vCPU executes inside its TD, and the CPU that executes it.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::Ordering;

use tdx_abi::Level;
use tdx_abi::Registers;

use crate::abi::Status;
use crate::abi::TdcallLeaf;
use crate::core::Core;
use crate::exit;
use crate::exit::ExitInfo;
use crate::exit::Guest;
use crate::exit::GuestCall;
use crate::exit::GuestExit;
use crate::exit::reason;
use crate::guest;
use crate::inside;
use crate::inside::InjectedEvent;
use crate::keys;
use crate::lp::LpSlot;
use crate::lp::LpState;
use crate::structures::Structure;
use crate::structures::tdcs;
use crate::structures::tdr;
use crate::structures::tdvps;
use crate::structures::vmcs::encoding;
use crate::tlb::Cached;
use crate::tlb::Space;
use crate::translate;
use crate::translate::Translation;

/// What a vCPU executes: called whenever TDH.VP.ENTER has entered the TD, until it leaves it again.
///
/// The program runs on the LP that entered, within the SEAMCALL, so it must not make SEAMCALLs on it. An access
/// that faulted is simply made again at the next call, as a guest that resumes at the same instruction would.
pub trait GuestProgram: Send {
    /// Executes until the TD is left. [`Exited`] comes from the `cpu`'s methods, so a program cannot just return.
    fn run(&mut self, cpu: &mut GuestCpu<'_>) -> Exited;
}

impl<F: FnMut(&mut GuestCpu<'_>) -> Exited + Send> GuestProgram for F {
    fn run(&mut self, cpu: &mut GuestCpu<'_>) -> Exited {
        self(cpu)
    }
}

/// A guest program as the platform keeps it.
pub(crate) type Program = Box<dyn GuestProgram>;

/// Proof that the TD has been left.
#[derive(Debug)]
#[must_use = "return it from GuestProgram::run"]
pub struct Exited(());

/// Why an access or a TDCALL did not complete.
#[derive(Debug)]
#[must_use = "an exit has to be returned from GuestProgram::run"]
pub enum GuestFault {
    /// The TD was left; the access is to be made again when it is entered next.
    Exited(Exited),
    /// An exception was raised in the guest: #VE, #PF, #GP, #UD or #DF.
    Event(InjectedEvent),
    /// The L2 VM was left and the L1 VM runs on behind its TDG.VP.ENTER; [`GuestCpu::registers`] tell it why.
    LeftL2,
}

/// Why an access is made, as permissions that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Data is read.
    Read,
    /// Data is written.
    Write,
    /// An instruction is fetched.
    Fetch,
}

impl Access {
    /// Bit 0 read, 1 write, 2 execute: also bits 2:0 of an EPT violation's exit qualification.
    const fn bits(self) -> u64 {
        match self {
            Self::Read => 1,
            Self::Write => 1 << 1,
            Self::Fetch => 1 << 2,
        }
    }
}

/// Interruption information of the interrupt that kicks an LP: valid, external, vector 0xf2.
const KICK: u32 = 0x8000_00f2;
/// Interruption information of a machine check: valid, hardware exception, vector 18.
const MACHINE_CHECK: u32 = 0x8000_0312;
/// Exit qualification of an EPT violation: permissions of the entries in bits 5:3.
const QUALIFICATION_PERMISSIONS_SHIFT: u32 = 3;
/// Exit qualification of an EPT violation: there is a linear address, and it is that of the access itself.
const QUALIFICATION_LINEAR: u64 = 1 << 7 | 1 << 8;

/// The LP on which a guest runs.
pub struct GuestCpu<'a> {
    core: &'a Core,
    slot: &'a LpSlot,
    lp: &'a mut LpState,
    registers: Registers,
    /// Whether an instruction has completed since the TD was entered.
    progress: bool,
}

/// Runs the guest that has just been entered, with its registers, until it exits; then the registers are the host's.
pub(crate) fn run(core: &Core, slot: &LpSlot, lp: &mut LpState, registers: &mut Registers) {
    let program = lp.inside.and_then(|inside| core.program(inside.tdvpr));
    let mut cpu = GuestCpu {
        core,
        slot,
        lp,
        registers: *registers,
        progress: false,
    };
    let _exited = match program {
        Some(program) => program.lock().run(&mut cpu),
        None => cpu.interrupt(),
    };
    *registers = cpu.registers;
}

impl GuestCpu<'_> {
    /// Number of the LP.
    pub fn lp(&self) -> u32 {
        self.lp.id
    }

    /// The guest's registers at TD entry, or after its last TDCALL.
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// XMM0 to XMM15.
    pub fn xmm(&self) -> &[u128; 16] {
        &self.lp.xmm
    }

    /// Sets XMM0 to XMM15.
    pub fn set_xmm(&mut self, values: [u128; 16]) {
        self.lp.xmm = values;
    }

    /// The VM that runs: 0 is L1. An L2 VM runs after a TDG.VP.ENTER that succeeded, until [`GuestFault::LeftL2`].
    pub fn vm(&mut self) -> usize {
        Guest::on(self.core, self.slot, self.lp).map_or(0, |guest| guest.vm)
    }

    /// Reads bytes from `gpa` on. Pages before the one that faults have been read.
    pub fn read(&mut self, gpa: u64, to: &mut [u8]) -> Result<(), GuestFault> {
        let mut gpa = gpa;
        let mut rest = to;
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut(rest.len().min(bytes_left(gpa)));
            let hpa = self.reach(gpa, now.len(), Access::Read)?;
            self.core.memory().read(hpa, now);
            gpa += now.len() as u64;
            rest = later;
        }
        self.progress = true;
        Ok(())
    }

    /// Writes bytes from `gpa` on. Pages before the one that faults have been written.
    pub fn write(&mut self, gpa: u64, from: &[u8]) -> Result<(), GuestFault> {
        let mut gpa = gpa;
        let mut rest = from;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(bytes_left(gpa)));
            let hpa = self.reach(gpa, now.len(), Access::Write)?;
            self.core.memory().write(hpa, now);
            gpa += now.len() as u64;
            rest = later;
        }
        self.progress = true;
        Ok(())
    }

    /// Reads the quadword at `gpa`, a multiple of 8.
    pub fn read_u64(&mut self, gpa: u64) -> Result<u64, GuestFault> {
        let hpa = self.reach(gpa, 8, Access::Read)?;
        self.progress = true;
        Ok(self.core.memory().read_u64(hpa))
    }

    /// Writes the quadword at `gpa`, a multiple of 8.
    pub fn write_u64(&mut self, gpa: u64, value: u64) -> Result<(), GuestFault> {
        let hpa = self.reach(gpa, 8, Access::Write)?;
        self.progress = true;
        self.core.memory().write_u64(hpa, value);
        Ok(())
    }

    /// Fetches an instruction at `gpa`: checks that it may be executed.
    pub fn fetch(&mut self, gpa: u64) -> Result<(), GuestFault> {
        self.translate(gpa, Access::Fetch)?;
        self.progress = true;
        Ok(())
    }

    /// [`Self::translate`] of `count` bytes within a page, and the machine check if their lines are not the TD's.
    fn reach(&mut self, gpa: u64, count: usize, access: Access) -> Result<u64, GuestFault> {
        let hpa = self.translate(gpa, access)?;
        let Some(keys) = &self.core.keys else {
            return Ok(hpa);
        };
        let Some(inside) = self.lp.inside else {
            return Ok(hpa);
        };
        let tdr = self.core.tdr(inside.tdr);
        if self
            .core
            .is_shared(gpa, self.core.tdcs(tdr).get(tdcs::GPAW))
        {
            return Ok(hpa);
        }
        let key = tdr.get(tdr::HKID);
        let write = access == Access::Write;
        if keys::lines(hpa, count as u64).all(|line| keys.private_access(line, key, write).is_ok())
        {
            return Ok(hpa);
        }
        let info = ExitInfo {
            interruption_info: MACHINE_CHECK,
            keeps_rip: !self.progress,
            ..ExitInfo::default()
        };
        Err(GuestFault::Exited(match self.exit(&info) {
            Ok(()) => self.interrupt(),
            Err(exited) => exited,
        }))
    }

    /// Where the CPU finds `gpa`: in its TLB, or by walking Secure-EPT or shared EPT.
    pub fn translate(&mut self, gpa: u64, access: Access) -> Result<u64, GuestFault> {
        loop {
            if let Some(exited) = self.interrupted() {
                return Err(GuestFault::Exited(exited));
            }
            let (cached, space, level) = self.walk(gpa, access);
            let (info, convertible) = match cached {
                Ok(found) => {
                    if let Some(level) = level {
                        self.lp.tlb.insert(space, level, gpa, found);
                    }
                    return Ok(found.hpa);
                }
                Err(violation) => violation,
            };
            let vm = self.vm();
            let resumed = if convertible && self.raise_ve(&info) {
                true
            } else {
                self.exit(&info).map_err(GuestFault::Exited)?;
                false
            };
            if self.vm() != vm {
                return Err(GuestFault::LeftL2);
            }
            match inside::take_event(self.core, self.slot, self.lp) {
                Some(event) => return Err(GuestFault::Event(event)),
                None if resumed => return Err(GuestFault::Exited(self.interrupt())),
                None => {}
            }
        }
    }

    /// What TLB or tables say: the page; or the exit and whether the CPU turns it into #VE. The level is that of a walk.
    fn walk(
        &mut self,
        gpa: u64,
        access: Access,
    ) -> (Result<Cached, (ExitInfo, bool)>, Space, Option<Level>) {
        let Some(guest) = Guest::on(self.core, self.slot, self.lp) else {
            return (Err((ExitInfo::default(), false)), Space::Shared(0), None);
        };
        let wide = guest.tdcs.get(tdcs::GPAW);
        let needed = access.bits();
        let shared_eptp = self.core.is_shared(gpa, wide).then(|| shared_eptp(&guest));
        let space = match shared_eptp {
            Some(eptp) => Space::Shared(eptp),
            None if guest.vm != 0 => Space::L2(guest.inside.tdr, guest.vm),
            None => Space::Private(guest.inside.tdr),
        };
        let flushes = self.core.shared_flushes.load(Ordering::Acquire);
        guest.lp.tlb.follow_shared_flushes(flushes);
        if let Some(cached) = guest.lp.tlb.lookup(space, gpa)
            && cached.permissions & needed == needed
        {
            return (Ok(cached), space, None);
        }
        let walk = match shared_eptp {
            Some(eptp) => translate::shared(self.core, eptp, gpa, needed),
            None if guest.vm != 0 => translate::l2(self.core, guest.tdcs, guest.vm, gpa, needed),
            None => translate::private(self.core, guest.tdcs, gpa, needed),
        };
        let in_l1 = guest.vm == 0;
        let permissions = walk.permissions & 7;
        let violation = |convertible| {
            let info = ExitInfo {
                reason: reason::EPT_VIOLATION.into(),
                qualification: needed
                    | permissions << QUALIFICATION_PERMISSIONS_SHIFT
                    | QUALIFICATION_LINEAR,
                gpa,
                gla: gpa,
                keeps_rip: !self.progress,
                ..ExitInfo::default()
            };
            (info, convertible)
        };
        let outcome = match walk.outcome {
            Translation::Mapped(hpa) => Ok(Cached { hpa, permissions }),
            Translation::Violation => Err(violation(false)),
            Translation::Convertible => Err(violation(in_l1)),
            Translation::Misconfigured => {
                let info = ExitInfo {
                    reason: reason::EPT_MISCONFIGURATION.into(),
                    gpa,
                    gla: gpa,
                    keeps_rip: !self.progress,
                    ..ExitInfo::default()
                };
                Err((info, false))
            }
        };
        (outcome, space, Some(walk.level))
    }

    /// Raises #VE without an exit, unless the guest has not yet read the information of the last one.
    fn raise_ve(&mut self, info: &ExitInfo) -> bool {
        let Some(guest) = Guest::on(self.core, self.slot, self.lp) else {
            return false;
        };
        let free = guest.tdvps.get(tdvps::VE_VALID) == 0;
        if free {
            guest.inject_ve(
                None,
                info.reason.into(),
                info.qualification,
                info.gpa,
                info.gla,
            );
        }
        free
    }

    /// Executes the TDCALL in `registers`; they become what it leaves in them.
    ///
    /// Interrupted ones are executed again at the next TD entry if the program makes them again.
    pub fn tdcall(&mut self, registers: &mut Registers) -> Result<(), GuestFault> {
        self.step();
        self.registers = *registers;
        let vm = self.vm();
        match guest::tdcall(self.core, self.slot, self.lp, &mut self.registers) {
            GuestCall::ReturnedToTd => {
                self.progress = true;
                *registers = self.registers;
                if vm != 0 && self.vm() == 0 {
                    return Err(GuestFault::LeftL2);
                }
                Ok(())
            }
            GuestCall::EventInjected => match inside::take_event(self.core, self.slot, self.lp) {
                Some(event) => Err(GuestFault::Event(event)),
                None => Ok(()),
            },
            GuestCall::Reexecute => Err(GuestFault::Exited(self.interrupt())),
            GuestCall::ExitedToVmm | GuestCall::Shutdown | GuestCall::NotInGuest => {
                Err(GuestFault::Exited(Exited(())))
            }
        }
    }

    /// Accepts the pending page of size `level` at the private address `gpa`.
    pub fn accept(&mut self, gpa: u64, level: Level) -> Result<Status, GuestFault> {
        let mut registers = Registers {
            rax: TdcallLeaf::TDG_MEM_PAGE_ACCEPT.number().into(),
            rcx: gpa | level as u64,
            ..self.registers
        };
        self.tdcall(&mut registers)?;
        Ok(Status::from_rax(registers.rax))
    }

    /// Leaves the TD if an interrupt is pending or the host kicks; a program that makes no accesses for long should ask.
    pub fn interrupted(&mut self) -> Option<Exited> {
        self.step();
        // While the guest is being stepped interrupts are masked.
        let pending = !self.lp.stepping.active
            && (self.slot.kicked.load(Ordering::Acquire)
                || self.slot.interrupts_pending.load(Ordering::Acquire) != 0);
        pending.then(|| self.interrupt())
    }

    /// Leaves the TD as an external interrupt does.
    ///
    /// If the module suspects that the host single-steps the guest, a few instructions are executed before.
    pub fn interrupt(&mut self) -> Exited {
        let mut vector = KICK;
        loop {
            let info = ExitInfo {
                reason: reason::EXTERNAL_INTERRUPT.into(),
                interruption_info: vector,
                keeps_rip: !self.progress,
                ..ExitInfo::default()
            };
            match self.exit(&info) {
                // The interrupt that comes after the steps, or is not that of the L1 VM of a partitioned TD.
                Ok(()) if self.lp.inside.is_some() => vector ^= 1,
                Ok(()) => return Exited(()),
                Err(exited) => return exited,
            }
            while self.lp.stepping.active {
                self.progress = true;
                self.step();
            }
        }
    }

    /// Takes the exit behind each instruction of a guest that is being stepped.
    fn step(&mut self) {
        if self.lp.stepping.active && self.progress {
            let info = ExitInfo {
                reason: reason::MONITOR_TRAP_FLAG.into(),
                ..ExitInfo::default()
            };
            // The module resumes the guest after each of them.
            let _resumed = self.exit(&info);
        }
    }

    /// Takes a VM exit: the module handles it and the guest runs on, or the TD is left.
    pub fn exit(&mut self, info: &ExitInfo) -> Result<(), Exited> {
        match exit::guest_exit(self.core, self.slot, self.lp, info, &mut self.registers) {
            GuestExit::ResumedTd => Ok(()),
            GuestExit::ExitedToVmm | GuestExit::Shutdown | GuestExit::NotInGuest => Err(Exited(())),
        }
    }
}

impl fmt::Debug for GuestCpu<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestCpu")
            .field("lp", &self.lp.id)
            .field("registers", &self.registers)
            .finish_non_exhaustive()
    }
}

/// EPTP under which the CPU translates shared addresses: the host's root with the TD's memory type and levels.
fn shared_eptp(guest: &Guest<'_>) -> u64 {
    const CONTROLS: u64 = 0xff;
    guest.vmcs.read(encoding::SHARED_EPTP) & !CONTROLS | guest.tdcs.get(tdcs::EPTP) & CONTROLS
}

/// Bytes from `gpa` to the end of its page.
const fn bytes_left(gpa: u64) -> usize {
    (Level::Pt.size() - (gpa & (Level::Pt.size() - 1))) as usize
}
