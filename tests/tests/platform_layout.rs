//! TDMR and PAMT layout against what real hosts printed, and against the module's own rules.
#![expect(
    clippy::unwrap_used,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use proptest::prelude::*;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_emulator::Lp;
use tdx_emulator::PageType;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_emulator::Range;
use tdx_mmu::embed::Frames;
use tdx_mmu::embed::Relax;
use tdx_mmu::embed::Tables;
use tdx_mmu::platform::Executor;
use tdx_mmu::platform::HkidPool;
use tdx_mmu::platform::LpId;
use tdx_mmu::platform::MemoryRange;
use tdx_mmu::platform::bring_up::PamtMode;
use tdx_mmu::platform::bring_up::bring_up;
use tdx_mmu::platform::layout::LayoutError;
use tdx_mmu::platform::layout::Limits;
use tdx_mmu::platform::layout::PamtMemory;
use tdx_mmu::platform::layout::Tdmr;
use tdx_mmu::platform::layout::lay_out;

const GIB: u64 = 1 << 30;

/// What module 1.5 answers to TDH.SYS.RD.
const LIMITS: Limits = Limits {
    max_tdmrs: 64,
    max_reserved_per_tdmr: 16,
    pamt_4k_entry_size: 16,
    pamt_2m_entry_size: 16,
    pamt_1g_entry_size: 16,
    pamt_page_bitmap_entry_bits: None,
};

/// Takes PAMTs from the top of the memory downwards, and counts.
struct FromTop {
    ranges: Vec<MemoryRange>,
    allocated: u64,
    freed: u64,
}

impl FromTop {
    fn new(memory: &[MemoryRange]) -> Self {
        Self {
            ranges: memory.to_vec(),
            allocated: 0,
            freed: 0,
        }
    }
}

impl PamtMemory for FromTop {
    fn allocate(&mut self, size: u64, _tdmr: MemoryRange) -> Option<Hpa> {
        let range = self
            .ranges
            .iter_mut()
            .rev()
            .find(|range| range.size() >= size)?;
        let start = Hpa::new(range.end().bits() - size);
        *range = MemoryRange::new(range.start(), start)?;
        self.allocated += size;
        Some(start)
    }

    fn free(&mut self, range: MemoryRange) {
        self.freed += range.size();
    }
}

fn range(start: u64, end: u64) -> MemoryRange {
    MemoryRange::new(Hpa::new(start), Hpa::new(end)).unwrap()
}

