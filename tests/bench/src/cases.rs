//! The cases, each timed once a round for every contender.

use core::hint::black_box;
use std::collections::HashSet;
use std::time::Instant;

use crate::arena;
use crate::contender::Contender;

/// Pages of the sequential cases: 1 GiB in 4 KiB pages.
pub const PAGES: usize = 262_144;
/// Pages of the shuffled and sparse cases.
pub const SCATTERED: usize = 100_000;
/// Pages of the 2 MiB case: 64 GiB.
pub const LARGE_PAGES: usize = 32_768;
/// Look-ups of the random walk.
pub const LOOKUPS: usize = 1_000_000;

/// Where the mapped frames start; nothing lies there.
pub const FRAME: u64 = 0x10_0000_0000;
const ADDRESS: u64 = 0x40_0000_0000;
const LARGE: u64 = 2 << 20;
const BYTES: u64 = (PAGES as u64) << 12;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    MapEach,
    UnmapEach,
    MapRange,
    UnmapRange,
    MapShuffled,
    MapSparse,
    WalkRandom,
    MapLarge,
}

impl Case {
    pub const ALL: [Self; 8] = [
        Self::MapEach,
        Self::UnmapEach,
        Self::MapRange,
        Self::UnmapRange,
        Self::MapShuffled,
        Self::MapSparse,
        Self::WalkRandom,
        Self::MapLarge,
    ];

    /// The column's heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::MapEach => "map each",
            Self::UnmapEach => "unmap each",
            Self::MapRange => "map bulk",
            Self::UnmapRange => "unmap bulk",
            Self::MapShuffled => "map shuffled",
            Self::MapSparse => "map sparse",
            Self::WalkRandom => "random walk",
            Self::MapLarge => "map 2 MiB",
        }
    }

    /// What is done, in words.
    pub fn description(self) -> &'static str {
        match self {
            Self::MapEach => "map 1 GiB in 4 KiB pages, a call a page",
            Self::UnmapEach => "unmap it, a call a page",
            Self::MapRange => "map 1 GiB in 4 KiB pages, one call",
            Self::UnmapRange => "unmap it, one call",
            Self::MapShuffled => "map 100,000 neighbouring pages in random order",
            Self::MapSparse => "map 100,000 random pages of 64 GiB",
            Self::WalkRandom => "1,000,000 random look-ups in 1 GiB of 4 KiB pages",
            Self::MapLarge => "map 64 GiB in 2 MiB pages, a call a page",
        }
    }
}

