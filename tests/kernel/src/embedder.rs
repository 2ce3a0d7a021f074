//! What this kernel provides to `tdx-mmu`: tables, pages, grace periods, kicks, flushes, and the memory behind the guest.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::SharedGpa;
use tdx_abi::hardware::HardwareSeamcall;

use tdx_mmu::GpaRange;
use tdx_mmu::embed::Backing;
use tdx_mmu::embed::Clean;
use tdx_mmu::embed::Flush;
use tdx_mmu::embed::Frames;
use tdx_mmu::embed::Grace;
use tdx_mmu::embed::Relax;
use tdx_mmu::embed::SharedBacking;
use tdx_mmu::embed::Tables;
use tdx_mmu::embed::Vcpus;
use tdx_mmu::platform::Executor;
use tdx_mmu::platform::LpId;
use tdx_mmu::shared::Attributes;
use tdx_mmu::shared::Permissions;
use tdx_mmu::td::Laggards;

use crate::frames;
use crate::instruction;
use crate::layout;
use crate::lock::Lock;
use crate::physical;
use crate::vmx;

/// End of the guest-physical addresses that have memory behind them.
pub(crate) const GUEST_MEMORY: u64 = 1 << 30;

const FRAMES: usize = (layout::RAM / frames::FRAME) as usize;
/// Written over a table that is freed: a walk that still used it would hit reserved bits.
const FREED: u64 = 0x7ff0_0000_0000_0bad;

static LINKS: [AtomicU64; FRAMES] = [const { AtomicU64::new(0) }; FRAMES];

/// What lies behind shared guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SharedKind {
    /// A device that the host emulates.
    Device,
    /// Memory in runs of this level, with these attributes.
    Memory(Level, Attributes),
}

/// The embedder of one TD, or of one ordinary guest.
pub(crate) struct Host {
    /// INVEPTs that the MMU asked for.
    pub(crate) invepts: AtomicU64,
    /// Kicks that the MMU asked for.
    pub(crate) kicks: AtomicU64,
    /// Tables that were freed after a grace period.
    pub(crate) retired: AtomicU64,
    /// Largest level in which private memory is given out.
    largest: AtomicU8,
    readers: AtomicU64,
    entered: AtomicBool,
    epochs: [AtomicU64; 1],
    rules: Lock<Vec<(GpaRange, SharedKind)>>,
    shared: Lock<BTreeMap<u64, (u64, Level)>>,
    dirty: Lock<Vec<u64>>,
}

impl Host {
    /// An embedder whose guest has memory in 4 KiB pages everywhere.
    pub(crate) const fn new() -> Self {
        Self {
            invepts: AtomicU64::new(0),
            kicks: AtomicU64::new(0),
            retired: AtomicU64::new(0),
            largest: AtomicU8::new(0),
            readers: AtomicU64::new(0),
            entered: AtomicBool::new(false),
            epochs: [AtomicU64::new(0)],
            rules: Lock::new(Vec::new()),
            shared: Lock::new(BTreeMap::new()),
            dirty: Lock::new(Vec::new()),
        }
    }

    /// Sets the largest level in which private memory is given out from now on.
    pub(crate) fn give_private(&self, largest: Level) {
        self.largest.store(largest as u8, Ordering::Relaxed);
    }

    /// Says what lies behind a shared range; a later rule goes before earlier ones.
    pub(crate) fn rule(&self, range: GpaRange, kind: SharedKind) {
        self.rules.lock().push((range, kind));
    }

    /// Where the shared page at `gpa` is, once the guest has used it.
    pub(crate) fn shared_memory(&self, gpa: u64) -> Option<u64> {
        let shared = self.shared.lock();
        let (start, (hpa, level)) = shared.range(..=gpa).next_back()?;
        (gpa - start < level.size()).then_some(hpa + (gpa - start))
    }

    /// The pages written since the last call, by the guest-physical address of their page.
    pub(crate) fn take_dirty(&self) -> Vec<u64> {
        core::mem::take(&mut *self.dirty.lock())
    }

    /// Notes that the vCPU has been entered on the one LP.
    pub(crate) fn note_entry(&self) {
        self.entered.store(true, Ordering::Relaxed);
    }

    /// Gives back all shared memory; the guest must not run any more.
    pub(crate) fn free_shared(&self) {
        for (hpa, level) in core::mem::take(&mut *self.shared.lock()).into_values() {
            frames::free(hpa, level.size());
        }
    }

    fn kind(&self, gpa: u64) -> SharedKind {
        let rules = self.rules.lock();
        let found = rules.iter().rev().find(|(range, _)| range.contains(gpa));
        found.map_or(
            SharedKind::Memory(Level::Pt, Attributes::new(Permissions::ALL)),
            |(_, kind)| *kind,
        )
    }
}

fn allocate(level: Level) -> Option<u64> {
    match level {
        Level::Pt => frames::allocate_frame(),
        Level::Pd => frames::allocate_block(),
        _ => None,
    }
}

fn clear(hpa: u64, bytes: u64) {
    (hpa..hpa + bytes)
        .step_by(frames::FRAME as usize)
        .for_each(|frame| assert!(physical::clear(frame)));
}

fn page() -> Option<Page> {
    Page::assume_owned(Hpa::new(frames::allocate_frame()?), Level::Pt)
}

