//! The guest: what a trace says it did, done by an emulated LP inside the TD.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tdx_abi::Level;
use tdx_abi::StatusCode;
use tdx_abi::format::TdVmcallStatus;
use tdx_abi::vmcall::Vmcall;
use tdx_emulator::Exited;
use tdx_emulator::GuestCpu;
use tdx_emulator::GuestFault;
use tdx_emulator::GuestProgram;

use super::ledger::Ledger;
use super::ledger::Side;
use super::vmcall;
use crate::trace::Access;

const PAGE: u64 = Level::Pt.size();
/// Where a page is stamped: its first and its last 8 bytes.
const PLACES: [u64; 2] = [0, PAGE - 8];
/// Longest time that an idle vCPU does not look whether it is kicked.
const IDLE: Duration = Duration::from_millis(1);
/// Most failures that are kept in words.
const MAX_FAILURES: usize = 16;

/// Something for a vCPU to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Touch a page, accepting or converting it first where needed.
    Touch {
        /// The page, without SHARED bit.
        gpa: u64,
        /// What for.
        access: Access,
        /// On which side.
        side: Side,
    },
    /// Convert a range by MapGPA.
    Convert {
        /// First byte, without SHARED bit.
        gpa: u64,
        /// Size in bytes.
        len: u64,
        /// To which side.
        side: Side,
    },
    /// Read a page's stamp again.
    Verify {
        /// The page, without SHARED bit.
        gpa: u64,
        /// On which side.
        side: Side,
        /// What must be there.
        stamp: u64,
    },
}

/// How far the task at the front of the queue has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// At its beginning.
    #[default]
    Begin,
    /// A MapGPA is out: up to `end`, to this side.
    Converting { end: u64, side: Side },
    /// The page was accepted just now and must read zero.
    Accepted,
    /// What the page held has been seen; it is being stamped.
    Writing,
}

/// What the guest has seen.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Tasks done.
    pub done: u64,
    /// Stamps written.
    pub written: u64,
    /// Stamps found again.
    pub verified: u64,
    /// Pages accepted that read zero.
    pub zero: u64,
    /// What was not as it must be.
    pub failures: Vec<String>,
    /// Number of such findings, also those not kept.
    pub failure_count: u64,
}

/// The state of the guest, common to its vCPUs.
#[derive(Debug)]
pub struct Mind {
    /// What it wrote.
    pub ledger: Ledger,
    /// What it is to do next.
    pub tasks: VecDeque<Task>,
    /// What it has seen.
    pub findings: Findings,
    /// Whose tasks these are.
    turn: Turn,
    /// How often the host has wanted all vCPUs outside.
    rung: u64,
    stage: Stage,
    shared_bit: u64,
    /// Largest page that it accepts at once.
    largest: Level,
    /// Memory from 0 to here may be accepted in large pages.
    ram: u64,
}

/// Which vCPU works; the others idle inside the TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// All idle.
    Nobody,
    /// This one does the tasks.
    Of(usize),
    /// All halt.
    Over,
}

/// The guest, as the host hands it tasks and as its vCPUs execute it, each on a thread of its own.
#[derive(Clone, Debug)]
pub struct Guest(Arc<(Mutex<Mind>, Condvar)>);

impl Guest {
    /// A guest with memory up to `ram` that accepts pages up to `largest` at once.
    pub fn new(ram: u64, largest: Level, shared_bit: u64) -> Self {
        let mind = Mind {
            ledger: Ledger::default(),
            tasks: VecDeque::new(),
            findings: Findings::default(),
            turn: Turn::Nobody,
            rung: 0,
            stage: Stage::Begin,
            shared_bit,
            largest,
            ram,
        };
        Self(Arc::new((Mutex::new(mind), Condvar::new())))
    }

    /// Its state. Not to be kept while a vCPU is to do something.
    pub fn mind(&self) -> MutexGuard<'_, Mind> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What vCPU `number` executes.
    pub fn vcpu(&self, number: usize) -> Vcpu {
        Vcpu {
            guest: self.clone(),
            number,
        }
    }

