//! Whole migrations.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tdx_abi::Level;
use tdx_abi::OpState;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_emulator::Calls;
use tdx_emulator::Effect;
use tdx_emulator::Fault;
use tdx_emulator::When;
use tdx_mmu::Td;
use tdx_mmu::platform::bring_up::PamtMode;
use tdx_mmu::td::Resolution;
use tdx_mmu::td::migration::Import;
use tdx_mmu::td::migration::Paused;
use tdx_mmu::td::migration::Precopy;
use tdx_mmu::td::migration::Received;
use tdx_mmu::td::migration::Stream;

use super::super::compare::assert_equal;
use super::super::host::Host;
use super::super::host::ram;
use super::super::host::range;
use super::guest::Guest;
use super::pair::Side;
use super::pair::assert_same;
use super::pair::begin;
use super::pair::deliver;
use super::wire::Wire;

pub fn large(td: &Td<Host>, large: bool) {
    *td.embedder().largest.lock().unwrap() = if large { Level::Pd } else { Level::Pt };
}

/// A guest with 300 small pages, a large one, and some that it has not accepted.
pub fn inhabit(td: &Td<Host>) -> Guest {
    let guest = Guest::default();
    guest.settle(td);
    guest.take(td, 0x10_0000, 300 * 4096, Level::Pt);
    large(td, true);
    guest.take(td, 0x80_0000, 0x20_0000, Level::Pd);
    large(td, false);
    td.prefault(range(0xc0_0000, 8 * 4096), Level::Pt).unwrap();
    guest
}

pub const PAGES: u64 = 1 + 300 + 512 + 8;

type Counts = BTreeMap<&'static str, u64>;

pub fn counts(td: &Td<Host>) -> Counts {
    td.embedder().platform.counters().seamcalls_by_name()
}

