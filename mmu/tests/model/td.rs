//! Private memory of a TD: faults, and the gather of removals (block, track, kick, remove) beside vCPUs that
//! enter and leave; the ledger of control pages.
#![expect(unreachable_pub, reason = "a module of a test binary")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use shuttle::sync::Arc;
use shuttle::thread;
use tdx_abi::Gpa;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::SharedBit;
use tdx_abi::SharedGpa;
use tdx_mmu::GpaRange;
use tdx_mmu::Td;
use tdx_mmu::Word;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::embed::Backing;
use tdx_mmu::embed::Clean;
use tdx_mmu::embed::Flush;
use tdx_mmu::embed::Frames;
use tdx_mmu::embed::Grace;
use tdx_mmu::embed::Relax;
use tdx_mmu::embed::SharedBacking;
use tdx_mmu::embed::Tables;
use tdx_mmu::embed::Vcpus;
use tdx_mmu::l2::MAX_L2_VMS;
use tdx_mmu::platform::Executor;
use tdx_mmu::platform::HkidPool;
use tdx_mmu::platform::LpId;
use tdx_mmu::td::Access;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Laggards;
use tdx_mmu::td::TdConfig;

use super::memory::Memory;
use super::memory::Seeded;
use super::memory::Step;
use super::memory::explore;
use super::memory::seeded;
use super::memory::side_by_side;
use super::module::Module;
use super::module::VCPUS;

const RUNS: usize = 150;

pub struct Host {
    pub memory: Memory,
    pub module: &'static Module,
    epochs: [Step; VCPUS],
    /// vCPUs that have to leave the TD.
    kicked: [Step; VCPUS],
    next_page: AtomicU64,
    /// Pages that the host has back and may use for something else.
    returned: Mutex<BTreeSet<u64>>,
}

impl Tables for Host {
    type Word = Step;

    fn entries(&self, table: Hpa) -> &[Step; 512] {
        self.memory.entries(table)
    }

    fn link(&self, table: Hpa) -> &Step {
        self.memory.link(table)
    }

    fn l2_links(&self, table: Hpa) -> Option<&[Step; MAX_L2_VMS]> {
        self.memory.l2_links(table)
    }
}

impl Frames for Host {
    fn allocate_table(&self) -> Option<Page> {
        self.memory.allocate_table()
    }

    fn free_table(&self, table: Page) {
        self.memory.free_table(table);
    }

    fn allocate_module_page(&self) -> Option<Page> {
        self.memory.allocate_module_page()
    }

    fn free_module_page(&self, page: Page) {
        self.memory.free_module_page(page);
    }
}

impl Relax for Host {
    fn pause(&self) {
        thread::yield_now();
    }

    fn stripe(&self) -> usize {
        self.memory.stripe()
    }
}

impl Grace for Host {
    type Guard<'g> = <Memory as Grace>::Guard<'g>;

    fn enter(&self) -> Self::Guard<'_> {
        self.memory.enter()
    }

    fn retire(&self, table: Page) {
        self.memory.retire(table);
    }
}

impl Flush for Host {
    fn invept(&self) {}
}

impl Clean for Host {
    fn needs_write_back(&self) -> bool {
        false
    }

    fn scrub(&self, _: &Page) {}
}

impl Backing for Host {
    fn private_page(&self, _: PrivateGpa, _: Level) -> Option<Page> {
        let hpa = self.next_page.fetch_add(4096, Ordering::Relaxed);
        Page::assume_owned(Hpa::new(hpa), Level::Pt)
    }

    fn take_back(&self, _: PrivateGpa, page: Page) {
        let hpa = page.into_hpa().bits();
        assert!(self.returned.lock().unwrap().insert(hpa), "returned twice");
    }

    fn shared_page(&self, _: SharedGpa) -> SharedBacking {
        SharedBacking::None
    }
}

impl Vcpus for Host {
    fn epochs(&self) -> &[Step] {
        &self.epochs
    }

    fn kick(&self, laggards: Laggards<'_, Step>) {
        if seeded(Seeded::NoKick) {
            return;
        }
        for vcpu in 0..VCPUS {
            if laggards.contains(vcpu) {
                self.kicked[vcpu].store(1, Ordering::SeqCst);
                while laggards.contains(vcpu) {
                    thread::yield_now();
                }
            }
        }
    }

    fn last_lp(&self, _: usize) -> Option<LpId> {
        None
    }
}

impl Executor for Host {
    type Lp = &'static Module;

    fn on_this_lp<T>(&self, work: impl FnOnce(LpId, &Self::Lp) -> T) -> T {
        work(LpId(0), &self.module)
    }

    fn on_lp<T: Send>(&self, _: LpId, work: impl FnOnce(&Self::Lp) -> T + Send) -> Option<T> {
        Some(work(&self.module))
    }

    fn on_each_lp<E: Send>(
        &self,
        work: impl Fn(LpId, &Self::Lp) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        work(LpId(0), &self.module)
    }

    fn on_each_package<E: Send>(
        &self,
        work: impl Fn(LpId, &Self::Lp) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        work(LpId(0), &self.module)
    }
}

fn td() -> Arc<Td<Host>> {
    td_with(0)
}

