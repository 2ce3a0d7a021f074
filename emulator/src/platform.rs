//! The platform: memory, module and LPs, as their user sees them.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::Trap;

use crate::config::PlatformConfig;
use crate::core::Core;
use crate::counters::Counters;
use crate::exit;
use crate::exit::ExitInfo;
use crate::exit::GuestCall;
use crate::exit::GuestExit;
use crate::fault::Fault;
use crate::fault::Injection;
use crate::guest;
use crate::guest_cpu;
use crate::guest_cpu::GuestProgram;
use crate::host_memory::HostMemory;
use crate::inside;
use crate::inside::InjectedEvent;
use crate::inside::InsideTd;
use crate::keys::KeyTags;
use crate::lock::LockWord;
use crate::memory::PhysicalMemory;
use crate::memory::SparseMemory;
use crate::module;
use crate::module::Ran;
use crate::pamt::PageType;
use crate::sept;
use crate::structures::Structure;
use crate::structures::tdcs;

/// An emulated platform: its module has been loaded, nothing else.
pub struct Platform {
    pub(crate) core: Core,
}

/// Where a SEAMCALL ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCall {
    /// It returned; the registers are the host's.
    Returned,
    /// It entered a TD; the registers are the guest's.
    EnteredTd,
}

impl Platform {
    /// A platform with [`SparseMemory`].
    pub fn new(config: PlatformConfig) -> Self {
        let address_bits = config.max_pa - config.key_id_bits;
        let memory = Box::new(SparseMemory::new(address_bits));
        Self {
            core: Core::new(config, memory, Some(KeyTags::new(address_bits))),
        }
    }

    /// A platform with other memory, whose lines have no KeyIDs: whoever supplies it sees all of it.
    pub fn with_memory(config: PlatformConfig, memory: Box<dyn PhysicalMemory>) -> Self {
        Self {
            core: Core::new(config, memory, None),
        }
    }

    /// Its parameters.
    pub fn config(&self) -> &PlatformConfig {
        &self.core.config
    }

    /// Its memory as the module and the guests see it: plaintext, whatever the key.
    pub fn memory(&self) -> &dyn PhysicalMemory {
        self.core.memory()
    }

    /// Its memory as the host sees it.
    pub fn host_memory(&self) -> HostMemory<'_> {
        HostMemory::new(&self.core)
    }

    /// How often what happened.
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// Number of LPs.
    pub fn lps(&self) -> usize {
        self.core.lps.len()
    }

    /// LP number `number`, if there is one.
    pub fn lp(&self, number: usize) -> Option<Lp<'_>> {
        (number < self.core.lps.len()).then_some(Lp {
            core: &self.core,
            number,
        })
    }

    /// What the PAMT says of the 4 KiB, 2 MiB or 1 GiB page at `hpa`: type and owner; `None` outside of initialised TDMRs.
    ///
    /// With Dynamic PAMT a 4 KiB page whose range has no pages for its entries is in use by nobody.
    pub fn page_metadata(&self, hpa: u64, level: Level) -> Option<(PageType, u64)> {
        let block = self.core.global.block(hpa)?;
        let above = block.node(hpa).filter(|_| level == Level::Pt);
        if above.is_some_and(|above| above.page_type() != PageType::Pamt) {
            return Some((PageType::Nda, 0));
        }
        let entry = block.entry(hpa, level);
        Some((entry.page_type(), entry.owner()))
    }
}

/// Guests, and what the host does to the LPs that run them.
impl Platform {
    /// Sets what the vCPU whose TDVPR is at `tdvpr` executes when it is entered by [`Seamcall::seamcall`].
    pub fn set_guest(&self, tdvpr: Hpa, program: impl GuestProgram + 'static) {
        self.core.set_program(tdvpr.bits(), Box::new(program));
    }

