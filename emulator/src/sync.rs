//! The atomics of the lock primitives, which a model checker replaces by its own.

pub(crate) use core::sync::atomic::AtomicU64;
