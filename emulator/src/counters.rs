//! How often what happened.

use alloc::collections::BTreeMap;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use crate::abi::SeamcallLeaf;
use crate::abi::TdcallLeaf;

/// Leaf numbers that are counted one by one.
const LEAVES: usize = 256;

/// Counters of a platform; they only grow.
#[derive(Debug)]
pub struct Counters {
    seamcalls: [AtomicU64; LEAVES],
    tdcalls: [AtomicU64; LEAVES],
    unknown: AtomicU64,
    kicks: AtomicU64,
    td_entries: AtomicU64,
    td_exits: AtomicU64,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            seamcalls: [const { AtomicU64::new(0) }; LEAVES],
            tdcalls: [const { AtomicU64::new(0) }; LEAVES],
            unknown: AtomicU64::new(0),
            kicks: AtomicU64::new(0),
            td_entries: AtomicU64::new(0),
            td_exits: AtomicU64::new(0),
        }
    }

    pub(crate) fn count_seamcall(&self, leaf: u16) {
        self.seamcalls
            .get(usize::from(leaf))
            .unwrap_or(&self.unknown)
            .fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_tdcall(&self, leaf: u16) {
        self.tdcalls
            .get(usize::from(leaf))
            .unwrap_or(&self.unknown)
            .fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_kick(&self) {
        self.kicks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_entry(&self) {
        self.td_entries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_exit(&self) {
        self.td_exits.fetch_add(1, Ordering::Relaxed);
    }

    /// SEAMCALLs with this leaf.
    pub fn seamcalls(&self, leaf: SeamcallLeaf) -> u64 {
        self.seamcalls
            .get(usize::from(leaf.number()))
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// SEAMCALLs by Intel's leaf name, without those never made.
    pub fn seamcalls_by_name(&self) -> BTreeMap<&'static str, u64> {
        by_name(&self.seamcalls, |leaf| SeamcallLeaf::new(leaf).name())
    }

    /// TDCALLs by Intel's leaf name, without those never made.
    pub fn tdcalls_by_name(&self) -> BTreeMap<&'static str, u64> {
        by_name(&self.tdcalls, |leaf| TdcallLeaf::new(leaf).name())
    }

    /// All SEAMCALLs.
    pub fn all_seamcalls(&self) -> u64 {
        self.seamcalls
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// Kicks: interrupts to all LPs that are inside a TD, waiting until they have left it.
    pub fn kicks(&self) -> u64 {
        self.kicks.load(Ordering::Relaxed)
    }

    /// TD entries.
    pub fn td_entries(&self) -> u64 {
        self.td_entries.load(Ordering::Relaxed)
    }

    /// TD exits.
    pub fn td_exits(&self) -> u64 {
        self.td_exits.load(Ordering::Relaxed)
    }
}

fn by_name(
    counts: &[AtomicU64],
    name: impl Fn(u16) -> Option<&'static str>,
) -> BTreeMap<&'static str, u64> {
    (0u16..)
        .zip(counts)
        .filter_map(|(leaf, count)| Some((name(leaf)?, count.load(Ordering::Relaxed))))
        .filter(|&(_, count)| count != 0)
        .collect()
}
