//! KeyID allocation and MapGPA.
#![expect(
    clippy::std_instead_of_alloc,
    clippy::unwrap_used,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

use std::collections::BTreeSet;
use tdx_abi::Gpa;
use tdx_abi::SharedBit;
use tdx_mmu::platform::HkidPool;
use tdx_mmu::platform::MapGpa;
use tdx_mmu::platform::MapGpaReply;

const SHARED: u64 = 1 << 47;

#[test]
fn keyids_are_given_out_once_each_also_to_many_threads() {
    let pool = HkidPool::<1>::new(32, 32).unwrap();
    let taken: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..8).map(|_| pool.allocate().unwrap()).collect::<Vec<_>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let numbers: BTreeSet<u16> = taken.iter().map(|hkid| hkid.number()).collect();
    assert_eq!(numbers, (32..64).collect());
    assert_eq!(pool.allocate(), None);
    assert_eq!(pool.available(), 0);
    for hkid in taken {
        pool.release(hkid).unwrap();
    }
    assert_eq!(pool.available(), 32);
    assert_eq!(pool.allocate().unwrap().number(), 32);
}

#[test]
fn keyids_of_another_pool_are_refused() {
    let one = HkidPool::<1>::new(32, 32).unwrap();
    let other = HkidPool::<1>::new(64, 64).unwrap();
    let foreign = other.allocate().unwrap();
    let foreign = one.release(foreign).unwrap_err();
    assert_eq!(foreign.number(), 64);
    other.release(foreign).unwrap();
}

#[test]
fn keyid_ranges_that_cannot_be_are_refused() {
    for (first, count) in [(0, 1), (1, 0), (65_535, 2), (u32::MAX, 2)] {
        let error = HkidPool::<1>::new(first, count).unwrap_err();
        assert_eq!((error.first, error.count), (first, count));
    }
    assert!(HkidPool::<1>::new(65_535, 1).is_ok());
}

/// Serves requests of a guest with 1 GiB, 1 MiB at a time, until the guest is told to stop.
fn map(start: u64, size: u64) -> (MapGpaReply, Vec<(u64, u64, bool)>) {
    let shared_bit = SharedBit::new(47).unwrap();
    let mut request = MapGpa {
        start: Gpa::new(start),
        size,
    };
    let mut calls = Vec::new();
    loop {
        let reply = request
            .serve::<()>(
                shared_bit,
                |start, size| start + size <= 1 << 30,
                1 << 20,
                |start, size, shared| {
                    calls.push((start, size, shared));
                    Ok(size)
                },
            )
            .unwrap();
        match reply {
            MapGpaReply::Retry(next) => {
                assert_eq!(reply.r10(), 1);
                request.size -= next.bits() - request.start.bits();
                request.start = next;
            }
            _ => return (reply, calls),
        }
    }
}

#[test]
fn long_conversions_come_in_steps() {
    let (reply, calls) = map(SHARED | 0x10_0000, 0x28_0000);
    assert_eq!((reply.r10(), reply.r11()), (0, 0));
    let expected = [
        (0x10_0000, 0x10_0000, true),
        (0x20_0000, 0x10_0000, true),
        (0x30_0000, 0x8_0000, true),
    ];
    assert_eq!(calls, expected);
    let (_, calls) = map(0x1000, 0x1000);
    assert_eq!(calls, [(0x1000, 0x1000, false)]);
}

#[test]
fn what_a_guest_must_not_ask_for() {
    const INVALID: u64 = 0x8000_0000_0000_0000;
    const MISALIGNED: u64 = 0x8000_0000_0000_0002;
    for (start, size, status) in [
        (0x1001, 0x1000, MISALIGNED),
        (0x1000, 0x1001, MISALIGNED),
        (0x1000, 0, INVALID),
        (1 << 30, 0x1000, INVALID),
        ((1 << 30) - 0x1000, 0x2000, INVALID),
        (SHARED | 0x3fff_f000, 0x2000, INVALID),
        (SHARED - 0x1000, 0x2000, INVALID),
        (SHARED << 1, 0x1000, INVALID),
        (0xffff_ffff_ffff_f000, 0x1000, INVALID),
        (0x1000, 0xffff_ffff_ffff_f000, INVALID),
    ] {
        let (reply, calls) = map(start, size);
        assert_eq!(
            (reply.r10(), reply.r11()),
            (status, start),
            "{start:#x} + {size:#x}"
        );
        assert_eq!(calls, []);
    }
}
