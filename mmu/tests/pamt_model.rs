//! The count of a range's pages under a model checker: beside a model of the module that refuses what the TDX module
//! refuses, a page is never given without a pair, and a pair never given twice or taken while a page is in use.
#![expect(
    clippy::std_instead_of_core,
    clippy::unwrap_used,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

use std::cell::Cell;
use std::sync::atomic::Ordering;

use shuttle::rand::Rng;
use shuttle::sync::Arc;
use shuttle::sync::Mutex;
use shuttle::sync::atomic::AtomicU64;
use shuttle::thread;
use tdx_mmu::Word;
use tdx_mmu::embed::Relax;
use tdx_mmu::pamt::PairCount;

const RUNS: usize = 2000;
const PAIR: u64 = 2;

#[derive(Debug)]
struct Step(AtomicU64);

impl Word for Step {
    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }

    fn replace(&self, current: u64, new: u64) -> Result<(), u64> {
        let swapped = self
            .0
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed);
        swapped.map(|_| ())
    }

    fn add(&self, value: u64) -> u64 {
        self.0.fetch_add(value, Ordering::SeqCst)
    }

    fn sub(&self, value: u64) -> u64 {
        self.0.fetch_sub(value, Ordering::SeqCst)
    }
}

struct Yield;

impl Relax for Yield {
    fn pause(&self) {
        thread::yield_now();
    }
}

/// What the module has of the range.
#[derive(Default)]
struct Module {
    has_pair: bool,
    pages: u64,
}

struct World {
    word: Step,
    module: Mutex<Module>,
    /// Pages that the host's allocator has given out for pairs.
    allocated: AtomicU64,
    faulty: bool,
}

impl World {
    fn fails(&self) -> bool {
        thread::yield_now();
        self.faulty && shuttle::rand::thread_rng().gen_range(0..4) == 0
    }

    fn pamt_add(&self) -> Result<(), ()> {
        if self.fails() {
            return Err(());
        }
        let mut module = self.module.lock().unwrap();
        assert!(!module.has_pair, "HPA_RANGE_NOT_FREE");
        module.has_pair = true;
        Ok(())
    }

    fn pamt_remove(&self) -> Result<u64, ()> {
        if self.fails() {
            return Err(());
        }
        let mut module = self.module.lock().unwrap();
        assert!(module.has_pair, "NO_PAMT_PAGE_PAIR");
        assert_eq!(module.pages, 0, "PAMT_PAGE_NOT_EMPTY");
        module.has_pair = false;
        Ok(PAIR)
    }

    fn free(&self, pages: u64) {
        self.allocated.fetch_sub(pages, Ordering::SeqCst);
    }

    /// A page is given to the module and taken back.
    fn use_page(&self) {
        let count = PairCount::new(&self.word);
        let held = Cell::new(0);
        let prepare = || {
            if held.get() == 0 {
                held.set(PAIR);
                self.allocated.fetch_add(PAIR, Ordering::SeqCst);
            }
            Ok(())
        };
        let give = || self.pamt_add().inspect(|()| held.set(0));
        let counted = count.get(&Yield, prepare, give);
        self.free(held.get());
        if counted.is_err() {
            return;
        }
        {
            let mut module = self.module.lock().unwrap();
            assert!(module.has_pair, "MISSING_PAMT_PAGE_PAIR");
            module.pages += 1;
        }
        thread::yield_now();
        self.module.lock().unwrap().pages -= 1;
        if let Ok(Some(pages)) = count.put(&Yield, || self.pamt_remove()) {
            self.free(pages);
        }
    }
}

fn run(threads: usize, faulty: bool) {
    shuttle::check_random(
        move || {
            let world = Arc::new(World {
                word: Step::new(0),
                module: Mutex::new(Module::default()),
                allocated: AtomicU64::new(0),
                faulty,
            });
            let running: Vec<_> = (0..threads)
                .map(|_| {
                    let world = world.clone();
                    thread::spawn(move || (0..2).for_each(|_| world.use_page()))
                })
                .collect();
            running
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
            let count = PairCount::new(&world.word);
            let idle = world.module.lock().unwrap().has_pair;
            assert_eq!(count.pages(), idle.then_some(0));
            assert!(faulty || !idle, "the last page takes the pair with it");
            while idle && count.pages().is_some() {
                if let Ok(Some(pages)) = count.collect(|| world.pamt_remove()) {
                    world.free(pages);
                }
            }
            assert_eq!(world.allocated.load(Ordering::SeqCst), 0);
        },
        RUNS,
    );
}

#[test]
fn the_first_page_brings_the_pair_and_the_last_takes_it() {
    run(2, false);
    run(3, false);
}

#[test]
fn a_failed_call_leaves_the_pair_where_it_was() {
    run(3, true);
}

/// The model notices what the protocol is for: a decrement that is not one step with the decision.
#[test]
#[should_panic]
fn a_count_in_two_steps_is_found_out() {
    shuttle::check_random(
        || {
            let world = Arc::new(World {
                word: Step::new(0),
                module: Mutex::new(Module::default()),
                allocated: AtomicU64::new(0),
                faulty: false,
            });
            let step = |world: &World| {
                if world.word.add(1) == 0 {
                    let _ = world.pamt_add();
                }
                world.module.lock().unwrap().pages += 1;
                thread::yield_now();
                world.module.lock().unwrap().pages -= 1;
                if world.word.load(Ordering::SeqCst) == 1 {
                    let _ = world.pamt_remove();
                }
                world.word.sub(1);
            };
            let other = world.clone();
            let thread = thread::spawn(move || step(&other));
            step(&world);
            thread.join().unwrap();
        },
        RUNS,
    );
}
