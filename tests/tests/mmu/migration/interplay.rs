//! What else happens to memory while it is exported.

use tdx_abi::Level;
use tdx_abi::PrivateGpa;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::embed::Backing;
use tdx_mmu::td::Error;
use tdx_mmu::td::Resolution;
use tdx_mmu::td::migration::Received;

use super::super::compare::assert_equal;
use super::super::host::ram;
use super::super::host::range;
use super::guest::Guest;
use super::moves::PAGES;
use super::moves::complete;
use super::moves::first;
use super::moves::inhabit;
use super::moves::large;
use super::pair::Side;
use super::pair::assert_same;
use super::pair::begin;
use super::pair::deliver;
use super::wire::Wire;
use std::sync::atomic::Ordering;

#[test]
fn memory_is_converted_discarded_moved_and_added_while_it_is_exported() {
    let (source, destination) = (Side::source(1), Side::destination());
    source.exchange_keys(&destination);
    let td = &source.td;
    let guest = inhabit(td);
    let (mut out, mut into) = (source.streams(512), destination.streams(512));
    let mut wire = Wire::from(td.embedder());
    let mut live = td.export(first(&mut out), &mut wire).unwrap();
    let import = begin(&mut wire, &destination.td, first(&mut into));

    // Blocked for writing, not exported yet: unmapped at once.
    let _ = live
        .block_writes(&[range(0x10_0000, 8 * 4096)], first(&mut out), &mut wire)
        .unwrap();
    td.discard(&[range(0x10_0000, 2 * 4096)]).unwrap();
    guest.forget(0x10_0000, 2 * 4096);
    assert_equal(td);
    let spare = td.embedder().spare(0);
    td.relocate(PrivateGpa::new(0x10_3000), spare).unwrap();
    assert_equal(td);

    let round = live
        .block_writes(&[ram()], first(&mut out), &mut wire)
        .unwrap();
    let sent = round
        .track()
        .unwrap()
        .export(ram(), first(&mut out), &mut wire)
        .unwrap();
    assert_eq!((sent.pages, sent.refused), (PAGES - 2, 0));
    deliver(&mut wire, &import, &destination.td, &mut into);

    // Exported: nothing changes before the export is cancelled.
    let converted = range(0x10_8000, 3 * 4096);
    let refused = td.convert(converted, Visibility::Shared);
    assert!(
        matches!(refused, Err(Error::Exported(at)) if at.gpa == PrivateGpa::new(0x10_8000)),
        "{refused:?}"
    );
    assert!(matches!(
        td.discard(&[range(0x10_7000, 0x10_0000)]),
        Err(Error::Exported(_))
    ));
    let spare = td.embedder().spare(1);
    let rejected = td.relocate(PrivateGpa::new(0x10_7000), spare).unwrap_err();
    assert!(matches!(rejected.error, Error::Exported(_)));
    td.embedder()
        .take_back(PrivateGpa::new(0), rejected.page.unwrap());
    assert_eq!(td.promote(&[range(0x80_0000, 0x20_0000)]), Ok(0));
    assert_equal(td);

    let moved = range(0x10_7000, 4096);
    let discarded = range(0x90_0000, 16 * 4096);
    assert_eq!(
        live.cancel(&[converted, moved, discarded], first(&mut out), &mut wire),
        Ok(3 + 1 + 16)
    );
    assert_equal(td);
    td.convert(converted, Visibility::Shared).unwrap();
    guest.forget(0x10_8000, 3 * 4096);
    td.discard(&[discarded]).unwrap();
    guest.forget(0x90_0000, 16 * 4096);
    let spare = td.embedder().spare(2);
    td.relocate(PrivateGpa::new(0x10_7000), spare).unwrap();
    assert_equal(td);
    let received = deliver(&mut wire, &import, &destination.td, &mut into);
    let cancelled: u64 = received
        .iter()
        .map(|received| match received {
            Received::Memory { pages, .. } => *pages,
            _ => 0,
        })
        .sum();
    assert_eq!(cancelled, 20);

    // Some of it comes back, and there is new memory, in small pages.
    large(td, true);
    let resolutions = guest.take(td, 0x90_0000, 4 * 4096, Level::Pt);
    assert_eq!(resolutions, [Resolution::Mapped(Level::Pt); 4]);
    guest.take(td, 0x400_0000, 4 * 4096, Level::Pt);
    assert_eq!(
        td.prefault(range(0x500_0000, 0x20_0000), Level::Pd),
        Ok(0x20_0000)
    );
    large(td, false);
    td.discard(&[range(0x500_2000, 0x1f_e000)]).unwrap();
    guest.write(td, [0x10_7000, 0x10_f000]);
    assert_equal(td);
    let round = live
        .block_writes(&[ram()], first(&mut out), &mut wire)
        .unwrap();
    let sent = round
        .track()
        .unwrap()
        .export(ram(), first(&mut out), &mut wire)
        .unwrap();
    // What came back, what is new, two pages not accepted, the moved page and the one that was written.
    assert_eq!((sent.pages, sent.refused), (4 + 4 + 2 + 2, 0));
    deliver(&mut wire, &import, &destination.td, &mut into);
    assert_same(td, &destination.td);

    let paused = live.pause().unwrap_or_else(|(_, error)| panic!("{error}"));
    complete(
        &source,
        &destination,
        paused,
        &mut out,
        &mut into,
        &mut wire,
        import,
    );
    guest.settle(&destination.td);
    assert_eq!(guest.verify(&destination.td), []);
    drop((out, into));
    source.end();
    destination.end();
}

