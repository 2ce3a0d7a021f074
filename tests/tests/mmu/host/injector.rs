//! Failures: calls that the module is made to answer instead of executing them.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

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

#[derive(Debug, Default)]
pub struct Injector {
    plan: Mutex<Option<Injection>>,
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

    /// What the next call, of leaf `leaf`, is answered without being executed.
    pub fn answer(&self, leaf: u64) -> Option<u64> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let plan = (*self.plan.lock().unwrap())?;
        let hit = (plan.after..plan.after + plan.times).contains(&call);
        hit.then(|| self.hit.lock().unwrap().push(leaf));
        hit.then_some(plan.rax)
    }
}
