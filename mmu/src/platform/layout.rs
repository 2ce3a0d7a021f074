//! TDMRs and PAMTs: which memory the TDX module shall manage, and where it keeps its metadata.
//!
//! The module accepts a TDMR whose base and size are multiples of 1 GiB, and wants every byte of it
//! either in a CMR or in one of its reserved areas (at most 16, ascending, multiples of 4 KiB). PAMTs
//! lie in CMRs and in no TDMR, except in its reserved areas. Source: `tdh_sys_config.c`.
//!
//! Reserved areas are drawn around what is not convertible, not around what the host's memory map
//! leaves out: firmware tables inside a CMR cost no reserved area, because the host never hands those
//! bytes out anyway. Hosts exist whose memory map has more holes than a TDMR may have reserved areas.

use core::fmt;

use tdx_abi::Hpa;
use tdx_abi::Level;

use super::MemoryRange;

/// Most reserved areas that the layout of a TDMR_INFO has room for.
pub const MAX_RESERVED_AREAS: usize = 16;

/// Sizes for which a TDMR has a PAMT each, in the order of TDMR_INFO.
const PAMT_LEVELS: [Level; 3] = [Level::Pdpt, Level::Pd, Level::Pt];

/// Granularity and alignment of a TDMR.
const TDMR_UNIT: u64 = Level::Pdpt.size();

/// What the module at hand allows, as TDH.SYS.RD tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Field MAX_TDMRS.
    pub max_tdmrs: u16,
    /// Field MAX_RESERVED_PER_TDMR. More than [`MAX_RESERVED_AREAS`] are not used.
    pub max_reserved_per_tdmr: u16,
    /// Field PAMT_4K_ENTRY_SIZE, in bytes.
    pub pamt_4k_entry_size: u16,
    /// Field PAMT_2M_ENTRY_SIZE, in bytes.
    pub pamt_2m_entry_size: u16,
    /// Field PAMT_1G_ENTRY_SIZE, in bytes.
    pub pamt_1g_entry_size: u16,
    /// Field PAMT_PAGE_BITMAP_ENTRY_BITS, where Dynamic PAMT is asked for: the area for 4 KiB pages has so many bits for
    /// each of them, and no entries. `None` for a PAMT that is there as a whole.
    pub pamt_page_bitmap_entry_bits: Option<u8>,
}

impl Limits {
    /// Bytes of the PAMT of `level` for a TDMR of `tdmr_size` bytes: whole 4 KiB pages.
    pub const fn pamt_size(&self, level: Level, tdmr_size: u64) -> Option<u64> {
        let entries = tdmr_size / level.size();
        let entry_size = match (level, self.pamt_page_bitmap_entry_bits) {
            (Level::Pt, Some(bits)) => {
                return match entries.checked_mul(bits as u64) {
                    Some(bits) => bits.div_ceil(8).checked_next_multiple_of(Level::Pt.size()),
                    None => None,
                };
            }
            (Level::Pt, None) => self.pamt_4k_entry_size,
            (Level::Pd, _) => self.pamt_2m_entry_size,
            (Level::Pdpt, _) => self.pamt_1g_entry_size,
            (Level::Pml4 | Level::Pml5, _) => return None,
        };
        match entries.checked_mul(entry_size as u64) {
            Some(bytes) => bytes.checked_next_multiple_of(Level::Pt.size()),
            None => None,
        }
    }

    fn pamt_sizes(&self, tdmr_size: u64) -> Option<[u64; 3]> {
        let mut sizes = [0; 3];
        for (size, level) in sizes.iter_mut().zip(PAMT_LEVELS) {
            *size = self.pamt_size(level, tdmr_size)?;
        }
        Some(sizes)
    }
}

/// Source of the memory that PAMTs occupy.
pub trait PamtMemory {
    /// `size` bytes of contiguous, convertible memory that nothing else uses, best near `tdmr`.
    ///
    /// `size` is a multiple of 4 KiB, and so must the answer be. `None` if there is no such memory.
    fn allocate(&mut self, size: u64, tdmr: MemoryRange) -> Option<Hpa>;

    /// Takes back what [`allocate`](Self::allocate) returned: the layout failed.
    fn free(&mut self, range: MemoryRange);
}

/// One TD memory region with its PAMTs and reserved areas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tdmr {
    range: MemoryRange,
    pamt: [MemoryRange; 3],
    reserved: [MemoryRange; MAX_RESERVED_AREAS],
    reserved_count: usize,
}