    /// Lets `vcpu` do all tasks and waits for it; false if the guest has been dismissed.
    #[must_use]
    pub fn perform(&self, vcpu: usize) -> bool {
        let mut mind = self.mind();
        if mind.turn != Turn::Over && !mind.tasks.is_empty() {
            mind.turn = Turn::Of(vcpu);
            self.0.1.notify_all();
        }
        while mind.turn == Turn::Of(vcpu) {
            mind = self.wait(mind);
        }
        mind.turn != Turn::Over
    }

    /// Makes every vCPU that idles inside the TD leave it, as an interrupt to its LP does.
    pub fn ring(&self) {
        self.mind().rung += 1;
        self.0.1.notify_all();
    }

    /// Makes every vCPU halt.
    pub fn dismiss(&self) {
        self.mind().turn = Turn::Over;
        self.0.1.notify_all();
    }

    /// Waits for a change, but not for long.
    fn idle<'g>(&self, mind: MutexGuard<'g, Mind>) -> MutexGuard<'g, Mind> {
        let waited = self.0.1.wait_timeout(mind, IDLE);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn wait<'g>(&self, mind: MutexGuard<'g, Mind>) -> MutexGuard<'g, Mind> {
        self.0.1.wait(mind).unwrap_or_else(PoisonError::into_inner)
    }
}

/// One vCPU of the guest: does the tasks when it is its turn, and stays inside the TD when it is not.
#[derive(Clone, Debug)]
pub struct Vcpu {
    guest: Guest,
    number: usize,
}

impl GuestProgram for Vcpu {
    fn run(&mut self, cpu: &mut GuestCpu<'_>) -> Exited {
        let mut mind = self.guest.mind();
        let rung = mind.rung;
        loop {
            match (mind.turn, mind.tasks.front().copied()) {
                (Turn::Over, _) => {
                    match cpu.tdcall(&mut vmcall::request(Vmcall::INSTRUCTION_HLT, 0, 0)) {
                        Err(GuestFault::Exited(exited)) => return exited,
                        other => {
                            mind.unexpected(&format!("halting came back: {other:x?}"));
                            return cpu.interrupt();
                        }
                    }
                }
                (Turn::Of(vcpu), Some(task)) if vcpu == self.number => {
                    match mind.execute(cpu, task) {
                        Ok(()) => mind.finish(),
                        Err(GuestFault::Exited(exited)) => return exited,
                        Err(fault) => {
                            mind.unexpected(&format!("{task:x?} raised {fault:x?}"));
                            mind.finish();
                        }
                    }
                }
                (Turn::Of(vcpu), None) if vcpu == self.number => {
                    mind.turn = Turn::Nobody;
                    self.guest.0.1.notify_all();
                }
                _ if mind.rung != rung => return cpu.interrupt(),
                // A kick that comes after its bell, because this vCPU was quick to return.
                _ => match cpu.interrupted() {
                    Some(exited) => return exited,
                    None => mind = self.guest.idle(mind),
                },
            }
        }
    }
}

impl Mind {
    fn finish(&mut self) {
        self.tasks.pop_front();
        self.stage = Stage::Begin;
        self.findings.done += 1;
    }

    fn execute(&mut self, cpu: &mut GuestCpu<'_>, task: Task) -> Result<(), GuestFault> {
        match task {
            Task::Touch { gpa, access, side } => self.touch(cpu, gpa, access, side),
            Task::Convert { gpa, len, side } => self.convert(cpu, gpa, len, side),
            Task::Verify { gpa, side, stamp } => self.expect(cpu, gpa, side, stamp),
        }
    }

    fn touch(
        &mut self,
        cpu: &mut GuestCpu<'_>,
        gpa: u64,
        access: Access,
        side: Side,
    ) -> Result<(), GuestFault> {
        if self.stage == Stage::Writing {
            return self.write(cpu, gpa, side);
        }
        if self.ledger.side(gpa) != side || matches!(self.stage, Stage::Converting { .. }) {
            self.convert(cpu, gpa, PAGE, side)?;
            self.stage = Stage::Begin;
        }
        if side == Side::Private && !self.ledger.is_accepted(gpa) {
            self.accept(cpu, gpa)?;
        }
        if self.stage == Stage::Accepted {
            self.expect(cpu, gpa, side, 0)?;
            self.findings.zero += 1;
            self.stage = Stage::Begin;
        }
        if access == Access::Execute {
            cpu.fetch(self.address(gpa, side))?;
        }
        if let Some(expected) = self.ledger.expected(side, gpa) {
            self.expect(cpu, gpa, side, expected)?;
        }
        if access == Access::Write {
            self.stage = Stage::Writing;
            self.write(cpu, gpa, side)?;
        }
        Ok(())
    }

