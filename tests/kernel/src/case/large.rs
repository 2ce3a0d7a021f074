//! Private 2 MiB pages: accepted whole, split for a guest that accepts less, and split by a partial conversion.

use tdx_abi::Level;

use super::shared::SHARED;
use crate::check_eq;
use crate::frames::FRAME;
use crate::machine::Outcome;
use crate::protocol::operation;
use crate::report;
use crate::session::Session;
use crate::tables;

const ACCEPTED_WHOLE: u64 = 0x0200_0000;
const ACCEPTED_SMALL: u64 = 0x0220_0000;
const SIZE: u64 = 2 << 20;
const PAGES: u64 = SIZE / FRAME;

pub(super) fn run(session: &mut Session) {
    report::group("private memory, 2 MiB");
    session.guest.td.embedder().give_private(Level::Pd);
    whole(session);
    small(session);
    partial_conversion(session);
    session.guest.td.embedder().give_private(Level::Pt);
}

/// Level of the leaf that the CPU uses for `gpa`.
pub(super) fn level(session: &Session, gpa: u64) -> Option<u32> {
    let found = tables::walk(session.guest.root()?, gpa)?;
    found.translate(gpa).map(|_| found.level)
}

fn whole(session: &mut Session) {
    let before = session.counts;
    let accepted = session.perform([operation::ACCEPT, ACCEPTED_WHOLE, SIZE, Level::Pd as u64]);
    check_eq!(
        "the guest accepts 2 MiB by one call",
        accepted,
        Outcome::Done(0, 1, 0)
    );
    check_eq!(
        "after one exit",
        session.counts.private_violations - before.private_violations,
        1
    );
    check_eq!(
        "the CPU walks a 2 MiB leaf",
        level(session, ACCEPTED_WHOLE),
        Some(1)
    );
    let zero = session.perform([operation::READ, ACCEPTED_WHOLE + SIZE - 8, 0, 0]);
    check_eq!("it is zero", zero, Outcome::Done(0, 0, 0));
    check_eq!(
        "the guest fills it",
        session.perform([operation::FILL, ACCEPTED_WHOLE, SIZE, 31]),
        Outcome::Done(0, 0, 0)
    );
    check_eq!(
        "and finds it",
        session.perform([operation::VERIFY, ACCEPTED_WHOLE, SIZE, 31]),
        Outcome::Done(0, 0, 0)
    );
    check_eq!(
        "no more exits",
        session.counts.private_violations - before.private_violations,
        1
    );
}

fn small(session: &mut Session) {
    let before = session.counts;
    let filled = session.perform([operation::FILL, ACCEPTED_SMALL, SIZE, 32]);
    check_eq!(
        "a guest that accepts 4 KiB pages fills 2 MiB",
        filled,
        Outcome::Done(0, 0, PAGES)
    );
    check_eq!(
        "one leaf was split for it",
        session.counts.splits - before.splits,
        1
    );
    check_eq!(
        "after two exits",
        session.counts.private_violations - before.private_violations,
        2
    );
    check_eq!(
        "the CPU walks 4 KiB leaves",
        level(session, ACCEPTED_SMALL),
        Some(0)
    );
    check_eq!(
        "the guest finds its data",
        session.perform([operation::VERIFY, ACCEPTED_SMALL, SIZE, 32]),
        Outcome::Done(0, 0, 0)
    );
}

fn partial_conversion(session: &mut Session) {
    let middle = ACCEPTED_WHOLE + SIZE / 2;
    let converted = session.perform([operation::CONVERT, middle | SHARED, FRAME, 0]);
    check_eq!(
        "one page in the middle becomes shared",
        converted.value(),
        Some(0)
    );
    check_eq!(
        "the 2 MiB leaf was split",
        level(session, ACCEPTED_WHOLE),
        Some(0)
    );
    check_eq!("that page is gone", level(session, middle), None);
    let below = session.perform([operation::VERIFY, ACCEPTED_WHOLE, SIZE / 2, 31]);
    check_eq!(
        "the memory below it is as it was, without a #VE",
        below,
        Outcome::Done(0, 0, 0)
    );
    let last = session.perform([operation::READ, ACCEPTED_WHOLE + SIZE - 8, 0, 0]);
    check_eq!(
        "so is that above",
        last.value(),
        Some(crate::protocol::pattern(31, SIZE / 8 - 1))
    );
}
