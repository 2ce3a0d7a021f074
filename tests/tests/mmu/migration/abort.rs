//! Migrations that are given up at every step: the TD runs on where it was, and can migrate again.

use tdx_abi::Level;
use tdx_abi::OpState;
use tdx_abi::StatusCode;
use tdx_abi::format::StatusBits;
use tdx_mmu::Td;
use tdx_mmu::td::Error;

use super::super::compare::Entry;
use super::super::compare::assert_equal;
use super::super::compare::mirror;
use super::super::host::Host;
use super::super::host::ram;
use super::super::host::range;
use super::guest::Guest;
use super::moves::first;
use super::moves::inhabit;
use super::moves::migrate;
use super::pair::Side;
use super::pair::begin;
use super::pair::deliver;
use super::wire::Arrived;
use super::wire::Wire;

/// The TD is as before: ordinary pages, written without a fault, the split page mergeable.
#[track_caller]
pub fn runs_on(td: &Td<Host>, guest: &Guest, split: bool) {
    assert_eq!(td.op_state(), OpState::Runnable);
    assert_equal(td);
    for (place, entry) in mirror(td) {
        if let Entry::Leaf {
            blocked, export, ..
        } = entry
        {
            assert_eq!((blocked, export), (false, None), "{place:x?}");
        }
    }
    assert_eq!(guest.verify(td), []);
    assert_eq!(guest.write(td, [0x10_0000, 0x81_0000]), []);
    if split {
        assert_eq!(td.promote(&[range(0x80_0000, 0x20_0000)]).unwrap(), 1);
    }
    assert_equal(td);
    assert_eq!(guest.verify(td), []);
    guest.take(td, 0x300_0000, 2 * 4096, Level::Pt);
    td.unmap_private(&[range(0x300_0000, 2 * 4096)]).unwrap();
    guest.forget(0x300_0000, 2 * 4096);
    assert_equal(td);
}

/// Aborts after `step` steps; says whether there was that step.
fn abort_after(step: u32, side: &Side, other: &Side, guest: &Guest) -> bool {
    side.exchange_keys(other);
    let td = &side.td;
    let mut out = side.streams(512);
    let out = first(&mut out);
    let mut wire = Wire::from(td.embedder());
    let mut step = step;
    let mut now = || {
        step = step.wrapping_sub(1);
        step == u32::MAX
    };
    let mut live = td.export(out, &mut wire).unwrap();
    macro_rules! maybe {
        ($session:ident, $split:expr) => {
            assert_equal(td);
            if now() {
                $session
                    .abort(out)
                    .unwrap_or_else(|(_, error)| panic!("{error}"));
                runs_on(td, guest, $split);
                return true;
            }
        };
    }
    maybe!(live, false);
    let _ = live.block_writes(&[ram()], out, &mut wire).unwrap();
    maybe!(live, true);
    // Blocked by the round that was given up, so only to be tracked.
    let round = live.block_writes(&[ram()], out, &mut wire).unwrap();
    let round = round.track().unwrap();
    let half = round.export(range(0, 0x88_0000), out, &mut wire).unwrap();
    assert_eq!((half.pages, half.refused), (1 + 300 + 128, 0));
    maybe!(live, true);
    guest.write(td, [0x10_0000, 0x10_1000, 0x80_0000, 0x9f_f000]);
    maybe!(live, true);
    let round = live.block_writes(&[ram()], out, &mut wire).unwrap();
    let _ = round.track().unwrap();
    maybe!(live, true);
    assert_eq!(
        live.cancel(&[range(0x10_0000, 0x4000)], out, &mut wire),
        Ok(4)
    );
    maybe!(live, true);
    let mut paused = live.pause().unwrap_or_else(|(_, error)| panic!("{error}"));
    maybe!(paused, true);
    let round = paused.round(out, &mut wire).unwrap();
    let rest = round.export(ram(), out, &mut wire).unwrap();
    assert_eq!(rest.refused, 0);
    assert_eq!(paused.remaining(ram()), 0);
    maybe!(paused, true);
    paused.export_td(out, &mut wire).unwrap();
    maybe!(paused, true);
    paused.export_vcpu(0, out, &mut wire).unwrap();
    maybe!(paused, true);
    paused
        .abort(out)
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    false
}

#[test]
fn a_session_can_be_aborted_at_every_step() {
    let (source, other) = (Side::source(1), Side::destination());
    let guest = inhabit(&source.td);
    let steps = (0..)
        .take_while(|step| abort_after(*step, &source, &other, &guest))
        .count();
    assert_eq!(steps, 10);
    // After all this it still can move.
    migrate(&source, &other);
    guest.settle(&other.td);
    assert_eq!(guest.verify(&other.td), []);
    source.end();
    other.end();
}