fn number(value: &serde_json::Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn machines() -> Vec<(String, Vec<MemoryRange>, Option<u64>)> {
    let text = include_str!("../data/hosts/machines.json");
    let list: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
    list.iter()
        .map(|machine| {
            let cmrs = machine["cmr"]
                .as_array()
                .unwrap()
                .iter()
                .map(|cmr| range(number(&cmr[0]), number(&cmr[1])))
                .collect();
            (
                machine["id"].as_str().unwrap().to_owned(),
                cmrs,
                machine["pamt_kb"].as_u64(),
            )
        })
        .collect()
}

/// Usable memory of the e820 map from 1 MiB up to `end`.
fn issue_135_memory(end: u64) -> Vec<MemoryRange> {
    include_str!("../data/hosts/e820-issue135.txt")
        .lines()
        .filter(|line| line.ends_with(" usable"))
        .map(|line| {
            let (start, last) = line.trim_end_matches(" usable").split_once('-').unwrap();
            let number =
                |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
            (number(start), number(last) + 1)
        })
        .filter(|&(start, stop)| start >= 1 << 20 && stop <= end)
        .map(|(start, stop)| range(start, stop))
        .collect()
}

/// The rules of TDH.SYS.CONFIG, byte by byte where it is affordable: every page of a TDMR is in a
/// reserved area or in a CMR and in no PAMT.
fn check_as_the_module_does(tdmrs: &[Tdmr], cmrs: &[MemoryRange], limits: &Limits) {
    let in_cmr = |wanted: MemoryRange| {
        let mut merged: Vec<MemoryRange> = Vec::new();
        for &cmr in cmrs {
            match merged.last_mut() {
                Some(last) if last.end() == cmr.start() => {
                    *last = range(last.start().bits(), cmr.end().bits())
                }
                _ => merged.push(cmr),
            }
        }
        merged.iter().any(|cmr| cmr.contains(wanted))
    };
    assert!(!tdmrs.is_empty() && tdmrs.len() <= usize::from(limits.max_tdmrs));
    let pamts: Vec<MemoryRange> = tdmrs
        .iter()
        .flat_map(|tdmr| [Level::Pdpt, Level::Pd, Level::Pt].map(|level| tdmr.pamt(level).unwrap()))
        .collect();
    for (index, pamt) in pamts.iter().enumerate() {
        assert!(in_cmr(*pamt), "PAMT {pamt:?} outside CMRs");
        assert!(
            pamts[index + 1..]
                .iter()
                .all(|other| !other.overlaps(*pamt))
        );
    }
    let mut previous_end = 0;
    for tdmr in tdmrs {
        let (start, end) = (tdmr.range().start().bits(), tdmr.range().end().bits());
        assert!(start.is_multiple_of(GIB) && end.is_multiple_of(GIB) && end > start);
        assert!(start >= previous_end);
        previous_end = end;
        for (level, entry_size) in [(Level::Pt, 16), (Level::Pd, 16), (Level::Pdpt, 16)] {
            assert!(tdmr.pamt(level).unwrap().size() >= (end - start) / level.size() * entry_size);
        }
        assert!(tdmr.reserved().len() <= usize::from(limits.max_reserved_per_tdmr));
        let mut available_from = start;
        let stops = tdmr
            .reserved()
            .iter()
            .map(|area| (area.start().bits(), area.end().bits()));
        for (area_start, area_end) in stops.chain([(end, end)]) {
            assert!(area_start >= available_from && area_end <= end);
            assert!(area_start.is_multiple_of(4096) && area_end.is_multiple_of(4096));
            let available = range(available_from, area_start);
            assert!(
                available.is_empty() || in_cmr(available),
                "{available:?} outside CMRs"
            );
            assert!(
                pamts.iter().all(|pamt| !pamt.overlaps(available)),
                "PAMT in {available:?}"
            );
            available_from = area_end;
        }
    }
}

#[test]
fn pamt_sizes_are_those_that_linux_printed() {
    let mut printed = 0;
    for (id, cmrs, pamt_kb) in machines() {
        let mut pamt_memory = FromTop::new(&cmrs);
        let mut tdmrs = [Tdmr::default(); 64];
        let tdmrs = lay_out(&cmrs, &cmrs, &LIMITS, &mut pamt_memory, &mut tdmrs).unwrap();
        check_as_the_module_does(tdmrs, &cmrs, &LIMITS);
        if let Some(pamt_kb) = pamt_kb {
            assert_eq!(pamt_memory.allocated, pamt_kb * 1024, "{id}");
            printed += 1;
        }
    }
    assert_eq!(printed, 3, "machines whose PAMT size is known");
}

/// A host of which nothing is needed but what bring-up asks for.
struct Machine {
    platform: &'static Platform,
    lps: Vec<Lp<'static>>,
    next_page: AtomicU64,
    no_link: AtomicU64,
}

impl Machine {
    fn new(cmrs: &[MemoryRange]) -> Self {
        let platform: &'static Platform = Box::leak(Box::new(Platform::new(PlatformConfig {
            packages: 2,
            cmrs: cmrs
                .iter()
                .map(|cmr| Range {
                    base: cmr.start().bits(),
                    size: cmr.size(),
                })
                .collect(),
            seamrr: Range {
                base: 1 << 44,
                size: 1 << 25,
            },
            ..PlatformConfig::default()
        })));
        Self {
            platform,
            lps: (0..platform.lps())
                .map(|number| platform.lp(number).unwrap())
                .collect(),
            next_page: AtomicU64::new(cmrs[0].start().bits()),
            no_link: AtomicU64::new(0),
        }
    }
}

impl Tables for Machine {
    type Word = AtomicU64;

    fn entries(&self, table: Hpa) -> &[AtomicU64; 512] {
        self.platform.memory().frame(table.bits() >> 12).qwords()
    }

    fn link(&self, _: Hpa) -> &AtomicU64 {
        &self.no_link
    }
}

impl Frames for Machine {
    fn allocate_table(&self) -> Option<Page> {
        let page = self.next_page.fetch_add(4096, Ordering::Relaxed);
        Page::assume_owned(Hpa::new(page), Level::Pt)
    }

    fn free_table(&self, _: Page) {}

    fn allocate_module_page(&self) -> Option<Page> {
        self.allocate_table()
    }

    fn free_module_page(&self, _: Page) {}
}

impl Relax for Machine {}

impl Executor for Machine {
    type Lp = Lp<'static>;

    fn on_this_lp<T>(&self, work: impl FnOnce(LpId, &Self::Lp) -> T) -> T {
        work(LpId(0), &self.lps[0])
    }

    fn on_lp<T: Send>(&self, lp: LpId, work: impl FnOnce(&Self::Lp) -> T + Send) -> Option<T> {
        self.lps.get(usize::try_from(lp.0).unwrap()).map(work)
    }