#[test]
fn a_vcpu_that_stays_inside_has_to_be_kicked_once() {
    let (source, destination) = (Side::source(1), Side::destination());
    source.exchange_keys(&destination);
    let td = &source.td;
    inhabit(td);
    let host = td.embedder();
    let mut out = source.streams(512);
    let out = first(&mut out);
    let mut wire = Wire::from(host);
    let mut live = td.export(out, &mut wire).unwrap();
    let small = range(0x10_0000, 300 * 4096);
    for kicked in [false, true] {
        let before = host.kicks.load(Ordering::Relaxed);
        host.kick_disabled.store(!kicked, Ordering::Relaxed);
        let inside = td.enter(0).unwrap();
        host.enter(0, td.tdvpr(0).unwrap());
        let round = live.block_writes(&[small], out, &mut wire).unwrap();
        let round = round.track().unwrap();
        let sent = round.export(small, out, &mut wire).unwrap();
        host.leave(0);
        drop(inside);
        // Without the kick the vCPU could still write, and the module refuses every page.
        let expected = if kicked { (300, 0) } else { (0, 300) };
        assert_eq!((sent.pages, sent.refused), expected);
        assert_eq!(
            host.kicks.load(Ordering::Relaxed) - before,
            usize::from(kicked)
        );
        assert_equal(td);
    }
    // A pause forces it out as well.
    let inside = td.enter(0).unwrap();
    host.enter(0, td.tdvpr(0).unwrap());
    let paused = live.pause().unwrap_or_else(|(_, error)| panic!("{error}"));
    drop(inside);
    paused
        .abort(out)
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    assert_equal(td);
}

