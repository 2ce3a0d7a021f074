//! The guest: it does what its host asks for, one operation at a time, and tells what it found.
#![no_std]
#![no_main]

mod exception;
mod memory;
/// What the guest and its host say to each other.
mod protocol;
mod tdcall;

use core::arch::global_asm;
use core::panic::PanicInfo;
use core::sync::atomic::Ordering;

use protocol::operation;
use tdcall::Call;
use tdx_abi::Level;

global_asm!(include_str!("start.s"), options(att_syntax));
global_asm!(include_str!("../../src/memory.s"), options(att_syntax));

#[unsafe(no_mangle)]
extern "C" fn guest_main() -> ! {
    let mut results = (0, 0);
    loop {
        let exceptions = exception::COUNT.swap(0, Ordering::Relaxed);
        let call = tdcall::vmcall(Call {
            r10: protocol::VENDOR,
            r11: protocol::NEXT,
            r12: results.0,
            r13: results.1,
            r14: exceptions,
            r15: 0,
        });
        results = perform(call);
    }
}

fn perform(call: Call) -> (u64, u64) {
    let Call {
        r11: operation,
        r12: first,
        r13: second,
        r14: third,
        ..
    } = call;
    match operation {
        operation::READ => (memory::read(first), 0),
        operation::WRITE => {
            memory::write(first, second);
            (0, 0)
        }
        operation::FILL => {
            memory::fill(first, second, third);
            (0, 0)
        }
        operation::VERIFY => memory::verify(first, second, third & 0xffff_ffff, third >> 32),
        operation::EXECUTE => (memory::execute(first), 0),
        operation::ACCEPT => accept(first, second, third),
        operation::CONVERT => convert(first, second),
        operation::PRIMES => (memory::primes(first, second), 0),
        operation::INCREMENT => {
            memory::increment(first, second, third);
            (0, 0)
        }
        operation::LAZY_ACCEPT => {
            exception::LAZY_ACCEPT.store(first != 0, Ordering::Relaxed);
            (0, 0)
        }
        operation::COPY => {
            memory::copy(first, second, third);
            (0, 0)
        }
        unknown => exception::report(u64::MAX, 0, 0, unknown),
    }
}

/// Asks until all of the range is converted; the host does it in steps. Returns the last status, and the number of calls.
fn convert(start: u64, bytes: u64) -> (u64, u64) {
    const RETRY: u64 = 1;
    let mut from = start;
    for calls in 1.. {
        let length = start + bytes - from;
        let answer = tdcall::vmcall(Call {
            r11: protocol::MAP_GPA,
            r12: from,
            r13: length,
            ..Call::default()
        });
        if answer.r10 != RETRY {
            return (answer.r10, calls);
        }
        from = answer.r11;
    }
    (0, 0)
}

fn accept(start: u64, bytes: u64, level: u64) -> (u64, u64) {
    let Some(level) = u8::try_from(level).ok().and_then(Level::new) else {
        return (u64::MAX, 0);
    };
    let mut accepted = 0;
    for gpa in (start..start + bytes).step_by(level.size() as usize) {
        let status = tdcall::accept(gpa, level);
        if status != 0 {
            return (status, accepted);
        }
        accepted += 1;
    }
    (0, accepted)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exception::report(u64::MAX, 0, 0, 0)
}