    fn on_each_lp<E: Send>(
        &self,
        work: impl Fn(LpId, &Self::Lp) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        (0..)
            .zip(&self.lps)
            .try_for_each(|(number, lp)| work(LpId(number), lp))
    }

    fn on_each_package<E: Send>(
        &self,
        work: impl Fn(LpId, &Self::Lp) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let of_package = self.platform.config().lps_per_package;
        (0..)
            .step_by(usize::try_from(of_package).unwrap())
            .zip(self.lps.chunks(usize::try_from(of_package).unwrap()))
            .try_for_each(|(number, lps)| work(LpId(number), &lps[0]))
    }
}

/// The emulated module takes what is laid out for each real host, and believes of its memory what the host does.
#[test]
fn the_module_comes_up_on_every_host() {
    for (id, cmrs, pamt_kb) in machines() {
        let machine = Machine::new(&cmrs);
        let hkid = HkidPool::<1>::new(32, 32).unwrap().allocate().unwrap();
        let mut pamt_memory = FromTop::new(&cmrs);
        let mut tdmrs = [Tdmr::default(); 64];
        let (info, tdmrs) = bring_up(
            &machine,
            &cmrs,
            &mut pamt_memory,
            PamtMode::Static,
            &hkid,
            &mut tdmrs,
        )
        .unwrap();
        assert_eq!(info.cmrs(), cmrs, "{id}");
        if let Some(pamt_kb) = pamt_kb {
            assert_eq!(pamt_memory.allocated, pamt_kb * 1024, "{id}");
        }
        let kind = |hpa: u64| {
            let metadata = machine.platform.page_metadata(hpa, Level::Pt);
            metadata.map(|(kind, _)| kind)
        };
        for cmr in &cmrs {
            assert_eq!(kind(cmr.start().bits()), Some(PageType::Nda), "{id}");
        }
        for tdmr in tdmrs {
            assert!(tdmr.reserved().len() <= 16, "{id}");
            for area in tdmr.reserved() {
                for page in [area.start().bits(), area.end().bits() - 4096] {
                    assert_eq!(kind(page), Some(PageType::Reserved), "{id}: {page:#x}");
                }
            }
            for level in [Level::Pdpt, Level::Pd, Level::Pt] {
                let pamt = tdmr.pamt(level).unwrap();
                let first = kind(pamt.start().bits());
                assert_eq!(first, Some(PageType::Reserved), "{id}: {pamt:?}");
            }
        }
    }
}

#[test]
fn the_host_whose_memory_map_has_too_many_holes_is_laid_out() {
    let (_, cmrs, _) = machines()
        .into_iter()
        .find(|(id, ..)| id == "emr-foxcreek-fail")
        .unwrap();
    let low = issue_135_memory(cmrs[0].end().bits());
    let mut memory = low.clone();
    memory.extend(&cmrs[1..]);
    let mut tdmrs = [Tdmr::default(); 64];
    // The PAMTs of the first TDMR go into that TDMR, which makes it the worst case.
    let mut pamt_memory = FromTop::new(&low);
    pamt_memory.ranges.insert(0, cmrs[1]);
    let tdmrs = lay_out(&memory, &cmrs, &LIMITS, &mut pamt_memory, &mut tdmrs).unwrap();
    check_as_the_module_does(tdmrs, &cmrs, &LIMITS);
    let first = &tdmrs[0];
    assert_eq!(first.range(), range(0, 2 * GIB));
    assert_eq!(first.reserved().first().copied(), Some(range(0, 1 << 20)));
    assert_eq!(
        first.reserved().last().copied(),
        Some(range(0x6f80_0000, 2 * GIB))
    );
    let reserved: u64 = first.reserved().iter().map(|area| area.size()).sum();
    let inside = tdmrs
        .iter()
        .filter(|tdmr| first.range().contains(tdmr.pamts()));
    let pamts: u64 = inside.map(|tdmr| tdmr.pamts().size()).sum();
    assert!(pamts > 0);
    assert_eq!(reserved, (1 << 20) + (2 * GIB - 0x6f80_0000) + pamts);

    // Drawn around the holes of the memory map itself, the areas would not fit: this is how the host failed.
    let mut pamt_memory = FromTop::new(&[cmrs[1]]);
    let error = lay_out(
        &low,
        &low,
        &LIMITS,
        &mut pamt_memory,
        &mut [Tdmr::default(); 64],
    )
    .unwrap_err();
    assert!(
        matches!(error, LayoutError::BadPamtMemory(_)),
        "PAMTs outside the CMRs: {error}"
    );
    let mut with_pamt_memory = low.clone();
    with_pamt_memory.push(cmrs[1]);
    let mut pamt_memory = FromTop::new(&[cmrs[1]]);
    let error = lay_out(
        &with_pamt_memory,
        &with_pamt_memory,
        &LIMITS,
        &mut pamt_memory,
        &mut [Tdmr::default(); 64],
    )
    .unwrap_err();
    let LayoutError::TooManyReservedAreas { tdmr, needed, max } = error else {
        panic!("{error}")
    };
    assert_eq!((tdmr, max), (range(0, 2 * GIB), 16));
    assert_eq!(needed, 17, "the facts say 17 reserved areas");
    assert_eq!(
        pamt_memory.allocated, pamt_memory.freed,
        "nothing leaks on error"
    );
}

