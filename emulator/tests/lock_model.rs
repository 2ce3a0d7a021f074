//! The lock primitives under loom: every interleaving of a few threads, with weak memory.
#![expect(clippy::std_instead_of_alloc, reason = "tests run on std")]

#[path = "../src/lock.rs"]
#[expect(dead_code, reason = "the model uses the primitives, not the raw words")]
#[expect(unreachable_pub, reason = "here the module is private")]
mod lock;

mod abi {
    pub(crate) use tdx_abi::status::StatusCode;
}

mod sync {
    pub(crate) use loom::sync::atomic::AtomicU64;
}

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use lock::LockWord;
use lock::Mode;
use lock::Mutex;
use lock::Sharex;
use lock::SharexHp;
use lock::Side;
use sync::AtomicU64;

/// A quadword with a lock word in its low half word, and a cell that the lock guards; loom reports unguarded access.
struct Guarded {
    word: AtomicU64,
    cell: UnsafeCell<u64>,
}

#[expect(
    unsafe_code,
    reason = "loom's cell is shared between the model's threads"
)]
// SAFETY: the cell is only touched through `read` and `write`, which loom checks to be free of races.
unsafe impl Sync for Guarded {}
#[expect(
    unsafe_code,
    reason = "loom's cell is shared between the model's threads"
)]
// SAFETY: as above.
unsafe impl Send for Guarded {}

impl Guarded {
    fn new(word: u64) -> Arc<Self> {
        Arc::new(Self {
            word: AtomicU64::new(word),
            cell: UnsafeCell::new(0),
        })
    }

    fn lock(&self) -> LockWord<'_> {
        LockWord::new(&self.word, 0)
    }

    fn write(&self) {
        #[expect(unsafe_code, reason = "loom's cell hands out raw pointers")]
        // SAFETY: loom checks that no other thread accesses the cell during the closure.
        self.cell.with_mut(|value| unsafe { *value += 1 });
    }

    fn read(&self) -> u64 {
        #[expect(unsafe_code, reason = "loom's cell hands out raw pointers")]
        // SAFETY: loom checks that no other thread writes the cell during the closure.
        self.cell.with(|value| unsafe { *value })
    }
}

/// Runs two of `act` beside each other and returns how many of them said that they did what they wanted.
fn two(guarded: &Arc<Guarded>, act: impl Fn(&Guarded) -> bool + Copy + Send + 'static) -> usize {
    let other = {
        let guarded = Arc::clone(guarded);
        thread::spawn(move || act(&guarded))
    };
    let mine = act(guarded);
    let theirs = other.join().expect("no panic");
    usize::from(mine) + usize::from(theirs)
}

/// Bits above the lock word belong to other fields and must survive.
const NEIGHBOUR: u64 = 0x1234_5678_9abc_0000;

#[test]
fn exclusive_holders_exclude_each_other() {
    loom::model(|| {
        let guarded = Guarded::new(NEIGHBOUR);
        let done = two(&guarded, |guarded| {
            let lock = Sharex::acquire(guarded.lock(), Mode::Exclusive);
            if lock.is_some() {
                guarded.write();
            }
            lock.is_some()
        });
        assert!(done >= 1 && guarded.read() == done as u64);
        assert_eq!(
            guarded.word.load(loom::sync::atomic::Ordering::Acquire),
            NEIGHBOUR
        );
    });
}

#[test]
fn readers_share_and_exclude_a_writer() {
    loom::model(|| {
        let guarded = Guarded::new(NEIGHBOUR);
        let writer = {
            let guarded = Arc::clone(&guarded);
            thread::spawn(move || {
                let lock = Sharex::acquire(guarded.lock(), Mode::Exclusive);
                if lock.is_some() {
                    guarded.write();
                }
                lock.is_some()
            })
        };
        // A reader that fails stays counted, as in the module: so one try only.
        let lock = Sharex::acquire(guarded.lock(), Mode::Shared);
        if lock.is_some() {
            guarded.read();
        }
        drop(lock);
        let _ = writer.join().expect("no panic");
    });
}

#[test]
fn host_priority_lock_promotes_only_a_single_reader() {
    loom::model(|| {
        let guarded = Guarded::new(NEIGHBOUR);
        let done = two(&guarded, |guarded| {
            let Ok(mut lock) = SharexHp::acquire(guarded.lock(), Mode::Shared, Side::Host) else {
                return false;
            };
            let promoted = lock.promote().is_ok();
            if promoted {
                guarded.write();
            }
            promoted
        });
        assert_eq!(guarded.read(), done as u64);
    });
}

#[test]
fn a_guest_gives_way_to_a_host_that_was_refused() {
    const HOST_PRIORITY: u64 = 1 << 1;
    loom::model(|| {
        let guarded = Guarded::new(HOST_PRIORITY);
        let guest = {
            let guarded = Arc::clone(&guarded);
            thread::spawn(move || {
                SharexHp::acquire(guarded.lock(), Mode::Exclusive, Side::Guest).is_ok()
            })
        };
        let host = SharexHp::acquire(guarded.lock(), Mode::Exclusive, Side::Host).is_ok();
        let guest = guest.join().expect("no panic");
        // The guest gets it only after the host had it; the host can then only have been first.
        assert!(host || !guest);
    });
}

#[test]
fn a_mutex_has_one_holder() {
    loom::model(|| {
        let guarded = Guarded::new(0);
        let done = two(&guarded, |guarded| {
            let lock = Mutex::acquire(guarded.lock());
            if lock.is_some() {
                guarded.write();
            }
            lock.is_some()
        });
        assert!(done >= 1 && guarded.read() == done as u64);
        assert_eq!(guarded.lock().get(), 0);
    });
}
