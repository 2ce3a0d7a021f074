//! What the memory system allows: loops without any page table.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::AcqRel;
use core::sync::atomic::Ordering::Acquire;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::Ordering::Release;

use crate::arena;
use crate::cases::Addresses;
use crate::cases::FRAME;
use crate::cases::LOOKUPS;
use crate::cases::PAGES;
use crate::cases::SCATTERED;
use crate::cases::time;

const FROZEN: u64 = 0x8000_0000_0000_05a0;

/// One round: name and nanoseconds per operation.
pub fn round(addresses: &Addresses) -> Vec<(&'static str, f64)> {
    let words = arena::words();
    let sequential = |change: fn(&AtomicU64, u64)| {
        words[..PAGES]
            .iter()
            .for_each(|word| word.store(0, Relaxed));
        time(PAGES, || {
            words[..PAGES]
                .iter()
                .enumerate()
                .for_each(|(page, word)| change(word, leaf(page)))
        })
    };
    let shuffled = |change: fn(&AtomicU64, u64)| {
        words[..PAGES]
            .iter()
            .for_each(|word| word.store(0, Relaxed));
        let each = |at: &u64| change(&words[(at >> 12) as usize], FRAME + at);
        time(SCATTERED, || addresses.shuffled.iter().for_each(each))
    };
    vec![
        ("release store", sequential(store)),
        ("check empty + release store", sequential(check_and_store)),
        ("compare-exchange", sequential(exchange)),
        ("freeze + store", sequential(freeze_and_store)),
        ("release store, shuffled", shuffled(store)),
        ("freeze + store, shuffled", shuffled(freeze_and_store)),
        ("load, random", {
            let load =
                |sum: u64, at: &u64| sum.wrapping_add(words[(at >> 12) as usize].load(Relaxed));
            time(LOOKUPS, || addresses.lookups.iter().fold(0, load))
        }),
        ("fill a 4 KiB table (per table)", {
            let tables = 8192;
            time(tables, || {
                words[..tables * 512]
                    .iter()
                    .for_each(|word| word.store(1 << 63, Relaxed))
            })
        }),
    ]
}

fn leaf(page: usize) -> u64 {
    (FRAME + ((page as u64) << 12)) | 7
}

fn store(word: &AtomicU64, new: u64) {
    word.store(new, Release);
}

fn check_and_store(word: &AtomicU64, new: u64) {
    assert!(word.load(Relaxed) == 0);
    word.store(new, Release);
}

fn exchange(word: &AtomicU64, new: u64) {
    word.compare_exchange(0, new, AcqRel, Relaxed)
        .expect("empty");
}

fn freeze_and_store(word: &AtomicU64, new: u64) {
    word.compare_exchange(0, FROZEN, Acquire, Relaxed)
        .expect("empty");
    word.store(new, Release);
}
