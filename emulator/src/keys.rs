//! KeyIDs of memory lines: under which key each was last written, and what of it caches may still hold.
//!
//! The content of memory is kept as plaintext whatever its key; these tags decide who gets to see it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::AtomicU16;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering;

use once_cell::race::OnceBox;

use crate::global::MAX_KEY_IDS;

/// Bytes of a line.
const LINE: u64 = 64;
const LINES: usize = 64;
/// KeyID of the host's own accesses.
const HOST_KEY: u16 = 0;

/// The line is the host's, whatever key the rest of the page has.
const HOST: u8 = 1 << 0;
/// The line was changed in part under the wrong key: nobody can read it.
const POISONED: u8 = 1 << 1;
/// A line of another key lay in a cache when the host wrote, and will overwrite what it wrote.
const OVERWRITTEN: u8 = 1 << 2;

/// What stands in the way of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// The line belongs to this private KeyID: there is no plaintext to be had.
    WrongKey {
        /// Physical address of the access.
        hpa: u64,
        /// The line's KeyID.
        key_id: u16,
    },
    /// The line is poisoned: reading it is a machine check.
    Poisoned {
        /// Physical address of the access.
        hpa: u64,
    },
    /// A cache line of a former owner was written back over what the host had written, because it wrote before
    /// TDH.PHYMEM.PAGE.WBINVD or the write-back of the KeyID.
    Overwritten {
        /// Physical address of the access.
        hpa: u64,
    },
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongKey { hpa, key_id } => {
                write!(f, "the line at {hpa:#x} is encrypted under KeyID {key_id}")
            }
            Self::Poisoned { hpa } => write!(f, "the line at {hpa:#x} is poisoned"),
            Self::Overwritten { hpa } => {
                write!(
                    f,
                    "a stale cache line was written back over the line at {hpa:#x}"
                )
            }
        }
    }
}

impl core::error::Error for LineFault {}

/// Tags of one page: 16 bytes.
#[derive(Default)]
struct Tag {
    /// Key of all lines but those that [`Tag::lines`] excepts.
    key: AtomicU16,
    /// KeyID in bits 15:0, its flush count in bits 31:16: such lines may lie in caches if the count is still the same.
    cached: AtomicU32,
    lines: OnceBox<[AtomicU8; LINES]>,
}

impl Tag {
    fn line(&self, line: usize) -> u8 {
        self.lines
            .get()
            .map_or(0, |lines| lines[line].load(Ordering::Acquire))
    }

    fn set_line(&self, line: usize, flags: u8) {
        if flags != 0 || self.lines.get().is_some() {
            let lines = self
                .lines
                .get_or_init(|| Box::new([const { AtomicU8::new(0) }; LINES]));
            lines[line].store(flags, Ordering::Release);
        }
    }

    fn clear_lines(&self) {
        for line in self.lines.get().into_iter().flatten() {
            line.store(0, Ordering::Release);
        }
    }
}

type Group = [Tag; 512];
type Region = [OnceBox<Group>; 512];

/// Tags of all pages; those of pages that nobody claimed take no memory.
pub(crate) struct KeyTags {
    regions: Vec<OnceBox<Region>>,
    /// How often the lines of each KeyID were written back on all packages.
    flushes: Vec<AtomicU16>,
}

impl KeyTags {
    /// Tags of 2^`address_bits` bytes: all memory is the host's.
    pub(crate) fn new(address_bits: u32) -> Self {
        let regions = 1usize << address_bits.clamp(30, 52).saturating_sub(30);
        Self {
            regions: (0..regions).map(|_| OnceBox::new()).collect(),
            flushes: (0..MAX_KEY_IDS).map(|_| AtomicU16::new(0)).collect(),
        }
    }

    fn region(&self, page: u64) -> &OnceBox<Region> {
        &self.regions[(page >> 18) as usize & (self.regions.len() - 1)]
    }

    fn known(&self, page: u64) -> Option<&Tag> {
        let group = self.region(page).get()?[(page >> 9) as usize & 511].get()?;
        Some(&group[page as usize & 511])
    }

    fn tag(&self, page: u64) -> &Tag {
        let region = self
            .region(page)
            .get_or_init(|| Box::new([const { OnceBox::new() }; 512]));
        let group = region[(page >> 9) as usize & 511]
            .get_or_init(|| Box::new(core::array::from_fn(|_| Tag::default())));
        &group[page as usize & 511]
    }

    fn flush_count(&self, key: u16) -> u16 {
        self.flushes
            .get(usize::from(key))
            .map_or(0, |count| count.load(Ordering::Acquire))
    }

