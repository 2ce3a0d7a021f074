//! Failures: calls that the module is made to answer instead of executing them.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tdx_abi::Registers;
use tdx_abi::format::LeafAndVersion;
use tdx_abi::leaf::SeamcallLeaf;

/// What the module is made to answer instead of executing a call.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    /// SEAMCALLs that pass before.
    pub after: u64,
    /// How many are answered so.
    pub times: u64,
    /// The answer.
    pub rax: u64,
}

/// A leaf, and how what it returns with success is changed.
type Spoilt = (SeamcallLeaf, fn(&mut Registers));

#[derive(Debug, Default)]
pub struct Injector {
    plan: Mutex<Option<Injection>>,
    /// Answers of this leaf are changed so.
    spoilt: Mutex<Option<Spoilt>>,
    pub calls: AtomicU64,
    /// Leaves that the injection hit.
    pub hit: Mutex<Vec<u64>>,
}

impl Injector {
    pub fn arm(&self, injection: Option<Injection>) {
        self.calls.store(0, Ordering::Relaxed);
        self.hit.lock().unwrap().clear();
        *self.plan.lock().unwrap() = injection;
    }

    /// From now on what a call of a leaf has returned with success is changed, or no longer.
    pub fn spoil(&self, spoilt: Option<Spoilt>) {
        *self.spoilt.lock().unwrap() = spoilt;
    }

    /// Changes what the call of `leaf` has returned.
    pub fn after(&self, leaf: u64, registers: &mut Registers) {
        match *self.spoilt.lock().unwrap() {
            Some((spoilt, change))
                if LeafAndVersion::from_bits(leaf).leaf() == spoilt.number()
                    && registers.rax == 0 =>
            {
                change(registers);
            }
            _ => {}
        }
    }

    /// What the next call, of leaf `leaf`, is answered without being executed.
    pub fn answer(&self, leaf: u64) -> Option<u64> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let plan = (*self.plan.lock().unwrap())?;
        let hit = (plan.after..plan.after + plan.times).contains(&call);
        hit.then(|| self.hit.lock().unwrap().push(leaf));
        hit.then_some(plan.rax)
    }
}