#[test]
fn streams_carry_memory_side_by_side() {
    let (source, destination) = (Side::source(1), Side::destination());
    source.exchange_keys(&destination);
    let guest = inhabit(&source.td);
    let (mut out, mut into) = (source.streams(32), destination.streams(32));
    let mut wire = Wire::from(source.td.embedder());
    let mut live = source.td.export(first(&mut out), &mut wire).unwrap();
    let import = begin(&mut wire, &destination.td, first(&mut into));
    let parts = [range(0, 0x80_0000), range(0x80_0000, 0x3f80_0000)];
    for _ in 0..2 {
        let round = live
            .block_writes(&parts, first(&mut out), &mut wire)
            .unwrap()
            .track()
            .unwrap();
        deliver(&mut wire, &import, &destination.td, &mut into);
        let wires: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = out
                .iter_mut()
                .zip(parts)
                .zip(0..)
                .map(|((stream, part), lp)| {
                    let (round, td) = (&round, &source.td);
                    scope.spawn(move || {
                        super::super::host::run_on(lp);
                        let mut wire = Wire::from(td.embedder());
                        round.export(part, stream, &mut wire).unwrap();
                        wire
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(wires.iter().all(|wire| wire.passed.0 > 0));
        std::thread::scope(|scope| {
            for ((stream, wire), lp) in into.iter_mut().zip(wires).zip(0..) {
                let (import, td) = (&import, &destination.td);
                scope.spawn(move || {
                    super::super::host::run_on(lp);
                    for bundle in wire.bundles {
                        let arrived = super::wire::Arrived {
                            host: td.embedder(),
                            bundle,
                        };
                        import.receive(stream, &arrived).unwrap();
                    }
                });
            }
        });
        assert_equal(&source.td);
        assert_equal(&destination.td);
        let pages = (0..40).flat_map(|page| [0x10_0000 + page * 4096, 0x80_0000 + page * 4096]);
        guest.write(&source.td, pages);
    }
    let paused = live.pause().unwrap_or_else(|(_, error)| panic!("{error}"));
    complete(
        &source,
        &destination,
        paused,
        &mut out,
        &mut into,
        &mut wire,
        import,
    );
    guest.settle(&destination.td);
    assert_eq!(guest.verify(&destination.td), []);
    drop((out, into));
    source.end();
    destination.end();
}

#[test]
fn memory_follows_the_running_td_out_of_order() {
    let (source, destination) = (Side::source(1), Side::destination());
    source.exchange_keys(&destination);
    let guest: Guest = inhabit(&source.td);
    let (mut out, mut into) = (source.streams(512), destination.streams(512));
    let mut wire = Wire::from(source.td.embedder());
    let live = source.td.export(first(&mut out), &mut wire).unwrap();
    let import = begin(&mut wire, &destination.td, first(&mut into));
    let mut paused = live.pause().unwrap_or_else(|(_, error)| panic!("{error}"));
    let early = range(0, 0x12_0000);
    let round = paused.round(first(&mut out), &mut wire).unwrap();
    round.export(early, first(&mut out), &mut wire).unwrap();
    paused.export_td(first(&mut out), &mut wire).unwrap();
    paused.export_vcpu(0, first(&mut out), &mut wire).unwrap();
    let mut handed = paused
        .hand_over(first(&mut out))
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    handed.send_token(first(&mut out), &mut wire).unwrap();
    deliver(&mut wire, &import, &destination.td, &mut into);
    import.commit().unwrap();

    guest.settle(&destination.td);
    let mut resolutions = guest.verify(&destination.td);
    let mut asked = 0;
    while let Some(Resolution::Awaited { gpa }) = resolutions.last().copied() {
        // The source sends the neighbourhood of what the guest waits for.
        asked += 1;
        let wanted = range(gpa & !0xf_ffff, 0x10_0000);
        let sent = handed
            .round()
            .unwrap()
            .export(wanted, first(&mut out), &mut wire)
            .unwrap();
        assert!(sent.pages > 0 && sent.refused == 0, "{sent:?}");
        deliver(&mut wire, &import, &destination.td, &mut into);
        resolutions = guest.go_on(&destination.td);
    }
    assert_eq!(asked, 4);
    // What the guest has not touched follows.
    let left = handed.remaining(ram());
    let sent = handed
        .round()
        .unwrap()
        .export(ram(), first(&mut out), &mut wire)
        .unwrap();
    assert_eq!((sent.pages, handed.remaining(ram())), (left, 0));
    deliver(&mut wire, &import, &destination.td, &mut into);
    assert_same(&source.td, &destination.td);
    import.end().unwrap_or_else(|(_, error)| panic!("{error}"));
    assert_eq!(guest.verify(&destination.td), []);
    drop((out, into));
    source.end();
    destination.end();
}