#[test]
fn the_destinations_token_lets_the_source_run_again() {
    let (source, destination) = (Side::source(1), Side::destination());
    source.exchange_keys(&destination);
    let guest = inhabit(&source.td);
    let (mut out, mut into) = (source.streams(512), destination.streams(512));
    let mut wire = Wire::from(source.td.embedder());
    let live = source.td.export(first(&mut out), &mut wire).unwrap();
    let import = begin(&mut wire, &destination.td, first(&mut into));
    let mut paused = live.pause().unwrap_or_else(|(_, error)| panic!("{error}"));
    let round = paused.round(first(&mut out), &mut wire).unwrap();
    round.export(ram(), first(&mut out), &mut wire).unwrap();
    paused.export_td(first(&mut out), &mut wire).unwrap();
    paused.export_vcpu(0, first(&mut out), &mut wire).unwrap();
    let handed = paused
        .hand_over(first(&mut out))
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    deliver(&mut wire, &import, &destination.td, &mut into);
    let mut back = Wire::from(destination.td.embedder());
    import.abort(first(&mut into), &mut back).unwrap();
    assert_eq!(destination.td.op_state(), OpState::FailedImport);
    assert_equal(&destination.td);
    let token = back.bundles.pop_front().unwrap();
    let arrived = |bundle| Arrived {
        host: source.td.embedder(),
        bundle,
    };
    let mut spoiled = token.clone();
    spoiled.spoil();
    let (handed, error) = handed
        .abort(first(&mut out), &arrived(spoiled))
        .unwrap_err();
    assert_eq!(
        error.status().unwrap().code(),
        StatusCode::INCORRECT_MBMD_MAC
    );
    handed
        .abort(first(&mut out), &arrived(token))
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    runs_on(&source.td, &guest, true);
    drop((out, into));
    source.end();
    destination.end();
}

#[test]
fn a_bundle_that_is_not_sent_ends_in_an_abort() {
    let (source, destination) = (Side::source(1), Side::destination());
    source.exchange_keys(&destination);
    let guest = inhabit(&source.td);
    let mut out = source.streams(512);
    let out = first(&mut out);
    let mut wire = Wire::from(source.td.embedder());
    wire.broken = true;
    assert_eq!(
        source.td.export(out, &mut wire).map(drop),
        Err(Error::BundleLost)
    );
    runs_on(&source.td, &guest, false);
    source.exchange_keys(&destination);
    wire.broken = false;
    let mut live = source.td.export(out, &mut wire).unwrap();
    let round = live.block_writes(&[ram()], out, &mut wire).unwrap();
    let round = round.track().unwrap();
    wire.broken = true;
    assert_eq!(round.export(ram(), out, &mut wire), Err(Error::BundleLost));
    wire.broken = false;
    assert_eq!(round.export(ram(), out, &mut wire), Err(Error::BundleLost));
    assert_equal(&source.td);
    live.abort(out)
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    runs_on(&source.td, &guest, true);
}

#[test]
fn a_spoiled_bundle_costs_the_import_and_nothing_else() {
    let (source, destination) = (Side::source(1), Side::destination());
    source.exchange_keys(&destination);
    let guest = inhabit(&source.td);
    let (mut out, mut into) = (source.streams(64), destination.streams(64));
    let mut wire = Wire::from(source.td.embedder());
    let mut live = source.td.export(first(&mut out), &mut wire).unwrap();
    let import = begin(&mut wire, &destination.td, first(&mut into));
    let round = live
        .block_writes(&[ram()], first(&mut out), &mut wire)
        .unwrap();
    let round = round.track().unwrap();
    round.export(ram(), first(&mut out), &mut wire).unwrap();
    let mut bundle = wire.bundles.pop_front().unwrap();
    bundle.spoil();
    let spoiled = Arrived {
        host: destination.td.embedder(),
        bundle,
    };
    let error = import.receive(first(&mut into), &spoiled).unwrap_err();
    let code = error.status().unwrap().code();
    assert!(code.is_fatal(), "{code:?}");
    assert_eq!(
        code.value(),
        StatusBits::from_bits(StatusCode::INVALID_PAGE_MAC.value())
            .with_fatal(true)
            .into_bits()
    );
    assert_eq!(destination.td.op_state(), OpState::FailedImport);
    assert_equal(&destination.td);
    live.abort(first(&mut out))
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    runs_on(&source.td, &guest, true);
    drop((out, into));
    source.end();
    destination.end();
}
