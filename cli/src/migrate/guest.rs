//! A guest that writes to its memory wherever it runs, and remembers what it wrote.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tdx_abi::Gpa;
use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_abi::Retry;
use tdx_abi::Seamcall;
use tdx_abi::format::BasicExitReason;
use tdx_abi::format::VpEnterStatus;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::status::Status;
use tdx_emulator::Exited;
use tdx_emulator::GuestCpu;
use tdx_emulator::GuestFault;
use tdx_mmu::platform::Executor;
use tdx_mmu::platform::LpId;
use tdx_mmu::td::Access;
use tdx_mmu::td::Error as TdError;
use tdx_mmu::td::Resolution;

use crate::error::Error;
use crate::host::td::HostTd;

const PAGE: u64 = Level::Pt.size();

/// What the vCPUs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Accept all memory and write to every page of it once.
    Populate,
    /// Write to the hot pages until told to stop.
    Write,
    /// Read everything that was written.
    Verify,
}

/// What one vCPU does and knows.
#[derive(Debug)]
struct Mind {
    work: Work,
    /// First page and number of pages.
    pages: (u64, u64),
    hot: u64,
    accepts: Level,
    /// Pages done of what it is at.
    done: u64,
    random: u64,
    /// What it wrote last, by address.
    account: BTreeMap<u64, u64>,
    wrong: u64,
    finished: bool,
    trouble: Option<String>,
}

/// The guest with all its vCPUs.
#[derive(Debug)]
pub(super) struct Guest {
    minds: Vec<Arc<Mutex<Mind>>>,
    stop: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
}

impl Guest {
    /// A guest that uses memory from `start` on, an equal share for each vCPU, and accepts pages up to `largest` at once.
    pub(super) fn new(start: u64, args: &super::Args, largest: Level) -> Self {
        let vcpus = args.vcpus;
        let share = (args.memory << 20) / PAGE / u64::from(vcpus);
        let whole = (share * PAGE).is_multiple_of(largest.size());
        let mind = |vcpu: u32| Mind {
            work: Work::Populate,
            pages: (start + u64::from(vcpu) * share * PAGE, share),
            hot: args.hot.min(share),
            accepts: if whole { largest } else { Level::Pt },
            done: 0,
            random: u64::from(vcpu) + 1,
            account: BTreeMap::new(),
            wrong: 0,
            finished: false,
            trouble: None,
        };
        Self {
            minds: (0..vcpus)
                .map(|vcpu| Arc::new(Mutex::new(mind(vcpu))))
                .collect(),
            stop: Arc::default(),
            writes: Arc::default(),
        }
    }

