//! Creation, vCPUs, the end of the build and teardown, with every call of the module failing in every way.

use std::sync::atomic::Ordering;

use tdx_abi::Level;
use tdx_abi::OpState;
use tdx_abi::OperandId;
use tdx_abi::Status;
use tdx_abi::StatusCode;
use tdx_mmu::Td;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::platform::Hkid;
use tdx_mmu::platform::HkidPool;
use tdx_mmu::td::Error;

use super::host::Host;
use super::host::Injection;
use super::host::ram;
use super::host::range;
use super::injection::ANSWERS;
use super::injection::PATIENCE;
use super::life::assert_free;

/// Tears the TD down, repeating what the injection makes fail. Returns whether it had to.
fn tear_down(td: Td<Host>) -> (Host, Hkid, bool) {
    let mut failed = false;
    let mut td = td;
    let injector = td.embedder().injector.clone();
    let mut teardown = loop {
        match td.teardown() {
            Ok(teardown) => break teardown,
            Err((back, error)) => {
                assert!(!failed, "a second time: {error}");
                failed = true;
                typed(&error);
                injector.arm(None);
                td = back;
            }
        }
    };
    let torn = loop {
        match teardown.finish() {
            Ok(torn) => break torn,
            Err((back, error)) => {
                failed = true;
                typed(&error);
                injector.arm(None);
                teardown = back;
            }
        }
    };
    let host = torn.embedder;
    host.injector.arm(None);
    // A failed TDH.PHYMEM.PAMT.REMOVE leaves the pair with the module.
    host.collect_pamt();
    host.clean_pamt();
    (host, torn.hkid, failed)
}

#[track_caller]
fn typed(error: &Error) {
    assert!(error.status().is_some(), "{error}");
}

fn created(host: Host, hkid: Hkid) -> Td<Host> {
    let (td, done) = host.try_create(hkid);
    done.unwrap();
    td
}

/// A TD with a vCPU, 4 KiB pages under two tables, and a 2 MiB page; its L2 VMs have tables beside all of these.
fn grown(host: Host, hkid: Hkid) -> Td<Host> {
    let td = created(host, hkid);
    td.add_vcpu(0).unwrap();
    td.declare(ram(), Visibility::Private).unwrap();
    td.prefault(range(0x1f_f000, 0x2000), Level::Pt).unwrap();
    *td.embedder().largest.lock().unwrap() = Level::Pd;
    td.prefault(range(0x60_0000, 0x20_0000), Level::Pd).unwrap();
    *td.embedder().largest.lock().unwrap() = Level::Pt;
    for vm in (1..).take(td.l2_vms()) {
        td.link_l2(vm, ram()).unwrap();
    }
    td
}

/// Does `operate` on what `prepare` made, once without injection and then with each answer at each call; after
/// each the TD is torn down and every page has to be back.
fn all_positions(
    host: Host,
    prepare: impl Fn(Host, Hkid) -> Td<Host>,
    operate: impl Fn(&Td<Host>) -> Result<(), Error>,
) {
    let hkid = HkidPool::<1>::new(33, 31).unwrap().allocate().unwrap();
    host.patience.store(PATIENCE, Ordering::Relaxed);
    let td = prepare(host, hkid);
    td.embedder().injector.arm(None);
    operate(&td).unwrap();
    let calls = td.embedder().injector.calls.load(Ordering::Relaxed);
    assert!(calls > 0);
    let (mut host, mut hkid, _) = tear_down(td);
    assert_free(&host);
    for after in 0..calls {
        for (code, times, passes) in ANSWERS {
            let rax = Status::with_operand(code, OperandId::RCX).rax();
            let td = prepare(host, hkid);
            let injection = Injection { after, times, rax };
            td.embedder().injector.arm(Some(injection));
            let done = operate(&td);
            td.embedder().injector.arm(None);
            match &done {
                Ok(()) => assert!(passes, "{injection:x?} was passed over"),
                Err(error) => {
                    assert!(!passes, "{injection:x?}: {error}");
                    typed(error);
                }
            }
            if done.is_err() {
                operate(&td).unwrap_or_else(|error| panic!("{injection:x?} repeated: {error}"));
            }
            td.embedder().check_pamt();
            (host, hkid, _) = tear_down(td);
            assert_free(&host);
        }
    }
}

