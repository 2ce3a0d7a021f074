//! Faults put into the tables by hand, behind the MMU's and the module's back: each must be noticed.
//!
//! With an option of the same name, [`leave`] puts one in and lets the ordinary checks find it: that run must fail.

use alloc::rc::Rc;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_mmu::td::Resolution;

use super::private;
use super::shared::SHARED;
use super::shared::share;
use crate::check;
use crate::check_eq;
use crate::frames;
use crate::frames::FRAME;
use crate::machine::Event;
use crate::machine::Next;
use crate::machine::Outcome;
use crate::options;
use crate::protocol::operation;
use crate::report;
use crate::session::Session;
use crate::tables;
use crate::vmx;

/// A private page that the sieve used, behind the sieve.
const PRIVATE: u64 = private::BASE + 0x10_0000;
const SHARED_PAGE: u64 = 0x0800_0000;
const SEED: u64 = 61;
const WORDS: u64 = FRAME / 8;

/// Options that put in a fault for the ordinary checks to find.
const FAULTS: [&str; 4] = [
    "seed-dropped-bit",
    "seed-wrong-page",
    "seed-wrong-level",
    "seed-misconfigured",
];

/// An entry with a fault in it, and what it was.
struct Fault {
    entry: &'static AtomicU64,
    right: u64,
}

impl Fault {
    /// Changes the entry of `level` on the way to `gpa`.
    fn seed(session: &Session, gpa: u64, level: u32, change: impl FnOnce(u64) -> u64) -> Self {
        let entry = session
            .guest
            .root()
            .and_then(|root| tables::entry(root, gpa, level));
        let entry = entry.unwrap_or_else(|| panic!("{gpa:#x} has no entry of level {level}"));
        let right = entry.load(Ordering::SeqCst);
        entry.store(change(right), Ordering::SeqCst);
        flush();
        Self { entry, right }
    }

    fn repair(self) {
        self.entry.store(self.right, Ordering::SeqCst);
        flush();
    }
}

fn flush() {
    assert!(vmx::invalidate_ept().is_ok(), "INVEPT failed");
}

pub(super) fn run(session: &mut Session) {
    session.perform([operation::FILL, PRIVATE, 2 * FRAME, SEED]);
    if options::any() {
        return leave(session);
    }
    report::group("seeded faults");
    share(
        session,
        SHARED_PAGE,
        2 << 20,
        Level::Pt,
        tdx_mmu::shared::Permissions::ALL,
    );
    session.perform([operation::FILL, SHARED_PAGE | SHARED, 2 * FRAME, SEED]);
    dropped_permission(session);
    wrong_pages(session);
    stale(session);
    misconfigured(session);
    check_eq!(
        "with all faults repaired private memory is whole",
        verify(session, PRIVATE),
        Outcome::Done(0, 0, 0)
    );
    check_eq!(
        "and shared memory",
        verify(session, SHARED_PAGE | SHARED),
        Outcome::Done(0, 0, 0)
    );
}

fn verify(session: &mut Session, gpa: u64) -> Outcome {
    session.perform([operation::VERIFY, gpa, 2 * FRAME, SEED])
}

fn dropped_permission(session: &mut Session) {
    let fault = Fault::seed(session, PRIVATE, 0, |entry| entry & !tables::WRITE);
    let word = crate::protocol::pattern(SEED, 0);
    let mut violations = 0;
    let stopped = session.perform_with(
        [operation::WRITE, PRIVATE, word, 0],
        &mut |guest, event| match event {
            Event::Violation(violation) if violation.is_write() => {
                violations += u64::from(guest.resolve() == Some(Resolution::Spurious(Level::Pt)));
                Some(Next::Stop)
            }
            _ => None,
        },
    );
    check!(
        "a dropped write bit exits",
        matches!(stopped, Outcome::Stopped(Event::Violation(_)))
    );
    check_eq!("the MMU says that it had mapped the page", violations, 1);
    fault.repair();
    check_eq!(
        "repaired, the write is done",
        session.finish(),
        Outcome::Done(0, 0, 0)
    );
}

fn wrong_pages(session: &mut Session) {
    let other = session
        .guest
        .root()
        .and_then(|root| tables::entry(root, PRIVATE + FRAME, 0));
    let other = other.map_or(0, |entry| entry.load(Ordering::SeqCst) & tables::ADDRESS);
    let fault = Fault::seed(session, PRIVATE, 0, |entry| {
        entry & !tables::ADDRESS | other
    });
    check_eq!(
        "a page in the place of another is noticed",
        verify(session, PRIVATE),
        Outcome::Done(WORDS, PRIVATE, 0)
    );
    fault.repair();
    let fault = Fault::seed(session, SHARED_PAGE | SHARED, 0, |entry| entry ^ FRAME);
    let found = verify(session, SHARED_PAGE | SHARED);
    check!(
        "a flipped address bit is noticed",
        matches!(found, Outcome::Done(wrong, ..) if wrong > 0)
    );
    fault.repair();
}

