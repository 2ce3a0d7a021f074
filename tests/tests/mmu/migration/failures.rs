//! Every call of a migration fails in every way: mirror and Secure-EPT stay equal, no page is lost, and what failed
//! can be repeated, or the session aborted where a bundle is torn.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use tdx_abi::Gpa;
use tdx_abi::OperandId;
use tdx_abi::Status;
use tdx_abi::StatusCode;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_emulator::Calls;
use tdx_emulator::Effect;
use tdx_emulator::Fault;
use tdx_emulator::When;
use tdx_mmu::Td;
use tdx_mmu::td::Access;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Error;

use super::super::compare::Entry;
use super::super::compare::assert_equal;
use super::super::compare::mirror;
use super::super::host::Host;
use super::super::host::Injection;
use super::super::host::range;
use super::super::injection::ANSWERS;
use super::super::injection::PATIENCE;
use super::super::injection::empty_quarantine;
use super::abort::runs_on;
use super::moves::first;
use super::moves::inhabit;
use super::moves::migrate;
use super::pair::Side;
use super::pair::assert_same;
use super::pair::begin;
use super::wire::Arrived;
use super::wire::Wire;

/// The mirror is right, and all private pages that are not with the host are mapped.
#[track_caller]
fn check(td: &Td<Host>) {
    assert_equal(td);
    let mapped: u64 = mirror(td)
        .iter()
        .filter(|(_, entry)| matches!(entry, Entry::Leaf { .. }))
        .map(|((_, level), _)| level.size())
        .sum();
    let quarantine = td.embedder().quarantine.lock().unwrap();
    let dirty: u64 = quarantine.iter().map(|(_, page)| page.level().size()).sum();
    assert_eq!(
        td.embedder().private_in_use(),
        mapped + dirty,
        "private pages"
    );
}

/// What an operation of a session does; it may be repeated after any failure.
type Operation<'o> = &'o mut dyn FnMut() -> Result<(), Error>;

/// Lets each call of `operation` be answered in each way; `prepare` comes before each time.
fn every_call(td: &Td<Host>, what: &str, prepare: &mut dyn FnMut(), operation: Operation<'_>) {
    let injector = &td.embedder().injector;
    prepare();
    injector.arm(None);
    operation().unwrap_or_else(|error| panic!("{what}: {error}"));
    let calls = injector.calls.load(Ordering::Relaxed);
    assert!(calls > 0, "{what} makes no call");
    check(td);
    for after in (0..calls).filter(|position| *position < 8 || calls - position <= 4) {
        for (code, times, passes) in ANSWERS {
            if code == StatusCode::INTERRUPTED_RESUMABLE {
                // The module would have nothing to resume; `moves` has real interruptions.
                continue;
            }
            prepare();
            let rax = Status::with_operand(code, OperandId::RCX).rax();
            let injection = Injection { after, times, rax };
            injector.arm(Some(injection));
            let result = operation();
            let hit: BTreeSet<u64> = injector.hit.lock().unwrap().iter().copied().collect();
            injector.arm(None);
            if passes {
                assert_eq!(result, Ok(()), "{what}, {injection:x?}, leaves {hit:?}");
            } else if !hit.is_empty() {
                let error = result.expect_err(what);
                assert!(error.status().is_some(), "{what}, {injection:x?}: {error}");
            }
            check(td);
            operation().unwrap_or_else(|error| panic!("{what}, {injection:x?}, again: {error}"));
            check(td);
        }
    }
}

/// Repeats `operation`, each of whose calls is made once only, until it succeeds: each call fails in each way first.
fn call_by_call(td: &Td<Host>, what: &str, operation: Operation<'_>) -> u64 {
    let injector = &td.embedder().injector;
    for position in 0.. {
        for (code, times, _) in ANSWERS.into_iter().filter(|(_, _, passes)| !passes) {
            let rax = Status::with_operand(code, OperandId::RCX).rax();
            let after = 0;
            injector.arm(Some(Injection { after, times, rax }));
            let error = operation().expect_err(what);
            injector.arm(None);
            assert!(error.status().is_some(), "{what}: {error}");
            check(td);
            empty_quarantine(td);
        }
        // One more call passes.
        let rax = Status::of(StatusCode::OPERAND_INVALID).rax();
        let (after, times) = (1, 1);
        injector.arm(Some(Injection { after, times, rax }));
        let done = operation();
        injector.arm(None);
        check(td);
        empty_quarantine(td);
        if done.is_ok() {
            return position + 1;
        }
    }
    0
}

