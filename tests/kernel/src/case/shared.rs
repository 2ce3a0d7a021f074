//! Demand faults on shared memory, 4 KiB and 2 MiB, seen from both sides, and permissions.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use tdx_abi::Level;
use tdx_mmu::GpaRange;
use tdx_mmu::shared::Attributes;
use tdx_mmu::shared::Permissions;
use tdx_mmu::td::Resolution;

use crate::check;
use crate::check_eq;
use crate::embedder::SharedKind;
use crate::frames::FRAME;
use crate::machine::Event;
use crate::machine::Next;
use crate::machine::Outcome;
use crate::module::SHARED_BIT;
use crate::physical;
use crate::protocol::operation;
use crate::protocol::pattern;
use crate::report;
use crate::session::Session;
use crate::tables;

/// The SHARED bit.
pub(super) const SHARED: u64 = 1 << SHARED_BIT;
const SMALL: u64 = 0x0100_0000;
const LARGE: u64 = 0x0120_0000;
const READ_ONLY: u64 = 0x0140_0000;
const BYTES: u64 = 1 << 20;

pub(super) fn run(session: &mut Session) {
    report::group("shared memory on demand");
    demand(session, SMALL, Level::Pt);
    demand(session, LARGE, Level::Pd);
    permissions(session);
}

/// Makes a range shared at the guest's request, with memory of `level` behind it.
pub(super) fn share(
    session: &mut Session,
    gpa: u64,
    bytes: u64,
    level: Level,
    permissions: Permissions,
) {
    if let Some(range) = GpaRange::new(gpa, bytes) {
        session.guest.td.embedder().rule(
            range,
            SharedKind::Memory(level, Attributes::new(permissions)),
        );
    }
    let converted = session.perform([operation::CONVERT, gpa | SHARED, bytes, 0]);
    check_eq!("the guest makes a range shared", converted.value(), Some(0));
}

fn demand(session: &mut Session, gpa: u64, level: Level) {
    const SEED: u64 = 11;
    share(session, gpa, 2 << 20, level, Permissions::ALL);
    let before = session.counts.shared_violations;
    let filled = session.perform([operation::FILL, gpa | SHARED, BYTES, SEED]);
    check_eq!(
        "the guest fills shared memory without a #VE",
        filled,
        Outcome::Done(0, 0, 0)
    );
    let expected = (BYTES / level.size()).max(1);
    check_eq!(
        "one EPT violation a page",
        session.counts.shared_violations - before,
        expected
    );
    check_eq!(
        "the host sees what the guest wrote",
        host_mismatches(session, gpa, BYTES, SEED),
        Some(0)
    );
    let found = session
        .guest
        .root()
        .and_then(|root| tables::walk(root, gpa | SHARED));
    check_eq!(
        "the CPU walks a leaf of this level",
        found.map(|found| found.level),
        Some(level as u32)
    );
    check!("the host writes", host_fill(session, gpa, BYTES, SEED + 1));
    let seen = session.perform([operation::VERIFY, gpa | SHARED, BYTES, SEED + 1]);
    check_eq!(
        "the guest sees what the host wrote",
        seen,
        Outcome::Done(0, 0, 0)
    );
}

/// Writes a pattern to the guest's shared memory from the host's side.
fn host_fill(session: &Session, gpa: u64, bytes: u64, seed: u64) -> bool {
    for_each_word(session, gpa, bytes, |index, word| {
        word.store(pattern(seed, index), Ordering::SeqCst)
    })
    .is_some()
}

/// Number of words of the guest's shared memory that differ from a pattern, from the host's side.
pub(super) fn host_mismatches(session: &Session, gpa: u64, bytes: u64, seed: u64) -> Option<u64> {
    let mut mismatches = 0;
    for_each_word(session, gpa, bytes, |index, word| {
        mismatches += u64::from(word.load(Ordering::SeqCst) != pattern(seed, index));
    })?;
    Some(mismatches)
}

/// Visits the words of a range that the guest has used; `None` if it has not used all of it.
fn for_each_word(
    session: &Session,
    gpa: u64,
    bytes: u64,
    mut visit: impl FnMut(u64, &AtomicU64),
) -> Option<()> {
    for offset in (0..bytes).step_by(FRAME as usize) {
        let words = physical::frame(session.guest.td.embedder().shared_memory(gpa + offset)?)?;
        (offset / 8..)
            .zip(words)
            .for_each(|(index, word)| visit(index, word));
    }
    Some(())
}

fn permissions(session: &mut Session) {
    share(session, READ_ONLY, FRAME, Level::Pt, Permissions::READ);
    let read = session.perform([operation::READ, READ_ONLY | SHARED, 0, 0]);
    check_eq!("a read-only page can be read", read, Outcome::Done(0, 0, 0));
    let mut writes = 0;
    let stopped = session.perform_with(
        [operation::WRITE, READ_ONLY | SHARED, 1, 0],
        &mut |_, event| {
            writes +=
                u64::from(matches!(event, Event::Violation(violation) if violation.is_write()));
            None
        },
    );
    check!(
        "a write to it exits",
        matches!(stopped, Outcome::Stopped(Event::Violation(_)))
    );
    check_eq!("as a violation of a write", writes, 1);
    check_eq!(
        "which the MMU denies",
        session.resolution,
        Some(Resolution::Denied { gpa: READ_ONLY })
    );
    // The host relents: with more rights the write goes through.
    let td = &session.guest.td;
    let mut gather = tdx_mmu::shared::Gather::new();
    let start = READ_ONLY | SHARED;
    td.shared().section(td.embedder()).protect(
        start,
        start + FRAME,
        Permissions::READ_WRITE,
        &mut gather,
    );
    let _flushed = gather.flush(td.embedder());
    check_eq!(
        "with the right granted the write is done",
        session.finish(),
        Outcome::Done(0, 0, 0)
    );
    let word = session
        .guest
        .td
        .embedder()
        .shared_memory(READ_ONLY)
        .and_then(physical::word);
    check_eq!(
        "and the host sees it",
        word.map(|word| word.load(Ordering::SeqCst)),
        Some(1)
    );
    let fetched = session.perform_with(
        [operation::EXECUTE, READ_ONLY | SHARED, 0, 0],
        &mut |_, event| {
            matches!(event, Event::Violation(violation) if violation.access == tables::EXECUTE)
                .then_some(Next::Stop)
        },
    );
    check!(
        "a fetch from a page without that right exits",
        matches!(fetched, Outcome::Stopped(Event::Violation(_)))
    );
    grant_execution(session);
}

/// Puts a function there from the host's side, grants execution, and lets the guest finish its call.
fn grant_execution(session: &mut Session) {
    // mov eax, 0x600d; ret
    const CODE: u64 = 0xc300_0060_0db8;
    if let Some(word) = session
        .guest
        .td
        .embedder()
        .shared_memory(READ_ONLY)
        .and_then(physical::word)
    {
        word.store(CODE, Ordering::SeqCst);
    }
    let td = &session.guest.td;
    let mut gather = tdx_mmu::shared::Gather::new();
    let start = READ_ONLY | SHARED;
    td.shared()
        .section(td.embedder())
        .protect(start, start + FRAME, Permissions::ALL, &mut gather);
    let _flushed = gather.flush(td.embedder());
    check_eq!(
        "with the right granted the function runs",
        session.finish().value(),
        Some(0x600d)
    );
}