impl Tables for Host {
    type Word = AtomicU64;

    fn entries(&self, table: Hpa) -> &[AtomicU64; 512] {
        match physical::frame(table.bits()) {
            Some(entries) => entries,
            None => {
                panic!("the MMU asked for a table at {table:?}, which this kernel never gave it")
            }
        }
    }

    fn link(&self, table: Hpa) -> &AtomicU64 {
        &LINKS[(table.bits() / frames::FRAME) as usize]
    }
}

impl Frames for Host {
    fn allocate_table(&self) -> Option<Page> {
        page()
    }

    fn free_table(&self, table: Page) {
        let hpa = table.into_hpa();
        self.entries(hpa)
            .iter()
            .for_each(|entry| entry.store(FREED, Ordering::Relaxed));
        frames::free(hpa.bits(), frames::FRAME);
    }

    fn allocate_module_page(&self) -> Option<Page> {
        page()
    }

    fn free_module_page(&self, page: Page) {
        frames::free(page.into_hpa().bits(), frames::FRAME);
    }
}

/// A read-side section.
pub(crate) struct Guard<'g>(&'g AtomicU64);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Grace for Host {
    type Guard<'g> = Guard<'g>;

    fn enter(&self) -> Guard<'_> {
        self.readers.fetch_add(1, Ordering::Acquire);
        Guard(&self.readers)
    }

    fn retire(&self, table: Page) {
        // One LP and no interrupts: a reader that is open now would never end.
        assert_eq!(
            self.readers.load(Ordering::Acquire),
            0,
            "a table was retired inside of a read-side section"
        );
        self.retired.fetch_add(1, Ordering::Relaxed);
        self.free_table(table);
    }
}

impl Relax for Host {
    fn patience(&self) -> u32 {
        // Nobody else runs, so what is busy once stays busy.
        16
    }
}

impl Flush for Host {
    fn invept(&self) {
        self.invepts.fetch_add(1, Ordering::Relaxed);
        assert!(vmx::invalidate_ept().is_ok(), "INVEPT failed");
    }
}

impl Vcpus for Host {
    fn epochs(&self) -> &[AtomicU64] {
        &self.epochs
    }

    fn kick(&self, laggards: Laggards<'_, AtomicU64>) {
        // Host code runs on the one LP, so the guest is out. A laggard would never leave.
        assert!(
            laggards.is_empty(),
            "a vCPU is inside the TD while the host runs on its LP"
        );
        self.kicks.fetch_add(1, Ordering::Relaxed);
    }

    fn last_lp(&self, _: usize) -> Option<LpId> {
        self.entered.load(Ordering::Relaxed).then_some(LpId(0))
    }
}

impl Clean for Host {
    fn scrub(&self, page: &Page) {
        clear(page.hpa().bits(), page.level().size());
    }
}

impl Backing for Host {
    fn private_page(&self, gpa: PrivateGpa, largest: Level) -> Option<Page> {
        if gpa.bits() >= GUEST_MEMORY {
            return None;
        }
        let level = Level::new(self.largest.load(Ordering::Relaxed))
            .unwrap_or(Level::Pt)
            .min(largest);
        Page::assume_owned(Hpa::new(allocate(level)?), level)
    }

    fn take_back(&self, _: PrivateGpa, page: Page) {
        let level = page.level();
        frames::free(page.into_hpa().bits(), level.size());
    }

    fn shared_page(&self, gpa: SharedGpa) -> SharedBacking {
        if gpa.bits() >= GUEST_MEMORY {
            return SharedBacking::None;
        }
        let (level, attributes) = match self.kind(gpa.bits()) {
            SharedKind::Device => return SharedBacking::Mmio,
            SharedKind::Memory(level, attributes) => (level, attributes),
        };
        let start = gpa.bits() & !(level.size() - 1);
        let mut shared = self.shared.lock();
        let hpa = match shared.get(&start) {
            Some((hpa, _)) => *hpa,
            None => {
                let Some(hpa) = allocate(level) else {
                    return SharedBacking::None;
                };
                clear(hpa, level.size());
                shared.insert(start, (hpa, level));
                hpa
            }
        };
        SharedBacking::Memory {
            hpa: Hpa::new(hpa),
            level,
            attributes,
        }
    }

    fn mark_dirty(&self, gpa: SharedGpa, _: Level) {
        self.dirty.lock().push(gpa.bits());
    }
}

impl Executor for Host {
    type Lp = HardwareSeamcall;

    fn on_this_lp<T>(&self, work: impl FnOnce(LpId, &HardwareSeamcall) -> T) -> T {
        work(LpId(0), &instruction::seamcall())
    }

    fn on_lp<T: Send>(
        &self,
        lp: LpId,
        work: impl FnOnce(&HardwareSeamcall) -> T + Send,
    ) -> Option<T> {
        (lp == LpId(0)).then(|| work(&instruction::seamcall()))
    }

    fn on_each_lp<E: Send>(
        &self,
        work: impl Fn(LpId, &HardwareSeamcall) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        work(LpId(0), &instruction::seamcall())
    }

    fn on_each_package<E: Send>(
        &self,
        work: impl Fn(LpId, &HardwareSeamcall) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        work(LpId(0), &instruction::seamcall())
    }
}