    /// Interrupts all LPs that are inside a TD and waits until they have left it. Counted.
    ///
    /// A guest notices at its next access or TDCALL, or when its program asks [`GuestCpu::interrupted`](crate::GuestCpu).
    /// Not to be called by a guest program.
    pub fn kick(&self) {
        self.core.counters.count_kick();
        let lps = &self.core.lps;
        for slot in lps
            .iter()
            .filter(|slot| slot.in_guest.load(Ordering::SeqCst))
        {
            slot.kicked.store(true, Ordering::SeqCst);
        }
        for slot in lps {
            while slot.in_guest.load(Ordering::SeqCst) && slot.kicked.load(Ordering::SeqCst) {
                core::hint::spin_loop();
                #[cfg(feature = "std")]
                std::thread::yield_now();
            }
        }
    }

    /// Makes all LPs forget their translations of shared addresses, as INVEPT on each of them does.
    ///
    /// An LP that is inside a TD does so before its next access.
    pub fn flush_shared(&self) {
        self.core.shared_flushes.fetch_add(1, Ordering::AcqRel);
    }

    /// Root page and root level of the Secure-EPT of the TD whose TDR is at `tdr`; `None` before MNG.INIT.
    pub fn sept_root(&self, tdr: Hpa) -> Option<(Hpa, Level)> {
        let tdr = self.core.tdr(tdr.bits());
        if !tdr.has_tdcs(0) {
            return None;
        }
        let root = self.core.tdcs(tdr).root();
        (root.hpa != 0).then_some((Hpa::new(root.hpa), root.level))
    }

    /// Calls `each` for every page in use, of any size: its address, size, type and owner's TDR.
    pub fn for_each_used_page(&self, mut each: impl FnMut(Hpa, Level, PageType, Hpa)) {
        for tdmr in self.core.global.tdmrs() {
            for block in tdmr.blocks() {
                block.for_each_used(&mut each);
            }
        }
    }
}

/// Faults on demand.
impl Platform {
    /// Puts a fault in force, beside those that are.
    pub fn inject(&self, fault: Fault) -> Injection {
        self.core.faults.add(fault)
    }

    /// Takes all faults out of force.
    pub fn clear_faults(&self) {
        self.core.faults.clear();
    }
}

/// Lock words, which vectors set and check by hand.
impl Platform {
    /// The lock word of a PAMT entry.
    pub fn pamt_lock(&self, hpa: u64, level: Level) -> Option<LockWord<'_>> {
        Some(self.core.global.block(hpa)?.entry(hpa, level).lock())
    }

    /// The lock word of the KeyID ownership table.
    pub fn kot_lock(&self) -> LockWord<'_> {
        self.core.global.kot_lock()
    }

    /// The module's global lock word.
    pub fn global_lock(&self) -> LockWord<'_> {
        self.core.global.lock()
    }

    /// The lock word of cache write-back on a package.
    pub fn write_back_lock(&self, package: usize) -> Option<LockWord<'_>> {
        Some(self.core.global.write_back.get(package)?.lock())
    }

    /// The Secure-EPT entry for `gpa` at `level` of the TD whose TDR is at `tdr`, if the tables above it are there.
    pub fn sept_entry(&self, tdr: u64, gpa: u64, level: Level) -> Option<&AtomicU64> {
        let tdr = self.core.tdr(tdr);
        if !tdr.has_tdcs(0) {
            return None;
        }
        let found = sept::walk(self.core.memory(), self.core.tdcs(tdr).root(), gpa, level);
        (found.level == level).then_some(found.cell.0)
    }

    /// A lock word of the TD whose TDR is at `tdr` and which has its TDCX pages.
    pub fn td_lock(&self, tdr: u64, lock: TdLock) -> LockWord<'_> {
        let tdcs = self.core.tdcs(self.core.tdr(tdr));
        tdcs.lock_word(match lock {
            TdLock::OpState => tdcs::OP_STATE_LOCK,
            TdLock::SeptTree => tdcs::SEPT_LOCK,
            TdLock::Epoch => tdcs::EPOCH_LOCK,
            TdLock::Migration => tdcs::MIG_LOCK,
            TdLock::Rtmr => tdcs::RTMR_LOCK,
            TdLock::ServiceTdBindings => tdcs::SERVTD_BINDINGS_LOCK,
        })
    }
}