impl Tdmr {
    /// The memory from the region's first to its last byte, reserved areas included.
    pub const fn range(&self) -> MemoryRange {
        self.range
    }

    /// The PAMT for pages of `level`; `None` above 1 GiB.
    pub const fn pamt(&self, level: Level) -> Option<MemoryRange> {
        match level {
            Level::Pdpt => Some(self.pamt[0]),
            Level::Pd => Some(self.pamt[1]),
            Level::Pt => Some(self.pamt[2]),
            Level::Pml4 | Level::Pml5 => None,
        }
    }

    /// All three PAMTs as the one range that was allocated for them.
    pub const fn pamts(&self) -> MemoryRange {
        match MemoryRange::new(self.pamt[0].start(), self.pamt[2].end()) {
            Some(range) => range,
            None => self.pamt[0],
        }
    }

    /// The reserved areas, ascending, as absolute addresses.
    pub fn reserved(&self) -> &[MemoryRange] {
        &self.reserved[..self.reserved_count]
    }
}

/// Why there is no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The memory map names no memory.
    NoMemory,
    /// A range is empty or not a multiple of 4 KiB.
    BadRange(MemoryRange),
    /// A range starts before its predecessor ends.
    NotAscending {
        /// The predecessor.
        previous: MemoryRange,
        /// The range itself.
        range: MemoryRange,
    },
    /// Memory that shall be given to TDs is not convertible.
    NotConvertible(MemoryRange),
    /// More TDMRs are needed than the module, or the output, has room for.
    TooManyTdmrs {
        /// Room for this many.
        max: usize,
    },
    /// A PAMT's size overflows 64 bits.
    PamtSize(MemoryRange),
    /// No memory for the PAMTs of a TDMR.
    NoPamtMemory {
        /// The TDMR.
        tdmr: MemoryRange,
        /// Bytes that its three PAMTs need.
        size: u64,
    },
    /// The memory offered for PAMTs is unaligned, not convertible, or in use for another PAMT.
    BadPamtMemory(MemoryRange),
    /// A TDMR needs more reserved areas than it may have.
    TooManyReservedAreas {
        /// The TDMR.
        tdmr: MemoryRange,
        /// Areas needed, after joining those with no memory of the host in between.
        needed: usize,
        /// Areas allowed.
        max: usize,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => write!(f, "the memory map names no memory"),
            Self::BadRange(range) => {
                write!(f, "memory {range:?} is empty or not a multiple of 4 KiB")
            }
            Self::NotAscending { previous, range } => {
                write!(
                    f,
                    "memory {range:?} starts before its predecessor {previous:?} ends"
                )
            }
            Self::NotConvertible(range) => write!(f, "memory {range:?} is not within the CMRs"),
            Self::TooManyTdmrs { max } => write!(f, "more than {max} TDMRs are needed"),
            Self::PamtSize(range) => write!(f, "the PAMTs of TDMR {range:?} exceed 64 bits"),
            Self::NoPamtMemory { tdmr, size } => {
                write!(
                    f,
                    "no contiguous {size} bytes for the PAMTs of TDMR {tdmr:?}"
                )
            }
            Self::BadPamtMemory(range) => {
                write!(
                    f,
                    "memory {range:?} cannot hold PAMTs: unaligned, not convertible, or in use"
                )
            }
            Self::TooManyReservedAreas { tdmr, needed, max } => {
                write!(
                    f,
                    "TDMR {tdmr:?} needs {needed} reserved areas, but may have {max}"
                )
            }
        }
    }
}

impl core::error::Error for LayoutError {}

/// Lays out TDMRs over `memory`, the ranges from which the host will serve TDs, and returns those it
/// wrote to the front of `tdmrs`.
///
/// `memory` and `cmrs` are ascending and disjoint, `memory` lies within the CMRs. The PAMTs of each
/// TDMR are one allocation. On error whatever was allocated has been freed again.
pub fn lay_out<'t>(
    memory: &[MemoryRange],
    cmrs: &[MemoryRange],
    limits: &Limits,
    pamt_memory: &mut dyn PamtMemory,
    tdmrs: &'t mut [Tdmr],
) -> Result<&'t mut [Tdmr], LayoutError> {
    check_ranges(memory)?;
    if memory.is_empty() {
        return Err(LayoutError::NoMemory);
    }
    for &range in memory {
        if !is_convertible(range, cmrs) {
            return Err(LayoutError::NotConvertible(range));
        }
    }
    let max = usize::from(limits.max_tdmrs).min(tdmrs.len());
    let count = cover(memory, &mut tdmrs[..max])?;
    let tdmrs = &mut tdmrs[..count];

    let mut placed = 0;
    let result = place_pamts(tdmrs, cmrs, limits, pamt_memory, &mut placed)
        .and_then(|()| reserve_all(tdmrs, memory, cmrs, limits));
    if let Err(error) = result {
        for tdmr in &tdmrs[..placed] {
            pamt_memory.free(tdmr.pamts());
        }
        return Err(error);
    }
    Ok(tdmrs)
}

