//! The guest's accesses to memory that is under test.
//!
//! Every address here comes from the host and is outside the guest's image, so no Rust object lies there.

use core::arch::asm;

use crate::protocol::pattern;

/// Reads a word with the one load instruction that the MMIO handler knows.
pub(crate) fn read(address: u64) -> u64 {
    let value;
    // SAFETY: the guest maps the first GiB of private and of shared memory; a fault is answered or reported.
    unsafe {
        asm!("mov rax, [rdi]", in("rdi") address, out("rax") value, options(nostack, readonly, preserves_flags))
    }
    value
}

/// Writes a word with the one store instruction that the MMIO handler knows.
pub(crate) fn write(address: u64, value: u64) {
    // SAFETY: as in `read`; no Rust object lies outside the image.
    unsafe {
        asm!("mov [rdi], rax", in("rdi") address, in("rax") value, options(nostack, preserves_flags))
    }
}

/// Fills a range with a pattern.
pub(crate) fn fill(start: u64, bytes: u64, seed: u64) {
    for index in 0..bytes / 8 {
        write(start + index * 8, pattern(seed, index));
    }
}

/// Number of words of a range that differ from a pattern with `added` to each word, and the address of the first.
pub(crate) fn verify(start: u64, bytes: u64, seed: u64, added: u64) -> (u64, u64) {
    let mut wrong = (0, 0);
    for index in 0..bytes / 8 {
        let address = start + index * 8;
        if read(address) != pattern(seed, index).wrapping_add(added) {
            if wrong.0 == 0 {
                wrong.1 = address;
            }
            wrong.0 += 1;
        }
    }
    wrong
}

/// Copies a range, word by word.
pub(crate) fn copy(from: u64, to: u64, bytes: u64) {
    for offset in (0..bytes).step_by(8) {
        write(to + offset, read(from + offset));
    }
}

/// Adds 1 to every word of a range, `rounds` times over.
pub(crate) fn increment(start: u64, bytes: u64, rounds: u64) {
    for _ in 0..rounds {
        for offset in (0..bytes).step_by(8) {
            write(start + offset, read(start + offset).wrapping_add(1));
        }
    }
}

/// Calls the code at `address`, which must be a function without arguments that keeps to the C calling convention.
pub(crate) fn execute(address: u64) -> u64 {
    let result: u32;
    // SAFETY: the host put a whole function there.
    unsafe { asm!("call {}", in(reg) address, lateout("eax") result, clobber_abi("C")) }
    u64::from(result)
}

/// Number of primes below `limit`, by the sieve of Eratosthenes in memory at `start`.
pub(crate) fn primes(start: u64, limit: u64) -> u64 {
    let byte = |number: u64| (start + number) as *mut u8;
    let mut count = 0;
    // SAFETY: as in `write`: the range is the host's choice and outside the image.
    unsafe {
        for number in 0..limit {
            byte(number).write_volatile(u8::from(number >= 2));
        }
        for number in 2..limit {
            if byte(number).read_volatile() == 0 {
                continue;
            }
            count += 1;
            let mut multiple = number * number;
            while multiple < limit {
                byte(multiple).write_volatile(0);
                multiple += number;
            }
        }
    }
    count
}
