//! Logical processors.

use alloc::collections::BTreeMap;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use spin::Mutex;
use tdx_abi::Registers;

use crate::exit::stepping::Stepping;
use crate::structures::tdvps::NULL_PA;
use crate::tlb::Tlb;

/// One LP as others see it.
#[derive(Debug)]
pub(crate) struct LpSlot {
    /// What belongs to the LP alone, locked while it executes a call.
    pub state: Mutex<LpState>,
    /// IA32_INTR_PENDING (MSR 0x9a): not 0 while an interrupt is pending.
    pub interrupts_pending: AtomicU64,
    /// Whether a fault lets an interrupt wait during the present call.
    pub fault_interrupt: AtomicBool,
    /// Whether the LP is inside a TD.
    pub in_guest: AtomicBool,
    /// Whether the LP is asked to leave the TD.
    pub kicked: AtomicBool,
}

impl LpSlot {
    pub(crate) fn new(id: u32, package: u32) -> Self {
        Self {
            state: Mutex::new(LpState::new(id, package)),
            interrupts_pending: AtomicU64::new(0),
            fault_interrupt: AtomicBool::new(false),
            in_guest: AtomicBool::new(false),
            kicked: AtomicBool::new(false),
        }
    }
}

impl LpSlot {
    /// Whether a fault lets an interrupt wait during the present call.
    pub(crate) fn has_fault_interrupt(&self) -> bool {
        self.fault_interrupt.load(Ordering::Relaxed)
    }

    /// Notes that the LP is in no TD any more; a kick has reached it.
    pub(crate) fn leave_guest(&self) {
        self.kicked.store(false, Ordering::SeqCst);
        self.in_guest.store(false, Ordering::SeqCst);
    }
}

/// XMM0 to XMM15.
pub(crate) type Xmm = [u128; 16];

/// What belongs to one LP: the module's local data and the LP's own state.
#[derive(Debug)]
pub(crate) struct LpState {
    /// Number of the LP.
    pub id: u32,
    /// Its package.
    pub package: u32,
    /// Whether SYS.LP.INIT is done.
    pub initialized: bool,
    /// TDVPR of the vCPU that this LP entered last.
    pub last_tdvpr: u64,
    /// Generator of the single-step defence.
    pub lfsr: u32,
    /// How far the single-step defence is.
    pub stepping: Stepping,
    /// XMM registers: the host's, or the guest's inside a TD.
    pub xmm: Xmm,
    /// The vCPU that is inside its TD on this LP.
    pub inside: Option<Inside>,
    /// Translations that the LP has cached.
    pub tlb: Tlb,
    /// MSRs whose value differs from the platform's common one.
    pub msrs: BTreeMap<u32, u64>,
}

impl LpState {
    fn new(id: u32, package: u32) -> Self {
        Self {
            id,
            package,
            initialized: false,
            last_tdvpr: NULL_PA,
            lfsr: 0,
            stepping: Stepping::default(),
            xmm: Xmm::default(),
            inside: None,
            tlb: Tlb::default(),
            msrs: BTreeMap::new(),
        }
    }
}

/// The vCPU that is inside its TD on an LP; its TDVPR and TDR stay locked shared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside {
    /// Physical address of the TDR, without KeyID.
    pub tdr: u64,
    /// Physical address of the TDVPR, without KeyID.
    pub tdvpr: u64,
    /// Guest RIP at TD entry.
    pub rip_at_entry: u64,
    /// Whether the current exit is also a bus-lock exit.
    pub bus_lock: bool,
    /// The VMM's registers at TD entry.
    pub host: Registers,
}