    /// Stamps a page; may be interrupted half-way.
    fn write(&mut self, cpu: &mut GuestCpu<'_>, gpa: u64, side: Side) -> Result<(), GuestFault> {
        let stamp = self.ledger.next_stamp(gpa);
        for place in PLACES {
            cpu.write_u64(self.address(gpa + place, side), stamp ^ place)?;
        }
        self.ledger.wrote(side, gpa, stamp);
        self.findings.written += 1;
        Ok(())
    }

    /// TDG.MEM.PAGE.ACCEPT: a large page where nothing around is in use yet, else one page.
    fn accept(&mut self, cpu: &mut GuestCpu<'_>, gpa: u64) -> Result<(), GuestFault> {
        let large = gpa & !(Level::Pd.size() - 1);
        let fits = large + Level::Pd.size() <= self.ram;
        if self.largest >= Level::Pd && fits && !self.ledger.is_large_page_started(gpa) {
            let status = cpu.accept(large, Level::Pd)?;
            if !status.is_error() {
                self.ledger.accept(large, Level::Pd.size());
                self.stage = Stage::Accepted;
                return Ok(());
            }
            if status.code() != StatusCode::PAGE_SIZE_MISMATCH {
                self.unexpected(&format!("ACCEPT of 2 MiB at {large:#x}: {status}"));
            }
        }
        let status = cpu.accept(gpa, Level::Pt)?;
        if status.is_error() {
            self.unexpected(&format!("ACCEPT of {gpa:#x}: {status}"));
        }
        self.ledger.accept(gpa, PAGE);
        self.stage = Stage::Accepted;
        Ok(())
    }

    /// TDG.VP.VMCALL<MapGPA>, again while the host says so.
    fn convert(
        &mut self,
        cpu: &mut GuestCpu<'_>,
        gpa: u64,
        len: u64,
        side: Side,
    ) -> Result<(), GuestFault> {
        let Stage::Converting { end, side: to } = self.stage else {
            return self.request_conversion(cpu, gpa, gpa + len, side);
        };
        let (status, stopped) = (cpu.registers().r10, cpu.registers().r11);
        if status == TdVmcallStatus::RETRY.into_bits() {
            return self.request_conversion(cpu, stopped & !self.shared_bit, end, to);
        }
        if status != TdVmcallStatus::SUCCESS.into_bits() {
            self.unexpected(&format!(
                "MapGPA of {gpa:#x} + {len:#x}: {status:#x}, {stopped:#x}"
            ));
        }
        self.ledger.convert(gpa, len, side);
        Ok(())
    }

    fn request_conversion(
        &mut self,
        cpu: &mut GuestCpu<'_>,
        gpa: u64,
        end: u64,
        side: Side,
    ) -> Result<(), GuestFault> {
        self.stage = Stage::Converting { end, side };
        let start = self.address(gpa, side);
        cpu.tdcall(&mut vmcall::request(Vmcall::MAP_GPA, start, end - gpa))
    }

    /// Reads a page and compares it with what must be there.
    fn expect(
        &mut self,
        cpu: &mut GuestCpu<'_>,
        gpa: u64,
        side: Side,
        stamp: u64,
    ) -> Result<(), GuestFault> {
        for place in PLACES {
            let found = cpu.read_u64(self.address(gpa + place, side))?;
            let expected = if stamp == 0 { 0 } else { stamp ^ place };
            if found != expected {
                let place = gpa + place;
                self.unexpected(&format!(
                    "{side:?} {place:#x} reads {found:#x}, not {expected:#x}"
                ));
            }
        }
        if stamp != 0 {
            self.findings.verified += 1;
        }
        Ok(())
    }

    fn address(&self, gpa: u64, side: Side) -> u64 {
        match side {
            Side::Private => gpa,
            Side::Shared => gpa | self.shared_bit,
        }
    }

    fn unexpected(&mut self, what: &str) {
        self.findings.failure_count += 1;
        if self.findings.failures.len() < MAX_FAILURES {
            self.findings.failures.push(what.to_owned());
        }
    }
}
