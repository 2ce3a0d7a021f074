//! Demand faults on private memory in 4 KiB pages, and the equality of mirror and Secure-EPT.

use tdx_abi::Level;
use tdx_abi::PrivateGpa;
use tdx_mmu::mirror::Kind;

use crate::check_eq;
use crate::embedder::GUEST_MEMORY;
use crate::frames::FRAME;
use crate::log;
use crate::machine::Outcome;
use crate::protocol::operation;
use crate::report;
use crate::session::Session;
use crate::tables;

/// Where this case works.
pub(super) const BASE: u64 = 0x40_0000;
const LIMIT: u64 = 4 << 20;
/// Number of primes below 2^22 (OEIS A007053).
const PRIMES_BELOW_LIMIT: u64 = 295_947;

pub(super) fn run(session: &mut Session) {
    report::group("private memory, 4 KiB on demand");
    let before = session.counts;
    let pages = LIMIT / FRAME;
    let primes = session.perform([operation::PRIMES, BASE, LIMIT, 0]);
    check_eq!(
        "a sieve over 4 MiB finds the primes, a #VE a page",
        primes,
        Outcome::Done(PRIMES_BELOW_LIMIT, 0, pages)
    );
    check_eq!(
        "one EPT violation a page",
        session.counts.private_violations - before.private_violations,
        pages
    );
    // 2097143 is the largest prime below 2^21, and 2^22 - 1 is divisible by 3: the bytes of the words around them.
    let prime = session.perform([operation::READ, BASE + 2_097_136, 0, 0]);
    check_eq!("a prime is marked", prime, Outcome::Done(1 << 56, 0, 0));
    let last = session.perform([operation::READ, BASE + LIMIT - 8, 0, 0]);
    check_eq!(
        "composite numbers are not",
        last.value().map(|word| word >> 56),
        Some(0)
    );
    check_eq!(
        "what is accepted needs no more violations",
        session.counts.private_violations - before.private_violations,
        pages
    );
}

/// The least that a guest does: one page on demand.
pub(super) fn one_page(session: &mut Session) {
    let read = session.perform([operation::READ, BASE, 0, 0]);
    check_eq!("a page is there on demand", read, Outcome::Done(0, 0, 1));
}

/// Number of 4 KiB addresses of the guest's memory for which the MMU's mirror and the CPU's tables disagree on level,
/// kind or physical address. The CPU's side is read from physical memory, not through the MMU.
pub(super) fn differences(session: &Session) -> u64 {
    let Some(root) = session.guest.root() else {
        return u64::MAX;
    };
    let td = &session.guest.td;
    let mut differences = 0;
    let mut gpa = 0;
    let mut mapped = 0;
    while gpa < GUEST_MEMORY {
        let at = td.mirror().look(td.embedder(), PrivateGpa::new(gpa));
        let Some(found) = tables::walk(root, gpa) else {
            return u64::MAX;
        };
        let cpu = (found.level, found.page());
        let mirror = match at.entry.kind() {
            Kind::Leaf(hpa) => (at.level as u32, Some(hpa.bits())),
            _ => (at.level as u32, None),
        };
        if cpu != mirror {
            log!("at {gpa:#x}: CPU {cpu:x?}, mirror {mirror:x?}");
            differences += 1;
        }
        mapped += u64::from(mirror.1.is_some());
        gpa = (gpa & !(at.level.size() - 1)) + at.level.size().min(Level::Pd.size());
    }
    log!("compared {mapped} private leaves");
    if mapped == 0 { u64::MAX } else { differences }
}