/// The addresses of the cases that are not sequential, equal for everybody.
pub struct Addresses {
    pub shuffled: Vec<u64>,
    pub sparse: Vec<u64>,
    pub lookups: Vec<u64>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

impl Addresses {
    pub fn new() -> Self {
        let mut random = Random(0x1234_5678_9abc_def1);
        let mut shuffled: Vec<u64> = (0..SCATTERED as u64).map(|page| page << 12).collect();
        for i in (1..SCATTERED).rev() {
            shuffled.swap(i, random.below(i as u64 + 1) as usize);
        }
        let mut seen = HashSet::new();
        let mut sparse = Vec::with_capacity(SCATTERED);
        while sparse.len() < SCATTERED {
            let page = random.below(64 << 18);
            if seen.insert(page) {
                sparse.push(page << 12);
            }
        }
        let lookups = (0..LOOKUPS)
            .map(|_| random.below(PAGES as u64) << 12)
            .collect();
        Self {
            shuffled,
            sparse,
            lookups,
        }
    }
}

/// Nanoseconds per operation of `run`, which does `operations` of them.
pub fn time<R>(operations: usize, run: impl FnOnce() -> R) -> f64 {
    let start = Instant::now();
    black_box(run());
    start.elapsed().as_nanos() as f64 / operations as f64
}

/// One round of one contender: nanoseconds per operation of each case that `wanted` names, none where it
/// has no such call.
pub fn round<C: Contender>(addresses: &Addresses, wanted: &[Case]) -> Vec<(Case, f64)> {
    let wants = |cases: &[Case]| cases.iter().any(|case| wanted.contains(case));
    let mut times = Vec::with_capacity(Case::ALL.len());

    if wants(&[Case::MapEach, Case::WalkRandom, Case::UnmapEach]) {
        let mut table = fresh::<C>();
        times.push((Case::MapEach, time(PAGES, || map_each(&mut table))));
        check(
            &mut table,
            [0, 1, 511, 512, 99_999, PAGES as u64 - 1].map(|page| page << 12),
        );
        if wants(&[Case::WalkRandom]) {
            let walk = || walk_random(&mut table, &addresses.lookups);
            times.push((Case::WalkRandom, time(LOOKUPS, walk)));
        }
        if wants(&[Case::UnmapEach]) {
            times.push((Case::UnmapEach, time(PAGES, || unmap_each(&mut table))));
        }
    }

    if wants(&[Case::MapRange, Case::UnmapRange]) {
        let mut table = fresh::<C>();
        let mut has_ranges = false;
        let map = time(PAGES, || has_ranges = map_range(&mut table));
        if has_ranges {
            check(&mut table, [0, 0x12_3000, BYTES - 4096]);
            times.push((Case::MapRange, map));
            let unmap = time(PAGES, || has_ranges = unmap_range(&mut table));
            times.extend(has_ranges.then_some((Case::UnmapRange, unmap)));
        }
    }

    for (case, list) in [
        (Case::MapShuffled, &addresses.shuffled),
        (Case::MapSparse, &addresses.sparse),
    ] {
        if wants(&[case]) {
            let mut table = fresh::<C>();
            times.push((case, time(SCATTERED, || map_list(&mut table, list))));
            check(
                &mut table,
                [list[0], list[SCATTERED - 1], list[SCATTERED / 2]],
            );
        }
    }

    if wants(&[Case::MapLarge]) {
        let mut table = fresh::<C>();
        times.push((Case::MapLarge, time(LARGE_PAGES, || map_large(&mut table))));
        check(&mut table, [0, 5 * LARGE, (LARGE_PAGES as u64 - 1) * LARGE]);
    }
    times
}

// The timed loops. Functions of their own, so that each has the registers for itself, and so that a profile
// tells them apart.

#[inline(never)]
fn map_each<C: Contender>(table: &mut C) {
    pages().for_each(|at| table.map_4k(ADDRESS + at, FRAME + at));
}

#[inline(never)]
fn unmap_each<C: Contender>(table: &mut C) {
    pages().for_each(|at| table.unmap_4k(ADDRESS + at));
}

#[inline(never)]
fn map_range<C: Contender>(table: &mut C) -> bool {
    table.map_range(ADDRESS, FRAME, BYTES)
}

#[inline(never)]
fn unmap_range<C: Contender>(table: &mut C) -> bool {
    table.unmap_range(ADDRESS, BYTES)
}

#[inline(never)]
fn map_list<C: Contender>(table: &mut C, list: &[u64]) {
    list.iter()
        .for_each(|at| table.map_4k(ADDRESS + at, FRAME + at));
}

#[inline(never)]
fn walk_random<C: Contender>(table: &mut C, lookups: &[u64]) -> u64 {
    lookups
        .iter()
        .fold(0u64, |sum, at| sum.wrapping_add(table.walk(ADDRESS + at)))
}

#[inline(never)]
fn map_large<C: Contender>(table: &mut C) {
    (0..LARGE_PAGES as u64)
        .for_each(|page| table.map_2m(ADDRESS + page * LARGE, FRAME + page * LARGE));
}

fn fresh<C: Contender>() -> C {
    arena::reset();
    C::new()
}

fn pages() -> impl Iterator<Item = u64> {
    (0..PAGES as u64).map(|page| page << 12)
}

fn check<C: Contender, const N: usize>(table: &mut C, offsets: [u64; N]) {
    for at in offsets {
        assert_eq!(
            table.walk(ADDRESS + at) & !0xfff,
            FRAME + at,
            "wrong translation of {:#x}",
            ADDRESS + at
        );
    }
}