fn check_ranges(ranges: &[MemoryRange]) -> Result<(), LayoutError> {
    let mut previous: Option<MemoryRange> = None;
    for &range in ranges {
        if range.is_empty()
            || !range.start().is_aligned(Level::Pt)
            || !range.end().is_aligned(Level::Pt)
        {
            return Err(LayoutError::BadRange(range));
        }
        if let Some(previous) = previous
            && range.start() < previous.end()
        {
            return Err(LayoutError::NotAscending { previous, range });
        }
        previous = Some(range);
    }
    Ok(())
}

/// Whether `range` lies in CMRs; adjacent CMRs count as one, as the module counts them.
fn is_convertible(range: MemoryRange, cmrs: &[MemoryRange]) -> bool {
    let mut position = range.start();
    for cmr in cmrs {
        if cmr.start() <= position && position < cmr.end() {
            position = cmr.end();
        }
    }
    position >= range.end()
}

/// Covers `memory` with TDMRs of whole GiB, one for each range unless ranges share a GiB.
fn cover(memory: &[MemoryRange], tdmrs: &mut [Tdmr]) -> Result<usize, LayoutError> {
    let max = tdmrs.len();
    let mut count = 0;
    let mut covered = Hpa::new(0);
    for &range in memory {
        let start = range.start().align_down(Level::Pdpt).max(covered);
        let end = range
            .end()
            .bits()
            .checked_next_multiple_of(TDMR_UNIT)
            .map(Hpa::new)
            .ok_or(LayoutError::BadRange(range))?;
        let Some(uncovered) = MemoryRange::new(start, end).filter(|range| !range.is_empty()) else {
            continue;
        };
        let tdmr = tdmrs
            .get_mut(count)
            .ok_or(LayoutError::TooManyTdmrs { max })?;
        *tdmr = Tdmr {
            range: uncovered,
            ..Tdmr::default()
        };
        count += 1;
        covered = end;
    }
    Ok(count)
}

/// Allocates PAMTs; `placed` counts the TDMRs that have them, also when it fails.
fn place_pamts(
    tdmrs: &mut [Tdmr],
    cmrs: &[MemoryRange],
    limits: &Limits,
    pamt_memory: &mut dyn PamtMemory,
    placed: &mut usize,
) -> Result<(), LayoutError> {
    for index in 0..tdmrs.len() {
        let range = tdmrs[index].range;
        let too_large = LayoutError::PamtSize(range);
        let sizes = limits.pamt_sizes(range.size()).ok_or(too_large)?;
        let mut size = 0_u64;
        for part in sizes {
            size = size.checked_add(part).ok_or(too_large)?;
        }
        let start = pamt_memory
            .allocate(size, range)
            .ok_or(LayoutError::NoPamtMemory { tdmr: range, size })?;
        let all = MemoryRange::with_size(start, size).ok_or(too_large)?;
        let mut position = start;
        for (pamt, size) in tdmrs[index].pamt.iter_mut().zip(sizes) {
            *pamt = MemoryRange::with_size(position, size).ok_or(too_large)?;
            position = pamt.end();
        }
        *placed += 1;
        let taken = tdmrs[..index]
            .iter()
            .any(|other| other.pamts().overlaps(all));
        if taken || !start.is_aligned(Level::Pt) || !is_convertible(all, cmrs) {
            return Err(LayoutError::BadPamtMemory(all));
        }
    }
    Ok(())
}

