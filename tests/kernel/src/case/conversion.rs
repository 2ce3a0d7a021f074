//! Conversion private -> shared -> private.

use tdx_abi::Level;
use tdx_mmu::shared::Permissions;
use tdx_mmu::td::Resolution;

use super::shared::SHARED;
use super::shared::share;
use crate::check;
use crate::check_eq;
use crate::frames::FRAME;
use crate::machine::Event;
use crate::machine::Outcome;
use crate::protocol::operation;
use crate::report;
use crate::session::Session;

const BASE: u64 = 0x0180_0000;
const BYTES: u64 = (2 << 20) + (256 << 10);
const PAGES: u64 = BYTES / FRAME;

pub(super) fn run(session: &mut Session) {
    report::group("conversion");
    let seeds = [21, 22];
    check_eq!(
        "the guest fills private memory",
        session.perform([operation::FILL, BASE, BYTES, seeds[0]]),
        Outcome::Done(0, 0, PAGES)
    );
    let before = session.counts;
    share(session, BASE, BYTES, Level::Pt, Permissions::ALL);
    check_eq!(
        "the host converts in bounded steps",
        session.counts.map_gpas - before.map_gpas,
        3
    );
    let leaked = session.perform([operation::READ, BASE | SHARED, 0, 0]);
    check_eq!(
        "nothing private shows through",
        leaked,
        Outcome::Done(0, 0, 0)
    );
    let stopped = session.perform([operation::READ, BASE, 0, 0]);
    check!(
        "the private address is not mapped any more",
        matches!(stopped, Outcome::Stopped(Event::Violation(_)))
    );
    check_eq!(
        "the MMU says so",
        session.resolution,
        Some(Resolution::MemoryFault {
            gpa: BASE,
            private: true
        })
    );
    // The VMM decides for the guest, which repeats the access.
    let td = &session.guest.td;
    let range = tdx_mmu::GpaRange::new(BASE, FRAME);
    let back = range.map(|range| {
        td.convert(range, tdx_mmu::attributes::Visibility::Private)
            .is_ok()
    });
    check_eq!("one page is converted back", back, Some(true));
    check_eq!(
        "and is private again, and zero",
        session.finish(),
        Outcome::Done(0, 0, 1)
    );
    let rest = session.perform([
        operation::FILL,
        (BASE + FRAME) | SHARED,
        BYTES - FRAME,
        seeds[1],
    ]);
    check_eq!(
        "its neighbours are still shared",
        rest,
        Outcome::Done(0, 0, 0)
    );
    let back = session.perform([operation::CONVERT, BASE, BYTES, 0]);
    check_eq!("all of it becomes private", back.value(), Some(0));
    check_eq!(
        "the guest accepts it anew",
        session.perform([operation::FILL, BASE, BYTES, seeds[0]]),
        Outcome::Done(0, 0, PAGES - 1)
    );
    check_eq!(
        "and finds what it wrote",
        session.perform([operation::VERIFY, BASE, BYTES, seeds[0]]),
        Outcome::Done(0, 0, 0)
    );
    let stopped = session.perform([operation::READ, BASE | SHARED, 0, 0]);
    check!(
        "the shared address is not mapped any more",
        matches!(stopped, Outcome::Stopped(Event::Violation(_)))
    );
    check_eq!(
        "the MMU says that, too",
        session.resolution,
        Some(Resolution::MemoryFault {
            gpa: BASE,
            private: false
        })
    );
    check!(
        "it is made shared for the guest to go on",
        session
            .guest
            .td
            .convert(whole(), tdx_mmu::attributes::Visibility::Shared)
            .is_ok()
    );
    check!(
        "the guest goes on",
        matches!(session.finish(), Outcome::Done(..))
    );
}

fn whole() -> tdx_mmu::GpaRange {
    tdx_mmu::GpaRange::new(BASE, BYTES).unwrap_or_else(|| panic!("the range is a constant"))
}