    fn note_cached(&self, tag: &Tag, key: u16) {
        let value = u32::from(key) | u32::from(self.flush_count(key)) << 16;
        if tag.cached.load(Ordering::Relaxed) != value {
            tag.cached.store(value, Ordering::Release);
        }
    }

    /// Whether lines of another key than the host's may lie in caches.
    fn has_stale_lines(&self, tag: &Tag) -> bool {
        let cached = tag.cached.load(Ordering::Acquire);
        let (key, count) = (cached as u16, (cached >> 16) as u16);
        key != HOST_KEY && count == self.flush_count(key)
    }

    /// All of page number `page` was written under `key`.
    pub(crate) fn claim(&self, page: u64, key: u16) {
        let tag = self.tag(page);
        tag.clear_lines();
        tag.key.store(key, Ordering::Release);
        self.note_cached(tag, key);
    }

    /// Caches hold no line of page number `page` any more.
    pub(crate) fn flush_page(&self, page: u64) {
        if let Some(tag) = self.known(page) {
            tag.cached.store(0, Ordering::Release);
        }
    }

    /// Caches hold no line of KeyID `key` any more.
    pub(crate) fn flush_key(&self, key: u16) {
        if let Some(count) = self.flushes.get(usize::from(key)) {
            count.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// An access of a TD with KeyID `key` to the line at `hpa`; an error is a machine check.
    pub(crate) fn private_access(&self, hpa: u64, key: u16, write: bool) -> Result<(), LineFault> {
        let tag = self.tag(hpa >> 12);
        let found = tag.key.load(Ordering::Acquire);
        if found != key || tag.line(line_of(hpa)) != 0 {
            return Err(LineFault::Poisoned { hpa });
        }
        if write {
            self.note_cached(tag, key);
        }
        Ok(())
    }

    /// The host reads the line at `hpa`.
    pub(crate) fn host_read(&self, hpa: u64) -> Result<(), LineFault> {
        let Some(tag) = self.known(hpa >> 12) else {
            return Ok(());
        };
        let (key_id, flags) = (tag.key.load(Ordering::Acquire), tag.line(line_of(hpa)));
        if flags & POISONED != 0 {
            Err(LineFault::Poisoned { hpa })
        } else if flags & OVERWRITTEN != 0 {
            Err(LineFault::Overwritten { hpa })
        } else if key_id != HOST_KEY && flags & HOST == 0 {
            Err(LineFault::WrongKey { hpa, key_id })
        } else {
            Ok(())
        }
    }

    /// The host writes all of page number `page`, line by line without reading them.
    pub(crate) fn host_scrub(&self, page: u64) {
        let Some(tag) = self.known(page) else {
            return;
        };
        if self.has_stale_lines(tag) {
            for line in 0..LINES as u64 {
                self.host_write((page << 12) | (line * LINE), true);
            }
        } else {
            tag.clear_lines();
            tag.key.store(HOST_KEY, Ordering::Release);
        }
    }

    /// The host writes all (`whole`) or a part of the line at `hpa`.
    pub(crate) fn host_write(&self, hpa: u64, whole: bool) {
        let Some(tag) = self.known(hpa >> 12) else {
            return;
        };
        let line = line_of(hpa);
        let key = tag.key.load(Ordering::Acquire);
        let old = tag.line(line);
        let readable = old & POISONED == 0 && (key == HOST_KEY || old & HOST != 0);
        let mut flags = if key == HOST_KEY { 0 } else { HOST };
        if !whole && !readable {
            flags |= POISONED;
        }
        if self.has_stale_lines(tag) || (!whole && old & OVERWRITTEN != 0) {
            flags |= OVERWRITTEN;
        }
        tag.set_line(line, flags);
        let all_host = tag.lines.get().is_some_and(|lines| {
            lines
                .iter()
                .all(|line| line.load(Ordering::Acquire) == HOST)
        });
        if all_host {
            tag.key.store(HOST_KEY, Ordering::Release);
            tag.clear_lines();
        }
    }
}

/// The lines of a range: the first address of the range in each.
pub(crate) fn lines(hpa: u64, count: u64) -> impl Iterator<Item = u64> {
    let first = hpa & !(LINE - 1);
    (first..hpa + count)
        .step_by(LINE as usize)
        .map(move |line| line.max(hpa))
}

const fn line_of(hpa: u64) -> usize {
    (hpa / LINE) as usize % LINES
}

impl fmt::Debug for KeyTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyTags").finish_non_exhaustive()
    }
}
