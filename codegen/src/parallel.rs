//! Two things at once: macros run without optimization, and the compiler leaves a processor idle meanwhile.

use std::panic::resume_unwind;
use std::thread;

/// What both functions return; `second` runs in a thread of its own. If that panics, so does the caller.
pub(crate) fn both<A, B: Send>(
    first: impl FnOnce() -> A,
    second: impl FnOnce() -> B + Send,
) -> (A, B) {
    thread::scope(|scope| {
        let second = scope.spawn(second);
        let first = first();
        match second.join() {
            Ok(second) => (first, second),
            Err(panic) => resume_unwind(panic),
        }
    })
}
