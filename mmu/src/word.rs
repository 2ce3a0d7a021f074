use core::fmt;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

/// One 64-bit word that several threads read and write.
///
/// [`AtomicU64`] in production; a model checker's atomic where the protocols are checked.
pub trait Word: fmt::Debug + Sync {
    /// A word with this value.
    fn new(value: u64) -> Self;
    /// The value.
    fn load(&self, order: Ordering) -> u64;
    /// Replaces the value.
    fn store(&self, value: u64, order: Ordering);
    /// Replaces `current` by `new`; acquires and releases. The value seen is the error.
    fn replace(&self, current: u64, new: u64) -> Result<(), u64>;
    /// Adds, wrapping, sequentially consistent; returns the value before.
    fn add(&self, value: u64) -> u64;
    /// Subtracts, wrapping, sequentially consistent; returns the value before.
    fn sub(&self, value: u64) -> u64;
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    #[inline(always)]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline(always)]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    #[inline(always)]
    fn replace(&self, current: u64, new: u64) -> Result<(), u64> {
        match self.compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(seen) => Err(seen),
        }
    }

    #[inline(always)]
    fn add(&self, value: u64) -> u64 {
        self.fetch_add(value, Ordering::SeqCst)
    }

    #[inline(always)]
    fn sub(&self, value: u64) -> u64 {
        self.fetch_sub(value, Ordering::SeqCst)
    }
}