fn create_fails_everywhere(host: Host) {
    let hkid = HkidPool::<1>::new(33, 31).unwrap().allocate().unwrap();
    host.patience.store(PATIENCE, Ordering::Relaxed);
    host.injector.arm(None);
    let td = created(host, hkid);
    let calls = td.embedder().injector.calls.load(Ordering::Relaxed);
    let (mut host, mut hkid, _) = tear_down(td);
    assert_free(&host);
    for after in 0..calls {
        for (code, times, passes) in ANSWERS {
            let rax = Status::with_operand(code, OperandId::RCX).rax();
            let injection = Injection { after, times, rax };
            host.injector.arm(Some(injection));
            let (td, done) = host.try_create(hkid);
            td.embedder().injector.arm(None);
            assert_eq!(done.is_ok(), passes, "{injection:x?}: {done:?}");
            done.as_ref().err().iter().for_each(|error| typed(error));
            td.embedder().check_pamt();
            (host, hkid, _) = tear_down(td);
            assert_free(&host);
        }
    }
}

#[test]
fn every_call_of_the_creation_may_fail() {
    create_fails_everywhere(Host::new());
    create_fails_everywhere(Host::dynamic());
    create_fails_everywhere(Host::partitioned(3));
}

#[test]
fn every_call_of_adding_a_vcpu_may_fail() {
    for host in [Host::new(), Host::dynamic(), Host::partitioned(1)] {
        all_positions(host, created, |td| {
            td.add_vcpu(0).map(|vcpu| assert!(td.tdvpr(vcpu).is_some()))
        });
    }
}

#[test]
fn the_end_of_the_build_may_fail() {
    all_positions(Host::new(), grown, |td| {
        td.finalize()
            .map(|()| assert_eq!(td.op_state(), OpState::Runnable))
    });
}

fn teardown_fails_everywhere(host: Host) {
    let hkid = HkidPool::<1>::new(33, 31).unwrap().allocate().unwrap();
    host.patience.store(PATIENCE, Ordering::Relaxed);
    let td = grown(host, hkid);
    td.embedder().injector.arm(Some(Injection {
        after: u64::MAX / 2,
        times: 0,
        rax: 0,
    }));
    let mut teardown = td.teardown().unwrap_or_else(|(_, error)| panic!("{error}"));
    teardown = match teardown.reclaim(ram(), |_| false) {
        Ok(_) => teardown,
        Err(error) => panic!("{error}"),
    };
    let torn = teardown
        .finish()
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    let (mut host, mut hkid) = (torn.embedder, torn.hkid);
    let calls = host.injector.calls.load(Ordering::Relaxed);
    assert_free(&host);
    for after in 0..calls {
        for (code, times, passes) in ANSWERS {
            let rax = Status::with_operand(code, OperandId::RCX).rax();
            let injection = Injection { after, times, rax };
            let td = grown(host, hkid);
            td.embedder().injector.arm(Some(injection));
            let failed: bool;
            (host, hkid, failed) = tear_down(td);
            // TDH.PHYMEM.CACHE.WB does not resume what was never interrupted.
            let resumes = code == StatusCode::INTERRUPTED_RESUMABLE;
            assert!(resumes || failed != passes, "{injection:x?}");
            assert_free(&host);
        }
    }
}

#[test]
fn every_call_of_the_teardown_may_fail() {
    teardown_fails_everywhere(Host::new());
    teardown_fails_everywhere(Host::dynamic());
    teardown_fails_everywhere(Host::partitioned(2));
    teardown_fails_everywhere(Host::dynamic_partitioned(1));
}

/// The module says that a vCPU is still associated: it is flushed wherever it is.
#[test]
fn a_vcpu_that_nobody_remembers_is_flushed_everywhere() {
    let host = Host::new();
    let hkid = HkidPool::<1>::new(33, 31).unwrap().allocate().unwrap();
    let td = grown(host, hkid);
    let rax = Status::of(StatusCode::FLUSHVP_NOT_DONE).rax();
    td.embedder().injector.arm(Some(Injection {
        after: 0,
        times: 1,
        rax,
    }));
    let (host, _, failed) = tear_down(td);
    assert!(!failed);
    assert_free(&host);
}
