//! The host's LPs: which of them a thread runs on, and how work reaches them.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::Trap;
use tdx_abi::hardware::HardwareSeamcall;
use tdx_emulator::Platform;
use tdx_mmu::embed::Relax;
use tdx_mmu::platform::Executor;
use tdx_mmu::platform::LpId;

use super::Host;
use super::injector::Injector;

thread_local!(static LP: Cell<usize> = const { Cell::new(0) });

/// Makes this thread run on LP `number`.
pub fn run_on(number: usize) {
    LP.set(number);
}

/// An LP whose calls may be answered by the injector.
#[derive(Clone)]
pub struct HostLp {
    platform: &'static Platform,
    number: usize,
    injector: Arc<Injector>,
    /// The instruction with which it calls, where it does not call the platform itself.
    instruction: Option<HardwareSeamcall>,
}

impl HostLp {
    pub const fn new(
        platform: &'static Platform,
        number: usize,
        injector: Arc<Injector>,
        instruction: Option<HardwareSeamcall>,
    ) -> Self {
        Self {
            platform,
            number,
            injector,
            instruction,
        }
    }

    /// One call that no injection answers.
    pub fn execute(&self, registers: &mut Registers) -> Result<(), Trap> {
        match self.instruction {
            Some(instruction) => {
                tdx_emulator_guard::run_on(self.number);
                instruction.seamcall(registers)
            }
            None => self.platform.lp(self.number).unwrap().seamcall(registers),
        }
    }
}

impl Seamcall for HostLp {
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        match self.injector.answer(registers.rax) {
            Some(rax) => {
                registers.rax = rax;
                Ok(())
            }
            None => {
                let leaf = registers.rax;
                self.execute(registers)?;
                self.injector.after(leaf, registers);
                Ok(())
            }
        }
    }
}

impl Relax for Host {
    fn pause(&self) {
        std::thread::yield_now();
    }

    fn patience(&self) -> u32 {
        u32::try_from(self.patience.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }
}

impl Executor for Host {
    type Lp = HostLp;

    fn on_this_lp<T>(&self, work: impl FnOnce(LpId, &HostLp) -> T) -> T {
        let number = LP.get();
        work(LpId(u32::try_from(number).unwrap()), &self.lps[number])
    }

    fn on_lp<T: Send>(&self, lp: LpId, work: impl FnOnce(&HostLp) -> T + Send) -> Option<T> {
        self.lps.get(usize::try_from(lp.0).unwrap()).map(work)
    }

    fn on_each_lp<E: Send>(
        &self,
        work: impl Fn(LpId, &HostLp) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        (0..)
            .zip(&self.lps)
            .try_for_each(|(number, lp)| work(LpId(number), lp))
    }

    fn on_each_package<E: Send>(
        &self,
        work: impl Fn(LpId, &HostLp) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        work(LpId(0), &self.lps[0])
    }
}