fn reserve_all(
    tdmrs: &mut [Tdmr],
    memory: &[MemoryRange],
    cmrs: &[MemoryRange],
    limits: &Limits,
) -> Result<(), LayoutError> {
    let max = usize::from(limits.max_reserved_per_tdmr).min(MAX_RESERVED_AREAS);
    for index in 0..tdmrs.len() {
        let tdmr = tdmrs[index].range;
        let mut areas = reserved_areas(tdmr, cmrs, tdmrs, |_| false);
        if areas.needed > max {
            areas = reserved_areas(tdmr, cmrs, tdmrs, |gap| {
                !memory.iter().any(|range| range.overlaps(gap))
            });
        }
        if areas.needed > max {
            return Err(LayoutError::TooManyReservedAreas {
                tdmr,
                needed: areas.needed,
                max,
            });
        }
        tdmrs[index].reserved = areas.list;
        tdmrs[index].reserved_count = areas.needed;
    }
    Ok(())
}

/// Reserved areas of one TDMR; those that do not fit `list` are only counted.
struct Areas {
    list: [MemoryRange; MAX_RESERVED_AREAS],
    needed: usize,
}

/// The reserved areas of `tdmr`. Two of them become one where `expendable` says so of the gap between.
fn reserved_areas(
    tdmr: MemoryRange,
    cmrs: &[MemoryRange],
    tdmrs: &[Tdmr],
    expendable: impl Fn(MemoryRange) -> bool,
) -> Areas {
    let mut areas = Areas {
        list: [MemoryRange::default(); MAX_RESERVED_AREAS],
        needed: 0,
    };
    let mut previous: Option<MemoryRange> = None;
    let mut position = tdmr.start();
    while let Some(found) = next_reserved(position, tdmr.end(), cmrs, tdmrs) {
        position = found.end();
        let joined = previous
            .filter(|previous| {
                MemoryRange::new(previous.end(), found.start()).is_some_and(&expendable)
            })
            .and_then(|previous| MemoryRange::new(previous.start(), found.end()));
        if joined.is_none() {
            areas.needed += 1;
        }
        let area = joined.unwrap_or(found);
        if let Some(slot) = areas.list.get_mut(areas.needed - 1) {
            *slot = area;
        }
        previous = Some(area);
    }
    areas
}

/// The first reserved area at or after `position` and before `end`.
fn next_reserved(
    position: Hpa,
    end: Hpa,
    cmrs: &[MemoryRange],
    tdmrs: &[Tdmr],
) -> Option<MemoryRange> {
    let mut start = position;
    while start < end {
        let stop = reserved_until(start, cmrs, tdmrs);
        if stop > start {
            // What follows may be reserved for another reason.
            let mut stop = stop.min(end);
            while stop < end {
                let further = reserved_until(stop, cmrs, tdmrs).min(end);
                if further <= stop {
                    break;
                }
                stop = further;
            }
            return MemoryRange::new(start, stop);
        }
        start = usable_until(start, cmrs, tdmrs);
    }
    None
}

/// The end of what makes the page at `position` reserved: a hole between CMRs or a PAMT. `position`
/// itself if it is not reserved.
fn reserved_until(position: Hpa, cmrs: &[MemoryRange], tdmrs: &[Tdmr]) -> Hpa {
    for tdmr in tdmrs {
        let pamts = tdmr.pamts();
        if pamts.start() <= position && position < pamts.end() {
            return pamts.end();
        }
    }
    let page_end = Hpa::new(position.bits() | (Level::Pt.size() - 1));
    let convertible = |cmr: &&MemoryRange| cmr.start() <= position && page_end < cmr.end();
    if cmrs.iter().any(|cmr| convertible(&cmr)) {
        return position;
    }
    // Up to the first whole page of a CMR.
    cmrs.iter()
        .map(|cmr| Hpa::new(cmr.start().bits().next_multiple_of(Level::Pt.size())))
        .filter(|&start| start > position)
        .min()
        .unwrap_or(Hpa::new(u64::MAX).align_down(Level::Pt))
}

/// The end of what is not reserved and begins at `position`.
fn usable_until(position: Hpa, cmrs: &[MemoryRange], tdmrs: &[Tdmr]) -> Hpa {
    let cmr_end = cmrs
        .iter()
        .filter(|cmr| cmr.start() <= position && position < cmr.end())
        .map(|cmr| cmr.end().align_down(Level::Pt))
        .max();
    let pamt = tdmrs
        .iter()
        .map(|tdmr| tdmr.pamts().start())
        .filter(|&start| start > position)
        .min();
    match (cmr_end, pamt) {
        (Some(end), Some(pamt)) => end.min(pamt),
        (Some(end), None) => end,
        (None, Some(pamt)) => pamt,
        (None, None) => Hpa::new(u64::MAX).align_down(Level::Pt),
    }
}
