//! Emulated MMIO: the CPU delivers #VE by itself, the guest asks its host.

use tdx_abi::Level;
use tdx_mmu::GpaRange;
use tdx_mmu::shared::Permissions;

use super::shared::SHARED;
use super::shared::share;
use crate::check_eq;
use crate::embedder::SharedKind;
use crate::frames::FRAME;
use crate::machine::Outcome;
use crate::protocol::operation;
use crate::report;
use crate::session::Device;
use crate::session::Session;
use crate::tables;

const BASE: u64 = 0x0280_0000;

pub(super) fn run(session: &mut Session) {
    report::group("#VE for MMIO");
    share(session, BASE, FRAME, Level::Pt, Permissions::ALL);
    if let Some(range) = GpaRange::new(BASE, FRAME) {
        session.guest.td.embedder().rule(range, SharedKind::Device);
    }
    let before = session.counts;
    let read = session.perform([operation::READ, BASE | SHARED, 0, 0]);
    check_eq!(
        "the guest reads a register by one #VE",
        read,
        Outcome::Done(Device::INITIAL, 0, 1)
    );
    check_eq!(
        "the first access exits, so that the MMU marks the entry",
        session.counts.shared_violations - before.shared_violations,
        1
    );
    let entry = session
        .guest
        .root()
        .and_then(|root| tables::walk(root, BASE | SHARED))
        .map(|found| found.value());
    check_eq!("the entry is 0: #VE is not suppressed", entry, Some(0));
    let write = session.perform([operation::WRITE, (BASE + 8) | SHARED, 0xabcd, 0]);
    check_eq!(
        "it writes another by one #VE",
        write,
        Outcome::Done(0, 0, 1)
    );
    check_eq!(
        "the device has it",
        session.device.read((BASE + 8) | SHARED),
        0xabcd
    );
    let read = session.perform([operation::READ, (BASE + 8) | SHARED, 0, 0]);
    check_eq!("and reads it back", read, Outcome::Done(0xabcd, 0, 1));
    check_eq!(
        "no more exits: the CPU raises #VE itself",
        session.counts.shared_violations - before.shared_violations,
        1
    );
    check_eq!("three requests came", session.counts.mmio - before.mmio, 3);
}
