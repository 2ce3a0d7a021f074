//! The guest that moves: it keeps an account of what it wrote, which knows nothing of what the host does.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;

use tdx_abi::Gpa;
use tdx_abi::Level;
use tdx_abi::format::BasicExitReason;
use tdx_abi::format::VpEnterStatus;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_emulator::Exited;
use tdx_emulator::GuestCpu;
use tdx_emulator::GuestFault;
use tdx_mmu::Td;
use tdx_mmu::td::Access;
use tdx_mmu::td::Resolution;

use super::super::host::Host;

#[derive(Clone, Copy, Debug)]
enum Task {
    Accept(u64, Level),
    Write(u64, u64),
    Verify(u64, u64),
}

#[derive(Default)]
struct Mind {
    tasks: VecDeque<Task>,
    findings: Vec<String>,
    verified: usize,
}

/// The guest of one vCPU, wherever it runs.
#[derive(Clone, Default)]
pub struct Guest {
    mind: Arc<Mutex<Mind>>,
    /// What it wrote, by address.
    account: Arc<Mutex<BTreeMap<u64, u64>>>,
    next: Arc<Mutex<u64>>,
}

impl Guest {
    /// Makes it the program of vCPU 0 of `td`.
    pub fn settle(&self, td: &Td<Host>) {
        let mind = Arc::clone(&self.mind);
        let run = move |cpu: &mut GuestCpu<'_>| -> Exited {
            let mut mind = mind.lock().unwrap();
            while let Some(task) = mind.tasks.front().copied() {
                match step(cpu, task) {
                    Ok(None) => mind.verified += usize::from(matches!(task, Task::Verify(..))),
                    Ok(Some(finding)) => mind.findings.push(finding),
                    Err(GuestFault::Exited(exited)) => return exited,
                    Err(fault @ (GuestFault::Event(_) | GuestFault::LeftL2)) => {
                        mind.findings.push(format!("{task:x?}: {fault:?}"))
                    }
                }
                mind.tasks.pop_front();
            }
            cpu.interrupt()
        };
        td.embedder().platform.set_guest(td.tdvpr(0).unwrap(), run);
    }

    /// Runs `tasks` to their end; what faults ended in.
    #[track_caller]
    fn run(&self, td: &Td<Host>, tasks: impl IntoIterator<Item = Task>) -> Vec<Resolution> {
        self.mind.lock().unwrap().tasks.extend(tasks);
        let mut resolutions = Vec::new();
        while !self.mind.lock().unwrap().tasks.is_empty() {
            let inside = td.enter(0).unwrap();
            let tdvpr = td.tdvpr(0).unwrap().bits();
            let exit = td
                .embedder()
                .call(0, SeamcallLeaf::TDH_VP_ENTER, [tdvpr, 0, 0]);
            drop(inside);
            match BasicExitReason::from_bits(VpEnterStatus::from_bits(exit.rax).exit_reason()) {
                BasicExitReason::EXTERNAL_INTERRUPT => {}
                BasicExitReason::EPT_VIOLATION => {
                    let access = Access::from_exit(exit.rcx, exit.rdx, Gpa::new(exit.r8));
                    let resolution = td.fault(access).unwrap();
                    resolutions.push(resolution);
                    if matches!(resolution, Resolution::Awaited { .. }) {
                        break;
                    }
                    assert!(resolutions.len() < 100_000, "{access:x?}: {resolution:?}");
                }
                reason => panic!("exit for {reason:?}"),
            }
        }
        let findings = &self.mind.lock().unwrap().findings;
        assert!(findings.is_empty(), "{findings:#?}");
        resolutions
    }

    /// Accepts pages of `level` and writes something to each 4 KiB of them.
    pub fn take(&self, td: &Td<Host>, start: u64, bytes: u64, level: Level) -> Vec<Resolution> {
        let size = usize::try_from(level.size()).unwrap();
        let accept = (start..start + bytes)
            .step_by(size)
            .map(|gpa| Task::Accept(gpa, level));
        let accepted = self.run(td, accept);
        self.write(td, (start..start + bytes).step_by(4096));
        accepted
    }

    /// Writes something new to each of the pages.
    pub fn write(&self, td: &Td<Host>, pages: impl IntoIterator<Item = u64>) -> Vec<Resolution> {
        let mut tasks = Vec::new();
        for page in pages {
            let mut next = self.next.lock().unwrap();
            *next += 1;
            let value = next.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            // Somewhere else in the page each time.
            let gpa = page + *next * 8 % 4096;
            self.account.lock().unwrap().insert(gpa, value);
            tasks.push(Task::Write(gpa, value));
        }
        self.run(td, tasks)
    }

    /// Forgets what it wrote to a range, which it has given back.
    pub fn forget(&self, start: u64, bytes: u64) {
        self.account
            .lock()
            .unwrap()
            .retain(|gpa, _| !(start..start + bytes).contains(gpa));
    }

    /// Reads everything that it ever wrote.
    #[track_caller]
    pub fn verify(&self, td: &Td<Host>) -> Vec<Resolution> {
        let account = self.account.lock().unwrap().clone();
        let before = self.mind.lock().unwrap().verified;
        let resolutions = self.run(
            td,
            account
                .iter()
                .map(|(gpa, value)| Task::Verify(*gpa, *value)),
        );
        if !matches!(resolutions.last(), Some(Resolution::Awaited { .. })) {
            assert_eq!(self.mind.lock().unwrap().verified - before, account.len());
        }
        resolutions
    }

    /// Goes on with what it was doing when it had to wait for a page.
    #[track_caller]
    pub fn go_on(&self, td: &Td<Host>) -> Vec<Resolution> {
        self.run(td, [])
    }
}

fn step(cpu: &mut GuestCpu<'_>, task: Task) -> Result<Option<String>, GuestFault> {
    Ok(match task {
        Task::Accept(gpa, level) => {
            let status = cpu.accept(gpa, level)?;
            status
                .is_error()
                .then(|| format!("ACCEPT of {gpa:#x}: {status}"))
        }
        Task::Write(gpa, value) => {
            cpu.write_u64(gpa, value)?;
            None
        }
        Task::Verify(gpa, expected) => {
            let found = cpu.read_u64(gpa)?;
            (found != expected).then(|| format!("{gpa:#x} has {found:#x}, not {expected:#x}"))
        }
    })
}
