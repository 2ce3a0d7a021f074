//! The host changes tables while the guest runs: the preemption timer interrupts it wherever it happens to be.

use alloc::rc::Rc;
use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_mmu::GpaRange;
use tdx_mmu::td::Resolution;

use super::large;
use crate::check;
use crate::check_eq;
use crate::frames;
use crate::frames::FRAME;
use crate::log;
use crate::machine::Event;
use crate::machine::Outcome;
use crate::machine::UNLIMITED;
use crate::physical;
use crate::protocol::operation;
use crate::report;
use crate::seam_guest;
use crate::session::Session;
use crate::td::TdGuest;

const WORK: u64 = 0x0400_0000;
const WORK_BYTES: u64 = 2 << 20;
const PAGES: u64 = 0x0500_0000;
const PAGES_BYTES: u64 = 128 << 10;
const VICTIM: u64 = 0x0600_0000;
const VICTIM_BYTES: u64 = 2 << 20;
const BLOCKED: u64 = 0x0700_0000;
/// Ticks between two interrupts: short enough for dozens of them in each case.
const TICKS: u32 = 40_000;
const SEED: u64 = 51;

pub(super) fn run(session: &mut Session) {
    report::group("changes while the guest runs");
    split_and_promote(session);
    relocate(session);
    remove(session);
    blocked(session);
}

fn range(start: u64, bytes: u64) -> GpaRange {
    GpaRange::new(start, bytes).unwrap_or_else(|| panic!("{start:#x} + {bytes:#x} is no range"))
}

/// Lets the guest add 1 to every word `rounds` times, with `step` at each interrupt until it returns false.
fn increment(
    session: &mut Session,
    start: u64,
    bytes: u64,
    rounds: u64,
    step: &mut dyn FnMut(&mut TdGuest) -> bool,
) -> Outcome {
    session.interrupt_every(TICKS);
    let mut more = true;
    let outcome = session.perform_with(
        [operation::INCREMENT, start, bytes, rounds],
        &mut |guest, event| {
            if event == Event::Timer && more {
                more = step(guest);
            }
            None
        },
    );
    session.interrupt_every(UNLIMITED);
    outcome
}

/// Operand of `VERIFY` for the pattern with every word `rounds` higher.
const fn incremented(rounds: u64) -> u64 {
    SEED | rounds << 32
}

fn split_and_promote(session: &mut Session) {
    const ROUNDS: u64 = 2;
    session.guest.td.embedder().give_private(Level::Pd);
    check_eq!(
        "2 MiB to work on",
        session.perform([operation::ACCEPT, WORK, WORK_BYTES, 1]),
        Outcome::Done(0, 1, 0)
    );
    session.guest.td.embedder().give_private(Level::Pt);
    session.perform([operation::FILL, WORK, WORK_BYTES, SEED]);
    let (mut splits, mut promotions, mut failures) = (0, 0, 0);
    let before = session.counts;
    let outcome = increment(session, WORK, WORK_BYTES, ROUNDS, &mut |guest| {
        if splits == promotions {
            match guest.td.split(PrivateGpa::new(WORK)) {
                Ok(()) => splits += 1,
                Err(error) => {
                    log!("split: {error}");
                    failures += 1;
                }
            }
        } else {
            match guest.td.promote(&[range(WORK, WORK_BYTES)]) {
                Ok(1) => promotions += 1,
                other => {
                    log!("promote: {other:?}");
                    failures += 1;
                }
            }
        }
        failures == 0
    });
    log!(
        "{splits} splits, {promotions} promotions, {} interrupts",
        session.counts.timers - before.timers
    );
    check_eq!(
        "the guest works while its memory is split and promoted",
        outcome,
        Outcome::Done(0, 0, 0)
    );
    check!("many times", splits >= 4 && promotions >= 4);
    check_eq!("without a failure", failures, 0);
    check_eq!(
        "and without a violation",
        session.counts.private_violations,
        before.private_violations
    );
    let verified = session.perform([operation::VERIFY, WORK, WORK_BYTES, incremented(ROUNDS)]);
    check_eq!("no addition was lost", verified, Outcome::Done(0, 0, 0));
}

