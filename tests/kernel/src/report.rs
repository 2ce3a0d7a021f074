//! Checks and the verdict.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering;

use crate::console;
use crate::cpu;
use crate::log;

static PASSED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

/// Prints the title of a group of checks, and how many million instructions the CPU emulator has executed.
pub(crate) fn group(title: &str) {
    log!("# {title} (at {} M)", cpu::time_stamp() / 1_000_000);
}

/// Records one check; a failed one is printed with `details`.
pub(crate) fn check(name: &str, passed: bool, details: core::fmt::Arguments<'_>) {
    if passed {
        PASSED.fetch_add(1, Ordering::Relaxed);
        log!("ok {name}");
    } else {
        FAILED.fetch_add(1, Ordering::Relaxed);
        log!("FAILED {name}: {details}");
    }
}

/// Records that `found` equals `expected`.
#[macro_export]
macro_rules! check_eq {
    ($name:expr, $found:expr, $expected:expr) => {{
        let (found, expected) = (&$found, &$expected);
        $crate::report::check(
            $name,
            found == expected,
            format_args!("found {found:x?}, expected {expected:x?}"),
        );
    }};
}

/// Records that `condition` holds.
#[macro_export]
macro_rules! check {
    ($name:expr, $condition:expr) => {
        $crate::report::check(
            $name,
            $condition,
            format_args!("{} does not hold", stringify!($condition)),
        )
    };
}

/// Prints the verdict and ends the emulation.
pub(crate) fn finish() -> ! {
    let (passed, failed) = (
        PASSED.load(Ordering::Relaxed),
        FAILED.load(Ordering::Relaxed),
    );
    if failed == 0 && passed > 0 {
        log!("took {} M instructions", cpu::time_stamp() / 1_000_000);
        log!("verdict: passed, {passed} checks");
    } else {
        log!("verdict: FAILED, {failed} of {} checks", passed + failed);
    }
    console::power_off()
}