#[test]
fn every_call_of_an_export_may_fail() {
    let (source, other) = (Side::source(1), Side::destination());
    let td = &source.td;
    let guest = inhabit(td);
    td.embedder().patience.store(PATIENCE, Ordering::Relaxed);
    source.exchange_keys(&other);
    let mut out = source.streams(8);
    let out = std::cell::RefCell::new(first(&mut out));
    let wire = std::cell::RefCell::new(Wire::from(td.embedder()));
    let send = || (out.borrow_mut(), wire.borrow_mut());

    // Without patience for real contention, of which there is none.
    let started = std::cell::RefCell::new(None);
    every_call(
        td,
        "start",
        &mut || {
            let (mut out, _) = send();
            if let Some(live) = started.borrow_mut().take() {
                tdx_mmu::td::migration::Live::abort(live, &mut out)
                    .unwrap_or_else(|(_, error)| panic!("{error}"));
            }
            drop(out);
            source.exchange_keys(&other);
        },
        &mut || {
            if started.borrow().is_some() {
                return Ok(());
            }
            let (mut out, mut wire) = send();
            *started.borrow_mut() = Some(td.export(&mut out, &mut *wire)?);
            Ok(())
        },
    );
    let live = started.take();
    let live = std::cell::RefCell::new(live.unwrap());
    let pages = range(0x10_0000, 20 * 4096);
    let dirty = || {
        guest.write(td, (0..20).map(|page| 0x10_0000 + page * 4096));
    };
    let round = || -> Result<(), Error> {
        let (mut out, mut wire) = send();
        let mut live = live.borrow_mut();
        let round = live.block_writes(&[pages], &mut out, &mut *wire)?.track()?;
        let sent = round.export(pages, &mut out, &mut *wire)?;
        assert_eq!(sent.refused, 0);
        Ok(())
    };
    every_call(td, "a round", &mut || dirty(), &mut || round());
    let large = range(0x80_0000, 0x20_0000);
    every_call(
        td,
        "a round with a large page",
        &mut || {
            let (mut out, mut wire) = send();
            live.borrow_mut()
                .cancel(&[large], &mut out, &mut *wire)
                .unwrap();
        },
        &mut || {
            let (mut out, mut wire) = send();
            let mut live = live.borrow_mut();
            let _ = live.block_writes(&[large], &mut out, &mut *wire)?.track()?;
            Ok(())
        },
    );
    every_call(
        td,
        "a write to an exported page",
        &mut || round().unwrap(),
        &mut || {
            let gpa = Gpa::new(0x10_3000);
            let kind = AccessKind::Write;
            td.fault(Access { gpa, kind }).map(drop)
        },
    );
    every_call(
        td,
        "a cancellation",
        &mut || {
            dirty();
            round().unwrap();
        },
        &mut || {
            let (mut out, mut wire) = send();
            let mut live = live.borrow_mut();
            live.cancel(&[pages], &mut out, &mut *wire).map(drop)
        },
    );
    let session = std::cell::RefCell::new(Some(live.into_inner()));
    every_call(
        td,
        "an abort",
        &mut || {
            let (mut out, mut wire) = send();
            if session.borrow().is_none() {
                drop((out, wire));
                source.exchange_keys(&other);
                (out, wire) = send();
                *session.borrow_mut() = Some(td.export(&mut out, &mut *wire).unwrap());
            }
            let mut session = session.borrow_mut();
            let live = session.as_mut().unwrap();
            let round = live
                .block_writes(&[pages, range(0x80_0000, 0x3000)], &mut out, &mut *wire)
                .unwrap();
            let round = round.track().unwrap();
            round.export(pages, &mut out, &mut *wire).unwrap();
            drop((out, wire));
            guest.write(td, [0x10_4000]);
        },
        &mut || {
            let Some(live) = session.borrow_mut().take() else {
                return Ok(());
            };
            let (mut out, _) = send();
            live.abort(&mut out).map_err(|(live, error)| {
                *session.borrow_mut() = Some(live);
                error
            })
        },
    );
    runs_on(td, &guest, false);
}

