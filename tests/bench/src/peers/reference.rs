//! The bare algorithm without metadata, statistics or errors: what the idea costs, not a product.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::AcqRel;
use core::sync::atomic::Ordering::Acquire;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::Ordering::Release;

use crate::arena;
use crate::contender::Contender;

const EMPTY: u64 = 1 << 63;
const FROZEN: u64 = 0x8000_0000_0000_05a0;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const READ_WRITE_EXECUTE: u64 = 7;
const LARGE: u64 = 0x80;

/// How an entry is changed.
pub trait Protocol {
    fn map(entry: &AtomicU64, new: u64);
    fn unmap(entry: &AtomicU64);
}

/// The tree is held exclusively: check, then store.
pub struct Exclusive;

impl Protocol for Exclusive {
    #[inline]
    fn map(entry: &AtomicU64, new: u64) {
        assert!(entry.load(Relaxed) & READ_WRITE_EXECUTE == 0);
        entry.store(new, Release);
    }

    #[inline]
    fn unmap(entry: &AtomicU64) {
        assert!(entry.load(Relaxed) & READ_WRITE_EXECUTE != 0);
        entry.store(EMPTY, Release);
    }
}

/// KVM's frozen entry: compare-exchange to FROZEN, then store.
pub struct Freeze;

impl Protocol for Freeze {
    #[inline]
    fn map(entry: &AtomicU64, new: u64) {
        entry
            .compare_exchange(EMPTY, FROZEN, Acquire, Relaxed)
            .expect("empty");
        entry.store(new, Release);
    }

    #[inline]
    fn unmap(entry: &AtomicU64) {
        assert!(entry.swap(FROZEN, AcqRel) & READ_WRITE_EXECUTE != 0);
        entry.store(EMPTY, Release);
    }
}

pub struct Peer<P> {
    root: u64,
    protocol: core::marker::PhantomData<P>,
}

fn table() -> u64 {
    let frame = arena::frame() as u64;
    arena::table(frame)
        .iter()
        .for_each(|entry| entry.store(EMPTY, Relaxed));
    frame
}

#[inline]
fn entry(table: u64, address: u64, level: u32) -> &'static AtomicU64 {
    &arena::table(table)[(address >> (12 + 9 * level)) as usize & 511]
}

impl<P: Protocol> Peer<P> {
    #[inline]
    fn descend(&self, address: u64, to: u32) -> u64 {
        let mut at = self.root;
        for level in (to + 1..4).rev() {
            let entry = entry(at, address, level);
            let mut value = entry.load(Acquire);
            if value & READ_WRITE_EXECUTE == 0 {
                value = table() | READ_WRITE_EXECUTE;
                P::map(entry, value);
            }
            at = value & ADDRESS;
        }
        at
    }

    #[inline]
    fn each(&self, address: u64, bytes: u64, mut change: impl FnMut(&AtomicU64, u64)) {
        let mut done = 0;
        while done < bytes {
            let table = arena::table(self.descend(address + done, 0));
            let first = (address + done) as usize >> 12 & 511;
            for entry in &table[first..] {
                if done == bytes {
                    break;
                }
                change(entry, done);
                done += 4096;
            }
        }
    }
}

impl<P: Protocol> Contender for Peer<P> {
    fn new() -> Self {
        Self {
            root: table(),
            protocol: core::marker::PhantomData,
        }
    }

    #[inline(always)]
    fn map_4k(&mut self, address: u64, frame: u64) {
        P::map(
            entry(self.descend(address, 0), address, 0),
            frame | READ_WRITE_EXECUTE,
        );
    }

    #[inline(always)]
    fn map_2m(&mut self, address: u64, frame: u64) {
        P::map(
            entry(self.descend(address, 1), address, 1),
            frame | READ_WRITE_EXECUTE | LARGE,
        );
    }

    #[inline(always)]
    fn walk(&mut self, address: u64) -> u64 {
        let mut at = self.root;
        for level in (0..4).rev() {
            let value = entry(at, address, level).load(Acquire);
            assert!(value & READ_WRITE_EXECUTE != 0);
            if level == 0 || value & LARGE != 0 {
                let within = (1 << (12 + 9 * level)) - 1;
                return value & ADDRESS & !within | address & within;
            }
            at = value & ADDRESS;
        }
        unreachable!("the loop returns at level 0")
    }

    #[inline(always)]
    fn unmap_4k(&mut self, address: u64) {
        P::unmap(entry(self.descend(address, 0), address, 0));
    }

    fn map_range(&mut self, address: u64, frame: u64, bytes: u64) -> bool {
        self.each(address, bytes, |entry, offset| {
            P::map(entry, (frame + offset) | READ_WRITE_EXECUTE)
        });
        true
    }

    fn unmap_range(&mut self, address: u64, bytes: u64) -> bool {
        self.each(address, bytes, |entry, _| P::unmap(entry));
        true
    }
}