#[test]
fn bad_input_is_named() {
    let cmrs = [range(GIB, 3 * GIB)];
    let run = |memory: &[MemoryRange], limits: &Limits| {
        let mut pamt_memory = FromTop::new(&cmrs);
        let mut tdmrs = [Tdmr::default(); 64];
        let result = lay_out(memory, &cmrs, limits, &mut pamt_memory, &mut tdmrs).map(|_| ());
        assert_eq!(pamt_memory.allocated, pamt_memory.freed);
        result.unwrap_err()
    };
    assert_eq!(run(&[], &LIMITS), LayoutError::NoMemory);
    let odd = range(GIB, GIB + 5);
    assert_eq!(run(&[odd], &LIMITS), LayoutError::BadRange(odd));
    let (first, second) = (range(GIB, 2 * GIB), range(GIB + 4096, 3 * GIB));
    assert_eq!(
        run(&[first, second], &LIMITS),
        LayoutError::NotAscending {
            previous: first,
            range: second
        }
    );
    let outside = range(2 * GIB, 4 * GIB);
    assert_eq!(
        run(&[outside], &LIMITS),
        LayoutError::NotConvertible(outside)
    );
    let none = Limits {
        max_tdmrs: 0,
        ..LIMITS
    };
    assert_eq!(run(&[first], &none), LayoutError::TooManyTdmrs { max: 0 });
    let huge = Limits {
        pamt_4k_entry_size: u16::MAX,
        ..LIMITS
    };
    assert!(matches!(
        run(&[first, range(2 * GIB, 3 * GIB)], &huge),
        LayoutError::NoPamtMemory { .. }
    ));
}

/// Ascending disjoint ranges of 4 KiB pages below 8 GiB.
fn ranges(most: usize) -> impl Strategy<Value = Vec<MemoryRange>> {
    proptest::collection::btree_set(0_u64..(8 * GIB / 4096), 2..=2 * most).prop_map(|ends| {
        let ends: Vec<u64> = ends.into_iter().collect();
        ends.chunks_exact(2)
            .map(|pair| range(pair[0] * 4096, pair[1] * 4096))
            .collect()
    })
}

proptest! {
    #[test]
    fn every_layout_is_one_that_the_module_takes(
        cmrs in ranges(24),
        cuts in ranges(24),
        max_reserved_per_tdmr in 1_u16..=16,
    ) {
        // The host's memory: the CMRs without some holes.
        let mut memory = Vec::new();
        for cmr in &cmrs {
            for cut in &cuts {
                let start = cmr.start().max(cut.start());
                let end = cmr.end().min(cut.end());
                if start < end {
                    memory.push(MemoryRange::new(start, end).unwrap());
                }
            }
        }
        let limits = Limits { max_reserved_per_tdmr, ..LIMITS };
        let mut pamt_memory = FromTop::new(&memory);
        let mut tdmrs = [Tdmr::default(); 64];
        match lay_out(&memory, &cmrs, &limits, &mut pamt_memory, &mut tdmrs) {
            Ok(tdmrs) => {
                check_as_the_module_does(tdmrs, &cmrs, &limits);
                for given in &memory {
                    prop_assert!(tdmrs.iter().any(|tdmr| tdmr.range().overlaps(*given)));
                    // Reserved areas take away host memory only for PAMTs.
                    for area in tdmrs.iter().flat_map(|tdmr| tdmr.reserved()) {
                        if let Some(lost) = MemoryRange::new(
                            area.start().max(given.start()),
                            area.end().min(given.end()).max(area.start().max(given.start())),
                        ) {
                            let pamts: u64 = tdmrs
                                .iter()
                                .filter_map(|tdmr| {
                                    let pamts = tdmr.pamts();
                                    MemoryRange::new(
                                        pamts.start().max(lost.start()),
                                        pamts.end().min(lost.end()),
                                    )
                                })
                                .map(|range| range.size())
                                .sum();
                            prop_assert_eq!(pamts, lost.size());
                        }
                    }
                }
            }
            Err(_) => prop_assert_eq!(pamt_memory.allocated, pamt_memory.freed),
        }
    }
}
