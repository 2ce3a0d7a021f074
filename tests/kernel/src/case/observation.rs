//! Dirty logging by write protection and ageing by access tracking on the shared side, EPTP.AD being 0 as in a TD.

use alloc::vec::Vec;

use tdx_abi::Level;
use tdx_mmu::shared::Gather;
use tdx_mmu::shared::Permissions;

use super::shared::SHARED;
use super::shared::host_mismatches;
use super::shared::share;
use crate::check_eq;
use crate::frames::FRAME;
use crate::machine::Outcome;
use crate::protocol::operation;
use crate::report;
use crate::session::Session;

const BASE: u64 = 0x0300_0000;
const BYTES: u64 = 256 << 10;
const SEED: u64 = 41;

pub(super) fn run(session: &mut Session) {
    report::group("dirty logging and ageing");
    share(session, BASE, BYTES, Level::Pt, Permissions::READ_WRITE);
    session.guest.td.embedder().take_dirty();
    check_eq!(
        "the guest fills shared memory",
        session.perform([operation::FILL, BASE | SHARED, BYTES, SEED]),
        Outcome::Done(0, 0, 0)
    );
    let unlogged = session.guest.td.embedder().take_dirty();
    check_eq!("nothing is logged before logging begins", unlogged.len(), 0);
    for written in [&[3u64, 7, 8, 40][..], &[0, 7, 63]] {
        dirty(session, written);
    }
    for used in [&[1u64, 2, 50][..], &[2, 62]] {
        aged(session, used);
    }
}

fn section(
    session: &Session,
    run: impl FnOnce(&mut tdx_mmu::shared::EptSection<'_, crate::embedder::Host>, &mut Gather),
) {
    let td = &session.guest.td;
    let mut gather = Gather::new();
    run(&mut td.shared().section(td.embedder()), &mut gather);
    let _flushed = gather.flush(td.embedder());
}

fn dirty(session: &mut Session, written: &[u64]) {
    let start = BASE | SHARED;
    section(session, |section, gather| {
        section.catch_writes(start, start + BYTES, gather)
    });
    let before = session.counts.shared_violations;
    check_eq!(
        "reads go on",
        session
            .perform([operation::READ, start, 0, 0])
            .value()
            .is_some(),
        true
    );
    check_eq!("without an exit", session.counts.shared_violations, before);
    for page in written {
        // Twice each: only the first write of a round exits.
        for word in 0..2 {
            session.perform([
                operation::WRITE,
                start + page * FRAME + word * 8,
                crate::protocol::pattern(SEED, page * 512 + word),
                0,
            ]);
        }
    }
    check_eq!(
        "one exit a written page",
        session.counts.shared_violations - before,
        written.len() as u64
    );
    let mut logged = session.guest.td.embedder().take_dirty();
    logged.sort_unstable();
    let expected: Vec<u64> = written.iter().map(|page| BASE + page * FRAME).collect();
    check_eq!("exactly the written pages are logged", logged, expected);
    check_eq!(
        "the writes arrived",
        host_mismatches(session, BASE, BYTES, SEED),
        Some(0)
    );
}

fn aged(session: &mut Session, used: &[u64]) {
    let start = BASE | SHARED;
    section(session, |section, gather| {
        section.age(start, start + BYTES, gather, |_, _| {})
    });
    let before = session.counts.shared_violations;
    for page in used {
        let value = session.perform([operation::READ, start + page * FRAME, 0, 0]);
        check_eq!(
            "an aged page still has its content",
            value.value(),
            Some(crate::protocol::pattern(SEED, page * 512))
        );
    }
    check_eq!(
        "one exit a page in use",
        session.counts.shared_violations - before,
        used.len() as u64
    );
    let mut found = Vec::new();
    section(session, |section, gather| {
        section.age(start, start + BYTES, gather, |at, in_use| {
            if in_use && !found.contains(&at.gpa.bits()) {
                found.push(at.gpa.bits());
            }
        });
    });
    let expected: Vec<u64> = used.iter().map(|page| start + page * FRAME).collect();
    check_eq!("exactly the used pages are young", found, expected);
    check_eq!(
        "no page was lost",
        session.perform([operation::VERIFY, start, BYTES, SEED]),
        Outcome::Done(0, 0, 0)
    );
}