fn stale(session: &mut Session) {
    let td = Rc::clone(&session.guest.td);
    let entry = session
        .guest
        .root()
        .and_then(|root| tables::entry(root, PRIVATE, 0))
        .map(|entry| entry.load(Ordering::SeqCst));
    let Some(old) = entry else {
        return report::check("an entry to keep", false, format_args!("none"));
    };
    let target =
        frames::allocate_frame().and_then(|frame| Page::assume_owned(Hpa::new(frame), Level::Pt));
    let moved = target.is_some_and(|target| td.relocate(PrivateGpa::new(PRIVATE), target).is_ok());
    check!("a page moves", moved);
    check_eq!(
        "its content with it",
        verify(session, PRIVATE),
        Outcome::Done(0, 0, 0)
    );
    let fault = Fault::seed(session, PRIVATE, 0, |_| old);
    check_eq!(
        "the old translation is noticed",
        verify(session, PRIVATE),
        Outcome::Done(WORDS, PRIVATE, 0)
    );
    fault.repair();
}

/// Values that the CPU refuses, on the shared side: the module hands these exits on.
fn misconfigured(session: &mut Session) {
    type Change = fn(u64) -> u64;
    let faults: [(&str, u32, Change); 5] = [
        ("write without read is a misconfiguration", 0, |entry| {
            entry & !tables::READ
        }),
        ("memory type 3 is a misconfiguration", 0, |entry| {
            entry & !(7 << 3) | 3 << 3
        }),
        ("an address above MAXPA is a misconfiguration", 0, |entry| {
            entry | 1 << 45
        }),
        (
            "a reserved bit in a link is a misconfiguration",
            1,
            |entry| entry | 1 << 3,
        ),
        (
            "a table taken for a 2 MiB page is a misconfiguration",
            1,
            |entry| entry | tables::LEAF | tables::WRITE_BACK | 1 << 13,
        ),
    ];
    for (name, level, change) in faults {
        let fault = Fault::seed(session, SHARED_PAGE | SHARED, level, change);
        let stopped = session.perform([operation::READ, SHARED_PAGE | SHARED, 0, 0]);
        check_eq!(
            name,
            stopped,
            Outcome::Stopped(Event::Misconfiguration(SHARED_PAGE | SHARED))
        );
        fault.repair();
        check_eq!(
            "repaired, the read is done",
            session.finish().value(),
            Some(crate::protocol::pattern(SEED, 0))
        );
    }
}

/// Puts in the fault that the option names, and checks as if nothing had happened.
fn leave(session: &mut Session) {
    report::group("a fault that nobody expects");
    let (level, change): (u32, fn(u64) -> u64) = match options::first_of(&FAULTS) {
        Some("seed-dropped-bit") => (0, |entry| entry & !tables::WRITE),
        Some("seed-wrong-page") => (0, |entry| entry ^ FRAME),
        // The module trusts its tables: the exit shuts it down.
        Some("seed-misconfigured") => (0, |entry| entry & !(7 << 3) | 3 << 3),
        // The memory around the table becomes the page: what the guest reads there is nothing that it wrote.
        Some("seed-wrong-level") => (1, |entry| {
            entry & !(tables::ADDRESS & ((2 << 20) - 1)) | tables::LEAF | tables::WRITE_BACK
        }),
        _ => {
            return report::check(
                "the option is known",
                false,
                format_args!("expected one of {FAULTS:?}"),
            );
        }
    };
    let fault = Fault::seed(session, PRIVATE, level, change);
    check_eq!(
        "the guest writes",
        session.perform([operation::FILL, PRIVATE + FRAME, FRAME, SEED + 1]),
        Outcome::Done(0, 0, 0)
    );
    check_eq!(
        "the guest writes before it",
        session.perform([operation::COPY, PRIVATE, PRIVATE, FRAME]),
        Outcome::Done(0, 0, 0)
    );
    let first = session.perform([operation::VERIFY, PRIVATE, FRAME, SEED]);
    check_eq!("the first page is as it was", first, Outcome::Done(0, 0, 0));
    fault.repair();
}