/// A lock in a TDCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TdLock {
    /// OP_STATE.
    OpState,
    /// The Secure-EPT tree.
    SeptTree,
    /// The TD epoch.
    Epoch,
    /// The migration session.
    Migration,
    /// The runtime measurement registers.
    Rtmr,
    /// The bindings of service TDs.
    ServiceTdBindings,
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform")
            .field("config", &self.core.config)
            .finish_non_exhaustive()
    }
}

/// A logical processor.
#[derive(Clone, Copy)]
pub struct Lp<'p> {
    core: &'p Core,
    number: usize,
}

impl Lp<'_> {
    /// Its number.
    pub const fn number(&self) -> usize {
        self.number
    }

    /// Executes the SEAMCALL in `registers`.
    pub fn host_call(&self, registers: &mut Registers) -> HostCall {
        let slot = &self.core.lps[self.number];
        let mut state = slot.state.lock();
        match module::seamcall(self.core, slot, &mut state, registers) {
            Ran::Returned => HostCall::Returned,
            Ran::EnteredTd => HostCall::EnteredTd,
        }
    }

    /// Executes the TDCALL in `registers` of the guest that is inside its TD on this LP.
    pub fn guest_call(&self, registers: &mut Registers) -> GuestCall {
        let slot = &self.core.lps[self.number];
        let mut state = slot.state.lock();
        guest::tdcall(self.core, slot, &mut state, registers)
    }

    /// A VM exit other than TDCALL of the guest that is inside its TD on this LP.
    pub fn guest_exit(&self, info: &ExitInfo, registers: &mut Registers) -> GuestExit {
        let slot = &self.core.lps[self.number];
        let mut state = slot.state.lock();
        exit::guest_exit(self.core, slot, &mut state, info, registers)
    }

    /// The vCPU that is inside its TD on this LP, for a CPU that runs its guest.
    pub fn inside(&self) -> Option<InsideTd> {
        let slot = &self.core.lps[self.number];
        inside::inside(self.core, slot, &mut slot.state.lock())
    }

    /// Takes the event that is to be injected into the guest inside its TD on this LP, if there is one.
    pub fn take_event(&self) -> Option<InjectedEvent> {
        let slot = &self.core.lps[self.number];
        inside::take_event(self.core, slot, &mut slot.state.lock())
    }

    /// Sets an MSR of this LP that the module reads.
    pub fn set_msr(&self, number: u32, value: u64) {
        self.core.lps[self.number]
            .state
            .lock()
            .msrs
            .insert(number, value);
    }

    /// XMM0 to XMM15 of this LP: the host's, or the guest's inside a TD.
    pub fn xmm(&self) -> [u128; 16] {
        self.core.lps[self.number].state.lock().xmm
    }

    /// Sets XMM0 to XMM15 of this LP.
    pub fn set_xmm(&self, values: [u128; 16]) {
        self.core.lps[self.number].state.lock().xmm = values;
    }

    /// Sets IA32_INTR_PENDING: not 0 while an interrupt is pending.
    pub fn set_interrupts_pending(&self, value: u64) {
        self.core.lps[self.number]
            .interrupts_pending
            .store(value, Ordering::Release);
    }
}

impl Seamcall for Lp<'_> {
    /// As [`Lp::host_call`], and a guest that is entered runs its [`GuestProgram`] until it exits; without one it is
    /// interrupted at once.
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        let slot = &self.core.lps[self.number];
        let mut state = slot.state.lock();
        if module::seamcall(self.core, slot, &mut state, registers) == Ran::EnteredTd {
            guest_cpu::run(self.core, slot, &mut state, registers);
        }
        Ok(())
    }
}

impl fmt::Debug for Lp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lp({})", self.number)
    }
}
