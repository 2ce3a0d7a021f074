//! Faults on demand: calls that end otherwise than they would.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use spin::Mutex;

use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::TdcallLeaf;

/// What some calls are made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which calls it is about.
    pub calls: Calls,
    /// Which of these it strikes.
    pub when: When,
    /// What happens to them.
    pub effect: Effect,
}

/// Calls that a fault may strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Every SEAMCALL.
    AnyHost,
    /// SEAMCALLs of one leaf.
    Host(SeamcallLeaf),
    /// Every TDCALL.
    AnyGuest,
    /// TDCALLs of one leaf.
    Guest(TdcallLeaf),
}

impl Calls {
    fn contains(self, call: Self) -> bool {
        self == call
            || matches!(
                (self, call),
                (Self::AnyHost, Self::Host(_)) | (Self::AnyGuest, Self::Guest(_))
            )
    }
}

/// Which of its calls a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// `times` calls, after the first `after`.
    Calls {
        /// Calls that pass before.
        after: u64,
        /// Calls that are struck.
        times: u64,
    },
    /// Each call with a probability of one in `calls`, as a generator decides that starts from `seed`.
    OneIn {
        /// The reciprocal of the probability; 0 is never.
        calls: u64,
        /// Where the generator starts.
        seed: u64,
    },
}

/// What a fault does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The call returns this status and does nothing; no register but RAX changes.
    ///
    /// `OPERAND_BUSY_HOST_PRIORITY` is for TDCALLs: the guest sees `OPERAND_BUSY`, and after HP_LOCK_TIMEOUT the TD is left.
    Status(Status),
    /// An interrupt waits throughout the call: a leaf that can be interrupted stops at the first point where it looks for
    /// one, with what it has done so far kept as the module does; other leaves notice nothing.
    Interrupt,
}

/// A fault in force, and what it has done.
#[derive(Clone, Debug)]
pub struct Injection(Arc<State>);

impl Injection {
    /// Calls that the fault is about so far.
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Acquire)
    }

    /// Calls that it has struck.
    pub fn hits(&self) -> u64 {
        self.0.hits.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
struct State {
    fault: Fault,
    calls: AtomicU64,
    hits: AtomicU64,
    random: AtomicU64,
}

impl State {
    fn strikes(&self) -> bool {
        let before = self.calls.fetch_add(1, Ordering::AcqRel);
        let hit = match self.fault.when {
            When::Calls { after, times } => before >= after && before - after < times,
            When::OneIn { calls, .. } => calls != 0 && self.random().is_multiple_of(calls),
        };
        if hit {
            self.hits.fetch_add(1, Ordering::AcqRel);
        }
        hit
    }

    /// SplitMix64, of which every seed is a good one.
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.random.fetch_add(STEP, Ordering::AcqRel);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// The faults in force on a platform.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    any: AtomicBool,
    list: Mutex<Vec<Arc<State>>>,
}

impl Faults {
    pub(crate) fn add(&self, fault: Fault) -> Injection {
        let seed = match fault.when {
            When::OneIn { seed, .. } => seed,
            When::Calls { .. } => 0,
        };
        let state = Arc::new(State {
            fault,
            calls: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            random: AtomicU64::new(seed),
        });
        self.list.lock().push(Arc::clone(&state));
        self.any.store(true, Ordering::Release);
        Injection(state)
    }

    pub(crate) fn clear(&self) {
        let mut list = self.list.lock();
        list.clear();
        self.any.store(false, Ordering::Release);
    }

    /// What happens to `call`. All faults that are about it count it; the first that strikes decides.
    pub(crate) fn on(&self, call: Calls) -> Option<Effect> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let list = self.list.lock();
        let about = list.iter().filter(|state| state.fault.calls.contains(call));
        about.fold(None, |effect, state| {
            let strikes = state.strikes();
            effect.or_else(|| strikes.then_some(state.fault.effect))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Calls;
    use super::Effect;
    use super::Fault;
    use super::Faults;
    use super::When;
    use crate::abi::SeamcallLeaf;
    use crate::abi::TdcallLeaf;

    const AUG: Calls = Calls::Host(SeamcallLeaf::TDH_MEM_PAGE_AUG);

    fn fault(calls: Calls, when: When) -> Fault {
        let effect = Effect::Interrupt;
        Fault {
            calls,
            when,
            effect,
        }
    }

    #[test]
    fn one_in_three_is_a_third_whatever_the_seed() {
        for seed in [0, 1, 7, u64::MAX] {
            let faults = Faults::default();
            let injection = faults.add(fault(Calls::AnyHost, When::OneIn { calls: 3, seed }));
            let hits = (0..30_000).filter(|_| faults.on(AUG).is_some()).count();
            // Five standard deviations of a binomial distribution are 408.
            assert!(hits.abs_diff(10_000) < 408, "seed {seed}: {hits}");
            assert_eq!((injection.calls(), injection.hits()), (30_000, hits as u64));
        }
    }

    #[test]
    fn a_fault_is_about_its_own_calls_only() {
        let faults = Faults::default();
        let once = When::Calls { after: 1, times: 1 };
        let injection = faults.add(fault(AUG, once));
        let track = Calls::Host(SeamcallLeaf::TDH_MEM_TRACK);
        let accept = Calls::Guest(TdcallLeaf::TDG_MEM_PAGE_ACCEPT);
        let struck = [track, AUG, accept, AUG, AUG].map(|call| faults.on(call).is_some());
        assert_eq!(struck, [false, false, false, true, false]);
        assert_eq!((injection.calls(), injection.hits()), (3, 1));
        faults.clear();
        assert_eq!(faults.on(AUG), None);
    }

    #[test]
    fn the_first_fault_that_strikes_decides_and_all_count() {
        let faults = Faults::default();
        let always = When::Calls {
            after: 0,
            times: u64::MAX,
        };
        let any = faults.add(fault(Calls::AnyHost, always));
        let never = faults.add(fault(AUG, When::OneIn { calls: 0, seed: 0 }));
        assert_eq!(faults.on(AUG), Some(Effect::Interrupt));
        assert_eq!((any.hits(), never.calls(), never.hits()), (1, 1, 0));
    }
}