    /// Makes the vCPUs' programs those of `td`.
    pub(super) fn settle(&self, td: &HostTd<'_>) -> Result<(), Error> {
        for (vcpu, mind) in self.minds.iter().enumerate() {
            let tdvpr = td
                .tdvpr(vcpu)
                .ok_or_else(|| super::failed("no guest")(TdError::NoSuchVcpu(vcpu)))?;
            let (mind, stop, writes) = (
                Arc::clone(mind),
                Arc::clone(&self.stop),
                Arc::clone(&self.writes),
            );
            td.embedder()
                .platform()
                .set_guest(tdvpr, move |cpu: &mut GuestCpu<'_>| {
                    lock(&mind).run(cpu, &stop, &writes)
                });
        }
        Ok(())
    }

    /// Runs all vCPUs, one after the other, until they have finished.
    pub(super) fn run(&self, td: &HostTd<'_>, work: Work) -> Result<(), Error> {
        self.begin(work);
        for vcpu in 0..self.minds.len() {
            self.drive(td, vcpu)?;
        }
        Ok(())
    }

    /// Runs all vCPUs on LPs and threads of their own while `work` is done on LP 0.
    pub(super) fn while_running<T>(
        &self,
        td: &HostTd<'_>,
        work: impl FnOnce() -> Result<T, TdError>,
    ) -> Result<Result<T, TdError>, Error> {
        self.begin(Work::Write);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.minds.len())
                .map(|vcpu| scope.spawn(move || self.drive(td, vcpu)))
                .collect();
            let result = work();
            self.stop.store(1, Ordering::SeqCst);
            for thread in threads {
                thread.join().unwrap_or_else(|_| {
                    Err(Error::Failed("a vCPU's thread panicked".to_owned()))
                })?;
            }
            Ok(result)
        })
    }

    fn begin(&self, work: Work) {
        self.stop.store(0, Ordering::SeqCst);
        for mind in &self.minds {
            let mut mind = lock(mind);
            mind.work = work;
            mind.done = 0;
            mind.finished = false;
        }
    }

    /// Enters a vCPU and serves its exits until it has finished.
    fn drive(&self, td: &HostTd<'_>, vcpu: usize) -> Result<(), Error> {
        let doing = super::failed("the guest cannot go on");
        let host = *td.embedder();
        let lp = LpId(vcpu as u32 + 1);
        loop {
            let leaf = SeamcallLeaf::TDH_VP_ENTER;
            let tdvpr = td
                .tdvpr(vcpu)
                .ok_or_else(|| doing(TdError::NoSuchVcpu(vcpu)))?;
            let mut registers = Registers {
                rax: leaf.number().into(),
                rcx: tdvpr.bits(),
                ..Registers::default()
            };
            td.associate(vcpu, lp).map_err(&doing)?;
            host.note_lp(vcpu, lp);
            let inside = td.enter(vcpu).map_err(&doing)?;
            let called = host.as_lp(lp, || {
                (&host).on_this_lp(|_, lp| lp.seamcall(&mut registers))
            });
            drop(inside);
            called.map_err(|trap| Error::Failed(format!("TDH.VP.ENTER: {trap}")))?;
            let status = Status::from_rax(registers.rax);
            if status.retry() == Some(Retry::Busy) {
                // A TDH.MEM.TRACK was in the way.
                continue;
            }
            if status.is_error() {
                return Err(Error::Failed(format!("TDH.VP.ENTER: {status}")));
            }
            match BasicExitReason::from_bits(VpEnterStatus::from_bits(registers.rax).exit_reason())
            {
                BasicExitReason::EXTERNAL_INTERRUPT => {}
                BasicExitReason::EPT_VIOLATION => {
                    let gpa = Gpa::new(registers.r8);
                    let access = Access::from_exit(registers.rcx, registers.rdx, gpa);
                    let resolution = host.as_lp(lp, || td.fault(access)).map_err(&doing)?;
                    if matches!(
                        resolution,
                        Resolution::MemoryFault { .. }
                            | Resolution::NoMemory { .. }
                            | Resolution::Denied { .. }
                            | Resolution::Awaited { .. }
                    ) {
                        return Err(Error::Failed(format!("{access:x?}: {resolution:x?}")));
                    }
                }
                reason => return Err(Error::Failed(format!("the guest exits for {reason:?}"))),
            }
            let mut mind = lock(&self.minds[vcpu]);
            if let Some(trouble) = mind.trouble.take() {
                return Err(Error::Failed(trouble));
            }
            if mind.finished {
                return Ok(());
            }
        }
    }

    /// Pages that hold what the guest wrote, and how many it found to be wrong.
    pub(super) fn found(&self) -> (u64, u64) {
        self.minds.iter().fold((0, 0), |(pages, wrong), mind| {
            let mind = lock(mind);
            (pages + mind.account.len() as u64, wrong + mind.wrong)
        })
    }

    /// Writes so far.
    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }
}

fn lock(mind: &Mutex<Mind>) -> MutexGuard<'_, Mind> {
    mind.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mind {
    fn run(&mut self, cpu: &mut GuestCpu<'_>, stop: &AtomicU64, writes: &AtomicU64) -> Exited {
        loop {
            let stopped = self.work == Work::Write && stop.load(Ordering::SeqCst) != 0;
            if self.finished || stopped {
                self.finished = true;
                return cpu.interrupt();
            }
            match self.step(cpu, writes) {
                Ok(()) => {}
                Err(GuestFault::Exited(exited)) => return exited,
                Err(fault @ (GuestFault::Event(_) | GuestFault::LeftL2)) => {
                    self.trouble = Some(format!("the guest got {fault:?}"));
                    return cpu.interrupt();
                }
            }
        }
    }

    fn step(&mut self, cpu: &mut GuestCpu<'_>, writes: &AtomicU64) -> Result<(), GuestFault> {
        let (start, count) = self.pages;
        match self.work {
            Work::Populate => {
                let gpa = start + self.done * PAGE;
                // What was accepted just now is accepted already when the write after it has faulted.
                if gpa.is_multiple_of(self.accepts.size()) {
                    let _status = cpu.accept(gpa, self.accepts)?;
                }
                self.write(cpu, gpa, writes)?;
                self.done += 1;
                self.finished = self.done == count;
            }
            Work::Write => {
                let page = self.random % self.hot;
                // Spread over the memory, so that the pages lie under many tables.
                self.write(cpu, start + page * (count / self.hot) * PAGE, writes)?;
                std::thread::yield_now();
            }
            Work::Verify => {
                let next = self.account.iter().nth(self.done as usize);
                match next.map(|(gpa, value)| (*gpa, *value)) {
                    None => self.finished = true,
                    Some((gpa, expected)) => {
                        let found = cpu.read_u64(gpa)?;
                        self.wrong += u64::from(found != expected);
                        self.done += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes something new; a write that faults is made again.
    fn write(
        &mut self,
        cpu: &mut GuestCpu<'_>,
        gpa: u64,
        writes: &AtomicU64,
    ) -> Result<(), GuestFault> {
        cpu.write_u64(gpa, self.random)?;
        self.account.insert(gpa, self.random);
        // A linear congruential generator with the constants of Knuth's MMIX.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