/// The downtime: each of its calls fails in each way first, on both sides.
#[test]
fn every_call_of_the_downtime_and_of_an_import_may_fail() {
    let (source, destination) = (Side::source(2), Side::destination());
    let (from, to) = (&source.td, &destination.td);
    let guest = inhabit(from);
    source.exchange_keys(&destination);
    for td in [from, to] {
        td.embedder().patience.store(PATIENCE, Ordering::Relaxed);
    }
    let (mut out, mut into) = (source.streams(128), destination.streams(128));
    let (out, into) = (first(&mut out), first(&mut into));
    let mut wire = Wire::from(from.embedder());
    let mut live = from.export(out, &mut wire).unwrap();
    let bundle = Arrived {
        host: to.embedder(),
        bundle: wire.bundles.pop_front().unwrap(),
    };
    let mut import = None;
    let calls = call_by_call(to, "TDH.IMPORT.STATE.IMMUTABLE", &mut || {
        import = Some(to.import(into, &bundle)?);
        Ok(())
    });
    assert_eq!(calls, 1);
    let import = import.unwrap();
    let all = super::super::host::ram();
    let round = live.block_writes(&[all], out, &mut wire).unwrap();
    round.track().unwrap().export(all, out, &mut wire).unwrap();
    guest.write(from, [0x10_0000, 0x80_0000]);
    assert_eq!(
        live.cancel(&[range(0x10_1000, 4096)], out, &mut wire),
        Ok(1)
    );

    let mut session = Some(live);
    let mut paused = None;
    call_by_call(from, "TDH.EXPORT.PAUSE", &mut || {
        let live = session.take().unwrap();
        match live.pause() {
            Ok(done) => paused = Some(done),
            Err((live, error)) => {
                session = Some(live);
                return Err(error);
            }
        }
        Ok(())
    });
    let mut paused = paused.unwrap();
    call_by_call(from, "the last round", &mut || {
        let round = paused.round(out, &mut wire)?;
        round.export(all, out, &mut wire).map(drop)
    });
    call_by_call(from, "TDH.EXPORT.STATE.TD", &mut || {
        paused.export_td(out, &mut wire)
    });
    for vcpu in 0..2 {
        call_by_call(from, "TDH.EXPORT.STATE.VP", &mut || {
            paused.export_vcpu(vcpu, out, &mut wire)
        });
    }
    let mut session = Some(paused);
    let mut handed = None;
    call_by_call(from, "the start token", &mut || {
        let paused = session.take().unwrap();
        match paused.hand_over(out) {
            Ok(done) => handed = Some(done),
            Err((paused, error)) => {
                session = Some(paused);
                return Err(error);
            }
        }
        Ok(())
    });
    handed.unwrap().send_token(out, &mut wire).unwrap();

    let mut calls = Vec::new();
    for bundle in std::mem::take(&mut wire.bundles) {
        let arrived = Arrived {
            host: to.embedder(),
            bundle,
        };
        calls.push(call_by_call(to, "a bundle", &mut || {
            import.receive(into, &arrived).map(drop)
        }));
    }
    // Tables for new pages are calls of their own, and so are the pages of a vCPU.
    assert!(calls.contains(&7), "{calls:?}");
    assert_same(from, to);
    call_by_call(to, "TDH.IMPORT.COMMIT", &mut || import.commit());
    let mut session = Some(import);
    call_by_call(to, "TDH.IMPORT.END", &mut || {
        session.take().unwrap().end().map_err(|(import, error)| {
            session = Some(import);
            error
        })
    });
    guest.settle(to);
    assert_eq!(guest.verify(to), []);
}