/// A TD with this many L2 VMs.
pub fn td_with(l2_vms: u8) -> Arc<Td<Host>> {
    let host = Host {
        memory: Memory::new(),
        module: Box::leak(Box::default()),
        epochs: [const { 0 }; VCPUS].map(Step::new),
        kicked: [const { 0 }; VCPUS].map(Step::new),
        next_page: AtomicU64::new(0x1_0000_0000),
        returned: Mutex::default(),
    };
    let config = TdConfig {
        shared_bit: SharedBit::new(47).unwrap(),
        private_top: Level::Pml4,
        shared_top: Level::Pml4,
        keyid_shift: 46,
        global_hkid: 32,
        tdcx_pages: 1,
        tdvpx_pages: 1,
        l2_vms,
    };
    let hkids = HkidPool::<1>::new(33, 31).unwrap();
    let hkid = hkids.allocate().unwrap();
    let (td, done) = Td::create(host, config, hkid, Hpa::new(0x1000)).unwrap_or_else(|_| panic!());
    done.unwrap();
    Arc::new(td)
}

fn runnable() -> Arc<Td<Host>> {
    let td = td();
    td.declare(page(0, 0x20_0000), Visibility::Private).unwrap();
    td.finalize().unwrap();
    for gpa in [0x1000, 0x2000] {
        fault(&td, gpa);
    }
    td
}

pub fn page(start: u64, bytes: u64) -> GpaRange {
    GpaRange::new(start, bytes).unwrap()
}

pub fn fault(td: &Td<Host>, gpa: u64) {
    let access = Access {
        gpa: Gpa::new(gpa),
        kind: AccessKind::Write,
    };
    td.fault(access).unwrap();
}

/// A vCPU that enters twice, and uses the translation that it got first for as long as it is inside.
fn guest(td: &Td<Host>, vcpu: usize, gpa: u64) {
    let host = td.embedder();
    for _ in 0..2 {
        host.kicked[vcpu].store(0, Ordering::Relaxed);
        let early = (!seeded(Seeded::LateNote)).then(|| td.enter(vcpu).unwrap());
        thread::yield_now();
        host.module.enter(vcpu);
        let entered = early.unwrap_or_else(|| {
            thread::yield_now();
            td.enter(vcpu).unwrap()
        });
        let mut translation = None;
        for _ in 0..12 {
            translation = translation.or_else(|| host.module.walk(gpa));
            thread::yield_now();
            if let Some(hpa) = translation {
                let returned = host.returned.lock().unwrap();
                assert!(!returned.contains(&hpa), "access to a page that went back");
            }
            if host.kicked[vcpu].load(Ordering::SeqCst) != 0 {
                break;
            }
        }
        host.module.leave(vcpu);
        drop(entered);
        if translation.is_none() {
            fault(td, gpa);
        }
    }
}

fn run<const N: usize>(mistake: Seeded, threads: [fn(&Td<Host>); N]) {
    explore(mistake, RUNS, move || {
        let td = runnable();
        side_by_side(&td, threads);
        // Whatever is mapped is not with the host, and what was removed is.
        let host = td.embedder();
        for gpa in [0x1000, 0x2000] {
            if let Some(hpa) = host.module.walk(gpa) {
                assert!(!host.returned.lock().unwrap().contains(&hpa));
            }
        }
        // Nothing is left blocked: all of it can be removed.
        td.unmap_private(&[page(0, 0x20_0000)]).unwrap();
        assert_eq!(host.module.walk(0x1000), None);
        assert_eq!(host.module.walk(0x2000), None);
        let given = (host.next_page.load(Ordering::Relaxed) - 0x1_0000_0000) / 4096;
        assert_eq!(host.returned.lock().unwrap().len() as u64, given);
    });
}

fn removals_beside_guests(mistake: Seeded) {
    run(
        mistake,
        [
            |td| guest(td, 0, 0x1000),
            |td| guest(td, 1, 0x2000),
            |td| td.unmap_private(&[page(0x1000, 0x1000)]).unwrap(),
            |td| td.unmap_private(&[page(0x1000, 0x2000)]).unwrap(),
        ],
    );
}

#[test]
fn removals_share_tracks_and_guests_never_see_a_page_that_went_back() {
    removals_beside_guests(Seeded::Nothing);
}

#[test]
#[should_panic]
fn a_missing_kick_is_noticed() {
    removals_beside_guests(Seeded::NoKick);
}

#[test]
#[should_panic]
fn a_vcpu_noted_too_late_is_noticed() {
    // With more threads the one moment that matters is seldom met.
    run(
        Seeded::LateNote,
        [
            |td| guest(td, 0, 0x1000),
            |td| td.unmap_private(&[page(0x1000, 0x1000)]).unwrap(),
        ],
    );
}

#[test]
#[should_panic]
fn a_block_beside_other_calls_is_noticed() {
    removals_beside_guests(Seeded::OpenGate);
}

fn vcpus_at_once(mistake: Seeded) {
    explore(mistake, 100, || {
        let td = td();
        // The next ones are the first in a table of the ledger that is not there yet.
        (0..7).for_each(|vcpu| assert_eq!(td.add_vcpu(0).unwrap(), vcpu));
        let threads = [(); 2].map(|()| {
            let td = td.clone();
            thread::spawn(move || td.add_vcpu(0).unwrap())
        });
        let numbers: BTreeSet<usize> = threads.map(|thread| thread.join().unwrap()).into();
        assert_eq!(numbers, (7..9).collect());
        let pages: BTreeSet<_> = (0..9).map(|vcpu| td.tdvpr(vcpu).unwrap()).collect();
        assert_eq!(pages.len(), 9, "each has a TDVPR of its own");
    });
}

#[test]
fn the_ledger_keeps_the_pages_of_vcpus_that_are_added_at_once() {
    vcpus_at_once(Seeded::Nothing);
}

#[test]
#[should_panic]
fn a_page_lost_from_the_ledger_is_noticed() {
    vcpus_at_once(Seeded::TornExchange);
}