fn since(td: &Td<Host>, before: &Counts) -> Counts {
    counts(td)
        .into_iter()
        .map(|(leaf, count)| (leaf, count - before.get(leaf).unwrap_or(&0)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

pub fn first<'s, 'e>(streams: &'s mut [Stream<'e, Host>]) -> &'s mut Stream<'e, Host> {
    &mut streams[0]
}

/// Moves the TD while its guest rests, and ends the import.
#[track_caller]
pub fn migrate(source: &Side, destination: &Side) {
    source.exchange_keys(destination);
    let (mut out, mut into) = (source.streams(64), destination.streams(64));
    let mut wire = Wire::from(source.td.embedder());
    let mut live = source.td.export(first(&mut out), &mut wire).unwrap();
    let import = begin(&mut wire, &destination.td, first(&mut into));
    let policy = Precopy {
        rounds: 3,
        threshold: 0,
    };
    live.precopy(ram(), first(&mut out), &mut wire, policy, |_| true)
        .unwrap();
    let paused = live.pause().unwrap_or_else(|(_, error)| panic!("{error}"));
    complete(
        source,
        destination,
        paused,
        &mut out,
        &mut into,
        &mut wire,
        import,
    );
}

/// From the pause to the end.
#[track_caller]
pub fn complete(
    source: &Side,
    destination: &Side,
    mut paused: Paused<'_, Host>,
    out: &mut [Stream<'_, Host>],
    into: &mut [Stream<'_, Host>],
    wire: &mut Wire<'_>,
    import: Import<'_, Host>,
) {
    paused
        .round(first(out), wire)
        .unwrap()
        .export(ram(), first(out), wire)
        .unwrap();
    assert_eq!(paused.remaining(ram()), 0);
    paused.export_td(first(out), wire).unwrap();
    for vcpu in 0..source.td.vcpus() {
        paused.export_vcpu(vcpu, first(out), wire).unwrap();
    }
    let handed = paused
        .hand_over(first(out))
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    handed.send_token(first(out), wire).unwrap();
    deliver(wire, &import, &destination.td, into);
    assert_equal(&source.td);
    assert_same(&source.td, &destination.td);
    import.end().unwrap_or_else(|(_, error)| panic!("{error}"));
}

/// An interrupt waits in every call that takes pages one by one.
fn interrupt_always(td: &Td<Host>) {
    for leaf in [
        SeamcallLeaf::TDH_EXPORT_BLOCKW,
        SeamcallLeaf::TDH_EXPORT_MEM,
        SeamcallLeaf::TDH_EXPORT_STATE_IMMUTABLE,
        SeamcallLeaf::TDH_EXPORT_STATE_TD,
        SeamcallLeaf::TDH_EXPORT_STATE_VP,
        SeamcallLeaf::TDH_IMPORT_MEM,
        SeamcallLeaf::TDH_IMPORT_STATE_IMMUTABLE,
        SeamcallLeaf::TDH_IMPORT_STATE_TD,
        SeamcallLeaf::TDH_IMPORT_STATE_VP,
    ] {
        td.embedder().platform.inject(Fault {
            calls: Calls::Host(leaf),
            when: When::Calls {
                after: 0,
                times: u64::MAX,
            },
            effect: Effect::Interrupt,
        });
    }
}

#[test]
fn a_migration_goes_on_after_every_interruption() {
    let (source, destination) = (Side::source(2), Side::destination());
    let guest = inhabit(&source.td);
    interrupt_always(&source.td);
    interrupt_always(&destination.td);
    migrate(&source, &destination);
    source.td.embedder().platform.clear_faults();
    destination.td.embedder().platform.clear_faults();
    // Each call does one page.
    assert_eq!(counts(&source.td)["TDH.EXPORT.BLOCKW"], PAGES);
    assert_eq!(counts(&source.td)["TDH.EXPORT.MEM"], PAGES);
    assert_eq!(counts(&destination.td)["TDH.IMPORT.MEM"], PAGES);
    assert!(counts(&destination.td)["TDH.IMPORT.STATE.VP"] > 2 * 2);
    guest.settle(&destination.td);
    assert_eq!(guest.verify(&destination.td), []);
    source.end();
    destination.end();
}

#[test]
fn a_running_td_moves_with_equal_content_and_measurement() {
    let (source, destination) = (Side::source(2), Side::destination());
    source.exchange_keys(&destination);
    let guest = inhabit(&source.td);
    let (mut out, mut into) = (source.streams(512), destination.streams(512));
    let mut wire = Wire::from(source.td.embedder());
    let before = counts(&source.td);
    let kicks = source.td.embedder().kicks.load(Ordering::Relaxed);

    let mut live = source.td.export(first(&mut out), &mut wire).unwrap();
    assert_eq!(source.td.op_state(), OpState::LiveExport);
    let import = begin(&mut wire, &destination.td, first(&mut into));

    // Live: the guest writes while its memory is copied.
    let mut rounds = Vec::new();
    let policy = Precopy {
        rounds: 8,
        threshold: 10,
    };
    let last = live
        .precopy(ram(), first(&mut out), &mut wire, policy, |round| {
            assert_equal(&source.td);
            let dirtied = [100, 60, 30, 12, 3][rounds.len()];
            let written = guest.write(
                &source.td,
                (0..dirtied).map(|page| 0x10_0000 + page * 2 * 4096),
            );
            // Each page exits once, whatever is written to it.
            assert_eq!(written, vec![Resolution::WriteAllowed; dirtied as usize]);
            rounds.push((round.exported.pages, dirtied));
            assert_equal(&source.td);
            true
        })
        .unwrap();
    // What a round says is left was counted before the guest wrote in it; the next one exports it.
    assert_eq!(
        rounds,
        [(PAGES, 100)],
        "nothing was dirty when the first round ended"
    );
    assert_eq!(last.remaining, 0);
    for dirtied in [60, 30, 12, 3] {
        let again = live
            .block_writes(&[ram()], first(&mut out), &mut wire)
            .unwrap()
            .track()
            .unwrap()
            .export(ram(), first(&mut out), &mut wire)
            .unwrap();
        assert_eq!(again.refused, 0);
        assert_eq!(again.bundles, 1);
        guest.write(&source.td, (0..dirtied).map(|page| 0x90_0000 + page * 4096));
        assert_equal(&source.td);
        deliver(&mut wire, &import, &destination.td, &mut into);
    }
    assert_eq!(live.remaining(ram()), 3);

    // Downtime.
    let mut paused = live.pause().unwrap_or_else(|(_, error)| panic!("{error}"));
    let last = paused
        .round(first(&mut out), &mut wire)
        .unwrap()
        .export(ram(), first(&mut out), &mut wire)
        .unwrap();
    assert_eq!((last.pages, last.refused), (3, 0));
    assert_eq!(paused.remaining(ram()), 0);
    paused.export_td(first(&mut out), &mut wire).unwrap();
    for vcpu in 0..2 {
        paused
            .export_vcpu(vcpu, first(&mut out), &mut wire)
            .unwrap();
    }
    let handed = paused
        .hand_over(first(&mut out))
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    handed.send_token(first(&mut out), &mut wire).unwrap();
    assert_eq!(source.td.op_state(), OpState::PostExport);
    assert_equal(&source.td);
    let received = deliver(&mut wire, &import, &destination.td, &mut into);
    assert_eq!(
        &received[received.len() - 4..],
        [
            Received::Td,
            Received::Vcpu(0),
            Received::Vcpu(1),
            Received::Start
        ]
    );

    assert_same(&source.td, &destination.td);
    import.end().unwrap_or_else(|(_, error)| panic!("{error}"));
    assert_eq!(destination.td.op_state(), OpState::Runnable);

    // The guest runs on over there: all that it wrote is there, and nothing faults.
    guest.settle(&destination.td);
    assert_eq!(guest.verify(&destination.td), []);
    guest.take(&destination.td, 0xc0_0000, 8 * 4096, Level::Pt);
    guest.take(&destination.td, 0x200_0000, 4 * 4096, Level::Pt);
    guest.verify(&destination.td);
    assert_equal(&destination.td);

    let cost = since(&source.td, &before);
    let leaf = |name| cost.get(name).copied().unwrap_or(0);
    // 821 pages in two lists; then one list of each kind for each round.
    assert_eq!(leaf("TDH.EXPORT.BLOCKW"), 2 + 4);
    assert_eq!(leaf("TDH.EXPORT.MEM"), 2 + 4 + 1);
    // One for the large page that is split, one for each round.
    assert_eq!(leaf("TDH.MEM.TRACK"), 1 + 1 + 4);
    assert_eq!(leaf("TDH.MEM.PAGE.DEMOTE"), 1);
    // Each page that is written between two rounds.
    assert_eq!(leaf("TDH.EXPORT.UNBLOCKW"), 100 + 60 + 30 + 12 + 3);
    // Nobody was inside when writes were blocked.
    assert_eq!(source.td.embedder().kicks.load(Ordering::Relaxed), kicks);
    drop((out, into));
    source.end();
    destination.end();
}

#[test]
fn precopy_goes_on_until_few_pages_are_left() {
    let (source, destination) = (Side::source(1), Side::destination());
    source.exchange_keys(&destination);
    let guest = inhabit(&source.td);
    let mut out = source.streams(512);
    let mut wire = Wire::from(source.td.embedder());
    let mut live = source.td.export(first(&mut out), &mut wire).unwrap();
    // The guest dirties pages while a round is exported: the wire is where it gets to run.
    let mut dirtied = vec![4, 40, 90];
    let td = &source.td;
    let mut exported = Vec::new();
    let mut sink = |bundle: &tdx_mmu::td::migration::Bundle<'_, '_, Host>| {
        if bundle.is_memory()
            && bundle.len() < 512
            && let Some(count) = dirtied.pop()
        {
            guest.write(td, (0..count).map(|page| 0x10_0000 + page * 4096));
        }
        Ok(())
    };
    let policy = Precopy {
        rounds: 8,
        threshold: 10,
    };
    let last = live
        .precopy(ram(), first(&mut out), &mut sink, policy, |round| {
            exported.push((round.exported.pages, round.remaining));
            true
        })
        .unwrap();
    assert_eq!(exported, [(PAGES, 90), (90, 40), (40, 4)]);
    assert_eq!(last.number, 3);
    assert_equal(td);
    live.abort(first(&mut out))
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    drop(out);
    source.end();
    destination.end();
}

/// Both sides have Dynamic PAMT: the split of the large page on the way out takes a pair, and so does each 2 MiB range
/// that an imported page is the first of, Secure-EPT and control pages among them. At the end none is left.
#[test]
fn a_td_moves_with_dynamic_pamt() {
    let source = Side::source_on(1, PamtMode::Dynamic);
    let destination = Side::destination_on(PamtMode::Dynamic);
    let guest = inhabit(&source.td);
    let pairs = |side: &Side| side.td.embedder().pamt_pairs();
    let (here, there) = (pairs(&source), pairs(&destination));
    migrate(&source, &destination);
    assert_same(&source.td, &destination.td);
    // The large page lies in one range of the host's memory.
    assert_eq!(pairs(&source), here + 1);
    // Guest memory lies at its place in the backing: 300 pages and one in the first two ranges, the large one, eight.
    assert_eq!(pairs(&destination), there + 4);
    source.td.embedder().check_pamt();
    destination.td.embedder().check_pamt();
    guest.settle(&destination.td);
    assert_eq!(guest.verify(&destination.td), []);
    source.end();
    destination.end();
}