/// The first call of `leaf` is interrupted, and what would go on with it fails.
fn fail_half_way(td: &Td<Host>, leaf: SeamcallLeaf, calls_before: u64) {
    td.embedder().platform.inject(Fault {
        calls: Calls::Host(leaf),
        when: When::Calls { after: 0, times: 1 },
        effect: Effect::Interrupt,
    });
    td.embedder().injector.arm(Some(Injection {
        after: calls_before + 1,
        times: 1,
        rax: Status::of(StatusCode::OPERAND_INVALID).rax(),
    }));
}

fn heal(td: &Td<Host>) {
    td.embedder().platform.clear_faults();
    td.embedder().injector.arm(None);
}

#[test]
fn lists_that_fail_half_way_leave_mirror_and_secure_ept_equal() {
    let (source, destination) = (Side::source(1), Side::destination());
    source.exchange_keys(&destination);
    let (from, to) = (&source.td, &destination.td);
    let guest = inhabit(from);
    let (mut out, mut into) = (source.streams(64), destination.streams(64));
    let mut wire = Wire::from(from.embedder());
    let small = range(0x10_0000, 40 * 4096);
    let mut live = from.export(first(&mut out), &mut wire).unwrap();
    let import = begin(&mut wire, to, first(&mut into));

    // Blocking can be repeated.
    fail_half_way(from, SeamcallLeaf::TDH_EXPORT_BLOCKW, 0);
    let failed = live.block_writes(&[small], first(&mut out), &mut wire);
    assert!(failed.map(drop).unwrap_err().status().is_some());
    heal(from);
    assert_equal(from);
    let write_blocked = |export| {
        mirror(from)
            .values()
            .filter(|entry| matches!(entry, Entry::Leaf { export: Some(state), .. } if *state == export))
            .count()
    };
    use tdx_mmu::mirror::ExportState;
    assert_eq!(write_blocked(ExportState::WriteBlocked), 1);
    let round = live
        .block_writes(&[small], first(&mut out), &mut wire)
        .unwrap();
    let round = round.track().unwrap();
    assert_eq!(write_blocked(ExportState::WriteBlocked), 40);

    // The import of a bundle that fails half-way ends the import; the source does not care.
    round.export(small, first(&mut out), &mut wire).unwrap();
    let arrived = Arrived {
        host: to.embedder(),
        bundle: wire.bundles.pop_front().unwrap(),
    };
    fail_half_way(to, SeamcallLeaf::TDH_IMPORT_MEM, 3);
    assert!(import.receive(first(&mut into), &arrived).is_err());
    heal(to);
    check(to);
    assert_eq!(
        mirror(to)
            .values()
            .filter(|entry| matches!(entry, Entry::Leaf { .. }))
            .count(),
        1
    );
    assert!(import.receive(first(&mut into), &arrived).is_err());
    check(to);

    // A bundle that is exported in part is lost, and the session with it.
    guest.write(from, (0..40).map(|page| 0x10_0000 + page * 4096));
    let round = live
        .block_writes(&[small], first(&mut out), &mut wire)
        .unwrap();
    let round = round.track().unwrap();
    fail_half_way(from, SeamcallLeaf::TDH_EXPORT_MEM, 0);
    assert!(
        round
            .export(small, first(&mut out), &mut wire)
            .unwrap_err()
            .status()
            .is_some()
    );
    heal(from);
    assert_equal(from);
    assert_eq!(write_blocked(ExportState::Exported), 1);
    assert_eq!(write_blocked(ExportState::DirtyWriteBlocked), 39);
    assert_eq!(
        round.export(small, first(&mut out), &mut wire),
        Err(Error::BundleLost)
    );

    // So does the restoration, which can be repeated.
    fail_half_way(from, SeamcallLeaf::TDH_EXPORT_RESTORE, 1);
    let (live, _) = live.abort(first(&mut out)).unwrap_err();
    heal(from);
    assert_equal(from);
    assert_eq!(write_blocked(ExportState::DirtyWriteBlocked), 39);
    live.abort(first(&mut out))
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    runs_on(from, &guest, false);
    drop((out, into));
    destination.end();

    let other = Side::destination();
    migrate(&source, &other);
    source.end();
    other.end();
}