fn relocate(session: &mut Session) {
    const ROUNDS: u64 = 24;
    let pages = PAGES_BYTES / FRAME;
    check_eq!(
        "pages to move",
        session.perform([operation::FILL, PAGES, PAGES_BYTES, SEED]),
        Outcome::Done(0, 0, pages)
    );
    let (mut moved, mut failures) = (0, 0);
    let outcome = increment(session, PAGES, PAGES_BYTES, ROUNDS, &mut |guest| {
        let gpa = PrivateGpa::new(PAGES + moved % pages * FRAME);
        let target = frames::allocate_frame()
            .and_then(|frame| Page::assume_owned(Hpa::new(frame), Level::Pt));
        let Some(target) = target else { return false };
        match guest.td.relocate(gpa, target) {
            Ok(()) => moved += 1,
            Err(rejected) => {
                log!("relocate: {}", rejected.error);
                failures += 1;
            }
        }
        failures == 0
    });
    log!("{moved} pages moved");
    check_eq!(
        "the guest works while its pages move",
        outcome,
        Outcome::Done(0, 0, 0)
    );
    check!("some of them", moved >= 8);
    check_eq!("without a failure", failures, 0);
    let verified = session.perform([operation::VERIFY, PAGES, PAGES_BYTES, incremented(ROUNDS)]);
    check_eq!("no addition was lost", verified, Outcome::Done(0, 0, 0));
}

fn remove(session: &mut Session) {
    const ROUNDS: u64 = 1;
    const PIECE: u64 = 64 << 10;
    const SCRIBBLE: u64 = 0x5c51_bb1e_5c51_bb1e;
    let pages = VICTIM_BYTES / FRAME;
    check_eq!(
        "memory to take away",
        session.perform([operation::FILL, VICTIM, VICTIM_BYTES, SEED]),
        Outcome::Done(0, 0, pages)
    );
    let flushes = seam_guest::flushes();
    let before = session.counts.private_violations;
    let mut taken = alloc::vec::Vec::new();
    let (mut gone, mut failures) = (0, 0);
    let outcome = increment(session, WORK, WORK_BYTES, ROUNDS, &mut |guest| {
        if gone == VICTIM_BYTES {
            return false;
        }
        match guest.td.unmap_private(&[range(VICTIM + gone, PIECE)]) {
            Ok(()) => gone += PIECE,
            Err(error) => {
                log!("unmap: {error}");
                failures += 1;
            }
        }
        // Whoever gets the frames next writes to them at once.
        for _ in 0..PIECE / FRAME {
            let Some(frame) = frames::allocate_frame() else {
                break;
            };
            if let Some(words) = physical::frame(frame) {
                words
                    .iter()
                    .for_each(|word| word.store(SCRIBBLE, Ordering::SeqCst));
            }
            taken.push(frame);
        }
        failures == 0
    });
    check_eq!(
        "the guest works while other memory is blocked, tracked and removed",
        outcome,
        Outcome::Done(0, 0, 0)
    );
    check!("in several pieces", gone >= 8 * PIECE);
    check_eq!("without a failure", failures, 0);
    check_eq!(
        "an entry after each TRACK flushes",
        seam_guest::flushes() - flushes,
        gone / PIECE
    );
    check_eq!("no violation", session.counts.private_violations, before);
    check_eq!(
        "what was removed is not mapped",
        large::level(session, VICTIM),
        None
    );
    let verified = session.perform([operation::VERIFY, WORK, WORK_BYTES, incremented(ROUNDS + 2)]);
    check_eq!("no addition was lost", verified, Outcome::Done(0, 0, 0));
    let again = session.perform([operation::READ, VICTIM, 0, 0]);
    check_eq!(
        "the guest gets it back empty",
        again,
        Outcome::Done(0, 0, 1)
    );
    session.perform([operation::FILL, VICTIM, gone, SEED + 1]);
    let intact = taken.iter().filter_map(|frame| physical::frame(*frame));
    let touched = intact
        .flatten()
        .filter(|word| word.load(Ordering::SeqCst) != SCRIBBLE)
        .count();
    check_eq!(
        "nobody wrote to the frames that were given away",
        touched,
        0
    );
    taken.iter().for_each(|frame| frames::free(*frame, FRAME));
}

fn blocked(session: &mut Session) {
    check_eq!(
        "a page to block",
        session.perform([operation::WRITE, BLOCKED, 9, 0]),
        Outcome::Done(0, 0, 1)
    );
    let td = Rc::clone(&session.guest.td);
    let ranges = [range(BLOCKED, FRAME)];
    let blocked = match td.block(&ranges) {
        Ok(blocked) => blocked,
        Err(error) => return report::check("a page is blocked", false, format_args!("{error}")),
    };
    check_eq!(
        "the CPU finds it blocked",
        large::level(session, BLOCKED),
        None
    );
    let stopped = session.perform([operation::READ, BLOCKED, 0, 0]);
    check!(
        "an access to a blocked page exits",
        matches!(stopped, Outcome::Stopped(Event::Violation(_)))
    );
    check_eq!(
        "and has to wait",
        session.resolution,
        Some(Resolution::Retry)
    );
    let removed = blocked.track().and_then(|tracked| tracked.remove());
    check!("it is tracked and removed", removed.is_ok());
    check_eq!(
        "then the access gets a new page",
        session.finish(),
        Outcome::Done(0, 0, 1)
    );
}
